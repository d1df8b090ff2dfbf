"""The ReLU layers of an MLP in one operation of autograd, with the backward pass written out.

How: the products are those of the plain code. Left out is what autograd adds between them for every layer: a node, a
new tensor for each gradient of an activation, and a pass over it for ReLU's derivative. Activations are clipped in
place, and their gradients are set to 0 where the activation is 0.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mlbits.agents.kernels.layers import Layers


def relu_passes(first: Tensor, layers: Layers) -> Tensor:
    """The output [N, out] of an MLP with ReLU layers.

    Args:
        first: the pre-activation of the first layer, [N, h_1]; overwritten.
        layers: the parameters; of the first layer they are in ``first`` already.
    """
    out: Tensor = _ReLULayers.apply(first, layers.head, layers.head_bias, *layers.weights, *layers.biases[1:])
    return out


class _ReLULayers(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, first: Tensor, head: Tensor, head_bias: Tensor, *inner: Tensor) -> Tensor:  # type: ignore[override]
        """[N, out]."""
        count = len(inner) // 2
        hidden = [first.relu_()]
        for weight, bias in zip(inner[:count], inner[count:], strict=True):
            hidden.append(torch.addmm(bias, hidden[-1], weight).relu_())
        ctx.save_for_backward(head, *inner[:count], *hidden)
        return F.linear(hidden[-1], head, head_bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        """Gradients of ``first``, head, its bias, weights and biases."""
        head, *rest = ctx.saved_tensors
        count = (len(rest) - 1) // 2
        weights, hidden = rest[:count], rest[count:]
        wanted = ctx.needs_input_grad[1]
        head_grads = (grad.t() @ hidden[-1], grad.sum(0)) if wanted else (None, None)
        below = grad @ head
        of_weights: list[Tensor | None] = []
        of_biases: list[Tensor | None] = []
        for k in range(count, -1, -1):
            torch.ops.aten.threshold_backward.grad_input(below, hidden[k], 0, grad_input=below)
            if k:
                of_weights.insert(0, hidden[k - 1].t() @ below if wanted else None)
                of_biases.insert(0, below.sum(0) if wanted else None)
                below = below @ weights[k - 1].t()
        return below, *head_grads, *of_weights, *of_biases
