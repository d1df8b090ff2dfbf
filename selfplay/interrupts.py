"""Stopping a run from outside: Ctrl-C, SIGTERM, a closed terminal, or a pipe with no reader left.

None of them ends a run at once. The current iteration is finished, a checkpoint is saved, and then
:class:`RunInterrupted` says where, and how to continue. A second signal ends the run immediately; it can then be
resumed from its previous checkpoint, as after a kill.

| what | exit status |
|---|---|
| SIGHUP (the terminal was closed) | 129 |
| SIGINT (Ctrl-C) | 130 |
| a closed pipe, as in ``mlbits train ... | head -1`` | 141 |
| SIGTERM | 143 |

Signal handlers are installed while a run is under way and restored after it: in the main thread, where Python handles
signals, and only for signals that have their default handling. A program's own handlers, and signals that are ignored
(by ``nohup``), are left alone.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

PIPE_STATUS = 141  # 128 + SIGPIPE, the shell's exit status for a process that a closed pipe ends
# A terminal's Ctrl-C reaches every process in it, and one of them may pass it on to its children as SIGTERM.
_ONE_REQUEST = 1.0  # seconds in which different signals are the same request


class RunInterrupted(KeyboardInterrupt):
    """A run that was stopped from outside.

    Args:
        text: where the run stopped and how to continue.
        status: the exit status: 128 + the signal's number.
        folder: the run's folder.
        checkpoint: the one that was saved, or None where the run was stopped at once.
    """

    def __init__(self, text: str, status: int, folder: Path, checkpoint: Path | None) -> None:
        super().__init__(text)
        self.status, self.folder, self.checkpoint = status, folder, checkpoint


class Interrupts:
    """Records requests to stop a run.

    Args:
        folder: the run's folder.

    Attributes:
        name: the first request's name, "" while there is none.
        status: the exit status.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.name, self.status = "", 0
        self._number, self._since = 0, 0.0

    @contextlib.contextmanager
    def watched(self) -> Iterator[Interrupts]:
        """Handle signals inside this context."""
        before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):
                number = getattr(signal, name, None)  # Windows has no SIGHUP
                if number is not None and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                    before[number] = signal.signal(number, self._note)
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def at_once(self, status: int | None = None) -> RunInterrupted:
        """The exception for a run that ends without another checkpoint."""
        text = f"stopped at once; to continue from the newest checkpoint: {resume_command(self._folder)}"
        return RunInterrupted(text, self.status if status is None else status, self._folder, None)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.name and (number == self._number or time.monotonic() - self._since > _ONE_REQUEST):
            raise self.at_once(128 + number)
        if not self.name:
            self._number, self._since = number, time.monotonic()
            self.name, self.status = signal.Signals(number).name, 128 + number
            # Not by print: the signal may have interrupted a print.
            with contextlib.suppress(OSError):
                os.write(
                    2, f"\n{self.name}: finishing the iteration, then saving; a second signal stops at once\n".encode()
                )

    def closed_pipe(self) -> None:
        """Record that the output has no reader any more."""
        if not self.name:
            self.name, self.status = "closed pipe", PIPE_STATUS

    def at_the_end(self) -> RunInterrupted:
        """The exception for a request that came as the run was finished; raise it, so that the command stops too."""
        text = f"{self.name}: the run is finished: {self._folder}\nevaluate: {eval_command(self._folder)}"
        return RunInterrupted(text, self.status, self._folder, None)


def resume_command(folder: Path) -> str:
    """The command that continues a run."""
    return f"mlbits resume {shlex.quote(str(folder))}"


def eval_command(folder: Path) -> str:
    """The command that evaluates a run's agent."""
    return f"mlbits eval {shlex.quote(str(folder))}"


# How to continue a command that Ctrl-C ended. A run that has started prints its own, more exact message.
_HOW_TO_CONTINUE = {
    "train": " before the run began",
    "resume": " before the run continued; nothing has changed, and the same command resumes it",
    "tournament": "; the games played so far are kept, and the same command continues",
    "sweep": "; what is trained so far is kept, and the same command continues",
    "reproduce": "; with --out the same command continues from what is saved, without it nothing is kept",
}


def interrupted_status(stop: KeyboardInterrupt, words: Sequence[str]) -> int:
    """Print, in a line or two, how to continue a command that was interrupted; returns its exit status.

    Args:
        stop: the exception that ended it.
        words: the command line after ``mlbits``.
    """
    status, text = 128 + signal.SIGINT, "interrupted" + "".join(_HOW_TO_CONTINUE.get(word, "") for word in words[:1])
    if isinstance(stop, RunInterrupted):
        status, text = stop.status, str(stop)
    if status == PIPE_STATUS:
        closed_pipe_status()
    with contextlib.suppress(OSError):  # the terminal may be gone
        print(f"\n{text}", file=sys.stderr, flush=True)
    return status


def closed_pipe_status() -> int:
    """Stop all printing into a closed pipe, also at process exit; returns the exit status."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return PIPE_STATUS
