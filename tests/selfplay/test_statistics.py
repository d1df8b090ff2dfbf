"""Intervals of means, fractions and interquartile means, by hand, against scipy's and by simulated coverage."""

import json

import numpy as np
import pytest
from scipy import stats

from mlbits.selfplay.statistics import (
    UNKNOWN,
    bounded_interval,
    difference_interval,
    equal_interval,
    fraction_interval,
    interquartile_mean,
    interval_text,
    iqm_interval,
    json_text,
    mean_interval,
)


@pytest.mark.parametrize("count", [2, 3, 20, 1000])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_the_interval_equals_students(count, confidence):
    values = np.random.default_rng(count).normal(3, 2, count)
    mean, interval = mean_interval(values, confidence)
    wanted = stats.t.interval(confidence, count - 1, loc=values.mean(), scale=stats.sem(values))
    assert mean == pytest.approx(values.mean())
    assert interval == pytest.approx(wanted)


def test_worked_by_hand():
    # mean 2, deviation 1, standard error 1 / sqrt(3), quantile 4.3027 at two degrees of freedom
    assert mean_interval([1, 2, 3])[1] == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-4)


@pytest.mark.parametrize("values", [[4.5], [4.5, 4.5, 4.5]])
def test_numbers_without_spread_have_no_interval_unless_bounds_are_known(values):
    assert mean_interval(values) == (4.5, UNKNOWN)
    assert mean_interval(values, bounds=(4.5, 4.5)) == (4.5, UNKNOWN)
    mean, (low, high) = mean_interval(values, 0.9, bounds=(0.5, 5.5))
    # Wilson's upper limit for 0 of n is z^2 / (n + z^2).
    others = 1.644854**2 / (len(values) + 1.644854**2)
    assert (mean, low, high) == (4.5, pytest.approx(4.5 - 4 * others), pytest.approx(4.5 + others))


def test_twenty_equal_outcomes_between_0_and_1():
    wilson = stats.binomtest(20, 20).proportion_ci(0.95, method="wilson")
    assert mean_interval([1.0] * 20, bounds=(0, 1)) == (1, (pytest.approx(wilson.low), 1))
    assert mean_interval([0.0] * 20, bounds=(0, 1)) == (0, (0, pytest.approx(1 - wilson.low)))
    assert equal_interval(1.0, 20, (0, 1)) == (pytest.approx(wilson.low), 1)
    with pytest.raises(ValueError, match=r"bounds: got \(0, 1\) for numbers 2.0 .. 2.0; wanted bounds around them"):
        mean_interval([2.0] * 20, bounds=(0, 1))


def test_repeated_numbers_get_the_wider_of_wilsons_and_students_intervals():
    """98 of 100 are 3 and 2 are 1: 1 and 3 correspond to 0 and 1 of a fraction."""
    values = [3.0] * 98 + [1.0] * 2
    wilson = stats.binomtest(98, 100).proportion_ci(0.95, method="wilson")
    mean, (low, high) = mean_interval(values)
    student = stats.t.interval(0.95, 99, loc=mean, scale=stats.sem(values))
    assert mean == pytest.approx(2.96)
    assert (low, high) == (pytest.approx(1 + 2 * wilson.low), pytest.approx(student[1]))
    assert low < student[0]
    # With wider bounds the spread is a smaller part of what it might be, and the interval wider.
    assert mean_interval(values, bounds=(0, 3))[1][0] < low
    # Four different numbers, none of which half of them are, or one of three runs: Student's alone.
    for others in ([1, 1, 5, 10, 10, 7], [500, 500, 480]):
        wanted = stats.t.interval(0.95, len(others) - 1, loc=np.mean(others), scale=stats.sem(others))
        assert mean_interval(others) == (pytest.approx(np.mean(others)), pytest.approx(wanted))
    # Half are: Wilson's too, with the variance that they have.
    many = [500.0] * 30 + list(np.linspace(100, 480, 20))
    near, _ = bounded_interval(np.mean(many), np.var(many) / 50, (100, 500))
    student = stats.t.interval(0.95, 49, np.mean(many), stats.sem(many))[0]
    assert mean_interval(many)[1][0] == pytest.approx(near)
    assert near < student


def test_bounded_numbers_have_wilsons_interval_with_their_own_variance():
    """A third of the variance of a fraction, as of uniform numbers: like three times as many."""
    share = 0.3
    low, high = bounded_interval(10 * share - 5, share * 0.7 * 100 / 60, (-5, 5))
    wanted = stats.binomtest(18, 60).proportion_ci(0.95, method="wilson")
    assert (low, high) == (pytest.approx(10 * wanted.low - 5), pytest.approx(10 * wanted.high - 5))


