"""How many rows of observations a GPU passes through a network at once: as many as half of its free memory holds.

What a pass keeps for its gradient is measured on a few rows, whatever the network is. A rollout of images does not fit
in one go: 100,000 rows of four frames of 84 x 84 keep 20 to 30 GB.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mlbits.agents.agent import pick
from mlbits.envs.engine.memory import memory_bytes

_SHARE = 0.5  # of the free memory: gradients of activations, and copies of rows, take the rest
_FEW = 8


def bytes_a_row(run: Callable[[Any], Any], obs: Any) -> float:
    """Bytes that a pass keeps for its gradient per row of observations, and those of the observations themselves.

    Args:
        run: the pass, of observations [N, ...].
        obs: some rows, or a dict of them.
    """
    some = next(iter(obs.values())) if isinstance(obs, dict) else obs
    few = min(_FEW, len(some))
    sizes = []
    for rows in (2 * few, few):
        index = torch.arange(rows, device=some.device) % len(some)
        kept: list[int] = []

        def keep(tensor: Tensor, kept: list[int] = kept) -> Tensor:
            kept.append(tensor.numel() * tensor.element_size())
            return tensor

        picked = pick(obs, index)
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            run(picked)
        parts = picked.values() if isinstance(picked, dict) else [picked]
        sizes.append(sum(kept) + sum(part.numel() * part.element_size() for part in parts))
    return max(1.0, (sizes[0] - sizes[1]) / few)


class PassMemory:
    """The rows a pass for one network; measured once, and asked again only for another number of rows."""

    def __init__(self) -> None:
        self._bytes_a_row: float | None = None
        self._known: dict[int, int] = {}

    def rows(self, run: Callable[[Any], Any], obs: Any, count: int) -> int:
        """The rows a pass for ``count`` rows of observations on a GPU, 1 to ``count``.

        Args:
            run: the network's pass, of observations [N, ...].
            obs: some rows, or a dict of them.
            count: how many there are in all.
        """
        if count not in self._known:
            if self._bytes_a_row is None:
                self._bytes_a_row = bytes_a_row(run, obs)
            device = (next(iter(obs.values())) if isinstance(obs, dict) else obs).device
            fits = int(_SHARE * memory_bytes(device) / self._bytes_a_row)
            self._known[count] = max(1, min(count, fits))
        return self._known[count]
