"""What agents with an actor and a critic have in common: acting, values of states, saving. How they learn is their own.

The algorithms are in ``ppo``, ``reinforce`` and ``trpo``, the network in :mod:`~mlbits.agents.networks.actor_critic`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

from mlbits.agents.agent import Decision, memoryless
from mlbits.agents.exploration.explorer import explorer_of
from mlbits.agents.maths.returns import RewardScale
from mlbits.agents.networks.actor_critic import ActorCriticCore


class ActorCriticAgent:
    """The base of agents that act by an :class:`~mlbits.agents.networks.actor_critic.ActorCriticCore`.

    A subclass has ``experience`` and ``learn``.

    Args:
        config: its settings, among them ``discount``, ``gae_lambda``, ``normalize_reward`` and those of a bonus.
        core: network and optimiser.
        observation_space: one seat's.
        action_space: one seat's.
        seed: of the bonus's initial weights.
        device: of the networks.

    Attributes:
        core: network and optimiser.
        explorer: the bonus; None without one.
        reward_scale: what rewards are divided by; None if they are left as they are.

    Raises:
        AgentError: if the bonus does not fit the spaces.
    """

    config: Any

    def __init__(
        self,
        config: Any,
        core: ActorCriticCore,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        seed: int,
        device: torch.device | str,
    ) -> None:
        self.config, self.core = config, core
        self.explorer = explorer_of(
            config, observation_space, action_space, seed=seed, device=device, gae_lambda=config.gae_lambda
        )
        self.reward_scale = RewardScale(config.discount) if config.normalize_reward else None

    @property
    def memory_size(self) -> int:
        """How many numbers it remembers, M; 0 without memory."""
        return self.core.memory_size

    def act(
        self,
        obs: Any,
        legal_mask: Tensor | None,
        generator: torch.Generator,
        *,
        greedy: bool = False,
        memory: Tensor | None = None,
    ) -> Decision:
        """Choose actions for N rows of observations; with memory, from what is remembered, [N, M]."""
        return self.core.act(obs, legal_mask, generator, greedy, memory)

    @memoryless
    def action_probabilities(self, obs: Any, legal_mask: Tensor | None, *, greedy: bool = False) -> Tensor:
        """Action probabilities pi(a|s) of Discrete actions, float64 [N, A]."""
        return self.core.action_probabilities(obs, legal_mask, greedy)

    def probabilities_with_memory(
        self, obs: Any, legal_mask: Tensor | None, memory: Tensor, *, greedy: bool = False
    ) -> Tensor:
        """As ``action_probabilities``, with what was remembered before each observation, [N, M]."""
        return self.core.action_probabilities(obs, legal_mask, greedy, memory)

    @memoryless
    def action_log_prob(self, obs: Any, legal_mask: Tensor | None, action: Tensor) -> Tensor:
        """Log probabilities (densities) of actions as played, [N]."""
        return self.core.action_log_prob(obs, legal_mask, action)

    @memoryless
    def draw_log_prob(self, obs: Any, legal_mask: Tensor | None, draw: Tensor) -> Tensor:
        """Log probabilities (densities) of draws, [N]."""
        return self.core.draw_log_prob(obs, legal_mask, draw)

    @memoryless
    def policy_and_value(self, obs: Any, legal_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Logits [N, A] of Discrete actions and values [N], in the rewards' own unit, for a search."""
        logits, value = self.core.policy_and_value(obs)
        return logits, self._in_rewards(value)

    @memoryless
    def state_values(self, obs: Any) -> Tensor:
        """V of N rows of observations, [N], in the rewards' own unit."""
        return self.values_with_memory(obs, None)

    def values_with_memory(self, obs: Any, memory: Tensor | None) -> Tensor:
        """As ``state_values``, with what was remembered before each observation, [N, M]."""
        return self._in_rewards(self.core.values(obs, 1, memory))

    def _in_rewards(self, value: Tensor) -> Tensor:
        """Values in the rewards' own unit."""
        return value if self.reward_scale is None else value * self.reward_scale.unit

    def bonus_metrics(self) -> dict[str, float]:
        """What the bonus measured on the latest rollout; empty without one."""
        return {} if self.explorer is None else {name: float(value) for name, value in self.explorer.metrics.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Network, optimisers, moments, the bonus and the reward scale."""
        state = self.core.state_dict()
        state |= {} if self.explorer is None else self.explorer.state_dict()
        return state if self.reward_scale is None else state | self.reward_scale.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved state."""
        self.core.load_state_dict(state)
        if self.explorer is not None:
            self.explorer.load_state_dict(state)
        if self.reward_scale is not None:
            self.reward_scale.load_state_dict(state)
