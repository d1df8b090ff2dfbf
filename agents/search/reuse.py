"""Keeping a part of a tree: the subtree of the position that was reached becomes the next search's tree.

Everything in it stays as it was: visits, totals, priors, known outcomes. Nodes and edges move to the front of their
arrays in their old order, each by as many places as were dropped before it, so that nothing else is needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlbits.agents.search.trees import NONE, OPEN, ROOT
from mlbits.envs.core.rules import rule


@rule(inline=False)
def may_be_root(nodes: Any, b: Any, i: Any) -> Any:
    """Whether a node can be searched on from: it was evaluated, and is the root or at most two plies below it."""
    node = nodes[b, i]
    if node.kind != OPEN or node.visits == 0:
        return False
    if node.parent > 0:
        return nodes[b, node.parent].parent == 0
    return True


@rule(inline=False)
def keep_subtree(
    nodes: Any, edges: Any, states: Any, b: Any, root: Any, used: Any, size: Any, moved: Any, shift: Any
) -> None:
    """Make ``root`` the root of its tree and drop all that is not below it.

    ``moved[b, i]`` becomes the new number of node i, or -1, and ``shift[b, i]`` by how much its edges' numbers fell.
    """
    kept, filled = ROOT, ROOT
    for i in range(root, size[b]):
        parent, edge, first = np.int64(nodes[b, i].parent), np.int64(nodes[b, i].edge), np.int64(nodes[b, i].first)
        if i > root and (parent < root or moved[b, parent] < 0):
            moved[b, i] = NONE
            continue
        moved[b, i] = kept
        shift[b, i] = first - filled
        nodes[b, kept] = nodes[b, i]
        states[b, kept] = states[b, i]
        node = nodes[b, kept]
        node.first = filled
        for e in range(node.count):
            edges[b, filled + e] = edges[b, first + e]
        filled += node.count
        if i == root:
            node.parent = NONE
            node.edge = NONE
        else:
            node.parent = moved[b, parent]
            node.edge = edge - shift[b, parent]
            edges[b, node.edge].child = kept
        kept += 1
    size[b] = kept
    used[b] = filled
