"""The rules of gridworlds with a fixed map, and the observations of all gridworlds."""

from __future__ import annotations

from typing import Any

from mlbits.envs.core.random import randint, uniform
from mlbits.envs.core.rules import rule

EMPTY, WALL, GOAL, PIT, CLIFF = range(5)
NUM_PLANES = 5  # the agent, then walls, goals, pits and cliffs
TILE = 8  # width and height of a cell in the "pixels" observation


@rule
def reset(state: Any, params: Any) -> None:
    """Put the agent on a uniformly drawn start cell."""
    start = randint(state, params.num_starts) if params.num_starts > 1 else 0
    state.cell = params.starts[start]


@rule
def step(state: Any, params: Any, actions: Any, rewards: Any) -> Any:
    """Move up, right, down or left; with the slip probability in a direction drawn uniformly instead."""
    direction = actions[0]
    if params.slip > 0 and uniform(state) < params.slip:
        direction = randint(state, 4)
    state.cell = params.neighbour[state.cell, direction]
    kind = params.kind[state.cell]
    rewards[0] = params.reward[kind]
    if kind == CLIFF:
        state.cell = params.starts[0]
    return kind in (GOAL, PIT), False


@rule
def observe_index(state: Any, params: Any, seat: Any, out: Any) -> None:
    """The agent's cell, numbered row by row."""
    out[0] = state.cell


@rule
def observe_one_hot(state: Any, params: Any, seat: Any, out: Any) -> None:
    """One entry per cell, 1 at the agent's cell."""
    for cell in range(out.shape[0]):
        out[cell] = 0
    out[state.cell] = 1


@rule(inline=False)
def write_planes(kinds: Any, agent: Any, out: Any) -> None:
    """Planes [5, H, W] of 0 and 1: the agent, walls, goals, pits, cliffs (``kinds`` is in row-major order)."""
    width = out.shape[2]
    for row in range(out.shape[1]):
        for column in range(width):
            cell = row * width + column
            out[0, row, column] = agent == cell
            for kind in range(WALL, CLIFF + 1):
                out[kind, row, column] = kinds[cell] == kind


@rule(inline=False)
def write_pixels(kinds: Any, agent: Any, out: Any) -> None:
    """A small image [8 H, 8 W, 3]: one colour per kind of cell, and the agent as a blue square within its cell."""
    width = out.shape[1] // TILE
    for cell in range(width * (out.shape[0] // TILE)):
        top, left, kind, here = cell // width * TILE, cell % width * TILE, kinds[cell], agent == cell
        for row in range(TILE):
            for column in range(TILE):
                blue = here and 2 <= row < TILE - 2 and 2 <= column < TILE - 2
                out[top + row, left + column, 0] = 30 if blue else PIXEL_RED[kind]
                out[top + row, left + column, 1] = 90 if blue else PIXEL_GREEN[kind]
                out[top + row, left + column, 2] = 220 if blue else PIXEL_BLUE[kind]


@rule
def observe_planes(state: Any, params: Any, seat: Any, out: Any) -> None:
    """Planes [5, H, W] of 0 and 1: the agent, walls, goals, pits, cliffs."""
    write_planes(params.kind, state.cell, out)


@rule
def observe_pixels(state: Any, params: Any, seat: Any, out: Any) -> None:
    """A small image [8 H, 8 W, 3]: one colour per kind of cell, and the agent as a blue square within its cell."""
    write_pixels(params.kind, state.cell, out)


# Colours of floor, wall, goal, pit and cliff.
PIXEL_RED = (245, 70, 60, 200, 120)
PIXEL_GREEN = (245, 70, 170, 60, 80)
PIXEL_BLUE = (240, 80, 90, 50, 50)
