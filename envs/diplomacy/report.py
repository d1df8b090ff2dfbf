"""Adjudicates orders given as text, and reports the fate of each order with the reason in words.

The compiled adjudicator (:mod:`mlbits.envs.diplomacy.compiled_adjudicator`) takes legal orders and returns bits. Here
orders are read as text, and the fate of each is explained. An order that cannot be read or is not allowed is
reported as such, and the unit acts as without an order: it holds, disbands instead of retreating, is not built. Of
several orders to one unit the last allowed one counts; of builds and disbands the first ones, as many as are due
(DATC 6.I.1, 6.J.1), and repeated ones once (6.I.7, 6.J.2).

If a support names the coast that a fleet moves to and the fleet moves to another (DATC 4.B.4, 6.B.9): under "datc-2.4"
a fleet's support counts for any coast, an army's does not; under "datc-3.0" neither does.

>>> from mlbits.envs.diplomacy.board import load_board
>>> from mlbits.envs.diplomacy.position import first_position
>>> orders = {"FRANCE": ["A PAR - BUR", "F BRE - PAR"], "GERMANY": ["MUN - BUR"]}
>>> result = adjudicate(first_position(load_board()), orders)
>>> for fate in result.fates:
...     print(f"{fate.power} {fate.text}: {fate.reason}")
FRANCE A PAR - BUR: bounced with A MUN
FRANCE F BRE - PAR: not allowed: a fleet cannot be in PAR; it holds
GERMANY MUN - BUR: bounced with A PAR
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from mlbits.envs.core.errors import GameError
from mlbits.envs.diplomacy.codes import (
    ADJUSTMENTS,
    ARMY,
    BOUNCE,
    BUILD,
    CONVOY,
    CUT,
    DISBAND,
    DISBANDED,
    DISLODGED,
    DISRUPTED,
    FALL_MOVES,
    HOLD,
    MOVE,
    NO_CONVOY,
    RETREAT,
    SPRING_MOVES,
    SUPPORT,
    SUPPORT_MOVE,
    VOID,
    WAIVE,
)
from mlbits.envs.diplomacy.compiled_adjudicator import Resolution, resolve
from mlbits.envs.diplomacy.order_parser import NotationError, order_text, parse_order
from mlbits.envs.diplomacy.order_reasons import why_illegal
from mlbits.envs.diplomacy.orders import Order
from mlbits.envs.diplomacy.position import Position, Unit
from mlbits.envs.diplomacy.records import check_rules


@dataclass(frozen=True, slots=True)
class OrderFate:
    """The fate of one order.

    Attributes:
        power: the power that gave it.
        text: the text as given.
        order: the parsed order; None if it could not be read.
        fates: bits of :mod:`mlbits.envs.diplomacy.codes` from BOUNCE to DISBANDED; 0 for success.
        reason: the fate in words.
    """

    power: str
    text: str
    order: Order | None
    fates: int
    reason: str


@dataclass(frozen=True, slots=True)
class Adjudication:
    """The result of a phase.

    Attributes:
        before: the position before.
        after: the next position.
        fates: one for each order; powers in the board's order, each power's orders as given.
        unit_fates: bits of every unit that could be ordered, by province; also of those without orders.
        destroyed: units removed from the board.
    """

    before: Position
    after: Position
    fates: tuple[OrderFate, ...]
    unit_fates: Mapping[int, int]
    destroyed: tuple[Unit, ...]


def adjudicate(
    position: Position, orders: Mapping[str, Sequence[str | Order]], rules: str = "datc-2.4"
) -> Adjudication:
    """Carry out any orders, legal or not, and report the fate of each.

    Args:
        position: the position.
        orders: by power; powers and units may be left without orders.
        rules: "datc-2.4" or "datc-3.0".

    Raises:
        GameError: for a power that is not on the board, orders that are not a list, or unknown rules.
    """
    check_rules(rules)
    entries = _read(position, orders, rules)
    counted = {entry.province: entry for entry in entries if not entry.fates}
    chosen = {p: entry.order for p, entry in counted.items() if p >= 0 and entry.order is not None}
    if position.phase in (SPRING_MOVES, FALL_MOVES):
        for p, why in _other_coasts(position, chosen, counted, rules):
            counted[p] = replace(counted[p], fates=VOID, reason=why)
            entries = [counted[p] if entry.index == counted[p].index else entry for entry in entries]
            chosen[p] = Order(HOLD, chosen[p].unit, chosen[p].location)
        chosen = {p: _to_province(order, position) for p, order in chosen.items()}
    resolution = resolve(position, chosen, rules)
    reasons = _Reasons(position, chosen, resolution)
    units = dict(resolution.fates)
    for entry in entries:
        if entry.fates and entry.province >= 0 and (entry.province not in counted or counted[entry.province] is entry):
            units[entry.province] = units.get(entry.province, 0) | entry.fates
    explained = [reasons.failed(entry) if entry.fates else reasons.fate(entry) for entry in entries]
    fates = tuple(
        OrderFate(entry.power, entry.text, entry.order, bits, reason)
        for entry, (bits, reason) in zip(entries, explained, strict=True)
    )
    return Adjudication(position, resolution.after, fates, MappingProxyType(units), resolution.destroyed)


@dataclass(frozen=True, slots=True)
class _Entry:
    """An order as given.

    Attributes:
        index: its index among all orders.
        power: the power that gave it.
        text: the text as given.
        order: the parsed order, or None.
        province: province of the power's own unit that is ordered (builds: of the new unit), or -1.
        fates: VOID if it does not count, else 0.
        reason: why it does not count.
    """

    index: int
    power: str
    text: str
    order: Order | None
    province: int
    fates: int = 0
    reason: str = ""


def _read(position: Position, orders: Mapping[str, Sequence[str | Order]], rules: str) -> list[_Entry]:
    """All orders with a first decision: whether they are readable, allowed, and the one that counts."""
    board = position.board
    if not isinstance(orders, Mapping):
        raise GameError(f"orders: got {type(orders).__name__}; wanted lists of orders by power")
    for power, given in orders.items():
        if power not in board.power_index:
            raise GameError(f"orders: got {power!r}"[:80] + f"; wanted one of {', '.join(board.powers)}")
        if isinstance(given, str) or not isinstance(given, Sequence):
            raise GameError(f"orders[{power!r}]: got {type(given).__name__}; wanted a list")
    entries: list[_Entry] = []
    for number, power in enumerate(board.powers):
        own: list[_Entry] = []
        for text in orders.get(power, ()):
            own.append(_judge(position, number, text, len(entries) + len(own), rules))
        entries += _first_due(position, number, own) if position.phase == ADJUSTMENTS else _last(own)
    return entries


def _judge(position: Position, number: int, text: str | Order, index: int, rules: str) -> _Entry:
    board, power = position.board, position.board.powers[number]
    try:
        order = text if isinstance(text, Order) else parse_order(text, board, position)
    except NotationError as error:
        return _Entry(index, power, str(text), None, -1, VOID, f"not understood: {error.why}")
    why = why_illegal(position, number, order, rules)
    shown = text if isinstance(text, str) else _text(order, position)
    province = -1
    if 0 <= order.location < len(board.locations):
        province = int(board.province_of[order.location])
        out = position.dislodged.get(province)
        standing = out.unit if out is not None else position.units.get(province)
        if why is not None and (standing is None or standing.power != number):
            province = -1
    if why is not None:
        return _Entry(index, power, shown, order, province, VOID, f"not allowed: {why}")
    return _Entry(index, power, shown, order, province)


def _text(order: Order, position: Position) -> str:
    try:
        return order_text(order, position.board, position)
    except (IndexError, KeyError):
        return str(tuple(order))


def _last(own: list[_Entry]) -> list[_Entry]:
    """The last of several allowed orders to one unit counts."""
    last = {entry.province: entry.index for entry in own if not entry.fates}
    return [
        replace(entry, fates=VOID, reason="another order to the unit came after it")
        if not entry.fates and last[entry.province] != entry.index
        else entry
        for entry in own
    ]


def _first_due(position: Position, number: int, own: list[_Entry]) -> list[_Entry]:
    """The first builds, waives and disbands count, as many as are due, each province once."""
    due = abs(position.adjustments().get(number, 0))
    taken: set[int] = set()
    counted, result = 0, []
    for entry in own:
        if not entry.fates and entry.province >= 0 and entry.province in taken:
            entry = replace(entry, fates=VOID, reason="it was ordered already")
        elif not entry.fates and counted >= due:
            entry = replace(entry, fates=VOID, reason=f"only {due} {'was' if due == 1 else 'were'} due")
        elif not entry.fates:
            counted += 1
            taken.add(entry.province)
        result.append(entry)
    return result


def _to_province(order: Order, position: Position) -> Order:
    """The order in the adjudicator's form, in which supports of moves and convoys name a province."""
    if order.kind not in (SUPPORT_MOVE, CONVOY):
        return order
    return order._replace(target=int(position.board.province_of[order.target]))


