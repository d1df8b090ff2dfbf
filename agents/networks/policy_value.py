"""Networks, made from spaces: features of an observation, and towers of tanh layers with a linear head.

An observation becomes a few parts, each a vector [N, d] or indices [N, k]; the first layer of a tower adds up one
matrix product (or table look-up) a part, so one-hot vectors are never built. Images pass through convolutions that
all towers share.

Initialisation is orthogonal with gain sqrt(2) in hidden layers (PPO detail 2 of Huang et al. 2022); every draw comes
from the generator that is passed in.

Speed on the CPU: torch's vectorised ``tanh`` costs 165 ns for a row of 64, ``sigmoid`` 27 ns, a 64x64 product 88 ns.
As tanh(z) = 2 sigmoid(2 z) - 1, a large batch is computed with sigmoids and the factors are folded into the (small)
weight matrices; and the first weights are stored [in, out], since for thin inputs the gradient's product is 6 times as
fast that way round.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor, nn

from mlbits.agents.maths.action_distributions import ActionDistribution

_MOST_LOG_STD = 20.0  # an entropy bonus may drive it up for ever: beyond e^20 densities and KLs would overflow float32
_FOLD_FROM_ROWS = 64  # below this the folding costs more than it saves


def orthogonal(rows: int, columns: int, gain: float, generator: torch.Generator) -> Tensor:
    """A matrix [rows, columns] with orthonormal rows or columns, times ``gain``."""
    return nn.init.orthogonal_(torch.empty(rows, columns), gain, generator=generator)


class Features(nn.Module):
    """Turn observations into the parts that a tower's first layer takes.

    Args:
        space: Discrete, MultiDiscrete, Box, MultiBinary, or a flat Dict of those.
        generator: the source of initial weights.

    Attributes:
        widths: for each part, its vector's length, or the number of rows of its table.
        is_index: for each part, whether it holds indices into a table.
        entries: for each part, how many entries of its vector may be other than zero at once.
    """

    def __init__(self, space: gym.Space[Any], generator: torch.Generator) -> None:
        super().__init__()
        self.keys = list(space.keys()) if isinstance(space, spaces.Dict) else None
        parts = [space[key] for key in self.keys] if self.keys is not None else [space]  # type: ignore[index]
        self.parts = nn.ModuleList(_part(part, generator) for part in parts)
        self.widths = [int(part.width) for part in self.parts]  # type: ignore[arg-type]
        self.is_index = [isinstance(part, (_Index, _Indices)) for part in self.parts]
        self.entries = [int(part.entries) for part in self.parts]  # type: ignore[arg-type]

    def forward(self, obs: Any) -> list[Tensor]:
        """Parts for observations [N, ...] (a dict of those for a Dict space)."""
        values = [obs] if self.keys is None else [obs[key] for key in self.keys]
        return [part(value) for part, value in zip(self.parts, values, strict=True)]


def observation_kind(space: gym.Space[Any]) -> str:
    """What an observation is to an agent: "index", "indices", "vector", "image" or "dict"."""
    if isinstance(space, spaces.Dict):
        return "dict"
    if isinstance(space, (spaces.MultiDiscrete, spaces.MultiBinary)):
        return "indices"
    if isinstance(space, spaces.Box):
        return "image" if _is_image(space) else "vector"
    return "index"


def _part(space: gym.Space[Any], generator: torch.Generator) -> nn.Module:
    if isinstance(space, spaces.Discrete):
        return _Index(int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        return _Indices([int(n) for n in space.nvec.reshape(-1)])
    if isinstance(space, spaces.Box) and _is_image(space):
        return _Image(space, generator)
    assert space.shape is not None
    scale = (
        1.0 / 255.0 if isinstance(space, spaces.Box) and space.dtype == np.uint8 and space.high.max() == 255 else 1.0
    )
    return _Vector(math.prod(space.shape), scale)


def _is_image(space: spaces.Box) -> bool:
    # Grey ones of bytes have no axis of channels, or one of a frame or two.
    grey = space.dtype == np.uint8 and len(space.shape) in (2, 3) and min(space.shape[-2:]) >= 8
    return grey or (len(space.shape) == 3 and min(space.shape[:2]) >= 3)


class _Index(nn.Module):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.width, self.entries = n, 1

    def forward(self, obs: Tensor) -> Tensor:
        return obs.unsqueeze(-1)


class _Indices(nn.Module):
    offset: Tensor

    def __init__(self, nvec: list[int]) -> None:
        super().__init__()
        self.width, self.entries = sum(nvec), len(nvec)
        self.register_buffer("offset", torch.tensor([0, *nvec[:-1]], dtype=torch.int32).cumsum(0), persistent=False)

    def forward(self, obs: Tensor) -> Tensor:
        return obs.flatten(1) + self.offset.to(obs.dtype)


class _Vector(nn.Module):
    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self.width, self.entries, self.scale = width, width, scale

    def forward(self, obs: Tensor) -> Tensor:
        obs = obs.reshape(len(obs), -1).float()
        return obs if self.scale == 1.0 else obs * self.scale


class _Image(nn.Module):
    """Convolutions: those of Mnih et al. (2015) from 36 pixels a side on, else two of 3x3 (16 and 32)."""

    def __init__(self, space: spaces.Box, generator: torch.Generator) -> None:
        super().__init__()
        shape = space.shape if len(space.shape) == 3 else (1, *space.shape)
        self.channels_last = shape[2] in (1, 3, 4) and min(shape[:2]) > 4
        channels, height, width = (shape[2], shape[0], shape[1]) if self.channels_last else shape
        self.scale = 1.0 / 255.0 if space.dtype == np.uint8 and space.high.max() == 255 else 1.0
        if min(height, width) >= 36:
            layers = [(32, 8, 4, 0), (64, 4, 2, 0), (64, 3, 1, 0)]
        else:
            layers = [(16, 3, 1, 1), (32, 3, 2, 1)]
        self.convolutions = nn.ModuleList()
        for out, kernel, stride, padding in layers:
            # skip_init: torch's own initialisation would draw from the global generator
            layer = nn.utils.skip_init(nn.Conv2d, channels, out, kernel, stride, padding)
            weight = orthogonal(out, channels * kernel * kernel, math.sqrt(2), generator)
            layer.weight.data = weight.view(out, channels, kernel, kernel)
            layer.bias.data = torch.zeros(out)
            self.convolutions.append(layer)
            channels = out
            height, width = ((side + 2 * padding - kernel) // stride + 1 for side in (height, width))
        self.width = self.entries = channels * height * width

    def forward(self, obs: Tensor) -> Tensor:
        if obs.dim() == 3:
            obs = obs.unsqueeze(1)
        obs = obs.permute(0, 3, 1, 2) if self.channels_last else obs
        hidden = obs.float() * self.scale
        for layer in self.convolutions:
            hidden = F.relu(layer(hidden))
        return hidden.flatten(1)


class _FoldedTower(torch.autograd.Function):
    """All of a tower after its first product, with tanh(z) = 2 sigmoid(2 z) - 1 folded into the weights.

    With s = sigmoid(2 z), a layer is tanh = 2 s - 1, so the next one's 2 z is 4 s W + 2 (b - sum of W's rows). Written
    with its own backward pass: one node in place of a dozen, and each gradient's memory is used again.
    """

    @staticmethod
    def forward(ctx: Any, first: Tensor, *weights: Tensor) -> Tensor:
        """Outputs [N, out] from the doubled first pre-activation [N, h] and (W..., b..., head weight, head bias)."""
        layers = (len(weights) - 2) // 2
        inner, biases, head, head_bias = weights[:layers], weights[layers:-2], weights[-2], weights[-1]
        hidden = [torch.sigmoid(first)]
        for weight, bias in zip(inner, biases, strict=True):
            hidden.append(torch.addmm(2 * (bias - weight.sum(0)), hidden[-1], 4 * weight).sigmoid_())
        ctx.save_for_backward(*hidden, *inner, head)
        return F.linear(hidden[-1], 2 * head, head_bias - head.sum(1))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        """Gradients in the order of the arguments."""
        saved, grad = ctx.saved_tensors, grads[0]
        layers = len(saved) // 2 - 1
        hidden, inner, head = saved[: layers + 1], saved[layers + 1 : -1], saved[-1]
        head_bias = grad.sum(0)
        head_weight = (grad.t() @ hidden[-1]).mul_(2).sub_(head_bias[:, None])
        weights, biases = [], []
        back = grad @ (2 * head)
        for layer in range(layers - 1, -1, -1):
            torch.ops.aten.sigmoid_backward.grad_input(back, hidden[layer + 1], grad_input=back)
            bias = back.sum(0).mul_(2)
            weights.append((hidden[layer].t() @ back).mul_(4).sub_(bias))
            biases.append(bias)
            back = back @ (4 * inner[layer]).t()
        torch.ops.aten.sigmoid_backward.grad_input(back, hidden[0], grad_input=back)
        return (back, *reversed(weights), *reversed(biases), head_weight, head_bias)


class Tower(nn.Module):
    """Tanh layers and a linear head over the parts of an observation.

    Args:
        features: tells the parts' widths (its weights are not this tower's).
        hidden: widths of the hidden layers, at least one.
        out: width of the head.
        head_gain: gain of the head's initial weights.
        generator: the source of initial weights.
    """

    def __init__(
        self, features: Features, hidden: Sequence[int], out: int, head_gain: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        gain = math.sqrt(2)
        self.is_index = features.is_index
        total = sum(features.widths)
        # A table's rows are looked up one at a time, so each is scaled as a unit vector's image would be.
        stacked = orthogonal(total, hidden[0], gain, generator)
        self.first = nn.ParameterList(stacked.split(features.widths))
        sizes = list(hidden)
        inner = itertools.pairwise(sizes)
        self.weights = nn.ParameterList(orthogonal(a, b, gain, generator) for a, b in inner)
        self.biases = nn.ParameterList(torch.zeros(size) for size in sizes)
        self.head_weight = nn.Parameter(orthogonal(out, sizes[-1], head_gain, generator))
        self.head_bias = nn.Parameter(torch.zeros(out))
        # Plain tuples of the same parameters: looking them up through the module costs as much as a small product.
        self._tables = (*self.first,)
        self._first_bias, self._inner, self._inner_biases = self.biases[0], (*self.weights,), (*self.biases[1:],)
        self._after_first = (*self._inner, *self._inner_biases, self.head_weight, self.head_bias)

    def forward(self, parts: list[Tensor]) -> Tensor:
        """Outputs [N, out] for the parts of N observations."""
        if parts[0].device.type == "cpu" and len(parts[0]) >= _FOLD_FROM_ROWS:
            return _FoldedTower.apply(self._first(parts, 2.0), *self._after_first)  # type: ignore[no-untyped-call]
        hidden = torch.tanh(self._first(parts, 1.0))
        for weight, bias in zip(self._inner, self._inner_biases, strict=True):
            hidden = torch.tanh(torch.addmm(bias, hidden, weight))
        return F.linear(hidden, self.head_weight, self.head_bias)

    def _first(self, parts: list[Tensor], scale: float) -> Tensor:
        """The first layer's pre-activation [N, h], times ``scale``."""
        total: Tensor = self._first_bias if scale == 1.0 else scale * self._first_bias
        for part, table, is_index in zip(parts, self._tables, self.is_index, strict=True):
            weight = table if scale == 1.0 else scale * table
            if is_index:
                rows = F.embedding(part, weight)
                total = total + (rows.squeeze(1) if rows.shape[1] == 1 else rows.sum(1))
            else:
                total = torch.addmm(total, part, weight)
        return total


