"""``reproduce labyrinth``: how many steps it takes to see a whole maze, with and without a bonus.

Ermolov and Sebe, "Latent world models for intrinsically motivated exploration" (2020): mazes that are new in each
episode, of which only the four walls around are seen (``mlbits/Labyrinth-v0``). PPO with a GRU learns with each bonus
and without; the score of a run is the mean number of steps of its episodes, of which the longest are cut at 1,000. They
are played by the policy itself, with chance: its most probable actions alone run in circles.

Two yardsticks are played in the environment's own mazes: walking depth first, which needs memory but no map, and the
shortest walk through a map that is known, 2 (n^2 - 1) steps less the distance of the farthest cell. Below the first, an
agent has found out something about how mazes are made; below the second none can get.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import mlbits
from mlbits.envs.exploration.labyrinth import neighbour
from mlbits.evals.reproductions.reproduction import print_table, train_in_process
from mlbits.selfplay.statistics import mean_interval

ENV, MAZES = "mlbits/Labyrinth-v0", 2000
EVAL = "--eval-every 0 --eval-episodes 200 --no-eval-greedy --no-video --quiet --device cpu --preset none".split()
LEARNING = (
    "--num-envs 64 --agent.memory gru --agent.num-steps 64 --agent.learning-rate 0.003 --agent.discount 0.98 "
    "--agent.normalize-reward"
)
ARMS = {
    "none": "",
    "count": "--agent.bonus count --agent.bonus-scale 0.1",
    "rnd": "--agent.bonus rnd --agent.bonus-scale 0.1",
    "icm": "--agent.bonus icm --agent.bonus-scale 0.1",
    "lwm": "--agent.bonus lwm --agent.bonus-scale 0.1 --agent.no-bonus-reset --agent.bonus-hidden 32",
}
QUICK_ARMS = ("none", "lwm")
SIZES, STEPS, QUICK_STEPS = (4, 5), 2_000_000, 400_000


def open_ways(ways: NDArray[np.uint8], cell: int, size: int) -> list[int]:
    """The cells that can be walked to from one."""
    return [int(neighbour(cell, way, size)) for way in range(4) if int(ways[cell]) >> way & 1]


def shortest_walk(ways: NDArray[np.uint8], start: int, size: int) -> int:
    """Steps of the shortest walk through all cells of a maze without loops: all ways twice, but for the last branch."""
    distance, frontier = {start: 0}, [start]
    while frontier:
        cell = frontier.pop()
        for there in open_ways(ways, cell, size):
            if there not in distance:
                distance[there] = distance[cell] + 1
                frontier.append(there)
    return 2 * (size * size - 1) - max(distance.values())


def depth_first_walk(ways: NDArray[np.uint8], start: int, size: int, rng: np.random.Generator) -> int:
    """Steps of a depth-first walk that takes unknown ways in random order, until all cells are visited."""
    visited, trail, cell, steps = {start}, [], start, 0
    while len(visited) < size * size:
        unknown = [there for there in open_ways(ways, cell, size) if there not in visited]
        if unknown:
            trail.append(cell)
            cell = unknown[int(rng.integers(len(unknown)))]
            visited.add(cell)
        else:
            cell = trail.pop()
        steps += 1
    return steps


def yardsticks(size: int, mazes: int = MAZES, seed: int = 0) -> dict[str, float]:
    """Mean steps of the two walks in the environment's mazes."""
    batch, rng = mlbits.make_batch(ENV, mazes, seed=seed, size=size), np.random.default_rng(seed)
    records = batch.records()
    places = [(record["ways"], int(record["cell"])) for record in records]
    first = [depth_first_walk(ways, start, size, rng) for ways, start in places]
    known = [shortest_walk(ways, start, size) for ways, start in places]
    return {"depth_first": float(np.mean(first)), "known": float(np.mean(known))}


def reproduce(quick: bool = False, seeds: int = 0, steps: int = 0, sizes: str = "") -> dict[str, Any]:
    """Train with each bonus and without, and print a table for each size.

    Args:
        quick: mazes of size 4 alone, without a bonus and with a latent world model, one seed, a fifth of the steps.
        seeds: how many seeds, from 0; 0 takes three, or one for the quick form.
        steps: environment steps of a run; 0 takes 2,000,000, or 400,000 for the quick form.
        sizes: the mazes' sizes, as in "4 5"; "" takes these, or 4 for the quick form.

    Returns:
        "rows" (size, arm, steps of each seed, mean and interval), "yardsticks" by size, and "met": whether with some
        bonus the mean number of steps is at most that of the depth-first walk, for every size.
    """
    numbers = range(seeds or (1 if quick else 3))
    chosen = tuple(int(word) for word in sizes.split()) or (SIZES[:1] if quick else SIZES)
    rows: list[dict[str, Any]] = []
    known = {size: yardsticks(size) for size in chosen}
    for size in chosen:
        for arm in ARMS if not quick else QUICK_ARMS:
            flags = ARMS[arm]
            words = [*LEARNING.split(), *flags.split(), "--env.size", str(size), *EVAL]
            words += ["--total-steps", str(steps or (QUICK_STEPS if quick else STEPS))]
            taken = [-float(train_in_process("ppo", ENV, seed, *words)["return_mean"]) for seed in numbers]
            mean, (low, high) = mean_interval(np.array(taken))
            rows.append({"size": size, "arm": arm, "steps": taken, "mean": mean, "low": low, "high": high})
        of_size = [row for row in rows if row["size"] == size]
        print_table(
            f"steps to see a maze of {size} x {size}; depth first {known[size]['depth_first']:.1f}, map known "
            f"{known[size]['known']:.1f}",
            ["bonus", "mean", "each seed"],
            [[row["arm"], row["mean"], " ".join(f"{one:.1f}" for one in row["steps"])] for row in of_size],
        )
    return {"rows": rows, "yardsticks": known, "met": met(rows, known)}


def met(rows: list[dict[str, Any]], known: dict[int, dict[str, float]]) -> bool:
    """Whether for every size some bonus takes no more steps than the depth-first walk."""
    best = {
        size: min(row["mean"] for row in rows if row["size"] == size and row["arm"] != "none") for size in known
    }  # fmt: skip
    return all(best[size] <= about["depth_first"] for size, about in known.items())
