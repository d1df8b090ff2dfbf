"""Legal orders, compiled: the same rules as :mod:`~mlbits.envs.diplomacy.order_reasons`, for masks and random play.

``list_moves`` and the other list functions write the legal choices of one unit into ``state.choices`` as indices into
its list of the vocabulary; masks are made from these, and random play draws from them. Where it is not clear in advance
whether an order is legal, it is always written, and the count only grows if it is: a mispredicted branch costs more
than the write.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mlbits.envs.core.rules import rule
from mlbits.envs.diplomacy.codes import ARMY, COAST, FLEET, NO_UNIT
from mlbits.envs.diplomacy.decisions import NONE
from mlbits.envs.diplomacy.phase_resolution import neighbour_row
from mlbits.envs.diplomacy.vocabulary import Vocabulary

_ONE = np.uint64(1)


def legal_fields(vocabulary: Vocabulary) -> list[tuple[Any, ...]]:
    """Fields of a copy's state: the results of :func:`find_connections`, and working memory."""
    n = len(vocabulary.board.provinces)
    return [
        ("chain", "i2", (n,)),  # index of the connected group of fleets at sea, or -1
        ("touch", "u8", (n,)),  # bits: groups adjacent to the province
        ("touch_without", "u8", (n,)),
        ("chains", "i2"),
        ("landed", "i2", (n,)),  # provinces of armies that are adjacent to a fleet at sea
        ("landed_count", "i2"),
        ("shores", "i2", (n,)),  # coastal provinces adjacent to a fleet at sea
        ("shore_count", "i2"),
        ("entrants", "i2", (n, _most_near(vocabulary))),  # provinces of the units that can move here without a convoy
        ("entrant_count", "u1", (n,)),
        ("sea_entrants", "u1", (n, n)),  # provinces of the armies that can come here only by convoy
        ("sea_entrant_count", "u1", (n,)),
        ("flow_next", "i2", (n,)),
        ("flow_last", "i2", (n,)),
        ("seen_in", "u1", (n,)),
        ("seen_out", "u1", (n,)),
        ("cameout", "i2", (2 * n,)),
        ("agenda", "i2", (2 * n,)),
        ("choices", "i2", (vocabulary.width + 1,)),  # one extra: illegal choices are overwritten
    ]


def vocabulary_fields(vocabulary: Vocabulary) -> list[tuple[Any, ...]]:
    """Fields of the parameters that hold the vocabulary."""
    n, entries = len(vocabulary.board.provinces), len(vocabulary.entries)
    rows, depth = vocabulary.reach_list.shape
    return [
        ("width", "i4"),
        ("list_start", "i4", (len(vocabulary.start),)),
        ("entry_kind", "u1", (entries,)),
        ("entry_other", "i2", (entries,)),
        ("entry_target", "i2", (entries,)),
        ("entry_via", "u1", (entries,)),
        ("reach_count", "u1", (rows,)),
        ("reach_list", "i2", (rows, depth)),
        ("hold_base", "i2", (rows,)),
        ("move_base", "i2", (rows, depth)),
        ("source_rank", "i2", vocabulary.source_rank.shape),
        ("source_count", "u1", (n, n)),
        ("via_index", "i2", (n, n)),
        ("convoy_index", "i2", vocabulary.convoy_index.shape),
        ("sea_number", "i2", (n,)),
        ("coast_start", "i2", (n,)),  # first named coast of a province, a location
        ("coast_count", "u1", (n,)),
        ("is_coast", "u1", (n,)),
    ]


def _most_near(vocabulary: Vocabulary) -> int:
    """The largest number of provinces from which units may enter one without a convoy."""
    locations = len(vocabulary.board.locations)
    near: list[set[int]] = [set() for _ in vocabulary.board.provinces]
    for row, reach in enumerate(vocabulary.reach_list):
        for z in reach[reach >= 0]:
            near[z].add(int(vocabulary.board.province_of[row % locations]))
    return max(1, *map(len, near))


