"""Actor and critics for continuous control: a = mu(s) in [-1, 1], and Q(s, a) with the action as input of layer one.

For image observations the actor and the critics have separate convolutions; two critics share theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from mlbits.agents.networks.mlp import MLP, Activation, Precision
from mlbits.agents.networks.own import AnyFeatures, features_of


class Actor(nn.Module):
    """A deterministic policy.

    Args:
        space: observation space of a seat.
        action_size: number of action dimensions, k.
        hidden: widths of the hidden layers.
        generator: the source of initial weights.
        activation: of the hidden layers.
        encoder: the name of an encoder of one's own (:mod:`mlbits.agents.networks.own`), or "".
    """

    def __init__(
        self,
        space: gym.Space[Any],
        action_size: int,
        hidden: Sequence[int],
        generator: torch.Generator,
        *,
        activation: Activation = "relu",
        encoder: str = "",
    ) -> None:
        super().__init__()
        self.features = features_of(encoder, space, generator)
        self.mlp = MLP(self.features, hidden, action_size, generator, activation=activation, initial="uniform")
        self._both = self.features, self.mlp  # faster to access than a module's attributes

    def forward(self, obs: Any, precision: Precision = "float32") -> Tensor:
        """Actions in [-1, 1], [N, k]."""
        features, mlp = self._both
        return torch.tanh(mlp.forward(features.forward(obs), precision))


class Critics(nn.Module):
    """One or two critics Q(s, a).

    Args:
        space: observation space of a seat.
        action_size: number of action dimensions, k.
        hidden: widths of the hidden layers.
        generator: the source of initial weights.
        count: how many critics.
        atoms: number of outputs of each; 1 for plain Q.
        activation: of the hidden layers.
        encoder: the name of an encoder of one's own, or "".
    """

    def __init__(
        self,
        space: gym.Space[Any],
        action_size: int,
        hidden: Sequence[int],
        generator: torch.Generator,
        *,
        count: int = 1,
        atoms: int = 1,
        activation: Activation = "relu",
        encoder: str = "",
    ) -> None:
        super().__init__()
        self.features = features_of(encoder, space, generator, extra=action_size)
        self.mlps = nn.ModuleList(
            MLP(self.features, hidden, atoms, generator, activation=activation, initial="uniform") for _ in range(count)
        )
        self._both: tuple[AnyFeatures, list[MLP]] = self.features, [*self.mlps]

    def forward(self, obs: Any, action: Tensor | None, precision: Precision = "float32") -> list[Tensor]:
        """Each critic's output, [N, atoms]; without an action for critics of ``action_size`` 0."""
        features, mlps = self._both
        parts = features.forward(obs, action)
        return [mlp.forward(parts, precision) for mlp in mlps]

    def first(self, obs: Any, action: Tensor, precision: Precision = "float32") -> Tensor:
        """The first critic's output, [N, atoms]."""
        features, mlps = self._both
        return mlps[0].forward(features.forward(obs, action), precision)
