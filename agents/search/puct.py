"""AlphaZero's search: PUCT, with Dirichlet noise at the root, and visits as the policy.

Silver et al., "A general reinforcement learning algorithm that masters chess, shogi, and Go through self-play" (2018):
an edge's score is Q + (c_init + ln((N + c_base + 1) / c_base)) P sqrt(N) / (1 + n), where N counts the node's own
evaluation too. Q is rescaled to 0..1: by the range of the node's and its children's values (``rescale``, as in
Schrittwieser et al. 2020, MuZero, equation 5), or from -1..1. An unvisited edge has the lowest value, 0.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlbits.agents.search.trees import LOSS, conclude, edge_value, has_value
from mlbits.envs.core.rules import rule

__all__ = ["choose", "conclude"]


@rule(inline=False)
def choose(
    nodes: Any, edges: Any, b: Any, i: Any, k: Any, num_actions: Any, settings: Any, noise: Any, keys: Any
) -> Any:
    """The edge that simulation ``k`` follows from node ``i``."""
    node = nodes[b, i]
    low, span = -1.0, 2.0
    if settings.rescale:
        low = high = node.total / node.visits
        for e in range(node.first, node.first + node.count):
            if has_value(edges[b, e]):
                q = edge_value(edges[b, e])
                low, high = min(low, q), max(high, q)
        span = max(high - low, 1e-8)
    explore = (settings.c_init + math.log((node.visits + settings.c_base + 1) / settings.c_base)) * math.sqrt(
        node.visits
    )
    mixed = i == 0 and settings.noise > 0
    total = 0.0
    if mixed:
        for e in range(node.first, node.first + node.count):
            total += noise[b, edges[b, e].action]
    best: Any = -math.inf
    chosen: Any = np.int64(node.first)
    for e in range(node.first, node.first + node.count):
        edge = edges[b, e]
        prior = edge.prior
        if mixed:  # gamma variates over their sum: a Dirichlet draw
            prior = (1 - settings.noise) * prior + settings.noise * noise[b, edge.action] / total
        want = explore * prior / (1 + edge.visits)
        if has_value(edge):
            want += (edge_value(edge) - low) / span
        if edge.outcome != LOSS and want > best:
            best, chosen = want, e
    return chosen
