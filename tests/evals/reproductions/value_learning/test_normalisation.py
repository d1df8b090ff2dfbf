"""The comparison of normalised with raw experience: its runs, table and verdict; training itself is replaced."""

import io
import json
from pathlib import Path

import pytest

from mlbits.cli import main
from mlbits.evals.reproductions import comparison
from mlbits.evals.reproductions.reproduction import ReproductionError
from mlbits.evals.reproductions.value_learning import normalisation
from mlbits.evals.reproductions.value_learning.normalisation import ROWS, WAYS, reproduce, training
from mlbits.selfplay.runs.flags import parse_train


@pytest.fixture
def scored(monkeypatch):
    """Training replaced; the score is 100 and a seed, or a test's value for the way."""
    scores = {}

    def train(agent, env, seed, *flags, out):
        out.mkdir(parents=True)
        settings = parse_train([agent, env, "--seed", str(seed), *flags])[0].to_json()
        (out / "config.json").write_text(json.dumps(settings))
        way = Path(out).parent.name.removeprefix(f"{agent}-")
        steps = settings["run"]["total_steps"]
        summary = {"return_mean": scores.get(way, 100.0) + seed, "env_steps": steps, "cpu_seconds": steps / 1000}
        (out / "summary.json").write_text(json.dumps(summary))

    monkeypatch.setattr(comparison, "train_in_process", train)
    monkeypatch.setattr(normalisation, "QUICK_SEEDS", 2)
    monkeypatch.setattr(normalisation, "open_batch", lambda task, count: io.BytesIO())  # which closes, too
    return scores


def test_ways_differ_in_normalisation_alone():
    for row in ROWS:
        found = {}
        for way in WAYS:
            run = training(row, way, 3)
            found[way] = parse_train([run.agent, run.task, "--seed", "3", *run.words()])[0].to_json()
        switches = {way: [data["agent_config"].pop(name) for name in ("normalize_obs", "normalize_reward")]
                    for way, data in found.items()}  # fmt: skip
        assert switches == {"raw": [False, False], "obs": [True, False], "obs-reward": [True, True]}
        assert found["raw"] == found["obs"] == found["obs-reward"]
        assert found["raw"]["run"]["total_steps"] == row.steps


def test_the_verdict_is_that_normalised_observations_are_not_below_raw_ones(scored, capsys):
    result = reproduce(quick=True, select=("lunar",))
    assert (result["met"], result["seeds"], len(result["rows"])) == (True, [0, 1], 3)
    assert [row["steps"] for row in result["rows"]] == [20_000] * 3
    assert result["rows"][0]["scores"] == [100.0, 101.0]
    scored["obs-reward"] = 0.0  # reported, not checked
    assert reproduce(quick=True, select=("lunar",))["met"]
    scored["obs"] = 80.0
    assert not reproduce(quick=True, select=("lunar",))["met"]
    assert "LunarLander-v3 dqn obs" in capsys.readouterr().out


def test_the_command_selects_a_task_and_refuses_others(scored, tmp_path, capsys):
    file = tmp_path / "result.json"
    words = ["reproduce", "normalisation", "--quick", "--out", str(tmp_path / "runs"), "--json", str(file)]
    assert main([*words, "--select", "lunar"]) == 0
    assert {row["task"] for row in json.loads(file.read_text())["rows"]} == {"LunarLander-v3"}
    assert main([*words, "--select", "pong"]) == 2
    assert "no task begins with 'pong'; wanted any of LunarLander-v3, HalfCheetah-v5" in capsys.readouterr().err


@pytest.mark.parametrize("setting", ["seeds", "jobs"])
def test_wrong_numbers_are_refused(setting):
    with pytest.raises(ReproductionError, match=f"^{setting}: got 0; wanted at least 1"):
        reproduce(**{setting: 0})


def test_one_failed_run_is_told_and_the_rest_goes_on(monkeypatch, scored):
    plain = comparison.train_in_process

    def train(agent, env, seed, *flags, out):
        if seed == 1:
            raise ReproductionError("broken")
        plain(agent, env, seed, *flags, out=out)

    monkeypatch.setattr(comparison, "train_in_process", train)
    monkeypatch.setattr(normalisation, "WAYS", {"raw": "", "obs": "--agent.normalize-obs"})
    result = reproduce(quick=True, select=("lunar",))
    assert not result["met"]
    assert result["failures"] == {
        f"LunarLander-v3 dqn-{way} seed 1": "broken (tried 2 times)" for way in ("raw", "obs")
    }
