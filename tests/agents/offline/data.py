"""Small datasets of the tests."""

import numpy as np
import torch
from gymnasium import spaces

from mlbits.agents.agent import network_generator
from mlbits.agents.memory.dataset import Dataset, Episode

VECTOR = spaces.Box(-5, 5, (3,), np.float32)
BOX = spaces.Box(np.array([-2.0], np.float32), np.array([2.0], np.float32))
TWO = spaces.Discrete(2)


def draw(seed):
    return network_generator(seed)


def noise(actions=BOX, episodes=6, length=10, seed=0, terminated=False):
    """Episodes of random numbers."""
    generator, found = draw(seed), []
    for _ in range(episodes):
        last = torch.arange(length) == length - 1
        if isinstance(actions, spaces.Discrete):
            action = torch.randint(int(actions.n), (length,), generator=generator)
        else:
            action = 4 * torch.rand(length, 1, generator=generator) - 2
        found.append(
            Episode(
                obs=torch.randn(length + 1, 3, generator=generator).clamp(-5, 5),
                action=action,
                reward=torch.randn(length, generator=generator),
                terminated=last if terminated else last & False,
                truncated=last & False if terminated else last,
            )
        )
    return Dataset.from_episodes(found, VECTOR, actions)


def bandit(counts, rewards):
    """Episodes of one step, ``counts[a]`` of action a with reward ``rewards[a]``."""
    one = spaces.Discrete(1)
    found = [
        Episode(obs=[0, 0], action=[a], reward=[rewards[a]], terminated=[True])
        for a, count in enumerate(counts)
        for _ in range(count)
    ]
    return Dataset.from_episodes(found, one, spaces.Discrete(len(counts)))
