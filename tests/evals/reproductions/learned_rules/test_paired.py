"""Paired statistics: differences, ratios and normalised scores against numbers worked out by hand, and coverage."""

import numpy as np
import pytest

from mlbits.evals.reproductions.learned_rules.paired import (
    bootstrap,
    normalised,
    normalised_iqm,
    paired_difference,
    ratio,
    share_above,
    thinned,
)


def test_a_paired_difference_does_not_see_how_levels_differ():
    rng = np.random.default_rng(0)
    level = 100 * rng.normal(size=200)
    other = level + rng.normal(size=200)
    found = paired_difference(level + 1, other)
    assert found.value == pytest.approx(float((level + 1 - other).mean()))
    assert 0.7 < found.low < found.value < found.high < 1.4
    assert found.high - found.low == pytest.approx(2 * 1.96 / np.sqrt(200), rel=0.15)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(1)
    covered = 0
    for k in range(100):
        found = bootstrap(lambda values: float(values.mean()), rng.normal(size=(1, 60)), seed=k, count=200)
        covered += found.low <= 0 <= found.high
    assert 0.90 <= covered / 100 <= 0.99


def test_rules_are_resampled_too():
    levels = np.zeros((3, 50))
    levels += np.array([[0.0], [1.0], [2.0]])  # rules differ, levels do not
    found = paired_difference(levels, np.zeros(50))
    assert found.value == 1.0
    assert found.low < 0.5
    assert found.high > 1.5
    alike = paired_difference(np.ones((3, 50)), np.zeros(50))
    assert tuple(alike) == (1.0, 1.0, 1.0)


def test_ratios_shares_and_normalised_scores():
    assert ratio([[1.0, 2.0]], [2.0, 4.0]) == (0.5, 0.5, 0.5)
    assert share_above([[1.0, 2.0, 3.0, 0.0]], [0.0, 2.0, 4.0, -1.0]).value == 0.625
    scores = normalised([[1.0, 3.0, 9.0]], zero=[0.0, 1.0, 5.0], unit=[2.0, 2.0, 5.0], least=0.1)
    assert scores.tolist() == [[0.5, 2.0]]  # nothing to gain in the last level
    iqm = normalised_iqm([[0.0, 1.0, 2.0, 30.0]], np.zeros(4), np.ones(4), least=0.1)
    assert iqm.value == 1.5
    assert np.isnan(normalised_iqm([[1.0]], [0.0], [0.0], least=0.1).value)


def test_equal_seeds_give_equal_intervals_and_shapes_must_agree():
    values = np.random.default_rng(2).normal(size=(2, 30))
    assert paired_difference(values, 0 * values, seed=3) == paired_difference(values, 0 * values, seed=3)
    assert paired_difference(values, 0 * values, seed=3) != paired_difference(values, 0 * values, seed=4)
    with pytest.raises(ValueError, match="samples: got shapes"):
        bootstrap(lambda a, b: 0.0, values, values[:, 1:])


def test_curves_are_thinned_by_means():
    x, y = thinned(np.arange(200.0)[None])
    assert x.tolist() == [4 * k + 2 for k in range(50)]
    assert y[0].tolist() == [4 * k + 1.5 for k in range(50)]
    x, y = thinned(np.array([[1.0, 2.0]]))
    assert (x.tolist(), y.tolist()) == ([0.5, 1.5], [[1.0, 2.0]])
