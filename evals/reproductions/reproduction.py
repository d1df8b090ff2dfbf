"""Helpers of reproductions: training runs in processes of their own, and tables of results against targets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mlbits.envs.core.errors import MlbitsError
from mlbits.selfplay.runs.folder import CONFIG, SUMMARY

_PATIENCE = 60.0  # seconds for a run to finish its iteration and save
_PROGRAM = (
    "import sys; from mlbits.evals.jobs import worker; worker.leave_when_let_go(); "
    "from mlbits.cli import main; sys.exit(main())"
)


class ReproductionError(MlbitsError, RuntimeError):
    """A training run of a reproduction that failed."""


def train_in_process(agent: str, env: str, seed: int, *flags: str, out: Path | None = None) -> dict[str, Any]:
    """Run ``mlbits train`` as a user would, in a fresh process, and read its summary.

    Args:
        agent: name of the agent.
        env: id of the environment.
        seed: the run's seed.
        *flags: further flags.
        out: folder of the run, which is kept; an unfinished run there is resumed (``mlbits resume``).

    Returns:
        The run's summary.json.

    Raises:
        ReproductionError: if the command fails; the message ends with its output.
    """
    if out is None:
        with tempfile.TemporaryDirectory() as folder:
            return train_in_process(agent, env, seed, *flags, out=Path(folder) / "run")
    words = ["train", agent, env, "--seed", str(seed), "--out", str(out), *flags]
    if (out / CONFIG).exists():
        words = ["resume", str(out)]
    command = [sys.executable, "-c", _PROGRAM, *words]
    leash, end = os.pipe()  # however this process ends, the run notices, saves and ends too
    try:
        with subprocess.Popen(
            command, stdin=leash, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:  # fmt: skip
            said, complained = _outcome(process)
    finally:
        os.close(leash)
        os.close(end)
    if process.returncode != 0:
        lines = (complained or said).strip().splitlines()
        raise ReproductionError(f"mlbits {' '.join(words)} failed: {lines[-1] if lines else process.returncode}")
    return json.loads((out / SUMMARY).read_text())


def _outcome(process: subprocess.Popen[str]) -> tuple[str, str]:
    """The output of a process on both streams, when it has ended; if this one is stopped, the run saves first."""
    try:
        return process.communicate()
    except BaseException:
        process.terminate()
        try:
            process.communicate(timeout=_PATIENCE)
        except BaseException:
            process.kill()
            raise
        raise


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], width: int = 0) -> None:
    """Print a table to the terminal, ``width`` columns wide if the terminal is narrower."""
    table = Table(title=title, title_justify="left")
    for k, column in enumerate(columns):
        table.add_column(column, justify="left" if k == 0 else "right")
    for row in rows:
        table.add_row(*(f"{cell:,.4g}" if isinstance(cell, float) else str(cell) for cell in row))
    console = Console()
    console.width = max(console.width, width)
    console.print(table)
