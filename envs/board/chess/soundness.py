"""Whether states of chess hold together, on the host: what rules that read any other state might do is not defined.

The parts fit as those of a FEN do (:mod:`~mlbits.envs.board.chess.fen`): one king each, no pawn on the first or last
rank, castling rights only with king and rook at home, en passant only past a pawn that can have moved two squares, and
the side that is not to move is not in check. Without these, moves could take a king.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbits.envs.board.chess.actions import KING_KIND, PAWN, ROOK
from mlbits.envs.board.chess.compiled import STATE, compiled

# Castling rights: the bit, the side, and where its king and its rook are, as the side to move sees the board.
_RIGHTS = ((1, 0, 4, 7), (2, 0, 4, 0), (4, 1, 60, 63), (8, 1, 60, 56))
_ENDS = np.uint64(0xFF000000000000FF)
_ONE = np.uint64(1)


def sound(states: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether each of the states [B] holds together, bool [B]."""
    pieces, sides = states["pieces"], states["sides"]
    good: NDArray[np.bool_] = (sides[:, 0] & sides[:, 1]) == 0
    together = np.zeros(len(states), np.uint64)
    for kind in range(pieces.shape[1]):
        good &= (together & pieces[:, kind]) == 0
        together |= pieces[:, kind]
    good &= together == sides[:, 0] | sides[:, 1]
    for side in range(2):
        good &= np.bitwise_count(pieces[:, KING_KIND] & sides[:, side]) == 1
    good &= (pieces[:, PAWN] & _ENDS) == 0
    for bit, side, king, rook in _RIGHTS:
        home = _on(pieces[:, KING_KIND] & sides[:, side], king) & _on(pieces[:, ROOK] & sides[:, side], rook)
        good &= (states["castling"] & bit == 0) | home
    file = np.maximum(states["passant"], 0)
    moved = _on(pieces[:, PAWN] & sides[:, 1], 32 + file) & ~_on(together, 40 + file) & ~_on(together, 48 + file)
    good &= (states["passant"] < 0) | moved
    for k in np.flatnonzero(good & (states["over"] == 0)):
        good[k] = not _other_in_check(states[k])
    return good


def _on(squares: NDArray[np.uint64], square: Any) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (squares >> np.asarray(square).astype(np.uint64)) & _ONE != 0
    return found


def _other_in_check(state: Any) -> bool:
    one = np.zeros(1, STATE)
    one[0] = state
    return not compiled().complete(one)
