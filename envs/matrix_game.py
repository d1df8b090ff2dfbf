"""MatrixGame: a normal-form game; all seats act once, simultaneously, and a payoff table gives the rewards.

Description:
    Any payoff tensor for two to eight seats, given or by name. The named games include those on which learning rules
    behave differently: rock-paper-scissors and matching pennies have a single equilibrium, a mixed one; in Shapley's
    game fictitious play cycles forever; the Prisoner's Dilemma, stag hunt, chicken and the battle of the sexes are
    the four classic mixtures of conflict and common interest between two players.

    | ``payoffs`` | actions | seat 0's payoffs | seat 1's |
    |---|---|---|---|
    | "rock_paper_scissors" | rock, paper, scissors | 1 for a win, -1 for a loss | minus that |
    | "matching_pennies" | heads, tails | 1 if both chose the same, else -1 | minus that |
    | "prisoners_dilemma" | cooperate, defect | 3 0 / 5 1 | symmetric |
    | "stag_hunt" | stag, hare | 4 0 / 3 3 | symmetric |
    | "chicken" | swerve, straight | 0 -1 / 1 -10 | symmetric |
    | "battle_of_the_sexes" | bach, stravinsky | 3 0 / 0 2 | 2 0 / 0 3 |
    | "shapley" | top, middle, bottom | 1 0 0 / 0 1 0 / 0 0 1 | 0 1 0 / 0 0 1 / 1 0 0 |

    Source: Luce and Raiffa, "Games and Decisions" (1957), chapter 5; the dilemma's payoffs are Axelrod's (1984);
    Shapley's game is that of "Some topics in two-person games" (1964).

Actions:
    Discrete(A), where A is the largest number of actions of any seat. If seats have different numbers of actions, a
    seat's legal actions are its first ones, given by masks.

Observations:
    Discrete(seats): the player's own seat, so that one policy can play all seats; with ``see_seat=False`` Discrete(1),
    always 0.

Rewards:
    payoffs[seat, action of seat 0, action of seat 1, ...].

Start:
    No actions played.

End:
    Termination after one step.

Version history:
    v0: first version.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mlbits.envs.core.drawing import BLUE, GREY, GRID, INK, PAPER, RED, Canvas
from mlbits.envs.core.errors import GameError
from mlbits.envs.core.game import Fields, Game, make_params
from mlbits.envs.core.plain_json import read_json
from mlbits.envs.core.rules import rule
from mlbits.envs.core.settings import capacity, choice, flag

MAX_SEATS, MAX_PAYOFFS, MAX_PAYOFF = 8, 2**20, 1e6
_DRAWN_AS_TABLE = 12  # most actions per seat of a game that is drawn as a table

_DILEMMA, _HUNT, _CHICKEN = (np.array(rows) for rows in ([[3, 0], [5, 1]], [[4, 0], [3, 3]], [[0, -1], [1, -10]]))
_THROWS = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
_PENNIES = np.array([[1, -1], [-1, 1]])
# For each name: the actions' names, and the payoffs of the two seats, [2, A, A].
NAMED: dict[str, tuple[tuple[str, ...], NDArray[Any]]] = {
    "rock_paper_scissors": (("rock", "paper", "scissors"), np.stack([_THROWS, -_THROWS])),
    "matching_pennies": (("heads", "tails"), np.stack([_PENNIES, -_PENNIES])),
    "prisoners_dilemma": (("cooperate", "defect"), np.stack([_DILEMMA, _DILEMMA.T])),
    "stag_hunt": (("stag", "hare"), np.stack([_HUNT, _HUNT.T])),
    "chicken": (("swerve", "straight"), np.stack([_CHICKEN, _CHICKEN.T])),
    "battle_of_the_sexes": (("bach", "stravinsky"), np.array([[[3, 0], [0, 2]], [[2, 0], [0, 3]]])),
    "shapley": (("top", "middle", "bottom"), np.stack([np.eye(3, dtype=int), np.eye(3, dtype=int)[[1, 2, 0]]])),
}


@rule
def reset(state: Any, params: Any) -> None:
    """Clear the actions played."""
    for seat in range(params.seats):
        state.played[seat] = -1


@rule
def pay(state: Any, params: Any, actions: Any, rewards: Any) -> None:
    """Look up each seat's payoff; the table is stored seat by seat, with the last seat's action varying fastest."""
    cell = 0
    for seat in range(params.seats):
        cell = cell * params.counts[seat] + actions[seat]
        state.played[seat] = actions[seat]
    for seat in range(params.seats):
        rewards[seat] = params.payoffs[seat * params.cells + cell]


@rule
def step(state: Any, params: Any, actions: Any, rewards: Any) -> Any:
    """Play the game once."""
    pay(state, params, actions, rewards)
    return True, False


@rule
def observe(state: Any, params: Any, seat: Any, out: Any) -> None:
    """The player's own seat, or 0."""
    out[0] = seat if params.see_seat != 0 else 0


