"""The command line: errors are one line with exit status 2, and valid commands print their results."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import pytest
import torch
from gymnasium import spaces
from PIL import Image
from stable_baselines3 import PPO

import mlbits
from mlbits.agents import AGENTS
from mlbits.cli import COMMANDS, main
from mlbits.evals import EVALS
from mlbits.selfplay.runs import checkpoints
from mlbits.selfplay.runs.config import presets, resolve

GRID = "mlbits/GridWorld-v0"
TINY = [
    "--preset",
    "none",
    "--total-steps",
    "256",
    "--num-envs",
    "8",
    "--eval-episodes",
    "2",
    "--agent.num-steps",
    "16",
    "--agent.hidden",
    "8",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tiny finished run with checkpoints at 128 and 256 steps."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    words = ["train", "ppo", GRID, *TINY, "--checkpoint-every", "128", "--quiet", "--out", str(folder)]
    assert main([*words, "--env.map", "S.G", "--env.horizon", "9"]) == 0
    return folder


def test_an_id_that_names_the_suite_is_the_same_environment(tmp_path):
    """The prefix "mlbits:" changes nothing: settings are flags, and the preset is found."""
    words = ["train", "ppo", f"mlbits:{GRID}", *TINY[2:], "--env.map", "S.G", "--quiet", "--out", str(tmp_path / "run")]
    assert main(words) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["env"], config["preset"], config["env_settings"]) == (GRID, f"ppo/{GRID}", {"map": "S.G"})
    assert resolve("ppo", f"mlbits:{GRID}") == resolve("ppo", GRID)
    assert main(["solve", f"mlbits:{GRID}"]) == 0


@pytest.fixture
def refused(capsys):
    """Run a command that must be refused; returns its one-line error."""

    def run(*words):
        capsys.readouterr()
        assert main([str(word) for word in words]) == 2
        said = capsys.readouterr()
        lines = said.err.splitlines()
        assert len(lines) == 1, said.err
        assert lines[0].startswith("error: ")
        assert "Traceback" not in said.out + said.err
        assert "╭" not in said.out + said.err
        return lines[0].removeprefix("error: ")

    return run


@pytest.fixture
def printed(capsys):
    """Run a command that must succeed; returns its output."""

    def run(*words):
        capsys.readouterr()
        assert main([str(word) for word in words]) == 0
        said = capsys.readouterr()
        assert said.err == ""
        return said.out

    return run


# Valid commands.


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_without_a_command_the_commands_are_listed(printed, words):
    said = printed(*words)
    for command in COMMANDS:
        assert f"mlbits {command} " in said


def test_the_version(printed):
    assert printed("--version") == f"mlbits {mlbits.__version__}\n"


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "train"])
def test_every_command_has_help(printed, command):
    said = printed(command, "--help")
    assert f"usage: mlbits {command}" in said


def test_help_for_training_names_agents_and_environments(printed):
    said = printed("train", "--help")
    assert "mlbits train AGENT ENV" in said
    assert "CartPole-v1" in said
    for name in (*AGENTS, *mlbits.registered()):
        assert name in said


def test_help_for_a_pair_shows_all_its_settings_with_their_values(printed):
    said = " ".join(printed("train", "ppo", GRID, "--help").replace("│", " ").split())
    preset = presets()["ppo"][GRID]
    total = preset["total_steps"]
    assert "Defaults shown are the values of the preset ppo/mlbits/GridWorld-v0" in said
    for shown in (
        "--total-steps INT environment steps of the run, summed over copies",
        f"(default: {total})",
        "--num-envs INT", "--seed INT", "--device STR", "--out {None}|STR", "--checkpoint-every INT",
        "--agent.learning-rate FLOAT|STR learning rate of Adam; 0 to 10, or a schedule "
        f"(default: {preset['agent']['learning_rate']})",
        "--agent.objective {clip,adaptive_kl,dpo}", "--agent.hidden [INT [INT ...]]", "--env.map STR",
        "--env.slip FLOAT probability 0..1 that a move goes in a uniformly drawn direction. (default: 0.0)",
        "--env.observation {index,one_hot,planes,pixels}",
    ):  # fmt: skip
        assert shown in said, shown
    plain = printed("train", "ppo", GRID, "--preset", "none", "--help")
    assert "preset ppo/" not in plain


def test_help_for_a_wrapped_environment(printed):
    said = printed("train", "ppo", "CartPole-v1", "--help")
    assert "--env.sutton-barto-reward VALUE" in said
    assert "(default: false)" in said
    assert "render" not in said


def test_list_shows_everything(printed):
    said = printed("list")
    tables = {"envs": mlbits.registered(), "agents": AGENTS, "evals": EVALS}
    tables["presets"] = [f"{agent} {env}" for agent, envs in presets().items() for env in envs]
    for what, names in tables.items():
        alone = printed("list", what)
        assert f"{what}:\n" in said
        for name in names:
            assert f"  {name}" in said
            assert f"  {name}" in alone
    assert "ppo" not in printed("list", "envs")


def test_training_evaluating_and_resuming(printed, tmp_path):
    folder, gif, result = tmp_path / "run", tmp_path / "a.gif", tmp_path / "result.json"
    said = printed("train", "ppo", GRID, *TINY, "--out", folder, "--env.map", "S.G", "--env.horizon", "9")
    assert "training ppo on mlbits/GridWorld-v0 (no preset: defaults and flags)" in said
    assert "256/256 steps (100%)" in said
    assert "95% interval" in said
    assert f"mlbits eval {folder}" in said
    assert f"mlbits board {tmp_path} opens http://localhost:6006/?pinnedCards=" in said
    config = json.loads((folder / "config.json").read_text())
    assert config["env_settings"] == {"map": "S.G", "horizon": 9}

    said = printed("eval", folder, "--episodes", "7", "--gif", gif, "--json", result)
    assert "over 7 episodes (" in said and "; checkpoint at 256 steps" in said
    assert f"animation: {gif}" in said
    with Image.open(gif) as picture:
        assert picture.format == "GIF"
        assert picture.n_frames >= 2
    values = json.loads(result.read_text())
    assert values["episodes"] == 7
    assert values["return_interval"] == [-float("inf"), float("inf")]  # every episode takes the same two steps
    assert "Infinity" not in result.read_text()
    assert f"return {values['return_mean']:.4g} over 7 episodes (all 7 equal: with 95% confidence" in said

    said = printed("resume", folder, "--total-steps", "512")
    assert f"resuming from {folder / 'checkpoints' / 'step-000000000256'}" in said
    assert "512/512 steps (100%)" in said
    assert "after 512 steps" in said


def test_the_preset_is_printed_and_recorded(printed, tmp_path):
    said = printed("train", "ppo", GRID, "--out", tmp_path / "run", "--total-steps", "100", "--eval-episodes", "1")
    assert "(preset ppo/mlbits/GridWorld-v0)" in said
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["preset"] == "ppo/mlbits/GridWorld-v0"
    assert config["agent_config"]["learning_rate"] == presets()["ppo"][GRID]["agent"]["learning_rate"]
    other = printed("train", "ppo", GRID, "--out", tmp_path / "other", *TINY[2:], "--preset=mlbits/CartPole-v0")
    assert "(preset ppo/mlbits/CartPole-v0)" in other


def test_evaluation_depends_only_on_its_seed(printed, run):
    lines = [printed("eval", run, "--episodes", "9", "--sample", "--seed", seed) for seed in (1, 1, 2)]
    assert lines[0] == lines[1] != lines[2]


def test_evaluation_names_the_checkpoint_it_skipped(run, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    (copy / "checkpoints" / "step-000000000256" / "state.json").write_text("{")
    capsys.readouterr()
    assert main(["eval", str(copy), "--episodes", "2"]) == 0
    said = capsys.readouterr()
    assert "skipped" in said.err
    assert "step-000000000256: damaged: state.json" in said.err
    assert "checkpoint at 128 steps" in said.out


def test_flags_of_wrapped_environments_are_json(printed, tmp_path):
    words = [*TINY, "--out", tmp_path / "run", "--no-video", "--env-json", '{"g": 5.0}']
    printed("train", "ppo", "Pendulum-v1", *words)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["env_settings"] == {"g": 5.0}


@pytest.mark.parametrize(
    "command", [[sys.executable, "-m", "mlbits.cli"], [str(Path(sys.executable).with_name("mlbits"))]]
)
def test_the_command_itself(command):
    done = subprocess.run([*command, "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"mlbits {mlbits.__version__}\n", "")
    done = subprocess.run([*command, "trian"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: unknown command 'trian'; did you mean 'train'?\n"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_mistake_is_one_line_on_any_terminal(encoding):
    """The library that parses the flags frames its messages by the terminal's encoding and width."""
    command = [sys.executable, "-m", "mlbits.cli", "train", "ppo", GRID, "--num-envs", "-3"]
    narrow = {**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "40", "FORCE_COLOR": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=narrow)
    wanted = f"error: --num-envs: got -3; wanted a number from 1 to 67,108,864; see mlbits train ppo {GRID} --help"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"{wanted}\n")


