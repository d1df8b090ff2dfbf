"""The rules of the game: initial positions, which seats act, masks, orders from actions, ends and rewards."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlbits.envs.core.rules import rule
from mlbits.envs.diplomacy.codes import (
    ADJUSTMENTS,
    DISBAND,
    FALL_MOVES,
    FALL_RETREATS,
    NO_ORDER,
    NO_UNIT,
    SPRING_MOVES,
    SPRING_RETREATS,
    WAIVE,
)
from mlbits.envs.diplomacy.decisions import NONE
from mlbits.envs.diplomacy.order_masks import (
    find_connections,
    list_builds,
    list_disbands,
    list_moves,
    list_retreats,
)
from mlbits.envs.diplomacy.phase_resolution import clear_orders, neighbour_row, resolve, to_adjust

DRAW_SIZE, SUM_OF_SQUARES, CENTERS = 0, 1, 2


@rule(inline=False)
def reset(state: Any, params: Any) -> None:
    """Set up the initial position."""
    state.year = params.start_year
    state.phase = params.start_phase
    clear_orders(state, params)
    for p in range(params.provinces):
        state.destroyed[p] = 0
        state.order_power[p] = NONE
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
    """Compute what masks and observations need, once per phase."""
    find_connections(state, params)
    for seat in range(params.powers):
        state.centers[seat] = 0
        state.units[seat] = 0
        state.to_retreat[seat] = 0
    for p in range(params.provinces):
        if state.owner[p] != NONE:
            state.centers[state.owner[p]] += 1
        if state.unit_kind[p] != NO_UNIT:
            state.units[state.unit_power[p]] += 1
        if state.out_kind[p] != NO_UNIT:
            state.to_retreat[state.out_power[p]] += 1
    for seat in range(params.powers):
        state.due[seat] = to_adjust(state, params, seat) if state.phase == ADJUSTMENTS else 0


@rule
def acts(state: Any, params: Any, seat: Any) -> Any:
    """Whether a seat has anything to order in this phase."""
    if state.phase == ADJUSTMENTS:
        return state.due[seat] != 0 or (params.welfare != 0 and state.units[seat] > 0)
    if state.phase == SPRING_RETREATS or state.phase == FALL_RETREATS:
        return state.to_retreat[seat] > 0
    return state.units[seat] > 0


@rule
def has_order(state: Any, p: Any, seat: Any, retreats: Any) -> Any:
    """Whether a seat has a unit to order in a province: one that is there, or was dislodged from there."""
    if retreats:
        return state.out_kind[p] != NO_UNIT and state.out_power[p] == seat
    return state.unit_kind[p] != NO_UNIT and state.unit_power[p] == seat


@rule(inline=False)
def list_index(state: Any, params: Any, p: Any, retreats: Any) -> Any:
    """Index of the vocabulary's list for a unit's order."""
    if retreats:
        return 2 * params.locations + neighbour_row(params, state.out_kind[p], state.out_place[p])
    return neighbour_row(params, state.unit_kind[p], state.unit_place[p])


@rule(inline=False)
def legal(state: Any, params: Any, seat: Any, out: Any) -> None:
    """Mark the legal choices of each slot."""
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
            if slot < params.slots and has_order(state, p, seat, retreats):
                count = list_retreats(state, params, p) if retreats else list_moves(state, params, p)
                for i in range(count):
                    out[slot * params.width + state.choices[i]] = True
                slot += 1
    while slot < params.slots:
        out[slot * params.width] = True
        slot += 1


@rule(inline=False)
def read_orders(state: Any, params: Any, actions: Any) -> None:
    """Turn the seats' actions into orders."""
    clear_orders(state, params)
    for p in range(params.provinces):
        state.order_power[p] = NONE
    retreats = state.phase == SPRING_RETREATS or state.phase == FALL_RETREATS
    for seat in range(params.powers):
        slot = 0
        if state.phase == ADJUSTMENTS:
            _read_adjustments(state, params, seat, actions[seat])
            continue
        for p in range(params.provinces):
            if slot < params.slots and has_order(state, p, seat, retreats):
                give_order(state, params, p, seat, list_index(state, params, p, retreats), actions[seat, slot])
                slot += 1


@rule(inline=False)
def give_order(state: Any, params: Any, p: Any, seat: Any, number: Any, index: Any) -> None:
    """Write the order to the unit in ``p`` that has the given index in a list."""
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
    """Carry out the orders in the record; return whether the game is over."""
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
        alive, winner = 0, NONE
        for seat in range(params.powers):
            if state.centers[seat] + state.units[seat] > 0:
                alive += 1
            if state.centers[seat] >= params.victory:
                winner = seat
        if winner == NONE and alive == 1:
            for seat in range(params.powers):
                if state.centers[seat] + state.units[seat] > 0:
                    winner = seat
        ended = ended or winner != NONE or alive == 0
        if ended:
            _score(state, params, winner, alive, rewards)
    else:
        prepare(state, params)
    return ended


@rule(inline=False)
def _disband_freely(state: Any, params: Any) -> None:
    """Welfare: carry out disbands that are not due."""
    for p in range(params.provinces):
        if state.order_kind[p] == DISBAND and state.due[state.order_power[p]] >= 0:
            state.unit_kind[p] = NO_UNIT
            state.unit_power[p] = NONE
            state.unit_place[p] = NONE


@rule(inline=False)
def _score(state: Any, params: Any, winner: Any, alive: Any, rewards: Any) -> None:
    """Divide 1: to the winner, or among the survivors of a draw."""
    total = 0
    for seat in range(params.powers):
        total += state.centers[seat] ** 2 if params.scoring == SUM_OF_SQUARES else state.centers[seat]
    for seat in range(params.powers):
        centers = state.centers[seat]
        if winner != NONE:
            rewards[seat] = 1.0 if seat == winner else 0.0
        elif params.scoring == DRAW_SIZE or total == 0:
            rewards[seat] = 1.0 / max(alive, 1) if centers + state.units[seat] > 0 else 0.0
        elif params.scoring == SUM_OF_SQUARES:
            rewards[seat] = centers * centers / total
        else:
            rewards[seat] = centers / total
