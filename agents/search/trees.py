"""Trees of many games as flat arrays, and what all search methods do with them: expand, back up, prove.

Tree b's nodes are ``nodes[b, :]``, its root is node 0, and a child has a higher number than its parent. The edges of a
node, one per legal action, are consecutive in ``edges[b, :]``. Values and outcomes of a node are those of the seat that
moves there, totals of an edge those of the seat that chooses it, so that signs follow the seats and not the depth.

Between rows, results are passed on as seat 0's return; with two seats the other's is its negative.

A finished game's result is exact. It is backed up as an outcome (a win, a draw, a loss, and in how many moves) beside
the averages: a node with a winning edge is won, one with only losing edges is lost (Winands, Björnsson and Saito,
"Monte-Carlo tree search solver", 2008; here with draws and distances). Known outcomes replace averages wherever a value
is read, and a tree whose root is decided is left alone. A simulation that would follow a decided edge follows an open
one instead; so that averages do not suffer from the search for something better than a known draw, a seat's average
below that is passed on as the draw.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlbits.envs.core.rules import rule

UNKNOWN, WIN, LOSS, DRAW = 0, 1, 2, 3  # outcomes
OPEN, ENDED, CUT = 0, 1, 2  # kinds of nodes: the game goes on, is over, was truncated

NODE = np.dtype(
    [
        ("total", "f8"),  # sum of the returns seen from here, for the seat to move
        ("value", "f4"),  # the evaluation's
        ("reward", "f4"),  # seat 0's, of the step that leads here
        ("visits", "i4"),
        ("first", "i4"),  # its edges are first .. first + count - 1
        ("count", "i4"),
        ("parent", "i4"),  # -1 at the root
        ("edge", "i4"),  # the parent's edge that leads here
        ("distance", "i2"),  # moves to the end, if the outcome is known
        ("seat", "i1"),
        ("kind", "i1"),
        ("outcome", "i1"),
        ("draw", "u1"),  # whether some edge is known to draw
    ],
    align=True,
)
EDGE = np.dtype(
    [
        ("total", "f8"),  # sum of the returns of this action, for the seat that moves
        ("logit", "f4"),
        ("prior", "f4"),
        ("action", "i4"),
        ("child", "i4"),  # -1 before the first visit
        ("visits", "i4"),
        ("distance", "i2"),  # moves to the end, if the outcome is known
        ("outcome", "i1"),
    ],
    align=True,
)  # 32 bytes: two edges to a cache line
ROOT, NONE = np.int64(0), np.int64(-1)  # typed, so that functions are not compiled again for literals
FARTHEST = 32_000  # distances are not counted beyond


@rule
def sign_of(seat: Any) -> Any:
    """1 for seat 0, -1 for seat 1."""
    return 1.0 if seat == 0 else -1.0


@rule
def seen_by(outcome: Any, same_seat: Any) -> Any:
    """An outcome as it is for the same seat, or for the other one."""
    if same_seat or outcome in (UNKNOWN, DRAW):
        return outcome
    return LOSS if outcome == WIN else WIN


@rule
def known_value(outcome: Any) -> Any:
    """The return of a known outcome."""
    return 1.0 if outcome == WIN else (-1.0 if outcome == LOSS else 0.0)


@rule
def outcome_of(result: Any) -> Any:
    """The outcome that a return at the end of a game means for the seat that gets it; unknown for other numbers."""
    if result == 1:
        return WIN
    if result == -1:
        return LOSS
    return DRAW if result == 0 else UNKNOWN


@rule
def has_value(edge: Any) -> Any:
    """Whether an edge has a Q: it was visited, or its outcome is known."""
    return edge.visits > 0 or edge.outcome != UNKNOWN


@rule
def edge_value(edge: Any) -> Any:
    """Q of an edge that has one: its known outcome, or else the mean return."""
    if edge.outcome != UNKNOWN:
        return known_value(edge.outcome)
    return edge.total / edge.visits


@rule(inline=False)
def set_priors(nodes: Any, edges: Any, b: Any, i: Any, logits: Any, row: Any) -> None:
    """Write the logits of a node's edges from ``logits[row]``, and their softmax."""
    first, stop = nodes[b, i].first, nodes[b, i].first + nodes[b, i].count
    top, total = -math.inf, 0.0
    for e in range(first, stop):
        edges[b, e].logit = logits[row, edges[b, e].action]
        top = max(top, edges[b, e].logit)
    for e in range(first, stop):
        edges[b, e].prior = math.exp(edges[b, e].logit - top)
        total += edges[b, e].prior
    for e in range(first, stop):
        edges[b, e].prior /= total


@rule(inline=False)
def add_edge(edges: Any, b: Any, e: Any, action: Any) -> None:
    """A new edge of an action."""
    edge = edges[b, e]
    edge.total = 0.0
    edge.logit = 0.0
    edge.prior = 0.0
    edge.action = action
    edge.child = -1
    edge.visits = 0
    edge.distance = 0
    edge.outcome = UNKNOWN