def test_ctrl_c_prints_how_to_continue(monkeypatch, capsys):
    def interrupted(words):
        raise KeyboardInterrupt

    monkeypatch.setitem(COMMANDS, "list", interrupted)
    assert main(["list"]) == 130
    assert capsys.readouterr().err.strip() == "interrupted"


# Errors.


def test_unknown_commands_agents_and_environments(refused):
    assert refused("lst") == "unknown command 'lst'; did you mean 'list'?"
    assert refused("train", "pp", GRID) == "unknown agent 'pp'; did you mean 'ppo'?"
    assert (
        refused("train", "ppo", "mlbits/GridWrld-v0")
        == f"unknown environment 'mlbits/GridWrld-v0'; did you mean '{GRID}'?"
    )
    assert refused("train", "ppo", "CartPole-v2").endswith("did you mean 'CartPole-v1'?")
    assert refused("list", "env") == "unknown list 'env'; did you mean 'envs'?"
    assert refused("bench", "gridwrld") == "unknown benchmark group 'gridwrld'; did you mean 'gridworld'?"
    assert refused("reproduce", "cartpol") == "unknown evaluation 'cartpol'; did you mean 'cartpole'?"


def test_missing_words(refused):
    assert refused("train").startswith("train: AGENT and ENV missing; wanted mlbits train AGENT ENV")
    assert refused("train", "ppo").startswith("train: ENV missing")
    assert refused("train", "ppo", "--seed", "3").startswith("train: ENV missing")
    for command in ("eval", "resume", "reproduce"):
        name = "NAME" if command == "reproduce" else "RUN"
        said = refused(command)
        assert said.startswith(name)
        assert " missing; wanted " in said
        assert f"; see mlbits {command} --help" in said
        assert "(required)" not in said


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--total-step", "3"], "unknown flag --total-step; did you mean --total-steps? See mlbits train ppo"),
        (["--agent.learnin-rate", "3"], "did you mean --agent.learning-rate?"),
        (["--env.mp", "x", "--zzz"], "did you mean --env.map?"),
        (["--qqq", "1", "--zzz=2"], "unknown flags --qqq, --zzz; see mlbits train ppo"),
        (["extra"], "got 'extra', one word too many; see"),
        (["--seed", "1", "2"], "got '2', one word too many; see"),
        (["--video", "yes"], "--video: got 'yes'; wanted no value, but --video or --no-video; see"),
        (
            ["--agent.no-anneal-lr", "x"],
            "--agent.no-anneal-lr: got 'x'; wanted no value, but --agent.anneal-lr or --agent.no-anneal-lr; see",
        ),
        (["--total-steps"], "--total-steps: the value is missing; wanted one; see"),
        (["--total-steps", "many"], "--total-steps: got 'many'; wanted a whole number, as in 100000, 100_000, "),
        (["--agent.hidden", "64", "a"], "--agent.hidden: got '64', 'a'; wanted one or more whole numbers, as in 64 64"),
        (["--env.slip", "much"], "--env.slip: got 'much'; wanted a number; see"),
        (["--agent.objective", "clop"], "--agent.objective: got 'clop'; wanted one of 'clip', 'adaptive_kl', 'dpo'"),
        (["--env.observation", "smell"], "wanted one of 'index', 'one_hot', 'planes', 'pixels'; see"),
        (["--total-steps", "0"], "--total-steps: got 0; wanted a number from 1 to "),
        (["--num-envs", "-3"], "--num-envs: got -3; wanted a number from 1 to 67,108,864"),
        (["--num-envs", "99999999999"], "--num-envs: got 99999999999; wanted"),
        (["--seed", "-1"], "--seed: got -1; wanted a number from 0"),
        (["--agent.num-steps", "0"], "--agent.num-steps: got 0; wanted a number from 1"),
        (["--agent.learning-rate", "-1"], "--agent.learning-rate: got -1.0; wanted a number from 0 to 10"),
        (["--agent.learning-rate", "fast"], "--agent.learning-rate: got 'fast'; wanted a number, or a schedule such"),
        (["--agent.learning-rate", "linear:1:-1"], "--agent.learning-rate: got 'linear:1:-1'; wanted a schedule of"),
        (["--agent.discount", "nan"], "--agent.discount: got nan; wanted a number from 0 to 1"),
        (["--agent.hidden", "64", "-1"], "--agent.hidden: got (64, -1); wanted one or more positive widths"),
        (["--preset", "tuned"], "--preset: ppo has none for 'tuned'; wanted 'auto', 'none' or one of "),
    ],
)  # fmt: skip
def test_wrong_flags(refused, tmp_path, flags, message):
    said = refused("train", "ppo", GRID, *flags, "--out", tmp_path / "run")
    assert message in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--env.map", "nowhere"], "--env.map: unknown map 'nowhere'; "),
        (["--env.map", "S.."], "--env.map: there is no goal; wanted at least one cell 'G'"),
        (["--env.map", "S../.G"], "--env.map: ragged rows: row 1 has 2 cells and row 0 has 3; wanted equal"),
        (["--env.map", "..G/??."], "--env.map: "),
        (["--env.slip", "1.5"], "--env.slip: got 1.5; wanted "),
        (["--env.horizon", "-1"], "--env.horizon: got -1; wanted "),
        (["--device", "tpu"], "--device: got 'tpu'; wanted 'auto', 'cpu', 'cuda' or 'cuda:N'"),
        (["--agent.minibatches", "99999"], "--num-envs and --agent.num-steps: a rollout has 32 x 64 steps"),
        (["--agent.normalize-obs"], "--agent.normalize-obs: got the observation space Discrete(64); wanted v"),
        (["--num-envs", "1000000", "--agent.num-steps", "1000000"], "--num-envs and --agent.num-steps: a rollout "),
    ],
)  # fmt: skip
def test_invalid_settings(refused, tmp_path, flags, message):
    said = refused("train", "ppo", GRID, *flags, "--out", tmp_path / "run")
    assert said.startswith(message)
    assert not (tmp_path / "run").exists()


