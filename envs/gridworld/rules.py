"""The rules of every gridworld: one agent on a map, four moves, walls, goals and pits, slips, a cost a step."""

from __future__ import annotations

from typing import Any

from mlbits.envs.core.random import randint, uniform
from mlbits.envs.core.rules import rule

EMPTY, WALL, GOAL, PIT, CLIFF = range(5)
NUM_PLANES = 5  # the agent, then walls, goals, pits and cliffs
TILE = 8  # pixels of a cell's side in the "pixels" observation


@rule
def reset(state: Any, params: Any) -> None:
    """Put the agent on one of the start cells, each as likely."""
    state.cell = params.starts[randint(state, params.num_starts)] if params.num_starts > 1 else params.starts[0]


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
    return kind == GOAL or kind == PIT, False


@rule
def observe_index(state: Any, params: Any, seat: Any, out: Any) -> None:
    """The number of the agent's cell, row by row."""
    out[0] = state.cell


@rule
def observe_one_hot(state: Any, params: Any, seat: Any, out: Any) -> None:
    """One entry a cell, 1 where the agent stands."""
    for cell in range(out.shape[0]):
        out[cell] = 0
    out[state.cell] = 1


@rule
def observe_planes(state: Any, params: Any, seat: Any, out: Any) -> None:
    """Planes [5, H, W] of 0 and 1: the agent, walls, goals, pits, cliffs."""
    for row in range(params.height):
        for column in range(params.width):
            cell = row * params.width + column
            out[0, row, column] = state.cell == cell
            for kind in range(WALL, CLIFF + 1):
                out[kind, row, column] = params.kind[cell] == kind


@rule
def observe_pixels(state: Any, params: Any, seat: Any, out: Any) -> None:
    """A small image [8 H, 8 W, 3]: a colour a kind of cell, the agent a blue square within its cell."""
    for row in range(params.height * TILE):
        for column in range(params.width * TILE):
            cell = (row // TILE) * params.width + column // TILE
            kind = params.kind[cell]
            inner = 2 <= row % TILE < TILE - 2 and 2 <= column % TILE < TILE - 2
            agent = inner and state.cell == cell
            out[row, column, 0] = 30 if agent else PIXEL_RED[kind]
            out[row, column, 1] = 90 if agent else PIXEL_GREEN[kind]
            out[row, column, 2] = 220 if agent else PIXEL_BLUE[kind]


# Colours of floor, wall, goal, pit and cliff.
PIXEL_RED = (245, 70, 60, 200, 120)
PIXEL_GREEN = (245, 70, 170, 60, 80)
PIXEL_BLUE = (240, 80, 90, 50, 50)
