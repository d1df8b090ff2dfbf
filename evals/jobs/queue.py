"""Running jobs: stored results are taken as they are, failed jobs tried again, those of killed processes run again.

Example:
    >>> from mlbits.evals.jobs.executors import open_executor
    >>> cubes = [Job(f"{n} cubed", "builtins:pow", {"base": n, "exp": 3}) for n in (3, 2)]
    >>> with open_executor() as executor:
    ...     [(outcome.job.name, outcome.value) for outcome in run_jobs(cubes, executor)]
    [('3 cubed', 27), ('2 cubed', 8)]
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mlbits.envs.core.errors import MlbitsError
from mlbits.evals.jobs.executors import Executor, Report
from mlbits.evals.jobs.job import Job, JobError
from mlbits.evals.jobs.store import Store

TRIES = 3
"""How often a job that raises an error is tried in all."""
LOSSES = 5
"""How many processes a job may lose before it is given up: it may be what kills them."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """How a job ended for good.

    Attributes:
        job: the job.
        value: what it returned.
        error: why it was given up, or "".
        final: whether its arguments are wrong.
        cause: the exception, where it was raised in this process.
        stored: whether the value was there before.
    """

    job: Job
    value: Any = None
    error: str = ""
    final: bool = False
    cause: Exception | None = None
    stored: bool = False

    def result(self) -> Any:
        """The value.

        Raises:
            JobError: if the job was given up; in this process what it raised, if that is an error of mlbits.
        """
        if not self.error:
            return self.value
        if isinstance(self.cause, MlbitsError):
            raise self.cause
        raise JobError(f"{self.job.name}: {self.error}") from self.cause


class JobQueue:
    """Jobs under way on an executor.

    Args:
        executor: where they run.
        store: where results are kept, or None.
        tries: how often a job that raises an error is tried in all; once if its arguments are wrong.
        losses: how many processes a job may lose.
        say: called with a line for each try that has to be repeated.
    """

    def __init__(
        self, executor: Executor, store: Store | None = None, *, tries: int = TRIES, losses: int = LOSSES,
        say: Say | None = None,
    ) -> None:  # fmt: skip
        self.executor, self.store, self.tries, self.losses, self._say = executor, store, tries, losses, say
        self._stored: deque[Outcome] = deque()
        self._under_way: dict[int, Job] = {}
        self._failed: dict[int, tuple[int, int]] = {}  # tries and losses so far
        self._tickets = 0

    def __len__(self) -> int:
        """How many jobs have been submitted whose outcome has not been taken."""
        return len(self._stored) + len(self._under_way)

    @property
    def full(self) -> bool:
        """Whether each slot has a job and the next one waits."""
        return len(self) > self.executor.slots

    def submit(self, job: Job) -> None:
        """Take a job; if its result is stored, that is its outcome."""
        found = None if self.store is None else self.store.read(job)
        if found is not None:
            self._stored.append(Outcome(job, found[0], stored=True))
            return
        ticket, self._tickets = self._tickets, self._tickets + 1
        self._under_way[ticket] = job
        self._failed[ticket] = (0, 0)
        self.executor.submit(ticket, job)

    def next(self) -> Outcome:
        """Wait for the next job to end for good; its result is stored by then.

        Raises:
            OSError: if a result cannot be stored.
        """
        if self._stored:
            return self._stored.popleft()
        while True:
            report = self.executor.next()
            job = self._under_way.get(report.ticket)
            if job is None:
                continue  # an orphan's: the job was run again, and has been told of
            if not (report.error or report.lost):
                del self._under_way[report.ticket]
                if self.store is not None:
                    self.store.write(job, report.value)
                return Outcome(job, report.value)
            given_up = self._again(report, job)
            if given_up is not None:
                del self._under_way[report.ticket]
                return given_up

    def _again(self, report: Report, job: Job) -> Outcome | None:
        """Run a job again, or give it up."""
        tries, losses = self._failed[report.ticket]
        tries, losses = tries + bool(report.error), losses + bool(report.lost)
        self._failed[report.ticket] = tries, losses
        if report.error and (report.final or tries >= self.tries):
            times = f" (tried {tries} times)" if tries > 1 else ""
            return Outcome(job, error=f"{report.error}{times}", final=report.final, cause=report.cause)
        if losses >= self.losses:
            return Outcome(job, error=f"{report.lost}; so did {losses} processes that ran it")
        if self._say is not None:
            self._say(f"{job.name}: {report.error or report.lost}; running it again")
        self.executor.submit(report.ticket, job)
        return None


def outcomes(jobs: Sequence[Job], queue: JobQueue) -> Iterator[Outcome]:
    """Run jobs; their outcomes as they come.

    Args:
        jobs: the jobs; equal ones are run once.
        queue: an empty queue.
    """
    waiting = deque(_first_of_each(jobs))
    while waiting or len(queue):
        while waiting and not queue.full:
            queue.submit(waiting.popleft())
        yield queue.next()


def in_order(jobs: Sequence[Job], queue: JobQueue) -> Iterator[Outcome]:
    """Run jobs; their outcomes in the order of the jobs, each as soon as it and all before it are there.

    Args:
        jobs: the jobs, no two of which are equal.
        queue: an empty queue.
    """
    found, given = dict[str, Outcome](), 0
    for outcome in outcomes(jobs, queue):
        found[outcome.job.key] = outcome
        while given < len(jobs) and jobs[given].key in found:
            yield found.pop(jobs[given].key)
            given += 1


def run_jobs(
    jobs: Sequence[Job], executor: Executor, *, store: Store | None = None, tries: int = TRIES, say: Say | None = None
) -> list[Outcome]:
    """Run jobs to their end; one that fails does not stop the others.

    Args:
        jobs: the jobs; of those of equal keys one is run.
        executor: where.
        store: where results are kept; those that are there are not computed again.
        tries: how often a job that raises an error is tried in all; once if its arguments are wrong.
        say: called with a line for each try that has to be repeated.

    Returns:
        The outcome of each job, in the order of the jobs: it does not depend on which ended first, nor on who ran it.
    """
    found = {outcome.job.key: outcome for outcome in outcomes(jobs, JobQueue(executor, store, tries=tries, say=say))}
    return [replace(found[job.key], job=job) for job in jobs]


def _first_of_each(jobs: Sequence[Job]) -> list[Job]:
    """The jobs without those that compute what an earlier one does."""
    found: dict[str, Job] = {}
    for job in jobs:
        found.setdefault(job.key, job)
    return list(found.values())
