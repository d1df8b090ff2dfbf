"""Test vectors: positions, orders and the expected results, to check an adjudicator against.

A file is JSON, ``{"vectors": [...]}`` or a list, or JSON lines, one vector per line; it may be gzipped. A vector:

| key | content |
|---|---|
| ``id`` | a name |
| ``before`` | the position, in the JSON form of :mod:`mlbits.envs.diplomacy.position` |
| ``orders`` | {power: [texts]} |
| ``ignored`` | {power: [texts]}: orders that are not allowed, so that results do not mention them; optional |
| ``results`` | {unit: names}, none for success; adjustments: ok or void |
| ``after`` | the next position, and ``destroyed``: [units] if there are any, ``outcome`` if the game is over |
| ``deviation`` | why the vector is not counted; optional |

What is on the board counts: units, dislodged units and their attackers, centres, phase, retreats (by ``retreats_rules``
if present), destroyed units, and what was built. Results, which are names of how it came about, are compared as well
but reported separately: adjudicators name the same fate differently (is a support void that was also attacked?), and
an error of the source that moved no unit still shows in its results. ``results=True`` counts them with the rest.
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
from mlbits.envs.core.plain_json import read_json
from mlbits.envs.diplomacy.board import Board, load_board
from mlbits.envs.diplomacy.codes import ADJUSTMENTS, FATE_NAMES, VOID
from mlbits.envs.diplomacy.orders import Order
from mlbits.envs.diplomacy.position import Position
from mlbits.envs.diplomacy.records import check_rules
from mlbits.envs.diplomacy.report import Adjudication, adjudicate

MOST_UNPACKED = 32 * 2**20  # bytes that a gzip file may unpack to
_BITS = {name: bit for bit, name in FATE_NAMES.items()}
PHASE_TYPES = {"M": "movement", "R": "retreats", "A": "adjustments"}


@dataclass(frozen=True, slots=True)
class VectorReport:
    """The result of checking a file of vectors.

    Attributes:
        agree: number of vectors that agree, by the letter of their phase: M, R, A.
        counted: number of vectors that count, by the same letters.
        differences: (id and phase, what differs) of each vector that counts and differs.
        deviations: (id and phase, its deviation, what differs) of each vector that does not count.
        results: number of results compared, in vectors that count.
        result_differences: (id and phase, what differs) where results differ and are not counted.
    """

    agree: Mapping[str, int]
    counted: Mapping[str, int]
    differences: tuple[tuple[str, tuple[str, ...]], ...]
    deviations: tuple[tuple[str, str, tuple[str, ...]], ...]
    results: int
    result_differences: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def good(self) -> bool:
        """Whether no vector that counts differs."""
        return not self.differences

    def text(self) -> str:
        """A report in words: differences, deviations, and how many vectors agree."""
        lines = [f"{name}, other result: {line}" for name, found in self.result_differences for line in found]
        lines += [f"{name}: {line}" for name, found in self.differences for line in found]
        for name, why, found in self.deviations:
            lines.append(f"{name}, not counted ({why}): {'; '.join(found) or 'agrees'}")
        for letter, name in PHASE_TYPES.items():
            if self.counted[letter]:
                lines.append(f"{name}: {self.agree[letter]} of {self.counted[letter]} agree")
        if self.deviations:
            same = sum(not found for *_, found in self.deviations)
            lines.append(f"not counted: {len(self.deviations)} with a deviation, of which {same} agree")
        other = sum(len(found) for _, found in self.result_differences)
        lines.append(f"results: {self.results - other} of {self.results} agree")
        return "\n".join([*lines, f"all: {sum(self.agree.values())} of {sum(self.counted.values())} agree"])


def check_vectors(
    path: str | Path, rules: str = "datc-2.4", board: Board | None = None, *, results: bool = False
) -> VectorReport:
    """Adjudicate every vector of a file and compare with the expected results.

    Args:
        path: the file.
        rules: "datc-2.4" or "datc-3.0".
        board: the map; None means the standard one.
        results: whether a vector that differs only in its results counts as different.

    Raises:
        GameError: for a file that cannot be read, or is not a file of vectors; naming line and field.
    """
    check_rules(rules)
    board = load_board() if board is None else board
    agree, counted = dict.fromkeys(PHASE_TYPES, 0), dict.fromkeys(PHASE_TYPES, 0)
    differences, deviations, result_differences, compared = [], [], [], 0
    for vector in read_vectors(path, board):
        letter = vector.before.phase_name[-1]
        outcome = adjudicate(vector.before, vector.orders, rules)
        found, named = tuple(_differences(vector, outcome)), tuple(_results(vector, outcome))
        name = f"{vector.id} {vector.before.phase_name}"
        if vector.deviation is not None:
            deviations.append((name, vector.deviation, found))
            continue
        compared += len(vector.results)
        if results:
            found += named
        elif named:
            result_differences.append((name, named))
        counted[letter] += 1
        agree[letter] += not found
        if found:
            differences.append((name, found))
    return VectorReport(agree, counted, tuple(differences), tuple(deviations), compared, tuple(result_differences))


@dataclass(frozen=True, slots=True)
class Vector:
    """One parsed vector.

    Attributes:
        id: its name.
        before: the position.
        orders: orders by power.
        ignored: provinces of units whose order is not allowed; results do not mention that.
        results: expected names of fates by unit.
        after: the expected position.
        destroyed: names of the units expected to be removed from the board.
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
        GameError: naming the line (in JSON lines) or index of the vector, and the field.
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
            orders = [f.order for f in adjudicate(vector.before, vector.orders).fates if f.order is not None]
            phases.append((vector.before, {int(board.province_of[order.location]): order for order in orders}))
    return phases


