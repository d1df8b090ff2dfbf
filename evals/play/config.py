"""The flags of ``mlbits play`` and ``mlbits uci``; apart, so that the command line has them without loading torch."""

from __future__ import annotations

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
    """Play a game in the terminal, against a bot or a trained agent. Type a move by its name, or "help"."""

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
