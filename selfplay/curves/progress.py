"""Progress: one line of the terminal or of a notebook's cell, rewritten in place, or else a plain line now and then.

The line always fits the terminal: the least important parts are dropped first. The time left comes from the speed of
the latest records, without those that are far slower than the rest, as when something was compiled; it is not
shown until there are enough records.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import statistics
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping

from mlbits.envs.core.printing import printable
from mlbits.envs.engine.compiling import logger
from mlbits.selfplay.curves.notebook import CellLine, in_notebook

TIMES = ("environment", "network", "learning", "evaluation", "rest")
_PLAIN_LINE_EVERY, _LIVE_LINE_EVERY = 5.0, 0.25  # seconds
_CELL_WIDTH = 110  # columns of a notebook's output, in which longer lines are broken
_RECORDS, _ENOUGH, _FAR_SLOWER = 30, 3, 4.0
# Labels of the latest numbers. Multi-agent games have better ones than a return that is 0 whatever is learned.
_OF_SELF_PLAY = (("exploitability/agent", "exploitability", ".3g"), ("pool/win_rate", "won against pool", ".0%"))
_OF_RETURNS = (("return/train", "return", ".3g"), ("return/eval", "eval", ".3g"))

_live: list[Progress] = []  # the one on the terminal, if any

PROGRESS = "run/progress"  # the fraction of a run with a time limit that is over, among its records


class Pace:
    """Steps a second over the latest records."""

    def __init__(self) -> None:
        self._last: int | None = None
        self._records: deque[tuple[int, float]] = deque(maxlen=_RECORDS)

    def add(self, step: int, speed: float) -> None:
        """Add a record.

        Args:
            step: environment steps so far.
            speed: steps a second since the previous record.
        """
        if self._last is not None and step > self._last and speed > 0:
            self._records.append((step - self._last, (step - self._last) / speed))
        self._last = step  # the first record, slower than any other, only sets the position

    def steps_per_second(self) -> float | None:
        """Steps a second, or None until it is known."""
        if len(self._records) < _ENOUGH:
            return None
        usual = statistics.median(seconds / steps for steps, seconds in self._records)
        kept = [(steps, seconds) for steps, seconds in self._records if seconds / steps <= _FAR_SLOWER * usual]
        return sum(steps for steps, _ in kept) / sum(seconds for _, seconds in kept)


class Progress:
    """The progress of a run.

    Args:
        total_steps: environment steps at which the run ends.
    """

    def __init__(self, total_steps: int) -> None:
        self._total = total_steps
        self._latest: dict[str, float] = {}
        self._first: tuple[float, float] | None = None  # of a run with a time limit: fraction over, time
        self._pace = Pace()
        self._spent = dict.fromkeys(TIMES, 0.0)  # seconds since the previous line, approximately
        self._recorded_at = time.monotonic()
        self._shown_at = 0.0
        self._line = ""
        self._terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self._cell = CellLine() if in_notebook() else None
        if self._terminal:
            _live[:] = [self]

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Show the latest record."""
        self._latest |= values
        if "speed/steps_per_second" not in values:
            return
        self._pace.add(step, values["speed/steps_per_second"])
        now = time.monotonic()
        for part in TIMES:
            self._spent[part] += values.get(f"time/{part}", 0.0) * (now - self._recorded_at)
        self._recorded_at = now
        live = self._terminal or self._cell is not None
        if now - self._shown_at < (_LIVE_LINE_EVERY if live else _PLAIN_LINE_EVERY) and step < self._total:
            return
        self._shown_at = now
        line = fit(self._cells(step), self._width())
        self._spent = dict.fromkeys(TIMES, 0.0)
        if self._cell is not None:
            self._cell.write(line)
        elif self._terminal:
            self._write_over(line)
        else:
            print(line, flush=True)

    def say(self, text: str) -> None:
        """Print a line above the progress."""
        line = self._line
        if line:
            self._write_over("")
        print(printable(text, keep="\n"), flush=True)
        if line:
            self._write_over(line)

    def close(self) -> None:
        """Keep the last line on the terminal and end it."""
        if self._line:
            print(flush=True)
            self._line = ""
        if self in _live:
            _live.remove(self)

    def _write_over(self, line: str) -> None:
        print(f"\r{line:<{len(self._line)}}", end="" if line else "\r", flush=True)
        self._line = line

    def _width(self) -> int:
        """Columns for a line; the terminal's last column stays free, since some terminals wrap after it."""
        if self._terminal:
            return max(1, shutil.get_terminal_size().columns - 1)
        columns = os.environ.get("COLUMNS", "")
        unknown = sys.maxsize if self._cell is None else _CELL_WIDTH
        return int(columns) if columns.isdigit() and int(columns) > 0 else unknown

    def _cells(self, step: int) -> list[tuple[int, str]]:
        values = self._latest
        pace = self._pace.steps_per_second()
        speed = pace or values.get("speed/steps_per_second", 0.0)
        over, left = values.get(PROGRESS), max(0, self._total - step) / pace if pace else None
        if over is None:
            cells = [(0, f"{step:,}/{self._total:,} steps ({min(1.0, step / self._total):.0%})")]
        else:
            cells, left = [(0, f"{step:,} steps ({min(1.0, over):.0%})")], self._time_left(over)
        cells.append((4, f"{short(speed)} steps/s"))
        shown = [entry for entry in _OF_SELF_PLAY if entry[0] in values] or _OF_RETURNS
        cells += [
            (2 + k, f"{label} {values[name]:{form}}") for k, (name, label, form) in enumerate(shown) if name in values
        ]
        if left is not None:
            cells.append((1, f"{duration(left)} left"))
        spent = max(sum(self._spent.values()), 1e-9)
        shares = {part: seconds / spent for part, seconds in self._spent.items()}
        parts = [f"{part} {used:.0%}" for part, used in shares.items() if used >= 0.005]
        return [*cells, *([(5, " ".join(parts))] if parts else [])]

    def _time_left(self, over: float) -> float | None:
        """Seconds until a run with a time limit ends, or None until that is known."""
        now = time.monotonic()
        self._first = self._first or (over, now)
        before, began = self._first
        return (now - began) * max(0.0, 1 - over) / (over - before) if over > before else None


def fit(cells: list[tuple[int, str]], width: int) -> str:
    """Join cells into a line of at most ``width`` columns.

    Args:
        cells: in display order, each with its rank (0 is dropped last) and its text.
        width: columns.
    """
    kept = list(cells)
    while len(line := "  ".join(text for _, text in kept)) > width and len(kept) > 1:
        kept.remove(max(kept))
    if len(line) > width and "(" in line:  # "1,000/300,000 steps (0%)": the percentage alone
        line = line.rpartition("(")[2].rstrip(")")
    return line[:width]


def say(text: str) -> None:
    """Print a line, above the progress line if there is one on the terminal."""
    if _live:
        _live[0].say(text)
    else:
        print(printable(text, keep="\n"), flush=True)


class _PrintHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Print the message."""
        say(record.getMessage())


@contextlib.contextmanager
def compilation_messages(wanted: bool = True) -> Iterator[None]:
    """Print what is being compiled, while inside this context.

    Args:
        wanted: False prints nothing.
    """
    if not wanted:
        yield
        return
    handler, before = _PrintHandler(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def short(number: float) -> str:
    """A number in few characters: 1.23M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"


def duration(seconds: float) -> str:
    """Seconds as 0:42 or 1:02:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
