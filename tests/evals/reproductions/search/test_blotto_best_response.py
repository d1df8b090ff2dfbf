"""``mlbits reproduce sbr-blotto`` and ``blotto-brpi``: quick forms, and that a missed target is not met."""

import pytest

from mlbits.agents.best_response.tabular import TabularConfig
from mlbits.evals.reproductions.search import blotto_best_response as blotto


def test_sampled_best_responses_earn_the_reference_values(monkeypatch):
    monkeypatch.setattr(blotto, "SBR_VALUES", {(1, 16): 0.0903, (16, 16): 0.2093})
    assert blotto.sbr(quick=True)["met"]
    monkeypatch.setattr(blotto, "SBR_VALUES", {(16, 16): 0.0903})
    assert not blotto.sbr(quick=True)["met"]


@pytest.mark.slow
def test_fictitious_play_from_samples_converges_and_best_response_cycles():
    found = blotto.policy_iterations(quick=True)
    assert found["met"]
    last = {(row["method"], row["policy"]): row["exploitability"] for row in found["rows"] if row["round"] == 128}
    assert last["ibr", "latest"] == 1
    assert max(last["fppi1", "average"], last["fppi2", "average"]) < 0.05
    assert last["fppi2, latest alone", "latest"] > 2 * last["fppi2", "latest"]


def test_an_exploitable_policy_is_not_met(monkeypatch):
    monkeypatch.setattr(blotto, "ROWS", {"fppi1": TabularConfig(base="latest", candidates="latest", answers=50)})
    assert not blotto.policy_iterations(quick=True)["met"]
