"""The quick form of ``mlbits reproduce fictitious-play``, and the plot of its curves."""

import json

import pytest

from mlbits import cli
from mlbits.evals.reproductions import fictitious_self_play


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    words = ["--quick", "--json", str(folder / "r.json"), "--plot", str(folder / "r.png")]
    assert cli.main(["reproduce", "fictitious-play", *words]) == 0
    return json.loads((folder / "r.json").read_text()), folder / "r.png"


@pytest.mark.slow
def test_exact_play_matches_known_values(result):
    assert [round(row["exploitability"], 3) for row in result[0]["exact"]] == [0.13, 0.042]
    assert [(row["length"], row["least"]) for row in result[0]["cycles"]] == [(3, 1.0), (3, 1.0)]


@pytest.mark.slow
def test_a_history_is_less_exploitable_than_the_last_policy(result):
    history, alone = result[0]["rows"]
    assert (history["way"], alone["way"]) == ("history", "self-play")
    assert history["pool"] < 0.05 < alone["agent"]
    assert result[0]["met"]
    curve = result[0]["curves"]["rock-paper-scissors"]["history"]
    assert len(curve["env_steps"]) == len(curve["pool"][0]) == len(curve["agent"][0]) >= 5
    assert result[1].read_bytes()[:4] == b"\x89PNG"


def test_a_missed_target_is_not_met(monkeypatch):
    """Curves of a learner that stays exploitable."""
    import numpy as np

    def stubborn(row, way, seeds, quick):
        flat = np.full((seeds, 2), 0.2)
        return {"env_steps": np.array([1.0, 2.0]), "pool": flat, "agent": flat}

    monkeypatch.setattr(fictitious_self_play, "_learn", stubborn)
    assert not fictitious_self_play.reproduce(seeds=2)["met"]
