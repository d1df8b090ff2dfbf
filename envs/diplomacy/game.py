"""Diplomacy without press: write orders at once with everybody else, take supply centres, on boards of any size.

Description:
    Powers with armies and fleets order all their units at the same time; then the orders are carried out together: a
    unit alone never gets past another, so powers need each other's support. Whoever holds enough supply centres
    after a fall wins alone. A year has up to five phases: spring moves and retreats, fall moves and retreats, builds
    and disbands; one step is one phase, and phases in which nobody has anything to order are skipped.

    Rules: Avalon Hill's of 2000, as tested by the Diplomacy Adjudicator Test Cases (DATC) 2.4; ``rules="datc-3.0"``
    takes those of 2023 where they differ. The adjudicator is :mod:`~mlbits.envs.diplomacy.movement`. Boards are JSON
    files (:mod:`~mlbits.envs.diplomacy.board`).

Actions:
    MultiDiscrete([W] * K): a choice for each unit that must be ordered, in the order of the provinces; K is the most
    units that a power can have. In an adjustment phase the first slots are builds (or disbands owed), one each. A
    choice is an index into the list of the vocabulary that belongs to what the slot orders
    (:mod:`~mlbits.envs.diplomacy.vocabulary`); the mask allows exactly the legal orders, and in slots that order
    nothing 0 alone. Two builds in one place or one unit disbanded twice count once: the other build is waived, civil
    disorder disbands another unit. Seats without anything to order pass.

Observations:
    A Dict. "R" is a power counted from the seat: 0 oneself, 1 the next one and so on (P powers).

    ``areas``, int8 [N, 22 + 4 P], by province:

    | column | meaning | values |
    |---|---|---|
    | 0, 1, 2 | land, sea, coast | 0, 1 |
    | 3, 4 | supply centre; one of my home centres | 0, 1 |
    | 5, 6 | an army, a fleet stands there | 0, 1 |
    | 7 | its named coast, counted from 1; 0 for none | 0 to 8 |
    | 8 + R | whose unit | 0, 1 |
    | 8 + P, 9 + P | a dislodged army, fleet is there | 0, 1 |
    | 10 + P + R | whose dislodged unit | 0, 1 |
    | 10 + 2 P + R | whose centre | 0, 1 |
    | 10 + 3 P | I can build there now | 0, 1 |
    | 11 + 3 P to 18 + 3 P | last phase's order to its unit, one column a kind (below) | 0, 1 |
    | 19 + 3 P | it failed | 0, 1 |
    | 20 + 3 P | province of the unit that it helped, counted from 1 | 0 to N |
    | 21 + 3 P | province that it went, or helped to go, to, counted from 1 | 0 to N |
    | 22 + 3 P + R | whose order | 0, 1 |

    Kinds of orders: hold, move, support of a unit that stays, support of a move, convoy, retreat, disband, build.

    ``status``, float32 [8 + 2 P]: which of the five phases (5), years left over years in all (1), builds (positive) or
    disbands due over K (1), whether this is the last year (1), centres of each power R over the centres that win (P),
    its units likewise (P).

    ``slots``, MultiDiscrete [K]: 1 + number of the list that the slot chooses from, 0 for none.

Rewards:
    0 until the end; then shares that sum to 1: all of it to a power that won alone, else by ``scoring``: "draw_size"
    (the same to every survivor), "sum_of_squares" (of the centres) or "centers". ``variant="welfare"`` (Welfare
    Diplomacy) pays every power its centres less its units each year in place of that, lets powers disband what they
    like in adjustment phases, and has no winner.

Start:
    The board's first position, or ``start``, a position in its JSON form.

End:
    Termination when a power has ``victory_centers`` after a fall, when one power is left, or after the fall of
    ``last_year`` (welfare: after its builds), an agreed draw. Truncation only by a time limit of the user's.

Version history:
    v0: first version.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mlbits.envs.core.game import Game, make_params
from mlbits.envs.core.order_space import OrderSpace
from mlbits.envs.core.rules import rule
from mlbits.envs.core.settings import choice, integer
from mlbits.envs.diplomacy.aftermath import clear_orders, neighbour_row, resolve, to_adjust
from mlbits.envs.diplomacy.board import Board, load_board
from mlbits.envs.diplomacy.codes import (
    ADJUSTMENTS,
    BUILD,
    BUILD_FLEET,
    COAST,
    DISBAND,
    FALL_MOVES,
    FALL_RETREATS,
    FLEET,
    LAND,
    MOVE_BY_CONVOY,
    NO_ORDER,
    NO_UNIT,
    SEA,
    SPRING_MOVES,
    SPRING_RETREATS,
    WAIVE,
)
from mlbits.envs.diplomacy.legal import (
    find_ways,
    legal_fields,
    list_builds,
    list_disbands,
    list_moves,
    list_retreats,
    vocabulary_fields,
    vocabulary_values,
)
from mlbits.envs.diplomacy.movement import NOBODY
from mlbits.envs.diplomacy.orders import Order
from mlbits.envs.diplomacy.position import MAX_YEAR, Position, first_position
from mlbits.envs.diplomacy.records import board_fields, board_values, position_fields, read_position, write_position
from mlbits.envs.diplomacy.vocabulary import Vocabulary, vocabulary

DRAW_SIZE, SUM_OF_SQUARES, CENTERS = 0, 1, 2
SCORINGS = {"draw_size": DRAW_SIZE, "sum_of_squares": SUM_OF_SQUARES, "centers": CENTERS}
DEFAULT_YEARS = 20
# What of the first position is kept in the parameters and copied at a reset.
_START = (
    "owner",
    "unit_kind",
    "unit_power",
    "unit_place",
    "out_kind",
    "out_power",
    "out_place",
    "out_from",
    "out_open",
)


@rule(inline=False)
def reset(state: Any, params: Any) -> None:
    """Set up the first position."""
    state.year = params.start_year
    state.phase = params.start_phase
    clear_orders(state, params)
    for p in range(params.provinces):
        state.gone[p] = 0
        state.order_power[p] = NOBODY
        state.owner[p] = params.start_owner[p]
        state.unit_kind[p] = params.start_unit_kind[p]
        state.unit_power[p] = params.start_unit_power[p]
        state.unit_place[p] = params.start_unit_place[p]
        state.out_kind[p] = params.start_out_kind[p]
        state.out_power[p] = params.start_out_power[p]
        state.out_place[p] = params.start_out_place[p]
        state.out_from[p] = params.start_out_from[p]
        state.out_open[p] = params.start_out_open[p]
    prepare(state, params)


@rule(inline=False)
def prepare(state: Any, params: Any) -> None:
    """Find out what the position's masks and observations need, once a phase."""
    find_ways(state, params)
    for seat in range(params.powers):
        state.centers[seat] = 0
        state.units[seat] = 0
        state.ousted[seat] = 0
    for p in range(params.provinces):
        if state.owner[p] != NOBODY:
            state.centers[state.owner[p]] += 1
        if state.unit_kind[p] != NO_UNIT:
            state.units[state.unit_power[p]] += 1
        if state.out_kind[p] != NO_UNIT:
            state.ousted[state.out_power[p]] += 1
    for seat in range(params.powers):
        state.due[seat] = to_adjust(state, params, seat) if state.phase == ADJUSTMENTS else 0


