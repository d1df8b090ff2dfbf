"""One writer per folder: a second one is refused by name, whatever became of the first."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import mlbits
from mlbits.agents import make_bot
from mlbits.evals.tournament.config import TournamentConfig
from mlbits.evals.tournament.tournament import hold_tournament, play_tournament
from mlbits.selfplay.runs import one_writer as locks
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.runs.folder import default_name, new_folder
from mlbits.selfplay.runs.one_writer import LOCK, InUseError, one_writer, writer_of
from mlbits.selfplay.training import resume, train

ROOT = Path(__file__).parents[3]
HOLD = "import sys, time, pathlib; from mlbits.selfplay.runs.one_writer import one_writer\n"
HOLD += "with one_writer(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"


def settings(agent_settings=None, **run):
    run = {"total_steps": 256, "num_envs": 8, "eval_episodes": 1, "checkpoint_every": 128, **run}
    return resolve(
        "ppo", "mlbits/GridWorld-v0", preset="none", run=run,
        agent_settings={"hidden": [8], "num_steps": 16, **(agent_settings or {})},
    )  # fmt: skip


def test_a_second_writer_is_refused_by_name_and_the_lock_ends_with_the_context(tmp_path):
    with one_writer(tmp_path):
        with pytest.raises(InUseError, match=f"^{tmp_path}: process {os.getpid()}, since .*, is writing it; wanted"):
            one_writer(tmp_path).__enter__()
        assert (tmp_path / LOCK).exists()
        assert writer_of(tmp_path).startswith(f"process {os.getpid()}, since ")
    assert writer_of(tmp_path) == ""
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ZeroDivisionError), one_writer(tmp_path):
        _ = 1 // 0
    with one_writer(tmp_path):
        pass


def test_a_lock_of_a_killed_process_holds_nothing(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(InUseError, match=f"process {holder.pid}, since"):
        one_writer(tmp_path).__enter__()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    assert json.loads((tmp_path / LOCK).read_text())["pid"] == holder.pid  # left behind
    with one_writer(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


def test_a_forked_child_does_not_keep_a_killed_parents_lock(tmp_path):
    begun = "there, here = os.pipe(); child = os.fork(); child or os.write(here, b'1'); "  # the child forks to its end
    fork = HOLD.replace("print(", begun + "child and os.read(there, 1) and print(child, ")
    fork = fork.replace("import sys", "import os, sys")
    holder = subprocess.Popen(
        [sys.executable, "-c", fork, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    child = int(holder.stdout.readline().split()[0])
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    try:
        with one_writer(tmp_path):
            os.kill(child, 0)  # it is still there
    finally:
        os.kill(child, signal.SIGKILL)


def test_without_locks_of_the_file_system_the_named_process_counts(tmp_path, monkeypatch):
    import errno
    import fcntl

    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with one_writer(tmp_path), pytest.raises(InUseError):
        one_writer(tmp_path).__enter__()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for text in (json.dumps({"pid": gone.pid, "host": locks.socket.gethostname()}), "", "[]", '{"pid": 1'):
        (tmp_path / LOCK).write_text(text)
        with one_writer(tmp_path):
            pass
    (tmp_path / LOCK).write_text(json.dumps({"pid": gone.pid, "host": "another"}))
    with pytest.raises(InUseError, match=f"process {gone.pid} on another, since"):
        one_writer(tmp_path).__enter__()


def test_a_second_writer_that_waited_for_the_deletion_of_the_file_takes_a_new_one(tmp_path, monkeypatch):
    """The holder deletes its file between another's opening and locking of it."""
    first, opened = one_writer(tmp_path), []
    first.__enter__()
    original = locks._locked

    def late(*arguments):
        if not opened:
            opened.append(1)
            first.__exit__(None, None, None)
        return original(*arguments)

    monkeypatch.setattr(locks, "_locked", late)
    with one_writer(tmp_path), pytest.raises(InUseError):
        one_writer(tmp_path).__enter__()


def test_a_run_under_way_is_not_resumed_by_another_and_not_trained_over(tmp_path):
    folder, _ = train(settings(), tmp_path / "run", console=False)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with one_writer(folder), pytest.raises(InUseError, match="is writing it"):
        resume(folder, total_steps=512, console=False)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    (tmp_path / "new").mkdir()
    with one_writer(tmp_path / "new"), pytest.raises(InUseError):
        new_folder(settings(), tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_run_holds_its_folder_to_its_end(tmp_path, monkeypatch):
    tried = []

    def other(*_):
        with pytest.raises(InUseError):
            resume(tmp_path / "run", console=False)
        tried.append(1)

    monkeypatch.setattr("mlbits.selfplay.bookkeeping.write_summary", other)
    train(settings(), tmp_path / "run", console=False)
    assert tried
    assert not (tmp_path / "run" / LOCK).exists()


def test_default_folders_of_many_runs_that_begin_at_once_differ(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda *_: "20260101-000000")
    made, start = [], threading.Barrier(6)

    def begin():
        start.wait()
        made.append(new_folder(settings(), None))

    threads = [threading.Thread(target=begin) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({folder.name for folder in made}) == 6
    assert all((folder / "config.json").exists() for folder in made)


def test_the_default_name_says_which_settings_are_not_the_presets(monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda *_: "TIME")
    plain = resolve("ppo", "CartPole-v1")
    assert default_name(plain) == "ppo-CartPole-v1-seed0-TIME"
    other = resolve("ppo", "CartPole-v1", agent_settings={"learning_rate": 0.001}, run={"seed": 3, "eval_every": 7})
    assert default_name(other) == "ppo-CartPole-v1-seed3-learning_rate-0.001-TIME"
    game = resolve("ppo", "mlbits/Blotto-v0", env_settings={"coins": 3}, run={"pool": "uniform", "pool_every": 9})
    assert default_name(game) == "ppo-mlbits-Blotto-v0-seed0-coins-3-pool-uniform-pool_every-9-TIME"
    many = settings({"learning_rate": 0.5})
    assert default_name(many).endswith("-and-2-more-TIME")


def test_two_tournaments_in_one_folder(tmp_path):
    words, config = ["random", "mcts@simulations=1"], TournamentConfig(games=4, num_envs=4)
    (tmp_path / "t").mkdir()
    with one_writer(tmp_path / "t"), pytest.raises(InUseError, match=f"process {os.getpid()}"):
        hold_tournament(words, config, env="mlbits/TicTacToe-v0", out=tmp_path / "t")
    assert list((tmp_path / "t").iterdir()) == []


def test_two_writers_of_one_match_table(tmp_path):
    game = mlbits.make_game("mlbits/MatrixGame-v0")
    bots = {name: make_bot("random", game.observation_space, game.action_space, device="cpu") for name in "ab"}
    what, refused = (bots, "mlbits/MatrixGame-v0", TournamentConfig(games=4, num_envs=4)), []

    def report(played, total):
        if not refused:
            with pytest.raises(InUseError, match="is writing it"):
                play_tournament(*what, path=tmp_path / "matches.jsonl")
            refused.append(played)

    play_tournament(*what, path=tmp_path / "matches.jsonl", report=report)
    assert refused == [0]
    assert len((tmp_path / "matches.jsonl").read_text().splitlines()) == 1 + 2 + 4
    assert [path.name for path in tmp_path.iterdir()] == ["matches.jsonl"]
