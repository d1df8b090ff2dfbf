"""Gymnasium's doors by hand: errors, resets of some copies, time limits, rendering."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from mlbits.envs.core.errors import GameError, IllegalActionError
from tests.games import register_test_games

register_test_games()
CORRIDOR = {"map": "S..G", "horizon": 5}
RIGHT, STAY = 1, 0


def one(**settings: Any) -> Any:
    return gym.make("mlbits/GridWorld-v0", **{**CORRIDOR, **settings}).unwrapped


def several(num_envs: int = 2, **settings: Any) -> Any:
    return gym.make_vec("mlbits/GridWorld-v0", num_envs, **{**CORRIDOR, **settings})


def test_an_episode_by_hand() -> None:
    env = one()
    assert env.reset(seed=0) == (0, {})
    for wanted in (1, 2):
        obs, reward, terminated, truncated, info = env.step(RIGHT)
        assert (obs, terminated, truncated, info) == (wanted, False, False, {})
        assert reward == pytest.approx(-0.01)
    assert env.step(RIGHT) == (3, 1.0, True, False, {})
    with pytest.raises(gym.error.ResetNeeded, match="call reset"):
        env.step(RIGHT)
    assert env.reset() == (0, {})


@pytest.mark.parametrize(
    "action", [4, -1, 2**63, 2**80, 1.0, True, None, "up", [1], np.array([1]), [[1], [1, 2]], np.float32(1)]
)
def test_bad_actions_change_nothing(action: Any) -> None:
    env = one()
    env.reset(seed=0)
    env.step(RIGHT)
    before = env._copies.states.tobytes()
    with pytest.raises(IllegalActionError, match="got"):
        env.step(action)
    assert env._copies.states.tobytes() == before
    assert env.step(RIGHT)[0] == 2


@pytest.mark.parametrize("action", [1, np.int64(1), np.int32(1), np.uint8(1), np.array(1), torch.tensor(1)])
def test_accepted_forms_of_an_action(action: Any) -> None:
    env = one()
    env.reset(seed=0)
    assert env.step(action)[0] == 1


def test_reset_is_needed_first() -> None:
    with pytest.raises(gym.error.ResetNeeded):
        one().step(STAY)
    with pytest.raises(gym.error.ResetNeeded):
        one(render_mode="ansi").render()
    with pytest.raises(gym.error.ResetNeeded):
        several().step(np.zeros(2, int))


def test_returned_masks_do_not_change() -> None:
    env = gym.make("mlbits/Knapsack-v0").unwrapped
    _, info = env.reset(seed=0)
    handed_out = [env.action_masks(), info["action_mask"]]
    before = [mask.copy() for mask in handed_out]
    env.step(env.action_space.sample())
    assert (env.action_masks() != before[0]).any()
    assert all(np.array_equal(*pair) for pair in zip(handed_out, before, strict=True))


@pytest.mark.parametrize("cut", [True, False])
def test_reset_is_needed_after_either_end(cut: bool) -> None:
    settings: dict[str, Any] = {"horizon": 1} if cut else {}
    env = gym.make("mlbits/GridWorld-v0", map="SG", **settings).unwrapped
    env.reset(seed=0)
    flags = env.step(0 if cut else 1)[2:4]
    assert flags == (not cut, cut)
    with pytest.raises(gym.error.ResetNeeded, match="the episode is over"):
        env.step(1)


def test_seeds() -> None:
    env = gym.make("mlbits/FourRooms-v0")
    starts = [env.reset(seed=seed)[0] for seed in range(20)]
    assert len(set(starts)) > 10
    assert [env.reset(seed=seed)[0] for seed in range(20)] == starts
    first = [env.reset(seed=3)[0], *(env.reset()[0] for _ in range(10))]
    assert [env.reset(seed=3)[0], *(env.reset()[0] for _ in range(10))] == first
    assert len(set(first)) > 5, "reset() without a seed continues the stream"
    unseeded = [gym.make("mlbits/FourRooms-v0").reset()[0] for _ in range(20)]
    assert len(set(unseeded)) > 1


def test_gymnasiums_time_limit_truncates_too() -> None:
    env = gym.make("mlbits/GridWorld-v0", **CORRIDOR, max_episode_steps=2)
    env.reset(seed=0)
    assert env.step(STAY)[2:4] == (False, False)
    assert env.step(STAY)[2:4] == (False, True)
    vector = several(max_episode_steps=2)
    vector.reset(seed=0)
    assert vector.step(np.zeros(2, int))[3].tolist() == [False, False]
    assert vector.step(np.zeros(2, int))[3].tolist() == [True, True]


def test_masks_come_with_every_info() -> None:
    env = gym.make("test/Solitaire-v0").unwrapped
    _, info = env.reset(seed=0)
    first = info["action_mask"]
    assert (first.dtype, first.shape) == (np.int8, (9,))
    kept = first.copy()
    _, _, _, _, info = env.step(int(first.argmax()))
    assert info["action_mask"].shape == (9,)
    assert np.array_equal(first, kept), "a returned mask does not change"
    with pytest.raises(IllegalActionError, match=r"in Solitaire: got .*; wanted one of \["):
        env.step(int(info["action_mask"].argmin()))


def test_rendering() -> None:
    env = one(render_mode="ansi")
    env.reset(seed=0)
    env.step(RIGHT)
    assert env.render() == ".A.G\n"
    with pytest.warns(UserWarning, match="render_mode="):
        assert one().render() is None
    vector = several(render_mode="ansi")
    vector.reset(seed=0)
    vector.step(np.array([RIGHT, STAY]))
    assert vector.render() == (".A.G\n", "A..G\n")
    with pytest.warns(UserWarning, match="render_mode="):
        assert several().render() is None
    for mode in ("human", "rgb_array_list", "none"):
        with pytest.raises(GameError, match=f"render_mode: got '{mode}'"):
            several(render_mode=mode)
    with pytest.warns(UserWarning, match="render_mode='none'"), pytest.raises(GameError, match="render_mode: got"):
        one(render_mode="none")


def test_metadata() -> None:
    assert one().metadata == {"render_modes": ["rgb_array", "ansi"], "render_fps": 8}
    assert several().metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP, "Gymnasium's own default"


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, "SAME_STEP", "same_step", "SameStep"])
def test_names_of_autoreset_modes(mode: Any) -> None:
    assert several(autoreset_mode=mode).metadata["autoreset_mode"] == AutoresetMode.SAME_STEP


def test_an_unknown_autoreset_mode() -> None:
    with pytest.raises(GameError, match="autoreset_mode: got 'sometimes'; wanted one of NEXT_STEP"):
        several(autoreset_mode="sometimes")


def test_final_observations_under_same_step() -> None:
    env = several(autoreset_mode="same_step")
    env.reset(seed=0)
    for _ in range(3):
        obs, reward, terminated, truncated, info = env.step(np.array([RIGHT, STAY]))
    assert (obs.tolist(), reward[0], terminated.tolist(), truncated.tolist()) == (
        [0, 0],
        1.0,
        [True, False],
        [False] * 2,
    )
    assert info["final_obs"][0] == 3
    assert info["_final_obs"].tolist() == [True, False]
    assert "final_obs" not in env.step(np.array([RIGHT, STAY]))[4]


def test_reset_mask() -> None:
    env = gym.make_vec("mlbits/FourRooms-v0", 3, autoreset_mode="disabled")
    for seed in (2, [5, 6, 7]):
        first, _ = env.reset(seed=1)
        keys = env._copies.states["rng_key"].copy()
        obs, _ = env.reset(seed=seed, options={"reset_mask": np.array([False, True, False])})
        assert obs[[0, 2]].tolist() == first[[0, 2]].tolist()
        changed = env._copies.states["rng_key"] != keys
        assert changed.tolist() == [False, True, False], "copies that are not reset keep their streams"
    for bad in (np.array([1, 0, 0]), np.array([True]), [[True, False, True]]):
        with pytest.raises(GameError, match="reset_mask: got"):
            env.reset(options={"reset_mask": bad})


def test_seeds_of_a_vector_environment() -> None:
    def start_of(seed: int) -> int:
        return gym.make("mlbits/FourRooms-v0").reset(seed=seed)[0]

    env = gym.make_vec("mlbits/FourRooms-v0", 3)
    assert env.reset(seed=[4, 9, 4])[0].tolist() == [start_of(4), start_of(9), start_of(4)]
    assert env.reset(seed=np.int64(4))[0].tolist() == env.reset(seed=4)[0].tolist()
    assert env.reset(seed=4)[0][0] == start_of(4)
    env.reset(seed=[4, None, 4])
    with pytest.raises(ValueError, match="2 seeds for 3 copies"):
        env.reset(seed=[1, 2])


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.zeros(3, int), r"got int64 \(3,\); wanted int64 \(2,\)"),
        (np.zeros((2, 1), int), r"got int64 \(2, 1\)"),
        (np.zeros(2), r"got float64 \(2,\)"),
        (np.zeros(2, bool), r"got bool \(2,\)"),
        (np.array([0, 4]), "copy 1, seat 0 in GridWorld: got 4"),
    ],
)
def test_bad_actions_of_a_vector_environment(actions: Any, message: str) -> None:
    env = several()
    env.reset(seed=0)
    with pytest.raises(IllegalActionError, match=message):
        env.step(actions)
    assert env._copies.states["elapsed"].tolist() == [0, 0]


def test_copy_false_returns_the_memory_itself() -> None:
    env = gym.make_vec("mlbits/GridWorld-v0", 2, observation="one_hot", copy=False, **CORRIDOR)
    first, _ = env.reset(seed=0)
    second = env.step(np.array([RIGHT, RIGHT]))[0]
    assert np.shares_memory(first, second)
    env = gym.make_vec("mlbits/GridWorld-v0", 2, observation="one_hot", **CORRIDOR)
    first, _ = env.reset(seed=0)
    assert not np.shares_memory(first, env.step(np.array([RIGHT, RIGHT]))[0])
    assert first.tolist() == [[1, 0, 0, 0]] * 2


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("game_id", ["mlbits/GridWorld-v0", "test/Solitaire-v0", "test/Signs-v0"])
def test_gymnasiums_vector_environments_of_single_copies(mode: str, game_id: str) -> None:
    own = gym.make_vec(game_id, 2, autoreset_mode="next_step")
    theirs = gym.make_vec(game_id, 2, vectorization_mode=mode)
    own.action_space.seed(0)
    mine, others = own.reset(seed=[5, 8]), theirs.reset(seed=[5, 8])
    for _ in range(10):
        np.testing.assert_equal(mine[:-1], others[:-1])
        np.testing.assert_equal(mine[-1].get("action_mask"), others[-1].get("action_mask"))
        actions = own.action_space.sample()
        mine, others = own.step(actions), theirs.step(actions)
    theirs.close()


def test_two_envs_of_one_id_share_nothing() -> None:
    a, b = one(), one()
    a.reset(seed=0)
    b.reset(seed=0)
    a.step(RIGHT)
    assert b.step(STAY)[0] == 0
    assert a.action_space is not b.action_space
