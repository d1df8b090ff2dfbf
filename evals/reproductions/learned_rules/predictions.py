"""What a rule's agents predict: whether true values at several discounts can be read off y(s), and off TD(lambda)'s V.

The true values are those of the agent's own policy at the end of its life, without the time limit, from the exact
model of its level (:mod:`mlbits.envs.exact`). A read-out is one linear map for each agent, fitted by least squares on
four fifths of the states and judged on the others, so that eight numbers have no advantage over one by their number
alone; states count as often as they were visited. Beside it stand a value learned by TD(lambda) in the same life at the
discount that the rule was trained with, and the predictions of an untrained rule's agents.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlbits.agents.learned_rules.files import SavedRule
from mlbits.agents.learned_rules.lifetimes import Life, by_rule
from mlbits.agents.learned_rules.populations import Lesson
from mlbits.agents.learned_rules.rule import LPGRule
from mlbits.agents.learned_rules.values import TabularValues, advantages
from mlbits.agents.planning.dynamic_programming import policy_value
from mlbits.envs.exact.transition_table import read_table
from mlbits.envs.levels.catalogue import level_kind
from mlbits.envs.levels.collect_objects import HELD_OUT
from mlbits.evals.reproductions.learned_rules.lives import Suite, by_saved_rule

DISCOUNTS = (0.0, 0.5, 0.7, 0.9, 0.99)
_LAMBDA, _RATE = 0.95, 0.1
_FOLDS, _RIDGE = 5, 1e-6
_LEAST_STATES = 2 * _FOLDS


class Follower:
    """Learns V by TD(lambda) along with the agents, and counts the states of their last rollouts.

    Args:
        lifetimes: L.
        num_states: S.
        discount: gamma.
        from_update: the first rollout of which states are counted.

    Attributes:
        values: the tables of V.
        visits: how often each state was visited, [L, S].
    """

    def __init__(self, lifetimes: int, num_states: int, discount: float, from_update: int) -> None:
        self.values = TabularValues(lifetimes, num_states, _RATE)
        self.visits = torch.zeros(lifetimes, num_states)
        self._discount, self._wait = discount, from_update

    def __call__(self, lesson: Lesson) -> None:
        """Take in a rollout."""
        advantages(self.values, lesson, discount=self._discount, gae_lambda=_LAMBDA)
        self._wait -= 1
        if self._wait < 0:
            states = lesson.obs.transpose(0, 1).flatten(1)
            self.visits.scatter_add_(1, states, torch.ones(states.shape))


def measure(suite: Suite, saved: SavedRule) -> dict[str, NDArray[np.float64]]:
    """R^2 of read-outs in each held-out level, [levels, discounts] each.

    Args:
        suite: small gridworlds.
        saved: the rule.

    Returns:
        "y", "td" and "untrained y"; NaN for levels in which the true values do not vary over the states visited, or
        fewer than ten were.
    """
    worlds = suite.worlds("held-out")
    assert worlds.num_states is not None
    updates = int(worlds.lifetime_updates.max())
    found: dict[str, NDArray[np.float64]] = {}
    for name, rule in (("y", saved.rule), ("untrained y", LPGRule(saved.rule.config, seed=0))):
        follower = Follower(worlds.lifetimes, worlds.num_states, saved.rule.config.discount, updates * 4 // 5)
        life = by_saved_rule(suite, saved, by_rule(rule), follower)
        features = {name: _predictions(life, worlds.num_actions)}
        if name == "y":
            features["td"] = follower.values.state["value"][..., None].double().numpy()
        r2 = [
            _of_level(suite, level, life, worlds.num_actions, features, follower.visits[level])
            for level in range(suite.levels)
        ]
        found |= {key: np.array([one[key] for one in r2]) for key in features}
    return found


def _predictions(life: Life, num_actions: int) -> NDArray[np.float64]:
    """The predictions of every state, [L, S, m]."""
    y: NDArray[np.float64] = life.state["table"][..., num_actions:].double().softmax(-1).numpy()
    return y


def _of_level(
    suite: Suite, level: int, life: Life, actions: int, features: Mapping[str, NDArray[np.float64]], visits: Tensor
) -> dict[str, list[float]]:
    """R^2 of each feature at each discount in one level."""
    table = read_table(level_kind(suite.kind).level(HELD_OUT + level))
    assert table.states is not None
    index = states_of(suite.kind, table.states)
    policy = life.state["table"][level, index, :actions].double().softmax(-1).numpy()
    weights = visits[index].double().numpy()
    found: dict[str, list[float]] = {name: [] for name in features}
    for discount in DISCOUNTS:
        value = policy_value(table, policy, discount)
        for name, feature in features.items():
            found[name].append(held_out_r2(feature[level][index], value, weights))
    return found


def states_of(kind: str, states: NDArray[Any]) -> NDArray[np.int64]:
    """The index observation of each state of a gridworld's exact model, int64 [S]."""
    params = level_kind(kind).game.params
    cells = int(params["height"][0] * params["width"][0])
    index: NDArray[np.int64] = states["cell"].astype(np.int64) + cells * states["present"].astype(np.int64)
    return index


def held_out_r2(features: NDArray[np.float64], values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """R^2 of linear read-outs of features [S, m] on states that they were not fitted on.

    Args:
        features: of each state.
        values: to be read off, [S].
        weights: of the states, [S]; those with weight 0 are left out.

    Returns:
        1 less the weighted squared error over all folds by the weighted variance, at least 0 (no better than the mean);
        NaN if the values do not vary, or there are fewer than ten states.
    """
    seen = np.flatnonzero(weights > 0)
    if len(seen) < _LEAST_STATES:
        return float("nan")
    share = weights[seen] / weights[seen].sum()
    x, v = np.column_stack([np.ones(len(seen)), features[seen]]), values[seen]
    variance = float(share @ (v - share @ v) ** 2)
    if variance < 1e-12:
        return float("nan")
    fold = np.random.default_rng(0).permutation(len(seen)) % _FOLDS
    error = 0.0
    for k in range(_FOLDS):
        fitted, judged = fold != k, fold == k
        scaled = x[fitted] * share[fitted, None]
        gram = scaled.T @ x[fitted] + _RIDGE * np.eye(x.shape[1])
        weight = np.linalg.solve(gram, scaled.T @ v[fitted])
        error += float(share[judged] @ (v[judged] - x[judged] @ weight) ** 2)
    return max(0.0, 1.0 - error / variance)
