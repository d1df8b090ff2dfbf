"""``mlbits reproduce diplomacy``: PPO on the small Diplomacy board against the bots.

PPO with the network for orders is trained with its preset: in most games it has one seat against the greedy bot or
frozen copies of itself, in the rest all three; it never meets the random bot. Then it plays in one seat, each in turn,
against the same bot in the two others. A game is won if its return is the highest of the three, and no other equals it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from mlbits.evals.evaluate import evaluate_against
from mlbits.evals.reproductions.reproduction import print_table, train_in_process

ENV = "mlbits/DiplomacyMini-v0"
TARGETS = {"random": 0.95, "diplomacy-greedy": 0.5}
TARGET_SECONDS = 20 * 60.0
# The quick form: less training, and targets that only show whether it learns at all.
QUICK_FLAGS = ("--total-steps", "40000", "--agent.no-anneal-lr")
QUICK_TARGETS = {"random": 0.6}
_GAMES = 600


def reproduce(quick: bool = False, *, seeds: int = 3) -> dict[str, Any]:
    """Train with the shipped preset, then play the bots.

    Args:
        quick: one seed, a minute of training, and most games against the random bot as the target.
        seeds: number of runs.

    Returns:
        "rows" (seed, opponent, won and its 95% interval, tied, return_mean, target, wall_seconds, cpu_seconds of the
        training) and "met": whether every fraction of games won reaches its target, and every run its time.
    """
    targets = QUICK_TARGETS if quick else TARGETS
    rows = []
    for seed in range(1 if quick else seeds):
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            summary = train_in_process("ppo", ENV, seed, *(QUICK_FLAGS if quick else ()), out=run)
            for opponent, target in targets.items():
                found = evaluate_against(run, opponent, _GAMES)
                low, high = found["won_interval"]
                rows.append(
                    {
                        "seed": seed, "opponent": opponent, "won": found["won"], "low": low, "high": high,
                        "tied": found["tied"], "return_mean": found["return_mean"], "target": target,
                        "wall_seconds": summary["wall_seconds"], "cpu_seconds": summary["cpu_seconds"],
                    }
                )  # fmt: skip
    print_table(
        f"PPO on {ENV}, one seat of three against a bot, {_GAMES} games",
        ["seed", "against", "won", "95% from", "to", "tied", "return", "target", "wall s", "CPU-s"],
        [list(row.values()) for row in rows],
    )
    met = all(row["won"] >= row["target"] and row["wall_seconds"] <= TARGET_SECONDS for row in rows)
    return {"rows": rows, "met": met}
