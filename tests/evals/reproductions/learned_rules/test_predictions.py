"""Read-outs: what is and is not in features, judged on states left out; states and visits of real lives."""

import numpy as np
import torch

from mlbits.agents.learned_rules.files import SavedRule
from mlbits.agents.learned_rules.populations import Lesson
from mlbits.agents.learned_rules.rule import LPGRule, RuleConfig
from mlbits.envs.engine.batch import GameBatch
from mlbits.envs.exact.transition_table import read_table
from mlbits.envs.levels.catalogue import level_kind
from mlbits.evals.reproductions.learned_rules.lives import Suite
from mlbits.evals.reproductions.learned_rules.predictions import (
    DISCOUNTS,
    Follower,
    held_out_r2,
    measure,
    states_of,
)


def test_a_linear_read_out_finds_what_is_there_and_noise_earns_nothing():
    rng = np.random.default_rng(0)
    features, weights = rng.normal(size=(60, 4)), rng.random(60)
    values = features @ [1.0, -2.0, 0.5, 3.0] + 7
    assert held_out_r2(features, values, weights) > 0.999
    assert held_out_r2(rng.normal(size=(60, 4)), values, weights) < 0.2
    # As many features as states would fit anything; judged on states left out they are worth nothing.
    assert held_out_r2(rng.normal(size=(20, 20)), values[:20], weights[:20]) < 0.3


def test_states_without_weight_do_not_count():
    rng = np.random.default_rng(1)
    features = rng.normal(size=(40, 2))
    values, weights = features.sum(1), np.ones(40)
    values[:10] = 1e3 * rng.normal(size=10)
    assert held_out_r2(features, values, weights) < 0.5
    weights[:10] = 0
    assert held_out_r2(features, values, weights) > 0.999
    assert np.isnan(held_out_r2(features, values, (np.arange(40) < 9).astype(float)))
    assert np.isnan(held_out_r2(features, np.ones(40), np.ones(40)))


def test_the_states_of_an_exact_model_are_numbered_as_they_are_observed():
    game = level_kind("small").level(11)
    table = read_table(game)
    copies = GameBatch(game, table.num_states)
    copies.set_state(table.states)
    assert np.array_equal(copies.obs[:, 0].numpy(), states_of("small", table.states))


def test_the_follower_learns_td_values_and_counts_late_states():
    # Two states: 0 goes to 1, which ends with reward 1.
    obs = torch.tensor([0, 1, 0, 1]).view(4, 1, 1)
    end = (obs == 1).bool()
    never = torch.zeros_like(end)
    lesson = Lesson(obs, 1 - obs, torch.zeros_like(obs), end.float(), end, never)
    follower = Follower(1, 3, discount=0.5, from_update=199)
    for _ in range(200):
        follower(lesson)
    assert follower.values.state["value"][0].tolist() == [
        follower.values.state["value"][0, 0].item(), follower.values.state["value"][0, 1].item(), 0.0,
    ]  # fmt: skip
    torch.testing.assert_close(follower.values.state["value"][0, :2], torch.tensor([0.5, 1.0]), atol=1e-3, rtol=0)
    assert follower.visits.tolist() == [[2, 2, 0]]


def test_the_predictions_of_lives_are_measured_level_by_level():
    rule = LPGRule(RuleConfig(hidden=8), seed=0)
    suite = Suite("small", 3, copies=4, lifetime=30)
    found = measure(suite, SavedRule(rule, 40.0, 0.5, {}, ""))
    assert set(found) == {"y", "td", "untrained y"}
    for r2 in found.values():
        assert r2.shape == (3, len(DISCOUNTS))
        known = r2[np.isfinite(r2)]
        assert ((known >= 0) & (known <= 1)).all()
    # The same weights, level and agents: an untrained rule is itself.
    np.testing.assert_array_equal(found["y"], found["untrained y"])
