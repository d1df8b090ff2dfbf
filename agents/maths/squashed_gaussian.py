"""Normals under tanh, drawn with their log density and the gradient of both: the policy of soft actor-critic.

Haarnoja et al., "Soft Actor-Critic" (2018), appendix C: a = tanh(u) with u ~ N(mean, std), and

    log pi(a) = log N(u; mean, std) - sum log(1 - tanh(u)^2).

The last term is computed from u, as 2 (log 2 - u - softplus(-2 u)), exact also in the tails: where tanh rounds to 1,
1 - a^2 is 0, and atanh of a clipped action would be another draw's. The gradients with u = mean + std noise are in
closed form: a node of autograd in place of twenty.

Actions are float32 [N, k] in units in which the bounds of a Box are -1 and 1; so are densities, except
:meth:`SquashedGaussian.played_log_prob`, which is in the action's own units.

Example:
    >>> import torch
    >>> policy = SquashedGaussian(1)
    >>> action, log_prob = policy.draw(torch.tensor([[0.0, 0.0]]), torch.tensor([[20.0]]))
    >>> action.item(), round(log_prob.item(), 2)  # -0.5 log 2 pi - 200 + 2 (20 - log 2)
    (1.0, -162.31)
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mlbits.agents.maths.bounded_distributions import EDGE, beyond

LEAST, MOST = -20.0, 2.0  # of log standard deviations, as in the authors' code
_LOG_2, _LOG_2PI = math.log(2), math.log(2 * math.pi)


class SquashedGaussian:
    """k independent normals under tanh; ``params`` are means and log standard deviations before tanh, [N, 2 k].

    Log standard deviations are clipped to -20..2, where they get no gradient.

    Args:
        k: action dimensions.
    """

    def __init__(self, k: int) -> None:
        self.size = 2 * k

    def draw(self, params: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions [N, k] by standard normal ``noise`` [N, k], and their log density [N]; with gradients of both."""
        found: tuple[Tensor, Tensor] = _Draw.apply(params, noise)  # type: ignore[no-untyped-call]
        return found

    def mode(self, params: Tensor) -> Tensor:
        """Tanh of the means, which are the medians."""
        return torch.tanh(params.chunk(2, -1)[0])

    def played_log_prob(self, params: Tensor, action: Tensor, scale: Tensor) -> Tensor:
        """[N], of actions as they are played in a Box with half ranges ``scale`` [k], in its units.

        An action from which the draw cannot be told any more (beyond 0.999 in size) counts as all draws beyond: the
        log of their probability.
        """
        mean, log_std = params.chunk(2, -1)
        log_std = log_std.clamp(LEAST, MOST)
        inside = action.clamp(-EDGE, EDGE)
        z = (torch.atanh(inside) - mean) * torch.exp(-log_std)
        density = -(0.5 * z * z + log_std + 0.5 * _LOG_2PI + torch.log1p(-inside * inside) + scale.log())
        return torch.where(action.abs() < EDGE, density, beyond(z, action)).sum(-1)


class _Draw(torch.autograd.Function):
    """Tanh(mean + std noise) and its log density."""

    @staticmethod
    def forward(ctx: Any, params: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """[N, k] and [N]."""
        mean, raw = params.chunk(2, -1)
        log_std = raw.clamp(LEAST, MOST)
        moved = log_std.exp() * noise  # du / d log std
        draw = mean + moved
        action = torch.tanh(draw)
        bent = 2 * (_LOG_2 - draw - F.softplus(-2 * draw))  # log(1 - tanh(u)^2)
        log_prob = -(0.5 * noise * noise + log_std + 0.5 * _LOG_2PI + bent).sum(-1)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(action, moved, raw)
        return action, log_prob

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """For the parameters: da/du = 1 - a^2, d log pi/du = 2 a at fixed noise, and -1 for log std itself."""
        action, moved, raw = ctx.saved_tensors
        by_action, by_log_prob = grads[0], grads[1].unsqueeze(-1)
        by_draw = by_action * (1 - action * action) + 2 * by_log_prob * action
        free = (raw >= LEAST) & (raw <= MOST)
        return torch.cat([by_draw, (by_draw * moved - by_log_prob) * free], -1), None
