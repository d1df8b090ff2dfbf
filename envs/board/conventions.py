"""What board games share: whose turn it is, how a game ended, symmetries, names of moves, and boards as text.

Every game here has two seats; seat 0 moves first, and the seat that is not to move passes. State fields that all have:

| field | meaning |
|---|---|
| ``turn`` | the seat to move (at the end: that would be) |
| ``outcome`` | ``OPEN``, ``FIRST_WON``, ``SECOND_WON`` or ``DRAWN`` |

Observations are uint8 planes [3, rows, columns] of 0 and 1: the seat's own stones, the other's, and all 1 if it is the
seat's turn (Go has two more). ``game.layout`` of each has ``"moves"``, the names of the actions by seat, and
``"symmetries"``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mlbits.envs.core.drawing import INK, Canvas, box
from mlbits.envs.core.rules import rule

OPEN, FIRST_WON, SECOND_WON, DRAWN = 0, 1, 2, 3
PLANES = 3
LETTERS = "abcdefghijklmnopqrstuvwxyz"

# Ranges of the fields that every board game's state has.
RANGES = {"turn": (0, 1), "outcome": (OPEN, DRAWN)}


@rule
def acts(state: Any, params: Any, seat: Any) -> Any:
    """Whether it is this seat's turn."""
    return state.turn == seat


@rule
def begin(state: Any) -> None:
    """Seat 0 is to move, and the game is open."""
    state.turn = 0
    state.outcome = OPEN


# Eight cells as 0 and 1, by their eight bits: looked up and copied, they cost two instructions.
BYTE_CELLS = np.array([[bits >> cell & 1 for cell in range(8)] for bits in range(256)], np.uint8)


@rule
def win(state: Any, rewards: Any, seat: Any) -> None:
    """End the game with a winner: 1 for it, -1 for the other seat."""
    state.outcome = FIRST_WON + seat
    rewards[seat] = 1
    rewards[1 - seat] = -1


def planes(rows: int, columns: int) -> spaces.Box:
    """The observation space: own stones, the other's stones, whether it is the own turn."""
    return spaces.Box(0, 1, (PLANES, rows, columns), np.uint8)


@dataclass(frozen=True)
class Symmetries:
    """The symmetries of a game: turned or mirrored, a position stays equally good, and its moves go along.

    Attributes:
        cells: int [G, cells]; under symmetry g, cell i of the new board shows what cell ``cells[g, i]`` showed.
        actions: int [G, A]; new action a does what action ``actions[g, a]`` did.

    Symmetry 0 changes nothing. Policies, masks and visit counts change as masks do.
    """

    cells: NDArray[np.int64]
    actions: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.cells)

    def observation(self, obs: Any, g: int) -> Any:
        """Observations [..., planes, rows, columns] (array or tensor) under symmetry ``g``."""
        return obs.reshape(*obs.shape[:-2], -1)[..., self.cells[g]].reshape(obs.shape)

    def policy(self, values: Any, g: int) -> Any:
        """Values of actions [..., A], such as masks or probabilities, under symmetry ``g``."""
        return values[..., self.actions[g]]

    def action(self, action: Any, g: int) -> Any:
        """The action (an integer, or an array of them) that does after symmetry ``g`` what ``action`` did before."""
        return np.argsort(self.actions[g])[action]


def square_symmetries(size: int, extra_actions: int = 0) -> Symmetries:
    """The eight turns and reflections of a square board on which action i plays on cell i.

    Args:
        size: rows and columns.
        extra_actions: actions after those of the cells (such as a pass), which stay what they are.
    """
    board = np.arange(size * size).reshape(size, size)
    turned = [np.rot90(side, k) for side in (board, board.T) for k in range(4)]
    return cell_symmetries(turned, extra_actions)


def cell_symmetries(boards: Sequence[NDArray[np.int64]], extra_actions: int = 0) -> Symmetries:
    """Symmetries from boards of cell numbers, where action i plays on cell i, and more actions stay what they are."""
    cells = np.stack([board.ravel() for board in boards]).astype(np.int64)
    rest = np.arange(cells.shape[1], cells.shape[1] + extra_actions)
    return Symmetries(cells, np.concatenate([cells, np.tile(rest, (len(cells), 1))], 1))


def cell_names(rows: int, columns: int) -> tuple[str, ...]:
    """Names of the cells, row by row from the top: a1, b1, and so on; letters are columns, numbers rows."""
    return tuple(f"{LETTERS[column]}{row + 1}" for row in range(rows) for column in range(columns))


def cell_shapes(left: float, top: float, cell: float, rows: int, columns: int) -> dict[str, str]:
    """Where the cells are on a drawing, by their names: squares of ``cell`` pixels from (left, top)."""
    return {
        name: box(left + k % columns * cell, top + k // columns * cell, cell, cell)
        for k, name in enumerate(cell_names(rows, columns))
    }


def title(state: Any, names: tuple[str, str]) -> str:
    """Who is to move, or how the game ended; ``names`` are the two sides'."""
    outcome = int(state.outcome)
    if outcome == OPEN:
        return f"{names[int(state.turn)]} to move"
    return "draw" if outcome == DRAWN else f"{names[outcome - FIRST_WON]} won"


def board_text(rows: Sequence[str], heading: str, *, numbers: bool = True, slant: int = 0) -> str:
    """A board as text with its coordinates.

    Args:
        rows: one string per row, one character per cell.
        heading: the line below the board.
        numbers: whether rows are numbered, 1 at the top.
        slant: spaces by which each row begins further right than the one above.
    """
    width = len(str(len(rows))) + 1 if numbers else 0
    lines = [" " * width + " ".join(LETTERS[: len(rows[0])])]
    for number, row in enumerate(rows, 1):
        label = f"{number:>{width - 1}} " if numbers else ""
        lines.append(" " * slant * (number - 1) + label + " ".join(row))
    return "\n".join([*lines, heading]) + "\n"


def label_columns(canvas: Canvas, left: float, y: float, cell: float, columns: int, fill: Any = INK) -> None:
    """Write letters centred on the columns of a board, at height ``y``; ``cell`` is a column's width in pixels."""
    for column in range(columns):
        canvas.text(left + (column + 0.5) * cell, y, LETTERS[column], size=15, fill=fill)


def label_rows(canvas: Canvas, x: float, top: float, cell: float, rows: int, fill: Any = INK) -> None:
    """Write numbers centred on the rows of a board, at ``x``; ``cell`` is a row's height in pixels."""
    for row in range(rows):
        canvas.text(x, top + (row + 0.5) * cell, str(row + 1), size=15, fill=fill)
