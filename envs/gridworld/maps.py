"""Gridworld maps: their letters, the named maps, and how text is turned into parameters.

| letter | cell |
|---|---|
| ``.`` or space | floor |
| ``#`` | wall |
| ``S`` | floor, a start cell (if a map has none, every floor cell is one) |
| ``G`` | goal: ends the episode |
| ``X`` | pit: ends the episode |
| ``C`` | cliff: back to the first start cell |
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbits.envs.core.errors import GameError, UnknownIdError
from mlbits.envs.gridworld.rules import CLIFF, EMPTY, GOAL, PIT, WALL

LETTERS = {".": EMPTY, " ": EMPTY, "S": EMPTY, "#": WALL, "G": GOAL, "X": PIT, "C": CLIFF}
MOVE_NAMES = ("up", "right", "down", "left")
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))  # up, right, down, left

MAPS = {
    "8x8": """
S.......
........
...#....
.....#..
...#....
.##...#.
.#..#.X.
...#...G
""",
    "empty_8x8": """
S.......
........
........
........
........
........
........
.......G
""",
    "russell_norvig": """
...G
.#.X
S...
""",
    "four_rooms": """
#############
#.....#.....#
#.....#.....#
#...........#
#.....#.....#
#.....#.....#
##.####.....#
#.....###.###
#.....#.....#
#.....#.....#
#...........#
#.....#....G#
#############
""",
    "cliff_walk": """
............
............
............
SCCCCCCCCCCG
""",
    "maze": """
S#.......#
.#.#####.#
.#.#...#..
.#.#.#.##.
...#.#....
####.####.
.....#....
.#####.##.
.#...#.#..
...#...#.G
""",
}

_CAPACITIES = (256, 1024, 4096, 16384)
MAX_SIDE = 128


def read_map(text: str) -> tuple[NDArray[np.uint8], NDArray[np.int16]]:
    """Parse a map.

    Args:
        text: the name of a map, or rows of letters separated by newlines or "/".

    Returns:
        kinds uint8 [H, W], and the start cells int16 [S], numbered row by row.

    Raises:
        UnknownIdError: for a single word that is neither a map's name nor made of map letters.
        GameError: for rows of different lengths, unknown letters, no reachable goal, no start, or a side above 128.
    """
    if not isinstance(text, str):
        raise GameError(f"map: got {text!r}; wanted the name of a map, or its rows as one string")
    if text in MAPS:
        text = MAPS[text]
    elif re.fullmatch(r"[a-z0-9_ -]{2,}", text.lower()) and set(text) - set(LETTERS):
        raise UnknownIdError("map", text, MAPS, "map")
    rows = text.strip("\n").replace("/", "\n").split("\n")
    widths = sorted({len(row) for row in rows})
    if len(widths) != 1:
        ragged = next(i for i, row in enumerate(rows) if len(row) != len(rows[0]))
        raise GameError(
            f"map: ragged rows: row {ragged} has {len(rows[ragged])} cells and row 0 has {len(rows[0])}; wanted equal"
        )
    height, width = len(rows), widths[0]
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise GameError(f"map: got {height} x {width} cells; wanted sides from 1 to {MAX_SIDE}")
    for i, row in enumerate(rows):
        for j, letter in enumerate(row):
            if letter not in LETTERS:
                raise GameError(f"map: row {i}, column {j} is {letter!r}; wanted one of {' '.join(LETTERS)}")
    letters = np.array([list(row) for row in rows])
    kinds = np.array([[LETTERS[letter] for letter in row] for row in rows], np.uint8)
    starts = np.flatnonzero(letters.reshape(-1) == "S")
    if len(starts) == 0:
        starts = np.flatnonzero(kinds.reshape(-1) == EMPTY)
    if not (kinds == GOAL).any():
        raise GameError("map: there is no goal; wanted at least one cell 'G'")
    if len(starts) == 0:
        raise GameError("map: there is no cell to start from; wanted a cell 'S' or '.'")
    if not (kinds.reshape(-1)[sorted(_reached(kinds, starts))] == GOAL).any():
        raise GameError("map: no goal can be reached from a start cell; wanted a way through the walls")
    return kinds, starts.astype(np.int16)


def _reached(kinds: NDArray[np.uint8], starts: NDArray[Any]) -> set[int]:
    """The cells that can be reached from the start cells."""
    table, reached, edge = neighbours(kinds), {int(cell) for cell in starts}, [int(cell) for cell in starts]
    while edge:
        for cell in table[edge.pop()].tolist():
            if cell not in reached:
                reached.add(cell)
                edge.append(cell)
    return reached


def neighbours(kinds: NDArray[np.uint8]) -> NDArray[np.int16]:
    """The cell to which each move leads, int16 [H * W, 4]; moves into a wall or off the map stay."""
    height, width = kinds.shape
    table = np.empty((height * width, 4), np.int16)
    for row in range(height):
        for column in range(width):
            for direction, (down, right) in enumerate(MOVES):
                r, c = row + down, column + right
                inside = 0 <= r < height and 0 <= c < width and kinds[r, c] != WALL
                table[row * width + column, direction] = r * width + c if inside else row * width + column
    return table


def capacity(cells: int) -> int:
    """The size of the parameter arrays, one of a few so that maps share compiled code."""
    return next(size for size in _CAPACITIES if size >= cells)


def params_fields(cells: int) -> list[tuple[Any, ...]]:
    """The fields of a gridworld's parameters for maps of up to ``capacity(cells)`` cells."""
    size = capacity(cells)
    return [
        ("height", "i4"), ("width", "i4"), ("slip", "f4"), ("num_starts", "i4"), ("reward", "f4", (5,)),
        ("starts", "i2", (size,)), ("kind", "u1", (size,)), ("neighbour", "i2", (size, 4)),
    ]  # fmt: skip
