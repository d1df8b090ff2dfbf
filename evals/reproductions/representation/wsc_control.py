"""``reproduce wsc-control``: how near an agent brings a block to where a picture shows it, by what it learned to see.

Lee et al. (2020), figure 5, on ``mlbits/PushBlocks-v0`` in place of MuJoCo's tasks, at equal steps: all arms act by
the same soft actor-critic on what they see, set their own goals in training, and are then shown goals as pictures.
What counts is the exact distance of the first block from its place in the goal, at the end of an episode, which no arm
but "factors" ever sees:

    factors    the exact factors, as a perfect encoder would give them
    rank       weak labels of pairs, by rankers
    gan        weak labels of pairs, by the paper's network
    rig        an autoencoder; goals from its prior
    skew-fit   an autoencoder; goals from what was reached, rare ones more often
    her        an autoencoder; goals from what the episode reached, sparse rewards

The claim to be seen: with two blocks and light that changes the interval of "rank" lies below those of "rig" and
"skew-fit". Doing nothing has the distance between two starts, about 0.29.

Example:
    mlbits reproduce wsc-control --quick
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import mlbits
from mlbits.agents.agent import rows
from mlbits.envs.core.settings import integer
from mlbits.evals.evaluate import load_agent
from mlbits.evals.reproductions.reproduction import print_table, train_in_process
from mlbits.selfplay.lineup import decide
from mlbits.selfplay.memories import Memories
from mlbits.selfplay.statistics import mean_interval

ENV, EPISODES, NEAR = "mlbits/PushBlocks-v0", 200, 0.1
ARMS: dict[str, dict[str, Any]] = {
    "factors": {"representation": "factors"},
    "rank": {"representation": "rank"},
    "gan": {"representation": "gan", "look_iterations": 2000},
    "rig": {"representation": "vae"},
    "skew-fit": {"representation": "vae", "goals": "skewed"},
    "her": {"representation": "vae", "future": 0.8, "fresh": 0.0, "reach": 1.0},
}
QUICK_ARMS = ("factors", "rank", "rig")


def final_distances(agent: Any, settings: dict[str, Any], seed: int, episodes: int = EPISODES) -> NDArray[np.float32]:
    """The distance between achieved and desired goal at the end of each of some greedy episodes, [episodes].

    Args:
        agent: a trained agent; None for one that does nothing.
        settings: of the environment.
        seed: of the episodes.
        episodes: how many.
    """
    batch = mlbits.make_batch(ENV, episodes, seed=seed, **settings)
    generator, memories = torch.Generator().manual_seed(seed), Memories(episodes, 1)
    ended = False
    while not ended:
        if agent is None:
            action = torch.zeros(episodes, 1, 2)
        else:
            seen = rows(batch.obs, 2)
            decision = decide(agent, batch, None, seen, None, generator, greedy=True, memories=memories)
            action = decision.action.view(episodes, 1, -1)
        step = batch.step(action)
        ended = bool(step.truncated.all())
    final = batch.final_obs
    return (final["achieved_goal"] - final["desired_goal"])[:, 0].norm(dim=1).numpy()


def reproduce(
    quick: bool = False, blocks: int = 2, light: bool = True, steps: int = 100_000, seeds: int = 3
) -> dict[str, Any]:
    """Train every arm and measure where the block ends.

    Args:
        quick: the arms factors, rank and rig alone, one seed of 20,000 steps; met if factors brings the block nearer
            than doing nothing does.
        blocks: number of blocks.
        light: whether the light changes.
        steps: environment steps of each run.
        seeds: runs of each arm.

    Returns:
        "rows" (arm, "distances" of its seeds, mean with its interval over seeds, "success" within 0.1, CPU seconds of
        a run), "nothing", the distance of doing nothing, and "met": whether rank's interval lies below those of rig
        and skew-fit.
    """
    steps, seeds = integer("steps", steps, 1000, 10**9), integer("seeds", seeds, 1, 1000)
    arms, steps, seeds = (QUICK_ARMS, 20_000, 1) if quick else (tuple(ARMS), steps, seeds)
    settings: dict[str, Any] = {"observation": "both", "blocks": blocks, "light": light}
    nothing = float(final_distances(None, settings, seed=10_000).mean())
    found: list[dict[str, Any]] = []
    for arm in arms:
        distances, successes, seconds = [], [], []
        for seed in range(seeds):
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "run"
                flags = [f"--agent.{name.replace('_', '-')}={value}" for name, value in ARMS[arm].items()]
                run = f"--total-steps {steps} --num-envs 8 --threads 1 --device cpu --no-video --quiet".split()
                run += ["--agent.look-iterations", "300"] if quick else []
                run += ["--env-json", json.dumps(settings), "--eval-every", str(steps), "--eval-episodes", "8"]
                seconds.append(train_in_process("wsc", ENV, seed, *flags, *run, out=out)["cpu_seconds"])
                agent, _, _ = load_agent(out)
            far = final_distances(agent, settings, seed=10_000 + seed)
            distances.append(float(far.mean()))
            successes.append(float((far < NEAR).mean()))
        if seeds > 1:
            mean, (low, high) = mean_interval(distances)
        else:  # of its episodes: one seed says nothing about others
            mean, (low, high) = mean_interval(far)
        row: dict[str, Any] = {"arm": arm, "distances": distances, "distance_mean": mean, "low": low, "high": high}
        found.append({**row, "success": float(np.mean(successes)), "cpu_seconds": float(np.mean(seconds))})
    print_table(
        f"final distance of block 1 from its goal, {blocks} block(s), light {'changes' if light else 'fixed'}, "
        f"{steps:,} steps, {seeds} seed(s); doing nothing: {nothing:.3f}",
        ["arm", "distance", "95% from", "to", "within 0.1", "CPU s"],
        [[row[name] for name in ("arm", "distance_mean", "low", "high", "success", "cpu_seconds")] for row in found],
    )
    by_arm = {row["arm"]: row for row in found}
    if quick:
        met = by_arm["factors"]["high"] < nothing
    else:
        met = by_arm["rank"]["high"] < min(by_arm["rig"]["low"], by_arm["skew-fit"]["low"])
    return {"rows": found, "nothing": nothing, "met": met}
