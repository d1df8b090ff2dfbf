"""The map of a Diplomacy game: provinces, coasts, adjacency, centres, powers and the initial position.

A map is a JSON file with the format of ``standard_map.json``:

| key | content |
|---|---|
| ``format`` | "diplomacy-map/1" |
| ``powers`` | names, in the order of the seats |
| ``victory_centers`` | number of centres with which a power wins |
| ``first_phase`` | "S1901M" |
| ``provinces`` | a list of {id, name, type: land, sea or coast, sc, home: a power or null, coasts: their names} |
| ``army_adjacency`` | {province: [provinces]}, symmetric |
| ``fleet_adjacency`` | {location: [locations]}, symmetric; locations are provinces, or coasts such as "STP/NC" |
| ``initial_units`` | {power: ["A PAR", "F STP/SC"]} |
| ``initial_centers`` | {power: [provinces]} |
| ``impassable`` | ids that are only drawn; optional |
| ``coordinates`` | {viewBox, points: {location: {unit: [x, y], dislodged: [x, y], sc: [x, y] or null}}}; optional |

Everything is numbered: provinces 0..N-1 in the order of the file, named coasts after them up to L-1 ("locations"),
powers 0..P-1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbits.envs.core.errors import GameError
from mlbits.envs.core.plain_json import read_json
from mlbits.envs.diplomacy.codes import ARMY, COAST, FLEET, LAND, SEA

_TYPES = {"land": LAND, "sea": SEA, "coast": COAST}
_ID = re.compile(r"[A-Z][A-Z0-9]{1,7}")
_COAST = re.compile(r"[A-Z]{2}")
_PHASE = re.compile(r"S(\d{1,4})M")
MAX_PROVINCES, MAX_LOCATIONS, MAX_POWERS, MAX_NEIGHBOURS = 120, 160, 16, 30


@dataclass(frozen=True, slots=True)
class Province:
    """One province of a map file.

    Attributes:
        id: short name ("PAR").
        name: full name.
        type: LAND, SEA or COAST.
        center: whether it is a supply centre.
        home: the power (0..P-1) whose home it is, or None.
        coasts: names of its coasts ("NC"); empty if it has one coast or none.
    """

    id: str
    name: str
    type: int
    center: bool
    home: int | None
    coasts: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Board:
    """A checked map.

    Attributes:
        powers: names of the powers.
        provinces: the N provinces.
        locations: names of the L locations: the provinces, then their named coasts ("STP/NC").
        province_of: province of each location, int64 [L].
        army_neighbours: for each province, the provinces that an army can move to, in the order of the file.
        fleet_neighbours: for each location, the locations that a fleet can move to; empty if no fleet can be there.
        victory_centers: number of centres with which a power wins.
        first_year: year of the first phase, a spring.
        initial_units: (power, ARMY or FLEET, location) of each unit.
        initial_centers: owner of each province's centre, -1 if it has none or is not owned, int64 [N].
        coordinates: coordinates for the drawing, or None.
        impassable: ids that are only drawn.
    """

    powers: tuple[str, ...]
    provinces: tuple[Province, ...]
    locations: tuple[str, ...]
    province_of: NDArray[np.int64]
    army_neighbours: tuple[tuple[int, ...], ...]
    fleet_neighbours: tuple[tuple[int, ...], ...]
    victory_centers: int
    first_year: int
    initial_units: tuple[tuple[int, int, int], ...]
    initial_centers: NDArray[np.int64]
    coordinates: Mapping[str, Any] | None = field(default=None, repr=False)
    impassable: tuple[str, ...] = ()
    source: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def location_index(self) -> Mapping[str, int]:
        """Location numbers by name."""
        return {name: i for i, name in enumerate(self.locations)}

    @cached_property
    def power_index(self) -> Mapping[str, int]:
        """Power numbers by name."""
        return {name: i for i, name in enumerate(self.powers)}

    @cached_property
    def centers(self) -> tuple[int, ...]:
        """The provinces that are supply centres."""
        return tuple(i for i, province in enumerate(self.provinces) if province.center)

    def neighbours(self, kind: int, location: int) -> tuple[int, ...]:
        """Locations that a unit at ``location`` can move to without a convoy."""
        if kind == FLEET:
            return self.fleet_neighbours[location]
        return self.army_neighbours[location] if location < len(self.provinces) else ()

    def can_stand(self, kind: int, location: int) -> bool:
        """Whether a unit of the kind can be at the location (in a province with several coasts, a fleet is on one)."""
        province = self.provinces[self.province_of[location]]
        if kind == ARMY:
            return province.type != SEA and location < len(self.provinces)
        return province.type != LAND and (location >= len(self.provinces) or not province.coasts)

    @cached_property
    def coasts_of(self) -> tuple[tuple[int, ...], ...]:
        """Locations of the named coasts of each province."""
        first = len(self.provinces)
        return tuple(
            tuple(loc for loc in range(first, len(self.locations)) if self.province_of[loc] == p) for p in range(first)
        )


def load_board(source: str | Path | Mapping[str, Any] = "standard") -> Board:
    """Read a map.

    Args:
        source: "standard", "mini", the path of a JSON file, or its parsed content.

    Raises:
        GameError: naming the key (for invalid JSON the line) and what was wanted.
    """
    where = "map"
    if isinstance(source, Mapping):
        return _board(source, where)
    path = Path(__file__).with_name(f"{source}_map.json") if source in ("standard", "mini") else Path(source)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise GameError(f'map: cannot read {str(source)!r} ({error}); wanted "standard", "mini" or a file') from error
    try:
        content = read_json(text)
    except ValueError as error:
        line = f"line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise GameError(f"map {path.name}: {line}; wanted JSON") from error
    return _board(content, f"map {path.name}")


def _board(content: Any, where: str) -> Board:
    reader = _Reader(content, where)
    powers = reader.powers()
    provinces = reader.provinces(powers)
    names = [p.id for p in provinces] + [f"{p.id}/{coast}" for p in provinces for coast in p.coasts]
    index = {name: i for i, name in enumerate(names)}
    province_of = np.array([index[name.partition("/")[0]] for name in names])
    army = reader.adjacency("army_adjacency", index, lambda name: "/" not in name and _is(provinces, index, name, ARMY))
    fleet = reader.adjacency("fleet_adjacency", index, lambda name: _is(provinces, index, name, FLEET))
    for kind, table in (("army", army), ("fleet", fleet)):
        for a, row in enumerate(table):
            for b in row:
                if province_of[a] == province_of[b]:
                    reader.fail(f"{kind}_adjacency[{names[a]!r}]", f"got {names[b]!r}", "another province")
    coordinates = content.get("coordinates")
    if coordinates is not None:
        reader.coordinates(coordinates, names)
    impassable = content.get("impassable", [])
    if not isinstance(impassable, list) or not all(isinstance(name, str) for name in impassable):
        reader.fail("impassable", f"got {impassable!r}", "a list of names")
    board = Board(
        powers=powers,
        provinces=provinces,
        locations=tuple(names),
        province_of=province_of,
        army_neighbours=army,
        fleet_neighbours=fleet,
        victory_centers=reader.integer("victory_centers", 1, max(1, sum(p.center for p in provinces))),
        first_year=reader.year(),
        initial_units=(),
        initial_centers=np.full(len(provinces), -1),
        coordinates=coordinates,
        impassable=tuple(impassable),
        source=content,
    )
    object.__setattr__(board, "initial_units", reader.units(board))
    object.__setattr__(board, "initial_centers", reader.owners(board))
    return board


def _is(provinces: Sequence[Province], index: Mapping[str, int], name: str, kind: int) -> bool:
    """Whether a unit of the kind can be at the location; for rows of the adjacency tables."""
    province = provinces[index[name.partition("/")[0]]]
    if kind == ARMY:
        return province.type != SEA
    return province.type != LAND and ("/" in name or not province.coasts)


class _Reader:
    """Reads a map's keys one by one; errors name the key."""

    def __init__(self, content: Any, where: str) -> None:
        self.where = where
        if not isinstance(content, Mapping):
            raise GameError(f"{where}: got {type(content).__name__}; wanted an object")
        self.content = content
        if content.get("format") != "diplomacy-map/1":
            self.fail("format", f"got {content.get('format')!r}", '"diplomacy-map/1"')

    def fail(self, key: str, got: str, wanted: str) -> Any:
        raise GameError(f"{self.where}, {key}: {got}; wanted {wanted}")

    def take(self, key: str, kind: type) -> Any:
        value = self.content.get(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            wanted = {list: "a list", dict: "an object", str: "text", int: "an integer"}[kind]
            self.fail(key, f"got {value!r}"[:80] if key in self.content else "it is missing", wanted)
        return value

    def integer(self, key: str, low: int, high: int) -> int:
        value: int = self.take(key, int)
        if not low <= value <= high:
            self.fail(key, f"got {value}", f"{low} to {high}")
        return value

    def year(self) -> int:
        match = _PHASE.fullmatch(self.take("first_phase", str))
        if match is None:
            self.fail("first_phase", f"got {self.content['first_phase']!r}", 'a spring like "S1901M"')
            raise AssertionError
        return int(match[1])

    def powers(self) -> tuple[str, ...]:
        names = self.take("powers", list)
        good = all(isinstance(name, str) and re.fullmatch(r"[A-Z][A-Z_]{0,29}", name) for name in names)
        if not good or not 1 <= len(names) <= MAX_POWERS or len(set(names)) != len(names):
            self.fail("powers", f"got {names!r}"[:120], f"1 to {MAX_POWERS} different names in capitals")
        return tuple(names)

    def provinces(self, powers: Sequence[str]) -> tuple[Province, ...]:
        rows = self.take("provinces", list)
        if not 2 <= len(rows) <= MAX_PROVINCES:
            self.fail("provinces", f"got {len(rows)}", f"2 to {MAX_PROVINCES}")
        found: dict[str, Province] = {}
        for i, row in enumerate(rows):
            province = self._province(f"provinces[{i}]", row, powers)
            if province.id in found:
                self.fail(f"provinces[{i}].id", f"got {province.id!r} again", "each province once")
            found[province.id] = province
        if len(found) + sum(len(p.coasts) for p in found.values()) > MAX_LOCATIONS:
            self.fail("provinces", "too many coasts", f"at most {MAX_LOCATIONS} locations")
        return tuple(found.values())

    def _province(self, key: str, row: Any, powers: Sequence[str]) -> Province:
        if not isinstance(row, Mapping):
            self.fail(key, f"got {row!r}"[:80], "an object")
        name, kind, home = row.get("id"), row.get("type"), row.get("home")
        if not isinstance(name, str) or not _ID.fullmatch(name):
            self.fail(f"{key}.id", f"got {name!r}"[:80], "2 to 8 capitals and digits")
        if not isinstance(row.get("name"), str):
            self.fail(f"{key}.name", f"got {row.get('name')!r}"[:80], "text")
        if not isinstance(kind, str) or kind not in _TYPES:
            self.fail(f"{key}.type", f"got {kind!r}"[:80], "land, sea or coast")
        if not isinstance(row.get("sc"), bool):
            self.fail(f"{key}.sc", f"got {row.get('sc')!r}"[:80], "true or false")
        if home is not None and (home not in powers or not row["sc"]):
            self.fail(f"{key}.home", f"got {home!r}"[:80], "null, or a power if there is a centre")
        coasts = row.get("coasts")
        if not isinstance(coasts, list) or not all(isinstance(c, str) for c in coasts):
            self.fail(f"{key}.coasts", f"got {coasts!r}"[:80], "a list of names")
            raise AssertionError
        coasts = [c.rpartition("/")[2] for c in coasts]
        if not all(_COAST.fullmatch(c) for c in coasts) or len(set(coasts)) != len(coasts):
            self.fail(f"{key}.coasts", f"got {coasts!r}"[:80], 'different names like "NC"')
        if coasts and kind != "coast":
            self.fail(f"{key}.coasts", f"got {coasts!r}", f"none in a province of type {kind}")
        home_power = None if home is None else list(powers).index(home)
        return Province(name, row["name"], _TYPES[str(kind)], row["sc"], home_power, tuple(coasts))

    def adjacency(self, key: str, index: Mapping[str, int], may: Any) -> tuple[tuple[int, ...], ...]:
        table = self.take(key, dict)
        rows: list[tuple[int, ...]] = [()] * len(index)
        for name, row in table.items():
            for other in (name, *(row if isinstance(row, list) else [row])):
                if not isinstance(other, str) or other not in index:
                    self.fail(f"{key}[{name!r}]", f"got {other!r}"[:80], "the id of a province or coast")
                if not may(other):
                    self.fail(f"{key}[{name!r}]", f"got {other!r}", "a place where such a unit can be")
            if len(set(row)) != len(row) or len(row) > MAX_NEIGHBOURS:
                self.fail(f"{key}[{name!r}]", f"got {len(row)} entries", f"at most {MAX_NEIGHBOURS}, each once")
            rows[index[name]] = tuple(index[other] for other in row)
        names = list(index)
        for a, others in enumerate(rows):
            for b in others:
                if a not in rows[b]:
                    self.fail(f"{key}[{names[b]!r}]", f"{names[a]!r} is missing", "a symmetric table")
        return tuple(rows)

    def units(self, board: Board) -> tuple[tuple[int, int, int], ...]:
        found, taken = [], set()
        for power, units in self.take("initial_units", dict).items():
            key = f"initial_units[{power!r}]"
            if power not in board.power_index or not isinstance(units, list):
                self.fail(key, f"got {units!r}"[:80], "a list for one of the powers")
            for text in units:
                words = text.split() if isinstance(text, str) else []
                if len(words) != 2 or words[0] not in ("A", "F") or words[1] not in board.location_index:
                    self.fail(key, f"got {text!r}"[:80], 'a unit like "A PAR"')
                kind, location = (ARMY if words[0] == "A" else FLEET), board.location_index[words[1]]
                province = int(board.province_of[location])
                if not board.can_stand(kind, location) or province in taken:
                    self.fail(key, f"got {text!r}", "a place for such a unit, one unit per province")
                taken.add(province)
                found.append((board.power_index[power], kind, location))
        return tuple(found)

    def owners(self, board: Board) -> NDArray[np.int64]:
        owners = np.full(len(board.provinces), -1)
        for power, names in self.take("initial_centers", dict).items():
            key = f"initial_centers[{power!r}]"
            if power not in board.power_index or not isinstance(names, list):
                self.fail(key, f"got {names!r}"[:80], "a list for one of the powers")
            for name in names:
                known = isinstance(name, str) and board.location_index.get(name, MAX_LOCATIONS) < len(board.provinces)
                if not known or not board.provinces[board.location_index[name]].center:
                    self.fail(key, f"got {name!r}"[:80], "a supply centre")
                if owners[board.location_index[name]] >= 0:
                    self.fail(key, f"got {name!r} again", "one owner per centre")
                owners[board.location_index[name]] = board.power_index[power]
        return owners

    def coordinates(self, coordinates: Any, names: Sequence[str]) -> None:
        points = coordinates.get("points") if isinstance(coordinates, Mapping) else None
        if not isinstance(points, Mapping):
            self.fail("coordinates", "no points", "{viewBox, points}")
            raise AssertionError
        box = str(coordinates.get("viewBox", "")).split()
        if len(box) != 4 or not all(re.fullmatch(r"-?\d+(\.\d+)?", part) for part in box):
            self.fail("coordinates.viewBox", f"got {coordinates.get('viewBox')!r}"[:80], 'text like "0 0 1835 1360"')
        for name in names:
            point = points.get(name)
            unit = point.get("unit") if isinstance(point, Mapping) else None
            numbers = isinstance(unit, list) and len(unit) == 2 and all(isinstance(x, (int, float)) for x in unit)
            if not numbers:
                self.fail(f"coordinates.points[{name!r}]", f"got {point!r}"[:80], "{unit: [x, y], ...}")
