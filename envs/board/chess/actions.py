"""The 1,858 actions: all moves of some piece from a square to another, as the seat to move sees the board.

Actions 0 to 1,791 are the moves of a queen or a knight on an empty board, by origin (a1, b1, ..., h8), then by goal.
They serve all pieces: castling is the king's move of two squares, and a pawn that reaches the last rank becomes a
queen. 66 actions follow for promotion to rook, bishop or knight, by origin's file, goal's file, and piece in this
order.

Source: the numbers of moves are those of Leela Chess Zero's policy head, which orders them differently and has the
knight as the promotion without a letter.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlbits.envs.board.chess.bitboards import FALLING, FILE, KNIGHT, ONE, RANK_ATTACKS, RISING, SEVEN, count
from mlbits.envs.core.rules import rule

PAWN, KNIGHT_KIND, BISHOP, ROOK, QUEEN, KING_KIND = range(6)
LETTERS = "pnbrqk"

_RANK = np.array([int(RANK_ATTACKS[64 * (square % 8)]) << square // 8 * 8 for square in range(64)], np.uint64)
REACH = FILE | RISING | FALLING | KNIGHT | _RANK
FIRST = np.cumsum([0] + [int(squares).bit_count() for squares in REACH[:-1]]).astype(np.uint64)
PLAIN = int(FIRST[63]) + int(REACH[63]).bit_count()
LESSER = (ROOK, BISHOP, KNIGHT_KIND)  # the pieces of the actions from PLAIN on
_PROMOTIONS = [
    (48 + file, 56 + goal, kind)
    for file in range(8)
    for goal in (file - 1, file, file + 1)
    if 0 <= goal < 8
    for kind in LESSER
]
ACTIONS = PLAIN + len(_PROMOTIONS)
_PLAIN_MOVES = [(square, goal) for square in range(64) for goal in range(64) if int(REACH[square]) >> goal & 1]
ORIGIN = np.array([move[0] for move in _PLAIN_MOVES] + [move[0] for move in _PROMOTIONS], np.uint8)
GOAL = np.array([move[1] for move in _PLAIN_MOVES] + [move[1] for move in _PROMOTIONS], np.uint8)
_FIRST_LESSER = np.uint64(PLAIN)
_48, _TWO, _3 = np.uint64(48), np.uint64(2), np.uint64(3)


@rule
def action_of(origin: Any, goal: Any) -> Any:
    """The action of a move, where a pawn becomes a queen."""
    return FIRST[origin] + count(REACH[origin] & ((ONE << goal) - ONE))


@rule
def lesser_promotion(origin: Any, goal: Any) -> Any:
    """The first of the three actions by which a pawn becomes less than a queen."""
    # 3 * file + (goal's file - file) numbers the 22 pairs of files.
    pair = _TWO * (origin & SEVEN) + (goal & SEVEN)
    return _FIRST_LESSER + _3 * pair


def square_name(square: int) -> str:
    """The name of a square as white sees it, such as e4."""
    return "abcdefgh"[square % 8] + str(square // 8 + 1)


def move_names() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the actions by seat, in UCI's form; queen promotions are without their letter."""
    lesser = [LETTERS[kind] for _, _, kind in _PROMOTIONS]
    ends = [""] * PLAIN + lesser
    seats = []
    for turned in (0, 56):
        pairs = zip(ORIGIN, GOAL, ends, strict=True)
        seats.append(
            tuple(
                square_name(int(origin) ^ turned) + square_name(int(goal) ^ turned) + end for origin, goal, end in pairs
            )
        )
    return seats[0], seats[1]
