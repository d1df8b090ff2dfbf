"""``mlbits.load``: an agent from each thing that holds one, which acts as evaluation lets it act."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pettingzoo
import pytest
import torch

import mlbits
from mlbits.agents import agent_entry
from mlbits.envs.core.errors import MlbitsError, UnknownIdError
from mlbits.selfplay.episodes import play_episodes
from mlbits.selfplay.policy import Policy, PolicyError
from mlbits.selfplay.runs.checkpoints import CheckpointError
from mlbits.selfplay.runs.config import ConfigError, resolve
from mlbits.selfplay.runs.folder import RunError
from mlbits.selfplay.runs.saved_agents import copy_bytes
from mlbits.selfplay.training import train

TTT = "mlbits/TicTacToe-v0"


def tiny(out: Path, agent: str, env: str, env_settings: Any = None, **settings: Any) -> Path:
    run = {"total_steps": 16, "num_envs": 2, "eval_every": 0, "eval_episodes": 1, "video": False}
    agent_settings = {"num_steps": 8, "hidden": (8,), **settings}
    given = resolve(agent, env, preset="none", run=run, agent_settings=agent_settings, env_settings=env_settings)
    return train(given, out, console=False)[0]


@pytest.fixture(scope="module")
def pole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny(tmp_path_factory.mktemp("pole") / "run", "ppo", "CartPole-v1")


def test_a_run_plays_the_episodes_of_its_evaluation(pole: Path) -> None:
    policy = mlbits.load(pole)
    env, total = policy.make_env(), 0.0
    obs, _ = env.reset(seed=3)
    ended = False
    while not ended:
        obs, reward, terminated, truncated, _ = env.step(policy.predict(obs))
        total, ended = total + float(reward), terminated or truncated
    played = play_episodes(policy.agent, "CartPole-v1", 1, seed=3)
    assert total == played.returns[0, 0] > 1


def test_vector_environments_and_draws(pole: Path) -> None:
    policy = mlbits.load(pole, seed=1)
    envs = gym.make_vec("CartPole-v1", num_envs=5)
    obs, _ = envs.reset(seed=0)
    assert policy.predict(obs).shape == (5,)
    drawn = [policy.predict(obs, greedy=False).tolist() for _ in range(20)]
    assert len({tuple(row) for row in drawn}) > 1
    policy.seed(1)
    assert drawn == [policy.predict(obs, greedy=False).tolist() for _ in range(20)]
    again = mlbits.load(pole, seed=1)
    assert drawn[0] == again.predict(obs, greedy=False).tolist()


def test_details_are_the_agents_own(pole: Path) -> None:
    policy = mlbits.load(pole)
    obs = np.array([[0.1, 0.0, 0.02, 0.0], [0.0, 0.3, -0.02, 0.1]])
    one, both = policy.predict(obs[0], details=True), policy.predict(obs, greedy=False, details=True)
    rows = torch.from_numpy(obs).float()
    probabilities = policy.agent.action_probabilities(rows, None).numpy()
    assert both.probabilities == pytest.approx(probabilities)
    assert both.value == pytest.approx(policy.agent.state_values(rows).detach().numpy())
    assert both.log_prob == pytest.approx(np.log(probabilities[[0, 1], both.action]), abs=1e-6)
    assert one.value == pytest.approx(both.value[0])
    assert one.probabilities.tolist() == [float(k == one.action) for k in range(2)]  # the greedy policy's


def test_one_checkpoint_by_its_folder(pole: Path) -> None:
    newest = max((pole / "checkpoints").glob("step-*"))
    assert mlbits.load(newest).steps == mlbits.load(str(pole), checkpoint=16).steps == 16
    with pytest.raises(CheckpointError, match=r"checkpoint: got 'newest'; wanted one of 'latest', 'best', 16"):
        mlbits.load(pole, checkpoint="newest")


def test_a_model_of_stable_baselines(tmp_path: Path) -> None:
    sb3 = pytest.importorskip("stable_baselines3")
    model = sb3.PPO("MlpPolicy", "CartPole-v1", n_steps=16, batch_size=16, seed=0, device="cpu")
    model.save(tmp_path / "model.zip")
    obs = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    wanted = model.predict(obs, deterministic=True)[0]
    for policy in (mlbits.load(tmp_path / "model.zip"), mlbits.load(tmp_path / "model.zip", "CartPole-v1")):
        assert policy.predict(obs).tolist() == wanted.tolist()
        assert policy.predict(obs[0]) == wanted[0]
    with pytest.raises(PolicyError, match=r"env: not known; wanted mlbits.load\(MODEL, env=ID\)"):
        mlbits.load(tmp_path / "model.zip").make_env()
    with pytest.raises(MlbitsError, match="the model was trained on"):
        mlbits.load(tmp_path / "model.zip", "Pendulum-v1")


def test_a_bot_and_a_frozen_copy_play_in_pettingzoo(tmp_path: Path) -> None:
    settings = resolve("ppo", TTT, preset="none", agent_settings={"hidden": (8,)})
    game = mlbits.make_game(TTT)
    spaces = game.observation_space, game.action_space
    agent = agent_entry("ppo").make(settings.agent_config, *spaces, seed=0, device="cpu")
    (tmp_path / "copy.safetensors").write_bytes(copy_bytes(agent, settings, {}))
    players: dict[str, Policy] = {
        "player_0": mlbits.load(tmp_path / "copy.safetensors"),
        "player_1": mlbits.load("random", env=TTT, seed=4),
    }
    for kind in ("aec", "parallel"):
        env: Any = players["player_0"].make_env(kind)
        if kind == "aec":
            env.reset(seed=0)
            for name in env.agent_iter(30):
                obs, _, terminated, truncated, _ = env.last()
                action = None if terminated or truncated else players[name].predict(obs, agent=name, greedy=False)
                env.step(action)
        else:
            seen, _ = env.reset(seed=0)
            while env.agents:
                actions = {name: players[name].predict(seen[name], agent=name) for name in env.agents}
                seen, _, _, _, _ = env.step(actions)
        assert not env.agents  # a whole game, in which no action was illegal
    with pytest.raises(PolicyError, match=r"kind: got '' for mlbits/TicTacToe-v0; wanted 'aec' or 'parallel'"):
        players["player_0"].make_env()
    with pytest.raises(PolicyError, match=r"action_mask: missing; mlbits/TicTacToe-v0 has illegal actions"):
        players["player_0"].predict(np.zeros(spaces[0].shape, spaces[0].dtype))


def test_an_agent_that_plans_takes_the_environment() -> None:
    env: Any = pettingzoo.make("aec", TTT)
    env.reset(seed=0)
    for move in (0, 3, 1, 4):  # the first player completes the upper row with 2; the second threatens 5
        env.step(move)
    planner = mlbits.load("mcts@simulations=200", env=TTT, seed=0)
    assert planner.predict(env, agent="player_0") == 2
    env.step(8)
    assert planner.predict(env, agent="player_1") == 5
    for wrong in (np.zeros(3), gym.make("CartPole-v1"), pettingzoo.make("aec", "mlbits/ConnectFour-v0")):
        with pytest.raises(
            PolicyError, match=r"plans by the rules of mlbits/TicTacToe-v0: wanted the environment itself"
        ):
            planner.predict(wrong)
    with pytest.raises(PolicyError, match=r"details: got True; wanted False"):
        planner.predict(env, details=True)


def test_other_forms_of_spaces_act_in_their_environment() -> None:
    """An environment whose spaces agents know converted: its own observations go in, its own actions come out."""
    gym.register("test/Odd-v0", entry_point=Odd)
    try:
        policy = mlbits.load("random", env="test/Odd-v0", seed=0)
        env = policy.make_env()
        obs, _ = env.reset(seed=0)
        for _ in range(5):
            obs, *_ = env.step(policy.predict(obs, greedy=False))
    finally:
        del gym.registry["test/Odd-v0"]


class Odd(gym.Env[Any, Any]):
    observation_space = gym.spaces.Tuple([gym.spaces.Discrete(3, start=1), gym.spaces.Box(-1, 1, (2,), np.float64)])
    action_space = gym.spaces.MultiDiscrete([[2, 3]], start=[[1, 5]])

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), action
        return self.observation_space.sample(), 0.0, False, False, {}


def test_what_cannot_be_loaded_is_named(pole: Path, tmp_path: Path) -> None:
    for source, env, kind, said in (
        (tmp_path, None, RunError, r"no run here"),
        ("radnom", TTT, UnknownIdError, r"source: unknown player .* 'radnom'; did you mean 'random'"),
        ("random", None, ConfigError, r"env: got None; wanted an environment's id"),
        ("ppo", TTT, MlbitsError, r"source: got ppo; wanted the folder of a run"),
        (None, None, ConfigError, r"source: got None; wanted a run, a path, or a bot's name"),
        ("ppo", None, ConfigError, r"source: got ppo; wanted the folder of a run, as it is an agent that has to be"),
        (
            pole,
            "Pendulum-v1",
            ConfigError,
            r"env: got Pendulum-v1; .* was trained in CartPole-v1: wanted that, or none",
        ),
        (tmp_path / "none.zip", None, MlbitsError, r"none.zip"),
        (tmp_path / "none.safetensors", None, MlbitsError, r"not found"),
    ):
        with pytest.raises(kind, match=said):
            mlbits.load(source, env)
    with pytest.raises(ConfigError, match=r"vec_normalize: got x.pkl with .*; wanted it with MODEL.zip alone"):
        mlbits.load(pole, vec_normalize="x.pkl")


def test_settings_that_change_the_spaces_are_refused(tmp_path: Path) -> None:
    folder = tiny(tmp_path / "run", "ppo", "mlbits/GridWorld-v0", {"map": "S.G"})
    slippery = mlbits.load(folder, env_settings={"slip": 0.5})
    assert slippery.env_settings == {"map": "S.G", "slip": 0.5}
    assert slippery.make_env(render_mode="rgb_array").render_mode == "rgb_array"
    with pytest.raises(ConfigError, match=r"env_settings: got {'map': 'S..G'}, which change the spaces"):
        mlbits.load(folder, env_settings={"map": "S..G"})