@rule
def acts(state: Any, params: Any, seat: Any) -> Any:
    """Whether a seat has anything to order in this phase."""
    if state.phase == ADJUSTMENTS:
        return state.due[seat] != 0 or (params.welfare != 0 and state.units[seat] > 0)
    if state.phase == SPRING_RETREATS or state.phase == FALL_RETREATS:
        return state.ousted[seat] > 0
    return state.units[seat] > 0


@rule(inline=False)
def legal(state: Any, params: Any, seat: Any, out: Any) -> None:
    """The legal choices of each slot."""
    slot = 0
    if state.phase == ADJUSTMENTS:
        due = state.due[seat]
        count = list_builds(state, params, seat) if due >= 0 else list_disbands(state, params, seat)
        while slot < abs(due) and slot < params.slots:
            for i in range(count):
                out[slot * params.width + state.choices[i]] = True
            slot += 1
        if params.welfare != 0 and due >= 0:
            for p in range(params.provinces):
                if state.unit_kind[p] != NO_UNIT and state.unit_power[p] == seat and slot < params.slots:
                    out[slot * params.width] = True
                    out[slot * params.width + 1 + p] = True
                    slot += 1
    else:
        retreats = state.phase == SPRING_RETREATS or state.phase == FALL_RETREATS
        for p in range(params.provinces):
            if slot < params.slots and in_turn(state, p, seat, retreats):
                count = list_retreats(state, params, p) if retreats else list_moves(state, params, p)
                for i in range(count):
                    out[slot * params.width + state.choices[i]] = True
                slot += 1
    while slot < params.slots:
        out[slot * params.width] = True
        slot += 1


