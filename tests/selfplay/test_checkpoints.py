"""Checkpoints: whole or not there at all; what is damaged or foreign is named, and the one before it used."""

import errno
import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch

from mlbits.selfplay import checkpoints
from mlbits.selfplay.checkpoints import Checkpoint, CheckpointError, found, load, load_latest, save, write_file

OWNER = {"agent": "ppo", "env": "mlbits/GridWorld-v0", "agent_config": {"hidden": [64, 64]}}


def checkpoint(number):
    weights = {"a": torch.full((3, 2), float(number)), "b": torch.arange(4)[::2]}
    arrays = {"bytes": torch.tensor([1, 255], dtype=torch.uint8), "empty": torch.zeros(0)}
    return Checkpoint(weights, arrays, {"env_steps": number, "solved_at": None, "nested": {"x": [1.5]}})


def saved(folder, *steps, keep=10):
    return [save(folder, step, checkpoint(step), OWNER, keep) for step in steps]


def test_what_was_saved_is_read_bit_for_bit(tmp_path):
    (path,) = saved(tmp_path, 7)
    assert path.name == "step-000000000007"
    one, two = checkpoint(7), load(path, OWNER)
    for name in ("weights", "arrays"):
        wanted, got = getattr(one, name), getattr(two, name)
        assert wanted.keys() == got.keys()
        for key in wanted:
            assert torch.equal(wanted[key], got[key])
            assert wanted[key].dtype == got[key].dtype
    assert two.state == one.state


def test_nothing_is_pickled(tmp_path):
    (path,) = saved(tmp_path, 7)
    names = {file.name for file in path.iterdir()}
    assert names == {"weights.safetensors", "arrays.safetensors", "state.json", "manifest.json"}


def test_the_newest_is_read_and_the_oldest_are_dropped(tmp_path):
    saved(tmp_path, 5, 10, 200, 1000, keep=2)
    assert [path.name for path in found(tmp_path)] == ["step-000000000200", "step-000000001000"]
    latest, path, problems = load_latest(tmp_path, OWNER)
    assert (latest.state["env_steps"], path.name, problems) == (1000, "step-000000001000", [])


def test_where_there_is_none_yet_nothing_is_read(tmp_path):
    assert load_latest(tmp_path, OWNER) == (None, None, [])
    assert load_latest(tmp_path / "absent", OWNER) == (None, None, [])


def test_the_same_step_is_written_over(tmp_path):
    saved(tmp_path, 5, 5)
    save(tmp_path, 5, checkpoint(6), OWNER, 3)
    assert load_latest(tmp_path, OWNER)[0].state["env_steps"] == 6
    assert len(list(tmp_path.iterdir())) == 1


FILES = ("weights.safetensors", "arrays.safetensors", "state.json", "manifest.json")


def cut(file):
    file.write_bytes(file.read_bytes()[: len(file.read_bytes()) // 2])


def garble(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x55
    file.write_bytes(data)


def empty(file):
    file.write_bytes(b"")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [cut, garble, empty, Path.unlink])
def test_a_damaged_file_is_found_and_the_checkpoint_before_it_used(tmp_path, name, damage):
    good, bad = saved(tmp_path, 10, 20)
    damage(bad / name)
    with pytest.raises(CheckpointError, match=f"{bad.name}: (damaged|foreign)"):
        load(bad, OWNER)
    latest, path, problems = load_latest(tmp_path, OWNER)
    assert path == good
    assert latest.state["env_steps"] == 10
    assert len(problems) == 1
    assert bad.name in problems[0]
    if name != "manifest.json":
        assert f"{name} " in problems[0]


def test_an_empty_folder_is_no_checkpoint(tmp_path):
    good, bad = saved(tmp_path, 10, 20)
    shutil.rmtree(bad)
    bad.mkdir()
    assert load_latest(tmp_path, OWNER)[1] == good


def test_a_digest_that_fits_does_not_make_tensors_of_anything(tmp_path):
    (path,) = saved(tmp_path, 10)
    (path / "weights.safetensors").write_bytes(b"no tensors at all")
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["sha256"]["weights.safetensors"] = hashlib.sha256(b"no tensors at all").hexdigest()
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="damaged"):
        load(path, OWNER)


def test_where_all_are_damaged_each_is_named(tmp_path):
    for path in saved(tmp_path, 10, 20):
        garble(path / "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"no usable checkpoint: .*step-000000000020.*step-000000000010"):
        load_latest(tmp_path, OWNER)


@pytest.mark.parametrize(
    ("key", "other"),
    [("agent", "reinforce"), ("env", "CartPole-v1"), ("agent_config", {"hidden": [32]}), ("num_envs", 8)],
)
def test_a_checkpoint_of_something_else_is_refused_and_both_are_named(tmp_path, key, other):
    saved(tmp_path, 10, 20)
    save(tmp_path, 30, checkpoint(30), OWNER | {key: other}, 10)
    with pytest.raises(CheckpointError, match=f"foreign: its {key} is"):
        load(tmp_path / "step-000000000030", OWNER | {"num_envs": 64})
    if key in OWNER:
        _, path, problems = load_latest(tmp_path, OWNER)
        assert path.name == "step-000000000020"
        assert repr(other) in problems[0]
        assert repr(OWNER[key]) in problems[0]


def test_another_format_is_refused(tmp_path):
    (path,) = saved(tmp_path, 10)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(CheckpointError, match=r"foreign: format 99; this version of mlbits reads 1"):
        load(path, OWNER)
    for text in ("[]", "3", '"x"', "{}"):
        (path / "manifest.json").write_text(text)
        with pytest.raises(CheckpointError, match="foreign: format"):
            load(path, OWNER)


@pytest.mark.parametrize("failing", range(1, 5))
def test_a_full_disk_leaves_earlier_checkpoints_as_they_were(tmp_path, monkeypatch, failing):
    good, _ = saved(tmp_path, 10, 20)
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    writes = []

    def failing_now_and_then(write):
        def wrapped(path, content):
            writes.append(path)
            if len(writes) == failing:
                path.write_bytes(b"half of it")
                raise OSError(errno.ENOSPC, "No space left on device")
            write(path, content)

        return wrapped

    for name in ("write_file", "write_tensors"):
        monkeypatch.setattr(checkpoints, name, failing_now_and_then(getattr(checkpoints, name)))
    with pytest.raises(CheckpointError, match=r"could not be written \(.*No space left on device.*unharmed"):
        save(tmp_path, 30, checkpoint(30), OWNER, keep=2)
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before
    assert load_latest(tmp_path, OWNER)[0].state["env_steps"] == 20
    assert load(good, OWNER).state["env_steps"] == 10


def test_what_an_interrupted_save_left_behind_is_never_read(tmp_path):
    saved(tmp_path, 10)
    half = tmp_path / ".step-000000000020.123.tmp"
    half.mkdir()
    (half / "weights.safetensors").write_bytes(b"half")
    _, path, problems = load_latest(tmp_path, OWNER)
    assert (path.name, problems) == ("step-000000000010", [])
    saved(tmp_path, 20)
    assert load_latest(tmp_path, OWNER)[1].name == "step-000000000020"
    assert not half.exists()  # the next save clears it away


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "config.json"
    write_file(path, b"first")

    def no_space(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        write_file(path, b"second")
    assert path.read_bytes() == b"first"
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]
