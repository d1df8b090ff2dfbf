"""NoisyTV: a room with a treasure in the far corner, and a television that shows noise for ever.

Description:
    The agent walks about a room of ``size`` x ``size`` cells, all of which look alike, to a treasure in the opposite
    corner. A television shows random pixels, which nobody can predict: an agent that seeks what it cannot predict may
    stay in front of it. There are two kinds (setting ``tv``): one changes its picture when the agent presses its remote
    control, which it can do anywhere, the other at every step.

    Source: after Burda et al., "Large-scale study of curiosity-driven learning" (2019), section 3.3, and "Exploration
    by random network distillation" (2019); the room is ours.

Actions:
    Discrete(5): 0 up, 1 right, 2 down, 3 left, 4 press the remote control. Walking into a wall is standing still.

Observations (setting ``observation``):

    | value | space | meaning |
    |---|---|---|
    | "vector" | Box(0, 1, [N * N + 16], float32) | 1 at the agent's cell; then the 16 pixels of the television |
    | "pixels" | Box(0, 255, [2 N + 4, 2 N], uint8) | the room, 2 x 2 pixels a cell; below it the television, 4 x 4 |

    In the picture the agent is 255, the wall 128 and the treasure 192.

Rewards:
    1 for reaching the treasure, 0 otherwise.

Start:
    The bottom left corner, and random pixels. The treasure is in the top right corner.

End:
    Termination at the treasure. Truncation after ``horizon`` steps (200).

Version history:
    v0: first version.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mlbits.envs.core.drawing import BLUE, BROWN, GRID, INK, PAPER, YELLOW, Canvas
from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.random import uniform
from mlbits.envs.core.rules import rule
from mlbits.envs.core.settings import choice, flag, integer

UP, RIGHT, DOWN, LEFT, PRESS = range(5)
TV_PIXELS = 16
KINDS = {"press": 0, "always": 1}
MAX_SIZE = 50


@rule
def change(state: Any) -> None:
    """Show another random picture."""
    for pixel in range(TV_PIXELS):
        state.picture[pixel] = uniform(state)


@rule
def reset(state: Any, params: Any) -> None:
    """Stand in the bottom left corner."""
    state.row = params.side - 1
    state.column = 0
    change(state)


@rule
def step(state: Any, params: Any, actions: Any, rewards: Any) -> Any:
    """Walk, or press the remote control."""
    action, row, column = actions[0], state.row, state.column
    if action == UP:
        row = max(row - 1, 0)
    elif action == DOWN:
        row = min(row + 1, params.side - 1)
    elif action == RIGHT:
        column = min(column + 1, params.side - 1)
    elif action == LEFT:
        column = max(column - 1, 0)
    if params.walled == 0 or column != params.side // 2:
        state.row = row
        state.column = column
    if action == PRESS or params.kind == 1:
        change(state)
    found = state.row == 0 and state.column == params.side - 1
    if found:
        rewards[0] = 1.0
    return found, False


@rule
def observe_vector(state: Any, params: Any, seat: Any, out: Any) -> None:
    """The agent's cell as one of N * N, and the television's pixels."""
    cells = params.side * params.side
    for cell in range(cells):
        out[cell] = 0
    out[state.row * params.side + state.column] = 1
    for pixel in range(TV_PIXELS):
        out[cells + pixel] = state.picture[pixel]


@rule
def observe_pixels(state: Any, params: Any, seat: Any, out: Any) -> None:
    """The room [2 N, 2 N], and below it the television in the first four columns."""
    side = 2 * params.side
    for y in range(side + 4):
        for x in range(side):
            value = 0
            if y < side:
                row, column = y // 2, x // 2
                if row == state.row and column == state.column:
                    value = 255
                elif row == 0 and column == params.side - 1:
                    value = 192
                elif params.walled != 0 and column == params.side // 2:
                    value = 128
            elif x < 4:
                value = int(255.0 * state.picture[(y - side) * 4 + x])
            out[y, x] = value


_OBSERVE = {"vector": observe_vector, "pixels": observe_pixels}


def noisy_tv(
    size: int = 10,
    *,
    tv: Literal["press", "always"] = "press",
    walled: bool = False,
    observation: Literal["vector", "pixels"] = "vector",
    horizon: int | None = 200,
) -> Game:
    """A room with a noisy television.

    Args:
        size: rows and columns of the room, 4 to 50.
        tv: whether the picture changes when the remote control is pressed, or always.
        walled: whether a wall without a door fills the middle column, so that half of the room is never entered.
        observation: "vector" or "pixels".
        horizon: steps after which the episode is truncated, or None.

    Raises:
        GameError: for a setting out of range.
    """
    size, walled = integer("size", size, 4, MAX_SIZE), flag("walled", walled)
    choice("tv", tv, KINDS)
    choice("observation", observation, _OBSERVE)
    vector = spaces.Box(0, 1, (size * size + TV_PIXELS,), np.float32)
    picture = spaces.Box(0, 255, (2 * size + 4, 2 * size), np.uint8)
    reachable = not walled and (horizon is None or horizon >= 2 * (size - 1))
    return Game(
        name="NoisyTV",
        state_fields=[("row", "i4"), ("column", "i4"), ("picture", "f4", (TV_PIXELS,))],
        state_ranges={"row": (0, size - 1), "column": (0, size - 1), "picture": (0, 1)},
        params=make_params(
            [("side", "i4"), ("kind", "u1"), ("walled", "u1")],
            {"side": size, "kind": KINDS[tv], "walled": walled},
            horizon,
        ),
        observation_space=vector if observation == "vector" else picture,
        action_space=spaces.Discrete(5),
        reset=reset,
        step=step,
        observe=_OBSERVE[observation],
        text=_text,
        draw=_draw,
        layout={"optimal_return": float(reachable)},
    )


def _text(state: Any, params: Any) -> str:
    """The room: the agent ``A``, the treasure ``$``, walls ``#``; then the television's pixels in tenths."""
    size = int(params.side)
    line = ["#" if int(params.walled) and column == size // 2 else "." for column in range(size)]
    board = [line[:] for _ in range(size)]
    board[0][-1] = "$"
    board[int(state.row)][int(state.column)] = "A"
    pixels = " ".join(str(int(10 * float(pixel))) for pixel in state.picture)
    return "\n".join("".join(row) for row in board) + f"\ntelevision: {pixels}\n"


def _draw(state: Any, params: Any) -> NDArray[np.uint8]:
    """The room, and the television beside it."""
    size = int(params.side)
    side = max(6, min(32, 320 // size))
    canvas = Canvas(size * side + 121, max(size * side, 100) + 21)
    for row in range(size):
        for column in range(size):
            x, y = 10 + column * side, 10 + row * side
            wall, goal = int(params.walled) and column == size // 2, row == 0 and column == size - 1
            fill = BROWN if wall else YELLOW if goal else PAPER
            canvas.pen.rectangle([x, y, x + side, y + side], fill=fill, outline=GRID)
    left = 30 + size * side
    for pixel in range(TV_PIXELS):
        x, y = left + pixel % 4 * 20, 10 + pixel // 4 * 20
        grey = int(255 * float(state.picture[pixel]))
        canvas.pen.rectangle([x, y, x + 20, y + 20], fill=(grey, grey, grey))
    canvas.pen.rectangle([left, 10, left + 80, 90], outline=INK, width=2)
    across, down = 10 + (int(state.column) + 0.5) * side, 10 + (int(state.row) + 0.5) * side
    canvas.disc(across, down, side * 0.34, BLUE, outline=INK)
    return canvas.array()