@rule
def in_turn(state: Any, p: Any, seat: Any, retreats: Any) -> Any:
    """Whether a seat has a unit to order in a province: one that stands there, or was dislodged from there."""
    if retreats:
        return state.out_kind[p] != NO_UNIT and state.out_power[p] == seat
    return state.unit_kind[p] != NO_UNIT and state.unit_power[p] == seat


@rule(inline=False)
def list_of(state: Any, params: Any, p: Any, retreats: Any) -> Any:
    """Number of the list that a unit's order is chosen from."""
    if retreats:
        return 2 * params.locations + neighbour_row(params, state.out_kind[p], state.out_place[p])
    return neighbour_row(params, state.unit_kind[p], state.unit_place[p])


@rule(inline=False)
def read_orders(state: Any, params: Any, actions: Any) -> None:
    """Turn the seats' choices into orders."""
    clear_orders(state, params)
    for p in range(params.provinces):
        state.order_power[p] = NOBODY
    retreats = state.phase == SPRING_RETREATS or state.phase == FALL_RETREATS
    for seat in range(params.powers):
        slot = 0
        if state.phase == ADJUSTMENTS:
            _read_adjustments(state, params, seat, actions[seat])
            continue
        for p in range(params.provinces):
            if slot < params.slots and in_turn(state, p, seat, retreats):
                give_order(state, params, p, seat, list_of(state, params, p, retreats), actions[seat, slot])
                slot += 1


@rule(inline=False)
def give_order(state: Any, params: Any, p: Any, seat: Any, number: Any, index: Any) -> None:
    """Write the order to the unit in ``p`` that an index in a list stands for."""
    entry = params.list_start[number] + index
    state.order_kind[p] = params.entry_kind[entry]
    state.order_other[p] = params.entry_other[entry]
    state.order_target[p] = params.entry_target[entry]
    state.order_via[p] = params.entry_via[entry]
    state.order_power[p] = seat


@rule(inline=False)
def _read_adjustments(state: Any, params: Any, seat: Any, chosen: Any) -> None:
    due = state.due[seat]
    builds, disbands = 4 * params.locations + seat, 4 * params.locations + params.powers
    slot = 0
    while slot < abs(due) and slot < params.slots:
        number = builds if due > 0 else disbands
        entry = params.list_start[number] + chosen[slot]
        slot += 1
        if params.entry_kind[entry] != WAIVE:
            p = np.int64(params.province_of[params.entry_target[entry]])
            if state.order_kind[p] == NO_ORDER:
                give_order(state, params, p, seat, number, entry - params.list_start[number])
    if params.welfare != 0 and due >= 0:
        for q in range(params.provinces):
            if state.unit_kind[q] != NO_UNIT and state.unit_power[q] == seat and slot < params.slots:
                if chosen[slot] == 1 + q:
                    give_order(state, params, q, seat, disbands, 1 + q)
                slot += 1


@rule(inline=False)
def step(state: Any, params: Any, actions: Any, rewards: Any) -> Any:
    """Play one phase."""
    read_orders(state, params, actions)
    return advance(state, params, rewards), False


@rule(inline=False)
def advance(state: Any, params: Any, rewards: Any) -> Any:
    """Carry out the orders in the record; returns whether the game is over."""
    phase, year = state.phase, state.year
    if phase == ADJUSTMENTS and params.welfare != 0:
        _disband_freely(state, params)
    resolve(state, params)
    ended = False
    fall_is_over = (phase == FALL_MOVES or phase == FALL_RETREATS) and state.phase != FALL_RETREATS
    if params.welfare != 0:
        prepare(state, params)
        if state.phase == SPRING_MOVES:  # a year has passed
            for seat in range(params.powers):
                rewards[seat] = state.centers[seat] - state.units[seat]
            ended = year >= params.last_year
    elif fall_is_over:
        prepare(state, params)
        ended = year >= params.last_year
        alive, winner = 0, NOBODY
        for seat in range(params.powers):
            if state.centers[seat] + state.units[seat] > 0:
                alive += 1
            if state.centers[seat] >= params.victory:
                winner = seat
        if winner == NOBODY and alive == 1:
            for seat in range(params.powers):
                if state.centers[seat] + state.units[seat] > 0:
                    winner = seat
        ended = ended or winner != NOBODY or alive == 0
        if ended:
            _score(state, params, winner, alive, rewards)
    else:
        prepare(state, params)
    return ended


