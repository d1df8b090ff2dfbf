"""Means and their intervals against scipy's."""

import numpy as np
import pytest
from scipy import stats

from mlbits.selfplay.statistics import mean_interval


@pytest.mark.parametrize("count", [2, 3, 20, 1000])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_the_interval_is_students(count, confidence):
    values = np.random.default_rng(count).normal(3, 2, count)
    mean, interval = mean_interval(values, confidence)
    wanted = stats.t.interval(confidence, count - 1, loc=values.mean(), scale=stats.sem(values))
    assert mean == pytest.approx(values.mean())
    assert interval == pytest.approx(wanted)


def test_worked_by_hand():
    # mean 2, deviation 1, standard error 1 / sqrt(3), quantile 4.3027 at two degrees of freedom
    assert mean_interval([1, 2, 3])[1] == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-4)


@pytest.mark.parametrize("values", [[4.5], [4.5, 4.5, 4.5]])
def test_numbers_without_spread_are_their_own_interval(values):
    assert mean_interval(values) == (4.5, (4.5, 4.5))


def test_no_numbers_are_refused():
    with pytest.raises(ValueError, match="values: got none; wanted at least one"):
        mean_interval([])
