"""Explains whether a position allows an order, and if not, why not; in plain Python.

The masks of the environments come from compiled code (``order_masks``); this is the same rule in readable form, and the
reason shown to a player. The rules are those of the Diplomacy Adjudicator Test Cases (DATC, Kruijf) 2.4 and 3.0:

- a move goes to a neighbour, or, for an army, along a chain of fleets that are at sea now, using each fleet once;
- a support helps a unit towards a province that the supporting unit could move to without a convoy, and that the helped
  unit can reach without a convoy by the supporting unit (6.D.31);
- a convoy order names an army on a coast, another coast, and there is a chain of fleets between them through this
  fleet (4.E.1: an order that cannot possibly work is not an order);
- retreats go to a listed place; builds go to an owned, empty home centre; only as many as are due.

Whether the fleets of the chain are ordered to convoy decides whether the order succeeds, not whether it is legal.

>>> from mlbits.envs.diplomacy.board import load_board
>>> from mlbits.envs.diplomacy.order_parser import parse_order
>>> from mlbits.envs.diplomacy.position import first_position
>>> position = first_position(load_board())
>>> why_illegal(position, position.board.power_index["FRANCE"], parse_order("A PAR - MUN", position.board))
'MUN is not a neighbour of PAR, and no chain of fleets joins them'
"""

from __future__ import annotations

from mlbits.envs.diplomacy.board import Board
from mlbits.envs.diplomacy.codes import (
    ADJUSTMENTS,
    ARMY,
    BUILD,
    COAST,
    CONVOY,
    DISBAND,
    FALL_MOVES,
    FLEET,
    HOLD,
    LAND,
    MOVE,
    RETREAT,
    SEA,
    SPRING_MOVES,
    SUPPORT,
    SUPPORT_MOVE,
    WAIVE,
)
from mlbits.envs.diplomacy.orders import Order
from mlbits.envs.diplomacy.position import Position, Unit

_MOVES = (HOLD, MOVE, SUPPORT, SUPPORT_MOVE, CONVOY)
_KINDS = {ARMY: "army", FLEET: "fleet"}
MAX_ROUTES = 20_000  # chains of fleets that are tried before a fleet is assumed to be needed


def why_illegal(position: Position, power: int, order: Order, rules: str = "datc-2.4") -> str | None:
    """Why the position does not allow an order, or None if it does.

    Each order is judged by itself; the caller counts how many builds or disbands are due.

    Args:
        position: a position in any phase.
        power: the power that gives the order, 0..P-1.
        order: an order with locations of the position's board.
        rules: "datc-2.4", or "datc-3.0", which also refuses convoys by a fleet that no route needs (6.G.19).
    """
    board = position.board
    places, provinces = len(board.locations), len(board.provinces)
    if not (-1 <= order.location < places and -1 <= order.target < places and -1 <= order.other < provinces):
        return "it names a place that is not on the map"
    if position.phase in (SPRING_MOVES, FALL_MOVES):
        why = _why_no_move(position, power, order)
        if why is None and order.kind == CONVOY and rules != "datc-2.4" and not _needed(position, order):
            return "every chain of fleets through it also works without it"
        return why
    if position.phase == ADJUSTMENTS:
        return _why_no_adjustment(position, power, order)
    return _why_no_retreat(position, power, order)


def convoy_route(
    position: Position, start: int, end: int, *, through: int | None = None, without: int | None = None
) -> bool:
    """Whether fleets that are at sea now form a chain between two coastal provinces, using each fleet once.

    Args:
        position: where the fleets are.
        start: a province.
        end: another province.
        through: a sea province that must be in the chain.
        without: a province whose fleet is ignored.
    """
    board = position.board
    if start == end or any(board.provinces[p].type != COAST for p in (start, end)):
        return False
    fleets = {p for p in position.units if board.provinces[p].type == SEA and p != without}
    near_start, near_end = (fleets & _bordering(board, province) for province in (start, end))
    if through is None:
        reached, ahead = set(near_start), list(near_start)
        while ahead:
            ahead = [q for p in ahead for q in _bordering(board, p) & fleets - reached]
            reached.update(ahead)
        return bool(reached & near_end)
    return through in fleets and _two_ways_out(board, fleets, through, near_start, near_end)