@rule(inline=False)
def _disband_freely(state: Any, params: Any) -> None:
    """Welfare: carry out disbands that are not owed."""
    for p in range(params.provinces):
        if state.order_kind[p] == DISBAND and state.due[state.order_power[p]] >= 0:
            state.unit_kind[p] = NO_UNIT
            state.unit_power[p] = NOBODY
            state.unit_place[p] = NOBODY


@rule(inline=False)
def _score(state: Any, params: Any, winner: Any, alive: Any, rewards: Any) -> None:
    """Share 1 out: to the winner, or among those who agree on a draw."""
    total = 0
    for seat in range(params.powers):
        total += state.centers[seat] ** 2 if params.scoring == SUM_OF_SQUARES else state.centers[seat]
    for seat in range(params.powers):
        centers = state.centers[seat]
        if winner != NOBODY:
            rewards[seat] = 1.0 if seat == winner else 0.0
        elif params.scoring == DRAW_SIZE or total == 0:
            rewards[seat] = 1.0 / max(alive, 1) if centers + state.units[seat] > 0 else 0.0
        elif params.scoring == SUM_OF_SQUARES:
            rewards[seat] = centers * centers / total
        else:
            rewards[seat] = centers / total


@rule(inline=False)
def observe(state: Any, params: Any, seat: Any, out: Any) -> None:
    """Areas, status and slots as a seat sees them."""
    powers = params.powers
    for p in range(params.provinces):
        row = out.areas[p]
        for column in range(22 + 4 * powers):
            row[column] = params.plain[p, column]
        row[4] = params.home[p] == seat
        if state.unit_kind[p] != NO_UNIT:
            row[4 + state.unit_kind[p]] = 1
            if state.unit_place[p] >= params.provinces:
                row[7] = 1 + state.unit_place[p] - params.coast_start[p]
            row[8 + (state.unit_power[p] - seat) % powers] = 1
        if state.out_kind[p] != NO_UNIT:
            row[7 + powers + state.out_kind[p]] = 1
            row[10 + powers + (state.out_power[p] - seat) % powers] = 1
        if state.owner[p] != NOBODY:
            row[10 + 2 * powers + (state.owner[p] - seat) % powers] = 1
            open_home = params.home[p] == seat and state.owner[p] == seat and state.unit_kind[p] == NO_UNIT
            row[10 + 3 * powers] = open_home and state.due[seat] > 0
        if state.order_kind[p] != NO_ORDER:
            kind = state.order_kind[p]
            row[10 + 3 * powers + kind] = 1
            row[19 + 3 * powers] = state.fate[p] != 0
            if kind != BUILD:
                row[20 + 3 * powers] = 1 + state.order_other[p]
            if state.order_target[p] != NOBODY:
                row[21 + 3 * powers] = 1 + params.province_of[state.order_target[p]]
            row[22 + 3 * powers + (state.order_power[p] - seat) % powers] = 1
    _observe_status(state, params, seat, out.status)
    _observe_slots(state, params, seat, out.slots)


@rule(inline=False)
def _observe_status(state: Any, params: Any, seat: Any, out: Any) -> None:
    for i in range(5):
        out[i] = 1.0 if state.phase == i else 0.0
    out[5] = (params.last_year - state.year) / max(1, params.last_year - params.start_year + 1)
    out[6] = state.due[seat] / params.slots
    out[7] = 1.0 if state.year >= params.last_year else 0.0
    for r in range(params.powers):
        other = (seat + r) % params.powers
        out[8 + r] = state.centers[other] / params.victory
        out[8 + params.powers + r] = state.units[other] / params.victory


