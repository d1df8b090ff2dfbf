"""Records of positions, orders and boards, and conversions between records and positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbits.envs.core.errors import GameError
from mlbits.envs.diplomacy.board import MAX_NEIGHBOURS, Board
from mlbits.envs.diplomacy.codes import ARMY, BUILD, FLEET, MOVE, NO_UNIT, SEA
from mlbits.envs.diplomacy.decisions import NONE, scratch_fields
from mlbits.envs.diplomacy.orders import Order
from mlbits.envs.diplomacy.position import Dislodged, Position, Unit

# Switches that differ between rule books: land_fallback, disorder_owned, coasts_match.
RULES: Mapping[str, tuple[int, int, int]] = {"datc-2.4": (1, 0, 0), "datc-3.0": (0, 1, 1)}


def check_rules(rules: Any) -> tuple[int, int, int]:
    """The switches of a rule book.

    Raises:
        GameError: for an unknown rule book.
    """
    if not isinstance(rules, str) or rules not in RULES:
        raise GameError(f"rules: got {rules!r}; wanted one of {', '.join(map(repr, RULES))}")
    return RULES[rules]


def position_fields(board: Board) -> list[tuple[Any, ...]]:
    """Fields of a copy's state that hold the position, its orders and their fates, by province."""
    shape = (len(board.provinces),)
    return [
        ("year", "i2"),
        ("phase", "u1"),
        ("owner", "i1", shape),  # owner of the centre, or -1
        ("unit_kind", "u1", shape),
        ("unit_power", "i1", shape),
        ("unit_place", "i2", shape),  # location
        ("out_kind", "u1", shape),  # dislodged units
        ("out_power", "i1", shape),
        ("out_place", "i2", shape),
        ("out_from", "i2", shape),  # province of the attacker, or -1
        ("out_open", "u4", shape),  # bit i: may retreat to the unit's neighbour i
        ("order_kind", "u1", shape),
        ("order_other", "i2", shape),  # province of the helped unit; BUILD: ARMY or FLEET
        ("order_target", "i2", shape),  # location
        ("order_via", "u1", shape),
        ("fate", "u1", shape),
        ("destroyed", "u1", shape),  # a unit of this province was destroyed in the last phase
        *scratch_fields(len(board.provinces)),
    ]


def board_fields(board: Board) -> list[tuple[Any, ...]]:
    """Fields of the parameters that hold the board."""
    n, locations = len(board.provinces), len(board.locations)
    return [
        ("provinces", "i4"),
        ("locations", "i4"),
        ("powers", "i4"),
        ("land_fallback", "u1"),
        ("disorder_owned", "u1"),
        ("coasts_match", "u1"),  # whether a fleet's support is void if it names a coast other than the move's
        ("every_winter", "u1"),  # whether adjustment phases occur when no builds or disbands are due
        ("province_of", "i2", (locations,)),
        ("degree", "u1", (2 * locations,)),  # rows: armies by location, then fleets
        ("neighbour", "i2", (2 * locations, MAX_NEIGHBOURS)),
        ("reach", "u1", (2 * locations, n)),  # whether the unit can move to the province, on any coast
        ("coastal", "u1", (n, n)),  # whether a fleet in that sea is adjacent to the province
        ("steps", "u1", (2, n, n)),  # adjacency for distances of armies and of fleets
        ("sea", "u1", (n,)),
        ("center", "u1", (n,)),
        ("home", "i1", (n,)),
        ("rank", "i2", (n,)),  # alphabetical rank of the province's id
    ]


def board_values(board: Board, rules: str) -> dict[str, Any]:
    """Values of :func:`board_fields`."""
    n, locations = len(board.provinces), len(board.locations)
    degree = np.zeros(2 * locations, np.int64)
    neighbour = np.full((2 * locations, MAX_NEIGHBOURS), NONE)
    reach = np.zeros((2 * locations, n), np.int64)
    steps = np.zeros((2, n, n), np.int64)
    for kind in (ARMY, FLEET):
        for place in range(locations):
            row = place + (locations if kind == FLEET else 0)
            others = board.neighbours(kind, place)
            degree[row] = len(others)
            neighbour[row, : len(others)] = others
            reach[row, board.province_of[list(others)]] = 1
            steps[kind - 1, board.province_of[place], board.province_of[list(others)]] = 1
    steps[0] |= steps[1]  # armies' distances also go over sea
    sea = np.array([province.type == SEA for province in board.provinces])
    fallback, owned, coasts_match = check_rules(rules)
    by_name = np.argsort(np.array([province.id for province in board.provinces]), kind="stable")
    return {
        "provinces": n,
        "locations": locations,
        "powers": len(board.powers),
        "land_fallback": fallback,
        "disorder_owned": owned,
        "coasts_match": coasts_match,
        "every_winter": 0,
        "province_of": board.province_of,
        "degree": degree,
        "neighbour": neighbour,
        "reach": reach,
        "coastal": reach[locations : locations + n] * sea[:, None],
        "steps": steps,
        "sea": sea,
        "center": [province.center for province in board.provinces],
        "home": [NONE if province.home is None else province.home for province in board.provinces],
        "rank": np.argsort(by_name),
    }


