"""Running mean and variance of observations, for standardising them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


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
        """Update with rows [N, d]."""
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
