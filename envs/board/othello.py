"""Othello (Reversi): enclose the other's stones to turn them over; whoever has most stones at the end wins.

Description:
    In turn, two players put a stone of their colour on a free cell so that, in at least one of the eight directions,
    stones of the other lie in a row between it and another own stone. All stones so enclosed are turned over. A player
    who cannot move passes; the game is over when the other cannot move after that either, or when the board is full.
    Black moves first. With perfect play the second player wins on 4x4 and on 6x6 (20 to 16), and 8x8 is a draw.

    Source: Lewis Waterman and John Mollett's Reversi (1883), with the fixed start of Goro Hasegawa's Othello (1973).

Actions:
    Discrete(size * size + 1): the cell, row by row from the top left (a1, b1, and so on); the last action passes,
    which is legal, and then the only legal action, if there is no other.

Observations:
    Box uint8 [3, size, size] of 0 and 1, row 0 at the top: the seat's own stones, the other's, and all 1 if it is the
    seat's turn.

Rewards:
    1 for the seat with more stones and -1 for the other at the end; 0 if they have equally many, and before the end.

Start:
    Four stones in the middle: white on the upper left and lower right, black on the others; black, seat 0, moves first.

End:
    Termination when the board is full, or after a pass if the other seat cannot move either. There is no truncation.

Version history:
    v0: first version.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mlbits.envs.board.conventions import (
    DRAWN,
    RANGES,
    acts,
    begin,
    board_text,
    cell_names,
    cell_shapes,
    label_columns,
    label_rows,
    planes,
    square_symmetries,
    title,
    win,
)  # fmt: skip
from mlbits.envs.core.drawing import INK, PAPER, YELLOW, Canvas
from mlbits.envs.core.errors import GameError
from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.rules import rule

SIZES = (4, 6, 8)
ZERO, ONE = np.uint64(0), np.uint64(1)
FELT, DARK_FELT, EBONY = (58, 140, 92), (38, 104, 66), (34, 36, 40)


@rule
def from_both_ends(stones: Any, between: Any, by: Any, longest: Any) -> Any:
    """The cells that continue a row of ``between`` next to one of ``stones``, along one axis, both ways."""
    up = between & (stones << by)
    down = between & (stones >> by)
    for _ in range(longest):
        up |= between & (up << by)
        down |= between & (down >> by)
    return (up << by) | (down >> by)


@rule(inline=False)
def moves_of(own: Any, other: Any, params: Any) -> Any:
    """The cells on which a side may play, as a set of bits."""
    inner = other & params.inner  # a row that goes sideways does not pass the board's left and right edges
    size, longest = np.uint64(params.side), params.side - 3
    found = from_both_ends(own, inner, ONE, longest)
    found |= from_both_ends(own, other, size, longest)
    found |= from_both_ends(own, inner, size + ONE, longest)
    found |= from_both_ends(own, inner, size - ONE, longest)
    return found & params.full & ~(own | other)


@rule
def enclosed(cell: Any, own: Any, between: Any, by: Any, longest: Any) -> Any:
    """The stones of ``between`` that a new stone encloses along one axis, both ways."""
    up = between & (cell << by)
    down = between & (cell >> by)
    for _ in range(longest):
        up |= between & (up << by)
        down |= between & (down >> by)
    if (up << by) & own == ZERO:
        up = ZERO
    if (down >> by) & own == ZERO:
        down = ZERO
    return up | down


@rule(inline=False)
def turned_by(cell: Any, own: Any, other: Any, params: Any) -> Any:
    """All stones that a new stone encloses, as a set of bits."""
    inner = other & params.inner
    size, longest = np.uint64(params.side), params.side - 3
    found = enclosed(cell, own, inner, ONE, longest)
    found |= enclosed(cell, own, other, size, longest)
    found |= enclosed(cell, own, inner, size + ONE, longest)
    found |= enclosed(cell, own, inner, size - ONE, longest)
    return found


@rule
def count(stones: Any) -> Any:
    """The number of stones in a set."""
    found = 0
    while stones != ZERO:
        stones &= stones - ONE
        found += 1
    return found


@rule
def reset(state: Any, params: Any) -> None:
    """Four stones in the middle."""
    size = params.side
    place = np.uint64((size // 2 - 1) * (size + 1))  # the upper left cell of the four
    state.stones[0] = (np.uint64(2) | (ONE << np.uint64(size))) << place
    state.stones[1] = (ONE | (np.uint64(2) << np.uint64(size))) << place
    state.moves = moves_of(state.stones[0], state.stones[1], params)
    state.last = -1
    begin(state)


@rule
def step(state: Any, params: Any, actions: Any, rewards: Any) -> Any:
    """Play a stone or pass; returns (terminated, truncated)."""
    mover = state.turn
    action = actions[mover]
    own, other = state.stones[mover], state.stones[1 - mover]
    if action < params.side * params.side:
        cell = ONE << np.uint64(action)
        turned = turned_by(cell, own, other, params)
        own |= cell | turned
        other &= ~turned
        state.stones[mover] = own
        state.stones[1 - mover] = other
        state.last = action
    state.turn = 1 - mover
    state.moves = moves_of(other, own, params)
    passed = action == params.side * params.side
    ended = (own | other) == params.full or (passed and state.moves == ZERO)
    if ended:
        lead = count(own) - count(other)
        if lead > 0:
            win(state, rewards, mover)
        elif lead < 0:
            win(state, rewards, 1 - mover)
        else:
            state.outcome = DRAWN
    return ended, False


@rule
def observe(state: Any, params: Any, seat: Any, out: Any) -> None:
    """Own stones, the other's, the turn."""
    own, other, turn = state.stones[seat], state.stones[1 - seat], state.turn == seat
    for row in range(out.shape[1]):
        for column in range(out.shape[2]):
            cell = np.uint64(out.shape[2] * row + column)
            out[0, row, column] = (own >> cell) & ONE
            out[1, row, column] = (other >> cell) & ONE
            out[2, row, column] = turn


