"""A Gymnasium environment for tests and measurements of actors: Dict observations, and steps as slow as one likes."""

import time

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Walk(gym.Env):
    """A random walk that its actions push; the return is how near to 0 it stays.

    Args:
        step_seconds: how long a step takes at least.
        burns: whether it computes for so long, or sleeps.
        fails: whether an action of 3 is an error from the fourth step of an episode on.
    """

    def __init__(self, step_seconds=0.0, burns=False, fails=False):
        self.observation_space = spaces.Dict({"at": spaces.Box(-99, 99, (2,), np.float32), "turn": spaces.Discrete(3)})
        self.action_space = spaces.Discrete(4)
        self.step_seconds, self.burns, self.fails = step_seconds, burns, fails

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.time = float(self.np_random.normal()), 0
        return self._seen(), {}

    def step(self, action):
        if self.fails and action == 3 and self.time > 2:
            raise RuntimeError("a stumble")
        if self.burns:
            until = time.perf_counter() + self.step_seconds
            while time.perf_counter() < until:
                pass
        elif self.step_seconds:
            time.sleep(self.step_seconds)
        self.at += float(self.np_random.normal()) + (action - 1.5) / 4
        self.time += 1
        return self._seen(), -abs(self.at), abs(self.at) > 4, self.time >= 20, {}

    def _seen(self):
        return {"at": np.array([self.at, self.time], np.float32), "turn": self.time % 3}


if "tests/Walk-v0" not in gym.registry:
    gym.register("tests/Walk-v0", Walk)
