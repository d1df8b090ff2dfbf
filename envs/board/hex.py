"""Hex: join two opposite sides of the board by a chain of stones; there is never a draw.

Description:
    The board is a rhombus of hexagons. In turn, two players put a stone of their colour on a free cell. Red, seat 0,
    wins by a chain of neighbouring stones from top to bottom; blue, seat 1, from left to right. A full board has
    exactly one winner. The first player wins with perfect play (Nash's strategy-stealing argument); the setting
    ``swap`` takes that advantage away: instead of its first move, the second player may take the first stone over. It
    becomes blue and is mirrored at the diagonal from a1, on which the two goals change places.

    Source: Piet Hein (1942); John Nash (1948). Neighbours of row r, column c are (r-1, c), (r-1, c+1), (r, c-1),
    (r, c+1), (r+1, c-1), (r+1, c).

Actions:
    Discrete(size * size), with ``swap`` one more: action size * r + c plays on row r, column c **as the seat sees the
    board**; the last action swaps. Seat 0 sees the board as it is drawn, seat 1 mirrored at the diagonal from a1 (rows
    are columns), so that for both the goal is to join top and bottom.

Observations:
    Box uint8 [3, size, size] of 0 and 1, as the seat sees the board: its own stones, the other's, and all 1 if it is
    the seat's turn.

Rewards:
    1 for the winner and -1 for the other seat at the end; 0 before.

Start:
    An empty board; seat 0 moves first.

End:
    Termination when a chain joins its two sides. There is no truncation.

Version history:
    v0: first version.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mlbits.envs.board.conventions import (
    LETTERS,
    RANGES,
    Symmetries,
    acts,
    begin,
    board_text,
    cell_names,
    cell_symmetries,
    planes,
    title,
    win,
)  # fmt: skip
from mlbits.envs.core.drawing import BLUE, GRID, INK, PAPER, RED, Canvas, ring
from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.rules import rule
from mlbits.envs.core.settings import flag, integer

LARGEST = len(LETTERS)
CELL, PALE_RED, PALE_BLUE = (240, 236, 226), (226, 134, 126), (126, 166, 228)


@rule
def around(above: Any, here: Any, below: Any) -> Any:
    """The cells of a row that neighbour stones of the row above, of this row, or of the row below."""
    return above | (above >> 1) | (here << 1) | (here >> 1) | below | (below << 1)


@rule
def beside(state: Any, params: Any, seat: Any, row: Any) -> Any:
    """The cells of a row that neighbour stones which are joined to the seat's upper side."""
    above = np.int64(state.joined[seat, row - 1]) if row > 0 else 0
    below = np.int64(state.joined[seat, row + 1]) if row < params.side - 1 else 0
    return around(above, np.int64(state.joined[seat, row]), below)


@rule(inline=False)
def join(state: Any, params: Any, seat: Any, row: Any, cell: Any) -> Any:
    """Extend what is joined to the seat's upper side by a new stone; returns whether that reaches the lower side.

    Every stone is joined once in a game, so that most moves look at their neighbours only.
    """
    if row > 0 and beside(state, params, seat, row) & cell == 0:
        return False
    state.joined[seat, row] |= cell
    growing = True
    while growing:
        growing = False
        for k in range(params.side):
            before = np.int64(state.joined[seat, k])
            after = before | (beside(state, params, seat, k) & np.int64(state.stones[seat, k]))
            if after != before:
                state.joined[seat, k] = after
                growing = True
    return state.joined[seat, params.side - 1] != 0


@rule
def reset(state: Any, params: Any) -> None:
    """An empty board."""
    for seat in range(2):
        for row in range(params.side):
            state.stones[seat, row] = 0
            state.joined[seat, row] = 0
    state.played = 0
    state.last = -1
    begin(state)


