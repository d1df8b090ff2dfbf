"""Files of test vectors: positions, orders and what a right adjudicator makes of them, checked one by one.

A file is JSON, ``{"vectors": [...]}`` or a list, or JSON lines, one vector a line; either may be gzipped. A vector:

| key | content |
|---|---|
| ``id`` | a name |
| ``before`` | the position, in the JSON form of :mod:`mlbits.envs.diplomacy.position` |
| ``orders`` | {power: [texts]} |
| ``ignored`` | {power: [texts]}: orders that are not allowed and therefore told nothing of; optional |
| ``results`` | {unit: names}, none for success; adjustments: ok or void |
| ``after`` | the next position, and ``destroyed``: [units] where there are any, ``outcome`` where the game is over |
| ``deviation`` | why the vector is not counted; optional |

What is on the board counts: units, dislodged units and their attackers, centres, phase, retreats (by ``retreats_rules``
where it is there), units destroyed, what was built. Results, which are names for how it came about, are compared too
and told apart: adjudicators name the same fate otherwise (is a support void that was also attacked?), and a fault of
the source that moved nothing is in its results all the same. ``results=True`` counts them with the rest.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from mlbits.envs.core.errors import GameError
from mlbits.envs.diplomacy.board import Board, load_board
from mlbits.envs.diplomacy.codes import ADJUSTMENTS, FATE_NAMES, VOID
from mlbits.envs.diplomacy.orders import Order
from mlbits.envs.diplomacy.position import Position
from mlbits.envs.diplomacy.records import check_rules
from mlbits.envs.diplomacy.report import Adjudication, adjudicate

_BITS = {name: bit for bit, name in FATE_NAMES.items()}
PHASE_TYPES = {"M": "movement", "R": "retreats", "A": "adjustments"}


@dataclass(frozen=True, slots=True)
class VectorReport:
    """How a file of vectors went.

    Attributes:
        agree: vectors that agree, by the letter of their phase: M, R, A.
        counted: vectors that count, by the same.
        differences: (id and phase, what differs) of each that counts and differs.
        deviations: (id and phase, its deviation, what differs) of each that does not count.
        told: results compared, in vectors that count.
        told_otherwise: (id and phase, what differs) where results differ and are not counted.
    """

    agree: Mapping[str, int]
    counted: Mapping[str, int]
    differences: tuple[tuple[str, tuple[str, ...]], ...]
    deviations: tuple[tuple[str, str, tuple[str, ...]], ...]
    told: int
    told_otherwise: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def good(self) -> bool:
        """Whether nothing that counts differs."""
        return not self.differences

    def text(self) -> str:
        """For people: each difference, each deviation, how many of how many agree."""
        lines = [f"{name}, told otherwise: {line}" for name, found in self.told_otherwise for line in found]
        lines += [f"{name}: {line}" for name, found in self.differences for line in found]
        for name, why, found in self.deviations:
            lines.append(f"{name}, not counted ({why}): {'; '.join(found) or 'agrees'}")
        for letter, name in PHASE_TYPES.items():
            if self.counted[letter]:
                lines.append(f"{name}: {self.agree[letter]} of {self.counted[letter]} agree")
        if self.deviations:
            same = sum(not found for *_, found in self.deviations)
            lines.append(f"not counted: {len(self.deviations)} with a deviation, of which {same} agree")
        otherwise = sum(len(found) for _, found in self.told_otherwise)
        lines.append(f"results: {self.told - otherwise} of {self.told} told alike")
        return "\n".join([*lines, f"all: {sum(self.agree.values())} of {sum(self.counted.values())} agree"])


def check_vectors(
    path: str | Path, rules: str = "datc-2.4", board: Board | None = None, *, results: bool = False
) -> VectorReport:
    """Adjudicate every vector of a file and compare.

    Args:
        path: the file.
        rules: "datc-2.4" or "datc-3.0".
        board: the map; None is the standard one.
        results: whether a vector whose results alone differ counts as different.

    Raises:
        GameError: for a file that cannot be read, or is no file of vectors; naming line and field.
    """
    check_rules(rules)
    board = load_board() if board is None else board
    agree, counted = dict.fromkeys(PHASE_TYPES, 0), dict.fromkeys(PHASE_TYPES, 0)
    differences, deviations, otherwise, told = [], [], [], 0
    for vector in read_vectors(path, board):
        letter = vector.before.phase_name[-1]
        outcome = adjudicate(vector.before, vector.orders, rules)
        found, named = tuple(_differences(vector, outcome)), tuple(_results(vector, outcome))
        name = f"{vector.id} {vector.before.phase_name}"
        if vector.deviation is not None:
            deviations.append((name, vector.deviation, found))
            continue
        told += len(vector.results)
        if results:
            found += named
        elif named:
            otherwise.append((name, named))
        counted[letter] += 1
        agree[letter] += not found
        if found:
            differences.append((name, found))
    return VectorReport(agree, counted, tuple(differences), tuple(deviations), told, tuple(otherwise))


@dataclass(frozen=True, slots=True)
class Vector:
    """One vector, read.

    Attributes:
        id: its name.
        before: the position.
        orders: by power.
        ignored: provinces of units whose order is not allowed, of which results tell nothing.
        results: expected names by unit.
        after: the expected position.
        destroyed: names of the units expected to be taken off the board.
        deviation: why it does not count, or None.
    """

    id: str
    before: Position
    orders: Mapping[str, list[str]]
    ignored: frozenset[int]
    results: Mapping[str, list[str]]
    after: Position
    destroyed: tuple[str, ...] = ()
    deviation: str | None = None
    over: bool = field(default=False)


def read_vectors(path: str | Path, board: Board) -> Iterator[Vector]:
    """Read a file of vectors.

    Raises:
        GameError: naming the line (of JSON lines) or number of the vector, and the field.
    """
    path = Path(path)
    for where, form in _forms(path):
        try:
            yield _vector(form, board)
        except GameError as error:
            raise GameError(f"{path.name}, {where}: {error}") from error


def movement_phases(path: str | Path, board: Board) -> list[tuple[Position, dict[int, Order]]]:
    """Positions of a file's movement phases with the orders that count, by province."""
    phases = []
    for vector in read_vectors(path, board):
        if vector.before.phase_name.endswith("M"):
            told = [f.order for f in adjudicate(vector.before, vector.orders).fates if f.order is not None]
            phases.append((vector.before, {int(board.province_of[order.location]): order for order in told}))
    return phases


