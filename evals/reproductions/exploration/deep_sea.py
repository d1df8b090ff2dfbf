"""``reproduce deep-sea``: a treasure that random play finds once in a million episodes, found by counting.

DeepSea of 20 rows (Osband et al. 2019): with the preset, which has a bonus for pairs of state and action that were
seldom tried, and the same settings without it. Solved is a mean return of at least 0.9 of greedy episodes, in which the
bonus does not count; a run that is solved ends.
"""

from __future__ import annotations

from typing import Any

from mlbits.evals.reproductions.reproduction import print_table, train_in_process

AGENT, ENV, SIZE, SOLVED = "ppo", "mlbits/DeepSea-v0", 20, 0.9
EVAL = f"--env.size {SIZE} --eval-episodes 20 --stop-at-return {SOLVED} --no-video --quiet --device cpu".split()
ARMS = {"count": "", "none": "--agent.bonus none"}


def reproduce(quick: bool = False, seeds: int = 0) -> dict[str, Any]:
    """Train with the preset's bonus and without.

    Args:
        quick: without the bonus one seed only.
        seeds: how many seeds with the bonus, from 0; 0 takes five.

    Returns:
        "rows" (arm, returns, solved, steps and CPU-seconds of each seed) and "met": whether all seeds with the bonus
        solve it, and none without.
    """
    rows: list[dict[str, Any]] = []
    for arm, flags in ARMS.items():
        numbers = range((seeds or 5) if arm == "count" or not quick else 1)
        found = [train_in_process(AGENT, ENV, seed, *EVAL, *flags.split()) for seed in numbers]
        rows.append({
            "arm": arm,
            "returns": [float(one["return_mean"]) for one in found],
            "steps": [int(one["env_steps"]) for one in found],
            "cpu_seconds": [float(one["cpu_seconds"]) for one in found],
        })  # fmt: skip
    for row in rows:
        row["solved"] = sum(one >= SOLVED for one in row["returns"])
    print_table(
        f"DeepSea of {SIZE} rows by {AGENT}: mean return of greedy episodes, solved at {SOLVED:g}",
        ["bonus", "returns", "solved", "steps", "CPU-s"],
        [
            [r["arm"], " ".join(f"{one:.2f}" for one in r["returns"]), f"{r['solved']} of {len(r['returns'])}",
             sum(r["steps"]) / len(r["steps"]), sum(r["cpu_seconds"]) / len(r["cpu_seconds"])]
            for r in rows
        ],
        width=100,
    )  # fmt: skip
    return {"rows": rows, "met": met(rows)}


def met(rows: list[dict[str, Any]]) -> bool:
    """Whether all seeds with the bonus solve it, and none without."""
    count, none = rows
    return count["solved"] == len(count["returns"]) and none["solved"] == 0
