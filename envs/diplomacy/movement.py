"""The adjudicator of movement phases: moves, supports, cuts, convoys, dislodgement, by decisions that are bounded.

After L. B. Kruijf, "The Math of Adjudication" (2009) and chapter 5 of his Diplomacy Adjudicator Test Cases (DATC 2.4).
Each order that can fail is one decision: does the move succeed, is the support given, does the convoying fleet stay? A
decision is a function of other decisions (:func:`decide`). Where some of those are not made yet, strengths are bounded
from below and above, and the decision is made as soon as the bounds allow one answer only. Sweeps over the open
decisions go on until none changes.

What is left open then are cycles. The decisions that depend on each other in a ring and on nothing else that is open
(a component of the dependency graph without a way out, :func:`_find_core`) are searched for answers that agree with
all of themselves (:func:`_search`): guess one, follow what it entails, step back from contradictions. If exactly one
set of answers agrees, it is taken. Otherwise the backup rule decides: where fleets are part of the ring, the armies
whose convoys hang on it do not move and touch nothing (Szykman's rule); without fleets the ring is a circular movement
and its moves succeed.

Why this ends: a sweep that goes on, an answer that is taken and a backup rule each close at least one decision and
nothing is opened again; a search walks a finite tree. Why the result is unique: bounds only ever tighten, so the order
of the sweeps does not matter; components without a way out are disjoint, do not read each other, and are determined by
the position, and so is the set of answers that agree. No step looks at the order in which orders were written.

Everything works on the fields of one record, by province: the unit that stands in province ``p`` has its order in
``order_kind[p]`` and so on. Orders are legal ones (:mod:`mlbits.envs.diplomacy.legality`).
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

OPEN, YES, NO = 0, 1, 2  # a decision
PARADOX, NO_ROUTE = 1, 2  # why an army is sealed
NOBODY = -1


def scratch_fields(provinces: int) -> list[tuple[Any, ...]]:
    """Working memory of the adjudicator in a copy's state, by province; it holds nothing between two steps."""
    shape = (provinces,)
    return [
        ("standing", "i2", shape),  # provinces with a unit, one after another
        ("goal", "i2", shape),  # province that the unit moves to, or -1
        ("verdict", "u1", shape),
        ("path", "u1", shape),  # for moves: whether the army's convoy holds; YES by land
        ("convoyed", "u1", shape),
        ("sealed", "u1", shape),  # PARADOX (stopped by Szykman's rule) or NO_ROUTE (no convoy was ordered)
        ("head_on", "i2", shape),  # where the unit stands that comes the opposite way, or -1
        ("first_mover", "i2", shape),
        ("next_mover", "i2", shape),
        ("first_support", "i2", shape),
        ("next_support", "i2", shape),
        ("first_convoy", "i2", shape),
        ("next_convoy", "i2", shape),
        ("mark", "u1", shape),
        ("queue", "i2", shape),
        ("core", "i2", shape),
        ("trail", "i2", shape),
        ("guessed", "u1", shape),
        ("answer", "u1", shape),
        ("beaten_from", "i2", shape),  # province of the unit that dislodges this one, or -1
        ("contested", "u1", shape),
        ("new_power", "i1", shape),
        ("new_kind", "u1", shape),
        ("new_place", "i2", shape),
    ]


@rule(inline=False)
def resolve_moves(state: Any, params: Any) -> None:
    """Decide every order of a movement phase; writes ``verdict``, ``path``, ``fate`` and ``beaten_from``."""
    units = _prepare(state, params)
    remaining = _sweep(state, params, units)
    while remaining > 0:
        size = _find_core(state, units)
        if _search(state, params, size) == 1:
            for i in range(size):
                state.verdict[state.core[i]] = state.answer[i]
        else:
            _break_tie(state, size)
        remaining = _sweep(state, params, units)
    _tell_fates(state, units)


