"""The off-policy reproductions: the exact value by another way, their quick forms, and the measures of a ranking."""

import numpy as np
import pytest

from mlbits.evals.reproductions.offline.off_policy import NAMES, Problem, _checks, estimates, reproduce
from mlbits.evals.reproductions.offline.off_policy_ranking import compare
from mlbits.evals.reproductions.offline.off_policy_ranking import reproduce as rank
from mlbits.evals.reproductions.reproduction import ReproductionError


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


FINE = dict(zip(NAMES, (0.9, 0.6, 0.4, 0.3, 0.02, 0.05, 0.04, 0.2, 0.08, 0.06), strict=True))
MORE = {name: error if name == "FQE wrong" else 0.3 * error for name, error in FINE.items()}  # with ten times the data


def verdicts(ess=3.0, **changed):
    """Whether each statement holds for two problems, in the second of which some errors with more data are others."""
    rows = [{"rmse": FINE, "ess": ess}, {"rmse": MORE, "ess": 30.0}, {"rmse": FINE, "ess": 6.0}]
    rows.append({"rmse": MORE | changed, "ess": 60.0})
    means = [{name: np.sqrt(one["rmse"][name] * other["rmse"][name]) for name in NAMES}
             for one, other in zip(rows[:2], rows[2:], strict=True)]  # fmt: skip
    return list(_checks(rows, means).values())


def test_what_is_checked():
    assert verdicts() == [True] * 5
    assert verdicts(WIS=0.2) == [True] * 5  # the wrong order in one row, not in the mean
    assert verdicts(WIS=0.4) == [False, True, True, True, True]
    assert verdicts(DR=0.001) == [True, False, True, True, True]
    assert verdicts(**{"FQE wrong": 0.02}) == [True, True, False, True, True]
    assert verdicts(**{"WDR wrong": 0.05}) == [True, True, True, False, True]
    assert verdicts(ess=5.0) == [True, True, True, True, False]  # no row with few: nothing is shown


@pytest.mark.parametrize("argument", [{"replications": 1}, {"problems": 0}])
def test_errors(argument):
    ((name, value),) = argument.items()
    with pytest.raises(ReproductionError, match=f"{name}: got {value}; wanted at least"):
        reproduce(**argument)


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
