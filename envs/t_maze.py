"""TMaze: a cue at the start of a corridor tells which way to turn at its end, where it can no longer be seen.

Description:
    The agent starts at the left end of a corridor and sees a cue: up or down. It walks ``length`` steps to the right,
    to a junction, and turns. Corridor cells look the same, so that what is seen at the junction does not tell the way:
    an agent has to remember the cue for the whole walk.

    Source: Bakker, "Reinforcement learning with long short-term memory" (2002). Difference: observations are numbers
    in place of three bits, and there is a time limit.

Actions:
    Discrete(4): 0 up, 1 right, 2 down, 3 left. Walking into a wall is standing still.

Observations:
    Discrete(4):

    | value | meaning |
    |---|---|
    | 0 | a corridor cell |
    | 1 | the start, and the cue: up |
    | 2 | the start, and the cue: down |
    | 3 | the junction |

Rewards:
    4 for the turn that the cue shows, -0.1 for the other one, -0.1 for standing still, 0 for walking. The best return
    is 4; without memory the best mean return is 1.95, by turning the same way always.

Start:
    The left end; each cue with probability 1/2.

End:
    Termination at a turn. Truncation after ``horizon`` steps (100).

Version history:
    v0: first version.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mlbits.envs.core.drawing import BLUE, GREEN, GREY, GRID, INK, PAPER, YELLOW, Canvas
from mlbits.envs.core.errors import GameError
from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.random import randint
from mlbits.envs.core.rules import rule
from mlbits.envs.core.settings import integer

UP, RIGHT, DOWN, LEFT = range(4)
CORRIDOR, CUE_UP, CUE_DOWN, JUNCTION = range(4)
RIGHT_TURN, PENALTY = 4.0, -0.1
MAX_LENGTH = 10_000
_SHOWN = 20  # most cells in a picture


@rule
def reset(state: Any, params: Any) -> None:
    """Stand at the left end, with a cue."""
    state.position = 0
    state.cue = CUE_UP + randint(state, 2)
    state.turned = 0


@rule
def step(state: Any, params: Any, actions: Any, rewards: Any) -> Any:
    """Walk, turn at the junction, or stand still."""
    action, position = actions[0], state.position
    if position == params.length and action in (UP, DOWN):
        right = UP if state.cue == CUE_UP else DOWN
        state.turned = 1 + action
        rewards[0] = RIGHT_TURN if action == right else PENALTY
        return True, False
    if action == RIGHT and position < params.length:
        state.position = position + 1
    elif action == LEFT and position > 0:
        state.position = position - 1
    else:
        rewards[0] = PENALTY
    return False, False


@rule
def observe(state: Any, params: Any, seat: Any, out: Any) -> None:
    """What the cell looks like; after a turn, the junction."""
    if state.position == params.length:
        out[0] = JUNCTION
    elif state.position == 0:
        out[0] = state.cue
    else:
        out[0] = CORRIDOR


def t_maze(length: int = 10, *, horizon: int | None = 100) -> Game:
    """A T-maze.

    Args:
        length: steps from the start to the junction, 1 to 10,000.
        horizon: steps after which the episode is truncated, more than ``length``, or None.

    Raises:
        GameError: for a setting out of range.
    """
    length = integer("length", length, 1, MAX_LENGTH)
    if horizon is not None and integer("horizon", horizon, 1, 2**31 - 1) <= length:
        raise GameError(f"horizon: got {horizon} for a corridor of length {length}; wanted at least {length + 1}")
    return Game(
        name="TMaze",
        state_fields=[("position", "i4"), ("cue", "i4"), ("turned", "i4")],
        state_ranges={"position": (0, length), "cue": (0, CUE_DOWN), "turned": (0, 3)},
        params=make_params([("length", "i4")], {"length": length}, horizon),
        observation_space=spaces.Discrete(4),
        action_space=spaces.Discrete(4),
        reset=reset,
        step=step,
        observe=observe,
        text=_text,
        draw=_draw,
        reveals=True,
        layout={"optimal_return": RIGHT_TURN, "moves": (("up", "right", "down", "left"),)},
    )


def _text(state: Any, params: Any) -> str:
    """The cue, ``^`` or ``v``, before the corridor; the agent ``A``; and the arms of the junction."""
    cells, arms = ["."] * (int(params.length) + 1), [".", "."]
    if int(state.turned) == 0:
        cells[int(state.position)] = "A"
    else:
        arms[0 if int(state.turned) == 1 + UP else 1] = "A"
    cue, pad = "^" if int(state.cue) == CUE_UP else "v", " " * len(cells)
    return f"{pad}{arms[0]}\n{cue}{''.join(cells)}\n{pad}{arms[1]}\n"


def _draw(state: Any, params: Any) -> NDArray[np.uint8]:
    """The maze; of a long corridor, the part around the agent."""
    length, position, turned, side = int(params.length), int(state.position), int(state.turned), 40
    shown = min(length + 1, _SHOWN)
    first = min(max(0, position - shown // 2), length + 1 - shown)
    canvas = Canvas(max(shown * side + 40, 280), 3 * side + 70)
    told = "up" if int(state.cue) == CUE_UP else "down"
    canvas.text(20, 18, f"step {int(state.elapsed)}; the cue says {told}", size=14, anchor="lm")

    def cell(column: int, row: int, fill: Any) -> tuple[float, float]:
        x, y = 20 + (column - first) * side, 36 + row * side
        canvas.pen.rectangle([x, y, x + side, y + side], fill=fill, outline=GRID)
        return x + side / 2, y + side / 2

    for column in range(first, first + shown):
        centre = cell(column, 1, YELLOW if column == 0 else PAPER)
        if column == 0:
            canvas.arrow(*centre, 0, -side * 0.3 if told == "up" else side * 0.3, fill=INK, width=2)
    if first + shown == length + 1:
        for row in (0, 2):
            cell(length, row, GREEN if (row == 0) == (told == "up") else GREY)
    row = 1 if turned == 0 else 0 if turned == 1 + UP else 2
    canvas.disc(20 + (position - first + 0.5) * side, 36 + (row + 0.5) * side, side * 0.3, BLUE, outline=INK)
    note = "yellow: the start; green: the right turn" if first == 0 else f"cells {first} to {first + shown - 1}"
    canvas.text(20, 3 * side + 54, note, size=13, anchor="lm")
    return canvas.array()
