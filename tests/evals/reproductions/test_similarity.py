"""``mlbits reproduce similarity``: conditions, bounds, the plot, and the result that the docs show."""

import functools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlbits.agents.agent import AgentError
from mlbits.agents.ccdr import SimilarityLearningConfig
from mlbits.cli import main
from mlbits.envs.core.errors import GameError
from mlbits.evals.reproductions import similarity
from mlbits.evals.reproductions.reproduction import ReproductionError

STORED = Path(__file__).parents[3] / "docs" / "pictures" / "similarity.json"


@pytest.fixture
def tiny(monkeypatch):
    """Networks of a few units that hardly learn."""
    settings = {"hidden": (8,), "batch": 8, "pretraining_steps": 3, "steps_per_turn": 2}
    monkeypatch.setattr(similarity, "SimilarityLearningConfig", functools.partial(SimilarityLearningConfig, **settings))


def test_conditions_have_their_settings(tiny, monkeypatch):
    seen = {}
    follow = similarity._follow

    def watched(game, pairs, config):
        networks = [[p.clone() for p in player.parameters] for player in pairs.players]
        curves = follow(game, pairs, config)
        seen[len(seen)] = (networks, config, float(np.sum(curves["difference"], 1)[0]), curves["difference"][0][0])
        return curves

    monkeypatch.setattr(similarity, "_follow", watched)
    result = similarity.reproduce(seeds=3, turns=2, lookahead=0.01)
    assert (
        list(result["conditions"]) == ["abr", "copies", "no_pretraining", "cut", "lola"] == list(similarity.CONDITIONS)
    )
    starts = dict(zip(result["conditions"], seen.values(), strict=True))
    assert [config.cut_gradient for _, config, *_ in starts.values()] == [False, False, False, True, False]
    assert [config.lookahead for _, config, *_ in starts.values()] == [0, 0, 0, 0, 0.01]
    first = {name: networks[0][0] for name, (networks, *_) in starts.items()}
    for name in ("copies", "cut", "lola"):
        assert (first[name] == first["abr"]).all()
    assert (first["no_pretraining"] != first["abr"]).any()
    assert starts["copies"][3] == 0 < starts["abr"][3]
    assert starts["copies"][2] > 0  # they part as soon as one learns
    for curves in result["conditions"].values():
        assert np.shape(curves["loss"]) == np.shape(curves["cooperation"]) == (3, 3)
        assert np.shape(curves["difference"]) == (3, 3)
    assert result["turns"] == [0, 1, 2]
    for responses in result["responses"].values():
        assert np.shape(responses) == (3, len(result["seen"]))
    assert json.loads(json.dumps(result)) == result


def test_seeds_are_independent_and_reproducible(tiny):
    few, many = (similarity.reproduce(seeds=seeds, turns=2) for seeds in (1, 3))
    for name in ("abr", "copies", "no_pretraining", "cut"):
        loss = similarity.pair_loss(many, name)
        assert similarity.pair_loss(few, name)[0] == pytest.approx(loss[0], abs=1e-4)
        assert len(np.unique(loss[:, 0])) == 3
    assert similarity.reproduce(seeds=3, turns=2) == many
    other = similarity.reproduce(seeds=3, turns=2, game_seed=1)
    assert similarity.pair_loss(other, "abr")[0, 0] != similarity.pair_loss(many, "abr")[0, 0]


def test_the_short_form(tiny):
    result = similarity.reproduce(quick=True, lookahead=0.5)
    assert list(result["conditions"]) == ["abr", "no_pretraining", "cut"]
    assert similarity.pair_loss(result, "abr").shape == (similarity.QUICK_SEEDS, similarity.QUICK_TURNS + 1)
    assert result["met"] is False  # these are untrained


