"""The best checkpoint of a run, kept beside the latest ones in ``best/``: the agent of the best evaluation so far.

It holds what acting needs, and is written as every checkpoint is (:mod:`mlbits.selfplay.runs.checkpoints`). The
checkpoints from which the run resumes name the best one of their time; it is kept as long as one of them does, so that
a run which goes on from an earlier checkpoint after a kill goes on with the best of that time, and later ones, which
it makes again, are dropped.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlbits.envs.core.plain_json import read_json_file
from mlbits.selfplay.runs import checkpoints
from mlbits.selfplay.runs.checkpoints import Checkpoint
from mlbits.selfplay.runs.folder import BEST, CHECKPOINTS

NAMED = "best_env_steps"  # in a checkpoint's counters: environment steps of the best one of its time, or None
_ALL = 2**31  # older ones are dropped once no checkpoint names them


def save_best(folder: Path, checkpoint: Checkpoint, belongs_to: Mapping[str, Any]) -> Path:
    """Write a run's best checkpoint.

    Args:
        folder: the run's folder.
        checkpoint: its weights and counters.
        belongs_to: facts that have to be the same when it is read.

    Returns:
        The checkpoint's folder.

    Raises:
        CheckpointError: if the disk does not take it.
    """
    return checkpoints.save(folder / BEST, checkpoint.state["env_steps"], checkpoint, belongs_to, keep=_ALL)


def drop_unnamed(folder: Path) -> None:
    """Drop the best checkpoints that no checkpoint of the run names; none if one of these cannot be read."""
    try:
        states = [read_json_file(path / "state.json") for path in checkpoints.found(folder / CHECKPOINTS)]
        named = {state.get(NAMED) for state in states}
    except (OSError, ValueError, AttributeError):
        return
    for path in checkpoints.found(folder / BEST):
        if _steps(path) not in named:
            shutil.rmtree(path, ignore_errors=True)


def drop_later(folder: Path, env_steps: int, best_env_steps: int | None) -> None:
    """Drop the best checkpoints of a time after that at which the run goes on; none if its own best one is missing.

    Args:
        folder: the run's folder.
        env_steps: where the run goes on.
        best_env_steps: of the best checkpoint of that time, or None if there was none.
    """
    kept = checkpoints.found(folder / BEST)
    if best_env_steps is None or best_env_steps in map(_steps, kept):
        for path in kept:
            if _steps(path) > env_steps:
                shutil.rmtree(path, ignore_errors=True)


def _steps(path: Path) -> int:
    number = path.name.removesuffix(checkpoints.ASIDE).partition("-")[2]
    return int(number) if number.isdecimal() else -1
