"""How a tournament is held; apart from the tournament, so that the command line has its flags without loading torch.

Example:
    >>> TournamentConfig(games=1000, format="swiss", rounds=5).num_envs
    1024
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from mlbits.envs.core.config_fields import configuration, setting
from mlbits.envs.core.errors import MlbitsError
from mlbits.envs.core.trust import TRUST_HELP
from mlbits.selfplay.runs.config import ConfigError
from mlbits.selfplay.runs.job_flags import JobFlags
from mlbits.selfplay.runs.search_flags import SearchFlags


class TournamentError(MlbitsError, ValueError):
    """A tournament that cannot be held."""


@configuration(ConfigError)
class TournamentConfig:
    """How a tournament is held."""

    games: int = setting(
        100,
        "games of every two entries that meet, rounded up until all have had every seat equally often",
        low=1,
        high=1e9,
    )
    format: Literal["all", "swiss"] = setting("all", "all against all, or a Swiss tournament")
    rounds: int = setting(
        0, "rounds of a Swiss tournament; 0 takes log2 of the number of entries, rounded up", low=0, high=1e6
    )
    seed: int = setting(0, "seed of the games, and of the order at tables of three and more", low=0, high=2**63 - 1)
    greedy: bool = setting(
        False, "play the most probable actions instead of sampled ones; mixed strategies are lost then"
    )
    num_envs: int = setting(1024, "games played at once", low=1, high=2**20)

    def check(self) -> None:
        """Refuse rounds without a Swiss tournament."""
        if self.rounds and self.format != "swiss":
            raise ConfigError(f"rounds: got {self.rounds} for all against all; wanted format swiss, or no rounds")


@configuration(ConfigError)
class TournamentFlags:
    """Let runs, models and bots meet, and rate them. The same command resumes a tournament that was interrupted."""

    entries: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN|MODEL.zip|BOT ...")] = setting(
        (), "two or more folders of runs, Stable-Baselines3's models, and bots (mlbits list agents)"
    )
    how: tyro.conf.OmitArgPrefixes[TournamentConfig] = setting(TournamentConfig(), "the schedule")
    env: str = setting("", "environment; by default that of the runs")
    device: str = setting("cpu", "cpu, cuda or auto")
    out: Path | None = setting(None, "folder of the tournament; made under tournaments/ by default")
    where: tyro.conf.OmitArgPrefixes[JobFlags] = setting(JobFlags(), "where the games are played")
    search: SearchFlags = setting(SearchFlags(), "search at play time")
    table: Path | None = setting(
        None, "stored match table, or folder of a tournament: compute the ratings again, play nothing"
    )
    replay: Path | None = setting(
        None, "write one more game, of the best entries, as a page to step through to this file, game.html"
    )
    json: Path | None = setting(None, "also write the standings to this file")
    trust: bool = setting(False, TRUST_HELP)
