"""Copies stepped by several processes: the same numbers as by one, and what happens when something goes wrong."""

import contextlib
import gc
import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from mlbits.envs.core.errors import GameError
from mlbits.envs.doors import gymnasium_batch, gymnasium_workers
from mlbits.envs.doors.gymnasium_batch import open_batch
from mlbits.envs.doors.gymnasium_copies import arrays_in
from mlbits.envs.doors.gymnasium_workers import choose, free_cores, step_seconds, unsendable
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.session import open_session

MOODY = '''
import os, signal, sys
import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Moody(gym.Env):
    """Does as its actions say, in the copy whose seed is ``bad``."""

    def __init__(self, bad=-1, refuses=False):
        if refuses and os.environ["MOODY_PARENT"] != str(os.getpid()):
            raise RuntimeError("not in a worker")
        self.observation_space, self.action_space = spaces.Box(-9, 9, (2,), np.float32), spaces.Discrete(5)
        self.bad = bad

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.own = self.own if seed is None else seed
        return np.full(2, self.own, np.float32), {}

    def step(self, action):
        if self.own == self.bad:
            if action == 1:
                raise KeyError("a tantrum")
            if action == 2:
                return np.zeros(3, np.float32), 0.0, False, False, {}
            if action == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            if action == 4:
                print("d" * 10_000, flush=True)
        return np.full(2, self.own + 0.5, np.float32), float(self.own), False, False, {}


gym.register("tests/Moody-v0", Moody)
'''


@pytest.fixture(scope="module")
def moody(tmp_path_factory):
    """The id of an environment of a module that only the path of this process finds."""
    folder = tmp_path_factory.mktemp("moods")
    (folder / "moody_envs.py").write_text(MOODY)
    sys.path.insert(0, str(folder))
    importlib.import_module("moody_envs")
    os.environ["MOODY_PARENT"] = str(os.getpid())
    yield "moody_envs:tests/Moody-v0"
    sys.path.remove(str(folder))
    del sys.modules["moody_envs"]
    gym.registry.pop("tests/Moody-v0")


def pids(batch):
    return [process.pid for process in batch._workers._processes]


