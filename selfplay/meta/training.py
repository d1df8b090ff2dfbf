"""The trainer of rules: the loop of all runs, with a session of meta-training.

``mlbits meta-train lpg`` begins such a run, ``mlbits resume`` continues it. At its end the rule is written into its
folder, as ``rule.safetensors``.
"""

from __future__ import annotations

import functools
from pathlib import Path

from mlbits.selfplay import loop
from mlbits.selfplay.meta.session import MetaSession, open_meta_session
from mlbits.selfplay.runs import checkpoints
from mlbits.selfplay.runs.folder import CHECKPOINTS, RunError, read_settings

# A trainer's two functions (mlbits.selfplay.training): the loop's, with this session.
train = functools.partial(loop.train, open_session=open_meta_session)
resume = functools.partial(loop.resume, open_session=open_meta_session)


def export_rule(run: str | Path, path: Path) -> MetaSession:
    """Write the rule of a run's newest checkpoint as a file.

    Args:
        run: the run's folder.
        path: the file.

    Raises:
        RunError: if the folder is no run of meta-training, or has no checkpoint yet.
        CheckpointError: if no checkpoint is usable.
    """
    folder, settings = Path(run), read_settings(run)
    if settings.agent != "meta-lpg":
        raise RunError(f"rule: {run} is a run of {settings.agent}; wanted one of mlbits meta-train lpg")
    session = open_meta_session(settings)
    found, _, _ = checkpoints.load_latest(
        folder / CHECKPOINTS, session.belongs_to(), lambda checkpoint: session.from_checkpoint(checkpoint, folder)
    )
    if found is None:
        raise RunError(f"rule: {run} has no checkpoint yet; wanted a run that has trained for a while")
    session.export(path)
    return session
