"""RandomGridWorld: a new map every episode, with test maps never seen in training.

Description:
    The gridworld of :mod:`mlbits.envs.gridworld` on a map drawn for each episode: random walls (and pits, if asked
    for), a random start and a random goal. Every episode draws a level number; the map with its start and goal is a
    function only of that number, the map's size, the densities and the split. The splits "train" and "test" are
    disjoint: their level numbers differ, and a hash of its cells assigns each map to one split, so that a level
    whose map belongs to the other split is drawn again. Every map can be solved: start and goal are drawn first, then
    walls until a path exists (at most 8 times); if none does, a path of random steps towards the goal is cleared.

    Source: the protocol of Cobbe et al., "Leveraging procedural generation to benchmark reinforcement
    learning" (2020): train on a fixed number of levels (``levels``), test on others.

Actions:
    Discrete(4): 0 up, 1 right, 2 down, 3 left.

Observations (setting ``observation``):

    | value | space | meaning |
    |---|---|---|
    | "planes" | Box(0, 1, [5, H, W], uint8) | agent, walls, goals, pits, cliffs (there are none) |
    | "pixels" | Box(0, 255, [8 H, 8 W, 3], uint8) | a small image |

    "index" and "one_hot" are not offered: they show the agent's cell but not the map.

Rewards:
    ``-step_cost`` for every step; instead of it ``goal_reward`` for reaching the goal and ``pit_reward`` for
    falling into a pit. Without slips the best return is goal_reward - step_cost * (shortest - 1), where
    ``shortest``, a field of the state, is the length of the shortest path from start to goal.

Start:
    The start cell of the episode's level.

End:
    Termination at the goal or in a pit. Truncation after ``horizon`` steps.

Version history:
    v0: first version.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mlbits.envs.core.errors import GameError
from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.random import mix64, randint, uniform
from mlbits.envs.core.rules import rule
from mlbits.envs.core.settings import capacity, choice, integer, number
from mlbits.envs.gridworld import drawing, observation_space
from mlbits.envs.gridworld.maps import MOVE_NAMES
from mlbits.envs.gridworld.rules import EMPTY, GOAL, PIT, WALL, write_pixels, write_planes

MIN_SIDE, MAX_SIDE = 3, 32
LEVELS_A_SPLIT = 2**31
FIRST_LEVEL = {"train": 0, "test": LEVELS_A_SPLIT}
MAX_DENSITY = 0.6
ATTEMPTS = 8  # draws of walls before a path is cleared
# Most redraws of a level whose map belongs to the other split; all fail once in 2**64 (or if a split has no maps).
REDRAWS = 64
_ONE, _HASH_FACTOR = np.uint64(1), np.uint64(0x100000001B3)
# Separates the random streams of levels from those of copies.
_LEVEL_STREAM = np.uint64(0x4D41505F4C56454C)


@rule(inline=False)
def reset(state: Any, params: Any) -> None:
    """Draw a level from the copy's random stream, then build its map from the level's own stream."""
    level = np.uint64(params.first_level) + np.uint64(randint(state, params.num_levels))
    state.level = level
    key, counter = state.rng_key, state.rng_counter
    state.rng_key = mix64(level + _LEVEL_STREAM)
    state.rng_counter = 0
    build(state, params)
    for _ in range(REDRAWS):
        if side_of(state, params) == params.side:
            break
        build(state, params)
    state.rng_key = key
    state.rng_counter = counter
    state.shortest = state.distance[state.cell]


@rule(inline=False)
def build(state: Any, params: Any) -> None:
    """Draw start, goal and map, such that a path connects start and goal."""
    cells = params.height * params.width
    state.goal = randint(state, cells)
    start = randint(state, cells - 1)
    state.cell = start + 1 if start >= state.goal else start
    for _ in range(ATTEMPTS):
        scatter(state, params, cells)
        flood(state, params, cells)
        if state.distance[state.cell] >= 0:
            return
    clear_way(state, params)
    flood(state, params, cells)


@rule
def side_of(state: Any, params: Any) -> Any:
    """The split to which a map belongs, 0 or 1: one bit of a hash of its cells (the start does not matter)."""
    code = np.uint64(params.width)
    for cell in range(params.height * params.width):
        code = code * _HASH_FACTOR + np.uint64(state.kind[cell]) + _ONE
    return np.int64(mix64(code) & _ONE)


@rule
def scatter(state: Any, params: Any, cells: Any) -> None:
    """Draw the kind of every cell."""
    for cell in range(cells):
        u = uniform(state)
        state.kind[cell] = WALL if u < params.wall_below else PIT if u < params.pit_below else EMPTY
    state.kind[state.cell] = EMPTY
    state.kind[state.goal] = GOAL


@rule(inline=False)
def flood(state: Any, params: Any, cells: Any) -> None:
    """Write each cell's distance to the goal in moves, avoiding walls and pits; -1 if there is no path."""
    for cell in range(cells):
        state.distance[cell] = -1
    state.distance[state.goal] = 0
    state.queue[0] = state.goal
    head, tail = 0, 1
    while head < tail:
        cell = state.queue[head]
        head += 1
        for direction in range(4):
            other = neighbour(cell, direction, params.height, params.width)
            kind = state.kind[other]
            if kind != WALL and kind != PIT and state.distance[other] < 0:
                state.distance[other] = state.distance[cell] + 1
                state.queue[tail] = other
                tail += 1


