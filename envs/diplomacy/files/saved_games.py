"""Saved games: reads and writes whole games in the JSON format of the ``diplomacy`` package.

A game is an object ``{id, map, rules, phases: [{name, state, orders, results, messages}]}``; a file is one game, or
one game per line. The last phase is the current state of the game, named "COMPLETED" if it is over; it has no results,
and only orders that were already given. From ``state`` we read ``name``, ``note``, ``units`` (dislodged ones with a
star), ``retreats`` and ``centers``. What the format lacks, the province an attacker came from (and in version 1.0 of
the package the ``retreats``), is derived from the previous phase's orders and results. Everything else is kept as it is
(:attr:`PlayedPhase.saved`) and written back, so reading and writing a game leaves it unchanged. If there is
nothing to write back, ``influence`` lists the provinces a power's units visited last, ``zobrist_hash`` is "0" and
``timestamp`` is the index of the phase.

A unit that is dislodged without a place to retreat is destroyed at once. The package reports this in the results of
the next phase if that is one of retreats or adjustments, as ``"A TRI": ["disband"]``, when the unit is no longer on the
board; another ``A TRI`` may be there, namely the one that dislodged it. Such a result is not a fate of a unit in that
phase, and is only kept.

>>> from mlbits.envs.diplomacy.report import adjudicate
>>> from mlbits.envs.diplomacy.board import load_board
>>> from mlbits.envs.diplomacy.position import first_position
>>> result = adjudicate(first_position(load_board()), {"FRANCE": ["A PAR - BUR"]})
>>> game = GameRecord.of([result], id="example")
>>> game_to_json(game)["phases"][0]["results"]["A PAR"]
[]
>>> game_from_json(game_to_json(game)).phases[1].position.phase_name
'F1901M'
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from mlbits.envs.core.errors import GameError
from mlbits.envs.core.plain_json import read_json_at
from mlbits.envs.diplomacy.board import Board, load_board
from mlbits.envs.diplomacy.codes import (
    ADJUSTMENTS,
    FALL_RETREATS,
    FATE_NAMES,
    SPRING_RETREATS,
    UNIT_LETTERS,
    VOID,
)
from mlbits.envs.diplomacy.files.played_phase import PlayedPhase
from mlbits.envs.diplomacy.files.saved_results import fates_of, order_of, with_attackers, with_retreats
from mlbits.envs.diplomacy.position import Position, read_phase
from mlbits.envs.diplomacy.report import Adjudication

OVER = "COMPLETED"
_SPACE = re.compile(r"\s*")
_OURS = frozenset({"name", "units", "retreats", "centers", "game_id", "map", "rules"})  # written from the record
_AFTER = {"S": "F{year}M", "F": "W{year}A", "W": "S{next}M"}


@dataclass(frozen=True, slots=True)
class GameRecord:
    """A recorded game.

    Attributes:
        board: the map.
        phases: the phases in order; the last one is the current state of the game.
        id: name of the game.
        rules: rules as named by the ``diplomacy`` package.
        note: a note on how it ended.
        over: whether it is over.
        map_name: name of the board.
    """

    board: Board
    phases: tuple[PlayedPhase, ...]
    id: str = "game"
    rules: tuple[str, ...] = ("NO_PRESS",)
    note: str = ""
    over: bool = False
    map_name: str = "standard"

    @staticmethod
    def of(results: Sequence[Adjudication], **details: Any) -> GameRecord:
        """The record of consecutive adjudicated phases; ``details`` are further attributes."""
        if not results:
            raise GameError("record: got no phases; wanted one or more")
        phases = []
        for phase in results:
            orders: dict[str, list[str]] = {}
            for fate in phase.fates:
                orders.setdefault(fate.power, []).append(fate.text)
            phases.append(PlayedPhase(phase.before, {p: tuple(texts) for p, texts in orders.items()}, phase.unit_fates))
        return GameRecord(results[0].before.board, (*phases, PlayedPhase(results[-1].after)), **details)


def save_games(path: str | Path, games: Iterable[GameRecord]) -> None:
    """Write games, one per line, as ``diplomacy.utils.export.load_saved_games_from_disk`` reads them."""
    Path(path).write_text("".join(json.dumps(game_to_json(game)) + "\n" for game in games), encoding="utf-8")


def load_games(path: str | Path, board: Board | None = None) -> tuple[GameRecord, ...]:
    """Read a file of games: one object, or one per line.

    Args:
        path: the file.
        board: the map, if it is not the standard one.

    Raises:
        GameError: naming the line, column and field.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise GameError(f"{path.name}: {error.reason} at byte {error.start}; wanted UTF-8") from error
    except (OSError, ValueError) as error:
        raise GameError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    return read_games(text, board, path.name)


