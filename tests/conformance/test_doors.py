"""Every registered game through every door: the libraries' own checkers, and equal trajectories through all doors."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pettingzoo
import pytest
from gymnasium.utils.env_checker import check_env
from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test

from mlbits.envs.core.errors import GameError
from tests.conformance.play import (
    COPIES,
    GAME_IDS,
    SEED,
    STEPS,
    assert_same,
    assert_same_play,
    batch_door,
    batch_of,
    follow_aec,
    game_of,
    one_seat,
    play_copies,
    play_gymnasium,
    play_parallel,
    script_of,
    settings_of,
    vector_door,
)

AUTORESETS = ("same_step", "next_step", "disabled")
every_game = pytest.mark.parametrize("game_id", GAME_IDS)
every_solo = pytest.mark.parametrize("game_id", [name for name in GAME_IDS if one_seat(name)])
several_seats = pytest.mark.parametrize("game_id", [name for name in GAME_IDS if not one_seat(name)])
every_autoreset = pytest.mark.parametrize("autoreset", AUTORESETS)


@pytest.mark.parametrize("game_id", [name for name in GAME_IDS if settings_of(name)])  # games with a time limit
def test_episodes_end_within_the_script(game_id: str) -> None:
    ends = sum(step.terminated or step.truncated for step in script_of(game_id).play[0][:STEPS])
    assert ends >= 1, "nothing below would see an episode end"


@every_game
@every_autoreset
@pytest.mark.parametrize("num_envs", [1, COPIES])
def test_batch_plays_equally_under_every_autoreset(game_id: str, autoreset: str, num_envs: int) -> None:
    script = script_of(game_id)
    play = play_copies(batch_door(batch_of(game_id, num_envs, autoreset=autoreset)), autoreset, script, num_envs)
    for b in range(num_envs):
        assert_same_play(play[b], script.play[b], f"copy {b}")


@every_solo
@every_autoreset
@pytest.mark.parametrize("num_envs", [1, COPIES])
def test_make_vec_plays_like_the_batch(game_id: str, autoreset: str, num_envs: int) -> None:
    script = script_of(game_id)
    kwargs = {"autoreset_mode": autoreset, **settings_of(game_id)}
    env = gym.make_vec(game_id, num_envs, **kwargs)
    assert env.metadata["autoreset_mode"].name.lower() == autoreset
    play = play_copies(vector_door(env), autoreset, script, num_envs)
    for b in range(num_envs):
        assert_same_play(play[b], script.play[b], f"copy {b}")


@every_solo
def test_make_vec_returns_members_of_its_spaces(game_id: str) -> None:
    env = gym.make_vec(game_id, 3, autoreset_mode="same_step", **settings_of(game_id))
    script = script_of(game_id)
    obs, _ = env.reset(seed=SEED)
    kept = []
    for t in range(STEPS):
        assert obs in env.observation_space
        actions = script.actions[t, :3, 0]
        assert actions.astype(env.action_space.dtype) in env.action_space
        obs, reward, terminated, truncated, info = env.step(actions)
        assert (reward.dtype, terminated.dtype, truncated.dtype) == (np.float32, bool, bool)
        assert reward.shape == terminated.shape == truncated.shape == (3,)
        if (terminated | truncated).any():
            assert info["final_obs"] in env.observation_space
            assert np.array_equal(info["_final_obs"], terminated | truncated)
        kept.append((obs, _copied(obs)))
    for returned, copied in kept:
        assert_same(returned, copied, "an observation changed after it was returned")


def _copied(obs: Any) -> Any:
    return {key: part.copy() for key, part in obs.items()} if isinstance(obs, dict) else obs.copy()


@every_solo
def test_gym_make_plays_like_copy_0(game_id: str) -> None:
    script = script_of(game_id)
    assert_same_play(play_gymnasium(gym.make(game_id, **settings_of(game_id)), script), script.play[0], "gym.make")


@every_game
def test_pettingzoo_parallel_plays_like_copy_0(game_id: str) -> None:
    script = script_of(game_id)
    env = pettingzoo.make("parallel", game_id, **settings_of(game_id))
    assert_same_play(play_parallel(env, script), script.play[0], "parallel")


@every_game
def test_pettingzoo_aec_plays_like_copy_0(game_id: str) -> None:
    follow_aec(pettingzoo.make("aec", game_id, **settings_of(game_id)), script_of(game_id))


@every_solo
def test_gymnasium_check_env(game_id: str) -> None:
    # The checker plays actions sampled before a reset, which may be illegal after it.
    env = gym.make(game_id, render_mode="rgb_array", illegal="replace", **settings_of(game_id)).unwrapped
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        check_env(env)
    # Advice on a game's own choices: unbounded observations, actions in physical units.
    advice = ("infinity", "symmetric and normalized")
    wrong = [text for text in (str(warning.message) for warning in said) if not any(part in text for part in advice)]
    assert wrong == []


@every_solo
def test_gymnasium_action_spaces_draw_legal_actions(game_id: str) -> None:
    env = gym.make(game_id, **settings_of(game_id))
    vector = gym.make_vec(game_id, 3, **settings_of(game_id))
    env.action_space.seed(0)
    vector.action_space.seed(0)
    env.reset(seed=SEED)
    vector.reset(seed=SEED)
    for _ in range(STEPS):
        _, _, terminated, truncated, info = env.step(env.action_space.sample())  # would raise
        if terminated or truncated:
            _, info = env.reset()
        if "action_mask" in info and game_of(game_id).action.kind == "discrete":
            assert info["action_mask"][env.action_space.sample(mask=info["action_mask"])]
        vector.step(vector.action_space.sample())
    assert env.action_space == game_of(game_id).action_space


@several_seats
def test_gymnasium_doors_name_the_right_one(game_id: str) -> None:
    with pytest.raises(GameError, match="pettingzoo"):
        gym.make(game_id)
    with pytest.raises(GameError, match="make_batch"):
        gym.make_vec(game_id, 2)


@every_game
@pytest.mark.filterwarnings("ignore::UserWarning:pettingzoo")
def test_pettingzoo_checkers(game_id: str) -> None:
    parallel_seed_test(lambda: pettingzoo.make("parallel", game_id, **settings_of(game_id)), num_cycles=30)
    parallel_api_test(pettingzoo.make("parallel", game_id, **settings_of(game_id)), num_cycles=30)
    api_test(pettingzoo.make("aec", game_id, **settings_of(game_id)), num_cycles=30)


@every_game
def test_pettingzoo_trajectories_are_determined_by_the_seed(game_id: str) -> None:
    """PettingZoo's own parallel_seed_test stops after one step; this test covers several episodes."""
    plays = []
    for _ in range(2):
        env = pettingzoo.make("parallel", game_id, **settings_of(game_id))
        observations, _ = env.reset(seed=3)
        for number, agent in enumerate(env.possible_agents):
            env.action_space(agent).seed(number)
        play, episodes = [], 0
        while episodes < 3:
            actions = {}
            for agent in env.agents:
                mask = observations[agent]["action_mask"] if env.unwrapped.game.masked else None
                actions[agent] = env.action_space(agent).sample(mask)
            observations, *rest = env.step(actions)
            play.append(([np.asarray(action) for action in actions.values()], observations, rest))
            if not env.agents:
                episodes += 1
                observations, _ = env.reset()
        plays.append(play)
    for first, second in zip(*plays, strict=True):
        np.testing.assert_equal(first, second)


