"""``mlbits eval RUN`` and ``mlbits eval MODEL.zip ENV``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from mlbits.cli.printing import check_file, write_json
from mlbits.envs.core.config_fields import REQUIRED, configuration, setting
from mlbits.envs.core.errors import MlbitsError
from mlbits.envs.core.printing import printable
from mlbits.envs.core.trust import TRUST_HELP, trusting_files
from mlbits.evals.off_policy.flags import OffPolicyFlags
from mlbits.selfplay.runs.config import ConfigError
from mlbits.selfplay.runs.search_flags import SearchFlags

if TYPE_CHECKING:
    from mlbits.selfplay.runs.env_flags import EnvFlags


@configuration(ConfigError)
class EvalFlags:
    """Play episodes with a trained agent; print the mean return, its 95% interval and the number of episodes."""

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|MODEL.zip")] = setting(
        REQUIRED,
        "the run's folder, a member of a population (.safetensors), or a model that Stable-Baselines3 saved, MODEL.zip",
    )
    env: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ENV")] = setting(
        "", "environment of MODEL.zip; a run knows its own"
    )
    checkpoint: str = setting(
        "latest", "of a run: latest, best (where training kept it), or the environment steps of one that was kept"
    )
    episodes: int = setting(100, "episodes to play")
    seed: int = setting(1, "seed of the episodes")
    sample: bool = setting(False, "sample actions from the policy instead of taking the most probable")
    device: str = setting("cpu", "cpu, cuda or auto")
    gif: Path | None = setting(
        None, "write an animation of the first episode to this file: .gif, .webp or .png (animated)"
    )
    replay: Path | None = setting(None, "write the first episode as a page to step through to this file, game.html")
    json: Path | None = setting(None, "write the result to this file")
    opponents: str = setting(
        "", "bot (mlbits list agents; mcts@simulations=100) or folder of another run, which plays all seats but one"
    )
    search: SearchFlags = setting(SearchFlags(), "search at play time")
    off_policy: str = setting("", "estimate the value from this dataset (its name or folder) instead of playing")
    ope: OffPolicyFlags = setting(OffPolicyFlags(), "off-policy evaluation")
    vec_normalize: Path | None = setting(None, "file of the VecNormalize that MODEL.zip was trained under")
    trust: bool = setting(False, TRUST_HELP)


def parse(words: list[str]) -> tuple[Any, EnvFlags]:
    """The flags and the environment's settings."""
    from mlbits.selfplay.runs.env_flags import read_with_env

    return read_with_env(EvalFlags, "mlbits eval", words)


def command(words: list[str]) -> int:
    """Evaluate an agent."""
    flags, env_flags = parse(words)
    check_file("json", flags.json)
    from mlbits.selfplay.curves.progress import compilation_messages

    if flags.off_policy:
        return _off_policy(flags, env_flags.over(flags))
    with trusting_files(flags.trust), compilation_messages():
        result = _evaluate(flags, env_flags.over(flags))
    for problem in result["passed_over"]:
        print(printable(f"skipped {problem}"), file=sys.stderr)
    _print_result(flags, result)
    if flags.gif is not None:
        print(f"animation: {flags.gif}")
    if flags.replay is not None:
        print(f"replay: {flags.replay}")
    write_json(flags.json, result)
    return 0


def _off_policy(flags: Any, settings: Mapping[str, Any]) -> int:
    """Estimate the value from a dataset."""
    from mlbits.evals.off_policy.runs import evaluate_run_off_policy, print_off_policy

    _check_is_no_name(flags.run)
    given = {
        "ENV": flags.env, "--opponents": flags.opponents, "--gif": flags.gif, "--replay": flags.replay,
        "--vec-normalize": flags.vec_normalize,
        "--search": flags.search.changes(), "--env": settings, "--checkpoint": flags.checkpoint != "latest",
    }  # fmt: skip
    for name, value in given.items():
        if value:
            raise MlbitsError(f"{name} cannot be used with --off-policy; wanted mlbits eval RUN --off-policy DATASET")
    result = evaluate_run_off_policy(
        flags.run, flags.off_policy, flags.ope, greedy=not flags.sample, seed=flags.seed, device=flags.device
    )
    for problem in result["passed_over"]:
        print(f"skipped {problem}", file=sys.stderr)
    print_off_policy(result)
    write_json(flags.json, result)
    return 0


