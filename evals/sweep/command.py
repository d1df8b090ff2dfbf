"""``mlbits sweep``: run a sweep, or go on with one, and print what it found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from mlbits.evals.sweep.config import SweepError, SweepFlags
from mlbits.evals.sweep.results import best_settings, preset_text, shown_table, write_results
from mlbits.evals.sweep.space import read_space
from mlbits.evals.sweep.sweep import run_sweep
from mlbits.selfplay.runs.config import Settings


def run_command(settings: Settings, flags: SweepFlags, out: str | None, *, quiet: bool = False) -> None:
    """Run the command.

    Args:
        settings: of the trials, except what is tried.
        flags: the command's own flags.
        out: the sweep's folder, or None.
        quiet: whether to print no line for each trial.

    Raises:
        MlbitsError: as :func:`~mlbits.evals.sweep.sweep.run_sweep` raises, and for a space that does not fit.
    """
    if flags.space is None:
        raise SweepError("space: missing; wanted a TOML file, as in agent.learning_rate = { low = 1e-4, high = 1e-2 }")
    space = read_space(flags.space, settings)

    def say(line: str) -> None:
        if not quiet:
            print(line, flush=True)

    sweep = run_sweep(
        settings, space, flags.trials, flags.how, out=None if out is None else Path(out), jobs=flags.where.jobs,
        cluster=flags.where.cluster, say=say,
    )  # fmt: skip
    console: Any = Console(highlight=False, markup=False)
    console.width = max(console.width, 100)
    console.print(shown_table(sweep))
    for line in write_results(sweep):
        print(line)
    if sweep.best is None:
        raise SweepError(f"trials: none of {len(sweep.trials)} is complete; wanted one ({sweep.folder})")
    print(f"\nbest: trial {sweep.best.number}, {sweep.how.metric} {sweep.best.value:.6g}; as a preset:\n")
    print(preset_text(best_settings(sweep)), end="")
