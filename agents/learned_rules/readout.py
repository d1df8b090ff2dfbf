"""What learned predictions contain: how well a linear read-out of y(s) gives values that are known.

A prediction means nothing in itself. If values at a discount factor can be read off it by one linear map for each
agent, it contains them (Oh et al. 2020, section 4.3).
"""

from __future__ import annotations

import torch
from torch import Tensor

from mlbits.agents.learned_rules.populations import Lesson

_RIDGE = 1e-6  # of the weight of all states, so that constant features do no harm


def readout_r2(features: Tensor, values: Tensor, weights: Tensor) -> Tensor:
    """The fraction of the values' variance over states that a linear read-out of features explains, [L].

    Args:
        features: of each agent's states, [L, S, m].
        values: to be read off, [L, S].
        weights: of the states, such as how often each was seen, [L, S]; 0 leaves a state out.

    Returns:
        R^2 of weighted least squares with an intercept, at most 1; NaN for an agent whose values do not vary.
    """
    features, values, weights = features.double(), values.double(), weights.double()
    share = (weights / weights.sum(1, keepdim=True).clamp(min=1e-300))[..., None]
    x = features - (share * features).sum(1, keepdim=True)
    v = values[..., None] - (share * values[..., None]).sum(1, keepdim=True)
    gram = x.transpose(1, 2) @ (share * x)
    ridge = _RIDGE * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    map_ = torch.linalg.solve(gram + ridge, x.transpose(1, 2) @ (share * v))
    unexplained, variance = ((share * part.square()).sum((1, 2)) for part in (v - x @ map_, v))
    return torch.where(variance > 1e-12, 1 - unexplained / variance.clamp(min=1e-12), torch.nan)


def temporal_difference(lesson: Lesson, values: Tensor, *, discount: float, rate: float) -> None:
    """Move tables of values [L, S], in place, towards r + discount V(s') over a rollout.

    Each state visited moves the fraction ``rate`` of the way to the mean of its targets.
    """
    lifetimes, states = values.shape
    first = (torch.arange(lifetimes, device=values.device) * states)[:, None]
    flat, places = values.view(-1), lesson.obs + first
    following = flat[lesson.next_obs + first].masked_fill(lesson.terminated, 0.0)
    error = lesson.reward + discount * following - flat[places]
    pairs = torch.stack([error.flatten(), torch.ones_like(error).flatten()], 1)
    total, count = torch.zeros(len(flat), 2, device=values.device).index_add_(0, places.flatten(), pairs).unbind(1)
    flat += rate * total / count.clamp(min=1)
