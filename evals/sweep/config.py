"""How a sweep is run; apart from the sweep, so that the command line has its flags without loading torch or Optuna."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import tyro

from mlbits.envs.core.config_fields import configuration, setting
from mlbits.envs.core.errors import MlbitsError
from mlbits.selfplay.runs.config import ConfigError
from mlbits.selfplay.runs.job_flags import JobFlags


class SweepError(MlbitsError, ValueError):
    """A sweep that cannot be run."""


@configuration(ConfigError)
class SweepConfig:
    """What a sweep looks for, and how."""

    metric: str = setting("return/eval", "curve whose last value is compared; one that evaluations record")
    goal: Literal["maximize", "minimize"] = setting("maximize", "whether large or small values are good")
    pruner: Literal["median", "none"] = setting(
        "median", "end a trial whose evaluation is worse than the median of the others at the same step; or none"
    )
    startup_trials: int = setting(
        10, "trials with random settings, before the sampler (TPE) learns from their results", low=1, high=1e6
    )


@configuration(ConfigError)
class SweepFlags:
    """The flags of ``mlbits sweep`` beside those of ``mlbits train``."""

    space: Path | None = setting(None, "TOML file of the settings to try")
    trials: int = setting(20, "trials in all, those of earlier commands included", low=1, high=1e6)
    how: tyro.conf.OmitArgPrefixes[SweepConfig] = setting(SweepConfig(), "what to look for")
    where: tyro.conf.OmitArgPrefixes[JobFlags] = setting(JobFlags(), "where trials are trained")
