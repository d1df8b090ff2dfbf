"""Running mean and variance of observations, for standardising them: (x - mean) / standard deviation, clipped.

A vector has a mean and a variance for each entry, an image for each channel (all pixels of a channel together), and a
Dict for each of its vectors and images; its indices, which are looked up in tables, stay as they are. Batches are
merged by Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979),
in float64: the moments are those of all rows so far, in whatever parts they came.

An entry that never changes becomes 0, since its deviation is that of its mean; results are at most ``CLIP`` in size.
Standardised images are floats, which networks take as they are: only bytes are scaled to 0..1 (``features``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from mlbits.agents.agent import AgentError
from mlbits.agents.kernels import shards
from mlbits.agents.networks.features import image_channels

CLIP = 10.0
_EPSILON = 1e-8
_AT_ONCE = 1 << 20  # numbers that are converted to float64 together


class RunningMoments(nn.Module):
    """Running mean and variance of observations [N, ...], kept in float64.

    Args:
        width: how many entries or channels have moments of their own, d.
        shape: of the moments as they are subtracted from observations; (d,) without it.
        channel_axis: which axis of observations [N, ...] holds the d channels; None if they have no such axis.
        deviation: standard deviation that is taken before the first update.

    Attributes:
        count: rows seen; of an image each pixel is one.
        mean: [d].
        var: [d].
    """

    count: Tensor
    mean: Tensor
    var: Tensor

    def __init__(
        self,
        width: int,
        shape: tuple[int, ...] | None = None,
        *,
        channel_axis: int | None = None,
        deviation: float = 1.0,
    ) -> None:
        super().__init__()
        self._shape, self._channel_axis = (width,) if shape is None else shape, channel_axis
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(width, dtype=torch.float64))
        self.register_buffer("var", torch.full((width,), deviation**2, dtype=torch.float64))
        self._float: tuple[Tensor, Tensor] | None = None  # mean and deviation as they are used; None if out of date

    def update(self, obs: Tensor) -> None:
        """Update with observations [N, ...]; rows with numbers that are not finite are left out."""
        rows = self._rows(obs)
        step = max(1, _AT_ONCE // rows.shape[1])
        if shards.number() == 1:
            for start in range(0, len(rows), step):
                self._merge(rows[start : start + step].double())
        else:
            own = RunningMoments(len(self.mean)).to(rows.device)
            for start in range(0, len(rows), step):
                own._merge(rows[start : start + step].double())
            for part in shards.gather(torch.cat([own.mean, own.var, own.count[None]])).unbind():
                self._combine(part[: len(self.mean)], part[len(self.mean) : -1], part[-1])
        self._float = None

    def _rows(self, obs: Tensor) -> Tensor:
        """Observations [N, ...] as rows [M, d]."""
        if self._channel_axis is not None:
            obs = obs.movedim(self._channel_axis, -1)
        return obs.reshape(-1, len(self.mean))

    def _merge(self, rows: Tensor) -> None:
        """Merge the moments of float64 rows [M, d] into those so far."""
        n: float | Tensor
        if rows.is_cpu:
            mean, var = rows.mean(0), rows.var(0, unbiased=False)
            if not bool((mean + var).isfinite().all()):
                rows = rows[rows.isfinite().all(1)]
                if len(rows) == 0:
                    return
                mean, var = rows.mean(0), rows.var(0, unbiased=False)
            n = float(len(rows))
        else:
            mean, var, n = _moments_of_finite(rows)
        self._combine(mean, var, n)

    def _combine(self, mean: Tensor, var: Tensor, n: float | Tensor) -> None:
        """Merge the mean [d] and variance [d] of n other rows into those so far."""
        total = (self.count + n).clamp_(min=1)
        delta = mean - self.mean
        old = self.var * self.count
        self.var.copy_((old + var * n + delta**2 * self.count * n / total) / total)
        self.mean.add_(delta * n / total)
        self.count.copy_(total)

    def standardise(self, obs: Tensor, clip: float = CLIP) -> Tensor:
        """Observations with mean 0 and variance 1, clipped, float32; before the first update, only clipped.

        Bytes are then scaled to 0..1.
        """
        if self._float is None:
            mean, deviation = self.mean.float(), torch.sqrt(self.var.float() + _EPSILON)
            self._float = mean.view(self._shape), deviation.view(self._shape)
        mean, deviation = self._float
        return ((obs - mean) / deviation).clamp_(-clip, clip).float()

    def move(self, start: RunningMoments, end: RunningMoments, share: float) -> None:
        """Become the moments a fraction ``share`` of the way between two, with the count of the second."""
        self.mean.copy_(torch.lerp(start.mean, end.mean, share))
        self.var.copy_(torch.lerp(start.var, end.var, share))
        self.count.copy_(end.count)
        self._float = None

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._float = None

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self._float = None  # the buffers move to another device
        return super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]


def _moments_of_finite(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, variance and number of the rows [M, d] that are finite, without asking a GPU whether all are."""
    fit = rows.isfinite().all(1, keepdim=True)
    n = fit.sum().double()
    mean = torch.where(fit, rows, 0.0).sum(0) / n.clamp(min=1)
    var = torch.where(fit, rows - mean, 0.0).square().sum(0) / n.clamp(min=1)
    return mean, var, n


class DictMoments(nn.Module):
    """The running moments of the vectors and images of a Dict.

    Args:
        space: of which the Box parts get moments.
    """

    def __init__(self, space: spaces.Dict) -> None:
        super().__init__()
        self.keys = [key for key, part in space.items() if isinstance(part, spaces.Box)]
        self.parts = nn.ModuleList(_box_moments(space[key]) for key in self.keys)  # type: ignore[arg-type]

    def _named(self) -> Iterator[tuple[str, Any]]:
        return zip(self.keys, self.parts, strict=True)

    def update(self, obs: dict[str, Tensor]) -> None:
        """Update with observations [N, ...] by name."""
        for key, part in self._named():
            part.update(obs[key])

    def standardise(self, obs: dict[str, Tensor], clip: float = CLIP) -> dict[str, Tensor]:
        """Observations whose vectors and images are standardised."""
        return obs | {key: part.standardise(obs[key], clip) for key, part in self._named()}

    def move(self, start: DictMoments, end: DictMoments, share: float) -> None:
        """See :meth:`RunningMoments.move`."""
        for mine, one, other in zip(self.parts, start.parts, end.parts, strict=True):
            mine.move(one, other, share)  # type: ignore[operator]


Moments = RunningMoments | DictMoments


def moments_of(space: gym.Space[Any]) -> Moments:
    """The running moments for observations of a space.

    Raises:
        AgentError: if the space has no numbers: indices are looked up, and have no scale.
    """
    if isinstance(space, spaces.Box):
        return _box_moments(space)
    if isinstance(space, spaces.Dict) and any(isinstance(part, spaces.Box) for part in space.values()):
        return DictMoments(space)
    raise AgentError(
        f"normalize_obs: got the observation space {space}; wanted vectors or images (Box), or a Dict with some"
    )


def _box_moments(space: spaces.Box) -> RunningMoments:
    channels, axis = image_channels(space)
    deviation = 255.0 if space.dtype == np.uint8 and space.high.max() == 255 else 1.0
    if channels == 0:
        return RunningMoments(math.prod(space.shape), space.shape, deviation=deviation)
    if axis is None:  # greyscale, without an axis of channels
        return RunningMoments(1, (1, 1), deviation=deviation)
    sides = [1] * len(space.shape)
    sides[axis] = channels
    return RunningMoments(channels, tuple(sides), channel_axis=axis + 1, deviation=deviation)
