"""Distributions of returns: atoms with probabilities on a fixed support (C51), or quantiles (QR-DQN).

Bellemare, Dabney and Munos, "A Distributional Perspective on Reinforcement Learning" (ICML 2017); Dabney, Rowland,
Bellemare and Munos, "Distributional Reinforcement Learning with Quantile Regression" (AAAI 2018).

Example:
    >>> import torch
    >>> support = torch.linspace(0, 2, 3)
    >>> project(torch.tensor([[0.5, 2.0, 9.0]]), torch.tensor([[0.5, 0.25, 0.25]]), support)
    tensor([[0.2500, 0.2500, 0.5000]])
"""

from __future__ import annotations

import torch
from torch import Tensor


def project(atoms: Tensor, probability: Tensor, support: Tensor) -> Tensor:
    """Project atoms with probabilities onto a support: each is split between its two nearest points (2017, equation 7).

    Args:
        atoms: positions of the atoms, [N, M]; those beyond the support count at its end.
        probability: [N, M].
        support: evenly spaced and ascending, [K].

    Returns:
        Probabilities of the support's points, [N, K]. The mean is preserved if no atom lies beyond the support.
    """
    low, step = support[0], support[1] - support[0]
    place = ((atoms - low) / step).clamp(0, len(support) - 1)
    lower = place.floor()
    share = place - lower  # 0 where an atom falls on a point: then all of it goes to the lower
    lower_index = lower.long()
    upper_index = (lower_index + 1).clamp(max=len(support) - 1)
    out = torch.zeros(len(atoms), len(support), dtype=probability.dtype, device=probability.device)
    out.scatter_add_(1, lower_index, probability * (1 - share))
    return out.scatter_add_(1, upper_index, probability * share)


def categorical_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of a target distribution and a predicted one, [N].

    Args:
        logits: [N, K].
        target: probabilities [N, K].
    """
    return -(target * torch.log_softmax(logits, -1)).sum(-1)


def categorical_gradient(logits: Tensor, target: Tensor) -> Tensor:
    """The gradient of :func:`categorical_loss` with respect to the logits, [N, K]."""
    return torch.softmax(logits, -1) - target


def quantile_huber_loss(quantiles: Tensor, target: Tensor, kappa: float = 1.0) -> Tensor:
    """The quantile regression loss with Huber's smoothing (2018, equations 9 and 10), [N].

    Quantile k has the level (k + 1/2) / K. Summed over the predicted quantiles, mean over the target's.

    Args:
        quantiles: predicted, [N, K].
        target: samples or quantiles of the target, [N, M].
        kappa: errors below it are squared; 0 gives the plain quantile loss.
    """
    error, weight = _quantile_errors(quantiles, target)
    size = error.abs()
    if kappa > 0:
        size = torch.where(size <= kappa, 0.5 * error * error / kappa, size - 0.5 * kappa)
    return (weight * size).mean(2).sum(1)


def quantile_huber_gradient(quantiles: Tensor, target: Tensor, kappa: float = 1.0) -> Tensor:
    """The gradient of :func:`quantile_huber_loss` with respect to the predicted quantiles, [N, K]."""
    error, weight = _quantile_errors(quantiles, target)
    gradient = error.sign() if kappa == 0 else (error / kappa).clamp(-1, 1)
    return -(weight * gradient).mean(2)


def _quantile_errors(quantiles: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Target minus quantile for each pair, and |level - (error < 0)|, both [N, K, M]."""
    count = quantiles.shape[1]
    level = (torch.arange(count, device=quantiles.device, dtype=quantiles.dtype) + 0.5) / count
    error = target.unsqueeze(1) - quantiles.unsqueeze(2)
    return error, (level[:, None] - (error.detach() < 0).to(error.dtype)).abs()