def _forms(path: Path) -> Iterator[tuple[str, Any]]:
    """The objects of the file and where each stands."""
    text = _text(path)
    first = text.lstrip().partition("\n")[0]
    try:
        lines = isinstance(json.loads(first), dict) and "before" in json.loads(first)
    except (ValueError, RecursionError):
        lines = False
    if lines:
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield f"line {number}", _json(path, line, number)
        return
    content = _json(path, text, 1)
    if isinstance(content, Mapping):
        content = content.get("vectors")
    if not isinstance(content, list):
        raise GameError(f'{path.name}: got no vectors; wanted {{"vectors": [...]}}, a list or JSON lines')
    for number, form in enumerate(content):
        yield f"vectors[{number}]", form


def _json(path: Path, text: str, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        at = f"line {line + error.lineno - 1}, column {error.colno}"
        raise GameError(f"{path.name}, {at}: {error.msg}; wanted JSON") from error
    except (ValueError, RecursionError) as error:
        raise GameError(f"{path.name}, line {line}: {str(error)[:80]}; wanted plain JSON") from error


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise GameError(f"{path}: cannot be read ({reason}); wanted a file of vectors") from error
    if raw[:2] == b"\x1f\x8b":
        done = io.BytesIO()
        try:
            with gzip.open(io.BytesIO(raw)) as stream:
                while piece := stream.read(1 << 16):
                    done.write(piece)
            raw = done.getvalue()
        except (EOFError, OSError, zlib.error) as error:
            line = done.getvalue().count(b"\n") + 1
            raise GameError(f"{path.name}, line {line}: {error}; wanted a whole gzip file") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise GameError(f"{path.name}, line {line}: {error.reason}; wanted UTF-8") from error


def _fail(key: str, got: object, wanted: str) -> NoReturn:
    raise GameError(f"{key}: got {got!r}"[:160] + f"; wanted {wanted}")


def _vector(form: Any, board: Board) -> Vector:
    if not isinstance(form, Mapping):
        _fail("vector", form, "an object")
    name, deviation = form.get("id"), form.get("deviation")
    if not isinstance(name, str):
        _fail("id", name, "text")
    for key in ("before", "orders", "results", "after"):
        if not isinstance(form.get(key), Mapping):
            _fail(key, form.get(key), "an object")
    before, after = _position("before", form["before"], board), form["after"]
    over = "outcome" in after
    if over:
        after = {**after, "phase": before.phase_name}
    destroyed = after.get("destroyed", [])
    if not isinstance(destroyed, list) or not all(isinstance(unit, str) for unit in destroyed):
        _fail("after, destroyed", destroyed, "a list of units")
    results = _texts("results", form["results"])
    for unit, names in results.items():
        if unit != "WAIVE" and _province(unit, board) is None:
            _fail("results", unit, 'a unit like "A PAR"')
        for word in names:
            if word not in _BITS and word != "ok":
                _fail(f"results[{unit!r}]", word, f"one of ok, {', '.join(_BITS)}")
    orders = _texts("orders", form["orders"])
    for power in orders:
        if power not in board.power_index:
            _fail("orders", power, f"one of {', '.join(board.powers)}")
    ignored = _texts("ignored", form.get("ignored", {}))
    provinces = {_province(" ".join(text.split()[:2]), board) for texts in ignored.values() for text in texts}
    return Vector(
        id=name,
        before=before,
        orders=orders,
        ignored=frozenset(p for p in provinces if p is not None),
        results=results,
        after=_position("after", after, board),
        destroyed=tuple(sorted(destroyed)),
        deviation=None if deviation is None else ", ".join(map(str, deviation)) if isinstance(deviation, list)
        else str(deviation),
        over=over,
    )  # fmt: skip


def _position(key: str, form: Any, board: Board) -> Position:
    try:
        return Position.from_json(form, board)
    except GameError as error:
        raise GameError(f"{key}: {error}") from error


def _texts(key: str, table: Any) -> dict[str, list[str]]:
    if not isinstance(table, Mapping):
        _fail(key, table, "an object of lists")
    for name, row in table.items():
        if not isinstance(row, list) or not all(isinstance(text, str) for text in row):
            _fail(f"{key}[{name!r}]", row, "a list of texts")
    return dict(table)


def _province(unit: str, board: Board) -> int | None:
    words = unit.split()
    if len(words) != 2 or words[0] not in ("A", "F") or words[1] not in board.location_index:
        return None
    return int(board.province_of[board.location_index[words[1]]])


def _differences(vector: Vector, told: Adjudication) -> Iterator[str]:
    """What differs, in the order in which it is to be looked at."""
    got, wanted = told.after.to_json(), vector.after.to_json()
    if vector.over:
        wanted["phase"] = got["phase"]
    for key in ("phase", "units", "centers"):
        yield from _table(key, got[key], wanted[key])
    out = [
        {unit: (row["power"], row["from"]) for unit, row in form.get("dislodged", {}).items()} for form in (got, wanted)
    ]
    yield from _table("dislodged", *out)
    retreats = [{unit: row["retreats"] for unit, row in form.get("dislodged", {}).items()} for form in (got, wanted)]
    yield from _table("retreats", *retreats)
    if vector.before.phase == ADJUSTMENTS:
        yield from _adjustments(vector, told)
        return
    destroyed = tuple(sorted(vector.before.unit_name(unit) for unit in told.destroyed))
    yield from _table("destroyed", {"units": destroyed}, {"units": vector.destroyed})


def _table(key: str, got: Any, wanted: Any) -> Iterator[str]:
    if not isinstance(got, Mapping):
        got, wanted = {"": got}, {"": wanted}
    for name in sorted(got.keys() | wanted.keys()):
        if got.get(name) != wanted.get(name):
            yield f"{key}{f' {name}' if name else ''}: got {got.get(name)}, wanted {wanted.get(name)}"


def _results(vector: Vector, told: Adjudication) -> Iterator[str]:
    """Results of units; those whose order was dropped as not allowed are not void in the vectors."""
    if vector.before.phase == ADJUSTMENTS:
        return
    names = {vector.before.unit_name(unit): p for p, unit in vector.before.units.items()}
    names |= {vector.before.unit_name(out.unit): p for p, out in vector.before.dislodged.items()}
    provinces = {p: name for name, p in names.items()}
    wanted = {}
    for unit, words in vector.results.items():
        if unit in names:
            wanted[names[unit]] = sum(_BITS[word] for word in set(words) if word in _BITS)
    for p in sorted(told.unit_fates.keys() | wanted.keys()):
        got = told.unit_fates.get(p, 0)
        if p in vector.ignored:
            got &= ~VOID
        if got != wanted.get(p, 0):
            yield f"result of {provinces.get(p, p)}: got {_say(got)}, wanted {_say(wanted.get(p, 0))}"


def _say(bits: int) -> str:
    return ", ".join(name for bit, name in FATE_NAMES.items() if bits & bit) or "success"


def _adjustments(vector: Vector, told: Adjudication) -> Iterator[str]:
    """Which units are ok: built, or disbanded. A void WAIVE moves nothing."""
    for unit, words in vector.results.items():
        p = _province(unit, vector.before.board)
        if p is not None:
            got = (p in told.before.units) != (p in told.after.units)
            if got != ("ok" in words):
                yield f"result of {unit}: got {'ok' if got else 'void'}, wanted {', '.join(words)}"
