"""A position as plain text: the phase, each power's centres and units, and the orders with their fates.

>>> from mlbits.envs.diplomacy.board import load_board
>>> from mlbits.envs.diplomacy.position import first_position
>>> print(board_text(first_position(load_board("mini"))))
Spring 1901, moves
<BLANKLINE>
ARDEN  2 centres  A ALT, F AVE
BRENN  2 centres  A BIR, F BAY
CORVO  2 centres  A COR, F CAP
<BLANKLINE>
"""

from __future__ import annotations

from collections.abc import Mapping

from mlbits.envs.diplomacy.board import Board
from mlbits.envs.diplomacy.codes import BUILD, FATE_NAMES, WAIVE
from mlbits.envs.diplomacy.drawing.board_marks import title
from mlbits.envs.diplomacy.order_parser import order_text
from mlbits.envs.diplomacy.orders import Order
from mlbits.envs.diplomacy.position import Position


def board_text(
    position: Position, orders: Mapping[int, Order] | None = None, fates: Mapping[int, int] | None = None
) -> str:
    """A position as text, without control codes.

    Args:
        position: the position to describe.
        orders: orders given in that position, by the province of the unit.
        fates: fates of those orders, bits of :mod:`mlbits.envs.diplomacy.codes`.
    """
    board = position.board
    width = max(len(name) for name in board.powers)
    lines = [title(position), ""]
    for power, name in enumerate(board.powers):
        count = sum(owner == power for owner in position.centers.values())
        units = sorted(position.unit_name(unit) for unit in position.units.values() if unit.power == power)
        summary = f"{count} centre{'s' if count != 1 else ' '}  {', '.join(units)}"
        lines.append(f"{name:<{width}}  {summary}".rstrip())
    if position.dislodged:
        lines += ["", "dislodged:"]
        for _, dislodged in sorted(position.dislodged.items()):
            places = ", ".join(board.locations[place] for place in dislodged.retreats) or "nowhere"
            attacker = f" from {board.provinces[dislodged.attacker].id}" if dislodged.attacker >= 0 else ""
            unit = f"{board.powers[dislodged.unit.power]:<{width}}  {position.unit_name(dislodged.unit)}"
            lines.append(f"{unit}, attacked{attacker}, can go to {places}")
    if orders:
        lines += ["", "orders:"]
        rows = sorted((order_power(position, p, order), p, order) for p, order in orders.items())
        for power, province, order in rows:
            name = board.powers[power] if power >= 0 else "nobody"
            text, fate = order_text(order, board, position), fate_text((fates or {}).get(province, 0))
            lines.append(f"{name:<{width}}  {text}" + (f"  ({fate})" if fate else ""))
    return "\n".join(lines) + "\n"


def fate_text(fate: int) -> str:
    """Names of an order's fates, such as "cut, dislodged"; "" if it succeeded."""
    return ", ".join(name for bit, name in FATE_NAMES.items() if fate & bit)


def order_power(position: Position, province: int, order: Order) -> int:
    """The power that gave an order, or -1 if unknown."""
    if order.kind == WAIVE:
        return _home(position.board, province)
    if order.kind == BUILD:
        return _home(position.board, int(position.board.province_of[order.location]))
    dislodged = position.dislodged.get(province)
    unit = dislodged.unit if dislodged is not None else position.units.get(province)
    return -1 if unit is None else unit.power


def _home(board: Board, province: int) -> int:
    """The power whose home centre is in a province, or -1."""
    home = board.provinces[province].home if 0 <= province < len(board.provinces) else None
    return -1 if home is None else home
