"""The command line: ``mlbits train | resume | eval | tournament | exploit | solve | list | bench | reproduce | ...``.

Each command's flags come from the same typed dataclasses that the library uses, so a wrong flag names the right one.
Mistakes are answered by one line and exit status 2.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from mlbits.envs.core.errors import MlbitsError, UnknownIdError
from mlbits.evals.exploit_flags import ExploitFlags as _ExploitFlags
from mlbits.evals.tournament_config import TournamentFlags as _TournamentFlags
from mlbits.selfplay.command_line import read_flags, signature_fields
from mlbits.selfplay.interrupts import closed_pipe_status, interrupted_status
from mlbits.version import __version__

USAGE = f"""mlbits {__version__}: reinforcement-learning environments and agents

usage:
  mlbits train AGENT ENV [flags]   train an agent (mlbits train ppo mlbits/GridWorld-v0)
  mlbits resume RUN [flags]        continue an interrupted run
  mlbits eval RUN [flags]          play episodes with a trained agent: mean, 95% interval, a GIF
  mlbits eval RUN --opponents BOT  the agent in one seat, a bot or another run in the others
  mlbits eval MODEL.zip ENV        the same with a model that Stable-Baselines3 saved
  mlbits tournament RUN... [BOT..] who beats whom: payoff matrix, Elo, alpha-rank, Nash mixture
  mlbits exploit RUN [flags]       what a best response to an agent gains: exact, or a trained lower bound
  mlbits solve ENV [flags]         the exact optimum of a small environment, by dynamic programming
  mlbits list [WHAT]               what there is: envs, agents, presets, evals
  mlbits bench [GROUP] [flags]     how fast everything runs here, beside other libraries
  mlbits reproduce NAME [flags]    repeat a published or promised result
  mlbits diplomacy adjudicate FILE do a file of Diplomacy positions and compare
  mlbits diplomacy draw FILE       draw a saved Diplomacy game: --out game.html, .gif, .png or .svg

Every command takes --help; "mlbits train AGENT ENV --help" shows all settings of that pair with their values.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after ``mlbits``; None takes the process's own.

    Returns:
        The exit status: 0, 1 where a reproduction missed its target or a vector differs, 2 for a mistake or numbers
        that are not finite, and when stopped from outside 130 (Ctrl-C), 143 (SIGTERM, while a run is under way), 129
        (SIGHUP) or 141 (a closed pipe).
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        try:
            status = _run(words)
        except SystemExit as stop:  # tyro's, after --help
            status = int(stop.code or 0)
        sys.stdout.flush()  # here, where a closed pipe is still an error of ours
        return status
    except MlbitsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except MemoryError as error:
        why = f" ({error})" if str(error) else ""
        print(f"error: not enough memory{why}; wanted fewer copies (num_envs) or steps (num_steps)", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return closed_pipe_status()
    except OSError as error:  # a full disk, a folder that may not be written: what was saved before is whole
        where = f": {error.filename}" if error.filename else ""
        print(f"error: {error.strerror or error}{where}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        return interrupted_status(stop, words)


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    if words[0] in ("-V", "--version"):
        print(f"mlbits {__version__}")
        return 0
    if words[0] not in COMMANDS:
        raise UnknownIdError("command", words[0], COMMANDS)
    return COMMANDS[words[0]](words[1:])


@dataclasses.dataclass(frozen=True, kw_only=True)
class _ResumeFlags:
    """Continue a run from its newest whole checkpoint; on the CPU it ends as if it had never been interrupted.

    Attributes:
        run: the run's folder.
        total_steps: a new number of environment steps to end at.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    total_steps: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _EvalFlags:
    """Play episodes with a trained agent; print the mean return, its 95% interval and the number of episodes.

    Attributes:
        run: the run's folder, or a model that Stable-Baselines3 saved, MODEL.zip.
        env: for MODEL.zip, the environment; a run knows its own.
        episodes: how many to play.
        seed: of the episodes.
        sample: draw actions from the policy in place of taking the most probable.
        device: "cpu", "cuda" or "auto".
        gif: write an animation of the first episode to this file.
        json: write the result to this file.
        env_json: settings of the environment as JSON; they go over those that a run trained with.
        opponents: a bot (mlbits list agents) or another run's folder, which takes all seats but one.
        vec_normalize: for MODEL.zip, the file of the VecNormalize that it was trained under.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|MODEL.zip")]
    env: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ENV")] = ""
    episodes: int = 100
    seed: int = 1
    sample: bool = False
    device: str = "cpu"
    gif: Path | None = None
    json: Path | None = None
    env_json: str = "{}"
    opponents: str = ""
    vec_normalize: Path | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _ListFlags:
    """List what there is.

    Attributes:
        what: "envs", "agents", "presets" or "evals"; everything without it.
    """

    what: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="WHAT")] = "all"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _BenchFlags:
    """Measure steps per CPU-second and per second, beside the other libraries that are installed.

    Attributes:
        group: gridworld, cartpole, single, ppo, trpo, dqn, ddpg or sb3; all without it.
        device: "cpu" or "cuda".
        seconds: how long each measurement takes.
        json: write the rows to this file.
    """

    group: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="GROUP")] = "all"
    device: str = "cpu"
    seconds: float = 1.0
    json: Path | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class _ReproduceFlags:
    """Repeat a result and compare it with its target. "mlbits reproduce NAME --help" shows what else that one takes.

    Attributes:
        name: which one (mlbits list evals).
        quick: a short form with fewer seeds.
        json: write the result to this file.
    """

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    quick: bool = False
    json: Path | None = None


