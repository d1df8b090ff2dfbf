"""Forward pass, Jacobian-vector and vector-Jacobian products of tanh layers, without autograd.

How: at the sizes of control problems autograd's bookkeeping takes more time than the arithmetic, and a Jacobian-vector
product by autograd takes two backward passes. Here the forward pass keeps the activations, and each product is one pass
over the layers (Pearlmutter 1994).

Shapes: [N, out] outputs; tangents and gradients in the shapes of the parameters.
Gain: a gradient of 128 rows through two layers of 64 takes 165 us this way and 370 us by autograd; a Fisher-vector
product of 1,024 rows 0.67 ms and 1.5 ms. Checked against autograd in tests.

Example:
    >>> import torch
    >>> from mlbits.agents.kernels.layers import Layers
    >>> table, bias, head = torch.zeros(3, 4), torch.zeros(4), torch.ones(1, 4)
    >>> layers = Layers((True,), (table,), (), (bias,), head, torch.zeros(1))
    >>> passes = TanhMLPPasses(layers, [torch.tensor([[0], [2]])])
    >>> gradient = {parameter: torch.zeros_like(parameter) for parameter in (table, bias, head, layers.head_bias)}
    >>> _ = passes.vjp(torch.ones(2, 1), gradient)
    >>> gradient[layers.head_bias].tolist()
    [2.0]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mlbits.agents.kernels.layers import Layers


class TanhMLPPasses:
    """Tanh layers evaluated at N rows; their parameters must not change while this object is used.

    Args:
        layers: the parameters.
        parts: the input parts of N rows.

    Attributes:
        out: the outputs, [N, out].
    """

    @torch.no_grad()
    def __init__(self, layers: Layers, parts: Sequence[Tensor]) -> None:
        self._layers, self._parts = layers, parts
        self._tables, self._weights, self._biases = layers.tables, layers.weights, layers.biases
        total: Tensor = self._biases[0]
        for part, table, is_index in zip(parts, self._tables, layers.is_index, strict=True):
            total = total + F.embedding(part, table).sum(1) if is_index else torch.addmm(total, part, table)
        self._hidden = [_tanh(total)]
        for weight, bias in zip(self._weights, self._biases[1:], strict=True):
            self._hidden.append(_tanh(torch.addmm(bias, self._hidden[-1], weight)))
        self.out = torch.addmm(layers.head_bias, self._hidden[-1], layers.head.t())

    @torch.no_grad()
    def jvp(self, tangents: Mapping[Any, Tensor], part_tangents: Mapping[int, Tensor] | None = None) -> Tensor:
        """The Jacobian-vector product J v, [N, out].

        Args:
            tangents: v, a tensor for each parameter.
            part_tangents: tangents of input parts, by index; parts without one are constant.
        """
        layers = self._layers
        change = tangents[self._biases[0]]
        for k, (part, table) in enumerate(zip(self._parts, self._tables, strict=True)):
            if layers.is_index[k]:
                change = change + F.embedding(part, tangents[table]).sum(1)
            else:
                change = torch.addmm(change, part, tangents[table])
            if part_tangents and k in part_tangents:
                change = torch.addmm(change, part_tangents[k], table)
        for k, (weight, bias) in enumerate(zip(self._weights, self._biases[1:], strict=True)):
            before = torch.addmm(tangents[bias], self._hidden[k], tangents[weight])
            change = before.addmm_(self._through(change, k), weight)
        out = torch.addmm(tangents[layers.head_bias], self._hidden[-1], tangents[layers.head].t())
        return out.addmm_(self._through(change, -1), layers.head.t())

    @torch.no_grad()
    def vjp(self, grad: Tensor, into: Mapping[Any, Tensor], parts: Sequence[int] = ()) -> list[Tensor]:
        """The vector-Jacobian product J^T u, added to the tensors in ``into``.

        Args:
            grad: u, a gradient of the outputs, [N, out].
            into: a tensor for each parameter.
            parts: indices of the input parts whose gradients to return.

        Returns:
            The gradients of those parts.
        """
        layers, hidden = self._layers, self._hidden
        into[layers.head_bias].add_(grad.sum(0))
        into[layers.head].addmm_(grad.t(), hidden[-1])
        back = self._through(grad @ layers.head, -1)
        for k in range(len(self._weights) - 1, -1, -1):
            into[self._biases[k + 1]].add_(back.sum(0))
            into[self._weights[k]].addmm_(hidden[k].t(), back)
            back = self._through(back @ self._weights[k].t(), k)
        into[self._biases[0]].add_(back.sum(0))
        for part, table, is_index in zip(self._parts, self._tables, self._layers.is_index, strict=True):
            if is_index:
                for column in part.unbind(1):
                    into[table].index_add_(0, column, back)
            else:
                into[table].addmm_(part.t(), back)
        return [back @ self._tables[k].t() for k in parts]

    def _through(self, change: Tensor, layer: int) -> Tensor:
        """A tangent or gradient [N, h] through the tanh of a layer, in place: multiplied by 1 - tanh^2."""
        return torch.ops.aten.tanh_backward.grad_input(change, self._hidden[layer], grad_input=change)


def _tanh(z: Tensor) -> Tensor:
    """tanh(z) = 2 sigmoid(2 z) - 1, in place: on a CPU a third of the time of torch's own (see ``folded_tanh``)."""
    return z.mul_(2).sigmoid_().mul_(2).sub_(1)
