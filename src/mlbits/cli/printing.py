"""Helpers of the commands: printing a run's result, writing JSON, and checking files to be written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from mlbits.envs.core.errors import MlbitsError

if TYPE_CHECKING:
    from mlbits.runs import Runs


def print_run(folder: Path, summary: Mapping[str, Any]) -> None:
    """Print how a run ended and which commands to use next."""
    from mlbits.evals.board.links import PORT, address, tags_to_pin
    from mlbits.evals.headline import headlines
    from mlbits.evals.recorded_runs import read_curves

    first, *rest = headlines(summary)
    steps = f"{summary['env_steps']:,} {'gradient ' if 'gradient_steps' in summary else ''}steps"
    print(f"{first} after {steps} in {summary['wall_seconds']:.1f} s ({summary['cpu_seconds']:.1f} CPU-s)")
    for line in rest:
        print(line)
    if why := summary.get("stopped"):
        print(f"ended early: {why}")
    if solved := summary.get("solved_at"):
        print(f"solved at {solved['env_steps']:,} steps, {solved['cpu_seconds']:.1f} CPU-s after the process started")
    curves, run = quote(str(folder.parent)), quote(str(folder))
    use = f"evaluate: mlbits eval {run}"
    if "rule" in summary:
        use = f"use: mlbits train lpg ENV --agent.rule {quote(str(summary['rule']))}"
    page = address(PORT, tags_to_pin(read_curves(folder)))
    print(f"run: {folder}\ncurves: mlbits board {curves} opens {page}\n{use}")


def print_runs(runs: Runs) -> None:
    """Print how runs with several seeds ended: a line for each, and what they say together."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None)
    for name in runs.columns:
        table.add_column(name, justify="left" if name == "run" else "right", overflow="fold")
    for row in runs.rows():
        table.add_row(*row)
    console = Console(highlight=False, markup=False)
    console.width = max(console.width, 100 + max(len(str(run.folder)) for run in runs))  # names are not broken
    console.print(table)
    print(runs.text())


def check_file(name: str, path: Path | None) -> None:
    """Refuse a file that cannot be written, before doing the work whose result goes there.

    Args:
        name: the setting's name.
        path: the file, or None.

    Raises:
        MlbitsError: if its folder does not exist, or it is a folder.
    """
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        why = "it is a folder" if path.is_dir() else "its folder does not exist"
        raise MlbitsError(f"{name}: {path} cannot be written ({why}); wanted a writable file")


def write_json(path: Path | None, data: Any) -> None:
    """Write a result as JSON, if a file is given.

    Raises:
        MlbitsError: if the file cannot be written.
    """
    if path is None:
        return
    from mlbits.selfplay.statistics import json_text

    try:
        path.write_text(json_text(data, indent=2) + "\n")
    except OSError as error:
        raise MlbitsError(f"json: {path} cannot be written ({error.strerror}); wanted a writable file") from None
