"""``mlbits tournament``: play one, or compute the standings of a stored one again, and print them."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console

from mlbits.envs.core.printing import printable
from mlbits.evals.tournament.config import TournamentError, TournamentFlags
from mlbits.evals.tournament.standings import standings_table
from mlbits.evals.tournament.tournament import hold_tournament, recompute
from mlbits.selfplay.runs.command_line import coloured

_SAY_EVERY = 5.0  # seconds


def run_command(flags: TournamentFlags, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Run the command.

    Args:
        flags: the command's flags.
        settings: settings of the environment, which override those that the runs were trained with.

    Returns:
        The standings, as plain data.

    Raises:
        MlbitsError: as :func:`~mlbits.evals.tournament.tournament.hold_tournament` and
            :func:`~mlbits.evals.tournament.tournament.recompute` raise; for flags that exclude each other.
    """
    if flags.table is not None:
        if flags.entries or flags.env or settings or flags.replay is not None:
            raise TournamentError("table: cannot be used with entries, env or replay; wanted the table alone")
        folder, found = recompute(flags.table, flags.out)
    else:
        folder, found = hold_tournament(
            flags.entries, flags.how, env=flags.env, env_settings=settings, out=flags.out, device=flags.device,
            report=_say_games(), search=flags.search.changes(), jobs=flags.where.jobs, cluster=flags.where.cluster,
            replay=flags.replay,
        )  # fmt: skip
    print(f"{printable(found.table.env)}: {len(found.table.seating):,} games of {found.table.seats} seats")
    _console().print(standings_table(found))
    if found.nash is None:
        print("not every pair met: no alpha-rank and no Nash mixture")
    print(f"tournament: {folder}\npayoffs: {folder / 'payoffs.png'}, {folder / 'payoffs.csv'}")
    if flags.replay is not None:
        print(f"replay: {flags.replay}")
    return found.to_json()


def _console() -> Console:
    """As wide as the terminal, or 120 columns without one; without colour codes where colours are not wanted."""
    if coloured(sys.stdout):
        return Console(highlight=False)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 120
    return Console(width=width, highlight=False, color_system=None, force_terminal=False)


def _say_games() -> Callable[[int, int], None]:
    """A function that prints the number of games played every few seconds."""
    said = time.perf_counter()

    def say(played: int, total: int) -> None:
        nonlocal said
        if time.perf_counter() - said > _SAY_EVERY:
            print(f"{played:,} of {total:,} games", flush=True)
            said = time.perf_counter()

    return say
