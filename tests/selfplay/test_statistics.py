"""Means and their intervals, by hand and against scipy's."""

import numpy as np
import pytest
from scipy import stats

from mlbits.selfplay.statistics import bootstrap_interval, interquartile_mean, mean_interval, share_interval


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


# The interquartile mean and its bootstrap


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([7], 7),
        ([1, 2, 6], 3),  # fewer than four: nothing is left out
        ([1, 2, 6, 100], 4),
        ([500, 120, 480, 490, 500], 490),
        ([0, 1, 2, 3, 4, 5, 6, 1000], 3.5),
        ([[0, 1000], [2, 4]], 3),
    ],
)
def test_the_interquartile_mean_by_hand(values, wanted):
    assert interquartile_mean(values) == pytest.approx(wanted)


@pytest.mark.parametrize("count", range(1, 24))
def test_the_interquartile_mean_is_scipys(count):
    values = np.random.default_rng(count).standard_cauchy(count)
    assert interquartile_mean(values) == pytest.approx(stats.trim_mean(values, 0.25))


def test_the_bootstrap_of_two_runs_by_hand():
    # Pairs drawn from 0 and 1 have the means 0, 1/2, 1/2, 1 with probability a quarter each.
    assert bootstrap_interval([[0, 1]]) == (0, 1)
    assert bootstrap_interval([[0, 1]], confidence=0.4) == (0.5, 0.5)


def test_the_bootstrap_is_scipys():
    values = np.random.default_rng(5).normal(100, 20, 30)
    wanted = stats.bootstrap(
        (values,), lambda rows, axis: stats.trim_mean(rows, 0.25, axis=axis), vectorized=True, method="percentile",
        n_resamples=10_000, random_state=1,
    ).confidence_interval  # fmt: skip
    width = wanted.high - wanted.low
    assert bootstrap_interval([values]) == pytest.approx(tuple(wanted), abs=0.05 * width)


def test_strata_are_never_mixed():
    """One run a task leaves nothing to draw; drawn across tasks, the interval would be wide."""
    assert bootstrap_interval([[0], [10], [20]]) == (10, 10)
    low, high = bootstrap_interval([[0, 1], [100, 101]])
    assert (low, high) == (50, 51)  # four numbers, the middle two: one of each task


def test_intervals_are_a_function_of_seed_and_numbers():
    values = [3.0, 1.0, 4.0, 1.5, 9.0]
    assert bootstrap_interval([values]) == bootstrap_interval([values])
    assert bootstrap_interval([values], resamples=50) != bootstrap_interval([values], resamples=50, seed=1)


def test_the_interval_covers_as_often_as_it_says():
    """Percentile intervals of few runs are a little narrow: 95% of them cover about 90% of the time for 10 runs."""
    generator = np.random.default_rng(0)
    covered = [low < 0 < high for low, high in (
        bootstrap_interval([generator.normal(size=10)], resamples=400) for _ in range(400))]  # fmt: skip
    assert 0.85 < np.mean(covered) < 0.97


def test_strata_without_numbers_are_refused():
    with pytest.raises(ValueError, match="values: got none"):
        interquartile_mean([])
    for strata in ([], [[1.0], []]):
        with pytest.raises(ValueError, match=r"strata: got \[.*\] numbers; wanted at least one in each"):
            bootstrap_interval(strata)


@pytest.mark.parametrize(("count", "total"), [(0, 10), (7, 10), (300, 301), (301, 301), (1, 1)])
def test_a_share_has_wilsons_interval(count, total):
    wanted = stats.binomtest(count, total).proportion_ci(0.9, method="wilson")
    share, (low, high) = share_interval(count, total, 0.9)
    assert share == count / total
    assert (low, high) == (pytest.approx(wanted.low, abs=1e-12), pytest.approx(wanted.high))
    with pytest.raises(ValueError, match="total: got 0"):
        share_interval(0, 0)
