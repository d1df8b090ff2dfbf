"""Go: surround more of the board than the other; area scoring, and no position may ever repeat.

Description:
    In turn, two players put a stone of their colour on a free point, or pass. Stones of one colour that are joined
    along the lines form a chain; the free points next to it are its liberties. A chain without liberties is taken off
    the board: first those of the other, then the player's own, which is suicide and illegal unless ``suicide`` allows
    it. A move that would lead to a whole-board position that has occurred before in the game is illegal (positional
    superko, whoever was to move then); a pass is always legal. Two passes in a row end the game. All stones count as
    alive: a side's area is its stones and the free points from which only its stones can be reached. White gets
    ``komi`` points more.

    Source: the rules of John Tromp and Bill Taylor (https://tromp.github.io/go.html), which allow suicide; most
    programs and rule sets for people do not. A stone put down alone without a liberty repeats the position in any case.

    The mask is exact up to the hash: positions are compared by 64 random bits per stone (Zobrist, 1970), so that a
    legal move is masked by mistake with probability at most ``horizon`` / 2^64, 2e-17 a move on 9x9.

Actions:
    Discrete(rows * columns + 1): the point, row by row from the top left (a1, b1, and so on; no letter is left out);
    the last action passes.

Observations:
    Box uint8 [5, rows, columns] of 0 and 1, row 0 at the top: the seat's own stones, the other's, all 1 if it is the
    seat's turn, the last move (its point, or all 1 after a pass), and the free points where the player to move may not
    play (ko, superko, suicide).

Rewards:
    1 for the side with more points and -1 for the other at the end; 0 if they have equally many, which takes an integer
    komi, and before the end.

Start:
    An empty board; black, seat 0, moves first.

End:
    Termination after two passes in a row; truncation after ``horizon`` moves.

Version history:
    v0: first version.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from gymnasium import spaces

from mlbits.envs.board.conventions import (
    BYTE_CELLS,
    DRAWN,
    RANGES,
    Symmetries,
    acts,
    begin,
    cell_names,
    cell_symmetries,
    square_symmetries,
    win,
)  # fmt: skip
from mlbits.envs.board.go_drawing import draw, shapes, text
from mlbits.envs.board.go_soundness import sound
from mlbits.envs.board.go_tables import (
    BIT_PLACES,
    DE_BRUIJN,
    EMPTY_BOARD,
    FREE,
    LARGEST,
    OUTSIDE,
    TOP_SIX,
    ZOBRIST,
    neighbours,
    words_of,
)  # fmt: skip
from mlbits.envs.core.errors import GameError
from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.rules import rule
from mlbits.envs.core.settings import flag, integer, number

LONGEST = 1 << 15
PLANES = 5
ZERO, ONE, WORD = np.uint64(0), np.uint64(1), np.uint64(64)


# Sets of points are words of 64 bits: point p is bit p % 64 of word p // 64.


@rule
def has(words: Any, point: Any) -> Any:
    """Whether a point is in a set."""
    return (words[point >> 6] >> np.uint64(point & 63)) & ONE != ZERO


@rule
def near(words: Any, k: Any, params: Any) -> Any:
    """Word k of the set of all points that neighbour points of a set."""
    here, below, above = words[k], ZERO, ZERO
    if k > 0:
        below = words[k - 1]
    if k + 1 < words.shape[0]:
        above = words[k + 1]
    row = np.uint64(params.columns)
    found = (here << row) | (below >> (WORD - row)) | (here >> row) | (above << (WORD - row))
    found |= ((here << ONE) | (below >> (WORD - ONE))) & params.not_first[k]
    found |= ((here >> ONE) | (above << (WORD - ONE))) & params.not_last[k]
    return found & params.board[k]


# Chains. ``head`` is the same point of a chain for all of its stones, ``following`` leads from stone to stone and back,
# and ``contacts`` of the head counts pairs of a stone and a free point beside it. A chain is in atari at a free point p
# exactly if all of its contacts are with p: no count of liberties is needed.


@rule(inline=False)
def take(state: Any, params: Any, seat: Any, start: Any) -> None:
    """Take a chain of a seat off the board."""
    point = np.int64(start)
    while True:
        word, bit = point >> 6, ONE << np.uint64(point & 63)
        state.stones[seat, word] &= ~bit
        state.free[word] |= bit
        state.taken[seat, word] |= bit
        state.position ^= ZOBRIST[seat, point]
        state.head[point] = FREE
        for k in range(4):
            chain = state.head[params.around[point, k]]
            if chain < FREE:
                state.contacts[chain] += 1
        point = np.int64(state.following[point])
        if point == start:
            break


@rule
def put(state: Any, params: Any, mover: Any, point: Any) -> None:
    """Put a stone on a free point, and take what loses its last liberty."""
    other = 1 - mover
    word, bit = point >> 6, ONE << np.uint64(point & 63)
    state.stones[mover, word] |= bit
    state.free[word] &= ~bit
    state.position ^= ZOBRIST[mover, point]
    state.head[point] = point
    state.following[point] = point
    state.contacts[point] = 0
    for k in range(4):
        beside = params.around[point, k]
        chain = np.int64(state.head[beside])
        if chain == FREE:
            state.contacts[state.head[point]] += 1
        elif chain < FREE:
            state.contacts[chain] -= 1
            if has(state.stones[mover], beside):
                join(state, chain, point)
    for k in range(4):
        beside = params.around[point, k]
        chain = np.int64(state.head[beside])
        if chain < FREE and state.contacts[chain] == 0 and has(state.stones[other], beside):
            take(state, params, other, chain)
    if state.contacts[state.head[point]] == 0:
        take(state, params, mover, point)


@rule
def join(state: Any, chain: Any, point: Any) -> None:
    """Make a chain and that of a new stone one, unless they are."""
    own = np.int64(state.head[point])
    if own == chain:
        return
    # The first chain takes the new stone in; others are relabelled stone by stone.
    keep, lose = own, chain
    if state.following[point] == point:
        keep, lose = chain, own
    stone = lose
    while True:
        state.head[stone] = keep
        stone = np.int64(state.following[stone])
        if stone == lose:
            break
    state.contacts[keep] += state.contacts[lose]
    after = state.following[keep]
    state.following[keep] = state.following[lose]
    state.following[lose] = after


# Superko. ``seen`` is a hash table of all positions of the game with open addressing; 0 marks a free slot.


@rule
def known(state: Any, position: Any) -> Any:
    """Whether a position has occurred."""
    last = np.uint64(state.seen.shape[0] - 1)
    slot = position & last
    while state.seen[slot] != ZERO:
        if state.seen[slot] == position:
            return True
        slot = (slot + ONE) & last
    return False


@rule
def remember(state: Any) -> None:
    """Add the position to those that have occurred."""
    last = np.uint64(state.seen.shape[0] - 1)
    slot = state.position & last
    while state.seen[slot] != ZERO:
        slot = (slot + ONE) & last
    state.seen[slot] = state.position


@rule
def without(state: Any, seat: Any, start: Any, position: Any) -> Any:
    """The hash of a position after a chain has been taken off."""
    point = np.int64(start)
    while True:
        position ^= ZOBRIST[seat, point]
        point = np.int64(state.following[point])
        if point == start:
            return position


@rule(inline=False)
def may_play(state: Any, params: Any, mover: Any, point: Any) -> Any:
    """Whether a stone on a free point keeps or gets a liberty, or is a suicide that is allowed, and repeats nothing."""
    # A repeated position has a stone of the mover's on this point, which is free now: there was one, and it was taken.
    # So where no stone of the mover's was ever taken, nothing can repeat, whatever else the move takes.
    may_repeat = has(state.taken[mover], point)
    lives = False
    after = state.position ^ ZOBRIST[mover, point]
    a, b = state.head[params.around[point, 0]], state.head[params.around[point, 1]]
    c, d = state.head[params.around[point, 2]], state.head[params.around[point, 3]]
    for k in range(4):
        beside = params.around[point, k]
        chain = state.head[beside]
        if chain == FREE:
            lives = True
        elif chain < FREE:
            # Neighbours of one chain are met several times; the chain counts at the first.
            first = (k < 1 or chain != a) and (k < 2 or chain != b) and (k < 3 or chain != c)
            touching = (chain == a) + np.int64(chain == b) + (chain == c) + (chain == d)
            atari = state.contacts[chain] == touching
            if has(state.stones[mover], beside):
                lives |= not atari
            elif atari:
                lives = True
                if may_repeat and first:
                    after = without(state, 1 - mover, chain, after)
    if not lives:
        if params.suicide == 0:
            return False
        # The new stone goes as well, so that the point says nothing about the past.
        may_repeat = True
        after = state.position
        for k in range(4):
            beside = params.around[point, k]
            chain = state.head[beside]
            first = (k < 1 or chain != a) and (k < 2 or chain != b) and (k < 3 or chain != c)
            if chain < FREE and first and has(state.stones[mover], beside):
                after = without(state, mover, chain, after)
    return not (may_repeat and known(state, after))


@rule
def find_moves(state: Any, params: Any, mover: Any) -> None:
    """The points where a side may play. With a free neighbour, only a repetition may forbid it."""
    for k in range(state.free.shape[0]):
        free = state.free[k]
        moves = free & near(state.free, k, params) & ~state.taken[mover, k]
        doubtful = free & ~moves
        while doubtful != ZERO:
            bit = doubtful & (~doubtful + ONE)
            doubtful ^= bit
            if may_play(state, params, mover, 64 * k + BIT_PLACES[(bit * DE_BRUIJN) >> TOP_SIX]):
                moves |= bit
        state.moves[k] = moves


@rule
def count(word: Any) -> Any:
    """The number of points in a word."""
    found = 0
    while word != ZERO:
        word &= word - ONE
        found += 1
    return found


@rule(inline=False)
def count_areas(state: Any, params: Any) -> None:
    """Mark which points each side's stones reach over free points, and count those that only one side does."""
    for seat in range(2):
        for k in range(state.free.shape[0]):
            state.reached[seat, k] = state.stones[seat, k]
        growing = True
        while growing:
            growing = False
            for k in range(state.free.shape[0]):
                before = state.reached[seat, k]
                after = before | (near(state.reached[seat], k, params) & state.free[k])
                if after != before:
                    state.reached[seat, k] = after
                    growing = True
    state.lead = 0
    for k in range(state.free.shape[0]):
        state.lead += count(state.reached[0, k] & ~state.reached[1, k])
        state.lead -= count(state.reached[1, k] & ~state.reached[0, k])


