"""Goofspiel: bid cards for prizes, all players simultaneously; each card can be bid only once.

Description:
    Every player holds the cards 1 to n. There are n prizes, worth 1 to n points. The prizes are turned up one at a
    time; all players bid a card simultaneously; the highest bid wins the prize, unless several players bid it, in which
    case no one does. The bids are spent. The last card and prize leave nothing to decide and are played automatically,
    so that a game takes n - 1 steps.

    Source: Merrill Flood's game of the 1930s; Ross, "Goofspiel: the game of pure strategy" (1971). Rules, options and
    returns are those of OpenSpiel's ``goofspiel``, where actions and prizes count from 0 as well.

Actions:
    Discrete(n): action a bids the card a + 1. The legal actions are the cards in hand.

Observations:
    Box float32, all entries from 0 to 1, seats ordered from the player's own (own first, wrapping around):

    | entries | meaning |
    |---|---|
    | n per seat ("full"), n ("winners") | the cards in hand: of all seats, or only the player's own |
    | 1 per seat | points won, divided by the sum of all prizes |
    | n | one-hot: the prize on offer; all 0 when the game is over |
    | n | the prizes that have not been turned up |
    | n per seat ("winners") | the prizes that each seat has won |

    Setting ``observation``: "full" shows all bids after they are made, "winners" only who won each prize (OpenSpiel's
    ``imp_info``).

Rewards:
    At the end (setting ``returns``): "win_loss" is 1 divided among those with the most points and -1 divided among the
    others (0 for everyone if all have equally many), "point_difference" is the player's points minus the mean of all
    players' points, "total_points" is the player's points.

Start:
    Full hands; the first prize is turned up.

End:
    Termination after n - 1 steps.

Version history:
    v0: first version.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mlbits.envs.core.drawing import GREY, GRID, INK, PAPER, SEATS, YELLOW, Canvas, box
from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.random import randint
from mlbits.envs.core.rules import rule
from mlbits.envs.core.settings import choice, integer

MAX_CARDS, MAX_SEATS = 32, 10
_ORDERS = ("random", "ascending", "descending")
_RETURNS = ("win_loss", "point_difference", "total_points")


@rule
def has(cards: Any, card: Any) -> Any:
    """Whether a set of cards, one bit per card, contains a card."""
    return (cards >> card) & 1 == 1


@rule(inline=False)
def turn_up(state: Any, params: Any) -> None:
    """Turn up the next prize; at least one must be left."""
    cards = params.cards
    left = cards - state.rounds
    chosen = 0
    if params.order == 0:
        chosen = randint(state, left) if left > 1 else 0
    elif params.order == 2:
        chosen = left - 1
    for prize in range(cards):
        if has(state.prizes, prize):
            if chosen == 0:
                state.prize = prize
            chosen -= 1
    state.prizes ^= 1 << state.prize


@rule
def reset(state: Any, params: Any) -> None:
    """Deal full hands, clear points, and turn up the first prize."""
    full = (1 << params.cards) - 1
    for seat in range(params.seats):
        state.hand[seat] = full
        state.won[seat] = 0
        state.points[seat] = 0
        state.bid[seat] = -1
    state.prizes = full
    state.rounds = 0
    turn_up(state, params)


@rule(inline=False)
def award(state: Any, params: Any) -> None:
    """Spend the bids in ``state.bid``, and give the prize to the highest bidder unless there is a tie."""
    best, winner, ties = -1, 0, 0
    for seat in range(params.seats):
        bid = state.bid[seat]
        state.hand[seat] ^= 1 << bid
        if bid > best:
            best, winner, ties = bid, seat, 1
        elif bid == best:
            ties += 1
    if ties == 1:
        state.won[winner] |= 1 << state.prize
        state.points[winner] += state.prize + 1
    state.rounds += 1


@rule(inline=False)
def pay(state: Any, params: Any, rewards: Any) -> None:
    """Write the rewards of a finished game."""
    seats = params.seats
    most, total, winners = 0, 0, 0
    for seat in range(seats):
        most = max(most, state.points[seat])
        total += state.points[seat]
    for seat in range(seats):
        if state.points[seat] == most:
            winners += 1
    for seat in range(seats):
        points = state.points[seat]
        if params.returns == 2:
            rewards[seat] = points
        elif params.returns == 1:
            rewards[seat] = points - total / seats
        elif winners < seats:
            rewards[seat] = 1.0 / winners if points == most else -1.0 / (seats - winners)


@rule
def step(state: Any, params: Any, actions: Any, rewards: Any) -> Any:
    """Play for one prize; if one card is left afterwards, play that for the last prize."""
    for seat in range(params.seats):
        state.bid[seat] = actions[seat]
    award(state, params)
    turn_up(state, params)
    ended = state.rounds == params.cards - 1
    if ended:
        for seat in range(params.seats):
            for card in range(params.cards):
                if has(state.hand[seat], card):
                    state.bid[seat] = card
        award(state, params)
        pay(state, params, rewards)
        state.prize = -1
    return ended, False


@rule(inline=False)
def observe(state: Any, params: Any, seat: Any, out: Any) -> None:
    """Hands, points, prizes, and prizes won, ordered from this seat."""
    cards, seats = params.cards, params.seats
    at = 0
    for k in range(seats if params.full != 0 else 1):
        for card in range(cards):
            out[at + card] = 1.0 if has(state.hand[(seat + k) % seats], card) else 0.0
        at += cards
    for k in range(seats):
        out[at + k] = state.points[(seat + k) % seats] / (0.5 * cards * (cards + 1))
    at += seats
    for prize in range(cards):
        out[at + prize] = 1.0 if state.prize == prize else 0.0
        out[at + cards + prize] = 1.0 if has(state.prizes, prize) else 0.0
    at += 2 * cards
    if params.full == 0:
        for k in range(seats):
            for prize in range(cards):
                out[at + prize] = 1.0 if has(state.won[(seat + k) % seats], prize) else 0.0
            at += cards


@rule
def legal(state: Any, params: Any, seat: Any, out: Any) -> None:
    """The cards in hand."""
    for card in range(params.cards):
        out[card] = has(state.hand[seat], card)


def goofspiel(
    cards: int = 13,
    *,
    seats: int = 2,
    prizes: Literal["random", "ascending", "descending"] = "random",
    returns: Literal["win_loss", "point_difference", "total_points"] = "win_loss",
    observation: Literal["full", "winners"] = "full",
) -> Game:
    """A game of Goofspiel.

    Args:
        cards: number n of cards per hand, and of prizes, 2 to 32.
        seats: number of players, 2 to 10.
        prizes: the order in which prizes are turned up: "random", "ascending" or "descending".
        returns: "win_loss", "point_difference" or "total_points".
        observation: "full", or "winners", which hides the bids.

    Raises:
        GameError: for a setting out of range.
    """
    cards, seats = integer("cards", cards, 2, MAX_CARDS), integer("seats", seats, 2, MAX_SEATS)
    order, pays = choice("prizes", prizes, _ORDERS), choice("returns", returns, _RETURNS)
    full = choice("observation", observation, ("full", "winners")) == "full"
    size = (seats * cards if full else cards + seats * cards) + seats + 2 * cards
    return Game(
        name="Goofspiel",
        seats=seats,
        state_fields=[
            ("prizes", "i8"), ("hand", "i8", (MAX_SEATS,)), ("won", "i8", (MAX_SEATS,)), ("points", "i4", (MAX_SEATS,)),
            ("bid", "i8", (MAX_SEATS,)), ("prize", "i8"), ("rounds", "i4"),
        ],
        state_ranges={
            **dict.fromkeys(("prizes", "hand", "won"), (0, 2**cards - 1)), "points": (0, cards * (cards + 1) // 2),
            "bid": (-1, cards - 1), "prize": (-1, cards - 1), "rounds": (0, cards),
        },
        params=make_params(
            [("cards", "i8"), ("seats", "i4"), ("order", "i4"), ("returns", "i4"), ("full", "u1")],
            {
                "cards": cards, "seats": seats, "order": _ORDERS.index(order), "returns": _RETURNS.index(pays),
                "full": full,
            },
        ),
        observation_space=spaces.Box(0.0, 1.0, (size,), np.float32),
        action_space=spaces.Discrete(cards),
        reset=reset,
        step=step,
        observe=observe,
        legal=legal,
        text=_text,
        layout={"moves": (tuple(str(card) for card in range(1, cards + 1)),) * seats},
        draw=_draw,
        shapes=_shapes,
    )  # fmt: skip


def _held(cards: Any, count: int) -> list[int]:
    """The values, 1 to n, of a set of cards."""
    return [card + 1 for card in range(count) if int(cards) >> card & 1]


def _title(state: Any) -> str:
    return f"prize {int(state.prize) + 1}" if state.prize >= 0 else "over"


def _text(state: Any, params: Any) -> str:
    """The prize, then one line per seat."""
    count = int(params.cards)
    left = " ".join(map(str, _held(state.prizes, count)))
    lines = [f"{_title(state)}, still to come: {left or 'none'}"]
    for seat in range(int(params.seats)):
        hand = " ".join(map(str, _held(state.hand[seat], count)))
        last = f", bid {int(state.bid[seat]) + 1}" if state.bid[seat] >= 0 else ""
        lines.append(f"seat {seat}: {int(state.points[seat])} points{last}, holds {hand or 'nothing'}")
    return "\n".join(lines) + "\n"


_WIDE, _HIGH, _LEFT = 34, 44, 130  # of cards on the drawing, in pixels


def _shapes(state: Any, params: Any, seat: int) -> dict[str, str]:
    """The cards of the seat's own row."""
    top = 12 + (seat + 1) * (_HIGH + 14)
    return {str(k + 1): box(_LEFT + k * _WIDE, top, _WIDE - 5, _HIGH) for k in range(int(params.cards))}


