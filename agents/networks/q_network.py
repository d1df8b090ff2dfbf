"""The network of value-based agents: Q of every action, or its return distribution; dueling heads are optional."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from mlbits.agents.networks.features import Features
from mlbits.agents.networks.mlp import MLP


class QNetwork(nn.Module):
    """Q of every action, or the atoms of its distribution.

    Args:
        space: observation space of a seat.
        num_actions: number of actions A.
        hidden: widths of the hidden layers.
        generator: the source of initial weights.
        atoms: numbers per action, K; 1 for plain Q.
        dueling: whether Q = V + advantage - mean advantage (Wang et al. 2016, equation 9).
    """

    def __init__(
        self,
        space: gym.Space[Any],
        num_actions: int,
        hidden: Sequence[int],
        generator: torch.Generator,
        *,
        atoms: int = 1,
        dueling: bool = False,
    ) -> None:
        super().__init__()
        self.num_actions, self.atoms, self.dueling = num_actions, atoms, dueling
        self.features = Features(space, generator)
        # With dueling, the outputs are first the advantages of all actions, then the value.
        self.mlp = MLP(self.features, hidden, (num_actions + dueling) * atoms, generator, activation="relu")

    def forward(self, obs: Any) -> Tensor:
        """[N, A], or [N, A, K] with atoms."""
        out = self.mlp.forward(self.features.forward(obs))  # __call__ would cost as much as a small product
        if self.dueling:
            out = out.view(-1, self.num_actions + 1, self.atoms)
            advantage, value = out[:, :-1], out[:, -1:]
            out = value + advantage - advantage.mean(1, keepdim=True)
        return out.view(-1, self.num_actions, self.atoms) if self.atoms > 1 else out.view(-1, self.num_actions)

    @property
    def is_plain(self) -> bool:
        """Whether this is only an MLP to plain Q: no atoms, dueling heads or convolutions."""
        return self.atoms == 1 and not self.dueling and not any(True for _ in self.features.parameters())
