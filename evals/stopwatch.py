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


class Stopwatch:
    """Measures functions for a while, three times over."""

    def __init__(self, seconds: float, device: str = "cpu") -> None:
        self.seconds, self.device = seconds, device

    def row(self, name: str, call: Callable[[], Any], steps: int, peer: str | None = None) -> Row:
        """Call a function, which takes ``steps`` steps, again and again; the median rates."""
        call()
        rates = [self._once(call, steps) for _ in range(3)]
        cpu, wall = (statistics.median(column) for column in zip(*rates, strict=True))
        return Row(name, cpu, wall, peer)

    def _once(self, call: Callable[[], Any], steps: int) -> tuple[float, float]:
        self._wait()
        cpu, wall, calls = time.process_time(), time.perf_counter(), 0
        while calls == 0 or time.perf_counter() - wall < self.seconds / 3:
            call()
            calls += 1
        self._wait()
        return calls * steps / (time.process_time() - cpu), calls * steps / (time.perf_counter() - wall)

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()