@rule(inline=False)
def _observe_slots(state: Any, params: Any, seat: Any, out: Any) -> None:
    slot = 0
    if state.phase == ADJUSTMENTS:
        due = state.due[seat]
        number = 4 * params.locations + (seat if due >= 0 else params.powers)
        while slot < abs(due) and slot < params.slots:
            out[slot] = 1 + number
            slot += 1
        if params.welfare != 0 and due >= 0:
            while slot < abs(due) + state.units[seat] and slot < params.slots:
                out[slot] = 1 + 4 * params.locations + params.powers
                slot += 1
    else:
        retreats = state.phase == SPRING_RETREATS or state.phase == FALL_RETREATS
        for p in range(params.provinces):
            if slot < params.slots and in_turn(state, p, seat, retreats):
                out[slot] = 1 + list_of(state, params, p, retreats)
                slot += 1
    while slot < params.slots:
        out[slot] = 0
        slot += 1


def diplomacy(
    map: str | Path | Mapping[str, Any] = "standard",
    *,
    last_year: int | None = None,
    scoring: str = "draw_size",
    variant: str = "standard",
    rules: str = "datc-2.4",
    start: Mapping[str, Any] | None = None,
) -> Game:
    """Diplomacy on a board.

    Args:
        map: "standard", "mini", the path of a map file, or its content.
        last_year: the year after whose fall the game is a draw; None takes 20 years (1920 on the standard board).
        scoring: how a draw is shared: "draw_size", "sum_of_squares" or "centers".
        variant: "standard" or "welfare".
        rules: "datc-2.4" or "datc-3.0".
        start: a position in its JSON form to start from; None takes the board's.

    Raises:
        GameError: for a setting out of range, or a map or position that is none.
    """
    return game_on(load_board(map), last_year, scoring, variant, rules, start)


def diplomacy_fva(last_year: int | None = None, scoring: str = "draw_size", rules: str = "datc-2.4") -> Game:
    """France against Austria: the standard board, nobody plays the other five, 24 centres win.

    Args:
        last_year: see :func:`diplomacy`.
        scoring: see :func:`diplomacy`.
        rules: see :func:`diplomacy`.
    """
    return game_on(fva_board(), last_year, scoring, "standard", rules, None, name="DiplomacyFvA")


def diplomacy_mini(last_year: int | None = None, scoring: str = "centers", rules: str = "datc-2.4") -> Game:
    """A small board for three powers, on which learning takes minutes.

    Args:
        last_year: see :func:`diplomacy`; None takes 8 years.
        scoring: see :func:`diplomacy`.
        rules: see :func:`diplomacy`.
    """
    board = load_board("mini")
    last = board.first_year + 7 if last_year is None else last_year
    return game_on(board, last, scoring, "standard", rules, None, name="DiplomacyMini")


def fva_board() -> Board:
    """The standard board with two powers."""
    source = dict(load_board("standard").source)
    played = ["FRANCE", "AUSTRIA"]
    source["powers"] = played
    source["victory_centers"] = 24
    source["initial_units"] = {power: source["initial_units"][power] for power in played}
    source["initial_centers"] = {power: source["initial_centers"][power] for power in played}
    source["provinces"] = [
        row | {"home": row["home"] if row["home"] in played else None} for row in source["provinces"]
    ]
    return load_board(source)


def game_on(
    board: Board,
    last_year: int | None,
    scoring: str,
    variant: str,
    rules: str,
    start: Mapping[str, Any] | None,
    name: str = "Diplomacy",
) -> Game:
    """The game on a board that has been read; arguments as :func:`diplomacy` has them."""
    position = first_position(board) if start is None else Position.from_json(start, board)
    last = board.first_year + DEFAULT_YEARS - 1 if last_year is None else last_year
    last = integer("last_year", last, position.year, MAX_YEAR)
    welfare = choice("variant", variant, ("standard", "welfare")) == "welfare"
    scoring_code = SCORINGS[choice("scoring", scoring, SCORINGS)]
    words = vocabulary(board)
    slots = _slots(board, position, welfare)
    powers, n = len(board.powers), len(board.provinces)
    fields = position_fields(board)
    start_fields = [(f"start_{field[0]}", *field[1:]) for field in fields if field[0] in _START]
    record = np.zeros(1, np.dtype(fields, align=True))[0]
    write_position(position, record)
    params = make_params(
        [
            ("slots", "i4"), ("victory", "i4"), ("last_year", "i4"), ("scoring", "u1"), ("welfare", "u1"),
            ("start_year", "i2"), ("start_phase", "u1"), ("plain", "i1", (n, 22 + 4 * powers)),
            *start_fields, *board_fields(board), *vocabulary_fields(words),
        ],
        {
            "slots": slots, "victory": board.victory_centers, "last_year": last, "scoring": scoring_code,
            "welfare": welfare, "start_year": position.year, "start_phase": position.phase, "plain": _plain(board),
            **{f"start_{key}": record[key] for key in _START}, **board_values(board, rules), "every_winter": welfare,
            **vocabulary_values(words),
        },
    )  # fmt: skip
    lists = len(words.start)
    high = np.ones((n, 22 + 4 * powers), np.int8)  # columns of flags, but for three of numbers
    high[:, 7], high[:, 20 + 3 * powers : 22 + 3 * powers] = 8, n
    return Game(
        name=name,
        seats=powers,
        state_fields=[
            *fields, ("order_power", "i1", (n,)), ("centers", "i2", (powers,)), ("units", "i2", (powers,)),
            ("ousted", "i2", (powers,)), ("due", "i2", (powers,)), *legal_fields(words),
        ],
        params=params,
        observation_space=spaces.Dict(
            {
                "areas": spaces.Box(np.zeros_like(high), high, dtype=np.int8),
                "status": spaces.Box(-10.0, 10.0, (8 + 2 * powers,), np.float32),
                "slots": spaces.MultiDiscrete([lists] * slots),
            }
        ),
        action_space=order_space(words, slots),
        reset=reset,
        step=step,
        observe=observe,
        legal=legal,
        acts=acts,
        text=partial(_text, board),
        draw=partial(_draw, board),
        frames_per_second=2,
        layout={"board": board, "slots": slots},
    )  # fmt: skip


