"""Comparison tables: agents trained on tasks as a user would, beside references trained by the same command.

Every number of a table comes from whole training runs, each in a process of its own: the score of a run is the mean
return of its final agent, acting greedily, over evaluation episodes with the same initial states for every agent
(``mlbits train`` seeds them the same in every run). A row shows the interquartile mean over its runs and its 95%
interval, which holds for three runs and more (:func:`mlbits.selfplay.statistics.iqm_interval`); equal runs have none.

Runs are folders, OUT/TASK/LABEL/seed-N. A finished run is read, an interrupted one is resumed from its last
checkpoint, and one whose settings have changed is moved aside and trained again.

Example:
    trainings = entry.trainings(range(5), reference=True)
    results, failures = Runs(Path("runs/classic")).all(trainings, jobs=2)
    row = entry.row(results, seeds=range(5))
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

from mlbits.envs.core.errors import MlbitsError
from mlbits.evals.jobs.executors import open_executor
from mlbits.evals.jobs.job import Job
from mlbits.evals.jobs.queue import JobQueue, outcomes
from mlbits.evals.reproductions.reproduction import ReproductionError, train_in_process
from mlbits.selfplay.runs.checkpoints import make_folder
from mlbits.selfplay.runs.config import Settings
from mlbits.selfplay.runs.flags import parse_train
from mlbits.selfplay.runs.folder import CONFIG, SUMMARY, read_settings
from mlbits.selfplay.runs.one_writer import one_writer
from mlbits.selfplay.statistics import interquartile_mean, iqm_interval

EVAL_EPISODES = 100
TRIES = 2  # of a run that fails


@dataclass(frozen=True, slots=True)
class Training:
    """One training run.

    Attributes:
        agent: a registered agent.
        task: environment id.
        label: name of the agent with these flags in tables.
        flags: flags of ``mlbits train``, except the steps, the seed and those of evaluation.
        steps: environment steps.
        seed: the run's seed.
    """

    agent: str
    task: str
    label: str
    flags: str
    steps: int
    seed: int

    @property
    def name(self) -> str:
        """Task, label and seed."""
        return f"{self.task} {self.label} seed {self.seed}"

    def words(self, device: str = "cpu") -> list[str]:
        """The flags of the run except its seed and folder; it is evaluated once, at its end."""
        common = f"--total-steps {self.steps} --eval-every 0 --eval-episodes {EVAL_EPISODES} --no-video"
        return f"{self.flags} {common} --keep-checkpoints 1 --device {device}".split()


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a training run.

    Attributes:
        score: mean return of the evaluation episodes.
        steps_per_cpu_second: environment steps over the whole process's CPU time, imports and evaluation included.
    """

    score: float
    steps_per_cpu_second: float


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a table: an agent on a task, its target, and what it is compared with.

    Attributes:
        task: environment id.
        label: name of the agent in tables.
        agent: a registered agent.
        flags: flags of ``mlbits train`` for this variant.
        steps: environment steps.
        target: the least interquartile mean of its runs.
        published: the published mean return.
        spread: the published standard deviation, or None.
        source: where they were published.
        reference: the agent trained for comparison, or None.
        random: mean return of random play, the zero of normalised scores.
    """

    task: str
    label: str
    agent: str
    flags: str
    steps: int
    target: float
    published: float
    spread: float | None
    source: str
    reference: str | None
    random: float

    @property
    def name(self) -> str:
        """Task and label, as used by ``select``."""
        return f"{self.task}/{self.label}"

    def ours(self, seed: int) -> Training:
        """Our run with a seed."""
        return Training(self.agent, self.task, self.label, self.flags, self.steps, seed)

    def reference_run(self, seed: int) -> Training | None:
        """The reference's run with a seed: its own preset, the same number of steps."""
        if self.reference is None:
            return None
        return Training(self.reference, self.task, self.reference, "", self.steps, seed)

    def trainings(self, seeds: Iterable[int], *, reference: bool) -> list[Training]:
        """All runs of the row, ours first."""
        seeds = list(seeds)
        others = [self.reference_run(seed) for seed in seeds] if reference else []
        return [self.ours(seed) for seed in seeds] + [other for other in others if other is not None]

    def row(self, results: Mapping[Training, Result], seeds: Iterable[int]) -> dict[str, Any]:
        """The row as plain data, from the runs that are finished.

        Returns:
            The entry's task, label, agent, flags, steps, target and published figure; "ours" and "reference", each None
            or scores, iqm, interval and steps_per_cpu_second; and "met", whether ours reaches the target.
        """
        seeds = list(seeds)
        ours = summarize([results[run] for run in map(self.ours, seeds) if run in results])
        others = [self.reference_run(seed) for seed in seeds]
        reference = summarize([results[run] for run in others if run is not None and run in results])
        facts = dataclasses.asdict(self)
        return facts | {
            "reference_agent": facts.pop("reference"),
            "ours": ours,
            "reference": reference,
            "met": ours is not None and len(ours["scores"]) == len(seeds) and ours["iqm"] >= self.target,
        }


