"""Users' own environments and agents are found again by another process, wherever it runs."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mlbits
from mlbits.cli import main
from mlbits.envs.core.errors import GameError
from mlbits.envs.origins import folder_of, import_module, own_folders, remember_folders
from mlbits.selfplay.runs.config import names_to

GAME = """
import sys
from mlbits import register
from mlbits.agents import register_agent, AgentEntry

register("mine/Duel-v0", "mlbits.envs.blotto:blotto", coins=6)
register_agent("mine", AgentEntry("mlbits.agents.ppo", "PPO", "PPOConfig", "PPO by another name"))
"""
WALK = """
import sys
import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Walk(gym.Env):
    observation_space, action_space = spaces.Box(-1, 1, (2,)), spaces.Discrete(2)

    def __init__(self, length=3, render_mode=None):
        self.length = length

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.zeros(2, np.float32), 1.0, self.t >= self.length, False, {}


gym.register("mine/Walk-v0", Walk)
"""
START = """
if __name__ == "__main__":
    from mlbits.cli import main

    sys.exit(main())
"""
FLAGS = "--preset none --total-steps 64 --num-envs 4 --eval-episodes 2 --no-video --quiet".split()
FLAGS += ["--agent.num-steps", "8", "--agent.hidden", "8"]


MANY = """
import json, sys
from mlbits.cli import main
for words in json.loads(sys.argv[1]):
    print("status", main(words), flush=True)
"""


def script(file, words, cwd):
    done = subprocess.run([sys.executable, str(file), *map(str, words)], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def commands(cwd, *lines, statuses=None):
    """Run commands one after another in one process; returns its output."""
    given = json.dumps([[str(word) for word in words] for words in lines])
    done = subprocess.run([sys.executable, "-c", MANY, given], cwd=cwd, capture_output=True, text=True)
    got = [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("status ")]
    assert got == (statuses or [0] * len(lines)), done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def code(tmp_path):
    folder = tmp_path / "my code"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a module, and a run that was trained there as module:name."""
    code, out = tmp_path_factory.mktemp("my code"), tmp_path_factory.mktemp("trained") / "run"
    (code / "my_games.py").write_text(GAME)
    commands(code, ["train", "my_games:mine", "my_games:mine/Duel-v0", *FLAGS, "--pool", "uniform", "--out", out])
    return code, out


def test_a_module_that_registers_both(trained, tmp_path):
    """Trained from the module's folder; used from another folder."""
    code, out = trained[0], tmp_path / "run"
    shutil.copytree(trained[1], out)
    config = json.loads((out / "config.json").read_text())
    assert (config["env"], config["agent"]) == ("my_games:mine/Duel-v0", "my_games:mine")
    assert config["folders"] == [str(code.resolve())]
    [copy] = (out / "pool").glob("copy-0000-*.safetensors")
    said = commands(
        tmp_path,
        ["exploit", copy],
        ["eval", out, "--episodes", "2", "--env.coins", "6"],
        ["resume", out, "--total-steps", "96"],
        ["tournament", out, copy, "--games", "4"],
    )
    for part in ("(exact)", "2 episodes", "after 96 steps", "mine/Duel-v0: 4 games"):
        assert part in said
    assert json.loads((out / "config.json").read_text())["env"] == "my_games:mine/Duel-v0"


@pytest.mark.slow
def test_a_script_that_registers_and_trains(code, tmp_path):
    """Only the script itself registers the game and the environment."""
    (code / "my_script.py").write_text(WALK + GAME + START)
    walk, duel = tmp_path / "walk", tmp_path / "duel"
    for env, out in (("mine/Walk-v0", walk), ("mine/Duel-v0", duel)):
        script(code / "my_script.py", ["train", "ppo", env, *FLAGS, "--out", out], tmp_path)
        assert json.loads((out / "config.json").read_text())["env"] == f"my_script:{env}"
    lines = [["eval", out, "--episodes", "2"] for out in (walk, duel)]
    assert commands(tmp_path, *lines).count("2 episodes") == 2


def test_a_script_that_would_train_again_is_not_imported(code, tmp_path):
    """Importing it would start its training: it is not recorded, and the error names the unknown id."""
    out = tmp_path / "run"
    start = f"\nfrom mlbits.cli import main\n\nmain({['train', 'ppo', 'mine/Walk-v0', *FLAGS, '--out', str(out)]})\n"
    (code / "my_script.py").write_text(WALK + start)
    script(code / "my_script.py", [], tmp_path)
    assert json.loads((out / "config.json").read_text())["env"] == "mine/Walk-v0"
    assert main(["eval", str(out)]) == 2


def test_builtin_names_need_no_module():
    assert names_to("ppo", "CartPole-v1") == {"agent": "ppo", "env": "CartPole-v1"}
    assert names_to("ppo", "mlbits/GridWorld-v0") == {"agent": "ppo", "env": "mlbits/GridWorld-v0"}


def test_modules_are_searched_in_the_working_folder_and_in_recorded_folders(code, tmp_path, monkeypatch):
    (code / "found_by_name.py").write_text("VALUE = 3\n")
    (tmp_path / "found_here.py").write_text("VALUE = 4\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert import_module("found_here").VALUE == 4
    with pytest.raises(
        GameError, match=r"cannot be imported \(No module named 'found_by_name'\); wanted its folder on"
    ):
        import_module("found_by_name")
    with pytest.raises(GameError, match="cannot be imported"):  # whatever folders a file names
        import_module("found_by_name", [str(code)])
    remember_folders([str(code)])
    assert import_module("found_by_name", [str(code)]).VALUE == 3
    assert folder_of("found_by_name") == str(code.resolve())
    assert folder_of("mlbits.envs.core") == str(Path(mlbits.__file__).parents[1].resolve())


def test_code_beside_a_strangers_run_is_not_executed(trained, tmp_path):
    """Its config names a module beside it and its folder; it is not run, not even from inside that folder."""
    code, out = trained[0], tmp_path / "run"
    shutil.copytree(trained[1], out)
    (out / "strange.py").write_text("import pathlib\npathlib.Path(__file__).with_name('has_run').touch()\n")
    config = json.loads((out / "config.json").read_text())
    for field, name in (("env", "strange:mine/Duel-v0"), ("agent", "strange:mine")):
        changed = config | {field: name, "folders": [str(out), str(code.resolve())]}
        (out / "config.json").write_text(json.dumps(changed))
        lines = ["eval", "."], ["resume", "."], ["tournament", ".", "random"], ["exploit", "."]
        said = commands(out, *lines, statuses=[2] * 4)
        assert said.count("the module 'strange' cannot be imported") == 4
    assert not (out / "has_run").exists()


def test_the_users_list_of_folders_grows_and_a_broken_one_counts_as_empty(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert own_folders() == []
    remember_folders(["/one"])
    remember_folders(["/two", "/one"])
    assert own_folders() == ["/one", "/two"]
    (tmp_path / "mlbits" / "own_folders.json").write_text("{")
    assert own_folders() == []
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "mlbits" / "own_folders.json"))  # a file: nothing can be kept
    remember_folders(["/three"])
    assert own_folders() == []
