"""``mlbits reproduce her``: what goals in hindsight are worth, on flipping bits and on a robot's arm.

Andrychowicz et al., "Hindsight Experience Replay" (2017), sections 3.1 and 4: DQN with and without hindsight on
BitFlipping, and in the full form SAC on Gymnasium-Robotics' FetchReach (extra ``robotics``). Success is the fraction of
new episodes in which the goal is reached, by greedy play. The target: at least 0.95 with hindsight in every seed, and
without it less than half.

Example:
    mlbits reproduce her --quick
"""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from mlbits.evals.evaluate import load_agent
from mlbits.evals.reproductions.reproduction import ReproductionError, print_table
from mlbits.selfplay.episodes import play_episodes
from mlbits.selfplay.machine import set_up
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.statistics import fraction_interval
from mlbits.selfplay.training import train

EPISODES, TARGET, BELOW = 500, 0.95, 0.5
_DQN: dict[str, Any] = {
    "hidden": (256,), "learning_rate": 1e-3, "learning_starts": 1000, "batch_size": 128, "discount": 0.98,
    "num_steps": 1, "tau": 0.05, "target_every": 1, "double": True, "epsilon_fraction": 0.3,
}  # fmt: skip
# The RL Zoo's recipe for FetchReach, with SAC.
_SAC: dict[str, Any] = {
    "hidden": (64, 64), "actor_learning_rate": 1e-3, "critic_learning_rate": 1e-3, "temperature_learning_rate": 1e-3,
    "learning_starts": 1000, "discount": 0.95,
}  # fmt: skip


class Task(NamedTuple):
    """An environment and how it is learned.

    Attributes:
        name: in tables.
        agent: a registered agent.
        env: environment id.
        settings: of the environment.
        steps: environment steps.
        copies: of the environment.
        learning: settings of the agent.
    """

    name: str
    agent: str
    env: str
    settings: dict[str, Any]
    steps: int
    copies: int
    learning: dict[str, Any]


QUICK = Task("13 bits", "dqn", "mlbits/BitFlipping-v0", {"bits": 13}, 30_000, 16, _DQN)
FULL = (
    QUICK,
    Task("25 bits", "dqn", "mlbits/BitFlipping-v0", {"bits": 25}, 150_000, 16, _DQN),
    Task("FetchReach", "sac", "gymnasium_robotics:FetchReach-v4", {"max_episode_steps": 50}, 20_000, 1, _SAC),
)


def reproduce(quick: bool = False, seeds: int = 3) -> dict[str, Any]:
    """Train with and without hindsight.

    Args:
        quick: 13 bits and one seed.
        seeds: number of seeds, from 0 on.

    Returns:
        "rows", each with "task", "hindsight", "seed", "success" and its 95% interval "low" and "high"; "met": whether
        success is at least 0.95 in every row with hindsight, and below 0.5 in every row without.

    Raises:
        ReproductionError: for no seeds, or if the full form lacks the extra ``robotics``.
    """
    if seeds < 1:
        raise ReproductionError(f"seeds: got {seeds}; wanted at least 1")
    if not quick and importlib.util.find_spec("gymnasium_robotics") is None:
        raise ReproductionError(
            'FetchReach: gymnasium_robotics is not installed; wanted pip install "mlbits[robotics]"'
        )
    set_up(1)
    rows = [
        _row(task, hindsight, seed)
        for task in ([QUICK] if quick else FULL)
        for hindsight in ("future", "none")
        for seed in range(1 if quick else seeds)
    ]
    print_table(
        f"Goals reached in {EPISODES} new episodes; with hindsight at least {TARGET}, without less than {BELOW}",
        ["task", "hindsight", "seed", "success", "95% from", "to"],
        [[row["task"], row["hindsight"], row["seed"], *(f"{row[key]:.3f}" for key in ("success", "low", "high"))]
         for row in rows],
    )  # fmt: skip
    return {"rows": rows, "met": all(met(row) for row in rows)}


def met(row: dict[str, Any]) -> bool:
    """Whether a row is as it should be."""
    return bool(row["success"] < BELOW if row["hindsight"] == "none" else row["success"] >= TARGET)


def _row(task: Task, hindsight: str, seed: int) -> dict[str, Any]:
    run = {
        "total_steps": task.steps, "num_envs": task.copies, "seed": seed, "device": "cpu", "eval_every": 0,
        "eval_episodes": 1, "video": False,
    }  # fmt: skip
    settings = resolve(
        task.agent, task.env, preset="none", run=run, env_settings=task.settings,
        agent_settings={**task.learning, "hindsight": hindsight},
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        train(settings, Path(folder) / "run", console=False)
        agent, _, _ = load_agent(Path(folder) / "run")
    played = play_episodes(agent, settings.env, EPISODES, seed=seed + 1000, settings=task.settings, greedy=True)
    reached = int((played.returns[:, 0] > -played.lengths).sum())  # a step at the goal costs nothing
    success, (low, high) = fraction_interval(reached, EPISODES)
    return {"task": task.name, "hindsight": hindsight, "seed": seed, "success": success, "low": low, "high": high}
