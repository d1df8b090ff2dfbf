"""``mlbits reproduce crr``: CRR against behavioural cloning and its rivals, on data of mixed quality made on the spot.

Wang et al. 2020 report that CRR beats behavioural cloning wherever the data are mixed, and that a filter of the kind
binary is best where the task is simple, exp where it is not. The cases:

- Pendulum, 20,000 steps, half of them of a half-trained policy and half random; 2,000 gradient steps. CRR+ here is
  CRR with layer normalisation, twin critics and m = 50; its published soft targets move too slowly for so few steps.
- CartPole and a gridworld, with episodes of a good policy, of random play and of one that does the opposite.
- binary against exp: a small clean dataset of a simple task, a large mixed one of a harder task.
- speed: gradient steps per CPU-second, and with ``--peer-python`` d3rlpy's in the same run, seed by seed.

Every number is a mean over seeds of the mean return of 100 episodes, on the same evaluation seeds. Nothing was chosen
by looking at these returns: each agent is evaluated once, at its last step.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlbits.agents.agent import Agent
from mlbits.agents.memory.dataset import Dataset
from mlbits.agents.registry import agent_entry
from mlbits.evals.optimal_return import reference_returns
from mlbits.evals.reproductions.offline import d3rlpy_peer
from mlbits.evals.reproductions.offline.behaviours import (
    CARTPOLE,
    GRID,
    PENDULUM,
    Rule,
    away,
    balances,
    pendulum_policies,
    random_player,
    recorded,
    topples,
    way_to_the_goal,
)
from mlbits.evals.reproductions.reproduction import ReproductionError, print_table
from mlbits.selfplay.episodes import play_episodes
from mlbits.selfplay.machine import set_up
from mlbits.selfplay.statistics import mean_interval

EVAL_EPISODES, EVAL_SEED = 100, 20_000
STEPS, DISCRETE_STEPS = 2_000, 4_000
PLUS = {"layer_norm": True, "twin": True, "samples": 50}
PENDULUM_AGENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "bc": ("bc", {}),
    "bc, best 10%": ("bc", {"top": 0.1}),
    "crr exp": ("crr", {}),
    "crr binary": ("crr", {"weight": "binary"}),
    "crr+": ("crr", PLUS),
    "td3-bc": ("td3-bc", {"reward_scaling": "standard"}),
    "iql": ("iql", {}),
}
_SMALL: dict[str, Any] = {"hidden": (64, 64), "learning_rate": 1e-3}
_CRITIC = {"critic_learning_rate": 1e-3, "discount": 0.95, "target_every": 25}
DISCRETE_AGENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "bc": ("bc", _SMALL),
    "bc, best 10%": ("bc", {**_SMALL, "top": 0.1}),
    "crr binary": ("crr", {**_SMALL, **_CRITIC, "weight": "binary"}),
    "crr exp": ("crr", {**_SMALL, **_CRITIC}),
    "iql": ("iql", {**_SMALL, "critic_learning_rate": 1e-3, "discount": 0.95}),
}
_FILTERS = ("binary", "binary max", "exp")


def reproduce(quick: bool = False, seeds: int = 5, peer_python: Path | None = None) -> dict[str, Any]:
    """Make the data, train, and compare.

    Args:
        quick: one seed, and only BC and CRR on Pendulum and the gridworld.
        seeds: number of seeds.
        peer_python: a Python interpreter with d3rlpy, to run it beside.

    Returns:
        "pendulum", "cartpole", "gridworld", "filters" (rows by agent: returns of the seeds), "speed", and "met".

    Raises:
        ReproductionError: if there are no seeds, or d3rlpy fails.
    """
    if seeds < 1:
        raise ReproductionError(f"seeds: got {seeds}; wanted at least 1")
    set_up(1)
    count = 1 if quick else seeds
    found: dict[str, Any] = {}
    found["pendulum"] = pendulum(count, ("bc", "crr exp") if quick else tuple(PENDULUM_AGENTS), peer_python)
    names = ("bc", "crr binary") if quick else tuple(DISCRETE_AGENTS)
    found["gridworld"] = discrete("gridworld", GRID, gridworld_data(), count, names)
    if not quick:
        found["cartpole"] = discrete("cartpole", CARTPOLE, cartpole_data(), count, names)
        found["filters"] = filters(count)
    return {**found, "met": all(case["met"] for case in found.values())}


def pendulum_data() -> tuple[Dataset, float]:
    """20,000 steps, half of them of a half-trained policy and half random; and the mean return of the better half."""
    (medium,) = pendulum_policies([-750.0])
    better = recorded(PENDULUM, [(medium, 50)], seed=11)
    return Dataset.mix([better, recorded(PENDULUM, [(random_player(PENDULUM), 50)], seed=12)]), float(
        better.returns.mean()
    )


def gridworld_data() -> Dataset:
    """A gridworld: a fifth of the episodes walk to the goal, the others turn away or wander."""
    good = way_to_the_goal(GRID)
    parts: list[tuple[Agent, int]] = [
        (Rule(good, 4, 0.3), 40),
        (Rule(away(good, 4), 4, 0.3), 120),
        (random_player(GRID), 40),
    ]
    return recorded(GRID, parts, seed=13)


def cartpole_data() -> Dataset:
    """CartPole: a few long episodes of a good policy, and many short ones of random play and of the opposite."""
    good, bad = Rule(balances, 2, 0.2), Rule(topples, 2, 0.2)
    return recorded(CARTPOLE, [(good, 10), (random_player(CARTPOLE), 100), (bad, 1000)], seed=14)


def learned(agent: str, settings: Mapping[str, Any], data: Dataset, steps: int, seed: int) -> tuple[Any, float]:
    """An agent after some gradient steps on a dataset, and gradient steps per CPU-second."""
    entry = agent_entry(agent)
    config = entry.config_class()(**settings)
    learner = entry.make(config, data.observation_space, data.action_space, seed=seed, device="cpu")
    generator, each = torch.Generator().manual_seed(seed), config.updates_per_iteration
    began = time.process_time()
    for done in range(0, steps, each):
        learner.learn(data, done / steps, generator)
    return learner, steps / (time.process_time() - began)


def return_of(learner: Any, env: str, episodes: int = EVAL_EPISODES, seed: int = EVAL_SEED) -> float:
    """Its mean return over the evaluation episodes, or others."""
    return float(play_episodes(learner, env, episodes, seed=seed).returns.mean())


def compared(
    env: str, data: Dataset, agents: Mapping[str, tuple[str, dict[str, Any]]], seeds: int, steps: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Each agent's return and speed, seed by seed."""
    returns: dict[str, list[float]] = {name: [] for name in agents}
    speeds: dict[str, list[float]] = {name: [] for name in agents}
    for seed in range(seeds):
        for name, (agent, settings) in agents.items():
            learner, speed = learned(agent, settings, data, steps, seed)
            returns[name].append(return_of(learner, env))
            speeds[name].append(speed)
            print(f"{env} seed {seed} {name}: {returns[name][-1]:.4g} ({speed:.0f} steps/CPU-s)", flush=True)
    return returns, speeds


