"""``mlbits record`` and ``mlbits data``: datasets from the command line."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from mlbits.agents.memory.dataset import Dataset, Episode
from mlbits.agents.memory.minari import read_dataset, write_dataset
from mlbits.cli import main
from mlbits.evals.dataset_summary import describe, summarise
from mlbits.selfplay.runs.saved_agents import load_agent

GRID = "mlbits/GridWorld-v0"


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tiny finished run of PPO on a map of three cells."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    words = (
        "--preset none --total-steps 128 --num-envs 8 --eval-episodes 2 --agent.num-steps 16 --agent.hidden 8 --quiet"
    )
    assert (
        main(["train", "ppo", GRID, *words.split(), "--out", str(folder), "--env.map", "S.G", "--env.horizon", "9"])
        == 0
    )
    return folder


def said(capsys, *words, status=0):
    capsys.readouterr()
    assert main([str(word) for word in words]) == status
    found = capsys.readouterr()
    return found.err if status else found.out


def test_a_runs_agent_is_recorded_in_its_environment(run, capsys):
    text = said(capsys, "record", run, "--dataset", "grid/mine-v0", "--episodes", 20)
    data = read_dataset("grid/mine-v0")
    assert f"20 episodes, {data.num_steps} steps, mean return {float(data.returns.double().mean()):.4g}" in text
    assert "log probabilities of the actions: recorded" in text and "mlbits data grid/mine-v0" in text
    assert (data.env, data.settings) == (GRID, {"map": "S.G", "horizon": 9})
    agent = load_agent(run)[0]
    steps = data.transitions(torch.arange(data.num_steps))
    chance = agent.action_probabilities(steps.obs, None).gather(1, steps.action[:, None]).squeeze(1)
    assert torch.allclose(data.log_prob.exp().double(), chance, atol=1e-5)
    said(capsys, "record", run, "--dataset", "grid/greedy-v0", "--episodes", 5, "--greedy", "--env.horizon", 4)
    greedy = read_dataset("grid/greedy-v0")
    assert greedy.log_prob is None and greedy.settings["horizon"] == 4 and int(greedy.lengths.max()) <= 4


def test_an_environment_is_recorded_with_a_policy(run, capsys, tmp_path):
    said(capsys, "record", "CartPole-v1", "--dataset", "pole/random-v0", "--steps", 100, "--env.sutton_barto_reward")
    data = read_dataset("pole/random-v0")
    assert data.num_steps >= 100 and data.settings == {"sutton_barto_reward": True} and data.reward.min() == -1
    said(
        capsys, "record", GRID, "--policy", run, "--env.map", "S.G", "--dataset", tmp_path / "out-v1", "--episodes", 3,
        "--json", tmp_path / "out.json",
    )  # fmt: skip
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["episodes"] == 3 and found["folder"] == str(tmp_path / "out-v1")
    text = said(capsys, "record", "mlbits/TicTacToe-v0", "--dataset", "ttt/random-v0", "--episodes", 4)
    assert "8 episodes" in text and "4 games; each seat's decisions are an episode of their own" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["CartPole-v1", "--dataset", "a/b-v0"], "episodes: missing; wanted --episodes N, or --steps N"),
        (["CartPole-v1", "--episodes", "2"], "--dataset"),
        (["CartPole-v1", "--episodes", "2", "--dataset", "ab"], "--dataset: got 'ab'; wanted an id with a version"),
        (["CartPoll-v1", "--episodes", "2", "--dataset", "a/b-v0"], "unknown environment 'CartPoll-v1'; did you mean"),
        (["CartPole-v1", "--policy", "ranom", "--episodes", "2", "--dataset", "a/b-v0"], "did you mean 'random'?"),
        (["CartPole-v1", "--policy", "ppo", "--episodes", "2", "--dataset", "a/b-v0"], "ppo"),
        (["CartPole-v1", "--episodes", "-2", "--dataset", "a/b-v0"], "--episodes: got -2; wanted"),
    ],
)
def test_what_cannot_be_recorded_is_refused_in_one_line(capsys, root, words, message):
    text = said(capsys, "record", *words, status=2)
    assert message in text and text.count("\n") == 1
    assert not root.exists()


def test_a_run_takes_no_policy_and_a_name_no_second_dataset(run, capsys):
    text = said(capsys, "record", run, "--policy", "random", "--episodes", 2, "--dataset", "a/b-v0", status=2)
    assert "--policy: got random" in text and "is a run, whose agent plays" in text
    said(capsys, "record", run, "--episodes", 2, "--dataset", "a/b-v0")
    assert "a/b-v0 exists already" in said(capsys, "record", run, "--episodes", 2, "--dataset", "a/b-v0", status=2)


def graded(count, reward, name):
    """Episodes of two steps with a given reward; only the first action is ever played."""
    from gymnasium import spaces

    rows = [Episode([0, 1, 2], [0, 0], [0.0, reward], terminated=[False, True], seed=k) for k in range(count)]
    write_dataset(Dataset.from_episodes(rows, spaces.Discrete(4), spaces.Discrete(3), env=GRID), name)


def test_datasets_are_mixed_and_split_by_episodes(capsys):
    graded(10, 1.0, "g/good-v0")
    graded(30, 0.0, "g/bad-v0")
    text = said(capsys, "data", "mix", "g/good-v0", "g/bad-v0", "--fractions", 1, 0.5, "--into", "g/mixed-v0")
    assert "25 episodes, 50 steps, mean return 0.4" in text
    mixed = read_dataset("g/mixed-v0")
    assert sorted(mixed.returns.tolist()) == [0.0] * 15 + [1.0] * 10 != mixed.returns.tolist()
    said(capsys, "data", "split", "g/mixed-v0", "--fraction", 0.8, "--into", "g/train-v0", "g/test-v0")
    parts = [read_dataset(name) for name in ("g/train-v0", "g/test-v0")]
    assert [part.num_episodes for part in parts] == [20, 5]
    assert sum(float(part.returns.sum()) for part in parts) == 10
    for words, message in (
        (["mix", "g/good-v0", "--into", "g/bad-v0"], "g/bad-v0 exists already"),
        (["mix", "g/good-v0", "g/bad-v0", "--fractions", 1, "--into", "g/x-v0"], "--fractions: got 1; wanted one"),
        (["mix", "g/good-v0", "--fractions", 1.5, "--into", "g/x-v0"], "fraction"),
        (["split", "g/good-v0", "--fraction", 0.01, "--into", "g/x-v0", "g/y-v0"], "at least one episode on each side"),
        (["split", "g/good-v0", "--into", "g/x-v0", "g/x-v0"], "--into: got g/x-v0 twice; wanted two names"),
        (["g/none-v0"], "g/none-v0: not found"),
        (["g/good-v0", "--plot", "/nowhere/x.png"], "--plot: /nowhere/x.png cannot be written"),
    ):  # fmt: skip
        assert message in said(capsys, "data", *words, status=2), words


def test_the_summary_says_what_the_dataset_holds(capsys, tmp_path):
    graded(10, 1.0, "g/good-v0")
    graded(30, 0.0, "g/bad-v0")
    said(capsys, "data", "mix", "g/good-v0", "g/bad-v0", "--into", "g/mixed-v0")
    text = said(capsys, "data", "g/mixed-v0", "--json", tmp_path / "data.json", "--plot", tmp_path / "data.png")
    figures = json.loads((tmp_path / "data.json").read_text())
    assert (figures["episodes"], figures["steps"], figures["terminated"], figures["truncated"]) == (40, 80, 40, 0)
    assert figures["return"]["mean"] == 0.25 and figures["return"]["std"] == pytest.approx(np.sqrt(0.25 * 0.75))
    assert [figures["return"][level] for level in ("lowest", "median", "75%", "90%", "highest")] == [0, 0, 0.25, 1, 1]
    assert figures["length"]["mean"] == 2 and figures["length"]["std"] == 0
    assert figures["actions"] == {"fraction": [1, 0, 0], "perplexity": 1}
    assert figures["coverage"] == {"distinct": 3, "of": 4, "occupied": 0.75}
    assert (figures["log_prob"], figures["mask"], figures["seeds"]) == (False, False, 40)
    for line in ("g/mixed-v0: 40 episodes, 80 steps", "40 terminated, 0 truncated", "coverage: 3 of 4 observations"):
        assert line in text
    assert Image.open(tmp_path / "data.png").width > 1000


def test_the_summary_of_continuous_actions_and_of_choices():
    from gymnasium import spaces

    box = spaces.Box(-1, 1, (2,))
    obs = np.random.default_rng(0).uniform(-1, 1, (1001, 2)).astype(np.float32)
    action = np.where(np.arange(1000)[:, None] % 4 == 0, 1.0, [0.0, -0.5])
    data = Dataset.from_episodes([Episode(obs, action, np.ones(1000))], box, box)
    figures = summarise(data)
    assert figures["actions"]["mean"] == pytest.approx([0.25, -0.125])
    assert figures["actions"]["at_bound"] == pytest.approx([0.25, 0.25])
    assert 0.5 < figures["coverage"]["occupied"] <= 1 and figures["coverage"]["distinct"] == 1001
    assert figures["coverage"]["explained"] == pytest.approx(1.0)
    assert "action 0: mean 0.25, std 0.433, 25.0% at a bound" in describe(figures)
    line = Dataset.from_episodes([Episode(np.repeat(obs[:, :1], 2, 1), action, np.ones(1000))], box, box)
    assert summarise(line)["coverage"]["occupied"] < 0.1  # on a line
    choices = spaces.MultiDiscrete([2, 3])
    pairs = np.stack([np.arange(6) % 2, np.zeros(6, int)], 1)
    found = summarise(Dataset.from_episodes([Episode(obs[:7], pairs, np.ones(6))], box, choices))
    assert found["actions"]["perplexity"] == pytest.approx([2, 1])
    assert found["actions"]["fraction"] == [[0.5, 0.5], [1, 0, 0]]