def summarize(results: Sequence[Result]) -> dict[str, Any] | None:
    """Scores of runs, their interquartile mean with its interval, and the median speed; None for no runs.

    The interval is -inf to inf for a single run, or for equal ones.
    """
    if not results:
        return None
    scores = [result.score for result in results]
    return {
        "scores": scores,
        "iqm": interquartile_mean(scores),
        "interval": list(iqm_interval([scores])),
        "steps_per_cpu_second": statistics.median(result.steps_per_cpu_second for result in results),
    }


def normalized(rows: Sequence[Mapping[str, Any]], side: str) -> dict[str, Any] | None:
    """The interquartile mean over several rows, each score mapped so that random play is 0 and the published figure 1.

    Args:
        rows: from :meth:`Entry.row`.
        side: "ours" or "reference".

    Returns:
        "iqm", "interval" (from the spread within rows; -inf and inf where a row has one run) and "rows", over the
        rows that have both sides; None if there are none.
    """
    both = [row for row in rows if row["ours"] is not None and row["reference"] is not None]
    if not both:
        return None
    strata = [
        [(score - row["random"]) / (row["published"] - row["random"]) for score in row[side]["scores"]] for row in both
    ]
    pooled = list(itertools.chain(*strata))
    return {"iqm": interquartile_mean(pooled), "interval": list(iqm_interval(strata)), "rows": len(both)}


def choose(entries: Sequence[Entry], patterns: Sequence[str]) -> list[Entry]:
    """Select rows by patterns such as "pendulum", "pendulum/ddpg", "*/dqn": a prefix of the task, and a label.

    Raises:
        ReproductionError: for a pattern that matches no row; the message lists the rows.
    """
    chosen: list[Entry] = []
    for pattern in patterns:
        task, _, label = pattern.lower().partition("/")
        found = [e for e in entries if fnmatch(e.task.lower(), f"{task}*") and fnmatch(e.label, label or "*")]
        if not found:
            known = ", ".join(entry.name for entry in entries)
            raise ReproductionError(f"select: no row matches {pattern!r}; wanted any of {known}")
        chosen += found
    return [entry for entry in entries if entry in chosen] if patterns else list(entries)


