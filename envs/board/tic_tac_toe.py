"""Tic-tac-toe: three in a line on nine cells.

Description:
    In turn, two players put their mark into a free cell of a 3x3 board. Three own marks in a row, a column or a
    diagonal win. With perfect play the game is a draw.

    Source: traditional. There are 5,478 positions and 255,168 games.

Actions:
    Discrete(9): the cell, row by row from the top left (a1, b1, c1, a2, and so on). A taken cell is illegal.

Observations:
    Box uint8 [3, 3, 3] of 0 and 1, row 0 at the top: the seat's own marks, the other's, and all 1 if it is the
    seat's turn.

Rewards:
    1 for the winner and -1 for the other seat at the end; 0 for a draw and before the end.

Start:
    An empty board; seat 0 moves first.

End:
    Termination with three in a line, or when the board is full, which is a draw. There is no truncation.

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
from mlbits.envs.core.drawing import BLUE, GREY, RED, YELLOW, Canvas
from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.rules import rule

SIZE = 3
FULL = 0b111_111_111
# Sets of cells, one bit per cell: rows, columns, diagonals.
LINES = (
    0b000_000_111, 0b000_111_000, 0b111_000_000, 0b001_001_001, 0b010_010_010, 0b100_100_100,
    0b100_010_001, 0b001_010_100,
)  # fmt: skip


@rule
def reset(state: Any, params: Any) -> None:
    """An empty board."""
    state.marks[0] = 0
    state.marks[1] = 0
    begin(state)


@rule
def step(state: Any, params: Any, actions: Any, rewards: Any) -> Any:
    """Mark a cell; returns (terminated, truncated)."""
    mover = state.turn
    own = state.marks[mover] | (1 << actions[mover])
    state.marks[mover] = own
    state.turn = 1 - mover
    won = False
    for line in LINES:
        won |= (own & line) == line
    full = (own | state.marks[1 - mover]) == FULL
    if won:
        win(state, rewards, mover)
    elif full:
        state.outcome = DRAWN
    return won or full, False


@rule
def observe(state: Any, params: Any, seat: Any, out: Any) -> None:
    """Own marks, the other's, the turn."""
    own, other, turn = state.marks[seat], state.marks[1 - seat], state.turn == seat
    for row in range(SIZE):
        for column in range(SIZE):
            cell = SIZE * row + column
            out[0, row, column] = (own >> cell) & 1
            out[1, row, column] = (other >> cell) & 1
            out[2, row, column] = turn


@rule
def legal(state: Any, params: Any, seat: Any, out: Any) -> None:
    """The free cells."""
    taken = state.marks[0] | state.marks[1]
    for cell in range(SIZE * SIZE):
        out[cell] = (taken >> cell) & 1 == 0


def tic_tac_toe() -> Game:
    """A game of tic-tac-toe."""
    return Game(
        name="TicTacToe",
        seats=2,
        state_fields=[("marks", "i4", (2,)), ("turn", "i1"), ("outcome", "i1")],
        state_ranges={"marks": (0, FULL), **RANGES},
        params=make_params([], {}),
        observation_space=planes(SIZE, SIZE),
        action_space=spaces.Discrete(SIZE * SIZE),
        reset=reset,
        step=step,
        observe=observe,
        legal=legal,
        acts=acts,
        text=_text,
        draw=_draw,
        shapes=_shapes,
        layout={"moves": (cell_names(SIZE, SIZE),) * 2, "symmetries": square_symmetries(SIZE)},
    )


def _mark(state: Any, cell: int) -> int:
    """The seat whose mark is in a cell, or -1."""
    return next((seat for seat in (0, 1) if int(state.marks[seat]) >> cell & 1), -1)


def _text(state: Any, params: Any) -> str:
    rows = ["".join("XO."[_mark(state, SIZE * row + column)] for column in range(SIZE)) for row in range(SIZE)]
    return board_text(rows, title(state, ("X", "O")))


_CELL, _LEFT, _TOP = 96, 44, 44  # of the drawing, in pixels


def _shapes(state: Any, params: Any, seat: int) -> dict[str, str]:
    return cell_shapes(_LEFT, _TOP, _CELL, SIZE, SIZE)


def _draw(state: Any, params: Any) -> NDArray[np.uint8]:
    """Four lines, crosses and noughts, and a stroke through a winner's three."""
    cell, left, top = _CELL, _LEFT, _TOP
    side = SIZE * cell
    canvas = Canvas(2 * left + side, top + side + 48)

    def centre(place: int) -> tuple[float, float]:
        return left + (place % SIZE + 0.5) * cell, top + (place // SIZE + 0.5) * cell

    for line in LINES:
        if any(int(marks) & line == line for marks in state.marks):
            places = [place for place in range(SIZE * SIZE) if line >> place & 1]
            canvas.line([centre(places[0]), centre(places[-1])], YELLOW, 40, round_ends=True)
    for k in (1, 2):
        at = k * cell
        canvas.line([(left + at, top), (left + at, top + side)], GREY, 4, round_ends=True)
        canvas.line([(left, top + at), (left + side, top + at)], GREY, 4, round_ends=True)
    for place in range(SIZE * SIZE):
        (x, y), seat, reach = centre(place), _mark(state, place), 26
        if seat == 0:
            canvas.line([(x - reach, y - reach), (x + reach, y + reach)], BLUE, 11, round_ends=True)
            canvas.line([(x - reach, y + reach), (x + reach, y - reach)], BLUE, 11, round_ends=True)
        elif seat == 1:
            canvas.arc(x, y, reach + 6, 0, 360, RED, 11)
    label_columns(canvas, left, top - 20, cell, SIZE)
    label_rows(canvas, left - 20, top, cell, SIZE)
    canvas.text(left + side / 2, top + side + 26, title(state, ("X", "O")), size=16)
    return canvas.array()
