"""Tables of results: agents trained on tasks as a user would train them, beside references trained by the same command.

Every number of a table comes from whole training runs, each in a process of its own: the score of a run is the mean
return of its last agent over evaluation episodes that start alike for every agent (``mlbits train`` seeds them the same
in every run), greedy. A row says of its runs their interquartile mean and its 95% interval, which holds for three runs
and more (:func:`mlbits.selfplay.statistics.iqm_interval`); equal runs have none.

Runs are folders, OUT/TASK/LABEL/seed-N. One that is finished is read, one that was interrupted goes on from its last
checkpoint, and one whose settings are not today's is moved aside and trained anew.

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
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

from mlbits.envs.core.errors import MlbitsError
from mlbits.evals.reproductions.reproduction import ReproductionError, train_in_process
from mlbits.selfplay.runs.config import Settings
from mlbits.selfplay.runs.flags import parse_train
from mlbits.selfplay.runs.folder import CONFIG, SUMMARY, read_settings
from mlbits.selfplay.statistics import interquartile_mean, iqm_interval

EVAL_EPISODES = 100


@dataclass(frozen=True, slots=True)
class Training:
    """One training run.

    Attributes:
        agent: a registered agent.
        task: environment id.
        label: what a table calls the agent with these flags.
        flags: of ``mlbits train``, beyond the steps, the seed and how it is evaluated.
        steps: environment steps.
        seed: of the run.
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
        """The flags of the run but for its seed and folder; it is evaluated once, when it is done."""
        common = f"--total-steps {self.steps} --eval-every 0 --eval-episodes {EVAL_EPISODES} --no-video"
        return f"{self.flags} {common} --keep-checkpoints 1 --device {device}".split()


