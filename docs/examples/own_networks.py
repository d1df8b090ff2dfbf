"""Networks of one's own: an encoder of observations, and a whole network for policy and value."""

from __future__ import annotations

import gymnasium as gym
import torch
from torch import Tensor, nn


def make_encoder(observation_space: gym.Space, generator: torch.Generator) -> nn.Module:
    """Features float32 [N, 32] of N observations, as the environment gives them (here vectors [N, k])."""
    (size,) = observation_space.shape
    return nn.Sequential(nn.Linear(size, 32), nn.LayerNorm(32), nn.ELU())


class PolicyAndValue(nn.Module):
    """Policy outputs float32 [N, outputs] (logits, or the means of continuous actions) and values [N]."""

    def __init__(self, observation_space: gym.Space, outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        (size,) = observation_space.shape
        self.body, self.policy, self.value = nn.Linear(size, 64), nn.Linear(64, outputs), nn.Linear(64, 1)

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Both, for N observations."""
        hidden = torch.tanh(self.body(obs))
        return self.policy(hidden), self.value(hidden).squeeze(1)
