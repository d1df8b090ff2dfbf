"""Gymnasium's own environments through the batch's face: the same play, step for step."""

import re
from typing import ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from mlbits.agents.agent import Decision
from mlbits.agents.random_agent import RandomAgent
from mlbits.envs.core.batch import GameBatch
from mlbits.envs.core.errors import GameError, IllegalActionError, UnknownIdError
from mlbits.envs.core.wrapped import GymnasiumBatch, check_env_id, open_batch, reward_threshold
from mlbits.selfplay.config import resolve
from mlbits.selfplay.loop import train
from mlbits.selfplay.play import play_episodes


@pytest.mark.parametrize(("env_id", "settings", "steps"), [("CartPole-v1", {}, 120), ("Pendulum-v1", {"g": 9.0}, 420)])
def test_the_same_play_as_gymnasiums_own_vector(env_id, settings, steps):
    batch = open_batch(env_id, 3, seed=11, settings=settings)
    mode = {"autoreset_mode": AutoresetMode.SAME_STEP}
    envs = gym.make_vec(env_id, 3, vectorization_mode="sync", vector_kwargs=mode, **settings)
    obs, _ = envs.reset(seed=11)
    draw, ends = np.random.default_rng(0), 0
    for _ in range(steps):
        assert batch.obs.shape == (3, 1, *envs.single_observation_space.shape)
        assert torch.equal(batch.obs[:, 0], torch.from_numpy(obs).float())
        if isinstance(envs.single_action_space, spaces.Discrete):
            action = draw.integers(0, 2, 3)
        else:
            action = draw.uniform(-2, 2, (3, 1)).astype(np.float32)
        step = batch.step(torch.from_numpy(action)[:, None])
        obs, reward, terminated, truncated, info = envs.step(action)
        assert torch.equal(step.reward[:, 0], torch.from_numpy(reward).float())
        assert step.terminated.tolist() == terminated.tolist()
        assert step.truncated.tolist() == truncated.tolist()
        for b in np.flatnonzero(terminated | truncated):
            ends += 1
            assert torch.equal(step.final_obs[b, 0], torch.from_numpy(info["final_obs"][b]).float())
            assert not torch.equal(step.final_obs[b, 0], step.obs[b, 0])
    assert ends >= 6
    envs.close()
    batch.close()


def test_it_has_the_face_of_a_batch():
    batch = open_batch("CartPole-v1", 4)
    assert (batch.num_envs, batch.num_seats, batch.legal_mask, batch.active) == (4, 1, None, None)
    assert batch.horizon == 500
    assert not batch.can_save_state
    assert batch.sample_actions().shape == (4, 1)
    assert isinstance(open_batch("mlbits/CartPole-v0", 4), GameBatch)
    assert isinstance(batch, GymnasiumBatch)


