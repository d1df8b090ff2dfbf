"""Worker processes: the same bits as in one process, also where workers die, hang or leave."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mlbits
from mlbits.envs.core.errors import MlbitsError
from mlbits.selfplay.finite import NotFiniteError
from mlbits.selfplay.runs.config import ConfigError
from mlbits.selfplay.shards import crew
from mlbits.selfplay.shards.crew import Crew
from mlbits.selfplay.shards.launcher import Launched
from mlbits.selfplay.shards.links import WorkersError
from tests.selfplay.shards.joined import settings_of
from tests.selfplay.test_resume import compare

BROKEN = "tests.selfplay.shards.broken:mlbits-tests/Broken-v0"  # in the second of two workers
ROOT = Path(__file__).parents[3]
# iterations of 64 steps; checkpoints at 192, 384, 576, 640
RUN = {
    "num_envs": 8, "total_steps": 640, "eval_every": 0, "eval_episodes": 1, "checkpoint_every": 192, "video": False,
    "shards": 4, "device": "cpu", "preset": "none", "console": False, "measure": None,
    "agent_settings": {"hidden": (8,), "num_steps": 8, "normalize_obs": True, "normalize_reward": True},
}  # fmt: skip


def train(out, **more):
    return mlbits.train("ppo", "mlbits/CartPole-v0", out=out, **{**RUN, **more})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The same run in one process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    train(folder)
    return folder


class At:
    """Sends signals to the last worker after some iterations, each once."""

    def __init__(self, **signals):
        self.left = {int(name[2:]): number for name, number in signals.items()}
        self.crews = []

    def __call__(self, run):
        self.crews.append(run._session.crew)
        if number := self.left.pop(run.iterations, None):
            os.kill(run._session.crew._processes[-1].pid, number)


def test_a_worker_that_is_killed_is_replaced_and_the_bits_stay(undisturbed, tmp_path):
    disturb = At(at5=signal.SIGKILL)
    run = train(tmp_path / "run", workers=2, on_iteration=disturb)
    compare(run.folder, undisturbed)
    found = disturb.crews[-1]
    assert (found.generation, found.restarts) == (2, 1)
    assert found._processes == []
    workers = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert workers[-1]["workers/restarts"] == 1.0
    assert 0 < workers[-1]["time/communication"] < 1


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 3, 4])
def test_any_number_of_workers(workers, undisturbed, tmp_path):
    compare(train(tmp_path / "run", workers=workers).folder, undisturbed)


@pytest.mark.slow
def test_a_worker_that_hangs_is_found_and_replaced(undisturbed, tmp_path):
    disturb = At(at2=signal.SIGSTOP, at7=signal.SIGSTOP)  # the first before there is a checkpoint
    compare(train(tmp_path / "run", workers=2, worker_timeout=15, on_iteration=disturb).folder, undisturbed)
    assert disturb.crews[-1].generation >= 3  # more where a machine is so busy that a worker seems to hang


@pytest.mark.slow
def test_a_worker_that_is_asked_to_leave_costs_nothing(undisturbed, tmp_path, capsys):
    disturb = At(at5=signal.SIGTERM)
    run = train(tmp_path / "run", workers=2, console=True, on_iteration=disturb)
    compare(run.folder, undisturbed)
    said = capsys.readouterr().out
    assert "workers: 1 of 2 asked to stop (SIGTERM); starting new workers" in said
    assert "resuming from" in said
    assert len(disturb.crews) == 10  # each iteration was made once


@pytest.mark.slow
def test_a_driver_that_is_killed_resumes_on_another_number_of_workers(undisturbed, tmp_path):
    folder = tmp_path / "run"
    words = "ppo mlbits/CartPole-v0 --preset none --num-envs 8 --total-steps 640 --eval-every 0 --eval-episodes 1"
    words += " --checkpoint-every 192 --no-video --shards 4 --device cpu --agent.hidden 8 --agent.num-steps 8"
    words += " --agent.normalize-obs --agent.normalize-reward --workers 4 --quiet"
    command = [sys.executable, "-m", "tests.selfplay.killed", "learning", "5", "train", *words.split()]
    done = subprocess.run([*command, "--out", str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (folder / "summary.json").exists()
    mlbits.resume(folder, workers=1, console=False, measure=None)
    compare(folder, undisturbed)
    assert json.loads((folder / "config.json").read_text())["run"]["workers"] == 1


@pytest.mark.slow
def test_a_number_that_is_not_finite_in_a_worker_ends_the_run_as_in_one_process(tmp_path):
    said = []
    for workers in (1, 2):
        with pytest.raises(NotFiniteError) as stopped:
            mlbits.train("ppo", BROKEN, out=tmp_path / str(workers), workers=workers, **RUN)
        said.append(str(stopped.value).replace(str(tmp_path / str(workers)), "RUN"))
    assert said[0] == said[1]
    assert re.search(r"reward: got nan at step \d+, copy 6;", said[0])


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["latest", "pfsp", "league"])
def test_a_pool_is_the_same_on_two_workers_one_of_which_is_killed(pool, tmp_path):
    settings = {
        **RUN,
        "num_envs": 16,
        "pool": pool,
        "pool_every": 128,
        "total_steps": 1024,
        "agent_settings": {"num_steps": 4},
    }
    more = {"env_settings": {"coins": 3}, **settings}
    alone = mlbits.train("ppo", "mlbits/Blotto-v0", out=tmp_path / "alone", **more)
    disturb = At(at9=signal.SIGKILL)
    two = mlbits.train("ppo", "mlbits/Blotto-v0", out=tmp_path / "two", workers=2, on_iteration=disturb, **more)
    compare(two.folder, alone.folder)
    assert len(list((two.folder / "pool").iterdir())) > 3


@pytest.mark.slow
def test_workers_that_are_lost_again_and_again_end_the_run_in_words(tmp_path):
    def kill(run):
        os.kill(run._session.crew._processes[-1].pid, signal.SIGKILL)

    with pytest.raises(WorkersError, match=r"ended by SIGKILL; that was 4 times without a step further$"):
        train(tmp_path / "run", workers=2, on_iteration=kill)


def test_workers_that_do_not_come_are_said(monkeypatch):
    settings = settings_of("ppo", "mlbits/CartPole-v0", workers=3)
    command = [sys.executable, "-S", "-c", "import sys; sys.stdin.read()"]
    sleeping = lambda self, rank, world: subprocess.Popen(command, stdin=subprocess.PIPE)  # noqa: E731
    monkeypatch.setattr(Crew, "_start", sleeping)
    found = Crew(settings, start_seconds=0.1)
    with pytest.raises(ConfigError, match=r"^workers: 2 of 3 did not come within 0.1 seconds; wanted all of them$"):
        found.gathered()
    found.kill()
    assert found._processes == []


def test_a_worker_that_ends_at_once_is_quoted(monkeypatch):
    settings = settings_of("ppo", "mlbits/CartPole-v0", workers=2)
    monkeypatch.setattr(crew, "_WORKER", "tests.no_such_worker")
    found = Crew(settings, start_seconds=60)
    with pytest.raises(ConfigError, match=r"worker 1 ended with status 1 \(.*No module named '?tests.no_such_worker"):
        found.gathered()
    found.kill()


def test_what_a_launcher_started_is_left_to_it(monkeypatch):
    settings = settings_of("ppo", "mlbits/CartPole-v0")
    monkeypatch.setattr(crew, "launched", lambda: Launched(0, 2, "node0:1"))
    with pytest.raises(WorkersError, match="gone; the launcher has to start all of them again, with mlbits resume"):
        Crew(settings).restart(MlbitsError("gone"), 0)
    monkeypatch.setattr(crew, "launched", lambda: Launched(1, 2, "node0:1"))
    with pytest.raises(ConfigError, match=r"^RANK: got 1; wanted 0 here"):
        Crew(settings)


@pytest.mark.slow
def test_processes_of_a_launcher_make_the_same_run(undisturbed, tmp_path):
    folder = tmp_path / "run"
    words = "ppo mlbits/CartPole-v0 --preset none --num-envs 8 --total-steps 640 --eval-every 0 --eval-episodes 1"
    words += " --checkpoint-every 192 --no-video --shards 4 --device cpu --agent.hidden 8 --agent.num-steps 8"
    words += f" --agent.normalize-obs --agent.normalize-reward --quiet --out {folder}"
    command = [sys.executable, "-m", "mlbits", "train", *words.split()]
    port = int(np.random.default_rng().integers(20000, 60000))
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    started = [subprocess.Popen(command, cwd=ROOT, env={**os.environ, **place, "RANK": str(k)}) for k in range(2)]
    assert [one.wait(timeout=300) for one in started] == [0, 0]
    compare(folder, undisturbed)