class Runs:
    """Training runs and their folders.

    Args:
        folder: the folder of all runs.
        device: "cpu" or "cuda".
        say: called with progress messages.
        cluster: address of a Ray cluster to train on, whose nodes all see the folder; "" trains here.
    """

    def __init__(
        self, folder: Path, device: str = "cpu", say: Callable[[str], None] = print, *, cluster: str = ""
    ) -> None:
        self.folder, self.device, self.say, self.cluster = folder, device, say, cluster
        self._settings: dict[Training, Settings] = {}

    def path(self, training: Training) -> Path:
        """The folder of a run."""
        return self.folder / training.task.replace("/", "-") / training.label / f"seed-{training.seed}"

    def settings(self, training: Training) -> Settings:
        """The run's settings, from its flags and the current preset.

        Raises:
            MlbitsError: for an agent, environment or flag that does not exist.
        """
        if training not in self._settings:
            words = [training.agent, training.task, "--seed", str(training.seed), *training.words(self.device)]
            self._settings[training] = parse_train(words)[0]
        return self._settings[training]

    def stored(self, training: Training) -> Result | None:
        """The result of a finished run with the current settings; None if there is none."""
        folder = self.path(training)
        if self.difference(training) is not None:
            return None
        try:
            summary = json.loads((folder / SUMMARY).read_text())
            score, steps, cpu = (float(summary[key]) for key in ("return_mean", "env_steps", "cpu_seconds"))
            if not (math.isfinite(score) and cpu > 0 and steps >= training.steps):
                raise ValueError(f"return_mean {score}, env_steps {steps}, cpu_seconds {cpu}")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            self.say(f"{folder / SUMMARY}: damaged ({error}); the run's last checkpoint is evaluated again")
            return None
        return Result(score, steps / cpu)

    def difference(self, training: Training) -> str | None:
        """Why the folder of a run holds a different run; None if it does not."""
        folder = self.path(training)
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return None
        try:
            there = read_settings(folder)
        except MlbitsError as error:
            return str(error)
        was, wanted = _comparable(there), _comparable(self.settings(training))
        return next(
            (f"{key} was {was.get(key)}, is {wanted[key]}" for key in wanted if was.get(key) != wanted[key]), None
        )

    def clear(self, training: Training) -> None:
        """Move a different run in the folder of a run aside."""
        why = self.difference(training)
        if why is not None:
            self._move_aside(training, why)

    def _move_aside(self, training: Training, why: str) -> None:
        folder = self.path(training)
        others = (folder.with_name(f"{folder.name}-before-{k}") for k in itertools.count(1))
        aside = next(path for path in others if not path.exists())
        folder.rename(aside)
        self.say(f"{training.name}: training again; the previous run is now {aside} ({why})")

    def read(self, trainings: Iterable[Training]) -> dict[Training, Result]:
        """The results of the runs that are finished."""
        stored = {training: self.stored(training) for training in dict.fromkeys(trainings)}
        return {training: result for training, result in stored.items() if result is not None}

    def one(self, training: Training) -> Result:
        """Train, or resume an unfinished run; train from the start if it cannot be resumed (Stable-Baselines3's).

        Raises:
            ReproductionError: if the run fails.
        """
        folder = self.path(training)
        folder.parent.mkdir(parents=True, exist_ok=True)
        train = partial(train_in_process, training.agent, training.task, training.seed, *training.words(self.device))
        begun = (folder / CONFIG).exists()
        try:
            train(out=folder)
        except ReproductionError as error:
            if not begun:
                raise
            self._move_aside(training, str(error))
            train(out=folder)
        result = self.stored(training)
        if result is None:
            raise ReproductionError(f"{folder}: the run wrote no summary; wanted {SUMMARY}")
        return result

    def all(
        self,
        trainings: Sequence[Training],
        *,
        jobs: int | None = None,
        done: Callable[[dict[Training, Result]], None] | None = None,
    ) -> tuple[dict[Training, Result], dict[Training, str]]:
        """Read finished runs and train the rest, several at a time; each run is a process of one thread.

        A run that fails is tried once more; then it does not stop the others.

        Args:
            trainings: the runs; duplicates are trained once.
            jobs: runs at a time; None is 1, or as many as a cluster has CPUs.
            done: called with all results so far, first with those of finished runs, then after each run.

        Returns:
            Results, and the error message of each run that failed.

        Raises:
            InUseError: if another process trains in the folder.
            ClusterError: if the cluster does not answer, or does not fit.
        """
        unique, failures = list(dict.fromkeys(trainings)), dict[Training, str]()
        for training in unique:
            self.settings(training)
        make_folder(self.folder)
        with one_writer(self.folder), open_executor(jobs, self.cluster, folder=self.folder) as executor:
            for training in unique:
                self.clear(training)
            results = self.read(unique)
            waiting = {self._job(training).key: training for training in unique if training not in results}
            self.say(f"{len(unique)} trainings: {len(results)} finished before, {len(waiting)} to do")
            if done is not None:
                done(results)
            queue = JobQueue(executor, tries=TRIES, say=self.say)
            for count, ended in enumerate(outcomes([self._job(one) for one in waiting.values()], queue), 1):
                training = waiting[ended.job.key]
                where = f"[{count}/{len(waiting)}] {training.name}"
                if ended.error:
                    failures[training] = ended.error
                    self.say(f"{where}: failed: {ended.error}")
                else:
                    result = results[training] = Result(**ended.value)
                    self.say(f"{where}: {result.score:,.1f} ({result.steps_per_cpu_second:,.0f} steps/CPU-s)")
                if done is not None:
                    done(results)
        return results, failures

    def _job(self, training: Training) -> Job:
        arguments = {"folder": str(self.folder.resolve()), "device": self.device, **dataclasses.asdict(training)}
        return Job(
            training.name, f"{__name__}:train_one", arguments, here=lambda: dataclasses.asdict(self.one(training))
        )  # fmt: skip


def train_one(*, folder: str, device: str, **training: Any) -> dict[str, float]:
    """A run of :class:`Runs` in any process.

    Args:
        folder: the folder of all runs.
        device: "cpu" or "cuda".
        **training: the fields of a :class:`Training`.

    Returns:
        The fields of its :class:`Result`.

    Raises:
        ReproductionError: if the run fails.
    """
    return dataclasses.asdict(Runs(Path(folder), device).one(Training(**training)))


def _comparable(settings: Settings) -> dict[str, Any]:
    """Settings by dotted names, except those of where it runs: a run may move to another machine."""
    data = settings.to_json()
    values = {"agent": data["agent"], "env": data["env"]}
    for group, prefix in (("run", ""), ("agent_config", "agent."), ("env_settings", "env.")):
        values |= {f"{prefix}{key}": value for key, value in data[group].items()}
    return {
        key: value for key, value in values.items() if key not in ("device", "threads", "workers", "worker_timeout")
    }