def test_the_seed_decides_and_a_reset_with_it_starts_over():
    one, two, other = (open_batch("CartPole-v1", 2, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(one.obs, two.obs)
    assert not torch.equal(one.obs, other.obs)
    first = one.obs.clone()
    one.step(torch.zeros(2, 1, dtype=torch.int64))
    assert torch.equal(one.reset(seed=3), first)
    assert not torch.equal(one.reset(), first)


@pytest.mark.parametrize("shape", [(2,), (2, 2), (3, 1)])
def test_actions_of_a_wrong_shape_are_refused(shape):
    with pytest.raises(IllegalActionError, match=rf"actions: got \({shape[0]}.*; wanted \(2, 1\)"):
        open_batch("CartPole-v1", 2).step(torch.zeros(shape, dtype=torch.int64))


def test_what_gymnasium_does_not_know_is_refused_with_the_nearest_id():
    with pytest.raises(UnknownIdError, match=r"unknown environment 'CartPol-v1'; did you mean '.*CartPole-v1'"):
        open_batch("CartPol-v1", 1)
    with pytest.raises(UnknownIdError, match="did you mean 'mlbits/FourRooms-v0'"):
        check_env_id("mlbits/FourRoom-v0")


def test_settings_that_it_does_not_take_are_refused_in_one_line():
    with pytest.raises(GameError, match=r"^CartPole-v1: .*unexpected keyword argument 'gravity'[^\n]*$"):
        open_batch("CartPole-v1", 1, settings={"gravity": 3})
    with pytest.raises(GameError, match="num_envs: got 0; wanted an integer from 1"):
        open_batch("CartPole-v1", 0)


def test_thresholds_are_gymnasiums():
    assert reward_threshold("CartPole-v1") == 475
    assert reward_threshold("mlbits/CartPole-v0") == 475
    assert reward_threshold("Pendulum-v1") is None
    assert reward_threshold("none/such-v0") is None


@pytest.mark.parametrize(("limit", "horizon"), [(20, 20), (-1, None)])
def test_a_time_limit_given_as_a_setting_is_the_one_that_counts(limit, horizon):
    batch = open_batch("Pendulum-v1", 1, settings={"max_episode_steps": limit})
    assert batch.horizon == horizon
    agent = RandomAgent(batch.observation_space, batch.action_space)
    played = play_episodes(agent, "Pendulum-v1", 2, seed=0, settings={"max_episode_steps": limit}, max_steps=300)
    assert played.lengths.tolist() == [horizon or 300] * 2
    assert played.cut == (0 if horizon else 2)


class Tool(gym.Env):
    """An environment of Dict observations that draws, fails to draw, or draws nothing."""

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 4}

    def __init__(self, drawing="well", render_mode=None):
        self.observation_space = spaces.Dict({"n": spaces.Discrete(5), "v": spaces.Box(-9, 9, (2,), np.float32)})
        self.action_space = spaces.Discrete(2)
        self.render_mode, self.drawing = render_mode, drawing

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self._look(), {}

    def step(self, action):
        self.count += 1
        return self._look(), float(action), self.count == 3, False, {}

    def _look(self):
        return {"n": np.int64(self.count), "v": np.full(2, self.count, np.float32)}

    def render(self):
        if self.drawing == "uninstalled":
            raise gym.error.DependencyNotInstalled("pencil is not installed, run `pip install pencil`")
        return np.full((4, 6, 3), 40 * self.count, np.uint8) if self.drawing == "well" else None


class Dumb(Tool):
    """One that has never heard of drawing."""

    def __init__(self):
        super().__init__()


@pytest.fixture(scope="module", autouse=True)
def registered_tools():
    gym.register("tests/Tool-v0", Tool)
    gym.register("tests/Dumb-v0", Dumb)
    yield
    for name in ("tests/Tool-v0", "tests/Dumb-v0"):
        gym.registry.pop(name)


def test_dict_observations_keep_their_final_ones():
    batch = open_batch("tests/Tool-v0", 2)
    for count in range(1, 4):
        step = batch.step(torch.ones(2, 1, dtype=torch.int64))
        assert step.obs["n"].shape == (2, 1)
        assert step.obs["v"].shape == (2, 1, 2)
        assert step.obs["n"].flatten().tolist() == [count % 3] * 2
    assert step.terminated.all()
    assert step.final_obs["n"].flatten().tolist() == [3, 3]
    assert step.final_obs["v"].flatten().tolist() == [3.0] * 4


class Ones:
    def act(self, obs, legal_mask, generator, *, greedy=False):
        action = torch.ones(len(obs["n"]), dtype=torch.int64)
        return Decision(action, action, torch.zeros(len(action)))


def test_only_the_first_copy_is_drawn():
    played = play_episodes(Ones(), "tests/Tool-v0", 3, seed=0, max_frames=10)
    assert [int(frame[0, 0, 0]) for frame in played.frames] == [0, 40, 80]
    assert played.undrawn is None
    assert played.returns.tolist() == [[3.0]] * 3


@pytest.mark.filterwarnings("ignore:.*RGB-array rendering:UserWarning")
@pytest.mark.parametrize(
    ("env", "settings", "why"),
    [
        ("tests/Tool-v0", {"drawing": "uninstalled"}, "cannot be drawn .*pip install pencil"),
        ("tests/Tool-v0", {"drawing": "nothing"}, "draws no pictures"),
        ("tests/Dumb-v0", {}, "render_mode"),
    ],
)
def test_what_cannot_be_drawn_is_played_all_the_same(env, settings, why, tmp_path, capsys):
    played = play_episodes(Ones(), env, 2, seed=0, max_frames=10, settings=settings)
    assert played.frames == []
    assert re.search(why, played.undrawn)
    assert played.lengths.tolist() == [3, 3]
    run = {"total_steps": 64, "num_envs": 4, "eval_every": 32, "eval_episodes": 2}
    chosen = resolve(
        "ppo", env, run=run, agent_settings={"num_steps": 8, "hidden": [8], "minibatches": 1}, env_settings=settings
    )
    train(chosen, tmp_path / "run")
    said = capsys.readouterr().out
    assert re.search(f"no pictures: .*{why}", said)
    assert said.count("no pictures: ") == 1