def read_games(text: str, board: Board | None = None, name: str = "game") -> tuple[GameRecord, ...]:
    """Read games from text in this format; ``name`` is used in messages.

    Raises:
        GameError: naming the line, column and field.
    """
    at = 0
    games: list[GameRecord] = []
    while (at := _SPACE.match(text, at).end()) < len(text):  # type: ignore[union-attr]
        line = text.count("\n", 0, at) + 1
        try:
            form, at = read_json_at(text, at)
        except json.JSONDecodeError as error:
            where = f"line {error.lineno}, column {error.colno}"
            raise GameError(f"{name}, {where}: {error.msg}; wanted a whole game in JSON") from error
        except ValueError as error:
            raise GameError(f"{name}, line {line}: {str(error)[:80]}; wanted plain JSON") from error
        try:
            games.append(game_from_json(form, board))
        except GameError as error:
            raise GameError(f"{name}, line {line}: {error}") from error
    if not games:
        raise GameError(f"{name}: got no game; wanted at least one")
    return tuple(games)


def game_to_json(game: GameRecord) -> dict[str, Any]:
    """A game in the format of the ``diplomacy`` package's ``to_saved_game_format``."""
    board, phases = game.board, []
    seen: dict[int, int] = {}
    for number, phase in enumerate(game.phases):
        position, last = phase.position, number == len(game.phases) - 1
        over = last and game.over
        name = OVER if over else position.phase_name
        seen |= {p: unit.power for p, unit in position.units.items()}
        state = {
            "timestamp": number,
            "zobrist_hash": "0",
            "note": "",
            **_state(position, seen, over),
            **phase.saved.get("state", {}),
            "name": name,
            "game_id": game.id,
            "map": game.map_name,
            "rules": list(game.rules),
        }
        if last:
            state["note"] = game.note
        none: list[str] | None = None if last else []
        orders = {power: list(phase.orders[power]) if power in phase.orders else none for power in board.powers}
        results = {} if last or phase.fates is None else _results(phase)
        rest = {"results": results, "messages": []} | {k: v for k, v in phase.saved.items() if k != "state"}
        phases.append({"name": name, "state": state, "orders": orders, **rest})
    return {"id": game.id, "map": game.map_name, "rules": list(game.rules), "phases": phases}


def _state(position: Position, seen: Mapping[int, int], over: bool) -> dict[str, Any]:
    board = position.board
    fields: dict[str, dict[str, Any]] = {
        key: {} for key in ("units", "retreats", "centers", "homes", "influence", "civil_disorder", "builds")
    }
    due = position.adjustments() if position.phase == ADJUSTMENTS and not over else {}
    for number, power in enumerate(board.powers):
        units = [position.unit_name(unit) for unit in position.units.values() if unit.power == number]
        out = {
            position.unit_name(d.unit): [board.locations[place] for place in d.retreats]
            for d in position.dislodged.values()
            if d.unit.power == number
        }
        homes = [p for p, province in enumerate(board.provinces) if province.home == number]
        free = [p for p in homes if position.centers.get(p) == number and p not in position.units]
        count = due.get(number, 0)
        fields["units"][power] = sorted(units) + [f"*{unit}" for unit in out]
        fields["retreats"][power] = out
        fields["centers"][power] = sorted(
            board.provinces[p].id for p, owner in position.centers.items() if owner == number
        )
        fields["homes"][power] = [board.provinces[p].id for p in homes]
        fields["influence"][power] = sorted(board.provinces[p].id for p, owner in seen.items() if owner == number)
        fields["civil_disorder"][power] = 0
        fields["builds"][power] = {
            "count": min(count, len(free)),
            "homes": [board.provinces[p].id for p in free] if count > 0 else [],
        }
    return fields


