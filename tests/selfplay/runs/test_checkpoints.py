"""Checkpoints: complete or absent; damaged or foreign ones are named, and the previous one is used."""

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from mlbits.selfplay.runs import checkpoints
from mlbits.selfplay.runs.checkpoints import Checkpoint, CheckpointError, found, load, load_latest, save, write_file

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


def test_without_checkpoints_nothing_is_read(tmp_path):
    assert load_latest(tmp_path, OWNER) == (None, None, [])
    assert load_latest(tmp_path / "absent", OWNER) == (None, None, [])


def test_a_checkpoint_of_the_same_step_is_replaced(tmp_path):
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


def test_an_empty_folder_is_not_a_checkpoint(tmp_path):
    good, bad = saved(tmp_path, 10, 20)
    shutil.rmtree(bad)
    bad.mkdir()
    assert load_latest(tmp_path, OWNER)[1] == good


def test_invalid_tensors_with_a_matching_digest_are_refused(tmp_path):
    (path,) = saved(tmp_path, 10)
    (path / "weights.safetensors").write_bytes(b"no tensors at all")
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["sha256"]["weights.safetensors"] = hashlib.sha256(b"no tensors at all").hexdigest()
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="damaged"):
        load(path, OWNER)


def test_if_all_are_damaged_each_is_named(tmp_path):
    for path in saved(tmp_path, 10, 20):
        garble(path / "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"no usable checkpoint: .*step-000000000020.*step-000000000010"):
        load_latest(tmp_path, OWNER)


@pytest.mark.parametrize(
    ("key", "other"),
    [("agent", "reinforce"), ("env", "CartPole-v1"), ("agent_config", {"hidden": [32]}), ("num_envs", 8)],
)
def test_a_foreign_checkpoint_is_refused_with_both_values(tmp_path, key, other):
    saved(tmp_path, 10, 20)
    save(tmp_path, 30, checkpoint(30), OWNER | {key: other}, 10)
    with pytest.raises(CheckpointError, match=f"foreign: its {key} (is|has)"):
        load(tmp_path / "step-000000000030", OWNER | {"num_envs": 64})
    if key in OWNER:
        _, path, problems = load_latest(tmp_path, OWNER)
        assert path.name == "step-000000000020"
        assert repr(other) in problems[0] or key == "agent_config"
        assert repr(OWNER[key]) in problems[0] or key == "agent_config"


def test_of_settings_only_those_that_differ_are_named(tmp_path):
    wanted = {"agent_config": {"hidden": [64], "learning_rate": 0.1, "discount": 0.9}}
    path = save(tmp_path, 30, checkpoint(30), {"agent_config": {"hidden": [32], "learning_rate": 0.1}}, 10)
    expected = r"its agent_config has discount not set \(this run: 0\.9\), hidden \[32\] \(this run: \[64\]\)$"
    with pytest.raises(CheckpointError, match=expected):
        load(path, wanted)


def test_another_format_is_refused(tmp_path):
    (path,) = saved(tmp_path, 10)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(CheckpointError, match=r"foreign: format 99; this version of mlbits reads 1"):
        load(path, OWNER)
    for text in ("[]", "3", '"x"', "{}", "null"):
        (path / "manifest.json").write_text(text)
        with pytest.raises(CheckpointError, match="foreign: format"):
            load(path, OWNER)


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "text",
    ['{"format": 1, "sha256": []}', '{"format": 1, "sha256": {}, "belongs_to": ""}', '{"format": 1}', DEEP, "\x00\xff"],
)
def test_a_manifest_of_another_form_falls_back_to_the_one_before(tmp_path, text):
    good, bad = saved(tmp_path, 10, 20)
    (bad / "manifest.json").write_bytes(text.encode("latin-1"))
    _, path, problems = load_latest(tmp_path, OWNER)
    assert path == good
    assert f"{bad}: damaged: " in problems[0]


