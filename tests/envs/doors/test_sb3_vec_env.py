"""Stable-Baselines3 on our games: its checker on every game, and the fast door against gym.make, step for step."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.utils import get_action_masks
from stable_baselines3 import DQN, PPO, TD3
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.preprocessing import get_flattened_obs_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecNormalize

import mlbits
from mlbits.envs.core.errors import GameError, IllegalActionError
from mlbits.envs.doors.sb3_vec_env import SB3VecEnv
from tests.conformance.play import GAME_IDS, assert_same, game_of, legal_actions, one_seat, rows, settings_of

SOLO = [name for name in GAME_IDS if one_seat(name)]
every_solo = pytest.mark.parametrize("game_id", SOLO)
COPIES, STEPS, SEED = 3, 30, 11
# SB3's advice on spaces that it accepts anyway: images and action boxes with other ranges than it recommends.
ADVICE = ("CNN policy normalize", "minimal resolution", "symmetric and normalized Box", "unconventional shape")


class Flat(BaseFeaturesExtractor):
    """All keys in one flat vector, instead of SB3's convolutions, which are too large for a test game's 4 x 4 image."""

    def __init__(self, space: gym.spaces.Dict) -> None:
        super().__init__(space, sum(get_flattened_obs_dim(part) for part in space.values()))

    def forward(self, obs: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.cat([part.flatten(1) for part in obs.values()], 1)


def policy_of(space: gym.Space[Any]) -> tuple[str, dict[str, Any]]:
    if isinstance(space, gym.spaces.Dict):
        return "MultiInputPolicy", {"net_arch": [4], "features_extractor_class": Flat}
    return "MlpPolicy", {"net_arch": [4]}


@every_solo
@pytest.mark.parametrize("illegal", ["error", "replace"])
def test_stable_baselines_own_checker_passes(game_id: str, illegal: str) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        check_env(gym.make(game_id, illegal=illegal, render_mode="rgb_array"), skip_render_check=False)
    messages = [str(warning.message) for warning in said if "render" not in str(warning.message).lower()]
    assert not [message for message in messages if not any(advice in message for advice in ADVICE)]


def play(envs: Any, game_id: str, steps: int = STEPS) -> list[Any]:
    """Random legal play through an SB3 door; returns everything that it returned."""
    game, draw = game_of(game_id), np.random.default_rng(3)
    envs.seed(SEED)
    returned = [envs.reset()]
    for _ in range(steps):
        mask = np.stack(envs.env_method("action_masks")) if game.masked else None
        returned.append(envs.step(legal_actions(game, mask, (envs.num_envs,), draw)))
    return returned


@every_solo
def test_the_same_trajectories_as_dummy_vec_env_over_gym_make(game_id: str) -> None:
    fast = play(SB3VecEnv(game_of(game_id), COPIES), game_id)
    slow = play(make_vec_env(game_id, COPIES, env_kwargs=settings_of(game_id)), game_id)
    assert_same(fast[0], slow[0], "first observations")
    ends = 0
    for t, (mine, theirs) in enumerate(zip(fast[1:], slow[1:], strict=True)):
        assert_same(mine[0], theirs[0], f"step {t}: observations")
        assert (mine[1].dtype, mine[2].dtype) == (theirs[1].dtype, theirs[2].dtype) == (np.float32, np.bool_)
        assert mine[1].tolist() == theirs[1].tolist()
        assert mine[2].tolist() == theirs[2].tolist()
        for b, (info, wanted) in enumerate(zip(mine[3], theirs[3], strict=True)):
            assert info["TimeLimit.truncated"] is wanted["TimeLimit.truncated"]
            assert ("terminal_observation" in info) == ("episode" in info) == bool(mine[2][b])
            if mine[2][b]:
                ends += 1
                final = wanted["terminal_observation"]
                assert_same(info["terminal_observation"], final, f"step {t}: last observation of copy {b}")
                assert type(info["terminal_observation"]) in (type(final), np.int64)
                assert info["episode"]["l"] == wanted["episode"]["l"]
                assert info["episode"]["r"] == pytest.approx(wanted["episode"]["r"], abs=2e-6)
    assert ends or game_of(game_id).horizon is None or game_of(game_id).horizon > STEPS


def test_episodes_end_in_that_comparison_by_both_ends() -> None:
    ends = [info for step in play(SB3VecEnv(game_of("test/Point-v0"), 7), "test/Point-v0")[1:] for info in step[3]]
    assert {info["TimeLimit.truncated"] for info in ends if "episode" in info} == {True, False}


@pytest.mark.parametrize("game_id", ["mlbits/CartPole-v0", "test/Signs-v0", "test/Point-v0"])
def test_a_copys_trajectory_does_not_depend_on_the_number_of_copies(game_id: str) -> None:
    """Copy 2 of seven compared with a single copy with its seed, under the same actions."""
    game, draw = game_of(game_id), np.random.default_rng(0)
    seven, one = SB3VecEnv(game, 7, seed=5), SB3VecEnv(game, 1, seed=7)
    assert_same(rows(one.reset(), 0), rows(seven.reset(), 2), "first observation")
    for _ in range(STEPS):
        masks = seven.action_masks() if game.masked else None
        actions = legal_actions(game, masks, (7,), draw)
        mine, theirs = one.step(actions[2:3]), seven.step(actions)
        assert_same(rows(mine[0], 0), rows(theirs[0], 2), "observation")
        assert (mine[1][0], mine[2][0]) == (theirs[1][2], theirs[2][2])


@pytest.mark.parametrize("game_id", ["mlbits/CartPole-v0", "mlbits/FourRooms-v0", "test/Signs-v0"])
def test_returned_arrays_do_not_change(game_id: str) -> None:
    """SB3 keeps references, and adds to rewards in place."""
    envs = SB3VecEnv(game_of(game_id), 4, seed=0)
    returned = [envs.reset()]
    actions = np.zeros((4, *game_of(game_id).action.shape), np.int64)
    returned += [envs.step(actions) for _ in range(12)]
    kept = copy.deepcopy(returned)
    rewards = returned[-1][1].copy()
    for _ in range(12):
        envs.step(actions)[1][:] += 100
    assert (returned[-1][1] == rewards).all()
    assert_same(returned[0], kept[0], "first observations")
    for mine, theirs in zip(returned[1:], kept[1:], strict=True):
        assert_same(mine[0], theirs[0], "observations")
        assert (mine[2] == theirs[2]).all()
        assert str(mine[3]) == str(theirs[3])
    assert any("terminal_observation" in info for step in returned[1:] for info in step[3])


def changed(model: Any, steps: int) -> bool:
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    model.learn(steps)
    assert model.num_timesteps >= steps
    return any(bool((before[name] != value).any()) for name, value in model.policy.state_dict().items())


@every_solo
@pytest.mark.parametrize("door", ["fast", "gym.make"])
def test_every_game_trains_under_stable_baselines(game_id: str, door: str) -> None:
    def open_door(num_envs: int) -> Any:
        if door == "fast":
            return SB3VecEnv(game_of(game_id), num_envs, seed=0)
        return make_vec_env(game_id, num_envs, env_kwargs={"illegal": "replace", **settings_of(game_id)})

    game = game_of(game_id)
    policy, kwargs = policy_of(game.observation_space)
    common: dict[str, Any] = {"policy_kwargs": kwargs, "device": "cpu", "seed": 1}
    assert changed(PPO(policy, open_door(3), n_steps=8, batch_size=8, n_epochs=1, **common), 48)
    off_policy = {"buffer_size": 100, "learning_starts": 10, "batch_size": 8, "train_freq": 2, **common}
    if game.action.kind == "discrete":
        assert changed(DQN(policy, open_door(2), **off_policy), 40)
    elif game.action.kind == "continuous":
        assert changed(TD3(policy, open_door(2), **off_policy), 40)


@pytest.mark.parametrize("game_id", ["mlbits/Knapsack-v0", "test/Solitaire-v0", "test/Signs-v0"])
@pytest.mark.parametrize("door", ["fast", "gym.make"])
def test_maskable_ppo_finds_the_masks_and_plays_only_legal_actions(game_id: str, door: str) -> None:
    """Both doors would raise at the first illegal action."""
    game = game_of(game_id)
    if door == "fast":
        envs: Any = SB3VecEnv(game, 3, seed=0, illegal="error")
    else:
        envs = make_vec_env(game_id, 3, env_kwargs=settings_of(game_id))
    policy, kwargs = policy_of(game.observation_space)
    model = MaskablePPO(policy, envs, n_steps=32, batch_size=32, n_epochs=1, policy_kwargs=kwargs, device="cpu", seed=0)
    model.learn(192)
    obs = envs.reset()
    for _ in range(20):
        masks = get_action_masks(envs)
        assert masks.shape == (3, game.action.mask_size)
        obs = envs.step(model.predict(obs, action_masks=masks)[0])[0]


def test_masks_equal_those_of_the_batch() -> None:
    envs = mlbits.make_sb3("mlbits/Knapsack-v0", 4, seed=3)
    batch = mlbits.make_batch("mlbits/Knapsack-v0", 4, seed=[3, 4, 5, 6])
    envs.reset()
    assert batch.legal_mask is not None
    returned = envs.env_method("action_masks")[0]
    kept = returned.copy()
    for _ in range(6):
        assert (envs.action_masks() == batch.legal_mask[:, 0].numpy()).all()
        assert (envs.env_method("action_masks", indices=2)[0] == envs.action_masks()[2]).all()
        assert not envs.action_masks().all()
        actions = batch.sample_actions()
        batch.step(actions)
        envs.step(actions[:, 0].numpy())
    assert (returned == kept).all()
    assert mlbits.make_sb3("mlbits/CartPole-v0", 2).action_masks().tolist() == [[True, True]] * 2
    assert gym.make("mlbits/CartPole-v0").get_wrapper_attr("action_masks")().tolist() == [True, True]


def test_an_action_that_the_mask_forbids_is_replaced_or_refused() -> None:
    kind = mlbits.make_sb3("mlbits/Knapsack-v0", 2, seed=0)
    strict = mlbits.make_sb3("mlbits/Knapsack-v0", 2, seed=0, illegal="error")
    kind.reset(), strict.reset()
    forbidden, lowest = (~kind.action_masks()).argmax(1), kind.action_masks().argmax(1)
    with pytest.raises(IllegalActionError, match="action of copy 0, seat 0 in Knapsack"):
        strict.step(forbidden)
    mine, theirs = kind.step(forbidden), strict.step(lowest)
    assert_same(mine[0], theirs[0], "observations")
    assert mine[1].tolist() == theirs[1].tolist()


def test_evaluate_policy_reads_the_episode_returns_of_the_door() -> None:
    """Two steps to the goal at a quarter each: the return is 0.5, although VecNormalize scales the rewards."""
    settings: dict[str, Any] = {"map": "S..G", "step_cost": 0.25, "horizon": 9}

    class Right:
        def predict(self, obs: Any, **_: Any) -> tuple[Any, None]:
            return np.ones(len(obs), np.int64), None

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        returns, lengths = evaluate_policy(
            Right(), mlbits.make_sb3("mlbits/GridWorld-v0", 3, **settings), 9, return_episode_rewards=True
        )
    assert (returns, lengths) == ([0.5] * 9, [3] * 9)
    envs = VecNormalize(SB3VecEnv(mlbits.make_game("mlbits/GridWorld-v0", **settings, observation="one_hot"), 3))
    assert evaluate_policy(Right(), envs, 9, return_episode_rewards=True)[0] == [0.5] * 9


def test_seeds_are_sb3s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np.random, "randint", None)  # the global generator is not used

    def first(envs: Any) -> Any:
        return envs.reset().tolist()

    one, two = (mlbits.make_sb3("mlbits/CartPole-v0", 3, seed=seed) for seed in (4, 4))
    assert (before := first(one)) == first(two)
    assert before != first(one)  # the next episodes
    one.seed(4)
    assert before == first(one)
    assert first(mlbits.make_sb3("mlbits/CartPole-v0", 2, seed=5)) == before[1:]
    assert mlbits.make_sb3("mlbits/CartPole-v0", 3).seed(9) == [9, 10, 11]
    unseeded = [first(mlbits.make_sb3("mlbits/CartPole-v0", 3)) for _ in range(2)]
    assert unseeded[0] != unseeded[1]


def test_attributes_of_copies() -> None:
    envs = mlbits.make_sb3("mlbits/GridWorld-v0", 3, seed=0, render_mode="rgb_array")
    assert envs.get_attr("render_mode") == ["rgb_array"] * 3
    assert envs.get_attr("game", [0, 2]) == [envs.game] * 2
    envs.set_attr("level", 4, 1)
    assert envs.get_attr("level", 1) == [4]
    assert envs.get_attr("level", -2) == [4]
    assert not envs.has_attr("level")  # copies 0 and 2 have none
    assert not envs.has_attr("nonsense")
    assert envs.has_attr("action_masks")
    with pytest.raises(AttributeError, match="nonsense"):
        envs.env_method("nonsense")
    assert envs.env_is_wrapped(Monitor) == [True] * 3
    assert envs.env_is_wrapped(gym.wrappers.TimeLimit, [0]) == [False]
    assert envs.unwrapped is envs
    envs.reset()
    image = envs.get_images()[0]
    assert image is not None
    assert image.shape[2] == 3
    assert envs.render().shape[2] == 3
    text = mlbits.make_sb3("mlbits/GridWorld-v0", 2, seed=0, render_mode="ansi")
    text.reset()
    assert all(isinstance(drawn, str) for drawn in text.env_method("render"))
    envs.close()


@pytest.mark.parametrize("way", [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
@pytest.mark.parametrize("game_id", ["mlbits/Knapsack-v0", "test/Signs-v0"])
def test_a_door_can_be_copied_in_the_middle_of_an_episode(way: Any, game_id: str) -> None:
    envs = SB3VecEnv(game_of(game_id), 3, seed=2)
    envs.reset()
    envs.set_attr("level", 4)
    actions = np.zeros((3, *envs.game.action.shape), np.int64)
    envs.step(actions)
    twin = way(envs)
    theirs = [twin.step(actions) for _ in range(5)]
    mine = [envs.step(actions) for _ in range(5)]
    for a, b in zip(mine, theirs, strict=True):
        assert_same(a[0], b[0], "observations")
        assert a[1].tolist() == b[1].tolist()
    assert twin.get_attr("level") == [4] * 3
    assert (twin.action_masks() == envs.action_masks()).all()


def test_mistakes_are_refused_with_clear_errors() -> None:
    with pytest.raises(
        GameError, match=r"make_sb3: Nim has 2 seats and Stable-Baselines3 supports one; use .*make_batch"
    ):
        mlbits.make_sb3("test/Nim-v0", 2)
    with pytest.raises(GameError, match="render_mode: got 'human'; wanted None, 'rgb_array' or 'ansi'"):
        mlbits.make_sb3("mlbits/CartPole-v0", render_mode="human")
    with pytest.raises(GameError, match="num_envs: got 0; wanted an integer from 1"):
        mlbits.make_sb3("mlbits/CartPole-v0", 0)
    with pytest.raises(GameError, match="unknown setting 'hight'"):
        mlbits.make_sb3("mlbits/CartPole-v0", hight=3)
    with pytest.raises(GameError, match="illegal: got 'ignore'"):
        mlbits.make_sb3("mlbits/CartPole-v0", illegal="ignore")
    envs = mlbits.make_sb3("mlbits/CartPole-v0", 2, seed=0)
    with pytest.raises(gym.error.ResetNeeded, match="CartPole: no episode has begun; call reset"):
        envs.step(np.zeros(2, np.int64))
    envs.reset()
    for wrong in (np.zeros(3, np.int64), np.zeros((2, 1), np.int64), np.zeros(2), np.zeros(2, bool), "ab"):
        with pytest.raises(IllegalActionError, match=r"actions: got .*; wanted int64 \(2,\)"):
            envs.step(wrong)  # type: ignore[arg-type]
    with pytest.raises(IndexError):
        envs.get_attr("game", 2)


def test_importing_the_package_does_not_import_stable_baselines() -> None:
    code = "import sys, mlbits.cli; mlbits.cli.main(['list']); print('stable_baselines3' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "False"
