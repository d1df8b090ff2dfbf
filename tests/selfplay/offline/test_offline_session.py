"""Runs on a dataset: the loop's files and exact resuming, its errors, and the policies that were tried online."""

import json
import shutil

import numpy as np
import pytest
import torch
from gymnasium import spaces

import mlbits
from mlbits.agents.memory.dataset import Dataset, Episode
from mlbits.agents.memory.minari import write_dataset
from mlbits.cli import main
from mlbits.evals.evaluate import evaluate_run, load_agent
from mlbits.selfplay.offline import tried_online
from mlbits.selfplay.offline.data import data_hash
from mlbits.selfplay.runs.config import ConfigError
from mlbits.selfplay.runs.folder import read_settings
from tests.agents.offline.data import draw

PENDULUM = "mlbits/Pendulum-v0"
SMALL = {"hidden": (8, 8), "batch_size": 16, "updates_per_iteration": 10}


def episodes(seed=0, env=PENDULUM, high=(1.0, 1.0, 8.0)):
    generator, space = draw(seed), spaces.Box(-np.array(high, np.float32), np.array(high, np.float32))
    found = [
        Episode(obs=torch.rand(21, 3, generator=generator), action=torch.rand(20, 1, generator=generator),
                reward=torch.randn(20, generator=generator), truncated=torch.arange(20) == 19)
        for _ in range(4)
    ]  # fmt: skip
    action = spaces.Box(np.array([-2.0], np.float32), np.array([2.0], np.float32))
    return Dataset.from_episodes(found, space, action, env=env)


def test_a_dataset_runs_no_module_of_the_working_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stranger_of_data.py").write_text("open('ran', 'w')\n")
    data = str(write_dataset(episodes(env="stranger_of_data:me/Game-v0"), tmp_path / "data" / "strange-v0"))
    assert main(["train", "bc", "--data", data]) == 2
    assert "the module 'stranger_of_data' cannot be imported" in capsys.readouterr().err
    with pytest.raises(mlbits.MlbitsError, match=r"the module 'stranger_of_data' cannot be imported"):
        mlbits.train("bc", data=data)
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def data(tmp_path):
    return str(write_dataset(episodes(), tmp_path / "data" / "noise-v0"))


def train(agent, data, out, **run):
    options = {"device": "cpu", "total_steps": 40, "console": False, "measure": None, "agent_settings": SMALL}
    return mlbits.train(agent, data=data, out=out, **{**options, **run})


@pytest.fixture
def nothing_is_played(monkeypatch):
    def fail(*args, **settings):
        raise AssertionError("an episode was played")

    monkeypatch.setattr("mlbits.selfplay.bookkeeping.play_episodes", fail)


@pytest.mark.parametrize("agent", ["bc", "crr", "td3-bc", "iql"])
def test_a_run_learns_from_data_and_plays_nothing(agent, data, tmp_path, nothing_is_played):
    folder, summary = train(agent, data, tmp_path / "runs" / "a")
    assert summary["gradient_steps"] == 40
    assert summary["data"] == {"name": data, "episodes": 4, "steps": 80}
    assert "return_mean" not in summary
    assert summary["policies_tried_online"] == 0
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["env_steps"] for record in records] == [10, 20, 30, 40]
    assert all(name in records[-1] for name in ("learn/updates", "speed/steps_per_second"))
    config = json.loads((folder / "config.json").read_text())
    assert (config["env"], config["run"]["data"], config["run"]["data_hash"]) == (PENDULUM, data, data_hash(episodes()))


def test_resuming_is_exact(data, tmp_path):
    whole, _ = train("crr", data, tmp_path / "whole")
    part, _ = train("crr", data, tmp_path / "part", total_steps=20)
    mlbits.resume(part, total_steps=40, console=False)
    one, two = (load_agent(folder)[0].state_dict() for folder in (whole, part))
    assert one["updates"] == 40
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_another_dataset_is_refused_and_a_moved_one_taken(data, tmp_path):
    folder, _ = train("bc", data, tmp_path / "run", total_steps=20)
    other = str(write_dataset(episodes(seed=1), tmp_path / "data" / "other-v0"))
    with pytest.raises(ConfigError, match=r"data: the content of .*other-v0 has the hash .*\.\.\.; wanted "):
        mlbits.resume(folder, total_steps=40, data=other, console=False)
    assert read_settings(folder).run.total_steps == 20  # what was refused has changed nothing
    moved = tmp_path / "elsewhere" / "noise-v1"
    moved.parent.mkdir()
    shutil.move(data, moved)
    write_dataset(episodes(seed=2), data)  # in its place
    with pytest.raises(ConfigError, match=r"data: the content of .*noise-v0 has the hash"):
        mlbits.resume(folder, total_steps=40, console=False)
    assert mlbits.resume(folder, total_steps=40, data=str(moved), console=False)[1]["gradient_steps"] == 40
    assert (read_settings(folder).run.data, read_settings(folder).run.total_steps) == (str(moved), 40)
    played, _ = mlbits.train("ppo", "mlbits/GridWorld-v0", out=tmp_path / "ppo", total_steps=64, num_envs=2,
                             device="cpu", console=False, measure=None)  # fmt: skip
    with pytest.raises(ConfigError, match="learns by playing, from no dataset"):
        mlbits.resume(played, data=data, console=False)


