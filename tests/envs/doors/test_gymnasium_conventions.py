"""Gymnasium's conventions for time limits, rendering, and the last observations and infos of episodes."""

from __future__ import annotations

import copy
import inspect
import pickle
import sys
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import HumanRendering, RenderCollection, TimeAwareObservation

import mlbits
from mlbits.envs import registry
from mlbits.envs.control.pendulum import pendulum
from mlbits.envs.core.errors import GameError
from mlbits.envs.registry import entry, make_game, registered
from tests.games import register_test_games

register_test_games()
PENDULUM = "mlbits/Pendulum-v0"
# Each level has its own limit, and as many bits as many flips, which no spec can know.
OWN_LIMITS = {"mlbits/CollectObjects-v0", "mlbits/BitFlipping-v0"}
LIMITS = {
    "mlbits/GridWorld-v0": 100, "mlbits/FourRooms-v0": 200, "mlbits/CliffWalk-v0": 200,
    "mlbits/RandomGridWorld-v0": 100, "mlbits/Bandit-v0": 100, "mlbits/CartPole-v0": 500, PENDULUM: 200,
    "mlbits/PointMass-v0": 50, "mlbits/PushBlocks-v0": 50, "mlbits/TMaze-v0": 100, "test/Point-v0": 20,
    "test/Signs-v0": 12, "mlbits/NoisyTV-v0": 200, "mlbits/Labyrinth-v0": 1000,
}  # fmt: skip
# Actions and settings with which episodes last long.
LASTING: dict[str, tuple[Any, dict[str, Any]]] = {
    "mlbits/GridWorld-v0": (0, {}), "mlbits/FourRooms-v0": (0, {}), "mlbits/CliffWalk-v0": (0, {}),
    "mlbits/RandomGridWorld-v0": (0, {}), "mlbits/Bandit-v0": (0, {"observation": "history"}),
    PENDULUM: (np.zeros(1, np.float32), {}), "mlbits/PointMass-v0": (np.zeros(2, np.float32), {}),
    "mlbits/TMaze-v0": (3, {}),
}  # fmt: skip


def lengths(env: Any, action: Any, most: int, seed: int = 0) -> int:
    """Steps until an episode is truncated, or ``most``."""
    env.reset(seed=seed)
    for t in range(1, most + 1):
        obs, _, terminated, truncated, _ = env.step(action)
        assert env.observation_space.contains(obs)
        assert not terminated
        if truncated:
            return t
    return most


def vector_lengths(env: Any, action: Any, most: int) -> int:
    env.reset(seed=0)
    actions = np.stack([action] * env.num_envs)
    for t in range(1, most + 1):
        truncated = env.step(actions)[3]
        if truncated.any():
            assert truncated.all()
            return t
    return most


def test_the_registered_specs_have_the_games_limits() -> None:
    for game_id in set(registered()) - OWN_LIMITS:
        if make_game(game_id).seats == 1:
            assert gym.spec(game_id).max_episode_steps == make_game(game_id).horizon == LIMITS.get(game_id), game_id


def test_levels_have_their_own_limits() -> None:
    for level in (0, 5, 2**32):
        env = gym.make("mlbits/CollectObjects-v0", level=level)
        own = make_game("mlbits/CollectObjects-v0", level=level).horizon
        assert env.spec is not None
        assert env.spec.max_episode_steps == own
        assert lengths(env, 0, 200) == own
        assert lengths(gym.make(env.spec), 0, 200) == own


@pytest.mark.parametrize("game_id", LASTING)
def test_time_limits_of_every_game_by_gymnasiums_argument(game_id: str) -> None:
    action, settings = LASTING[game_id]
    own = LIMITS[game_id]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for said, wanted in (({}, own), ({"max_episode_steps": 7}, 7), ({"max_episode_steps": own + 30}, own + 30)):
            env = gym.make(game_id, **settings, **said)
            assert lengths(env, action, own + 40) == wanted
            assert env.spec is not None
            assert env.spec.max_episode_steps == wanted
            assert TimeAwareObservation(env).max_timesteps == wanted
            again = gym.make(env.spec)
            assert lengths(again, action, own + 40) == wanted
            vector = gym.make_vec(game_id, 2, **settings, **said)
            assert vector_lengths(vector, action, own + 40) == wanted
            assert vector.spec is not None
            assert vector.spec.max_episode_steps == wanted
        for unlimited in (
            gym.make(game_id, max_episode_steps=-1, **settings),
            gym.make_vec(game_id, 2, max_episode_steps=-1, **settings),
        ):
            play = lengths if isinstance(unlimited, gym.Env) else vector_lengths
            assert play(unlimited, action, own + 40) == own + 40
            assert unlimited.spec is not None
            assert unlimited.spec.max_episode_steps is None


