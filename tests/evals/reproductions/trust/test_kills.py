"""``mlbits reproduce kills``: differences of every kind are found, kills are counted and spread evenly, and it runs."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from mlbits.agents import AGENTS
from mlbits.evals.reproductions.reproduction import ReproductionError
from mlbits.evals.reproductions.trust import kills
from mlbits.selfplay.runs import checkpoints
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.runs.flags import parse_train
from mlbits.selfplay.training import train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run with two frozen copies."""
    settings = resolve(
        "ppo", "mlbits/MatrixGame-v0", preset="none",
        agent_settings={"num_steps": 8, "hidden": [4], "epochs": 1, "minibatches": 1},
        run={"num_envs": 8, "total_steps": 128, "pool": "uniform", "pool_every": 64, "checkpoint_every": 64,
             "eval_episodes": 2, "video": False},
    )  # fmt: skip
    return train(settings, tmp_path_factory.mktemp("kills") / "run", console=False)[0]


@pytest.fixture
def copied(run, tmp_path):
    return Path(shutil.copytree(run, tmp_path / "run"))


def save_changed(folder, change):
    """Save the newest checkpoint again, changed, with digests that fit."""
    newest = checkpoints.found(folder / "checkpoints")[-1]
    found = checkpoints.load(newest, {})
    change(found)
    belongs_to = json.loads((newest / "manifest.json").read_text())["belongs_to"]
    checkpoints.save(folder / "checkpoints", found.state["env_steps"], found, belongs_to, keep=2)


def add_one(tensors):
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.numel())
    tensors[name] = tensors[name] + torch.finfo(tensors[name].dtype).eps


def edit_json(path, change):
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    row = json.loads(lines[-1])
    change(row)
    path.write_text("".join(line + "\n" for line in [*lines[:-1], json.dumps(row)]))


CHANGES = [
    (lambda folder: save_changed(folder, lambda found: add_one(found.weights)), "the weights "),
    (lambda folder: save_changed(folder, lambda found: found.arrays.popitem()), "the arrays "),
    (lambda folder: save_changed(folder, lambda found: found.state.update(iterations=99)), "the counters differ"),
    (lambda folder: shutil.rmtree(checkpoints.found(folder / "checkpoints")[-1]), "ended at step-000000000064, not "),
    (lambda folder: next((folder / "pool").glob("copy-0000-*")).write_bytes(b"x"), "copy-0000-"),
    (lambda folder: (folder / "pool" / "more").write_bytes(b"x"), "the frozen copies differ"),
    (
        lambda folder: edit_json(folder / "summary.json", lambda row: row.update(return_mean=9.0)),
        "summary.json differs",
    ),
    (lambda folder: edit_json(folder / "metrics.jsonl", lambda row: row.update(more=1)), "metrics.jsonl differs"),
]


@pytest.mark.parametrize(("change", "said"), CHANGES)
def test_every_difference_of_runs_is_found(change, said, run, copied):
    assert kills.differences(run, copied) == ""
    change(copied)
    assert said in kills.differences(run, copied)


def test_times_are_no_difference(run, copied):
    edit_json(copied / "summary.json", lambda row: row.update(wall_seconds=1e6, cpu_seconds=1e6))
    edit_json(copied / "metrics.jsonl", lambda row: row.update({"speed/steps_per_second": 1.0, "time/rest": 0.5}))
    save_changed(copied, lambda found: found.state.update(wall_seconds=1e6))
    assert kills.differences(run, copied) == ""


def test_every_command_can_be_given_and_all_agents_of_our_own_loop_are_killed(tmp_path):
    trained = set()
    for words in kills.KINDS.values():
        command, *rest = words.format(alone=tmp_path, data=tmp_path / "data-v0").split()
        if command == "train":
            trained.add(rest[0])
            if "--data" not in rest:  # of a dataset that is made first
                parse_train(rest)
    assert trained <= set(AGENTS)
    assert {"ppo", "dqn", "ddpg", "reinforce", "trpo", "q-learning", "alphazero", "fppi2", "crr"} <= trained


class Pretended:
    """In place of the processes: runs that can be killed ``takes`` times before they end."""

    def __init__(self, folder, seed):
        self.alone, self.killed, self.takes = folder / "alone", folder / "killed", {"ppo": 1, "dqn": 5, "pool": 2}

    def leave_alone(self, kind):
        return 1.0

    def kill_to_the_end(self, kind, most, seconds, chance):
        (self.killed / kind).mkdir(parents=True)
        return min(most, self.takes[kind])


@pytest.mark.parametrize(("quick", "wanted", "counts"), [(False, 20, [6, 7, 7]), (True, 500, [1, 1, 1])])
def test_kills_are_counted_and_spread_over_the_kinds(quick, wanted, counts, monkeypatch):
    monkeypatch.setattr(kills, "_Place", Pretended)
    monkeypatch.setattr(kills, "differences", lambda alone, killed: "")
    result = kills.reproduce(quick, wanted, only=("ppo", "dqn", "pool"))
    assert [row["kills"] for row in result["rows"]] == counts
    assert result["rows"][0]["runs"] == counts[0]
    assert result["met"]
    monkeypatch.setattr(kills, "differences", lambda alone, killed: "it differs" if "dqn" in str(killed) else "")
    result = kills.reproduce(quick, wanted, only=("ppo", "dqn", "pool"))
    assert [row["found"] for row in result["rows"]] == ["equal, bit for bit", "it differs", "equal, bit for bit"]
    assert not result["met"]


def test_an_unknown_kind_is_refused():
    with pytest.raises(ReproductionError, match=r"^only: got 'sarsa'; wanted any of 'ppo', "):
        kills.reproduce(only=("sarsa",))


@pytest.mark.slow
def test_runs_and_tournaments_are_killed(tmp_path):
    result = kills.reproduce(kills=4, only=("q-learning", "tournament"))
    assert result["met"]
    assert [row["kills"] for row in result["rows"]] == [2, 2]
    place = kills._Place(tmp_path, 0)
    with pytest.raises(ReproductionError, match=r"status 2; wanted 0: .*unknown agent"):
        place._finish(["train", "no-such-agent", "mlbits/GridWorld-v0"])
