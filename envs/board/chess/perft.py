"""Perft: the number of sequences of legal moves of a given length.

It counts moves only: draws by rule (fifty moves, repetition, material) do not end a sequence, as in all published
tables. The last ply is counted without playing it.

Example:
    >>> from mlbits.envs.board.chess.fen import from_fen
    >>> perft(from_fen("3k4/3p4/8/K1P4r/8/8/8/8 b - - 0 1"), 3)
    1670
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlbits.envs.board.chess.actions import ACTIONS
from mlbits.envs.board.chess.bitboards import ALL
from mlbits.envs.board.chess.movement import count_moves, write_moves
from mlbits.envs.board.chess.position import move
from mlbits.envs.core.rules import rule
from mlbits.envs.core.settings import integer


@rule(inline=False)
def perft_of(states: Any, masks: Any, cursors: Any) -> Any:
    """Count from states[0], as deep as there are states, at least 1; all arrays are working memory, one row a ply."""
    last = len(states) - 1
    if last == 0:
        return count_moves(states[0], ALL)
    ply, found = 0, np.uint64(0)
    write_moves(states[0], masks[0])
    cursors[0] = 0
    while ply >= 0:
        action = cursors[ply]
        while action < ACTIONS and not masks[ply, action]:
            action += 1
        cursors[ply] = action + 1
        if action >= ACTIONS:
            ply -= 1
            continue
        states[ply + 1] = states[ply]
        move(states[ply + 1], action)
        if ply + 1 == last:
            found += count_moves(states[last], ALL)
        else:
            ply += 1
            cursors[ply] = 0
            for k in range(ACTIONS):
                masks[ply, k] = False
            write_moves(states[ply], masks[ply])
    return found


def perft(state: Any, depth: int) -> int:
    """Count the sequences of ``depth`` legal moves from a state.

    Args:
        state: a state of ``mlbits/Chess-v0``, as of ``from_fen`` or ``batch.records()``.
        depth: the number of plies, 0 to 100.

    Returns:
        The count.

    Raises:
        GameError: for another depth.
    """
    from mlbits.envs.board.chess.compiled import as_states, compiled

    depth = integer("depth", depth, 0, 100)
    if depth == 0:
        return 1
    states = np.repeat(as_states(state), depth)
    return int(compiled().perft(states, np.zeros((depth, ACTIONS), bool), np.zeros(depth, np.int64)))
