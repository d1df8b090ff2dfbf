"""The operations between products in bfloat16: narrow first layers and heads, biases, ReLUs, gradients, rounding.

How: on the CPU each function is one compiled pass over memory, where torch would take a dozen operations over memory
that no longer fits in the nearest cache. On a GPU they are torch operations, and tests compare the two.

Shapes: activations and their gradients are bfloat16 [N, h]; everything else is float32.
Gain: 1.3 times the speed of torch's operations in a whole update (see :mod:`~mlbits.agents.kernels.bfloat16_mlp`).

Example:
    >>> import torch
    >>> z, bias = Block(torch.tensor([[-1.0, 1.0]]).bfloat16()), Block(torch.tensor([0.5, 0.00390625]))
    >>> middle(z, bias)
    >>> z.tensor
    tensor([[0., 1.]], dtype=torch.bfloat16)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlbits.envs.engine.kernel_cache import njit

# Up to these numbers of inputs and of outputs the loops here are faster on a CPU than torch's operations.
_NARROW_INPUT, _NARROW_HEAD = 64, 8


class Block:
    """A contiguous tensor and, on the CPU, a NumPy view of its memory for Numba, made only once.

    Attributes:
        tensor: float32 or bfloat16.
        array: float32, or uint16 for the bits of bfloat16; None on a GPU.
    """

    __slots__ = ("array", "tensor")

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.detach() if tensor.requires_grad else tensor
        bits = self.tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else self.tensor
        self.array: Any = bits.numpy() if tensor.is_cpu else None


def first(x: Block, weight: Block, bias: Block, out: Block) -> None:
    """The first layer, max(x W + b, 0).

    Args:
        x: float32 [N, d].
        weight: float32 [d, h].
        bias: float32 [h].
        out: bfloat16 [N, h].
    """
    if out.array is None or weight.tensor.shape[0] > _NARROW_INPUT:
        out.tensor.copy_(torch.addmm(bias.tensor, x.tensor, weight.tensor).relu_())
    else:
        _first(x.array, weight.array, bias.array, out.array)


def middle(z: Block, bias: Block) -> None:
    """The bias and ReLU of a layer between, max(z + b, 0), in place.

    Args:
        z: bfloat16 [N, h].
        bias: float32 [h].
    """
    if z.array is None:
        z.tensor.copy_((z.tensor + bias.tensor).relu_())
    else:
        _middle(z.array, bias.array)


def last(z: Block, bias: Block, head: Block, head_bias: Block, out: Block) -> None:
    """The last hidden layer h = max(z + b, 0), in place, and the head's h W^T + b from h before rounding.

    Args:
        z: bfloat16 [N, h].
        bias: float32 [h].
        head: float32 [k, h].
        head_bias: float32 [k].
        out: float32 [N, k].
    """
    if z.array is None or head.tensor.shape[0] > _NARROW_HEAD:
        hidden = (z.tensor + bias.tensor).relu_()
        z.tensor.copy_(hidden)
        torch.addmm(head_bias.tensor, hidden, head.tensor.t(), out=out.tensor)
    else:
        _last(z.array, bias.array, head.array, head_bias.array, out.array)


def last_backward(
    grad: Block, head: Block, hidden: Block, out: Block, total: Block, head_grad: Block, head_total: Block
) -> None:
    """From the gradient of the head's output to that before the last ReLU, and those of W and of both biases.

    Args:
        grad: float32 [N, k].
        head: float32 [k, h].
        hidden: h from :func:`last`, bfloat16 [N, h].
        out: bfloat16 [N, h].
        total: of the layer's bias, float32 [h].
        head_grad: float32 [k, h].
        head_total: of the head's bias, float32 [k].
    """
    if hidden.array is None or head.tensor.shape[0] > _NARROW_HEAD:
        back = (grad.tensor @ head.tensor).masked_fill_(hidden.tensor == 0, 0.0)
        torch.sum(back, 0, out=total.tensor)
        out.tensor.copy_(back)
        torch.mm(grad.tensor.t(), hidden.tensor.float(), out=head_grad.tensor)
        torch.sum(grad.tensor, 0, out=head_total.tensor)
    else:
        arrays = hidden.array, out.array, total.array, head_grad.array, head_total.array
        _last_backward(grad.array, head.array, *arrays)


def middle_backward(grad: Block, hidden: Block, total: Block) -> None:
    """Back-propagate a gradient through a ReLU, in place, and sum it over rows.

    Args:
        grad: bfloat16 [N, h].
        hidden: the ReLU's output, bfloat16 [N, h].
        total: float32 [h].
    """
    if grad.array is None:
        grad.tensor.masked_fill_(hidden.tensor == 0, 0.0)
        torch.sum(grad.tensor.float(), 0, out=total.tensor)
    else:
        _middle_backward(grad.array, hidden.array, total.array)


def first_backward(grad: Block, hidden: Block, x: Block, weight_grad: Block, total: Block) -> None:
    """From the gradient of :func:`first`'s output to those of W and b.

    Args:
        grad: bfloat16 [N, h].
        hidden: the ReLU's output, bfloat16 [N, h].
        x: float32 [N, d].
        weight_grad: float32 [d, h].
        total: of the bias, float32 [h].
    """
    if grad.array is None or weight_grad.tensor.shape[0] > _NARROW_INPUT:
        back = grad.tensor.float().masked_fill_(hidden.tensor == 0, 0.0)
        torch.sum(back, 0, out=total.tensor)
        torch.mm(x.tensor.t(), back, out=weight_grad.tensor)
    else:
        _first_backward(grad.array, hidden.array, x.array, weight_grad.array, total.array)


def first_inputs(grad: Block, hidden: Block, weight: Block, out: Block) -> None:
    """From the gradient of :func:`first`'s output to those of some of its inputs.

    Args:
        grad: bfloat16 [N, h].
        hidden: the ReLU's output, bfloat16 [N, h].
        weight: those inputs' rows of W, float32 [k, h].
        out: float32 [N, k].
    """
    if grad.array is None or weight.tensor.shape[0] > _NARROW_INPUT:
        back = grad.tensor.float().masked_fill_(hidden.tensor == 0, 0.0)
        torch.mm(back, weight.tensor.t(), out=out.tensor)
    else:
        _first_inputs(grad.array, hidden.array, weight.array, out.array)


def narrow(vector: Block, out: Block) -> None:
    """Round float32 to bfloat16, both of the same shape."""
    if out.array is None:
        out.tensor.copy_(vector.tensor)
    else:
        _narrow(vector.array.reshape(-1), out.array.reshape(-1))


def widen(vector: Block, out: Block) -> None:
    """Copy bfloat16 to float32, both of the same shape."""
    if out.array is None:
        out.tensor.copy_(vector.tensor)
    else:
        _widen(vector.array.reshape(-1), out.array.reshape(-1))


# A bfloat16 is the upper half of a float32; rounding to the nearest (ties to even) is an addition before truncation.
# Comparisons are written so that NaN, for which all are false, propagates. The loops over a row are short and separate,
# so that the compiler can vectorise them; sums over a row may be computed in any order ("reassoc").


@njit(cache=True)
def rounded(bits: Any) -> Any:
    """The bits of a float32 (uint32) rounded to those of a bfloat16 (uint16)."""
    return np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))


@njit(cache=True, fastmath={"contract"})
def _first(x: Any, weight: Any, bias: Any, out: Any) -> None:
    inputs, width = weight.shape
    z = np.empty(width, np.float32)
    bits = z.view(np.uint32)
    for row in range(len(x)):
        for j in range(width):
            z[j] = bias[j]
        for group in range(inputs // 4):
            i = 4 * group
            a, b, c, d = x[row, i], x[row, i + 1], x[row, i + 2], x[row, i + 3]
            for j in range(width):
                z[j] += a * weight[i, j] + b * weight[i + 1, j] + c * weight[i + 2, j] + d * weight[i + 3, j]
        for i in range(inputs // 4 * 4, inputs):
            a = x[row, i]
            for j in range(width):
                z[j] += a * weight[i, j]
        for j in range(width):
            out[row, j] = rounded(np.uint32(0) if z[j] <= 0 else bits[j])


@njit(cache=True)
def _middle(z: Any, bias: Any) -> None:
    hidden = np.empty_like(bias)
    bits = hidden.view(np.uint32)
    for row in range(len(z)):
        for j in range(len(bias)):
            bits[j] = np.uint32(z[row, j]) << np.uint32(16)
        for j in range(len(bias)):
            total = hidden[j] + bias[j]
            hidden[j] = np.float32(0) if total <= 0 else total
        for j in range(len(bias)):
            z[row, j] = rounded(bits[j])


@njit(cache=True, fastmath={"contract", "reassoc"})
def _last(z: Any, bias: Any, head: Any, head_bias: Any, out: Any) -> None:
    hidden = np.empty_like(bias)
    bits = hidden.view(np.uint32)
    for row in range(len(z)):
        for j in range(len(bias)):
            bits[j] = np.uint32(z[row, j]) << np.uint32(16)
        for j in range(len(bias)):
            total = hidden[j] + bias[j]
            hidden[j] = np.float32(0) if total <= 0 else total
        for j in range(len(bias)):
            z[row, j] = rounded(bits[j])
        for k in range(len(head)):
            value = np.float32(0)
            for j in range(len(bias)):
                value += head[k, j] * hidden[j]
            out[row, k] = value + head_bias[k]


@njit(cache=True, fastmath={"contract"})
def _last_backward(grad: Any, head: Any, hidden: Any, out: Any, total: Any, head_grad: Any, head_total: Any) -> None:
    outputs, width = head.shape
    total[:] = 0
    head_grad[:] = 0
    head_total[:] = 0
    past, value = np.empty((4, width), np.float32), np.empty((4, width), np.float32)
    bits, value_bits = past.view(np.uint32), value.view(np.uint32)
    for block in range((len(grad) + 3) // 4):  # sums over four rows at a time: fewer passes over memory
        past[:] = 0
        value[:] = 0
        for r in range(min(4, len(grad) - 4 * block)):
            row = 4 * block + r
            for k in range(outputs):
                error = grad[row, k]
                head_total[k] += error
                for j in range(width):
                    past[r, j] += error * head[k, j]
            for j in range(width):
                value_bits[r, j] = np.uint32(hidden[row, j]) << np.uint32(16)
                past[r, j] = np.float32(0) if hidden[row, j] == 0 else past[r, j]
            for j in range(width):
                out[row, j] = rounded(bits[r, j])
        for j in range(width):
            total[j] += (past[0, j] + past[1, j]) + (past[2, j] + past[3, j])
        _add_four(grad, 4 * block, value, head_grad)


@njit(cache=True, fastmath={"contract"})
def _add_four(left: Any, row: Any, right: Any, out: Any) -> None:
    """Add the outer products of four rows of ``left``, from ``row`` on (fewer at the end), with those of ``right``."""
    last = len(left) - 1
    for i in range(len(out)):
        a, b = left[row, i], left[min(row + 1, last), i]
        c, d = left[min(row + 2, last), i], left[min(row + 3, last), i]
        for j in range(out.shape[1]):  # beyond the end the right factor is 0
            out[i, j] += (a * right[0, j] + b * right[1, j]) + (c * right[2, j] + d * right[3, j])


@njit(cache=True)
def _middle_backward(grad: Any, hidden: Any, total: Any) -> None:
    total[:] = 0
    past = np.empty_like(total)
    bits = past.view(np.uint32)
    for row in range(len(grad)):
        for j in range(len(total)):
            bits[j] = np.uint32(0) if hidden[row, j] == 0 else np.uint32(grad[row, j]) << np.uint32(16)
            grad[row, j] = np.uint16(0) if hidden[row, j] == 0 else grad[row, j]
        for j in range(len(total)):
            total[j] += past[j]


@njit(cache=True, fastmath={"contract"})
def _first_backward(grad: Any, hidden: Any, x: Any, weight_grad: Any, total: Any) -> None:
    width = len(total)
    total[:] = 0
    weight_grad[:] = 0
    past = np.empty((4, width), np.float32)
    bits = past.view(np.uint32)
    for block in range((len(grad) + 3) // 4):
        past[:] = 0
        for r in range(min(4, len(grad) - 4 * block)):
            row = 4 * block + r
            for j in range(width):
                bits[r, j] = np.uint32(0) if hidden[row, j] == 0 else np.uint32(grad[row, j]) << np.uint32(16)
        for j in range(width):
            total[j] += (past[0, j] + past[1, j]) + (past[2, j] + past[3, j])
        _add_four(x, 4 * block, past, weight_grad)


@njit(cache=True, fastmath={"contract", "reassoc"})
def _first_inputs(grad: Any, hidden: Any, weight: Any, out: Any) -> None:
    width = weight.shape[1]
    past = np.empty(width, np.float32)
    bits = past.view(np.uint32)
    for row in range(len(grad)):
        for j in range(width):
            bits[j] = np.uint32(0) if hidden[row, j] == 0 else np.uint32(grad[row, j]) << np.uint32(16)
        for k in range(len(weight)):
            value = np.float32(0)
            for j in range(width):
                value += weight[k, j] * past[j]
            out[row, k] = value


@njit(cache=True)
def _narrow(vector: Any, out: Any) -> None:
    bits = vector.view(np.uint32)
    for k in range(len(bits)):
        out[k] = rounded(bits[k])


@njit(cache=True)
def _widen(vector: Any, out: Any) -> None:
    bits = out.view(np.uint32)
    for k in range(len(bits)):
        bits[k] = np.uint32(vector[k]) << np.uint32(16)
