"""The flags of ``mlbits replay``; apart, so that the command line has them without loading torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from mlbits.envs.core.config_fields import configuration, setting
from mlbits.envs.core.trust import TRUST_HELP
from mlbits.selfplay.runs.config import ConfigError
from mlbits.selfplay.runs.search_flags import SearchFlags


@configuration(ConfigError)
class ReplayFlags:
    """Play one game and write it as a page that opens anywhere; or play such a page's game again by the rules."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|ENV")] = setting(
        "", "the folder of a run, whose agent has every seat, or an environment, which is played at random"
    )
    out: Path = setting(Path("game.html"), "the page")
    against: tuple[str, ...] = setting(
        (), "who has the seats after the first, in turn: bots (mlbits list agents) and folders of runs"
    )
    checked: Annotated[Path | None, tyro.conf.arg(name="check")] = setting(
        None, "instead of playing: whether this page tells the truth"
    )
    sample: bool = setting(False, "sample actions from the policies instead of taking the most probable")
    seed: int = setting(0, "seed of the game", low=0, high=2**62)
    max_steps: int = setting(
        2000, "steps after which an environment without a time limit is left", low=1, high=100_000
    )  # fmt: skip
    checkpoint: str = setting(
        "latest", "of a run: latest, best (where training kept it), or the environment steps of one that was kept"
    )
    search: SearchFlags = setting(SearchFlags(), "search at play time")
    trust: bool = setting(False, TRUST_HELP)