def pendulum(seeds: int, names: Sequence[str], peer_python: Path | None) -> dict[str, Any]:
    """The Pendulum case.

    Met if CRR exp is above -350, above the data's better half, and 400 above BC; and CRR+ is not below it.
    """
    data, better = pendulum_data()
    agents = {name: PENDULUM_AGENTS[name] for name in names}
    if peer_python is not None:  # its products are those of the table's other agents, in another number format
        agents["crr exp, bfloat16"] = ("crr", {"precision": "auto"})
    returns, speeds = compared(PENDULUM, data, agents, seeds, STEPS)
    if peer_python is not None:
        returns["d3rlpy crr exp"], speeds["d3rlpy crr exp"] = peer(peer_python, data, seeds)
    title = f"Pendulum, {data.num_steps:,} steps of data (better half {better:.0f}), {STEPS:,} gradient steps"
    _print_case(title, returns, speeds)
    mean = {name: float(np.mean(values)) for name, values in returns.items()}
    met = mean["crr exp"] > max(-350, better) and mean["crr exp"] > mean["bc"] + 400
    if "crr+" in mean:
        gap = np.subtract(returns["crr+"], returns["crr exp"])
        met = met and (mean["crr+"] >= mean["crr exp"] or mean_interval(gap)[1][1] >= 0)
    result = {"returns": returns, "speeds": speeds, "better_half": better, "met": bool(met)}
    if peer_python is not None:
        theirs = np.array(speeds["d3rlpy crr exp"])
        result["speed_ratio"] = {
            name: float(np.mean(np.array(speeds[name]) / theirs)) for name in ("crr exp", "crr exp, bfloat16")
        }
        print(f"speed over d3rlpy's: {result['speed_ratio']}")
    return result


