"""Action values as distributions over a squashed scale, their targets by Retrace, and the scale of advantages.

A value x is kept as h(x) = sign(x) (sqrt(|x| + 1) - 1) + x / 1000 (Pohlen et al. 2018), a mean over 601 points from
-300 to 300: the logits q [..., 601] stand for h^-1(sum_k softmax(q)_k point_k). Targets are those of Retrace (Munos et
al. 2016), with values V(s) = sum_a pi(a|s) Q(s, a).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mlbits.agents.maths.return_distributions import project

BINS, LIMIT = 601, 300.0
_EPS = 1e-3
DECAY = 0.99  # of the moments of advantages


def squashed(value: Tensor) -> Tensor:
    """h(x), of any shape."""
    return value.sign() * ((value.abs() + 1).sqrt() - 1) + _EPS * value


def unsquashed(value: Tensor) -> Tensor:
    """h^-1(x), of any shape."""
    root = (1 + 4 * _EPS * (value.abs() + 1 + _EPS)).sqrt()
    return value.sign() * (((root - 1) / (2 * _EPS)).square() - 1)


def points(like: Tensor) -> Tensor:
    """The points of the squashed scale, [601], on the device of a tensor."""
    return torch.linspace(-LIMIT, LIMIT, BINS, dtype=like.dtype, device=like.device)


def expected(logits: Tensor) -> Tensor:
    """The values that logits [..., 601] stand for, [...]."""
    return unsquashed(torch.softmax(logits, -1) @ points(logits))


def two_hot(value: Tensor) -> Tensor:
    """The distribution [N, 601] of values [N]: each shared by the two nearest points; beyond the scale at its end."""
    return project(squashed(value)[:, None], torch.ones_like(value)[:, None], points(value))


def retrace(
    reward: Tensor, discount: Tensor, ended: Tensor, next_value: Tensor, taken: Tensor, trace: Tensor
) -> Tensor:
    """Targets of the actions taken: r_t + discount_t (V' + trace_{t+1} (target_{t+1} - Q_{t+1})).

    The last part counts within an episode and the window alone.

    Args:
        reward: [T, B].
        discount: of what follows, 0 where the episode terminated, [T, B].
        ended: bool [T, B], whether an episode ended with the step, by itself or by a limit.
        next_value: V of the observation that the step led to; of an episode cut by a limit its last, [T, B].
        taken: Q of the actions taken, [T, B].
        trace: lambda min(1, pi / mu) of the actions taken, [T, B].

    Returns:
        [T, B].
    """
    target = torch.empty_like(reward)
    correction = torch.zeros_like(reward[0])
    for t in reversed(range(len(reward))):
        target[t] = reward[t] + discount[t] * (next_value[t] + (~ended[t]) * correction)
        correction = trace[t] * (target[t] - taken[t])
    return target


class Scale(NamedTuple):
    """Moving moments of the advantages over the lifetime; the newest batch counts 1%.

    Attributes:
        first: sum of weighted means, [].
        second: sum of weighted means of squares, [].
        rest: the weight of what was before the first batch, [].
    """

    first: Tensor
    second: Tensor
    rest: Tensor

    @classmethod
    def new(cls, device: torch.device | str) -> Scale:
        """Before the first batch."""
        zero = torch.zeros((), device=device)
        return cls(zero, zero.clone(), torch.ones((), device=device))

    def updated(self, advantage: Tensor) -> Scale:
        """With one more batch."""
        new = (advantage.mean(), advantage.square().mean(), torch.zeros_like(self.rest))
        moved = (DECAY * old + (1 - DECAY) * mean for old, mean in zip(self, new, strict=True))
        return Scale(*moved)

    def normalised(self, advantage: Tensor) -> Tensor:
        """Advantages of any shape, with mean 0 and deviation 1 over what was seen."""
        mean, square = self.first / (1 - self.rest), self.second / (1 - self.rest)
        variance = (square - mean.square()).clamp(min=0)
        return (advantage - mean) / ((variance + 1e-12).sqrt() + 1e-6)
