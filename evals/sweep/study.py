"""Optuna's study of a sweep: a journal in the sweep's folder, which the driver and the trials read and add to.

Values are drawn so that they depend on the seed, the trial's number, the setting and the trials before alone: each draw
has a sampler with a seed of its own, so that a sweep that was killed goes on as it would have.
"""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlbits.evals.sweep.config import SweepConfig, SweepError
from mlbits.evals.sweep.space import Dimension

JOURNAL = "journal.log"
_NAME = "sweep"


def import_optuna() -> Any:
    """Optuna, quiet.

    Raises:
        SweepError: if it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise SweepError("sweep: needs Optuna; wanted pip install 'mlbits[sweep]'") from None
    optuna.logging.set_verbosity(logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    warnings.filterwarnings("ignore", message="The reported value is ignored")  # by a run that is resumed
    return optuna


def open_study(path: Path, how: SweepConfig) -> Any:
    """The study in a journal file, which is made if it is not there."""
    optuna = import_optuna()
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    pruners = optuna.pruners
    pruner = pruners.MedianPruner(n_startup_trials=5) if how.pruner == "median" else pruners.NopPruner()
    return optuna.create_study(
        study_name=_NAME, storage=storage, direction=how.goal, pruner=pruner, load_if_exists=True,
        sampler=_sampler(how, 0),
    )  # fmt: skip


def values_of(study: Any, trial: Any, space: Sequence[Dimension], how: SweepConfig, seed: int) -> dict[str, Any]:
    """The values that a trial tries, by setting; those that it has already are kept."""
    found = {}
    for dimension in space:
        text = json.dumps([seed, trial.number, dimension.name])
        study.sampler = _sampler(how, int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big"))
        found[dimension.name] = dimension.suggested(trial)
    return found


def trial_of(study: Any, number: int) -> Any:
    """A trial of the study by its number."""
    frozen = study.get_trials(deepcopy=False)[number]
    return import_optuna().trial.Trial(study, frozen._trial_id)


def _sampler(how: SweepConfig, seed: int) -> Any:
    samplers = import_optuna().samplers
    return samplers.TPESampler(n_startup_trials=how.startup_trials, multivariate=False, seed=seed)
