"""Distributions of actions in [-1, 1] whose spread depends on the state, as learning from data needs: a normal under
tanh, and a mixture of normals.

``params`` [N, size] are a policy head's output, actions float32 [N, k] in units in which the bounds of a Box are -1 and
1. Recorded actions may stand on the bounds, where the density under tanh is infinite: they count as ``EDGE``.
``played_log_prob`` is for importance weights, in which such an action is compared with other policies': it has the
probability of all draws at the bound or beyond (under tanh: beyond ``EDGE``), as in
:meth:`~mlbits.agents.maths.action_distributions.DiagonalGaussian.played_log_prob`.

Example:
    >>> import torch
    >>> one = TanhGaussian(1)
    >>> one.mode(torch.tensor([[0.0, 3.0]])), one.log_prob(torch.tensor([[0.0, 0.0]]), torch.zeros(1, 1)).shape
    (tensor([[0.]]), torch.Size([1]))
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

EDGE = 0.999  # atanh of it is 3.8
_LOG_2PI = math.log(2 * math.pi)
_AT_BOUND = 1 - 1e-6  # from here on a clipped draw counts as one at the bound
_LEAST, _MOST = -5.0, 2.0  # of log standard deviations
_HALF = 0.5 * (_MOST - _LEAST)


def spread(raw: Tensor) -> Tensor:
    """Log standard deviations between -5 and 2 from any numbers; 0 becomes -1.5. Nowhere without gradient."""
    return _LEAST + _HALF * (torch.tanh(raw) + 1)


class TanhGaussian:
    """k independent normals under tanh; ``params`` are means before tanh and raw spreads, [N, 2 k].

    Args:
        k: action dimensions.
    """

    def __init__(self, k: int) -> None:
        self.size = 2 * k

    def sample(self, params: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """[count, N, k]."""
        mean, raw = params.chunk(2, -1)
        noise = (
            torch.empty((count, *mean.shape), device=generator.device).normal_(generator=generator).to(params.device)
        )
        return torch.tanh(mean + spread(raw).exp() * noise)

    def mode(self, params: Tensor) -> Tensor:
        """Tanh of the means, which are the medians."""
        return torch.tanh(params.chunk(2, -1)[0])

    def log_prob(self, params: Tensor, action: Tensor) -> Tensor:
        """[N], the density in [-1, 1]."""
        found: Tensor = _TanhGaussianLogProb.apply(params, action)  # type: ignore[no-untyped-call]
        return found

    def played_log_prob(self, params: Tensor, action: Tensor, scale: Tensor) -> Tensor:
        """[N], of actions as they are played in a Box with half ranges ``scale`` [k], in its units."""
        mean, raw = params.chunk(2, -1)
        inside, log_std = action.clamp(-EDGE, EDGE), spread(raw)
        z = (torch.atanh(inside) - mean) * torch.exp(-log_std)
        density = -(0.5 * z * z + log_std + 0.5 * _LOG_2PI + torch.log1p(-inside * inside) + scale.log())
        return torch.where(action.abs() < EDGE, density, beyond(z, action)).sum(-1)


def beyond(z: Tensor, action: Tensor) -> Tensor:
    """Log probability of draws on the side of ``action`` that are ``z`` or more standard deviations out."""
    return torch.special.log_ndtr(torch.where(action > 0, -z, z))


class _TanhGaussianLogProb(torch.autograd.Function):
    """The log density and its gradient in closed form: a node of autograd in place of twenty."""

    @staticmethod
    def forward(ctx: Any, params: Tensor, action: Tensor) -> Tensor:
        """[N]."""
        mean, raw = params.chunk(2, -1)
        inside = action.clamp(-EDGE, EDGE)
        bent = torch.tanh(raw)
        log_std = _LEAST + _HALF * (bent + 1)
        precision = torch.exp(-log_std)
        z = (torch.atanh(inside) - mean) * precision
        squared = z * z
        if ctx.needs_input_grad[0]:
            by_spread = (squared - 1) * (1 - bent * bent) * _HALF
            ctx.save_for_backward(torch.cat([z * precision, by_spread], -1))
        return -(0.5 * squared + log_std + 0.5 * _LOG_2PI + torch.log1p(-inside * inside)).sum(-1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """The gradient for the parameters, [N, 2 k]."""
        (by_params,) = ctx.saved_tensors
        return grads[0].unsqueeze(-1) * by_params, None


class GaussianMixture:
    """A mixture of normals with diagonal covariance whose means lie in [-1, 1]; draws are clipped to it.

    ``params`` [N, K + 2 K k] are logits of the components, their means before tanh, their raw spreads. One component is
    a Gaussian policy with a tanh on its mean.

    Args:
        k: action dimensions.
        components: K.
    """

    def __init__(self, k: int, components: int) -> None:
        self.k, self.components, self.size = k, components, components * (1 + 2 * k)

    def _parts(self, params: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits [N, K], means [N, K, k], log standard deviations [N, K, k]."""
        n, width = self.components, self.components * self.k
        logits, mean, raw = params.split((n, width, width), -1)
        shape = (-1, n, self.k)
        return logits, torch.tanh(mean).view(shape), spread(raw).view(shape)

    def sample(self, params: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """[count, N, k]."""
        logits, mean, log_std = self._parts(params)
        rows, place = len(params), generator.device
        noise = torch.empty(count, rows, self.k, device=place).normal_(generator=generator).to(params.device)
        if self.components == 1:
            return (mean[:, 0] + log_std[:, 0].exp() * noise).clamp_(-1, 1)
        gumbel = torch.empty(count, rows, self.components, device=place).exponential_(generator=generator).log_()
        gumbel = gumbel.to(params.device)
        which = (logits - gumbel).argmax(-1)  # [count, N]
        chosen = torch.arange(rows, device=params.device).expand(count, rows), which
        return (mean[chosen] + log_std[chosen].exp() * noise).clamp_(-1, 1)

    def mode(self, params: Tensor) -> Tensor:
        """The mean of the most probable component, [N, k]."""
        logits, mean, _ = self._parts(params)
        return mean[torch.arange(params.shape[0], device=params.device), logits.argmax(-1)]

    def log_prob(self, params: Tensor, action: Tensor) -> Tensor:
        """[N], the density of the unclipped draw."""
        logits, mean, log_std = self._parts(params)
        z = (action.unsqueeze(1) - mean) * torch.exp(-log_std)
        each = -(0.5 * z * z + log_std + 0.5 * _LOG_2PI).sum(-1)
        return each.squeeze(1) if self.components == 1 else torch.logsumexp(torch.log_softmax(logits, -1) + each, -1)

    def played_log_prob(self, params: Tensor, action: Tensor, scale: Tensor) -> Tensor:
        """[N], of actions as they are played in a Box with half ranges ``scale`` [k], in its units."""
        logits, mean, log_std = self._parts(params)
        action = action.unsqueeze(1)
        z = (action - mean) * torch.exp(-log_std)
        density = -(0.5 * z * z + log_std + 0.5 * _LOG_2PI + scale.log())
        each = torch.where(action.abs() < _AT_BOUND, density, beyond(z, action)).sum(-1)
        return torch.logsumexp(torch.log_softmax(logits, -1) + each, -1)


BoundedDistribution = TanhGaussian | GaussianMixture