def _draw(state: Any, params: Any) -> NDArray[np.uint8]:
    """A row of prizes in the winners' colours, a row of cards per seat with its last bid in yellow, and a key."""
    count, seats = int(params.cards), int(params.seats)
    wide, high, left = _WIDE, _HIGH, _LEFT
    bottom = 12 + (seats + 1) * (high + 14)
    canvas = Canvas(max(left + count * wide + 12, 420 + 18 * seats), bottom + 54)

    def card(row: int, k: int, fill: Any, ink: Any) -> None:
        x, y = left + k * wide, 12 + row * (high + 14)
        canvas.pen.rectangle([x, y, x + wide - 5, y + high], fill=fill, outline=GREY if fill == PAPER else fill)
        canvas.text(x + wide / 2 - 2, y + high / 2, str(k + 1), size=14, fill=ink)

    canvas.text(12, 12 + high / 2, _title(state), anchor="lm")
    for prize in range(count):
        owner = [seat for seat in range(seats) if int(state.won[seat]) >> prize & 1]
        if owner:
            card(0, prize, SEATS[owner[0]], PAPER)
        elif prize == int(state.prize):
            card(0, prize, YELLOW, INK)
        else:
            card(0, prize, PAPER if int(state.prizes) >> prize & 1 else GRID, INK)
    for seat in range(seats):
        y = 12 + (seat + 1) * (high + 14) + high / 2
        canvas.text(12, y, f"seat {seat}: {int(state.points[seat])}", fill=SEATS[seat], anchor="lm")
        for k in range(count):
            if int(state.hand[seat]) >> k & 1:
                card(seat + 1, k, PAPER, INK)
            elif k == int(state.bid[seat]):
                card(seat + 1, k, YELLOW, INK)
    keys = (
        (12, 0, (YELLOW,), "prize on offer, last bid"), (250, 0, (PAPER,), "still to come, in hand"),
        (12, 1, (GRID,), "prize gone, won by none"), (250, 1, SEATS[:seats], "prize won by that seat"),
    )  # fmt: skip
    for x, line, fills, words in keys:
        y = bottom + 8 + 22 * line
        for k, fill in enumerate(fills):
            canvas.pen.rectangle([x + 18 * k, y, x + 18 * k + 13, y + 13], fill=fill, outline=GREY)
        canvas.text(x + 18 * len(fills) + 4, y + 7, words, size=13, anchor="lm")
    return canvas.array()
