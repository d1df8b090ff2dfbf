"""Starting and resuming training runs, by the trainer that the agent's entry in the registry names.

A trainer is a module with

- ``train(settings, out, *, console, measure, callbacks)``, as :func:`train` here;
- ``resume(folder, settings, *, total_steps, console, measure, callbacks)``, as :func:`resume` here;
- ``RESUMABLE = False`` if its interrupted runs cannot be resumed.

``callbacks`` is passed only if there are some: a trainer need not know them. Both functions return the run's folder
(:mod:`mlbits.selfplay.runs.folder` makes one) and its summary. ``train`` writes
there inside :func:`~mlbits.selfplay.runs.one_writer.one_writer`; around ``resume`` it is held already. A trainer that
passes its iterations to :class:`mlbits.selfplay.bookkeeping.Bookkeeping` gets the same curves, evaluations, checkpoints
and summary as all others.

Most agents are trained by :mod:`mlbits.selfplay.loop`, Stable-Baselines3's by :mod:`mlbits.selfplay.sb3_training`. A
trainer is imported when a run needs it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Protocol, cast

from mlbits.agents.registry import agent_entry
from mlbits.envs.core.errors import GameError
from mlbits.envs.origins import import_module
from mlbits.selfplay.actors.checks import check_actors
from mlbits.selfplay.callbacks import Callbacks
from mlbits.selfplay.curves.experiment_trackers import check_tracker
from mlbits.selfplay.runs.config import ConfigError, Settings
from mlbits.selfplay.runs.folder import read_settings
from mlbits.selfplay.runs.one_writer import one_writer
from mlbits.selfplay.session import Measure
from mlbits.selfplay.shards.places import check_sharded


class Trainer(Protocol):
    """The functions of a trainer's module; see this module's docstring."""

    def train(
        self,
        settings: Settings,
        out: str | Path | None,
        *,
        console: bool,
        measure: Measure | None,
        callbacks: Callbacks | None = None,
    ) -> tuple[Path, dict[str, Any]]:
        """Start a run."""

    def resume(
        self,
        folder: Path,
        settings: Settings,
        *,
        total_steps: int | None,
        console: bool,
        measure: Measure | None,
        callbacks: Callbacks | None = None,
    ) -> tuple[Path, dict[str, Any]]:
        """Resume a run."""


def trainer_of(agent: str) -> Trainer:
    """Import the trainer that an agent's entry names.

    Args:
        agent: a registered agent's name.

    Raises:
        UnknownIdError: for an unknown name; the message suggests the nearest known one.
        ConfigError: if the module cannot be imported, or is not a trainer.
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
    """Whether an interrupted run of this agent can be resumed."""
    return bool(getattr(trainer_of(agent), "RESUMABLE", True))


def train(
    settings: Settings,
    out: str | Path | None = None,
    *,
    console: bool = True,
    measure: Measure | None = None,
    callbacks: Callbacks | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Start a run.

    Args:
        settings: of the run, from :func:`mlbits.selfplay.runs.config.resolve`.
        out: its folder; None makes one under ``runs``.
        console: whether to show progress.
        measure: a function called at every evaluation for further measurements to record; ``mlbits.train`` and the
            command line pass :func:`mlbits.evals.training_probes.during_training`.
        callbacks: functions called while it is under way (:mod:`mlbits.selfplay.callbacks`), or None.

    Returns:
        The folder and the summary.

    Raises:
        MlbitsError: for invalid settings, a folder that holds another run, or numbers that are not finite.
        RunInterrupted: a KeyboardInterrupt, after a signal or a closed pipe; the run is saved first.
    """
    check_tracker(settings.run.track)
    check_sharded(settings)
    check_actors(settings)
    more: dict[str, Any] = {} if callbacks is None else {"callbacks": callbacks}
    return trainer_of(settings.agent).train(settings, out, console=console, measure=measure, **more)


def resume(
    folder: str | Path, *, total_steps: int | None = None, data: str | None = None, workers: int | None = None,
    actors: int | None = None, console: bool = True, measure: Measure | None = None, callbacks: Callbacks | None = None,
) -> tuple[Path, dict[str, Any]]:  # fmt: skip
    """Resume a run from its newest intact checkpoint (from the start if there are no checkpoints yet).

    Args:
        folder: the run's folder.
        total_steps: a new total number of steps; None keeps the run's own.
        data: where the dataset of a run that learns from one is now, if it has been moved.
        workers: processes among which the run's shards are divided from now on; 0 takes one a core or GPU, None as
            many as before.
        actors: processes that play the copies of a run that has such from now on; None as many as before.
        console: whether to show progress.
        measure: a function called at every evaluation for further measurements to record, as for :func:`train`.
        callbacks: functions called while it is under way, or None.

    Returns:
        The folder and the summary.

    Raises:
        RunError: if the folder is not a run, or the run cannot be resumed.
        InUseError: if another process trains or resumes the run now.
        CheckpointError: if there are checkpoints but none is usable.
        RunInterrupted: as for :func:`train`.
    """
    folder = Path(folder)
    trainer = trainer_of(read_settings(folder).agent)
    with one_writer(folder):
        settings = read_settings(folder)  # as nobody changes them now
        if data is not None:
            if not settings.run.data:
                raise ConfigError(f"data: got {data}; {folder} learns by playing, from no dataset")
            settings = dataclasses.replace(settings, run=dataclasses.replace(settings.run, data=data))
        if workers is not None:
            settings = dataclasses.replace(settings, run=dataclasses.replace(settings.run, workers=workers))
        if actors is not None:
            before = settings.run.actors
            if bool(actors) != bool(before):
                wanted = "a number above 0" if before else "0"
                raise ConfigError(
                    f"actors: got {actors}; {folder} was begun with {before}, and whether there are any is part of the "
                    f"experiment; wanted {wanted}"
                )
            settings = dataclasses.replace(settings, run=dataclasses.replace(settings.run, actors=actors))
        check_sharded(settings)
        check_actors(settings)
        more: dict[str, Any] = {} if callbacks is None else {"callbacks": callbacks}
        return trainer.resume(folder, settings, total_steps=total_steps, console=console, measure=measure, **more)
