"""Fused Adam and Polyak target update: one pass over memory for the weights, both moments and the target network.

How: an off-policy update of wide networks reads and writes every weight several times: in Adam's step, then in the
target network's. On the CPU one compiled loop does both while a weight is in a register. The vectors start at different
offsets within a memory page (:func:`vectors`): otherwise the CPU mistakes a write to one vector for a write to the
address that it is about to read in the next, and waits (twice the time).

Shapes: flat float32 vectors [n].
Gain: 1.04 times the speed of a whole DDPG update with layers of 400 and 300 (:class:`FlatAdam` then calls torch twice).

Example:
    >>> import numpy as np
    >>> flat, target, first, second = (np.zeros(1, np.float32) for _ in range(4))
    >>> adam_and_polyak(flat, np.ones(1, np.float32), first, second, target, 1, 1e-3, 0.9, 0.999, 1e-8, 0.5)
    >>> flat, target
    (array([-0.001], dtype=float32), array([-0.0005], dtype=float32))
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlbits.envs.engine.kernel_cache import njit

_PAGE = 4096  # bytes


def vectors(count: int, length: int, like: Tensor) -> Sequence[Tensor]:
    """``count`` zero vectors [length] of ``like``'s type and device, each offset by another eighth of a page."""
    size = like.element_size()
    room = (-(-size * length // _PAGE) * _PAGE + _PAGE // 8) // size
    return torch.zeros(count, room, dtype=like.dtype, device=like.device)[:, :length].unbind()


@njit(cache=True, error_model="numpy")
def adam_and_polyak(
    flat: Any, grad: Any, first: Any, second: Any, target: Any,
    steps: Any, learning_rate: Any, beta1: Any, beta2: Any, eps: Any, tau: Any,
) -> None:  # fmt: skip
    """One step of Adam (Kingma and Ba 2015, algorithm 1), and target += tau (flat - target), in place.

    Args:
        flat: weights, [n].
        grad: their gradient, [n].
        first: first moment, [n].
        second: second moment, [n].
        target: the target network's weights, [n].
        steps: number of steps so far, including this one.
        learning_rate: step size.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        eps: Adam's epsilon.
        tau: fraction of the way to the new weights that the target network moves.
    """
    scale, rate = np.float32(1 / math.sqrt(1 - beta2**steps)), np.float32(learning_rate / (1 - beta1**steps))
    new1, old2, new2 = np.float32(1 - beta1), np.float32(beta2), np.float32(1 - beta2)
    small, part = np.float32(eps), np.float32(tau)
    for k in range(len(flat)):
        first[k] += new1 * (grad[k] - first[k])
        second[k] = old2 * second[k] + new2 * grad[k] * grad[k]
        flat[k] -= rate * first[k] / (np.sqrt(second[k]) * scale + small)
        target[k] += part * (flat[k] - target[k])