@rule(inline=False)
def reset(state: Any, params: Any) -> None:
    """An empty board."""
    for k in range(state.free.shape[0]):
        for seat in range(2):
            state.stones[seat, k] = ZERO
            state.taken[seat, k] = ZERO
            state.reached[seat, k] = ZERO
        state.free[k] = params.board[k]
        # Every point has a free neighbour, but on 1x1.
        state.moves[k] = params.board[k] if state.following.shape[0] > 1 else ZERO
    for slot in range(state.seen.shape[0]):
        state.seen[slot] = ZERO
    for point in range(state.following.shape[0]):
        state.head[point] = FREE
        state.following[point] = 0
        state.contacts[point] = 0
    state.head[state.following.shape[0]] = OUTSIDE
    state.position = EMPTY_BOARD
    remember(state)
    state.played = 0
    state.passes = 0
    state.lead = 0
    state.last = -1
    begin(state)


@rule(inline=False)
def step(state: Any, params: Any, actions: Any, rewards: Any) -> Any:
    """Put a stone or pass; returns (terminated, truncated)."""
    mover = np.int64(state.turn)
    point, points = np.int64(actions[mover]), state.following.shape[0]
    state.last = point
    state.turn = 1 - mover
    if point == points:
        state.passes += 1
    else:
        state.passes = 0
        put(state, params, mover, point)
        remember(state)
        state.played += 1
    if state.passes == 2:
        count_areas(state, params)
        margin = 2 * np.int64(state.lead) - params.twice_komi
        if margin > 0:
            win(state, rewards, 0)
        elif margin < 0:
            win(state, rewards, 1)
        else:
            state.outcome = DRAWN
        return True, False
    find_moves(state, params, 1 - mover)
    # Without the core's limit, the table of positions is one.
    return False, state.played >= params.most_played