def runs(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def act(batch, number):
    return torch.full((batch.num_envs, 1), number)


def test_results_and_saved_states_are_the_same_for_any_number_of_processes(monkeypatch):
    """With reseeding, resets from outside, and states that one number of processes saves and another restores."""
    monkeypatch.setattr(gymnasium_batch, "SEED_EVERY", 40)
    common = {"seed": 3, "training": True, "recorded": True}
    one, three = (open_batch("CartPole-v1", 4, workers=workers, **common) for workers in (1, 3))
    assert [len(one.envs), len(three.envs)] == [4, 1]
    drawn = [one.sample_actions() for _ in range(120)]
    for t in range(80):
        for value, same in zip(one.step(drawn[t]), three.step(drawn[t]), strict=True):
            assert torch.equal(value, same)
        if t == 30:
            which = torch.tensor([True, False, True, True])
            assert torch.equal(one.reset(which=which), three.reset(which=which))
    saved, same = one.state_dict(), three.state_dict()
    assert saved.keys() == same.keys()
    assert all(torch.equal(saved[name], same[name]) for name in saved)
    assert saved["seedings"].min() > 0
    assert sorted(three.load_state_dict(saved)) == sorted(one.load_state_dict(same)) == []
    for t in range(80, 120):
        for value, same in zip(one.step(drawn[t]), three.step(drawn[t]), strict=True):
            assert torch.equal(value, same)
    assert torch.equal(one.state_dict()["seedings"], three.state_dict()["seedings"])
    damaged = one.state_dict()
    damaged["paid"][3] += 1
    said = []
    assert three.load_state_dict(damaged, said.append) == [3]
    assert "copy 3 could not be restored" in said[-1]
    assert float(three.step(drawn[0]).reward[3]) == 1.0
    with pytest.raises(GameError, match="copy 2 is in another process and cannot be drawn; wanted env_workers = 1"):
        three.render(copy=2)
    children = pids(three)
    three.close()
    assert not any(runs(pid) for pid in children)


def test_an_error_in_a_copy_names_the_copy_and_the_others_go_on(moody):
    batch = open_batch(moody, 3, seed=7, settings={"bad": 7}, workers=2)
    tantrum = r"copy {} failed \(KeyError: 'a tantrum', moody_envs.py, line \d+\)$"
    with pytest.raises(GameError, match=tantrum.format(0)) as at:  # copy 0 is this process's own
        batch.step(act(batch, 1))
    assert isinstance(at.value.__cause__, KeyError)
    assert batch.step(act(batch, 0)).reward.flatten().tolist() == [7, 8, 9]
    batch.reset(seed=5)
    assert batch.obs[:, 0, 0].tolist() == [5, 6, 7]
    assert batch.step(act(batch, 4)).reward.flatten().tolist() == [5, 6, 7]  # what it prints is not an answer
    with pytest.raises(GameError, match="^moody_envs:tests/Moody-v0: " + tantrum.format(2)) as at:
        batch.step(act(batch, 1))
    assert "in step" in str(at.value.__cause__)
    wrong = r"got an observation of shape \(3,\); wanted \(2,\), as its space \(copy 2\)$"
    with pytest.raises(GameError, match=wrong):
        batch.step(act(batch, 2))
    assert batch.step(act(batch, 0)).reward.flatten().tolist() == [5, 6, 7]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a terminal sends them to all processes
        os.kill(pids(batch)[0], number)
    assert batch.step(act(batch, 0)).reward.flatten().tolist() == [5, 6, 7]
    with pytest.raises(GameError, match=r"the process that steps copies 1 to 2 was ended by signal 9$"):
        batch.step(act(batch, 3))
    batch.close()


def test_workers_leave_when_their_batch_is_forgotten(moody):
    batch = open_batch(moody, 2, workers=2)
    (pid,) = pids(batch)
    assert runs(pid)
    del batch
    gc.collect()
    assert not runs(pid)


@pytest.mark.slow
def test_workers_leave_when_their_parent_is_killed(moody, tmp_path):
    """And nothing is left in the shared memory's folder."""
    program = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from mlbits.envs.doors.gymnasium_batch import open_batch\n"
        f"batch = open_batch('{moody}', 2, workers=2)\n"
        "print(batch._workers._processes[0].pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    before = set(Path("/dev/shm").glob("mlbits-*")) if Path("/dev/shm").is_dir() else set()
    folder = str(Path(sys.modules["moody_envs"].__file__).parent)
    with subprocess.Popen([sys.executable, "-c", program, folder], stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        assert runs(pid)
        parent.kill()
        parent.wait()
    until = time.monotonic() + 60
    while runs(pid) and time.monotonic() < until:
        time.sleep(0.02)
    assert not runs(pid)
    after = set(Path("/dev/shm").glob("mlbits-*")) if Path("/dev/shm").is_dir() else set()
    assert after <= before


def test_what_cannot_be_made_elsewhere_is_refused_with_the_reason(moody):
    with pytest.raises(
        GameError, match=r"env_workers: got 2, but the setting bad = <function .* cannot be sent .*wanted 1"
    ):
        open_batch(moody, 2, settings={"bad": lambda: 3}, workers=2)
    with pytest.raises(GameError, match=r"cannot be made with the settings .*not in a worker.* \(copy 1\)"):
        open_batch(moody, 2, settings={"refuses": True}, workers=2)
    with pytest.raises(GameError, match="env_workers: got 2; mlbits/GridWorld-v0 is compiled and stepped here"):
        open_batch("mlbits/GridWorld-v0", 2, workers=2)


def test_ids_of_the_script_itself_are_told_from_those_of_modules(moody, monkeypatch):
    assert unsendable(moody, {}) == unsendable("CartPole-v1", {"x": 1}) == ""
    made = type("Mine", (gym.Env,), {"__module__": "__main__"})
    gym.register("tests/Mine-v0", made)
    try:
        assert "registered where another process cannot import it" in unsendable("tests/Mine-v0", {})
    finally:
        gym.registry.pop("tests/Mine-v0")


def test_several_processes_are_chosen_if_they_pay(monkeypatch):
    monkeypatch.setattr(gymnasium_workers, "free_cores", lambda: 4)
    seconds = {"now": 1e-3}
    monkeypatch.setattr(gymnasium_workers, "step_seconds", lambda *given: seconds["now"])
    found, note = choose("CartPole-v1", {}, True, 8, 1e6)
    assert found == 4
    assert note.startswith("CartPole-v1: a step takes 1,000 microseconds, so 4 processes step the 8 copies")
    assert choose("CartPole-v1", {}, True, 3, 1e6)[0] == 3
    assert choose("CartPole-v1", {}, True, 1, 1e6) == (1, "")
    assert choose("CartPole-v1", {}, True, 8, 20_000) == (1, "")  # 15 s saved, 5 s to start them
    assert choose("CartPole-v1", {"reward": lambda: 0}, True, 8, 1e6) == (1, "")
    seconds["now"] = 10e-6  # eight copies take less time than processes take to answer
    assert choose("CartPole-v1", {}, True, 8, 1e9) == (1, "")
    monkeypatch.setattr(gymnasium_workers, "free_cores", lambda: 1)
    seconds["now"] = 1.0
    assert choose("CartPole-v1", {}, True, 8, 1e9) == (1, "")


@pytest.mark.parametrize(("load", "free"), [(0.0, 4), (1.2, 4), (2.4, 3), (4.0, 1), (17.0, 1)])
def test_cores_that_other_processes_use_are_not_counted(load, free, monkeypatch):
    """A load of 2.4 is this process and 1.4 others."""
    monkeypatch.setattr(gymnasium_workers, "usable_cores", lambda: 4)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    assert free_cores() == free


def test_the_time_of_a_step_is_measured():
    class Slow(gym.Env):
        observation_space, action_space = spaces.Discrete(2), spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            return 0, {}

        def step(self, action):
            time.sleep(0.01)
            return 0, 0.0, True, False, {}

    gym.register("tests/Sleepy-v0", Slow)
    try:
        assert 0.009 < step_seconds("tests/Sleepy-v0", {}, True) < 1.0
    finally:
        gym.registry.pop("tests/Sleepy-v0")


def test_if_processes_cannot_be_started_a_run_that_asks_for_none_goes_on_in_one(moody, monkeypatch):
    monkeypatch.setattr(gymnasium_batch, "choose", lambda *given: (2, "two processes"))
    batch = open_batch(moody, 2, settings={"refuses": True}, workers=0, steps=1e9)
    assert (len(batch.envs), batch.note) == (2, "")
    asked = []
    monkeypatch.setattr(gymnasium_batch, "choose", lambda *given: asked.append(given) or (1, ""))
    run = {"num_envs": 2, "total_steps": 12_345}
    open_session(resolve("ppo", moody, preset="none", run=run))
    open_session(resolve("ppo", moody, preset="none", run=run | {"env_workers": 1}))
    assert asked == [("tests/Moody-v0", {}, True, 2, 12_345)]


def test_where_shared_memory_is_full_no_file_stays(moody, monkeypatch):
    made, mkstemp = [], gymnasium_workers.tempfile.mkstemp

    def noted(**how):
        made.append(mkstemp(**how))
        return made[-1]

    def full(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gymnasium_workers.tempfile, "mkstemp", noted)
    monkeypatch.setattr(gymnasium_workers.os, "truncate", full)
    with pytest.raises(GameError, match=r"env_workers: .* No space left on device.*; wanted 1"):
        open_batch(moody, 2, workers=2)
    assert [Path(path).exists() for _, path in made] == [False]
    monkeypatch.setattr(gymnasium_batch, "choose", lambda *given: (2, "two processes"))
    batch = open_batch(moody, 2, workers=0, steps=1e9)  # nobody asked for workers: it goes on in one process
    assert (len(batch.envs), batch.note) == (2, "")
    assert batch.step(batch.sample_actions()).obs.shape[0] == 2
    assert not any(Path(path).exists() for _, path in made)


def test_arrays_of_every_kind_share_one_block():
    space = spaces.Dict({"a": spaces.Box(0, 1, (3, 5), np.float32), "b": spaces.Discrete(3)})
    from mlbits.envs.core.spaces import action_layout

    blocks = []
    given = arrays_in(
        3, space, action_layout(spaces.Discrete(2)), lambda size: blocks.append(bytearray(size)) or blocks[0]
    )
    again = arrays_in(3, space, action_layout(spaces.Discrete(2)), lambda size: blocks[0])
    given.obs["a"][:], given.obs["b"][:], given.final["b"][:], given.age[:], given.over[1] = 2, 1, 2, 7, True
    assert again.obs["a"].shape == (3, 3, 5)
    assert again.obs["a"].tolist() == given.obs["a"].tolist()
    assert [again.obs["b"].tolist(), again.final["b"].tolist()] == [[1, 1, 1], [2, 2, 2]]
    assert again.over.tolist() == [False, True, False]
    assert again.age.tolist() == [7, 7, 7]
    assert again.paid.tolist() == [0, 0, 0]
