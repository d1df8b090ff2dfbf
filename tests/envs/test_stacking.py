"""Frame stacks: the last K observations of the same trajectory, through every door, across ends, in saved states."""

from copy import deepcopy

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

import mlbits
from mlbits.envs.core.errors import GameError
from mlbits.envs.core.stacking import FrameStack, axis_of_frames, stacked_arrays, stacked_space
from mlbits.envs.doors.gymnasium_batch import open_batch
from mlbits.envs.engine.gpu_copies import compile_to_ptx
from tests.games import register_test_games

register_test_games()
K = 3


def stacks(plain, since, t):
    """The last K rows of observations up to time t, none before ``since``, where the episode began."""
    return torch.stack([plain[max(since, t - k)] for k in reversed(range(K))])


@pytest.mark.parametrize(
    ("game_id", "settings"),
    [
        ("mlbits/CartPole-v0", {"horizon": 9}),
        ("mlbits/TMaze-v0", {"length": 3, "horizon": 8}),
        ("test/Nim-v0", {}),
    ],
)
def test_a_stack_is_the_last_observations_of_the_same_trajectory(game_id, settings):
    one = mlbits.make_batch(game_id, 5, seed=2, **settings)
    many = mlbits.make_batch(game_id, 5, seed=2, frame_stack=K, **settings)
    assert many.obs.shape[2:3] == (K,)
    seen, since = [one.obs.clone()], torch.zeros(5, dtype=torch.int64)
    ended = 0
    for t in range(1, 30):
        actions = one.sample_actions()
        a, b = one.step(actions), many.step(actions)
        assert torch.equal(a.reward, b.reward)
        ends = a.terminated | a.truncated
        for copy in range(5):
            if ends[copy]:
                final = [*(obs[copy] for obs in seen), a.final_obs[copy]]
                assert torch.equal(
                    b.final_obs[copy].flatten(1), stacks(final, since[copy], t).transpose(0, 1).flatten(1)
                )
                since[copy] = t
                ended += 1
        seen.append(a.obs.clone())
        for copy in range(5):
            wanted = stacks([obs[copy] for obs in seen], since[copy], t).transpose(0, 1)
            assert torch.equal(many.obs[copy].flatten(1), wanted.flatten(1))
    assert ended > 3


def test_saved_states_hold_the_stack_and_are_checked():
    batch = mlbits.make_batch("mlbits/TMaze-v0", 4, seed=1, frame_stack=K)
    for _ in range(3):
        batch.step(torch.ones(4, dtype=torch.int64))
    shown, state = batch.obs.clone(), batch.state()
    batch.reset(seed=9)
    assert torch.equal(batch.set_state(state), shown)
    records = batch.records()
    records["frames"][2] = 4
    with pytest.raises(GameError, match="frames"):
        batch.set_state(records)


@pytest.mark.slow
def test_every_door_has_the_setting():
    env = gym.make("mlbits/CartPole-v0", frame_stack=4)
    obs, _ = env.reset(seed=0)
    assert obs.shape == env.observation_space.shape == (4, 4)
    assert np.array_equal(obs[0], obs[3])
    moved = env.step(1)[0]
    assert np.array_equal(moved[2], obs[3])
    assert not np.array_equal(moved[3], obs[3])
    wrapped = open_batch("CartPole-v1", 2, settings={"frame_stack": 4})
    assert tuple(wrapped.obs.shape) == (2, 1, 4, 4)
    assert isinstance(wrapped.envs[0], FrameStack)
    vector = gym.make_vec("mlbits/TMaze-v0", 2, frame_stack=4)
    assert vector.single_observation_space == spaces.MultiDiscrete([4] * 4)


def test_a_wrapped_environment_stacks_as_gymnasium_does():
    ours = FrameStack(gym.make("CartPole-v1"), 4)
    theirs = gym.wrappers.FrameStackObservation(gym.make("CartPole-v1"), 4)
    assert ours.observation_space == theirs.observation_space
    assert np.array_equal(ours.reset(seed=3)[0], theirs.reset(seed=3)[0])
    for t in range(40):
        one, two = ours.step(t % 2), theirs.step(t % 2)
        assert np.array_equal(one[0], two[0])
        assert one[1:4] == two[1:4]
        if one[2]:
            assert np.array_equal(ours.reset(seed=t)[0], theirs.reset(seed=t)[0])


