"""DeepSea: a chain hidden in a grid, with a treasure that only deliberate exploration finds.

Description:
    A diver starts in the top left corner of an N x N grid and sinks one row per step, moving one column left or
    right. Right costs a little, left is free, and the only treasure is in the bottom right corner, so finding it
    takes N moves to the right in a row, each of which lowers the immediate reward. Which of the two actions
    means right differs from cell to cell, so nothing generalises. Random play finds the treasure once in
    2**N episodes.

    Source: Osband et al., "Deep exploration via randomized value functions" (2019), and "Behaviour suite for
    reinforcement learning" (2020), which defines these rules. Difference: the last observation of an "index"
    episode is the cell in the bottom row (there is no further row to sink to; "one_hot" is all zeros, as there).

Actions:
    Discrete(2): in each cell one is right and the other left. The mapping is drawn from ``instance_seed``;
    with ``instance_seed=None``, for debugging, 1 is right everywhere. Left in the first column and right in
    the last one stay in the column.

Observations (setting ``observation``):

    | value | space | meaning |
    |---|---|---|
    | "index" | Discrete(N * N) | the cell: row * N + column |
    | "one_hot" | Box(0, 1, [N, N], uint8) | 1 at the cell; all 0 after the last step |

Rewards:
    ``-move_cost / N`` for every move right, and 1 for right in the bottom right cell. With ``stochastic=True``
    right fails with probability 1 / N (the diver sinks straight down, and pays), and the last step out of
    either bottom corner adds a draw from N(0, 1). The best return is 1 - move_cost; if stochastic, the best mean
    return is p**(N - 1) - move_cost * (1 - p**N) with p = 1 - 1/N, since after a first failure it is best to move
    left (it is given as ``game.layout["optimal_return"]``).

Start:
    The top left cell.

End:
    Termination after N steps, at the bottom. There is no truncation.

Version history:
    v0: first version.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mlbits.envs.core.drawing import BLUE, BROWN, GREY, GRID, INK, PAPER, SMALLEST_TEXT, YELLOW, Canvas
from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.random import normal, uniform
from mlbits.envs.core.rules import rule
from mlbits.envs.core.settings import capacity, choice, flag, integer, number

MAX_SIZE = 200


@rule
def reset(state: Any, params: Any) -> None:
    """Start in the top left corner."""
    state.row = 0
    state.column = 0


@rule
def step(state: Any, params: Any, actions: Any, rewards: Any) -> Any:
    """Move left or right, according to the cell's mapping, and sink one row."""
    size, row, column = params.rows, state.row, state.column
    right = actions[0] == params.right[row * size + column]
    reward = 0.0
    if right:
        reward -= params.move_cost / size
        if column == size - 1:
            reward += 1.0
    if params.stochastic != 0:
        if row == size - 1 and (column == 0 or column == size - 1):
            reward += normal(state)
        if right and uniform(state) < 1.0 / size:
            state.column = column
        else:
            state.column = min(column + 1, size - 1) if right else max(column - 1, 0)
    else:
        state.column = min(column + 1, size - 1) if right else max(column - 1, 0)
    state.row = row + 1
    rewards[0] = reward
    return state.row == size, False


@rule
def observe_index(state: Any, params: Any, seat: Any, out: Any) -> None:
    """The diver's cell, numbered row by row."""
    out[0] = min(state.row, params.rows - 1) * params.rows + state.column


@rule
def observe_one_hot(state: Any, params: Any, seat: Any, out: Any) -> None:
    """The grid [N, N], 1 at the diver's cell."""
    for row in range(params.rows):
        for column in range(params.rows):
            out[row, column] = 0
    if state.row < params.rows:
        out[state.row, state.column] = 1


_OBSERVE = {"index": observe_index, "one_hot": observe_one_hot}


