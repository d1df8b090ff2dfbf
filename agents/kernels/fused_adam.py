"""Adam, the target network that follows, and both rounded to bfloat16: one pass over memory.

Off-policy learning changes every weight of wide networks every step, up to four times over: Adam's step, the target's
step towards it, and the bfloat16 copies of both that the next products take. On the CPU one loop compiled by Numba does
all of them while a weight is at hand; on a GPU they are torch operations. The arithmetic is that of
:class:`~mlbits.agents.kernels.flat_adam.FlatAdam`, and tested against torch's own.

Example:
    >>> import torch
    >>> network = torch.nn.Linear(3, 2)
    >>> adam = FollowedAdam(network, 1e-3, math.inf)
    >>> for parameter in network.parameters():
    ...     _ = parameter.grad.fill_(1.0)
    >>> adam.step(tau=0.5)
    >>> bool(torch.allclose(adam.target.bias - network.bias, torch.tensor(0.0005), atol=1e-6))
    True
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mlbits.agents.kernels.bfloat16 import Block, rounded
from mlbits.agents.kernels.relu_mlp_passes import Half, WideTower
from mlbits.envs.engine.kernel_cache import njit

_BETAS = (0.9, 0.999)
_PIECE = 4096  # weights
_PAGE = 4096  # bytes


class FollowedAdam:
    """Adam (Kingma and Ba 2015, algorithm 1) over a network's parameters, and a copy of the network that follows it.

    Args:
        network: its parameters are moved, in place, into one vector, and get gradients that are views of another.
        learning_rate: step size.
        max_grad_norm: the gradient's L2 norm is clipped to this; ``math.inf`` leaves it.
        eps: Adam's epsilon.

    Attributes:
        learning_rate: may be set anew before any step.
        target: the copy, without gradients.
    """

    def __init__(self, network: nn.Module, learning_rate: float, max_grad_norm: float, eps: float = 1e-8) -> None:
        self.learning_rate, self.max_grad_norm, self._eps = learning_rate, max_grad_norm, eps
        self._network = network
        self.target: Any = copy.deepcopy(network).requires_grad_(False)
        parameters, copied = list(network.parameters()), list(self.target.parameters())
        sizes, some = [parameter.numel() for parameter in parameters], parameters[0]
        vectors = _vectors(sum(sizes), [some.dtype] * 5 + [torch.bfloat16] * 3, some.device)
        self._flat, self._grad, self._first, self._second, self._target = vectors[:5]
        for parameter, follower, flat, grad, target in zip(
            parameters, copied, *(vector.split(sizes) for vector in (self._flat, self._grad, self._target)), strict=True
        ):
            flat.copy_(parameter.detach().reshape(-1))
            target.copy_(flat)
            parameter.data, follower.data = flat.view_as(parameter), target.view_as(parameter)
            parameter.grad = grad.view_as(parameter)
        self._steps = torch.zeros((), device=some.device)
        for tower, other in zip(_towers(network), _towers(self.target), strict=True):
            other.workspace = tower.workspace
        self._half, self._half_grad, self._half_target = vectors[5:]
        self._spans = self._hand_out(parameters, sizes)
        spans = np.array(self._spans, np.int64).reshape(-1, 2)
        self._arrays = [*(Block(vector).array for vector in (self._steps.view(1), *vectors)), spans]
        self.refresh()

    def _hand_out(self, parameters: Sequence[nn.Parameter], sizes: Sequence[int]) -> list[tuple[int, int]]:
        """Give towers their weights' parts of the vectors in bfloat16; returns from and to where they lie."""
        place = dict(zip(parameters, itertools.pairwise([0, *itertools.accumulate(sizes)]), strict=True))
        spans = []
        for tower, follower in zip(_towers(self._network), _towers(self.target), strict=True):
            if not tower.rounded:
                continue
            tower.halves, follower.halves = [], []
            for weight in tower.weights:
                start, stop = place[weight]
                half, grad, target = (
                    vector[start:stop].view_as(weight) for vector in (self._half, self._half_grad, self._half_target)
                )
                tower.halves.append(Half(half, grad))
                follower.halves.append(Half(target, None))
                spans.append((start, stop))
        return spans

    def __deepcopy__(self, memo: dict[int, Any]) -> FollowedAdam:
        # Copied one by one, parameters and gradients would be views of nothing, and every step without effect.
        made = FollowedAdam(copy.deepcopy(self._network, memo), self.learning_rate, self.max_grad_norm, self._eps)
        made.load_state_dict(self.state_dict())
        made._target.copy_(self._target)
        made.refresh()
        return made

    @torch.no_grad()
    def grad_norm(self) -> Tensor:
        """The gradient's L2 norm, a tensor []."""
        for start, stop in self._spans:
            self._grad[start:stop].copy_(self._half_grad[start:stop])
        return torch.linalg.vector_norm(self._grad)

    @torch.no_grad()
    def refresh(self) -> None:
        """Round the weights anew, after something else changed them."""
        if self._spans:
            self._half.copy_(self._flat)
            self._half_target.copy_(self._target)

    @torch.no_grad()
    def step(self, tau: float) -> None:
        """Clip and update, and let the target go a share ``tau`` of the way to the network."""
        on_gpu = self._arrays[0] is None
        clip: Any = 1.0
        if self.max_grad_norm != math.inf or on_gpu:
            clip = torch.clamp(self.max_grad_norm / (self.grad_norm() + 1e-6), max=1.0)
        if not on_gpu:
            loop: Any = _step
            loop(*self._arrays, float(clip), *_BETAS, self._eps, self.learning_rate, tau)
            return
        self._grad.mul_(clip)
        self._steps += 1
        torch._fused_adam_(
            [self._flat], [self._grad], [self._first], [self._second], [], [self._steps],
            lr=self.learning_rate, beta1=_BETAS[0], beta2=_BETAS[1], weight_decay=0.0, eps=self._eps,
            amsgrad=False, maximize=False,
        )  # fmt: skip
        self._target.lerp_(self._flat, tau)
        self.refresh()

    def state_dict(self) -> dict[str, Tensor]:
        """The two moments and the number of steps, as tensors."""
        return {"first": self._first, "second": self._second, "steps": self._steps}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from saved moments, after the network's and its target's weights were loaded."""
        self._first.copy_(state["first"])
        self._second.copy_(state["second"])
        self._steps.copy_(state["steps"])
        self.refresh()


def _towers(network: nn.Module) -> list[WideTower]:
    return [module for module in network.modules() if isinstance(module, WideTower)]


def _vectors(length: int, dtypes: Sequence[torch.dtype], device: torch.device) -> list[Tensor]:
    """Zeros, a vector a dtype, that start at different places of a page: else a CPU takes a write to one for a write to
    what it is about to read of the next, and waits (twice the time).
    """
    room = -(-8 * length // _PAGE) * _PAGE + _PAGE // 8
    memory = torch.zeros(len(dtypes) * room, dtype=torch.uint8, device=device)
    starts = range(0, len(memory), room)
    return [memory[k : k + length * dtype.itemsize].view(dtype) for k, dtype in zip(starts, dtypes, strict=True)]


@njit(cache=True)
def _step(
    steps: Any, flat: Any, grad: Any, first: Any, second: Any, target: Any,
    half: Any, half_grad: Any, half_target: Any, spans: Any,
    clip: Any, beta1: Any, beta2: Any, eps: Any, learning_rate: Any, tau: Any,
) -> None:  # fmt: skip
    steps[0] += 1
    scale = np.float32(1 / math.sqrt(1 - beta2 ** steps[0]))
    rate = np.float32(learning_rate / (1 - beta1 ** steps[0]))
    numbers = (np.float32(clip), np.float32(1 - beta1), np.float32(beta2), np.float32(1 - beta2),
               scale, np.float32(eps), rate, np.float32(tau))  # fmt: skip
    done, piece = 0, np.empty(_PIECE, np.float32)
    for k in range(len(spans)):
        start, stop = spans[k, 0], spans[k, 1]
        _update(flat[done:start], grad[done:start], first[done:start], second[done:start], target[done:start], numbers)
        # Piece by piece, so that what one loop wrote is in the nearest cache for the next.
        for low in range(start, stop, _PIECE):
            high = min(low + _PIECE, stop)
            wide = piece[: high - low]
            _widen(half_grad[low:high], wide)
            _update(flat[low:high], wide, first[low:high], second[low:high], target[low:high], numbers)
            _narrow(flat[low:high], half[low:high])
            _narrow(target[low:high], half_target[low:high])
        done = stop
    _update(flat[done:], grad[done:], first[done:], second[done:], target[done:], numbers)


@njit(cache=True, error_model="numpy")
def _update(flat: Any, grad: Any, first: Any, second: Any, target: Any, numbers: Any) -> None:
    clip, new1, old2, new2, scale, eps, rate, tau = numbers
    for k in range(len(flat)):
        slope = clip * grad[k]
        first[k] += new1 * (slope - first[k])
        second[k] = old2 * second[k] + new2 * slope * slope
        flat[k] -= rate * first[k] / (np.sqrt(second[k]) * scale + eps)
        target[k] += tau * (flat[k] - target[k])


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