def _two_ways_out(board: Board, fleets: set[int], through: int, first: set[int], second: set[int]) -> bool:
    """Whether chains from one fleet reach both sets and share only that fleet.

    A flow of two units with unit capacity at each other fleet: two augmenting paths (Menger's theorem). The time is
    linear in the number of fleets, whereas enumerating chains could take unbounded time.
    """
    goals = {-1: first, -2: second}
    graph: dict[object, set[object]] = {}
    for p in fleets:
        graph.setdefault(("in", p), set()).add(("out", p))
        graph[("out", p)] = {("in", q) for q in _bordering(board, p) & fleets if q != through}
        graph[("out", p)] |= {goal for goal, near in goals.items() if p in near}
    graph |= {goal: {"sink"} for goal in goals}
    for _ in goals:
        came: dict[object, object] = {("out", through): None}
        ahead: list[object] = [("out", through)]
        for node in ahead:
            for neighbour in graph.get(node, ()):
                if neighbour not in came:
                    came[neighbour] = node
                    ahead.append(neighbour)
        if "sink" not in came:
            return False
        node = "sink"
        while (before := came[node]) is not None:
            graph[before].discard(node)
            graph.setdefault(node, set()).add(before)
            node = before
    return True


def _needed(position: Position, order: Order) -> bool:
    """Whether some route needs the fleet: a minimal chain through it.

    In a minimal chain only the first fleet is adjacent to the start, only the last one to the end, and only consecutive
    fleets to each other. All are enumerated from the start, up to a bound that no realistic map reaches.
    """
    board = position.board
    fleets = {p for p in position.units if board.provinces[p].type == SEA}
    ends = (order.other, int(board.province_of[order.target]))
    near_start, near_end = (fleets & _bordering(board, province) for province in ends)
    fleet = int(board.province_of[order.location])
    ahead: list[tuple[tuple[int, ...], set[int]]] = [((p,), near_start | {p}) for p in near_start]
    for _ in range(MAX_ROUTES):
        if not ahead:
            return False
        chain, closed = ahead.pop()
        if chain[-1] in near_end:
            if fleet in chain:
                return True
            continue
        beside = _bordering(board, chain[-1]) & fleets
        ahead += [((*chain, q), closed | beside) for q in beside - closed]
    return True


def _bordering(board: Board, province: int) -> set[int]:
    """Provinces that a fleet in the province, on any of its coasts, can move to."""
    return {int(board.province_of[n]) for place in _places(board, province) for n in board.fleet_neighbours[place]}


def _places(board: Board, province: int) -> tuple[int, ...]:
    return (province, *board.coasts_of[province])


def _reaches(board: Board, unit: Unit, province: int) -> bool:
    """Whether the unit can move to the province, to any of its coasts, without a convoy."""
    return any(board.province_of[place] == province for place in board.neighbours(unit.kind, unit.location))


def _ordered_unit(position: Position, power: int, order: Order) -> Unit | str:
    """The unit that is ordered, or why it cannot be ordered."""
    board = position.board
    if order.location < 0:
        return "it names no unit"
    province, here = int(board.province_of[order.location]), board.locations[order.location]
    unit = position.units.get(province)
    if position.phase not in (SPRING_MOVES, FALL_MOVES, ADJUSTMENTS):
        unit = position.dislodged[province].unit if province in position.dislodged else None
        if unit is None:
            return f"no unit has to retreat from {here}"
    if unit is None:
        return f"there is no unit in {here}"
    if unit.power != power:
        return f"the unit in {here} belongs to {board.powers[unit.power]}"
    if unit.kind != order.unit or unit.location != order.location:
        return f"the unit there is {position.unit_name(unit)}"
    return unit


def _why_no_move(position: Position, power: int, order: Order) -> str | None:
    board = position.board
    if order.kind not in _MOVES:
        return "it is not an order for a movement phase"
    unit = _ordered_unit(position, power, order)
    if isinstance(unit, str) or order.kind == HOLD:
        return unit if isinstance(unit, str) else None
    if order.kind == MOVE:
        return _why_no_way(position, unit, order.target, order.via)
    here, name = int(board.province_of[unit.location]), board.locations
    helped = position.units.get(order.other)
    if helped is None:
        return f"there is no unit in {name[order.other]}" if order.other >= 0 else "it names no unit to help"
    if order.other == here:
        return "a unit cannot help itself"
    if order.kind == SUPPORT:
        return None if _reaches(board, unit, order.other) else f"it could not move to {name[order.other]} itself"
    if order.target < 0:
        return "it names no place to help the other unit to"
    target = int(board.province_of[order.target])
    if order.kind == CONVOY:
        return _why_no_convoy(position, unit, helped, order.other, target)
    if target == order.other:
        return f"the unit in {name[target]} is there already"
    if not _reaches(board, unit, target):
        return f"it could not move to {name[target]} itself"
    if _reaches(board, helped, target):
        return None
    if helped.kind == FLEET:
        return f"{position.unit_name(helped)} cannot move to {name[target]}"
    if convoy_route(position, order.other, target, without=here):
        return None
    if convoy_route(position, order.other, target):
        return f"{name[target]} could be reached only with its own convoy, and it cannot do both"
    return f"{position.unit_name(helped)} cannot move to {name[target]}"