def _train(words: list[str]) -> int:
    from mlbits.selfplay.flags import parse_train

    settings, out, quiet = parse_train(words)
    from mlbits.evals.measures import during_training
    from mlbits.selfplay.loop import train

    if not quiet:
        preset = "no preset: defaults and flags" if settings.preset == "none" else f"preset {settings.preset}"
        print(f"training {settings.agent} on {settings.env} ({preset})", flush=True)
    folder, summary = train(settings, out, console=not quiet, measure=during_training)
    _print_run(folder, summary)
    return 0


def _resume(words: list[str]) -> int:
    flags = read_flags(_ResumeFlags, "mlbits resume", words)
    from mlbits.evals.measures import during_training
    from mlbits.selfplay.loop import resume

    folder, summary = resume(flags.run, total_steps=flags.total_steps, measure=during_training)
    _print_run(folder, summary)
    return 0


def _print_run(folder: Path, summary: dict[str, Any]) -> None:
    low, high = summary["return_interval"]
    print(
        f"return {summary['return_mean']:.4g} (95% interval {low:.4g} to {high:.4g}, {summary['episodes']} episodes) "
        f"after {summary['env_steps']:,} steps in {summary['wall_seconds']:.1f} s ({summary['cpu_seconds']:.1f} CPU-s)"
    )
    if solved := summary.get("solved_at"):
        print(f"solved at {solved['env_steps']:,} steps, {solved['cpu_seconds']:.1f} CPU-s after the process began")
    print(f"run: {folder}\ncurves: tensorboard --logdir {folder.parent}\nevaluate: mlbits eval {folder}")


def _eval(words: list[str]) -> int:
    flags = read_flags(_EvalFlags, "mlbits eval", words)
    from mlbits.evals.evaluate import evaluate_against, evaluate_model, evaluate_run
    from mlbits.selfplay.flags import json_settings

    common: dict[str, Any] = {
        "seed": flags.seed, "greedy": not flags.sample, "device": flags.device, "gif": flags.gif
    }  # fmt: skip
    settings = json_settings(flags.env_json)
    if flags.opponents:
        if flags.gif is not None or flags.env:
            raise MlbitsError("gif and env go without opponents; wanted mlbits eval RUN --opponents NAME")
        del common["gif"]
        result = evaluate_against(flags.run, flags.opponents, flags.episodes, env_settings=settings, **common)
    elif not Path(flags.run).is_dir() and (flags.run.endswith(".zip") or Path(flags.run).exists()):
        if not flags.env:
            raise MlbitsError(f"eval: ENV missing; wanted mlbits eval {flags.run} ENV, the environment to play")
        common |= {"env_settings": settings, "vec_normalize": flags.vec_normalize}
        result = evaluate_model(flags.run, flags.env, flags.episodes, **common)
    elif flags.env or flags.vec_normalize is not None:
        raise MlbitsError(f"env and vec_normalize are for MODEL.zip; {flags.run} knows its own")
    else:
        result = evaluate_run(flags.run, flags.episodes, env_settings=settings, **common)
    for problem in result["passed_over"]:
        print(f"passed over {problem}", file=sys.stderr)
    low, high = result["return_interval"]
    print(
        f"return {result['return_mean']:.4g}, 95% interval {low:.4g} to {high:.4g}, {result['episodes']} episodes "
        f"(checkpoint at {result['env_steps']:,} steps, mean length {result['length_mean']:.1f})"
    )
    if "won" in result:
        low, high = result["won_interval"]
        print(
            f"in one seat, turn about, against {flags.opponents}: won {result['won']:.1%} (highest return alone; 95% "
            f"interval {low:.1%} to {high:.1%}), tied {result['tied']:.1%}, lost {result['lost']:.1%}"
        )
    if "optimum" in result:
        share = result["share_of_optimum"]
        share = "" if share is None else f", {share:.1%} of it"
        score = "" if result["score"] is None else f", score {result['score']:.4g} (0 is random play, 1 the best)"
        print(
            f"exact optimum {result['optimum']:.4g} over {result['optimum_of']}{share}; random play "
            f"{result['random_return']:.4g}{score}"
        )
    if flags.gif is not None:
        print(f"animation: {flags.gif}")
    _write_json(flags.json, result)
    return 0


