"""DelayedChain: only the first action counts, length and correct action are fixed, and bad settings."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import mlbits
from mlbits.envs.core.errors import GameError

ID = "mlbits/DelayedChain-v0"


def play(batch, actions):
    """Observations, rewards and terminations of copy 0."""
    steps = []
    for action in actions:
        step = batch.step(torch.full((batch.num_envs,), action))
        steps.append(
            (
                step.obs[0, 0].clone(),
                float(step.reward[0, 0]),
                bool(step.terminated[0]),
                bool(step.truncated[0]),
            )
        )
    return steps


@pytest.mark.parametrize("correct", [0, 1])
@pytest.mark.parametrize("first", [0, 1])
def test_the_first_action_alone_decides_the_reward_of_the_last_step(correct, first):
    batch = mlbits.make_batch(ID, 1, length=5, correct_action=correct, autoreset="disabled")
    assert int(batch.obs[0, 0]) == 0
    later = [1, 0, 1, 1]
    steps = play(batch, [first, *later])
    # M = 5: branch 0 is 1..5, branch 1 is 6..10.
    assert [int(obs) for obs, *_ in steps] == [5 * first + position for position in range(1, 6)]
    assert [reward for _, reward, *_ in steps] == [0, 0, 0, 0, 1.0 if first == correct else -1.0]
    assert [ended for *_, ended, _ in steps] == [False] * 4 + [True]
    assert not any(cut for *_, cut in steps)
    assert batch.game.observation_space.n == 11


def test_length_and_correct_action_stay_the_same_over_episodes():
    batch = mlbits.make_batch(ID, 1, length=(2, 6), instance_seed=3)
    length, correct = batch.game.layout["length"], batch.game.layout["correct_action"]
    rng = np.random.default_rng(0)
    for _ in range(20):
        actions = rng.integers(2, size=length)
        steps = play(batch, actions.tolist())
        assert [ended for *_, ended, _ in steps] == [False] * (length - 1) + [True]
        assert steps[-1][1] == (1.0 if actions[0] == correct else -1.0)


def test_instances_cover_all_lengths_and_both_actions_evenly():
    drawn = [mlbits.make_game(ID, length=(5, 30), instance_seed=seed) for seed in range(520)]
    lengths = np.bincount([game.layout["length"] for game in drawn], minlength=31)
    assert lengths[:5].sum() == 0
    assert len(lengths) == 31
    assert lengths[5:].min() >= 5  # 20 expected of each of 26
    assert lengths[5:].max() <= 45
    assert 200 < sum(game.layout["correct_action"] for game in drawn) < 320


def test_chains_of_different_length_share_a_batch():
    batch = mlbits.make_batch(
        ID, 2, length=(1, 9), correct_action=1, settings_per_copy=[{"instance_seed": s} for s in (0, 1)]
    )
    lengths = [mlbits.make_game(ID, length=(1, 9), instance_seed=s).layout["length"] for s in (0, 1)]
    assert lengths[0] != lengths[1]
    ended = [[], []]
    for t in range(1, 10):
        terminated = batch.step(torch.ones(2, dtype=torch.int64)).terminated
        for b in range(2):
            if terminated[b]:
                ended[b].append(t)
    assert [first[0] for first in ended] == lengths


def test_noise_is_a_fair_sign_in_every_step_but_the_last():
    batch = mlbits.make_batch(ID, 10_000, length=3, noisy=True, correct_action=0, seed=1)
    for _ in range(2):
        reward = batch.step(torch.zeros(10_000, dtype=torch.int64)).reward
        assert torch.all(reward.abs() == 1)
        assert abs(float(reward.mean())) < 5 / np.sqrt(10_000)
    assert torch.all(batch.step(torch.zeros(10_000, dtype=torch.int64)).reward == 1)


def test_distraction_shows_two_relevant_bits_among_twenty_coins():
    batch = mlbits.make_batch(ID, 5000, length=4, observation="distraction", seed=2, autoreset="disabled")
    assert batch.obs.shape == (5000, 1, 22)
    assert batch.obs[:, 0, :2].tolist() == [[1, 0]] * 5000
    assert abs(float(batch.obs[:, 0, 2:].float().mean()) - 0.5) < 5 * 0.5 / np.sqrt(100_000)
    before = batch.obs[:, 0, 2:].clone()
    for action in (1, 0, 0, 1):  # after the last step, too
        obs = batch.step(torch.full((5000,), action)).obs[:, 0]
        assert obs[:, :2].tolist() == [[0, 1]] * 5000
        coins = obs[:, 2:].float()
        assert (coins.mean(0) - 0.5).abs().max() < 5 * 0.5 / np.sqrt(5000)
        assert abs(float((obs[:, 2:] != before).float().mean()) - 0.5) < 5 * 0.5 / np.sqrt(100_000)
        before = obs[:, 2:].clone()
    assert np.abs(np.corrcoef(before.numpy().T) - np.eye(20)).max() < 0.1


def test_refreshing_observations_does_not_toss_the_coins_again():
    batch = mlbits.make_batch(ID, 3, observation="distraction")
    before = batch.obs.clone()
    assert torch.equal(batch.set_state(batch.state()), before)


def test_gymnasiums_checker_on_distraction():
    check_env(gym.make(ID, observation="distraction", noisy=True).unwrapped)


def test_the_pictures():
    batch = mlbits.make_batch(ID, 1, length=4, correct_action=1, autoreset="disabled")
    assert batch.render("ansi") == "action 0: A.... -1\naction 1: A.... +1\n"
    play(batch, [1, 0])
    assert batch.render("ansi") == "action 0: o.... -1\naction 1: o.A.. +1\n"
    long = mlbits.make_batch(ID, 1, length=1000)
    assert long.render().shape[1] < 1000
    assert mlbits.make_batch(ID, 1, length=1).render().dtype == np.uint8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 0}, "length: got 0; wanted an integer from 1 to 1000"),
        ({"length": (5, 3)}, "length: got .5, 3.; wanted the lowest first"),
        ({"length": (5, 3, 4)}, "length: got .5, 3, 4.; wanted one number or a pair"),
        ({"length": (0, 3)}, r"length\[0\]: got 0"),
        ({"length": (1, 10**6)}, r"length\[1\]: got 1000000"),
        ({"length": float("nan")}, "length: got nan"),
        ({"noisy": "yes"}, "noisy: got 'yes'; wanted True or False"),
        ({"observation": "bits"}, "observation: got 'bits'; wanted one of 'index', 'distraction'"),
        ({"correct_action": 2}, "correct_action: got 2; wanted an integer from 0 to 1"),
        ({"instance_seed": 1.5}, "instance_seed: got 1.5"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(GameError, match=message):
        mlbits.make_game(ID, **settings)
