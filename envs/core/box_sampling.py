"""Random continuous actions with the distribution of Gymnasium's ``Box.sample``, on any device.

A dimension bounded on both sides is uniform; an unbounded one is standard normal; one with a single bound is that bound
plus or minus an exponential draw of mean 1. For a Box of integers every integer has the same probability.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from mlbits.envs.core.spaces import action_layout


class BoxSampler:
    """Draws actions of a Box with one axis and computes their log density.

    Args:
        space: Box [k].
    """

    def __init__(self, space: gym.Space[Any]) -> None:
        layout = action_layout(space)
        self.low, self.high = torch.from_numpy(layout.low), torch.from_numpy(layout.high)
        self.integers = not np.issubdtype(np.dtype(space.dtype), np.floating)
        below, above = torch.isfinite(self.low), torch.isfinite(self.high)
        self._bounded, self._one_sided, self._free = below & above, below ^ above, ~(below | above)
        # Half-unit margins make rounded integers uniform; dimensions not bounded on both sides get 0 here.
        half = 0.5 if self.integers else 0.0
        self._bottom = torch.where(self._bounded, self.low - half, torch.zeros(()))
        self._top = torch.where(self._bounded, self.high + half, torch.zeros(()))
        self._bound = torch.where(below, self.low, self.high)
        self._sign = torch.where(below, 1.0, -1.0)

    def sample(self, lead: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Actions float32 [*lead, k], on the generator's device."""
        shape, device = (*lead, len(self.low)), generator.device
        unit = torch.rand(shape, generator=generator, device=device)
        bottom, top, low, high = (part.to(device) for part in (self._bottom, self._top, self.low, self.high))
        width = top - bottom
        # top - bottom can overflow float32 although both bounds are finite.
        drawn = torch.where(torch.isfinite(width), bottom + unit * width, bottom * (1 - unit) + top * unit)
        if bool(self._one_sided.any()):
            away = torch.empty(shape, device=device).exponential_(generator=generator)
            beside = self._bound.to(device) + self._sign.to(device) * away
            drawn = torch.where(self._one_sided.to(device), beside, drawn)
        if bool(self._free.any()):
            normal = torch.empty(shape, device=device).normal_(generator=generator)
            drawn = torch.where(self._free.to(device), normal, drawn)
        if self.integers:
            drawn = drawn.round()
        return torch.minimum(torch.maximum(drawn, low), high)

    def log_prob(self, action: Tensor) -> Tensor:
        """Log density of actions [..., k] drawn here (log probability for integers), float32 [...]."""
        parts = (self._bounded, self._one_sided, self._bound, self._top, self._bottom)
        bounded, one_sided, bound, top, bottom = (part.to(action.device) for part in parts)
        uniform = -torch.log((top.double() - bottom.double()).clamp_min(torch.finfo(torch.float32).tiny))
        exponential = -(action - torch.where(one_sided, bound, 0)).abs().double()
        normal = -0.5 * action.double() ** 2 - 0.5 * math.log(2 * math.pi)
        each = torch.where(bounded, uniform, torch.where(one_sided, exponential, normal))
        return each.sum(-1).float()
