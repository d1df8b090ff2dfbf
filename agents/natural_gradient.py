"""The natural gradient: Fisher-vector products of a policy network, and conjugate gradients to invert them.

Kakade, "A natural policy gradient" (2001); Schulman et al., "Trust region policy optimization" (2015), section 6 and
appendix C; Kaplan, "Notes on Contemporary Machine Learning for Physicists", 8.5.1. With the policy's parameters theta,
what the network puts out for an observation f(theta), its Jacobian J, and the Fisher information M of the action's
distribution in f (``distributions``), the Fisher information of the policy is

    F = E[J^T M J],    the Hessian in theta of E[KL(pi_theta_old || pi_theta)] at theta_old.

F v is computed in that form: J v by a pass forward (tangents beside the activations, which are kept), M in closed form,
J^T by a pass backward. That is exact, and costs half of what differentiating the KL twice does.

Example:
    >>> import torch
    >>> from gymnasium import spaces
    >>> from mlbits.agents.distributions import Categorical
    >>> from mlbits.agents.networks import ActorCritic
    >>> network = ActorCritic(spaces.Discrete(3), Categorical(2), (4,), torch.Generator().manual_seed(0))
    >>> product = FisherProduct(network, Categorical(2), list(network.actor.parameters()), torch.tensor([0, 2]), None)
    >>> product(torch.zeros(26)).abs().sum().item()
    0.0
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlbits.agents.agent import pick
from mlbits.agents.distributions import ActionDistribution
from mlbits.agents.networks import ActorCritic


class FisherProduct:
    """F v for the policy as it is now, over some observations.

    Args:
        network: the policy; it must not change while this is used.
        distribution: what its numbers mean.
        parameters: those of the policy, in the order of the vectors that are multiplied.
        obs: N observations, standardised where the agent does.
        mask: legal actions [N, A], or None.
        chunk: rows a pass; 0 takes all at once.
    """

    def __init__(
        self,
        network: ActorCritic,
        distribution: ActionDistribution,
        parameters: Sequence[nn.Parameter],
        obs: Any,
        mask: Tensor | None,
        chunk: int = 0,
    ) -> None:
        self._parameters = list(parameters)
        self._sizes = [parameter.numel() for parameter in parameters]
        self._count = len(next(iter(obs.values())) if isinstance(obs, dict) else obs)
        chunk = chunk or self._count
        self._chunks = [
            _Rows(network, distribution, pick(obs, part), None if mask is None else mask[part])
            for part in (slice(start, start + chunk) for start in range(0, self._count, chunk))
        ]

    def __call__(self, vector: Tensor) -> Tensor:
        """F v [n] for a vector [n]."""
        views = zip(self._parameters, vector.split(self._sizes), strict=True)
        tangents = {parameter: part.view_as(parameter) for parameter, part in views}
        total = torch.zeros_like(vector)
        for rows in self._chunks:
            weighed = rows.distribution.fisher(rows.params.detach(), rows.mask, rows.push(tangents)) / self._count
            back = torch.autograd.grad(rows.params, self._parameters, weighed, retain_graph=True)
            total += torch.cat([part.reshape(-1) for part in back])
        return total


class _Rows:
    """Some rows' activations, which all products share."""

    def __init__(self, network: ActorCritic, distribution: ActionDistribution, obs: Any, mask: Tensor | None) -> None:
        self.distribution, self.mask = distribution, mask
        self._network, self._tower = network, network.actor
        parts = network.features(obs)
        self.params = network.policy_of(parts)
        self._parts = [part.detach() for part in parts]
        with torch.no_grad():
            self._hidden = self._tower.activations(self._parts)
            self._slopes = [1 - hidden.square() for hidden in self._hidden]
        self._features = list(network.features.parameters())
        self._moving = [k for k, part in enumerate(parts) if part.requires_grad]
        if self._features:
            # g(u) = J^T u is linear in u, so its own derivative is J: a pass forward made of two backward.
            moving = [parts[k] for k in self._moving]
            self._dummies = [torch.zeros_like(part, requires_grad=True) for part in moving]
            self._pulled = torch.autograd.grad(moving, self._features, self._dummies, create_graph=True)

    def push(self, tangents: dict[nn.Parameter, Tensor]) -> Tensor:
        """J v, [N, size], for a change of each parameter."""
        moved = self._push_features(tangents)
        with torch.no_grad():
            tower, slopes = self._tower, self._slopes
            change: Tensor = tangents[tower.biases[0]]
            for k, (part, table) in enumerate(zip(self._parts, tower.first, strict=True)):
                if tower.is_index[k]:
                    change = change + F.embedding(part, tangents[table]).sum(1)
                    continue
                change = torch.addmm(change, part, tangents[table])
                moving = moved[k]
                if moving is not None:
                    change = torch.addmm(change, moving, table)
            for k, (weight, bias) in enumerate(zip(tower.weights, tower.biases[1:], strict=True)):
                before = torch.addmm(tangents[bias], self._hidden[k], tangents[weight])
                change = torch.addmm(before, change.mul_(slopes[k]), weight)
            head = torch.addmm(tangents[tower.head_bias], self._hidden[-1], tangents[tower.head_weight].t())
            head = torch.addmm(head, change.mul_(slopes[-1]), tower.head_weight.t())
            log_std = self._network.log_std
            return head if log_std is None else torch.cat([head, tangents[log_std].expand_as(head)], -1)

    def _push_features(self, tangents: dict[nn.Parameter, Tensor]) -> list[Tensor | None]:
        """The change of each part; None for those that no parameter moves."""
        changes: list[Tensor | None] = [None] * len(self._parts)
        if not self._features:
            return changes
        vectors = [tangents[parameter] for parameter in self._features]
        moved = torch.autograd.grad(self._pulled, self._dummies, vectors, retain_graph=True)
        for index, change in zip(self._moving, moved, strict=True):
            changes[index] = change
        return changes


def conjugate_gradient(
    product: Callable[[Tensor], Tensor], target: Tensor, iterations: int, tolerance: float = 1e-5
) -> tuple[Tensor, Tensor]:
    """Solve A x = b for a symmetric positive matrix that is known by its products alone (Hestenes and Stiefel 1952).

    Args:
        product: A v [n] of v [n].
        target: b [n].
        iterations: products at most.
        tolerance: ends earlier once |b - A x| is this share of |b|; 1e-5 is about what float32 can tell.

    Returns:
        x [n], and the residual b - A x [n].
    """
    solution, residual = torch.zeros_like(target), target.clone()
    direction, square = residual.clone(), residual @ residual
    enough = tolerance**2 * square
    for _ in range(iterations):
        if square <= enough:
            break
        image = product(direction)
        step = square / (direction @ image)
        solution.addcmul_(direction, step)
        residual.addcmul_(image, step, value=-1)
        before, square = square, residual @ residual
        direction = torch.addcmul(residual, direction, square / before)
    return solution, residual
