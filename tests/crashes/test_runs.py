"""Whole runs and tournaments that a kill or a power loss stops at any I/O call end as if nothing had happened."""

import contextlib
import json

import pytest

from mlbits.envs.core.errors import MlbitsError
from mlbits.evals.tournament.config import TournamentConfig
from mlbits.evals.tournament.tournament import hold_tournament
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.runs.folder import read_settings
from mlbits.selfplay.training import resume, train
from tests.crashes.disk import Disk, each_built, full_disk
from tests.selfplay.test_resume import compare

EVERY = pytest.param(1, marks=pytest.mark.slow)
ALL = [pytest.param(how, 1, marks=pytest.mark.slow) for how in ("kill", "power loss")]
RUN = {
    "num_envs": 8,
    "total_steps": 256,
    "eval_episodes": 1,
    "video": False,
    "checkpoint_every": 128,
    "eval_every": 128,
}
SETTINGS = {
    "one seat": resolve("ppo", "mlbits/GridWorld-v0", preset="none",
                        run=RUN | {"keep_checkpoints": 1, "keep_best": True},
                        agent_settings={"num_steps": 8, "hidden": [4], "epochs": 1, "minibatches": 1}),
    "pool": resolve("ppo", "mlbits/MatrixGame-v0", preset="none", run=RUN | {"pool": "uniform", "pool_every": 64},
                    agent_settings={"num_steps": 8, "hidden": [4], "epochs": 1, "minibatches": 1}),
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A run of each kind, and the disk it was written to."""
    made = {}

    def run(name):
        if name not in made:
            folder = tmp_path_factory.mktemp("watched") / "out"
            folder.mkdir()
            disk = Disk(folder)
            with disk.watched():
                train(SETTINGS[name], folder / "run", console=False)
            made[name] = folder / "run", disk
        return made[name]

    return run


def go_on(folder, settings):
    """As a user does: the same command again, until it does its work."""
    if (folder / "config.json").exists():
        resume(folder, console=False)
    else:
        train(settings, folder, console=False)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize(("how", "every"), [("kill", 12), ("power loss", 72), *ALL])
def test_a_run_goes_on_from_every_state_that_a_crash_leaves(name, how, every, watched, tmp_path):
    alone, disk = watched(name)
    assert len(disk.moments) > 80
    what, tried = {"kills": how == "kill", "losses": how == "power loss"}, 0
    for moment, folder in each_built(disk, tmp_path / "states", every=every, **what):
        go_on(folder / "run", SETTINGS[name])
        try:
            compare(folder / "run", alone)
        except AssertionError as error:
            raise AssertionError(f"{moment.name}: {error}") from error
        tried += 1
    assert tried >= 3


@pytest.mark.parametrize("every", [EVERY, 25])
@pytest.mark.parametrize("forever", [True, False])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_run_goes_on_after_the_disk_was_full(name, forever, every, watched, tmp_path):
    """At any call: an error that names it, what was saved before stays, and with space again the run ends the same."""
    alone, _ = watched(name)
    at, calls, failed = -every // 2, [], 0
    while at < 1 or len(calls) >= at:
        at += every
        folder = tmp_path / str(at) / "run"
        with full_disk(max(at, 1), forever) as calls, contextlib.suppress(OSError, MlbitsError):
            train(SETTINGS[name], folder, console=False)
            failed -= 1
        failed += 1
        if (folder / "config.json").exists():
            read_settings(folder)
        go_on(folder, SETTINGS[name])
        compare(folder, alone)
    assert failed >= 3


CONFIG = TournamentConfig(games=6, num_envs=4)
WORDS = ["random", "mcts@simulations=1"]


def hold(folder):
    return hold_tournament(WORDS, CONFIG, env="mlbits/TicTacToe-v0", out=folder)


@pytest.mark.parametrize("every", [EVERY, 24])
def test_a_tournament_goes_on_from_every_state_that_a_crash_leaves(every, tmp_path):
    (tmp_path / "out").mkdir()
    disk = Disk(tmp_path / "out")
    with disk.watched():
        hold(tmp_path / "out" / "t")
    wanted = {path.name: path.read_bytes() for path in (tmp_path / "out" / "t").iterdir()}
    assert {"matches.jsonl", "standings.json", "payoffs.csv", "tournament.json"} <= set(wanted)
    assert len(wanted["matches.jsonl"].splitlines()) == 1 + 2 + 6
    for what in ({"kills": True, "losses": False}, {"kills": False, "losses": True}):
        for moment, folder in each_built(disk, tmp_path / "states", every=every, **what):
            hold(folder / "t")
            found = {path.name: path.read_bytes() for path in (folder / "t").iterdir()}
            assert json.loads(found["tournament.json"]) == json.loads(wanted["tournament.json"])
            assert {n: d for n, d in found.items() if not n.startswith(".")} == wanted, moment.name
