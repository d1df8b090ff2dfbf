"""The flags of commands whose work falls into parts that do not need each other (:mod:`mlbits.evals.jobs`)."""

from __future__ import annotations

from typing import Any

from mlbits.envs.core.config_fields import configuration, setting
from mlbits.selfplay.runs.config import ConfigError

MOST_JOBS = 100_000
_MOST_SEEDS = 10_000


@configuration(ConfigError)
class JobFlags:
    """Where the parts of a command run."""

    jobs: int | None = setting(
        None, "parts that run at once, each in a process of its own; by default 1, or as many as a cluster has CPUs",
        low=1, high=MOST_JOBS,
    )  # fmt: skip
    cluster: str = setting(
        "", "Ray cluster to run on: HOST:PORT of its head node, auto for the one of this machine, or local to start one"
    )


def check_seeds(seeds: Any) -> None:
    """Refuse a number of runs, one seed after another, that cannot be trained.

    Raises:
        ConfigError: naming it.
    """
    if isinstance(seeds, bool) or not isinstance(seeds, int) or not 1 <= seeds <= _MOST_SEEDS:
        raise ConfigError(f"seeds: got {seeds!r}; wanted a whole number from 1 to {_MOST_SEEDS:,}")
