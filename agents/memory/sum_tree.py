"""A sum tree: changes priorities, and samples in proportion to them, in logarithmic time.

Schaul et al., "Prioritized Experience Replay" (ICLR 2016), appendix B.2.1. The leaves of a complete binary tree are the
priorities; each inner node is the sum of its two children, so the root is the total. A search descends from the root to
a leaf: to the left child if the target is below that child's sum, else to the right, less that sum.

On the CPU the searches are compiled by Numba: 64 changes and 64 searches among a million leaves take some 30
microseconds. On a GPU they are torch operations over all targets at once, for several levels in one go: the descendants
of a node some levels below lie side by side. Nodes of the levels in between are not kept there.

Example:
    >>> import torch
    >>> tree = SumTree(4)
    >>> tree.set(torch.tensor([0, 2]), torch.tensor([1.0, 3.0]))
    >>> tree.find(torch.tensor([0.5, 1.5, 3.9])).tolist()
    [0, 2, 2]
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlbits.agents.agent import DivergedError
from mlbits.envs.engine.kernel_cache import njit

_LEVELS = 7  # levels of the tree that a GPU goes down in one go


class SumTree:
    """Priorities of ``capacity`` leaves, zero at first.

    Args:
        capacity: number of leaves.
        device: where the tree is kept.

    Attributes:
        nodes: float64 [2 * size]; node 1 is the root, node ``size + k`` is leaf k, and node 0 is free for the caller.
    """

    def __init__(self, capacity: int, device: torch.device | str = "cpu") -> None:
        self.capacity = capacity
        self.size = 1 << max(0, capacity - 1).bit_length()
        # Sums in float64: in float32 the rounding of a million leaves' sum would be larger than a small leaf.
        self.nodes = torch.zeros(2 * self.size, dtype=torch.float64, device=device)

    @property
    def total(self) -> Tensor:
        """Sum of all leaves, a tensor []."""
        return self.nodes[1]

    def get(self, index: Tensor) -> Tensor:
        """Leaves at ``index`` [N]."""
        return self.nodes[index + self.size]

    def set(self, index: Tensor, value: Tensor) -> None:
        """Set leaves.

        Args:
            index: int64 [N] in 0..capacity-1; of equal indices the last counts (on a GPU any of them).
            value: [N], finite and not negative.

        Raises:
            DivergedError: for any other value, since the total would be wrong from then on; no leaf is changed. On a
                GPU nothing is raised, and the leaf becomes 0: the error that it comes from is in the learner's report.
        """
        value = value.to(torch.float64)
        if self.nodes.device.type == "cpu":
            wrong = _set(self.nodes.numpy(), self.size, index.numpy(), value.numpy())
        else:
            # The host does not wait to see them: such a value counts as 0, and so does no harm to the sums.
            set_by_level(self.nodes, index, torch.where((value >= 0) & (value < torch.inf), value, 0.0))
            wrong = -1
        if wrong >= 0:
            raise DivergedError("priority", float(value[wrong]), f"for leaf {int(index[wrong])}")

    def find(self, target: Tensor) -> Tensor:
        """The first leaves at which the cumulative sum of leaves exceeds ``target``.

        Args:
            target: [N], at least 0 and below ``total``.

        Returns:
            int64 [N]; never a leaf of priority zero, unless all are zero.
        """
        target = target.to(torch.float64)
        if self.nodes.device.type == "cpu":
            return torch.from_numpy(_find(self.nodes.numpy(), self.size, target.numpy()))
        return find_by_level(self.nodes, target)


def set_by_level(nodes: Tensor, index: Tensor, value: Tensor) -> None:
    """Set leaves of a tree by torch operations, several levels at a time, on any device."""
    size = len(nodes) // 2
    node = index + size
    nodes[node] = value
    for levels in reversed(_strides(size)):
        node = node >> levels
        nodes[node] = nodes[_descendants(node, levels)].sum(-1)


def find_by_level(nodes: Tensor, target: Tensor) -> Tensor:
    """Find leaves of a tree of :func:`set_by_level` by torch operations, several levels at a time, on any device."""
    size = len(nodes) // 2
    node = torch.ones(target.shape, dtype=torch.int64, device=target.device)
    for levels in _strides(size):
        children = _descendants(node, levels)
        weight = nodes[children]
        sums = weight.cumsum(-1)
        # The first whose cumulative sum is above the target; rounding may leave a target past the last that weighs.
        above = torch.searchsorted(sums, target[:, None], right=True)
        chosen = torch.minimum(above, torch.searchsorted(sums, sums[:, -1:].contiguous()))
        target = target - (sums.gather(-1, chosen) - weight.gather(-1, chosen)).squeeze(-1)
        node = children.gather(-1, chosen).squeeze(-1)
    return node - size


def _strides(size: int) -> list[int]:
    """How many levels to go down at a time, from the root to the leaves."""
    depth = size.bit_length() - 1
    steps = -(-depth // _LEVELS)
    return [depth // steps + (k < depth % steps) for k in range(steps)]


def _descendants(node: Tensor, levels: int) -> Tensor:
    """The numbers of the nodes that lie ``levels`` below nodes [N], [N, 2 ** levels]."""
    return (node << levels)[:, None] + torch.arange(1 << levels, device=node.device)


@njit(cache=True)
def _set(nodes: Any, size: Any, index: Any, value: Any) -> Any:
    """Set leaves and return -1; or set none and return the position of the first invalid value."""
    for k in range(len(index)):
        if not 0.0 <= value[k] < np.inf:
            return k
    for k in range(len(index)):
        node = index[k] + size
        nodes[node] = value[k]
        node >>= 1
        while node > 0:
            nodes[node] = nodes[2 * node] + nodes[2 * node + 1]
            node >>= 1
    return -1


@njit(cache=True)
def _find(nodes: Any, size: Any, target: Any) -> Any:
    found = np.empty(len(target), np.int64)
    for k in range(len(target)):
        node, rest = 1, target[k]
        while node < size:
            node *= 2
            if rest >= nodes[node] and nodes[node + 1] > 0.0:
                rest -= nodes[node]
                node += 1
        found[k] = node - size
    return found