def _forms(path: Path) -> Iterator[tuple[str, Any]]:
    """The file's objects, each with its place in the file."""
    text = _text(path)
    first = text.lstrip().partition("\n")[0]
    try:
        form = read_json(first)
        lines = isinstance(form, dict) and "before" in form
    except ValueError:
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
        return read_json(text)
    except json.JSONDecodeError as error:
        at = f"line {line + error.lineno - 1}, column {error.colno}"
        raise GameError(f"{path.name}, {at}: {error.msg}; wanted JSON") from error
    except ValueError as error:
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
                    if done.tell() > MOST_UNPACKED:
                        raise GameError(
                            f"{path.name}: its {len(raw):,} bytes unpack to more than {MOST_UNPACKED:,}; wanted fewer, "
                            "or the unpacked file"
                        )
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


def _differences(vector: Vector, result: Adjudication) -> Iterator[str]:
    """What differs on the board, most important first."""
    got, wanted = result.after.to_json(), vector.after.to_json()
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
        yield from _adjustments(vector, result)
        return
    destroyed = tuple(sorted(vector.before.unit_name(unit) for unit in result.destroyed))
    yield from _table("destroyed", {"units": destroyed}, {"units": vector.destroyed})


def _table(key: str, got: Any, wanted: Any) -> Iterator[str]:
    if not isinstance(got, Mapping):
        got, wanted = {"": got}, {"": wanted}
    for name in sorted(got.keys() | wanted.keys()):
        if got.get(name) != wanted.get(name):
            yield f"{key}{f' {name}' if name else ''}: got {got.get(name)}, wanted {wanted.get(name)}"


def _results(vector: Vector, result: Adjudication) -> Iterator[str]:
    """Differing results of units; in the vectors, orders dropped as not allowed are not void."""
    if vector.before.phase == ADJUSTMENTS:
        return
    names = {vector.before.unit_name(unit): p for p, unit in vector.before.units.items()}
    names |= {vector.before.unit_name(out.unit): p for p, out in vector.before.dislodged.items()}
    provinces = {p: name for name, p in names.items()}
    wanted = {}
    for unit, words in vector.results.items():
        if unit in names:
            wanted[names[unit]] = sum(_BITS[word] for word in set(words) if word in _BITS)
    for p in sorted(result.unit_fates.keys() | wanted.keys()):
        got = result.unit_fates.get(p, 0)
        if p in vector.ignored:
            got &= ~VOID
        if got != wanted.get(p, 0):
            yield f"result of {provinces.get(p, p)}: got {_say(got)}, wanted {_say(wanted.get(p, 0))}"


def _say(bits: int) -> str:
    return ", ".join(name for bit, name in FATE_NAMES.items() if bits & bit) or "success"


def _adjustments(vector: Vector, result: Adjudication) -> Iterator[str]:
    """Differences in which units were built or disbanded (ok). A void WAIVE changes nothing."""
    for unit, words in vector.results.items():
        p = _province(unit, vector.before.board)
        if p is not None:
            got = (p in result.before.units) != (p in result.after.units)
            if got != ("ok" in words):
                yield f"result of {unit}: got {'ok' if got else 'void'}, wanted {', '.join(words)}"
