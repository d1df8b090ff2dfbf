"""Goal rules of Gymnasium environments: in a batch and row by row, and what is refused."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from mlbits.envs.core.errors import GameError
from mlbits.envs.doors.goals import GymnasiumGoals, goal_rule
from mlbits.envs.doors.gymnasium_batch import open_batch

BOX = spaces.Box(-1, 1, (2,), np.float64)
GOALS = {"observation": BOX, "achieved_goal": BOX, "desired_goal": BOX}


class Reach(gym.Env):
    """Step by the action; 0 within 0.1 of the goal, where the episode ends, else -1."""

    observation_space = spaces.Dict(GOALS)
    action_space = spaces.Box(-0.5, 0.5, (2,), np.float32)

    def compute_reward(self, achieved, desired, info):
        return -(np.linalg.norm(achieved - desired, axis=-1) > 0.1).astype(np.float64)

    def compute_terminated(self, achieved, desired, info):
        return bool(np.linalg.norm(achieved - desired) <= 0.1)  # of one row alone, as PointMaze's

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.goal = np.zeros(2), self.np_random.uniform(-1, 1, 2)
        return self._seen(), {}

    def step(self, action):
        self.at = np.clip(self.at + action, -1, 1)
        reward = float(self.compute_reward(self.at, self.goal, {}))
        return self._seen(), reward, self.compute_terminated(self.at, self.goal, {}), False, {}

    def _seen(self):
        return {"observation": self.at.copy(), "achieved_goal": self.at.copy(), "desired_goal": self.goal.copy()}


class Silent(Reach):
    """Says nothing of other goals."""

    compute_reward = None


class Odd(Reach):
    """Goals of different shapes."""

    observation_space = spaces.Dict(GOALS | {"desired_goal": spaces.Box(-1, 1, (3,))})


class Broken(Reach):
    """Fails for any goal."""

    def compute_reward(self, achieved, desired, info):
        raise KeyError("is_success")


@pytest.fixture
def register_env(monkeypatch):
    def register(kind, **settings):
        name = f"test/{kind.__name__}-v0"
        monkeypatch.setitem(gym.registry, name, gym.envs.registration.EnvSpec(name, kind, **settings))
        return name

    return register


def test_rewards_and_ends_of_other_goals(register_env):
    rule = goal_rule(open_batch(register_env(Reach, max_episode_steps=20), 2))
    achieved = torch.tensor([[0.0, 0.0], [0.5, 0.5], [0.5, 0.45]])
    desired = torch.tensor([[0.5, 0.5]] * 3)
    reward, ends = rule(achieved, desired)
    assert (reward.tolist(), ends.tolist()) == ([-1.0, 0.0, 0.0], [False, True, True])
    assert (reward.dtype, ends.dtype) == (torch.float32, torch.bool)
    reward, ends = rule(achieved[1:2], desired[:1])
    assert (reward.tolist(), ends.tolist()) == ([0.0], [True])


def test_without_compute_terminated_no_goal_ends_an_episode():
    class Endless(Reach):
        def has_wrapper_attr(self, name):
            return name != "compute_terminated" and super().has_wrapper_attr(name)

    _, ends = GymnasiumGoals(Endless(), "Endless")(torch.zeros(2, 2), torch.zeros(2, 2))
    assert ends.tolist() == [False, False]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Silent, r"Silent: has no compute_reward, which says what a step pays for another goal"),
        (Odd, r"Odd: got achieved_goal Box.*\(2,\).* and desired_goal Box.*\(3,\).*; wanted goals of the same space"),
    ],
)
def test_environments_that_cannot_say_it_are_named(kind, said):
    with pytest.raises(GameError, match=said):
        GymnasiumGoals(kind(), kind.__name__)


def test_an_environment_without_goals_is_named():
    said = r"CartPole-v1: observations have no goals: got Box.*wanted a Dict with observation, achieved_goal"
    with pytest.raises(GameError, match=said):
        goal_rule(open_batch("CartPole-v1", 1))
    partly = Reach()
    partly.observation_space = spaces.Dict({"observation": BOX, "desired_goal": BOX})
    with pytest.raises(GameError, match="got a Dict without achieved_goal; wanted"):
        GymnasiumGoals(partly, "Reach")


def test_functions_that_fail_are_named():
    rule = GymnasiumGoals(Broken(), "Broken")
    with pytest.raises(GameError, match=r"Broken: compute_reward failed on goals \(2,\) \(KeyError: 'is_success'\)"):
        rule(torch.zeros(2, 2), torch.zeros(2, 2))