def discrete(title: str, env: str, data: Dataset, seeds: int, names: Sequence[str]) -> dict[str, Any]:
    """A case of Discrete actions; met if CRR binary is at the optimum (95% of the way from random) and BC is not."""
    returns, speeds = compared(env, data, {name: DISCRETE_AGENTS[name] for name in names}, seeds, DISCRETE_STEPS)
    known = reference_returns(env, {})
    best, worst = (known.optimum, known.random) if known else (500.0, 22.0)
    _print_case(
        f"{title}: {data.num_episodes} episodes, {data.num_steps:,} steps, their mean return "
        f"{float(data.returns.mean()):.4g}; optimum {best:.4g}, random play {worst:.4g}", returns, speeds,
    )  # fmt: skip
    score = {name: (float(np.mean(values)) - worst) / (best - worst) for name, values in returns.items()}
    return {"returns": returns, "optimum": best, "met": score["crr binary"] >= 0.95 > score["bc"]}


def filters(seeds: int) -> dict[str, Any]:
    """The filter binary against exp; always met, as it is a question."""
    small = recorded(CARTPOLE, [(Rule(balances, 2, 0.3), 40)], seed=15)
    stages = pendulum_policies([-1000.0, -750.0, -400.0])
    parts = [(stage, 75) for stage in stages] + [(random_player(PENDULUM), 75)]
    large = recorded(PENDULUM, parts, seed=16)
    kinds: dict[str, dict[str, Any]] = {
        "binary": {"weight": "binary"}, "binary max": {"weight": "binary", "advantage": "max"}, "exp": {}
    }  # fmt: skip
    found: dict[str, Any] = {}
    for title, env, data, base in (
        (f"small and clean: CartPole, {small.num_steps:,} steps", CARTPOLE, small, {**_SMALL, **_CRITIC}),
        (f"large and mixed: Pendulum, {large.num_steps:,} steps of four policies", PENDULUM, large, {}),
    ):
        agents = {name: ("crr", {**base, **kinds[name]}) for name in _FILTERS}
        returns, speeds = compared(env, data, agents, seeds, STEPS)
        _print_case(title, returns, speeds)
        found[title] = returns
    return {"returns": found, "met": True}


def peer(python: Path, data: Dataset, seeds: int) -> tuple[list[float], list[float]]:
    """d3rlpy's returns and speeds, from an interpreter of its own.

    Raises:
        ReproductionError: if it fails; the message ends with its output.
    """
    returns, speeds = [], []
    with tempfile.TemporaryDirectory() as folder:
        arrays, result = Path(folder) / "data.npz", Path(folder) / "result.json"
        names = ("obs", "action", "reward", "terminated", "starts")
        np.savez(arrays, **{name: getattr(data, name).numpy() for name in names})
        for seed in range(seeds):
            words = [str(python), d3rlpy_peer.__file__, str(arrays), str(result), str(seed), str(STEPS)]
            done = subprocess.run(words, capture_output=True, text=True, cwd=folder)
            if done.returncode != 0:
                lines = (done.stderr or done.stdout).strip().splitlines()
                raise ReproductionError(f"peer_python: d3rlpy failed: {lines[-1] if lines else done.returncode}")
            found = json.loads(result.read_text())
            returns.append(float(found["return_mean"]))
            speeds.append(float(found["steps_per_cpu_second"]))
            print(f"d3rlpy seed {seed}: {returns[-1]:.4g} ({speeds[-1]:.0f} steps/CPU-s)", flush=True)
    return returns, speeds


def _print_case(title: str, returns: Mapping[str, list[float]], speeds: Mapping[str, list[float]]) -> None:
    rows = []
    for name, values in returns.items():
        mean, (low, high) = mean_interval(values)
        rows.append([name, mean, low, high, float(np.mean(speeds[name]))])
    print_table(title, ["agent", "return", "95% from", "to", "steps/CPU-s"], rows, width=100)