def _evaluate(flags: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    from mlbits.evals.evaluate import evaluate_against, evaluate_copy, evaluate_model, evaluate_run
    from mlbits.selfplay.runs.saved_agents import SUFFIX

    _check_is_no_name(flags.run)
    common: dict[str, Any] = {
        "seed": flags.seed, "greedy": not flags.sample, "device": flags.device, "gif": flags.gif,
        "replay": flags.replay,
    }  # fmt: skip
    if flags.opponents:
        if flags.gif is not None or flags.env:
            raise MlbitsError("--gif and ENV cannot be used with --opponents; wanted mlbits eval RUN --opponents NAME")
        del common["gif"]
        common |= {"env_settings": settings, "search": flags.search.changes(), "checkpoint": flags.checkpoint}
        return evaluate_against(flags.run, flags.opponents, flags.episodes, **common)
    if Path(flags.run).suffix == SUFFIX:
        if flags.env or flags.vec_normalize is not None or flags.checkpoint != "latest":
            raise MlbitsError(f"ENV, --vec-normalize and --checkpoint: {flags.run} is one agent and has its own")
        return evaluate_copy(flags.run, flags.episodes, env_settings=settings, search=flags.search.changes(), **common)
    if not Path(flags.run).is_dir() and (flags.run.endswith(".zip") or Path(flags.run).exists()):
        if not flags.env:
            raise MlbitsError(f"eval: ENV missing; wanted mlbits eval {quote(flags.run)} ENV, the environment to play")
        if flags.checkpoint != "latest":
            raise MlbitsError(
                f"--checkpoint: got {flags.checkpoint} for MODEL.zip, which has one; wanted it with a run"
            )
        if flags.search.changes():
            raise MlbitsError("--search.NAME is for runs; MODEL.zip has no critic that a search can use")
        common |= {"env_settings": settings, "vec_normalize": flags.vec_normalize}
        return evaluate_model(flags.run, flags.env, flags.episodes, **common)
    if flags.env or flags.vec_normalize is not None:
        raise MlbitsError(f"ENV and --vec-normalize are for MODEL.zip; {flags.run} has its own")
    common |= {"env_settings": settings, "search": flags.search.changes(), "checkpoint": flags.checkpoint}
    return evaluate_run(flags.run, flags.episodes, **common)


def _check_is_no_name(run: str) -> None:
    """Refuse an agent's name, with what measures a bot."""
    from mlbits.agents.registry import AGENTS, bare_name

    name = bare_name(run)
    if name not in AGENTS or Path(run).exists():
        return
    if not AGENTS[name].bot:
        raise MlbitsError(f"run: got {run}, an agent that has not been trained; wanted the folder of a run")
    raise MlbitsError(
        f"run: got the bot {run}; wanted the folder of a run. Bots are measured by mlbits exploit {quote(run)} "
        f"--env ENV, by mlbits tournament, and as opponents: mlbits eval RUN --opponents {quote(run)}"
    )


def _print_result(flags: Any, result: Mapping[str, Any]) -> None:
    from mlbits.evals.headline import measured_lines
    from mlbits.selfplay.offline import tried_online
    from mlbits.selfplay.statistics import counted, interval_text

    measured = result.get("measured", {})
    same = "the same in every game" if measured.get("same_return") else None
    interval = same or interval_text(result["return_interval"], result["episodes"])
    at = f"checkpoint at {result['env_steps']:,} steps, " if "env_steps" in result else ""
    print(
        f"return {result['return_mean']:.4g} over {counted(result['episodes'], 'episode')} ({interval}); "
        f"{at}mean length {result['length_mean']:.1f}"
    )
    for line in measured_lines(measured):
        print(line)
    if "policies_tried_online" in result:
        print(tried_online.line(result))
    if "won" in result:
        low, high = result["won_interval"]
        print(
            f"in one seat (each in turn) against {flags.opponents}: won {result['won']:.1%} (sole highest return; 95% "
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
