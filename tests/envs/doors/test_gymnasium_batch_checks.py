"""Actions passed to wrapped environments, and checks of what these return."""

import dataclasses
import os
import re

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from mlbits.agents.bots.random_bot import RandomAgent
from mlbits.envs.core.errors import GameError, IllegalActionError
from mlbits.envs.core.spaces import action_layout
from mlbits.envs.doors.gymnasium_batch import open_batch
from mlbits.envs.doors.gymnasium_envs import GymnasiumEnv, GymnasiumVectorEnv
from mlbits.envs.doors.gymnasium_workers import step_seconds
from mlbits.envs.doors.pettingzoo_envs import PettingZooAECEnv, PettingZooParallelEnv
from mlbits.envs.doors.sb3_vec_env import SB3VecEnv
from mlbits.envs.engine.batch import GameBatch
from tests.games import point

TENTH = spaces.Box(-0.1, 0.1, (2,), np.float64)  # float32 has no 0.1: the nearest number is 0.100000001490116


class Recorder(gym.Env):
    """Records its actions, and returns what it was constructed with."""

    def __init__(self, actions, observations=None, gives=None, starts="sampled"):
        self.action_space = actions
        self.observation_space = observations or spaces.Box(-1, 1, (2,), np.float32)
        self.gives, self.starts, self.got = gives, starts, []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample() if isinstance(self.starts, str) else self.starts, {}

    def render(self):
        return np.full((1, 1, 3), os.environ.get("SDL_VIDEODRIVER") == "dummy", np.uint8)

    def step(self, action):
        self.got.append(action)
        plain = (self.observation_space.sample(), 0.5, False, False, {})
        if isinstance(self.gives, dict):
            names = ("obs", "reward", "terminated", "truncated", "info")
            return tuple(self.gives.get(name, value) for name, value in zip(names, plain, strict=True))
        return plain if self.gives is None else self.gives


@pytest.fixture(scope="module", autouse=True)
def registered():
    gym.register("tests/Recorder-v0", Recorder, disable_env_checker=True)
    yield
    gym.registry.pop("tests/Recorder-v0")


def recorder(actions, count=2, **settings):
    return open_batch("tests/Recorder-v0", count, settings={"actions": actions, **settings})


ACTIONS = {
    "discrete": spaces.Discrete(3),
    "discrete from 1": spaces.Discrete(3, start=1),
    "discrete from -2": spaces.Discrete(4, start=-2),
    "multi-discrete": spaces.MultiDiscrete([3, 4]),
    "multi-discrete of int32": spaces.MultiDiscrete([3, 4], dtype=np.int32),
    "multi-discrete of uint8": spaces.MultiDiscrete([3, 4], dtype=np.uint8),
    "multi-discrete from 5": spaces.MultiDiscrete([3, 4], start=[5, -1]),
    "multi-discrete of two axes": spaces.MultiDiscrete([[3, 4], [2, 5]], start=[[1, 0], [0, 7]]),
    "multi-binary": spaces.MultiBinary(4),
    "multi-binary of two axes": spaces.MultiBinary((2, 3)),
    "box": spaces.Box(-2, 2, (2,), np.float32),
    "box of float64": TENTH,
    "box of float64, two axes": spaces.Box(-0.1, 0.3, (2, 2), np.float64),
    "box of float64, one side": spaces.Box(np.array([-0.1, -np.inf]), np.array([np.inf, 0.7]), dtype=np.float64),
    "box of float16": spaces.Box(-1, 1, (2,), np.float16),
    "box of int8": spaces.Box(-3, 4, (2,), np.int8),
    "box of int64": spaces.Box(-(2**40) - 1, 2**40 + 1, (2,), np.int64),
    "box of no axis": spaces.Box(-1, 1, (), np.float32),
    "box of float64, few float32 within": spaces.Box(0.1, 0.1 + 2e-8, (2,), np.float64),
    "box of float64, no float32 within": spaces.Box(0.3, 0.3 + 1e-9, (2,), np.float64),
}


def same_kind(action, space):
    sample = space.sample()
    assert type(action) is type(sample)
    assert (action.dtype, action.shape) == (sample.dtype, sample.shape)
    assert space.contains(action), action


