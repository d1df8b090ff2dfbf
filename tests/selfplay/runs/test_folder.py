"""The folder of a run: its contents after a short training run, and folders that are refused."""

import dataclasses
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import mlbits
from mlbits.selfplay import bookkeeping
from mlbits.selfplay.runs import folder as runs
from mlbits.selfplay.runs.checkpoints import CheckpointError
from mlbits.selfplay.runs.config import ConfigError, resolve
from mlbits.selfplay.runs.folder import RunError, new_folder, read_settings
from mlbits.selfplay.session import open_session
from mlbits.selfplay.training import resume, train

GRID = "mlbits/GridWorld-v0"


def settings(env=GRID, agent="ppo", preset="none", **run):
    run = {"total_steps": 256, "num_envs": 8, "eval_episodes": 3, **run}
    return resolve(agent, env, preset=preset, run=run, agent_settings={"hidden": [8], "num_steps": 16})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run: evaluations at 128 and 256, checkpoints at 128 and 256."""
    folder = tmp_path_factory.mktemp("runs") / "deep" / "run"
    return train(settings(eval_every=128, checkpoint_every=128), folder, console=False)


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_is_a_folder_of_known_files(finished):
    folder, _ = finished
    names = {path.name.partition(".tfevents")[0] for path in folder.iterdir()}
    assert names == {"config.json", "summary.json", "metrics.jsonl", "checkpoints", "events.out"}
    assert [p.name for p in sorted((folder / "checkpoints").iterdir())] == ["step-000000000128", "step-000000000256"]


def test_the_summary_has_its_keys(finished):
    folder, summary = finished
    assert json.loads((folder / "summary.json").read_text()) == summary
    wanted = {"return_mean", "return_interval", "episodes", "best_return_mean", "env_steps", "wall_seconds"}
    assert set(summary) == wanted | {"cpu_seconds"}  # no threshold, so nothing about being solved
    assert summary["env_steps"] == 256
    assert summary["episodes"] == 3
    low, high = summary["return_interval"]
    assert low <= summary["return_mean"] <= high
    evaluated = [row["return/eval"] for row in rows_of(folder) if "return/eval" in row]
    assert summary["return_mean"] == evaluated[-1]
    assert summary["best_return_mean"] == max(evaluated)  # test_turns has evaluations that fall and rise
    assert summary["wall_seconds"] > 0
    assert summary["cpu_seconds"] > 0


def test_the_config_has_all_resolved_settings(finished):
    folder, _ = finished
    config = json.loads((folder / "config.json").read_text())
    wanted = settings(eval_every=128, checkpoint_every=128)
    assert {key: config[key] for key in wanted.to_json()} == json.loads(json.dumps(wanted.to_json()))
    assert config["version"] == mlbits.__version__
    assert config["torch"] == torch.__version__
    assert set(config) - set(wanted.to_json()) == {"version", "git_hash", "python", "torch", "processor", "started"}
    assert read_settings(folder) == wanted


def test_the_metrics_have_a_row_an_iteration_and_a_row_an_evaluation(finished):
    rows = rows_of(finished[0])
    assert [(row["env_steps"], "return/eval" in row) for row in rows] == [
        (128, True), (128, False), (256, True), (256, False)
    ]  # fmt: skip
    for row in rows:
        assert all(math.isfinite(value) for value in row.values())
        if "return/eval" in row:
            assert {"return/eval_low", "return/eval_high", "return/eval_length"} < set(row)
        else:
            assert {"learn/policy_loss", "learn/approx_kl", "speed/steps_per_second"} < set(row)
            shares = [value for name, value in row.items() if name.startswith("time/")]
            assert sum(shares) == pytest.approx(1, abs=0.01)


@pytest.mark.slow
def test_solving_is_recorded_and_ends_the_run_if_asked_for(tmp_path, monkeypatch):
    arms = settings("mlbits/Bandit-v0", total_steps=20_000, solved_episodes=4, stop_when_solved=True)
    monkeypatch.setattr("mlbits.selfplay.session.session.reward_threshold", lambda env: 0.0)  # pulling at random pays 6
    folder, summary = train(arms, tmp_path / "solved", console=False)
    solved = summary["solved_at"]
    assert solved["env_steps"] == summary["env_steps"] < 20_000
    assert 0 < solved["cpu_seconds"] <= summary["cpu_seconds"]
    monkeypatch.setattr("mlbits.selfplay.session.session.reward_threshold", lambda env: 1e9)
    unsolved = settings("mlbits/Bandit-v0", stop_when_solved=True)
    assert train(unsolved, tmp_path / "unsolved", console=False)[1]["solved_at"] is None
    assert rows_of(folder)[-1]["env_steps"] == solved["env_steps"]


def test_the_seed_decides_everything(tmp_path):
    weights = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(len(weights))  # a run does not use the global generator
        folder, _ = train(settings(seed=seed), tmp_path / name, console=False)
        weights[name] = load_file(folder / "checkpoints" / "step-000000000256" / "weights.safetensors")
    assert all(torch.equal(weights["a"][key], weights["b"][key]) for key in weights["a"])
    assert any(not torch.equal(weights["a"][key], weights["c"][key]) for key in weights["a"])


def test_an_output_folder_that_holds_another_run_is_refused(finished):
    folder, _ = finished
    with pytest.raises(RunError, match=rf"out: .* holds another run; wanted a new folder \(.*mlbits resume {folder}\)"):
        train(settings(), folder, console=False)
    assert json.loads((folder / "summary.json").read_text())["env_steps"] == 256


def test_other_unusable_folders_are_refused(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match="is not empty; wanted a new or empty folder"):
        new_folder(settings(), tmp_path / "full")
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match=r"out: .*file cannot be written"):
        new_folder(settings(), tmp_path / "file")
    with pytest.raises(RunError, match=r"out: .* cannot be written"):
        new_folder(settings(), tmp_path / "file" / "below")
    (tmp_path / "empty").mkdir()
    assert new_folder(settings(), tmp_path / "empty") == tmp_path / "empty"


def test_invalid_settings_leave_no_folder(tmp_path):
    with pytest.raises(mlbits.envs.core.errors.MlbitsError):
        bad = dataclasses.replace(settings(), env_settings={"map": "no goal here"})
        train(bad, tmp_path / "run", console=False)
    assert not (tmp_path / "run").exists()


def test_the_default_folder_is_named_after_the_pair(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = new_folder(settings(seed=3), None)
    assert folder.parts[0] == "runs"
    assert folder.name.startswith("ppo-mlbits-GridWorld-v0-seed3-")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "damaged"), ("[1, 2]", "damaged|missing"), ("{}", "the key 'agent' is missing"),
        ('"text"', "damaged|missing"),
    ],
)  # fmt: skip
def test_an_invalid_config_is_refused(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(RunError, match=message):
        read_settings(tmp_path)


def test_a_folder_without_a_config_is_not_a_run(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(RunError, match=r"no run here \(config.json is missing\)"):
            resume(folder, console=False)


def test_a_config_with_an_unknown_or_wrong_setting_names_it(tmp_path):
    for change, message in (({"num_env": 3}, "run.num_env: unknown setting"), ({"seed": "x"}, "run.seed: got 'x'")):
        config = settings().to_json()
        config["run"] |= change
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises((RunError, ConfigError), match=message):
            read_settings(tmp_path)


def test_the_commit_is_recorded_where_the_source_is_a_checkout():
    commit = runs.git_hash()
    assert commit is None or len(commit.rstrip("+")) == 40


def test_reinforce_trains_by_the_same_loop(tmp_path):
    folder, summary = train(settings(agent="reinforce", total_steps=2000), tmp_path / "run", console=False)
    assert summary["env_steps"] >= 2000
    assert any("learn/explained_variance" in row for row in rows_of(folder))


def test_the_disk_filling_up_ends_the_run_with_one_clear_error(tmp_path, monkeypatch):
    from mlbits.selfplay.runs import checkpoints

    def full(path, data):
        raise OSError(28, "No space left on device")

    good = settings(checkpoint_every=128)
    folder = tmp_path / "run"
    original = checkpoints.write_file
    monkeypatch.setattr(
        checkpoints,
        "write_file",
        lambda path, data: (full if "step-000000000256" in str(path) else original)(path, data),
    )
    with pytest.raises(CheckpointError, match="No space left on device"):
        train(good, folder, console=False)
    monkeypatch.setattr(checkpoints, "write_file", original)
    assert resume(folder, console=False)[1]["env_steps"] == 256  # from the checkpoint before


def test_the_interval_of_equal_evaluation_episodes(tmp_path):
    """Eight episodes of 1, the latest of training 0 and 1: up to Wilson's limit of them may be 0."""
    session = open_session(settings(eval_episodes=8))
    ones, tracker = (
        SimpleNamespace(returns=np.ones((8, 1)), lengths=np.ones(8), frames=[], undrawn="", cut=0),
        Recorder(),
    )
    session.recent.extend([0.0, 1.0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bookkeeping, "play_episodes", lambda *rest, **more: ones)
        bookkeeping.evaluate(session, tracker)
    low, high = session.counters.evaluation["return_interval"]
    assert (low, high) == (pytest.approx(8 / (8 + 1.959964**2)), 1)
    assert (tracker.values["return/eval_low"], tracker.values["return/eval_high"]) == (low, high)
    session.recent.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bookkeeping, "play_episodes", lambda *rest, **more: ones)
        bookkeeping.evaluate(session, tracker)
    assert session.counters.evaluation["return_interval"] == [-math.inf, math.inf]
    assert (tracker.values["return/eval_low"], tracker.values["return/eval_high"]) == (1, 1)
    runs.write_summary(tmp_path, session.counters.evaluation)
    assert "1e999" in (tmp_path / "summary.json").read_text()


class Recorder:
    """Keeps the latest values."""

    def __init__(self):
        self.values = {}

    def record(self, step, values):
        self.values |= values

    def picture(self, *rest, **more):
        pass

    def say(self, *rest, **more):
        pass
