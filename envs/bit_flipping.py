"""BitFlipping: make n bits those of a goal, one flip at a time; every step costs 1 until it is reached.

Description:
    Andrychowicz et al., "Hindsight Experience Replay" (2017), section 3.1. The reward says nothing about where the goal
    is, and random flips reach one of 2^n states only by luck: without relabelled goals nothing is learned from about 13
    bits on. Observations follow the convention of goals (:mod:`mlbits.envs.core.goals`).

Actions:
    Discrete(bits): flip this bit.

Observations:
    Dict of ``observation``, ``achieved_goal`` (both the bits) and ``desired_goal``, each MultiBinary(bits).

Rewards:
    -1 for each step after which bits and goal differ, else 0.

Start:
    Random bits and a random goal that differs from them; or the goal of ``goal``.

End:
    Termination when the bits are the goal's. Truncation after ``bits`` steps, which is enough for any goal.

Version history:
    v0: first version.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mlbits.envs.core.drawing import BLUE, GREEN, GREY, INK, PAPER, Canvas
from mlbits.envs.core.errors import GameError
from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.goals import ACHIEVED, DESIRED, OBSERVATION
from mlbits.envs.core.random import randint
from mlbits.envs.core.rules import rule
from mlbits.envs.core.settings import integer

MOST = 64


@rule
def goal_rule(params: Any, achieved: Any, desired: Any) -> Any:
    """0 and the end where all bits are those desired, else -1."""
    same = True
    for k in range(params.bits):
        same = same and achieved[k] == desired[k]
    return (0.0 if same else -1.0), same


@rule
def reset(state: Any, params: Any) -> None:
    """Draw bits and goal; where they are equal, flip a random bit."""
    same = True
    for k in range(params.bits):
        state.bits[k] = randint(state, 2)
        state.desired[k] = params.goal[k] if params.fixed else randint(state, 2)
        same = same and state.bits[k] == state.desired[k]
    if same:
        k = randint(state, params.bits)
        state.bits[k] = 1 - state.bits[k]


@rule
def step(state: Any, params: Any, actions: Any, rewards: Any) -> Any:
    """Flip a bit."""
    k = actions[0]
    state.bits[k] = 1 - state.bits[k]
    reward, reached = goal_rule(params, state.bits, state.desired)
    rewards[0] = reward
    return reached, False


@rule
def observe(state: Any, params: Any, seat: Any, out: Any) -> None:
    """The bits, twice, and the goal."""
    for k in range(params.bits):
        out.observation[k] = state.bits[k]
        out.achieved_goal[k] = state.bits[k]
        out.desired_goal[k] = state.desired[k]


def bit_flipping(bits: int = 13, goal: str = "") -> Game:
    """A BitFlipping game.

    Args:
        bits: number of bits, 1 to 64.
        goal: the goal of all episodes, as "01101"; "" draws one for each.

    Raises:
        GameError: for a number out of range, or a goal that is not one of so many bits.
    """
    bits = integer("bits", bits, 1, MOST)
    if goal and (len(goal) != bits or set(goal) - {"0", "1"}):
        raise GameError(f"goal: got {goal!r}; wanted {bits} bits, such as {'01' * (bits // 2) + '0' * (bits % 2)!r}")
    one = spaces.MultiBinary(bits)
    return Game(
        name="BitFlipping",
        state_fields=[("bits", "i1", (bits,)), ("desired", "i1", (bits,))],
        state_ranges={"bits": (0, 1), "desired": (0, 1)},
        params=make_params(
            [("bits", "i4"), ("fixed", "u1"), ("goal", "i1", (MOST,))],
            {"bits": bits, "fixed": bool(goal), "goal": np.array([int(bit) for bit in goal or "0"], np.int8)},
            horizon=bits,
        ),
        observation_space=spaces.Dict({OBSERVATION: one, ACHIEVED: one, DESIRED: one}),
        action_space=spaces.Discrete(bits),
        reset=reset,
        step=step,
        observe=observe,
        goal=goal_rule,
        text=_text,
        draw=_draw,
    )


def _text(state: Any, params: Any) -> str:
    bits, desired = ("".join(str(int(bit)) for bit in row) for row in (state.bits, state.desired))
    return f"bits {bits}\ngoal {desired}\n"


def _draw(state: Any, params: Any) -> NDArray[np.uint8]:
    """The bits above the goal; those that are right are green."""
    count = int(params.bits)
    canvas = Canvas(max(200, 24 * count + 24), 110)
    for k in range(count):
        x, right = 12 + 24 * k, bool(state.bits[k] == state.desired[k])
        for y, bit in ((16, state.bits[k]), (60, state.desired[k])):
            shade = (GREEN if right else BLUE) if bit else GREY
            canvas.pen.rectangle([x, y, x + 20, y + 30], fill=shade if bit else None, outline=INK)
            canvas.text(x + 10, y + 15, str(int(bit)), size=13, fill=PAPER if bit else INK)
    return canvas.array()
