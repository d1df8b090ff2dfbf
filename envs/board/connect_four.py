"""Connect Four: drop stones into columns, and be the first with four in a line.

Description:
    The board stands upright, seven columns of six cells. In turn, players drop a stone of their colour into a
    column, where it falls to the lowest free cell. Four own stones in a line, horizontal, vertical or diagonal, win.
    With perfect play the first player wins, only by starting in the middle, with the last own stone.

    Source: Howard Wexler and Ned Strongin's game (1974); solved by Allis, "A knowledge-based approach of
    Connect-Four" (1988).

Actions:
    Discrete(7): the column, from the left (letters a to g). A full column is illegal.

Observations:
    Box uint8 [3, 6, 7] of 0 and 1, row 0 at the top: the seat's own stones, the other's, and all 1 if it is the
    seat's turn. The board is not turned for either seat.

Rewards:
    1 for the winner and -1 for the other seat at the end; 0 for a draw and before the end.

Start:
    An empty board; seat 0 moves first.

End:
    Termination with four in a line, or when the board is full, which is a draw. There is no truncation.

Version history:
    v0: first version.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mlbits.envs.board.conventions import (
    BYTE_CELLS,
    DRAWN,
    RANGES,
    Symmetries,
    acts,
    begin,
    board_text,
    label_columns,
    planes,
    title,
    win,
)  # fmt: skip
from mlbits.envs.core.drawing import BLUE, PAPER, RED, YELLOW, Canvas, box
from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.rules import rule

ROWS, COLUMNS = 6, 7
CELLS = ROWS * COLUMNS
# Bit 7 * row + column of a set of stones, row 0 at the top: the order of the observation's cells.
COLUMN = sum(1 << COLUMNS * row for row in range(ROWS))  # the cells of column 0
FULL = (1 << CELLS) - 1
# Where a line to the right, or down to the right, may begin (columns a to d), and one down to the left (d to g).
LEFT, RIGHT = COLUMN * 0b0001111, COLUMN * 0b1111000
EDGE, DARK_RED, DARK_YELLOW = (26, 80, 162), (160, 46, 40), (196, 146, 34)  # of holes and stones


@rule
def four(stones: Any) -> Any:
    """Whether a set of stones has four in a line."""
    level = stones & (stones >> 1)
    down = stones & (stones >> COLUMNS)
    falling = stones & (stones >> (COLUMNS + 1))
    rising = stones & (stones >> (COLUMNS - 1))
    return (
        (level & (level >> 2) & LEFT)
        | (down & (down >> 2 * COLUMNS))
        | (falling & (falling >> 2 * (COLUMNS + 1)) & LEFT)
        | (rising & (rising >> 2 * (COLUMNS - 1)) & RIGHT)
    ) != 0


@rule
def reset(state: Any, params: Any) -> None:
    """An empty board."""
    state.stones[0] = 0
    state.stones[1] = 0
    state.last = -1
    begin(state)


@rule
def step(state: Any, params: Any, actions: Any, rewards: Any) -> Any:
    """Drop a stone; returns (terminated, truncated)."""
    mover = state.turn
    taken = state.stones[0] | state.stones[1]
    free = ~taken & (COLUMN << actions[mover])
    cell = free & ~(free >> COLUMNS)  # the lowest: free cells of a column are its upper ones
    own = state.stones[mover] | cell
    state.stones[mover] = own
    state.last = actions[mover]
    state.turn = 1 - mover
    won = four(own)
    full = (taken | cell) == FULL
    if won:
        win(state, rewards, mover)
    elif full:
        state.outcome = DRAWN
    return won or full, False


@rule
def write_cells(stones: Any, out: Any, start: Any) -> None:
    """Write a set of stones as 42 cells, eight at a time."""
    for k in range(CELLS // 8):
        byte = (stones >> 8 * k) & 255
        for cell in range(8):
            out[start + 8 * k + cell] = BYTE_CELLS[byte, cell]
    out[start + CELLS - 2] = (stones >> (CELLS - 2)) & 1
    out[start + CELLS - 1] = stones >> (CELLS - 1)


@rule
def observe(state: Any, params: Any, seat: Any, out: Any) -> None:
    """Own stones, the other's, the turn."""
    turn, cells = state.turn == seat, out.flat
    write_cells(state.stones[seat], cells, 0)
    write_cells(state.stones[1 - seat], cells, CELLS)
    for k in range(CELLS):
        cells[2 * CELLS + k] = turn


