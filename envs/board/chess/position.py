"""A position, and what a move makes of it.

Fields of a state, with the board as the side to move sees it (``bitboards``):

| field | meaning |
|---|---|
| ``pieces`` | uint64 [6]: pawns, knights, bishops, rooks, queens, kings of both sides |
| ``sides`` | uint64 [2]: the pieces of the side to move, and of the other |
| ``castling`` | rights left: bits 1 and 2 short and long for the side to move, 4 and 8 for the other |
| ``passant`` | the file of a pawn that may be taken en passant, -1 if no legal move does so |
| ``clock`` | plies since the last capture or pawn move |
| ``number`` | the number of the full move, as players count |
| ``key`` | 64-bit Zobrist key: pieces, side to move, castling rights, ``passant`` |
| ``history`` | uint64 [100]: the keys of the positions since that capture or pawn move, by ``clock`` |
| ``repeats`` | how often the position was there before, at most 2 |
| ``checked`` | whether the side to move is in check |
| ``last`` | the action that led here, as the other side saw it, or -1 |
| ``turn``, ``outcome`` | as in all board games |

A position is repeated if the pieces, the side to move, castling rights and the legal moves en passant are the same
(FIDE 9.2.3). No position before a capture or a pawn move comes back, so that 100 keys are all that the fifty-move
rule leaves to compare with. Keys of single facts are hashes of their numbers instead of a table.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlbits.envs.board.chess.actions import BISHOP, GOAL, KING_KIND, KNIGHT_KIND, ORIGIN, PAWN, PLAIN, QUEEN, ROOK
from mlbits.envs.board.chess.bitboards import DARK, EIGHT, ONE, ZERO, count, flip, lowest, pawns_down
from mlbits.envs.board.chess.movement import count_moves, in_check, passers
from mlbits.envs.board.conventions import DRAWN, OPEN, SECOND_WON
from mlbits.envs.core.random import mix64
from mlbits.envs.core.rules import rule

LONGEST = 100  # plies without capture or pawn move
FIELDS = [
    ("pieces", "u8", (6,)), ("sides", "u8", (2,)), ("key", "u8"), ("clock", "i2"), ("number", "i2"), ("last", "i2"),
    ("castling", "u1"), ("passant", "i1"), ("repeats", "u1"), ("checked", "u1"), ("turn", "i1"), ("outcome", "i1"),
    ("history", "u8", (LONGEST,)),
]  # fmt: skip
_KINDS = 6
# Castling rights that a move from or to a square leaves: kings and rooks at home hold them.
KEPT = np.full(64, 15, np.uint8)
KEPT[[0, 4, 7, 56, 60, 63]] = 15 - np.array([2, 3, 1, 8, 12, 4])
_CASTLING_KEYS, _PASSANT_KEYS, _TURN_KEY = np.uint64(1000), np.uint64(1100), np.uint64(1200)
_64 = np.uint64(64)
_OTHER_VIEW = np.uint64(56)
MOST = 32_000  # what the field can hold


@rule
def piece_key(side: Any, kind: Any, square: Any) -> Any:
    """The key of a piece; ``side`` is the seat's, and the square is as white sees it."""
    return mix64(np.uint64(1) + _64 * np.uint64(_KINDS * side + kind) + square)


@rule
def castling_key(castling: Any, turn: Any) -> Any:
    """The key of castling rights."""
    rights = castling if turn == 0 else (castling >> 2) | ((castling & 3) << 2)
    return mix64(_CASTLING_KEYS + np.uint64(rights))


@rule
def passant_key(file: Any) -> Any:
    """The key of a pawn that may be taken en passant."""
    return mix64(_PASSANT_KEYS + np.uint64(file))


@rule(inline=False)
def whole_key(state: Any) -> Any:
    """The key of a position, from nothing."""
    turned = _OTHER_VIEW * np.uint64(state.turn)
    key = castling_key(np.int64(state.castling), state.turn)
    for kind in range(_KINDS):
        for k in range(2):
            left = state.pieces[kind] & state.sides[k]
            while left != ZERO:
                key ^= piece_key(state.turn if k == 0 else 1 - state.turn, kind, lowest(left) ^ turned)
                left &= left - ONE
    if state.passant >= 0:
        key ^= passant_key(state.passant)
    if state.turn != 0:
        key ^= mix64(_TURN_KEY)
    return key


@rule(inline=False)
def settle(state: Any) -> None:
    """Complete a position of which all but key, history, repeats, check and outcome are known."""
    if state.passant >= 0 and passers(state, np.uint64(state.passant)) == ZERO:
        state.passant = -1
    state.key = whole_key(state)
    for k in range(min(state.clock, LONGEST)):
        state.history[k] = ZERO
    if state.clock < LONGEST:
        state.history[state.clock] = state.key
    state.repeats = 0
    state.last = -1
    state.checked = in_check(state)
    state.outcome = OPEN


@rule(inline=False)
def other_in_check(state: Any) -> Any:
    """Whether the side that is not to move is in check, which no legal game leads to."""
    state.sides[0], state.sides[1] = state.sides[1], state.sides[0]
    for k in range(_KINDS):
        state.pieces[k] = flip(state.pieces[k])
    state.sides[0], state.sides[1] = flip(state.sides[0]), flip(state.sides[1])
    found = in_check(state)
    state.sides[0], state.sides[1] = flip(state.sides[1]), flip(state.sides[0])
    for k in range(_KINDS):
        state.pieces[k] = flip(state.pieces[k])
    return found


