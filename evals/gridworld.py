"""``mlbits reproduce gridworld``: PPO on the default GridWorld against the exact optimum, within a minute.

The optimum is computed by backward induction (Bellman 1957) on the transitions read off the game's own rules: every
cell is written into a copy's state and every action stepped in one batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mlbits.envs.core.batch import GameBatch
from mlbits.envs.core.errors import GameError
from mlbits.envs.core.game import Game
from mlbits.envs.core.registry import make_game
from mlbits.evals.reproduction import print_table, train_in_process

ENV = "mlbits/GridWorld-v0"
TARGET_SHARE, TARGET_SECONDS = 0.95, 60.0


def optimal_return(game: Game) -> float:
    """The greatest mean return of a gridworld without slips, over its start cells and within its horizon.

    Args:
        game: a gridworld on a fixed map, slip 0, with a horizon.

    Returns:
        The undiscounted optimum.

    Raises:
        GameError: if the game is not such a gridworld.
    """
    kinds = game.layout.get("kinds")
    if kinds is None or game.horizon is None or float(game.params["slip"][0]) != 0.0:
        raise GameError(f"game: got {game.name}; wanted a gridworld on a fixed map with slip 0 and a horizon")
    cells, moves = int(kinds.size), 4
    batch = GameBatch(game, cells * moves, autoreset="disabled")
    states = batch.records()
    states["cell"] = np.repeat(np.arange(cells), moves)
    states["elapsed"], states["over"] = 0, 0
    batch.set_state(states)
    step = batch.step(torch.arange(moves).repeat(cells))
    reward = step.reward.double().numpy().reshape(cells, moves)
    over = step.terminated.numpy().reshape(cells, moves)
    following = batch.records()["cell"].reshape(cells, moves)
    value = np.zeros(cells)
    for _ in range(game.horizon):
        value = (reward + np.where(over, 0.0, value[following])).max(1)
    starts = game.params["starts"][0, : int(game.params["num_starts"][0])]
    return float(value[starts].mean())


def reproduce(quick: bool = False) -> dict[str, Any]:
    """Train with the README's command and compare.

    Args:
        quick: one seed in place of five.

    Returns:
        "rows" (seed, return, share of the optimum, seconds), "optimum" and "met".
    """
    optimum = optimal_return(make_game(ENV))
    rows = []
    for seed in range(1 if quick else 5):
        summary = train_in_process("ppo", ENV, seed)
        share = summary["return_mean"] / optimum
        rows.append({"seed": seed, "return_mean": summary["return_mean"], "share": share,
                     "wall_seconds": summary["wall_seconds"], "cpu_seconds": summary["cpu_seconds"]})  # fmt: skip
    met = all(row["share"] >= TARGET_SHARE and row["wall_seconds"] <= TARGET_SECONDS for row in rows)
    print_table(
        f"PPO on {ENV}: exact optimum {optimum:.4g}; target {TARGET_SHARE:.0%} of it within {TARGET_SECONDS:.0f} s",
        ["seed", "return", "share of optimum", "wall s", "CPU-s"],
        [list(row.values()) for row in rows],
    )
    return {"rows": rows, "optimum": optimum, "met": met}
