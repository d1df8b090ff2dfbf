"""The comparison of PPO's objectives: its runs and verdict; training itself is replaced."""

import json
from pathlib import Path

import pytest

from mlbits.evals.reproductions import comparison
from mlbits.evals.reproductions.learned_rules import dpo
from mlbits.evals.reproductions.learned_rules.dpo import TASKS, reproduce, training
from mlbits.evals.reproductions.reproduction import ReproductionError
from mlbits.selfplay.runs.flags import parse_train


@pytest.fixture
def scored(monkeypatch):
    """Training replaced; the score is 100 and a seed, or a test's value for the objective."""
    scores = {}

    def train(agent, env, seed, *flags, out):
        if seed == scores.get("fails"):
            raise ReproductionError("broken")
        out.mkdir(parents=True)
        settings = parse_train([agent, env, "--seed", str(seed), *flags])[0].to_json()
        (out / "config.json").write_text(json.dumps(settings))
        score = scores.get(Path(out).parent.name, 100.0) + seed * scores.get("spread", 1)
        summary = {"return_mean": score, "env_steps": settings["run"]["total_steps"], "cpu_seconds": 10.0}
        (out / "summary.json").write_text(json.dumps(summary))

    monkeypatch.setattr(comparison, "train_in_process", train)
    return scores


def test_the_objectives_differ_in_nothing_else():
    for task in TASKS:
        runs = [training(task, objective, 3) for objective in dpo.OBJECTIVES]
        found = [parse_train([run.agent, run.task, "--seed", "3", *run.words()])[0].to_json() for run in runs]
        assert [data["agent_config"].pop("objective") for data in found] == ["clip", "dpo"]
        assert found[0] == found[1]
        assert found[0]["run"]["total_steps"] == task.steps


@pytest.mark.slow
def test_the_verdict_is_that_dpo_is_not_below_the_clip(scored, capsys):
    result = reproduce(quick=True)
    assert (result["met"], result["seeds"], len(result["rows"])) == (True, [0, 1, 2], 4)
    assert result["rows"][0]["scores"] == [100.0, 101.0, 102.0]
    assert "Acrobot-v1 dpo" in capsys.readouterr().out
    scored["dpo"] = 98.0  # intervals overlap
    assert reproduce(quick=True)["met"]
    scored["dpo"] = 50.0
    assert not reproduce(quick=True)["met"]
    scored.update(spread=0, dpo=100.0)  # equal runs have no interval: their mean stands for it
    assert reproduce(quick=True)["met"]
    scored["dpo"] = 99.0
    assert not reproduce(quick=True)["met"]


def test_a_failed_run_is_told_and_is_not_a_success(scored):
    scored["fails"] = 1
    result = reproduce(quick=True)
    assert not result["met"]
    assert len(result["failures"]) == 4


@pytest.mark.parametrize("setting", ["seeds", "jobs"])
def test_wrong_numbers_are_refused(setting):
    with pytest.raises(ReproductionError, match=f"^{setting}: got 0; wanted at least 1"):
        reproduce(**{setting: 0})
