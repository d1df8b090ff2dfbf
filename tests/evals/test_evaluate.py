"""Evaluation of a run: the agent of its newest checkpoint, a fair mean, and the registry of reproductions."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy import stats
from stable_baselines3 import PPO

from mlbits import make_game, make_sb3
from mlbits.agents.agent import AgentError
from mlbits.agents.sb3.agent import load_sb3
from mlbits.envs.core.errors import GameError, UnknownIdError
from mlbits.evals import EVALS, EvalEntry, eval_entry, register_eval
from mlbits.evals.evaluate import evaluate_model, evaluate_run, load_agent
from mlbits.selfplay.episodes import play_episodes
from mlbits.selfplay.runs.config import ConfigError, resolve
from mlbits.selfplay.training import train

ENV = {"map": "S.G/...", "slip": 0.5, "horizon": 30}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    settings = resolve(
        "ppo", "mlbits/GridWorld-v0", preset="none", env_settings=ENV,
        run={"total_steps": 256, "num_envs": 8, "checkpoint_every": 128, "video": False},
        agent_settings={"num_steps": 16, "hidden": [8]},
    )  # fmt: skip
    return train(settings, tmp_path_factory.mktemp("runs") / "run", console=False)[0]


def test_the_agent_is_that_of_the_newest_checkpoint(run):
    agent, settings, state = load_agent(run)
    wanted = load_file(run / "checkpoints" / "step-000000000256" / "weights.safetensors")
    assert all(torch.equal(value, wanted[name]) for name, value in agent.state_dict().items())
    assert (settings.env, settings.env_settings, state["env_steps"]) == ("mlbits/GridWorld-v0", ENV, 256)


@pytest.mark.parametrize("greedy", [True, False])
def test_the_mean_and_interval_are_those_of_the_episodes(run, greedy):
    result = evaluate_run(run, 40, seed=5, greedy=greedy)
    played = play_episodes(load_agent(run)[0], "mlbits/GridWorld-v0", 40, seed=5, settings=ENV, greedy=greedy)
    returns = played.returns[:, 0]
    assert np.ptp(returns) > 0
    assert result["return_mean"] == pytest.approx(returns.mean())
    wanted = stats.t.interval(0.95, 39, loc=returns.mean(), scale=stats.sem(returns))
    assert result["return_interval"] == pytest.approx(wanted)
    assert result["length_mean"] == pytest.approx(played.lengths.mean())
    assert (result["episodes"], result["env_steps"], result["passed_over"]) == (40, 256, [])


def test_a_run_can_be_evaluated_with_other_settings_of_the_same_spaces(run):
    result = evaluate_run(run, 40, seed=5, env_settings={"slip": 0.0, "step_cost": 5.0, "horizon": 1})
    agent = load_agent(run)[0]
    settings = {**ENV, "slip": 0.0, "step_cost": 5.0, "horizon": 1}
    played = play_episodes(agent, "mlbits/GridWorld-v0", 40, seed=5, settings=settings, greedy=True)
    assert result["return_mean"] == pytest.approx(played.returns.mean()) == pytest.approx(-5.0)
    with pytest.raises(ConfigError, match=r"env_settings: the observation space becomes .*8.*; wanted Discrete\(6\)"):
        evaluate_run(run, 2, env_settings={"map": "S.G./...."})


def test_every_reproduction_can_be_loaded():
    for name, entry in EVALS.items():
        assert callable(eval_entry(name).load())
        assert entry.summary
    with pytest.raises(UnknownIdError, match="unknown evaluation 'gridworl'; did you mean 'gridworld'"):
        eval_entry("gridworl")


def test_a_custom_reproduction_can_be_registered(monkeypatch):
    monkeypatch.setattr("mlbits.evals.registry.EVALS", EVALS.copy())
    register_eval("mine", EvalEntry("mlbits.evals.reproductions.gridworld:reproduce", "a copy"))
    assert eval_entry("mine").summary == "a copy"
    with pytest.raises(GameError, match=r"^name: the evaluation 'classic' is already registered"):
        register_eval("classic", EvalEntry("mlbits.evals.reproductions.gridworld:reproduce", "another"))


def test_a_stable_baselines_model_is_evaluated_like_a_run(tmp_path):
    game = make_game("mlbits/GridWorld-v0", **ENV)
    envs = make_sb3("mlbits/GridWorld-v0", 2, seed=0, **ENV)
    PPO("MlpPolicy", envs, n_steps=16, batch_size=16, seed=0, device="cpu").learn(64).save(tmp_path / "model.zip")
    result = evaluate_model(tmp_path / "model.zip", "mlbits/GridWorld-v0", 40, seed=5, greedy=False, env_settings=ENV)
    agent = load_sb3(tmp_path / "model.zip", game.observation_space, game.action_space)
    played = play_episodes(agent, "mlbits/GridWorld-v0", 40, seed=5, settings=ENV, greedy=False)
    assert np.ptp(played.returns) > 0
    assert result["return_mean"] == pytest.approx(played.returns.mean())
    assert result["length_mean"] == pytest.approx(played.lengths.mean())
    assert (result["episodes"], result["env_steps"], result["passed_over"]) == (40, 64, [])
    with pytest.raises(AgentError, match=r"observation_space: got Discrete.*; the model was trained on Discrete"):
        evaluate_model(tmp_path / "model.zip", "mlbits/GridWorld-v0", 2)  # another map has other cells
    with pytest.raises(ConfigError, match="episodes: got 0"):
        evaluate_model(tmp_path / "model.zip", "mlbits/GridWorld-v0", 0, env_settings=ENV)