@rule
def legal(state: Any, params: Any, seat: Any, out: Any) -> None:
    """A seat's first actions, as many as it has."""
    for action in range(params.counts[seat]):
        out[action] = True


def matrix_game(
    payoffs: str | Sequence[Sequence[float]] = "rock_paper_scissors",
    *,
    see_seat: bool = True,
) -> Game:
    """A normal-form game.

    Args:
        payoffs: a name ("rock_paper_scissors", "matching_pennies", "prisoners_dilemma", "stag_hunt", "chicken",
            "battle_of_the_sexes" or "shapley"); a tensor [n, A_1, ..., A_n] of the payoffs of n seats (for two
            seats a pair of matrices); or one matrix [A_1, A_2], the payoffs of seat 0 in a zero-sum game. Arrays,
            nested lists, or such lists as JSON text.
        see_seat: whether a player observes its own seat. Without it, one policy plays all seats in the same way, which
            suits symmetric games.

    Raises:
        GameError: for an unknown name, or payoffs that have a wrong shape or are not finite numbers.
    """
    table = payoff_table(payoffs)
    seats, see_seat = len(table), flag("see_seat", see_seat)
    fields, values = table_params(payoffs, table)
    return Game(
        name="MatrixGame",
        seats=seats,
        state_fields=[("played", "i4", (MAX_SEATS,))],
        state_ranges={"played": (-1, max(table.shape[1:]) - 1)},
        params=make_params([*fields, ("see_seat", "u1")], values | {"see_seat": see_seat}),
        observation_space=spaces.Discrete(seats if see_seat else 1),
        action_space=spaces.Discrete(max(table.shape[1:])),
        reset=reset,
        step=step,
        observe=observe,
        legal=legal if len(set(table.shape[1:])) > 1 else None,
        text=text,
        draw=draw,
        layout={"payoffs": table},
    )


def payoff_table(payoffs: Any) -> NDArray[np.float64]:
    """Payoffs as a tensor.

    Args:
        payoffs: see :func:`matrix_game`.

    Returns:
        float64 [n, A_1, ..., A_n].

    Raises:
        GameError: if they are not valid payoffs.
    """
    wanted = "wanted a tensor [n, A_1, ..., A_n], a pair of matrices, or one matrix"
    if isinstance(payoffs, str) and not payoffs.lstrip().startswith("["):
        return NAMED[choice("payoffs", payoffs, NAMED)][1].astype(np.float64)
    try:
        payoffs = read_json(payoffs) if isinstance(payoffs, str) else payoffs
        table = np.asarray(payoffs, np.float64)
    except (TypeError, ValueError):  # rows of different lengths, or strings
        raise GameError(f"payoffs: got {str(payoffs)[:80]}, which is not an array of numbers; {wanted}") from None
    if table.ndim == 2:
        table = np.stack([table, 0.0 - table])
    if not (table.ndim >= 3 and len(table) == table.ndim - 1 <= MAX_SEATS and table.size > 0):
        raise GameError(f"payoffs: got shape {np.shape(payoffs)}; {wanted}, for 2 to {MAX_SEATS} seats")
    if table.size > MAX_PAYOFFS:
        raise GameError(f"payoffs: got {table.size} numbers; wanted at most {MAX_PAYOFFS}")
    bad = np.argwhere(~(np.abs(table) <= MAX_PAYOFF))
    if len(bad):
        place = "".join(f"[{i}]" for i in bad[0])
        got = table[tuple(bad[0])]
        raise GameError(f"payoffs{place}: got {got}; wanted a finite number from {-MAX_PAYOFF:g} to {MAX_PAYOFF:g}")
    return table


