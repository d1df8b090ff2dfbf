"""Published encoders of pictures, by name: ``--agent.encoder drq``.

    drq    four convolutions of 3x3 with 32 filters, the first with stride 2; a linear layer to 50, layer normalisation
           and tanh (Yarats et al. 2021, appendix; as in SAC-AE, Yarats et al. 2020)
    small  the same with stride 2 in all four, for pictures of 24 to 64 pixels on a CPU: a tenth of the work
    mnih   three convolutions, 32 of 8x8, 64 of 4x4 and 64 of 3x3, strides 4, 2 and 1, and a linear layer to 512 (Mnih
           et al. 2015)

Weights of convolutions and linear layers are orthogonal, as in DrQ. Pictures are bytes or numbers from 0 to 255, with
channels or frames first or last, or none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor, nn

from mlbits.agents.agent import AgentError
from mlbits.agents.networks.features import image_channels
from mlbits.agents.networks.initial_weights import orthogonal

PUBLISHED = {name: f"{__name__}:{name}" for name in ("drq", "small", "mnih")}


def drq(observation_space: gym.Space[Any], generator: torch.Generator) -> nn.Module:
    """DrQ's encoder; see the module's docstring."""
    return Pictures("drq", observation_space, [(32, 3, 2), *[(32, 3, 1)] * 3], 50, generator, normalised=True)


def small(observation_space: gym.Space[Any], generator: torch.Generator) -> nn.Module:
    """DrQ's encoder with more stride."""
    return Pictures("small", observation_space, [(32, 3, 2)] * 4, 50, generator, normalised=True, padding=1)


def mnih(observation_space: gym.Space[Any], generator: torch.Generator) -> nn.Module:
    """The encoder of Mnih et al. (2015)."""
    return Pictures("mnih", observation_space, [(32, 8, 4), (64, 4, 2), (64, 3, 1)], 512, generator)


class Pictures(nn.Module):
    """Convolutions and a linear layer.

    Args:
        name: for messages.
        space: of one picture.
        layers: filters, side of the kernel and stride of each convolution.
        out: width of the features.
        generator: the source of initial weights.
        normalised: whether features are normalised and bent by tanh, instead of a ReLU.
        padding: of each convolution.

    Raises:
        AgentError: for observations that are no pictures, or pictures that are too small.
    """

    def __init__(
        self,
        name: str,
        space: gym.Space[Any],
        layers: Sequence[tuple[int, int, int]],
        out: int,
        generator: torch.Generator,
        *,
        normalised: bool = False,
        padding: int = 0,
    ) -> None:
        super().__init__()
        channels, axis = image_channels(space) if isinstance(space, spaces.Box) else (0, None)
        if channels == 0:
            raise AgentError(f"encoder: {name} reads pictures; got the observation space {space}")
        own: tuple[int, ...] = space.shape or ()
        shape = (1, *own) if axis is None else own
        self.last = axis == 2
        height, width = shape[:2] if self.last else shape[1:]
        sides, self._scale = (height, width), 1 / 255
        self._bytes = space.dtype == np.uint8 or bool(np.asarray(space.high).max() > 1)  # type: ignore[attr-defined]
        self.convolutions = nn.ModuleList()
        for filters, kernel, stride in layers:
            if min(height, width) + 2 * padding < kernel:
                raise AgentError(
                    f"encoder: {name} has no output for pictures of {sides[0]}x{sides[1]}; wanted larger ones"
                )
            layer = nn.utils.skip_init(nn.Conv2d, channels, filters, kernel, stride, padding)
            weight = orthogonal(filters, channels * kernel * kernel, math.sqrt(2), generator)
            layer.weight.data = weight.view(filters, channels, kernel, kernel)
            layer.bias.data = torch.zeros(filters)
            self.convolutions.append(layer)
            channels = filters
            height, width = ((side + 2 * padding - kernel) // stride + 1 for side in (height, width))
        self.linear = nn.utils.skip_init(nn.Linear, channels * height * width, out)
        self.linear.weight.data = orthogonal(out, channels * height * width, 1.0, generator)
        self.linear.bias.data = torch.zeros(out)
        self.norm = nn.LayerNorm(out) if normalised else None

    def forward(self, obs: Tensor) -> Tensor:
        """Features float32 [N, out]."""
        obs = obs.permute(0, 3, 1, 2) if self.last else obs.unsqueeze(1) if obs.dim() == 3 else obs
        hidden = obs.float() * self._scale - 0.5 if self._bytes else obs.float()
        for layer in self.convolutions:
            hidden = F.relu(layer(hidden))
        hidden = self.linear(hidden.flatten(1))
        return F.relu(hidden) if self.norm is None else torch.tanh(self.norm(hidden))
