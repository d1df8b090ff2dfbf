"""Legal moves: where each piece may go, without trying moves and taking them back.

First come the limits of a position: squares that the other side attacks, where the king may not go; the squares that
meet a check (all of them, without one); and the lines on which pieces are pinned, straight and diagonal. A pinned
piece stays on its line, which holds no other piece of its side, so that one set for all straight lines and one for
all diagonals will do. En passant takes two pieces from the board at once, and is tried out.

All functions read a position as the side to move sees it (fields of ``position``).

Source: rules of FIDE, article 3; pins by lines as in Daniel Infuehr's Gigantua.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlbits.envs.board.chess.actions import (
    BISHOP,
    KING_KIND,
    KNIGHT_KIND,
    PAWN,
    QUEEN,
    ROOK,
    action_of,
    lesser_promotion,
)
from mlbits.envs.board.chess.bitboards import (
    EIGHT,
    KING,
    KNIGHT,
    LAST_RANK,
    ONE,
    THIRD_RANK,
    THREE,
    ZERO,
    count,
    diagonal,
    lowest,
    pawns_down,
    pawns_up,
    straight,
)
from mlbits.envs.core.rules import rule

OWN_SHORT, OWN_LONG, OTHER_SHORT, OTHER_LONG = 1, 2, 4, 8  # castling rights, with the rook on file h or a
_BETWEEN_SHORT, _SAFE_SHORT = np.uint64(0x60), np.uint64(0x70)
_BETWEEN_LONG, _SAFE_LONG = np.uint64(0x0E), np.uint64(0x1C)
_TO_G, _TO_C = np.uint64(1 << 6), np.uint64(1 << 2)
_FIFTH, _SIXTH = np.uint64(32), np.uint64(40)  # where rank 5 and rank 6 begin


@rule(inline=False)
def attackers(state: Any, square: Any, taken: Any) -> Any:
    """The other side's pieces that attack a square; ``taken`` are the squares that block sliders."""
    queens = state.pieces[QUEEN]
    found = pawns_up(ONE << square) & state.pieces[PAWN]
    found |= KNIGHT[square] & state.pieces[KNIGHT_KIND]
    found |= KING[square] & state.pieces[KING_KIND]
    found |= straight(square, taken) & (state.pieces[ROOK] | queens)
    found |= diagonal(square, taken) & (state.pieces[BISHOP] | queens)
    return found & state.sides[1]


@rule(inline=False)
def in_check(state: Any) -> Any:
    """Whether the side to move is in check."""
    king = lowest(state.pieces[KING_KIND] & state.sides[0])
    return attackers(state, king, state.sides[0] | state.sides[1]) != ZERO


@rule(inline=False)
def attacked(state: Any) -> Any:
    """All squares that the other side attacks, also through the king, which cannot hide behind itself."""
    other, queens = state.sides[1], state.pieces[QUEEN]
    taken = (state.sides[0] & ~state.pieces[KING_KIND]) | other
    found = pawns_down(state.pieces[PAWN] & other) | KING[lowest(state.pieces[KING_KIND] & other)]
    left = state.pieces[KNIGHT_KIND] & other
    while left != ZERO:
        found |= KNIGHT[lowest(left)]
        left &= left - ONE
    left = (state.pieces[ROOK] | queens) & other
    while left != ZERO:
        found |= straight(lowest(left), taken)
        left &= left - ONE
    left = (state.pieces[BISHOP] | queens) & other
    while left != ZERO:
        found |= diagonal(lowest(left), taken)
        left &= left - ONE
    return found


@rule(inline=False)
def limits(state: Any, king: Any) -> Any:
    """Where pieces other than the king may go, and the lines of pinned ones: (goals, straight, diagonal).

    The goals are free or hold a piece of the other side, and meet a check; against two checks there are none.
    """
    own, other = state.sides[0], state.sides[1]
    taken, queens = own | other, state.pieces[QUEEN] & other
    straights, diagonals = (state.pieces[ROOK] & other) | queens, (state.pieces[BISHOP] & other) | queens
    lines, slants = straight(king, taken), diagonal(king, taken)
    near = (pawns_up(ONE << king) & state.pieces[PAWN]) | (KNIGHT[king] & state.pieces[KNIGHT_KIND])
    checks = (near | (lines & straights) | (slants & diagonals)) & other
    goals = ~own
    if lines & straights & other != ZERO:
        goals &= checks | (lines & straight(lowest(lines & straights), taken))
    if slants & diagonals & other != ZERO:
        goals &= checks | (slants & diagonal(lowest(slants & diagonals), taken))
    if near & other != ZERO:
        goals &= checks
    if checks & (checks - ONE) != ZERO:
        goals = ZERO
    # What a slider of the king's would attack without the nearest own pieces: there stand those who pin them.
    open_straight, open_diagonal = taken ^ (lines & own), taken ^ (slants & own)
    beyond = straight(king, open_straight) & ~lines
    pinned_straight, left = ZERO, beyond & straights
    while left != ZERO:
        by = lowest(left)
        pinned_straight |= ((beyond | lines) & straight(by, open_straight)) | (ONE << by)
        left &= left - ONE
    beyond = diagonal(king, open_diagonal) & ~slants
    pinned_diagonal, left = ZERO, beyond & diagonals
    while left != ZERO:
        by = lowest(left)
        pinned_diagonal |= ((beyond | slants) & diagonal(by, open_diagonal)) | (ONE << by)
        left &= left - ONE
    return goals, pinned_straight, pinned_diagonal


