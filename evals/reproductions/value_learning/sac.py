"""``mlbits reproduce sac``: our SAC beside Stable-Baselines3's, on the same tasks, steps and seeds.

Both are trained with the settings of the RL Zoo (``selfplay/runs/presets.toml``), and evaluated in the same way. The
target of a row is the reference's own result: the interquartile mean of ours is not below the 95% interval of its. The
quick form trains both on Pendulum alone, for fewer steps. The full form takes days of CPU time: Hopper and HalfCheetah
are a million updates a run.

Published, for orientation (rl-baselines3-zoo's benchmark.md, one agent each; CleanRL's documentation, three seeds):
Pendulum -157, LunarLanderContinuous 260, HalfCheetah 9535 (9635 +- 1424), Hopper 2326 (2310 +- 343). Four of CleanRL's
own Hopper models score from 1481 to 2713.

Example:
    mlbits reproduce sac --quick
    mlbits reproduce sac --select hopper --out runs/sac --jobs 2
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from mlbits.envs.doors.gymnasium_batch import open_batch
from mlbits.evals.reproductions.comparison import EVAL_EPISODES, Entry, Runs, choose
from mlbits.evals.reproductions.reproduction import ReproductionError, print_table

# Task, steps, published mean and deviation, mean return of random play (20 episodes of Hopper, else as in classic.py).
_TABLE = (
    ("Pendulum-v1", 20_000, -157.0, 89.0, -1220.8),
    ("LunarLanderContinuous-v3", 500_000, 260.0, 65.0, -214.7),
    ("Hopper-v5", 1_000_000, 2326.0, 1130.0, 20.0),
    ("HalfCheetah-v5", 1_000_000, 9535.0, 100.0, -276.5),
)
QUICK_STEPS, QUICK_SEEDS = 5000, 3


def entry(task: str, steps: int, published: float, spread: float, random: float) -> Entry:
    """A row of the comparison; its target is set by the reference."""
    return Entry(task, "sac", "sac", "", steps, random, published, spread, "zoo", "sb3-sac", random)


def reproduce(
    quick: bool = False,
    select: tuple[str, ...] = (),
    seeds: int = 5,
    out: Path | None = None,
    jobs: int = 1,
) -> dict[str, Any]:
    """Train both and compare.

    Args:
        quick: 3 seeds of Pendulum, 5,000 steps each.
        select: tasks, as in "pendulum"; all without it.
        seeds: number of seeds, from 0 on.
        out: folder in which the runs are kept; the same command continues there. Without it they are deleted.
        jobs: training runs at a time, each a process of one thread.

    Returns:
        "rows" (see :meth:`mlbits.evals.reproductions.comparison.Entry.row`, with "met" by the reference), "failures"
        and "met": whether every row is met and no run failed.

    Raises:
        MlbitsError: for a wrong argument, or an environment that is not installed.
    """
    for name, value, least in (("seeds", seeds, 2), ("jobs", jobs, 1)):
        if value < least:
            raise ReproductionError(f"{name}: got {value}; wanted at least {least}")
    table = _TABLE[:1] if quick else _TABLE
    entries = choose([entry(task, QUICK_STEPS if quick else steps, *rest) for task, steps, *rest in table], select)
    if out is not None:
        return _compare(entries, range(QUICK_SEEDS if quick else seeds), Runs(out), jobs)
    with tempfile.TemporaryDirectory() as folder:
        return _compare(entries, range(QUICK_SEEDS if quick else seeds), Runs(Path(folder)), jobs)


def _compare(entries: list[Entry], seeds: range, runs: Runs, jobs: int) -> dict[str, Any]:
    for one in entries:
        open_batch(one.task, 1).close()  # fails now, not after hours of training, if something is not installed
    trainings = [training for one in entries for training in one.trainings(seeds, reference=True)]
    results, failures = runs.all(trainings, jobs=jobs)
    rows = [judged(one.row(results, seeds)) for one in entries]
    print_table(
        f"Interquartile mean [95% interval] of {EVAL_EPISODES} episodes' mean return, {len(seeds)} runs each",
        ["task", "steps", "ours", "SB3's", "steps/CPU-s", "SB3's", "met"],
        [
            [row["task"], f"{row['steps']:,}", *(_interval(row[side]) for side in ("ours", "reference")),
             *(_speed(row[side]) for side in ("ours", "reference")), "yes" if row["met"] else "NO"]
            for row in rows
        ],
        width=130,
    )  # fmt: skip
    failed = {training.name: said for training, said in failures.items()}
    return {"rows": rows, "failures": failed, "met": all(row["met"] for row in rows) and not failures}


def judged(row: dict[str, Any]) -> dict[str, Any]:
    """A row whose target is the lower end of the reference's interval, and whether ours reaches it with all runs."""
    ours, reference = row["ours"], row["reference"]
    if ours is None or reference is None:
        return row | {"target": None, "met": False}
    low = reference["interval"][0]
    whole = len(ours["scores"]) == len(reference["scores"])
    return row | {"target": low, "met": whole and ours["iqm"] >= low}


def _interval(side: dict[str, Any] | None) -> str:
    if side is None:
        return "-"
    low, high = side["interval"]
    return f"{side['iqm']:,.1f} [{low:,.1f}, {high:,.1f}]"


def _speed(side: dict[str, Any] | None) -> str:
    return "-" if side is None else f"{side['steps_per_cpu_second']:,.0f}"
