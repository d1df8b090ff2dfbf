"""The trainer of rules: the loop of all runs, with a session of meta-training.

``mlbits meta-train lpg`` begins such a run, ``mlbits resume`` continues it. At its end the rule is written into its
folder, as ``rule.safetensors``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlbits.selfplay import loop
from mlbits.selfplay.callbacks import Callbacks
from mlbits.selfplay.meta.session import MetaSession, open_meta_session
from mlbits.selfplay.runs import checkpoints
from mlbits.selfplay.runs.config import Settings
from mlbits.selfplay.runs.folder import CHECKPOINTS, RunError, read_settings
from mlbits.selfplay.session import Measure


def train(
    settings: Settings,
    out: str | Path | None = None,
    *,
    console: bool = True,
    measure: Measure | None = None,
    callbacks: Callbacks | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Start a run; see :func:`mlbits.selfplay.training.train`."""
    return loop.train(
        settings, out, console=console, measure=measure, callbacks=callbacks, open_session=open_meta_session
    )


def resume(
    folder: Path,
    settings: Settings,
    *,
    total_steps: int | None = None,
    console: bool = True,
    measure: Measure | None = None,
    callbacks: Callbacks | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Continue a run; see :func:`mlbits.selfplay.training.resume`."""
    return loop.resume(
        folder, settings, total_steps=total_steps, console=console, measure=measure, callbacks=callbacks,
        open_session=open_meta_session,
    )  # fmt: skip


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
