"""Gymnasium's own environments as batches: the same trajectories, step for step."""

import re
from importlib.util import find_spec
from typing import ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from mlbits.agents.agent import Decision
from mlbits.agents.bots.random_bot import RandomAgent
from mlbits.envs.core.errors import GameError, IllegalActionError, UnknownIdError
from mlbits.envs.doors.gymnasium_batch import GymnasiumBatch, check_env_id, device_for, open_batch, reward_threshold
from mlbits.envs.engine.batch import GameBatch
from mlbits.evals.benchmarks.stand_in_gpu import stand_in_gpu
from mlbits.evals.evaluate import evaluate_run
from mlbits.selfplay.episodes import play_episodes
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.training import train

needs_box2d = pytest.mark.skipif(find_spec("Box2D") is None, reason="Box2D has no wheel for this Python and platform")


def drawn(space, count, draw):
    if isinstance(space, spaces.Discrete):
        return draw.integers(0, space.n, count)
    return draw.uniform(space.low, space.high, (count, *space.shape)).astype(np.float32)


@pytest.mark.parametrize(
    ("env_id", "settings", "steps"),
    [
        ("CartPole-v1", {}, 120),
        ("Pendulum-v1", {"g": 9.0}, 420),
        pytest.param("LunarLander-v3", {}, 250, marks=needs_box2d),
        pytest.param("LunarLander-v3", {"continuous": True}, 250, marks=needs_box2d),
        ("HalfCheetah-v5", {"max_episode_steps": 20}, 50),
    ],
)
def test_the_same_trajectories_as_gymnasiums_vector_environment(env_id, settings, steps):
    batch = open_batch(env_id, 3, seed=11, settings=settings)
    mode = {"autoreset_mode": AutoresetMode.SAME_STEP}
    envs = gym.make_vec(env_id, 3, vectorization_mode="sync", vector_kwargs=mode, **settings)
    obs, _ = envs.reset(seed=11)
    draw, ends = np.random.default_rng(0), 0
    for _ in range(steps):
        assert batch.obs.shape == (3, 1, *envs.single_observation_space.shape)
        assert torch.equal(batch.obs[:, 0], torch.from_numpy(obs).float())
        action = drawn(envs.single_action_space, 3, draw)
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


@pytest.mark.parametrize("autoreset", ["next_step", "disabled"])
def test_the_other_autoreset_modes_are_gymnasiums_too(autoreset):
    batch = open_batch("CartPole-v1", 3, seed=2, autoreset=autoreset)
    mode = {"autoreset_mode": AutoresetMode.NEXT_STEP if autoreset == "next_step" else AutoresetMode.DISABLED}
    envs = gym.make_vec("CartPole-v1", 3, vectorization_mode="sync", vector_kwargs=mode)
    obs, _ = envs.reset(seed=2)
    draw, over, ends = np.random.default_rng(1), np.zeros(3, bool), 0
    for _ in range(120):
        if autoreset == "disabled" and over.any():
            batch.reset(which=torch.from_numpy(over))
            obs, _ = envs.reset(options={"reset_mask": over.copy()})
            assert not (batch.terminated | batch.truncated).any()
        assert torch.equal(batch.obs[:, 0], torch.from_numpy(obs))
        action = draw.integers(0, 2, 3)
        step = batch.step(torch.from_numpy(action)[:, None])
        obs, reward, terminated, truncated, _ = envs.step(action)
        over = terminated | truncated
        ends += over.sum()
        assert torch.equal(step.reward[:, 0], torch.from_numpy(reward).float())
        assert step.terminated.tolist() == terminated.tolist()
    assert ends >= 6


def test_a_disabled_copy_does_not_change_until_it_is_reset():
    batch = open_batch("CartPole-v1", 2, autoreset="disabled")
    while not batch.terminated.all():
        batch.step(torch.ones(2, 1, dtype=torch.int64))
    before = batch.obs.clone()
    step = batch.step(torch.zeros(2, 1, dtype=torch.int64))
    assert torch.equal(step.obs, before)
    assert not step.reward.any()
    assert step.terminated.all()
    batch.reset(which=torch.tensor([False, True]))
    assert batch.terminated.tolist() == [True, False]
    assert torch.equal(batch.obs[0], before[0])
    assert batch.step(torch.zeros(2, 1, dtype=torch.int64)).reward.flatten().tolist() == [0, 1]


