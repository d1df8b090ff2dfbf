"""Features: convert observations of any space to the inputs of an MLP's first layer.

All indices of an observation are joined into one part (rows to look up in the first layer's table) and all its vectors
into another, so that the first layer is one look-up and one matrix product. Images pass through convolutions, which all
MLPs of a network share.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor, nn

from mlbits.agents.networks.initial_weights import orthogonal


class Features(nn.Module):
    """Convert observations to the input parts of an MLP's first layer: indices, a vector, or both.

    Args:
        space: Discrete, MultiDiscrete, Box, MultiBinary, or a flat Dict of those.
        generator: the source of initial weights.
        extra: width of an additional vector, appended to the observation's (the action, for a critic).

    Attributes:
        is_index: for each part, whether it holds indices into a table.
        widths: for each part, the number of rows of its table, or its vector's length.
        fan_in: how many inputs can be non-zero at once.
    """

    def __init__(self, space: gym.Space[Any], generator: torch.Generator, extra: int = 0) -> None:
        super().__init__()
        self.keys = list(space.keys()) if isinstance(space, spaces.Dict) else None
        parts = [space[key] for key in self.keys] if self.keys is not None else [space]  # type: ignore[index]
        self.parts = nn.ModuleList(_part(part, generator) for part in parts)
        # A plain tuple of the same modules, which is faster to iterate over.
        self._parts: Any = (*self.parts,)
        indices = [part for part in self._parts if isinstance(part, _Indices)]
        vectors = [part.width for part in self._parts if not isinstance(part, _Indices)] + ([extra] if extra else [])
        rows = 0
        for part in indices:
            rows = part.start_at(rows)
        self.is_index = [True] * bool(indices) + [False] * bool(vectors)
        self.widths = [rows] * bool(indices) + [sum(vectors)] * bool(vectors)
        self.fan_in = sum(part.entries for part in indices) + sum(vectors)

    def forward(self, obs: Any, extra: Tensor | None = None) -> list[Tensor]:
        """Input parts for N observations: indices [N, k], a vector [N, d], or both.

        Args:
            obs: [N, ...], or a dict of such tensors for a Dict space.
            extra: the additional vector, [N, extra].
        """
        if self.keys is None and extra is None:
            return [self._parts[0].forward(obs)]
        values = [obs] if self.keys is None else [obs[key] for key in self.keys]
        indices: list[Tensor] = []
        vectors: list[Tensor] = []
        for part, value in zip(self._parts, values, strict=True):
            (indices if isinstance(part, _Indices) else vectors).append(part.forward(value))
        if extra is not None:
            vectors.append(extra)
        return [torch.cat(part, 1) if len(part) > 1 else part[0] for part in (indices, vectors) if part]


def observation_kind(space: gym.Space[Any]) -> str:
    """The kind of an observation space: "index", "indices", "vector", "image" or "dict"."""
    if isinstance(space, spaces.Dict):
        return "dict"
    if isinstance(space, (spaces.MultiDiscrete, spaces.MultiBinary)):
        return "indices"
    if isinstance(space, spaces.Box):
        return "image" if _is_image(space) else "vector"
    return "index"


def _part(space: gym.Space[Any], generator: torch.Generator) -> nn.Module:
    if isinstance(space, spaces.Discrete):
        return _Indices([int(space.n)])
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
    # Greyscale images of bytes may have no channel axis, or a first or last axis of a few frames.
    grey = space.dtype == np.uint8 and len(space.shape) in (2, 3) and min(space.shape[-2:]) >= 8
    return grey or (len(space.shape) == 3 and min(space.shape[:2]) >= 3)


def image_channels(space: spaces.Box) -> tuple[int, int | None]:
    """How many channels the images of a space have, 0 if they are none; and their axis, None if there is none."""
    if not _is_image(space):
        return 0, None
    if len(space.shape) == 2:
        return 1, None
    axis = 2 if _is_channels_last(space.shape) else 0
    return space.shape[axis], axis


def _is_channels_last(shape: tuple[int, ...]) -> bool:
    return shape[2] in (1, 3, 4) and min(shape[:2]) > 4


class _Indices(nn.Module):
    """Indices, each with its own range of rows in a table."""

    offset: Tensor

    def __init__(self, nvec: list[int]) -> None:
        super().__init__()
        self.nvec, self.entries = nvec, len(nvec)

    def start_at(self, row: int) -> int:
        """Reserve the table's rows from ``row`` on; returns the first row after them."""
        starts = torch.tensor([row, *self.nvec[:-1]]).cumsum(0)
        self.register_buffer("offset", starts.to(torch.int32), persistent=False)
        self._moves = bool(starts.any())
        return row + sum(self.nvec)

    def forward(self, obs: Tensor) -> Tensor:
        indices = obs.view(obs.shape[0], self.entries)
        return indices + self.offset if self._moves else indices


def _is_bytes(obs: Tensor) -> bool:
    """Whether bytes are as they were observed, and not standardised."""
    return obs.dtype == torch.uint8


class _Vector(nn.Module):
    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self.width, self.scale = width, scale

    def forward(self, obs: Tensor) -> Tensor:
        flat = obs.float() if obs.dim() == 2 else obs.reshape(obs.shape[0], -1).float()
        return flat * self.scale if self.scale != 1.0 and _is_bytes(obs) else flat


class _Image(nn.Module):
    """Convolutions: those of Mnih et al. (2015) if both sides have 36 pixels or more, else two of 3x3 (16 and 32)."""

    def __init__(self, space: spaces.Box, generator: torch.Generator) -> None:
        super().__init__()
        shape = space.shape if len(space.shape) == 3 else (1, *space.shape)
        self.channels_last = _is_channels_last(shape)
        channels, height, width = (shape[2], shape[0], shape[1]) if self.channels_last else shape
        self.scale = 1.0 / 255.0 if space.dtype == np.uint8 and space.high.max() == 255 else 1.0
        if min(height, width) >= 36:
            layers = [(32, 8, 4, 0), (64, 4, 2, 0), (64, 3, 1, 0)]
        else:
            layers = [(16, 3, 1, 1), (32, 3, 2, 1)]
        self.convolutions = nn.ModuleList()
        for out, kernel, stride, padding in layers:
            # skip_init, because torch's own initialisation would draw from the global generator.
            layer = nn.utils.skip_init(nn.Conv2d, channels, out, kernel, stride, padding)
            weight = orthogonal(out, channels * kernel * kernel, math.sqrt(2), generator)
            layer.weight.data = weight.view(out, channels, kernel, kernel)
            layer.bias.data = torch.zeros(out)
            self.convolutions.append(layer)
            channels = out
            height, width = ((side + 2 * padding - kernel) // stride + 1 for side in (height, width))
        self.width = channels * height * width

    def forward(self, obs: Tensor) -> Tensor:
        if obs.dim() == 3:
            obs = obs.unsqueeze(1)
        obs = obs.permute(0, 3, 1, 2) if self.channels_last else obs
        hidden = obs.float() * self.scale if _is_bytes(obs) else obs.float()
        for layer in self.convolutions:
            hidden = F.relu(layer(hidden))
        return hidden.flatten(1)
