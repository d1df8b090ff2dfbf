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
    """Whether several cores pay for one batch; on a busy machine, or with a share of a core, they do not.

    OpenMP's threads spin while they wait for each other, so where one of them is not running a step can take fifty
    times as long (measured: 15 ms in place of 0.3). Therefore one core's time is measured first, and a call on several
    that takes longer is followed by a spell on one core, each such spell twice as long as the last.
    """

    _SHORTEST, _LONGEST = 8, 4096  # calls of a spell

    def __init__(self) -> None:
        self._left = 2  # calls of the present spell on one core; the first may compile, the second is a measurement
        self._spell = self._SHORTEST
        self._one_core = float("inf")

    def several(self) -> bool:
        """Whether the next call is for several cores."""
        return self._left == 0

    def note(self, seconds: float) -> None:
        """Take in how long the call took that :meth:`several` has just decided on."""
        if self._left > 0:
            self._left -= 1
            self._one_core = min(self._one_core, seconds)
        elif seconds > self._one_core:
            self._left, self._spell = self._spell, min(2 * self._spell, self._LONGEST)
        else:
            self._spell = self._SHORTEST
