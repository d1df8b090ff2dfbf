"""Gridworlds on a fixed map: GridWorld, FourRooms and CliffWalk, which share their rules.

Description:
    An agent walks on a map of floor, walls, goals, pits and cliffs. With the slip probability a move goes in a
    direction drawn uniformly from the four. Moves into a wall or off the map leave the agent where it is.

Actions:
    Discrete(4): 0 up, 1 right, 2 down, 3 left.

Observations (setting ``observation``):

    | value | space | meaning |
    |---|---|---|
    | "index" | Discrete(H * W) | the agent's cell, numbered row by row |
    | "one_hot" | Box(0, 1, [H * W], uint8) | 1 at the agent's cell |
    | "planes" | Box(0, 1, [5, H, W], uint8) | agent, walls, goals, pits, cliffs |
    | "pixels" | Box(0, 255, [8 H, 8 W, 3], uint8) | a small image |

Rewards:
    ``-step_cost`` for every step; instead of it ``goal_reward`` for reaching a goal, ``pit_reward`` for falling into
    a pit and ``cliff_reward`` for stepping off a cliff.

Start:
    One of the start cells, drawn uniformly.

End:
    Termination in a goal or a pit. Truncation after ``horizon`` steps. A cliff does not end the episode.

Version history:
    v0: first version.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from gymnasium import spaces

from mlbits.envs.core.errors import GameError
from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.settings import number
from mlbits.envs.gridworld import drawing, rules
from mlbits.envs.gridworld.maps import MOVE_NAMES, neighbours, params_fields, read_map

ObservationKind = Literal["index", "one_hot", "planes", "pixels"]

_OBSERVE = {
    "index": rules.observe_index,
    "one_hot": rules.observe_one_hot,
    "planes": rules.observe_planes,
    "pixels": rules.observe_pixels,
}


def observation_space(observation: str, height: int, width: int) -> Any:
    """The observation space of one kind of gridworld observation.

    Raises:
        GameError: if there is no such kind.
    """
    if observation not in _OBSERVE:
        raise GameError(f"observation: got {observation!r}; wanted one of {', '.join(map(repr, _OBSERVE))}")
    cells = height * width
    return {
        "index": spaces.Discrete(cells),
        "one_hot": spaces.Box(0, 1, (cells,), np.uint8),
        "planes": spaces.Box(0, 1, (rules.NUM_PLANES, height, width), np.uint8),
        "pixels": spaces.Box(0, 255, (rules.TILE * height, rules.TILE * width, 3), np.uint8),
    }[observation]


def gridworld(
    map: str = "8x8",
    *,
    slip: float = 0.0,
    step_cost: float = 0.01,
    goal_reward: float = 1.0,
    pit_reward: float = -1.0,
    cliff_reward: float = -1.0,
    observation: ObservationKind = "index",
    horizon: int | None = 100,
) -> Game:
    """A gridworld on a fixed map.

    Args:
        map: the name of a map ("8x8", "empty_8x8", "russell_norvig", "four_rooms", "cliff_walk", "maze") or its rows as
            text, separated by newlines or "/": floor ``.``, wall ``#``, start ``S``, goal ``G``, pit ``X``,
            cliff ``C``.
        slip: probability 0..1 that a move goes in a uniformly drawn direction.
        step_cost: cost of each step, subtracted from the reward.
        goal_reward: reward for reaching a goal.
        pit_reward: reward for falling into a pit.
        cliff_reward: reward for stepping off a cliff.
        observation: "index", "one_hot", "planes" or "pixels".
        horizon: steps after which the episode is truncated, or None.

    Raises:
        GameError: for a bad map, or a setting out of range.
    """
    return _make("GridWorld", map, slip, (-step_cost, goal_reward, pit_reward, cliff_reward), observation, horizon)


def four_rooms(
    *, slip: float = 0.0, step_cost: float = 0.01, observation: ObservationKind = "index", horizon: int | None = 200
) -> Game:
    """Four rooms connected by hallways; start anywhere, goal in a corner.

    The map is that of Sutton, Precup and Singh, "Between MDPs and semi-MDPs" (1999), figure 2.

    Args:
        slip: probability 0..1 that a move goes in a uniformly drawn direction.
        step_cost: cost of each step, subtracted from the reward.
        observation: "index", "one_hot", "planes" or "pixels".
        horizon: steps after which the episode is truncated, or None.
    """
    return _make("FourRooms", "four_rooms", slip, (-step_cost, 1.0, -1.0, -1.0), observation, horizon)


def cliff_walk(*, slip: float = 0.0, observation: ObservationKind = "index", horizon: int | None = 200) -> Game:
    """The cliff of Sutton and Barto, "Reinforcement Learning" (2018), example 6.6.

    Every step costs 1, the one into the goal included; stepping off the cliff costs 100 and leads back to the start.

    Args:
        slip: probability 0..1 that a move goes in a uniformly drawn direction.
        observation: "index", "one_hot", "planes" or "pixels".
        horizon: steps after which the episode is truncated, or None.
    """
    return _make("CliffWalk", "cliff_walk", slip, (-1.0, -1.0, -1.0, -100.0), observation, horizon)


def _make(
    name: str,
    map_text: str,
    slip: float,
    rewards: tuple[float, float, float, float],
    observation: str,
    horizon: int | None,
) -> Game:
    number("slip", slip, 0.0, 1.0)
    for setting, value in zip(("step_cost", "goal_reward", "pit_reward", "cliff_reward"), rewards, strict=True):
        number(setting, value)
    kinds, starts = read_map(map_text)
    height, width = kinds.shape
    step_reward, goal_reward, pit_reward, cliff_reward = rewards
    params = make_params(
        params_fields(kinds.size),
        {
            "height": height,
            "width": width,
            "slip": slip,
            "num_starts": len(starts),
            "reward": [step_reward, step_reward, goal_reward, pit_reward, cliff_reward],
            "starts": starts,
            "kind": kinds.reshape(-1),
            "neighbour": neighbours(kinds),
        },
        horizon,
    )
    return Game(
        name=name,
        state_fields=[("cell", "i4")],
        state_ranges={"cell": (0, kinds.size - 1)},
        params=params,
        observation_space=observation_space(observation, height, width),
        action_space=spaces.Discrete(4),
        reset=rules.reset,
        step=rules.step,
        observe=_OBSERVE[observation],
        text=_text,
        draw=_draw,
        shapes=_shapes,
        layout={"kinds": kinds, "moves": (MOVE_NAMES,)},
    )


def _kinds(params: Any) -> Any:
    return params.kind[: params.height * params.width].reshape(params.height, params.width)


def _text(state: Any, params: Any) -> str:
    return drawing.text(_kinds(params), int(state.cell))


def _shapes(state: Any, params: Any, seat: int) -> dict[str, str]:
    return drawing.neighbours(int(params.height), int(params.width), int(state.cell))


def _draw(state: Any, params: Any) -> Any:
    return drawing.draw(_kinds(params), int(state.cell))
