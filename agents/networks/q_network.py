"""The network of value-based agents: Q of every action, or its return distribution; dueling heads are optional."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from mlbits.agents.networks.features import Features
from mlbits.agents.networks.mlp import MLP, Activation
from mlbits.agents.networks.own import features_of, own_network


class QNetwork(nn.Module):
    """Q of every action, or the atoms of its distribution.

    Args:
        space: observation space of a seat.
        num_actions: number of actions A.
        hidden: widths of the hidden layers.
        generator: the source of initial weights.
        atoms: numbers per action, K; 1 for plain Q.
        dueling: whether Q = V + advantage - mean advantage (Wang et al. 2016, equation 9).
        activation: of the hidden layers.
        encoder: the name of an encoder of one's own (:mod:`mlbits.agents.networks.own`), or "".
        model: the name of a whole network of one's own, [N, A * K], or "".
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
        activation: Activation = "relu",
        encoder: str = "",
        model: str = "",
    ) -> None:
        super().__init__()
        self.num_actions, self.atoms, self.dueling = num_actions, atoms, dueling
        self.own = own_network(model, space, num_actions * atoms, generator, values=False) if model else None
        if self.own is not None:
            return
        self.features = features_of(encoder, space, generator)
        # With dueling, the outputs are first the advantages of all actions, then the value.
        self.mlp = MLP(
            self.features, hidden, (num_actions + dueling) * atoms, generator, activation=activation, initial="uniform"
        )

    def forward(self, obs: Any) -> Tensor:
        """[N, A], or [N, A, K] with atoms."""
        if self.own is not None:
            out: Tensor = self.own(obs)
            return out.view(-1, self.num_actions, self.atoms) if self.atoms > 1 else out
        out = self.mlp.forward(self.features.forward(obs))  # __call__ would cost as much as a small product
        if self.dueling:
            out = out.view(-1, self.num_actions + 1, self.atoms)
            advantage, value = out[:, :-1], out[:, -1:]
            out = value + advantage - advantage.mean(1, keepdim=True)
        return out.view(-1, self.num_actions, self.atoms) if self.atoms > 1 else out.view(-1, self.num_actions)

    @property
    def is_plain(self) -> bool:
        """Whether this is only a ReLU MLP to plain Q: no atoms, dueling heads, convolutions or encoder."""
        if self.own is not None or not isinstance(self.features, Features) or self.mlp.activation != "relu":
            return False
        return self.atoms == 1 and not self.dueling and not any(True for _ in self.features.parameters())
