"""Compiled Q-learning for small MLPs on the CPU: many updates, one after another, in one call.

How: with two layers of 64, an update in torch is some fifty calls that cost more than the arithmetic; with two of 256
they cost as much as the products. Here the targets, both passes, clipped Adam and the target network's update are loops
and products (:mod:`~mlbits.agents.kernels.small_matrix_products`) of one function compiled by Numba. The arithmetic is
that of ``DQN._update``, with which tests compare it.

Shapes: observations float32 [N, d], one output per action. Inside, activations are stored [width, N], one row per unit.
Gain: 5 times the speed of torch with two layers of 64 and 32 transitions, twice with two of 256 and 128.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlbits.agents.kernels.flat_adam import Vectors
from mlbits.agents.kernels.layers import Layers
from mlbits.agents.kernels.small_matrix_products import add_product
from mlbits.envs.engine.kernel_cache import njit

# Up to this many rows of observations the loops here are faster than torch's products.
_FEW_ROWS = 16
_NO_MASK = np.zeros((0, 0), bool)

Layout = NDArray[np.int64]


def layout(layers: Layers, flat: Tensor) -> Layout:
    """Where an MLP's parameters are in one flat vector, int64 [L, 6], a row per layer.

    Columns: offsets of the weights and of the biases, number of inputs, number of outputs, and the strides of the
    weights along outputs and along inputs.

    Args:
        layers: the parameters, views of ``flat``, with one input part that is a vector.
        flat: [n].
    """
    weights = (*layers.tables, *layers.weights, layers.head)
    rows = []
    for k, (weight, bias) in enumerate(zip(weights, (*layers.biases, layers.head_bias), strict=True)):
        outputs = len(bias)
        inputs = weight.numel() // outputs
        steps = (inputs, 1) if k == len(weights) - 1 else (1, outputs)  # the head is [out, in], all others [in, out]
        starts = (tensor.storage_offset() - flat.storage_offset() for tensor in (weight, bias))
        rows.append((*starts, inputs, outputs, *steps))
    return np.array(rows)


def q_values(layout: Layout, flat: Tensor, obs: Tensor) -> NDArray[np.float32] | None:
    """Q of each action, [N, A], for a few rows of observations [N, d]; None for many, where torch is faster."""
    count = obs.shape[0]
    if count > _FEW_ROWS or obs.dtype != torch.float32:
        return None
    out = np.empty((count, int(layout[-1, 3])), np.float32)
    loop: Any = _values
    loop(layout, flat.numpy(), obs.contiguous().numpy(), out)
    return out


def q_learning(
    layout: Layout,
    vectors: Vectors,
    obs: Tensor,
    action: Tensor,
    reward: Tensor,
    discount: Tensor,
    next_obs: Tensor,
    next_mask: Tensor | None,
    *,
    batch_size: int,
    double: bool,
    updates: int,
    target_every: int,
    tau: float,
    learning_rate: float,
    betas: tuple[float, float],
    eps: float,
    max_grad_norm: float,
) -> dict[str, float]:
    """Make M / ``batch_size`` updates, one after another, each with the next ``batch_size`` of M transitions.

    Args:
        layout: from :func:`layout`.
        vectors: of the optimiser, changed in place.
        obs: [M, d].
        action: int64 [M].
        reward: [M].
        discount: of the value of ``next_obs``, 0 after a terminal state, [M].
        next_obs: [M, d].
        next_mask: legal actions at ``next_obs``, bool [M, A], or None.
        batch_size: transitions per update, N; M is a multiple of it.
        double: whether the network chooses the bootstrap's action, instead of the target network.
        updates: number of updates so far.
        target_every: updates between two updates of the target network.
        tau: fraction of the way to the network that the target network then moves.
        learning_rate: of Adam.
        betas: of Adam.
        eps: of Adam.
        max_grad_norm: gradients are clipped to this L2 norm.

    Returns:
        Loss, mean Q, mean absolute error and gradient norm of the last update.

    Raises:
        ValueError: if M is not a multiple of ``batch_size``.
    """
    if len(reward) % batch_size:
        raise ValueError(f"reward: got {len(reward)} transitions; wanted a multiple of batch_size, {batch_size}")
    mask = _NO_MASK if next_mask is None else next_mask.numpy()
    report = np.empty(4)
    loop: Any = _learn
    loop(
        layout, *(vector.numpy() for vector in vectors),
        obs.numpy(), action.numpy(), reward.numpy(), discount.numpy(), next_obs.numpy(), mask,
        batch_size, updates, target_every, float(tau), double,
        float(learning_rate), *betas, eps, float(max_grad_norm), report,
    )  # fmt: skip
    return dict(zip(("loss", "q", "error", "grad_norm"), report.tolist(), strict=True))


# Sums over a row may be computed in any order. Comparisons are written so that NaN, for which all are False,
# propagates.
_SUMS = {"contract", "reassoc"}


@njit(cache=True)
def _learn(
    layout: Any, flat: Any, grad: Any, first: Any, second: Any, target_flat: Any, steps: Any,
    obs: Any, action: Any, reward: Any, discount: Any, next_obs: Any, next_mask: Any,
    count: Any, updates: Any, target_every: Any, tau: Any, double: Any,
    learning_rate: Any, beta1: Any, beta2: Any, eps: Any, max_grad_norm: Any, report: Any,
) -> None:  # fmt: skip
    widest = max(layout[0, 2], layout[:, 3].max())
    hidden, other = np.empty((len(layout) + 1, widest * count), np.float32), np.empty((2, widest * count), np.float32)
    goal, scale = np.empty(count, np.float32), np.float32(1 / count)
    outputs, last = layout[-1, 3], len(layout)
    for low in range(0, len(reward), count):
        high = low + count
        mask = next_mask[low:high] if len(next_mask) else next_mask
        _forward(layout, target_flat, next_obs[low:high], hidden)
        following = hidden[last, : outputs * count]
        if double:
            following = following.copy()
            _forward(layout, flat, next_obs[low:high], hidden)
        _bootstrap(following, hidden[last], mask, reward[low:high], discount[low:high], goal)
        _forward(layout, flat, obs[low:high], hidden)
        final = low + count >= len(reward)
        if final:
            report[0], report[1], report[2] = _measure(hidden[last], action[low:high], goal)
        out_grad = other[last % 2]
        out_grad[: outputs * count] = 0
        for n in range(count):
            at = action[low + n] * count + n
            error = hidden[last, at] - goal[n]
            error = np.float32(1) if error > 1 else error
            out_grad[at] = (np.float32(-1) if error < -1 else error) * scale
        _backward(layout, flat, grad, hidden, other, count)
        norm = _norm(grad)
        if final:
            report[3] = norm
        steps[()] += 1
        clip = min(1.0, max_grad_norm / (norm + 1e-6)) if norm == norm else norm
        _adam(flat, grad, first, second, steps[()], clip, learning_rate, beta1, beta2, eps)
        updates += 1
        if updates % target_every == 0:
            _follow(target_flat, flat, np.float32(tau))


@njit(cache=True)
def _forward(layout: Any, flat: Any, obs: Any, hidden: Any) -> None:
    """Write the activations of each layer [width, N], flat, to ``hidden``; its row 0 gets the observations."""
    count, width = obs.shape
    for k in range(width):
        for n in range(count):
            hidden[0, k * count + n] = obs[n, k]
    for layer in range(len(layout)):
        weight, bias, inputs, outputs, output_step, input_step = layout[layer]
        out = hidden[layer + 1, : outputs * count]
        for k in range(outputs):
            out[k * count : (k + 1) * count] = flat[bias + k]
        product = flat[weight : weight + inputs * outputs]
        add_product(product, output_step, input_step, hidden[layer], count, 1, out, outputs, count, inputs)
        if layer < len(layout) - 1:
            for k in range(len(out)):
                out[k] = np.float32(0) if out[k] <= 0 else out[k]


@njit(cache=True)
def _backward(layout: Any, flat: Any, grad: Any, hidden: Any, grads: Any, count: Any) -> None:
    """Write the gradients, given that of the outputs [A, N] in row (number of layers modulo 2) of ``grads``."""
    for layer in range(len(layout) - 1, -1, -1):
        weight, bias, inputs, outputs, output_step, input_step = layout[layer]
        back, seen = grads[(layer + 1) % 2, : outputs * count], hidden[layer, : inputs * count]
        for k in range(outputs):
            grad[bias + k] = _total(back[k * count : (k + 1) * count])
        into = grad[weight : weight + inputs * outputs]
        if output_step == 1:  # [in, out]
            _outer(seen, back, into, inputs, outputs, count)
        else:
            _outer(back, seen, into, outputs, inputs, count)
        if layer:
            before = grads[layer % 2, : inputs * count]
            before[:] = 0
            product = flat[weight : weight + inputs * outputs]
            add_product(product, input_step, output_step, back, count, 1, before, inputs, count, outputs)
            for k in range(len(before)):
                before[k] = np.float32(0) if seen[k] <= 0 else before[k]


@njit(cache=True)
def _outer(left: Any, right: Any, out: Any, rows: Any, columns: Any, count: Any) -> None:
    """L R^T of L [rows, N] and R [columns, N]."""
    if min(rows, columns) > 8:
        out[:] = 0
        add_product(left, count, 1, right, 1, count, out, rows, columns, count)
        return
    for i in range(rows):  # too few for copying the other factor to pay off
        for j in range(columns):
            out[i * columns + j] = _dot(left[i * count : (i + 1) * count], right[j * count : (j + 1) * count])


@njit(cache=True, fastmath=_SUMS)
def _dot(left: Any, right: Any) -> Any:
    total = np.float32(0)
    for k in range(len(left)):
        total += left[k] * right[k]
    return total


@njit(cache=True, fastmath=_SUMS)
def _total(row: Any) -> Any:
    total = np.float32(0)
    for k in range(len(row)):
        total += row[k]
    return total


@njit(cache=True, fastmath=_SUMS)
def _norm(row: Any) -> Any:
    total = np.float32(0)
    for k in range(len(row)):
        total += row[k] * row[k]
    return np.sqrt(total)


@njit(cache=True)
def _bootstrap(following: Any, chooser: Any, mask: Any, reward: Any, discount: Any, goal: Any) -> None:
    """Targets r + discount Q'(s', b), where b is the legal action with the highest value in ``chooser`` [A, N]."""
    count = len(goal)
    for n in range(count):
        best, value = np.float32(-np.inf), np.float32(-np.inf)
        for action in range(len(following) // count):
            q = chooser[action * count + n]
            if (len(mask) == 0 or mask[n, action]) and (q > best or q != q):
                best, value = q, following[action * count + n]
        goal[n] = reward[n] + discount[n] * value


@njit(cache=True)
def _measure(out: Any, action: Any, goal: Any) -> Any:
    """Mean Huber loss, mean Q and mean absolute error."""
    loss, value, size = 0.0, 0.0, 0.0
    count = len(goal)
    for n in range(count):
        chosen = out[action[n] * count + n]
        error = abs(chosen - goal[n])
        loss += error - 0.5 if error > 1 else 0.5 * error * error
        value += chosen
        size += error
    return loss / count, value / count, size / count


@njit(cache=True, error_model="numpy")
def _adam(
    flat: Any, grad: Any, first: Any, second: Any, steps: Any, clip: Any, learning_rate: Any, beta1: Any, beta2: Any,
    eps: Any,
) -> None:  # fmt: skip
    scale, rate = np.float32(1 / np.sqrt(1 - beta2**steps)), np.float32(learning_rate / (1 - beta1**steps))
    clip, small = np.float32(clip), np.float32(eps)
    new1, old2, new2 = np.float32(1 - beta1), np.float32(beta2), np.float32(1 - beta2)
    for k in range(len(flat)):
        clipped = clip * grad[k]
        first[k] += new1 * (clipped - first[k])
        second[k] = old2 * second[k] + new2 * clipped * clipped
        flat[k] -= rate * first[k] / (np.sqrt(second[k]) * scale + small)


@njit(cache=True)
def _follow(target: Any, flat: Any, tau: Any) -> None:
    for k in range(len(flat)):
        target[k] = flat[k] if tau == 1 else target[k] + tau * (flat[k] - target[k])


@njit(cache=True)
def _values(layout: Any, flat: Any, obs: Any, out: Any) -> None:
    """Write Q [N, A] of a few observations [N, d] to ``out``; activations are [N, width]."""
    seen: NDArray[np.float32] = obs
    for layer in range(len(layout)):
        weight, bias, inputs, outputs, output_step, _ = layout[layer]
        following = out if layer == len(layout) - 1 else np.empty((len(obs), outputs), np.float32)
        table = flat[weight : weight + inputs * outputs]
        if output_step == 1:
            for n in range(len(obs)):
                _add_rows(seen[n], table, flat[bias : bias + outputs], following[n])
        else:
            for k in range(outputs):
                row = table[k * inputs : (k + 1) * inputs]
                for n in range(len(obs)):
                    following[n, k] = flat[bias + k] + _dot(row, seen[n])
        if layer < len(layout) - 1:
            for n in range(len(obs)):
                for k in range(outputs):
                    following[n, k] = np.float32(0) if following[n, k] <= 0 else following[n, k]
        seen = following


@njit(cache=True)
def _add_rows(weights: Any, table: Any, bias: Any, out: Any) -> None:
    """One row x [d] through a layer: b + x W, with W [d, h]."""
    out[:] = bias
    for k in range(len(weights)):
        row = table[k * len(out) : (k + 1) * len(out)]
        for j in range(len(out)):
            out[j] += weights[k] * row[j]
