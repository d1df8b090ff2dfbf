"""Tanh layers for wide batches on the CPU, with tanh(z) = 2 sigmoid(2 z) - 1 folded into the weights.

How: torch's vectorised ``tanh`` costs 165 ns for a row of 64, ``sigmoid`` 27 ns, a 64 x 64 product 88 ns. With
s = sigmoid(2 z), a layer's output is 2 s - 1, so the next layer's 2 z is 4 s W + 2 (b - the sum of W's rows): the
factors go into the (small) weights. Forward and backward pass are one autograd node, and the memory of gradients is
reused.

Shapes: [N, h] activations; faster from 64 rows on.
Gain: 1.4 to 1.6 times the speed of a PPO update on 4,096 rows through two layers of 64.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mlbits.agents.kernels.layers import Layers

FEWEST_ROWS = 64  # below this the folding costs more than it saves


def folded_tanh(doubled: Tensor, layers: Layers) -> Tensor:
    """Outputs [N, out] of tanh layers; differentiable.

    Args:
        doubled: twice the first layer's pre-activation, [N, h].
        layers: the parameters; those of the first layer are not used.
    """
    after_first = (*layers.weights, *layers.biases[1:], layers.head, layers.head_bias)
    return _FoldedTanh.apply(doubled, *after_first)  # type: ignore[no-untyped-call]


class _FoldedTanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, doubled: Tensor, *weights: Tensor) -> Tensor:
        """Outputs [N, out] from the doubled first pre-activation [N, h] and (W..., b..., head weight, head bias)."""
        layers = (len(weights) - 2) // 2
        inner, biases, head, head_bias = weights[:layers], weights[layers:-2], weights[-2], weights[-1]
        hidden = [torch.sigmoid(doubled)]
        for weight, bias in zip(inner, biases, strict=True):
            hidden.append(torch.addmm(2 * (bias - weight.sum(0)), hidden[-1], 4 * weight).sigmoid_())
        ctx.save_for_backward(*hidden, *inner, head)
        return F.linear(hidden[-1], 2 * head, head_bias - head.sum(1))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        """Gradients in the order of the arguments."""
        saved, grad = ctx.saved_tensors, grads[0]
        layers = len(saved) // 2 - 1
        hidden, inner, head = saved[: layers + 1], saved[layers + 1 : -1], saved[-1]
        head_bias = grad.sum(0)
        head_weight = (grad.t() @ hidden[-1]).mul_(2).sub_(head_bias[:, None])
        weights, biases = [], []
        back = grad @ (2 * head)
        for layer in range(layers - 1, -1, -1):
            torch.ops.aten.sigmoid_backward.grad_input(back, hidden[layer + 1], grad_input=back)
            bias = back.sum(0).mul_(2)
            weights.append((hidden[layer].t() @ back).mul_(4).sub_(bias))
            biases.append(bias)
            back = back @ (4 * inner[layer]).t()
        torch.ops.aten.sigmoid_backward.grad_input(back, hidden[0], grad_input=back)
        return (back, *reversed(weights), *reversed(biases), head_weight, head_bias)
