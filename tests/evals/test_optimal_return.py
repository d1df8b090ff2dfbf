"""Optimal and random returns as references, their use in `mlbits eval`, and `mlbits solve`."""

import json
import math

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import mlbits
from mlbits.agents.bots.random_bot import RandomAgent
from mlbits.cli import main
from mlbits.envs.doors.gymnasium_batch import open_batch
from mlbits.evals.evaluate import evaluate_run
from mlbits.evals.optimal_return import ReferenceReturns, reference_returns
from mlbits.evals.solve import solve
from mlbits.evals.training_probes import during_training
from mlbits.selfplay.episodes import play_episodes
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.training import train
from tests.games import register_test_games

register_test_games()


@pytest.mark.parametrize(
    ("env", "settings", "optimum"),
    [
        ("mlbits/GridWorld-v0", {}, 0.87),
        ("mlbits/CliffWalk-v0", {}, -13.0),
        ("mlbits/DelayedChain-v0", {"noisy": True}, 1.0),
        ("mlbits/Knapsack-v0", {"items": 5}, None),
        ("FrozenLake-v1", {}, 0.7442),
    ],
)
def test_the_random_return_is_the_mean_of_random_play(env, settings, optimum):
    found = reference_returns(env, settings)
    if optimum is not None:
        assert found.optimum == pytest.approx(optimum, abs=1e-4)
    batch = open_batch(env, 1, settings=settings)
    agent = RandomAgent(batch.observation_space, batch.action_space)
    played = play_episodes(agent, env, 2000, seed=1, settings=settings).returns[:, 0]
    assert abs(played.mean() - found.random) < 5 * played.std() / math.sqrt(len(played))
    assert played.mean() < found.optimum
    assert found.all_starts


def test_a_score_is_a_position_between_random_and_best():
    found = ReferenceReturns(optimum=-13.0, random=-2000.0, all_starts=True)
    assert (found.score(-13.0), found.score(-2000.0)) == (1.0, 0.0)
    assert found.score(-17.0) == pytest.approx(1 - 4 / 1987)
    assert found.score(-4000.0) < -1
    assert ReferenceReturns(optimum=1.0, random=1.0, all_starts=True).score(1.0) is None
    alike = reference_returns("test/Solitaire-v0")  # a single player always takes the last stone
    assert (alike.optimum, alike.random) == (pytest.approx(1.0), pytest.approx(1.0))
    assert alike.score(1.0) is None


def test_with_too_many_starts_the_played_ones_are_used():
    env = "mlbits/RandomGridWorld-v0"
    game = mlbits.make_game(env)
    played = play_episodes(RandomAgent(game.observation_space, game.action_space), env, 50, seed=4)
    found = reference_returns(env, None, played.starts)
    assert not found.all_starts
    assert found.optimum == pytest.approx(np.mean(1 - 0.01 * (played.starts["shortest"] - 1.0)), abs=1e-6)
    assert reference_returns(env) is None


@pytest.mark.parametrize(
    ("env", "settings"),
    [
        ("mlbits/CartPole-v0", {}),
        ("mlbits/Pendulum-v0", {}),
        ("test/Nim-v0", {}),
        ("mlbits/Knapsack-v0", {"items": 18}),
        ("CartPole-v1", {}),
    ],
)
def test_no_reference_where_it_cannot_be_computed(env, settings):
    starts = mlbits.make_batch(env, 20, **settings).records() if env in mlbits.registered() else None
    assert reference_returns(env, settings, starts) is None


def test_no_reference_where_state_is_hidden():
    """The best arm is not observable if the means are random; a chain's noise hides nothing relevant."""
    starts = mlbits.make_batch("mlbits/Bandit-v0", 20, means="random").records()
    assert reference_returns("mlbits/Bandit-v0", {"means": "random"}, starts) is None
    assert reference_returns("mlbits/Bandit-v0").optimum == pytest.approx(151.467, abs=1e-3)
    assert reference_returns("mlbits/DelayedChain-v0", {"observation": "distraction"}).optimum == 1.0


