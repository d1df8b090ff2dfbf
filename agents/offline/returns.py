"""Returns of recorded episodes, and the check of a categorical critic's support against them."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from mlbits.agents.agent import AgentError
from mlbits.agents.memory.dataset import Dataset
from mlbits.agents.offline.networks import Scaling


def returns_to_go(data: Dataset, discount: float, reward: Tensor | None = None) -> Tensor:
    """The discounted sum of rewards from each step to the end of its episode, float64 [N].

    Args:
        data: the dataset.
        discount: gamma.
        reward: other rewards of its steps, [N]; None takes its own.

    Example:
        >>> from gymnasium import spaces
        >>> from mlbits.agents.memory.dataset import Episode
        >>> episode = Episode(obs=[0, 0, 0], action=[0, 0], reward=[1.0, 2.0], terminated=[False, True])
        >>> one = spaces.Discrete(1)
        >>> returns_to_go(Dataset.from_episodes([episode, episode], one, one), 0.5).tolist()
        [2.0, 2.0, 2.0, 2.0]
    """
    values = (data.reward if reward is None else reward).cpu().double().numpy()
    found, starts = np.empty(len(values)), data.starts.tolist()
    for first, last in itertools.pairwise(starts):
        total = 0.0
        for i in range(last - 1, first - 1, -1):
            total = values[i] + discount * total
            found[i] = total
    return torch.from_numpy(found)


def check_support(data: Dataset, discount: float, scaling: Scaling, v_min: float, v_max: float) -> None:
    """Refuse a support that does not hold the dataset's returns, which all beyond it would be taken for its ends.

    Raises:
        AgentError: naming the returns, and the episodes that they are of.
    """
    found = returns_to_go(data, discount, scaling.reward(data.reward))
    low, high = float(found.min()), float(found.max())
    if low < v_min or high > v_max:
        step = int(found.argmin() if low < v_min else found.argmax())
        raise AgentError(
            f"v_min, v_max: got {v_min:g} and {v_max:g}; the scaled discounted returns of {data.name} go from "
            f"{low:.4g} to {high:.4g} (episode {int(data.episode_of_step[step])}); wanted a support that holds them"
        )
