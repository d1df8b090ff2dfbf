"""What reproductions with AlphaZero share: training for a time, and games against UCT with random games."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlbits.evals.evaluate import evaluate_against
from mlbits.evals.reproductions.reproduction import train_in_process
from mlbits.selfplay.runs.folder import SUMMARY

YARDSTICK = "mcts@simulations=1000"


@contextlib.contextmanager
def trained(env: str, seed: int, minutes: float, out: Path | None = None, *flags: str) -> Iterator[Path]:
    """The folder of a run of AlphaZero with the shipped preset.

    Args:
        env: environment id.
        seed: the run's seed.
        minutes: minutes on two cores; the run ends after twice as many of CPU time.
        out: where runs are kept; a run that is there already is finished or read. None deletes it afterwards.
        *flags: further flags of ``mlbits train``.
    """
    with contextlib.ExitStack() as stack:
        parent = Path(stack.enter_context(tempfile.TemporaryDirectory())) if out is None else out
        folder = parent / f"{env.rpartition('/')[2]}-seed-{seed}"
        if not (folder / SUMMARY).exists():
            limits = ("--max-cpu-minutes", str(2 * minutes), "--total-steps", "1000000000", "--eval-every", "0")
            train_in_process("alphazero", env, seed, *limits, "--no-video", *flags, out=folder)
        yield folder


def against_yardstick(folder: Path, games: int = 200) -> dict[str, Any]:
    """Games of a run's agent against UCT with 1,000 random games a move, in each seat in turn.

    Returns:
        As :func:`mlbits.evals.evaluate.evaluate_against`.
    """
    return evaluate_against(folder, YARDSTICK, games)
