"""Measuring rates: rows of a benchmark, and the stopwatch that fills them."""

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
        name: what was done.
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
    """What was not measured.

    Attributes:
        name: what would have been done.
        reason: why not.
    """

    name: str
    reason: str


class Stopwatch:
    """Measures functions for a while, three times over.

    Args:
        seconds: of the three together.
        device: "cpu" or "cuda".
        clock: seconds of wall time; one that is made up serves tests.

    However slow a function is, a row takes at most four calls of it once ``limit`` seconds have passed.
    """

    def __init__(self, seconds: float, device: str = "cpu", *, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds, self.device, self._clock = seconds, device, clock
        self.limit = max(10.0, 10 * seconds)

    def warm_up(self, call: Callable[[], Any], warm: Callable[[], bool]) -> None:
        """Call a function until ``warm`` holds or ``limit`` seconds have passed, both looked at before each call."""
        began = self._clock()
        while not warm() and self._clock() - began < self.limit:
            call()

    def row(self, name: str, call: Callable[[], Any], steps: int, peer: str | None = None) -> Row:
        """Call a function, which takes ``steps`` steps, again and again; the median rates.

        Measurements that the limit leaves no time for are left out, but for the first.
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
        if self.device == "cuda":
            torch.cuda.synchronize()
