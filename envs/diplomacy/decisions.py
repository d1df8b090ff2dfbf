"""Decides a single order from what is decided about others, by bounds on strengths.

Used by :mod:`~mlbits.envs.diplomacy.adjudicator`. Strengths are DATC's (chapter 5.B): attack, hold, prevent, and
defence against a unit that moves in the opposite direction.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlbits.envs.core.rules import rule
from mlbits.envs.diplomacy.codes import CONVOY, MOVE, NO_UNIT, SUPPORT_MOVE

OPEN, YES, NO = 0, 1, 2  # values of a decision
PARADOX, NO_ROUTE = 1, 2  # why an army's convoy is blocked
NONE = -1


def scratch_fields(provinces: int) -> list[tuple[Any, ...]]:
    """Working memory of the adjudicator in a copy's state, by province; it holds nothing between steps."""
    shape = (provinces,)
    return [
        ("standing", "i2", shape),  # provinces with a unit, in order
        ("goal", "i2", shape),  # province that the unit moves to, or -1
        ("verdict", "u1", shape),
        ("path", "u1", shape),  # for moves: whether the army's convoy is intact; YES by land
        ("convoyed", "u1", shape),
        ("blocked", "u1", shape),  # PARADOX (stopped by Szykman's rule) or NO_ROUTE (no convoy was ordered)
        ("head_on", "i2", shape),  # province of the unit that moves in the opposite direction, or -1
        ("first_mover", "i2", shape),
        ("next_mover", "i2", shape),
        ("first_support", "i2", shape),
        ("next_support", "i2", shape),
        ("first_convoy", "i2", shape),
        ("next_convoy", "i2", shape),
        ("mark", "u1", shape),
        ("queue", "i2", shape),
        ("cycle", "i2", shape),
        ("trail", "i2", shape),
        ("guessed", "u1", shape),
        ("answer", "u1", shape),
        ("dislodged_by", "i2", shape),  # province of the unit that dislodges this one, or -1
        ("contested", "u1", shape),
        ("new_power", "i1", shape),
        ("new_kind", "u1", shape),
        ("new_place", "i2", shape),
    ]


@rule(inline=False)
def route(state: Any, params: Any, army: Any, sure: Any) -> Any:
    """Whether the fleets that convoy an army form a route: those that surely stay, or else all that may stay."""
    head, tail = 0, 0
    reached = False
    goal = np.int64(state.goal[army])
    fleet = state.first_convoy[army]
    while fleet != NONE:
        state.mark[fleet] = 0
        fleet = state.next_convoy[fleet]
    fleet = state.first_convoy[army]
    while fleet != NONE:
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
        while fleet != NONE:
            verdict = state.verdict[fleet]
            if state.mark[fleet] == 0 and params.coastal[here, fleet]:
                if verdict == YES or (verdict == OPEN and not sure):
                    state.mark[fleet] = 1
                    state.queue[tail] = fleet
                    tail += 1
            fleet = state.next_convoy[fleet]
    return reached


@rule(inline=False)
def update_path(state: Any, params: Any, p: Any) -> None:
    """Write ``path`` of a convoyed army from the decisions on its fleets."""
    if state.blocked[p] != 0 or not route(state, params, p, False):
        state.path[p] = NO
    elif route(state, params, p, True):
        state.path[p] = YES
    else:
        state.path[p] = OPEN


@rule(inline=False)
def supports(state: Any, p: Any, without: Any, sure: Any) -> Any:
    """Count supports for ``p`` by powers other than ``without``: those surely given, or else all that may be."""
    count = 0
    s = state.first_support[p]
    while s != NONE:
        verdict = state.verdict[s]
        if (verdict == YES or (verdict == OPEN and not sure)) and state.unit_power[s] != without:
            count += 1
        s = state.next_support[s]
    return count


@rule(inline=False)
def decide(state: Any, p: Any) -> Any:
    """Decide one order from all that is decided so far: OPEN, YES or NO."""
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
        low += supports(state, p, NONE, True)
        high += supports(state, p, NONE, False)
    else:
        there = np.int64(state.unit_power[goal])
        own = there == state.unit_power[p]
        leaves = NO
        if state.head_on[p] != NONE or state.goal[goal] == NONE:
            resist_low = 1 + supports(state, goal, NONE, True)
            resist_high = 1 + supports(state, goal, NONE, False)
        else:
            leaves = state.verdict[goal]
            resist_low = 1 if leaves == NO else 0
            resist_high = 0 if leaves == YES else 1
        # Against a unit that stays: no attack on an own unit, and no support by that unit's power.
        if leaves == YES:
            low += supports(state, p, NONE, True)
        else:
            low = 0 if own else 1 + supports(state, p, there, True)
        if leaves == NO:
            high = 0 if own else 1 + supports(state, p, there, False)
        else:
            high += supports(state, p, NONE, False)
    if high <= resist_low:
        return NO
    sure = state.path[p] == YES and low > resist_high
    other = np.int64(state.first_mover[goal])
    while other != NONE:
        if other != p and state.path[other] != NO:
            beaten = OPEN  # whether the unit that it meets head on dislodges it: then it prevents nothing
            if state.head_on[other] != NONE:
                beaten = state.verdict[goal]
            else:
                beaten = NO
            if beaten != YES:
                if beaten == NO and state.path[other] == YES:
                    if high <= 1 + supports(state, other, NONE, True):
                        return NO
                if sure and low <= 1 + supports(state, other, NONE, False):
                    sure = False
        other = np.int64(state.next_mover[other])
    return YES if sure else OPEN


@rule(inline=False)
def _decide_support(state: Any, p: Any) -> Any:
    against = NONE  # the province into which the support is directed: an attack from there only cuts by dislodging
    if state.order_kind[p] == SUPPORT_MOVE:
        against = state.goal[state.order_other[p]]
    doubt = False
    k = state.first_mover[p]
    while k != NONE:
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
    while k != NONE:
        if state.verdict[k] == YES:
            return NO
        if state.verdict[k] == OPEN:
            doubt = True
        k = state.next_mover[k]
    return OPEN if doubt else YES
