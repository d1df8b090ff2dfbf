"""Catch: a ball falls, and a paddle at the bottom has to be under it when it lands.

Description:
    The board has ``rows`` x ``columns`` cells. The ball starts in a random column of the top row and falls one row per
    step; the paddle starts in the middle of the bottom row and moves at most one column per step. Only the last step is
    rewarded, so that the way there has to be credited.

    Source: Mnih et al., "Recurrent models of visual attention" (2014), and "Behaviour suite for reinforcement learning"
    (Osband et al. 2020), whose rules, size and rewards these are: the paddle moves first, then the ball falls.

Actions:
    Discrete(3): 0 moves the paddle left, 1 leaves it, 2 moves it right; at an edge it stays.

Observations:
    Box(0, 1, [rows, columns], float32): 1 at the ball and at the paddle, 0 elsewhere.

Rewards:
    1 for a ball that lands on the paddle and -1 for one that lands beside it; 0 before.

Start:
    The ball in a column of the top row, drawn uniformly; the paddle in column ``columns // 2`` of the bottom row.

End:
    Termination when the ball reaches the bottom row, after rows - 1 steps. There is no truncation.

Version history:
    v0: first version.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mlbits.envs.core.drawing import BLUE, GRID, INK, RED, Canvas
from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.random import randint
from mlbits.envs.core.rules import rule
from mlbits.envs.core.settings import integer

MOST = 100  # rows or columns


@rule
def reset(state: Any, params: Any) -> None:
    """Drop a new ball."""
    state.row = 0
    state.ball = randint(state, params.columns)
    state.paddle = params.columns // 2


@rule
def step(state: Any, params: Any, actions: Any, rewards: Any) -> Any:
    """Move the paddle, and let the ball fall by one row."""
    state.paddle = min(max(state.paddle + actions[0] - 1, 0), params.columns - 1)
    state.row += 1
    landed = state.row == params.rows - 1
    if landed:
        rewards[0] = 1.0 if state.ball == state.paddle else -1.0
    return landed, False


@rule
def observe(state: Any, params: Any, seat: Any, out: Any) -> None:
    """The board [rows, columns]."""
    for row in range(params.rows):
        for column in range(params.columns):
            out[row, column] = 0
    out[state.row, state.ball] = 1
    out[params.rows - 1, state.paddle] = 1


def catch(rows: int = 10, columns: int = 5) -> Game:
    """A game of Catch.

    Args:
        rows: height of the board, 2 to 100.
        columns: width of the board, 1 to 100.

    Raises:
        GameError: for a setting out of range.
    """
    rows, columns = integer("rows", rows, 2, MOST), integer("columns", columns, 1, MOST)
    return Game(
        name="Catch",
        state_fields=[("row", "i4"), ("ball", "i4"), ("paddle", "i4")],
        state_ranges={"row": (0, rows - 1), "ball": (0, columns - 1), "paddle": (0, columns - 1)},
        params=make_params([("rows", "i4"), ("columns", "i4")], {"rows": rows, "columns": columns}),
        observation_space=spaces.Box(0, 1, (rows, columns), np.float32),
        action_space=spaces.Discrete(3),
        reset=reset,
        step=step,
        observe=observe,
        text=_text,
        draw=_draw,
        layout={"optimal_return": _optimal_return(rows, columns), "moves": (("left", "stay", "right"),)},
    )


def _optimal_return(rows: int, columns: int) -> float:
    """The mean return of the best play: 1 if the paddle can reach every column in time."""
    start = columns // 2
    caught = sum(abs(column - start) <= rows - 1 for column in range(columns))
    return 2 * caught / columns - 1


def _text(state: Any, params: Any) -> str:
    """The board: the ball ``o``, the paddle ``=``, or ``@`` for a ball on the paddle."""
    board = [["."] * int(params.columns) for _ in range(int(params.rows))]
    board[int(state.row)][int(state.ball)] = "o"
    board[-1][int(state.paddle)] = "@" if board[-1][int(state.paddle)] == "o" else "="
    return "\n".join("".join(line) for line in board) + "\n"


def _draw(state: Any, params: Any) -> NDArray[np.uint8]:
    rows, columns = int(params.rows), int(params.columns)
    side = max(4, min(36, 360 // max(rows, columns)))
    canvas = Canvas(max(columns * side + 1, 120), rows * side + 25)
    canvas.text(6, rows * side + 13, f"{rows - 1 - int(state.row)} rows to fall", anchor="lm")
    for row in range(rows):
        for column in range(columns):
            x, y = column * side, row * side
            canvas.pen.rectangle([x, y, x + side, y + side], outline=GRID)
    x, y = int(state.paddle) * side, (rows - 1) * side
    canvas.pen.rectangle([x + 1, y + side * 0.6, x + side - 1, y + side - 1], fill=BLUE, outline=INK)
    canvas.disc((int(state.ball) + 0.5) * side, (int(state.row) + 0.5) * side, side * 0.36, RED, outline=INK)
    return canvas.array()
