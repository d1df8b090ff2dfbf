"""The FuzzyBear reproduction: its columns against exact values, and its quick form."""

import numpy as np
import pytest

from mlbits.evals.reproductions.fuzzybear import EXPLORATION, FOREST, HUG, LOGGERS, reproduce, walk


def test_the_quick_form_meets_its_target_and_the_exact_values():
    result = reproduce(quick=True)
    assert result["met"]
    for row in result["rows"]:
        skill = LOGGERS[row["logger"]]
        given = 1.5 * skill - 0.5  # E[r | hug] of a bear that is hugged if it is a teddy with this probability
        opposite = 1.5 * (1 - skill) - 0.5
        assert row["given_hug"][0] == pytest.approx(given, abs=0.05)
        assert row["backdoor"][0] == pytest.approx(0.25, abs=0.06)
        assert row["expectimax"][0] == pytest.approx(0.5 * max(given, 0) + 0.5 * max(opposite, 0), abs=0.06)
        assert (row["ipw"] is None) == (skill == 1.0)
        if row["ipw"] is not None:
            assert row["ipw"][0] == pytest.approx(0.25, abs=0.12)
        for name in ("given_hug", "backdoor", "expectimax", "naive_return", "corrected_return"):
            value, (low, high) = row[name]
            assert low <= value <= high
    plans = [(row["naive_plan"], row["plan"]) for row in result["rows"]]
    assert plans == [("home", "home"), ("forest", "home"), ("forest", "home")]
    assert result["rows"][1]["naive_return"][0] == pytest.approx(0.25, abs=0.05)
    assert result["rows"][1]["corrected_return"][0] == pytest.approx(0.6)


def test_the_log_has_the_frequencies_that_it_states():
    walks, hugs = walk(0.95, EXPLORATION, 20_000, 1)
    met = walks.action[:, 0] == FOREST
    hugged = walks.action[met, 1] == HUG
    right = hugs[met] > 0.5  # before a teddy
    assert abs(right.mean() - 0.5) < 0.03
    for is_teddy, probability in ((True, 0.1 + 0.8 * 0.95), (False, 0.1 + 0.8 * 0.05)):
        assert hugged[right == is_teddy].mean() == pytest.approx(probability, abs=0.02)
    differs = walks.action[met, 1] != walks.backdoor[met, 1]
    assert differs.mean() == pytest.approx(EXPLORATION / 2, abs=0.02)
    assert np.all(walks.action[~met, 1] == -1)
