"""A position of a Diplomacy game, and its JSON form.

The JSON form is that of the test vectors: ``{"phase": "F1901M", "units": {"FRANCE": ["A PAR", "F STP/SC"]}, "centers":
{"FRANCE": ["PAR"]}, "dislodged": {"A BUR": {"power": "GERMANY", "from": "PAR", "retreats": ["RUH"]}}, "adjust":
{"FRANCE": 1}}``; the last two only if the phase has them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mlbits.envs.core.errors import GameError
from mlbits.envs.diplomacy.board import Board
from mlbits.envs.diplomacy.codes import ADJUSTMENTS, ARMY, FALL_RETREATS, FLEET, PHASE_NAMES, SPRING_RETREATS

_PHASE = re.compile(r"([SFW])([0-9]{1,5})([MRA])")
_PHASES = {"SM": 0, "SR": 1, "FM": 2, "FR": 3, "WA": 4}
MAX_YEAR = 30_000


class Unit(NamedTuple):
    """A unit.

    Attributes:
        power: its owner, 0..P-1.
        kind: ARMY or FLEET.
        location: its location on the board.
    """

    power: int
    kind: int
    location: int


class Dislodged(NamedTuple):
    """A unit that has to retreat.

    Attributes:
        unit: the unit and where it was dislodged.
        attacker: the province that its attacker came from, or -1 if that is not known.
        retreats: the locations to which it may retreat.
    """

    unit: Unit
    attacker: int
    retreats: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Position:
    """A position.

    Attributes:
        board: the map.
        year: the year.
        phase: SPRING_MOVES to ADJUSTMENTS.
        units: unit of each occupied province, by province.
        dislodged: units that have to retreat, by the province they were dislodged from.
        centers: owner of each owned centre, by province.
    """

    board: Board
    year: int
    phase: int
    units: Mapping[int, Unit]
    dislodged: Mapping[int, Dislodged] = field(default_factory=dict)
    centers: Mapping[int, int] = field(default_factory=dict)

    @property
    def phase_name(self) -> str:
        """Such as "S1901M"."""
        return PHASE_NAMES[self.phase].format(self.year)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Position) and self.board is other.board and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]

    def unit_name(self, unit: Unit) -> str:
        """Such as "F STP/SC"."""
        return unit_name(self.board, unit)

    def adjustments(self) -> dict[int, int]:
        """Centres minus units of each power."""
        counts = dict.fromkeys(range(len(self.board.powers)), 0)
        for owner in self.centers.values():
            counts[owner] += 1
        for unit in self.units.values():
            counts[unit.power] -= 1
        return counts

    def to_json(self) -> dict[str, Any]:
        """The JSON form, with everything sorted."""
        board, names = self.board, self.board.powers
        units: dict[str, list[str]] = {}
        for unit in self.units.values():
            units.setdefault(names[unit.power], []).append(self.unit_name(unit))
        centers: dict[str, list[str]] = {}
        for province, owner in self.centers.items():
            centers.setdefault(names[owner], []).append(board.provinces[province].id)
        form: dict[str, Any] = {
            "phase": self.phase_name,
            "units": {power: sorted(units[power]) for power in sorted(units)},
            "centers": {power: sorted(centers[power]) for power in sorted(centers)},
        }
        if self.dislodged:
            form["dislodged"] = {
                self.unit_name(d.unit): {
                    "power": names[d.unit.power],
                    "from": board.provinces[d.attacker].id if d.attacker >= 0 else None,
                    "retreats": sorted(board.locations[place] for place in d.retreats),
                }
                for d in sorted(self.dislodged.values(), key=lambda d: self.unit_name(d.unit))
            }
        if self.phase == ADJUSTMENTS:
            counts = {names[power]: n for power, n in self.adjustments().items() if n}
            form["adjust"] = {power: counts[power] for power in sorted(counts)}
        return form

    @staticmethod
    def from_json(form: Any, board: Board) -> Position:
        """Read the JSON form.

        If both ``retreats_rules`` and ``retreats`` are given, the former is used; ``adjust`` is counted, not read.
        Powers without units or centres may be left out.

        Raises:
            GameError: naming the field and what was wanted.
        """
        if not isinstance(form, Mapping):
            raise GameError(f"position: got {type(form).__name__}; wanted an object")
        year, phase = read_phase(form.get("phase"))
        units: dict[int, Unit] = {}
        for power, texts in _lists(form, "units"):
            for text in texts:
                unit = _unit(f"units[{power!r}]", text, _power("units", power, board), board)
                if units.setdefault(int(board.province_of[unit.location]), unit) is not unit:
                    raise GameError(f"position, units[{power!r}]: got {text!r}; wanted one unit per province")
        centers: dict[int, int] = {}
        for power, names in _lists(form, "centers"):
            owner = _power("centers", power, board)
            for name in names:
                province = _place(f"centers[{power!r}]", name, board)
                if province >= len(board.provinces) or not board.provinces[province].center or province in centers:
                    raise GameError(f"position, centers[{power!r}]: got {name!r}; wanted a centre, each once")
                centers[province] = owner
        dislodged = _dislodged(form.get("dislodged") or {}, board)
        if dislodged and phase not in (SPRING_RETREATS, FALL_RETREATS):
            raise GameError(f"position, dislodged: got units in {form['phase']}; wanted none outside retreats")
        return Position(board, year, phase, units, dislodged, centers)


def first_position(board: Board) -> Position:
    """The initial position of a game on the board."""
    units = {
        int(board.province_of[location]): Unit(power, kind, location) for power, kind, location in board.initial_units
    }
    owners = {int(p): int(owner) for p, owner in enumerate(board.initial_centers) if owner >= 0}
    return Position(board, board.first_year, 0, units, {}, owners)


def unit_name(board: Board, unit: Unit) -> str:
    """Such as "F STP/SC"."""
    return f"{'A' if unit.kind == ARMY else 'F'} {board.locations[unit.location]}"


def read_phase(text: Any) -> tuple[int, int]:
    """Year and phase of a text such as "S1901M".

    Raises:
        GameError: for any other text.
    """
    match = _PHASE.fullmatch(text) if isinstance(text, str) else None
    if match is None or match[1] + match[3] not in _PHASES or int(match[2]) > MAX_YEAR:
        raise GameError(f'position, phase: got {repr(text)[:160]}; wanted one like "S1901M", "F1901R" or "W1901A"')
    return int(match[2]), _PHASES[match[1] + match[3]]


def _lists(form: Mapping[str, Any], key: str) -> list[tuple[str, list[Any]]]:
    table = form.get(key, {})
    if not isinstance(table, Mapping):
        raise GameError(f"position, {key}: got {table!r}"[:120] + "; wanted an object of lists")
    for power, row in table.items():
        if not isinstance(row, list):
            raise GameError(f"position, {key}[{power!r}]: got {row!r}"[:120] + "; wanted a list")
    return list(table.items())


def _power(key: str, name: Any, board: Board) -> int:
    if not isinstance(name, str) or name not in board.power_index:
        raise GameError(f"position, {key}: got {name!r}"[:120] + f"; wanted one of {', '.join(board.powers)}")
    return board.power_index[name]


def _place(key: str, name: Any, board: Board) -> int:
    if not isinstance(name, str) or name not in board.location_index:
        raise GameError(f"position, {key}: got {name!r}"[:120] + "; wanted a province of the map")
    return board.location_index[name]


def _unit(key: str, text: Any, power: int, board: Board) -> Unit:
    words = text.split() if isinstance(text, str) else []
    if len(words) != 2 or words[0] not in ("A", "F"):
        raise GameError(f"position, {key}: got {text!r}"[:120] + '; wanted a unit like "A PAR"')
    unit = Unit(power, ARMY if words[0] == "A" else FLEET, _place(key, words[1], board))
    if not board.can_stand(unit.kind, unit.location):
        raise GameError(f"position, {key}: got {text!r}; wanted a place where such a unit can be")
    return unit


def _dislodged(table: Any, board: Board) -> dict[int, Dislodged]:
    if not isinstance(table, Mapping):
        raise GameError(f"position, dislodged: got {table!r}"[:120] + "; wanted an object")
    found: dict[int, Dislodged] = {}
    for name, row in table.items():
        key = f"dislodged[{name!r}]"
        if not isinstance(row, Mapping):
            raise GameError(f"position, {key}: got {row!r}"[:120] + "; wanted an object")
        unit = _unit(key, name, _power(key, row.get("power"), board), board)
        attacker = -1 if row.get("from") is None else int(board.province_of[_place(f"{key}.from", row["from"], board)])
        names = row.get("retreats_rules", row.get("retreats", []))
        if not isinstance(names, list):
            raise GameError(f"position, {key}.retreats: got {names!r}"[:120] + "; wanted a list")
        retreats = tuple(_place(f"{key}.retreats", place, board) for place in names)
        for place in retreats:
            if place not in board.neighbours(unit.kind, unit.location):
                raise GameError(f"position, {key}.retreats: got {board.locations[place]!r}; wanted a neighbour of it")
        if (
            found.setdefault(int(board.province_of[unit.location]), Dislodged(unit, attacker, retreats)).unit
            is not unit
        ):
            raise GameError(f"position, {key}: wanted one dislodged unit per province")
    return found
