"""A training run as a job: begun, resumed or left as it is, in any process that sees its folder."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlbits.envs.core.trust import trusted, trusting_files
from mlbits.evals.jobs.job import Job
from mlbits.evals.training_probes import during_training
from mlbits.selfplay import training
from mlbits.selfplay.callbacks import Callbacks
from mlbits.selfplay.machine import count_from_now
from mlbits.selfplay.runs.config import Settings, portable, settings_from_json
from mlbits.selfplay.runs.folder import CONFIG, RunError, finished_summary, read_settings
from mlbits.selfplay.runs.one_writer import InUseError
from mlbits.selfplay.session import Measure

ORPHANS = 90.0
"""Seconds in which a run that lost its driver has to have saved and ended."""


def run_job(name: str, settings: Settings, folder: Path, *, measured: bool = True, **more: Any) -> Job:
    """The job of a run.

    Args:
        name: for people.
        settings: of the run.
        folder: its folder.
        measured: whether evaluations record more than the returns.
        **more: see :class:`~mlbits.evals.jobs.job.Job`.
    """
    arguments: dict[str, Any] = {"settings": portable(settings), "folder": str(folder.resolve()), "measured": measured}
    arguments["trust"] = trusted()
    return Job(name, f"{__name__}:train_run", arguments, **more)


def check_run(settings: Settings, folder: Path) -> bool:
    """Whether a run has been begun in a folder.

    Raises:
        RunError: if it is one of other settings.
    """
    if not (folder / CONFIG).exists():
        return False
    if portable(read_settings(folder)) != portable(settings):
        raise RunError(f"out: {folder} holds another run, of other settings; wanted a new folder")
    return True


def train_run(*, settings: Mapping[str, Any], folder: str, measured: bool = True, trust: bool = False) -> None:
    """Train a run to its end: from the start, or from where it is.

    Args:
        settings: from :func:`mlbits.selfplay.runs.config.portable`.
        folder: the run's folder.
        measured: whether evaluations record more than the returns.
        trust: whether files may run code of their authors.

    Raises:
        InUseError: if another process still trains it after a while.
        MlbitsError: as :func:`mlbits.selfplay.training.train` and its ``resume`` raise.
    """
    with trusting_files(trust):
        train_to_end(settings_from_json(settings), Path(folder), measure=during_training if measured else None)


def train_to_end(
    settings: Settings, folder: Path, *, measure: Measure | None = during_training, callbacks: Callbacks | None = None
) -> None:
    """Train a run in this process, quietly: from the start, or from where it is.

    Args:
        settings: of the run.
        folder: its folder.
        measure: as for :func:`mlbits.selfplay.training.train`.
        callbacks: as there.

    Raises:
        InUseError: if another process still trains it after a while.
        MlbitsError: as :func:`mlbits.selfplay.training.train` and its ``resume`` raise.
    """
    until = time.monotonic() + ORPHANS
    common: dict[str, Any] = {"console": False, "measure": measure, "callbacks": callbacks}
    while True:
        count_from_now()
        try:
            if not check_run(settings, folder):
                training.train(settings, folder, **common)
            elif finished_summary(folder) is None:
                training.resume(folder, **common)
            return
        except InUseError:  # by a process whose driver was killed, and which is saving
            if time.monotonic() > until:
                raise
            time.sleep(1.0)
