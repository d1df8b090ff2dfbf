"""What reproductions share: training runs in processes of their own, and a table of results against targets."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mlbits.envs.core.errors import MlbitsError


class ReproductionError(MlbitsError, RuntimeError):
    """A training run of a reproduction that failed."""


def train_in_process(agent: str, env: str, seed: int, *flags: str) -> dict[str, Any]:
    """Run ``mlbits train`` as a user would, in a fresh process, and read its summary.

    Args:
        agent: name of the agent.
        env: id of the environment.
        seed: of the run.
        *flags: further flags.

    Returns:
        The run's summary.json.

    Raises:
        ReproductionError: if the command fails; the message ends with what it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [
            sys.executable,
            "-m",
            "mlbits.cli",
            "train",
            agent,
            env,
            "--seed",
            str(seed),
            "--out",
            str(out),
            *flags,
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise ReproductionError(f"{' '.join(command[2:])} failed: {said[-1] if said else done.returncode}")
        return json.loads((out / "summary.json").read_text())


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table to the terminal."""
    table = Table(title=title, title_justify="left")
    for k, column in enumerate(columns):
        table.add_column(column, justify="left" if k == 0 else "right")
    for row in rows:
        table.add_row(*(f"{cell:,.4g}" if isinstance(cell, float) else str(cell) for cell in row))
    Console().print(table)