def coverage(interval, draw, truth, times, size, seed=0):
    """How often an interval of ``size`` numbers holds the truth."""
    rows = draw(np.random.default_rng(seed), (times, size))
    ends = np.array([interval(row) for row in rows])
    return float(((ends[:, 0] <= truth) & (truth <= ends[:, 1])).mean())


@pytest.mark.parametrize("chance", [0.5, 0.8, 0.95, 0.99])
@pytest.mark.parametrize("size", [5, 20, 100])
def test_means_of_wins_and_losses_cover(chance, size):
    """Exactly: each number of wins has its interval, and a binomial probability."""
    odds = stats.binom.pmf(range(size + 1), size, chance)
    for bounds in (None, (0, 1)):
        ends = [mean_interval([1.0] * k + [0.0] * (size - k), bounds=bounds)[1] for k in range(size + 1)]
        assert sum(p for p, (low, high) in zip(odds, ends, strict=True) if low <= chance <= high) > 0.925


def test_means_of_wins_draws_and_losses_cover():
    """97% won, 2% drawn, 1% lost; Student's alone covers 90%."""

    def draw(generator, shape):
        return generator.choice([1.0, 0.0, -1.0], p=[0.97, 0.02, 0.01], size=shape)

    assert coverage(lambda row: mean_interval(row)[1], draw, 0.96, 600, 100) > 0.94


def test_a_difference_has_welchs_interval():
    generator = np.random.default_rng(3)
    one, other = generator.normal(2, 1, 7), generator.normal(0, 4, 30)
    wanted = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.9)
    found = difference_interval(one, other, 0.9)
    assert found == (pytest.approx(one.mean() - other.mean()), (pytest.approx(wanted.low), pytest.approx(wanted.high)))
    assert difference_interval([1, 1], [1, 1, 1]) == (0, UNKNOWN)
    # One side always the same: what others it might have lie within what both show.
    mean, (low, high) = difference_interval([1.0] * 30, [0.0, 1.0] * 10)
    least, most = fraction_interval(10, 20)[1]
    student = stats.t.interval(0.95, 19, loc=0.5, scale=stats.sem([0.0, 1.0] * 10))
    assert mean == 0.5
    assert low == pytest.approx(fraction_interval(30, 30)[1][0] - max(most, student[1]))
    assert high == pytest.approx(1 - min(least, student[0]))
    with pytest.raises(ValueError, match="one, other: got 2 and 0"):
        difference_interval([1, 2], [])


def test_no_numbers_are_refused():
    with pytest.raises(ValueError, match="values: got none; wanted at least one"):
        mean_interval([])


# The interquartile mean and its interval


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
def test_the_interquartile_mean_equals_scipys(count):
    values = np.random.default_rng(count).standard_cauchy(count)
    assert interquartile_mean(values) == pytest.approx(stats.trim_mean(values, 0.25))


def test_the_iqm_interval_by_hand():
    """Eight runs, two left out at each end.

    Winsorised 2, 2, 2, 3, 4, 6, 6, 6: mean 31/8, squares 145 - 961/8 = 199/8, variance 199/56. Standard error
    sqrt(8 * 199 / 56) / 4, t of 3 degrees 3.1824. Student's of all eight, 0 .. 9, is narrower.
    """
    runs = [2, 0, 1, 3, 4, 6, 7, 9]
    half = 3.18245 * (8 * 199 / 56) ** 0.5 / 4
    whole = 2.36462 * np.std(runs, ddof=1) / 8**0.5
    assert whole < half
    assert iqm_interval([runs]) == pytest.approx((3.75 - half, 3.75 + half), abs=1e-4)
    # An outlier is left out of the mean, but widens the interval: Student's of all is wider.
    runs[-1] = 90
    whole = 2.36462 * np.std(runs, ddof=1) / 8**0.5
    assert iqm_interval([runs]) == pytest.approx((3.75 - whole, 3.75 + whole), abs=1e-3)


def test_the_iqm_interval_equals_scipys():
    runs = np.random.default_rng(2).random(40)
    wanted = stats.mstats.trimmed_mean_ci(runs, limits=(0.25, 0.25), inclusive=(True, True), alpha=0.1)
    assert wanted[1] - wanted[0] > 2 * stats.t.ppf(0.95, 39) * stats.sem(runs)  # wider than Student's
    assert iqm_interval([runs], 0.9) == pytest.approx(tuple(wanted))


def test_three_runs_have_students_interval():
    assert iqm_interval([[1, 2, 3]]) == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-4)