def test_tensors_on_another_device_have_the_same_values():
    """The code path that copies to a GPU, here to the CPU."""
    batch, apart = open_batch("CartPole-v1", 2, seed=1), open_batch("CartPole-v1", 2, seed=1)
    apart._shared = False
    for _ in range(60):
        action = torch.ones(2, 1, dtype=torch.int64)
        apart.obs, apart.final_obs = apart.obs.clone(), apart.final_obs.clone()  # separate memory
        for one, other in zip(batch.step(action), apart.step(action), strict=True):
            assert torch.equal(one, other)
    assert torch.equal(batch.reset(seed=5), apart.reset(seed=5))


def test_float64_observations_become_float32_in_the_space_too():
    batch = open_batch("HalfCheetah-v5", 2)
    assert batch.obs.dtype == torch.float32
    assert batch.observation_space.dtype == np.float32
    assert batch.observation_space.shape == (17,)
    assert np.isinf(batch.observation_space.high).all()
    assert batch.action.low.tolist() == [-1.0] * 6


def test_it_has_the_interface_of_a_batch():
    batch = open_batch("CartPole-v1", 4)
    assert (batch.num_envs, batch.num_seats, batch.legal_mask, batch.active) == (4, 1, None, None)
    assert batch.horizon == 500
    assert not batch.can_save_state
    assert batch.sample_actions().shape == (4, 1)
    assert isinstance(open_batch("mlbits/CartPole-v0", 4), GameBatch)
    assert isinstance(batch, GymnasiumBatch)


def test_a_reset_with_the_seed_repeats_the_trajectory():
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


def test_unknown_ids_are_refused_with_the_nearest_id():
    with pytest.raises(UnknownIdError, match=r"unknown environment 'CartPol-v1'; did you mean '.*CartPole-v1'"):
        open_batch("CartPol-v1", 1)
    with pytest.raises(UnknownIdError, match="did you mean 'mlbits/FourRooms-v0'"):
        check_env_id("mlbits/FourRoom-v0")


def test_unknown_settings_are_refused_in_one_line():
    with pytest.raises(GameError, match=r"^CartPole-v1: .*unexpected keyword argument 'gravity'[^\n]*$"):
        open_batch("CartPole-v1", 1, settings={"gravity": 3})
    with pytest.raises(GameError, match="num_envs: got 0; wanted an integer from 1"):
        open_batch("CartPole-v1", 0)


def test_reward_thresholds_are_gymnasiums():
    assert reward_threshold("CartPole-v1") == 475
    assert reward_threshold("mlbits/CartPole-v0") == 475
    assert reward_threshold("Pendulum-v1") is None
    assert reward_threshold("none/such-v0") is None


@pytest.mark.parametrize(("limit", "horizon"), [(20, 20), (-1, None)])
def test_a_time_limit_given_as_a_setting_is_used(limit, horizon):
    batch = open_batch("Pendulum-v1", 1, settings={"max_episode_steps": limit})
    assert batch.horizon == horizon
    agent = RandomAgent(batch.observation_space, batch.action_space)
    played = play_episodes(agent, "Pendulum-v1", 2, seed=0, settings={"max_episode_steps": limit}, max_steps=300)
    assert played.lengths.tolist() == [horizon or 300] * 2
    assert played.cut == (0 if horizon else 2)


@pytest.mark.parametrize(
    ("env", "settings"),
    [
        pytest.param("LunarLander-v3", {}, marks=needs_box2d),
        pytest.param("LunarLander-v3", {"continuous": True}, marks=needs_box2d),
        ("HalfCheetah-v5", {"max_episode_steps": 30}),
        ("Acrobot-v1", {"max_episode_steps": 30}),
        ("Blackjack-v1", {}),
    ],
)
def test_an_agent_trains_on_it_and_is_evaluated(env, settings, tmp_path):
    run = {"total_steps": 64, "num_envs": 4, "eval_episodes": 2, "video": False, "device": "cpu"}
    agent = {"num_steps": 8, "hidden": [8], "minibatches": 1, "epochs": 1}
    folder, summary = train(
        resolve("ppo", env, preset="none", run=run, agent_settings=agent, env_settings=settings),
        tmp_path / "run",
        console=False,
    )
    assert summary["env_steps"] == 64
    result = evaluate_run(folder, 2, seed=3)
    assert np.isfinite(result["return_mean"])
    assert result == evaluate_run(folder, 2, seed=3)