def _results(phase: PlayedPhase) -> dict[str, list[str]]:
    """Names of fates by unit; in adjustments "" for success, as the package writes it."""
    position = phase.position
    results = {}
    for p, bits in (phase.fates or {}).items():
        out = position.dislodged.get(p)
        unit = out.unit if out is not None else position.units.get(p)
        if position.phase == ADJUSTMENTS:
            name = position.unit_name(unit) if unit is not None else _built(phase, p)
            results[name] = ["void" if bits & VOID else ""]
        elif unit is not None:
            results[position.unit_name(unit)] = [word for bit, word in FATE_NAMES.items() if bits & bit]
    return dict(sorted(results.items()))


def _built(phase: PlayedPhase, province: int) -> str:
    """Name of the unit that was ordered to be built in a province."""
    board = phase.position.board
    for texts in phase.orders.values():
        for text in texts:
            order = order_of(text, phase.position)
            if order is not None and order.location >= 0 and board.province_of[order.location] == province:
                return f"{UNIT_LETTERS[order.unit]} {board.locations[order.location]}"
    return f"A {board.provinces[province].id}"


def game_from_json(form: Any, board: Board | None = None) -> GameRecord:
    """Read a game from its JSON form.

    Args:
        form: the JSON object.
        board: the map, if it is not the standard one.

    Raises:
        GameError: naming the field.
    """
    if not isinstance(form, Mapping):
        _fail("game", form, "an object")
    name, map_name = _text(form, "id", "game"), _text(form, "map", "standard")
    if board is None:
        if map_name != "standard":
            _fail("map", map_name, '"standard", or the board as an argument')
        board = _standard_board()
    rules, rows = form.get("rules", []), form.get("phases")
    if not isinstance(rules, list) or not all(isinstance(rule, str) for rule in rules):
        _fail("rules", rules, "a list of texts")
    if not isinstance(rows, list) or not rows:
        _fail("phases", rows, "a list of one or more")
    phases: list[PlayedPhase] = []
    note = ""
    for number, row in enumerate(rows):
        key = f"phases[{number}]"
        if not isinstance(row, Mapping) or not isinstance(row.get("state"), Mapping):
            _fail(key, row, "an object with a state")
        final = number == len(rows) - 1
        note = _text(row["state"], "note", "") if final else ""
        try:
            phases.append(_phase(row, board, phases[-1] if phases else None, final))
        except GameError as error:
            raise GameError(f"{key}, {error}") from error
    over = rows[-1]["state"].get("name") == OVER
    return GameRecord(board, tuple(phases), name, tuple(rules), note, over, map_name)


@cache
def _standard_board() -> Board:
    """One board for all games, since positions are equal only on the same board."""
    return load_board()


