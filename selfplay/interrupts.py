"""What ends a run from outside: Ctrl-C, SIGTERM, a terminal that is closed, a pipe that nobody reads any more.

None of them breaks a run off. The iteration under way is finished, a checkpoint is saved, and then
:class:`RunInterrupted` says where, and how to go on. A second signal ends the run at once, wherever it is: it goes on
from the checkpoint before, as after a kill.

| what | exit status |
|---|---|
| SIGHUP (the terminal was closed) | 129 |
| SIGINT (Ctrl-C) | 130 |
| a closed pipe, as in ``mlbits train ... | head -1`` | 141 |
| SIGTERM | 143 |

Signals are taken over while a run is under way, and given back after it: in the main thread, where Python handles
them, and only those that have their usual meaning there. A program's own handlers, and signals that are ignored (by
``nohup``), are left alone.
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

PIPE_STATUS = 141  # 128 + SIGPIPE, what the shell says of others that a closed pipe ends
# A terminal's Ctrl-C reaches every process in it, and one of them may pass it on to its children as SIGTERM.
_ONE_REQUEST = 1.0  # seconds in which different signals are the same request


class RunInterrupted(KeyboardInterrupt):
    """A run that was stopped from outside.

    Args:
        text: where it stands and how to go on.
        status: of exit: 128 + the signal's number.
        folder: of the run.
        checkpoint: that was saved, or None where it was stopped at once.
    """

    def __init__(self, text: str, status: int, folder: Path, checkpoint: Path | None) -> None:
        super().__init__(text)
        self.status, self.folder, self.checkpoint = status, folder, checkpoint


class Interrupts:
    """Takes note of what asks a run to end.

    Args:
        folder: of the run.

    Attributes:
        name: of what asked first, "" while nothing has.
        status: of exit.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.name, self.status = "", 0
        self._number, self._since = 0, 0.0

    @contextlib.contextmanager
    def watched(self) -> Iterator[Interrupts]:
        """Take the signals over while within."""
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

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.name and (number == self._number or time.monotonic() - self._since > _ONE_REQUEST):
            raise RunInterrupted(
                f"stopped at once; {self._folder} goes on from its newest checkpoint: {resume_command(self._folder)}",
                128 + number, self._folder, None,
            )  # fmt: skip
        if not self.name:
            self._number, self._since = number, time.monotonic()
            self.name, self.status = signal.Signals(number).name, 128 + number
            # Not by print, which may be what the signal has interrupted.
            with contextlib.suppress(OSError):
                os.write(2, f"\n{self.name}: finishing the iteration, then saving; again: stop at once\n".encode())

    def closed_pipe(self) -> None:
        """Take note that nobody reads what is printed."""
        if not self.name:
            self.name, self.status = "closed pipe", PIPE_STATUS

    def at_the_end(self) -> RunInterrupted:
        """What says that a run was over anyway; to be raised, so that what comes after it ends too."""
        text = f"{self.name}: the run is finished: {self._folder}\nevaluate: {eval_command(self._folder)}"
        return RunInterrupted(text, self.status, self._folder, None)


def resume_command(folder: Path) -> str:
    """What continues a run."""
    return f"mlbits resume {shlex.quote(str(folder))}"


def eval_command(folder: Path) -> str:
    """What plays with its agent."""
    return f"mlbits eval {shlex.quote(str(folder))}"


# How to go on with a command that Ctrl-C ended. A run under way says so itself, more exactly.
_GOING_ON = {
    "train": " before the run began",
    "resume": " before the run went on; it is as it was, and the same command goes on with it",
    "tournament": "; the games that were played are kept, and the same command goes on",
    "reproduce": "; with --out the same command goes on with what it has, without it nothing is kept",
}


def interrupted_status(stop: KeyboardInterrupt, words: Sequence[str]) -> int:
    """Say, in a line or two, how to go on with a command that was interrupted; returns its exit status.

    Args:
        stop: what ended it.
        words: of the command, after ``mlbits``.
    """
    status, text = 128 + signal.SIGINT, "interrupted" + "".join(_GOING_ON.get(word, "") for word in words[:1])
    if isinstance(stop, RunInterrupted):
        status, text = stop.status, str(stop)
    if status == PIPE_STATUS:
        closed_pipe_status()
    with contextlib.suppress(OSError):  # the terminal may be gone
        print(f"\n{text}", file=sys.stderr, flush=True)
    return status


def closed_pipe_status() -> int:
    """Let nothing be printed into a closed pipe any more, even as the process ends; returns its exit status."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return PIPE_STATUS
