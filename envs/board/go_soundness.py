"""Whether states of Go hold together, on the host: walks over chains that are no rings would never end."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbits.envs.board.go_tables import FREE, OUTSIDE


def sound(board: NDArray[np.uint64], states: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether stones, free points and moves fit, every chain is a ring, and the table of positions has free slots.

    Args:
        board: the points of the board, as words.
        states: states [B].
    """
    points = states["following"].shape[1]
    black, white, free = states["stones"][:, 0], states["stones"][:, 1], states["free"]
    good = ((black | white | free) == board).all(1) & ((black & white) | (black & free) | (white & free) == 0).all(1)
    good &= (states["moves"] & ~free == 0).all(1) & (states["head"][:, points] == OUTSIDE)
    head, here = states["head"][:, :points].astype(np.int64), np.arange(points)
    stone = head != FREE
    bits = np.unpackbits(free.view(np.uint8).reshape(len(states), -1), axis=1, bitorder="little")[:, :points]
    good &= (stone == (bits == 0)).all(1)
    head = np.where(stone, head, here)
    good &= (head < points).all(1)
    head = np.minimum(head, points - 1)
    after = np.where(stone, states["following"], here).astype(np.int64)
    # A permutation goes round in rings; each ring is a chain, with one head on it.
    good &= (np.sort(after, axis=1) == here).all(1)
    good &= (np.take_along_axis(head, after, 1) == head).all(1) & (np.take_along_axis(head, head, 1) == head).all(1)
    good &= (states["seen"] != 0).sum(1) <= states["played"] + 1
    return good