def _why_no_way(position: Position, unit: Unit, target: int, via: bool) -> str | None:
    """Why a unit cannot move to a location, or None."""
    board = position.board
    if target < 0:
        return "it names no place to go to"
    start, end, name = int(board.province_of[unit.location]), int(board.province_of[target]), board.locations
    if start == end:
        return "a unit cannot move to its own province"
    if not board.can_stand(unit.kind, target):
        wanted = "; one of its coasts must be named" if unit.kind == FLEET and board.provinces[end].coasts else ""
        return f"{'an' if unit.kind == ARMY else 'a'} {_KINDS[unit.kind]} cannot be in {name[target]}{wanted}"
    if unit.kind == FLEET and via:
        return "a fleet is not convoyed"
    near = target in board.neighbours(unit.kind, unit.location)
    if near and not via:
        return None
    if unit.kind == ARMY and convoy_route(position, start, end):
        return None
    if via:
        return f"no chain of fleets joins {name[start]} and {name[end]}"
    beyond = ", and no chain of fleets joins them" if unit.kind == ARMY else ""
    return f"{name[target]} is not a neighbour of {name[unit.location]}{beyond}"


def _why_no_convoy(position: Position, unit: Unit, helped: Unit, start: int, end: int) -> str | None:
    board = position.board
    at_sea = int(board.province_of[unit.location])
    if unit.kind == ARMY:
        return "an army does not convoy"
    if board.provinces[at_sea].type != SEA:
        return "only a fleet at sea convoys"
    if helped.kind == FLEET:
        return f"{position.unit_name(helped)} is a fleet; only armies are convoyed"
    if start == end:
        return f"the army in {board.locations[end]} is there already"
    for province in (start, end):
        if board.provinces[province].type != COAST:
            return f"{board.locations[province]} has no coast"
    if not convoy_route(position, start, end, through=at_sea):
        return f"no chain of fleets joins {board.locations[start]} and {board.locations[end]} through it"
    return None


def _why_no_retreat(position: Position, power: int, order: Order) -> str | None:
    board = position.board
    if order.kind not in (RETREAT, DISBAND):
        return "it is not an order for a retreat phase"
    unit = _ordered_unit(position, power, order)
    if isinstance(unit, str):
        return unit
    if order.kind == DISBAND:
        return None
    open_to = position.dislodged[int(board.province_of[order.location])].retreats
    if order.target in open_to:
        return None
    places = ", ".join(sorted(board.locations[place] for place in open_to)) or "nowhere"
    return f"it can retreat to {places}"


def _why_no_adjustment(position: Position, power: int, order: Order) -> str | None:
    board = position.board
    if order.kind not in (BUILD, DISBAND, WAIVE):
        return "it is not an order for an adjustment phase"
    due = position.adjustments().get(power, 0)
    if order.kind == DISBAND:
        unit = _ordered_unit(position, power, order)
        if isinstance(unit, str):
            return unit
        return None if due < 0 else "there is nothing to disband"
    if due <= 0:
        return "there is nothing to build"
    if order.kind == WAIVE:
        return None
    if order.location < 0 or order.unit not in _KINDS:
        return "it names no unit to build"
    province, here = int(board.province_of[order.location]), board.locations[order.location]
    if board.provinces[province].home != power:
        return f"{here} is not a home centre of {board.powers[power]}"
    if position.centers.get(province) != power:
        return f"{here} is not owned"
    if province in position.units:
        return f"{board.provinces[province].id} is occupied"
    if not board.can_stand(order.unit, order.location):
        if order.unit == FLEET and board.provinces[province].type != LAND:
            return f"one of the coasts of {here} must be named"
        return f"{'an army' if order.unit == ARMY else 'a fleet'} cannot be in {here}"
    return None
