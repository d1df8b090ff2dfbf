"""An agent's entry names its trainer: ours, Stable-Baselines3's loop, or a module of one's own."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlbits.agents import AGENTS
from mlbits.cli import main
from mlbits.envs.core.errors import UnknownIdError
from mlbits.selfplay import loop, sb3_training
from mlbits.selfplay.runs.config import ConfigError, Settings, resolve
from mlbits.selfplay.runs.folder import RunError, new_folder
from mlbits.selfplay.training import resumable, resume, train, trainer_of

BANDIT = "mlbits/Bandit-v0"
RUN = {"total_steps": 64, "num_envs": 4, "eval_every": 0, "eval_episodes": 2, "video": False, "device": "cpu"}
COACH = """
import json

RESUMABLE = False
SUMMARY = {"env_steps": 64, "return_mean": 1.0, "return_interval": [0.0, 2.0], "episodes": 2}
SUMMARY |= {"wall_seconds": 1.0, "cpu_seconds": 1.0}


def train(settings, out, *, console, measure):
    from mlbits.selfplay.runs.folder import new_folder

    folder = new_folder(settings, out)
    said = {"asked": [settings.agent, settings.env, console, measure is not None]}
    (folder / "coach.json").write_text(json.dumps(said))
    return folder, {**SUMMARY, **said}


def resume(folder, settings, *, total_steps, console, measure):
    return folder, {**SUMMARY, "asked": [settings.agent, total_steps, console, measure is not None]}
"""


def settings(agent: str) -> Settings:
    return resolve(agent, BANDIT, preset="none", run=RUN, agent_settings={"num_steps": 4, "hidden": (4,)})


@pytest.fixture
def coached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """PPO under another name, whose trainer is a module of one's own in the working folder."""
    (tmp_path / "coach_of_mine.py").write_text(COACH)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(AGENTS, "coached", dataclasses.replace(AGENTS["ppo"], trainer="coach_of_mine"))
    monkeypatch.delitem(sys.modules, "coach_of_mine", raising=False)
    return "coached"


def test_a_trainer_of_ones_own_is_one_field(coached: str, tmp_path: Path) -> None:
    folder, summary = train(settings(coached), tmp_path / "run", console=False)
    assert summary["asked"] == [coached, BANDIT, False, False]
    assert not (folder / "checkpoints").exists()  # our loop has not run
    assert resume(folder, total_steps=99, console=False, measure=lambda session: session)[1]["asked"] == [
        coached, 99, False, True,
    ]  # fmt: skip
    assert not resumable(coached)


def test_the_command_goes_to_it_too(coached: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "run")
    words = ["train", coached, BANDIT, "--total-steps", "64", "--quiet", "--device", "cpu", "--out", out]
    assert main(words) == 0
    asked = json.loads((tmp_path / "run" / "coach.json").read_text())["asked"]
    assert asked == [coached, BANDIT, False, True]  # with what the command measures
    assert main(["resume", out]) == 0
    assert out in capsys.readouterr().out


def test_a_finished_run_that_cannot_go_on_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = train(settings("ppo"), tmp_path / "run", console=False)
    assert main(["resume", str(folder)]) == 0
    assert f"to train longer: mlbits resume {folder} --total-steps 128" in capsys.readouterr().out
    monkeypatch.setattr(loop, "RESUMABLE", False, raising=False)
    assert main(["resume", str(folder)]) == 0
    assert "a run of ppo cannot go on; wanted a new run with more --total-steps" in capsys.readouterr().out


def test_most_agents_are_trained_by_our_loop_and_stable_baselines_by_theirs() -> None:
    theirs = {name for name, entry in AGENTS.items() if entry.trainer != "mlbits.selfplay.loop"}
    populations = {"es", "dvd", "map-elites", "wsc"}  # and an agent with goals of its own
    assert theirs - populations == {f"sb3-{name}" for name in ("ppo", "a2c", "dqn", "ddpg", "td3", "sac")}
    assert trainer_of("dqn") is loop
    assert resumable("dqn")
    assert not resumable("sb3-dqn")
    with pytest.raises(UnknownIdError, match="did you mean 'dqn'"):
        trainer_of("dqnn")


@pytest.mark.parametrize(
    ("trainer", "said"),
    [
        ("no_such_coach", r"^coached: its trainer: the module 'no_such_coach' cannot be imported \(No module named"),
        ("json", r"^coached: its trainer json has no function train; wanted train and resume$"),
    ],
)
def test_a_trainer_that_is_none_is_named(
    trainer: str, said: str, coached: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(AGENTS, coached, dataclasses.replace(AGENTS[coached], trainer=trainer))
    with pytest.raises(ConfigError, match=said):
        train(settings(coached), tmp_path / "run", console=False)
    assert not (tmp_path / "run").exists()
    new_folder(settings(coached), tmp_path / "begun")
    with pytest.raises(ConfigError, match=said):
        resume(tmp_path / "begun", console=False)


def test_a_folder_that_is_no_run_has_no_trainer(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run here"):
        resume(tmp_path, console=False)


def test_stable_baselines_is_imported_when_one_of_its_agents_is_trained() -> None:
    code = """if True:
        import sys
        import mlbits, mlbits.cli, mlbits.evals.evaluate, mlbits.evals.tournament.entrants
        from mlbits.agents import AGENTS
        from mlbits.selfplay.training import trainer_of
        configs = [entry.config_class() for entry in AGENTS.values()]
        trainer_of("ppo")
        print(len(configs), "stable_baselines3" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(AGENTS)), "False"]
    assert trainer_of("sb3-ppo") is sb3_training


def test_no_room_asks_whether_an_agent_is_stable_baselines() -> None:
    """What decides stands in the entry, its trainer or its config."""
    root: Any = Path(loop.__file__).parents[1]
    rooms = [root / "selfplay", root / "evals", Path(main.__code__.co_filename).parent]
    texts = {path: path.read_text() for room in rooms for path in room.rglob("*.py")}
    assert len(texts) > 60
    asking = ("SB3Config", "SB3Agent", 'startswith("sb3', '"sb3-"')
    found = {path.name for path, text in texts.items() if any(part in text for part in asking)}
    assert found == {"sb3_training.py"}
