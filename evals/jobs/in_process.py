"""Jobs in this process, one after another: the reference for the other executors."""

from __future__ import annotations

from collections import deque

from mlbits.evals.jobs.executors import Report
from mlbits.evals.jobs.job import Job, failure


class InProcess:
    """Runs a job when its result is asked for."""

    slots = 1

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, Job]] = deque()

    def submit(self, ticket: int, job: Job) -> None:
        """Take a job."""
        self._waiting.append((ticket, job))

    def next(self) -> Report:
        """Run the job that waits longest."""
        ticket, job = self._waiting.popleft()
        try:
            return Report(ticket, job.compute())
        except Exception as error:  # what the function raises is its own
            return Report(ticket, **failure(error), cause=error)

    def close(self) -> None:
        """Nothing runs between two calls."""
        self._waiting.clear()
