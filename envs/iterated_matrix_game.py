"""IteratedMatrixGame: a normal-form game played repeatedly; all players observe each round's actions.

Description:
    All seats act simultaneously, are paid, observe everyone's actions, and play again: for a number of rounds, or
    as long as a coin with probability ``continuation`` allows, or both. Any payoff tensor, as for
    :mod:`mlbits.envs.matrix_game`; the default is the Prisoner's Dilemma.

    Source: Axelrod, "The Evolution of Cooperation" (1984); the last joint action as the observation is that of
    Foerster et al., "Learning with opponent-learning awareness" (2018), section 4.1.

Actions:
    Discrete(A), where A is the largest number of actions of any seat; with masks if seats have different numbers.

Observations:
    MultiDiscrete [3]:

    | index | meaning | values |
    |---|---|---|
    | 0 | the last joint action as one number; A^n before the first round | A^n + 1 |
    | 1 | the number of rounds played; always 0 if ``rounds`` is None | rounds + 1, or 1 |
    | 2 | the player's own seat; always 0 with ``see_seat=False`` | n, or 1 |

    The digits of the joint action in base A are the player's own action, then those of the following seats, wrapping
    around. In the Prisoner's Dilemma it is 0 if both cooperated, 1 if only the other defected, 2 if only the player
    itself did, 3 if both did, and 4 at the start.

Rewards:
    payoffs[seat, action of seat 0, action of seat 1, ...] of each round.

Start:
    No actions played.

End:
    Termination after ``rounds`` rounds, and after each round with probability 1 - continuation.

Version history:
    v0: first version.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mlbits.envs.core.drawing import INK, Canvas
from mlbits.envs.core.errors import GameError
from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.random import uniform
from mlbits.envs.core.rules import rule
from mlbits.envs.core.settings import flag, integer, number
from mlbits.envs.matrix_game import MAX_SEATS, legal, pay, payoff_table, table_params
from mlbits.envs.matrix_game import draw as draw_game
from mlbits.envs.matrix_game import reset as clear
from mlbits.envs.matrix_game import text as game_text

MAX_ROUNDS, MAX_JOINT = 10**6, 2**20


@rule
def reset(state: Any, params: Any) -> None:
    """Clear the actions played."""
    clear(state, params)
    state.rounds_played = 0


@rule
def step(state: Any, params: Any, actions: Any, rewards: Any) -> Any:
    """Play a round, and draw whether another one follows."""
    pay(state, params, actions, rewards)
    state.rounds_played += 1
    ended = state.rounds_played == params.rounds
    if params.continuation < 1.0 and uniform(state) >= params.continuation:
        ended = True
    return ended, False


@rule
def observe(state: Any, params: Any, seat: Any, out: Any) -> None:
    """The last joint action seen from this seat, the rounds played, and the seat."""
    joint = 0
    for k in range(params.seats):
        joint = joint * params.most + state.played[(seat + k) % params.seats]
    out[0] = joint if state.rounds_played > 0 else params.joint
    out[1] = state.rounds_played if params.rounds > 0 else 0
    out[2] = seat if params.see_seat != 0 else 0


def iterated_matrix_game(
    payoffs: str | Sequence[Sequence[float]] = "prisoners_dilemma",
    *,
    rounds: int | None = 10,
    continuation: float = 1.0,
    see_seat: bool = True,
) -> Game:
    """A repeated normal-form game.

    Args:
        payoffs: a name or a tensor, see :func:`mlbits.envs.matrix_game.matrix_game`.
        rounds: rounds after which the game terminates, 1 to 1,000,000; None for no limit, which requires
            ``continuation`` below 1.
        continuation: probability, from 0 to 1, that another round follows.
        see_seat: whether a player observes its own seat.

    Raises:
        GameError: for invalid payoffs, a setting out of range, or a game that would never end.
    """
    table = payoff_table(payoffs)
    if rounds is not None:
        rounds = integer("rounds", rounds, 1, MAX_ROUNDS)
    continuation = number("continuation", continuation, 0.0, 1.0)
    if rounds is None and continuation == 1:
        raise GameError("rounds: got None with continuation 1, which never ends; wanted rounds, or less than 1")
    seats, most, see_seat = len(table), max(table.shape[1:]), flag("see_seat", see_seat)
    if most**seats > MAX_JOINT:
        raise GameError(f"payoffs: got {most**seats} joint actions to observe; wanted at most {MAX_JOINT}")
    fields, values = table_params(payoffs, table)
    own = {
        "most": most, "joint": most**seats, "rounds": rounds or 0, "continuation": continuation, "see_seat": see_seat
    }  # fmt: skip
    return Game(
        name="IteratedMatrixGame",
        seats=seats,
        state_fields=[("played", "i4", (MAX_SEATS,)), ("rounds_played", "i4")],
        state_ranges={"played": (-1, most - 1), "rounds_played": (0, rounds or 2**31 - 1)},
        params=make_params(
            [*fields, ("most", "i4"), ("joint", "i4"), ("rounds", "i4"), ("continuation", "f8"), ("see_seat", "u1")],
            values | own,
        ),
        observation_space=spaces.MultiDiscrete([most**seats + 1, (rounds or 0) + 1, seats if see_seat else 1]),
        action_space=spaces.Discrete(most),
        reset=reset,
        step=step,
        observe=observe,
        legal=legal if len(set(table.shape[1:])) > 1 else None,
        text=_text,
        draw=_draw,
        layout={"payoffs": table},
    )


def _title(state: Any, params: Any) -> str:
    return f"round {int(state.rounds_played)}" + (f" of {int(params.rounds)}" if params.rounds > 0 else "")


def _text(state: Any, params: Any) -> str:
    return f"{_title(state, params)}\n{game_text(state, params)}"


def _draw(state: Any, params: Any) -> NDArray[np.uint8]:
    """The one-shot game's picture below a line with the number of rounds."""
    game = draw_game(state, params)
    canvas = Canvas(game.shape[1], 28)
    canvas.text(12, 14, _title(state, params), fill=INK, anchor="lm")
    return np.concatenate([canvas.array(), game])