@pytest.mark.parametrize("space", ACTIONS.values(), ids=ACTIONS)
def test_an_environment_gets_actions_of_the_kind_its_space_samples(space):
    batch, generator = recorder(space), torch.Generator().manual_seed(0)
    agent = RandomAgent(batch.observation_space, batch.action_space)
    for _ in range(40):
        batch.step(batch.sample_actions())
        batch.step(agent.act(batch.obs[:, 0], None, generator).action[:, None])
    for env in batch.envs:
        for action in env.unwrapped.got:
            same_kind(action, space)
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):  # all of them, in the long run
        got = {tuple(np.ravel(action).tolist()) for env in batch.envs for action in env.unwrapped.got}
        first = {row[0] for row in got}
        starts = np.ravel(getattr(space, "start", 0))
        assert first == set(range(starts[0], starts[0] + batch.action.nvec[0]))
    one, other = (env.unwrapped.got[0] for env in batch.envs)
    assert np.ndim(one) == 0 or not np.shares_memory(one, other)
    kept = [np.array(action) for action in batch.envs[0].unwrapped.got]
    batch.step(batch.sample_actions())
    assert all(np.array_equal(*pair) for pair in zip(kept, batch.envs[0].unwrapped.got[:-1], strict=True))


@pytest.mark.parametrize("name", ["box of float64", "box of float64, two axes", "box of int8", "box of int64"])
def test_the_bounds_themselves_are_reached(name):
    space = ACTIONS[name]
    batch = recorder(space, 1)
    for bound, wanted in ((batch.action.low, space.low), (batch.action.high, space.high)):
        batch.step(torch.from_numpy(bound)[None, None])
        assert np.array_equal(batch.envs[0].unwrapped.got[-1], wanted)
        same_kind(batch.envs[0].unwrapped.got[-1], space)


def test_sampling_actions_does_not_affect_the_copies_own_samples():
    """An environment may draw from its action space, as for sticky actions, seeded as Gymnasium seeds spaces."""
    batch = recorder(spaces.Discrete(1000), 1)
    own = batch.envs[0].unwrapped.action_space
    own.seed(3)
    wanted = [own.sample() for _ in range(3)]
    own.seed(3)
    got = []
    for _ in range(3):
        batch.sample_actions()
        got.append(own.sample())
    assert got == wanted


def test_integers_are_the_nearest():
    batch = recorder(spaces.Box(0, 9, (4,), np.uint8), 1)
    batch.step(torch.tensor([[[0.4, 0.6, 8.4, 8.6]]]))
    assert batch.envs[0].unwrapped.got[0].tolist() == [0, 1, 8, 9]


@pytest.mark.parametrize(("low", "high"), [(-0.1, 0.1), (0.1, 0.2), (-1e300, 1e300), (-np.inf, 0.3), (-2.0, 2.0)])
def test_float32_bounds_lie_within_those_of_float64(low, high):
    layout = action_layout(spaces.Box(low, high, (1,), np.float64))
    least, most = layout.low.astype(np.float64).item(), layout.high.astype(np.float64).item()
    assert low <= least < most <= high
    # and the next float32 does not
    if np.isfinite(low):
        assert np.nextafter(layout.low, np.float32(-np.inf)).astype(np.float64).item() < low
    assert np.nextafter(layout.high, np.float32(np.inf)).astype(np.float64).item() > high


def test_bounds_between_which_no_float32_lies():
    layout = action_layout(spaces.Box(0.1, 0.1, (1,), np.float64))
    assert layout.low == layout.high == np.float32(0.1)


# A game of ours with float64 bounds: 0.1 is legal at every door, and no rule gets a larger number.


def within(action):
    assert np.abs(np.asarray(action, np.float64)).max() <= 0.1


def test_our_doors_take_float64_bounds():
    game = dataclasses.replace(point(), action_space=TENTH)
    edge = np.array([0.1, -0.1])
    for action in (edge, TENTH.high, edge.tolist()):
        env = GymnasiumEnv(game)
        env.reset(seed=0)
        env.step(action)
        within(env._actions)
    vector = GymnasiumVectorEnv(game, 3)
    vector.reset(seed=0)
    vector.step(np.tile(edge, (3, 1)))
    vec = SB3VecEnv(game, 3, seed=0, illegal="error")
    vec.reset()
    vec.step(np.tile(edge, (3, 1)))
    within(vec._actions)
    for kind in (PettingZooParallelEnv, PettingZooAECEnv):
        zoo = kind(game)
        zoo.reset(seed=0)
        zoo.step({"player_0": edge} if kind is PettingZooParallelEnv else edge)
    batch = GameBatch(game, 3)
    batch.step(torch.from_numpy(np.tile(edge, (3, 1, 1))))
    batch.step(np.tile(edge, (3, 1)))
    for _ in range(50):
        within(batch.sample_actions())
    for wrong in (np.array([0.1000001, 0]), np.array([np.nan, 0])):
        env.reset()
        with pytest.raises(IllegalActionError):
            env.step(wrong)
        with pytest.raises(IllegalActionError):
            batch.step(torch.from_numpy(np.tile(wrong, (3, 1, 1))))
        with pytest.raises(IllegalActionError):
            vector.step(np.tile(wrong, (3, 1)))


