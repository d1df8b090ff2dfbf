"""A local process that runs jobs: one line of JSON in, one line of JSON out.

Its standard input is also its leash: when the process that started it closes that pipe, or is killed, the worker asks
itself to stop as SIGTERM does, so that a run of training saves first, and leaves. Ctrl-C in a terminal reaches all
processes in it, and is for the one that was started there; workers ignore it. What jobs print goes to standard error.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from typing import Any

from mlbits.evals.jobs.job import failure, job_from

PATIENCE = 60.0  # seconds in which a job that was told to stop has to


def main() -> None:
    """Run the jobs that come in, until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    jobs: queue.Queue[str | None] = queue.Queue()
    busy = threading.Event()
    threading.Thread(target=_read, args=(jobs, busy), daemon=True).start()
    while (line := jobs.get()) is not None:
        try:
            said: dict[str, Any] = {"value": job_from(line).compute()}
        except KeyboardInterrupt:
            return  # a run that was told to stop, and has saved
        except Exception as error:  # what the function raises is its own
            said = failure(error)
        try:
            text = json.dumps(said)
        except (TypeError, ValueError) as error:
            text = json.dumps({"error": f"the value is not plain data ({error})"})
        busy.clear()
        try:
            answers.write(text + "\n")
            answers.flush()
        except OSError:
            return  # nobody waits for it any more


def leave_when_let_go() -> None:
    """End this process, as SIGTERM does, once its standard input is closed."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        _stop()

    threading.Thread(target=wait, daemon=True).start()


def _read(jobs: queue.Queue[str | None], busy: threading.Event) -> None:
    for line in sys.stdin:
        busy.set()
        jobs.put(line)
    jobs.put(None)
    if busy.is_set():
        _stop()


def _stop() -> None:
    """As SIGTERM asks: a run saves and ends; whatever has not ended after a while is killed."""
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(PATIENCE)
    os._exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    main()
