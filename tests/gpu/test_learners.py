"""Every learner solves its small task on the card.

In Numba's simulator each makes one iteration or two: it then only shows that nothing fails.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import mlbits
from mlbits.agents import AGENTS
from mlbits.agents.memory.dataset import Dataset, Episode
from mlbits.agents.memory.minari import write_dataset
from tests.games import register_test_games

register_test_games()
pytestmark = pytest.mark.gpu
GRID = {"map": "S..#/.#../...G", "horizon": 20}  # five moves: the best return is 0.96; untrained: -0.2
ARMS = {"means": [0.0, 1.0, 0.5], "reward_std": 0.5, "horizon": 10}  # the best arm pays 10, the next 5
# Agent: environment, its settings, the return that greedy play must exceed, steps, copies, settings of the agent.
TASKS = {
    "ppo": ("mlbits/GridWorld-v0", GRID, 0.95, 40_000, 64, {"num_steps": 32, "learning_rate": 5e-3}),
    "trpo": ("mlbits/GridWorld-v0", GRID, 0.95, 40_000, 64, {"num_steps": 32, "target_kl": 0.1}),
    "reinforce": ("mlbits/Bandit-v0", ARMS, 9, 20_000, 64, {"num_steps": 10, "learning_rate": 3e-2}),
    "q-learning": ("mlbits/GridWorld-v0", GRID, 0.95, 60_000, 64, {"num_steps": 4}),
    "dqn": ("mlbits/GridWorld-v0", GRID, 0.95, 30_000, 16,
            {"num_steps": 4, "learning_starts": 500, "batch_size": 64, "learning_rate": 2e-3, "replay_ratio": 0.25}),
    "ddpg": ("test/Point-v0", {}, -1.5, 20_000, 16,
             {"num_steps": 4, "learning_starts": 500, "batch_size": 64, "replay_ratio": 0.25, "hidden": (64, 64)}),
    "sac": ("test/Point-v0", {}, -1.5, 20_000, 16,
            {"num_steps": 4, "learning_starts": 500, "batch_size": 64, "replay_ratio": 0.25, "hidden": (64, 64),
             "actor_learning_rate": 3e-3, "critic_learning_rate": 3e-3, "temperature_learning_rate": 3e-3}),
    "classifier": ("mlbits/Digits-v0", {"feedback": "full", "classes": 3}, 0.9, 8_000, 16,
                   {"loss": "cross_entropy", "learning_rate": 1e-2}),
    "sb3-ppo": ("mlbits/Bandit-v0", ARMS, 9, 8_000, 8, {"n_steps": 64, "learning_rate": 1e-2}),
    "sb3-a2c": ("mlbits/Bandit-v0", ARMS, 9, 8_000, 8, {"learning_rate": 1e-2}),
}  # fmt: skip
PLANNERS = ("ibr", "fppi1", "fppi2", "equilibrium")
OFFLINE = ("bc", "crr", "td3-bc", "iql")
QUIET = {"preset": "none", "console": False, "measure": None, "eval_every": 0, "video": False}


def learners():
    return [name for name, entry in AGENTS.items() if not entry.bot]


@pytest.mark.parametrize("agent", [name for name in learners() if name not in (*PLANNERS, *OFFLINE, "alphazero")])
def test_a_learner_solves_its_small_task(agent, card, tmp_path):
    if agent not in TASKS:
        pytest.skip(f"{agent} has no small task here")
    env, settings, threshold, steps, copies, learning = TASKS[agent]
    if not card.train:
        if agent.startswith("sb3-"):
            pytest.skip("Stable-Baselines3 would see the simulator's CPU")
        steps, copies = 2 * 4 * learning.get("num_steps", 1), 4
        learning = {**learning, **({"learning_starts": 0, "batch_size": 8} if "learning_starts" in learning else {})}
    if agent not in ("q-learning", "classifier", "ddpg", "sac") and not agent.startswith("sb3-"):
        learning = {"hidden": (32,), **learning}
    _, summary = mlbits.train(
        agent, env, out=tmp_path / "run", env_settings=settings, agent_settings=learning, total_steps=steps,
        num_envs=copies, device=card.device, eval_episodes=50 if card.train else 1, **QUIET,
    )  # fmt: skip
    assert math.isfinite(summary["return_mean"])
    assert not card.train or summary["return_mean"] > threshold


def test_graphs_give_what_plain_runs_give(card, tmp_path):
    """Equal up to rounding: schedules are read as float32 in a graph."""
    env, settings, threshold, steps, copies, learning = TASKS["ppo"]
    steps, copies = (steps, copies) if card.train else (2 * 4 * 32, 4)
    found = {}
    for graphs in (False, True):
        folder, summary = mlbits.train(
            "ppo", env, out=tmp_path / str(graphs), env_settings=settings, total_steps=min(steps, 5 * copies * 32),
            agent_settings={"hidden": (32,), **learning, "graphs": graphs}, num_envs=copies, device=card.device,
            eval_episodes=1, **QUIET,
        )  # fmt: skip
        found[graphs] = mlbits.load(folder).agent.state_dict()
    for name, value in found[False].items():
        torch.testing.assert_close(found[True][name].cpu(), value.cpu(), rtol=1e-2, atol=1e-3)
    if card.train:
        _, summary = mlbits.train(
            "ppo", env, out=tmp_path / "solved", env_settings=settings, total_steps=steps,
            agent_settings={"hidden": (32,), **learning, "graphs": True}, num_envs=copies, device=card.device,
            eval_episodes=50, **QUIET,
        )  # fmt: skip
        assert summary["return_mean"] > threshold


@pytest.mark.parametrize("agent", PLANNERS)
def test_a_planner_learns_to_defect(agent, card, tmp_path):
    folder, _ = mlbits.train(
        agent, "mlbits/MatrixGame-v0", out=tmp_path / "run", env_settings={"payoffs": "prisoners_dilemma"},
        agent_settings={"hidden": (16,), "num_steps": 2, "round_steps": 4, "buffer_size": 2000, "batch_size": 32,
                        "learning_rate": 0.01},
        total_steps=25 * 64 if card.train else 2 * 8, num_envs=32 if card.train else 4, device=card.device,
        eval_episodes=1, **QUIET,
    )  # fmt: skip
    chances = mlbits.load(folder).agent.action_probabilities(torch.tensor([0, 1]), None)
    assert torch.isfinite(chances).all()
    assert not card.train or float(chances[:, 1].min()) > 0.9


def test_alphazero_takes_a_win(card, tmp_path):
    """The bare network, after some games of self-play; random weights do not."""
    if not card.train:
        pytest.skip("searches in the simulator are in tests/agents/search")
    env = "mlbits/TicTacToe-v0"
    folder, _ = mlbits.train(
        "alphazero", env, out=tmp_path / "run", total_steps=40_000, num_envs=128, device=card.device, eval_episodes=1,
        agent_settings={"width": 32, "blocks": 1, "learning_rate": 3e-3, "simulations": 16, "num_steps": 4,
                        "learning_starts": 1000, "batch_size": 128, "replay_ratio": 8.0},
        **QUIET,
    )  # fmt: skip
    agent, batch = mlbits.load(folder).agent, mlbits.make_batch(env, 1)
    for move in (0, 3, 1, 4):  # X: a1 b1, O: a2 b2; X wins by c1
        batch.step(torch.tensor([[move, move]]))
    assert agent.action_probabilities(batch.obs[:, 0], batch.legal_mask[:, 0])[0, 2] > 0.4


def one_step_episodes(optimal: bool) -> Dataset:
    """Episodes of a step in the spaces of Pendulum, paid -(a - 2 y)^2 for an action a at y = obs[1]."""
    rng = np.random.default_rng(0)
    obs = rng.uniform(-0.8, 0.8, (2000, 3)).astype(np.float32)
    best = 2 * obs[:, 1:2]
    action = best + 0.02 * rng.normal(size=best.shape) if optimal else rng.uniform(-2, 2, best.shape)
    reward = -((action - best) ** 2)[:, 0]
    episodes = [
        Episode(obs=obs[[k, k]], action=action[k : k + 1].astype(np.float32), reward=reward[k : k + 1],
                terminated=np.array([True]))
        for k in range(len(obs))
    ]  # fmt: skip
    game = mlbits.make_game("mlbits/Pendulum-v0")
    return Dataset.from_episodes(episodes, game.observation_space, game.action_space, env="mlbits/Pendulum-v0")


@pytest.mark.parametrize("agent", OFFLINE)
def test_an_offline_learner_finds_the_best_actions(agent, card, tmp_path):
    data = write_dataset(one_step_episodes(optimal=agent == "bc"), tmp_path / "data" / "line-v0")
    folder, _ = mlbits.train(
        agent, data=str(data), out=tmp_path / "run", device=card.device, total_steps=1500 if card.train else 2,
        agent_settings={"hidden": (32, 32), "batch_size": 128, "updates_per_iteration": 50 if card.train else 1},
        **QUIET,
    )  # fmt: skip
    obs = torch.rand(200, 3, generator=torch.Generator().manual_seed(1)) * 1.6 - 0.8
    action = mlbits.load(folder).agent.act(obs, None, torch.Generator(), greedy=True).action
    error = float((action - 2 * obs[:, 1:2]).abs().mean())
    assert math.isfinite(error)
    assert not card.train or error < 0.3  # of actions from -2 to 2; random actions: 1.1