@rule
def step(state: Any, params: Any, actions: Any, rewards: Any) -> Any:
    """Put a stone, or swap; returns (terminated, truncated)."""
    mover = state.turn
    size, action = params.side, actions[mover]
    if action == size * size:
        # The first stone, which is of seat 0: mirrored, it lies in seat 1's view where it lay in seat 0's.
        action = state.last
        state.stones[0, action // size] = 0
        state.joined[0, action // size] = 0
    row = action // size
    cell = np.int64(1) << (action % size)
    state.stones[mover, row] |= cell
    state.played += 1
    state.last = action
    state.turn = 1 - mover
    won = join(state, params, mover, row, cell)
    if won:
        win(state, rewards, mover)
    return won, False


@rule
def observe(state: Any, params: Any, seat: Any, out: Any) -> None:
    """Own stones, the other's, the turn, as the seat sees the board."""
    turn = state.turn == seat
    for row in range(out.shape[1]):
        for column in range(out.shape[2]):
            out[0, row, column] = (state.stones[seat, row] >> column) & 1
            out[1, row, column] = (state.stones[1 - seat, column] >> row) & 1
            out[2, row, column] = turn


@rule
def legal(state: Any, params: Any, seat: Any, out: Any) -> None:
    """The free cells; and to swap, for the second player's first move."""
    size = params.side
    for row in range(size):
        for column in range(size):
            taken = (state.stones[seat, row] >> column) | (state.stones[1 - seat, column] >> row)
            out[size * row + column] = taken & 1 == 0
    if params.swap != 0:
        out[size * size] = state.played == 1


def symmetries(size: int, *, swap: bool = False) -> Symmetries:
    """The board as it is, and turned by half; the mirror image is already in the seats' views."""
    board = np.arange(size * size).reshape(size, size)
    return cell_symmetries([board, board[::-1, ::-1]], int(swap))


def hex_game(size: int = 11, *, swap: bool = False) -> Game:
    """A game of Hex.

    Args:
        size: rows and columns, 1 to 26.
        swap: whether the second player may, instead of its first move, take the first stone over.

    Raises:
        GameError: for a setting out of range.
    """
    size, swap = integer("size", size, 1, LARGEST), flag("swap", swap)
    rows: tuple[str, tuple[int, int]] = ("u2", (2, 16)) if size <= 16 else ("u4", (2, LARGEST))
    names = cell_names(size, size)
    mirrored = tuple(names[size * (cell % size) + cell // size] for cell in range(size * size))
    extra = ("swap",) * swap
    return Game(
        name="Hex",
        seats=2,
        state_fields=[
            ("stones", *rows), ("joined", *rows), ("played", "i2"), ("last", "i2"), ("turn", "i1"), ("outcome", "i1"),
        ],
        state_ranges={"played": (0, size * size), "last": (-1, size * size - 1), **RANGES},
        sound=_sound,
        params=make_params([("side", "i4"), ("swap", "u1")], {"side": size, "swap": swap}),
        observation_space=planes(size, size),
        action_space=spaces.Discrete(size * size + swap),
        reset=reset,
        step=step,
        observe=observe,
        legal=legal,
        acts=acts,
        text=_text,
        draw=_draw,
        shapes=_shapes,
        layout={"moves": (names + extra, mirrored + extra), "symmetries": symmetries(size, swap=swap)},
    )  # fmt: skip


def _sound(states: Any) -> Any:
    """Whether the second player may swap only for a stone that is there: that of the first move."""
    return (states["played"] != 1) | (states["last"] >= 0)


def _stone(state: Any, row: int, column: int) -> int:
    """The seat whose stone lies on a cell of the board as it is drawn, or -1."""
    if int(state.stones[0, row]) >> column & 1:
        return 0
    return 1 if int(state.stones[1, column]) >> row & 1 else -1


def _last(state: Any, size: int) -> tuple[int, int] | None:
    """Row and column of the last stone on the board as it is drawn."""
    if state.last < 0:
        return None
    row, column = divmod(int(state.last), size)
    return (row, column) if _stone(state, row, column) == 1 - int(state.turn) == 0 else (column, row)


def _text(state: Any, params: Any) -> str:
    """X joins top and bottom, O left and right."""
    size = int(params.side)
    rows = ["".join("XO."[_stone(state, row, column)] for column in range(size)) for row in range(size)]
    return board_text(rows, title(state, ("X", "O")), slant=1)


def _frame(size: int) -> tuple[float, float, float, float, float]:
    """Radius, width and height of a cell, and the centre of a1 (x, y), in pixels."""
    radius = 24.0 if size <= 14 else 17.0
    wide = math.sqrt(3) * radius
    return radius, wide, 1.5 * radius, 46 + wide / 2, 50 + radius


def _corners(x: float, y: float, reach: float) -> list[tuple[float, float]]:
    """From the upper right one clockwise: right, lower right, bottom, left, upper left, top."""
    angles = [math.radians(60 * k - 30) for k in range(6)]
    return [(x + reach * math.cos(angle), y + reach * math.sin(angle)) for angle in angles]


def _shapes(state: Any, params: Any, seat: int) -> dict[str, str]:
    size = int(params.side)
    radius, wide, high, left, top = _frame(size)
    return {
        name: ring(_corners(left + wide * (k % size + k // size / 2), top + high * (k // size), radius))
        for k, name in enumerate(cell_names(size, size))
    }


def _draw(state: Any, params: Any) -> NDArray[np.uint8]:
    """Hexagons between two red and two blue sides; a dot marks the last stone."""
    size = int(params.side)
    radius, wide, high, left, top = _frame(size)
    width = left + wide * (1.5 * size - 1) + 46
    canvas = Canvas(round(width), round(top + high * (size - 1) + radius + 66))

    def centre(row: int, column: int) -> tuple[float, float]:
        return left + wide * (column + row / 2), top + high * row

    def corners(row: int, column: int, reach: float) -> list[tuple[float, float]]:
        return _corners(*centre(row, column), reach)

    for k in range(size):  # the sides, as borders of the outermost cells
        for (row, column), fill, edges in (
            ((0, k), RED, (4, 5)), ((size - 1, k), RED, (1, 2)), ((k, 0), BLUE, (2, 3)), ((k, size - 1), BLUE, (0, 5)),
        ):  # fmt: skip
            points = corners(row, column, radius + 3)
            ends = {(4, 5): (4, 5, 0), (1, 2): (1, 2, 3), (2, 3): (2, 3, 4), (0, 5): (5, 0, 1)}[edges]
            canvas.line([points[end] for end in ends], fill, 9, round_ends=True)
    for row in range(size):
        for column in range(size):
            canvas.polygon(corners(row, column, radius + 0.5), GRID)
            canvas.polygon(corners(row, column, radius - 1.2), CELL)
            (x, y), seat = centre(row, column), _stone(state, row, column)
            if seat >= 0:
                canvas.disc(x, y, 0.68 * radius, (RED, BLUE)[seat], (PALE_RED, PALE_BLUE)[seat], 2)
            if (row, column) == _last(state, size):
                canvas.disc(x, y, 0.2 * radius, PAPER)
    for k in range(size):
        x, y = centre(0, k)
        canvas.text(x, y - radius - 20, LETTERS[k], size=15)
        x, y = centre(k, 0)
        canvas.text(x - wide / 2 - 22, y, str(k + 1), size=15)
    canvas.text(width / 2, canvas.image.height - 22, title(state, ("red", "blue")), size=16, fill=INK)
    return canvas.array()