@pytest.mark.parametrize("text", ["[]", "{}", '{"env_steps": "20"}', '{"env_steps": -1}', '{"env_steps": true}', DEEP])
def test_a_state_of_another_form_falls_back_to_the_one_before(tmp_path, text):
    """With a digest that fits, as a program that writes files by hand makes it."""
    good, bad = saved(tmp_path, 10, 20)
    (bad / "state.json").write_text(text)
    manifest = json.loads((bad / "manifest.json").read_text())
    manifest["sha256"]["state.json"] = hashlib.sha256(text.encode()).hexdigest()
    (bad / "manifest.json").write_text(json.dumps(manifest))
    _, path, problems = load_latest(tmp_path, OWNER)
    assert path == good
    assert f"{bad}: damaged: " in problems[0]


def test_a_checkpoint_that_cannot_be_restored_falls_back_to_the_one_before(tmp_path):
    saved(tmp_path, 10, 20, 30)
    tried = []

    def restore(checkpoint):
        tried.append(checkpoint.state["env_steps"])
        if len(tried) < 3:
            raise CheckpointError(f"a copy of {tried[-1]} is damaged")

    _, path, problems = load_latest(tmp_path, OWNER, restore)
    assert (path.name, tried) == ("step-000000000010", [30, 20, 10])
    assert problems == ["a copy of 30 is damaged", "a copy of 20 is damaged"]
    tried.clear()
    with pytest.raises(CheckpointError, match=r"^no usable checkpoint: a copy of 20 is damaged$"):
        (tmp_path / "step-000000000010").rename(tmp_path / "away")
        (tmp_path / "step-000000000030").rename(tmp_path / "away30")
        load_latest(tmp_path, OWNER, restore)


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


def test_leftovers_of_an_interrupted_save_are_never_read(tmp_path):
    saved(tmp_path, 10)
    half = tmp_path / ".step-000000000020.123.tmp"
    half.mkdir()
    (half / "weights.safetensors").write_bytes(b"half")
    _, path, problems = load_latest(tmp_path, OWNER)
    assert (path.name, problems) == ("step-000000000010", [])
    saved(tmp_path, 20)
    assert load_latest(tmp_path, OWNER)[1].name == "step-000000000020"
    assert not half.exists()  # the next save clears it away


def test_a_file_is_written_completely_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "config.json"
    write_file(path, b"first")

    def no_space(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        write_file(path, b"second")
    assert path.read_bytes() == b"first"
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]


def test_what_a_killed_process_left_of_a_file_is_deleted_when_it_is_written_again(tmp_path):
    (tmp_path / ".config.json.12.tmp").write_bytes(b"half")
    (tmp_path / ".other.json.12.tmp").write_bytes(b"another's")
    write_file(tmp_path / "config.json", b"whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.json.12.tmp", "config.json"]


# The order of system calls


class Asked:
    """System calls in order: (what, name), and for a sync the size of the file at that time."""

    def __init__(self, folder, monkeypatch):
        self.calls, self.folder = [], folder
        for name in ("fsync", "rename", "replace"):
            monkeypatch.setattr(os, name, self.noting(name, getattr(os, name)))
        monkeypatch.setattr(shutil, "rmtree", self.noting("rmtree", shutil.rmtree))

    def noting(self, name, original):
        def noted(what, *others, **settings):
            if name == "fsync":
                self.calls.append((name, self.place(what), os.fstat(what).st_size))
            else:
                self.calls.append((name, self.short(what), *(self.short(other) for other in others)))
            return original(what, *others, **settings)

        return noted

    def short(self, path):
        return str(Path(path).relative_to(self.folder)).replace(f".{os.getpid()}", "")

    def place(self, descriptor):
        """The name of an open file or folder, by what it is on the disk."""
        stat = os.fstat(descriptor)
        everything = [self.folder, *self.folder.rglob("*")]
        (path,) = [path for path in everything if path.exists() and os.path.samestat(path.stat(), stat)]
        return self.short(path)

    def at(self, *call):
        (place,) = [k for k, made in enumerate(self.calls) if made[: len(call)] == call]
        return place


