"""Draws CollectObjects as text and as an image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbits.envs.core.drawing import BLUE, GREEN, GREY, GRID, INK, PAPER, RED, SMALLEST_TEXT, Canvas

_BIGGEST_SIDE = 512


def text(state: Any, params: Any) -> str:
    """The map with ``A`` for the agent; objects as their numbers, absent ones as ``'``; then what each object is."""
    rows, columns, width = int(params.rows), int(params.columns), int(params.width)
    grid = [["#" if params.wall[row * width + column] else "." for column in range(columns)] for row in range(rows)]
    lines = []
    for k, (cell, there) in enumerate(_objects(state, params)):
        grid[cell // width][cell % width] = str(k) if there else "'"
        numbers = f"{params.reward[k]:+.2f}, ends {params.ending[k]:.3f}, returns {params.respawn[k]:.3f}"
        lines.append(f"{k}: {numbers}{'' if there else ' (absent)'}")
    grid[int(state.cell) // width][int(state.cell) % width] = "A"
    return "\n".join(["".join(row) for row in grid] + lines) + "\n"


def draw(state: Any, params: Any) -> NDArray[np.uint8]:
    """The map, with objects as discs (green for a reward, red for a cost; an outline where one is absent)."""
    rows, columns, width = int(params.rows), int(params.columns), int(params.width)
    side = max(24, min(64, _BIGGEST_SIDE // max(rows, columns)))
    canvas = Canvas(columns * side + 1, rows * side + 1)
    for row in range(rows):
        for column in range(columns):
            x, y = column * side, row * side
            fill = GREY if params.wall[row * width + column] else PAPER
            canvas.pen.rectangle([x, y, x + side, y + side], fill=fill, outline=GRID)
    for k, (cell, there) in enumerate(_objects(state, params)):
        middle = (cell % width + 0.5) * side, (cell // width + 0.5) * side
        colour = GREEN if params.reward[k] > 0 else RED
        canvas.disc(*middle, side * 0.42, colour if there else PAPER, outline=colour, width=2)
        if side * 0.32 >= SMALLEST_TEXT:
            reward = f"{float(params.reward[k]):+.1f}"
            canvas.text(*middle, reward, size=max(SMALLEST_TEXT, int(side * 0.28)), fill=PAPER if there else colour)
    row, column = divmod(int(state.cell), width)
    canvas.disc((column + 0.5) * side, (row + 0.74) * side, side * 0.2, BLUE, outline=INK)
    return canvas.array()


def _objects(state: Any, params: Any) -> list[tuple[int, bool]]:
    """Each object's cell, and whether it is there. Before the first episode no object has a place of its own."""
    return [(int(state.place[k]), bool(int(state.present) >> k & 1)) for k in range(int(params.num_objects))]