@rule
def write_cells(word: Any, k: Any, out: Any, start: Any, points: Any) -> None:
    """Write word k of a set of points as cells of a plane, eight at a time."""
    first = 64 * k
    for byte in range(8):
        at = first + 8 * byte
        if at < points:
            bits = np.int64((word >> np.uint64(8 * byte)) & np.uint64(255))
            if at + 8 <= points:
                for cell in range(8):
                    out[start + at + cell] = BYTE_CELLS[bits, cell]
            else:
                for cell in range(points - at):
                    out[start + at + cell] = (bits >> cell) & 1


@rule(inline=False)
def observe(state: Any, params: Any, seat: Any, out: Any) -> None:
    """Own stones, the other's, the turn, the last move, where the player to move may not play."""
    cells, points = out.flat, state.following.shape[0]
    turn, passed = state.turn == seat, state.last == points
    for k in range(state.free.shape[0]):
        write_cells(state.stones[seat, k], k, cells, 0, points)
        write_cells(state.stones[1 - seat, k], k, cells, points, points)
        write_cells(state.free[k] & ~state.moves[k], k, cells, 4 * points, points)
    for point in range(points):
        cells[2 * points + point] = turn
    for point in range(points):
        cells[3 * points + point] = passed
    if 0 <= state.last < points:
        cells[3 * points + state.last] = 1


