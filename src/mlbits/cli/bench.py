"""``mlbits bench [GROUP]``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import tyro

from mlbits.cli.printing import check_file, write_json
from mlbits.envs.core.errors import MlbitsError
from mlbits.selfplay.runs.command_line import read_flags


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchFlags:
    """Measure steps per CPU-second and per second, beside the other libraries that are installed.

    Attributes:
        group: gridworld, cartpole, single, ppo, trpo, dqn, ddpg or sb3; None runs all.
        device: "cpu" or "cuda".
        seconds: how long each measurement takes.
        json: write the rows to this file.
    """

    group: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="GROUP")] = "all"
    device: str = "cpu"
    seconds: float = 1.0
    json: Path | None = None


def parse(words: list[str]) -> Any:
    """The flags."""
    return read_flags(BenchFlags, "mlbits bench", words)


def command(words: list[str]) -> int:
    """Measure the speed of environments and agents on this machine."""
    flags = parse(words)
    if not 0 < flags.seconds < float("inf"):
        raise MlbitsError(f"seconds: got {flags.seconds}; wanted a positive number")
    check_file("json", flags.json)
    from mlbits.envs.engine.processor import describe
    from mlbits.evals.benchmarks.groups import run_benchmarks
    from mlbits.selfplay.runs.progress import compilation_messages

    with compilation_messages():
        rows = run_benchmarks(flags.group, device=flags.device, seconds=flags.seconds)
    here = describe()
    processor = {"processor": here.name, "isa": here.isa, "cores": here.cores}
    write_json(flags.json, [dataclasses.asdict(row) | processor for row in rows])
    return 0