def test_rules_read_the_games_own_horizon_at_every_door() -> None:
    """A bandit observes the elapsed fraction of its 100 pulls, whatever Gymnasium's limit is."""
    for limit, wanted in ((2, 0.02), (130, 1.0)):
        one = gym.make("mlbits/Bandit-v0", observation="history", max_episode_steps=limit)
        vector = gym.make_vec("mlbits/Bandit-v0", 1, observation="history", max_episode_steps=limit)
        one.reset(seed=0)
        vector.reset(seed=0)
        for _ in range(limit):
            alone, several = one.step(0), vector.step(np.zeros(1, np.int64))
        assert alone[3] and several[3][0]
        assert alone[0][-1] == several[0][0, -1] == pytest.approx(wanted)


def test_both_doors_agree_beyond_the_games_own_limit() -> None:
    one = gym.make(PENDULUM, max_episode_steps=230)
    vector = gym.make_vec(PENDULUM, 1, max_episode_steps=230)
    sync = gym.make_vec(PENDULUM, 1, max_episode_steps=230, vectorization_mode="sync")
    for env in (one, vector, sync):
        env.reset(seed=4)
    action = np.array([0.5], np.float32)
    for _ in range(230):
        alone, several, theirs = one.step(action), vector.step(action[None]), sync.step(action[None])
        assert np.array_equal(alone[0], several[0][0])
        assert np.array_equal(alone[0], theirs[0][0])
        assert alone[3] == several[3][0] == theirs[3][0]
    assert alone[3]


def test_a_shorter_horizon_as_a_setting_is_the_limit_in_the_spec() -> None:
    env, vector = gym.make(PENDULUM, horizon=5), gym.make_vec(PENDULUM, 2, horizon=5)
    assert env.spec is not None
    assert vector.spec is not None
    assert env.spec.max_episode_steps == vector.spec.max_episode_steps == 5
    assert TimeAwareObservation(env).max_timesteps == 5
    action = np.zeros(1, np.float32)
    assert lengths(env, action, 20) == lengths(gym.make(env.spec), action, 20) == 5
    assert vector_lengths(vector, action, 20) == 5
    assert lengths(gym.make(PENDULUM, horizon=5, max_episode_steps=3), action, 20) == 3
    assert vector_lengths(gym.make_vec(PENDULUM, 2, horizon=5, max_episode_steps=3), action, 20) == 3
    copied = pickle.loads(pickle.dumps(copy.deepcopy(env.spec)))
    assert copied.max_episode_steps == 5


@pytest.mark.parametrize(("horizon", "wanted"), [(300, 300), (None, -1)])
@pytest.mark.parametrize("make", [gym.make, gym.make_vec])
def test_a_longer_horizon_as_a_setting_is_refused_with_advice(make: Any, horizon: Any, wanted: int) -> None:
    cut = rf"Gymnasium truncates episodes of {PENDULUM} after 200 steps"
    message = rf"horizon: got {horizon}, but {cut}; wanted max_episode_steps={wanted} instead"
    with pytest.raises(GameError, match=message):
        make(PENDULUM, horizon=horizon)


@pytest.mark.parametrize("steps", [0, -2, 2.5, True, "9"])
def test_invalid_limits_are_refused(steps: Any) -> None:
    with pytest.raises(GameError, match=f"time limit: got {steps!r}; wanted a positive number of steps"):
        gym.make_vec(PENDULUM, 2, max_episode_steps=steps)