class ActorCritic(nn.Module):
    """A policy and a value function: two towers over shared features.

    Args:
        space: observation space of a seat.
        distribution: what the policy's numbers mean.
        hidden: widths of each tower's hidden layers.
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
        self.actor = Tower(self.features, hidden, size, 0.01, generator)
        self.critic = Tower(self.features, hidden, 1, 1.0, generator)
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
        """The distribution's parameters [N, size] from what the actor put out."""
        if self.log_std is None:
            return head
        log_std = self.log_std.clamp(-_MOST_LOG_STD, _MOST_LOG_STD)
        return torch.cat([head, log_std.expand_as(head)], -1)


class RunningMoments(nn.Module):
    """Running mean and variance of rows, merged batch by batch (Chan et al. 1979), kept in float64.

    Attributes:
        count: rows seen.
        mean: [d].
        var: [d].
    """

    count: Tensor
    mean: Tensor
    var: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(width, dtype=torch.float64))
        self.register_buffer("var", torch.ones(width, dtype=torch.float64))

    def update(self, rows: Tensor) -> None:
        """Take in rows [N, d]."""
        rows = rows.double()
        n, mean, var = float(len(rows)), rows.mean(0), rows.var(0, unbiased=False)
        total = self.count + n
        delta = mean - self.mean
        old = self.var * self.count if self.count > 0 else torch.zeros_like(self.var)
        self.var.copy_((old + var * n + delta**2 * self.count * n / total) / total)
        self.mean.add_(delta * n / total)
        self.count.copy_(total)

    def standardise(self, rows: Tensor, clip: float = 10.0) -> Tensor:
        """Rows with mean 0 and variance 1, clipped; unchanged before the first update."""
        scaled = (rows - self.mean.float()) / torch.sqrt(self.var.float() + 1e-8)
        return scaled.clamp(-clip, clip)