@rule
def clear_way(state: Any, params: Any) -> None:
    """Clear a shortest path from start to goal, with its moves in random order."""
    row, column = state.cell // params.width, state.cell % params.width
    goal_row, goal_column = state.goal // params.width, state.goal % params.width
    while row != goal_row or column != goal_column:
        rows, columns = abs(goal_row - row), abs(goal_column - column)
        if randint(state, rows + columns) < rows:
            row += 1 if goal_row > row else -1
        else:
            column += 1 if goal_column > column else -1
        state.kind[row * params.width + column] = EMPTY
    state.kind[state.goal] = GOAL


@rule
def neighbour(cell: Any, direction: Any, height: Any, width: Any) -> Any:
    """The cell above, right of, below or left of a cell; the same cell at the edge of the map."""
    row, column = cell // width, cell % width
    if direction == 0:
        row = max(row - 1, 0)
    elif direction == 1:
        column = min(column + 1, width - 1)
    elif direction == 2:
        row = min(row + 1, height - 1)
    else:
        column = max(column - 1, 0)
    return row * width + column


@rule
def step(state: Any, params: Any, actions: Any, rewards: Any) -> Any:
    """Move up, right, down or left; with the slip probability in a direction drawn uniformly instead."""
    direction = actions[0]
    if params.slip > 0 and uniform(state) < params.slip:
        direction = randint(state, 4)
    target = neighbour(state.cell, direction, params.height, params.width)
    if state.kind[target] != WALL:
        state.cell = target
    kind = state.kind[state.cell]
    rewards[0] = params.reward[kind]
    return kind in (GOAL, PIT), False


@rule
def observe_planes(state: Any, params: Any, seat: Any, out: Any) -> None:
    """Planes [5, H, W] of 0 and 1: the agent, walls, goals, pits, cliffs."""
    write_planes(state.kind, state.cell, out)


@rule
def observe_pixels(state: Any, params: Any, seat: Any, out: Any) -> None:
    """A small image [8 H, 8 W, 3]."""
    write_pixels(state.kind, state.cell, out)


_PARAMS_FIELDS = [
    ("first_level", "i8"), ("num_levels", "i8"), ("side", "i4"), ("wall_below", "f8"), ("pit_below", "f8"),
    ("slip", "f4"), ("height", "i4"), ("width", "i4"), ("reward", "f4", (5,)),
]  # fmt: skip
_OBSERVE = {"planes": observe_planes, "pixels": observe_pixels}


