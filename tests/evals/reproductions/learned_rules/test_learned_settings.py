"""``reproduce step-sizes`` and ``reproduce hypergradients``: their runs, exact parts and verdicts."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mlbits.evals.reproductions import comparison
from mlbits.evals.reproductions.learned_rules import hypergradients, step_sizes
from mlbits.evals.reproductions.learned_rules.hypergradients import Data, exact_values, play, solve
from mlbits.evals.reproductions.learned_rules.step_sizes import RATES, training
from mlbits.evals.reproductions.reproduction import ReproductionError
from mlbits.selfplay.runs.flags import parse_train


@pytest.fixture
def scored(monkeypatch):
    """Training replaced: constants score 100 and the seed; what is learned from them a number of the test's choice."""
    scores = {"learned": 200.0}

    def train(agent, env, seed, *flags, out):
        out.mkdir(parents=True)
        settings = parse_train([agent, env, "--seed", str(seed), *flags])[0].to_json()
        (out / "config.json").write_text(json.dumps(settings))
        score = seed + (scores["learned"] if Path(out).parent.name.startswith("learned") else 100.0)
        summary = {"return_mean": score, "env_steps": settings["run"]["total_steps"], "cpu_seconds": 10.0}
        (out / "summary.json").write_text(json.dumps(summary))

    monkeypatch.setattr(comparison, "train_in_process", train)
    return scores


def test_runs_differ_in_whether_the_rate_is_learned_alone():
    for rate in RATES:
        found = []
        for way in step_sizes.WAYS:
            run = training(rate, way, 1000, 2)
            data = parse_train([run.agent, run.task, "--seed", "2", *run.words()])[0].to_json()
            assert data["agent_config"]["learning_rate"] == rate
            assert not data["agent_config"]["anneal_lr"]
            found.append((data["agent_config"].pop("apo_every"), data))
        assert [every for every, _ in found] == [0, 10]
        assert found[0][1] == found[1][1]


def test_what_is_asked_is_to_make_up_for_a_rate_that_is_far_too_small(scored, capsys):
    result = step_sizes.reproduce(quick=True)
    assert result["met"]
    assert [(row["rate"], row["way"]) for row in result["rows"]] == [(RATES[0], "constant"), (RATES[0], "learned")]
    assert len(step_sizes.reproduce(seeds=3)["rows"]) == 2 * len(RATES)
    scored["learned"] = 101.0
    assert not step_sizes.reproduce(quick=True)["met"]
    assert "1e-05 learned" in capsys.readouterr().out
    with pytest.raises(ReproductionError, match=r"^jobs: got 0"):
        step_sizes.reproduce(jobs=0)


def test_returns_of_random_play_agree_with_the_exact_values():
    """The mean return of each episode's first step, over 600 episodes, against the mean of V over the starts."""
    cells, exact = exact_values()
    assert len(cells) == len(exact) == 103
    first = np.array([float(returns[0]) for seed in range(50) for _, returns in play(seed)])
    assert first.mean() == pytest.approx(exact.mean(), abs=5 * first.std() / np.sqrt(len(first)))
    cell, returns = play(3)[0]
    assert set(cell.tolist()) <= set(cells.tolist())
    assert len(cell) == len(returns)


def test_the_exact_fit_is_ridge_regression():
    features, returns = torch.randn(2, 30, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = solve(Data(features, returns[:, 0]), -1.0)
    slope = features.t() @ (features @ found - returns[:, 0]) / 30 + np.exp(-1.0) * found
    assert float(slope.abs().max()) < 1e-12


def test_the_verdict_compares_the_learned_weight_with_the_tuned_one(monkeypatch, capsys):
    errors = {"none": 0.3, "tuned constant": 0.1, "learned, warm": 0.105, "learned, cold": 0.105}

    def one(seed, cells, exact):
        return {way: (error + 0.001 * seed, -4.0) for way, error in errors.items()}

    monkeypatch.setattr(hypergradients, "_one", one)
    result = hypergradients.reproduce(quick=True)
    assert result["met"]
    assert result["rows"][0]["error"] == pytest.approx(0.302)
    assert 0.1 < result["scale"] < 0.3
    errors["learned, cold"] = 0.12
    assert not hypergradients.reproduce(quick=True)["met"]
    errors.update({"learned, cold": 0.105, "none": 0.1})
    assert not hypergradients.reproduce(quick=True)["met"]
    assert "tuned constant" in capsys.readouterr().out
    with pytest.raises(ReproductionError, match=r"^seeds: got 1; wanted at least 2"):
        hypergradients.reproduce(seeds=1)


@pytest.mark.slow
def test_a_seed_of_the_real_thing():
    cells, exact = exact_values()
    found = hypergradients._one(0, cells, exact)
    assert set(found) == {"none", "tuned constant", "learned, warm", "learned, cold"}
    assert all(0 < error < 1 for error, _ in found.values())
    assert abs(found["learned, warm"][1] - found["learned, cold"][1]) < 1