# mlbits eval


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on a slippery map, with an evaluation half way."""
    settings = resolve(
        "q-learning", "mlbits/GridWorld-v0", preset="none", env_settings={"map": "S.G/...", "slip": 0.5, "horizon": 30},
        run={"total_steps": 256, "num_envs": 8, "eval_every": 128, "eval_episodes": 2, "device": "cpu"},
        agent_settings={"discount": 0.9},
    )  # fmt: skip
    return train(settings, tmp_path_factory.mktemp("runs") / "run", console=False, measure=during_training)[0]


def images(folder):
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    return {name: [event.step for event in events.Images(name)] for name in events.Tags()["images"]}


def test_training_draws_the_learned_policy_and_once_the_exact_one(run):
    drawn = images(run)
    assert drawn["view/policy_learned"] == [128, 256]
    assert drawn["view/policy_exact"] == [128]


def test_evaluation_prints_the_optimum_and_draws(run, capsys, tmp_path):
    file = tmp_path / "result.json"
    before = len(list(run.glob("events*")))
    assert main(["eval", str(run), "--episodes", "20", "--json", str(file)]) == 0
    said = capsys.readouterr().out
    result = json.loads(file.read_text())
    found = reference_returns("mlbits/GridWorld-v0", {"map": "S.G/...", "slip": 0.5, "horizon": 30})
    assert (result["optimum"], result["random_return"]) == (found.optimum, found.random)
    assert result["score"] == pytest.approx(found.score(result["return_mean"]))
    assert result["share_of_optimum"] == pytest.approx(result["return_mean"] / found.optimum)
    assert result["optimum_of"] == "all starts"
    assert f"exact optimum {found.optimum:.4g} over all starts" in said
    assert "(0 is random play, 1 the best)" in said
    assert len(list(run.glob("events*"))) == before + 1
    assert images(run)["view/policy_learned"][-1] == 256


def test_a_read_only_run_can_be_evaluated(run, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter", refuse)
    assert evaluate_run(run, 2)["episodes"] == 2


def test_a_negative_optimum_has_a_score_and_no_fraction(tmp_path, capsys):
    settings = resolve(
        "q-learning", "mlbits/CliffWalk-v0", preset="none", env_settings={"horizon": 20},
        run={"total_steps": 64, "num_envs": 8, "eval_episodes": 1, "video": False, "device": "cpu"},
    )  # fmt: skip
    folder, _ = train(settings, tmp_path / "run", console=False)
    assert images(folder) == {}
    assert main(["eval", str(folder), "--episodes", "3"]) == 0
    assert "exact optimum -13 over all starts; random play -" in capsys.readouterr().out
    assert evaluate_run(folder, 3)["share_of_optimum"] is None


# mlbits solve


def test_solve_prints_its_results(tmp_path, capsys):
    file, picture = tmp_path / "solved.json", tmp_path / "map.png"
    words = ["solve", "mlbits/GridWorld-v0", "--env.map", "S..G", "--discount", "0.5", "--json", str(file)]
    assert main([*words, "--picture", str(picture)]) == 0
    said, result = capsys.readouterr().out, json.loads(file.read_text())
    assert (result["states"], result["actions"], result["starts"], result["horizon"]) == (3, 4, 1, 100)
    assert result["optimum"] == pytest.approx(0.98)
    assert result["value"] == pytest.approx(-0.01 - 0.005 + 0.25)
    assert result["value_iteration"]["bound"] < 1e-8
    assert result["policy_iteration"]["difference"] < 1e-8
    assert "3 states, 4 actions, 1 start, a time limit of 100 steps" in said
    assert "best play 0.98, random play" in said
    with Image.open(picture) as image:
        assert image.size == (4 * 48 + 1, 48 + 1)
    undiscounted = solve("mlbits/DeepSea-v0", discount=1.0)
    assert undiscounted["value"] == pytest.approx(0.99)
    assert undiscounted["policy_iteration"] is None
    assert undiscounted["value_iteration"]["bound"] is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "solve: ENV missing; wanted mlbits solve ENV"),
        (["mlbits/Gridwrld-v0"], "unknown environment 'mlbits/Gridwrld-v0'; did you mean 'mlbits/GridWorld-v0'?"),
        (["mlbits/CartPole-v0"], "CartPole: reset draws the field 'x' of the state from a continuum"),
        (["mlbits/GridWorld-v0", "--state-limit", "10"], "GridWorld: got more than 10 states within"),
        (["mlbits/GridWorld-v0", "--discount", "2"], "discount: got 2.0; wanted a number from 0 to 1"),
        (["mlbits/GridWorld-v0", "--discont", "0.5"], "did you mean --discount?"),
        (
            ["mlbits/Knapsack-v0", "--picture", "x.png"],
            "picture: mlbits/Knapsack-v0 has no map to draw; wanted a gridworld",
        ),
        (
            ["mlbits/GridWorld-v0", "--env.map", "S.G", "--picture", "/nowhere/x.png"],
            "picture: /nowhere/x.png cannot be",
        ),
        (["mlbits/GridWorld-v0", "--env.slip", "2"], "slip: got 2.0"),
    ],
)
def test_unsolvable_environments_are_refused_in_one_line(words, message, capsys):
    assert main(["solve", *words]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert message in said
