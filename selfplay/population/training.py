"""The trainer of populations: the loop of all runs, with a session that plays many policies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlbits.selfplay import loop
from mlbits.selfplay.callbacks import Callbacks
from mlbits.selfplay.population.session import open_population_session
from mlbits.selfplay.runs.config import Settings
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
        settings, out, console=console, measure=measure, callbacks=callbacks, open_session=open_population_session
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
        open_session=open_population_session,
    )  # fmt: skip
