"""Atari: the usual preprocessing, lives and FIRE, clipped rewards in training and scores in evaluation."""

import json
from dataclasses import asdict

import gymnasium as gym
import numpy as np
import pytest
import torch

from mlbits.agents.bots.random_bot import RandomAgent
from mlbits.envs.core.errors import GameError
from mlbits.envs.doors.atari import AtariSettings
from mlbits.envs.doors.gymnasium_batch import open_batch
from mlbits.evals.evaluate import evaluate_run
from mlbits.selfplay.episodes import play_episodes
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.training import train
from tests.test_docs import ENVIRONMENTS, section, table

PONG, BREAKOUT, INVADERS = "ALE/Pong-v5", "ALE/Breakout-v5", "ALE/SpaceInvaders-v5"


def lives(batch):
    return batch.envs[0].unwrapped.ale.lives()


def idle(batch):
    """One no-op step in every copy."""
    return batch.step(torch.zeros(batch.num_envs, 1, dtype=torch.int64))


def test_frames_are_grey_small_and_stacked():
    batch = open_batch(PONG, 2, seed=4)
    assert batch.observation_space == gym.spaces.Box(0, 255, (4, 84, 84), np.uint8)
    assert batch.obs.dtype == torch.uint8
    assert batch.horizon == 108_000 / 4
    assert (batch.obs[:, :, 0] == batch.obs[:, :, 3]).all()  # at the start all are the first
    for _ in range(40):
        before = batch.obs.clone()
        after = batch.step(batch.sample_actions()).obs
        assert torch.equal(after[:, :, :3], before[:, :, 1:])
    assert not torch.equal(after[:, :, 3], after[:, :, 0])


def test_an_action_lasts_four_frames_of_the_emulator():
    batch = open_batch(PONG, 1)
    clock = batch.envs[0].unwrapped.ale.getEpisodeFrameNumber
    before = clock()
    idle(batch)
    assert clock() == before + 4
    slow = open_batch(PONG, 1, settings={"frame_skip": 2, "frame_stack": 1, "screen_size": 42})
    assert slow.obs.shape == (1, 1, 42, 42)
    before = slow.envs[0].unwrapped.ale.getEpisodeFrameNumber()
    idle(slow)
    assert slow.envs[0].unwrapped.ale.getEpisodeFrameNumber() == before + 2
    assert slow.horizon == 108_000 / 2


def test_the_seed_decides():
    one, two, other = (open_batch(PONG, 1, seed=seed) for seed in (7, 7, 8))
    different = False
    for k in range(60):
        action = torch.tensor([[k % 6]])
        first, second, third = (batch.step(action).obs for batch in (one, two, other))
        assert torch.equal(first, second)
        different |= not torch.equal(first, third)
    assert different


def test_a_lost_life_ends_an_episode_in_training_and_the_game_continues():
    batch = open_batch(BREAKOUT, 1, training=True)
    left = []
    while len(left) < 6:
        step = idle(batch)  # FIRE is pressed automatically, or no ball would ever be lost
        assert not step.truncated.any()
        if step.terminated[0]:
            left.append(lives(batch))
    assert left == [4, 3, 2, 1, 5, 4]  # the fifth end is that of the game, and the next game starts


def test_an_episode_in_evaluation_is_the_whole_game():
    batch = open_batch(BREAKOUT, 1)
    seen = [lives(batch)]
    for _ in range(2000):
        step = idle(batch)
        if step.terminated[0]:
            break
        if lives(batch) != seen[-1]:
            seen.append(lives(batch))
    assert step.terminated[0]
    assert seen == [5, 4, 3, 2, 1]
    kept = open_batch(BREAKOUT, 1, training=True, settings={"terminal_on_life_loss": False})
    for _ in range(60):
        assert not idle(kept).terminated[0]
    assert lives(kept) < 5


def test_training_gets_the_sign_of_the_reward_and_evaluation_the_score():
    """With the same seed and actions, trajectories are equal up to the first lost life."""
    clipped, full, scored = (
        open_batch(INVADERS, 1, seed=3, training=training, settings=settings)
        for training, settings in ((True, {}), (True, {"clip_reward": False}), (False, {}))
    )
    draw, rewards = np.random.default_rng(0), []
    for _ in range(150):
        action = torch.from_numpy(draw.integers(0, 6, (1, 1)))
        steps = [batch.step(action) for batch in (clipped, full, scored)]
        rewards.append([float(step.reward[0, 0]) for step in steps])
        if steps[0].terminated[0]:
            break
    sign, plain, score = np.array(rewards).T
    assert score.max() >= 5
    np.testing.assert_array_equal(plain, score)
    np.testing.assert_array_equal(sign, np.sign(score))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frame_stack": 0}, r"^ALE/Pong-v5: frame_stack: got 0; wanted an integer from 1 to 100$"),
        ({"clip_reward": 1}, r"^ALE/Pong-v5: clip_reward: got 1; wanted True or False$"),
        ({"noop_max": -1}, "noop_max: got -1"),
        ({"frame_skip": 2.0}, "frame_skip: got 2.0"),
        ({"frame_stak": 2}, "^ALE/Pong-v5: cannot be made with the settings .*frame_stak"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(GameError, match=message):
        open_batch(PONG, 1, settings=settings)


def test_the_docs_list_every_setting_with_its_default():
    listed = table(section(ENVIRONMENTS, "Any Gymnasium environment"), "Atari setting")
    assert {name: json.loads(cell.strip("`")) for name, cell in listed.items()} == asdict(AtariSettings())


def test_without_preprocessing_it_is_gymnasiums_own():
    batch = open_batch(PONG, 1, settings={"preprocess": False, "obs_type": "ram"})
    assert batch.obs.shape == (1, 1, 128)
    env = gym.make(PONG, obs_type="ram")
    obs, _ = env.reset(seed=0)
    assert np.array_equal(batch.reset(seed=0)[0, 0].numpy(), obs)
    assert np.array_equal(idle(batch).obs[0, 0].numpy(), env.step(0)[0])


def test_long_games_are_played_to_their_end():
    batch = open_batch(PONG, 1)
    played = play_episodes(RandomAgent(batch.observation_space, batch.action_space), PONG, 1, seed=0, max_frames=2)
    assert played.cut == 0
    assert -21 <= played.returns[0, 0] <= -15  # a random player loses 21 points and makes few
    assert [frame.shape for frame in played.frames] == [(210, 160, 3)] * 2


def test_ppo_trains_and_is_evaluated(tmp_path):
    run = {"total_steps": 32, "num_envs": 2, "eval_episodes": 1, "video": False}
    settings = {"max_num_frames_per_episode": 200}
    chosen = resolve(
        "ppo", PONG, run=run, agent_settings={"num_steps": 8, "hidden": [8], "epochs": 1}, env_settings=settings
    )
    folder, summary = train(chosen, tmp_path / "run", console=False)
    assert summary["env_steps"] == 32
    assert -21 <= evaluate_run(folder, 1)["return_mean"] <= 0