def invented(start=1.05, abr=1.8, raw=4.0, cut=4.9):
    """A result of two seeds and two turns; seeds differ by 0.2."""

    def curves(*losses):
        loss = [[value + shift for value in losses] for shift in (-0.1, 0.1)]
        return {"loss": loss, "cooperation": loss, "difference": [[0.1, 0.02, 0.01]] * 2}

    conditions = {"abr": curves(start, 1.5, abr), "no_pretraining": curves(3, 3, raw), "cut": curves(start, 4, cut)}
    responses = {name: [np.linspace(1, 0, 26).tolist()] * 2 for name in ("pretrained", "abr")}
    return {
        "turns": [0, 1, 2], "conditions": conditions, "lookahead": 0.0, "seen": similarity.SEEN.tolist(),
        "responses": responses, "met": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "met"),
    [
        ({}, True),
        ({"start": 1.09}, True),
        ({"start": 1.12}, False),
        ({"abr": 1.99}, True),
        ({"abr": 2.02}, False),
        ({"raw": 3.01}, True),
        ({"raw": 2.9}, False),
        ({"cut": 4.51}, True),
        ({"cut": 4.4}, False),
        ({"abr": float("nan")}, False),
    ],
)
def test_each_bound_has_to_hold(changed, met):
    assert similarity.met(invented(**changed)) is met


def test_diverging_networks_leave_the_other_results(tiny, monkeypatch, capsys, tmp_path):
    follow = similarity._follow
    broken = []

    def breaking(game, pairs, config):
        broken.append(config)
        if config.lookahead > 0 or len(broken) == first:
            raise GameError("policies[1]: got answers that are not finite; wanted finite numbers")
        return follow(game, pairs, config)

    monkeypatch.setattr(similarity, "_follow", breaking)
    first = 0
    result = similarity.reproduce(seeds=1, turns=1, lookahead=1.0)
    assert list(result["conditions"]) == ["abr", "copies", "no_pretraining", "cut"]
    assert "CCDR, then LOLA: given up, its networks diverged (policies[1]" in capsys.readouterr().out
    broken, first = [], 1
    result = similarity.reproduce(seeds=1, turns=1, plot=tmp_path / "curves.png")
    assert list(result["conditions"]) == ["copies", "no_pretraining", "cut"]
    assert result["met"] is False


def test_the_command_draws_what_it_measured(tiny, tmp_path, capsys):
    picture, file = tmp_path / "curves.png", tmp_path / "result.json"
    words = ["reproduce", "similarity", "--seeds", "2", "--turns", "1", "--plot", str(picture), "--json", str(file)]
    assert main(words) == 1
    assert "target missed" in capsys.readouterr().out
    with Image.open(picture) as image:
        assert min(image.size) > 300
        drawn = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(drawn, axis=0)) > 50
    again = tmp_path / "again.png"
    similarity.draw(json.loads(file.read_text()), again)
    assert again.read_bytes() == picture.read_bytes()
    with pytest.raises(ReproductionError, match="cannot be written"):
        similarity.draw(invented(), tmp_path / "absent" / "plot.png")


def test_invalid_arguments_are_refused_before_measuring(monkeypatch, tmp_path):
    monkeypatch.setattr(similarity, "pretrain", None)
    for name in ("seeds", "turns"):
        with pytest.raises(ReproductionError, match=f"{name}: got 0; wanted at least 1"):
            similarity.reproduce(**{name: 0})
    for lookahead in (float("nan"), float("inf"), -1.0):
        with pytest.raises(AgentError, match=f"lookahead: got {lookahead}; wanted a number from 0"):
            similarity.reproduce(lookahead=lookahead)
    with pytest.raises(GameError, match="seed: got -1"):
        similarity.reproduce(game_seed=-1)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ReproductionError, match="plot: matplotlib is not installed"):
        similarity.reproduce(plot=tmp_path / "curves.png")


def test_the_result_in_the_docs_met_the_bounds():
    result = json.loads(STORED.read_text())
    assert result["met"] is similarity.met(result) is True
    assert len(similarity.pair_loss(result, "abr")) == 10
    assert result["turns"][-1] == 60