@rule
def legal(state: Any, params: Any, seat: Any, out: Any) -> None:
    """The columns whose top cell is free."""
    taken = state.stones[0] | state.stones[1]
    for column in range(COLUMNS):
        out[column] = (taken >> column) & 1 == 0


def symmetries() -> Symmetries:
    """The board itself, and mirrored from left to right."""
    cells = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS)
    columns = np.arange(COLUMNS)
    return Symmetries(np.stack([cells.ravel(), cells[:, ::-1].ravel()]), np.stack([columns, columns[::-1]]))


def connect_four() -> Game:
    """A game of Connect Four."""
    return Game(
        name="ConnectFour",
        seats=2,
        state_fields=[("stones", "i8", (2,)), ("turn", "i1"), ("outcome", "i1"), ("last", "i1")],
        state_ranges={"stones": (0, FULL), "last": (-1, COLUMNS - 1), **RANGES},
        params=make_params([], {}),
        observation_space=planes(ROWS, COLUMNS),
        action_space=spaces.Discrete(COLUMNS),
        reset=reset,
        step=step,
        observe=observe,
        legal=legal,
        acts=acts,
        text=_text,
        draw=_draw,
        shapes=_shapes,
        layout={"moves": (tuple("abcdefg"),) * 2, "symmetries": symmetries()},
    )


def _stone(state: Any, row: int, column: int) -> int:
    """The seat whose stone lies in a cell (row 0 at the top), or -1."""
    place = COLUMNS * row + column
    return next((seat for seat in (0, 1) if int(state.stones[seat]) >> place & 1), -1)


def _text(state: Any, params: Any) -> str:
    rows = ["".join("XO."[_stone(state, row, column)] for column in range(COLUMNS)) for row in range(ROWS)]
    return board_text(rows, title(state, ("X", "O")), numbers=False)


_CELL, _LEFT, _TOP = 60, 20, 48  # of the drawing, in pixels


def _shapes(state: Any, params: Any, seat: int) -> dict[str, str]:
    """The columns, with the letters above them."""
    return {"abcdefg"[k]: box(_LEFT + k * _CELL, 0, _CELL, _TOP + ROWS * _CELL) for k in range(COLUMNS)}


def _draw(state: Any, params: Any) -> NDArray[np.uint8]:
    """A blue board with holes; the last stone has a white ring, and so have a winner's four."""
    cell, left, top = _CELL, _LEFT, _TOP
    canvas = Canvas(2 * left + COLUMNS * cell, top + ROWS * cell + 52)
    label_columns(canvas, left, 20, cell, COLUMNS)
    canvas.pen.rounded_rectangle(
        [left - 8, top - 8, left + COLUMNS * cell + 8, top + ROWS * cell + 8], radius=16, fill=BLUE
    )
    ringed = _marked(state)
    for row in range(ROWS):
        for column in range(COLUMNS):
            x, y, seat = left + (column + 0.5) * cell, top + (row + 0.5) * cell, _stone(state, row, column)
            if seat < 0:
                canvas.disc(x, y, 24, PAPER, EDGE, 3)
                continue
            canvas.disc(x, y, 25, (RED, YELLOW)[seat], (DARK_RED, DARK_YELLOW)[seat], 4)
            if (row, column) in ringed:
                canvas.disc(x, y, 13, PAPER)
                canvas.disc(x, y, 9, (RED, YELLOW)[seat])
    canvas.text(left + COLUMNS * cell / 2, top + ROWS * cell + 32, title(state, ("red", "yellow")), size=16)
    return canvas.array()


def _marked(state: Any) -> set[tuple[int, int]]:
    """The cells to point out: all winning lines, else the last stone."""
    found: set[tuple[int, int]] = set()
    for row in range(ROWS):
        for column in range(COLUMNS):
            for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
                line = [(row + k * down, column + k * right) for k in range(4)]
                if line[-1][0] < ROWS and 0 <= line[-1][1] < COLUMNS:
                    seats = {_stone(state, *place) for place in line}
                    if len(seats) == 1 and -1 not in seats:
                        found |= set(line)
    last = int(state.last)
    if not found and last >= 0:
        found.add((next(row for row in range(ROWS) if _stone(state, row, last) >= 0), last))
    return found