# Returned values

IMAGE = spaces.Box(0, 255, (2, 3), np.uint8)
DICT = spaces.Dict({"a": spaces.Discrete(4), "b": spaces.Box(-1, 1, (2,), np.float32)})
NESTED = spaces.Dict(a=spaces.Dict(b=spaces.Box(-1, 1, (2,), np.float32)))
GOOD = {"a": np.int64(2), "b": np.zeros(2, np.float32)}
BOX = spaces.Box(-1, 1, (2,), np.float32)
BAD = [
    (BOX, np.float32(0.5), r"got an observation of shape \(\); wanted \(2,\), as its space"),
    (BOX, np.zeros(1, np.float32), r"of shape \(1,\); wanted \(2,\)"),
    (BOX, np.zeros((1, 2), np.float32), r"of shape \(1, 2\); wanted \(2,\)"),
    (BOX, [0.0], r"of shape \(1,\); wanted \(2,\)"),
    (BOX, [[0.0], [1.0, 2.0]], "got an observation .*; wanted"),
    (BOX, None, r"got an observation None; wanted \(2,\)"),
    (BOX, np.array(["a", "b"]), "of dtype <U1; wanted float32"),
    (BOX, np.zeros(2, complex), "of dtype complex128; wanted float32"),
    (BOX, np.array([None, 1.0]), "of dtype object; wanted float32"),
    (IMAGE, np.full((2, 3), 0.5, np.float32), "of dtype float32; wanted uint8"),
    (IMAGE, np.zeros((2, 3), np.int64), "of dtype int64; wanted uint8"),
    (IMAGE, np.zeros((3, 2), np.uint8), r"of shape \(3, 2\); wanted \(2, 3\)"),
    (IMAGE, np.zeros(3, np.uint8), r"of shape \(3,\); wanted \(2, 3\)"),
    (spaces.Discrete(4), 1.5, "of dtype float64; wanted int32"),
    (spaces.Discrete(4), np.array([1]), r"of shape \(1,\); wanted \(\)"),
    (spaces.MultiDiscrete([3, 3]), np.int64(1), r"of shape \(\); wanted \(2,\)"),
    (DICT, {"a": 1}, "got an observation without 'b'; wanted the keys 'a', 'b'"),
    (DICT, {**GOOD, "c": 1}, "got an observation with 'c'; wanted the keys 'a', 'b'"),
    (DICT, {"a": 1, "c": 1}, "got an observation without 'b' and with 'c'"),
    (DICT, {**GOOD, "b": np.zeros(1, np.float32)}, r"observation\['b'\] of shape \(1,\); wanted \(2,\)"),
    (DICT, {**GOOD, "a": 0.5}, r"observation\['a'\] of dtype float64; wanted int32"),
    (DICT, np.zeros(2), "got an observation of ndarray; wanted a dict of 'a', 'b'"),
    (spaces.Discrete(4), 4, r"got the observation 4; wanted Discrete\(4\)"),
    (spaces.Discrete(4), np.int64(-1), r"got the observation .*-1\)?; wanted Discrete\(4\)"),
    (spaces.Discrete(4), 2**32 + 1, r"got the observation 4294967297; wanted Discrete\(4\)"),
    (spaces.Discrete(4), np.array(7), r"got the observation array\(7\); wanted Discrete\(4\)"),
    (spaces.MultiDiscrete([3, 4]), np.array([2, 4]), r"observation array\(\[2, 4\]\); wanted MultiDiscrete"),
    (spaces.MultiDiscrete([3, 4]), np.array([-1, 0], np.int32), r"observation array\(.*\); wanted MultiDiscrete"),
    (spaces.MultiBinary(3), np.array([0, 2, 0], np.int8), r"observation array\(.*\); wanted MultiBinary\(3\)"),
    (DICT, {**GOOD, "a": 4}, r"got the observation\['a'\] 4; wanted Discrete\(4\)"),
    (spaces.Box(-9, 9, (2,), np.int8), np.array([300, 0]), r"observation array\(\[300, +0\]\); wanted Box"),
    # Flattened spaces:
    (spaces.Discrete(4, start=1), 0, r"got the observation 0; wanted Discrete\(4, start=1\)"),
    (spaces.MultiDiscrete([3, 4], start=[1, 0]), np.array([0, 0]), r"got the observation array.*; wanted MultiDisc"),
    (spaces.Tuple((spaces.Discrete(4), BOX)), (-1, np.zeros(2)), r"got the observation\[0\] -1; wanted Discrete\(4\)"),
    (spaces.Tuple((spaces.Discrete(4), BOX)), (1,), r"got the observation \(1,\); wanted Tuple"),
    (spaces.Tuple((IMAGE, BOX)), (np.zeros((3, 2)), np.zeros(2)), r"got the observation\[0\] array.*; wanted Box"),
    (
        spaces.Dict(a=spaces.Dict(b=BOX)),
        {"a": {"b": np.zeros(2), "c": 1}},
        r"got the observation\['a'\] .*; wanted Dict",
    ),
    (spaces.Dict(a=spaces.Dict(b=BOX)), {"a": {"b": [[0.0], [1.0, 2.0]]}}, r"observation\['a'\]\['b'\] .*; wanted Box"),
]


