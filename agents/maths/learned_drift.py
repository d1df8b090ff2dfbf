"""The closed form of a drift that was learned, for PPO's objective "dpo"."""

from __future__ import annotations

import torch
from torch import Tensor


def learned_drift(ratio: Tensor, log_ratio: Tensor, advantage: Tensor, alpha: float = 2.0, beta: float = 0.6) -> Tensor:
    """What discovered policy optimisation (Lu et al. 2022) takes off r A, so as to stay near the old policy.

    For A >= 0 it is max(0, x - alpha tanh(x / alpha)) with x = (r - 1) A, and for A < 0 the same with x = A log r and
    beta. It is 0 where the ratio moves against the advantage, of third order near r = 1, and for x far above alpha
    (beta) it takes back all that is gained beyond it.

    Args:
        ratio: r = pi(a|s) / pi_old(a|s), [N].
        log_ratio: its logarithm, [N].
        advantage: A, [N].
        alpha: of actions that were better than expected, above 0.
        beta: of the others, above 0.

    Returns:
        The drift, [N], never negative.

    Example:
        >>> ratio, advantage = torch.tensor([3.0, 0.5, 0.5]), torch.tensor([2.0, 2.0, -2.0])
        >>> [round(x, 4) for x in learned_drift(ratio, ratio.log(), advantage).tolist()]
        [2.0719, 0.0, 0.798]
    """
    good, bad = (ratio - 1) * advantage, log_ratio * advantage
    return torch.where(
        advantage >= 0,
        torch.relu(good - alpha * torch.tanh(good / alpha)),
        torch.relu(bad - beta * torch.tanh(bad / beta)),
    )
