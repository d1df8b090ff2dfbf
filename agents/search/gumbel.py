"""Gumbel AlphaZero's search: sequential halving at the root, and a policy that never gets worse.

Danihelka, Guez, Schrittwieser and Silver, "Policy improvement by planning with Gumbel" (ICLR 2022): at the root,
algorithm 2 (sequential halving over the ``considered`` actions with the highest logit plus Gumbel noise); inside the
tree, equation 14; completed Q by the mixed value, equation 33; sigma, equation 8. The target for a policy network is
softmax(logits + sigma(completed Q)), equation 11, without the noise.

As in DeepMind's mctx, Q is rescaled to 0..1 over a node's actions before sigma (``rescale``); without that, sigma acts
on Q itself, which is much sharper. Illegal actions are masked at every node, not at the root only.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbits.agents.search.trees import LOSS, NONE, UNKNOWN, edge_value, has_value
from mlbits.envs.core.rules import python_function, rule


@rule(inline=False)
def summary(nodes: Any, edges: Any, b: Any, i: Any, num_actions: Any) -> Any:
    """Mixed value, lowest and highest completed Q, most visits and all visits of a node's actions."""
    node = nodes[b, i]
    visits, most, prior, weighted = 0, 0, 0.0, 0.0
    low, high = math.inf, -math.inf
    complete = node.count == num_actions
    for e in range(node.first, node.first + node.count):
        edge = edges[b, e]
        if not has_value(edge):
            complete = False
            continue
        q, likely = edge_value(edge), max(edge.prior, 1.2e-38)
        visits += edge.visits
        most = max(most, edge.visits)
        prior += likely
        weighted += likely * q
        low, high = min(low, q), max(high, q)
    mixed = np.float64(node.value)
    if visits > 0:
        mixed = (node.value + visits * (weighted / prior)) / (1 + visits)
    if not complete:
        low, high = min(low, mixed), max(high, mixed)
    return mixed, low, high, most, visits


@rule
def sigma(q: Any, low: Any, high: Any, most: Any, settings: Any) -> Any:
    """The weight of a completed Q beside a logit."""
    scale = (settings.c_visit + most) * settings.c_scale
    return scale * (q - low) / max(high - low, 1e-8) if settings.rescale else scale * q


@rule
def score(edge: Any, found: Any, noise: Any, b: Any, settings: Any, noisy: Any) -> Any:
    """Logit + sigma of one of the root's actions, with or without its Gumbel noise."""
    mixed, low, high, most, _ = found
    q = edge_value(edge) if has_value(edge) else mixed
    got = edge.logit + sigma(q, low, high, most, settings)
    return got + settings.noise * noise[b, edge.action] if noisy else got


@rule(inline=False)
def choose(
    nodes: Any, edges: Any, b: Any, i: Any, k: Any, num_actions: Any, settings: Any, noise: Any, keys: Any
) -> Any:
    """The edge that simulation ``k`` follows from node ``i``."""
    node = nodes[b, i]
    found = summary(nodes, edges, b, i, num_actions)
    if i == 0:
        return choose_at_root(nodes, edges, b, scheduled(k, node.count, settings), found, settings, noise)
    mixed, low, high, most, visits = found
    if visits == 0:  # all completed Q are equal
        return likeliest(edges, b, node.first, node.count)
    top = max(sigma(high, low, high, most, settings), sigma(mixed, low, high, most, settings))
    unvisited = math.exp(sigma(mixed, low, high, most, settings) - top)
    total = 0.0
    for e in range(node.first, node.first + node.count):
        total += weight_of(edges[b, e], low, high, most, top, unvisited, settings)
    best: Any = -math.inf
    chosen: Any = np.int64(node.first)
    for e in range(node.first, node.first + node.count):
        want = weight_of(edges[b, e], low, high, most, top, unvisited, settings) / total
        want -= edges[b, e].visits / (1.0 + visits)
        if edges[b, e].outcome != LOSS and want > best:
            best, chosen = want, e
    return chosen