def vocabulary_values(vocabulary: Vocabulary) -> Mapping[str, Any]:
    """Values of :func:`vocabulary_fields`."""
    board = vocabulary.board
    kind, other, target, via = vocabulary.entries.T
    return {
        "width": vocabulary.width,
        "list_start": vocabulary.start,
        "entry_kind": kind,
        "entry_other": other,
        "entry_target": target,
        "entry_via": via,
        "reach_count": (vocabulary.reach_list >= 0).sum(1),
        "reach_list": vocabulary.reach_list,
        "hold_base": vocabulary.hold_base,
        "move_base": vocabulary.move_base,
        "source_rank": vocabulary.source_rank,
        "source_count": vocabulary.source_count,
        "via_index": vocabulary.via_index,
        "convoy_index": vocabulary.convoy_index,
        "sea_number": vocabulary.sea_number,
        "coast_start": [coasts[0] if coasts else NONE for coasts in board.coasts_of],
        "coast_count": [len(coasts) for coasts in board.coasts_of],
        "is_coast": [province.type == COAST for province in board.provinces],
    }


@rule(inline=False)
def find_connections(state: Any, params: Any) -> None:
    """Group connected fleets at sea, and list which units can enter each province; called after units have moved."""
    for p in range(params.provinces):
        state.chain[p] = NONE
        state.touch[p] = 0
        state.entrant_count[p] = 0
        state.sea_entrant_count[p] = 0
    for p in range(params.provinces):
        if state.unit_kind[p] != NO_UNIT:
            row = neighbour_row(params, state.unit_kind[p], state.unit_place[p])
            for j in range(params.reach_count[row]):
                z = params.reach_list[row, j]
                state.entrants[z, state.entrant_count[z]] = p
                state.entrant_count[z] += 1
    groups = 0
    for p in range(params.provinces):
        if params.sea[p] != 0 and state.unit_kind[p] != NO_UNIT and state.chain[p] == NONE:
            _flood(state, params, p, groups, NONE)
            groups += 1
    state.chains = groups
    for p in range(params.provinces):
        if state.chain[p] != NONE:
            bit = _ONE << np.uint64(state.chain[p])
            for q in range(params.provinces):
                if params.coastal[p, q] != 0:
                    state.touch[q] |= bit
    landed, shores = 0, 0
    for p in range(params.provinces):
        if state.touch[p] != 0 and params.is_coast[p] != 0:
            state.shores[shores] = p
            shores += 1
            if state.unit_kind[p] == ARMY:
                state.landed[landed] = p
                landed += 1
    state.landed_count = landed
    state.shore_count = shores
    for k in range(shores if landed > 0 else 0):
        z = np.int64(state.shores[k])
        for i in range(landed):
            y = np.int64(state.landed[i])
            if y != z and state.touch[y] & state.touch[z] != 0 and params.reach[y, z] == 0:
                state.sea_entrants[z, state.sea_entrant_count[z]] = y
                state.sea_entrant_count[z] += 1


@rule(inline=False)
def _flood(state: Any, params: Any, start: Any, group: Any, without: Any) -> None:
    """Give every fleet that is connected to ``start`` the group's index."""
    state.chain[start] = group
    state.queue[0] = start
    head, tail = 0, 1
    while head < tail:
        here = np.int64(state.queue[head])
        head += 1
        row = params.locations + here
        for i in range(params.degree[row]):
            q = params.province_of[params.neighbour[row, i]]
            if params.sea[q] != 0 and state.unit_kind[q] != NO_UNIT and state.chain[q] == NONE and q != without:
                state.chain[q] = group
                state.queue[tail] = q
                tail += 1


@rule(inline=False)
def _touch_without(state: Any, params: Any, x: Any) -> None:
    """Write ``touch_without``: as ``touch``, but without the fleet ``x``, whose group may split."""
    group = np.int64(state.chain[x])
    bit = _ONE << np.uint64(group)
    for p in range(params.provinces):
        state.touch_without[p] = state.touch[p] & ~bit
    part = np.int64(state.chains)
    for p in range(params.provinces):
        if state.chain[p] == group:
            state.chain[p] = NONE
    for p in range(params.provinces):
        left = params.sea[p] != 0 and state.unit_kind[p] != NO_UNIT and state.chain[p] == NONE and p != x
        if left:
            _flood(state, params, p, part, x)
            part += 1
    for p in range(params.provinces):
        if state.chain[p] >= state.chains:
            bit = _ONE << np.uint64(state.chain[p])
            state.chain[p] = group
            for q in range(params.provinces):
                if params.coastal[p, q] != 0:
                    state.touch_without[q] |= bit
    state.chain[x] = group


