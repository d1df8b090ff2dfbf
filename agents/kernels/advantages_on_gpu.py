"""Advantages on a GPU: one kernel, with a thread for each seat of each copy.

In place of the loops over steps of :func:`~mlbits.agents.maths.returns.gae`, which start an operation a step, and
fifteen where seats wait for their turns. Imported on use, because importing Numba's part for GPUs takes a while.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from numba import cuda
from torch import Tensor

from mlbits.envs.engine import gpu_copies

_THREADS_A_BLOCK = 128


def advantages(
    reward: Tensor, value: Tensor, next_value: Tensor, ended: Tensor, active: Tensor | None, discount: float,
    gae_lambda: float,
) -> Tensor:  # fmt: skip
    """What :func:`~mlbits.agents.maths.returns.gae` returns, [T, B, P].

    Args:
        reward: float32 [T, B, P].
        value: of each step's observation, float32 [T, B, P].
        next_value: the next value of each step, float32 [T, B, P].
        ended: bool [T, B].
        active: bool [T, B, P], which seats act in a step; None if all do.
        discount: gamma.
        gae_lambda: lambda.
    """
    advantage = torch.empty_like(reward, memory_format=torch.contiguous_format)
    acts = reward.new_ones(1, 1, 1, dtype=torch.bool) if active is None else active
    views = [_view(tensor) for tensor in (reward, value, next_value, ended, acts, advantage)]
    count = reward[0].numel()
    kernel()[-(-count // _THREADS_A_BLOCK), _THREADS_A_BLOCK, gpu_copies.kernel_stream(reward.device)](
        count, active is not None, np.float32(discount), np.float32(discount * gae_lambda), *views
    )
    return advantage


def of_seat(
    k: int, turns: bool, discount: Any, decay: Any, reward: Any, value: Any, next_value: Any, ended: Any, active: Any,
    advantage: Any,
) -> None:  # fmt: skip
    """Write the advantages of seat and copy ``k``, from the last step to the first."""
    copy, seat = k // reward.shape[2], k % reward.shape[2]
    last = reward.shape[0] - 1
    follow_value = next_value[last, copy, seat]  # value at the seat's next decision
    follow_advantage = np.float32(0)
    earned = np.float32(0)  # rewards since the decision
    for back in range(last + 1):
        t = last - back
        if ended[t, copy]:
            follow_advantage = np.float32(0)
            earned = np.float32(0)
        if ended[t, copy] or not turns:
            follow_value = next_value[t, copy, seat]
        earned += reward[t, copy, seat]
        own = np.float32(0)
        if not turns or active[t, copy, seat]:
            own = earned + discount * follow_value - value[t, copy, seat] + decay * follow_advantage
            follow_value = value[t, copy, seat]
            follow_advantage = own
            earned = np.float32(0)
        advantage[t, copy, seat] = own


@functools.cache
def kernel() -> Any:
    """The compiled kernel."""
    inner = cuda.jit(device=True)(of_seat)

    @cuda.jit
    def run(count, turns, discount, decay, reward, value, next_value, ended, active, advantage):  # type: ignore[no-untyped-def]
        k = cuda.grid(1)  # type: ignore[attr-defined]
        if k < count:
            inner(k, turns, discount, decay, reward, value, next_value, ended, active, advantage)

    return run


def _view(tensor: Tensor) -> Any:
    """The kernel's view of a tensor."""
    dtype = np.dtype(np.bool_ if tensor.dtype == torch.bool else np.float32)
    return gpu_copies.kernel_view(tensor.contiguous().view(-1).view(torch.uint8), dtype, tuple(tensor.shape))
