"""Adam with gradient clipping over one flat vector: the parameters of a small network, updated in a few operations.

The parameters become views of one vector and their gradients views of another, so that zeroing, clipping and Adam are a
handful of operations in all in place of as many a tensor, and Adam one pass over memory: the operation behind
``torch.optim.Adam(fused=True)``. The arithmetic is that of ``torch.optim.Adam`` and ``clip_grad_norm_`` (tested against
them). Not torch's own class, because making one imports torch's compiler: a CPU-second at the start of every run, as
much as learning CartPole takes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def flatten(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Move parameters, in place, into one vector, of which they become views; returns the vector."""
    parameters = list(parameters)
    flat = torch.cat([p.detach().reshape(-1) for p in parameters])
    for parameter, value in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.data = value.view_as(parameter)
    return flat


class FlatAdam:
    """Adam (Kingma and Ba 2015, algorithm 1) over some parameters.

    Args:
        parameters: moved, in place, into one vector; each belongs to one FlatAdam at most.
        learning_rate: step size.
        max_grad_norm: the gradient's L2 norm is clipped to this; ``math.inf`` leaves it.
        eps: Adam's epsilon.
        betas: decay of the first and second moment.

    Attributes:
        learning_rate: may be set anew before any step.
        flat: the parameters as one vector.
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
    ) -> None:
        self._parameters = parameters = list(parameters)
        self.flat = flatten(parameters)
        self._grad = torch.zeros_like(self.flat)
        for parameter, grad in zip(parameters, self._grad.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = grad.view_as(parameter)
        self.learning_rate, self.max_grad_norm = learning_rate, max_grad_norm
        self.eps, self.betas = eps, betas
        self._steps = torch.zeros((), device=self.flat.device)
        self._first, self._second = torch.zeros_like(self.flat), torch.zeros_like(self.flat)

    def __deepcopy__(self, memo: dict[int, Any]) -> FlatAdam:
        # Copied one by one, parameters and gradients would be views of nothing, and every step without effect.
        parameters = copy.deepcopy(self._parameters, memo)
        made = FlatAdam(parameters, self.learning_rate, self.max_grad_norm, self.eps, self.betas)
        made.load_state_dict(self.state_dict())
        return made

    @property
    def memory(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What a step reads and writes besides ``flat``: gradient, first and second moment, number of steps []."""
        return self._grad, self._first, self._second, self._steps

    def zero_grad(self) -> None:
        """Set all gradients to zero."""
        self._grad.zero_()

    @torch.no_grad()
    def step(self) -> Tensor:
        """Clip and update; returns the gradient's norm before clipping, a tensor []."""
        norm = torch.linalg.vector_norm(self._grad)
        if self.max_grad_norm != math.inf:
            self._grad.mul_(torch.clamp(self.max_grad_norm / (norm + 1e-6), max=1.0))
        self._steps += 1
        torch._fused_adam_(
            [self.flat], [self._grad], [self._first], [self._second], [], [self._steps],
            lr=self.learning_rate, beta1=self.betas[0], beta2=self.betas[1], weight_decay=0.0, eps=self.eps,
            amsgrad=False, maximize=False,
        )  # fmt: skip
        return norm

    def state_dict(self) -> dict[str, Tensor]:
        """The two moments and the number of steps, as tensors."""
        return {"first": self._first, "second": self._second, "steps": self._steps}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from saved moments."""
        self._first.copy_(state["first"])
        self._second.copy_(state["second"])
        self._steps.copy_(state["steps"])
