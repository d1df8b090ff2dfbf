"""Measuring rates: rows of a benchmark, and the stopwatch that measures them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement.

    Attributes:
        name: what was measured.
        per_cpu_second: steps per CPU-second.
        per_second: steps per wall second.
        peer: the library measured, with its version; None for mlbits.
    """

    name: str
    per_cpu_second: float
    per_second: float
    peer: str | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """A measurement that was skipped.

    Attributes:
        name: what would have been measured.
        reason: why it was skipped.
    """

    name: str
    reason: str


class Stopwatch:
    """Measures functions, three times each.

    Args:
        seconds: of the three measurements together.
        device: "cpu" or "cuda".
        clock: seconds of wall time; tests pass a fake one.

    However slow a function is, it is called at most four times once ``limit`` seconds have passed.
    """

    def __init__(self, seconds: float, device: str = "cpu", *, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds, self.device, self._clock = seconds, device, clock
        self.limit = max(10.0, 10 * seconds)

    def warm_up(self, call: Callable[[], Any], warm: Callable[[], bool]) -> None:
        """Call a function until ``warm`` holds or ``limit`` seconds have passed, both checked before each call."""
        began = self._clock()
        while not warm() and self._clock() - began < self.limit:
            call()

    def row(self, name: str, call: Callable[[], Any], steps: int, peer: str | None = None) -> Row:
        """Call a function, which takes ``steps`` steps, repeatedly; returns the median rates.

        At least one measurement is made; others are left out if the limit leaves no time for them.
        """
        began = self._clock()
        rates: list[tuple[float, float]] = []
        call()
        while not rates or (len(rates) < 3 and self._clock() - began < self.limit):
            rates.append(self._once(call, steps))
        cpu, wall = (statistics.median(column) for column in zip(*rates, strict=True))
        return Row(name, cpu, wall, peer)

    def _once(self, call: Callable[[], Any], steps: int) -> tuple[float, float]:
        self._wait()
        cpu, wall, calls = time.process_time(), self._clock(), 0
        while calls == 0 or self._clock() - wall < self.seconds / 3:
            call()
            calls += 1
        self._wait()
        return calls * steps / (time.process_time() - cpu), calls * steps / (self._clock() - wall)

    def _wait(self) -> None:
        if self.device == "cuda" and torch.cuda.is_available():  # else Numba's simulator, in tests
            torch.cuda.synchronize()
