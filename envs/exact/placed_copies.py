"""Copies of a game that are put into given states: what reading a whole game stands on, a batch of states at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbits.envs.core.game import Game
from mlbits.envs.engine.cpu_copies import Copies

_SIZES = (64, 1024, 16384)  # of the pools of copies
_OBSERVED_BYTES = 2**26  # that observations of one pool may take


class StateCopies:
    """Copies in several sizes, made when they are first wanted.

    Args:
        game: of any number of seats.
        timed: whether its rules look at the time; if not, copies are out of the time limit's reach.

    Attributes:
        most: how many states are taken at once.
    """

    def __init__(self, game: Game, *, timed: bool) -> None:
        self._game, self._timed = game, timed
        self._pools: dict[int, Copies] = {}
        observed = game.seats * game.observation.dtype.itemsize * int(np.prod(game.observation.shape))
        self.most = max(_SIZES[0], min(_SIZES[-1], _OBSERVED_BYTES // observed))

    def at(self, records: NDArray[Any]) -> Copies:
        """Copies that are in the given states, at most ``most``; those left over are over, and stand still."""
        size = next(size for size in (*_SIZES[:-1], self.most) if size >= len(records))
        if size not in self._pools:
            self._pools[size] = Copies(self._game, size, autoreset="disabled", illegal="replace", threads=1)
        copies = self._pools[size]
        copies.states["over"] = 1
        copies.states[: len(records)] = records
        if not self._timed:
            copies.states["elapsed"] = -1
        copies.look()
        return copies


def state_keys(records: NDArray[Any], key: np.dtype[Any]) -> NDArray[Any]:
    """What tells states apart, as packed records of the fields of ``key`` (whose first is a filler)."""
    keys = np.zeros(len(records), key)
    for name in (key.names or ())[1:]:
        # Adding 0 makes -0.0 the 0.0 that it equals.
        keys[name] = records[name] + 0 if key[name].base.kind == "f" else records[name]
    return keys
