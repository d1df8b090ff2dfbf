"""``mlbits.train`` and ``mlbits.resume``: training from Python, the same as by the command line.

By default further measurements, such as images of the policy, are recorded at every evaluation.

Example:
    run = mlbits.train("ppo", "mlbits/GridWorld-v0", total_steps=300_000, seed=1)
    run = mlbits.train("crr", data="my/dataset-v0", total_steps=20_000)
    run = mlbits.train(config="runs/maze/config.json", seed=2)
    runs = mlbits.train("ppo", "CartPole-v1", seeds=5)
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, overload

from mlbits.evals.jobs.executors import check_jobs, open_executor
from mlbits.evals.jobs.job import JobError
from mlbits.evals.jobs.queue import JobQueue, outcomes
from mlbits.evals.jobs.training import check_run, run_job
from mlbits.evals.training_probes import during_training
from mlbits.runs import Run, Runs
from mlbits.selfplay import training
from mlbits.selfplay.callbacks import Callback, Callbacks, callbacks_of
from mlbits.selfplay.interrupts import RunInterrupted
from mlbits.selfplay.machine import count_from_now
from mlbits.selfplay.runs.checkpoints import make_folder
from mlbits.selfplay.runs.config import ConfigError, Settings, resolve
from mlbits.selfplay.runs.config_files import read_config_file
from mlbits.selfplay.runs.folder import finished_summary, named_folder, read_settings
from mlbits.selfplay.runs.job_flags import check_seeds
from mlbits.selfplay.runs.one_writer import one_writer
from mlbits.selfplay.session import Measure

_TRIES = 2  # of a run that fails


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
    jobs: int | None = None,
    cluster: str = "",
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
        jobs: with ``seeds``: runs at once, each in a process of its own.
        cluster: with ``seeds``: address of a Ray cluster to train on, as for ``mlbits train``.
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
        if jobs is not None or cluster:
            raise ConfigError("seeds: missing with jobs or cluster, which divide several runs; wanted a number")
        return train_resolved(settings, out, **common)
    return train_seeds(settings, seeds, out, jobs=jobs, cluster=cluster, **common)


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


def train_seeds(
    settings: Settings, seeds: int, out: str | Path | None = None, *, jobs: int | None = None, cluster: str = "",
    **common: Any,
) -> Runs:  # fmt: skip
    """Train the same with several seeds, one after another or several at once.

    A run that is whole is read, one that was begun is resumed: with ``out`` the same call after an interruption goes on
    where it stopped. A run that fails is tried once more; then the others are trained all the same.

    Args:
        settings: of the first run.
        seeds: how many.
        out: the folder of their folders ``seed-0`` and so on; None makes one for each under ``runs``.
        jobs: runs at once, each in a process of its own; None is 1, in this process, or as many as a cluster has CPUs.
        cluster: address of a Ray cluster to train on, whose nodes all see the folders; "" trains here.
        **common: as for :func:`train_resolved`.

    Raises:
        ConfigError: for no seeds, or too many; for callbacks with other processes.
        RunError: if a folder holds a run of other settings; nothing has been trained then.
        JobError: if runs failed, naming them.
        InUseError: if another process trains in ``out``.
    """
    check_seeds(seeds)
    check_jobs(jobs)
    apart = bool(cluster) or (jobs or 1) > 1
    measure = common.get("measure", during_training)
    for name, function in (("callbacks", common.get("callbacks")), ("measure", measure)):
        if apart and function not in (None, during_training):
            raise ConfigError(f"{name}: cannot be called in other processes; wanted jobs=1 and no cluster, or none")
    wanted = [
        dataclasses.replace(settings, run=dataclasses.replace(settings.run, seed=seed))
        for seed in range(settings.run.seed, settings.run.seed + seeds)
    ]
    folders: list[Path | None] = [None if out is None else Path(out) / f"seed-{one.run.seed}" for one in wanted]
    runs, failed = dict[str, Run](), dict[str, str]()
    with contextlib.ExitStack() as held:
        if out is not None:
            for one, folder in zip(wanted, folders, strict=True):
                check_run(one, Path(str(folder)))
            make_folder(Path(out))
            held.enter_context(one_writer(Path(out)))
        executor = held.enter_context(open_executor(jobs, cluster, folder=None if out is None else Path(out)))
        if apart and out is None:
            folders = [held.enter_context(_reserved(one)) for one in wanted]
        made = []
        for one, folder in zip(wanted, folders, strict=True):
            name = f"seed {one.run.seed}"
            here = partial(_here, one, folder, common)
            made.append(run_job(name, one, folder or Path(name), measured=measure is not None, here=here))
        places = dict(zip((job.name for job in made), folders, strict=True))
        try:
            for count, ended in enumerate(outcomes(made, JobQueue(executor, tries=_TRIES, say=print)), 1):
                if ended.final:
                    ended.result()  # raises what would be wrong with the others too
                elif ended.error:
                    failed[ended.job.name] = ended.error
                else:
                    runs[ended.job.name] = Run(places[ended.job.name] or ended.value)
                    if apart and common.get("console", True):
                        print(f"[{count}/{seeds}] {ended.job.name} is trained", flush=True)
        except KeyboardInterrupt:
            if not apart:  # the run in this process says how to continue
                raise
            again = "with --out the same command goes on" if out is None else "the same command goes on"
            raise RunInterrupted(f"interrupted; {again}", 128 + signal.SIGINT, Path(out or "runs"), None) from None
    if failed:
        name, why = next(iter(failed.items()))
        rest = f"; so did {', '.join(list(failed)[1:])}" if len(failed) > 1 else ""
        raise JobError(f"{name} failed: {why}{rest}; the others are trained")
    return Runs([runs[job.name] for job in made])


@contextlib.contextmanager
def _reserved(settings: Settings) -> Iterator[Path]:
    """A folder for a run of another process; it is deleted if the run never began."""
    folder = named_folder(settings)
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):  # it holds the run
            folder.rmdir()


def _here(settings: Settings, folder: Path | None, common: dict[str, Any]) -> Path:
    """Train a run in this process, or the rest of it; returns its folder."""
    try:
        if folder is not None and check_run(settings, folder):
            return _continued(folder, common).folder
        return train_resolved(settings, folder, **common).folder
    finally:
        count_from_now()


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
    actors: int | None = None,
    on_iteration: Callback | None = None,
    on_evaluation: Callback | None = None,
    on_checkpoint: Callback | None = None,
    callbacks: Any = None,
    console: bool = True,
    measure: Measure | None = during_training,
) -> Run:
    """Resume a run from its newest complete checkpoint, as ``mlbits resume RUN`` does.

    Nothing is done to a run that is finished, unless its dataset, workers or actors are named anew.

    Args:
        folder: the run's folder.
        total_steps: a new number of steps to end at; None keeps the run's own.
        data: where the run's dataset is now, if it has been moved; another one is refused.
        workers: processes among which the run's shards are divided from now on; 0 takes one a core or
            GPU, None as many as before.
        actors: processes that play the copies of a run with actors from now on; None as many as before.
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
    done = finished_summary(folder, total_steps)
    unchanged = data is None and workers is None and actors is None  # what is given is checked by the run's loop
    if unchanged and done is not None and training.resumable(read_settings(folder).agent):
        if console:
            print(f"{folder} is finished: it has its {done['env_steps']:,} steps; nothing was done", flush=True)
        return Run(Path(folder))
    count_from_now()
    return resume_folder(
        folder, total_steps=total_steps, data=data, workers=workers, actors=actors, console=console, measure=measure,
        callbacks=called,
    )  # fmt: skip


def resume_folder(folder: str | Path, **settings: Any) -> Run:
    """As :func:`resume`, with the time counted from the start of the process, as the command does."""
    return Run(*training.resume(folder, **{"measure": during_training, **settings}))