@rule(inline=False)
def _prepare(state: Any, params: Any) -> Any:
    """Link movers to targets, supports and convoys to what they help; returns the number of units."""
    units = 0
    for q in range(params.provinces):
        state.goal[q] = NOBODY
        state.first_mover[q] = NOBODY
        state.first_support[q] = NOBODY
        state.first_convoy[q] = NOBODY
        state.beaten_from[q] = NOBODY
        state.contested[q] = 0
        if state.unit_kind[q] != NO_UNIT:
            state.standing[units] = q
            units += 1
            state.fate[q] = 0
            state.sealed[q] = 0
            state.convoyed[q] = 0
            state.head_on[q] = NOBODY
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
                helped = helped and state.goal[other] == NOBODY
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
        if state.goal[p] != NOBODY and state.unit_kind[p] == ARMY:
            _choose_way(state, params, p)
            if state.convoyed[p] != 0 and not _route(state, params, p, False):
                state.sealed[p] = NO_ROUTE
    for i in range(units):
        p = np.int64(state.standing[i])
        goal = np.int64(state.goal[p])
        if goal != NOBODY and state.unit_kind[goal] != NO_UNIT and state.goal[goal] == p:
            if state.convoyed[p] == 0 and state.convoyed[goal] == 0:
                state.head_on[p] = goal
        if state.order_kind[p] == CONVOY and state.verdict[p] == OPEN and state.convoyed[state.order_other[p]] == 0:
            state.fate[p] = NO_CONVOY | VOID  # the army goes by land
            state.verdict[p] = YES
    return units


@rule(inline=False)
def _choose_way(state: Any, params: Any, p: Any) -> None:
    """By land or by sea: to a neighbour by sea if it is asked for, or if a fleet of its own power orders the convoy.

    Rules of 2000. With ``land_fallback`` (DATC 2.4, 6.G.8) an army for which no convoy was ordered goes by land;
    without it (DATC 3.0) it does not move. A convoy that was ordered and is broken never falls back (6.G.11, 6.G.20).
    """
    if params.reach[p, state.goal[p]] == 0:
        state.convoyed[p] = 1
        return
    asked = state.order_via[p] != 0
    intent = asked
    fleet = state.first_convoy[p]
    while fleet != NOBODY:
        if state.unit_power[fleet] == state.unit_power[p]:
            intent = True
        fleet = state.next_convoy[fleet]
    if intent and (_route(state, params, p, False) or (asked and params.land_fallback == 0)):
        state.convoyed[p] = 1


@rule(inline=False)
def _route(state: Any, params: Any, army: Any, sure: Any) -> Any:
    """Whether the fleets that convoy an army make a way, counting those that stay, or those that may."""
    head, tail = 0, 0
    reached = False
    goal = np.int64(state.goal[army])
    fleet = state.first_convoy[army]
    while fleet != NOBODY:
        state.mark[fleet] = 0
        fleet = state.next_convoy[fleet]
    fleet = state.first_convoy[army]
    while fleet != NOBODY:
        verdict = state.verdict[fleet]
        if params.coastal[fleet, army] and (verdict == YES or (verdict == OPEN and not sure)):
            state.mark[fleet] = 1
            state.queue[tail] = fleet
            tail += 1
        fleet = state.next_convoy[fleet]
    while head < tail and not reached:
        here = np.int64(state.queue[head])
        head += 1
        reached = params.coastal[here, goal] != 0
        fleet = state.first_convoy[army]
        while fleet != NOBODY:
            verdict = state.verdict[fleet]
            if state.mark[fleet] == 0 and params.coastal[here, fleet]:
                if verdict == YES or (verdict == OPEN and not sure):
                    state.mark[fleet] = 1
                    state.queue[tail] = fleet
                    tail += 1
            fleet = state.next_convoy[fleet]
    return reached


@rule(inline=False)
def _look_for_path(state: Any, params: Any, p: Any) -> None:
    """Write ``path`` of a convoyed army from what is decided about its fleets."""
    if state.sealed[p] != 0 or not _route(state, params, p, False):
        state.path[p] = NO
    elif _route(state, params, p, True):
        state.path[p] = YES
    else:
        state.path[p] = OPEN