@every_game
def test_spaces_are_one_object_per_agent(game_id: str) -> None:
    for kind in ("parallel", "aec"):
        env = pettingzoo.make(kind, game_id)
        spaces = [env.action_space(agent) for agent in env.possible_agents]
        assert all(env.action_space(agent) is space for agent, space in zip(env.possible_agents, spaces, strict=True))
        assert len({id(space) for space in spaces}) == len(spaces)


@every_game
def test_rendering(game_id: str) -> None:
    game = game_of(game_id)
    pictures = []
    for kind in ("parallel", "aec"):
        env = pettingzoo.make(kind, game_id, render_mode="rgb_array", **settings_of(game_id))
        env.reset(seed=SEED)
        pictures.append(env.render())
        env.close()
        env = pettingzoo.make(kind, game_id, render_mode="ansi", **settings_of(game_id))
        env.reset(seed=SEED)
        assert isinstance(env.render(), str)
    batch = batch_of(game_id, 2)
    pictures += [batch.render()]
    assert isinstance(batch.render("ansi", copy=1), str)
    if game.seats == 1:
        env = gym.make(game_id, render_mode="rgb_array", **settings_of(game_id))
        env.reset(seed=SEED)
        vector = gym.make_vec(game_id, 2, render_mode="rgb_array", **settings_of(game_id))
        vector.reset(seed=SEED)
        pictures += [env.render(), vector.render()[0]]
    for picture in pictures:
        assert picture.dtype == np.uint8
        assert picture.ndim == 3 and picture.shape[2] == 3
        assert np.array_equal(picture, pictures[0])
