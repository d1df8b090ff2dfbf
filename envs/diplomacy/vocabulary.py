"""A board's vocabulary of orders: every order that some position allows, numbered in lists.

A slot of an action chooses from one list, which depends on what the slot orders:

| list | entries |
|---|---|
| a unit in a movement phase: army or fleet, at a location | hold; moves; by convoy; supports; convoys |
| a dislodged unit: army or fleet, at a location | disband; retreats |
| a build of a power | waive; an army or a fleet (at a coast) in each of its home centres |
| a disband | waive (disbands nothing); one unit, by province |

So a choice is a number below the length W of the longest list (about 1,400 on the standard board), and adding the
list's start gives a number in the whole vocabulary. Masks are [slots, W]: 60 times smaller than with the whole
vocabulary per slot.

A convoy by a fleet in sea ``s`` from ``y`` to ``z`` is in the vocabulary if some path over sea from ``y`` to ``z``
passes through ``s`` and through no sea twice: 9,022 orders on the standard board.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from mlbits.envs.diplomacy.board import Board
from mlbits.envs.diplomacy.codes import (
    ARMY,
    BUILD,
    COAST,
    CONVOY,
    DISBAND,
    FLEET,
    HOLD,
    LAND,
    MOVE,
    RETREAT,
    SEA,
    SUPPORT,
    SUPPORT_MOVE,
    WAIVE,
)
from mlbits.envs.diplomacy.orders import Order

Entry = tuple[int, int, int, int]  # kind, other, target, via


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The lists, concatenated, and the tables that find an order in them.

    Attributes:
        board: the map.
        start: index of the first entry of each list, then the end of the last, int64 [C + 1]. Order of lists: movement
            of armies by location, of fleets by location (2 L), retreats likewise (2 L), builds of each power (P),
            disbands (1).
        entries: kind, other, target, via of each entry, int16 [V, 4]; a build's ``other`` is its unit's kind, a
            disband's ``target`` its province.
        reach_list: provinces that a unit can move to, int16 [2 L, D], padded with -1.
        hold_base: index of a list's first support of a unit that stays, [2 L]; they follow ``reach_list``.
        move_base: index of a list's first support of moves into its j-th reachable province, [2 L, D].
        source_rank: index of the move y to z (variant 0: without a coast, v: the v-th coast of z) among the moves into
            z, int16 [N (z), N (y), variants], -1 if there is none.
        source_count: how many entries ``y`` has among the moves into ``z``, [N, N].
        via_index: index of the convoyed move in the army's list, [N, N], -1 if there is none.
        convoy_index: index of the convoy in the list of the fleet in each sea, [seas, N (y), N (z)], -1 if none.
        sea_number: index of each sea, [N], -1 for other provinces.
    """

    board: Board
    start: NDArray[np.int64]
    entries: NDArray[np.int16]
    reach_list: NDArray[np.int64]
    hold_base: NDArray[np.int64]
    move_base: NDArray[np.int64]
    source_rank: NDArray[np.int64]
    source_count: NDArray[np.int64]
    via_index: NDArray[np.int64]
    convoy_index: NDArray[np.int64]
    sea_number: NDArray[np.int64]

    @property
    def width(self) -> int:
        """Length W of the longest list."""
        return int(np.diff(self.start).max())

    @cached_property
    def _numbers(self) -> dict[tuple[int, Entry], int]:
        numbers: dict[tuple[int, Entry], int] = {}
        for context in range(len(self.start) - 1):
            for i in range(self.start[context], self.start[context + 1]):
                kind, other, target, via = (int(x) for x in self.entries[i])
                numbers[context, (kind, other, target, via)] = int(i - self.start[context])
        return numbers

    def moving(self, unit: int, location: int) -> int:
        """Index of the list of a unit in a movement phase."""
        return location + (len(self.board.locations) if unit == FLEET else 0)

    def retreating(self, unit: int, location: int) -> int:
        """Index of the list of a dislodged unit."""
        return 2 * len(self.board.locations) + self.moving(unit, location)

    def building(self, power: int) -> int:
        """Index of the list of a power's builds."""
        return 4 * len(self.board.locations) + power

    @property
    def disbanding(self) -> int:
        """Index of the list of disbands."""
        return 4 * len(self.board.locations) + len(self.board.powers)

    def order(self, context: int, choice: int, unit: int = 0, location: int = -1) -> Order:
        """The order for a choice from a list.

        Args:
            context: index of the list.
            choice: index in the list.
            unit: kind of the unit that a disband orders (not needed for other lists).
            location: its location, likewise.
        """
        if not 0 <= choice < self.start[context + 1] - self.start[context]:
            raise IndexError(f"choice: got {choice}; wanted 0 to {self.start[context + 1] - self.start[context] - 1}")
        kind, other, target, via = (int(x) for x in self.entries[self.start[context] + choice])
        locations = len(self.board.locations)
        if kind == WAIVE:
            return Order(WAIVE, 0, -1)
        if kind == BUILD:
            return Order(BUILD, other, target)
        if context < 4 * locations:
            unit, location = (FLEET if context // locations % 2 else ARMY), context % locations
            return Order(kind, unit, location, other, target, bool(via))
        return Order(DISBAND, unit, target if location < 0 else location)

    def find(self, context: int, order: Order) -> int:
        """Index of an order in a list, -1 if it is not in it."""
        other, target = order.other, order.target
        if order.kind == BUILD:
            other, target = order.unit, order.location
        elif order.kind == DISBAND and context == self.disbanding:
            target = int(self.board.province_of[order.location])
        return self._numbers.get((context, (order.kind, other, target, int(order.via))), -1)


@lru_cache(maxsize=8)
def vocabulary(board: Board) -> Vocabulary:
    """The vocabulary of a board."""
    return _Maker(board).make()


class _Maker:
    """Builds the lists of one board."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.n, self.locations = len(board.provinces), len(board.locations)
        types = np.array([province.type for province in board.provinces])
        self.seas = [int(p) for p in np.flatnonzero(types == SEA)]
        self.coasts = [int(p) for p in np.flatnonzero(types == COAST)]
        self.through = convoy_paths(board)
        self.convoyed = {(y, z) for ways in self.through.values() for y, z in ways}
        self.depth = 1 + max((len(coasts) for coasts in board.coasts_of), default=0)

    def make(self) -> Vocabulary:
        sources, rank, count = self._sources()
        rows = 2 * self.locations
        lists: list[list[Entry]] = []
        width = max(1, max(len(self._reach(row)) for row in range(rows)))
        reach_list = np.full((rows, width), -1)
        hold_base, move_base = np.zeros(rows, np.int64), np.zeros((rows, width), np.int64)
        via_index = np.full((self.n, self.n), -1)
        number = {sea: i for i, sea in enumerate(self.seas)}
        convoy_index = np.full((max(1, len(self.seas)), self.n, self.n), -1)
        for row in range(rows):
            kind, place = self._unit(row)
            here = int(self.board.province_of[place])
            entries: list[Entry] = []
            if self.board.can_stand(kind, place):
                entries = [(HOLD, -1, -1, 0)]
                entries += [(MOVE, -1, to, 0) for to in self.board.neighbours(kind, place)]
                if kind == ARMY:
                    for z in self.coasts:
                        if (here, z) in self.convoyed:
                            via_index[here, z] = len(entries)
                            entries.append((MOVE, -1, z, 1))
                reach = self._reach(row)
                reach_list[row, : len(reach)] = reach
                hold_base[row] = len(entries)
                entries += [(SUPPORT, z, -1, 0) for z in reach]
                for j, z in enumerate(reach):
                    move_base[row, j] = len(entries)
                    entries += [(SUPPORT_MOVE, y, to, 0) for y, to in sources[z] if y != here]
                if kind == FLEET and here in number:
                    for y, z in sorted(self.through[here]):
                        convoy_index[number[here], y, z] = len(entries)
                        entries.append((CONVOY, y, z, 0))
            lists.append(entries)
        for row in range(rows):
            kind, place = self._unit(row)
            stands = self.board.can_stand(kind, place)
            retreats = [(RETREAT, -1, to, 0) for to in self.board.neighbours(kind, place)]
            lists.append([(DISBAND, -1, -1, 0), *retreats] if stands else [])
        lists += [[(WAIVE, -1, -1, 0), *self._builds(power)] for power in range(len(self.board.powers))]
        lists.append([(WAIVE, -1, -1, 0), *((DISBAND, -1, p, 0) for p in range(self.n))])
        return Vocabulary(
            board=self.board,
            start=np.cumsum([0, *map(len, lists)]),
            entries=np.array([entry for entries in lists for entry in entries], np.int16),
            reach_list=reach_list,
            hold_base=hold_base,
            move_base=move_base,
            source_rank=rank,
            source_count=count,
            via_index=via_index,
            convoy_index=convoy_index,
            sea_number=np.array([number.get(p, -1) for p in range(self.n)]),
        )

    def _unit(self, row: int) -> tuple[int, int]:
        return (ARMY, row) if row < self.locations else (FLEET, row - self.locations)

    def _reach(self, row: int) -> list[int]:
        """Provinces that a unit can move to, each once."""
        places = self.board.neighbours(*self._unit(row))
        return list(dict.fromkeys(int(self.board.province_of[place]) for place in places))

    def _sources(self) -> tuple[list[list[tuple[int, int]]], NDArray[np.int64], NDArray[np.int64]]:
        """For each province z, the moves into it as (y, target), and the tables that find them."""
        rank = np.full((self.n, self.n, self.depth), -1)
        count = np.zeros((self.n, self.n), np.int64)
        board, sources = self.board, []
        for z in range(self.n):
            moves: list[tuple[int, int]] = []
            for y in range(self.n):
                places = (y, *board.coasts_of[y])
                by_fleet = {to for place in places for to in board.fleet_neighbours[place]}
                coasts = [to for to in board.coasts_of[z] if to in by_fleet]
                if z in board.army_neighbours[y] or (y, z) in self.convoyed or z in by_fleet or coasts:
                    rank[z, y, 0] = len(moves)
                    moves.append((y, z))
                for v, to in enumerate(board.coasts_of[z], start=1):
                    if to in coasts:
                        rank[z, y, v] = len(moves)
                        moves.append((y, to))
                count[z, y] = sum(y == source for source, _ in moves)
            sources.append(moves)
        return sources, rank, count

    def _builds(self, power: int) -> list[Entry]:
        entries: list[Entry] = []
        for p, province in enumerate(self.board.provinces):
            if province.home == power and province.type != SEA:
                entries.append((BUILD, ARMY, p, 0))
            if province.home == power and province.type != LAND:
                entries += [(BUILD, FLEET, place, 0) for place in self.board.coasts_of[p] or (p,)]
        return entries


@lru_cache(maxsize=8)
def convoy_paths(board: Board) -> dict[int, set[tuple[int, int]]]:
    """For each sea, the pairs (y, z) of coastal provinces with a path over sea through it that visits no sea twice.

    A sea lies on such a path if and only if it is in the same block (biconnected component) as the edge y-z when that
    edge is added to the graph of y, z and the seas.
    """
    seas = [p for p, province in enumerate(board.provinces) if province.type == SEA]
    touching = {sea: {int(board.province_of[to]) for to in board.fleet_neighbours[sea]} for sea in seas}
    graph = {sea: sorted(others & touching.keys()) for sea, others in touching.items()}
    coasts = [p for p, province in enumerate(board.provinces) if province.type == COAST]
    ways: dict[int, set[tuple[int, int]]] = {sea: set() for sea in seas}
    for i, y in enumerate(coasts):
        for z in coasts[i + 1 :]:
            extended = {sea: [*others, *(c for c in (y, z) if c in touching[sea])] for sea, others in graph.items()}
            extended[y] = [z, *(sea for sea in seas if y in touching[sea])]
            extended[z] = [y, *(sea for sea in seas if z in touching[sea])]
            for sea in _block_of_edge(extended, y, z) & touching.keys():
                ways[sea] |= {(y, z), (z, y)}
    return ways


def _block_of_edge(graph: dict[int, list[int]], first: int, second: int) -> set[int]:
    """Nodes of the biconnected component of the edge first-second, by depth-first search from it."""
    depth, low = {first: 0}, {first: 0}
    block: set[int] = set()
    nodes: list[int] = []

    def visit(node: int, parent: int) -> None:
        depth[node] = low[node] = depth[parent] + 1
        nodes.append(node)
        for other in graph[node]:
            if other == parent:
                continue
            if other in depth:
                low[node] = min(low[node], depth[other])
            else:
                mark = len(nodes)
                visit(other, node)
                low[node] = min(low[node], low[other])
                if low[other] >= depth[node]:  # the subtree below is a block of its own
                    del nodes[mark:]

    visit(second, first)
    block.update(nodes, (first,))
    return block