@rule(inline=False)
def _sweep(state: Any, params: Any, units: Any) -> Any:
    """Make every decision that the bounds allow, until none changes; returns how many are open."""
    changed = True
    remaining = 0
    while changed:
        changed = False
        remaining = 0
        for i in range(units):
            p = np.int64(state.standing[i])
            if state.convoyed[p] != 0:
                _look_for_path(state, params, p)
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
            _look_for_path(state, params, p)
    return remaining


@rule(inline=False)
def _supports(state: Any, p: Any, without: Any, sure: Any) -> Any:
    """Supports of the order of ``p`` from units of other powers than ``without`` that are given, or may be."""
    count = 0
    s = state.first_support[p]
    while s != NOBODY:
        verdict = state.verdict[s]
        if (verdict == YES or (verdict == OPEN and not sure)) and state.unit_power[s] != without:
            count += 1
        s = state.next_support[s]
    return count


@rule(inline=False)
def decide(state: Any, p: Any) -> Any:
    """What follows for one order from all that is decided so far: OPEN, YES or NO."""
    kind = state.order_kind[p]
    if kind == MOVE:
        return _decide_move(state, p)
    if kind == CONVOY:
        return _decide_convoy(state, p)
    return _decide_support(state, p)


@rule(inline=False)
def _decide_move(state: Any, p: Any) -> Any:
    if state.path[p] == NO:
        return NO
    goal = np.int64(state.goal[p])
    low, high = 1, 1
    resist_low, resist_high = 0, 0
    if state.unit_kind[goal] == NO_UNIT:
        low += _supports(state, p, NOBODY, True)
        high += _supports(state, p, NOBODY, False)
    else:
        there = np.int64(state.unit_power[goal])
        own = there == state.unit_power[p]
        leaves = NO
        if state.head_on[p] != NOBODY or state.goal[goal] == NOBODY:
            resist_low = 1 + _supports(state, goal, NOBODY, True)
            resist_high = 1 + _supports(state, goal, NOBODY, False)
        else:
            leaves = state.verdict[goal]
            resist_low = 1 if leaves == NO else 0
            resist_high = 0 if leaves == YES else 1
        # Against a unit that stays: no attack on one's own, and no help from its own power.
        if leaves == YES:
            low += _supports(state, p, NOBODY, True)
        else:
            low = 0 if own else 1 + _supports(state, p, there, True)
        if leaves == NO:
            high = 0 if own else 1 + _supports(state, p, there, False)
        else:
            high += _supports(state, p, NOBODY, False)
    if high <= resist_low:
        return NO
    sure = state.path[p] == YES and low > resist_high
    other = np.int64(state.first_mover[goal])
    while other != NOBODY:
        if other != p and state.path[other] != NO:
            beaten = OPEN  # whether the unit that it meets head on gets past it: then it prevents nothing
            if state.head_on[other] != NOBODY:
                beaten = state.verdict[goal]
            else:
                beaten = NO
            if beaten != YES:
                if beaten == NO and state.path[other] == YES:
                    if high <= 1 + _supports(state, other, NOBODY, True):
                        return NO
                if sure and low <= 1 + _supports(state, other, NOBODY, False):
                    sure = False
        other = np.int64(state.next_mover[other])
    return YES if sure else OPEN


@rule(inline=False)
def _decide_support(state: Any, p: Any) -> Any:
    against = NOBODY  # the province that the support is directed into: an attack from there cuts only by dislodging
    if state.order_kind[p] == SUPPORT_MOVE:
        against = state.goal[state.order_other[p]]
    doubt = False
    k = state.first_mover[p]
    while k != NOBODY:
        if state.unit_power[k] != state.unit_power[p]:
            attacked = state.verdict[k] if k == against else state.path[k]
            if attacked == YES:
                return NO
            if attacked == OPEN:
                doubt = True
        k = state.next_mover[k]
    return OPEN if doubt else YES


@rule(inline=False)
def _decide_convoy(state: Any, p: Any) -> Any:
    doubt = False
    k = state.first_mover[p]
    while k != NOBODY:
        if state.verdict[k] == YES:
            return NO
        if state.verdict[k] == OPEN:
            doubt = True
        k = state.next_mover[k]
    return OPEN if doubt else YES


