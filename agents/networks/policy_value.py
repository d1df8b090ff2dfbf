"""The network of policy-gradient agents: a policy and a value function, two MLPs over shared features."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from mlbits.agents.maths.action_distributions import ActionDistribution
from mlbits.agents.networks.mlp import MLP, Activation
from mlbits.agents.networks.own import features_of, own_network

_HEAD_GAIN = 0.01  # of the policy's initial weights, so that all actions are nearly equally likely at first
_MOST_LOG_STD = 20.0  # an entropy bonus may increase it without limit, and beyond e^20 KLs would overflow float32


def _in_its_precision(method: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """A pass in which products are of bfloat16 numbers, if the module says so; its outputs are float32."""

    @functools.wraps(method)
    def run(self: Any, obs: Any) -> Any:
        if not self.in_bfloat16 or torch.is_autocast_enabled(self.device_type):
            return method(self, obs)
        with torch.autocast(self.device_type, torch.bfloat16):
            found = method(self, obs)
        return found.float() if isinstance(found, Tensor) else tuple(part.float() for part in found)

    return run


class _Precise(nn.Module):
    """A module whose passes may be of bfloat16 numbers.

    Attributes:
        in_bfloat16: whether they are.
    """

    in_bfloat16 = False

    @property
    def device_type(self) -> str:
        """Of its parameters."""
        return next(self.parameters()).device.type


class ActorCritic(_Precise):
    """A policy and a value function: two MLPs over shared features.

    Args:
        space: observation space of a seat.
        distribution: the distribution over actions that the policy's outputs parametrise.
        hidden: widths of the hidden layers of each MLP.
        generator: the source of initial weights.
        log_std: initial log standard deviation, for continuous actions.
        activation: of the hidden layers.
        encoder: the name of an encoder of one's own (:mod:`mlbits.agents.networks.own`), or "".
        shared: whether one MLP gives both, instead of two.
    """

    def __init__(
        self,
        space: gym.Space[Any],
        distribution: ActionDistribution,
        hidden: Sequence[int],
        generator: torch.Generator,
        log_std: float = 0.0,
        *,
        activation: Activation = "tanh",
        encoder: str = "",
        shared: bool = False,
    ) -> None:
        super().__init__()
        size = outputs_of(distribution)
        self.features = features_of(encoder, space, generator)
        how: dict[str, Any] = {"activation": activation, "initial": "orthogonal"}
        self.both: MLP | None = None
        if shared:
            self.both = MLP(self.features, hidden, size + 1, generator, **how)
            with torch.no_grad():
                self.both.head[:size] *= _HEAD_GAIN
        else:
            self.actor = MLP(self.features, hidden, size, generator, **how, head_gain=_HEAD_GAIN)
            self.critic = MLP(self.features, hidden, 1, generator, **how)
        self.log_std = nn.Parameter(torch.full((size,), log_std)) if distribution.gaussian else None

    @_in_its_precision
    def policy(self, obs: Any) -> Tensor:
        """The distribution's parameters [N, size]."""
        if self.both is not None:
            return self.forward(obs)[0]
        return self.with_log_std(self.actor(self.features(obs)))

    @_in_its_precision
    def value(self, obs: Any) -> Tensor:
        """Values [N]."""
        if self.both is not None:
            return self.forward(obs)[1]
        return self.critic(self.features(obs)).squeeze(-1)

    @_in_its_precision
    def forward(self, obs: Any) -> tuple[Tensor, Tensor]:
        """Parameters [N, size] and values [N]."""
        parts = self.features(obs)
        if self.both is not None:
            out = self.both(parts)
            return self.with_log_std(out[:, :-1]), out[:, -1]
        return self.with_log_std(self.actor(parts)), self.critic(parts).squeeze(-1)

    def with_log_std(self, head: Tensor) -> Tensor:
        """The distribution's parameters [N, size] from the actor's output."""
        return with_log_std(head, self.log_std)


class OwnActorCritic(_Precise):
    """A policy and a value function from one module of one's own.

    Args:
        space: observation space of a seat.
        distribution: the distribution over actions that the policy's outputs parametrise.
        model: the name of its factory (:mod:`mlbits.agents.networks.own`).
        generator: the source of initial weights.
        log_std: initial log standard deviation, for continuous actions.
    """

    def __init__(
        self,
        space: gym.Space[Any],
        distribution: ActionDistribution,
        model: str,
        generator: torch.Generator,
        log_std: float = 0.0,
    ) -> None:
        super().__init__()
        size = outputs_of(distribution)
        self.own = own_network(model, space, size, generator, values=True)
        self.log_std = nn.Parameter(torch.full((size,), log_std)) if distribution.gaussian else None

    @_in_its_precision
    def policy(self, obs: Any) -> Tensor:
        """The distribution's parameters [N, size]."""
        return self.forward(obs)[0]

    @_in_its_precision
    def value(self, obs: Any) -> Tensor:
        """Values [N]."""
        return self.forward(obs)[1]

    @_in_its_precision
    def forward(self, obs: Any) -> tuple[Tensor, Tensor]:
        """Parameters [N, size] and values [N]."""
        head, value = self.own(obs)
        return with_log_std(head, self.log_std), value


def outputs_of(distribution: ActionDistribution) -> int:
    """How many outputs of a network parametrise a distribution, log standard deviations apart."""
    return distribution.size // 2 if distribution.gaussian else distribution.size


def with_log_std(head: Tensor, log_std: Tensor | None) -> Tensor:
    """A policy's output [N, k] with a log standard deviation [k] behind it, bounded; unchanged without one."""
    if log_std is None:
        return head
    return torch.cat([head, log_std.clamp(-_MOST_LOG_STD, _MOST_LOG_STD).expand_as(head)], -1)
