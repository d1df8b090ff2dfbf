"""What a power decides in a phase, slot by slot, with the names of its legal orders: for people who play."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbits.envs.diplomacy.board import Board
from mlbits.envs.diplomacy.codes import ADJUSTMENTS, FALL_RETREATS, SPRING_RETREATS, WAIVE
from mlbits.envs.diplomacy.order_parser import order_text
from mlbits.envs.diplomacy.position import Position
from mlbits.envs.diplomacy.records import read_position
from mlbits.envs.diplomacy.vocabulary import vocabulary


def decisions(
    board: Board, state: Any, params: Any, seat: int, legal: NDArray[np.bool_]
) -> list[tuple[str, dict[int, str]]]:
    """A heading and the names of the legal orders by their index, for each slot that the power fills.

    Args:
        board: the map.
        state: a copy's state.
        params: its parameters.
        seat: the power.
        legal: its mask, bool [K W].
    """
    position, words = read_position(state, board), vocabulary(board)
    masks = legal.reshape(int(params["slots"]), int(params["width"]))
    found: list[tuple[str, dict[int, str]]] = []
    for heading, context, province in _slots(position, state, params, seat):
        names = {}
        for choice in np.flatnonzero(masks[len(found)]).tolist():
            unit = position.units.get(_ordered(context, choice, words.disbanding, province))
            kind, location = (unit.kind, unit.location) if unit is not None else (0, -1)
            order = words.order(context, choice, kind, location)
            names[choice] = "WAIVE" if order.kind == WAIVE else order_text(order, board, position)
        found.append((heading, names))
    return found


def _ordered(context: int, choice: int, disbanding: int, province: int) -> int:
    """The province of the unit that an order of a disband's list names; else that of the slot."""
    return choice - 1 if context == disbanding else province


def _slots(position: Position, state: Any, params: Any, seat: int) -> list[tuple[str, int, int]]:
    """Heading, index of the vocabulary's list and province of each slot, in the order of the action's slots."""
    words = vocabulary(position.board)
    if position.phase == ADJUSTMENTS:
        due = int(state["due"][seat])
        what, context = ("build", words.building(seat)) if due >= 0 else ("disband", words.disbanding)
        slots = [(f"{what} {k + 1}", context, -1) for k in range(abs(due))]
        if int(params["welfare"]) and due >= 0:
            units = [unit for unit in sorted(position.units) if position.units[unit].power == seat]
            slots += [(position.unit_name(position.units[unit]), words.disbanding, unit) for unit in units]
        return slots[: int(params["slots"])]
    if position.phase in (SPRING_RETREATS, FALL_RETREATS):
        out = {p: d.unit for p, d in sorted(position.dislodged.items()) if d.unit.power == seat}
        return [(position.unit_name(u), words.retreating(u.kind, u.location), p) for p, u in out.items()]
    own = {p: unit for p, unit in sorted(position.units.items()) if unit.power == seat}
    return [(position.unit_name(u), words.moving(u.kind, u.location), p) for p, u in own.items()][
        : int(params["slots"])
    ]