@rule
def weight_of(edge: Any, low: Any, high: Any, most: Any, top: Any, unvisited: Any, settings: Any) -> Any:
    """exp(logit + sigma) of an action inside the tree, up to a factor."""
    if not has_value(edge):
        return np.float32(unvisited * edge.prior)
    return np.float32(math.exp(sigma(edge_value(edge), low, high, most, settings) - top) * edge.prior)


@rule
def likeliest(edges: Any, b: Any, first: Any, count: Any) -> Any:
    """The edge with the highest prior, the first of equals."""
    best: Any = -math.inf
    chosen: Any = np.int64(first)
    for e in range(first, first + count):
        if edges[b, e].prior > best:
            best, chosen = np.float64(edges[b, e].prior), e
    return chosen


@rule
def choose_at_root(nodes: Any, edges: Any, b: Any, count: Any, found: Any, settings: Any, noise: Any) -> Any:
    """The root's edge with the highest score among those with ``count`` visits.

    If there is none, or its outcome is known, so that a visit would tell nothing new: the edge of unknown outcome with
    the highest score less its visits.
    """
    root = nodes[b, 0]
    best: Any = -math.inf
    chosen: Any = NONE
    for e in range(root.first, root.first + root.count):
        if edges[b, e].visits == count:
            got = score(edges[b, e], found, noise, b, settings, True)
            if chosen < 0 or got > best:
                best, chosen = got, e
    if chosen >= 0 and edges[b, chosen].outcome == UNKNOWN:
        return chosen
    best, chosen = -math.inf, np.int64(root.first)
    for e in range(root.first, root.first + root.count):
        if edges[b, e].outcome == UNKNOWN:
            got = score(edges[b, e], found, noise, b, settings, True) - edges[b, e].visits
            if got > best:
                best, chosen = got, e
    return chosen


@rule(inline=False)
def scheduled(k: Any, actions: Any, settings: Any) -> Any:
    """The number of visits that an action has when simulation ``k`` chooses it (mctx's table of considered visits)."""
    considered = min(settings.considered, actions)
    if considered <= 1:
        return k
    phases = 0
    while (1 << phases) < considered:
        phases += 1
    done, visits = 0, 0
    while True:
        rounds = max(1, settings.simulations // (phases * considered))
        if k < done + rounds * considered:
            return visits + (k - done) // considered
        done += rounds * considered
        visits += rounds
        considered = max(2, considered // 2)


@rule(inline=False)
def conclude(nodes: Any, edges: Any, b: Any, num_actions: Any, settings: Any, noise: Any, policy: Any) -> Any:
    """Write the improved policy over the root's actions to ``policy`` [A]; returns the edge to play.

    It is the one with the highest score among the most visited, unless that is known to lose.
    """
    root = nodes[b, 0]
    found = summary(nodes, edges, b, 0, num_actions)
    _, _, _, most, _ = found
    top, total = -math.inf, 0.0
    for e in range(root.first, root.first + root.count):
        policy[edges[b, e].action] = score(edges[b, e], found, noise, b, settings, False)
        top = max(top, policy[edges[b, e].action])
    for e in range(root.first, root.first + root.count):
        policy[edges[b, e].action] = math.exp(policy[edges[b, e].action] - top)
        total += policy[edges[b, e].action]
    for e in range(root.first, root.first + root.count):
        policy[edges[b, e].action] /= total
    best: Any = -math.inf
    chosen: Any = np.int64(root.first)
    for e in range(root.first, root.first + root.count):
        want = score(edges[b, e], found, noise, b, settings, True)
        if edges[b, e].visits == most:
            want += 1e6
        if edges[b, e].outcome == LOSS:
            want -= 1e9
        if want > best:
            best, chosen = want, e
    return chosen


def schedule(actions: int, simulations: int, considered: int = 16) -> NDArray[np.int64]:
    """The visits that the chosen action has at each simulation, int64 [simulations].

    Args:
        actions: legal actions at the root.
        simulations: number of simulations.
        considered: actions considered at most.
    """
    settings = np.zeros(1, [("considered", "i4"), ("simulations", "i4")]).view(np.recarray)[0]
    settings.considered, settings.simulations = considered, simulations
    return np.array([python_function(scheduled)(k, actions, settings) for k in range(simulations)], np.int64)
