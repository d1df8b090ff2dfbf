"""Observations of a seat, as in the tables of :mod:`mlbits.envs.diplomacy.game`."""

from __future__ import annotations

from typing import Any

from mlbits.envs.core.rules import rule
from mlbits.envs.diplomacy.codes import (
    ADJUSTMENTS,
    BUILD,
    FALL_RETREATS,
    NO_ORDER,
    NO_UNIT,
    SPRING_RETREATS,
)
from mlbits.envs.diplomacy.decisions import NONE
from mlbits.envs.diplomacy.phases import has_order, list_index


@rule(inline=False)
def observe(state: Any, params: Any, seat: Any, out: Any) -> None:
    """Write areas, status and slots as seen from a seat."""
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
        if state.owner[p] != NONE:
            row[10 + 2 * powers + (state.owner[p] - seat) % powers] = 1
            open_home = params.home[p] == seat and state.owner[p] == seat and state.unit_kind[p] == NO_UNIT
            row[10 + 3 * powers] = open_home and state.due[seat] > 0
        if state.order_kind[p] != NO_ORDER:
            kind = state.order_kind[p]
            row[10 + 3 * powers + kind] = 1
            row[19 + 3 * powers] = state.fate[p] != 0
            if kind != BUILD:
                row[20 + 3 * powers] = 1 + state.order_other[p]
            if state.order_target[p] != NONE:
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
            if slot < params.slots and has_order(state, p, seat, retreats):
                out[slot] = 1 + list_index(state, params, p, retreats)
                slot += 1
    while slot < params.slots:
        out[slot] = 0
        slot += 1
