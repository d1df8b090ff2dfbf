"""How a tournament is held; apart from the tournament, so that the command line has its flags without loading torch.

Example:
    >>> TournamentConfig(games=1000, format="swiss", rounds=5).num_envs
    1024
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mlbits.envs.core.errors import MlbitsError
from mlbits.selfplay.runs.config import ConfigError


class TournamentError(MlbitsError, ValueError):
    """A tournament that cannot be held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TournamentConfig:
    """How a tournament is held.

    Attributes:
        games: in which every two entries meet (of two that meet, in Swiss rounds); rounded up until all have had every
            seat equally often, which is a multiple of the number of seats.
        format: "all" against all, or "swiss".
        rounds: of a Swiss tournament; 0 takes the binary logarithm of the number of entries, rounded up.
        seed: of the games, and of the order at tables of three and more; the match table is a function of it.
        greedy: whether agents take their most probable actions in place of draws; those that mix their play, as in
            games of bluff, then no longer do.
        num_envs: games that are played at once.
    """

    games: int = 100
    format: Literal["all", "swiss"] = "all"
    rounds: int = 0
    seed: int = 0
    greedy: bool = False
    num_envs: int = 1024

    def __post_init__(self) -> None:
        limits = {"games": (1, 1e9), "rounds": (0, 1e6), "seed": (0, 2**63 - 1), "num_envs": (1, 2**20)}
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name}: got {value}; wanted a number from {low} to {int(high):,}")
        if self.format not in ("all", "swiss"):
            raise ConfigError(f"format: got {self.format!r}; wanted all or swiss")
        if self.rounds and self.format != "swiss":
            raise ConfigError(f"rounds: got {self.rounds} for all against all; wanted format swiss, or no rounds")


@dataclass(frozen=True, kw_only=True)
class TournamentFlags:
    """Let runs, models and bots meet, and rate them. The same command goes on with a tournament that was interrupted.

    Attributes:
        entries: two or more folders of runs, models that Stable-Baselines3 saved, and bots (mlbits list agents).
        how: the schedule.
        env: the environment; without it that of the runs.
        device: "cpu", "cuda" or "auto".
        out: the tournament's folder; made under tournaments/ without it.
        table: a stored match table, or a tournament's folder: work everything out again, play nothing.
        json: write the standings to this file, too.
    """

    entries: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN|MODEL.zip|BOT ...")
    ] = ()  # fmt: skip
    how: tyro.conf.OmitArgPrefixes[TournamentConfig] = TournamentConfig()
    env: str = ""
    device: str = "cpu"
    out: Path | None = None
    table: Path | None = None
    json: Path | None = None
