"""How far a run is: its counters, which a checkpoint keeps as plain data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Counters:
    """How far a run is.

    Attributes:
        env_steps: environment steps so far, over all copies.
        iterations: iterations of the loop so far.
        wall_seconds: wall time over all processes of the run.
        cpu_seconds: CPU time over all processes of the run, imports included.
        solved_at: env_steps, wall_seconds and cpu_seconds when it was solved, or None.
        best_return_mean: best mean return of all evaluations, or None before the first.
        best_env_steps: env_steps of the best checkpoint, or None without one.
        evaluations_without_improvement: latest evaluations in a row whose mean return was no better than the best.
        evaluation: env_steps, return_mean, return_interval and episodes of the latest evaluation, or None.
        next_eval: env_steps at which the next evaluation is due.
        next_checkpoint: env_steps at which the next checkpoint is due.
        next_record: env_steps at which the next record is due.
        unrecorded_metrics: the learner's latest report since the last record.
        unrecorded_lengths: lengths of the episodes that ended since the last record.
    """

    env_steps: int = 0
    iterations: int = 0
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    solved_at: dict[str, float] | None = None
    best_return_mean: float | None = None
    best_env_steps: int | None = None
    evaluations_without_improvement: int = 0
    evaluation: dict[str, Any] | None = None
    next_eval: int = 0
    next_checkpoint: int = 0
    next_record: int = 0
    unrecorded_metrics: dict[str, Any] = field(default_factory=dict)
    unrecorded_lengths: list[int] = field(default_factory=list)

    def check(self) -> None:
        """Refuse a counter that is not of its kind, as a file may say.

        Raises:
            ValueError: naming it.
        """
        for name, value in vars(self).items():
            if not _FITS.get(type(getattr(_FRESH, name)), _is_optional)(value):
                raise ValueError(f"state.json: {name} is {value!r:.60}")

    def plain(self) -> dict[str, Any]:
        """The counters as plain data, by name."""
        return {**vars(self), "unrecorded_metrics": {name: float(v) for name, v in self.unrecorded_metrics.items()}}


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_optional(value: Any) -> bool:
    """Whether it may stand for what is not there at first: a number, or a table."""
    return value is None or _is_finite(value) or isinstance(value, dict)


_FRESH = Counters()
_FITS: dict[type, Callable[[Any], bool]] = {
    int: _is_count,
    float: _is_finite,
    list: lambda value: isinstance(value, list) and all(map(_is_count, value)),
    dict: lambda value: isinstance(value, dict) and all(map(_is_finite, value.values())),
}