@rule(inline=False)
def legal(state: Any, params: Any, seat: Any, out: Any) -> None:
    """The points found after the last move, and the pass."""
    points = state.following.shape[0]
    for k in range(state.free.shape[0]):
        write_cells(state.moves[k], k, out, 0, points)
    out[points] = True


def symmetries(rows: int, columns: int) -> Symmetries:
    """The turns and reflections of the board: eight of a square, four of other boards, two of a line."""
    if rows == columns > 1:
        return square_symmetries(rows, extra_actions=1)
    board = np.arange(rows * columns).reshape(rows, columns)
    different = {side.tobytes(): side for side in (board, board[::-1], board[:, ::-1], board[::-1, ::-1])}
    return cell_symmetries(list(different.values()), 1)


def default_komi(rows: int, columns: int) -> float:
    """7.5, or 0.5 on boards of fewer than five rows or columns."""
    return 7.5 if min(rows, columns) >= 5 else 0.5


def go(
    size: int = 9,
    *,
    columns: int | None = None,
    komi: float | None = None,
    suicide: bool = False,
    horizon: int | None = None,
) -> Game:
    """A game of Go.

    Args:
        size: rows, and columns unless these are given, 1 to 19.
        columns: columns, 1 to 19, or None for a square board.
        komi: white's additional points, a multiple of 0.5; None: 7.5, on boards of fewer than five rows or columns 0.5.
        suicide: whether a move may take the player's own chain of two stones or more.
        horizon: moves and passes after which an episode is truncated, or None for four per point of the board.

    Raises:
        GameError: for a setting out of range.
    """
    rows = integer("size", size, 1, LARGEST)
    columns = rows if columns is None else integer("columns", columns, 1, LARGEST)
    points = rows * columns
    komi = default_komi(rows, columns) if komi is None else number("komi", komi, -points, points)
    if 2 * komi != round(2 * komi):
        raise GameError(f"komi: got {komi!r}; wanted a multiple of 0.5")
    suicide = flag("suicide", suicide)
    horizon = 4 * points if horizon is None else integer("horizon", horizon, 1, LONGEST)
    slots = 1 << (horizon + horizon // 4 + 1).bit_length()
    words = (points + 63) // 64
    whole = np.arange(points)
    return Game(
        name="Go",
        seats=2,
        state_fields=[
            ("position", "u8"), ("stones", "u8", (2, words)), ("free", "u8", (words,)), ("moves", "u8", (words,)),
            ("taken", "u8", (2, words)), ("reached", "u8", (2, words)), ("head", "i2", (points + 1,)),
            ("following", "i2", (points,)), ("contacts", "i2", (points,)), ("played", "i4"), ("last", "i2"),
            ("lead", "i2"), ("passes", "i1"), ("turn", "i1"), ("outcome", "i1"), ("seen", "u8", (slots,)),
        ],
        state_ranges={
            "head": (0, OUTSIDE), "following": (0, points - 1), "contacts": (0, 4 * points), "passes": (0, 2),
            "played": (0, slots - 2), "last": (-1, points), "lead": (-points, points), **RANGES,
        },
        sound=partial(sound, words_of(whole.tolist(), words)),
        params=make_params(
            [("board", "u8", (words,)), ("not_first", "u8", (words,)), ("not_last", "u8", (words,)),
             ("around", "i2", (points, 4)), ("columns", "i4"), ("twice_komi", "i4"), ("most_played", "i4"),
             ("suicide", "u1")],
            {"board": words_of(whole.tolist(), words),
             "not_first": words_of(whole[whole % columns > 0].tolist(), words),
             "not_last": words_of(whole[whole % columns < columns - 1].tolist(), words),
             "around": neighbours(rows, columns), "columns": columns, "twice_komi": round(2 * komi),
             "most_played": slots - 2, "suicide": suicide},
            horizon,
        ),
        observation_space=spaces.Box(0, 1, (PLANES, rows, columns), np.uint8),
        action_space=spaces.Discrete(points + 1),
        reset=reset,
        step=step,
        observe=observe,
        legal=legal,
        acts=acts,
        text=text,
        draw=draw,
        shapes=shapes,
        layout={
            "moves": ((*cell_names(rows, columns), "pass"),) * 2,
            "symmetries": symmetries(rows, columns),
        },
    )  # fmt: skip
