"""``mlbits check``: whether saved files are whole, what is damaged, and what can still be used.

Runs, checkpoints and frozen copies are checked in :mod:`mlbits.selfplay.runs.integrity`, the rest here: match tables,
folders of tournaments, and saved games (Diplomacy's as JSON, chess as PGN). Nothing is changed.

Example:
    >>> from pathlib import Path
    >>> _ = Path("games.pgn").write_text('1. e4 e5 1/2-1/2')
    >>> print(check(Path("games.pgn")).text())
    games.pgn: saved chess games, whole
      usable: 1 game
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlbits.envs.core.errors import MlbitsError
from mlbits.evals.tournament.match_table import MatchTableError, read_matches
from mlbits.evals.tournament.tournament import FACTS, MATCHES
from mlbits.selfplay.runs import integrity
from mlbits.selfplay.runs.integrity import Report

_MAPS = ("standard", "mini")


class NothingToCheckError(MlbitsError, ValueError):
    """A path that is none of the kinds of files that can be checked."""


def check(path: Path) -> Report:
    """Check a run, checkpoint, frozen copy, match table, tournament or file of games.

    Args:
        path: the file or folder.

    Raises:
        NothingToCheckError: if it does not exist, or is none of these.
    """
    if not path.exists():
        raise NothingToCheckError(f"paths: {path} does not exist; wanted a run, a match table or a file of games")
    if kind := integrity.kind_of(path):
        return integrity.CHECKS[kind](path)
    for fits, examine in KINDS:
        if fits(path):
            return examine(path)
    raise NothingToCheckError(
        f"paths: {path} is nothing that mlbits saves; wanted a run, a checkpoint, a frozen copy (.safetensors), a "
        "tournament, a match table (.jsonl) or a file of games (.pgn, .json, .jsonl)"
    )


def check_table(path: Path) -> Report:
    """Check a match table line by line."""
    report = Report(path, "match table")
    data = _data(path, report)
    *lines, rest = data.split(b"\n")
    if rest:
        report.notes.append("the last line is incomplete, as a kill leaves it; the next writer removes it")
    good = len(lines)
    try:
        table = read_matches(path)
        report.notes.append(f"{table.env}: {len(table.players)} players, {len(table.seating):,} games")
    except MatchTableError as error:
        report.damages.append(str(error))
        good = _whole_lines(lines, str(error), path)
    games = sum(line.startswith(b'{"game"') for line in lines[:good])
    report.usable = f"usable: {games:,} games" + ("" if report.whole else f", the first {good:,} lines")
    return report


def _whole_lines(lines: list[bytes], error: str, path: Path) -> int:
    """Number of lines before the damaged one, which the reader's message names."""
    number = error.removeprefix(f"{path}, line ").partition(",")[0].partition(":")[0]
    return min(int(number) - 1, len(lines)) if number.isdigit() else 0


def check_tournament(folder: Path) -> Report:
    """Check a tournament's folder: its facts, its match table, and whether the table's players are its entries."""
    report = Report(folder, "tournament")
    facts: dict[str, Any] = {}
    try:
        facts = json.loads((folder / FACTS).read_bytes())
        if not isinstance(facts, dict) or not isinstance(facts.get("entries"), dict):
            facts = {}
            raise ValueError("no entries")
    except (OSError, ValueError, RecursionError) as error:
        report.damages.append(
            f"{folder / FACTS}: damaged ({error!r:.80}); the match table can still be rated (--table)"
        )
    if not (folder / MATCHES).exists():
        report.notes.append("no match table yet")
        return report
    table = check_table(folder / MATCHES)
    report.damages += table.damages
    report.notes += table.notes
    report.usable = table.usable
    if table.whole and facts:
        players = read_matches(folder / MATCHES).players
        strangers = [name for name, content in players.items() if facts["entries"].get(name) != content]
        report.damages += [f"{MATCHES}: the player {name} is no entry of {FACTS}" for name in strangers]
    return report


def check_diplomacy(path: Path) -> Report:
    """Check saved games of Diplomacy, one object a line: each is read, and its orders are understood."""
    from mlbits.envs.diplomacy.board import load_board
    from mlbits.envs.diplomacy.files.saved_games import read_games

    report = Report(path, "saved Diplomacy games")
    data = _data(path, report)
    boards = [load_board(name) for name in _MAPS]
    good = 0
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        said = ""
        for board in boards:
            try:
                read_games(line.decode("utf-8-sig"), board, f"{path}, line {number}")
                good, said = good + 1, ""
                break
            except (MlbitsError, ValueError) as error:
                said = said or str(error)
        if said:
            report.damages.append(said)
    report.usable = f"usable: {_games(good)}"
    return report


def check_pgn(path: Path) -> Report:
    """Check chess games as PGN: every move is legal."""
    from mlbits.envs.board.chess.pgn import iterate_pgn

    report = Report(path, "saved chess games")
    good, data = 0, _data(path, report)
    try:
        for _ in iterate_pgn(data.decode("utf-8", errors="replace")):
            good += 1
    except MlbitsError as error:
        report.damages.append(f"{path}: {error}")
    report.usable = f"usable: {_games(good)}" + ("" if report.whole else " before the damage")
    return report


def _games(count: int) -> str:
    return f"{count:,} game{'' if count == 1 else 's'}"


def _data(path: Path, report: Report) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        report.damages.append(f"{path}: cannot be read ({error.strerror})")
        return b""


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(200)
    except OSError:
        return b""


# What else can be checked: whether a path is of the kind, and the function that checks it; the first that fits.
KINDS: list[tuple[Callable[[Path], bool], Callable[[Path], Report]]] = [
    (lambda path: (path / FACTS).exists() or (path / MATCHES).exists(), check_tournament),
    (lambda path: path.suffix == ".pgn", check_pgn),
    (lambda path: path.name == MATCHES or b'"table"' in _head(path), check_table),
    (lambda path: path.is_file() and path.suffix in (".json", ".jsonl"), check_diplomacy),
]
