"""``--ope.NAME`` of ``mlbits eval RUN --off-policy DATASET``; apart from what they do, so that help needs no torch."""

from __future__ import annotations

from typing import Literal

from mlbits.envs.core.config_fields import configuration, setting
from mlbits.selfplay.runs.config import ConfigError


@configuration(ConfigError)
class OffPolicyFlags:
    """How a value is estimated from a dataset."""

    discount: float | None = setting(None, "gamma; by default that of the run's agent", low=0, high=1)
    horizon: int | None = setting(
        None, "FQE, DR, WDR: value of an episode of this many steps; by default of one without a limit", low=1, high=1e6
    )
    behaviour: Literal["auto", "recorded", "estimated"] = setting(
        "auto", "probabilities of the logged actions: recorded, estimated, or auto: recorded where they apply"
    )
    features: int = setting(300, "random features of FQE, where it is not a table", low=2, high=5000)
    resamples: int = setting(1000, "bootstrap samples of IS, PDIS, WIS and PDWIS", low=2, high=1e6)
    refits: int = setting(100, "refits of FQE, DR and WDR on resampled episodes", low=2, high=1e4)
