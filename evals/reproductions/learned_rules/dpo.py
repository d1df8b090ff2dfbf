"""``mlbits reproduce dpo``: PPO with the discovered drift beside PPO with its clip, all other settings equal.

Discovered policy optimisation (Lu et al. 2022) replaces PPO's clip by a formula that was read off a learned function;
nothing else changes. CartPole and Acrobot are trained as a user would, with PPO's presets and equal seeds
(``comparison``). What is asked is that the drift does no harm: that its interval is not below the clip's.

Example:
    mlbits reproduce dpo --out runs/dpo
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from mlbits.evals.reproductions import results_page
from mlbits.evals.reproductions.comparison import EVAL_EPISODES, Runs, Training, summarize
from mlbits.evals.reproductions.reproduction import ReproductionError, print_table


class Task(NamedTuple):
    """An environment, and how long it is trained.

    Attributes:
        env: environment id.
        steps: environment steps.
        quick_steps: those of the quick form.
    """

    env: str
    steps: int
    quick_steps: int


TASKS = (Task("mlbits/CartPole-v0", 60_000, 20_000), Task("Acrobot-v1", 100_000, 40_000))
OBJECTIVES = ("clip", "dpo")
QUICK_SEEDS = 3


def reproduce(
    quick: bool = False, seeds: int = 5, out: Path | None = None, jobs: int | None = None, cluster: str = ""
) -> dict[str, Any]:
    """Train PPO with both objectives and compare.

    Args:
        quick: three seeds of shorter runs (20,000 steps of CartPole, 40,000 of Acrobot).
        seeds: number of seeds, from 0 on.
        out: folder in which the runs are kept; the same command continues there. Without it they are deleted.
        jobs: training runs at a time, each a process of one thread; 1 by default, or as many as a cluster has CPUs.
        cluster: Ray cluster to train on: HOST:PORT of its head node, auto, or local; its nodes all see ``out``.

    Returns:
        "rows" (task, steps, objective, scores, their interquartile mean and its interval, steps per CPU-second),
        "failures" (error messages of failed runs) and "met": whether no run failed and nowhere the interval of dpo is
        below that of the clip.

    Raises:
        MlbitsError: for a wrong argument.
    """
    for name, value in (("seeds", seeds), ("jobs", jobs)):
        if value is not None and value < 1:
            raise ReproductionError(f"{name}: got {value}; wanted at least 1")
    count = QUICK_SEEDS if quick else seeds
    tasks = [task._replace(steps=task.quick_steps) if quick else task for task in TASKS]
    if out is not None:
        return _compare(tasks, count, Runs(out, cluster=cluster), jobs)
    with tempfile.TemporaryDirectory() as folder:
        return _compare(tasks, count, Runs(Path(folder), cluster=cluster), jobs)


def training(task: Task, objective: str, seed: int) -> Training:
    """The run of a task with an objective and a seed."""
    return Training("ppo", task.env, objective, f"--agent.objective {objective}", task.steps, seed)


def _compare(tasks: list[Task], seeds: int, runs: Runs, jobs: int | None) -> dict[str, Any]:
    every = [training(task, way, seed) for seed in range(seeds) for task in tasks for way in OBJECTIVES]
    results, failures = runs.all(every, jobs=jobs)
    rows = []
    for task in tasks:
        for way in OBJECTIVES:
            done = [results[run] for seed in range(seeds) if (run := training(task, way, seed)) in results]
            if (summary := summarize(done)) is not None:
                rows.append({"task": task.env, "steps": task.steps, "objective": way} | summary)
    print_table(
        f"Interquartile mean [95% interval] of {EVAL_EPISODES} episodes' mean return, {seeds} runs a row",
        ["row", "steps", "return", "steps/CPU-s"],
        [
            [f"{row['task']} {row['objective']}", row["steps"], results_page.interval(row), row["steps_per_cpu_second"]]
            for row in rows
        ],
        width=100,
    )
    return {
        "seeds": list(range(seeds)),
        "rows": rows,
        "failures": {run.name: said for run, said in failures.items()},
        "met": not failures and not any(_below(rows, task.env) for task in tasks),
    }


def _below(rows: list[dict[str, Any]], env: str) -> bool:
    """Whether the interval of dpo is below that of the clip."""
    sides = {row["objective"]: row for row in rows if row["task"] == env}
    return bool(_interval(sides["dpo"])[1] < _interval(sides["clip"])[0])


def _interval(row: dict[str, Any]) -> tuple[float, float]:
    """The interval; that of equal runs, which have none, is their mean alone."""
    low, high = row["interval"]
    equal = len(row["scores"]) > 1 and len(set(row["scores"])) == 1
    return (row["iqm"], row["iqm"]) if equal else (low, high)
