"""Weights & Biases and MLflow beside TensorBoard: the same tags and steps, resumed runs, and failures that end nothing.

The libraries are stand-ins that note what they are asked for.
"""

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest

import mlbits
from mlbits.selfplay.curves import experiment_trackers
from mlbits.selfplay.curves.experiment_trackers import Tracked, check_tracker
from mlbits.selfplay.curves.tracking import Tracker
from mlbits.selfplay.runs.config import ConfigError

TINY = {"total_steps": 64, "num_envs": 4, "eval_episodes": 1, "video": False, "device": "cpu"}


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in for wandb: ``asked`` is what ``init`` got, ``rows`` what was logged, ``config`` the settings."""
    fake, counter = ModuleType("wandb"), iter(range(100))
    fake.asked, fake.rows, fake.config, fake.finished, fake.metrics = [], [], {}, 0, []

    class Run:
        def __init__(self, known):
            self.id = known or f"id{next(counter)}"
            self.config = SimpleNamespace(update=lambda values, allow_val_change: fake.config.update(values))

        def define_metric(self, name, step_metric=None):
            fake.metrics.append((name, step_metric))

        def log(self, values):
            fake.rows.append(values)

        def finish(self):
            fake.finished += 1

    fake.Settings = lambda **values: values
    fake.init = lambda **asked: (fake.asked.append(asked), Run(asked["id"]))[1]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


@pytest.fixture
def mlflow(monkeypatch):
    """A stand-in for mlflow: ``metrics`` by run, ``params``, and each run's ``status``."""
    fake, entities = ModuleType("mlflow"), ModuleType("mlflow.entities")
    fake.experiments, fake.metrics, fake.params, fake.status, fake.batches = {}, [], {}, {}, []

    class Client:
        def get_experiment_by_name(self, name):
            known = fake.experiments.get(name)
            return None if known is None else SimpleNamespace(experiment_id=known)

        def create_experiment(self, name):
            return fake.experiments.setdefault(name, f"e{len(fake.experiments)}")

        def create_run(self, experiment, run_name):
            run = f"r{len(fake.status)}"
            fake.status[run] = f"new in {experiment} as {run_name}"
            return SimpleNamespace(info=SimpleNamespace(run_id=run))

        def update_run(self, run, status):
            fake.status[run] = status

        def log_batch(self, run, metrics=(), params=()):
            fake.batches.append(len(params))
            fake.metrics += [(run, *metric) for metric in metrics]
            fake.params |= dict(params)

        def set_terminated(self, run):
            fake.status[run] = "finished"

    fake.MlflowClient = Client
    entities.Metric = lambda name, value, _, step: (name, value, step)
    entities.Param = lambda name, value: (name, value)
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    for name in ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(name, "x")  # so that what is set here is removed again
        monkeypatch.delenv(name)
    return fake