def test_evaluations_are_counted_as_policies_tried_online(data, tmp_path, capsys):
    online = {"eval_online": True, "eval_every": 20, "eval_episodes": 2, "video": False}
    folder, summary = train("bc", data, tmp_path / "runs" / "a", **online)
    assert summary["return_mean"] < 0
    assert summary["policies_tried_online"] == 2  # at 20 and at 40 steps
    other, _ = train("bc", data, tmp_path / "runs" / "b", seed=1)
    another = str(write_dataset(episodes(seed=1), tmp_path / "data" / "other-v0"))
    train("bc", another, tmp_path / "runs" / "c", **online)
    (tmp_path / "runs" / "notes.txt").write_text("not a run")
    counts = {"policies_tried_online": 0, "policies_tried_on_data": 2, "runs_on_data": 2}
    assert tried_online.counted(other) == counts
    for _ in range(2):  # the same policy again is no new trial
        result = evaluate_run(other, 2)
        assert (result["policies_tried_online"], result["policies_tried_on_data"]) == (1, 3)
    assert main(["eval", str(folder), "--episodes", "2"]) == 0
    said = capsys.readouterr().out
    assert (
        "policies tried online: 2 of this run, 3 of the 2 runs on this data beside it (the best return of sev" in said
    )


def test_the_command_line_takes_the_environment_from_the_data(data, tmp_path, capsys):
    flags = ["--total-steps", "20", "--agent.hidden", "8", "--agent.updates-per-iteration", "10", "--device", "cpu"]
    assert main(["train", "bc", "--data", data, *flags, "--out", str(tmp_path / "a")]) == 0
    said = capsys.readouterr().out
    assert f"training bc on {PENDULUM}" in said
    assert "trained on the dataset after 20 gradient steps" in said
    assert "policies tried online: 0 of this run" in said
    assert main(["train", "bc", f"--data={data}", "Pendulum-v1", *flags, "--quiet", "--out", str(tmp_path / "b")]) == 0
    assert json.loads((tmp_path / "b" / "config.json").read_text())["env"] == "Pendulum-v1"
    assert main(["train", "bc", "mlbits/CartPole-v0", "--data", data, *flags]) == 2
    assert (
        f"--data: {data} was recorded in {PENDULUM}; wanted a dataset of mlbits/CartPole-v0" in capsys.readouterr().err
    )
    assert main(["train", "bc", PENDULUM, *flags]) == 2
    assert "error: --data: missing; bc learns from a dataset" in capsys.readouterr().err
    assert main(["train", "bc"]) == 2
    assert "of an offline agent --data DATASET is enough" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"agent": "ddpg"}, "data: got .*; ddpg learns by playing: wanted an offline agent"),
        ({"pool": "uniform"}, "pool: got 'uniform'; wanted none where an agent learns from a dataset"),
        ({"stop_when_solved": True}, "stop_when_solved: got True; wanted none"),
        ({"data_hash": "0" * 64}, "has the hash .*; wanted 0000000000000000"),
    ],
)
def test_settings_that_do_not_fit(settings, wanted, data, tmp_path):
    settings = {"agent": "bc", **settings}
    agent_settings = {} if settings["agent"] == "ddpg" else SMALL
    with pytest.raises(ConfigError, match=wanted):
        train(settings.pop("agent"), data, tmp_path / "run", agent_settings=agent_settings, **settings)
    assert not (tmp_path / "run").exists()


def test_spaces_have_to_be_those_of_the_environment(tmp_path):
    wide = episodes(high=(9.0, 9.0, 9.0))  # bounds of observations may differ
    train("bc", str(write_dataset(wide, tmp_path / "wide-v0")), tmp_path / "a")
    data = episodes()
    other = Dataset.from_episodes(
        [one._replace(action=one.action / 2) for one in data], data.observation_space,
        spaces.Box(-1, 1, (1,), np.float32), env=PENDULUM,
    )  # fmt: skip
    name = str(write_dataset(other, tmp_path / "other-v0"))
    with pytest.raises(ConfigError, match=r"data: the action space of .* is Box.*; wanted Box"):
        train("bc", name, tmp_path / "b")
    with pytest.raises(ConfigError, match="env: got None; wanted an environment's id"):
        mlbits.train("bc", console=False)