@rule(inline=False)
def _adjacent_fleets(state: Any, params: Any, s: Any) -> Any:
    """Number of fleets at sea that are adjacent to the one in ``s``."""
    ways = 0
    row = params.locations + s
    for i in range(params.degree[row]):
        if state.chain[params.province_of[params.neighbour[row, i]]] != NONE:
            ways += 1
    return ways


@rule(inline=False)
def list_moves(state: Any, params: Any, p: Any) -> Any:
    """List legal choices of the unit in ``p`` in a movement phase; return their number."""
    kind, place = state.unit_kind[p], state.unit_place[p]
    row = neighbour_row(params, kind, place)
    count = 1 + params.degree[row]
    for i in range(count):
        state.choices[i] = i
    if kind == ARMY and state.touch[p] != 0:
        for i in range(state.shore_count):
            z = np.int64(state.shores[i])
            state.choices[count] = params.via_index[p, z]
            count += int((z != p) & (state.touch[z] & state.touch[p] != 0))
    at_sea = state.landed_count > 0 and kind == FLEET and params.sea[p] != 0
    joined, own_chain = False, np.uint64(0)  # whether its group has other fleets; the bit of its group
    if at_sea:
        own_chain = _ONE << np.uint64(state.chain[p])
        joined = _adjacent_fleets(state, params, p) > 0
        if joined:
            _touch_without(state, params, p)
    for j in range(params.reach_count[row]):
        z = np.int64(params.reach_list[row, j])
        if state.unit_kind[z] != NO_UNIT:
            state.choices[count] = params.hold_base[row] + j
            count += 1
        base = np.int64(params.move_base[row, j])
        own = np.int64(params.source_count[z, p])  # the unit's own moves are left out of its list
        coasts = params.coast_count[z] > 0
        for i in range(state.entrant_count[z]):
            y = np.int64(state.entrants[z, i])
            if y != p:
                past = own if y > p else 0
                state.choices[count] = base + params.source_rank[z, y, 0] - past
                count += 1
                if coasts and state.unit_kind[y] == FLEET:
                    count = _list_coasts(state, params, y, z, base - past, count)
        for i in range(state.sea_entrant_count[z]):
            y = np.int64(state.sea_entrants[z, i])
            if joined:
                open_way = state.touch_without[y] & state.touch_without[z] != 0
            else:
                open_way = state.touch[y] & state.touch[z] & ~own_chain != 0
            state.choices[count] = base + params.source_rank[z, y, 0] - (own if y > p else 0)
            count += int((y != p) & open_way)
    if at_sea:
        count = _list_convoys(state, params, p, count)
    return count


@rule(inline=False)
def _list_coasts(state: Any, params: Any, y: Any, z: Any, base: Any, count: Any) -> Any:
    """List choices that support a fleet's move and name the coast of ``z``."""
    row = neighbour_row(params, FLEET, state.unit_place[y])
    for i in range(params.degree[row]):
        place = params.neighbour[row, i]
        if params.province_of[place] == z:
            state.choices[count] = base + params.source_rank[z, y, 1 + place - params.coast_start[z]]
            count += 1
    return count


@rule(inline=False)
def _list_convoys(state: Any, params: Any, s: Any, count: Any) -> Any:
    """List convoys by the fleet at sea in ``s``."""
    bit = _ONE << np.uint64(state.chain[s])
    number = params.sea_number[s]
    ways = _adjacent_fleets(state, params, s)  # a route that only passes through s needs two
    shores = 0
    for k in range(state.shore_count):
        state.trail[shores] = state.shores[k]
        shores += int(state.touch[state.shores[k]] & bit != 0)
    for i in range(state.landed_count):
        y = np.int64(state.landed[i])
        if state.touch[y] & bit == 0:
            continue
        near = params.coastal[s, y] != 0
        for k in range(shores):
            z = np.int64(state.trail[k])
            possible = near | (params.coastal[s, z] != 0)
            if ways > 1 and not possible and z != y:
                possible = _passes(state, params, s, y, z)
            state.choices[count] = params.convoy_index[number, y, z]
            count += int(possible & (z != y))
    return count


