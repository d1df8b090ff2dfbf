"""Commands are checked completely before anything is compiled: here compiling raises an error."""

import shutil

import pytest

from mlbits.cli import main
from mlbits.envs.engine import cpu_copies, driver

GRID, BLOTTO = "mlbits/GridWorld-v0", "mlbits/Blotto-v0"
TINY = ["--preset", "none", "--total-steps", "64", "--num-envs", "4", "--eval-episodes", "2", "--no-video", "--quiet"]
TINY += ["--agent.num-steps", "8", "--agent.hidden", "8"]


class CompiledError(BaseException):
    """Raised where a driver would be compiled."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Finished runs: of a gridworld, of Blotto with 4 and with 5 coins."""
    folder = tmp_path_factory.mktemp("runs")
    assert main(["train", "ppo", GRID, *TINY, "--out", str(folder / "grid")]) == 0
    for coins in ("4", "5"):
        words = ["train", "ppo", BLOTTO, *TINY, "--env.coins", coins, "--out", str(folder / coins)]
        assert main([*words, "--pool", "uniform", "--pool-every", "32"]) == 0
    return folder


@pytest.fixture
def uncompiled(monkeypatch):
    def refuse(*words, **more):
        raise CompiledError

    for module in (cpu_copies, driver):
        monkeypatch.setattr(module, "load_driver", refuse)


def test_valid_commands_reach_compilation(uncompiled, tmp_path):
    """Valid forms of every command tested below get as far as compiling."""
    for words in (
        ["train", "ppo", GRID, *TINY, "--out", str(tmp_path / "run")],
        ["solve", GRID],
        ["exploit", "random", "--env", BLOTTO],
        ["bench", "gridworld"],
    ):
        with pytest.raises(CompiledError):
            main(words)


def test_valid_commands_on_a_run_reach_compilation(uncompiled, runs):
    for words in (
        ["eval", str(runs / "grid")],
        ["resume", str(runs / "grid"), "--total-steps", "1000"],
        ["tournament", str(runs / "4"), "random", "--games", "2", "--out", str(runs / "t")],
        ["exploit", str(runs / "4"), "--method", "trained"],
    ):
        with pytest.raises(CompiledError):
            main(words)


@pytest.mark.parametrize(
    "words",
    [
        "train ppo {grid} --total-steps 0",
        "train ppo {grid} --env.slip 2",
        "train ppo {grid} --env.map nowhere",
        "train ppo {grid} --device tpu",
        "train ppo {grid} --agent.minibatches 99999",
        "train ppo {grid} --agent.normalize-obs",
        "train ppo {grid} --num-envs 1000000 --agent.num-steps 1000000",
        "train ppo {grid} --out {runs}/grid",
        "train ppo {grid} --opponents random",
        "train ppo {grid} --pool uniform",
        "train ppo {blotto} --opponents randm",
        "train ppo {blotto} --opponents ppo",
        "train ppo {blotto} --opponents {runs}/grid",
        "train ppo {blotto} --opponents {runs}/4",
        "train ppo {blotto} --pool uniform --pool-fraction 0.001",
        "train ppo {blotto} --pool league --num-envs 2",
        "train dqn {grid} --agent.buffer-size 1e12 --agent.num-steps 1",
        "train ddpg {grid}",
        "train q-learning mlbits/CartPole-v0",
        "train random {grid}",
        "train diplomacy-greedy {grid}",
        "train sb3-dqn mlbits/Pendulum-v0",
        "train sb3-ppo {blotto}",
        "solve {grid} --env.slip 2",
        "solve {grid} --discount 2",
        "solve {grid} --picture {runs}/x.mp4",
        "solve {grid} --picture {runs}/none/x.png",
        "solve {grid} --json {runs}/none/x.json",
        "solve mlbits/Bandit-v0 --picture {runs}/x.png",
        "solve {blotto}",
        "eval {runs}/grid --episodes 0",
        "eval {runs}/grid --gif {runs}/x.mp4",
        "eval {runs}/grid --json {runs}/none/x",
        "eval {runs}/grid --env.map S....G",
        "eval {runs}/grid --device tpu",
        "eval {runs}/grid --opponents random",
        "eval {runs}/4 --opponents randm",
        "eval {runs}/4 --opponents {runs}/grid",
        "eval {runs}/4 --opponents ppo",
        "eval {runs}/none",
        "eval {runs}/foreign",
        "resume {runs}/foreign --total-steps 1000",
        "exploit randm --env {blotto}",
        "exploit random --env {grid}",
        "exploit {runs}/grid",
        "exploit random --env {blotto} --method trained --episodes 0",
        "exploit random --env {blotto} --method trained --steps 0",
        "exploit random --env {blotto} --method trained --learner pp",
        "exploit random --env {blotto} --method trained --learner ddpg",
        "exploit {runs}/4 {runs}/grid",
        "tournament random",
        "tournament {runs}/4 randm",
        "tournament {runs}/4 {runs}/5",
        "tournament {runs}/4 {runs}/grid",
        "tournament {runs}/4 random --games 0",
        "tournament {runs}/4 random --out {runs}/grid",
        "tournament {runs}/4 random --json {runs}/none/x",
        "bench gridwrld",
        "bench gridworld --seconds 0",
        "bench gridworld --json {runs}/none/x",
        "reproduce cartpol",
        "reproduce gridworld --json {runs}/none/x",
    ],
)
def test_mistakes_are_refused_before_anything_is_compiled(uncompiled, runs, capsys, tmp_path, words):
    if "foreign" in words:
        shutil.rmtree(runs / "foreign", ignore_errors=True)
        shutil.copytree(runs / "4", runs / "foreign")
        shutil.rmtree(runs / "foreign" / "checkpoints")
        shutil.copytree(runs / "5" / "checkpoints", runs / "foreign" / "checkpoints")
    given = words.format(grid=GRID, blotto=BLOTTO, runs=runs).split()
    if given[0] == "train" and "--out" not in given:
        given += ["--out", str(tmp_path / "run")]
    assert main(given) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / "run").exists()
