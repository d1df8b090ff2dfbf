"""Adam with gradient clipping over one flat vector, and updates of a target network.

How: the parameters become views of one vector and their gradients views of another, so that zeroing, clipping and Adam
take a few operations in all instead of a few per tensor; Adam is the operation behind ``torch.optim.Adam(fused=True)``.
The arithmetic is that of ``torch.optim.Adam`` and ``clip_grad_norm_`` (tested against them). Torch's own class is not
used, because making one imports torch's compiler: a CPU-second at the start of every run, as much as learning CartPole
takes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mlbits.agents.kernels import shards

_PAGE = 4096  # bytes


class Vectors(NamedTuple):
    """The tensors that a step reads and writes: all [n], except the number of steps [].

    Attributes:
        flat: the parameters.
        grad: their gradient.
        first: the first moment.
        second: the second moment.
        target: the target network's parameters; empty without a target network.
        steps: number of steps so far.
    """

    flat: Tensor
    grad: Tensor
    first: Tensor
    second: Tensor
    target: Tensor
    steps: Tensor


class FlatAdam:
    """Adam (Kingma and Ba 2015, algorithm 1).

    Args:
        parameters: become views of one vector, in place; a parameter belongs to at most one FlatAdam.
        learning_rate: step size.
        max_grad_norm: the gradient's L2 norm is clipped to this; ``math.inf`` for no clipping.
        eps: Adam's epsilon.
        betas: decay of the first and second moment.
        target: the parameters of a target network, in the same order; they become views too.

    Attributes:
        learning_rate: may be changed before any step; in a graph it is a tensor [], of which the graph reads what is in
            it at the time.
        vectors: the tensors that a step reads and writes.
        eps: Adam's epsilon.
        betas: decay of the first and second moment.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        learning_rate: float,
        max_grad_norm: float,
        eps: float = 1e-5,
        betas: tuple[float, float] = (0.9, 0.999),
        target: Iterable[nn.Parameter] = (),
    ) -> None:
        self._parameters, self._target = list(parameters), list(target)
        sizes, some = [parameter.numel() for parameter in self._parameters], self._parameters[0].detach()
        flat, grad, first, second, follower = _vectors(5, sum(sizes), some)
        self.vectors = Vectors(flat, grad, first, second, follower if self._target else follower[:0],
                               torch.zeros((), device=some.device))  # fmt: skip
        _move(self._parameters, flat)
        _move(self._target, follower)
        for parameter, part in zip(self._parameters, grad.split(sizes), strict=True):
            parameter.grad = part.view_as(parameter)
        self.learning_rate: Any = learning_rate
        self.max_grad_norm = max_grad_norm
        self.eps, self.betas = eps, betas
        self._unmeasured = torch.full((), math.nan, device=some.device)

    def __deepcopy__(self, memo: dict[int, Any]) -> FlatAdam:
        # Copied one by one, parameters and gradients would not be views of the vectors: steps would have no effect.
        parameters, target = copy.deepcopy(self._parameters, memo), copy.deepcopy(self._target, memo)
        made = FlatAdam(parameters, self.learning_rate, self.max_grad_norm, self.eps, self.betas, target)
        made.load_state_dict(self.state_dict())
        return made

    @property
    def parameters(self) -> Sequence[nn.Parameter]:
        """The parameters, views of one vector."""
        return self._parameters

    @property
    def flat(self) -> Tensor:
        """The parameters as one vector, [n]."""
        return self.vectors.flat

    def zero_grad(self) -> None:
        """Set all gradients to zero."""
        self.vectors.grad.zero_()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """A context in which gradients pass through the network to its inputs, but parameters get none."""
        for parameter in self._parameters:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in self._parameters:
                parameter.requires_grad_(True)

    @torch.no_grad()
    def step(self, *, measured: bool = True) -> Tensor:
        """Clip and update; of a learner in shards (:mod:`~mlbits.agents.kernels.shards`), by their mean gradient.

        Args:
            measured: whether the gradient's norm is wanted.

        Returns:
            The norm before clipping, a tensor []; NaN where nothing is clipped by it and it is not wanted.
        """
        flat, grad, first, second, _, steps = self.vectors
        shards.mean_gradient(grad, flat)
        clips = self.max_grad_norm != math.inf
        norm = torch.linalg.vector_norm(grad) if clips or measured else self._unmeasured
        if clips:
            grad.mul_(torch.clamp(self.max_grad_norm / (norm + 1e-6), max=1.0))
        steps += 1
        torch._fused_adam_(
            [flat], [grad], [first], [second], [], [steps],
            lr=self.learning_rate, beta1=self.betas[0], beta2=self.betas[1], weight_decay=0.0, eps=self.eps,
            amsgrad=False, maximize=False,
        )  # fmt: skip
        return norm

    @torch.no_grad()
    def direction(self) -> Tensor:
        """What the next step would subtract, divided by the learning rate, [n]; nothing is changed."""
        _, grad, first, second, _, steps = self.vectors
        if self.max_grad_norm != math.inf:
            grad = grad * torch.clamp(self.max_grad_norm / (torch.linalg.vector_norm(grad) + 1e-6), max=1.0)
        one, two = (1 - beta ** (float(steps) + 1) for beta in self.betas)
        mean = first.lerp(grad, 1 - self.betas[0]) / one
        square = second.lerp(grad.square(), 1 - self.betas[1]) / two
        return mean / (square.sqrt() + self.eps)

    @torch.no_grad()
    def follow(self, tau: float) -> None:
        """Move the target network a fraction ``tau`` of the way to the network; 1 makes them equal."""
        if tau == 1.0:
            self.vectors.target.copy_(self.vectors.flat)
        else:
            self.vectors.target.lerp_(self.vectors.flat, tau)

    def state_dict(self) -> dict[str, Tensor]:
        """The two moments and the number of steps, as tensors."""
        return {name: getattr(self.vectors, name) for name in ("first", "second", "steps")}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore saved moments and the number of steps."""
        for name, value in self.state_dict().items():
            value.copy_(state[name])


def _vectors(count: int, length: int, like: Tensor) -> Sequence[Tensor]:
    """Zeros [length] that start at different places of a memory page.

    If they did not, a CPU would take a write to one for a write to what it is about to read of another, and wait.
    """
    size = like.element_size()
    room = (-(-size * length // _PAGE) * _PAGE + _PAGE // 8) // size
    return torch.zeros(count, room, dtype=like.dtype, device=like.device)[:, :length].unbind()


def _move(parameters: list[nn.Parameter], vector: Tensor) -> None:
    """Copy parameters to the beginning of a vector, and make them views of it, in place."""
    start = 0
    for parameter in parameters:
        part = vector[start : start + parameter.numel()].view_as(parameter)
        part.copy_(parameter.detach())
        parameter.data = part
        start += parameter.numel()
