"""The off-policy reproductions: the exact value by another way, their quick forms, and the measures of a ranking."""

import numpy as np
import pytest

from mlbits.evals.reproductions.off_policy import Problem, estimates, reproduce
from mlbits.evals.reproductions.off_policy_ranking import compare
from mlbits.evals.reproductions.off_policy_ranking import reproduce as rank


def test_the_linear_solve_is_the_mean_return_of_the_policy():
    problem = Problem.random(3)
    _, _, reward = problem.play(problem.policy, 40_000, 6, 1)
    returns = reward.sum(1)
    assert problem.value(6) == pytest.approx(returns.mean(), abs=5 * returns.std() / 200)
    assert problem.value(1) == pytest.approx(problem.start @ (problem.policy * problem.reward).sum(1))


def test_estimates_on_the_policys_own_data_are_equal():
    problem = Problem.random(0)
    values, _, size = estimates(problem, problem.policy, 50, 5, 1)
    assert size == pytest.approx(50)
    assert np.ptp(values[:4]) == pytest.approx(0, abs=1e-12)


@pytest.mark.slow
def test_the_quick_table_meets_its_target():
    result = reproduce(quick=True)
    assert result["met"], result["checks"]
    assert len(result["rows"]) == 24


def test_the_orderings_hold_with_few_data_sets():
    """The hardest rows of the quick table: a horizon of 20, uniform play."""
    problem = Problem.random(0)
    behaviour = np.full_like(problem.policy, 1 / 3)
    truth = problem.value(20)
    runs = np.array([estimates(problem, behaviour, 100, 20, seed)[0] for seed in range(60)])
    error = dict(zip(("IS", "PDIS", "WIS", "PDWIS", "FQE", "DR", "WDR", "wrong", "DR wrong", "WDR wrong"),
                     np.sqrt(((runs - truth) ** 2).mean(0)), strict=True))  # fmt: skip
    assert error["PDWIS"] < error["WIS"] < error["PDIS"] < error["IS"]
    assert error["FQE"] == min(error.values())
    assert error["WDR wrong"] < error["wrong"]


def test_the_measures_of_a_ranking_by_hand():
    order, regret, error = compare([0.0, 1.0, 2.0], [0.5, 2.5, 1.5])
    assert order == pytest.approx(0.5)  # one pair of neighbours swapped: 1 - 6 * 2 / (3 * 8)
    assert regret == pytest.approx(0.5)
    assert error == pytest.approx((0.5 + 1.5 + 0.5) / 3 / 2)
    assert compare([0.0, 1.0], [None, 3.0]) == pytest.approx((1.0, 0.0, 2.0))
    assert compare([0.0, 1.0], [None, None])[:2] == pytest.approx((0.0, 1.0))


@pytest.mark.slow
def test_the_quick_ranking_meets_its_target():
    assert rank(quick=True)["met"]
