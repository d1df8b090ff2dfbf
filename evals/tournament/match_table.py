"""The stored match table: the players, seats and returns of every game, one line per game.

Payoff matrices, ratings and Nash mixtures are computed from it, and can be computed again. The file is append-only. Its
lines are JSON objects:

    {"table": "mlbits matches", "version": 1, "env": "mlbits/Blotto-v0", "env_settings": {}, "seats": 2}
    {"player": "runs/a", "hash": "5e8f..."}
    {"game": [0, 1], "returns": [1.0, -1.0]}

The first line names the environment; players are numbered 0, 1, ... in the order of their lines, each with a hash of
its content, so that a name never stands for two agents; a game lists the player in each seat.

Whenever a writer is stopped, the table is intact except for an incomplete last line. Readers ignore that line, and the
next writer removes it. Only one process may write at a time:
:func:`~mlbits.evals.tournament.tournament.play_tournament` sees to it.

Example:
    >>> writer = open_matches(Path("matches.jsonl"), "mlbits/Blotto-v0", seats=2)
    >>> writer.add_players({"runs/a": "5e8f...", "random": "random"})
    >>> writer.add_games([[0, 1], [1, 0]], [[1.0, -1.0], [0.0, 0.0]])
    >>> read_matches(Path("matches.jsonl")).seating.tolist()
    [[0, 1], [1, 0]]
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlbits.envs.core.errors import MlbitsError
from mlbits.envs.core.plain_json import read_json
from mlbits.selfplay.runs.checkpoints import make_folder, write_file

FORMAT = "mlbits matches"
VERSION = 1
MOST_SEATS = 1000


class MatchTableError(MlbitsError, ValueError):
    """A match table that cannot be read, written or added to."""


@dataclass(frozen=True, eq=False)
class MatchTable:
    """The contents of a match table.

    Attributes:
        env_settings: settings of the environment.
        env_settings: of the environment.
        seats: number of seats P of every game.
        players: the content hash of each player by name, in the order of their numbers.
        seating: the number of the player in each seat, int64 [G, P].
        returns: return of each seat, float64 [G, P].
    """

    env: str
    env_settings: dict[str, Any]
    seats: int
    players: dict[str, str]
    seating: NDArray[np.int64]
    returns: NDArray[np.float64]

    @property
    def names(self) -> tuple[str, ...]:
        """The players' names, by number."""
        return tuple(self.players)


def read_matches(path: Path) -> MatchTable:
    """Read a match table, ignoring an incomplete last line.

    Raises:
        MatchTableError: if the file cannot be read, or is damaged, naming the line and field.
    """
    return _parse(path, _whole_lines(_read(path)))


def open_matches(path: Path, env: str, env_settings: Mapping[str, Any] | None = None, *, seats: int) -> MatchWriter:
    """Start a match table, or continue one.

    Args:
        path: the file; if it exists, an incomplete last line is removed.
        env: id of the environment.
        env_settings: settings of the environment, as plain data.
        seats: number of seats P, at least 2.

    Raises:
        MatchTableError: if the file cannot be read or written, is damaged, or belongs to another game.
    """
    if seats < 2:
        raise MatchTableError(f"seats: got {seats}; wanted at least 2")
    wanted = {"table": FORMAT, "version": VERSION, "env": env, "env_settings": dict(env_settings or {}), "seats": seats}
    if not path.exists() or not _whole_lines(_read(path)):
        _write_whole(path, _line(wanted))
    data = _read(path)
    whole = _whole_lines(data)
    table = _parse(path, whole)
    for field, got in (("env", table.env), ("env_settings", table.env_settings), ("seats", table.seats)):
        plain = json.loads(json.dumps(wanted[field]))  # as JSON returns it: tuples become lists
        if got != plain:
            raise MatchTableError(f"{path}, line 1, {field}: got {got!r}; wanted {plain!r}, or another file")
    size = sum(map(len, whole))
    if size < len(data):
        _attempt(path, "cut", lambda: os.truncate(path, size))
    return MatchWriter(path, table)


class MatchWriter:
    """Appends to a match table; from :func:`open_matches`.

    Args:
        path: the file.
        table: its contents.
    """

    def __init__(self, path: Path, table: MatchTable) -> None:
        self.path, self.seats, self.players = path, table.seats, dict(table.players)

    def add_players(self, players: Mapping[str, str]) -> None:
        """Add players; those that are in the table already are skipped.

        Args:
            players: content hashes by name.

        Raises:
            MatchTableError: if a name is in the table with another hash, or the file cannot be written.
        """
        new = {}
        for name, content in players.items():
            if not (isinstance(name, str) and name and isinstance(content, str) and content):
                raise MatchTableError(f"players: got {name!r} with hash {content!r}; wanted a name and a hash")
            known = self.players.get(name, content)
            if known != content:
                raise MatchTableError(
                    f"players: {name} has the hash {content}, but {known} in {self.path}; wanted another name, or "
                    "another file"
                )
            if name not in self.players:
                new[name] = content
        self._append([{"player": name, "hash": content} for name, content in new.items()])
        self.players |= new

    def add_games(self, seating: ArrayLike, returns: ArrayLike) -> None:
        """Add games; they are synced to disk when this returns.

        Args:
            seating: the number of the player in each seat, [G, P].
            returns: return of each seat, [G, P].

        Raises:
            MatchTableError: if the shapes do not fit, a player is unknown, a return is not finite, or the file cannot
                be written; then none of the games is added.
        """
        who, earned = np.asarray(seating), np.asarray(returns, float)
        if who.ndim != 2 or who.shape[1] != self.seats or who.shape != earned.shape:
            raise MatchTableError(
                f"seating, returns: got shapes {who.shape}, {earned.shape}; wanted twice [G, {self.seats}]"
            )
        if len(who) == 0:
            return
        if not np.issubdtype(who.dtype, np.integer) or who.min() < 0 or who.max() >= len(self.players):
            raise MatchTableError(f"seating: got {who.min()} .. {who.max()}; wanted one of {len(self.players)} players")
        if not np.isfinite(earned).all():
            raise MatchTableError(f"returns: got {earned[~np.isfinite(earned)][0]}; wanted finite numbers")
        games = zip(who.tolist(), earned.tolist(), strict=True)
        self._append([{"game": seats, "returns": row} for seats, row in games])

    def _append(self, lines: list[dict[str, Any]]) -> None:
        if lines:
            _attempt(self.path, "written", lambda: _append_synced(self.path, b"".join(map(_line, lines))))


