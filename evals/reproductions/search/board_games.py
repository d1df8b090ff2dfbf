"""``mlbits reproduce board-games``: AlphaZero on Othello 6x6, Hex 7x7 and Go 5x5, against UCT with 1,000 rollouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mlbits.envs.registry import make_batch
from mlbits.evals.reproductions.reproduction import print_table
from mlbits.evals.reproductions.search.alphazero import against_yardstick, trained
from mlbits.selfplay.lineup import decide
from mlbits.selfplay.runs.saved_agents import load_agent

SIZES = {"mlbits/Othello-v0": 6, "mlbits/Hex-v0": 7, "mlbits/Go-v0": 5}
TARGET = 0.85


def reproduce(
    quick: bool = False, *, seeds: int = 1, minutes: float = 60.0, games: int = 200, out: Path | None = None
) -> dict[str, Any]:
    """Train with the shipped presets, then play.

    Args:
        quick: seconds a game, and only that everything runs.
        seeds: number of runs a game.
        minutes: minutes of training on two cores; a run takes twice as many of CPU time.
        games: games against the yardstick.
        out: a folder for the runs, which are kept and resumed; None makes a temporary one.

    Returns:
        "rows" (env, seed, won and its 95% interval, tied, lost, opening: the first move by name) and "met": whether all
        reach 85%, and Go 5x5 is opened in the centre.
    """
    rows = []
    for env, size in SIZES.items():
        for seed in range(1 if quick else seeds):
            with trained(env, seed, 0.1 if quick else minutes, out, "--env.size", str(size)) as folder:
                played = against_yardstick(folder, 2 if quick else games)
                kept = {name: played[name] for name in ("won", "won_interval", "tied", "lost")}
                rows.append({"env": env, "seed": seed, **kept, "opening": opening(load_agent(folder)[0], env, size)})
    print_table(
        "AlphaZero against UCT with 1,000 rollouts",
        ["game", "seed", "won", "95% from", "to", "tied", "opens"],
        [
            [
                f"{row['env']} {SIZES[row['env']]}",
                row["seed"],
                row["won"],
                *row["won_interval"],
                row["tied"],
                row["opening"],
            ]
            for row in rows
        ],
    )
    centre = all(row["opening"] == "c3" for row in rows if row["env"] == "mlbits/Go-v0")
    return {"rows": rows, "met": quick or (centre and all(row["won"] >= TARGET for row in rows))}


def opening(agent: Any, env: str, size: int) -> str:
    """The name of the agent's first move."""
    batch = make_batch(env, 1, size=size)
    assert batch.legal_mask is not None
    flat = batch.obs.flatten(0, 1), batch.legal_mask.flatten(0, 1)
    action = decide(agent, batch, None, *flat, torch.Generator().manual_seed(0), greedy=True).action
    return str(batch.game.layout["moves"][0][int(action[0])])
