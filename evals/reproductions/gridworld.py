"""``mlbits reproduce gridworld``: PPO on the default GridWorld against the exact optimum, within a minute."""

from __future__ import annotations

from typing import Any

from mlbits.evals.optimal_return import reference_returns
from mlbits.evals.reproductions.reproduction import print_table, train_in_process

ENV = "mlbits/GridWorld-v0"
TARGET_SHARE, TARGET_SECONDS = 0.95, 60.0


def reproduce(quick: bool = False) -> dict[str, Any]:
    """Train with the README's command and compare.

    Args:
        quick: one seed instead of five.

    Returns:
        "rows" (seed, return, fraction of the optimum, seconds), "optimum" and "met".
    """
    found = reference_returns(ENV)
    assert found is not None
    optimum = found.optimum
    rows = []
    for seed in range(1 if quick else 5):
        summary = train_in_process("ppo", ENV, seed)
        share = summary["return_mean"] / optimum
        rows.append({"seed": seed, "return_mean": summary["return_mean"], "share": share,
                     "wall_seconds": summary["wall_seconds"], "cpu_seconds": summary["cpu_seconds"]})  # fmt: skip
    met = all(row["share"] >= TARGET_SHARE and row["wall_seconds"] <= TARGET_SECONDS for row in rows)
    print_table(
        f"PPO on {ENV}: exact optimum {optimum:.4g}; target {TARGET_SHARE:.0%} of it within {TARGET_SECONDS:.0f} s",
        ["seed", "return", "fraction of optimum", "wall s", "CPU-s"],
        [list(row.values()) for row in rows],
    )
    return {"rows": rows, "optimum": optimum, "met": met}
