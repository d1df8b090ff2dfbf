"""CartPole against Gymnasium's CartPole-v1 over whole episodes, and its settings."""

import gymnasium as gym
import numpy as np
import pytest
import torch

import mlbits
from mlbits.envs.core.errors import GameError

ID = "mlbits/CartPole-v0"
NAMES = ("x", "x_dot", "theta", "theta_dot")


def started(starts, **settings):
    """A batch whose copies start from the states [B, 4], and Gymnasium's environments in the same states."""
    batch = mlbits.make_batch(ID, len(starts), autoreset="disabled", **settings)
    states = batch.records()
    for name, column in zip(NAMES, np.array(starts).T, strict=True):
        states[name] = column
    batch.set_state(states)
    peers = [gym.make("CartPole-v1", **settings) for _ in starts]
    for peer, start in zip(peers, starts, strict=True):
        peer.reset(seed=0)
        peer.unwrapped.state = np.array(start)
    return batch, peers


@pytest.mark.parametrize("sutton_barto_reward", [False, True])
def test_whole_episodes_equal_gymnasiums(sutton_barto_reward):
    """Half of the copies balance, most of them to the limit of 500 steps; the rest push at random and fall."""
    rng = np.random.default_rng(2)
    batch, peers = started(rng.uniform(-0.05, 0.05, (12, 4)), sutton_barto_reward=sutton_barto_reward)
    over, lengths = np.zeros(12, bool), np.zeros(12, int)
    for t in range(500):
        states = batch.records()
        lean = states["theta"] + 0.25 * states["theta_dot"] + 0.02 * states["x"] + 0.05 * states["x_dot"]
        actions = np.where(np.arange(12) % 2 == 0, lean > 0, rng.integers(0, 2, 12)).astype(np.int64)
        step, after = batch.step(torch.from_numpy(actions)), batch.records()
        for b in np.flatnonzero(~over):
            obs, reward, terminated, truncated, _ = peers[b].step(int(actions[b]))
            mine = [after[name][b] for name in NAMES]
            np.testing.assert_allclose(mine, peers[b].unwrapped.state, rtol=0, atol=1e-9, err_msg=f"step {t}, copy {b}")
            np.testing.assert_allclose(step.obs[b, 0].numpy(), obs, rtol=1e-6, atol=1e-9)
            assert float(step.reward[b, 0]) == reward
            assert (bool(step.terminated[b]), bool(step.truncated[b])) == (terminated, truncated)
            over[b], lengths[b] = terminated or truncated, t + 1
    assert over.all()
    assert (lengths[::2] == 500).sum() >= 4
    assert lengths[1::2].max() < 200


def test_large_angles_are_computed_as_well():
    """Beyond 0.4 rad, where the series is not used: states set only by searches and tests."""
    rng = np.random.default_rng(4)
    batch, peers = started(rng.uniform([-2, -3, -6, -3], [2, 3, 6, 3], (50, 4)))
    actions = rng.integers(0, 2, 50)
    batch.step(torch.from_numpy(actions))
    after = batch.records()
    for b, peer in enumerate(peers):
        peer.unwrapped.step(int(actions[b]))
        np.testing.assert_allclose([after[name][b] for name in NAMES], peer.unwrapped.state, rtol=1e-12, atol=1e-12)


def test_spaces_and_starts_equal_gymnasiums():
    ours, theirs = gym.make(ID), gym.make("CartPole-v1")
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    states = mlbits.make_batch(ID, 20_000, seed=5).records()
    for name in NAMES:
        assert 0.0499 < np.abs(states[name]).max() <= 0.05
        assert states[name].std() == pytest.approx(0.05 / np.sqrt(3), rel=0.03)


def test_a_bad_horizon_is_refused():
    with pytest.raises(GameError, match="horizon: got 0"):
        mlbits.make_game(ID, horizon=0)


def test_pictures_show_the_cart_and_the_pole():
    batch, _ = started([[0, 0, 0, 0], [2.0, 0, 0.2, 0]])
    brown, grey = (143, 101, 69), (90, 94, 102)
    for copy, x in enumerate([240, 440]):
        image = batch.render(copy=copy)
        assert tuple(image[240, x - 20]) == grey
    assert tuple(batch.render(copy=0)[170, 240]) == brown
    assert (batch.render(copy=1)[170] == brown).all(-1).nonzero()[0].mean() > 440
    assert batch.render("ansi", 1).endswith("x=+2.00 m, angle=+11.5 deg\n")


def test_without_velocities_the_same_system_shows_two_numbers():
    full, part = mlbits.make_batch(ID, 5, seed=4), mlbits.make_batch(ID, 5, seed=4, velocities=False)
    assert part.observation_space.shape == (2,)
    assert np.array_equal(part.observation_space.high, full.observation_space.high[[0, 2]])
    for t in range(60):
        actions = torch.full((5,), (t // 3) % 2)
        one, two = full.step(actions), part.step(actions)
        assert torch.equal(one.obs[..., [0, 2]], two.obs)
        assert torch.equal(one.final_obs[..., [0, 2]], two.final_obs)
        assert torch.equal(one.terminated, two.terminated)
    with pytest.raises(GameError, match="velocities: got 1; wanted True or False"):
        mlbits.make_game(ID, velocities=1)
