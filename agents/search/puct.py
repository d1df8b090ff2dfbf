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

from mlbits.agents.search.trees import LOSS, edge_value
from mlbits.envs.core.rules import rule


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
            if edges[b, e].visits > 0:
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
        if edge.visits > 0:
            want += (edge_value(edge) - low) / span
        if edge.outcome != LOSS and want > best:
            best, chosen = want, e
    return chosen


@rule(inline=False)
def conclude(nodes: Any, edges: Any, b: Any, num_actions: Any, settings: Any, noise: Any, policy: Any) -> Any:
    """Write the fractions of visits of the root's actions to ``policy`` [A]; returns the edge to play.

    It is the most visited one that is not known to lose; the first of equals. Without visits, the likeliest.
    """
    root = nodes[b, 0]
    visits = 0
    for e in range(root.first, root.first + root.count):
        visits += edges[b, e].visits
    best: Any = -math.inf
    chosen: Any = np.int64(root.first)
    for e in range(root.first, root.first + root.count):
        edge = edges[b, e]
        policy[edge.action] = edge.visits / visits if visits > 0 else edge.prior
        want = np.float64(policy[edge.action]) - (2.0 if edge.outcome == LOSS else 0.0)
        if want > best:
            best, chosen = want, e
    return chosen
