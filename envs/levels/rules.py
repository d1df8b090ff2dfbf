"""The rules of CollectObjects: walk on a grid and collect objects, which end the episode or come back."""

from __future__ import annotations

from typing import Any

from mlbits.envs.core.random import randint, uniform
from mlbits.envs.core.rules import rule

MOST_OBJECTS = 8
# Stay, the four neighbours, then the diagonal ones; the first five are the moves of the smallest action set.
DOWN = (0, -1, 0, 1, 0, -1, 1, 1, -1)
RIGHT = (0, 0, 1, 0, -1, 1, 1, -1, -1)
NUM_MOVES = len(DOWN)


@rule
def reset(state: Any, params: Any) -> None:
    """Put the agent on a start cell, and all objects at their places or on free floor."""
    state.cell = params.floor[randint(state, params.num_starts) if params.num_starts > 1 else 0]
    state.present = 0
    for k in range(MOST_OBJECTS):
        state.place[k] = params.place[k]
    for k in range(params.num_objects):
        if params.scattered != 0:
            state.place[k] = free_cell(state, params)
        state.present |= 1 << k


@rule
def step(state: Any, params: Any, actions: Any, rewards: Any) -> Any:
    """Move, or collect at a neighbouring cell; collect what lies there; then absent objects may come back."""
    action = actions[0]
    walks = action < NUM_MOVES
    target = neighbour(state.cell, action if walks else action - NUM_MOVES, params)
    if walks and target >= 0:
        state.cell = target
    if walks:
        target = state.cell if params.automatic != 0 else -1
    ended = False
    for k in range(params.num_objects):
        if (state.present >> k) & 1 == 1 and state.place[k] == target:
            rewards[0] += params.reward[k]
            state.present -= 1 << k
            if uniform(state) < params.ending[k]:
                ended = True
    if not ended:
        for k in range(params.num_objects):
            if (state.present >> k) & 1 == 0 and uniform(state) < params.respawn[k]:
                if params.scattered != 0:
                    state.place[k] = free_cell(state, params)
                state.present |= 1 << k
    return ended, False


@rule
def neighbour(cell: Any, move: Any, params: Any) -> Any:
    """The cell to which a move leads; -1 for a wall, or beyond the edge."""
    row = cell // params.width + DOWN[move]
    column = cell % params.width + RIGHT[move]
    inside = 0 <= row < params.height and 0 <= column < params.width
    target = row * params.width + column if inside else 0
    return target if inside and params.wall[target] == 0 else -1


@rule(inline=False)
def free_cell(state: Any, params: Any) -> Any:
    """A cell drawn uniformly from the floor without the agent and the objects that are there."""
    free = 0
    for i in range(params.num_floor):
        if not taken(state, params, params.floor[i]):
            free += 1
    nth = randint(state, free)
    for i in range(params.num_floor):
        if not taken(state, params, params.floor[i]):
            if nth == 0:
                return params.floor[i]
            nth -= 1
    return state.cell  # never, since a level has more floor than objects


@rule
def taken(state: Any, params: Any, cell: Any) -> Any:
    """Whether the agent or an object is on a cell."""
    occupied = state.cell == cell
    for k in range(params.num_objects):
        if (state.present >> k) & 1 == 1 and state.place[k] == cell:
            occupied = True
    return occupied


@rule
def observe_index(state: Any, params: Any, seat: Any, out: Any) -> None:
    """One number for the agent's cell and the set of objects that are there."""
    out[0] = state.cell + params.height * params.width * state.present


@rule(inline=False)
def observe_planes(state: Any, params: Any, seat: Any, out: Any) -> None:
    """Planes [1 + objects, H, W] of 0 and 1: the agent, then each object."""
    for plane in range(out.shape[0]):
        for row in range(out.shape[1]):
            for column in range(out.shape[2]):
                out[plane, row, column] = 0
    out[0, state.cell // params.width, state.cell % params.width] = 1
    for k in range(params.num_objects):
        if (state.present >> k) & 1 == 1:
            out[1 + k, state.place[k] // params.width, state.place[k] % params.width] = 1
