"""Labyrinth: visit every cell of a maze that is new in each episode, seeing only which ways are open.

Description:
    A maze of ``size`` x ``size`` cells, all of which are joined and none by two ways, is drawn anew for every episode.
    The agent sees the four walls around it and nothing else, neither where it is nor where it has been: it has to
    remember. Every step costs, until all cells are visited.

    Source: Ermolov and Sebe, "Latent world models for intrinsically motivated exploration" (2020), whose partially
    observable labyrinth, generator (random depth-first) and reward these are.

Actions:
    Discrete(4): 0 up, 1 right, 2 down, 3 left. Walking into a wall is standing still.

Observations:
    MultiBinary(4): whether the way up, right, down and left is open.

Rewards:
    -1 per step. Going through the maze depth first, with memory but without a map, takes 23.8 steps on average for
    ``size`` 4 and 39.9 for 5; the shortest walk through a known map 20.1 and 33.0 (``mlbits reproduce labyrinth``
    computes them).

Start:
    A random cell of a random maze.

End:
    Termination when every cell was visited. Truncation after ``horizon`` steps (1,000).

Version history:
    v0: first version.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mlbits.envs.core.drawing import BLUE, GRID, INK, PAPER, YELLOW, Canvas
from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.random import randint
from mlbits.envs.core.rules import rule
from mlbits.envs.core.settings import integer

UP, RIGHT, DOWN, LEFT = range(4)
MAX_SIZE = 16


@rule
def neighbour(cell: Any, way: Any, size: Any) -> Any:
    """The cell next to one, numbered row by row; -1 outside."""
    row, column = cell // size, cell % size
    if way == UP:
        return cell - size if row > 0 else -1
    if way == RIGHT:
        return cell + 1 if column < size - 1 else -1
    if way == DOWN:
        return cell + size if row < size - 1 else -1
    return cell - 1 if column > 0 else -1


@rule
def reset(state: Any, params: Any) -> None:
    """Carve a maze by a random depth-first walk, and stand in a random cell of it."""
    size, cells = params.side, params.side * params.side
    for cell in range(cells):
        state.ways[cell] = 0
        state.seen[cell] = 0
        state.origin[cell] = -1
    here = randint(state, cells)
    state.origin[here] = here
    carved = 1
    while carved < cells:
        uncarved = 0
        for way in range(4):
            there = neighbour(here, way, size)
            if there >= 0 and state.origin[there] < 0:
                uncarved += 1
        if uncarved == 0:
            here = state.origin[here]
        else:
            chosen = randint(state, uncarved)
            origin = here
            for way in range(4):
                there = neighbour(origin, way, size)
                if there >= 0 and state.origin[there] < 0:
                    if chosen == 0:
                        state.ways[origin] |= 1 << way
                        state.ways[there] |= 1 << ((way + 2) % 4)
                        here = there
                    chosen -= 1
            state.origin[here] = origin
            carved += 1
    state.cell = randint(state, cells)
    state.seen[state.cell] = 1
    state.unseen = cells - 1


@rule
def step(state: Any, params: Any, actions: Any, rewards: Any) -> Any:
    """Walk, if the way is open."""
    there = neighbour(state.cell, actions[0], params.side)
    if there >= 0 and (state.ways[state.cell] >> actions[0]) & 1:
        state.cell = there
        if state.seen[there] == 0:
            state.seen[there] = 1
            state.unseen -= 1
    rewards[0] = -1.0
    return state.unseen == 0, False


@rule
def observe(state: Any, params: Any, seat: Any, out: Any) -> None:
    """Which of the four ways are open."""
    for way in range(4):
        out[way] = (state.ways[state.cell] >> way) & 1


def labyrinth(size: int = 4, *, horizon: int | None = 1000) -> Game:
    """A labyrinth.

    Args:
        size: rows and columns of the maze, 2 to 16.
        horizon: steps after which the episode is truncated, or None.

    Raises:
        GameError: for a setting out of range.
    """
    size = integer("size", size, 2, MAX_SIZE)
    cells, room = size * size, MAX_SIZE * MAX_SIZE  # one room for all, so that all sizes share compiled code
    return Game(
        name="Labyrinth",
        state_fields=[
            ("cell", "i4"), ("unseen", "i4"), ("ways", "u1", (room,)), ("seen", "u1", (room,)),
            ("origin", "i2", (room,)),
        ],
        state_ranges={"cell": (0, cells - 1), "unseen": (0, cells - 1), "origin": (-1, cells - 1)},
        params=make_params([("side", "i4")], {"side": size}, horizon),
        observation_space=spaces.MultiBinary(4),
        action_space=spaces.Discrete(4),
        reset=reset,
        step=step,
        observe=observe,
        text=_text,
        draw=_draw,
    )  # fmt: skip


def _open(state: Any, cell: int, way: int) -> bool:
    return bool(int(state.ways[cell]) >> way & 1)


def _text(state: Any, params: Any) -> str:
    """The maze with its walls: the agent ``A``, visited cells ``.``."""
    size = int(params.side)
    lines = ["+" + "--+" * size]
    for row in range(size):
        across, below = "|", "+"
        for column in range(size):
            cell = row * size + column
            mark = "A " if cell == int(state.cell) else ". " if int(state.seen[cell]) else "  "
            across += mark + (" " if _open(state, cell, RIGHT) else "|")
            below += ("  " if _open(state, cell, DOWN) else "--") + "+"
        lines += [across, below]
    return "\n".join(lines) + "\n"


def _draw(state: Any, params: Any) -> NDArray[np.uint8]:
    """The maze, the visited cells in yellow, and around the agent, in blue, the walls that it sees."""
    size = int(params.side)
    side = max(16, min(56, 360 // size))
    canvas = Canvas(size * side + 21, size * side + 45)
    canvas.text(10, size * side + 32, f"{int(state.unseen)} cells to find", anchor="lm")
    for cell in range(size * size):
        x, y = 10 + cell % size * side, 10 + cell // size * side
        seen = bool(int(state.seen[cell]))
        canvas.pen.rectangle([x, y, x + side, y + side], fill=YELLOW if seen else PAPER, outline=GRID)
    for cell in range(size * size):
        _draw_walls(canvas, state, cell, size, side, INK)
    here = int(state.cell)
    _draw_walls(canvas, state, here, size, side, BLUE)
    canvas.disc(10 + (here % size + 0.5) * side, 10 + (here // size + 0.5) * side, side * 0.28, BLUE, outline=INK)
    return canvas.array()


def _draw_walls(canvas: Canvas, state: Any, cell: int, size: int, side: int, colour: Any) -> None:
    x, y = 10 + cell % size * side, 10 + cell // size * side
    ends = {
        UP: (x, y, x + side, y), RIGHT: (x + side, y, x + side, y + side),
        DOWN: (x, y + side, x + side, y + side), LEFT: (x, y, x, y + side),
    }  # fmt: skip
    for way, line in ends.items():
        if not _open(state, cell, way):
            canvas.pen.line(line, fill=colour, width=3)