def _other_coasts(
    position: Position, chosen: Mapping[int, Order], counted: Mapping[int, _Entry], rules: str
) -> list[tuple[int, str]]:
    """Units whose support names a different coast from the one that the fleet moves to."""
    board, found = position.board, []
    for p, entry in counted.items():
        order = entry.order
        if order is None or order.kind != SUPPORT_MOVE or order.target < len(board.provinces):
            continue
        move = chosen.get(order.other)
        if move is None or move.kind != MOVE or (rules == "datc-2.4" and order.unit != ARMY):
            continue
        if board.province_of[move.target] == board.province_of[order.target] and move.target != order.target:
            fleet = position.unit_name(position.units[order.other])
            found.append((p, f"void: {fleet} was ordered to {board.locations[move.target]}"))
    return found


class _Reasons:
    """Explains fates in words."""

    def __init__(self, position: Position, orders: Mapping[int, Order], resolution: Resolution) -> None:
        self.position, self.orders, self.resolution = position, orders, resolution
        self.board, self.bits = position.board, resolution.fates
        self.moving = position.phase in (SPRING_MOVES, FALL_MOVES)

    def unit(self, province: int) -> str:
        """Name of the unit that was there before the phase."""
        if not self.moving and province in self.position.dislodged:
            return self.position.unit_name(self.position.dislodged[province].unit)
        return self.position.unit_name(self.position.units[province])

    def units(self, provinces: Sequence[int]) -> str:
        """Names of several units, as in a sentence."""
        names = sorted(self.unit(p) for p in provinces)
        return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)

    def goal(self, province: int) -> int:
        """The province to which a province's unit was ordered, or -1."""
        order = self.orders.get(province)
        return int(self.board.province_of[order.target]) if order and order.kind in (MOVE, RETREAT) else -1

    def moved(self, province: int) -> bool:
        """Whether a province's unit moved away."""
        return self.goal(province) >= 0 and not self.bits[province] & (BOUNCE | NO_CONVOY | VOID)

    def comers(self, province: int) -> list[int]:
        """Provinces from which units attacked or entered a province."""
        return [p for p in self.orders if self.goal(p) == province and not self.bits[p] & NO_CONVOY]

    def failed(self, entry: _Entry) -> tuple[int, str]:
        """The fate of an order that did not count, and of its unit."""
        if entry.province < 0 or (entry.province in self.orders and self.orders[entry.province].kind != HOLD):
            return entry.fates, entry.reason
        bits = self.bits.get(entry.province, 0)
        if self.moving:
            holds = "" if entry.reason.startswith("void") else "; it holds"
            reason = f"{entry.reason}{holds}{self.dislodgement(entry.province)}"
        else:
            reason = entry.reason + ("; it disbands" if bits & DISBANDED else "")
        return entry.fates | bits, reason

    def fate(self, entry: _Entry) -> tuple[int, str]:
        """The fate of an order that counted."""
        order, p = entry.order, entry.province
        assert order is not None
        bits = self.bits.get(p, 0) if order.kind != WAIVE else 0
        if order.kind in (WAIVE, BUILD, DISBAND):
            bits &= VOID
            if bits:
                return bits, "there was nothing left to do"
            return bits, {WAIVE: "waived", BUILD: "built", DISBAND: "disbanded"}[order.kind]
        if order.kind == RETREAT:
            if not bits:
                return bits, "retreated"
            others = [q for q in self.orders if q != p and self.goal(q) == self.goal(p)]
            return bits, f"{self.units(others)} retreated there too; it disbands"
        explain = {HOLD: self.hold, MOVE: self.move, CONVOY: self.convoy}.get(order.kind, self.support)
        return bits, explain(p, order, bits) + self.dislodgement(p)

    def dislodgement(self, p: int) -> str:
        """Part of a sentence on who dislodged a province's unit, or ""."""
        if not self.bits.get(p, 0) & DISLODGED:
            return ""
        winners = [q for q in self.comers(p) if self.moved(q)]
        by = f" by {self.units(winners)}" if winners else ""
        destroyed = any(self.board.province_of[unit.location] == p for unit in self.resolution.destroyed)
        return f"; it was dislodged{by}{', with nowhere to retreat' if destroyed else ''}"

    def hold(self, p: int, order: Order, bits: int) -> str:
        return "held" if not bits & DISLODGED else "did not hold"

    def move(self, p: int, order: Order, bits: int) -> str:
        target = self.goal(p)
        if bits & NO_CONVOY:
            return self.no_convoy(p, target)
        if not bits & BOUNCE:
            return "moved"
        others = [q for q in self.comers(target) if q != p]
        if target in self.position.units and (not self.moved(target) or self.goal(target) == p):
            others.append(target)  # it stayed, or moved in the opposite direction
        if not others:
            return "bounced"
        own = len(others) == 1 and self.position.units[others[0]].power == self.position.units[p].power
        return f"bounced with {self.units(others)}{' of its own power' if own else ''}"

    def no_convoy(self, army: int, target: int) -> str:
        """Why an army was not convoyed."""
        fleets = [
            q for q, order in self.orders.items() if (order.kind, order.other, order.target) == (CONVOY, army, target)
        ]
        if lost := [q for q in fleets if self.bits[q] & DISLODGED]:
            return f"no convoy: {self.units(lost)} {'was' if len(lost) == 1 else 'were'} dislodged"
        if any(self.bits[q] & DISRUPTED for q in fleets):
            return "no convoy: it would have decided about itself (Szykman's rule)"
        return "no convoy: the fleets that convoyed it form no chain" if fleets else "no convoy: no fleet convoyed it"

    def support(self, p: int, order: Order, bits: int) -> str:
        helped = self.unit(order.other)
        if bits & CUT:
            cutters = [q for q in self.comers(p) if self.position.units[q].power != self.position.units[p].power]
            return f"support cut by {self.units(cutters)}" if cutters else "support cut"
        if bits & NO_CONVOY:
            return f"{helped} was not convoyed"
        if not bits & VOID:
            return "supported"
        target, does = order.target, self.goal(order.other)
        if order.kind == SUPPORT:
            return f"void: {helped} was ordered to move" if does >= 0 else f"void: {helped} could not be supported"
        if does != target:
            return f"void: {helped} was not ordered to {self.board.locations[target]}"
        if target in self.position.units and self.position.units[target].power == self.position.units[p].power:
            return f"void: it would help to dislodge {self.unit(target)} of its own power"
        return f"void: {helped} could not go there"

    def convoy(self, p: int, order: Order, bits: int) -> str:
        army, target = self.unit(order.other), self.board.locations[order.target]
        if self.goal(order.other) != order.target:
            return f"void: {army} was not ordered to {target}" if bits & VOID else "convoyed nothing"
        if bits & DISRUPTED:
            return f"disrupted: the convoy of {army} would have decided about itself (Szykman's rule)"
        if bits & NO_CONVOY:
            return f"{army} was not convoyed to {target}"
        if bits & VOID:
            return f"void: {army} went by land"
        return "convoyed" if not bits & DISLODGED else f"did not convoy {army}"
