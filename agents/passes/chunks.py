"""Gradients of a minibatch that is taken in chunks: on several cores where that is faster, and always summed in order.

A wide minibatch passes through a network in chunks that fit a core's cache. Their gradients do not depend on each
other, so threads compute them side by side (torch's operations run without Python's lock); they are then added in the
order of the rows, one after another, as one core does it. The sum is therefore the same, bit for bit, for any number of
cores. Whether several are faster is measured all the time (:class:`~mlbits.envs.engine.multicore.CoreChoice`): under
load, and on one core, chunks are taken one by one.

Example:
    >>> weight = torch.nn.Parameter(torch.ones(1))
    >>> weight.grad = torch.zeros(1)
    >>> Chunks().backward([weight], [lambda: ((2 * weight).sum(), "a"), lambda: ((3 * weight).sum(), "b")])
    ['a', 'b']
    >>> weight.grad.item()
    5.0
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

from mlbits.agents.kernels import shards
from mlbits.envs.engine.multicore import CoreChoice, usable_cores

# The loss of a chunk, and something else that is known about it.
Loss = Callable[[], tuple[Tensor, Any]]
Metrics = dict[str, Tensor]


class _Threads:
    """The threads of this process for chunks, started when they are first needed."""

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        """In a child process, too: the parent's threads do not exist there."""
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    def run(self, work: Callable[[], None], count: int) -> None:
        """Call ``work`` in this thread and in ``count`` - 1 others at once."""
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(usable_cores(), "mlbits-chunks", torch.set_num_threads, (1,))
            others = [self._pool.submit(work) for _ in range(count - 1)]
        try:
            work()
        finally:
            for other in others:
                other.exception()  # waits
        for other in others:
            other.result()


_threads = _Threads()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.after_fork)


class Chunks:
    """Sums gradients over chunks, for one learner.

    Args:
        cores: how many are used; None decides by measurement.
    """

    def __init__(self, cores: int | None = None) -> None:
        self._cores = cores
        self._choice = CoreChoice() if cores is None else None

    def backward(self, parameters: Sequence[nn.Parameter], losses: Sequence[Loss]) -> list[Any]:
        """Add the gradients of the sum of the losses to the parameters' own.

        Args:
            parameters: all that the losses depend on; their ``grad`` is added to in place.
            losses: of the chunks.

        Returns:
            What else each loss gave.
        """
        most = min(self._cores or usable_cores(), len(losses))
        # A learner in shards keeps to one core: more are used by more workers.
        if most == 1 or shards.number() > 1 or torch.get_num_threads() > 1 or not parameters[0].is_cpu:
            return _one_by_one(losses)
        choice, began = self._choice, time.perf_counter()
        several = choice is None or choice.several()
        found = _side_by_side(parameters, losses, most) if several else _one_by_one(losses)
        if choice is not None:
            choice.note(time.perf_counter() - began)
        return found

    def mean_loss(
        self,
        parameters: Sequence[nn.Parameter],
        loss_of: Callable[[slice], tuple[Tensor, Metrics]],
        count: int,
        chunk: int,
        weight: float = 1.0,
    ) -> Metrics:
        """Add the gradient of the mean loss of a minibatch, which is taken in chunks.

        Args:
            parameters: all that the loss depends on; their ``grad`` is added to in place.
            loss_of: for some of the rows, the mean loss and what is measured, tensors by name.
            count: rows of the minibatch.
            chunk: rows of a chunk.
            weight: factor of the loss and of what is measured.

        Returns:
            Means over all rows of what is measured, times the weight.
        """

        def share_of(start: int) -> tuple[Tensor, tuple[float, Metrics]]:
            rows = slice(start, min(start + chunk, count))
            loss, metrics = loss_of(rows)
            share = weight * (rows.stop - rows.start) / count
            return (loss * share if share != 1 else loss), (share, metrics)

        losses = [functools.partial(share_of, start) for start in range(0, count, chunk)]
        total: Metrics = {}
        for share, metrics in self.backward(parameters, losses):
            if share == 1 and len(losses) == 1:
                return metrics
            for name, value in metrics.items():
                total[name] = total.get(name, 0.0) + value * share
        return total


def _one_by_one(losses: Sequence[Loss]) -> list[Any]:
    found = []
    for loss_of in losses:
        loss, also = loss_of()
        loss.backward()
        found.append(also)
    return found


def _side_by_side(parameters: Sequence[nn.Parameter], losses: Sequence[Loss], count: int) -> list[Any]:
    results: list[Any] = [None] * len(losses)
    left = iter(range(len(losses)))

    def work() -> None:
        for k in left:  # each number goes to one thread
            loss, also = losses[k]()
            results[k] = (torch.autograd.grad(loss, parameters, allow_unused=True), also)

    _threads.run(work, count)
    for gradients, _ in results:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                assert parameter.grad is not None
                parameter.grad.add_(gradient)
    return [also for _, also in results]