def test_cuda_where_there_is_none(refused, run, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    train = [
        ["train", agent, env, "--out", tmp_path / "run"] for agent, env in (("ppo", GRID), ("ddpg", "Pendulum-v1"))
    ]
    for words in (*train, ["eval", run], ["bench", "gridworld"]):
        said = refused(*words, "--device", "cuda")
        assert said.startswith("--device: got 'cuda', and 0 usable CUDA devices; wanted 'cpu', or a machine")
    assert not (tmp_path / "run").exists()


class Levers(gym.Env):
    observation_space = spaces.Box(-1, 1, (2,))
    action_space = spaces.Dict({"left": spaces.Discrete(2), "right": spaces.Discrete(2)})


class Stories(gym.Env):
    observation_space = spaces.Sequence(spaces.Discrete(3))
    action_space = spaces.Discrete(2)


def test_environments_that_no_agent_can_take(refused, tmp_path):
    gym.register("tests/Levers-v0", Levers)
    gym.register("tests/Stories-v0", Stories)
    try:
        said = refused("train", "ppo", "tests/Levers-v0", "--out", tmp_path / "run")
        assert said.startswith("action_space: got Dict('left'")
        assert said.endswith("wanted Discrete, MultiDiscrete of one axis or Box of one axis")
        said = refused("train", "ppo", "tests/Stories-v0", "--out", tmp_path / "run")
        assert said.startswith("observation_space: got Sequence(")
    finally:
        for name in ("tests/Levers-v0", "tests/Stories-v0"):
            gym.registry.pop(name)
    assert not (tmp_path / "run").exists()


def test_settings_that_a_wrapped_environment_refuses(refused, tmp_path):
    words = ["train", "ppo", "CartPole-v1", "--out", tmp_path / "run", "--env-json"]
    assert refused(*words, "{").startswith("--env-json: ")
    assert refused(*words, "[1]") == "--env-json: got [1]; wanted a JSON object"
    assert "unexpected keyword argument 'gravity'" in refused(*words, '{"gravity": 1}')
    assert refused(*words, '{"render_mode": 3}').startswith("CartPole-v1: ")
    assert not (tmp_path / "run").exists()


def test_output_folders_that_are_taken(refused, run, tmp_path):
    said = refused("train", "ppo", GRID, "--out", run)
    assert said == f"--out: {run} holds another run; wanted a new folder (or continue that run: mlbits resume {run})"
    (tmp_path / "notes.txt").write_text("mine")
    assert refused("train", "ppo", GRID, "--out", tmp_path).endswith("is not empty; wanted a new or empty folder")
    assert "cannot be written" in refused("train", "ppo", GRID, "--out", tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_folders_that_are_not_runs(refused, tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        for command in ("eval", "resume"):
            said = refused(command, folder)
            assert said == f"{folder}: no run here (config.json is missing); wanted the folder that training printed"


def test_runs_without_a_usable_checkpoint(refused, run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    for path in (copy / "checkpoints").iterdir():
        (path / "weights.safetensors").write_bytes(b"x")
    for command in ("eval", "resume"):
        said = refused(command, copy)
        assert said.startswith("no usable checkpoint: ")
        assert said.count("damaged: weights.safetensors does not match its digest") == 2
    shutil.rmtree(copy / "checkpoints")
    assert refused("eval", copy) == f"{copy}: there is no checkpoint yet; wanted a run that has saved one"


def test_a_checkpoint_of_another_run(refused, run, tmp_path):
    other = tmp_path / "other"
    assert main(["train", "ppo", GRID, *TINY, "--quiet", "--out", str(other), "--env.map", "S..G"]) == 0
    shutil.rmtree(other / "checkpoints")
    shutil.copytree(run / "checkpoints", other / "checkpoints")
    for command in ("eval", "resume"):
        said = refused(command, other)
        assert "foreign: its env_settings has horizon 9 (this run: not set), map 'S.G' (this run: 'S..G')" in said


def test_damaged_configs(refused, run, tmp_path):
    config = json.loads((run / "config.json").read_text())
    path = tmp_path / "config.json"
    for text, message in (
        ("{", "config.json: damaged"),
        ("[]", "config.json: "),
        (json.dumps(config | {"agent": "sarsa"}), "unknown agent 'sarsa'"),
        (json.dumps(config | {"env": "mlbits/Gone-v0"}), "unknown environment 'mlbits/Gone-v0'"),
        (json.dumps(config | {"run": config["run"] | {"num_envs": "8"}}), "run.num_envs: got '8'; wanted int"),
    ):
        path.write_text(text)
        assert message in refused("resume", tmp_path)


def test_invalid_evaluations(refused, run, tmp_path):
    assert refused("eval", run, "--episodes", "0") == "--episodes: got 0; wanted at least 1"
    lost = tmp_path / "absent" / "x.gif"
    assert refused("eval", run, "--episodes", "1", "--gif", lost).startswith(f"--gif: {lost} cannot be written")
    assert refused("eval", run, "--episodes", "1", "--device", "tpu").startswith("--device: got 'tpu'")
    assert refused("eval", run, "--episodes", "1", "--json", lost).startswith(f"--json: {lost} cannot be written")


@pytest.mark.parametrize("seconds", ["0", "-1", "nan"])
def test_benchmarks_of_no_length(refused, seconds):
    assert refused("bench", "single", "--seconds", seconds).startswith(
        f"--seconds: got {float(seconds)}; wanted a positive"
    )


def test_running_out_of_memory_is_one_line(refused, monkeypatch):
    def greedy(words):
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setitem(COMMANDS, "list", greedy)
    wanted = "not enough memory (Unable to allocate 9 TiB); wanted fewer copies (num_envs) or steps (num_steps)"
    assert refused("list") == wanted


def test_a_full_disk_in_training_is_one_line(refused, tmp_path, monkeypatch):
    def full(path, tensors):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "write_tensors", full)
    said = refused("train", "ppo", GRID, *TINY, "--quiet", "--no-video", "--out", tmp_path / "run")
    assert "could not be written ([Errno 28] No space left on device); earlier checkpoints are unharmed" in said


def test_a_stable_baselines_model_plays_the_named_environment(printed, refused, tmp_path):
    model = tmp_path / "model.zip"
    PPO("MlpPolicy", "CartPole-v1", n_steps=32, batch_size=32, device="cpu", seed=0).learn(32).save(model)
    said = printed("eval", model, "mlbits/CartPole-v0", "--episodes", 3, "--json", tmp_path / "result.json")
    assert "over 3 episodes (" in said and "; checkpoint at 32 steps" in said
    assert json.loads((tmp_path / "result.json").read_text())["env_steps"] == 32
    assert "3 episodes" in printed(
        "eval", model, "CartPole-v1", "--episodes", 3, "--env-json", '{"sutton_barto_reward": true}'
    )
    assert refused("eval", model) == f"eval: ENV missing; wanted mlbits eval {model} ENV, the environment to play"
    assert refused("eval", model, "Acrobot-v1").startswith("action_space: got Discrete(3); the model was trained on")
    assert refused("eval", tmp_path / "no.zip", GRID).endswith("not found; wanted a model that Stable-Baselines3 saved")
    assert refused("eval", model, "CartPole-v1", "--env-json", "[").startswith("--env-json: ")
    assert refused("eval", tmp_path, "CartPole-v1").endswith(f"are for MODEL.zip; {tmp_path} has its own")
