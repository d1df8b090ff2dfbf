"""Batches of copies placed in given states, for enumerating a whole game."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbits.envs.core.game import Game
from mlbits.envs.engine.cpu_copies import Copies

_SIZES = (64, 1024, 16384)  # numbers of copies of the pools
_OBSERVED_BYTES = 2**26  # upper bound on the observations of one pool


class StateCopies:
    """Pools of copies of several sizes, created on demand.

    Args:
        game: a game with any number of seats.
        timed: whether its rules read the elapsed time; if not, the copies never reach the time limit.

    Attributes:
        max_states: most states in one call.
    """

    def __init__(self, game: Game, *, timed: bool) -> None:
        self._game, self._timed = game, timed
        self._pools: dict[int, Copies] = {}
        observed = game.seats * game.observation.dtype.itemsize * int(np.prod(game.observation.shape))
        self.max_states = max(_SIZES[0], min(_SIZES[-1], _OBSERVED_BYTES // observed))

    def at(self, records: NDArray[Any]) -> Copies:
        """Copies in the given states (at most ``max_states``); the remaining copies are over and do not change."""
        size = next(size for size in (*_SIZES[:-1], self.max_states) if size >= len(records))
        if size not in self._pools:
            self._pools[size] = Copies(self._game, size, autoreset="disabled", illegal="replace", threads=1)
        copies = self._pools[size]
        copies.states["over"] = 1
        copies.states[: len(records)] = records
        if not self._timed:
            copies.states["elapsed"] = -1
        copies.refresh()
        return copies


def state_keys(records: NDArray[Any], key: np.dtype[Any]) -> NDArray[Any]:
    """Keys that identify states: packed records of the fields of ``key`` (whose first field is a filler)."""
    keys = np.zeros(len(records), key)
    for name in (key.names or ())[1:]:
        # Adding 0 turns -0.0 into the equal 0.0.
        keys[name] = records[name] + 0 if key[name].base.kind == "f" else records[name]
    return keys
