"""W-MSE: representations learned from pairs that belong together, kept apart by whitening.

Ermolov, Siarohin, Sangineto and Sebe, "Whitening for self-supervised representation learning" (2021): the mean squared
difference of the pairs' whitened codes. Whitened codes have the identity as covariance, so that they cannot all be the
same, which would otherwise be the best; no negative pairs are needed. Whitening is part of the loss only.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-4  # added to the covariance in units of its mean diagonal: the published 0 fails for a dead feature


def whitened(codes: Tensor) -> Tensor:
    """Codes [N, d] with mean 0 and, up to ``EPSILON``, covariance 1, by the inverse of its Cholesky factor.

    Example:
        >>> codes = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) @ torch.tensor(
        ...     [[2.0, 1, 0], [0, 1, 3], [0, 0, 1]])
        >>> white = whitened(codes)
        >>> bool((white.T @ white / 499 - torch.eye(3)).abs().max() < 0.01)
        True
    """
    centred = codes - codes.mean(0)
    covariance = centred.T @ centred / (len(codes) - 1)
    size = covariance.diagonal().mean().detach() + 1e-12
    covariance = covariance + EPSILON * size * torch.eye(codes.shape[1], device=codes.device)
    return torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), centred.T, upper=False).T


def w_mse(first: Tensor, second: Tensor) -> Tensor:
    """Mean squared difference of pairs [N, d], whitened together; 2 for pairs that have nothing in common.

    Args:
        first: codes of one of each pair; 2 N has to be larger than d.
        second: of the other.
    """
    white = whitened(torch.cat([first, second]))
    return (white[: len(first)] - white[len(first) :]).square().mean()