def random_gridworld(
    size: int | tuple[int, int] = 8,
    *,
    split: Literal["train", "test"] = "train",
    levels: int | None = None,
    first_level: int = 0,
    wall_density: float = 0.25,
    pit_density: float = 0.0,
    slip: float = 0.0,
    step_cost: float = 0.01,
    goal_reward: float = 1.0,
    pit_reward: float = -1.0,
    observation: Literal["planes", "pixels"] = "planes",
    horizon: int | None = 100,
) -> Game:
    """Gridworlds on random maps.

    Args:
        size: side of a square map or (height, width), each 3 to 32.
        split: "train" or "test"; no map is in both.
        levels: number of different levels, or None for all 2**31 of the split.
        first_level: index of the first level within the split; with ``levels=1`` the only one.
        wall_density: probability 0..0.6 that a cell is a wall.
        pit_density: probability that a cell is a pit; at most 0.6 together with ``wall_density``.
        slip: probability 0..1 that a move goes in a uniformly drawn direction.
        step_cost: cost of each step, subtracted from the reward.
        goal_reward: reward for reaching the goal.
        pit_reward: reward for falling into a pit.
        observation: "planes" or "pixels".
        horizon: steps after which the episode is truncated, or None.

    Raises:
        GameError: for a setting out of range.
    """
    sides = _sides(size)
    if observation in ("index", "one_hot"):
        raise GameError(f"observation: got {observation!r}, which hides the map; wanted 'planes' or 'pixels'")
    choice("observation", observation, _OBSERVE)
    horizon = None if horizon is None else integer("horizon", horizon, 1, 2**31 - 1)
    values = {
        **_levels(split, levels, first_level),
        **_densities(wall_density, pit_density),
        "slip": number("slip", slip, 0.0, 1.0),
        **sides,
        "reward": _rewards(step_cost, goal_reward, pit_reward),
    }
    params = make_params(_PARAMS_FIELDS, values, horizon)
    return Game(
        name="RandomGridWorld",
        state_fields=_state_fields(sides["height"] * sides["width"]),
        state_ranges=dict.fromkeys(("cell", "goal", "queue"), (0, sides["height"] * sides["width"] - 1))
        | {"kind": (0, PIT), "distance": (-1, sides["height"] * sides["width"])},
        params=params,
        observation_space=observation_space(observation, **sides),
        action_space=spaces.Discrete(4),
        reset=reset,
        step=step,
        observe=_OBSERVE[observation],
        text=_text,
        draw=_draw,
        shapes=_shapes,
        layout={**sides, "moves": (MOVE_NAMES,)},
    )


def _state_fields(cells: int) -> list[tuple[Any, ...]]:
    room = capacity(cells)
    return [
        ("level", "u4"), ("cell", "i4"), ("goal", "i4"), ("shortest", "i4"), ("kind", "u1", (room,)),
        ("distance", "i2", (room,)), ("queue", "i2", (room,)),
    ]  # fmt: skip


def _levels(split: Any, levels: Any, first_level: Any) -> dict[str, int]:
    start = FIRST_LEVEL[choice("split", split, FIRST_LEVEL)]
    first = integer("first_level", first_level, 0, LEVELS_A_SPLIT - 1)
    room = LEVELS_A_SPLIT - first
    count = room if levels is None else integer("levels", levels, 1, room)
    return {"first_level": start + first, "num_levels": count, "side": list(FIRST_LEVEL).index(split)}


def _densities(wall_density: Any, pit_density: Any) -> dict[str, float]:
    walls = number("wall_density", wall_density, 0.0, MAX_DENSITY)
    pits = number("pit_density", pit_density, 0.0, round(MAX_DENSITY - walls, 9))
    return {"wall_below": walls, "pit_below": walls + pits}


def _rewards(step_cost: Any, goal_reward: Any, pit_reward: Any) -> list[float]:
    """Rewards by the kind of cell entered: floor, wall (never), goal, pit, cliff (there are none)."""
    given = {"step_cost": step_cost, "goal_reward": goal_reward, "pit_reward": pit_reward}
    cost, goal, pit = (number(name, value, -1e6, 1e6) for name, value in given.items())
    return [-cost, -cost, goal, pit, -cost]


def _sides(size: Any) -> dict[str, int]:
    if not isinstance(size, (tuple, list)):
        side = integer("size", size, MIN_SIDE, MAX_SIDE)
        return {"height": side, "width": side}
    if len(size) != 2:
        raise GameError(f"size: got {size!r}; wanted one number or a pair (height, width)")
    height, width = (integer(f"size[{i}]", side, MIN_SIDE, MAX_SIDE) for i, side in enumerate(size))
    return {"height": height, "width": width}


def _kinds(state: Any, params: Any) -> NDArray[Any]:
    height, width = int(params.height), int(params.width)
    kinds: NDArray[Any] = np.asarray(state.kind[: height * width]).reshape(height, width)
    return kinds


def _text(state: Any, params: Any) -> str:
    lines = drawing.text(_kinds(state, params), int(state.cell))
    return f"{lines}level {int(state.level)}, shortest way {int(state.shortest)}\n"


def _shapes(state: Any, params: Any, seat: int) -> dict[str, str]:
    return drawing.neighbours(int(params.height), int(params.width), int(state.cell))


def _draw(state: Any, params: Any) -> NDArray[np.uint8]:
    return drawing.draw(_kinds(state, params), int(state.cell))
