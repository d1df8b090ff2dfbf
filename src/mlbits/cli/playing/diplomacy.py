"""``mlbits diplomacy adjudicate FILE`` and ``mlbits diplomacy draw FILE``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tyro

from mlbits.envs.core.config_fields import REQUIRED, configuration, setting
from mlbits.envs.core.errors import MlbitsError, UnknownIdError
from mlbits.envs.core.printing import printable
from mlbits.selfplay.runs.command_line import read_flags
from mlbits.selfplay.runs.config import ConfigError


@configuration(ConfigError)
class AdjudicateFlags:
    """Adjudicate test vectors (JSON or JSON lines, gzipped or not); print what differs and how many agree."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")] = setting(REQUIRED, "the test vectors")
    rules: str = setting("datc-2.4", "datc-2.4 or datc-3.0")
    map: str = setting("standard", "standard, mini or a file")
    results: bool = setting(False, "also compare the names of the orders' results")


def _adjudicate(words: list[str]) -> int:
    flags = read_flags(AdjudicateFlags, "mlbits diplomacy adjudicate", words)
    from mlbits.envs.diplomacy.board import load_board
    from mlbits.envs.diplomacy.files.vectors import check_vectors

    report = check_vectors(flags.file, flags.rules, load_board(flags.map), results=flags.results)
    print(printable(report.text(), keep="\n"))
    return 0 if report.good else 1


@configuration(ConfigError)
class DrawFlags:
    """Draw a game from a file of saved games."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")] = setting(
        REQUIRED, "the games, one object or one per line"
    )
    out: Path = setting(
        Path("game.html"),
        "file to write: a page to step through (.html), an animation (.gif), or one phase (.png, .svg)",
    )
    game: int = setting(1, "number of the game in the file, from 1")
    phase: str = setting("", "a single phase, such as F1903M; by default a PNG or SVG shows the last one")
    map: str = setting("standard", "standard, mini or a file")
    size: int = setting(1000, "width of a PNG or GIF", unit="pixels")
    seconds: float = setting(1.5, "duration of each frame of a GIF", unit="seconds")


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
