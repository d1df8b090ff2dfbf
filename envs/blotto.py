"""Blotto: divide coins among fields, all players simultaneously; whoever wins the most fields wins.

Description:
    Colonel Blotto's game. Each player divides the same number of whole coins among the fields, using all of them.
    A field goes to the player with the most coins on it, and to no one in a tie. The players with the most fields
    win. No pure strategy is safe: pure best responses cycle, and equilibria are mixed.

    Source: Borel, "La théorie du jeu et les équations intégrales" (1921). The rules, the order of the actions and the
    returns are those of OpenSpiel's ``blotto``.

Actions:
    Discrete(C(coins + fields - 1, fields - 1)): all divisions in lexicographic order; for 5 coins and 3 fields, 0 is
    (0, 0, 5), 1 is (0, 1, 4) and 20 is (5, 0, 0). :func:`divisions` lists them.

Observations:
    Discrete(1): always 0. The game is the same from every seat.

Rewards:
    1 divided among the winners and -1 divided among the others; 0 for everyone if all players have equally many fields.

Start:
    No actions played.

End:
    Termination after one step.

Version history:
    v0: first version.
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mlbits.envs.core.drawing import GREY, GRID, INK, SEATS, Canvas
from mlbits.envs.core.errors import GameError
from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.rules import rule
from mlbits.envs.core.settings import capacity, integer

MAX_COINS, MAX_FIELDS, MAX_SEATS, MAX_ACTIONS = 1000, 20, 10, 100_000


@rule
def reset(state: Any, params: Any) -> None:
    """Clear actions and scores."""
    for seat in range(params.seats):
        state.played[seat] = -1
        state.score[seat] = 0


@rule(inline=False)
def step(state: Any, params: Any, actions: Any, rewards: Any) -> Any:
    """Give each field to its winner, and divide the prize."""
    seats = params.seats
    for seat in range(seats):
        state.played[seat] = actions[seat]
    for field in range(params.fields):
        best, winner, ties = -1, 0, 0
        for seat in range(seats):
            coins = params.divisions[actions[seat] * params.fields + field]
            if coins > best:
                best, winner, ties = coins, seat, 1
            elif coins == best:
                ties += 1
        if ties == 1:
            state.score[winner] += 1
    most, winners = 0, 0
    for seat in range(seats):
        if state.score[seat] > most:
            most = state.score[seat]
    for seat in range(seats):
        if state.score[seat] == most:
            winners += 1
    if winners < seats:
        for seat in range(seats):
            rewards[seat] = 1.0 / winners if state.score[seat] == most else -1.0 / (seats - winners)
    return True, False


@rule
def observe(state: Any, params: Any, seat: Any, out: Any) -> None:
    """Observe nothing."""
    out[0] = 0


def blotto(coins: int = 10, fields: int = 3, *, seats: int = 2) -> Game:
    """Colonel Blotto's game.

    Args:
        coins: coins that each player divides, 1 to 1000.
        fields: number of fields, 2 to 20.
        seats: number of players, 2 to 10.

    Raises:
        GameError: for a setting out of range, or more than 100,000 divisions.
    """
    coins, fields = integer("coins", coins, 1, MAX_COINS), integer("fields", fields, 2, MAX_FIELDS)
    seats = integer("seats", seats, 2, MAX_SEATS)
    table = divisions(coins, fields)
    room = capacity(table.size)
    params = make_params(
        [("coins", "i4"), ("fields", "i4"), ("seats", "i4"), ("divisions", "i2", (room,))],
        {"coins": coins, "fields": fields, "seats": seats, "divisions": table.ravel()},
    )
    return Game(
        name="Blotto",
        seats=seats,
        state_fields=[("played", "i4", (MAX_SEATS,)), ("score", "i4", (MAX_SEATS,))],
        state_ranges={"played": (-1, len(table) - 1), "score": (0, fields)},
        params=params,
        observation_space=spaces.Discrete(1),
        action_space=spaces.Discrete(len(table)),
        reset=reset,
        step=step,
        observe=observe,
        text=_text,
        draw=_draw,
        layout={"divisions": table},
    )


def divisions(coins: int, fields: int) -> NDArray[np.int64]:
    """All divisions of coins among fields, in lexicographic order; the row index is the action.

    Returns:
        int64 [A, fields]; each row adds up to ``coins``.

    Raises:
        GameError: if there are more than 100,000 divisions.
    """
    count = math.comb(coins + fields - 1, fields - 1)
    if count > MAX_ACTIONS:
        raise GameError(f"coins, fields: got {coins}, {fields}: {count} divisions; wanted at most {MAX_ACTIONS}")
    # Stars and bars: the positions of fields - 1 bars among the coins, in the order of the divisions.
    bars = np.array(list(combinations(range(coins + fields - 1), fields - 1)), np.int64).reshape(count, fields - 1)
    edges = np.concatenate([np.full((count, 1), -1), bars, np.full((count, 1), coins + fields - 1)], 1)
    return np.diff(edges, axis=1) - 1


def _played(state: Any, params: Any) -> list[NDArray[np.int64]]:
    """Each seat's division, or an empty list before they are played."""
    if state.played[0] < 0:
        return []
    fields = int(params.fields)
    starts = [int(state.played[seat]) * fields for seat in range(int(params.seats))]
    return [np.asarray(params.divisions[start : start + fields], np.int64) for start in starts]


def _text(state: Any, params: Any) -> str:
    """One line per seat: its coins on each field, and the number of fields it won."""
    lines = [f"{int(params.coins)} coins, {int(params.fields)} fields, {int(params.seats)} players"]
    for seat, coins in enumerate(_played(state, params)):
        lines.append(f"seat {seat}: {' '.join(map(str, coins))}  won {int(state.score[seat])}")
    return "\n".join(lines) + "\n"


def _draw(state: Any, params: Any) -> NDArray[np.uint8]:
    """One column per field, one bar per seat; the bar that wins a field is outlined."""
    seats, fields, coins = int(params.seats), int(params.fields), int(params.coins)
    bar, left, top, height = max(6, 36 - 3 * seats), 16, 40 + 20 * ((seats + 4) // 5), 170
    slot = seats * bar + 28
    canvas = Canvas(max(left + fields * slot + 8, 420), top + height + 58)
    canvas.text(left, 18, f"{coins} coins on {fields} fields", anchor="lm")
    base, played = float(top + height), _played(state, params)
    for seat in range(seats):
        x, y = float(left + 80 * (seat % 5)), float(40 + 20 * (seat // 5))
        words = f"seat {seat}" + (f": {int(state.score[seat])}" if played else "")
        canvas.text(x, y, words, size=13, fill=SEATS[seat], anchor="lm")
    for field in range(fields):
        x = left + field * slot
        canvas.pen.rectangle([x, top + 14, x + slot - 10, base], outline=GRID)
        canvas.text(x + slot / 2 - 5, base + 16, f"field {field}", size=12, fill=GREY)
        here = [int(coins_of[field]) for coins_of in played]
        for seat, count in enumerate(here):
            at, y = x + 9 + seat * bar, base - (height - 40) * count / coins
            won = count == max(here) and here.count(count) == 1
            box = [at, y, at + bar - 3, base]
            canvas.pen.rectangle(box, fill=SEATS[seat], outline=INK if won else None, width=3)
            if bar >= 14:
                canvas.text(at + bar / 2 - 2, y - 9, str(count), size=12)
    canvas.text(left, base + 42, "numbers: coins; outlined: wins the field", size=12, anchor="lm")
    return canvas.array()
