"""``mlbits.train`` and ``mlbits.resume``: training from Python, the same as by the command line.

By default further measurements, such as images of the policy, are recorded at every evaluation.

Example:
    run = mlbits.train("ppo", "mlbits/GridWorld-v0", total_steps=300_000, seed=1)
    run = mlbits.train("crr", data="my/dataset-v0", total_steps=20_000)
    run = mlbits.train(config="runs/maze/config.json", seed=2)
    runs = mlbits.train("ppo", "CartPole-v1", seeds=5)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, overload

from mlbits.evals.training_probes import during_training
from mlbits.runs import Run, Runs
from mlbits.selfplay import training
from mlbits.selfplay.callbacks import Callback, Callbacks, callbacks_of
from mlbits.selfplay.machine import count_from_now
from mlbits.selfplay.runs.config import ConfigError, Settings, portable, resolve
from mlbits.selfplay.runs.config_files import read_config_file
from mlbits.selfplay.runs.folder import CONFIG, finished_summary, read_settings
from mlbits.selfplay.session import Measure

_MOST_SEEDS = 10_000


@overload
def train(agent: str | None = None, env: str | None = None, *, seeds: None = None, **settings: Any) -> Run: ...
@overload
def train(agent: str | None = None, env: str | None = None, *, seeds: int, **settings: Any) -> Runs: ...
def train(
    agent: str | None = None,
    env: str | None = None,
    *,
    out: str | Path | None = None,
    preset: str | None = None,
    config: str | Path | None = None,
    seeds: int | None = None,
    agent_settings: Mapping[str, Any] | None = None,
    env_settings: Mapping[str, Any] | None = None,
    on_iteration: Callback | None = None,
    on_evaluation: Callback | None = None,
    on_checkpoint: Callback | None = None,
    callbacks: Any = None,
    console: bool = True,
    measure: Measure | None = during_training,
    **run: Any,
) -> Run | Runs:
    """Train an agent on an environment, as ``mlbits train AGENT ENV`` does.

    Args:
        agent: a registered agent's name; may be left to ``config``.
        env: an environment's id; may be left to ``config``, and of an offline agent to its dataset (``data=``).
        out: the run's folder; None makes one under ``runs``. With ``seeds`` the folder of their folders.
        preset: "auto" (which None is), "none", or the environment whose preset to use.
        config: a run's config.json (or its folder), which repeats that run, or a TOML file
            (:mod:`mlbits.selfplay.runs.config_files`); other arguments override it.
        seeds: train so many runs, with the seeds ``seed``, ``seed + 1`` and so on.
        agent_settings: settings of the agent (``--agent.NAME``), which override the preset's.
        env_settings: settings of the environment (``--env.NAME``).
        on_iteration: called after each iteration with the run under way
            (:class:`~mlbits.selfplay.callbacks.RunUnderWay`); it ends the run by returning False, or by
            ``run.stop("why")``.
        on_evaluation: the same after each evaluation.
        on_checkpoint: the same after each checkpoint.
        callbacks: an object, or a list of objects, with methods of these names.
        console: whether to show progress.
        measure: a function called at every evaluation for further measurements to record; None records only the
            returns.
        **run: settings of the run; see :class:`mlbits.selfplay.runs.config.RunConfig`.

    Returns:
        The run; with ``seeds`` the runs. A run is also its folder and its summary:
        ``folder, summary = mlbits.train(...)``.

    Raises:
        MlbitsError: for unknown names, invalid settings, unsupported spaces, or numbers that are not finite.
        RunInterrupted: a KeyboardInterrupt, after a signal or a closed pipe; the run is saved first.
    """
    called = callbacks_of(
        callbacks, on_iteration=on_iteration, on_evaluation=on_evaluation, on_checkpoint=on_checkpoint
    )  # fmt: skip
    given: dict[str, Any] = {"run": run, "agent_settings": agent_settings, "env_settings": env_settings}
    if config is not None:
        settings = read_config_file(config).resolved(agent, env, preset=preset, **given)
    elif agent is None:
        raise ConfigError("agent: missing; wanted a name, as in mlbits.train('ppo', 'CartPole-v1'), or config=")
    else:
        settings = resolve(agent, env, preset=preset or "auto", **given)
    count_from_now()
    common: dict[str, Any] = {"console": console, "measure": measure, "callbacks": called}
    if seeds is None:
        return train_resolved(settings, out, **common)
    return train_seeds(settings, seeds, out, **common)


def train_resolved(
    settings: Settings,
    out: str | Path | None = None,
    *,
    console: bool = True,
    measure: Measure | None = during_training,
    callbacks: Callbacks | None = None,
) -> Run:
    """Train with all settings given as one object; see :func:`mlbits.selfplay.training.train`."""
    return Run(*training.train(settings, out, console=console, measure=measure, callbacks=callbacks))


def train_seeds(settings: Settings, seeds: int, out: str | Path | None = None, **common: Any) -> Runs:
    """Train the same with several seeds, one after another.

    With ``out``, runs of the same settings that are there already are kept if they are finished and resumed if not: the
    same call after an interruption goes on where it stopped.

    Args:
        settings: of the first run.
        seeds: how many.
        out: the folder of their folders ``seed-0`` and so on; None makes one for each under ``runs``.
        **common: as for :func:`train_resolved`.

    Raises:
        ConfigError: for no seeds, or too many.
        RunError: if a folder holds a run of other settings.
    """
    if isinstance(seeds, bool) or not isinstance(seeds, int) or not 1 <= seeds <= _MOST_SEEDS:
        raise ConfigError(f"seeds: got {seeds!r}; wanted a whole number from 1 to {_MOST_SEEDS:,}")
    runs = []
    for seed in range(settings.run.seed, settings.run.seed + seeds):
        one = dataclasses.replace(settings, run=dataclasses.replace(settings.run, seed=seed))
        folder = None if out is None else Path(out) / f"seed-{seed}"
        there = folder is not None and (folder / CONFIG).exists() and portable(read_settings(folder)) == portable(one)
        runs.append(
            _continued(folder, common) if folder is not None and there else train_resolved(one, folder, **common)
        )
        count_from_now()
    return Runs(runs)


def _continued(folder: Path, common: dict[str, Any]) -> Run:
    """A run that was begun before: as it is if it is finished, else resumed."""
    done = finished_summary(folder, None)
    return resume_folder(folder, **common) if done is None else Run(folder, done)


def resume(
    folder: str | Path,
    *,
    total_steps: int | None = None,
    data: str | None = None,
    workers: int | None = None,
    on_iteration: Callback | None = None,
    on_evaluation: Callback | None = None,
    on_checkpoint: Callback | None = None,
    callbacks: Any = None,
    console: bool = True,
    measure: Measure | None = during_training,
) -> Run:
    """Resume a run from its newest complete checkpoint, as ``mlbits resume RUN`` does.

    Args:
        folder: the run's folder.
        total_steps: a new number of steps to end at; None keeps the run's own.
        data: where the run's dataset is now, if it has been moved; another one is refused.
        workers: processes among which the run's shards are divided from now on; 0 takes one a core or
            GPU, None as many as before.
        on_iteration: as for :func:`train`.
        on_evaluation: as for :func:`train`.
        on_checkpoint: as for :func:`train`.
        callbacks: as for :func:`train`.
        console: whether to show progress.
        measure: as for :func:`train`.

    Returns:
        The run; also its folder and its summary, as for :func:`train`.

    Raises:
        RunError: if the folder is not a run, or one that cannot be resumed.
        CheckpointError: if there are checkpoints and none is usable.
        RunInterrupted: as :func:`train` raises it.
    """
    called = callbacks_of(
        callbacks, on_iteration=on_iteration, on_evaluation=on_evaluation, on_checkpoint=on_checkpoint
    )  # fmt: skip
    count_from_now()
    return resume_folder(
        folder, total_steps=total_steps, data=data, workers=workers, console=console, measure=measure, callbacks=called
    )


def resume_folder(folder: str | Path, **settings: Any) -> Run:
    """As :func:`resume`, with the time counted from the start of the process, as the command does."""
    return Run(*training.resume(folder, **{"measure": during_training, **settings}))
