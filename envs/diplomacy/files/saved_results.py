"""Derives fates of units, attackers and retreats from the orders and results of a saved game.

Used by :mod:`mlbits.envs.diplomacy.files.saved_games`, which describes the format.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from mlbits.envs.core.errors import GameError
from mlbits.envs.diplomacy.codes import (
    ADJUSTMENTS,
    ARMY,
    BOUNCE,
    CONVOY,
    DISBANDED,
    DISLODGED,
    FALL_RETREATS,
    FATE_NAMES,
    MOVE,
    SPRING_RETREATS,
    VOID,
)
from mlbits.envs.diplomacy.files.played_phase import PlayedPhase
from mlbits.envs.diplomacy.order_parser import NotationError, parse_order
from mlbits.envs.diplomacy.orders import Order
from mlbits.envs.diplomacy.position import Position

_BITS = {name: bit for bit, name in FATE_NAMES.items()} | {"": 0, "ok": 0}
_DISBAND, _VOID = FATE_NAMES[DISBANDED], FATE_NAMES[VOID]


def order_of(text: str, position: Position) -> Order | None:
    """The parsed order, or None if it cannot be parsed."""
    try:
        return parse_order(text, position.board, position)
    except NotationError:
        return None


def _orders(phase: PlayedPhase) -> Iterator[tuple[int, Order]]:
    """The readable orders of a phase, each with the number of the power that gave it."""
    for power, texts in phase.orders.items():
        for text in texts:
            order = order_of(text, phase.position)
            if order is not None:
                yield phase.position.board.power_index[power], order


def with_attackers(position: Position, before: PlayedPhase | None) -> Position:
    """The position with its attackers' origins, as far as the previous orders and results show them."""
    if not position.dislodged or before is None:
        return position
    board, came = position.board, {}
    for _, order in _orders(before):
        if order.kind == MOVE:
            start, end = int(board.province_of[order.location]), int(board.province_of[order.target])
            unit, now = before.position.units.get(start), position.units.get(end)
            if unit and now and unit[:2] == now[:2] and (before.fates or {}).get(start, 0) == 0:
                came[end] = start
    dislodged = {p: out._replace(attacker=came.get(p, -1)) for p, out in position.dislodged.items()}
    return Position(board, position.year, position.phase, position.units, dislodged, position.centers)


def with_retreats(position: Position, before: PlayedPhase | None) -> Position:
    """The position with the places to which dislodged units may retreat, from the previous orders and results.

    A place must be empty, must not have been left empty by a standoff, and must not be the attacker's origin, unless
    the attacker came by sea.
    """
    if not position.dislodged or before is None:
        return position
    board, out, fates = position.board, position.dislodged, before.fates or {}
    moves, by_sea = {}, set()
    convoys = {(order.other, int(board.province_of[order.target]), power)
               for power, order in _orders(before) if order.kind == CONVOY}  # fmt: skip
    for power, order in _orders(before):
        if order.kind == MOVE:
            start, end = int(board.province_of[order.location]), int(board.province_of[order.target])
            moves[start] = end
            near = end in board.army_neighbours[start]
            asked = order.via and any((start, end, other) in convoys for other in range(len(board.powers)))
            if order.unit == ARMY and (not near or asked or (start, end, power) in convoys):
                by_sea.add(start)
    contested = set()
    for start, end in moves.items():
        beaten = start in out and out[start].attacker == end and end not in by_sea  # by the unit that it met head on
        if fates.get(start, 0) & BOUNCE and not beaten:
            contested.add(end)
    found = {}
    for p, row in out.items():
        closed = position.units.keys() | contested | ({row.attacker} - by_sea)
        beside = board.neighbours(row.unit.kind, row.unit.location)
        found[p] = row._replace(retreats=tuple(n for n in beside if int(board.province_of[n]) not in closed))
    return Position(board, position.year, position.phase, position.units, found, position.centers)


def fates_of(results: Any, position: Position, before: PlayedPhase | None) -> dict[int, int]:
    """Fates (bits) of the units that could be ordered, by province.

    Args:
        results: the phase's results: names of fates by unit.
        position: the position at its beginning.
        before: the phase before, if known.

    Raises:
        GameError: naming the unit.
    """
    if not isinstance(results, Mapping):
        _fail("results", results, "an object")
    board, fates = position.board, {}
    retreats = position.phase in (SPRING_RETREATS, FALL_RETREATS)
    standing = {position.unit_name(unit) for unit in position.units.values()}
    ordered = {position.unit_name(out.unit) for out in position.dislodged.values()} if retreats else standing
    gone = _destroyed(before, position)
    for unit, words in results.items():
        key = f"results[{unit!r}]"
        place = unit.partition(" ")[2]
        if unit != "WAIVE" and (place not in board.location_index or unit[:2] not in ("A ", "F ")):
            _fail(key, unit, 'a unit like "A PAR"')
        if not isinstance(words, list) or not all(isinstance(word, str) and word in _BITS for word in words):
            _fail(key, words, f"a list of {', '.join(filter(None, _BITS))}")
        if unit == "WAIVE":
            continue
        p = int(board.province_of[board.location_index[place]])
        if position.phase == ADJUSTMENTS:
            bits = _adjusted(words, unit in standing, unit in gone)
            if bits is not None and (p not in fates or bits != VOID):  # "A BER" may be void where "F BER" was built
                fates[p] = bits
        elif unit in ordered:
            fates[p] = sum({_BITS[word] for word in words})
        elif set(words) == {_VOID} or (retreats and (unit in standing or (words == [_DISBAND] and unit in gone))):
            continue  # not a legal order, or no order at all
        else:
            _fail(key, unit, f"a unit that is on the board in {position.phase_name}")
    return fates


def _destroyed(before: PlayedPhase | None, position: Position) -> set[str]:
    """Names of units that were dislodged in the phase before; of all possible units if that is not known."""
    if before is None or not before.fates:
        return {f"{letter} {name}" for name in position.board.locations for letter in "AF"}
    units, fates = before.position.units, before.fates
    return {position.unit_name(unit) for p, unit in units.items() if fates.get(p, 0) & DISLODGED}


def _adjusted(words: Sequence[str], standing: bool, gone: bool) -> int | None:
    """Fates (bits) of a build or a disband; None if the result is about neither.

    Args:
        words: words of the result.
        standing: whether the unit is on the board, so that it can be disbanded.
        gone: whether a unit of that name was destroyed in the phase before.
    """
    if any(word in ("", "ok") for word in words):  # done once; a second order for it was void
        return DISBANDED if standing else 0
    if _DISBAND in words and (gone or not standing):
        words = [word for word in words if word != _DISBAND]
        if not words:
            return None
    return sum({_BITS[word] for word in words})


def _fail(key: str, got: object, wanted: str) -> NoReturn:
    raise GameError(f"{key}: got {got!r}"[:160] + f"; wanted {wanted}")