@pytest.mark.parametrize(("space", "obs", "message"), BAD)
def test_observations_outside_the_space_are_refused(space, obs, message):
    with pytest.raises(GameError, match=f"^tests/Recorder-v0: .*{message}"):
        recorder(spaces.Discrete(2), observations=space, starts=obs)
    batch = recorder(spaces.Discrete(2), observations=space, gives={"obs": obs})
    with pytest.raises(GameError, match=f"^tests/Recorder-v0: .*{message}"):
        batch.step(batch.sample_actions())
    batch = recorder(spaces.Discrete(2), observations=space, gives={"obs": obs, "terminated": True})
    with pytest.raises(GameError, match=f"^tests/Recorder-v0: .*{message}"):  # the last one of an episode
        batch.step(batch.sample_actions())


@pytest.mark.parametrize(
    ("space", "obs", "wanted"),
    [
        (BOX, np.array([0.25, 0.5]), [0.25, 0.5]),
        (BOX, [0.25, 1], [0.25, 1]),
        (BOX, np.array([0, 1]), [0, 1]),
        (BOX, np.array([True, False]), [1, 0]),
        (IMAGE, np.full((2, 3), 7, np.uint8), [[7] * 3] * 2),
        (spaces.Discrete(4), 3, 3),
        (spaces.Discrete(4), 0, 0),
        (spaces.MultiDiscrete([3, 4]), np.array([2, 3]), [2, 3]),
        (spaces.MultiDiscrete([3, 4]), np.array([0, 0], np.uint8), [0, 0]),
        (spaces.Box(-9, 9, (2,), np.int8), np.array([-128, 127]), [-128, 127]),
        (
            BOX,
            np.array([1.0000001, 5.0], np.float32),
            [np.float32(1.0000001).item(), 5.0],
        ),  # bounds are not checked
        (spaces.Discrete(4), np.int64(3), 3),
        (spaces.Discrete(4), np.array(3), 3),
        (spaces.MultiBinary(3), np.array([1, 0, 1]), [1, 0, 1]),
    ],
)
def test_equivalent_observations_are_accepted(space, obs, wanted):
    batch = recorder(spaces.Discrete(2), observations=space, gives={"obs": obs})
    for _ in range(2):  # a dtype is checked once
        assert batch.step(batch.sample_actions()).obs[1, 0].tolist() == wanted
    gives = {"obs": obs if not isinstance(obs, np.ndarray) else obs[..., None]}
    if isinstance(obs, np.ndarray):  # and the shape each time
        for env in batch.envs:
            env.unwrapped.gives = gives
        with pytest.raises(GameError, match="of shape"):
            batch.step(batch.sample_actions())


@pytest.mark.parametrize("reward", [np.array([1.0]), np.zeros(2), [1.0], None, "1", 1j, {"a": 1.0}])
def test_rewards_that_are_not_a_single_number(reward):
    batch = recorder(spaces.Discrete(2), gives={"reward": reward})
    wanted = rf"^tests/Recorder-v0: got the reward {re.escape(repr(reward))}; wanted a (single|real) number"
    with pytest.raises(GameError, match=wanted):
        batch.step(batch.sample_actions())