def test_a_failed_run_widens_the_interval():
    """The middle three of five are 500; the interval is as wide as the mean's."""
    half = 2.77645 * np.std([500, 500, 76, 500, 500], ddof=1) / 5**0.5
    assert iqm_interval([[500, 500, 76, 500, 500]]) == pytest.approx((500 - half, 500 + half), rel=1e-4)
    assert iqm_interval([[500] * 5]) == iqm_interval([[500]]) == iqm_interval([[1], [2], [3]]) == UNKNOWN


def test_the_spread_is_within_strata():
    """Two tasks far apart: the spread is that within each; by hand.

    Pooled 0, 1, 100, 101, the middle 1 and 100, winsorised 1, 1, 100, 100: nothing is left. All: variances 1/2 and 1/2,
    of the mean of four (2 * 1/2 + 2 * 1/2) / 16, degrees of freedom (1 + 1)^2 / (1 + 1) = 2.
    """
    half = 4.30265 * (2 / 16) ** 0.5
    assert iqm_interval([[0, 1], [101, 100]]) == pytest.approx((50.5 - half, 50.5 + half), abs=1e-4)
    low, high = iqm_interval([[0.0, 1.0, 2.0], [100.0, 101.0, 102.0]])
    assert high - low < 6
    assert iqm_interval([[5, 5, 5], [1, 2, 3]])[1] < 10  # a task without spread adds none


@pytest.mark.parametrize(
    ("draw", "truth"),
    [
        (lambda generator, shape: generator.normal(size=shape), 0.0),
        (lambda generator, shape: generator.random(shape), 0.5),
        # Exponential: the mean of its middle half, 2 * integral of -log(1 - p) over 1/4 .. 3/4.
        (lambda generator, shape: generator.exponential(size=shape), 0.738),
    ],
    ids=["normal", "uniform", "exponential"],
)
@pytest.mark.parametrize("size", [3, 5, 10])
def test_iqm_intervals_of_few_runs_have_their_nominal_coverage(draw, truth, size):
    """1,500 samples: a coverage of 0.95 is within 0.93 .. 0.97 all but once in a thousand."""
    held = coverage(lambda row: iqm_interval([row]), draw, truth, 1500, size)
    assert 0.91 < held < 0.985


def test_iqm_intervals_over_tasks_cover():
    """Five tasks of their own scale and level, three runs each; the truth is the pooled IQM of very many runs."""
    level, scale = np.array([0.0, 0.5, 1.0, 1.2, 3.0]), np.array([0.2, 0.1, 0.3, 0.2, 1.0])
    generator, held = np.random.default_rng(0), []
    truth = interquartile_mean(level + scale * generator.normal(size=(40_000, 5)))
    for _ in range(400):
        low, high = iqm_interval(list((level + scale * generator.normal(size=(3, 5))).T))
        held.append(low <= truth <= high)
    assert 0.9 < np.mean(held) < 0.995


def test_confidence_widens():
    runs = [3.0, 1.0, 4.0, 1.5, 9.0]
    widths = [np.diff(iqm_interval([runs], confidence))[0] for confidence in (0.5, 0.9, 0.99)]
    assert widths[0] < widths[1] < widths[2]


def test_intervals_in_words_and_in_json():
    assert interval_text((1.0, 2.5), 9) == "95% interval 1 to 2.5"
    # z^2 / (n + z^2) = 3.8415 / 103.8415
    assert interval_text(UNKNOWN, 100) == "all 100 equal: with 95% confidence at most 3.7% of further ones differ"
    assert interval_text((-np.inf, 3.0), 9) == "95% interval below 3"
    assert interval_text((3.0, np.inf), 9, ".1f") == "95% interval above 3.0"
    data = {"interval": [-np.inf, np.inf], "text": 'to Infinity, "-Infinity"', "Infinity": 1.5}
    text = json_text(data, 1)
    assert json.loads(text, parse_constant=pytest.fail) == data  # valid JSON
    assert json_text({"a": [1, None, "x"]}) == '{"a": [1, null, "x"]}'


def test_strata_without_numbers_are_refused():
    with pytest.raises(ValueError, match="values: got none"):
        interquartile_mean([])
    for strata in ([], [[1.0], []]):
        with pytest.raises(ValueError, match=r"strata: got \[.*\] numbers; wanted at least one in each"):
            iqm_interval(strata)


@pytest.mark.parametrize(("count", "total"), [(0, 10), (7, 10), (300, 301), (301, 301), (1, 1)])
def test_a_fraction_has_wilsons_interval(count, total):
    wanted = stats.binomtest(count, total).proportion_ci(0.9, method="wilson")
    share, (low, high) = fraction_interval(count, total, 0.9)
    assert share == count / total
    assert (low, high) == (pytest.approx(wanted.low, abs=1e-12), pytest.approx(wanted.high))
    with pytest.raises(ValueError, match="total: got 0"):
        fraction_interval(0, 0)
