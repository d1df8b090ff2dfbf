"""``mlbits reproduce disco``: its runs and verdict; training itself is replaced, and the rule made up."""

import json

import pytest

from mlbits.agents.agent import AgentError
from mlbits.cli import main
from mlbits.evals.reproductions import comparison
from mlbits.evals.reproductions.learned_rules.disco import reproduce, training
from mlbits.evals.reproductions.reproduction import ReproductionError
from mlbits.selfplay.runs.flags import parse_train
from tests.agents.disco.made_up import made_up_rule


@pytest.fixture
def rule(tmp_path, monkeypatch):
    """Training replaced: seeds 0, 1, 2 have mean returns 1, 0.9 and 0.8."""

    def train(agent, env, seed, *flags, out):
        out.mkdir(parents=True)
        settings = parse_train([agent, env, "--seed", str(seed), *flags])[0].to_json()
        (out / "config.json").write_text(json.dumps(settings))
        summary = {"return_mean": 1 - seed / 10, "env_steps": settings["run"]["total_steps"], "cpu_seconds": 10.0}
        (out / "summary.json").write_text(json.dumps(summary))

    monkeypatch.setattr(comparison, "train_in_process", train)
    with made_up_rule(tmp_path) as path:
        yield str(path)


def test_runs_are_the_notebooks():
    run = training("some.npz", 60_000, 2)
    data = parse_train([run.agent, run.task, "--seed", "2", *run.words()])[0].to_json()
    agent = data["agent_config"]
    assert (data["run"]["num_envs"], data["run"]["total_steps"]) == (2, 60_000)
    assert [agent[name] for name in ("num_steps", "batch_size", "buffer_size", "replay_ratio", "learning_rate")] == [
        29, 64, 1024, 32.0, 0.01
    ]  # fmt: skip
    assert agent["rule"] == "some.npz"
    assert 60_000 // 58 - 31 >= 1000  # updates: none in the first 31 rollouts of two windows


def test_each_seed_has_to_catch_nine_balls_of_ten(rule, capsys):
    found = reproduce(rule=rule)
    assert [row["caught"] for row in found["rows"]] == pytest.approx([1.0, 0.95, 0.9])
    assert found["met"]
    assert not reproduce(rule=rule, seeds=4)["met"]
    assert len(reproduce(quick=True, rule=rule)["rows"]) == 1
    assert "share of 100 balls caught" in capsys.readouterr().out


def test_without_the_file_nothing_is_trained(tmp_path, capsys):
    with pytest.raises(AgentError, match=r"^rule: missing; wanted the path of disco_103.npz"):
        reproduce()
    assert main(["reproduce", "disco", "--rule", str(tmp_path / "none.npz"), "--out", str(tmp_path / "out")]) == 2
    assert "google-deepmind/disco_rl" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with pytest.raises(ReproductionError, match=r"^seeds: got 0"):
        reproduce(seeds=0)
