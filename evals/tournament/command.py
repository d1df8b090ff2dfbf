"""``mlbits tournament``: hold one, or work a stored one out again, and print the standings."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console

from mlbits.evals.tournament.config import TournamentError, TournamentFlags
from mlbits.evals.tournament.standings import standings_table
from mlbits.evals.tournament.tournament import hold_tournament, recompute
from mlbits.selfplay.runs.command_line import coloured

_SAY_EVERY = 5.0  # seconds


def run_command(flags: TournamentFlags, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Do what the flags say.

    Args:
        flags: of the command.
        settings: of the environment, over those that the runs trained with.

    Returns:
        The standings, as plain data.

    Raises:
        MlbitsError: as :func:`~mlbits.evals.tournament.tournament.hold_tournament` and
            :func:`~mlbits.evals.tournament.tournament.recompute` say; for flags that do not go together.
    """
    if flags.table is not None:
        if flags.entries or flags.env or settings:
            raise TournamentError("table: goes without entries and env, which it names itself; wanted the table alone")
        folder, found = recompute(flags.table, flags.out)
    else:
        folder, found = hold_tournament(
            flags.entries, flags.how, env=flags.env, env_settings=settings, out=flags.out, device=flags.device,
            report=_say_games(),
        )  # fmt: skip
    print(f"{found.table.env}: {len(found.table.seating):,} games of {found.table.seats} seats")
    _console().print(standings_table(found))
    if found.nash is None:
        print("not every two met: no alpha-rank and no Nash mixture")
    print(f"tournament: {folder}\npayoffs: {folder / 'payoffs.png'}, {folder / 'payoffs.csv'}")
    return found.to_json()


def _console() -> Console:
    """As wide as the terminal, 120 columns where there is none; without codes where colours are not wanted."""
    if coloured(sys.stdout):
        return Console(highlight=False)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 120
    return Console(width=width, highlight=False, color_system=None, force_terminal=False)


def _say_games() -> Callable[[int, int], None]:
    """Says now and then how many games have been played."""
    said = time.perf_counter()

    def say(played: int, total: int) -> None:
        nonlocal said
        if time.perf_counter() - said > _SAY_EVERY:
            print(f"{played:,} of {total:,} games", flush=True)
            said = time.perf_counter()

    return say