def _phase(row: Mapping[str, Any], board: Board, before: PlayedPhase | None, final: bool) -> PlayedPhase:
    state = row["state"]
    name = state.get("name", row.get("name"))
    if name == OVER and final:
        name = _phase_after(before.position.phase_name if before is not None else f"W{board.first_year - 1}A")
    if row.get("name", state.get("name")) not in (name, OVER):
        _fail("name", row["name"], f"the name of the state, {name!r}")
    _, phase = read_phase(name)
    if before is not None and read_phase(name) <= (before.position.year, before.position.phase):
        _fail("name", name, f"a phase after {before.position.phase_name}")
    units, starred = _units(state, board)
    if starred and phase not in (SPRING_RETREATS, FALL_RETREATS):
        _fail("state.units", f"*{min(starred)}", f"no dislodged units in {name}")
    out = _retreats(state, starred, before)
    form = {"phase": name, "units": units, "centers": _lists(state, "centers", board), "dislodged": out}
    position = with_attackers(Position.from_json(form, board), before)
    if state.get("retreats") is None:  # as version 1.0 of the package writes
        position = with_retreats(position, before)
    given = row.get("orders") or {}
    orders = {
        power: tuple(texts)
        for power, texts in _lists(row, "orders", board).items()
        if texts or (final and given[power] is not None)
    }
    results, messages = row.get("results") or {}, row.get("messages") or []
    if not isinstance(messages, list):
        _fail("messages", messages, "a list")
    fates = fates_of(results, position, before)
    kept = {key: value for key, value in state.items() if key not in _OURS and not (final and key == "note")}
    saved = {"state": kept, "results": results, "messages": messages}
    return PlayedPhase(position, orders, None if final and not results else fates, saved)


def _phase_after(name: str) -> str:
    year = int(name[1:-1])
    return _AFTER[name[0]].format(year=year, next=year + 1)


def _units(state: Mapping[str, Any], board: Board) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Units by power, and the powers of starred units, which have to retreat."""
    starred: dict[str, str] = {}
    table = _lists(state, "units", board)
    for power, names in table.items():
        for unit in names:
            if unit.startswith("*"):
                if unit[1:] in starred:
                    _fail(f"state.units[{power!r}]", unit, "each unit once")
                starred[unit[1:]] = power
    return {power: [unit for unit in names if not unit.startswith("*")] for power, names in table.items()}, starred


def _retreats(
    state: Mapping[str, Any], starred: Mapping[str, str], before: PlayedPhase | None
) -> dict[str, dict[str, Any]]:
    table = state.get("retreats")
    if table is None and before is not None:  # with_retreats then derives them from the phase before
        return {unit: {"power": power, "retreats": []} for unit, power in starred.items()}
    table = {} if table is None else table
    if not isinstance(table, Mapping):
        _fail("state.retreats", table, "an object")
    found: dict[str, dict[str, Any]] = {}
    for power, units in table.items():
        if not isinstance(units, Mapping):
            _fail(f"state.retreats[{power!r}]", units, "an object")
        for unit, places in units.items():
            if starred.get(unit) != power:
                _fail(f"state.retreats[{power!r}]", unit, "a unit of the power with a star in state.units")
            found[unit] = {"power": power, "retreats": places}
    for unit in starred.keys() - found.keys():
        _fail("state.retreats", f"nothing for {unit}", "where it may retreat to")
    return found


def _lists(table: Mapping[str, Any], key: str, board: Board) -> dict[str, list[str]]:
    """A table of lists of strings by power; null counts as an empty list."""
    value = table.get(key) or {}
    where = key if key == "orders" else f"state.{key}"
    if not isinstance(value, Mapping):
        _fail(where, value, "an object of lists")
    found = {}
    for power, row in value.items():
        if power not in board.power_index:
            _fail(where, power, f"one of {', '.join(board.powers)}")
        if row is not None and (not isinstance(row, list) or not all(isinstance(text, str) for text in row)):
            _fail(f"{where}[{power!r}]", row, "a list of texts")
        found[power] = list(row or ())
    return found


def _text(table: Mapping[str, Any], key: str, default: str) -> str:
    value = table.get(key, default)
    if not isinstance(value, str):
        _fail(key, value, "text")
    return value


def _fail(key: str, got: object, wanted: str) -> NoReturn:
    raise GameError(f"{key}: got {got!r}"[:160] + f"; wanted {wanted}")
