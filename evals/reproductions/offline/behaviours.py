"""Behaviour policies of graded quality and the datasets they record, all from fixed seeds."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlbits.agents.agent import Agent, Decision
from mlbits.agents.bots.random_bot import RandomAgent
from mlbits.agents.memory.dataset import Dataset
from mlbits.agents.memory.minari import read_dataset
from mlbits.agents.planning.dynamic_programming import value_iteration
from mlbits.envs.doors.gymnasium_batch import open_batch
from mlbits.envs.exact.transition_table import table_of
from mlbits.selfplay.episodes import play_episodes
from mlbits.selfplay.recording import record
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.session import open_session

PENDULUM, CARTPOLE, GRID = "mlbits/Pendulum-v0", "mlbits/CartPole-v0", "mlbits/GridWorld-v0"
_CHECK_EVERY, _TRIAL_EPISODES, _TRIAL_SEED = 250, 10, 5
_DDPG = {"hidden": (64, 64), "batch_size": 64}  # a small one, which learns Pendulum in seconds


class Rule:
    """A fixed policy for Discrete actions, with a fraction of random ones.

    Args:
        rule: actions [N] from observations [N, ...].
        num_actions: how many there are.
        epsilon: the fraction of actions drawn uniformly.
    """

    experience = None

    def __init__(self, rule: Callable[[Tensor], Tensor], num_actions: int, epsilon: float) -> None:
        self.rule, self.num_actions, self.epsilon = rule, num_actions, epsilon

    def act(self, obs: Any, legal_mask: Tensor | None, generator: torch.Generator, *, greedy: bool = False) -> Decision:
        """The rule's actions, some replaced at random."""
        action = self.rule(obs)
        draw = torch.rand(len(action), generator=generator) < self.epsilon
        action = torch.where(draw, torch.randint(self.num_actions, action.shape, generator=generator), action)
        return Decision(action, action, None)

    def learn(self, experience: Any, progress: float, generator: torch.Generator) -> dict[str, Any]:
        """A rule does not learn."""
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: Any) -> None:
        """Nothing."""


def recorded(env: str, parts: Sequence[tuple[Agent, int]], seed: int) -> Dataset:
    """A dataset of episodes of several policies in random order.

    Args:
        env: id of the environment.
        parts: policies, and how many episodes of each.
        seed: of the recording.
    """
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for number, (agent, episodes) in enumerate(parts):
            name = Path(folder) / f"part{number}-v0"
            record(agent, env, name, episodes=episodes, seed=seed + 1_000_000 * (number + 1))
            found.append(read_dataset(name))
    return Dataset.mix(found, seed=seed)


def random_player(env: str) -> RandomAgent:
    """Uniformly random play."""
    batch = open_batch(env, 1, start=False)
    return RandomAgent(batch.observation_space, batch.action_space)


def pendulum_policies(targets: Sequence[float], seed: int = 0) -> list[Agent]:
    """Stages of one DDPG run on Pendulum, with noise of 0.3: the first whose mean return reaches each target.

    Args:
        targets: mean returns, ascending.
        seed: of the run.
    """
    run = {"num_envs": 1, "seed": seed, "device": "cpu", "total_steps": 100_000}
    session = open_session(resolve("ddpg", PENDULUM, preset="none", run=run, agent_settings=_DDPG))
    learner: Any = session.learner
    found: list[Agent] = []
    while len(found) < len(targets):
        rollout, _, steps = session.collector.collect(session.lineup)
        session.learn(rollout)
        session.counters.env_steps += steps
        if session.counters.env_steps % _CHECK_EVERY or session.counters.env_steps < 1000:
            continue
        played = play_episodes(learner, PENDULUM, _TRIAL_EPISODES, seed=_TRIAL_SEED)
        while len(found) < len(targets) and played.returns.mean() >= targets[len(found)]:
            spaces = session.batch.observation_space, session.batch.action_space
            stage: Any = type(learner)(learner.config, *spaces)
            stage.load_state_dict(learner.state_dict())
            stage.noise = 0.3
            found.append(stage)
    return found


def balances(obs: Tensor) -> Tensor:
    """A rule that balances CartPole's pole: push to the side to which it leans and falls, and back to the middle."""
    position, speed, angle, turning = obs.unbind(-1)
    return (angle + 0.5 * turning + 0.05 * position + 0.1 * speed > 0).long()


def topples(obs: Tensor) -> Tensor:
    """The opposite rule."""
    return 1 - balances(obs)


def way_to_the_goal(env: str) -> Callable[[Tensor], Tensor]:
    """The best actions of a gridworld, by value iteration."""
    table = table_of(env, {})
    assert table.states is not None
    cells = torch.from_numpy(table.states["cell"].astype(np.int64))
    space: Any = open_batch(env, 1, start=False).observation_space
    size = int(space.n)  # the goal, where nothing is decided, is not in the table
    best = torch.zeros(size, dtype=torch.int64)
    best[cells] = torch.from_numpy(value_iteration(table, 0.99).policy)
    return lambda obs: best[obs.reshape(len(obs)).long()]


def away(rule: Callable[[Tensor], Tensor], num_actions: int) -> Callable[[Tensor], Tensor]:
    """A rule that takes the action after that of another one."""
    return lambda obs: (rule(obs) + 1) % num_actions
