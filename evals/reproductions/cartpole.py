"""``mlbits reproduce cartpole``: environment steps and CPU time until PPO solves CartPole, from a cold process.

Solved: the mean return of the last 20 finished training episodes is at least 475, the usual threshold. CPU time counts
from the start of the process, imports included.
"""

from __future__ import annotations

import statistics
from typing import Any

from mlbits.evals.reproductions.reproduction import print_table, train_in_process

ENV = "mlbits/CartPole-v0"
TARGET_STEPS, TARGET_CPU_SECONDS = 30_000, 6.0


def reproduce(quick: bool = False, *, seeds: int = 5, first_seed: int = 0) -> dict[str, Any]:
    """Train with the shipped preset until solved.

    Args:
        quick: at most two seeds.
        seeds: number of runs.
        first_seed: their seeds are this and those after it.

    Returns:
        "rows" (seed, env_steps, cpu_seconds, wall_seconds; None where unsolved), the medians and "met".
    """
    train_in_process("ppo", ENV, 0, "--total-steps", "1000")  # compiles once for all later processes
    rows = []
    for seed in range(first_seed, first_seed + (min(seeds, 2) if quick else seeds)):
        summary = train_in_process("ppo", ENV, seed, "--stop-when-solved", "--no-video", "--eval-every", "0")
        solved = summary["solved_at"] or {"env_steps": None, "cpu_seconds": None, "wall_seconds": None}
        rows.append({"seed": seed, **solved})
    unsolved = float("inf")
    steps = statistics.median(row["env_steps"] or unsolved for row in rows)
    cpu = statistics.median(row["cpu_seconds"] or unsolved for row in rows)
    print_table(
        f"PPO on {ENV} to 475 over 20 episodes; targets (medians) {TARGET_STEPS:,} steps, {TARGET_CPU_SECONDS} CPU-s",
        ["seed", "env steps", "wall s", "CPU-s"],
        [[row["seed"], row["env_steps"], row["wall_seconds"], row["cpu_seconds"]] for row in rows]
        + [["median", steps, "", float(cpu)]],
    )
    met = steps <= TARGET_STEPS and cpu <= TARGET_CPU_SECONDS
    return {"rows": rows, "median_env_steps": steps, "median_cpu_seconds": cpu, "met": met}
