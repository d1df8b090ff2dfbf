"""``mlbits bench [GROUP]``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import tyro

from mlbits.cli.printing import check_file, write_json
from mlbits.envs.core.config_fields import configuration, setting
from mlbits.selfplay.runs.command_line import read_flags
from mlbits.selfplay.runs.config import ConfigError
from mlbits.selfplay.runs.job_flags import JobFlags


@configuration(ConfigError)
class BenchFlags:
    """Measure steps per CPU-second and per second, beside the other libraries that are installed."""

    group: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="GROUP")] = setting(
        "all",
        "gridworld, cartpole, similarity, single, ppo, trpo, dqn, ddpg, sac, lpg, population, sb3, pool, tournament, "
        "diplomacy, boards or search; all by default (single and sb3 on the CPU alone)",
    )
    device: str = setting("cpu", "cpu or cuda")
    seconds: float = setting(1.0, "duration of each measurement", low=1e-6, unit="seconds")
    count: bool = setting(False, "count what each learner would launch on a GPU and wait for, without having one")
    where: tyro.conf.OmitArgPrefixes[JobFlags] = setting(JobFlags(), "where groups are measured")
    json: Path | None = setting(None, "write the rows to this file")


def parse(words: list[str]) -> Any:
    """The flags."""
    return read_flags(BenchFlags, "mlbits bench", words)


def command(words: list[str]) -> int:
    """Measure the speed of environments and agents on this machine."""
    flags = parse(words)
    check_file("json", flags.json)
    if flags.count:
        from mlbits.evals.benchmarks.device_counts import run_counts

        write_json(flags.json, run_counts())
        return 0
    from mlbits.envs.engine.processor import describe
    from mlbits.evals.benchmarks.groups import run_benchmarks
    from mlbits.selfplay.curves.progress import compilation_messages

    with compilation_messages():
        rows = run_benchmarks(
            flags.group, device=flags.device, seconds=flags.seconds, jobs=flags.where.jobs, cluster=flags.where.cluster
        )  # fmt: skip
    here = describe()
    processor = {"processor": here.name, "isa": here.isa, "cores": here.cores}
    write_json(flags.json, [dataclasses.asdict(row) | processor for row in rows])
    return 0