@rule(inline=False)
def targets(state: Any, kind: Any, square: Any, goals: Any, pinned_straight: Any, pinned_diagonal: Any) -> Any:
    """Where a piece other than the king may go; en passant is apart."""
    bit, taken = ONE << square, state.sides[0] | state.sides[1]
    on_straight, on_diagonal = bit & pinned_straight != ZERO, bit & pinned_diagonal != ZERO
    if kind == PAWN:
        found = ZERO
        if not on_diagonal:
            found = (bit << EIGHT) & ~taken
            found |= ((found & THIRD_RANK) << EIGHT) & ~taken
            if on_straight:
                found &= pinned_straight
        if not on_straight:
            takes = pawns_up(bit) & state.sides[1]
            if on_diagonal:
                takes &= pinned_diagonal
            found |= takes
    elif kind == KNIGHT_KIND:
        found = KNIGHT[square]
        if on_straight or on_diagonal:
            found = ZERO
    else:
        found = ZERO
        if kind != ROOK and not on_straight:
            found = diagonal(square, taken)
            if on_diagonal:
                found &= pinned_diagonal
        if kind != BISHOP and not on_diagonal:
            lines = straight(square, taken)
            if on_straight:
                lines &= pinned_straight
            found |= lines
    return found & goals


@rule(inline=False)
def king_targets(state: Any, king: Any) -> Any:
    """Where the king may go, castling included."""
    danger, taken = attacked(state), state.sides[0] | state.sides[1]
    found = KING[king] & ~state.sides[0] & ~danger
    if state.castling & OWN_SHORT != 0 and taken & _BETWEEN_SHORT == ZERO and danger & _SAFE_SHORT == ZERO:
        found |= _TO_G
    if state.castling & OWN_LONG != 0 and taken & _BETWEEN_LONG == ZERO and danger & _SAFE_LONG == ZERO:
        found |= _TO_C
    return found


@rule(inline=False)
def passers(state: Any, file: Any) -> Any:
    """The pawns that may take en passant the pawn that has just moved two squares on a file."""
    victim, goal = ONE << (_FIFTH + file), ONE << (_SIXTH + file)
    king = lowest(state.pieces[KING_KIND] & state.sides[0])
    taken = ((state.sides[0] | state.sides[1]) ^ victim) | goal
    left, found = pawns_down(goal) & state.pieces[PAWN] & state.sides[0], ZERO
    while left != ZERO:
        bit = left & ~(left - ONE)
        if attackers(state, king, taken ^ bit) & ~victim == ZERO:
            found |= bit
        left &= left - ONE
    return found


@rule(inline=False)
def write_moves(state: Any, out: Any) -> None:
    """Set ``out[action]`` of each legal move, [ACTIONS]."""
    king = lowest(state.pieces[KING_KIND] & state.sides[0])
    found = king_targets(state, king)
    while found != ZERO:
        out[action_of(king, lowest(found))] = True
        found &= found - ONE
    goals, pinned_straight, pinned_diagonal = limits(state, king)
    for kind in range(KING_KIND):
        left = state.pieces[kind] & state.sides[0]
        while left != ZERO:
            square = lowest(left)
            left &= left - ONE
            found = targets(state, kind, square, goals, pinned_straight, pinned_diagonal)
            if kind == PAWN and found & LAST_RANK != ZERO:
                write_promotions(square, found, out)
            while found != ZERO:
                out[action_of(square, lowest(found))] = True
                found &= found - ONE
    if state.passant >= 0:
        file = np.uint64(state.passant)
        left = passers(state, file)
        while left != ZERO:
            out[action_of(lowest(left), _SIXTH + file)] = True
            left &= left - ONE


@rule(inline=False)
def write_promotions(square: Any, found: Any, out: Any) -> None:
    """Set the promotions to less than a queen."""
    while found != ZERO:
        first = lesser_promotion(square, lowest(found))
        found &= found - ONE
        for k in range(3):
            out[first + np.uint64(k)] = True


@rule(inline=False)
def count_moves(state: Any, enough: Any) -> Any:
    """The number of legal moves, without writing them; may stop from ``enough`` on."""
    king = lowest(state.pieces[KING_KIND] & state.sides[0])
    goals, pinned_straight, pinned_diagonal = limits(state, king)
    found = ZERO
    for kind in range(KING_KIND):
        left = state.pieces[kind] & state.sides[0]
        while left != ZERO:
            square = lowest(left)
            left &= left - ONE
            reached = targets(state, kind, square, goals, pinned_straight, pinned_diagonal)
            found += count(reached)
            if kind == PAWN:
                found += THREE * count(reached & LAST_RANK)
            if found >= enough:
                return found
    if state.passant >= 0:
        found += count(passers(state, np.uint64(state.passant)))
    return found + count(king_targets(state, king))