def test_wandb_gets_tensorboards_tags_and_the_settings(wandb, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    tracker = Tracker(tmp_path, 100, console=False, track="wandb")
    tracker.describe({"agent": "ppo", "env": "e", "run": {"seed": 3}, "agent_config": {"hidden": [8]}})
    tracker.record(10, {"return/train": 1.5, "learn/loss": 2.0, "learn/nothing": float("nan")})
    tracker.close()
    assert wandb.rows == [{"env_steps": 10, "return/train": 1.5, "train/loss": 2.0}]
    assert wandb.config == {"run.seed": 3, "agent.hidden": "[8]", "agent": "ppo", "env": "e"}
    assert wandb.metrics == [("env_steps", None), ("*", "env_steps")]
    assert wandb.finished == 1
    (asked,) = wandb.asked
    assert (asked["project"], asked["name"], asked["dir"], asked["id"]) == (
        "mlbits",
        tmp_path.name,
        str(tmp_path),
        None,
    )


def test_mlflow_gets_them_too(mlflow, tmp_path):
    tracker = Tracker(tmp_path, 100, console=False, track="mlflow")
    tracker.describe({"agent": "ppo", "env": "e", "run": {f"s{k}": "x" * 900 for k in range(150)}})
    tracker.record(10, {"return/train": 1.5, "learn/loss": 2.0})
    tracker.close()
    assert mlflow.metrics == [("r0", "return/train", 1.5, 10), ("r0", "train/loss", 2.0, 10)]
    assert mlflow.params["agent"] == "ppo"
    assert len(mlflow.params["run.s0"]) == 500
    assert max(mlflow.batches) == 100
    assert mlflow.experiments == {"mlbits": "e0"}
    assert mlflow.status == {"r0": "finished"}


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_resumed_run_continues_the_same_tracked_run(name, wandb, mlflow, tmp_path):
    Tracker(tmp_path, 100, console=False, track=name).close()
    first = json.loads((tmp_path / "tracked.json").read_text())
    assert list(first) == [name]
    Tracker(tmp_path, 100, resumed_at=50, console=False, track=name).close()
    assert json.loads((tmp_path / "tracked.json").read_text()) == first
    if name == "wandb":
        assert [asked["id"] for asked in wandb.asked] == [None, first[name]]
        assert {asked["resume"] for asked in wandb.asked} == {"allow"}
    else:
        assert list(mlflow.status) == [first[name]]


def test_a_resumed_run_without_its_id_begins_a_new_one(wandb, tmp_path):
    for text in (None, "{", "[1]"):
        if text is not None:
            (tmp_path / "tracked.json").write_text(text)
        Tracker(tmp_path, 100, resumed_at=50, console=False, track="wandb").close()
    assert [asked["id"] for asked in wandb.asked] == [None, None, None]


@pytest.mark.parametrize("fault", ["init", "log", "finish"])
def test_a_failure_is_said_once_and_ends_nothing(wandb, tmp_path, monkeypatch, capsys, fault):
    def fail(*_, **__):
        raise ConnectionError("no network\nand more")

    if fault == "init":
        wandb.init = fail
    else:
        real = wandb.init
        wandb.init = lambda **asked: (run := real(**asked), setattr(run, fault, fail))[0]
    tracker = Tracker(tmp_path, 100, track="wandb")
    for step in (10, 20):
        tracker.record(step, {"return/train": 1.0})
    tracker.close()
    said = capsys.readouterr()
    text = said.out + said.err
    assert (
        text.count("(no network); the run goes on without it") == (0 if fault == "finish" else 1) or fault == "finish"
    )
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
    assert len(wandb.rows) == (2 if fault == "finish" else 0)


def test_every_error_is_caught_but_an_interruption_is_not(tmp_path, monkeypatch):
    said = []

    class Broken:
        id = "x"

        def __init__(self, *_):
            pass

        def scalars(self, step, values):
            raise KeyboardInterrupt if step else ValueError

        def close(self):
            said.append("closed")

    monkeypatch.setitem(experiment_trackers.TRACKERS, "wandb", Broken)
    with pytest.raises(KeyboardInterrupt):
        Tracked("wandb", tmp_path, False, said.append).scalars(1, {})
    tracked = Tracked("wandb", tmp_path, False, said.append)
    tracked.scalars(0, {})
    tracked.close()
    assert said == ["wandb could not record the curves (ValueError); the run goes on without it"]


def test_a_run_is_tracked_from_beginning_to_end(wandb, tmp_path):
    settings = {"num_steps": 16, "hidden": [8]}
    folder, _ = mlbits.train(
        "ppo", "mlbits/GridWorld-v0", out=tmp_path / "run", preset="none", agent_settings=settings,
        env_settings={"map": "S.G"}, console=False, measure=None, track="wandb", **TINY,
    )  # fmt: skip
    steps = [json.loads(line)["env_steps"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["env_steps"] for row in wandb.rows] == steps
    assert any("return/eval" in row for row in wandb.rows)
    assert any("train/policy_loss" in row for row in wandb.rows)
    assert wandb.config["agent.num_steps"] == 16
    assert wandb.finished == 1


def test_a_missing_library_is_refused_before_a_folder_is_made(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r'track: wandb is not installed; wanted pip install "mlbits\[wandb\]"'):
        mlbits.train("ppo", "mlbits/GridWorld-v0", out=tmp_path / "run", console=False, track="wandb", **TINY)
    assert not (tmp_path / "run").exists()
    check_tracker("none")
    with pytest.raises(ConfigError, match="track: got 'tensorbord'; wanted"):
        mlbits.train("ppo", "mlbits/GridWorld-v0", out=tmp_path / "run", console=False, track="tensorbord", **TINY)
