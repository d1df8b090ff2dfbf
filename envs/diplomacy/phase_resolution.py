"""Resolves a phase: moves units, then retreats, builds, disbands, ownership of centres, and the next phase.

Rules of 2000 (Avalon Hill). A dislodged unit may retreat to a neighbour that is empty, was not left empty by a
standoff, and is not where its attacker came from (unless the attacker came by sea: DATC 4.A.5); without such a place
it is destroyed at once. Units that retreat to the same place are both destroyed. Centres change owner after the fall's
retreats. A power with fewer centres than units that does not order enough disbands is in civil disorder: the units
farthest from its centres are disbanded, fleets before armies, then by name (DATC 2.4, 4.D.8; with ``disorder_owned``
distances are measured to the centres that it owns, as in the rules of 2023, else to its home centres). Armies measure
distances over land and sea, fleets over water and coasts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlbits.envs.core.rules import rule
from mlbits.envs.diplomacy.adjudicator import resolve_moves
from mlbits.envs.diplomacy.codes import (
    ADJUSTMENTS,
    ARMY,
    BOUNCE,
    BUILD,
    DISBAND,
    DISBANDED,
    FALL_MOVES,
    FALL_RETREATS,
    FLEET,
    NO_ORDER,
    NO_UNIT,
    RETREAT,
    SPRING_MOVES,
    SPRING_RETREATS,
    VOID,
)
from mlbits.envs.diplomacy.decisions import NO, NONE, YES


@rule(inline=False)
def resolve(state: Any, params: Any) -> None:
    """Carry out the orders in the record, and go to the next phase in which a power has something to order."""
    phase = state.phase
    for p in range(params.provinces):
        state.destroyed[p] = 0
    if phase == SPRING_MOVES or phase == FALL_MOVES:
        resolve_moves(state, params)
        _move_units(state, params)
        if _open_retreats(state, params) > 0:
            state.phase = phase + 1
            return
    elif phase == SPRING_RETREATS or phase == FALL_RETREATS:
        _retreat(state, params)
    else:
        _adjust(state, params)
    _next_phase(state, params)


@rule(inline=False)
def _next_phase(state: Any, params: Any) -> None:
    """Go to the next phase, if no retreats follow."""
    if state.phase == SPRING_MOVES or state.phase == SPRING_RETREATS:
        state.phase = FALL_MOVES
        return
    if state.phase == FALL_MOVES or state.phase == FALL_RETREATS:
        for p in range(params.provinces):
            if params.center[p] != 0 and state.unit_kind[p] != NO_UNIT:
                state.owner[p] = state.unit_power[p]
        state.phase = ADJUSTMENTS
        if params.every_winter != 0 or anything_to_adjust(state, params):
            return
    state.phase = SPRING_MOVES
    state.year += 1


@rule(inline=False)
def _move_units(state: Any, params: Any) -> None:
    """Update unit positions: successful moves at their targets, dislodged units in the ``out`` fields."""
    for p in range(params.provinces):
        state.new_kind[p] = NO_UNIT
        state.new_power[p] = NONE
        state.new_place[p] = NONE
        state.out_kind[p] = NO_UNIT
        state.out_power[p] = NONE
        state.out_place[p] = NONE
        state.out_from[p] = NONE
    for p in range(params.provinces):
        if state.unit_kind[p] == NO_UNIT:
            continue
        goal = state.goal[p]
        if goal != NONE and state.verdict[p] == YES:
            state.new_kind[goal] = state.unit_kind[p]
            state.new_power[goal] = state.unit_power[p]
            state.new_place[goal] = state.order_target[p]
        elif state.dislodged_by[p] != NONE:
            state.out_kind[p] = state.unit_kind[p]
            state.out_power[p] = state.unit_power[p]
            state.out_place[p] = state.unit_place[p]
            state.out_from[p] = state.dislodged_by[p]
        else:
            state.new_kind[p] = state.unit_kind[p]
            state.new_power[p] = state.unit_power[p]
            state.new_place[p] = state.unit_place[p]
    for p in range(params.provinces):
        goal = state.goal[p]
        if state.unit_kind[p] != NO_UNIT and goal != NONE and state.verdict[p] == NO and state.path[p] == YES:
            met = state.head_on[p]
            if met == NONE or state.verdict[met] == NO:
                state.contested[goal] = 1
    for p in range(params.provinces):
        state.unit_kind[p] = state.new_kind[p]
        state.unit_power[p] = state.new_power[p]
        state.unit_place[p] = state.new_place[p]


@rule(inline=False)
def _open_retreats(state: Any, params: Any) -> Any:
    """Find where dislodged units may retreat; destroy those without a place. Return how many may retreat."""
    count = 0
    for p in range(params.provinces):
        if state.out_kind[p] == NO_UNIT:
            continue
        row = neighbour_row(params, state.out_kind[p], state.out_place[p])
        allowed = 0
        came_from = state.out_from[p]
        for i in range(params.degree[row]):
            q = params.province_of[params.neighbour[row, i]]
            if state.unit_kind[q] == NO_UNIT and state.contested[q] == 0:
                if q != came_from or state.convoyed[came_from] != 0:
                    allowed |= 1 << i
        state.out_open[p] = allowed
        if allowed != 0:
            count += 1
        else:
            state.out_kind[p] = NO_UNIT
            state.destroyed[p] = 1
    return count


@rule
def neighbour_row(params: Any, kind: Any, place: Any) -> Any:
    """The row of a unit in the neighbour tables."""
    return place if kind == ARMY else params.locations + place


@rule(inline=False)
def _retreat(state: Any, params: Any) -> None:
    """Carry out retreats; units without an order, or with the same destination, are destroyed."""
    for p in range(params.provinces):
        state.mark[p] = 0
    for p in range(params.provinces):
        if state.out_kind[p] != NO_UNIT:
            state.fate[p] = DISBANDED
            if state.order_kind[p] == RETREAT:
                q = params.province_of[state.order_target[p]]
                if state.mark[q] < 2:
                    state.mark[q] += 1
    for p in range(params.provinces):
        if state.out_kind[p] == NO_UNIT:
            continue
        if state.order_kind[p] == RETREAT:
            q = params.province_of[state.order_target[p]]
            if state.mark[q] == 1:
                state.fate[p] = 0
                state.unit_kind[q] = state.out_kind[p]
                state.unit_power[q] = state.out_power[p]
                state.unit_place[q] = state.order_target[p]
            else:
                state.fate[p] = BOUNCE | DISBANDED
        if state.fate[p] != 0:
            state.destroyed[p] = 1
        state.out_kind[p] = NO_UNIT
        state.out_power[p] = NONE


@rule(inline=False)
def surplus(state: Any, params: Any, power: Any) -> Any:
    """Centres minus units of a power."""
    count = 0
    for p in range(params.provinces):
        if params.center[p] != 0 and state.owner[p] == power:
            count += 1
        if state.unit_kind[p] != NO_UNIT and state.unit_power[p] == power:
            count -= 1
    return count


@rule(inline=False)
def open_homes(state: Any, params: Any, power: Any) -> Any:
    """Number of home centres in which a power can build now."""
    count = 0
    for p in range(params.provinces):
        if params.home[p] == power and state.owner[p] == power and state.unit_kind[p] == NO_UNIT:
            count += 1
    return count


@rule(inline=False)
def to_adjust(state: Any, params: Any, power: Any) -> Any:
    """How many units a power may build (positive) or has to disband (negative)."""
    count = surplus(state, params, power)
    return min(count, open_homes(state, params, power)) if count > 0 else count


@rule(inline=False)
def anything_to_adjust(state: Any, params: Any) -> Any:
    """Whether any power may build or has to disband."""
    for power in range(params.powers):
        if to_adjust(state, params, power) != 0:
            return True
    return False


@rule(inline=False)
def _adjust(state: Any, params: Any) -> None:
    """Carry out builds and disbands; civil disorder makes the disbands that a power did not order."""
    for power in range(params.powers):
        left = to_adjust(state, params, power)
        for p in range(params.provinces):
            kind = state.order_kind[p]
            if kind == BUILD and params.home[p] == power:
                if left > 0 and state.unit_kind[p] == NO_UNIT:
                    left -= 1
                    state.unit_kind[p] = state.order_other[p]
                    state.unit_power[p] = power
                    state.unit_place[p] = state.order_target[p]
                    state.fate[p] = 0
                else:
                    state.fate[p] = VOID
            elif kind == DISBAND and state.unit_kind[p] != NO_UNIT and state.unit_power[p] == power:
                if left < 0:
                    left += 1
                    _remove(state, p)
                else:
                    state.fate[p] = VOID
        while left < 0:
            _remove(state, np.int64(_farthest(state, params, power)))
            left += 1


@rule(inline=False)
def _remove(state: Any, p: Any) -> None:
    state.unit_kind[p] = NO_UNIT
    state.unit_power[p] = NONE
    state.unit_place[p] = NONE
    state.fate[p] = DISBANDED
    state.destroyed[p] = 1


@rule(inline=False)
def _farthest(state: Any, params: Any, power: Any) -> Any:
    """The province of the unit that civil disorder disbands."""
    chosen, most, fleet = NONE, -1, False
    for p in range(params.provinces):  # in the order of the map; names are compared by rank
        if state.unit_kind[p] == NO_UNIT or state.unit_power[p] != power:
            continue
        far = _distance(state, params, p, power)
        is_fleet = state.unit_kind[p] == FLEET
        better = far > most or (far == most and is_fleet and not fleet)
        if far == most and is_fleet == fleet and params.rank[p] < params.rank[chosen]:
            better = True
        if better:
            chosen, most, fleet = p, far, is_fleet
    return chosen


@rule(inline=False)
def _distance(state: Any, params: Any, start: Any, power: Any) -> Any:
    """Moves from a unit to the nearest centre that counts, by ``steps`` of its kind; ``provinces`` if there is none."""
    for p in range(params.provinces):
        state.mark[p] = 0
    kind = state.unit_kind[start]
    state.queue[0] = start
    state.trail[0] = 0
    state.mark[start] = 1
    head, tail = 0, 1
    while head < tail:
        here, far = state.queue[head], state.trail[head]
        head += 1
        if params.disorder_owned != 0:
            counts = params.center[here] != 0 and state.owner[here] == power
        else:
            counts = params.home[here] == power
        if counts:
            return far
        for p in range(params.provinces):
            if state.mark[p] == 0 and params.steps[kind - 1, here, p] != 0:
                state.mark[p] = 1
                state.queue[tail] = p
                state.trail[tail] = far + 1
                tail += 1
    return params.provinces


@rule(inline=False)
def clear_orders(state: Any, params: Any) -> None:
    """Clear all orders and fates."""
    for p in range(params.provinces):
        state.order_kind[p] = NO_ORDER
        state.order_other[p] = NONE
        state.order_target[p] = NONE
        state.order_via[p] = 0
        state.fate[p] = 0
