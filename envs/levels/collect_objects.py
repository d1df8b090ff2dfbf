"""CollectObjects: walk on a grid and collect objects that pay, cost, end the episode or come back.

Description:
    An agent walks on a grid with walls and up to eight objects. Collecting an object pays its reward (or cost), ends
    the episode with its own probability, and takes the object away; in every step after that it comes back with
    another probability of its own. What objects are worth, and where they are, is fixed in a level: an agent learns it
    over episodes. The setting ``levels`` chooses the kind of level, and ``level`` the one that is played.

    Ten kinds are the gridworlds of Oh et al., "Discovering reinforcement learning algorithms" (2020), appendix A
    (:mod:`mlbits.envs.levels.layouts`); in those called "scattered", objects lie elsewhere in every episode and
    whenever they come back. Six are distributions of small random levels (:mod:`mlbits.envs.levels.distributions`).
    Levels with numbers from 0 to 2**32 - 1 are for training, those from 2**32 to 2**33 - 1 are held out.

    In a step the agent acts, what it collects is taken, and then absent objects may come back.

Actions (setting ``moves``):

    | value | space | meaning |
    |---|---|---|
    | 5 | Discrete(5) | stay, up, right, down, left |
    | 9 | Discrete(9) | those, then up-right, down-right, down-left, up-left |
    | 18 | Discrete(18) | those, which collect nothing, then: collect what is there (in the same order) |

    With 5 and 9 moves the agent collects what is in its cell after the move. A move into a wall or off the grid is
    standing still.

Observations (setting ``observation``; cells and objects are those of the largest level of the kind):

    | value | space | meaning |
    |---|---|---|
    | "index" | Discrete(cells * 2**objects) | the agent's cell, plus cells times the set of objects (bit k: object k) |
    | "planes" | Box(0, 1, [1 + objects, H, W], uint8) | the agent, then a plane for each object |

Rewards:
    The rewards of the objects collected in the step.

Start:
    All objects are there. Distributions have one start cell; in layouts it is drawn from the floor without objects.

End:
    Termination by an object. Truncation after the level's number of steps, or ``horizon``.

Version history:
    v0: first version.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mlbits.envs.core.errors import GameError
from mlbits.envs.core.game import Game
from mlbits.envs.core.settings import choice, integer
from mlbits.envs.levels import drawing, rules
from mlbits.envs.levels.distributions import DISTRIBUTIONS, level_records
from mlbits.envs.levels.layouts import LAYOUTS, layout_records
from mlbits.envs.levels.records import Frame, sound

KINDS = (*DISTRIBUTIONS, *LAYOUTS)
HELD_OUT = 2**32  # the first number of the levels held out
NUM_LEVELS = 2 * HELD_OUT
ACTION_SETS = (5, 9, 18)


def collect_objects(
    levels: str = "small",
    *,
    level: int = 0,
    moves: Literal[5, 9, 18] | None = None,
    observation: Literal["index", "planes"] | None = None,
    horizon: int | None = None,
) -> Game:
    """A level in which objects are collected.

    Args:
        levels: "small", "medium", "large", "all", "all_short", "mazes"; "dense", "sparse", "long_horizon",
            "longer_horizon", "long_dense", "scattered_dense", "scattered_long_horizon", "scattered_small",
            "scattered_small_sparse" or "scattered_very_dense".
        level: number of the level, 0 to 2**33 - 1; from 2**32 on they are held out from training.
        moves: 5, 9 or 18 actions; None: 5 in distributions, 9 in layouts.
        observation: "index" or "planes"; None: "planes" where objects are scattered, otherwise "index".
        horizon: steps after which an episode is truncated; None: the level's own number.

    Raises:
        GameError: for a setting out of range, or "index" where objects are scattered.
    """
    choice("levels", levels, KINDS)
    number = integer("level", level, 0, NUM_LEVELS - 1)
    frame, scattered, default_moves = kind_of(levels)
    actions = default_moves if moves is None else moves
    if isinstance(actions, bool) or actions not in ACTION_SETS:
        raise GameError(f"moves: got {moves!r}; wanted one of {', '.join(map(str, ACTION_SETS))}")
    observation = ("planes" if scattered else "index") if observation is None else observation
    choice("observation", observation, ("index", "planes"))
    if scattered and observation == "index":
        raise GameError(f"observation: got 'index', which hides where {levels!r} scatters its objects; wanted 'planes'")
    params = records_of(levels, np.array([number], np.uint64), actions)
    if horizon is not None:
        params["horizon"] = params["cut_after"] = integer("horizon", horizon, 1, 2**31 - 1)
    index, shape = spaces.Discrete(frame.num_states), (1 + frame.objects, frame.height, frame.width)
    return Game(
        name="CollectObjects",
        state_fields=[("cell", "i4"), ("present", "i4"), ("place", "i2", (rules.MOST_OBJECTS,))],
        state_ranges={
            "cell": (0, frame.cells - 1), "present": (0, 2**frame.objects - 1), "place": (0, frame.cells - 1)
        },
        params=params,
        params_ranges=frame.ranges,
        params_sound=sound,
        observation_space=index if observation == "index" else spaces.Box(0, 1, shape, np.uint8),
        action_space=spaces.Discrete(int(actions)),
        reset=rules.reset,
        step=rules.step,
        observe=rules.observe_index if observation == "index" else rules.observe_planes,
        text=drawing.text,
        draw=drawing.draw,
        layout={"levels": levels, "level": number},
    )  # fmt: skip


def kind_of(levels: str) -> tuple[Frame, bool, int]:
    """A kind's frame, whether it scatters objects, and its usual number of actions."""
    if levels in LAYOUTS:
        return LAYOUTS[levels].frame, LAYOUTS[levels].scattered, 9
    return DISTRIBUTIONS[levels].frame, False, 5


def records_of(levels: str, numbers: NDArray[np.uint64], moves: int) -> NDArray[Any]:
    """The parameters of levels by their numbers, records [N]."""
    draw = layout_records if levels in LAYOUTS else level_records
    return draw(levels, numbers, moves != ACTION_SETS[-1])
