"""Bandit: rewards of arms, fixed and redrawn means, observations, and bad settings."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import mlbits
from mlbits.envs.core.errors import GameError

ID = "mlbits/Bandit-v0"


def pull(batch, arm):
    return batch.step(torch.full((batch.num_envs,), arm))


def test_an_arm_without_noise_pays_its_mean():
    batch = mlbits.make_batch(ID, 3, means=[0.0, 3.0, -1.5], reward_std=0.0)
    for arm, mean in enumerate([0.0, 3.0, -1.5]):
        assert pull(batch, arm).reward[:, 0].tolist() == [mean] * 3


def test_gaussian_rewards_have_the_arms_mean_and_the_given_deviation():
    batch = mlbits.make_batch(ID, 40_000, means=[2.0, 0.0], reward_std=0.5, seed=1)
    pay = pull(batch, 0).reward.numpy()
    assert abs(pay.mean() - 2.0) < 5 * 0.5 / np.sqrt(40_000)
    assert abs(pay.std() - 0.5) < 0.01
    assert abs(pull(batch, 1).reward.numpy().mean()) < 5 * 0.5 / np.sqrt(40_000)


def test_bernoulli_arms_pay_one_or_nothing():
    batch = mlbits.make_batch(ID, 40_000, kind="bernoulli", means=[0.3, 0.0, 1.0], seed=2)
    pay = pull(batch, 0).reward.numpy()
    assert set(np.unique(pay)) == {0.0, 1.0}
    assert abs(pay.mean() - 0.3) < 5 * np.sqrt(0.21 / 40_000)
    assert pull(batch, 1).reward.sum() == 0
    assert pull(batch, 2).reward.sum() == 40_000


def test_the_default_instance_is_fixed_and_stays_the_same_in_every_version():
    game = mlbits.make_game(ID)
    assert game.action_space.n == 10
    # norm.ppf of the ten uniform draws 0.637, 0.270, 0.041, 0.017, 0.813, 0.913, 0.607, 0.729, 0.544, 0.935.
    wanted = [0.350, -0.614, -1.740, -2.130, 0.890, 1.357, 0.270, 0.611, 0.110, 1.515]
    assert np.allclose(game.layout["means"], wanted, atol=2e-3)
    batch = mlbits.make_batch(ID, 2, horizon=1)
    for _ in range(3):
        assert np.allclose(batch.records()["means"][:, :10], [wanted] * 2, atol=2e-3)
        pull(batch, 0)
    other = mlbits.make_game(ID, instance_seed=1)
    assert not np.allclose(other.layout["means"], wanted, atol=0.1)


def test_random_means_are_drawn_in_every_episode_and_hidden_from_the_layout():
    batch = mlbits.make_batch(ID, 4000, means="random", horizon=2, seed=3)
    first = batch.records()["means"][:, :10]
    pull(batch, 0)
    assert np.array_equal(batch.records()["means"][:, :10], first)
    pull(batch, 0)
    second = batch.records()["means"][:, :10]
    assert not (second == first).any()
    assert abs(second.mean()) < 5 / np.sqrt(40_000)
    assert abs(second.std() - 1) < 0.02
    assert "means" not in batch.game.layout
    uniform = mlbits.make_batch(ID, 4000, means="random", kind="bernoulli").records()["means"][:, :10]
    assert uniform.min() >= 0
    assert uniform.max() <= 1
    assert abs(uniform.mean() - 0.5) < 5 * np.sqrt(1 / 12 / 40_000)


def test_the_horizon_truncates_and_nothing_terminates():
    batch = mlbits.make_batch(ID, 1, horizon=3)
    flags = [(bool(step.terminated[0]), bool(step.truncated[0])) for step in (pull(batch, 0) for _ in range(6))]
    assert flags == [(False, False), (False, False), (False, True)] * 2
    assert bool(pull(mlbits.make_batch(ID, 1, horizon=1), 0).truncated[0])


def test_history_shows_the_last_pull_and_the_time():
    batch = mlbits.make_batch(
        ID, 1, means=[0.5, -2.0, 0.0], reward_std=0.0, observation="history", horizon=4, autoreset="disabled"
    )
    assert batch.obs[0, 0].tolist() == [0, 0, 0, 0, 0]
    assert pull(batch, 1).obs[0, 0].tolist() == [0, 1, 0, -2.0, 0.25]
    assert pull(batch, 0).obs[0, 0].tolist() == [1, 0, 0, 0.5, 0.5]
    assert batch.reset()[0, 0].tolist() == [0, 0, 0, 0, 0]
    assert mlbits.make_game(ID, observation="none").observation_space == gym.spaces.Discrete(1)


def test_copies_of_one_batch_may_be_different_bandits():
    batch = mlbits.make_batch(ID, 3, reward_std=0.0, settings_per_copy=[{"instance_seed": s} for s in (0, 1, 2)])
    wanted = [mlbits.make_game(ID, instance_seed=s).layout["means"][4] for s in (0, 1, 2)]
    assert np.allclose(pull(batch, 4).reward[:, 0], wanted)


@pytest.mark.filterwarnings("ignore:.*infinity.*")
def test_gymnasiums_checker_on_history():
    check_env(gym.make(ID, observation="history").unwrapped)


def test_the_pictures():
    batch = mlbits.make_batch(ID, 1, means=[0.25, 0.75], kind="bernoulli")
    pull(batch, 1)
    paid = float(batch.reward[0, 0])
    assert batch.render("ansi") == (f"pull 1 of 100\narm   0  mean   0.25\narm   1  mean   0.75  <- paid {paid:.2f}\n")
    image = batch.render()
    assert image.dtype == np.uint8
    assert image.ndim == 3
    for arms in (1, 40, 1000):
        game = mlbits.make_game(ID, arms=arms)
        image = game.draw(np.zeros(1, game.state_dtype).view(np.recarray)[0], game.params.view(np.recarray)[0])
        assert image.shape[1] < 8000


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"arms": 0}, "arms: got 0; wanted an integer from 1 to 1000"),
        ({"arms": 2.5}, "arms: got 2.5"),
        ({"arms": True}, "arms: got True"),
        ({"arms": 10**9}, "arms: got 1000000000"),
        ({"kind": "poisson"}, "kind: got 'poisson'; wanted one of 'gaussian', 'bernoulli'"),
        ({"means": "drawn"}, "means: got 'drawn'; wanted one of 'fixed', 'random'"),
        ({"means": []}, "means: got an empty list"),
        ({"means": 3}, "means: got 3; wanted a list"),
        ({"means": [1.0, float("nan")]}, r"means\[1\]: got nan; wanted a finite number"),
        ({"means": [1.0, 2.0], "arms": 3}, "means: got 2 means; wanted 3"),
        (
            {"means": [0.2, 1.2], "kind": "bernoulli"},
            r"means\[1\]: got 1.2; wanted a finite number from 0 to 1",
        ),
        ({"means": [0.0] * 1001}, "means: got 1001 means"),
        ({"reward_std": -1.0}, "reward_std: got -1.0"),
        ({"reward_std": float("inf")}, "reward_std: got inf"),
        ({"observation": "means"}, "observation: got 'means'"),
        ({"horizon": 0}, "horizon: got 0"),
        ({"horizon": None}, "horizon: got None"),
        ({"instance_seed": -1}, "instance_seed: got -1"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(GameError, match=message):
        mlbits.make_game(ID, **settings)
