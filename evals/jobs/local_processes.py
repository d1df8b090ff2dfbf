"""Jobs in processes of this machine, which stay for further jobs; one that is killed is replaced.

A worker is a new Python process (not a fork, which threads of torch and Numba do not survive). A thread for each waits
for its answers, so that this works where pipes cannot be polled.
"""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque

from mlbits.evals.jobs.executors import Report
from mlbits.evals.jobs.job import Job
from mlbits.evals.jobs.worker import PATIENCE

_PROGRAM = "import sys; sys.path[:] = sys.argv[1:]; from mlbits.evals.jobs import worker; worker.main()"


class _Worker:
    """A process, and the ticket of the job that it runs, or None."""

    def __init__(self, answers: queue.Queue[tuple[_Worker, str]]) -> None:
        self.ticket: int | None = None
        self.process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *sys.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        threading.Thread(target=self._listen, args=(answers,), daemon=True).start()

    def _listen(self, answers: queue.Queue[tuple[_Worker, str]]) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            answers.put((self, line))
        answers.put((self, ""))  # it has ended

    def give(self, ticket: int, job: Job) -> None:
        """Send a job; if the process has ended, its last answer says so."""
        assert self.process.stdin is not None
        self.ticket = ticket
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(job.text() + "\n")
            self.process.stdin.flush()

    def let_go(self) -> None:
        """Close its pipe, on which it leaves."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()

    def how_it_ended(self) -> str:
        """In words, once it has."""
        code = self.process.wait()
        if code >= 0:
            return f"ended with status {code}"
        with contextlib.suppress(ValueError):
            return f"was killed ({signal.Signals(-code).name})"
        return f"was killed (signal {-code})"


class LocalProcesses:
    """Runs jobs in processes, which are started when they are needed.

    Args:
        jobs: how many at most.
    """

    def __init__(self, jobs: int) -> None:
        self.slots = jobs
        self._workers: list[_Worker] = []
        self._waiting: deque[tuple[int, Job]] = deque()
        self._answers: queue.Queue[tuple[_Worker, str]] = queue.Queue()

    def submit(self, ticket: int, job: Job) -> None:
        """Take a job, and start it if a process is free."""
        job.text()  # raises here, and not in the middle of the work
        self._waiting.append((ticket, job))
        self._start()

    def next(self) -> Report:
        """Wait for the next answer, or the end of a process that has a job."""
        while True:
            worker, line = self._answers.get()
            ticket = worker.ticket
            worker.ticket = None
            if not line:
                self._workers.remove(worker)
                worker.let_go()
            self._start()
            if ticket is None:
                continue  # a process that ended without a job
            if not line:
                return Report(ticket, lost=f"its process {worker.process.pid} {worker.how_it_ended()}")
            return Report(ticket, **json.loads(line))

    def close(self) -> None:
        """Let the processes go: each stops its job, runs of training save first, and leaves."""
        self._waiting.clear()
        for worker in self._workers:
            worker.let_go()
        deadline = time.monotonic() + PATIENCE + 5
        for worker in self._workers:
            try:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
            except BaseException as error:  # a second Ctrl-C too
                for other in self._workers:
                    other.process.kill()
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
        self._workers.clear()

    def _start(self) -> None:
        """Give the jobs that wait to processes that are free."""
        while self._waiting:
            free = next((worker for worker in self._workers if worker.ticket is None), None)
            if free is None and len(self._workers) < self.slots:
                free = _Worker(self._answers)
                self._workers.append(free)
            if free is None:
                return
            free.give(*self._waiting.popleft())