def test_changed_specs_and_games_registered_by_users(request: pytest.FixtureRequest) -> None:
    spec = copy.deepcopy(gym.spec(PENDULUM))
    spec.max_episode_steps = 12
    assert lengths(gym.make(spec), np.zeros(1, np.float32), 20) == 12
    assert gym.spec(PENDULUM).max_episode_steps == 200
    assert '"max_episode_steps": 200' in gym.spec(PENDULUM).to_json()
    mlbits.register("mine/Short-v0", pendulum, horizon=15)
    mlbits.register("mine/Endless-v0", lambda *, horizon=None: pendulum(horizon=horizon))
    try:
        still = np.zeros(1, np.float32)
        assert gym.spec("mine/Short-v0").max_episode_steps == 15
        assert lengths(gym.make("mine/Short-v0"), still, 40) == 15
        assert lengths(gym.make("mine/Short-v0", max_episode_steps=30), still, 40) == 30
        assert gym.spec("mine/Endless-v0").max_episode_steps is None
        assert lengths(gym.make("mine/Endless-v0"), still, 300) == 300
        limited = gym.make("mine/Endless-v0", horizon=30)
        assert lengths(limited, still, 40) == 30
        assert limited.spec is not None
        assert limited.spec.max_episode_steps == 30
    finally:
        for game_id in ("mine/Short-v0", "mine/Endless-v0"):
            registry._entries.pop(game_id)
            gym.registry.pop(game_id)
            for kind in ("parallel_registry", "aec_registry"):
                getattr(sys.modules["pettingzoo.env_registry.registration"], kind).pop(game_id, None)


