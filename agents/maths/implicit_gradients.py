"""Hypergradients: how what is learned depends on a setting of learning, by implicit differentiation.

Lorraine, Vicol and Duvenaud, "Optimizing millions of hyperparameters by implicit differentiation" (AISTATS 2020). If
w*(h) minimises inner(w, h), then, with the inner Hessian H = d2 inner / dw2 at w*,

    d outer(w*(h), h) / dh  =  d outer / dh  -  (d outer / dw) H^-1 (d2 inner / dw dh)
    H^-1 v  =  step * sum_j (I - step H)^j v        (Neumann; to j = terms, by Hessian-vector products)

which costs memory for one pass, however long w was trained. The series converges for a positive definite H and
step < 2 / (its largest eigenvalue); a truncated one damps the directions of small curvature. With terms = 0 it is
step * v: the inverse is taken for a multiple of the identity.

:func:`tune` alternates: some inner steps, then one of h. A "warm" start goes on from the last w; a "cold" one begins
anew each time. They can end at different places: where the inner problem has many solutions, a warm start keeps what
earlier settings put into w, and with few inner steps its w answers all settings so far (Vicol et al., "On implicit bias
in overparameterized bilevel optimization", ICML 2022).

Example:
    >>> w, h = torch.tensor([2.0], requires_grad=True), torch.tensor(3.0, requires_grad=True)
    >>> hypergradient(lambda w, h: (h * w[0] ** 2 / 2 - 6 * w[0]).sum(), lambda w, h: w[0].sum(), [w], h, 0.3, 200)
    tensor(-0.6667)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mlbits.agents.agent import AgentError, DivergedError

Loss = Callable[[Sequence[Tensor], Tensor], Tensor]  # of the parameters and the setting(s); a tensor []


def neumann(
    product: Callable[[Sequence[Tensor]], Sequence[Tensor]], vector: Sequence[Tensor], step: float, terms: int
) -> list[Tensor]:
    """H^-1 v by a truncated Neumann series.

    Args:
        product: H times a vector.
        vector: v, as a list of tensors.
        step: below 2 over the largest eigenvalue of H.
        terms: number of products.

    Returns:
        step * sum of (I - step H)^j v for j from 0 to ``terms``.
    """
    term, total = list(vector), list(vector)
    for _ in range(terms):
        term = [old - step * moved for old, moved in zip(term, product(term), strict=True)]
        total = [a + b for a, b in zip(total, term, strict=True)]
    return [step * part for part in total]


def hypergradient(
    inner: Loss, outer: Loss, parameters: Sequence[Tensor], setting: Tensor, step: float, terms: int
) -> Tensor:
    """The gradient of outer(w*(h), h) along h, shaped as the setting.

    Args:
        inner: what the parameters minimise; twice differentiable.
        outer: what the setting should minimise.
        parameters: w, near a minimum of the inner loss; leaves that require gradients.
        setting: h, a leaf that requires gradients.
        step: of the Neumann series.
        terms: of the Neumann series, at least 0.

    Raises:
        DivergedError: if it is not finite, as where ``step`` is too large.
    """
    loss = outer(parameters, setting)
    *by_parameter, direct = torch.autograd.grad(loss, [*parameters, setting], allow_unused=True)
    vector = [torch.zeros_like(w) if part is None else part for w, part in zip(parameters, by_parameter, strict=True)]
    gradient = torch.autograd.grad(inner(parameters, setting), list(parameters), create_graph=True)

    def product(along: Sequence[Tensor]) -> Sequence[Tensor]:
        return torch.autograd.grad(gradient, list(parameters), list(along), retain_graph=True)

    solved = neumann(product, vector, step, terms)
    (mixed,) = torch.autograd.grad(gradient, [setting], solved, allow_unused=True)
    zero = torch.zeros_like(setting)
    found = (zero if direct is None else direct) - (zero if mixed is None else mixed)
    if not bool(found.isfinite().all()):
        raise DivergedError("hypergradient", float(found[~found.isfinite()].flatten()[0]), f"with step {step:g}")
    return found


class Tuned(NamedTuple):
    """What :func:`tune` found.

    Attributes:
        setting: the last setting.
        parameters: w after the last inner steps.
        history: the setting before each of its steps and at the end, [outer steps + 1, ...].
    """

    setting: Tensor
    parameters: list[Tensor]
    history: Tensor


def tune(
    inner: Loss,
    outer: Loss,
    start: Sequence[Tensor],
    setting: Tensor,
    *,
    begin: Literal["warm", "cold"] = "warm",
    inner_steps: int = 100,
    inner_rate: float = 0.1,
    outer_steps: int = 50,
    outer_rate: float = 0.1,
    terms: int = 20,
) -> Tuned:
    """Learn a setting: gradient descent on the inner loss, and Adam on the setting.

    Args:
        inner: what the parameters minimise.
        outer: what the setting should minimise.
        start: the first parameters.
        setting: the first setting, of any shape.
        begin: "warm" goes on from the last parameters, "cold" from ``start`` each time.
        inner_steps: steps of gradient descent between two steps of the setting.
        inner_rate: their size, which the Neumann series takes too.
        outer_steps: steps of the setting, by Adam.
        outer_rate: learning rate of that Adam.
        terms: of the Neumann series.

    Raises:
        AgentError: for another beginning.
        DivergedError: if the hypergradient is not finite.
    """
    if begin not in ("warm", "cold"):
        raise AgentError(f"begin: got {begin!r}; wanted 'warm' or 'cold'")
    setting = setting.detach().clone().requires_grad_()
    parameters = [part.detach().clone().requires_grad_() for part in start]
    first, second = torch.zeros_like(setting), torch.zeros_like(setting)
    history = [setting.detach().clone()]
    for count in range(1, outer_steps + 1):
        if begin == "cold":
            parameters = [part.detach().clone().requires_grad_() for part in start]
        _descend(inner, parameters, setting, inner_steps, inner_rate)
        gradient = hypergradient(inner, outer, parameters, setting, inner_rate, terms)
        with torch.no_grad():
            first.lerp_(gradient, 0.1)
            second.lerp_(gradient.square(), 0.001)
            setting -= outer_rate * (first / (1 - 0.9**count)) / ((second / (1 - 0.999**count)).sqrt() + 1e-12)
        history.append(setting.detach().clone())
    if begin == "cold":
        parameters = [part.detach().clone().requires_grad_() for part in start]
    _descend(inner, parameters, setting, inner_steps, inner_rate)
    return Tuned(setting.detach(), [part.detach() for part in parameters], torch.stack(history))


def _descend(inner: Loss, parameters: Sequence[Tensor], setting: Tensor, steps: int, rate: float) -> None:
    """Gradient descent on the parameters, in place."""
    constant = setting.detach()
    for _ in range(steps):
        gradients = torch.autograd.grad(inner(parameters, constant), list(parameters))
        with torch.no_grad():
            for part, gradient in zip(parameters, gradients, strict=True):
                part -= rate * gradient
