"""Running a sweep: Optuna is asked for trials, which are jobs; what it is told is in its journal.

A sweep is a folder::

    sweep.json      what is searched: agent, environment, settings, space, goal
    journal.log     Optuna's journal: the trials and their results so far
    trials/0003/    the run of trial 3
    trials.csv, sweep.png, preset.toml

The same command goes on with a sweep that was stopped, however it was: trials under way are resumed. With one trial at
a time a sweep is a function of its settings and seed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mlbits.envs.core.plain_json import read_json_file
from mlbits.envs.core.trust import trusted
from mlbits.evals.jobs.executors import open_executor
from mlbits.evals.jobs.job import Job
from mlbits.evals.jobs.queue import JobQueue, Outcome
from mlbits.evals.sweep.config import SweepConfig, SweepError
from mlbits.evals.sweep.space import Dimension, with_values
from mlbits.evals.sweep.study import JOURNAL, import_optuna, open_study, trial_of, values_of
from mlbits.evals.sweep.trial import train_trial
from mlbits.selfplay.interrupts import RunInterrupted
from mlbits.selfplay.runs.checkpoints import make_folder, write_file
from mlbits.selfplay.runs.config import Settings, portable
from mlbits.selfplay.runs.one_writer import one_writer

FACTS, TRIALS = "sweep.json", "trials"
_TRAIN = "mlbits.evals.sweep.trial:train_trial"
_TRIES = 2  # of a trial that fails


@dataclass(frozen=True)
class Trial:
    """How a trial went.

    Attributes:
        number: 0, 1, ...
        state: "complete", "pruned" or "failed".
        value: the last value of the metric; NaN if it failed.
        values: what it tried, by setting.
        folder: its run.
    """

    number: int
    state: str
    value: float
    values: dict[str, Any]
    folder: Path


@dataclass(frozen=True)
class Sweep:
    """A sweep and its results.

    Attributes:
        folder: its folder.
        settings: of its trials, except what is tried.
        space: what is tried.
        how: what is looked for.
        trials: those that have ended, by number.
    """

    folder: Path
    settings: Settings
    space: tuple[Dimension, ...]
    how: SweepConfig
    trials: tuple[Trial, ...]

    @property
    def best(self) -> Trial | None:
        """The complete trial with the best value, the first of equals; None without one."""
        sign = -1 if self.how.goal == "maximize" else 1
        whole = [trial for trial in self.trials if trial.state == "complete" and not math.isnan(trial.value)]
        return min(whole, key=lambda trial: (sign * trial.value, trial.number), default=None)


def run_sweep(
    settings: Settings, space: Sequence[Dimension], trials: int, how: SweepConfig | None = None, *,
    out: Path | None = None, jobs: int | None = None, cluster: str = "", say: Callable[[str], None] = print,
) -> Sweep:  # fmt: skip
    """Run a sweep, or the rest of one.

    Args:
        settings: of the trials, except what is tried; its seed is also the sweep's.
        space: what is tried, from :func:`~mlbits.evals.sweep.space.read_space`.
        trials: how many in all.
        how: what is looked for; None takes the defaults.
        out: the folder; None takes ``sweeps/NAME``, the same for the same search.
        jobs: trials at once; None is 1, in this process, or as many as a cluster has CPUs.
        cluster: address of a Ray cluster to train on, whose nodes see the folder; "" trains here.
        say: called with a line when a trial ends.

    Raises:
        SweepError: if Optuna is not installed, or the folder holds another sweep or anything else.
        InUseError: if another process runs this sweep.
        ClusterError: if the cluster does not answer, or does not fit.
    """
    how = SweepConfig() if how is None else how
    import_optuna()
    facts = _facts(settings, space, how)
    folder = _default_folder(facts) if out is None else out
    _check_folder(folder, facts)
    try:
        make_folder(folder / TRIALS)
    except OSError as error:
        raise SweepError(f"out: {folder} cannot be written ({error.strerror}); wanted a writable folder") from None
    with one_writer(folder), open_executor(jobs, cluster, folder=folder) as executor:
        write_file(folder / FACTS, json.dumps(facts, indent=2).encode() + b"\n")
        study = open_study(folder / JOURNAL, how)
        queue = JobQueue(executor, tries=_TRIES, say=say)
        numbers = dict[str, int]()
        states = import_optuna().trial.TrialState

        def begin(number: int) -> None:
            values = values_of(study, trial_of(study, number), space, how, settings.run.seed)
            job = _job(folder, settings, values, number, how)
            numbers[job.key] = number
            queue.submit(job)

        for trial in study.get_trials(states=(states.RUNNING, states.WAITING)):
            begin(trial.number)
        while True:
            while len(queue) < executor.slots and (count := len(study.get_trials(deepcopy=False))) < trials:
                study.ask()
                begin(count)
            if not len(queue):
                break
            try:
                ended = queue.next()
            except RunInterrupted as stop:
                text = f"interrupted; the same command goes on with the sweep in {folder}"
                raise RunInterrupted(text, stop.status, folder, None) from None
            if ended.final and not any(trial.state == "complete" for trial in _ended(folder, study, space)):
                ended.result()  # raises: the same would be wrong with every trial
            _tell(study, numbers[ended.job.key], ended)
            say(_line(_ended(folder, study, space), numbers[ended.job.key], trials, how))
        return Sweep(folder, settings, tuple(space), how, tuple(_ended(folder, study, space)))


def _job(folder: Path, settings: Settings, values: Mapping[str, Any], number: int, how: SweepConfig) -> Job:
    arguments: dict[str, Any] = {
        "settings": portable(with_values(settings, values)),
        "folder": str((folder / TRIALS / f"{number:04d}").resolve()),
        "journal": str((folder / JOURNAL).resolve()), "number": number, "how": asdict(how), "trust": trusted(),
    }  # fmt: skip
    return Job(f"trial {number}", _TRAIN, arguments, here=partial(train_trial, **arguments))


def _tell(study: Any, number: int, ended: Outcome) -> None:
    """Write into the journal how a trial ended."""
    states = import_optuna().trial.TrialState
    if ended.error or math.isnan(ended.value["value"]):
        trial_of(study, number).set_user_attr("error", ended.error or "its metric has no value")
        study.tell(number, state=states.FAIL)
    elif ended.value["pruned"]:
        study.tell(number, state=states.PRUNED)
    else:
        study.tell(number, ended.value["value"])


def _ended(folder: Path, study: Any, space: Sequence[Dimension]) -> list[Trial]:
    """The trials that have ended."""
    found = []
    for trial in study.get_trials(deepcopy=False):
        if trial.state.is_finished():
            state = {"COMPLETE": "complete", "PRUNED": "pruned"}.get(trial.state.name, "failed")
            value = math.nan if trial.value is None or state == "failed" else float(trial.value)
            choices = {dimension.name for dimension in space if dimension.kind == "choices"}
            values = {name: json.loads(one) if name in choices else one for name, one in trial.params.items()}
            found.append(Trial(trial.number, state, value, values, folder / TRIALS / f"{trial.number:04d}"))
    return found


def _line(ended: Sequence[Trial], number: int, trials: int, how: SweepConfig) -> str:
    """A line about a trial that has just ended."""
    trial = next(trial for trial in ended if trial.number == number)
    values = ", ".join(f"{name} {_shown(value)}" for name, value in trial.values.items())
    result = trial.state if trial.state == "failed" else f"{how.metric} {trial.value:.6g}"
    return f"[{len(ended)}/{trials}] trial {number}: {result}{' (pruned)' * (trial.state == 'pruned')}; {values}"


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)


def _facts(settings: Settings, space: Sequence[Dimension], how: SweepConfig) -> dict[str, Any]:
    """Facts that distinguish one sweep from another."""
    facts = {"sweep": "mlbits sweep", "version": 1, "settings": portable(settings), "how": asdict(how)}
    plain: dict[str, Any] = json.loads(json.dumps(facts | {"space": [asdict(dimension) for dimension in space]}))
    return plain


def _default_folder(facts: Mapping[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]
    settings = facts["settings"]
    env = str(settings["env"]).rpartition("/")[2].rpartition(":")[2]
    return Path("sweeps") / f"{str(settings['agent']).rpartition(':')[2]}-{env}-{digest}"


def _check_folder(folder: Path, facts: Mapping[str, Any]) -> None:
    """Refuse a folder that holds another sweep, or anything else."""
    if folder.exists() and not folder.is_dir():
        raise SweepError(f"out: {folder} is a file; wanted a folder")
    if not folder.is_dir() or all(path.name.startswith(".") or path.name == TRIALS for path in folder.iterdir()):
        return
    try:
        held = read_json_file(folder / FACTS)
    except (OSError, ValueError):
        held = None
    if not isinstance(held, dict) or held.get("sweep") != facts["sweep"]:
        raise SweepError(f"out: {folder} is not empty and holds no sweep; wanted a new folder")
    for name in facts:
        if held.get(name) != facts[name]:
            raise SweepError(f"out: {folder} holds a sweep with {_difference(held.get(name), facts[name], name)}")


def _difference(held: Any, wanted: Any, name: str) -> str:
    """The first difference in words."""
    if isinstance(held, dict) and isinstance(wanted, dict):
        for key in wanted | held:
            if held.get(key) != wanted.get(key):
                return _difference(held.get(key), wanted.get(key), f"{name}.{key}")
    if name == "space":
        return "another space; wanted the same file, or another folder"
    return f"{name} {json.dumps(held)}; wanted {json.dumps(wanted)}, or another folder"