def deep_sea(
    size: int = 10,
    *,
    stochastic: bool = False,
    move_cost: float = 0.01,
    instance_seed: int | None = 0,
    observation: Literal["index", "one_hot"] = "index",
) -> Game:
    """A DeepSea game.

    Args:
        size: rows and columns N, 2 to 200.
        stochastic: whether moves right may fail and the bottom corners pay noise.
        move_cost: total cost of N moves right.
        instance_seed: seed of the mapping of actions to left and right; None makes 1 right everywhere.
        observation: "index" or "one_hot".

    Raises:
        GameError: for a setting out of range.
    """
    size = integer("size", size, 2, MAX_SIZE)
    stochastic = flag("stochastic", stochastic)
    move_cost = number("move_cost", move_cost, 0.0, 1e6)
    choice("observation", observation, _OBSERVE)
    right = np.ones(size * size, np.uint8)
    if instance_seed is not None:
        seed = integer("instance_seed", instance_seed, 0, 2**63 - 1)
        # Only `random` of NumPy's generator is used: its stream has never changed between versions.
        right = (np.random.default_rng(seed).random(size * size) < 0.5).astype(np.uint8)
    room = capacity(size * size)
    params = make_params(
        [("rows", "i4"), ("stochastic", "u1"), ("move_cost", "f4"), ("right", "u1", (room,))],
        {"rows": size, "stochastic": stochastic, "move_cost": move_cost, "right": right},
    )
    optimum = _optimal_return(size, stochastic, move_cost)
    box = spaces.Box(0, 1, (size, size), np.uint8)
    return Game(
        name="DeepSea",
        state_fields=[("row", "i4"), ("column", "i4")],
        state_ranges={"row": (0, size), "column": (0, size - 1)},
        params=params,
        observation_space=spaces.Discrete(size * size) if observation == "index" else box,
        action_space=spaces.Discrete(2),
        reset=reset,
        step=step,
        observe=_OBSERVE[observation],
        text=_text,
        draw=_draw,
        reveals=True,
        layout={"right": right.reshape(size, size), "optimal_return": optimum},
    )


def _optimal_return(size: int, stochastic: bool, move_cost: float) -> float:
    """The mean return of the best policy; it moves right only if the treasure is worth the cost."""
    p = 1.0 - 1.0 / size if stochastic else 1.0
    return max(0.0, p ** (size - 1) - move_cost * (1.0 - p**size if stochastic else 1.0))


def _text(state: Any, params: Any) -> str:
    """The grid: reachable cells as dots, the diver ``A``, the treasure ``$``."""
    size, row, column = int(params.rows), int(state.row), int(state.column)
    lines = []
    for i in range(size):
        cells = ["." if j <= i else " " for j in range(size)]
        cells[-1] = "$" if i == size - 1 else cells[-1]
        if (i, column) == (row, column):
            cells[column] = "A"
        lines.append("".join(cells))
    lines.append("the bottom is reached" if row == size else f"right is {_right(params, row, column)} here")
    return "\n".join(lines) + "\n"


def _right(params: Any, row: int, column: int) -> int:
    return int(params.right[row * int(params.rows) + column])


def _draw(state: Any, params: Any) -> NDArray[np.uint8]:
    """The triangle of reachable cells, each with the action that goes right from it."""
    size, row, column = int(params.rows), int(state.row), int(state.column)
    side = max(4, min(44, 640 // size))
    letters, numbered = max(SMALLEST_TEXT, side // 3), side >= 20
    canvas = Canvas(size * side + 1, (size + 1) * side + 1)
    for i in range(size):
        for j in range(i + 1):
            x, y = j * side, i * side
            depth = i / size
            fill = (int(222 - 96 * depth), int(238 - 68 * depth), int(250 - 36 * depth))
            goal = i == j == size - 1
            canvas.pen.rectangle([x, y, x + side, y + side], fill=YELLOW if goal else fill, outline=GRID)
            if numbered and (i, j) != (row, column):
                canvas.text(x + side / 2, y + side * 0.42, str(_right(params, i, j)), size=letters)
                canvas.arrow(x + side / 2, y + side * 0.78, side * 0.4, 0, fill=GREY, width=1)
    canvas.pen.line([0, size * side, size * side, size * side], fill=BROWN, width=3)
    if size * side >= 300:
        notes = [f"row {min(row + 1, size)} of {size}", "yellow: the treasure"]
        notes += ["numbers: the action that", "goes right from there"] if numbered else []
        for k, note in enumerate(notes):
            canvas.text(size * side - 8, 14 + 18 * k, note, size=14 if k == 0 else 12, anchor="rm")
    across, down = (column + 0.5) * side, (row + 0.5) * side
    canvas.disc(across, down, side * 0.36, BLUE, outline=INK)
    if numbered and row < size:
        canvas.text(across, down, str(_right(params, row, column)), size=letters, fill=PAPER)
    return canvas.array()
