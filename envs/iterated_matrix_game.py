"""IteratedMatrixGame: a game in normal form played again and again, each round seen by all.

Description:
    All seats choose at once, are paid, see what everybody chose, and play again: for a number of rounds, or for as
    long as a coin of the probability ``continuation`` says, or both. Any payoff tensor, as for
    :mod:`mlbits.envs.matrix_game`; the default is the Prisoner's Dilemma.

    Source: Axelrod, "The Evolution of Cooperation" (1984); the last joint action as the observation is that of
    Foerster et al., "Learning with opponent-learning awareness" (2018), section 4.1.

Actions:
    Discrete(the most actions A that a seat has), with masks where seats have different numbers of them.

Observations:
    MultiDiscrete [3]:

    | index | meaning | values |
    |---|---|---|
    | 0 | the last joint action as one number; A^n where nothing has been played | A^n + 1 |
    | 1 | the rounds played; always 0 where ``rounds`` is None | rounds + 1, or 1 |
    | 2 | one's own seat; always 0 with ``see_seat=False`` | n, or 1 |

    Its digits in base A are one's own action, then those of the seats after one's own, wrapping around. In the
    Prisoner's Dilemma it is 0 after both cooperated, 1 after the other defected, 2 after oneself did, 3
    after both did, and 4 at the start.

Rewards:
    payoffs[seat, action of seat 0, action of seat 1, ...] of each round.

Start:
    Nothing played.

End:
    Termination after ``rounds`` rounds; before that with probability 1 - continuation after each.

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
    """Nobody has played."""
    clear(state, params)
    state.rounds_played = 0


@rule
def step(state: Any, params: Any, actions: Any, rewards: Any) -> Any:
    """Play a round, and toss the coin where there is one."""
    pay(state, params, actions, rewards)
    state.rounds_played += 1
    ended = state.rounds_played == params.rounds
    if params.continuation < 1.0 and uniform(state) >= params.continuation:
        ended = True
    return ended, False


@rule
def observe(state: Any, params: Any, seat: Any, out: Any) -> None:
    """The last joint action from one's own seat, the rounds played, one's own seat."""
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
    """A game in normal form, again and again.

    Args:
        payoffs: a name or a tensor, as for :func:`mlbits.envs.matrix_game.matrix_game`.
        rounds: rounds after which the game terminates, 1 to 1,000,000; None for no such limit, which wants a
            continuation below 1.
        continuation: probability, from 0 to 1, that another round follows a round.
        see_seat: whether a seat observes which it is.

    Raises:
        GameError: for payoffs that are none, a setting out of range, or a game that would never end.
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
    """The one-shot game's picture under a line that counts the rounds."""
    game = draw_game(state, params)
    canvas = Canvas(game.shape[1], 28)
    canvas.text(12, 14, _title(state, params), fill=INK, anchor="lm")
    return np.concatenate([canvas.array(), game])