@pytest.mark.parametrize("reward", [2, 2.0, np.float32(2), np.float64(2), np.int8(2), np.array(2.0), torch.tensor(2.0)])
def test_accepted_rewards(reward):
    batch = recorder(spaces.Discrete(2), gives={"reward": reward})
    assert batch.step(batch.sample_actions()).reward.tolist() == [[2.0], [2.0]]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("reward", "wanted"),
    [(1e300, "inf"), (-1e39, "-inf"), (10**400, "inf"), (np.float64(-1e300), "-inf"), (float("nan"), "nan"),
     (float("inf"), "inf"), (3e38, "3e+38"), (-(10**30), "-1e+30")],
)  # fmt: skip
def test_rewards_beyond_float32_are_infinite_without_a_warning(reward, wanted):
    """Training then stops by name (finite.py)."""
    batch = recorder(spaces.Discrete(2), gives={"reward": reward})
    assert [f"{float(found):.3g}" for found in batch.step(batch.sample_actions()).reward] == [wanted, wanted]


@pytest.mark.parametrize("name", ["terminated", "truncated"])
@pytest.mark.parametrize("flag", [1, 0.0, None, {}, np.array([True]), "False", np.int64(0)])
def test_flags_that_are_not_bools(name, flag):
    batch = recorder(spaces.Discrete(2), gives={name: flag})
    with pytest.raises(GameError, match=f"^tests/Recorder-v0: got {name} .*; wanted True or False"):
        batch.step(batch.sample_actions())


@pytest.mark.parametrize("flag", [True, np.True_, np.array(True)])
def test_accepted_flags(flag):
    batch = recorder(spaces.Discrete(2), gives={"truncated": flag})
    step = batch.step(batch.sample_actions())
    assert (step.terminated.tolist(), step.truncated.tolist()) == ([False, False], [True, True])


@pytest.mark.parametrize(
    ("gives", "said"),
    [
        ((np.zeros(2, np.float32), 0.0, False, {}), "step returned 4 values; wanted .observation, reward, terminated"),
        (np.zeros(5), "step returned a ndarray; wanted"),
    ],
)
def test_steps_of_a_wrong_form(gives, said):
    batch = recorder(spaces.Discrete(2))
    batch.envs[0].step = lambda action: gives
    with pytest.raises(GameError, match=f"^tests/Recorder-v0: {said}"):
        batch.step(batch.sample_actions())


def test_what_an_environment_itself_raises_becomes_one_line_with_the_place():
    class Failing(gym.Env):
        observation_space, action_space = spaces.Discrete(2), spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            if seed is None:
                raise RuntimeError
            return 0, {}

        def step(self, action):
            raise ValueError("out of fuel\nand a second line")

    gym.register("tests/Failing-v0", Failing)
    try:
        batch = open_batch("tests/Failing-v0", 2, seed=0)
        place = r", test_gymnasium_batch_checks\.py, line \d+\)$"
        stepped = r"^tests/Failing-v0: copy 0 failed \(ValueError: out of fuel" + place
        with pytest.raises(GameError, match=stepped) as at:
            batch.step(batch.sample_actions())
        assert isinstance(at.value.__cause__, ValueError)
        with pytest.raises(GameError, match=r"^tests/Failing-v0: copy 1 failed \(RuntimeError" + place):
            batch.reset(which=torch.tensor([False, True]))
        with pytest.raises(GameError, match=stepped):
            step_seconds("tests/Failing-v0", {}, True)
    finally:
        gym.registry.pop("tests/Failing-v0")


def test_resets_of_a_wrong_form():
    batch = recorder(spaces.Discrete(2))
    for result, said in ((np.zeros(2), "a ndarray"), ((1, 2, 3), "3 values")):
        batch.envs[0].reset = lambda result=result, **settings: result
        with pytest.raises(GameError, match=f"^tests/Recorder-v0: reset returned {said}; wanted .observation, info"):
            batch.reset()


@pytest.mark.parametrize(
    ("found", "dummy"),
    [({}, True), ({"DISPLAY": ":0"}, False), ({"WAYLAND_DISPLAY": "w"}, False), ({"SDL_VIDEODRIVER": "x11"}, False)],
)
def test_without_a_display_pygame_gets_the_dummy_driver(monkeypatch, found, dummy):
    """Otherwise it would write warnings to stderr, between lines of progress. A driver chosen by the user is kept."""
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    assert recorder(spaces.Discrete(2)).render()[0, 0, 0] == dummy
    assert os.environ.get("SDL_VIDEODRIVER") == found.get("SDL_VIDEODRIVER")
