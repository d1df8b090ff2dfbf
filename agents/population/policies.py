"""Deterministic policies of one form for an environment's spaces: N of them decide in one batch, each by its weights.

Discrete actions are the most probable legal ones; continuous ones are tanh outputs, scaled to the space's bounds. A
policy's behaviour in a state, for comparing policies, is its action in [-1, 1], or its probabilities of discrete
actions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from mlbits.agents import kernels
from mlbits.agents.agent import AgentError
from mlbits.agents.kernels.stacked_mlp_kernel import PackedMLPs
from mlbits.agents.maths.action_distributions import DiagonalGaussian, distribution_for
from mlbits.agents.networks.features import Features
from mlbits.agents.population.stacked_mlp import Activation, StackedMLP
from mlbits.envs.core.spaces import action_layout

Decide = Callable[[Any, Tensor | None], Tensor]


class Policies:
    """The form of a policy: an MLP over an observation of indices and vectors, with an output for each action.

    Args:
        observation_space: one seat's, without images.
        action_space: one seat's.
        hidden: widths of the hidden layers.
        activation: of the hidden layers.

    Attributes:
        mlp: the form of its network.
        size: number of a policy's weights, D.
        continuous: whether actions are continuous.

    Raises:
        AgentError: for images, or continuous actions without bounds.
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        hidden: Sequence[int],
        activation: Activation,
    ) -> None:
        self.features = Features(observation_space, torch.Generator())
        if next(self.features.parameters(), None) is not None:
            raise AgentError(
                f"observation space: got {observation_space}, images; wanted vectors or indices, whose networks are "
                "small enough to have many of them. Agents for images: ppo, dqn, ddpg"
            )
        layout = action_layout(action_space)
        self.continuous = layout.kind == "continuous"
        if self.continuous:
            if not (np.isfinite(layout.low).all() and np.isfinite(layout.high).all()):
                raise AgentError(f"action space: got {action_space}; wanted one with bounds, to which tanh is scaled")
            box = DiagonalGaussian(layout.low, layout.high)
            self._bounds: tuple[Tensor, ...] = box.center, box.scale, box.low, box.high
        outputs = len(layout.low) if self.continuous else sum(layout.nvec)
        self._nvec = layout.nvec
        self._distribution = distribution_for(action_space)
        self.mlp = StackedMLP((sum(self.features.widths), *hidden, outputs), activation)
        self.size = self.mlp.size
        self._one_vector = self.features.is_index == [False] and self.features.keys is None

    def initial(self, generator: torch.Generator) -> Tensor:
        """Initial weights of one policy, [D]; discrete actions start nearly equally probable."""
        return self.mlp.initial(generator, head_gain=0.1)

    def outputs(self, weights: Tensor, obs: Any) -> Tensor:
        """Each policy's outputs for E observations of its own, [N, E, out].

        Args:
            weights: of N policies, [N, D].
            obs: [N * E, ...], policy by policy, or a dict of such tensors.
        """
        inputs = self.inputs(obs)
        return self.mlp.outputs(weights, inputs.view(len(weights), -1, inputs.shape[-1]))

    def behaviour(self, weights: Tensor, states: Tensor) -> Tensor:
        """What each policy does in the same n states, [N, n, k].

        Args:
            weights: of N policies, [N, D].
            states: observations as :meth:`inputs` gives them, [n, in].
        """
        out = self.mlp.outputs(weights, states)
        if self.continuous:
            return torch.tanh(out)
        return torch.cat([part.softmax(-1) for part in out.split(self._nvec, -1)], -1)

    def actions(self, outputs: Tensor, legal_mask: Tensor | None) -> Tensor:
        """The environment's actions, [R] or [R, k].

        Args:
            outputs: [R, out], after tanh if actions are continuous.
            legal_mask: bool [R, A], or None.
        """
        if not self.continuous:
            return self._distribution.mode(outputs, legal_mask)
        if self._bounds[0].device != outputs.device:
            self._bounds = tuple(bound.to(outputs.device) for bound in self._bounds)
        center, scale, low, high = self._bounds
        return torch.addcmul(center, outputs, scale).clamp_(low, high)

    def action_probabilities(self, weights: Tensor, obs: Any, legal_mask: Tensor | None) -> Tensor:
        """Of one policy [1, D], the probability of each discrete action: 1 for the one it plays, float64 [R, A].

        Raises:
            AgentError: if actions are not Discrete.
        """
        if self.continuous or len(self._nvec) != 1:
            raise AgentError("action_probabilities: got actions that are not Discrete; wanted Discrete ones")
        action = self.decide(weights, obs, legal_mask)
        hot = torch.zeros(action.shape[0], self._nvec[0], dtype=torch.float64, device=action.device)
        return hot.scatter_(1, action[:, None], 1.0)

    def deciding(self, weights: Tensor, each: int = 1) -> Decide:
        """A function from N * ``each`` rows of observations and masks to actions, for many steps by the same weights.

        Args:
            weights: of N policies, [N, D].
            each: rows of each policy, one after another.
        """
        if kernels.enabled() and weights.device.type == "cpu" and self._one_vector:
            packed = PackedMLPs(
                self.mlp.widths, self.mlp.activation == "relu", self.continuous,
                weights.repeat_interleave(each, 0) if each > 1 else weights,
            )  # fmt: skip
            return lambda obs, mask: self.actions(packed(self.inputs(obs)), mask)
        return lambda obs, mask: self.decide(weights, obs, mask)

    def decide(self, weights: Tensor, obs: Any, mask: Tensor | None) -> Tensor:
        """The environment's actions, [N * E] or [N * E, k], for E rows of each of N policies, policy by policy."""
        out = self.outputs(weights, obs).flatten(0, 1)
        return self.actions(torch.tanh(out) if self.continuous else out, mask)

    def inputs(self, obs: Any) -> Tensor:
        """Observations as vectors, float32 [R, in]; indices as ones among zeros."""
        parts = self.features.forward(obs)
        vectors = []
        for part, is_index, width in zip(parts, self.features.is_index, self.features.widths, strict=True):
            if not is_index:
                vectors.append(part)
                continue
            # The shape, not the length, which tracing takes for a constant.
            hot = torch.zeros(part.shape[0], width, device=part.device)
            vectors.append(hot.scatter_(1, part.long(), 1.0))
        return torch.cat(vectors, 1) if len(vectors) > 1 else vectors[0]
