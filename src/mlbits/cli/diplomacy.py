"""``mlbits diplomacy adjudicate FILE`` and ``mlbits diplomacy draw FILE``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tyro

from mlbits.envs.core.errors import MlbitsError, UnknownIdError
from mlbits.selfplay.runs.command_line import read_flags


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdjudicateFlags:
    """Adjudicate the test vectors of a file (JSON or JSON lines, gzipped or not); print differences and their number.

    Attributes:
        file: the test vectors.
        rules: "datc-2.4" or "datc-3.0".
        map: "standard", "mini" or a file.
        results: also count a vector as different where only the names of its orders' results differ.
    """

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    rules: str = "datc-2.4"
    map: str = "standard"
    results: bool = False


def _adjudicate(words: list[str]) -> int:
    flags = read_flags(AdjudicateFlags, "mlbits diplomacy adjudicate", words)
    from mlbits.envs.diplomacy.board import load_board
    from mlbits.envs.diplomacy.files.vectors import check_vectors

    report = check_vectors(flags.file, flags.rules, load_board(flags.map), results=flags.results)
    print(report.text())
    return 0 if report.good else 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class DrawFlags:
    """Draw a game from a file of saved games.

    Attributes:
        file: the games, as one JSON object or one per line.
        out: what to write: a page to step through (.html), an animation (.gif), or one phase (.png, .svg).
        game: which game of the file, 1 is the first.
        phase: one phase only, such as "F1903M"; by default a PNG or SVG shows the last one.
        map: "standard", "mini" or a file.
        size: width in pixels of a PNG or GIF.
        seconds: how long a GIF shows each picture.
    """

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    out: Path = Path("game.html")
    game: int = 1
    phase: str = ""
    map: str = "standard"
    size: int = 1000
    seconds: float = 1.5


def _draw(words: list[str]) -> int:
    flags = read_flags(DrawFlags, "mlbits diplomacy draw", words)
    from mlbits.envs.diplomacy.board import load_board
    from mlbits.envs.diplomacy.files.replay_page import draw_game
    from mlbits.envs.diplomacy.files.saved_games import load_games

    games = load_games(flags.file, load_board(flags.map))
    if not 1 <= flags.game <= len(games):
        raise MlbitsError(f"game: got {flags.game}; wanted 1 to {len(games)}, the games of {flags.file}")
    draw_game(games[flags.game - 1], flags.out, flags.phase, flags.size, flags.seconds)
    print(f"drawn: {flags.out}")
    return 0


DIPLOMACY: dict[str, Callable[[list[str]], int]] = {"adjudicate": _adjudicate, "draw": _draw}


def command(words: list[str]) -> int:
    """Adjudicate positions, or draw a game."""
    if not words or words[0] in ("-h", "--help"):
        print(f"usage: mlbits diplomacy {'|'.join(DIPLOMACY)} ...\n\nEach takes --help.")
        return 0
    if words[0] not in DIPLOMACY:
        raise UnknownIdError("diplomacy command", words[0], DIPLOMACY)
    return DIPLOMACY[words[0]](words[1:])