@rule(inline=False)
def _reads(state: Any, i: Any, j: Any) -> Any:
    """Whether the decision on ``i`` looks at the open decision on ``j``."""
    kind, other_kind = state.order_kind[i], state.order_kind[j]
    helped = state.order_other[j] if other_kind != MOVE else i
    goal = state.goal[i] if kind == MOVE else i
    if other_kind == MOVE:
        if kind == MOVE:
            return j == goal
        if state.goal[j] != i:
            return False
        return kind == CONVOY or (kind == SUPPORT_MOVE and j == state.goal[state.order_other[i]])
    if other_kind == CONVOY:
        waits = state.path[helped] == OPEN and state.convoyed[helped] != 0
        return waits and kind != CONVOY and (helped == i or state.goal[helped] == goal)
    return kind == MOVE and (helped == i or helped == goal or state.goal[helped] == goal)


@rule(inline=False)
def _spread(state: Any, units: Any, start: Any) -> Any:
    """Collect in ``queue`` every open decision that ``start`` depends on, itself included; returns how many."""
    for i in range(units):
        state.mark[state.standing[i]] = 0
    state.mark[start] = 1
    state.queue[0] = start
    head, tail = 0, 1
    while head < tail:
        here = np.int64(state.queue[head])
        head += 1
        for i in range(units):
            p = np.int64(state.standing[i])
            if state.verdict[p] == OPEN and state.mark[p] == 0 and _reads(state, here, p):
                state.mark[p] = 1
                state.queue[tail] = p
                tail += 1
    return tail


@rule(inline=False)
def _find_core(state: Any, units: Any) -> Any:
    """Write a component of open decisions without a way out into ``core``; returns its size.

    The open decision that depends on the fewest lies in one, and what it depends on is all of it.
    """
    smallest, best = units + 1, np.int64(0)
    for i in range(units):
        p = np.int64(state.standing[i])
        if state.verdict[p] == OPEN:
            size = _spread(state, units, p)
            if size < smallest:
                smallest, best = size, p
    size = _spread(state, units, best)
    for i in range(size):
        state.core[i] = state.queue[i]
    return size


@rule(inline=False)
def _search(state: Any, params: Any, size: Any) -> Any:
    """Count answers for the core that agree with themselves, up to two; the first is kept in ``answer``."""
    found, known = 0, 0
    while True:
        clash = _entail(state, params, size, known)
        known = 0
        for i in range(size):
            if state.verdict[state.core[i]] != OPEN:
                known += 1
        if not clash and known == size:
            found += 1
            if found == 1:
                for i in range(size):
                    state.answer[i] = state.verdict[state.core[i]]
        if clash or known == size:
            if found == 2:
                break
            while known > 0 and state.guessed[known - 1] != 1:
                known -= 1
                state.verdict[state.trail[known]] = OPEN
            if known == 0:
                break
            state.verdict[state.trail[known - 1]] = NO
            state.guessed[known - 1] = 2
        else:
            for i in range(size):
                p = np.int64(state.core[i])
                if state.verdict[p] == OPEN:
                    state.verdict[p] = YES
                    state.trail[known] = p
                    state.guessed[known] = 1
                    known += 1
                    break
    for i in range(size):
        state.verdict[state.core[i]] = OPEN
    _look_for_paths(state, params, size)
    return found


@rule(inline=False)
def _look_for_paths(state: Any, params: Any, size: Any) -> None:
    """Look again at the armies that the core's fleets convoy."""
    for i in range(size):
        p = np.int64(state.core[i])
        if state.order_kind[p] == CONVOY and state.convoyed[state.order_other[p]] != 0:
            _look_for_path(state, params, np.int64(state.order_other[p]))


