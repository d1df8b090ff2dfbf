"""An environment for Gymnasium whose copies with seeds from 6 on return rewards of NaN after 20 steps."""

import gymnasium as gym
import numpy as np


class Broken(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)
    seed, steps = 0, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed = self.seed if seed is None else seed
        return self.observation_space.sample() * 0, {}

    def step(self, action):
        self.steps += 1
        reward = float("nan") if self.seed >= 6 and self.steps > 20 else 1.0
        return np.zeros(2, np.float32), reward, self.steps % 7 == 0, False, {}


if "mlbits-tests/Broken-v0" not in gym.registry:
    gym.register("mlbits-tests/Broken-v0", Broken)