def _tournament(words: list[str]) -> int:
    flags = read_flags(_TournamentFlags, "mlbits tournament", words)
    from mlbits.evals.tournament_command import run_command

    found = run_command(flags)
    _write_json(flags.json, found)
    return 0


def _exploit(words: list[str]) -> int:
    flags = read_flags(_ExploitFlags, "mlbits exploit", words)
    from mlbits.evals.exploit import describe, exploit
    from mlbits.selfplay.flags import json_settings

    result = exploit(
        flags.players, flags.env, json_settings(flags.env_json), method=flags.method, steps=flags.steps,
        episodes=flags.episodes, learner=flags.learner, seed=flags.seed, greedy=flags.greedy, device=flags.device,
    )  # fmt: skip
    print(describe(result))
    _write_json(flags.json, result)
    return 0


def _solve(words: list[str]) -> int:
    from mlbits.selfplay.flags import parse_solve

    env, settings, flags = parse_solve(words)
    from mlbits.evals.solve import describe, solve

    result = solve(
        env, settings, discount=flags.discount, tolerance=flags.tolerance, state_limit=flags.state_limit,
        picture=flags.picture,
    )  # fmt: skip
    print(describe(result))
    if flags.picture is not None:
        print(f"picture: {flags.picture}")
    _write_json(flags.json, result)
    return 0


def _list(words: list[str]) -> int:
    flags = read_flags(_ListFlags, "mlbits list", words)
    from mlbits.agents import AGENTS
    from mlbits.envs.core.registry import registered
    from mlbits.evals import EVALS
    from mlbits.selfplay.config import presets

    tables = {
        "envs": [(entry.id, entry.summary) for entry in registered().values()],
        "agents": [(name, entry.summary) for name, entry in AGENTS.items()],
        "presets": [(f"{agent} {env}", "") for agent, envs in presets().items() for env in envs],
        "evals": [(name, entry.summary) for name, entry in EVALS.items()],
    }
    if flags.what != "all" and flags.what not in tables:
        raise UnknownIdError("list", flags.what, tables)
    for what, rows in tables.items():
        if flags.what in ("all", what):
            print(f"{what}:" if flags.what == "all" else "", end="\n" if flags.what == "all" else "")
            width = max(len(name) for name, _ in rows)
            for name, summary in rows:
                print(f"  {name:<{width}}  {summary}".rstrip())
    return 0


def _bench(words: list[str]) -> int:
    flags = read_flags(_BenchFlags, "mlbits bench", words)
    if not 0 < flags.seconds < float("inf"):
        raise MlbitsError(f"seconds: got {flags.seconds}; wanted a positive number")
    from mlbits.evals.benchmarks import run_benchmarks

    rows = run_benchmarks(flags.group, device=flags.device, seconds=flags.seconds)
    _write_json(flags.json, [dataclasses.asdict(row) for row in rows])
    return 0


