"""Starting and continuing training runs: an agent's entry names its trainer, and that does the rest.

A trainer is a module with

- ``train(settings, out, *, console, measure)``, as :func:`train` here;
- ``resume(folder, settings, *, total_steps, console, measure)``, as :func:`resume` here;
- ``RESUMABLE = False`` where a run that was cut short cannot go on.

Both give the run's folder (:mod:`mlbits.selfplay.runs.folder` makes one) and its summary. A trainer that hands its
iterations to :class:`mlbits.selfplay.bookkeeping.Bookkeeping` has the curves, evaluations, checkpoints and summary of
all.

Most agents are trained by :mod:`mlbits.selfplay.loop`; those of Stable-Baselines3 have a loop of their own,
:mod:`mlbits.selfplay.sb3_training`. A trainer is imported when a run asks for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, cast

from mlbits.agents.registry import agent_entry
from mlbits.envs.core.errors import GameError
from mlbits.envs.origins import import_module
from mlbits.selfplay.runs.config import ConfigError, Settings
from mlbits.selfplay.runs.folder import read_settings
from mlbits.selfplay.session import Measure


class Trainer(Protocol):
    """What a trainer's module has; see above."""

    def train(
        self, settings: Settings, out: str | Path | None, *, console: bool, measure: Measure | None
    ) -> tuple[Path, dict[str, Any]]:
        """Start a run."""

    def resume(
        self, folder: Path, settings: Settings, *, total_steps: int | None, console: bool, measure: Measure | None
    ) -> tuple[Path, dict[str, Any]]:
        """Continue a run."""


def trainer_of(agent: str) -> Trainer:
    """The trainer that an agent's entry names.

    Args:
        agent: a registered agent's name.

    Raises:
        UnknownIdError: with the nearest known name.
        ConfigError: if the module cannot be imported, or is no trainer.
    """
    name = agent_entry(agent).trainer
    try:
        found = import_module(name)
    except GameError as error:
        raise ConfigError(f"{agent}: its trainer: {error}") from None
    missing = [part for part in ("train", "resume") if not callable(getattr(found, part, None))]
    if missing:
        raise ConfigError(f"{agent}: its trainer {name} has no function {missing[0]}; wanted train and resume")
    return cast(Trainer, found)


def resumable(agent: str) -> bool:
    """Whether a run of this agent that was cut short can go on."""
    return bool(getattr(trainer_of(agent), "RESUMABLE", True))


def train(
    settings: Settings, out: str | Path | None = None, *, console: bool = True, measure: Measure | None = None
) -> tuple[Path, dict[str, Any]]:
    """Start a run.

    Args:
        settings: of the run, from :func:`mlbits.selfplay.runs.config.resolve`.
        out: its folder; None makes one under ``runs``.
        console: whether to show progress.
        measure: asked at every evaluation for more to record; ``mlbits.train`` and the command give
            :func:`mlbits.evals.training_probes.during_training`.

    Returns:
        The folder and the summary.

    Raises:
        MlbitsError: for settings that do not fit, a folder that holds another run, or numbers that are not finite.
        RunInterrupted: a KeyboardInterrupt, when a signal or a closed pipe asks for the run's end; it is saved before.
    """
    return trainer_of(settings.agent).train(settings, out, console=console, measure=measure)


def resume(
    folder: str | Path, *, total_steps: int | None = None, console: bool = True, measure: Measure | None = None
) -> tuple[Path, dict[str, Any]]:
    """Continue a run from its newest whole checkpoint (from the start where there is none yet).

    Args:
        folder: the run's folder.
        total_steps: a new end; None keeps the run's own.
        console: whether to show progress.
        measure: asked at every evaluation for more to record, as by :func:`train`.

    Returns:
        The folder and the summary.

    Raises:
        RunError: if the folder is no run, or one that cannot go on.
        CheckpointError: if there are checkpoints and none is usable.
        RunInterrupted: as :func:`train` does.
    """
    folder, settings = Path(folder), read_settings(folder)
    trainer = trainer_of(settings.agent)
    return trainer.resume(folder, settings, total_steps=total_steps, console=console, measure=measure)