def order_space(words: Vocabulary, slots: int) -> OrderSpace:
    """The action space: the vocabulary's lists, and who borders whom."""
    board, locations = words.board, len(words.board.locations)
    place = np.append(board.province_of, -1)  # of location -1, none
    actor = np.full(len(words.entries), -1)
    for number in range(4 * locations):
        actor[words.start[number] : words.start[number + 1]] = board.province_of[number % locations]
    kind, other, target, via = words.entries.T.astype(np.int64)
    target = place[target]
    builds = kind == BUILD
    # Builds of armies and fleets are two kinds, and so are moves by convoy and others; the province of a build acts,
    # and that of a unit that is disbanded.
    kind = np.where(builds & (other == FLEET), BUILD_FLEET, np.where(via > 0, MOVE_BY_CONVOY, kind))
    actor = np.where(builds | (actor < 0), target, actor)
    adjacency = np.zeros((len(board.provinces),) * 2, bool)
    for row, reach in enumerate(words.reach_list):
        adjacency[board.province_of[row % locations], reach[reach >= 0]] = True
    entries = {"kind": kind, "actor": actor, "other": np.where(builds, -1, other), "target": target}
    return OrderSpace(slots, words.start, entries, adjacency)


def _slots(board: Board, position: Position, welfare: bool) -> int:
    """The most units that a power can have to order: one less than wins, without a winner one a centre."""
    most = len(board.centers) if welfare else min(board.victory_centers - 1, len(board.centers))
    counts = [sum(unit.power == power for unit in position.units.values()) for power in range(len(board.powers))]
    ousted = [sum(d.unit.power == p for d in position.dislodged.values()) for p in range(len(board.powers))]
    return max(1, most, *counts, *ousted)


def _plain(board: Board) -> NDArray[np.int8]:
    """Areas of the empty board, as nobody sees them."""
    plain = np.zeros((len(board.provinces), 22 + 4 * len(board.powers)), np.int8)
    for p, province in enumerate(board.provinces):
        plain[p, (LAND, SEA, COAST).index(province.type)] = 1
        plain[p, 3] = province.center
    return plain


def _text(board: Board, state: Any, params: Any) -> str:
    from mlbits.envs.diplomacy.ansi import board_text

    return board_text(read_position(state, board))


def _draw(board: Board, state: Any, params: Any) -> NDArray[np.uint8]:
    """The board with the orders of the last phase and their fates."""
    from mlbits.envs.diplomacy.drawing import draw_position

    given = [int(p) for p in np.flatnonzero(state["order_kind"])]
    orders = {
        p: Order(int(state["order_kind"][p]), 0, p, int(state["order_other"][p]), int(state["order_target"][p]))
        for p in given
    }
    fates = {p: int(state["fate"][p]) for p in given}
    powers = {p: int(state["order_power"][p]) for p in given}
    return draw_position(read_position(state, board), orders, fates, powers)
