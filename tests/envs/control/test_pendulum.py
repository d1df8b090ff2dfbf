"""Pendulum against Gymnasium's Pendulum-v1, step for step over whole episodes; its pictures and settings."""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch

import mlbits
from mlbits.envs.core.errors import GameError, IllegalActionError

ID = "mlbits/Pendulum-v0"
# Nearly still at the top, hanging, at the speed limit in both directions, and many full turns away.
SPECIAL = [(0.0, 0.0), (1e-9, 0.0), (math.pi, 0.0), (-math.pi, 1.0), (2, 8), (-2, -8), (-95.0, 0.1)]
COPIES = 22


def started(starts, **settings):
    """A batch whose copies start from (theta, theta_dot), and Gymnasium's environments in the same states."""
    batch = mlbits.make_batch(ID, len(starts), **settings)
    states = batch.records()
    states["theta"], states["theta_dot"] = np.array(starts).T
    batch.set_state(states)
    peers = [gym.make("Pendulum-v1", g=settings.get("gravity", 10.0)) for _ in starts]
    for peer, start in zip(peers, starts, strict=True):
        peer.reset(seed=0)
        peer.unwrapped.state = np.array(start)
    return batch, peers


def balancing(theta, theta_dot):
    """A torque that keeps the pendulum upright, where the smallest difference grows fastest."""
    return np.clip(-10 * ((theta + np.pi) % (2 * np.pi) - np.pi) - 2 * theta_dot, -2, 2)


@pytest.mark.parametrize("gravity", [10.0, 9.81])
def test_whole_episodes_equal_gymnasiums_to_the_last_bit(gravity):
    rng = np.random.default_rng(3)
    drawn = zip(rng.uniform(-np.pi, np.pi, COPIES), rng.uniform(-1, 1, COPIES), strict=True)
    batch, peers = started(SPECIAL + list(drawn), gravity=gravity, autoreset="disabled")
    for t in range(200):
        states = batch.records()
        actions = rng.uniform(-2, 2, (len(peers), 1)).astype(np.float32)
        actions[::3, 0] = balancing(states["theta"], states["theta_dot"])[::3]
        actions[1::6] = np.sign(actions[1::6]) * 2
        step, after = batch.step(actions), batch.records()
        for b, peer in enumerate(peers):
            obs, reward, terminated, truncated, _ = peer.step(actions[b])
            assert (after["theta"][b], after["theta_dot"][b]) == tuple(peer.unwrapped.state), f"step {t}, copy {b}"
            np.testing.assert_allclose(step.obs[b, 0].numpy(), obs, rtol=0, atol=6e-8)  # half a bit of float32
            assert float(step.reward[b, 0]) == pytest.approx(reward, rel=1e-6, abs=1e-12)
            assert (bool(step.terminated[b]), bool(step.truncated[b])) == (terminated, truncated)
    assert step.truncated.all()


def test_spaces_and_starts_equal_gymnasiums():
    ours, theirs = gym.make(ID), gym.make("Pendulum-v1")
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    states = mlbits.make_batch(ID, 20_000, seed=5).records()
    for name, bound in (("theta", math.pi), ("theta_dot", 1.0)):
        assert np.abs(states[name]).max() <= bound
        assert np.abs(states[name]).max() > 0.999 * bound
        assert states[name].std() == pytest.approx(bound / math.sqrt(3), rel=0.03)
        assert states[name].mean() == pytest.approx(0, abs=0.04 * bound)
    assert not states["torque"].any()


def test_torque_out_of_range_is_refused_or_clipped():
    batch, _ = started([(0.5, 0.0)])
    with pytest.raises(IllegalActionError, match=r"2\.5"):
        batch.step(np.array([[2.5]], np.float32))
    clipped, _ = started([(0.5, 0.0)], illegal="replace")
    clipped.step(np.array([[2.5]], np.float32))
    batch.step(np.array([[2.0]], np.float32))
    assert clipped.records() == batch.records()


def test_the_horizon_truncates_and_does_not_terminate():
    batch = mlbits.make_batch(ID, 2, horizon=3)
    flags = [(step.terminated.any(), step.truncated.all()) for step in (batch.step(torch.zeros(2, 1)) for _ in "abc")]
    assert [(bool(a), bool(b)) for a, b in flags] == [(False, False), (False, False), (False, True)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gravity": -1}, "gravity: got -1; wanted a finite number from 0 to 1000"),
        ({"gravity": math.nan}, "gravity: got nan"),
        ({"horizon": 0}, "horizon: got 0"),
        ({"g": 9.8}, "unknown setting 'g'; wanted any of gravity, horizon"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(GameError, match=message):
        mlbits.make_game(ID, **settings)


def test_pictures_show_the_rod_and_the_torque():
    batch, _ = started([(0.0, 0.0), (math.pi / 2, 0.0), (math.pi, 0.0)])
    blue, red = (38, 110, 214), (205, 70, 60)
    for copy, (x, y) in enumerate([(160, 80), (80, 160), (160, 240)]):  # up, left (anticlockwise), down
        assert tuple(batch.render(copy=copy)[y, x]) == blue
        assert not (batch.render(copy=copy) == red).all(-1).any()
    rows = [batch.render("ansi", copy).splitlines() for copy in range(3)]
    assert [rows[0][0][9], rows[1][4][1], rows[2][8][9]] == ["O"] * 3
    assert rows[0][9] == "angle=+0.0 deg, speed=+0.00 rad/s, torque=+0.00 N m"
    batch.step(np.array([[2.0], [-2.0], [0.1]], np.float32))
    assert all((batch.render(copy=copy) == red).all(-1).any() for copy in range(3))
    right, left = ((batch.render(copy=copy) == red).all(-1)[:, 200:204].any() for copy in range(2))
    assert right and not left  # an arc from below to the right turns anticlockwise, to the left clockwise