@pytest.mark.parametrize("game_id", LIMITS)
def test_gymnasiums_checker_passes_without_a_warning(game_id: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for advice in (".*is -infinity.*", ".*is infinity.*", ".*we recommend using a symmetric.*"):
            warnings.filterwarnings("ignore", message=advice)
        check_env(gym.make(game_id, render_mode="rgb_array").unwrapped)


# Rendering


def test_human_rendering(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    shown = []
    original = HumanRendering._render_frame
    monkeypatch.setattr(HumanRendering, "_render_frame", lambda env: shown.append(original(env)))
    with pytest.warns(UserWarning, match="HumanRendering wrapper is being applied"):  # Gymnasium's own
        env = gym.make("mlbits/GridWorld-v0", render_mode="human")
    assert isinstance(env, HumanRendering)
    assert env.render_mode == "human"
    assert env.unwrapped.render_mode == "rgb_array"
    env.reset(seed=0)
    env.step(1)
    assert len(shown) == 2
    env.close()


def test_rendering_without_its_package_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.warns(UserWarning), pytest.raises(gym.error.DependencyNotInstalled, match="pygame"):
        gym.make("mlbits/GridWorld-v0", render_mode="human").reset(seed=0)


def test_lists_of_pictures() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gym.make("mlbits/GridWorld-v0", render_mode="rgb_array_list")
        texts = gym.make("mlbits/GridWorld-v0", map="S.G", render_mode="ansi_list")
    assert isinstance(env, RenderCollection)
    for one in (env, texts):
        one.reset(seed=0)
        one.step(1)
    frames = env.render()
    assert isinstance(frames, list)
    assert len(frames) == 2
    assert frames[0].shape == frames[1].shape
    assert not np.array_equal(*frames)
    assert texts.render() == ["A.G\n", ".AG\n"]


# Last observations and infos


@pytest.mark.parametrize("game_id", ["test/Solitaire-v0", "test/Signs-v0", "mlbits/Knapsack-v0", "mlbits/FourRooms-v0"])
@pytest.mark.parametrize("limit", [30, 2, 4])
def test_final_infos_equal_those_of_gymnasiums_vector_environments(game_id: str, limit: int) -> None:
    said: dict[str, Any] = {"max_episode_steps": limit}
    own = gym.make_vec(game_id, 3, autoreset_mode="same_step", **said)
    same_step = {"autoreset_mode": AutoresetMode.SAME_STEP}
    theirs = gym.make_vec(game_id, 3, vectorization_mode="sync", vector_kwargs=same_step, **said)
    own.action_space.seed(0)
    mine, others = own.reset(seed=[5, 8, 2]), theirs.reset(seed=[5, 8, 2])
    ends = 0
    for _ in range(120):
        np.testing.assert_equal(mine[:-1], others[:-1])
        one, other = mine[-1], others[-1]
        assert one.keys() == other.keys()
        for b in np.flatnonzero(one.get("_final_obs", [])):
            ends += 1
            mine_last = one["final_obs"]
            mine_last = (
                {key: part[b] for key, part in mine_last.items()} if isinstance(mine_last, dict) else mine_last[b]
            )
            np.testing.assert_equal(mine_last, other["final_obs"][b])
        for name in one.keys() - {"final_obs"}:
            np.testing.assert_equal(one[name], other[name], err_msg=name)
        actions = own.action_space.sample()
        mine, others = own.step(actions), theirs.step(actions)
    assert ends >= 3


@pytest.mark.parametrize("game_id", ["test/Solitaire-v0", "test/Signs-v0", "mlbits/Knapsack-v0"])
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_masks_equal_those_of_gymnasiums_vector_environments(game_id: str, mode: AutoresetMode) -> None:
    own = gym.make_vec(game_id, 3, autoreset_mode=mode, max_episode_steps=3)
    theirs = gym.make_vec(
        game_id, 3, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode}, max_episode_steps=3
    )
    own.action_space.seed(0)
    mine, others = own.reset(seed=[5, 8, 2]), theirs.reset(seed=[5, 8, 2])
    cuts = 0
    for _ in range(60):
        np.testing.assert_equal(mine[:-1], others[:-1])
        said = others[-1]["_action_mask"]  # Gymnasium's has no masks of copies that were not reset
        np.testing.assert_equal(mine[-1]["action_mask"][said], others[-1]["action_mask"][said])
        ended = mine[2] | mine[3] if len(mine) == 5 else np.zeros(3, bool)
        cuts += int(ended.sum())
        if mode == AutoresetMode.DISABLED and ended.any():
            mine, others = (env.reset(options={"reset_mask": ended.copy()}) for env in (own, theirs))
        else:
            actions = own.action_space.sample()
            mine, others = own.step(actions), theirs.step(actions)
    assert cuts >= 3


def test_the_mask_of_a_truncated_episode_shows_the_legal_actions() -> None:
    """Knapsack by hand: after two items those two are gone; a game that terminated allows all."""
    settings: dict[str, Any] = {
        "items": 4,
        "weights": [1, 1, 1, 3],
        "values": [1, 2, 3, 4],
        "capacity": 4,
        "availability": 1.0,
    }
    env = gym.make_vec("mlbits/Knapsack-v0", 2, autoreset_mode="same_step", max_episode_steps=2, **settings)
    env.reset(seed=0)
    env.step(np.array([0, 0]))
    *_, terminated, truncated, info = env.step(np.array([2, 3]))
    assert (terminated.tolist(), truncated.tolist()) == ([False, True], [True, True])
    assert info["final_info"]["action_mask"].tolist() == [[0, 1, 0, 0], [1, 1, 1, 1]]
    assert info["action_mask"].tolist() == [[1, 1, 1, 1]] * 2
    for mode in ("next_step", "disabled"):
        env = gym.make_vec("mlbits/Knapsack-v0", 2, autoreset_mode=mode, max_episode_steps=2, **settings)
        env.reset(seed=0)
        env.step(np.array([0, 0]))
        *_, info = env.step(np.array([2, 3]))
        assert info["action_mask"].tolist() == [[0, 1, 0, 0], [1, 1, 1, 1]]
        env.step(np.array([2, 2]))  # nothing is played where an episode is over
        if mode == "disabled":
            _, info = env.reset(options={"reset_mask": np.array([False, True])})
            assert info["action_mask"].tolist() == [[0, 1, 0, 0], [1, 1, 1, 1]]
    one = gym.make("mlbits/Knapsack-v0", max_episode_steps=2, **settings)
    one.reset(seed=0)
    one.step(0)
    assert one.step(2)[-1]["action_mask"].tolist() == [0, 1, 0, 0]


def test_every_horizon_is_a_setting_of_that_name() -> None:
    """The registered specs find it by name."""
    for game_id in set(registered()) - OWN_LIMITS:
        if make_game(game_id).horizon is not None:
            assert "horizon" in inspect.signature(entry(game_id).load()).parameters
