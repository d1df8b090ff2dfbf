"""DelayedChain: only the first of many actions matters, and its reward comes in the last step.

Description:
    A chain of ``length`` steps with two branches. The first action chooses the branch; every later action
    only moves on. At the end the correct branch pays 1 and the other -1. Which first action is correct, and
    how long the chain is, are fixed for a game (drawn from ``instance_seed``, or given), so that an agent can
    learn them over episodes; copies of one batch may differ in them.

    Source: Oh et al., "Discovering reinforcement learning algorithms" (2020), appendix A.3, with five
    variants:

    | variant | ``length`` | ``noisy`` | ``observation`` |
    |---|---|---|---|
    | short | (5, 30) | False | "index" |
    | short and noisy | (5, 30) | True | "index" |
    | long | (5, 50) | False | "index" |
    | long and noisy | (5, 50) | True | "index" |
    | state distraction | (5, 30) | False | "distraction" |

    The states of the two branches are distinguishable, since otherwise no value function could be learned.
    ("distraction" hides the position, but shows the branch.)

Actions:
    Discrete(2). Only the first action of an episode has an effect: it chooses the branch.

Observations (setting ``observation``; M is the largest length that ``length`` allows):

    | value | space | meaning |
    |---|---|---|
    | "index" | Discrete(2 M + 1) | 0 at the start, then 1 + (position - 1) + M * branch |
    | "distraction" | Box(0, 1, [22], uint8) | see below |

    Entries of "distraction":

    | index | meaning | low | high |
    |---|---|---|---|
    | 0 | 1 at the start, where the choice is made | 0 | 1 |
    | 1 | the branch: the episode's first action, 0 at the start | 0 | 1 |
    | 2..21 | fair coins, tossed again at every step | 0 | 1 |

Rewards:
    1 or -1 in the last step. With ``noisy=True`` every earlier step pays 1 or -1 with equal probability.

Start:
    Position 0, before the choice.

End:
    Termination after ``length`` steps. There is no truncation.

Version history:
    v0: first version.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mlbits.envs.core.drawing import BLUE, GREEN, GREY, GRID, INK, PAPER, RED, YELLOW, Canvas
from mlbits.envs.core.errors import GameError
from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.random import randint
from mlbits.envs.core.rules import rule
from mlbits.envs.core.settings import choice, flag, integer

NUM_COINS = 20  # distracting bits in an observation
_COIN_SIDES = 2**NUM_COINS
MAX_LENGTH = 1000
_SHOWN = 24  # most positions in a picture


@rule
def reset(state: Any, params: Any) -> None:
    """Return to the start, before the choice."""
    state.position = 0
    state.branch = 0
    state.coins = randint(state, _COIN_SIDES) if params.distracting != 0 else 0


@rule
def step(state: Any, params: Any, actions: Any, rewards: Any) -> Any:
    """Choose the branch at the start, move on afterwards."""
    if state.position == 0:
        state.branch = actions[0]
    state.position += 1
    ended = state.position >= params.length
    if ended:
        rewards[0] = 1.0 if state.branch == params.correct_action else -1.0
    elif params.noisy != 0:
        rewards[0] = 2.0 * randint(state, 2) - 1.0
    if params.distracting != 0:
        state.coins = randint(state, _COIN_SIDES)
    return ended, False


@rule
def observe_index(state: Any, params: Any, seat: Any, out: Any) -> None:
    """One number for each position and branch."""
    out[0] = 0 if state.position == 0 else state.position + params.max_length * state.branch


@rule
def observe_distraction(state: Any, params: Any, seat: Any, out: Any) -> None:
    """Two relevant bits and twenty irrelevant ones."""
    out[0] = 1 if state.position == 0 else 0
    out[1] = state.branch
    for coin in range(NUM_COINS):
        out[2 + coin] = (state.coins >> coin) & 1


_OBSERVE = {"index": observe_index, "distraction": observe_distraction}


def delayed_chain(
    length: int | tuple[int, int] = (5, 30),
    *,
    noisy: bool = False,
    observation: Literal["index", "distraction"] = "index",
    correct_action: int | None = None,
    instance_seed: int = 0,
) -> Game:
    """A delayed chain game.

    Args:
        length: steps of an episode, 1 to 1000, or a range (lowest, highest) from which ``instance_seed``
            draws it. Copies of one batch may differ in length if they have the same range.
        noisy: whether earlier steps than the last pay 1 or -1 at random.
        observation: "index" or "distraction".
        correct_action: the first action that leads to reward 1, or None to draw it from ``instance_seed``.
        instance_seed: seed from which length and correct action are drawn, if not given.

    Raises:
        GameError: for a setting out of range.
    """
    lowest, highest = _length_range(length)
    noisy = flag("noisy", noisy)
    choice("observation", observation, _OBSERVE)
    # Only `random` of NumPy's generator is used: its stream has never changed between versions.
    draw = np.random.default_rng(integer("instance_seed", instance_seed, 0, 2**63 - 1)).random(2)
    steps = lowest + int(draw[0] * (highest - lowest + 1))
    correct = int(draw[1] * 2) if correct_action is None else integer("correct_action", correct_action, 0, 1)
    params = make_params(
        [
            ("length", "i4"),
            ("max_length", "i4"),
            ("correct_action", "i4"),
            ("noisy", "u1"),
            ("distracting", "u1"),
        ],
        {
            "length": steps,
            "max_length": highest,
            "correct_action": correct,
            "noisy": noisy,
            "distracting": observation == "distraction",
        },
    )
    bits = spaces.Box(0, 1, (2 + NUM_COINS,), np.uint8)
    return Game(
        name="DelayedChain",
        state_fields=[("position", "i4"), ("branch", "i4"), ("coins", "u4")],
        state_ranges={"position": (0, highest), "branch": (0, 1), "coins": (0, _COIN_SIDES - 1)},
        params=params,
        params_ranges={"length": (1, highest), "max_length": (highest, highest), "correct_action": (0, 1)},
        observation_space=spaces.Discrete(2 * highest + 1) if observation == "index" else bits,
        action_space=spaces.Discrete(2),
        reset=reset,
        step=step,
        observe=_OBSERVE[observation],
        text=_text,
        draw=_draw,
        layout={"length": steps, "correct_action": correct},
    )


def _length_range(length: Any) -> tuple[int, int]:
    if not isinstance(length, (tuple, list)):
        steps = integer("length", length, 1, MAX_LENGTH)
        return steps, steps
    if len(length) != 2:
        raise GameError(f"length: got {length!r}; wanted one number or a pair (lowest, highest)")
    lowest, highest = (integer(f"length[{i}]", end, 1, MAX_LENGTH) for i, end in enumerate(length))
    if lowest > highest:
        raise GameError(f"length: got {length!r}; wanted the lowest first")
    return lowest, highest


def _text(state: Any, params: Any) -> str:
    """Two rows of dots, one per branch, with the agent ``A``; before the choice it stands left of both."""
    position, length = int(state.position), int(params.length)
    start = "A" if position == 0 else "o"
    lines = []
    for branch in range(2):
        dots = ["."] * length
        if position > 0 and branch == int(state.branch):
            dots[position - 1] = "A"
        end = "+1" if branch == int(params.correct_action) else "-1"
        lines.append(f"action {branch}: {start}{''.join(dots)} {end}")
    return "\n".join(lines) + "\n"


def _draw(state: Any, params: Any) -> NDArray[np.uint8]:
    """The two branches as rows of circles; a long chain shows the part around the agent."""
    position, length, branch = int(state.position), int(params.length), int(state.branch)
    shown = min(length, _SHOWN)
    first = min(max(1, position - shown // 2), length - shown + 1)  # leftmost position drawn
    pitch, radius, left = 30, 10, 84
    rows = (72, 132)
    canvas = Canvas(max(left + pitch * (shown + 1) + 50, 330), 200)
    canvas.text(12, 16, f"step {position} of {length}", size=14, anchor="lm")

    def circle(x: float, y: float, fill: Any, here: bool) -> None:
        size, width = (radius + 4, 3) if here else (radius, 1)
        canvas.disc(x, y, size, fill, outline=INK, width=width)

    start = (left - 50, (rows[0] + rows[1]) / 2)
    for row, y in enumerate(rows):
        taken = position > 0 and branch == row
        last_x = left + pitch * (shown - 1)
        colour = (BLUE, YELLOW)[row]
        line = INK if taken else GRID
        canvas.line([start, (left, y)], line, 3)
        canvas.pen.line([(left, y), (last_x, y)], fill=line, width=3)
        if first > 1:
            canvas.text(left - 20, y - 6 if row == 0 else y + 2, "...", size=16)
        for k in range(shown):
            spot = first + k
            passed = taken and spot <= position
            circle(left + pitch * k, y, colour if passed else PAPER, taken and spot == position)
        above = y - 24 if row == 0 else y + 24
        canvas.text(left - 8, above, f"first action {row}", size=13, anchor="lm")
        end, ink = ("+1", GREEN) if row == int(params.correct_action) else ("-1", RED)
        if first + shown <= length:
            end, ink = "...", GREY
        canvas.text(last_x + 24, y, end, size=15, fill=ink, anchor="lm")
    circle(*start, fill=GREY, here=position == 0)
    note = "grey: the start" if first == 1 else f"positions {first} to {first + shown - 1}"
    canvas.text(12, 188, f"{note}; filled: path taken, thick outline: agent", size=13, anchor="lm")
    return canvas.array()
