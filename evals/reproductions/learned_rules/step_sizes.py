"""``mlbits reproduce step-sizes``: PPO whose learning rate is learned as it trains, beside constants a tenfold apart.

Amortised proximal optimisation (Bae et al. 2022) on CartPole: every tenth gradient step moves the logarithm of the
learning rate. It starts from each of three constants, the middle one of which is the preset's tuned one, and each run
has a twin with the same seed that keeps the constant. All else is the preset's, without annealing of the rate or the
clip.

What is asked is that it does what one wants it for: that started from a rate which is far too small it ends above the
constant's interval. How near it comes to the tuned constant, and what it makes of a rate that is too large, is shown.

Example:
    mlbits reproduce step-sizes --out runs/step-sizes
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from mlbits.evals.reproductions import results_page
from mlbits.evals.reproductions.comparison import EVAL_EPISODES, Runs, Training, summarize
from mlbits.evals.reproductions.reproduction import ReproductionError, print_table

ENV, STEPS, QUICK_STEPS = "mlbits/CartPole-v0", 40_000, 16_000
RATES = (1e-5, 3e-3, 3e-2)  # far too small, the preset's, too large
SMALL = RATES[0]
WAYS = {"constant": "", "learned": "--agent.apo-every 10"}
QUICK_SEEDS = 3


def reproduce(
    quick: bool = False, seeds: int = 5, out: Path | None = None, jobs: int | None = None, cluster: str = ""
) -> dict[str, Any]:
    """Train with each rate, constant and learned, and compare.

    Args:
        quick: three seeds of shorter runs (16,000 steps), from the smallest rate alone.
        seeds: number of seeds, from 0 on.
        out: folder in which the runs are kept; the same command continues there. Without it they are deleted.
        jobs: training runs at a time, each a process of one thread; 1 by default, or as many as a cluster has CPUs.
        cluster: Ray cluster to train on: HOST:PORT of its head node, auto, or local; its nodes all see ``out``.

    Returns:
        "rows" (rate, way, scores, their interquartile mean and its interval, steps per CPU-second), "failures" (error
        messages of failed runs) and "met": whether no run failed and the rate learned from the smallest constant ends
        with an interval above that constant's own.

    Raises:
        MlbitsError: for a wrong argument.
    """
    for name, value in (("seeds", seeds), ("jobs", jobs)):
        if value is not None and value < 1:
            raise ReproductionError(f"{name}: got {value}; wanted at least 1")
    rates, steps, count = ((SMALL,), QUICK_STEPS, QUICK_SEEDS) if quick else (RATES, STEPS, seeds)
    if out is not None:
        return _compare(rates, steps, count, Runs(out, cluster=cluster), jobs)
    with tempfile.TemporaryDirectory() as folder:
        return _compare(rates, steps, count, Runs(Path(folder), cluster=cluster), jobs)


def training(rate: float, way: str, steps: int, seed: int) -> Training:
    """The run from a learning rate, one way, with a seed."""
    flags = f"--agent.learning-rate {rate:g} --agent.no-anneal-lr --agent.no-anneal-clip {WAYS[way]}"
    return Training("ppo", ENV, f"{way}-{rate:g}", flags, steps, seed)


def _compare(rates: tuple[float, ...], steps: int, seeds: int, runs: Runs, jobs: int | None) -> dict[str, Any]:
    every = [training(rate, way, steps, seed) for seed in range(seeds) for rate in rates for way in WAYS]
    results, failures = runs.all(every, jobs=jobs)
    rows = []
    for rate in rates:
        for way in WAYS:
            chosen = [training(rate, way, steps, seed) for seed in range(seeds)]
            if (summary := summarize([results[run] for run in chosen if run in results])) is not None:
                rows.append({"rate": rate, "way": way} | summary)
    print_table(
        f"CartPole after {steps:,} steps: interquartile mean [95% interval] of {EVAL_EPISODES} episodes, {seeds} seeds",
        ["rate at the start", "return", "steps/CPU-s"],
        [[f"{row['rate']:g} {row['way']}", results_page.interval(row), row["steps_per_cpu_second"]] for row in rows],
        width=100,
    )
    return {
        "seeds": list(range(seeds)),
        "steps": steps,
        "rows": rows,
        "failures": {run.name: said for run, said in failures.items()},
        "met": not failures and _above(rows),
    }


def _above(rows: list[dict[str, Any]]) -> bool:
    """Whether the rate learned from the smallest constant is above it, by intervals; equal runs are their mean."""
    ends = {}
    for row in rows:
        if row["rate"] == SMALL:
            equal = len(set(row["scores"])) == 1 and len(row["scores"]) > 1
            ends[row["way"]] = (row["iqm"], row["iqm"]) if equal else row["interval"]
    return bool(ends["learned"][0] > ends["constant"][1])
