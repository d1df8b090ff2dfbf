"""Action distributions, parametrised by the output of a policy head.

Each has the same functions of the head's output ``params`` [N, size] (and the mask [N, A] if there is one): ``sample``,
``mode``, ``log_prob``, ``entropy``, ``kl``, ``fisher`` (the Hessian of ``kl`` where both are equal, times a vector),
and ``played``, which turns a sample into the action that the environment gets. Entropies here are in closed form, and
so are their gradients; a distribution that has to estimate them from samples (the order network's) returns from
``log_prob_and_entropy`` an estimate whose gradient is also right in expectation. Hand-written because
``torch.distributions`` checks and normalises at every call, which costs more than the small networks here (measured in
the acting loop).
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from mlbits.envs.core.spaces import action_layout

_LOG_2PI = math.log(2 * math.pi)
_MOST_LOG_RATIO = 20.0  # e^20 is 5e8: beyond what any objective uses, and its square is far below float32's maximum
_FORBIDDEN = -1e9  # added to logits of illegal actions; finite, so that gradients and KLs are finite


def masked_log_softmax(logits: Tensor, mask: Tensor | None) -> Tensor:
    """Log probabilities with illegal actions at probability 0 (their log is very negative, never -inf or NaN)."""
    if mask is not None:
        logits = torch.where(mask, logits, _FORBIDDEN)
    return torch.log_softmax(logits, -1)


def sharpened(log_prob: Tensor, temperature: float, top_p: float) -> Tensor:
    """Log probabilities [..., n] at another temperature, without the tail beyond a total probability ``top_p``.

    Args:
        log_prob: logits or log probabilities, [..., n]; very negative for illegal actions.
        temperature: of the softmax; below 1 is sharper.
        top_p: the most probable actions are kept until their probabilities add up to this ("nucleus sampling", Holtzman
            et al. 2020), at least one.
    """
    if temperature != 1:
        log_prob = torch.log_softmax(log_prob / temperature, -1)
    if top_p < 1:
        p, order = log_prob.softmax(-1).sort(-1, descending=True)
        cut = torch.zeros_like(p, dtype=torch.bool).scatter(-1, order, p.cumsum(-1) - p >= top_p)
        log_prob = log_prob.masked_fill(cut, _FORBIDDEN)
    return log_prob


def probability_ratio(log_ratio: Tensor) -> Tensor:
    """The ratio pi / pi_old from its log, at most e^20, so that it and its gradient are finite for any finite input.

    Beyond the bound the gradient is that of the ratio at the bound, so that it still points back.

    Args:
        log_ratio: any shape.
    """
    constant = log_ratio.detach()
    return constant.clamp(max=_MOST_LOG_RATIO).exp_() * (1 + (log_ratio - constant))


def epsilon_greedy(best: Tensor, epsilon: float, mask: Tensor | None, n: int) -> Tensor:
    """Probabilities, float64 [N, n]: the best action [N], or with probability epsilon a uniformly drawn legal one."""
    sure = torch.nn.functional.one_hot(best, n).double()
    legal = torch.ones_like(sure) if mask is None else mask.double()
    return (1 - epsilon) * sure + epsilon * legal / legal.sum(-1, keepdim=True)


class Categorical:
    """One choice of n; ``params`` are logits [N, n], actions int64 [N]."""

    gaussian = False

    def __init__(self, n: int) -> None:
        self.size = n

    def sample(
        self, params: Tensor, mask: Tensor | None, generator: torch.Generator, temperature: float = 1.0,
        top_p: float = 1.0,
    ) -> Tensor:  # fmt: skip
        """By the Gumbel trick: argmax of logits minus the logs of exponential draws; see :func:`sharpened`."""
        if temperature != 1 or top_p < 1:
            params = sharpened(masked_log_softmax(params, mask), temperature, top_p)
        score = params - torch.empty_like(params).exponential_(generator=generator).log_()
        # Masked after the noise: a draw of exactly 0 has the log -inf, and would make an illegal action the maximum.
        return (score if mask is None else torch.where(mask, score, _FORBIDDEN)).argmax(-1)

    def mode(self, params: Tensor, mask: Tensor | None) -> Tensor:
        """The action with the largest logit."""
        return (params if mask is None else torch.where(mask, params, _FORBIDDEN)).argmax(-1)

    def log_prob(self, params: Tensor, mask: Tensor | None, action: Tensor) -> Tensor:
        """[N]."""
        return masked_log_softmax(params, mask).gather(-1, action[:, None]).squeeze(-1)

    def probabilities(self, params: Tensor, mask: Tensor | None, greedy: bool = False) -> Tensor:
        """Action probabilities pi(a|s), float64 [N, n]; ``greedy`` puts probability 1 on the mode."""
        if greedy:
            return epsilon_greedy(self.mode(params, mask), 0.0, mask, self.size)
        return masked_log_softmax(params.double(), mask).exp()

    def entropy(self, params: Tensor, mask: Tensor | None) -> Tensor:
        """[N]."""
        log_p = masked_log_softmax(params, mask)
        return -(log_p.exp() * log_p).sum(-1)

    def log_prob_and_entropy(self, params: Tensor, mask: Tensor | None, action: Tensor) -> tuple[Tensor, Tensor]:
        """Both [N], from one softmax."""
        log_p = masked_log_softmax(params, mask)
        return log_p.gather(-1, action[:, None]).squeeze(-1), -(log_p.exp() * log_p).sum(-1)

    def kl(self, old: Tensor, new: Tensor, mask: Tensor | None) -> Tensor:
        """[N]."""
        log_old, log_new = masked_log_softmax(old, mask), masked_log_softmax(new, mask)
        return (log_old.exp() * (log_old - log_new)).sum(-1)

    def fisher(self, params: Tensor, mask: Tensor | None, vector: Tensor) -> Tensor:
        """[N, n]: (diag(p) - p p^T) v."""
        p = masked_log_softmax(params, mask).exp()
        weighed = p * vector
        return weighed - p * weighed.sum(-1, keepdim=True)

    def played(self, action: Tensor) -> Tensor:
        """The action itself."""
        return action

    def played_log_prob(self, params: Tensor, mask: Tensor | None, action: Tensor) -> Tensor:
        """Log probability of an action as played, [N]."""
        return self.log_prob(params, mask, action)


class MultiCategorical:
    """k independent choices of nvec; ``params`` [N, sum(nvec)], actions int64 [N, k]."""

    gaussian = False

    def __init__(self, nvec: tuple[int, ...]) -> None:
        self.nvec, self.size = list(nvec), sum(nvec)
        self._parts = [Categorical(n) for n in nvec]

    def _split(self, params: Tensor, mask: Tensor | None) -> list[tuple[Categorical, Tensor, Tensor | None]]:
        masks = [None] * len(self.nvec) if mask is None else mask.split(self.nvec, -1)
        return list(zip(self._parts, params.split(self.nvec, -1), masks, strict=True))

    def sample(
        self, params: Tensor, mask: Tensor | None, generator: torch.Generator, temperature: float = 1.0,
        top_p: float = 1.0,
    ) -> Tensor:  # fmt: skip
        """[N, k]."""
        parts = self._split(params, mask)
        return torch.stack([part.sample(p, m, generator, temperature, top_p) for part, p, m in parts], -1)

    def mode(self, params: Tensor, mask: Tensor | None) -> Tensor:
        """[N, k]."""
        return torch.stack([part.mode(p, m) for part, p, m in self._split(params, mask)], -1)

    def log_prob(self, params: Tensor, mask: Tensor | None, action: Tensor) -> Tensor:
        """[N], the sum over the choices."""
        split = self._split(params, mask)
        return torch.stack([part.log_prob(p, m, action[:, k]) for k, (part, p, m) in enumerate(split)]).sum(0)

    def entropy(self, params: Tensor, mask: Tensor | None) -> Tensor:
        """[N], the sum over the choices."""
        return torch.stack([part.entropy(p, m) for part, p, m in self._split(params, mask)]).sum(0)

    def log_prob_and_entropy(self, params: Tensor, mask: Tensor | None, action: Tensor) -> tuple[Tensor, Tensor]:
        """Both [N], the sums over the choices."""
        split = self._split(params, mask)
        both = [part.log_prob_and_entropy(p, m, action[:, k]) for k, (part, p, m) in enumerate(split)]
        return torch.stack([one for one, _ in both]).sum(0), torch.stack([two for _, two in both]).sum(0)

    def kl(self, old: Tensor, new: Tensor, mask: Tensor | None) -> Tensor:
        """[N], the sum over the choices."""
        pairs = zip(self._split(old, mask), self._split(new, mask), strict=True)
        return torch.stack([part.kl(p, q, m) for (part, p, m), (_, q, _) in pairs]).sum(0)

    def fisher(self, params: Tensor, mask: Tensor | None, vector: Tensor) -> Tensor:
        """[N, sum(nvec)], for each choice separately."""
        parts = zip(self._split(params, mask), vector.split(self.nvec, -1), strict=True)
        return torch.cat([part.fisher(p, m, v) for (part, p, m), v in parts], -1)

    def played(self, action: Tensor) -> Tensor:
        """The action itself."""
        return action

    def played_log_prob(self, params: Tensor, mask: Tensor | None, action: Tensor) -> Tensor:
        """Log probability of an action as played, [N]."""
        return self.log_prob(params, mask, action)


class DiagonalGaussian:
    """k independent normals; ``params`` [N, 2 k] are means then log standard deviations, actions float32 [N, k].

    Means are in the space's own units if it is unbounded; a bounded dimension is scaled so that -1 and 1 are its
    bounds. Actions are clipped to the bounds when they are played (``played``), and log probabilities are those of the
    unclipped draw, as in Schulman et al. 2017.
    """

    gaussian = True

    def __init__(self, low: np.ndarray, high: np.ndarray) -> None:
        self.size = 2 * len(low)
        bounded = np.isfinite(low) & np.isfinite(high)
        bottom, top = np.where(bounded, low, -1.0), np.where(bounded, high, 1.0)
        self.scale = torch.from_numpy(((top - bottom) / 2).astype(np.float32))
        self.center = torch.from_numpy(((top + bottom) / 2).astype(np.float32))
        self.low, self.high = torch.from_numpy(low.astype(np.float32)), torch.from_numpy(high.astype(np.float32))
        self._placed: dict[torch.device, tuple[Tensor, ...]] = {}

    def _box(self, device: torch.device) -> tuple[Tensor, ...]:
        """Scale, center, low and high on a device; copied there once."""
        if device not in self._placed:
            parts = (self.scale, self.center, self.low, self.high)
            self._placed[device] = tuple(part.to(device) for part in parts)
        return self._placed[device]

    def sample(self, params: Tensor, mask: Tensor | None, generator: torch.Generator) -> Tensor:
        """[N, k], in units of the scaled space."""
        mean, log_std = params.chunk(2, -1)
        noise = torch.empty_like(mean).normal_(generator=generator)
        return mean + log_std.exp() * noise

    def mode(self, params: Tensor, mask: Tensor | None) -> Tensor:
        """The means."""
        return params.chunk(2, -1)[0]

    def log_prob(self, params: Tensor, mask: Tensor | None, action: Tensor) -> Tensor:
        """[N], the density in the scaled space."""
        mean, log_std = params.chunk(2, -1)
        z = (action - mean) * torch.exp(-log_std)
        return -(0.5 * z * z + log_std + 0.5 * _LOG_2PI).sum(-1)

    def entropy(self, params: Tensor, mask: Tensor | None) -> Tensor:
        """[N]."""
        return (params.chunk(2, -1)[1] + 0.5 * (1 + _LOG_2PI)).sum(-1)

    def log_prob_and_entropy(self, params: Tensor, mask: Tensor | None, action: Tensor) -> tuple[Tensor, Tensor]:
        """Both [N]."""
        return self.log_prob(params, mask, action), self.entropy(params, mask)

    def kl(self, old: Tensor, new: Tensor, mask: Tensor | None) -> Tensor:
        """[N]."""
        (mean_p, log_p), (mean_q, log_q) = old.chunk(2, -1), new.chunk(2, -1)
        ratio = torch.exp(2 * (log_p - log_q))
        return (0.5 * (ratio + ((mean_p - mean_q) * torch.exp(-log_q)) ** 2 - 1) + log_q - log_p).sum(-1)

    def fisher(self, params: Tensor, mask: Tensor | None, vector: Tensor) -> Tensor:
        """[N, 2 k]: 1 / variance for the means, 2 for the log standard deviations."""
        mean, log_std = vector.chunk(2, -1)
        return torch.cat([mean * torch.exp(-2 * params.chunk(2, -1)[1]), 2 * log_std], -1)

    def played(self, action: Tensor) -> Tensor:
        """The action for the environment: in its units, within its bounds."""
        scale, center, low, high = self._box(action.device)
        return torch.clamp(action * scale + center, low, high)

    def played_log_prob(self, params: Tensor, mask: Tensor | None, action: Tensor) -> Tensor:
        """Log density of an action as played, in its own units, [N].

        Clipping puts probability on the bounds themselves: a dimension at a bound counts with the log of the
        probability that its draw is there or beyond. Two such distributions can be compared action by action, as in
        importance weights.
        """
        mean, log_std = params.chunk(2, -1)
        scale, center, low, high = self._box(action.device)
        mean, std = mean * scale + center, log_std.exp() * scale
        z = (action - mean) / std
        inside = -(0.5 * z * z + std.log() + 0.5 * _LOG_2PI)
        clipped = torch.where(action <= low, torch.special.log_ndtr(z), torch.special.log_ndtr(-z))
        return torch.where((action <= low) | (action >= high), clipped, inside).sum(-1)


ActionDistribution = Categorical | MultiCategorical | DiagonalGaussian


def distribution_for(space: gym.Space[Any]) -> ActionDistribution:
    """The distribution for an action space: Discrete, MultiDiscrete or Box of one axis.

    Raises:
        GameError: for any other space.
    """
    layout = action_layout(space)
    if layout.kind == "discrete":
        return Categorical(layout.nvec[0])
    if layout.kind == "multi_discrete":
        return MultiCategorical(layout.nvec)
    return DiagonalGaussian(layout.low, layout.high)