@pytest.mark.slow
def test_images_are_stacked_along_their_channels():
    first, last = spaces.Box(0, 1, (2, 8, 8)), spaces.Box(0, 255, (8, 8, 3), np.uint8)
    assert stacked_space(first, 4).shape == (8, 8, 8)
    assert stacked_space(last, 4).shape == (12, 8, 8)
    frames = [last.sample() for _ in range(4)]
    assert np.array_equal(stacked_arrays(frames, last)[4], frames[1][:, :, 1])
    batch = mlbits.make_batch("mlbits/GridWorld-v0", 1, seed=0, frame_stack=2, observation="planes")
    plain = mlbits.make_batch("mlbits/GridWorld-v0", 1, seed=0, observation="planes")
    before = plain.obs.clone()
    moves = torch.tensor([1])
    after = plain.step(moves).obs
    batch.step(moves)
    assert not torch.equal(before, after)
    assert torch.equal(batch.obs[0, 0], torch.cat([before[0, 0], after[0, 0]]))


@pytest.mark.slow
def test_a_stack_is_compiled_for_a_gpu():
    assert ".visible .entry" in compile_to_ptx(mlbits.make_game("mlbits/CartPole-v0", frame_stack=K), (9, 0))


def test_one_frame_changes_nothing():
    assert mlbits.make_game("mlbits/TMaze-v0", frame_stack=1).observation_space == spaces.Discrete(4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frame_stack": 0}, "frame_stack: got 0; wanted an integer from 1 to 1000"),
        ({"frame_stack": 2.0}, "frame_stack: got 2.0"),
        ({"frame_stack": 2, "length": 0}, "length: got 0"),
    ],
)
def test_bad_numbers_are_refused(settings, message):
    with pytest.raises(GameError, match=message):
        mlbits.make_game("mlbits/TMaze-v0", **settings)
    with pytest.raises(GameError, match=r"frame_stack: got the observation space Dict.*; wanted one array, not a Dict"):
        mlbits.make_game("test/Signs-v0", frame_stack=2)


def test_a_wrapped_batch_ends_and_resumes_with_its_stacks():
    def opened():
        return open_batch("CartPole-v1", 2, seed=5, settings={"frame_stack": K}, recorded=True)

    batch, ended, since = opened(), 0, torch.zeros(2, dtype=torch.int64)
    seen = [batch.obs[:, 0, -1].clone()]
    for t in range(1, 60):
        step = batch.step(torch.ones(2, 1, dtype=torch.int64) * (t % 3 == 0))
        for copy in np.flatnonzero(step.terminated.numpy()).tolist():
            final = [*(rows[copy] for rows in seen), step.final_obs[copy, 0, -1]]
            assert torch.equal(step.final_obs[copy, 0], stacks(final, since[copy], t))
            assert torch.equal(step.obs[copy, 0, 0], step.obs[copy, 0, -1])  # a new episode
            since[copy], ended = t, ended + 1
        seen.append(step.obs[:, 0, -1].clone())
    assert ended > 2
    again = opened()
    again.load_state_dict(batch.state_dict(), lambda text: None)
    assert torch.equal(again.obs, batch.obs)
    more = torch.ones(2, 1, dtype=torch.int64)
    assert torch.equal(again.step(more).obs, batch.step(more).obs)


def test_a_wrapped_environment_names_the_setting():
    with pytest.raises(GameError, match="CartPole-v1: frame_stack: got 0; wanted an integer from 1 to 1000"):
        open_batch("CartPole-v1", 1, settings={"frame_stack": 0})


@pytest.mark.parametrize(
    ("space", "wanted"),
    [
        (spaces.Discrete(5), K),
        (spaces.Box(-1, 1, (2,)), K),
        (spaces.Box(0, 255, (7, 6), np.uint8), K),
        (spaces.Box(0, 255, (1, 7, 6), np.uint8), K),
        (spaces.Box(0, 255, (7, 6, 1), np.uint8), K),
        (spaces.Box(0, 255, (7, 6, 3), np.uint8), 1),
        (spaces.Box(0, 255, (2, 7, 6), np.uint8), 1),
    ],
)
def test_whether_the_first_axis_is_the_frames(space, wanted):
    assert axis_of_frames(stacked_space(space, K), K) == wanted


def test_batches_say_how_many_frames_they_stack():
    assert mlbits.make_batch("mlbits/CartPole-v0", 1).frame_stack == 1
    batch = mlbits.make_batch("mlbits/CartPole-v0", 1, frame_stack=K)
    assert batch.frame_stack == deepcopy(batch).frame_stack == K
