"""The three places where jobs are run, behind one interface: this process, local processes, a Ray cluster.

Example:
    >>> from mlbits.evals.jobs.job import Job
    >>> with open_executor() as executor:
    ...     executor.submit(0, Job("two cubed", "builtins:pow", {"base": 2, "exp": 3}))
    ...     executor.next()
    Report(ticket=0, value=8, error='', final=False, lost='', cause=None)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mlbits.evals.jobs.job import Job
from mlbits.selfplay.runs.config import ConfigError


@dataclass(frozen=True)
class Report:
    """How one try of a job ended.

    Attributes:
        ticket: the number that it was submitted with.
        value: what the job returned.
        error: the message of the exception that it raised, or "".
        final: whether the error is one in the arguments, so that another try is of no use.
        lost: what became of the process that ran it, or "" if it lived; nothing is known of the job then.
        cause: the exception itself, where it was raised in this process.
    """

    ticket: int
    value: Any = None
    error: str = ""
    final: bool = False
    lost: str = ""
    cause: Exception | None = None


class Executor(Protocol):
    """Runs jobs, each once; what is run again is decided by :class:`mlbits.evals.jobs.queue.JobQueue`."""

    @property
    def slots(self) -> int:
        """How many jobs run at once; it may change."""

    def submit(self, ticket: int, job: Job) -> None:
        """Take a job; more than ``slots`` wait."""

    def next(self) -> Report:
        """Wait until a job that was submitted ends."""

    def close(self) -> None:
        """End what still runs: runs of training save first."""


@contextlib.contextmanager
def open_executor(jobs: int | None = None, cluster: str = "", *, folder: Path | None = None) -> Iterator[Executor]:
    """An executor, closed at the end of the context.

    Args:
        jobs: how many jobs at once; None is 1, or as many as the cluster has CPUs.
        cluster: address of a Ray cluster, "auto" or "local"; "" for none. Without one, one job at a time runs in this
            process, and several in processes of their own.
        folder: the folder that the jobs write, which all nodes have to see, or None.

    Raises:
        ConfigError: for fewer than one job.
        ClusterError: if the cluster does not answer, or does not fit.
    """
    check_jobs(jobs)
    executor: Executor
    if cluster:
        from mlbits.evals.jobs.ray_cluster import RayCluster

        executor = RayCluster(cluster, jobs, folder=folder)
    elif (jobs or 1) == 1:
        from mlbits.evals.jobs.in_process import InProcess

        executor = InProcess()
    else:
        from mlbits.evals.jobs.local_processes import LocalProcesses

        executor = LocalProcesses(jobs or 1)
    try:
        yield executor
    finally:
        executor.close()


def check_jobs(jobs: int | None) -> None:
    """Refuse fewer than one job at once.

    Raises:
        ConfigError: naming the number.
    """
    if jobs is not None and jobs < 1:
        raise ConfigError(f"jobs: got {jobs}; wanted at least 1")
