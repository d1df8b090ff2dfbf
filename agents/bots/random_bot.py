"""The random agent: uniform over the legal actions. A baseline for comparisons and an opponent that never changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

from mlbits.agents.agent import AgentError, Decision
from mlbits.agents.maths.action_distributions import Categorical, distribution_for
from mlbits.envs.core.box_sampling import BoxSampler
from mlbits.envs.core.config_fields import configuration


@configuration(AgentError)
class RandomConfig:
    """Random play has no settings."""


class RandomAgent:
    """Uniform over legal actions; continuous ones as in Gymnasium's ``Box.sample``, uniform between the bounds.

    For unbounded dimensions see :mod:`mlbits.envs.core.box_sampling`.

    Args:
        observation_space: not used; part of every agent's signature.
        action_space: one seat's.
    """

    experience = None

    def __init__(self, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        self.distribution = distribution_for(action_space)
        self._box = BoxSampler(action_space) if isinstance(action_space, gym.spaces.Box) else None

    def act(self, obs: Any, legal_mask: Tensor | None, generator: torch.Generator, *, greedy: bool = False) -> Decision:
        """Draw actions for N rows; ``greedy`` changes nothing."""
        some = next(iter(obs.values())) if isinstance(obs, dict) else obs
        if self._box is not None:
            action = self._box.sample((len(some),), generator)
            return Decision(action, action, self._box.log_prob(action))
        params = torch.zeros(len(some), self.distribution.size, device=some.device)
        sample = self.distribution.sample(params, legal_mask, generator)
        return Decision(
            self.distribution.played(sample), sample, self.distribution.log_prob(params, legal_mask, sample)
        )

    def action_probabilities(self, obs: Any, legal_mask: Tensor | None, *, greedy: bool = False) -> Tensor:
        """Action probabilities pi(a|s), float64 [N, A].

        Raises:
            AgentError: if the actions are not Discrete.
        """
        if not isinstance(self.distribution, Categorical):
            raise AgentError(f"action_probabilities: got {type(self.distribution).__name__}; wanted Discrete actions")
        some = next(iter(obs.values())) if isinstance(obs, dict) else obs
        return self.distribution.probabilities(
            torch.zeros(len(some), self.distribution.size, device=some.device), legal_mask
        )

    def learn(self, experience: Any, progress: float, generator: torch.Generator) -> Mapping[str, float]:
        """Always raises: the agent does not learn.

        Raises:
            AgentError: always.
        """
        raise AgentError("random: does not learn; wanted an agent that does, such as ppo")

    def state_dict(self) -> dict[str, Tensor]:
        """Nothing to save."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Nothing to load."""


def random_agent(
    config: RandomConfig,
    observation_space: gym.Space[Any],
    action_space: gym.Space[Any],
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> RandomAgent:
    """A :class:`RandomAgent` by the signature of every registered agent; only the action space matters."""
    return RandomAgent(observation_space, action_space)
