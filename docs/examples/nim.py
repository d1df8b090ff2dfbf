"""Nim: two players take stones from a heap in turn, and whoever takes the last one wins.

Description:
    The heap starts with a random number of stones, from just above half of ``stones`` up to ``stones``.
    Player 0 moves first. With this one heap the game is Bachet's (1612): leave your opponent a multiple of
    ``most`` + 1, and you win.

Actions:
    Discrete(most): action a takes a + 1 stones. Taking more than there are is illegal.

Observations:
    Discrete(stones + 1): the number of stones left. Both players see the same.

Rewards:
    1 for taking the last stone and -1 for the other player; 0 before.

Start:
    stones // 2 + 1 to stones, with equal probability.

End:
    Termination when no stone is left. There is no truncation.

Version history:
    v0: first version.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mlbits.envs.core.drawing import BLUE, GREY, INK, RED, Canvas
from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.random import randint
from mlbits.envs.core.rules import rule
from mlbits.envs.core.settings import integer
from mlbits.envs.registry import register

COLUMNS = 10  # stones per row of the picture


@rule
def reset(state: Any, params: Any) -> None:
    """Draw the heap; player 0 moves first."""
    state.stones = params.fewest + randint(state, params.largest - params.fewest + 1)
    state.turn = 0


@rule
def step(state: Any, params: Any, actions: Any, rewards: Any) -> Any:
    """Take stones; returns (terminated, truncated)."""
    mover = state.turn
    state.stones -= actions[mover] + 1
    state.turn = 1 - mover
    won = state.stones == 0
    if won:
        rewards[mover] = 1
        rewards[1 - mover] = -1
    return won, False


@rule
def observe(state: Any, params: Any, seat: Any, out: Any) -> None:
    """The stones left; ``out`` of a Discrete space has one entry."""
    out[0] = state.stones


@rule
def legal(state: Any, params: Any, seat: Any, out: Any) -> None:
    """Up to as many stones as there are."""
    for action in range(params.most):
        out[action] = action < state.stones


@rule
def acts(state: Any, params: Any, seat: Any) -> Any:
    """Whose turn it is; the other seat has nothing to do, and the core makes it pass."""
    return state.turn == seat


def nim(stones: int = 20, most: int = 3) -> Game:
    """A game of Nim.

    Args:
        stones: the most that the heap begins with, 2 to 1000.
        most: the most that one move takes, 1 to 100.

    Raises:
        GameError: for a setting out of range.
    """
    stones, most = integer("stones", stones, 2, 1000), integer("most", most, 1, 100)
    return Game(
        name="Nim",
        seats=2,
        state_fields=[("stones", "i4"), ("turn", "i4")],
        state_ranges={"stones": (0, stones), "turn": (0, 1)},  # what saved states are checked against
        params=make_params(
            [("fewest", "i4"), ("largest", "i4"), ("most", "i4")],
            {"fewest": stones // 2 + 1, "largest": stones, "most": most},
        ),
        observation_space=spaces.Discrete(stones + 1),
        action_space=spaces.Discrete(most),
        reset=reset,
        step=step,
        observe=observe,
        legal=legal,
        acts=acts,
        text=_text,
        draw=_draw,
    )


def _text(state: Any, params: Any) -> str:
    return f"player {int(state.turn)} to move: {'o' * int(state.stones)} ({int(state.stones)})\n"


def _draw(state: Any, params: Any) -> NDArray[np.uint8]:
    """The stones in rows, in the colour of the player who is to move."""
    stones, colour = int(state.stones), (BLUE, RED)[int(state.turn)]
    rows = -(-int(params.largest) // COLUMNS)
    canvas = Canvas(24 * COLUMNS + 24, 24 * rows + 48)
    canvas.text(12, 18, f"player {int(state.turn)} to move, {stones} left", fill=colour, anchor="lm")
    for k in range(stones):
        x, y = 12 + 24 * (k % COLUMNS), 36 + 24 * (k // COLUMNS)
        canvas.pen.ellipse([x, y, x + 20, y + 20], fill=GREY, outline=INK)
    return canvas.array()


register("examples/Nim-v0", "nim:nim", summary="take the last stone")
