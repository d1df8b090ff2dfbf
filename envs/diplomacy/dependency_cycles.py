"""Cycles of orders that depend on each other: finding them, searching for consistent answers, and the backup rule.

Used by :mod:`~mlbits.envs.diplomacy.adjudicator`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlbits.envs.core.rules import rule
from mlbits.envs.diplomacy.codes import CONVOY, MOVE, SUPPORT_MOVE
from mlbits.envs.diplomacy.decisions import NO, OPEN, PARADOX, YES, decide, update_path


@rule(inline=False)
def _reads(state: Any, i: Any, j: Any) -> Any:
    """Whether the decision on ``i`` reads the open decision on ``j``."""
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
    """Write into ``queue`` every open decision that ``start`` depends on, itself included; return how many."""
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
def find_cycle(state: Any, units: Any) -> Any:
    """Write a sink component of the open decisions into ``cycle``; return its size.

    The open decision with the fewest dependencies lies in one, and its dependencies are the whole component.
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
        state.cycle[i] = state.queue[i]
    return size


@rule(inline=False)
def search(state: Any, params: Any, size: Any) -> Any:
    """Count consistent answers for the cycle, up to two; the first is kept in ``answer``."""
    found, known = 0, 0
    while True:
        clash = _entail(state, params, size, known)
        known = 0
        for i in range(size):
            if state.verdict[state.cycle[i]] != OPEN:
                known += 1
        if not clash and known == size:
            found += 1
            if found == 1:
                for i in range(size):
                    state.answer[i] = state.verdict[state.cycle[i]]
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
                p = np.int64(state.cycle[i])
                if state.verdict[p] == OPEN:
                    state.verdict[p] = YES
                    state.trail[known] = p
                    state.guessed[known] = 1
                    known += 1
                    break
    for i in range(size):
        state.verdict[state.cycle[i]] = OPEN
    _update_paths(state, params, size)
    return found


@rule(inline=False)
def _update_paths(state: Any, params: Any, size: Any) -> None:
    """Update the paths of the armies that the cycle's fleets convoy."""
    for i in range(size):
        p = np.int64(state.cycle[i])
        if state.order_kind[p] == CONVOY and state.convoyed[state.order_other[p]] != 0:
            update_path(state, params, np.int64(state.order_other[p]))


@rule(inline=False)
def _entail(state: Any, params: Any, size: Any, known: Any) -> Any:
    """Derive what follows from the cycle's answers so far, extending the trail; return whether they contradict."""
    changed = True
    while changed:
        changed = False
        _update_paths(state, params, size)
        for i in range(size):
            p = np.int64(state.cycle[i])
            verdict = decide(state, p)
            if verdict != OPEN:
                if state.verdict[p] == OPEN:
                    state.verdict[p] = verdict
                    state.trail[known] = p
                    state.guessed[known] = 0
                    known += 1
                    changed = True
                elif state.verdict[p] != verdict:
                    # The trail keeps its later entries; the caller counts them and backtracks.
                    return True
    return False


@rule(inline=False)
def apply_backup_rule(state: Any, size: Any) -> None:
    """The backup rule: Szykman's if convoys are part of the cycle; otherwise a circular movement succeeds."""
    fleets = False
    for i in range(size):
        p = np.int64(state.cycle[i])
        if state.order_kind[p] == CONVOY:
            fleets = True
            state.blocked[state.order_other[p]] = PARADOX
            state.path[state.order_other[p]] = NO
    if not fleets:
        for i in range(size):
            if state.order_kind[state.cycle[i]] == MOVE:
                state.verdict[state.cycle[i]] = YES
