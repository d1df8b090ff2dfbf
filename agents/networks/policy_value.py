"""The network of policy-gradient agents: a policy and a value function, two MLPs over shared features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from mlbits.agents.maths.action_distributions import ActionDistribution
from mlbits.agents.networks.features import Features
from mlbits.agents.networks.mlp import MLP

_MOST_LOG_STD = 20.0  # an entropy bonus may increase it without limit, and beyond e^20 KLs would overflow float32


class ActorCritic(nn.Module):
    """A policy and a value function: two MLPs over shared features.

    Args:
        space: observation space of a seat.
        distribution: the distribution over actions that the policy's outputs parametrise.
        hidden: widths of the hidden layers of each MLP.
        generator: the source of initial weights.
        log_std: initial log standard deviation, for continuous actions.
    """

    def __init__(
        self,
        space: gym.Space[Any],
        distribution: ActionDistribution,
        hidden: Sequence[int],
        generator: torch.Generator,
        log_std: float = 0.0,
    ) -> None:
        super().__init__()
        size = distribution.size // 2 if distribution.gaussian else distribution.size
        self.features = Features(space, generator)
        self.actor = MLP(self.features, hidden, size, generator, activation="tanh", head_gain=0.01)
        self.critic = MLP(self.features, hidden, 1, generator, activation="tanh")
        self.log_std = nn.Parameter(torch.full((size,), log_std)) if distribution.gaussian else None

    def policy(self, obs: Any) -> Tensor:
        """The distribution's parameters [N, size]."""
        return self.with_log_std(self.actor(self.features(obs)))

    def value(self, obs: Any) -> Tensor:
        """Values [N]."""
        return self.critic(self.features(obs)).squeeze(-1)

    def forward(self, obs: Any) -> tuple[Tensor, Tensor]:
        """Parameters [N, size] and values [N]."""
        parts = self.features(obs)
        return self.with_log_std(self.actor(parts)), self.critic(parts).squeeze(-1)

    def with_log_std(self, head: Tensor) -> Tensor:
        """The distribution's parameters [N, size] from the actor's output."""
        return with_log_std(head, self.log_std)


def with_log_std(head: Tensor, log_std: Tensor | None) -> Tensor:
    """A policy's output [N, k] with a log standard deviation [k] behind it, bounded; unchanged without one."""
    if log_std is None:
        return head
    return torch.cat([head, log_std.clamp(-_MOST_LOG_STD, _MOST_LOG_STD).expand_as(head)], -1)