@rule(inline=False)
def _entail(state: Any, params: Any, size: Any, known: Any) -> Any:
    """Follow what the core's answers so far entail, noting them on the trail; returns whether they contradict."""
    changed = True
    while changed:
        changed = False
        _look_for_paths(state, params, size)
        for i in range(size):
            p = np.int64(state.core[i])
            verdict = decide(state, p)
            if verdict != OPEN:
                if state.verdict[p] == OPEN:
                    state.verdict[p] = verdict
                    state.trail[known] = p
                    state.guessed[known] = 0
                    known += 1
                    changed = True
                elif state.verdict[p] != verdict:
                    # Later entries of the trail stand; the caller counts them and steps back.
                    return True
    return False


@rule(inline=False)
def _break_tie(state: Any, size: Any) -> None:
    """The backup rule: Szykman's where convoys are part of the ring, else a circular movement goes round."""
    fleets = False
    for i in range(size):
        p = np.int64(state.core[i])
        if state.order_kind[p] == CONVOY:
            fleets = True
            state.sealed[state.order_other[p]] = PARADOX
            state.path[state.order_other[p]] = NO
    if not fleets:
        for i in range(size):
            if state.order_kind[state.core[i]] == MOVE:
                state.verdict[state.core[i]] = YES


@rule(inline=False)
def _tell_fates(state: Any, units: Any) -> None:
    """Write each order's fate, and who dislodges whom."""
    for i in range(units):
        p = np.int64(state.standing[i])
        goal = np.int64(state.goal[p])
        if goal != NOBODY and state.verdict[p] == YES and state.unit_kind[goal] != NO_UNIT:
            if state.goal[goal] == NOBODY or state.verdict[goal] == NO:
                state.beaten_from[goal] = p
    for i in range(units):
        p = np.int64(state.standing[i])
        kind = state.order_kind[p]
        if kind == MOVE:
            if state.verdict[p] == NO:
                state.fate[p] |= NO_CONVOY if state.path[p] == NO else BOUNCE
        elif kind == CONVOY:
            _tell_convoy(state, p)
        elif kind == SUPPORT or kind == SUPPORT_MOVE:
            _tell_support(state, p)
        if state.beaten_from[p] != NOBODY:
            state.fate[p] |= DISLODGED


@rule(inline=False)
def _tell_convoy(state: Any, p: Any) -> None:
    army = state.order_other[p]
    if state.fate[p] == 0 and state.beaten_from[p] == NOBODY and state.path[army] == NO:
        if state.sealed[army] == PARADOX:
            state.fate[p] = DISRUPTED
        elif state.sealed[army] == NO_ROUTE:
            state.fate[p] = NO_CONVOY | VOID
        else:
            state.fate[p] = NO_CONVOY


@rule(inline=False)
def _tell_support(state: Any, p: Any) -> None:
    if state.fate[p] != 0:
        return
    other = np.int64(state.order_other[p])
    goal = np.int64(state.goal[other])
    if goal != NOBODY and state.path[other] == NO:  # it helps nothing, attacked or not
        state.fate[p] = NO_CONVOY if state.sealed[other] == PARADOX else VOID
    elif state.verdict[p] == NO:
        state.fate[p] = CUT
    elif goal != NOBODY and state.unit_kind[goal] != NO_UNIT and state.unit_power[goal] == state.unit_power[p]:
        stays = state.goal[goal] == NOBODY or state.verdict[goal] == NO
        if stays and _would_win(state, other):
            state.fate[p] = VOID  # help against one's own unit, which would have been enough


@rule(inline=False)
def _would_win(state: Any, p: Any) -> Any:
    """Whether a move would beat a unit that stays, and all rivals, if every support counted."""
    goal = np.int64(state.goal[p])
    strength = 1 + _supports(state, p, NOBODY, True)
    resist = 1
    if state.head_on[p] != NOBODY or state.goal[goal] == NOBODY:
        resist += _supports(state, goal, NOBODY, True)
    rival = np.int64(state.first_mover[goal])
    while rival != NOBODY:
        if rival != p and state.path[rival] == YES:
            resist = max(resist, 1 + _supports(state, rival, NOBODY, True))
        rival = np.int64(state.next_mover[rival])
    return strength > resist
