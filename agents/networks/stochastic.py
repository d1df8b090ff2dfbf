"""The network of a stochastic policy: the parameters of an action distribution, from observations."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mlbits.agents.networks.deterministic import Actor
from mlbits.agents.networks.mlp import Precision


class StochasticActor(Actor):
    """An :class:`~mlbits.agents.networks.deterministic.Actor` whose ``action_size`` outputs are not bounded."""

    def forward(self, obs: Any, precision: Precision = "float32") -> Tensor:
        """Parameters of N distributions, [N, action_size]."""
        features, mlp = self._both
        return mlp.forward(features.forward(obs), precision)