@rule
def kind_on(state: Any, bit: Any) -> Any:
    """The kind of the piece on a square that holds one."""
    kind = PAWN
    for k in range(1, _KINDS):
        if state.pieces[k] & bit != ZERO:
            kind = k
    return kind


@rule(inline=False)
def move(state: Any, action: Any) -> None:
    """Play a legal move; ``outcome`` is left as it was."""
    side = np.int64(state.turn)
    turned = _OTHER_VIEW * np.uint64(side)
    origin, goal = np.uint64(ORIGIN[action]), np.uint64(GOAL[action])
    start, end = ONE << origin, ONE << goal
    kind, key = kind_on(state, start), state.key
    reset_clock = kind == PAWN
    # The piece that is taken.
    victim = end & state.sides[1]
    if kind == PAWN and victim == ZERO and (goal - origin) & np.uint64(7) != ZERO:
        victim = end >> EIGHT  # en passant
    if victim != ZERO:
        reset_clock = True
        lost = kind_on(state, victim)
        state.pieces[lost] ^= victim
        state.sides[1] ^= victim
        key ^= piece_key(1 - side, lost, lowest(victim) ^ turned)
    # The piece that moves.
    state.pieces[kind] ^= start
    state.sides[0] ^= start | end
    after = kind
    if kind == PAWN and goal >= _OTHER_VIEW:
        after = QUEEN if action < PLAIN else ROOK - (action - PLAIN) % 3
    state.pieces[after] |= end
    key ^= piece_key(side, kind, origin ^ turned) ^ piece_key(side, after, goal ^ turned)
    if kind == KING_KIND:
        key ^= move_rook(state, origin, goal, side, turned)
    # Rights, and the other side's view.
    castling = np.int64(state.castling)
    kept = castling & KEPT[origin] & KEPT[goal]
    if kept != castling:
        key ^= castling_key(castling, side) ^ castling_key(kept, side)
    if state.passant >= 0:
        key ^= passant_key(state.passant)
    for k in range(_KINDS):
        state.pieces[k] = flip(state.pieces[k])
    own = flip(state.sides[0])
    state.sides[0] = flip(state.sides[1])
    state.sides[1] = own
    state.castling = (kept >> 2) | ((kept & 3) << 2)
    state.turn = 1 - side
    state.number += side
    state.last = action
    state.passant = -1
    if kind == PAWN and goal == origin + np.uint64(16):
        file = goal & np.uint64(7)
        beside = pawns_down(ONE << (np.uint64(40) + file)) & state.pieces[PAWN] & state.sides[0]
        if beside != ZERO and passers(state, file) != ZERO:
            state.passant = file
            key ^= passant_key(file)
    key ^= mix64(_TURN_KEY)
    state.key = key
    remember(state, reset_clock)


@rule
def move_rook(state: Any, origin: Any, goal: Any, side: Any, turned: Any) -> Any:
    """Move the rook of a king that castles; returns the change of the key."""
    change = ZERO
    if goal == origin + np.uint64(2) or origin == goal + np.uint64(2):
        rook_from, rook_to = np.uint64(7), np.uint64(5)
        if goal < origin:
            rook_from, rook_to = np.uint64(0), np.uint64(3)
        both = (ONE << rook_from) | (ONE << rook_to)
        state.pieces[ROOK] ^= both
        state.sides[0] ^= both
        change = piece_key(side, ROOK, rook_from ^ turned) ^ piece_key(side, ROOK, rook_to ^ turned)
    return change


@rule
def remember(state: Any, reset_clock: Any) -> None:
    """Write the new position into the history, and count how often it was there before."""
    clock = 0 if reset_clock else np.int64(state.clock) + 1
    found = 0
    if clock < LONGEST:
        before = clock - 4
        while before >= 0:
            found += state.history[before] == state.key
            before -= 2
        state.history[clock] = state.key
    state.clock = min(clock, MOST)  # games read from files may go on and on
    state.repeats = min(found, 2)


@rule
def insufficient(state: Any) -> Any:
    """Whether no moves whatever could mate: only kings; one knight or bishop; or bishops of one colour of squares."""
    bishops, knights = state.pieces[BISHOP], state.pieces[KNIGHT_KIND]
    heavy = state.pieces[PAWN] | state.pieces[ROOK] | state.pieces[QUEEN]
    lone = count(bishops | knights) <= ONE
    same = knights == ZERO and (bishops & DARK == ZERO or bishops & ~DARK == ZERO)
    return heavy == ZERO and (lone or same)


@rule(inline=False)
def judge(state: Any) -> None:
    """Whether the side to move is in check, and the outcome of the position."""
    state.checked = in_check(state)
    if count_moves(state, ONE) == ZERO:
        state.outcome = SECOND_WON - state.turn if state.checked != 0 else DRAWN
    elif state.clock >= LONGEST or state.repeats >= 2 or insufficient(state):
        state.outcome = DRAWN
    else:
        state.outcome = OPEN
