"""Environments by id: modules that register them, missing packages, and spaces converted for agents."""

import sys
from importlib.util import find_spec
from typing import ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from mlbits.envs import registry
from mlbits.envs.core.errors import GameError, UnknownIdError
from mlbits.envs.doors.gymnasium_batch import open_batch
from mlbits.envs.doors.gymnasium_ids import check_env_id, make_copy, reward_threshold
from mlbits.envs.engine.batch import GameBatch


class Odd(gym.Env):
    """Records its actions, and returns observations in a space of any kind."""

    metadata: ClassVar = {"render_modes": []}

    def __init__(self, actions, observations):
        self.action_space, self.observation_space, self.given = actions, observations, []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(3)
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.given.append(action)
        return self.observation_space.sample(), 0.0, False, False, {}


@pytest.fixture(scope="module", autouse=True)
def odd():
    gym.register("tests/Odd-v0", Odd)
    yield
    gym.registry.pop("tests/Odd-v0")


def open_odd(actions=None, observations=None):
    settings = {
        "actions": actions or spaces.Discrete(2),
        "observations": observations or spaces.Box(0, 1, (2,), np.float32),
    }
    return open_batch("tests/Odd-v0", 2, settings=settings)


def box(*shape):
    return spaces.Box(-1, 1, shape, np.float32)


@pytest.mark.parametrize(
    ("space", "plain", "played", "arrives"),
    [
        (spaces.Discrete(3, start=-1), spaces.Discrete(3), [2], 1),
        (box(2, 2), box(4), [[0.1, 0.2, 0.3, 0.4]], [[0.1, 0.2], [0.3, 0.4]]),
        (box(), box(1), [[0.5]], 0.5),
        (spaces.MultiBinary(3), spaces.MultiDiscrete([2, 2, 2]), [[1, 0, 1]], [1, 0, 1]),
        (spaces.MultiBinary((2, 2)), spaces.MultiDiscrete([2] * 4), [[1, 0, 0, 1]], [[1, 0], [0, 1]]),
        (spaces.Box(-1, 1, (2,), np.float64), spaces.Box(-1, 1, (2,), np.float64), [[1.0, -1.0]], [1.0, -1.0]),
    ],
)
def test_actions_are_converted(space, plain, played, arrives):
    batch = open_odd(actions=space)
    assert batch.action_space == plain
    action = torch.tensor([played, played]).to(torch.float32 if batch.action.kind == "continuous" else torch.int64)
    batch.step(action[:, 0][:, None] if batch.action.kind == "discrete" else action)
    np.testing.assert_array_equal(batch.envs[1].unwrapped.given[0], np.asarray(arrives, space.dtype))
    assert space.contains(batch.envs[1].unwrapped.given[0])
    batch.step(batch.sample_actions())


def test_an_action_kept_by_an_environment_does_not_change():
    batch = open_odd(actions=box(1))
    action = torch.zeros(2, 1, 1)
    batch.step(action)
    action += 0.5
    batch.step(action)
    assert [given.item() for given in batch.envs[0].unwrapped.given] == [0.0, 0.5]


def test_tuples_and_nested_dictionaries_are_flattened():
    tuples = open_odd(observations=spaces.Tuple([spaces.Discrete(3), box(2)]))
    assert tuples.obs.shape == (2, 1, 5)
    assert tuples.obs[:, 0, :3].sum(1).tolist() == [1.0, 1.0]  # one-hot
    nested = open_odd(observations=spaces.Dict({"a": spaces.Dict({"b": box(2, 2)}), "c": spaces.Discrete(4)}))
    assert nested.obs.shape == (2, 1, 8)
    assert open_batch("Blackjack-v1", 2).obs.shape == (2, 1, 32 + 11 + 2)


