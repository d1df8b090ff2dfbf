"""Initial weights of networks, drawn from a given generator."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def orthogonal(rows: int, columns: int, gain: float, generator: torch.Generator) -> Tensor:
    """A matrix [rows, columns] with orthonormal rows or columns, times ``gain``."""
    return nn.init.orthogonal_(torch.empty(rows, columns), gain, generator=generator)


def uniform(rows: int, columns: int, fan_in: int, generator: torch.Generator) -> Tensor:
    """A matrix [rows, columns] drawn uniformly from +-1 / sqrt(fan_in)."""
    return torch.empty(rows, columns).uniform_(-1, 1, generator=generator).div_(math.sqrt(max(1, fan_in)))
