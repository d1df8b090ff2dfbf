"""Adam with gradient clipping over one flat vector: the parameters of a small network, updated in four operations.

The parameters become views of one vector and their gradients views of another, so that zeroing, clipping and Adam each
are one operation in place of one a tensor. The sums are those of ``torch.optim.Adam`` and ``clip_grad_norm_``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class FlatAdam:
    """Adam (Kingma and Ba 2015) over some parameters.

    Args:
        parameters: moved, in place, into one vector; each belongs to one FlatAdam at most.
        learning_rate: step size.
        max_grad_norm: the gradient's L2 norm is clipped to this.
        eps: Adam's epsilon.

    Attributes:
        learning_rate: may be set anew before any step.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], learning_rate: float, max_grad_norm: float, eps: float = 1e-5
    ) -> None:
        parameters = list(parameters)
        sizes = [p.numel() for p in parameters]
        self._flat = torch.cat([p.detach().reshape(-1) for p in parameters]).requires_grad_()
        self._grad = torch.zeros_like(self._flat)
        self._flat.grad = self._grad
        views = zip(self._flat.detach().split(sizes), self._grad.split(sizes), strict=True)
        for parameter, (value, grad) in zip(parameters, views, strict=True):
            parameter.data = value.view_as(parameter)
            parameter.grad = grad.view_as(parameter)
        self._adam = torch.optim.Adam([self._flat], lr=learning_rate, eps=eps, fused=True)
        self.max_grad_norm = max_grad_norm

    @property
    def learning_rate(self) -> float:
        """The present step size."""
        return float(self._adam.param_groups[0]["lr"])

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._adam.param_groups[0]["lr"] = value

    def zero_grad(self) -> None:
        """Set all gradients to zero."""
        self._grad.zero_()

    def step(self) -> Tensor:
        """Clip and update; returns the gradient's norm before clipping, a tensor []."""
        norm = torch.linalg.vector_norm(self._grad)
        self._grad.mul_(torch.clamp(self.max_grad_norm / (norm + 1e-6), max=1.0))
        self._adam.step()
        return norm

    def state_dict(self) -> dict[str, Tensor]:
        """Adam's two moments and step count, as tensors."""
        state: dict[Any, Any] = self._adam.state.get(self._flat, {})
        if not state:
            zero = torch.zeros_like(self._grad)
            return {"exp_avg": zero, "exp_avg_sq": zero.clone(), "step": torch.zeros(())}
        return {name: state[name] for name in ("exp_avg", "exp_avg_sq", "step")}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from saved moments."""
        if float(state["step"]) == 0:
            self._adam.state.pop(self._flat, None)
            return
        device = self._grad.device
        self._adam.state[self._flat] = {
            "exp_avg": state["exp_avg"].clone().to(device),
            "exp_avg_sq": state["exp_avg_sq"].clone().to(device),
            "step": state["step"].clone().to(device),
        }
