"""The flags of ``mlbits play`` and ``mlbits uci``; apart, so that the command line has them without loading torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from mlbits.envs.core.config_fields import REQUIRED, configuration, setting
from mlbits.envs.core.errors import MlbitsError
from mlbits.envs.core.trust import TRUST_HELP
from mlbits.selfplay.runs.config import ConfigError
from mlbits.selfplay.runs.search_flags import SearchFlags


class PlayError(MlbitsError, ValueError):
    """A game that cannot be played, or a move that cannot be."""


@configuration(ConfigError)
class PlayFlags:
    """Play a game against a bot or a trained agent: in the terminal by typing moves, or with --web in a page."""

    game: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="GAME|RUN")] = setting(
        REQUIRED, "the game, or the folder of a run, which is then the opponent"
    )
    against: tuple[str, ...] = setting(
        (), "who has the other seats, in turn: bots (mlbits list agents; mcts@simulations=100) and folders of runs; by "
        "default the run, or else mcts, or in games that cannot be searched random"
    )  # fmt: skip
    seat: int = setting(0, "your seat; 0 moves first", low=0, high=100)
    sample: bool = setting(
        False, "opponents draw their moves instead of taking the best; in games of simultaneous moves they always do"
    )
    search: SearchFlags = setting(SearchFlags(), "search at play time")
    seed: int | None = setting(None, "seed of the game and of the opponents; by default another one every time", low=0)
    replay: Path | None = setting(None, "in the terminal: write the game as a page to step through to this file")
    web: bool = setting(False, "play in a page of your browser, which this command serves")
    seats: tuple[int, ...] = setting(
        (), "with --web: the seats of several people, each of whom gets a link; by default yours alone"
    )
    port: int = setting(8420, "with --web: the port; 0 takes a free one", low=0, high=65535)
    host: str = setting(
        "127.0.0.1",
        "with --web: the address to serve; any but this machine's own asks everyone for the token in the link",
    )
    games: Path = setting(Path("games"), "with --web: the folder in which each game played is saved as a replay")
    open: bool = setting(False, "with --web: open the page in your browser")
    trust: bool = setting(False, TRUST_HELP)


@configuration(ConfigError)
class UciFlags:
    """A chess engine that speaks UCI, for chess programs: it plays as a run or a bot does."""

    player: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN|BOT]")] = setting(
        "mcts", "the folder of a run, or a bot that searches; without one mcts"
    )
    search: SearchFlags = setting(SearchFlags(), "search at play time")
    seed: int = setting(0, "seed of the search", low=0)
    trust: bool = setting(False, TRUST_HELP)
