"""``reproduce nim``: an agent trained by self-play, against random moves.

In a zero-sum game self-play has mean return 0 however well both sides play, so its own curve is uninformative;
games against an opponent that never changes are not. Returns are means of 1 (won) and -1 (lost).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import cross_entropy  # noqa: F401  (registers the agent; not needed within the suite)
import nim  # noqa: F401  (registers the game)
import torch

import mlbits
from mlbits.agents.agent import RolloutSpec
from mlbits.agents.bots.random_bot import RandomAgent
from mlbits.evals import EvalEntry, register_eval
from mlbits.evals.evaluate import load_agent
from mlbits.evals.reproductions.reproduction import print_table
from mlbits.selfplay.collector import Collector
from mlbits.selfplay.lineup import against
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.statistics import mean_interval
from mlbits.selfplay.training import train

ENV, TARGET = "examples/Nim-v0", 0.9
GAMES = 2000


def return_against_random(agent: Any, seed: int) -> tuple[float, tuple[float, float]]:
    """The mean return of an agent that plays half of the games in either seat, and its 95% interval."""
    batch = mlbits.make_batch(ENV, GAMES, seed=seed)
    opponent = RandomAgent(batch.observation_space, batch.action_space)
    lineup = against(agent, [(opponent, 1.0)], GAMES, batch.num_seats, batch.device)
    spec = RolloutSpec(num_steps=100, whole_episodes=True)
    _, episodes, _ = Collector(batch, spec, torch.Generator().manual_seed(seed)).collect(lineup)
    return mean_interval(episodes.returns, bounds=(-1, 1))  # with bounds, for an interval even if all games are won


def reproduce(quick: bool = False) -> dict[str, Any]:
    """Train and play against random moves.

    Args:
        quick: one seed instead of three.

    Returns:
        "rows" (seed, return, its interval) and "met": whether every interval lies above the target.
    """
    rows = []
    for seed in range(1 if quick else 3):
        run = {"total_steps": 100_000, "num_envs": 256, "seed": seed, "device": "cpu"}
        with tempfile.TemporaryDirectory() as folder:
            train(resolve("cross_entropy", ENV, run=run), Path(folder) / "run", console=False)
            agent, _, _ = load_agent(Path(folder) / "run")
        mean, (low, high) = return_against_random(agent, seed)
        rows.append({"seed": seed, "return_mean": mean, "low": low, "high": high})
    print_table(
        f"cross-entropy on {ENV} against random moves; target {TARGET}, {GAMES} games",
        ["seed", "return", "95% from", "to"],
        [list(row.values()) for row in rows],
    )
    return {"rows": rows, "met": all(row["low"] > TARGET for row in rows)}


register_eval("nim", EvalEntry("nim_eval:reproduce", "self-play on Nim beats random moves"))
