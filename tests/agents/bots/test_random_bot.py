"""Random play: uniform over legal actions, and for continuous actions the distributions of Gymnasium's spaces."""

import dataclasses
import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from scipy import stats

from mlbits.agents.bots.random_bot import RandomAgent
from mlbits.envs.core.box_sampling import BoxSampler
from mlbits.envs.doors.masked_spaces import LegalDiscrete, LegalMultiDiscrete
from mlbits.envs.engine.batch import GameBatch
from tests.games import point, register_test_games

register_test_games()
VECTOR = spaces.Box(-1, 1, (3,))
N = 40_000


def agents_draws(space, count=N, seed=0):
    agent = RandomAgent(VECTOR, space)
    return agent.act(torch.zeros(count, 3), None, torch.Generator().manual_seed(seed))


def batchs_draws(space, count=N):
    return GameBatch(dataclasses.replace(point(), action_space=space), count, seed=5).sample_actions()[:, 0]


@pytest.mark.parametrize("draws", [lambda space: agents_draws(space).action, batchs_draws])
def test_bounded_actions_are_uniform(draws):
    action = draws(spaces.Box(np.array([-2.0, 3.0]), np.array([2.0, 3.5]), dtype=np.float32)).numpy()
    assert np.std(action[:, 0]) == pytest.approx(4 / math.sqrt(12), abs=0.01)  # 1.155; a clipped normal's is 1.44
    assert np.isin(action[:, 0], [-2, 2]).mean() < 1e-3
    for k, (low, width) in enumerate(((-2, 4), (3, 0.5))):
        assert stats.kstest(action[:, k], "uniform", args=(low, width)).pvalue > 1e-3
        assert action[:, k].min() >= low
        assert action[:, k].max() <= low + width
    assert abs(np.corrcoef(action.T)[0, 1]) < 0.02


@pytest.mark.parametrize("draws", [lambda space: agents_draws(space).action, batchs_draws])
def test_unbounded_actions_are_drawn_as_by_gymnasium(draws):
    low, high = np.array([-np.inf, 1.0, -np.inf, -1.0]), np.array([np.inf, np.inf, -3.0, 1.0])
    space = spaces.Box(low, high, dtype=np.float32)
    space.seed(1)
    action, theirs = draws(space).numpy(), np.stack([space.sample() for _ in range(4000)])
    for k in range(4):
        assert stats.ks_2samp(action[:, k], theirs[:, k]).pvalue > 1e-3, k
    assert stats.kstest(action[:, 0], "norm").pvalue > 1e-3
    assert stats.kstest(action[:, 1] - 1, "expon").pvalue > 1e-3
    assert stats.kstest(-3 - action[:, 2], "expon").pvalue > 1e-3
    assert space.contains(action.min(0)) and space.contains(action.max(0))


def test_integers_are_uniform_including_the_bounds():
    action = agents_draws(spaces.Box(-2, 2, (1,), np.int8)).action
    counts = np.unique_counts(action.numpy())
    assert counts.values.tolist() == [-2, -1, 0, 1, 2]
    assert stats.chisquare(counts.counts).pvalue > 1e-3


def test_bounds_whose_range_overflows_float32():
    action = agents_draws(spaces.Box(-3e38, 3e38, (1,), np.float32)).action.double() / 3e38
    assert bool(torch.isfinite(action).all())
    assert stats.kstest(action[:, 0].numpy(), "uniform", args=(-1, 2)).pvalue > 1e-3


def test_densities():
    space = spaces.Box(np.array([-2, 1, -np.inf, -np.inf]), np.array([2, np.inf, 0, np.inf]), dtype=np.float32)
    decision = agents_draws(space, 50)
    x = decision.action.double().numpy()
    wanted = stats.uniform.logpdf(x[:, 0], -2, 4) + stats.expon.logpdf(x[:, 1], 1)
    wanted += stats.expon.logpdf(-x[:, 2]) + stats.norm.logpdf(x[:, 3])
    assert decision.log_prob.numpy() == pytest.approx(wanted, abs=1e-5)
    assert agents_draws(spaces.Box(-2, 2, (1,), np.int8), 3).log_prob.tolist() == pytest.approx([-math.log(5)] * 3)


def test_the_generator_decides():
    one, two, other = (agents_draws(spaces.Box(-1, np.inf, (2,)), 5, seed).action for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


# A draw of exactly 0, of which there is one in 2^24


def test_illegal_actions_are_not_drawn_even_for_a_draw_of_0(monkeypatch):
    batch = GameBatch(gym.make("test/Solitaire-v0").unwrapped.game, 4, seed=0)
    monkeypatch.setattr(torch, "rand", lambda *shape, **rest: torch.zeros(*shape))
    batch.legal_mask[:] = False
    batch.legal_mask[..., 3] = batch.legal_mask[..., 7] = True
    assert batch.sample_actions().tolist() == [[3]] * 4


class Zeros:
    def random(self, shape):
        return np.zeros(shape)


def test_spaces_draw_no_illegal_action_for_a_draw_of_0():
    mask = np.array([False, True, False, True, False])
    one = LegalDiscrete(5, mask)
    one._np_random = Zeros()
    assert one.sample() == 1
    several = LegalMultiDiscrete(np.array([2, 3]), (2, 3), mask)
    several._np_random = Zeros()
    assert several.sample().tolist() == [1, 1]


def test_draws_between_equal_bounds():
    assert BoxSampler(spaces.Box(0.5, 0.5, (1,))).sample((3,), torch.Generator()).tolist() == [[0.5]] * 3
