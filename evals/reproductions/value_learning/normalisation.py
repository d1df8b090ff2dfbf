"""``mlbits reproduce normalisation``: off-policy agents with normalised observations and rewards, beside without.

DQN on LunarLander and DDPG on HalfCheetah, trained as a user would, three ways with everything else the same: on raw
experience, with observations standardised by their running moments, and with rewards divided by the running deviation
of discounted returns too. Each number comes from whole training runs with equal seeds (``comparison``).

Whether normalising helps depends on the task: entries of LunarLander's observations are of order 1 already, those of
HalfCheetah differ by a factor of 10. The figures stand beside each other; what is asked of them is only that
standardised observations do no harm: that their interval is not below that of raw ones.

Example:
    mlbits reproduce normalisation --select lunarlander --seeds 5 --out runs/normalisation --jobs 2
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mlbits.envs.doors.gymnasium_batch import open_batch
from mlbits.evals.reproductions import results_page
from mlbits.evals.reproductions.comparison import EVAL_EPISODES, Runs, Training, summarize
from mlbits.evals.reproductions.reproduction import ReproductionError, print_table


class Row(NamedTuple):
    """An agent on a task.

    Attributes:
        task: environment id.
        agent: a registered agent.
        flags: flags of ``mlbits train`` beside the preset's.
        steps: environment steps.
        quick_steps: those of the quick form.
    """

    task: str
    agent: str
    flags: str
    steps: int
    quick_steps: int


ROWS = (
    Row("LunarLander-v3", "dqn", "", 100_000, 20_000),
    Row("HalfCheetah-v5", "ddpg", "--num-envs 8", 300_000, 10_000),
)
RAW = "raw"
WAYS = {
    RAW: "",
    "obs": "--agent.normalize-obs",
    "obs-reward": "--agent.normalize-obs --agent.normalize-reward",
}
QUICK_SEEDS = 3


def reproduce(
    quick: bool = False,
    select: tuple[str, ...] = (),
    seeds: int = 5,
    out: Path | None = None,
    jobs: int | None = None,
    cluster: str = "",
) -> dict[str, Any]:
    """Train each way and compare.

    Args:
        quick: three seeds of short runs (20,000 steps of LunarLander, 10,000 of HalfCheetah).
        select: beginnings of tasks, as in "lunarlander"; all without it.
        seeds: number of seeds, from 0 on.
        out: folder in which the runs are kept; the same command continues there. Without it they are deleted.
        jobs: training runs at a time, each a process of one thread; 1 by default, or as many as a cluster has CPUs.
        cluster: Ray cluster to train on: HOST:PORT of its head node, auto, or local; its nodes all see ``out``.

    Returns:
        "rows" (task, agent, steps, way, scores, their interquartile mean and its interval, steps per CPU-second),
        "failures" (error messages of failed runs) and "met": whether no run failed and nowhere the interval with
        standardised observations is below that of raw ones.

    Raises:
        MlbitsError: for a wrong argument, or an environment that is not installed.
    """
    for name, value in (("seeds", seeds), ("jobs", jobs)):
        if value is not None and value < 1:
            raise ReproductionError(f"{name}: got {value}; wanted at least 1")
    rows = [row._replace(steps=row.quick_steps) if quick else row for row in _chosen(select)]
    for row in rows:
        open_batch(row.task, 1).close()  # fails now, not after hours, if something is not installed
    count = QUICK_SEEDS if quick else seeds
    if out is not None:
        return _compare(rows, count, Runs(out, cluster=cluster), jobs)
    with tempfile.TemporaryDirectory() as folder:
        return _compare(rows, count, Runs(Path(folder), cluster=cluster), jobs)


def _chosen(patterns: Sequence[str]) -> list[Row]:
    known = ", ".join(row.task for row in ROWS)
    for pattern in patterns:
        if not any(row.task.lower().startswith(pattern.lower()) for row in ROWS):
            raise ReproductionError(f"select: no task begins with {pattern!r}; wanted any of {known}")
    return [row for row in ROWS if not patterns or any(row.task.lower().startswith(p.lower()) for p in patterns)]


def training(row: Row, way: str, seed: int) -> Training:
    """The run of a row, one way, with a seed."""
    return Training(row.agent, row.task, f"{row.agent}-{way}", f"{row.flags} {WAYS[way]}", row.steps, seed)


def _compare(rows: Sequence[Row], seeds: int, runs: Runs, jobs: int | None) -> dict[str, Any]:
    every = [training(row, way, seed) for seed in range(seeds) for row in rows for way in WAYS]
    results, failures = runs.all(every, jobs=jobs)
    found = []
    for row in rows:
        for way in WAYS:
            done = [results[run] for seed in range(seeds) if (run := training(row, way, seed)) in results]
            if (summary := summarize(done)) is not None:
                found.append({"task": row.task, "agent": row.agent, "steps": row.steps, "way": way} | summary)
    print_table(
        f"Interquartile mean [95% interval] of {EVAL_EPISODES} episodes' mean return, {seeds} runs a row",
        ["row", "steps", "return", "steps/CPU-s"],
        [
            [f"{row['task']} {row['agent']} {row['way']}", row["steps"], results_page.interval(row),
             row["steps_per_cpu_second"]]
            for row in found
        ],
        width=100,
    )  # fmt: skip
    return {
        "seeds": list(range(seeds)),
        "rows": found,
        "failures": {run.name: said for run, said in failures.items()},
        "met": not failures and not any(_below(found, row) for row in rows),
    }


def _below(found: Sequence[dict[str, Any]], row: Row) -> bool:
    """Whether the interval with standardised observations is below that without."""
    sides = {side["way"]: side["interval"] for side in found if side["task"] == row.task}
    return bool(sides["obs"][1] < sides[RAW][0])
