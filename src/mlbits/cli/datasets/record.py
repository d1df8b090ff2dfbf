"""``mlbits record RUN`` and ``mlbits record ENV``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from mlbits.cli.printing import check_file, write_json
from mlbits.envs.core.config_fields import REQUIRED, configuration, setting
from mlbits.envs.core.errors import MlbitsError
from mlbits.selfplay.runs.config import ConfigError

if TYPE_CHECKING:
    from mlbits.selfplay.recording import Recorded
    from mlbits.selfplay.runs.env_flags import EnvFlags


@configuration(ConfigError)
class RecordFlags:
    """Play episodes and write them to a dataset in Minari's format: a run's agent, or a policy in an environment."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|ENV")] = setting(
        REQUIRED, "the run's folder, or an environment"
    )
    dataset: str = setting(REQUIRED, "name of the new dataset, as cartpole/medium-v0, or a new folder, as ./medium-v0")
    episodes: int = setting(0, "episodes to play; 0 is no limit", low=0)
    steps: int = setting(0, "steps after which no episode is begun; 0 is no limit", low=0)
    policy: str = setting(
        "", "who plays ENV: a bot (mlbits list agents), the folder of a run, MODEL.zip; by default random"
    )
    greedy: bool = setting(False, "take the most probable actions instead of sampling from the policy")
    seed: int = setting(0, "seed of the first episode (the next ones count up) and of the actions", low=0, high=2**62)
    num_envs: int = setting(0, "episodes played at once; 0 chooses", low=0, high=2**20)
    max_steps: int = setting(
        10_000, "steps after which an episode of an environment without a time limit is truncated", low=1
    )
    threads: int = setting(1, "CPU threads of torch", low=1, high=1024)
    json: Path | None = setting(None, "write the result to this file")


def parse(words: list[str]) -> tuple[Any, EnvFlags]:
    """The flags and the environment's settings."""
    from mlbits.selfplay.runs.env_flags import read_with_env

    first = words[0] if words and not words[0].startswith("-") else ""
    return read_with_env(RecordFlags, "mlbits record", words, first)


def command(words: list[str]) -> int:
    """Record a dataset."""
    flags, env_flags = parse(words)
    check_file("json", flags.json)
    if not flags.episodes and not flags.steps:
        raise MlbitsError("episodes: missing; wanted --episodes N, or --steps N")
    from mlbits.selfplay.curves.progress import compilation_messages
    from mlbits.selfplay.machine import set_up

    set_up(flags.threads)
    with compilation_messages():
        done = _record(flags, env_flags.over(flags))
    print(_report(flags, done))
    result = {name: getattr(done, name) for name in ("episodes", "steps", "games", "return_mean", "seconds")}
    write_json(flags.json, result | {"folder": str(done.folder)})
    return 130 if done.stopped == "SIGINT" else 143 if done.stopped else 0


def _record(flags: Any, settings: Mapping[str, Any]) -> Recorded:
    from mlbits.envs.doors.gymnasium_batch import check_env_id
    from mlbits.selfplay.recording import record
    from mlbits.selfplay.runs.folder import CONFIG
    from mlbits.selfplay.runs.saved_agents import load_agent_and_problems, open_guest

    if (Path(flags.source) / CONFIG).exists() or Path(flags.source).is_dir():
        if flags.policy:
            raise MlbitsError(f"policy: got {flags.policy}; {flags.source} is a run, whose agent plays; wanted ENV")
        agent, trained, state, problems = load_agent_and_problems(flags.source, "cpu")
        for problem in problems:
            print(f"skipped {problem}", file=sys.stderr)
        env, played = trained.env, {**trained.env_settings, **settings}
        about = {"policy": trained.agent, "run": Path(flags.source).name, "env_steps": state["env_steps"]}
    else:
        env, played, name = check_env_id(flags.source), dict(settings), flags.policy or "random"
        agent, about = open_guest(name, env, played), {"policy": name}
    return record(
        agent, env, flags.dataset, episodes=flags.episodes, steps=flags.steps, settings=played, seed=flags.seed,
        greedy=flags.greedy, num_envs=flags.num_envs, max_steps=flags.max_steps, about=about, say=_progress(flags),
    )  # fmt: skip


def _progress(flags: Any) -> Any:
    """A function that shows how far the recording is, on a terminal."""
    if not sys.stderr.isatty():
        return lambda episodes, steps: None
    goal = f"of {flags.episodes:,} episodes" if flags.episodes else "episodes"
    limit = f" of {flags.steps:,}" if flags.steps else ""

    def say(episodes: int, steps: int) -> None:
        print(f"\r{episodes:,} {goal}, {steps:,}{limit} steps ", end="", file=sys.stderr, flush=True)

    return say


def _report(flags: Any, done: Recorded) -> str:
    from shlex import quote

    lines = [
        f"{done.episodes:,} episodes, {done.steps:,} steps, mean return {done.return_mean:.4g}, in {done.seconds:.1f} s"
    ]
    if done.episodes != done.games:
        lines.append(f"{done.games:,} games; each seat's decisions are an episode of their own")
    if done.cut:
        lines.append(f"{done.cut:,} episodes were truncated after {flags.max_steps:,} steps (--max-steps)")
    if done.stopped:
        lines.append(f"{done.stopped}: the dataset is shorter than asked for, and whole")
    kept = "recorded" if done.probabilities else "not recorded"
    why = " (greedy)" if flags.greedy else "" if done.probabilities else " (the policy does not know them)"
    lines.append(f"log probabilities of the actions: {kept}{why}")
    lines.append(f"dataset: {done.folder}\nsummary: mlbits data {quote(flags.dataset)}")
    return "\n".join(lines)