def write_position(position: Position, record: Any) -> None:
    """Write a position into all of a record's fields, with no orders."""
    board = position.board
    record["year"], record["phase"] = position.year, position.phase
    for name in (
        "owner",
        "unit_power",
        "unit_place",
        "out_power",
        "out_place",
        "out_from",
        "order_other",
        "order_target",
    ):
        record[name] = NONE
    for name in ("unit_kind", "out_kind", "out_open", "order_kind", "order_via", "fate", "destroyed"):
        record[name] = 0
    for province, owner in position.centers.items():
        record["owner"][province] = owner
    for province, unit in position.units.items():
        record["unit_kind"][province] = unit.kind
        record["unit_power"][province] = unit.power
        record["unit_place"][province] = unit.location
    for province, (unit, attacker, retreats) in position.dislodged.items():
        others = board.neighbours(unit.kind, unit.location)
        record["out_kind"][province] = unit.kind
        record["out_power"][province] = unit.power
        record["out_place"][province] = unit.location
        record["out_from"][province] = attacker
        record["out_open"][province] = sum(1 << others.index(place) for place in retreats)


def read_position(record: Any, board: Board) -> Position:
    """The position stored in a record."""
    units = {
        int(p): Unit(int(record["unit_power"][p]), int(record["unit_kind"][p]), int(record["unit_place"][p]))
        for p in np.flatnonzero(record["unit_kind"] != NO_UNIT)
    }
    dislodged = {}
    for p in np.flatnonzero(record["out_kind"] != NO_UNIT):
        unit = Unit(int(record["out_power"][p]), int(record["out_kind"][p]), int(record["out_place"][p]))
        others, allowed = board.neighbours(unit.kind, unit.location), int(record["out_open"][p])
        retreats = tuple(place for i, place in enumerate(others) if allowed >> i & 1)
        dislodged[int(p)] = Dislodged(unit, int(record["out_from"][p]), retreats)
    centers = {int(p): int(record["owner"][p]) for p in np.flatnonzero(record["owner"] >= 0)}
    return Position(board, int(record["year"]), int(record["phase"]), units, dislodged, centers)


def write_orders(orders: Mapping[int, Order], record: Any) -> None:
    """Write orders, by the province of the unit, replacing those in the record."""
    record["order_kind"] = 0
    record["order_via"] = 0
    for province, order in orders.items():
        record["order_kind"][province] = order.kind
        record["order_other"][province] = order.unit if order.kind == BUILD else order.other
        record["order_target"][province] = order.location if order.kind == BUILD else order.target
        record["order_via"][province] = order.kind == MOVE and order.via


def read_orders(record: Any) -> dict[int, Order]:
    """The orders stored in a record of a movement or retreat phase, by province."""
    which = "out" if (record["out_kind"] != NO_UNIT).any() else "unit"
    return {
        int(p): Order(
            int(record["order_kind"][p]), int(record[f"{which}_kind"][p]), int(record[f"{which}_place"][p]),
            int(record["order_other"][p]), int(record["order_target"][p]), bool(record["order_via"][p]),
        )
        for p in np.flatnonzero(record["order_kind"])
    }  # fmt: skip


def board_dtype(board: Board) -> np.dtype[Any]:
    """Dtype of a record of one position, for use outside a game."""
    return np.dtype(position_fields(board), align=True)


def board_record(board: Board, rules: str) -> NDArray[Any]:
    """The board's parameters [1], for use outside a game."""
    record = np.zeros(1, np.dtype(board_fields(board), align=True))
    for name, value in board_values(board, rules).items():
        record[name] = value
    return record
