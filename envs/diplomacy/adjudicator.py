"""The adjudicator of movement phases: moves, supports, cuts, convoys and dislodgement, by bounds on decisions.

After L. B. Kruijf, "The Math of Adjudication" (2009) and chapter 5 of his Diplomacy Adjudicator Test Cases (DATC 2.4).
Each order that can fail is one decision: does the move succeed, is the support given, does the convoying fleet stay? A
decision is a function of other decisions (:mod:`~mlbits.envs.diplomacy.decisions`). Where some of those are still
open, strengths are bounded from below and above, and the decision is made as soon as the bounds allow only one answer.
Sweeps over the open decisions are repeated until none changes.

What is open after that are cycles (:mod:`~mlbits.envs.diplomacy.dependency_cycles`). Decisions that depend on each
other and on no other open decision (a sink component of the dependency graph) are searched for consistent
answers: guess one, derive what follows, backtrack on contradictions. If exactly one assignment is consistent, it is
taken. Otherwise the backup rule decides: if fleets are part of the cycle, the armies that depend on their convoys do
not move and have no effect (Szykman's rule); without fleets the cycle is a circular movement and its moves succeed.

Why this terminates: each repeated sweep, accepted assignment and backup rule closes at least one decision, and
none is opened again; the search walks a finite tree. Why the result is unique: bounds only tighten, so the order
of the sweeps does not matter; sink components are disjoint, do not read each other, and are determined by
the position, as is the set of consistent assignments. No step depends on the order in which orders were written.

Everything works on the fields of one record, by province: the unit in province ``p`` has its order in
``order_kind[p]`` and so on. Orders are legal ones (:mod:`mlbits.envs.diplomacy.order_reasons`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlbits.envs.core.rules import rule
from mlbits.envs.diplomacy.codes import (
    ARMY,
    BOUNCE,
    CONVOY,
    CUT,
    DISLODGED,
    DISRUPTED,
    MOVE,
    NO_CONVOY,
    NO_UNIT,
    SUPPORT,
    SUPPORT_MOVE,
    VOID,
)
from mlbits.envs.diplomacy.decisions import (
    NO,
    NO_ROUTE,
    NONE,
    OPEN,
    PARADOX,
    YES,
    decide,
    route,
    supports,
    update_path,
)
from mlbits.envs.diplomacy.dependency_cycles import apply_backup_rule, find_cycle, search


@rule(inline=False)
def resolve_moves(state: Any, params: Any) -> None:
    """Decide every order of a movement phase; write ``verdict``, ``path``, ``fate`` and ``dislodged_by``."""
    units = _prepare(state, params)
    remaining = _sweep(state, params, units)
    while remaining > 0:
        size = find_cycle(state, units)
        if search(state, params, size) == 1:
            for i in range(size):
                state.verdict[state.cycle[i]] = state.answer[i]
        else:
            apply_backup_rule(state, size)
        remaining = _sweep(state, params, units)
    _write_fates(state, units)


@rule(inline=False)
def _prepare(state: Any, params: Any) -> Any:
    """Link movers to targets, and supports and convoys to the units they help; return the number of units."""
    units = 0
    for q in range(params.provinces):
        state.goal[q] = NONE
        state.first_mover[q] = NONE
        state.first_support[q] = NONE
        state.first_convoy[q] = NONE
        state.dislodged_by[q] = NONE
        state.contested[q] = 0
        if state.unit_kind[q] != NO_UNIT:
            state.standing[units] = q
            units += 1
            state.fate[q] = 0
            state.blocked[q] = 0
            state.convoyed[q] = 0
            state.head_on[q] = NONE
            state.path[q] = YES
            state.verdict[q] = OPEN
            if state.order_kind[q] == MOVE:
                state.goal[q] = params.province_of[state.order_target[q]]
    for i in range(units):
        p = np.int64(state.standing[i])
        kind = state.order_kind[p]
        if kind == MOVE:
            state.next_mover[p] = state.first_mover[state.goal[p]]
            state.first_mover[state.goal[p]] = p
        elif kind == CONVOY:
            army = state.order_other[p]
            if state.unit_kind[army] == ARMY and state.goal[army] == params.province_of[state.order_target[p]]:
                state.next_convoy[p] = state.first_convoy[army]
                state.first_convoy[army] = p
            else:
                state.fate[p] = VOID
                state.verdict[p] = YES
        elif kind == SUPPORT or kind == SUPPORT_MOVE:
            other = state.order_other[p]
            helped = state.unit_kind[other] != NO_UNIT
            if kind == SUPPORT:
                helped = helped and state.goal[other] == NONE
            else:
                place = state.order_target[p]
                helped = helped and state.goal[other] == params.province_of[place]
                if place >= params.provinces and (params.coasts_match != 0 or state.unit_kind[p] == ARMY):
                    helped = helped and state.order_target[other] == place  # the support names a coast
            if helped:
                state.next_support[p] = state.first_support[other]
                state.first_support[other] = p
            else:
                state.fate[p] = VOID
                state.verdict[p] = YES
        else:
            state.verdict[p] = YES
    for i in range(units):
        p = np.int64(state.standing[i])
        if state.goal[p] != NONE and state.unit_kind[p] == ARMY:
            _choose_route(state, params, p)
            if state.convoyed[p] != 0 and not route(state, params, p, False):
                state.blocked[p] = NO_ROUTE
    for i in range(units):
        p = np.int64(state.standing[i])
        goal = np.int64(state.goal[p])
        if goal != NONE and state.unit_kind[goal] != NO_UNIT and state.goal[goal] == p:
            if state.convoyed[p] == 0 and state.convoyed[goal] == 0:
                state.head_on[p] = goal
        if state.order_kind[p] == CONVOY and state.verdict[p] == OPEN and state.convoyed[state.order_other[p]] == 0:
            state.fate[p] = NO_CONVOY | VOID  # the army goes by land
            state.verdict[p] = YES
    return units


@rule(inline=False)
def _choose_route(state: Any, params: Any, p: Any) -> None:
    """Whether an army goes by land or sea: to a neighbour by sea if asked for or if an own fleet orders the convoy.

    Rules of 2000. With ``land_fallback`` (DATC 2.4, 6.G.8) an army for which no convoy was ordered goes by land;
    without it (DATC 3.0) it does not move. An army whose ordered convoy is broken never goes by land (6.G.11, 6.G.20).
    """
    if params.reach[p, state.goal[p]] == 0:
        state.convoyed[p] = 1
        return
    asked = state.order_via[p] != 0
    intent = asked
    fleet = state.first_convoy[p]
    while fleet != NONE:
        if state.unit_power[fleet] == state.unit_power[p]:
            intent = True
        fleet = state.next_convoy[fleet]
    if intent and (route(state, params, p, False) or (asked and params.land_fallback == 0)):
        state.convoyed[p] = 1


@rule(inline=False)
def _sweep(state: Any, params: Any, units: Any) -> Any:
    """Make every decision that the bounds allow, until none changes; return how many are open."""
    changed = True
    remaining = 0
    while changed:
        changed = False
        remaining = 0
        for i in range(units):
            p = np.int64(state.standing[i])
            if state.convoyed[p] != 0:
                update_path(state, params, p)
        for i in range(units):
            p = np.int64(state.standing[i])
            if state.verdict[p] == OPEN:
                verdict = decide(state, p)
                state.verdict[p] = verdict
                if verdict == OPEN:
                    remaining += 1
                else:
                    changed = True
        if remaining == 0:
            changed = False
    for i in range(units):
        p = np.int64(state.standing[i])
        if state.convoyed[p] != 0:
            update_path(state, params, p)
    return remaining


@rule(inline=False)
def _write_fates(state: Any, units: Any) -> None:
    """Write each order's fate, and which unit dislodges which."""
    for i in range(units):
        p = np.int64(state.standing[i])
        goal = np.int64(state.goal[p])
        if goal != NONE and state.verdict[p] == YES and state.unit_kind[goal] != NO_UNIT:
            if state.goal[goal] == NONE or state.verdict[goal] == NO:
                state.dislodged_by[goal] = p
    for i in range(units):
        p = np.int64(state.standing[i])
        kind = state.order_kind[p]
        if kind == MOVE:
            if state.verdict[p] == NO:
                state.fate[p] |= NO_CONVOY if state.path[p] == NO else BOUNCE
        elif kind == CONVOY:
            _write_convoy(state, p)
        elif kind == SUPPORT or kind == SUPPORT_MOVE:
            _write_support(state, p)
        if state.dislodged_by[p] != NONE:
            state.fate[p] |= DISLODGED