@pytest.mark.parametrize(
    ("kind", "space"),
    [("observations", spaces.Sequence(spaces.Discrete(2))), ("actions", spaces.Tuple([spaces.Discrete(2)]))],
)
def test_spaces_that_cannot_be_flattened_are_refused(kind, space):
    with pytest.raises(GameError, match=f"{kind[:-1]}_space: got {type(space).__name__}"):
        open_odd(**{kind: space})


class Liar(Odd):
    def reset(self, *, seed=None, options=None):
        return np.zeros(3, np.float32), {}


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_observation_whose_shape_differs_from_its_space_is_refused():
    gym.register("tests/Liar-v0", Liar, disable_env_checker=True)
    settings = {"actions": spaces.Discrete(2), "observations": box(1)}
    with pytest.raises(GameError, match=r"^tests/Liar-v0: got an observation of shape \(3,\); wanted \(1,\)"):
        open_batch("tests/Liar-v0", 1, settings=settings)
    gym.registry.pop("tests/Liar-v0")


# Missing packages


def without(monkeypatch, *packages):
    """Simulate missing packages; imported modules of Gymnasium's environments are removed."""
    for name in packages:
        monkeypatch.setitem(sys.modules, name, None)
    for name in list(sys.modules):
        if name.startswith(("gymnasium.envs.box2d", "gymnasium.envs.mujoco")):
            monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize(
    ("env_id", "package", "extra"),
    [
        ("LunarLander-v3", "Box2D", "box2d"),
        ("HalfCheetah-v5", "mujoco", "mujoco"),
        ("ALE/Pong-v5", "ale_py", "atari"),
        ("PongNoFrameskip-v4", "ale_py", "atari"),
        ("ALE/Pong-v5", "cv2", "atari"),
    ],
)
def test_a_missing_package_is_named_with_the_extra_that_installs_it(env_id, package, extra, monkeypatch):
    if package == "ale_py":
        monkeypatch.delitem(gym.registry, env_id, raising=False)
    without(monkeypatch, package)
    with pytest.raises(GameError) as raised:
        open_batch(env_id, 1)
    assert str(raised.value) == f'{env_id}: the package {package} is missing; pip install "mlbits[{extra}]"'


def test_ids_of_a_module_are_registered_by_importing_it(tmp_path, monkeypatch):
    module = (
        "import gymnasium\ngymnasium.register('tests/Away-v0', 'gymnasium.envs.classic_control:CartPoleEnv', 7.0)\n"
    )
    (tmp_path / "far_away.py").write_text(module)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert open_batch("far_away:tests/Away-v0", 1).obs.shape == (1, 1, 4)
    assert reward_threshold("far_away:tests/Away-v0") == 7.0
    with pytest.raises(UnknownIdError, match="did you mean 'tests/Away-v0'"):
        check_env_id("far_away:tests/Awai-v0")
    gym.registry.pop("tests/Away-v0")
    with pytest.raises(GameError, match="the module 'nowhere' cannot be imported"):
        check_env_id("nowhere:CartPole-v1")


def test_a_module_may_register_a_game_of_this_package(tmp_path, monkeypatch):
    line = "mlbits.register('tests/Pole-v0', 'mlbits.envs.control.cart_pole:cart_pole')"
    (tmp_path / "near_by.py").write_text(f"import mlbits\n{line}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        batch = open_batch("near_by:tests/Pole-v0", 3, settings={"horizon": 7})
        assert isinstance(batch, GameBatch)
        assert batch.horizon == 7
    finally:
        for known in (registry._entries, gym.registry):
            known.pop("tests/Pole-v0", None)


@pytest.mark.skipif(find_spec("Box2D") is None, reason="Box2D has no wheel for this Python and platform")
def test_an_error_within_another_package_is_reported_in_one_line():
    with pytest.raises(
        GameError, match=r"^LunarLander-v3: cannot be made with the settings {'gravity': 3.0} \([^\n]*$"
    ):
        make_copy("LunarLander-v3", {"gravity": 3.0})
