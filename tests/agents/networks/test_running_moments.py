"""Running moments of vectors, images and dicts of them, against numpy over all data, and what is odd about data."""

import copy

import numpy as np
import pytest
import torch
from gymnasium import spaces

from mlbits.agents.agent import AgentError
from mlbits.agents.networks import running_moments
from mlbits.agents.networks.features import Features
from mlbits.agents.networks.running_moments import RunningMoments, moments_of
from tests.agents.rollouts import draw


def image(*shape):
    return spaces.Box(0, 255, shape, np.uint8)


@pytest.mark.parametrize(
    ("space", "axes"),
    [
        (spaces.Box(-9, 9, (3,), np.float32), (0,)),
        (spaces.Box(-9, 9, (3, 2), np.float64), (0,)),
        (spaces.Box(-9, 9, (), np.float32), (0,)),
        (spaces.Box(-9, 9, (5,), np.int8), (0,)),
        (image(9, 8, 3), (0, 1, 2)),  # channels last
        (image(4, 8, 9), (0, 2, 3)),  # channels first
        (image(9, 8), (0, 1, 2)),  # one channel without an axis
        (spaces.Box(-9, 9, (3, 6, 7), np.float32), (0, 2, 3)),
    ],
)
def test_moments_are_numpys_over_all_data(space, axes, monkeypatch):
    monkeypatch.setattr(running_moments, "_AT_ONCE", 1000)  # several parts of one update
    numbers = np.random.default_rng(0)
    parts = [
        numbers.integers(1, 99, (rows, *space.shape)).astype(space.dtype)
        if np.issubdtype(space.dtype, np.integer)
        else numbers.normal(3, 2, (rows, *space.shape)).astype(space.dtype)
        for rows in (1, 2, 30, 7)
    ]
    moments = moments_of(space)
    for part in parts:
        moments.update(torch.from_numpy(part))
    everything = np.concatenate(parts).astype(float)
    mean, deviation = everything.mean(axes, keepdims=True), everything.std(axes, keepdims=True)
    assert np.allclose(moments.mean, mean.flatten())
    assert np.allclose(moments.var.sqrt(), deviation.flatten())
    scaled = moments.standardise(torch.from_numpy(everything.astype(space.dtype)))
    assert scaled.dtype == torch.float32
    assert np.allclose(scaled, (everything - mean) / deviation, atol=1e-5)


def test_many_parts_give_the_bits_of_no_order_but_one_mean():
    """A stream of single rows far from 0, where sums of squares would lose all digits."""
    rows = 1e8 + torch.randn(500, 2, generator=draw(1), dtype=torch.float64)
    moments = RunningMoments(2)
    for row in rows:
        moments.update(row[None])
    assert torch.allclose(moments.var, rows.var(0, unbiased=False), rtol=1e-6)


def test_constant_entries_become_zero_and_a_sudden_change_is_clipped():
    moments = RunningMoments(2)
    moments.update(torch.tensor([[7.0, 0.1]]).repeat(100, 1))
    assert moments.standardise(torch.tensor([[7.0, 0.1]])).abs().max() < 1e-3
    assert moments.standardise(torch.tensor([[8.0, -3.0]])).tolist() == [[10.0, -10.0]]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_rows_that_are_not_finite_are_left_out(bad):
    clean, moments = RunningMoments(2), RunningMoments(2)
    rows = torch.randn(6, 2, generator=draw())
    clean.update(rows)
    moments.update(torch.cat([rows[:2], torch.tensor([[bad, 1.0]]), rows[2:]]))
    moments.update(torch.tensor([[1.0, bad]]))
    assert torch.allclose(moments.mean, clean.mean)
    assert torch.allclose(moments.var, clean.var)
    assert float(moments.count) == 6


def test_extremes_stay_finite():
    moments = RunningMoments(1)
    moments.update(torch.tensor([[1e38], [-1e38], [3e38]]))
    assert moments.standardise(torch.tensor([[3e38], [0.0]])).isfinite().all()


def test_an_empty_batch_changes_nothing():
    moments = RunningMoments(2)
    moments.update(torch.zeros(0, 2))
    assert (float(moments.count), moments.var.tolist()) == (0.0, [1.0, 1.0])


def test_bytes_are_in_0_to_1_before_the_first_update_and_networks_take_standardised_ones_as_they_are():
    space = image(9, 8, 3)
    moments, features = moments_of(space), Features(space, draw())
    obs = torch.randint(256, (5, *space.shape), generator=draw(), dtype=torch.uint8)
    assert torch.allclose(features(obs)[0], features(moments.standardise(obs))[0], atol=1e-5)
    moments.update(obs)
    scaled = moments.standardise(obs)
    assert scaled.std() == pytest.approx(1, abs=0.01)
    hidden = scaled.permute(0, 3, 1, 2)
    for layer in features.parts[0].convolutions:
        hidden = torch.relu(layer(hidden))
    assert torch.allclose(features(scaled)[0], hidden.flatten(1))


def test_a_dict_keeps_its_indices():
    space = spaces.Dict({"place": spaces.Discrete(5), "speed": spaces.Box(-9, 9, (2,)), "view": image(9, 8)})
    obs = {
        "place": torch.tensor([1, 4]),
        "speed": torch.tensor([[1.0, 10.0], [3.0, 30.0]]),
        "view": torch.randint(256, (2, 9, 8), dtype=torch.uint8, generator=draw()),
    }
    moments = moments_of(space)
    moments.update(obs)
    scaled = moments.standardise(obs)
    assert scaled["place"] is obs["place"]
    assert torch.allclose(scaled["speed"], torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))
    assert float(scaled["view"].mean()) == pytest.approx(0, abs=1e-5)
    other = moments_of(space)
    other.load_state_dict(moments.state_dict())
    assert all(torch.equal(value, scaled[key]) for key, value in other.standardise(obs).items())


@pytest.mark.parametrize(
    "space",
    [spaces.Discrete(4), spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(3), spaces.Dict({"a": spaces.Discrete(2)})],
)
def test_indices_have_no_moments(space):
    with pytest.raises(AgentError, match=r"^normalize_obs: got the observation space .*; wanted vectors or images"):
        moments_of(space)


def test_what_standardises_follows_every_change_of_the_moments():
    moments, row = RunningMoments(1), torch.tensor([[4.0]])
    moments.update(torch.tensor([[0.0], [2.0]]))
    assert moments.standardise(row).item() == pytest.approx(3)
    before, end = copy.deepcopy(moments), RunningMoments(1)
    end.update(torch.tensor([[2.0], [2.0], [6.0], [6.0]]))
    moments.move(before, end, 0.5)  # mean 2.5, variance 2.5
    assert moments.standardise(row).item() == pytest.approx(1.5 / 2.5**0.5)
    assert float(moments.count) == 4
    moments.load_state_dict(before.state_dict())
    assert moments.standardise(row).item() == pytest.approx(3)