@rule(inline=False)
def _write_convoy(state: Any, p: Any) -> None:
    army = state.order_other[p]
    if state.fate[p] == 0 and state.dislodged_by[p] == NONE and state.path[army] == NO:
        if state.blocked[army] == PARADOX:
            state.fate[p] = DISRUPTED
        elif state.blocked[army] == NO_ROUTE:
            state.fate[p] = NO_CONVOY | VOID
        else:
            state.fate[p] = NO_CONVOY


@rule(inline=False)
def _write_support(state: Any, p: Any) -> None:
    if state.fate[p] != 0:
        return
    other = np.int64(state.order_other[p])
    goal = np.int64(state.goal[other])
    if goal != NONE and state.path[other] == NO:  # the support has no effect, attacked or not
        state.fate[p] = NO_CONVOY if state.blocked[other] == PARADOX else VOID
    elif state.verdict[p] == NO:
        state.fate[p] = CUT
    elif goal != NONE and state.unit_kind[goal] != NO_UNIT and state.unit_power[goal] == state.unit_power[p]:
        stays = state.goal[goal] == NONE or state.verdict[goal] == NO
        if stays and _would_win(state, other):
            state.fate[p] = VOID  # only with this support, against a unit of its own power, would the move succeed


@rule(inline=False)
def _would_win(state: Any, p: Any) -> Any:
    """Whether a move would beat a unit that stays, and all rivals, if every given support counted."""
    goal = np.int64(state.goal[p])
    strength = 1 + supports(state, p, NONE, True)
    resist = 1
    if state.head_on[p] != NONE or state.goal[goal] == NONE:
        resist += supports(state, goal, NONE, True)
    rival = np.int64(state.first_mover[goal])
    while rival != NONE:
        if rival != p and state.path[rival] == YES:
            resist = max(resist, 1 + supports(state, rival, NONE, True))
        rival = np.int64(state.next_mover[rival])
    return strength > resist
