"""Numbers that change over a run, as values of settings: a learning rate that falls, say.

A setting that takes a schedule takes a number, or a text in one of these forms (in Python, in TOML, and after a flag):

    "constant:3e-4"                       the same as the number
    "linear:3e-4:0"                       from 3e-4 at the start to 0 at the end
    "linear:1:0.05:0.2"                   from 1 to 0.05 over the first fifth of the run, then 0.05
    "cosine:3e-4:1e-5"                    the same ends along half a cosine (Loshchilov and Hutter 2017, equation 5)
    "piecewise:0=0,0.1=3e-4,1=0"          straight lines between points (progress = value): a warm-up, say
    "stepwise:0=1e-3,0.5=1e-4"            the value of the last point that was reached

A schedule is a function of the run's progress alone, the fraction of its steps (or CPU time) that is over, 0..1. So a
run that is resumed goes on where it was, and one whose number of steps is changed follows the schedule of the new
number from there on.

Example:
    >>> half = schedule("linear:3e-4:0")
    >>> half(0.5), half(1.0)
    (0.00015, 0.0)
    >>> [schedule("cosine:2:0")(progress) for progress in (0.0, 0.5, 1.0)]
    [2.0, 1.0, 0.0]
    >>> value_at(0.2, 0.75), value_at(0.2, 0.75, anneal=True)
    (0.2, 0.05)
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

Scheduled: TypeAlias = float | str  # the type of a setting that takes a number or a schedule

FORMS = "'linear:3e-4:0', 'cosine:3e-4:0', 'piecewise:0=0,0.1=3e-4,1=0' or 'stepwise:0=1e-3,0.5=1e-4'"

# How far from one point to the next a schedule is, given how far the progress is, both 0..1.
_SHAPES: dict[str, Callable[[float], float]] = {
    "constant": lambda _: 0.0,
    "linear": lambda way: way,
    "cosine": lambda way: (1 - math.cos(math.pi * way)) / 2,
    "piecewise": lambda way: way,
    "stepwise": lambda _: 0.0,
}


@dataclass(frozen=True, slots=True)
class Schedule:
    """A number as a function of the run's progress.

    Attributes:
        kind: a form of the module's docstring.
        points: (progress, value), progress 0..1 not falling; of two at one progress the later one counts there.
    """

    kind: str
    points: tuple[tuple[float, float], ...]

    def __call__(self, progress: float) -> float:
        """The value at a progress 0..1; before the first point and after the last one, theirs."""
        after = bisect_right(self.points, progress, key=lambda point: point[0])
        if after in (0, len(self.points)):
            return self.points[min(after, len(self.points) - 1)][1]
        (start, first), (end, last) = self.points[after - 1 : after + 1]
        return first + _SHAPES[self.kind]((progress - start) / (end - start)) * (last - first)

    @property
    def values(self) -> list[float]:
        """The values at its points, between which all others lie."""
        return [value for _, value in self.points]


@functools.lru_cache(256)
def schedule(text: str) -> Schedule:
    """The schedule that a text describes.

    Raises:
        ValueError: for a text of another form; the message says what was wanted.
    """
    kind, _, rest = text.partition(":")
    try:
        if kind in ("piecewise", "stepwise"):
            pairs = [part.split("=") for part in rest.split(",")]
            points = [(float(progress), float(value)) for progress, value in pairs]
        elif kind in _SHAPES:
            numbers = [float(part) for part in rest.split(":")]
            if kind == "constant":
                (only,) = numbers
                points = [(0.0, only)]
            else:
                first, last, share = numbers if len(numbers) == 3 else (*numbers, 1.0)
                points = [(0.0, first), (share, last)]
        else:
            raise ValueError
    except ValueError:
        raise ValueError(f"a number, or a schedule such as {FORMS}") from None
    when = [progress for progress, _ in points]
    if not (all(0 <= progress <= 1 for progress in when) and when == sorted(when)):
        raise ValueError("a schedule whose points are fractions of the run from 0 to 1, none before the last")
    return Schedule(kind, tuple(points))


def value_at(setting: Scheduled, progress: float, *, anneal: bool = False, left: float = 0.0) -> float:
    """The value of a setting at a progress.

    Args:
        setting: a number, or a schedule's text.
        progress: fraction of the run that is over, 0..1.
        anneal: whether a number falls linearly over the run; a schedule says itself how it changes.
        left: the fraction of the number that it falls to.
    """
    if isinstance(setting, str):
        return schedule(setting)(progress)
    return setting * (1 - (1 - left) * progress) if anneal else setting


def changes(setting: Scheduled, anneal: bool = False) -> bool:
    """Whether a setting changes over a run, and so is recorded as a curve."""
    return len(set(schedule(setting).values)) > 1 if isinstance(setting, str) else anneal