def test_old_checkpoints_are_removed_only_after_the_new_one_is_synced(tmp_path, monkeypatch):
    saved(tmp_path / "checkpoints", 10, keep=1)
    asked = Asked(tmp_path, monkeypatch)
    (path,) = saved(tmp_path / "checkpoints", 20, keep=1)
    new, name = "checkpoints/.step-000000000020.tmp", "checkpoints/step-000000000020"
    stands = asked.at("rename", new, name)
    for file in FILES:
        written = file if file.endswith("safetensors") else f".{file}.tmp"
        sync = asked.at("fsync", f"{new}/{written}")
        assert asked.calls[sync][2] == (path / file).stat().st_size, file  # all of it, not what was written by then
        if written != file:
            assert sync < asked.at("replace", f"{new}/{written}", f"{new}/{file}")
        assert sync < stands
    folders = [k for k, call in enumerate(asked.calls) if call[:2] == ("fsync", new)]
    assert asked.at("replace", f"{new}/.manifest.json.tmp", f"{new}/manifest.json") < max(folders) < stands
    assert stands < asked.at("fsync", "checkpoints") < asked.at("rmtree", "checkpoints/step-000000000010")


def test_the_folder_of_checkpoints_is_synced_where_it_is_made(tmp_path, monkeypatch):
    asked = Asked(tmp_path, monkeypatch)
    saved(tmp_path / "checkpoints", 10)
    new = "checkpoints/.step-000000000010.tmp"
    assert asked.at("fsync", ".") < asked.at("rename", new, "checkpoints/step-000000000010")


def test_a_file_is_synced_then_renamed_then_its_folder_synced(tmp_path, monkeypatch):
    asked = Asked(tmp_path, monkeypatch)
    write_file(tmp_path / "config.json", b"12345")
    assert asked.calls == [
        ("fsync", ".config.json.tmp", 5), ("replace", ".config.json.tmp", "config.json"),
        ("fsync", ".", tmp_path.stat().st_size),
    ]  # fmt: skip


MOMENTS = ("mkdir", "fsync", "rename", "replace", "unlink", "rmdir")


def killed_at(moment, action):
    """Run an action in a process that is killed at a system call; returns whether it finished."""
    child = os.fork()
    if child == 0:
        calls = 0

        def counting(original):
            def counted(*arguments, **settings):
                nonlocal calls
                calls += 1
                if calls == moment:
                    os._exit(9)
                return original(*arguments, **settings)

            return counted

        for name in MOMENTS:
            setattr(os, name, counting(getattr(os, name)))
        original = checkpoints.save_file

        def half_then_whole(tensors, path):  # one more moment: when a file is half written
            Path(path).write_bytes(b"half")
            counting(lambda: None)()
            original(tensors, path)

        checkpoints.save_file = half_then_whole
        action()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize(
    ("keep", "before", "step"),
    [
        (2, [5, 10], 20), (1, [10], 10), (1, [], 10),
        pytest.param(1, [10], 20, marks=pytest.mark.slow), pytest.param(2, [5, 10], 10, marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_kill_at_any_system_call_leaves_a_checkpoint_that_loads(keep, before, step, tmp_path):
    """A saved step saved again too: its state is 99 then."""
    moment, done, seen = 0, False, []
    while not done:
        moment += 1
        folder = tmp_path / str(moment)
        for old in before:
            save(folder, old, checkpoint(old), OWNER, keep)
        again = checkpoint(99)
        done = killed_at(moment, lambda folder=folder, again=again: save(folder, step, again, OWNER, keep))
        latest, path, problems = load_latest(folder, OWNER)
        assert problems == [], moment
        if before or latest is not None:
            assert latest.state["env_steps"] in (before[-1] if before else 99, 99), moment
            seen.append(latest.state["env_steps"])
            load(path, OWNER)
        save(folder, 30, checkpoint(30), OWNER, keep)  # and the run goes on, with nothing left behind
        assert load_latest(folder, OWNER)[0].state["env_steps"] == 30
        names = sorted(path.name for path in folder.iterdir())
        assert names == sorted(f"step-{kept:012d}" for kept in sorted({*before, step, 30})[-keep:]) or not done
        assert not [name for name in names if ".tmp" in name or ".old" in name]
    assert seen == sorted(seen)  # the old one up to a moment, the new one from then on
    assert seen[-1] == 99
    assert moment > 15
