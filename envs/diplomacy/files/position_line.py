"""A position as one line of text, like FEN in chess.

Four fields, separated by spaces: the phase; the units; the owned centres; the dislodged units. All fields except the
first are lists by power; powers are separated by ``;``, their items by ``,``; ``-`` is an empty field. A dislodged unit
has the province of its attacker between ``<`` and ``>`` (``?`` if unknown), and then the places to which it may
retreat, joined by ``+``::

    F1901R FRANCE:ABUR,FSPA/SC;GERMANY:AMUN FRANCE:PAR,SPA;GERMANY:MUN FRANCE:AMUN<BUR>BOH+TYR

Powers are written in the order of the board, places in the order of their numbers, so a position has one text; any
order can be read. No information is lost in either direction.

>>> from mlbits.envs.diplomacy.board import load_board
>>> board = load_board()
>>> read_position_text("S1901M ITALY:AVEN,FION ITALY:VEN -", board).units[board.location_index["ION"]]
Unit(power=4, kind=2, location=29)
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NoReturn

from mlbits.envs.core.errors import GameError
from mlbits.envs.diplomacy.board import Board
from mlbits.envs.diplomacy.codes import UNIT_LETTERS
from mlbits.envs.diplomacy.position import Position, Unit

MAX_LENGTH = 20_000
_FIELDS = ("phase", "units", "centres", "dislodged")
_UNIT = re.compile(r"([AF])([A-Z0-9]+(?:/[A-Z]{2})?)", re.ASCII)
_OUT = re.compile(r"([AF])([A-Z0-9]+(?:/[A-Z]{2})?)<([A-Z0-9]+|\?)>((?:[A-Z0-9/]+(?:\+[A-Z0-9/]+)*)?)", re.ASCII)


def position_text(position: Position) -> str:
    """Write a position as one line."""
    board = position.board
    units = sorted((unit.power, unit.location, _unit(board, unit)) for unit in position.units.values())
    centers = sorted((owner, p, board.provinces[p].id) for p, owner in position.centers.items())
    dislodged = []
    for out in position.dislodged.values():
        attacker = board.provinces[out.attacker].id if out.attacker >= 0 else "?"
        places = "+".join(board.locations[place] for place in sorted(out.retreats))
        dislodged.append((out.unit.power, out.unit.location, f"{_unit(board, out.unit)}<{attacker}>{places}"))
    fields = (_by_power(board, rows) for rows in (units, centers, sorted(dislodged)))
    return " ".join([position.phase_name, *fields])


def read_position_text(text: str, board: Board) -> Position:
    """Read what :func:`position_text` writes.

    Raises:
        GameError: naming the field, the value got and what was wanted.
    """
    if not isinstance(text, str) or len(text) > MAX_LENGTH:
        _fail("text", type(text).__name__, f"a text of at most {MAX_LENGTH} characters")
    fields = text.split()
    if len(fields) != len(_FIELDS):
        _fail("text", f"{len(fields)} fields", f"four: {', '.join(_FIELDS)}")
    phase, units, centers, dislodged = fields
    form: dict[str, Any] = {"phase": phase, "units": {}, "centers": {}, "dislodged": {}}
    for power, items in _lists("units", units, board):
        form["units"][power] = [" ".join(_match(_UNIT, "units", item, "one like APAR").groups()) for item in items]
    for power, items in _lists("centres", centers, board):
        form["centers"][power] = items
    for power, items in _lists("dislodged", dislodged, board):
        for item in items:
            kind, place, attacker, places = _match(_OUT, "dislodged", item, "one like AMUN<BUR>BOH+TYR").groups()
            if f"{kind} {place}" in form["dislodged"]:
                _fail("dislodged", repr(item), "each unit once")
            retreats = places.split("+") if places else []
            if len(set(retreats)) != len(retreats):
                _fail("dislodged", repr(item), "each place once")
            source = None if attacker == "?" else attacker
            form["dislodged"][f"{kind} {place}"] = {"power": power, "from": source, "retreats": retreats}
    return Position.from_json(form, board)


def _unit(board: Board, unit: Unit) -> str:
    return f"{UNIT_LETTERS[unit.kind]}{board.locations[unit.location]}"


def _by_power(board: Board, rows: Iterable[tuple[int, int, str]]) -> str:
    lists: dict[int, list[str]] = {}
    for power, _, item in rows:
        lists.setdefault(power, []).append(item)
    return ";".join(f"{board.powers[power]}:{','.join(items)}" for power, items in lists.items()) or "-"


def _fail(name: str, got: str, wanted: str) -> NoReturn:
    raise GameError(f"position text, {name}: got {got[:80]}; wanted {wanted}")


def _lists(name: str, field: str, board: Board) -> list[tuple[str, list[str]]]:
    if field == "-":
        return []
    found: dict[str, list[str]] = {}
    for part in field.split(";"):
        power, colon, items = part.partition(":")
        if power not in board.power_index or not colon or power in found:
            _fail(name, repr(part), f"POWER:item,item with each once of {', '.join(board.powers)}")
        found[power] = items.split(",")
    return list(found.items())


def _match(pattern: re.Pattern[str], name: str, item: str, wanted: str) -> re.Match[str]:
    match = pattern.fullmatch(item)
    if match is None:
        _fail(name, repr(item), wanted)
    return match
