"""Sums over shards: what an agent that learns in several parts of one run asks the others for.

The copies of a run may be cut into S shards, each with a learner of its own that starts from the same weights. They
learn in step: each finds the gradient on its own copies' experience, and all move by the mean of these gradients, which
:class:`~mlbits.agents.kernels.flat_adam.FlatAdam` takes before it steps. Likewise every figure that a decision hangs on
(the advantages' mean and deviation, the moments of observations, the KL divergence that ends an iteration) is taken
over all shards. Sums are in the order of the shards, whichever process holds them, so that the weights are equal bit
for bit on any number of processes.

Who learns is a matter of the thread (:mod:`mlbits.selfplay.shards.lockstep`): outside of a sharded run there is one
shard, and every function here gives back what it got.

Shards may hold different numbers of rows. A loss that is a mean over its own rows is then to be multiplied by
``weight(rows)``, so that each row counts the same.

Example:
    >>> total(torch.tensor([1.0, 2.0])), number(), weight(7)
    (tensor([1., 2.]), 1, 1.0)
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor


class Together(Protocol):
    """What joins the shards.

    Attributes:
        number: how many there are, S.
    """

    number: int

    def gather(self, value: Tensor) -> Tensor:
        """The tensors [...] of all shards, [S, ...], in their order."""

    def moved(self, weights: Tensor) -> None:
        """Note weights [n] that were moved, which are to be the same in all shards."""


_here = threading.local()


@contextlib.contextmanager
def learning_with(others: Together) -> Iterator[None]:
    """Learn as one of several shards inside this context, in this thread."""
    before = getattr(_here, "others", None)
    _here.others = others
    try:
        yield
    finally:
        _here.others = before


def number() -> int:
    """How many shards learn together, S."""
    others: Together | None = getattr(_here, "others", None)
    return 1 if others is None else others.number


def gather(value: Tensor) -> Tensor:
    """The tensors of all shards, which have the same shape [...], as [S, ...]."""
    others: Together | None = getattr(_here, "others", None)
    return value[None] if others is None else others.gather(value)


def total(value: Tensor) -> Tensor:
    """The sum over the shards, in their order, of tensors of the same shape."""
    if number() == 1:
        return value
    first, *rest = gather(value).unbind()
    first = first.clone()
    for other in rest:
        first += other
    return first


def mean(value: Tensor, weight: float = 1.0) -> Tensor:
    """The mean over the shards of tensors of the same shape, each of which has a weight of its own."""
    return value if number() == 1 else total(value * weight) / number()


def least(count: int) -> int:
    """The smallest of the shards' numbers."""
    return count if number() == 1 else int(gather(torch.tensor(count)).min())


def total_count(count: int) -> int:
    """The sum of the shards' numbers."""
    return count if number() == 1 else int(gather(torch.tensor(count)).sum())


def weight(rows: int) -> float:
    """The weight of a mean over this shard's rows beside those of the others: 1 where all have as many."""
    return 1.0 if number() == 1 else rows * number() / max(total_count(rows), 1)


def moved(weights: Tensor) -> None:
    """Say that an agent moves weights [n]; they are compared with the other shards' after each iteration."""
    others: Together | None = getattr(_here, "others", None)
    if others is not None:
        others.moved(weights)


def mean_gradient(gradient: Tensor, weights: Tensor) -> None:
    """Replace a gradient [n] of the weights [n] by its mean over the shards, in place."""
    others: Together | None = getattr(_here, "others", None)
    if others is not None:
        gradient.copy_(total(gradient).div_(others.number))
        others.moved(weights)


def mean_and_deviation(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased standard deviation of the values [N] of all shards, tensors []."""
    if number() == 1:
        return values.mean(), values.std()
    seen = values.double()
    average = seen.mean() if len(seen) else seen.new_zeros(())
    parts = torch.stack([seen.new_tensor(float(len(seen))), average, (seen - average).square().sum()])
    count = mean = square = seen.new_zeros(())
    for n, other, spread in gather(parts).unbind():  # Chan, Golub and LeVeque 1979
        both, delta = (count + n).clamp(min=1), other - mean
        square = square + spread + delta**2 * count * n / both
        mean, count = mean + delta * n / both, count + n
    return mean.to(values.dtype), (square / (count - 1).clamp(min=1)).sqrt().to(values.dtype)