def _append_synced(path: Path, data: bytes) -> None:
    """Append to a file; if that fails, nothing is appended, except after a crash."""
    with path.open("r+b", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except BaseException:
            file.truncate(end)
            raise


def _write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is complete or absent."""

    def write() -> None:
        make_folder(path.parent)
        write_file(path, data)

    _attempt(path, "written", write)


def _attempt(path: Path, what: str, action: Any) -> None:
    try:
        action()
    except OSError as error:
        raise MatchTableError(f"{path} cannot be {what} ({error}); wanted a match table") from None


def _line(fields: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(fields, allow_nan=False, separators=(",", ":")).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise MatchTableError(f"{', '.join(fields)}: cannot be written as JSON ({error}); wanted plain data") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise MatchTableError(f"{path} cannot be read ({error}); wanted a match table") from None


def _whole_lines(data: bytes) -> list[bytes]:
    """Lines with their line ends, without an incomplete last one."""
    return [line + b"\n" for line in data.split(b"\n")[:-1]]


def _parse(path: Path, lines: list[bytes]) -> MatchTable:
    if not lines:
        raise MatchTableError(f"{path}, line 1: got nothing; wanted the table's header")
    env, settings, seats = _parse_head(path, _fields(path, 1, lines[0]))
    players: dict[str, str] = {}
    games: list[list[int]] = []
    returns: list[list[float]] = []
    for number, line in enumerate(lines[1:], 2):
        fields = _fields(path, number, line)
        if fields.keys() == {"player", "hash"}:
            for field, value in fields.items():
                if not (isinstance(value, str) and value):
                    raise _damage(path, number, field, value, "a text")
            if fields["player"] in players:
                raise _damage(path, number, "player", fields["player"], "a name that no earlier line has")
            players[fields["player"]] = fields["hash"]
        elif fields.keys() == {"game", "returns"}:
            who, earned = fields["game"], fields["returns"]
            if not _row(who, seats, (int,)) or not all(0 <= player < len(players) for player in who):
                raise _damage(path, number, "game", who, f"{seats} player numbers below {len(players)}")
            if not _row(earned, seats, (int, float)) or not all(math.isfinite(one) for one in earned):
                raise _damage(path, number, "returns", earned, f"{seats} finite numbers")
            games.append(who)
            returns.append(earned)
        else:
            raise _damage(path, number, "fields", sorted(fields), "player and hash, or game and returns")
    return MatchTable(
        env, settings, seats, players,
        np.array(games, np.int64).reshape(-1, seats), np.array(returns, float).reshape(-1, seats),
    )  # fmt: skip


def _parse_head(path: Path, head: dict[str, Any]) -> tuple[str, dict[str, Any], int]:
    if head.get("table") != FORMAT:
        raise _damage(path, 1, "table", head.get("table"), FORMAT)
    if head.get("version") != VERSION:
        raise _damage(path, 1, "version", head.get("version"), f"{VERSION}, or a newer version of mlbits")
    env, settings, seats = (head.get(field) for field in ("env", "env_settings", "seats"))
    if not (isinstance(env, str) and env):
        raise _damage(path, 1, "env", env, "the id of an environment")
    if not isinstance(settings, dict):
        raise _damage(path, 1, "env_settings", settings, "an object")
    if not isinstance(seats, int) or isinstance(seats, bool) or not 2 <= seats <= MOST_SEATS:
        raise _damage(path, 1, "seats", seats, f"a whole number from 2 to {MOST_SEATS}")
    return env, settings, seats


def _fields(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        fields = read_json(line)
    except ValueError:  # also raised for invalid UTF-8
        raise MatchTableError(f"{path}, line {number}: got {line[:60]!r}; wanted a JSON object") from None
    if not isinstance(fields, dict):
        raise MatchTableError(f"{path}, line {number}: got {line[:60]!r}; wanted a JSON object")
    return fields


def _row(value: Any, length: int, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, list) and len(value) == length and all(type(one) in kinds for one in value)


def _damage(path: Path, number: int, field: str, got: Any, wanted: str) -> MatchTableError:
    return MatchTableError(f"{path}, line {number}, {field}: got {repr(got)[:200]}; wanted {wanted}")