@rule(inline=False)
def _passes(state: Any, params: Any, s: Any, y: Any, z: Any) -> Any:
    """Whether fleets form a path from y to z through ``s`` that visits no sea twice; ``s`` is adjacent to neither.

    There is one if two vertex-disjoint paths lead from ``s`` to y and to z: a flow of two. The first path is found
    by search, the second by a search that may also undo steps of the first (Menger; Ford and Fulkerson).
    """
    if not _first_path(state, params, s, y):
        return False
    for p in range(params.provinces):
        state.seen_in[p] = 0
        state.seen_out[p] = 0
    # The agenda holds 2 p for "entering p" and 2 p + 1 for "leaving p".
    state.agenda[0] = 2 * s + 1
    state.seen_out[s] = 1
    head, tail = 0, 1
    while head < tail:
        here, leaving = state.agenda[head] // 2, state.agenda[head] % 2
        head += 1
        used = state.flow_last[here] != NONE and here != s
        if leaving == 0:
            if not used:
                if state.seen_out[here] == 0:
                    state.seen_out[here] = 1
                    state.agenda[tail] = 2 * here + 1
                    tail += 1
            elif state.flow_last[here] != s and state.seen_out[state.flow_last[here]] == 0:
                state.seen_out[state.flow_last[here]] = 1
                state.agenda[tail] = 2 * state.flow_last[here] + 1
                tail += 1
            continue
        if params.coastal[here, z] != 0 and here != s:
            return True
        if used and state.seen_in[here] == 0:  # undo the passage
            state.seen_in[here] = 1
            state.agenda[tail] = 2 * here
            tail += 1
        if params.coastal[here, y] != 0 and state.seen_out[state.flow_last[y]] == 0:  # end the first path here instead
            state.seen_out[state.flow_last[y]] = 1
            state.agenda[tail] = 2 * state.flow_last[y] + 1
            tail += 1
        row = params.locations + here
        for i in range(params.degree[row]):
            q = params.province_of[params.neighbour[row, i]]
            fleet = params.sea[q] != 0 and state.unit_kind[q] != NO_UNIT and q != s
            if fleet and state.seen_in[q] == 0 and state.flow_next[here] != q:
                state.seen_in[q] = 1
                state.agenda[tail] = 2 * q
                tail += 1
    return False


@rule(inline=False)
def _first_path(state: Any, params: Any, s: Any, y: Any) -> Any:
    """Find a path of fleets from ``s`` to ``y``; write the successor and predecessor of each sea on it."""
    for p in range(params.provinces):
        state.flow_next[p] = NONE
        state.flow_last[p] = NONE
        state.cameout[p] = NONE
    state.agenda[0] = s
    state.cameout[s] = s
    head, tail = 0, 1
    while head < tail:
        here = state.agenda[head]
        head += 1
        if params.coastal[here, y] != 0:
            state.flow_last[y] = here
            while here != s:
                last = state.cameout[here]
                state.flow_next[last] = here
                state.flow_last[here] = last
                here = last
            return True
        row = params.locations + here
        for i in range(params.degree[row]):
            q = params.province_of[params.neighbour[row, i]]
            if params.sea[q] != 0 and state.unit_kind[q] != NO_UNIT and state.cameout[q] == NONE:
                state.cameout[q] = here
                state.agenda[tail] = q
                tail += 1
    return False


@rule(inline=False)
def list_retreats(state: Any, params: Any, p: Any) -> Any:
    """List legal choices of the unit that was dislodged from ``p``; return their number."""
    state.choices[0] = 0
    count = 1
    row = neighbour_row(params, state.out_kind[p], state.out_place[p])
    for i in range(params.degree[row]):
        if state.out_open[p] >> i & 1:
            state.choices[count] = 1 + i
            count += 1
    return count


@rule(inline=False)
def list_builds(state: Any, params: Any, power: Any) -> Any:
    """List legal choices for a build of a power; return their number."""
    start = params.list_start[4 * params.locations + power]
    end = params.list_start[4 * params.locations + power + 1]
    state.choices[0] = 0
    count = 1
    for i in range(1, end - start):
        p = params.province_of[params.entry_target[start + i]]
        if state.owner[p] == power and state.unit_kind[p] == NO_UNIT:
            state.choices[count] = i
            count += 1
    return count


@rule(inline=False)
def list_disbands(state: Any, params: Any, power: Any) -> Any:
    """List legal choices for a disband that a power owes; return their number."""
    count = 0
    for p in range(params.provinces):
        if state.unit_kind[p] != NO_UNIT and state.unit_power[p] == power:
            state.choices[count] = 1 + p
            count += 1
    return count