def table_params(payoffs: Any, table: NDArray[np.float64]) -> tuple[Fields, dict[str, Any]]:
    """Parameter fields that hold a payoff table, and their values, for :func:`make_params`."""
    named = list(NAMED).index(payoffs) if isinstance(payoffs, str) and payoffs in NAMED else -1
    fields: Fields = [
        ("seats", "i4"), ("cells", "i4"), ("named", "i4"), ("counts", "i4", (MAX_SEATS,)),
        ("payoffs", "f4", (capacity(table.size),)),
    ]  # fmt: skip
    values = {
        "seats": len(table), "cells": table[0].size, "named": named, "counts": table.shape[1:],
        "payoffs": table.ravel(),
    }  # fmt: skip
    return fields, values


def _table(params: Any) -> NDArray[Any]:
    """The payoffs [n, A_1, ..., A_n] stored in the parameters."""
    seats, cells = int(params.seats), int(params.cells)
    return np.asarray(params.payoffs[: seats * cells]).reshape(seats, *map(int, params.counts[:seats]))


def _name(params: Any, action: int) -> str:
    return list(NAMED.values())[int(params.named)][0][action] if params.named >= 0 else str(action)


def text(state: Any, params: Any) -> str:
    """One line per seat: its last action and the payoff."""
    played = tuple(int(action) for action in state.played[: params.seats])
    if played[0] < 0:
        return f"{int(params.seats)} seats, nothing played\n"
    paid = [float(of_seat[played]) for of_seat in _table(params)]
    return "".join(f"seat {seat}: {_name(params, action)}, paid {paid[seat]:g}\n" for seat, action in enumerate(played))


_CHOSEN = (252, 236, 178)  # pale, so that text in both seats' colours is readable on it


def draw(state: Any, params: Any) -> NDArray[np.uint8]:
    """The table of a two-seat game with the last cell played in yellow; other games as lines of text."""
    table = _table(params)
    if len(table) > 2 or max(table.shape[1:]) > _DRAWN_AS_TABLE:
        return _draw_lines(state, params)
    rows, columns = table.shape[1:]
    wide, high, left, top = 96, 48, 110, 64
    canvas = Canvas(left + columns * wide + 16, top + rows * high + 34)
    canvas.text(12, 18, "seat 0, row", fill=BLUE, anchor="lm")
    canvas.text(left + columns * wide, 18, "seat 1, column", fill=RED, anchor="rm")
    for j in range(columns):
        canvas.text(left + (j + 0.5) * wide, top - 14, _name(params, j), size=13, fill=RED)
    for i in range(rows):
        canvas.text(left - 10, top + (i + 0.5) * high, _name(params, i), size=13, fill=BLUE, anchor="rm")
        for j in range(columns):
            x, y = left + j * wide, top + i * high
            chosen = (int(state.played[0]), int(state.played[1])) == (i, j)
            canvas.pen.rectangle([x, y, x + wide, y + high], fill=_CHOSEN if chosen else PAPER, outline=GREY)
            canvas.text(x + wide * 0.3, y + high / 2, f"{table[0, i, j]:.4g}", size=15, fill=BLUE)
            canvas.text(x + wide * 0.7, y + high / 2, f"{table[1, i, j]:.4g}", size=15, fill=RED)
    canvas.text(12, top + rows * high + 17, "yellow: last actions played", size=12, anchor="lm")
    return canvas.array()


def _draw_lines(state: Any, params: Any) -> NDArray[np.uint8]:
    lines = text(state, params).splitlines()
    canvas = Canvas(360, 30 * MAX_SEATS + 24)
    for k, line in enumerate(lines):
        y = 24 + 30 * k
        canvas.pen.line([12, y + 14, 348, y + 14], fill=GRID)
        canvas.text(16, y, line, fill=INK, anchor="lm")
    return canvas.array()
