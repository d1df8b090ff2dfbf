"""UCT, the search that needs no network: every action once, then the highest upper confidence bound.

Kocsis and Szepesvári, "Bandit based Monte-Carlo planning" (2006): an edge's score is Q + c sqrt(ln N / n). Unvisited
edges come first, beginning at a random one. The move is the most visited one, of equals the one with the higher return.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlbits.agents.search.trees import LOSS, conclude, edge_value, has_value
from mlbits.envs.core.random import GOLDEN, mix64
from mlbits.envs.core.rules import rule

__all__ = ["choose", "conclude"]

_S32 = np.uint64(32)


@rule(inline=False)
def choose(
    nodes: Any, edges: Any, b: Any, i: Any, k: Any, num_actions: Any, settings: Any, noise: Any, keys: Any
) -> Any:
    """The edge that simulation ``k`` follows from node ``i``."""
    node = nodes[b, i]
    first, count = node.first, node.count
    if node.visits <= count:  # its own evaluation is a visit too
        bits = mix64(keys[b] + np.uint64(i + 1) * GOLDEN)
        start = np.int64(((bits >> _S32) * np.uint64(count)) >> _S32)
        for turn in range(count):
            e = first + (start + turn) % count
            if not has_value(edges[b, e]):
                return e
    log = math.log(node.visits)
    best: Any = -math.inf
    chosen: Any = np.int64(first)
    for e in range(first, first + count):
        edge = edges[b, e]
        if edge.outcome == LOSS:
            continue
        want = edge_value(edge) + settings.c_uct * math.sqrt(log / max(edge.visits, 1))
        if want > best:
            best, chosen = want, e
    return chosen
