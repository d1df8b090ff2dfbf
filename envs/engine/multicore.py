"""Decides when a batch is stepped on several cores: if it is safe, one batch at a time, and if it is faster."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class Cores:
    """Lets one batch at a time step on several cores, if this process may do so at all.

    Numba's threads do not survive a fork (OpenMP ends the child process that uses them), and one of its threading
    layers aborts when two threads enter it at once.
    """

    def __init__(self) -> None:
        self.used, self.lost = False, False
        self.lock = threading.Lock()

    def step(self, call: Callable[[], None]) -> None:
        """Make one call that runs on several cores, when no other thread is making one.

        The first call of a process is made in a separate thread: in it Numba starts OpenMP and sets the number of
        threads, which OpenMP stores per thread, and which torch, sharing the library, would otherwise inherit.
        """
        with self.lock:
            if self.used:
                call()
                return
            self.used = True
            with ThreadPoolExecutor(1) as once:
                once.submit(call).result()

    def after_fork(self) -> None:
        """In the child process: the parent's threads no longer exist."""
        self.lost = self.used
        self.lock = threading.Lock()


cores = Cores()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=cores.after_fork)


def usable_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class CoreChoice:
    """Decides from measured step times whether one batch is stepped on one core or on several.

    OpenMP's threads wait for each other. Where another process occupies a core, a step that gets both cores at once is
    as fast as ever and the next takes fifty times as long, so single steps say nothing; only sums do. Time lost
    compared to one core is therefore added up, with gains subtracted. When the sum passes a bound, the batch runs on
    one core for long enough to make the loss a small fraction of all time. Each such period directly after another
    halves that fraction, so that constant load costs next to nothing. The time of one core is a running mean, measured
    by every step of such a period and now and then in between.

    The decision depends only on the times passed in, and never changes the result of a step.
    """

    _FIRST = 5  # initial steps on one core; the first may compile, of the others the shortest counts
    _LOSS, _CREDIT = 0.010, 0.050  # seconds lost at which several cores are given up; most seconds of gain that count
    _STEPS_LOST, _STEPS_CREDIT = 4, 16  # the same in steps on one core, used where those take longer
    _FRACTION, _SMALLEST_FRACTION = 0.05, 0.005  # of all time that may be lost: after one failure, and after many
    _MEASURE_EVERY, _MEASURE_STEPS = 0.5, 50  # seconds, and steps, on several cores between measurements of one core
    _WEIGHT, _SELDOM_WEIGHT, _OUTLIER = 0.05, 0.3, 3.0  # of a new time in the mean; a longer one counts as 3 means

    def __init__(self) -> None:
        self._steps = 0
        self._one_core = float("inf")  # seconds per step
        self._period = 0.0  # seconds left on one core
        self._fraction = self._FRACTION
        self._lost = 0.0  # seconds on several cores beyond those of one, since the last change
        self._since = 0.0  # seconds on several cores since one core was last measured

    def several(self) -> bool:
        """Whether the next step should use several cores."""
        return self._steps >= self._FIRST and self._period <= 0 and not self._measures()

    def note(self, seconds: float) -> None:
        """Record how long the step took that :meth:`several` has just decided on."""
        several, measured = self.several(), self._measures()
        self._steps += 1
        if self._steps <= self._FIRST:
            if self._steps > 1:
                self._one_core = min(self._one_core, seconds)
        elif several:
            self._note_several(seconds)
        else:
            weight = self._SELDOM_WEIGHT if measured else self._WEIGHT
            self._one_core += weight * (min(seconds, self._OUTLIER * self._one_core) - self._one_core)
            self._period -= seconds
            self._since = 0.0

    def _measures(self) -> bool:
        return self._period <= 0 and self._since > max(self._MEASURE_EVERY, self._MEASURE_STEPS * self._one_core)

    def _note_several(self, seconds: float) -> None:
        self._since += seconds
        credit = max(self._CREDIT, self._STEPS_CREDIT * self._one_core)
        self._lost = max(self._lost + seconds - self._one_core, -credit)
        if self._lost <= -credit:
            self._fraction = self._FRACTION
        elif self._lost > max(self._LOSS, self._STEPS_LOST * self._one_core):
            self._period = self._lost / self._fraction
            self._fraction = max(self._fraction / 2, self._SMALLEST_FRACTION)
            self._lost = self._since = 0.0