@rule
def legal(state: Any, params: Any, seat: Any, out: Any) -> None:
    """The cells where a stone encloses another, or else the pass."""
    cells = params.side * params.side
    for cell in range(cells):
        out[cell] = (state.moves >> np.uint64(cell)) & ONE != ZERO
    out[cells] = state.moves == ZERO


def othello(size: int = 8) -> Game:
    """A game of Othello.

    Args:
        size: rows and columns, 4, 6 or 8.

    Raises:
        GameError: for another size.
    """
    if isinstance(size, bool) or size not in SIZES:
        raise GameError(f"size: got {size!r}; wanted 4, 6 or 8")
    size = int(size)
    cells = [size * row + column for row in range(size) for column in range(1, size - 1)]
    return Game(
        name="Othello",
        seats=2,
        state_fields=[("stones", "u8", (2,)), ("moves", "u8"), ("turn", "i1"), ("outcome", "i1"), ("last", "i1")],
        state_ranges={"stones": (0, 2 ** (size * size) - 1), "last": (-1, size * size - 1), **RANGES},
        params=make_params(
            [("full", "u8"), ("inner", "u8"), ("side", "i4")],
            {"full": np.uint64(2 ** (size * size) - 1), "inner": np.uint64(sum(1 << cell for cell in cells)),
             "side": size},
        ),
        observation_space=planes(size, size),
        action_space=spaces.Discrete(size * size + 1),
        reset=reset,
        step=step,
        observe=observe,
        legal=legal,
        acts=acts,
        text=_text,
        draw=_draw,
        shapes=_shapes,
        layout={
            "moves": ((*cell_names(size, size), "pass"),) * 2,
            "symmetries": square_symmetries(size, extra_actions=1),
        },
    )  # fmt: skip


def _stone(state: Any, cell: int) -> int:
    """The seat whose stone lies on a cell, or -1."""
    return next((seat for seat in (0, 1) if int(state.stones[seat]) >> cell & 1), -1)


def _title(state: Any) -> str:
    black, white = (int(stones).bit_count() for stones in state.stones)
    return f"{title(state, ('black', 'white'))}, {black} to {white}"


def _text(state: Any, params: Any) -> str:
    size = int(params.side)
    rows = ["".join("XO."[_stone(state, size * row + column)] for column in range(size)) for row in range(size)]
    return board_text(rows, _title(state).replace("black", "X").replace("white", "O"))


_CELL, _LEFT, _TOP = 54, 42, 42  # of the drawing, in pixels


def _shapes(state: Any, params: Any, seat: int) -> dict[str, str]:
    return cell_shapes(_LEFT, _TOP, _CELL, int(params.side), int(params.side))


def _draw(state: Any, params: Any) -> NDArray[np.uint8]:
    """A green board; a yellow dot marks the last stone, small dots where the seat to move may play."""
    size, cell, left, top = int(params.side), _CELL, _LEFT, _TOP
    side = size * cell
    canvas = Canvas(2 * left + side, top + side + 44)
    canvas.pen.rectangle([left - 4, top - 4, left + side + 4, top + side + 4], fill=EBONY)
    canvas.pen.rectangle([left, top, left + side, top + side], fill=FELT)
    for k in range(size + 1):
        at = k * cell
        canvas.pen.line([(left + at, top), (left + at, top + side)], fill=DARK_FELT, width=2)
        canvas.pen.line([(left, top + at), (left + side, top + at)], fill=DARK_FELT, width=2)
    for place in range(size * size):
        x, y = left + (place % size + 0.5) * cell, top + (place // size + 0.5) * cell
        seat = _stone(state, place)
        if seat >= 0:
            canvas.disc(x, y + 2, 22, DARK_FELT)
            canvas.disc(x, y, 22, (EBONY, PAPER)[seat], (INK, (206, 204, 196))[seat], 2)
            if place == int(state.last):
                canvas.disc(x, y, 6, YELLOW)
        elif int(state.moves) >> place & 1:
            canvas.disc(x, y, 5, (EBONY, PAPER)[int(state.turn)])
    label_columns(canvas, left, top - 20, cell, size)
    label_rows(canvas, left - 20, top, cell, size)
    canvas.text(left + side / 2, top + side + 25, _title(state), size=16)
    return canvas.array()