class Tool(gym.Env):
    """An environment of Dict observations that draws, fails to draw, or draws nothing."""

    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 4}

    def __init__(self, drawing="well", render_mode=None):
        self.observation_space = spaces.Dict({"n": spaces.Discrete(9), "v": spaces.Box(-9, 9, (2,), np.float32)})
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


class Short(Tool):
    """An environment whose episodes have as many steps as its seed says, and which fails if stepped afterwards."""

    def reset(self, *, seed=None, options=None):
        self.left = seed
        return super().reset(seed=seed)

    def step(self, action):
        assert self.left > 0
        self.left -= 1
        obs, *_ = super().step(action)
        return obs, 1.0, self.left == 0, False, {}


class Dumb(Tool):
    """An environment without drawing."""

    def __init__(self):
        super().__init__()


@pytest.fixture(scope="module", autouse=True)
def registered_tools():
    gym.register("tests/Tool-v0", Tool)
    gym.register("tests/Dumb-v0", Dumb)
    gym.register("tests/Short-v0", Short)
    yield
    for name in ("tests/Tool-v0", "tests/Dumb-v0", "tests/Short-v0"):
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


def test_copies_whose_episodes_are_over_are_not_stepped():
    played = play_episodes(Ones(), "tests/Short-v0", 5, seed=2)
    assert played.lengths.tolist() == [2, 3, 4, 5, 6]
    assert played.returns[:, 0].tolist() == [2, 3, 4, 5, 6]


def test_only_the_first_copy_is_drawn():
    played = play_episodes(Ones(), "tests/Tool-v0", 3, seed=0, max_frames=10)
    assert [int(frame[0, 0, 0]) for frame in played.frames] == [0, 40, 80]
    assert played.undrawn is None
    assert played.returns.tolist() == [[3.0]] * 3


def test_the_requested_copy_is_drawn():
    batch = open_batch("tests/Tool-v0", 2, render_mode="rgb_array")
    batch.step(torch.ones(2, 1, dtype=torch.int64))
    batch.reset(which=torch.tensor([False, True]))
    assert [int(batch.render(copy=b)[0, 0, 0]) for b in (0, 1)] == [40, 0]


@pytest.mark.filterwarnings("ignore:.*RGB-array rendering:UserWarning")
@pytest.mark.parametrize(
    ("env", "settings", "why"),
    [
        ("tests/Tool-v0", {"drawing": "uninstalled"}, "cannot be drawn .*pip install pencil"),
        ("tests/Tool-v0", {"drawing": "nothing"}, "does not draw pictures"),
        ("tests/Dumb-v0", {}, "render_mode"),
    ],
)
def test_environments_that_cannot_be_drawn_are_still_played(env, settings, why, tmp_path, capsys):
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


def test_auto_is_the_gpu_only_where_the_rules_run_on_it():
    assert device_for("auto", "mlbits/GridWorld-v0").type == "cpu"
    with stand_in_gpu():
        assert device_for("auto", "mlbits/GridWorld-v0").type == "cuda"
        assert device_for("auto", "CartPole-v1").type == "cpu"  # every step comes from the CPU
        assert device_for("cuda", "CartPole-v1").type == "cuda"  # asked for


def test_a_step_waits_for_a_gpu_only_to_read_the_actions():
    wanted = open_batch("CartPole-v1", 2, seed=3)
    actions = torch.tensor([[0], [1]])
    with stand_in_gpu() as counts:
        batch, there = open_batch("CartPole-v1", 2, seed=3, device="cuda"), actions.to("cuda")
        for _ in range(12):
            wanted.step(actions)
            before, changes = counts.snapshot(), batch.changes
            batch.step(there)
            assert counts.since(before).waits == 1
            assert batch.changes == changes + 1
        for one, two in zip(batch._result, wanted._result, strict=True):
            assert torch.equal(one.cpu(), two)
