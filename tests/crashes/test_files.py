"""Kills, power losses and full disks at every I/O call of checkpoints, frozen copies, match tables, configs and curves.

Whatever the moment: what was there before or what was being saved is there whole, and so is what was said to be saved.
"""

import dataclasses
import json

import pytest
import torch

from mlbits.envs.core.errors import MlbitsError
from mlbits.evals.tournament.match_table import MatchTableError, open_matches, read_matches
from mlbits.selfplay.curves.tracking import Tracker
from mlbits.selfplay.league.opponents import POOL
from mlbits.selfplay.runs.checkpoints import Checkpoint, load, load_latest, save
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.runs.folder import RunError, change_settings, new_folder, read_settings
from mlbits.selfplay.runs.saved_agents import read_copy
from mlbits.selfplay.session import open_session
from tests.crashes.disk import Disk, each_built, full_disk

OWNER = {"agent": "ppo"}
EVERY = pytest.param(1, marks=pytest.mark.slow)  # of the moments; the default tests take some of them
MATRIX = "mlbits/MatrixGame-v0"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """What is synced is noted, not waited for."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


def checkpoint(number):
    weights = {"a": torch.full((3, 2), float(number))}
    return Checkpoint(weights, {"b": torch.tensor([number])}, {"env_steps": number})


SAVES = [(2, [5, 10], 20), (1, [10], 20), (1, [10], 10), (2, [5, 10], 10), (1, [], 10)]


@pytest.mark.parametrize("every", [EVERY, 3])
@pytest.mark.parametrize(("keep", "before", "step"), SAVES)
def test_a_checkpoint(keep, before, step, every, tmp_path):
    """The state of a step that is saved again is 99 then."""
    for old in before:
        save(tmp_path / "run" / "checkpoints", old, checkpoint(old), OWNER, keep)
    (tmp_path / "run").mkdir(exist_ok=True)
    disk = Disk(tmp_path / "run")
    with disk.watched():
        save(tmp_path / "run" / "checkpoints", step, checkpoint(99), OWNER, keep)
        disk.says("saved")
    assert len(disk.moments) > 25
    tried = 0
    for moment, folder in each_built(disk, tmp_path / "states", kills=True, losses=True, every=every):
        latest, path, problems = load_latest(folder / "checkpoints", OWNER)
        assert problems == [], moment.name
        allowed = [99] if "saved" in moment.said else [*before[-1:], 99] if before else [None, 99]
        assert (latest and latest.state["env_steps"]) in allowed, moment.name
        if latest is not None:
            load(path, OWNER)
        save(folder / "checkpoints", 30, checkpoint(30), OWNER, keep)  # and the run goes on, with nothing left behind
        names = sorted(path.name for path in (folder / "checkpoints").iterdir())
        assert len(names) <= keep and all(name.startswith("step-") and name[-1].isdigit() for name in names), (
            moment.name
        )
        tried += 1
    assert tried * every > 20


@pytest.mark.parametrize("forever", [True, False])
@pytest.mark.parametrize(("keep", "before", "step"), SAVES)
def test_a_checkpoint_on_a_full_disk(keep, before, step, forever, tmp_path):
    at, calls = 0, [1]
    while at == 0 or len(calls) >= at:
        at += 1
        folder = tmp_path / str(at)
        for old in before:
            save(folder, old, checkpoint(old), OWNER, keep)
        with full_disk(at, forever) as calls:
            try:
                save(folder, step, checkpoint(99), OWNER, keep)
            except MlbitsError as error:
                assert "No space left" in str(error)
        found = load_latest(folder, OWNER)[0]
        assert (found and found.state["env_steps"]) in ([*before[-1:], 99] if before else [None, 99]), at
        save(folder, 30, checkpoint(30), OWNER, keep)  # once there is space again
        assert load_latest(folder, OWNER)[0].state["env_steps"] == 30
        assert (
            len(list(folder.iterdir())) == min(keep, len({*before, step, 30}))
            or found is None
            or 99 not in found.state.values()
        )
    assert at > 10


def settings(**run):
    return resolve(
        "ppo", MATRIX, preset="none", agent_settings={"hidden": [4], "num_steps": 8},
        run={"num_envs": 8, "pool": "uniform", "pool_every": 64, **run},
    )  # fmt: skip


@pytest.mark.parametrize("every", [EVERY, 3])
def test_frozen_copies(every, tmp_path):
    session = open_session(settings())
    (tmp_path / "run").mkdir()
    disk = Disk(tmp_path / "run")
    with disk.watched():
        session.opponents.write(tmp_path / "run")
        disk.says(session.opponents.copies[0].file)
        session.opponents.freeze(0, 64)
        session.opponents.write(tmp_path / "run")
        disk.says(session.opponents.copies[1].file)
    for moment, folder in each_built(disk, tmp_path / "states", kills=True, losses=True, every=every):
        found = {path.name for path in (folder / POOL).glob("*.safetensors")}
        assert found >= set(moment.said), moment.name
        for name in found:
            read_copy(folder / POOL / name, MATRIX)


@pytest.mark.parametrize("forever", [True, False])
def test_frozen_copies_on_a_full_disk(forever, tmp_path):
    at, calls = 0, [1]
    while at == 0 or len(calls) >= at:
        at += 1
        session, folder = open_session(settings()), tmp_path / str(at)
        with full_disk(at, forever) as calls:
            try:
                session.opponents.write(folder)
            except MlbitsError as error:
                assert "No space left" in str(error)
        session.opponents.write(folder)
        file = session.opponents.copies[0].file
        assert [path.name for path in (folder / POOL).iterdir()] == [file]
        read_copy(folder / POOL / file, MATRIX)
    assert at > 4


ROWS = [[[0, 1]] * 3, [[1, 0]] * 2, [[0, 1]]]


def write_table(path, says=lambda text: None):
    writer = open_matches(path, MATRIX, seats=2)
    writer.add_players({"a": "x", "b": "y"})
    for rows in ROWS:
        writer.add_games(rows, [[1.0, -1.0]] * len(rows))
        says(str(len(rows)))


@pytest.mark.parametrize("every", [EVERY, 3])
def test_a_match_table(every, tmp_path):
    (tmp_path / "run").mkdir()
    disk = Disk(tmp_path / "run")
    with disk.watched():
        write_table(tmp_path / "run" / "matches.jsonl", disk.says)
    whole = read_matches(tmp_path / "run" / "matches.jsonl").seating.tolist()
    assert len(whole) == 6
    for moment, folder in each_built(disk, tmp_path / "states", kills=True, losses=True, every=every):
        path = folder / "matches.jsonl"
        said = sum(map(int, moment.said))
        if not path.exists():
            assert said == 0
            continue
        writer = open_matches(path, MATRIX, seats=2)  # it goes on, from where it was
        games = read_matches(path).seating.tolist()
        assert said <= len(games) and games == whole[: len(games)], moment.name
        writer.add_players({"a": "x", "b": "y"})
        if games != whole:
            writer.add_games(whole[len(games) :], [[1.0, -1.0]] * (6 - len(games)))
        assert path.read_bytes() == (tmp_path / "run" / "matches.jsonl").read_bytes(), moment.name


@pytest.mark.parametrize("forever", [True, False])
def test_a_match_table_on_a_full_disk(forever, tmp_path):
    at, calls = 0, [1]
    write_table(tmp_path / "whole.jsonl")
    while at == 0 or len(calls) >= at:
        at += 1
        path = tmp_path / f"{at}.jsonl"
        with full_disk(at, forever) as calls:
            try:
                write_table(path)
            except MatchTableError as error:
                assert "No space left" in str(error)
        games = read_matches(path).seating.tolist() if path.exists() else []
        writer = open_matches(path, MATRIX, seats=2)
        writer.add_players({"a": "x", "b": "y"})
        rows = [row for part in ROWS for row in part][len(games) :]
        writer.add_games(rows or torch.empty(0, 2).long(), [[1.0, -1.0]] * len(rows) or torch.empty(0, 2))
        assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes(), at
    assert at > 6


@pytest.mark.parametrize("every", [EVERY, 3])
def test_a_config(every, tmp_path):
    (tmp_path / "out").mkdir()
    first = settings()
    second = dataclasses.replace(first, run=dataclasses.replace(first.run, total_steps=7))
    disk = Disk(tmp_path / "out")
    with disk.watched():
        folder = new_folder(first, tmp_path / "out" / "runs" / "a")
        disk.says("made")
        change_settings(folder, second)
        disk.says("changed")
    for moment, built in each_built(disk, tmp_path / "states", kills=True, losses=True, every=every):
        try:
            found = read_settings(built / "runs" / "a").run.total_steps
        except RunError as error:
            assert "no run here" in str(error)
            assert "made" not in moment.said
            continue
        assert found in ([7] if "changed" in moment.said else [7, first.run.total_steps]), moment.name


@pytest.mark.parametrize("forever", [True, False])
def test_a_config_on_a_full_disk(forever, tmp_path):
    at, calls, first = 0, [1], settings()
    while at == 0 or len(calls) >= at:
        at += 1
        out = tmp_path / str(at)
        with full_disk(at, forever) as calls:
            try:
                new_folder(first, out)
            except RunError as error:
                assert "No space left" in str(error)
        if not (out / "config.json").exists():
            new_folder(first, out)
        assert read_settings(out) == first
        with full_disk(at, forever) as more:
            try:
                change_settings(out, first)
            except RunError as error:
                assert "No space left" in str(error)
        assert len(more) > 0
        assert read_settings(out) == first
    assert at > 3


@pytest.mark.parametrize("every", [EVERY, 3])
def test_curves_that_were_flushed_are_there(every, tmp_path):
    (tmp_path / "run").mkdir()
    disk = Disk(tmp_path / "run")
    with disk.watched():
        tracker = Tracker(tmp_path / "run", 100, console=False)
        for step in (10, 20, 30):
            tracker.record(step, {"return/train": 1.0})
            tracker.record(step + 1, {"return/train": 1.0})
            tracker.flush()
            disk.says(str(step + 1))
        tracker.close()
    for moment, folder in each_built(disk, tmp_path / "states", kills=True, losses=True, every=every):
        done = max(map(int, moment.said), default=0)
        Tracker(folder, 100, resumed_at=done, console=False).close()  # as a run is resumed from a checkpoint there
        rows = [json.loads(line)["env_steps"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert rows == [step for step in (10, 11, 20, 21, 30, 31) if step <= done], moment.name


def test_the_shim_finds_what_is_not_synced(tmp_path):
    """A file that is renamed before it is synced, and one whose folder is not synced: both may be lost."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "a").write_bytes(b"old")
    disk = Disk(tmp_path / "run")
    with disk.watched():
        (tmp_path / "run" / "new").write_bytes(b"content")
        (tmp_path / "run" / "new").replace(tmp_path / "run" / "a")
        disk.says("a")
    built = each_built(disk, tmp_path / "states", kills=False, losses=True)
    left = {(folder / "a").read_bytes() for moment, folder in built
            if moment.said and (folder / "a").exists()}  # fmt: skip
    assert left == {b"old", b"content", b"con", b"", bytes(7)}