@dataclass(frozen=True, slots=True)
class Result:
    """What a training run came to.

    Attributes:
        score: mean return of the evaluation episodes.
        steps_per_cpu_second: environment steps over the whole process's CPU time, imports and evaluation included.
    """

    score: float
    steps_per_cpu_second: float


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a table: an agent on a task, what it has to reach, and what it stands beside.

    Attributes:
        task: environment id.
        label: what the table calls the agent.
        agent: a registered agent.
        flags: of ``mlbits train`` that make it this variant.
        steps: environment steps.
        target: the least interquartile mean of its runs.
        published: the published mean return.
        spread: the published standard deviation, or None.
        source: where they were published.
        reference: the agent that is trained for comparison, or None.
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
        """Task and label, as they are selected."""
        return f"{self.task}/{self.label}"

    def ours(self, seed: int) -> Training:
        """Our run of one seed."""
        return Training(self.agent, self.task, self.label, self.flags, self.steps, seed)

    def reference_run(self, seed: int) -> Training | None:
        """The reference's run of one seed: its own preset, the same number of steps."""
        if self.reference is None:
            return None
        return Training(self.reference, self.task, self.reference, "", self.steps, seed)

    def trainings(self, seeds: Iterable[int], *, reference: bool) -> list[Training]:
        """All runs of the row, ours first."""
        seeds = list(seeds)
        others = [self.reference_run(seed) for seed in seeds] if reference else []
        return [self.ours(seed) for seed in seeds] + [other for other in others if other is not None]

    def row(self, results: Mapping[Training, Result], seeds: Iterable[int]) -> dict[str, Any]:
        """The row as plain data, from the runs that are there.

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

    The interval is -inf and inf where it has no ends: of one run, or of equal ones.
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
        "iqm", "interval" (the spread is that within rows; -inf and inf where a row has one run) and "rows", over the
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
    """Rows by patterns such as "pendulum", "pendulum/ddpg", "*/dqn": the start of a task, and a label; * is any text.

    Raises:
        ReproductionError: for a pattern that fits no row, naming the rows.
    """
    chosen: list[Entry] = []
    for pattern in patterns:
        task, _, label = pattern.lower().partition("/")
        found = [e for e in entries if fnmatch(e.task.lower(), f"{task}*") and fnmatch(e.label, label or "*")]
        if not found:
            known = ", ".join(entry.name for entry in entries)
            raise ReproductionError(f"select: nothing is called {pattern!r}; wanted any of {known}")
        chosen += found
    return [entry for entry in entries if entry in chosen] if patterns else list(entries)


class Runs:
    """Training runs and their folders.

    Args:
        folder: where the runs lie, or are to lie.
        device: "cpu" or "cuda".
        say: takes lines about what happens.
    """

    def __init__(self, folder: Path, device: str = "cpu", say: Callable[[str], None] = print) -> None:
        self.folder, self.device, self.say = folder, device, say
        self._settings: dict[Training, Settings] = {}

    def path(self, training: Training) -> Path:
        """The folder of a run."""
        return self.folder / training.task.replace("/", "-") / training.label / f"seed-{training.seed}"

    def settings(self, training: Training) -> Settings:
        """What the run's flags and today's preset come to.

        Raises:
            MlbitsError: for an agent, environment or flag that does not exist.
        """
        if training not in self._settings:
            words = [training.agent, training.task, "--seed", str(training.seed), *training.words(self.device)]
            self._settings[training] = parse_train(words)[0]
        return self._settings[training]

    def stored(self, training: Training) -> Result | None:
        """The result of a finished run with today's settings; None where there is none."""
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
        """Why the folder of a run does not hold this run; None if it does, or holds nothing."""
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
        """Move what lies in the folder of a run aside, if it is not this run."""
        why = self.difference(training)
        if why is not None:
            self._move_aside(training, why)

    def _move_aside(self, training: Training, why: str) -> None:
        folder = self.path(training)
        others = (folder.with_name(f"{folder.name}-before-{k}") for k in itertools.count(1))
        aside = next(path for path in others if not path.exists())
        folder.rename(aside)
        self.say(f"{training.name}: trained anew, the run that was there is now {aside} ({why})")

    def read(self, trainings: Iterable[Training]) -> dict[Training, Result]:
        """The results of those runs that are finished."""
        stored = {training: self.stored(training) for training in dict.fromkeys(trainings)}
        return {training: result for training, result in stored.items() if result is not None}

    def one(self, training: Training, stop: threading.Event | None = None) -> Result:
        """Train, or go on with a run that was begun; where that cannot be (Stable-Baselines3's), train anew.

        Raises:
            ReproductionError: if the run fails.
        """
        folder = self.path(training)
        folder.parent.mkdir(parents=True, exist_ok=True)
        train = partial(train_in_process, training.agent, training.task, training.seed, *training.words(self.device))
        begun = (folder / CONFIG).exists()
        try:
            train(out=folder, stop=stop)
        except ReproductionError as error:
            if not begun or (stop is not None and stop.is_set()):
                raise
            self._move_aside(training, str(error))
            train(out=folder, stop=stop)
        result = self.stored(training)
        if result is None:
            raise ReproductionError(f"{folder}: the run left no summary; wanted {SUMMARY}")
        return result

    def all(
        self,
        trainings: Sequence[Training],
        *,
        jobs: int = 1,
        done: Callable[[dict[Training, Result]], None] | None = None,
    ) -> tuple[dict[Training, Result], dict[Training, str]]:
        """Read what is finished and train the rest, several processes at once.

        A run that fails does not end the others.

        Args:
            trainings: wanted; each is trained once however often it is named.
            jobs: processes at once, of one thread each.
            done: called with all results so far, first with those that were there, then after each run.

        Returns:
            Results, and for each run that failed what it said.
        """
        unique, failures = list(dict.fromkeys(trainings)), dict[Training, str]()
        for training in unique:
            self.settings(training)  # kept, since flags cannot be read in several threads at once
            self.clear(training)
        results = self.read(unique)
        waiting = [training for training in unique if training not in results]
        self.say(f"{len(unique)} trainings: {len(results)} finished before, {len(waiting)} to do")
        if done is not None:
            done(results)
        stop = threading.Event()
        with ThreadPoolExecutor(jobs) as pool:
            futures = {pool.submit(self.one, training, stop): training for training in waiting}
            try:
                for count, future in enumerate(as_completed(futures), 1):
                    training = futures[future]
                    where = f"[{count}/{len(waiting)}] {training.name}"
                    try:
                        result = results[training] = future.result()
                        self.say(f"{where}: {result.score:,.1f} ({result.steps_per_cpu_second:,.0f} steps/CPU-s)")
                    except (MlbitsError, OSError) as error:
                        failures[training] = str(error)
                        self.say(f"{where}: failed: {error}")
                    if done is not None:
                        done(results)
            except BaseException:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return results, failures


def _comparable(settings: Settings) -> dict[str, Any]:
    """Settings by dotted names, less those that say where and not what: a run may move to another machine."""
    data = settings.to_json()
    values = {"agent": data["agent"], "env": data["env"]}
    for group, prefix in (("run", ""), ("agent_config", "agent."), ("env_settings", "env.")):
        values |= {f"{prefix}{key}": value for key, value in data[group].items()}
    return {key: value for key, value in values.items() if key not in ("device", "threads")}
