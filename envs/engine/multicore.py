"""When a batch is stepped on several cores: whether it may, whose turn it is, and whether it pays."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class Cores:
    """Whether this process may step on several cores, and whose turn it is to.

    Numba's threads do not survive a fork (OpenMP's end the child that asks for them), and one of its threading
    layers aborts when two threads ask at once.
    """

    def __init__(self) -> None:
        self.used, self.lost = False, False
        self.turn = threading.Lock()

    def step(self, call: Callable[[], None]) -> None:
        """Make one call that runs on several cores, when it is this caller's turn.

        The process's first is made in a thread of its own: in it Numba starts OpenMP and sets the number of threads,
        which OpenMP keeps for each thread, and which torch, sharing the library, would take for its own.
        """
        with self.turn:
            if self.used:
                call()
                return
            self.used = True
            with ThreadPoolExecutor(1) as once:
                once.submit(call).result()

    def after_fork(self) -> None:
        """In the child: what the parent's threads held is gone."""
        self.lost = self.used
        self.turn = threading.Lock()


cores = Cores()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=cores.after_fork)


def usable_cores() -> int:
    """The cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Patience:
    """Whether several cores pay for one batch, from how long its steps took; on a machine that others use they may not.

    OpenMP's threads wait for each other, so where another process holds a core, a step that gets both cores at once is
    as fast as ever and the next takes fifty times as long: single steps say nothing, only sums do. Therefore seconds
    lost against one core are added up, gains against them, and where the sum passes a bound the batch goes to one core
    for as long as makes the loss a small share of all time; each such spell in a row makes the share half of the last,
    so that steady load costs next to nothing. One core's time is a running mean, measured on the way: by every step in
    a spell on one core, and now and then in between.

    A function of the times that it is given alone. Which way a step goes never changes its result.
    """

    _FIRST = 5  # steps on one core in the beginning; the first may compile, of the others the shortest counts
    _LOSS, _CREDIT = 0.010, 0.050  # seconds lost that end a time on several cores; seconds gained that are set against
    _STEPS_LOST, _STEPS_CREDIT = 4, 16  # the same in steps on one core, where those take longer
    _SHARE, _SMALLEST_SHARE = 0.05, 0.005  # what may be lost of all time: after one failure, and after many
    _MEASURE_EVERY, _MEASURE_STEPS = 0.5, 50  # seconds, and steps, on several cores between measurements of one core
    _WEIGHT, _SELDOM_WEIGHT, _OUTLIER = 0.05, 0.3, 3.0  # of a new time in the mean; a longer one counts as 3 means

    def __init__(self) -> None:
        self._steps = 0
        self._one_core = float("inf")  # seconds a step
        self._spell = 0.0  # seconds that are left on one core
        self._share = self._SHARE
        self._lost = 0.0  # seconds on several cores above those of one, since the last change
        self._since = 0.0  # seconds on several cores since one was measured

    def several(self) -> bool:
        """Whether the next step is for several cores."""
        return self._steps >= self._FIRST and self._spell <= 0 and not self._measures()

    def note(self, seconds: float) -> None:
        """Take in how long the step took that :meth:`several` has just decided on."""
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
            self._spell -= seconds
            self._since = 0.0

    def _measures(self) -> bool:
        return self._spell <= 0 and self._since > max(self._MEASURE_EVERY, self._MEASURE_STEPS * self._one_core)

    def _note_several(self, seconds: float) -> None:
        self._since += seconds
        credit = max(self._CREDIT, self._STEPS_CREDIT * self._one_core)
        self._lost = max(self._lost + seconds - self._one_core, -credit)
        if self._lost <= -credit:
            self._share = self._SHARE
        elif self._lost > max(self._LOSS, self._STEPS_LOST * self._one_core):
            self._spell = self._lost / self._share
            self._share = max(self._share / 2, self._SMALLEST_SHARE)
            self._lost = self._since = 0.0