@rule(inline=False)
def add_node(nodes: Any, b: Any, i: Any, parent: Any, edge: Any, reward: Any, seat: Any, kind: Any, first: Any) -> None:
    """A new node without edges."""
    node = nodes[b, i]
    node.total = 0.0
    node.value = 0.0
    node.reward = reward
    node.visits = 0
    node.first = first
    node.count = 0
    node.parent = parent
    node.edge = edge
    node.distance = 0
    node.seat = seat
    node.kind = kind
    node.outcome = UNKNOWN
    node.draw = 0


@rule(inline=False)
def back_up(nodes: Any, edges: Any, b: Any, leaf: Any, gained: Any, discount: Any) -> None:
    """Add a simulation's result to the leaf and all above it; ``gained`` is seat 0's return from the leaf on."""
    i = leaf
    nodes[b, i].visits += 1
    nodes[b, i].total += sign_of(nodes[b, i].seat) * gained
    while nodes[b, i].parent >= 0:
        edge, parent = edges[b, nodes[b, i].edge], nodes[b, nodes[b, i].parent]
        gained = nodes[b, i].reward + discount * gained
        result = sign_of(parent.seat) * gained
        edge.visits += 1
        edge.total += result
        if parent.draw and edge.outcome == UNKNOWN and edge.total < 0:
            gained, result = 0.0, 0.0  # the seat would take its known draw
        parent.visits += 1
        parent.total += result
        i = nodes[b, i].parent


@rule(inline=False)
def prove(nodes: Any, edges: Any, b: Any, leaf: Any) -> None:
    """Pass a leaf's known outcome upward as far as it decides anything."""
    i = leaf
    while nodes[b, i].outcome != UNKNOWN and nodes[b, i].parent >= 0:
        child, parent, edge = nodes[b, i], nodes[b, nodes[b, i].parent], edges[b, nodes[b, i].edge]
        edge.outcome = seen_by(child.outcome, child.seat == parent.seat)
        edge.distance = min(child.distance + 1, FARTHEST)
        if edge.outcome == DRAW:
            parent.draw = 1
        outcome, distance = decided(edges, b, parent.first, parent.count)
        parent.outcome = outcome
        parent.distance = distance
        i = child.parent


@rule(inline=False)
def decided(edges: Any, b: Any, first: Any, count: Any) -> Any:
    """The outcome of a node by those of its edges, and its distance: the shortest win, the longest loss or draw."""
    outcome, distance, complete = LOSS, 0, True
    for e in range(first, first + count):
        found, far = edges[b, e].outcome, edges[b, e].distance
        if found == UNKNOWN:
            complete = False
        elif found == WIN:
            if outcome != WIN or far < distance:
                distance = far
            outcome = WIN
        elif outcome != WIN:
            if found == DRAW and outcome == LOSS:
                outcome, distance = DRAW, far
            elif found == outcome and far > distance:
                distance = far
    if outcome != WIN and not complete:
        return UNKNOWN, 0
    return outcome, distance


@rule(inline=False)
def undecided(edges: Any, b: Any, first: Any, count: Any, e: Any) -> Any:
    """``e``, or if its outcome is known, so that a visit adds nothing, the open edge with most prior for its visits."""
    chosen: Any = np.int64(e)
    best: Any = -1.0
    if edges[b, e].outcome != UNKNOWN:
        for k in range(first, first + count):
            want = np.float64(edges[b, k].prior) / (1 + edges[b, k].visits)
            if edges[b, k].outcome == UNKNOWN and want > best:
                best, chosen = want, np.int64(k)
    return chosen


@rule(inline=False)
def or_draw(nodes: Any, edges: Any, b: Any, e: Any) -> Any:
    """The root's edge ``e``, or its likeliest known draw if ``e`` has been worse than that on average."""
    root = nodes[b, 0]
    chosen: Any = np.int64(e)
    best: Any = -1.0
    if root.draw and edges[b, e].outcome == UNKNOWN and edges[b, e].total < 0:
        for k in range(root.first, root.first + root.count):
            if edges[b, k].outcome == DRAW and edges[b, k].prior > best:
                best, chosen = np.float64(edges[b, k].prior), np.int64(k)
    return chosen


@rule(inline=False)
def conclude(nodes: Any, edges: Any, b: Any, num_actions: Any, settings: Any, noise: Any, policy: Any) -> Any:
    """What PUCT and UCT conclude: fractions of visits, written to ``policy`` [A]; returns the edge to play.

    It is the most visited one that is not known to lose, of equals the one with the higher value. Without visits, the
    policy is the priors.
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
        want = np.float64(edge.prior) - 1.0
        if has_value(edge):
            want = edge.visits + edge_value(edge) / 4
        if edge.outcome == LOSS:
            want -= 1e9
        if want > best:
            best, chosen = want, e
    return chosen


@rule
def best_known(nodes: Any, edges: Any, b: Any) -> Any:
    """The edge that realises the root's known outcome, the first of equals."""
    root = nodes[b, 0]
    for e in range(root.first, root.first + root.count):
        if edges[b, e].outcome == root.outcome and edges[b, e].distance == root.distance:
            return e
    return root.first