def reproduce_flags(words: list[str]) -> Any:
    """The flags of a reproduction: those of all, and the other parameters of its own function.

    Raises:
        UnknownIdError: for an unknown reproduction.
    """
    from mlbits.evals import EVALS, eval_entry

    first = words[0] if words and not words[0].startswith("-") else None
    name = first or next((word for word in words if word in EVALS), None)
    if name is None:
        return _ReproduceFlags
    fields = signature_fields(eval_entry(name).load(), without=["quick"])
    flags = dataclasses.make_dataclass("Flags", fields, bases=(_ReproduceFlags,), frozen=True, kw_only=True)
    flags.__doc__ = _ReproduceFlags.__doc__
    return flags


def _reproduce(words: list[str]) -> int:
    prog = " ".join(["mlbits reproduce", *(word for word in words[:1] if not word.startswith("-"))])
    flags = read_flags(reproduce_flags(words), prog, words)
    from mlbits.evals import eval_entry

    common = {field.name for field in dataclasses.fields(_ReproduceFlags)} - {"quick"}
    settings = {field.name: getattr(flags, field.name) for field in dataclasses.fields(flags)}
    result = eval_entry(flags.name).load()(**{name: settings[name] for name in settings.keys() - common})
    _write_json(flags.json, result)
    print("target met" if result["met"] else "target missed")
    return 0 if result["met"] else 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class _AdjudicateFlags:
    """Adjudicate the vectors of a file (JSON or JSON lines, gzipped or not); print what differs and how many agree.

    Attributes:
        file: the vectors.
        rules: "datc-2.4" or "datc-3.0".
        map: "standard", "mini" or a file.
        results: count a vector as different where the names of its orders' fates alone differ.
    """

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    rules: str = "datc-2.4"
    map: str = "standard"
    results: bool = False


def _adjudicate(words: list[str]) -> int:
    flags = read_flags(_AdjudicateFlags, "mlbits diplomacy adjudicate", words)
    from mlbits.envs.diplomacy.board import load_board
    from mlbits.envs.diplomacy.vectors import check_vectors

    report = check_vectors(flags.file, flags.rules, load_board(flags.map), results=flags.results)
    print(report.text())
    return 0 if report.good else 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class _DrawFlags:
    """Draw a game from a file of saved games.

    Attributes:
        file: the games, one object or one a line.
        out: what to write: a page to step through (.html), an animation (.gif), or one phase (.png, .svg).
        game: which game of the file, 1 is the first.
        phase: one phase only, such as "F1903M"; a PNG or SVG shows the last one without it.
        map: "standard", "mini" or a file.
        size: width in pixels of a PNG or GIF.
        seconds: that each picture of a GIF stays.
    """

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    out: Path = Path("game.html")
    game: int = 1
    phase: str = ""
    map: str = "standard"
    size: int = 1000
    seconds: float = 1.5


def _draw(words: list[str]) -> int:
    flags = read_flags(_DrawFlags, "mlbits diplomacy draw", words)
    from mlbits.envs.diplomacy.board import load_board
    from mlbits.envs.diplomacy.replay_page import draw_game
    from mlbits.envs.diplomacy.saved_games import load_games

    games = load_games(flags.file, load_board(flags.map))
    if not 1 <= flags.game <= len(games):
        raise MlbitsError(f"game: got {flags.game}; wanted 1 to {len(games)}, the games of {flags.file}")
    draw_game(games[flags.game - 1], flags.out, flags.phase, flags.size, flags.seconds)
    print(f"drawn: {flags.out}")
    return 0


DIPLOMACY: dict[str, Callable[[list[str]], int]] = {"adjudicate": _adjudicate, "draw": _draw}


def _diplomacy(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(f"usage: mlbits diplomacy {'|'.join(DIPLOMACY)} ...\n\nEach takes --help.")
        return 0
    if words[0] not in DIPLOMACY:
        raise UnknownIdError("diplomacy command", words[0], DIPLOMACY)
    return DIPLOMACY[words[0]](words[1:])


def _write_json(path: Path | None, data: Any) -> None:
    if path is None:
        return
    try:
        path.write_text(json.dumps(data, indent=2) + "\n")
    except OSError as error:
        raise MlbitsError(f"json: {path} cannot be written ({error.strerror}); wanted a file of your own") from None


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "resume": _resume,
    "eval": _eval,
    "tournament": _tournament,
    "exploit": _exploit,
    "solve": _solve,
    "list": _list,
    "bench": _bench,
    "reproduce": _reproduce,
    "diplomacy": _diplomacy,
}

if __name__ == "__main__":
    sys.exit(main())
