"""One trial of a sweep, as a job: a training run that reports its evaluations, and ends early where they are poor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlbits.envs.core.trust import trusting_files
from mlbits.evals.jobs.training import train_to_end
from mlbits.evals.recorded_runs import read_curves
from mlbits.evals.sweep.config import SweepConfig, SweepError
from mlbits.evals.sweep.study import open_study, trial_of
from mlbits.evals.training_probes import during_training
from mlbits.selfplay.callbacks import RunUnderWay, callbacks_of
from mlbits.selfplay.runs.config import settings_from_json
from mlbits.selfplay.runs.folder import CONFIG, read_summary
from mlbits.selfplay.session import Measured, Session

PRUNED = "pruned: worse than the median of the other trials"
RETURN = "return/eval"


def train_trial(
    *, settings: Mapping[str, Any], folder: str, journal: str, number: int, how: Mapping[str, Any], trust: bool = False
) -> dict[str, Any]:
    """Train one trial, or the rest of it.

    Args:
        settings: of the run, from :func:`mlbits.selfplay.runs.config.portable`.
        folder: the run's folder.
        journal: the file of the study.
        number: the trial's number.
        how: the fields of a :class:`~mlbits.evals.sweep.config.SweepConfig`.
        trust: whether files may run code of their authors.

    Returns:
        "value": the last value of the metric; "pruned": whether the trial was ended early.

    Raises:
        SweepError: if no evaluation records the metric.
        MlbitsError: as :func:`mlbits.selfplay.training.train` raises.
    """
    config, path = SweepConfig(**how), Path(folder)
    study = open_study(Path(journal), config)
    trial = trial_of(study, number)
    latest: dict[str, float] = {}

    def measure(session: Session) -> Measured:
        measured = during_training(session)
        latest.update(measured.scalars)
        return measured

    def report(run: RunUnderWay) -> None:
        assert run.evaluation is not None
        latest[RETURN] = run.evaluation["return_mean"]
        if config.metric not in latest:
            raise SweepError(
                f"metric: no evaluation records {config.metric}; wanted any of {', '.join(sorted(latest))}"
            )
        trial.report(latest[config.metric], run.env_steps)
        if run.progress < 1 and trial.should_prune():
            run.stop(PRUNED)

    with trusting_files(trust):
        if not (path / CONFIG).exists() or read_summary(path).get("stopped") != PRUNED:
            train_to_end(
                settings_from_json(settings), path, measure=measure, callbacks=callbacks_of(None, on_evaluation=report)
            )  # fmt: skip
    summary = read_summary(path)
    curve = read_curves(path).get(config.metric)
    value = float(curve.values[-1]) if curve is not None and len(curve.values) else math.nan
    return {"value": value, "pruned": summary.get("stopped") == PRUNED}
