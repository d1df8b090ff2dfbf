"""Adam whose update of each weight is clipped before the learning rate, as DiscoRL's agents are trained.

The gradient itself is not clipped: m^ / (sqrt(v^) + eps) is, to +-``max_update`` (Kingma and Ba 2015, algorithm 1, with
one more line).

Example:
    >>> weight = torch.nn.Parameter(torch.zeros(1))
    >>> adam = ClippedAdam([weight], max_update=0.5)
    >>> adam.learning_rate = 0.1
    >>> weight.sum().backward()
    >>> adam.step().item(), round(weight.item(), 6)
    (1.0, -0.05)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

BETAS, EPS = (0.9, 0.999), 1e-8


class ClippedAdam:
    """Adam over a list of parameters.

    Args:
        parameters: what it moves.
        max_update: the largest size of an update, before the learning rate.

    Attributes:
        learning_rate: may be changed before any step.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], max_update: float) -> None:
        self._parameters, self.max_update, self.learning_rate = list(parameters), max_update, 0.0
        self._first = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._second = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._steps = 0

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> Tensor:
        """Move the parameters; returns the gradient's norm, []."""
        self._steps += 1
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters]
        one, two = (1 - beta**self._steps for beta in BETAS)
        for parameter, grad, first, second in zip(self._parameters, grads, self._first, self._second, strict=True):
            first.lerp_(grad, 1 - BETAS[0])
            second.lerp_(grad.square(), 1 - BETAS[1])
            update = (first / one) / ((second / two).sqrt_().add_(EPS))
            parameter.sub_(update.clamp_(-self.max_update, self.max_update), alpha=self.learning_rate)
        return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(grad) for grad in grads]))

    def state_dict(self) -> dict[str, Tensor]:
        """The moments and the number of steps."""
        moments = {f"first.{k}": part for k, part in enumerate(self._first)}
        moments |= {f"second.{k}": part for k, part in enumerate(self._second)}
        return moments | {"steps": torch.tensor(self._steps)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore saved moments and the number of steps."""
        for name, parts in (("first", self._first), ("second", self._second)):
            for k, part in enumerate(parts):
                part.copy_(state[f"{name}.{k}"])
        self._steps = int(state["steps"])
