"""SimilarityPD: simulation against closed form, the equilibria known by analysis, and bad settings."""

import math

import numpy as np
import pytest
import torch

import mlbits
from mlbits.envs.core.errors import GameError, IllegalActionError
from mlbits.envs.similarity_pd import cooperation_probabilities, expected_payoffs

ID = "mlbits/SimilarityPD-v0"
GAINS = [1.5, 1.9, 2.0, 2.5, 3.0, 5.0]
SCALES = [0.01, 1.0, 100.0, 100_000.0]
every_scale = pytest.mark.parametrize("scale", SCALES)
every_gain = pytest.mark.parametrize("gain", GAINS)
PAIRS = [(0.7, 0.7), (1.0, 0.8), (-0.5, 0.5), (0.3, 0.9), (2.0, 1.5), (0.0, 0.0)]  # thresholds, in scales


def gain_of_deviating(threshold, other, gain, scale, noise):
    """The most that seat 0 gains by another threshold, out of 3,201 up to eight noise scales away."""
    grid = np.linspace(-8, 8, 3201) * scale
    now = expected_payoffs([threshold, other], gain, noise=noise, noise_scale=scale)[0]
    pairs = np.stack([grid, np.full_like(grid, other)], -1)
    return expected_payoffs(pairs, gain, noise=noise, noise_scale=scale)[:, 0].max() - now


@pytest.mark.parametrize("noise", ["uniform", "gaussian"])
@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("gain", [1.5, 3.0, 5.0])
def test_simulated_payoffs_agree_with_the_closed_form(noise, scale, gain):
    copies = 20_000
    batch = mlbits.make_batch(ID, copies, gain=gain, noise=noise, noise_scale=scale, seed=1, threads=1)
    for pair in PAIRS:
        thresholds = np.float32(np.array(pair) * scale)
        reward = batch.step(torch.from_numpy(thresholds).expand(copies, 2)[..., None].contiguous()).reward.numpy()
        wanted = expected_payoffs(thresholds, gain, noise=noise, noise_scale=scale)
        p = cooperation_probabilities(thresholds, noise=noise, noise_scale=scale)
        spread = np.sqrt(gain**2 * p[::-1] * (1 - p[::-1]) + p * (1 - p))  # the seats' noises are independent
        assert (np.abs(reward.mean(0) - wanted) <= 5 * spread / np.sqrt(copies) + 1e-6).all()
        assert abs(reward[:, 0].std() - spread[0]) < 0.03 * gain


def test_the_closed_form_by_hand():
    assert expected_payoffs([1.0, 1.0], 3.0).tolist() == [3.0, 3.0]
    assert expected_payoffs([0.0, -5.0], 3.0).tolist() == [1.0, 1.0]
    # A difference of 0.25: seat 0 cooperates with probability 0.5, seat 1 with 0.25.
    assert expected_payoffs([0.75, 0.5], 3.0).tolist() == [3 * 0.25 + 0.5, 3 * 0.5 + 0.75]
    assert cooperation_probabilities([1.0, 1.0], noise="gaussian", noise_scale=2.0)[0] == pytest.approx(0.6914624613)
    assert cooperation_probabilities([0.0, 1.0], noise="gaussian").tolist() == pytest.approx([0.1586552539, 0.5])
    assert expected_payoffs(np.zeros((4, 3, 2))).shape == (4, 3, 2)


@every_scale
@every_gain
def test_mutual_defection_is_an_equilibrium_under_uniform_noise(scale, gain):
    for threshold, other in ((0.0, 0.0), (-1.0, 0.0), (-0.3, -2.0)):
        assert gain_of_deviating(threshold * scale, other * scale, gain, scale, "uniform") <= 1e-12
        assert gain_of_deviating(other * scale, threshold * scale, gain, scale, "uniform") <= 1e-12


@every_scale
@every_gain
@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.9, 1.0])
def test_with_uniform_noise_equal_thresholds_cooperate_in_equilibrium_from_a_gain_of_2_on(scale, gain, share):
    threshold = share * scale
    p = cooperation_probabilities([threshold, threshold], noise_scale=scale)
    assert p == pytest.approx([share, share])
    payoff = expected_payoffs([threshold, threshold], gain, noise_scale=scale)
    assert payoff == pytest.approx([1 + (gain - 1) * share] * 2)
    best = gain_of_deviating(threshold, threshold, gain, scale, "uniform")
    assert best <= 1e-9 if gain >= 2 else best > 0.4 * (2 - gain) * share
    # Lowering the threshold by d costs 2 d of the seat's own cooperation and d of the other's, down to 0.
    for down in (share * scale / 8, share * scale / 2):
        moved = expected_payoffs([threshold - down, threshold], gain, noise_scale=scale)[0]
        assert moved - payoff[0] == pytest.approx((2 - gain) * down / scale, abs=1e-9)
        if gain > 2:
            assert moved < payoff[0]  # strict
    raised = expected_payoffs([threshold + scale / 10, threshold], gain, noise_scale=scale)
    assert raised[0] < payoff[0]


@every_gain
def test_no_equilibrium_cooperates_with_unequal_thresholds(gain):
    grid = np.linspace(-0.5, 1.5, 21)
    for threshold in grid:
        for other in grid[grid > threshold + 1e-9]:
            p = cooperation_probabilities([threshold, other])
            if p.sum() > 1e-9:
                most = max(
                    gain_of_deviating(threshold, other, gain, 1.0, "uniform"),
                    gain_of_deviating(other, threshold, gain, 1.0, "uniform"),
                )
                assert most > 1e-6


@every_scale
@pytest.mark.parametrize(("gain", "wanted"), [(1.5, 0.0), (2.0, 0.5), (3.0, 0.955), (5.0, 0.993), (10.0, 0.999)])
def test_with_gaussian_noise_the_best_symmetric_equilibrium_cooperates_partially(scale, gain, wanted):
    thresholds = np.linspace(-4, 4, 401) * scale
    stable = [t for t in thresholds if gain_of_deviating(t, t, gain, scale, "gaussian") <= 1e-9]
    p = [cooperation_probabilities([t, t], noise="gaussian", noise_scale=scale)[0] for t in stable]
    assert max(p, default=0.0) == pytest.approx(wanted, abs=2.5e-3)


def test_a_step_is_the_dilemma_and_ends():
    batch = mlbits.make_batch(ID, 64, gain=3.0, seed=2, autoreset="disabled")
    step = batch.step(torch.tensor([0.6, 0.5]).expand(64, 2)[..., None].contiguous())
    records = batch.records()
    cooperates = records["seen"] <= records["threshold"]
    assert np.array_equal(cooperates, records["cooperates"])
    table = {(1, 1): [3, 3], (1, 0): [0, 4], (0, 1): [4, 0], (0, 0): [1, 1]}
    assert step.reward.tolist() == [table[pair] for pair in map(tuple, cooperates.astype(int).tolist())]
    assert len(np.unique(cooperates, axis=0)) == 4
    assert (records["seen"] >= 0.1 - 1e-6).all()
    assert (records["seen"] <= 1.1 + 1e-6).all()
    assert bool(step.terminated.all())
    assert not bool(step.truncated.any())
    assert not batch.obs.any()


@pytest.mark.parametrize("noise", ["uniform", "gaussian"])
def test_the_seats_noises_are_independent_and_of_the_right_distribution(noise):
    batch = mlbits.make_batch(ID, 40_000, noise=noise, noise_scale=2.0, autoreset="disabled", seed=3, threads=1)
    batch.step(torch.zeros((40_000, 2, 1)))
    seen = batch.records()["seen"] / 2.0
    mean, deviation = (0.5, math.sqrt(1 / 12)) if noise == "uniform" else (0.0, 1.0)
    assert np.abs(seen.mean(0) - mean).max() < 5 * deviation / 200
    assert np.abs(seen.std(0) - deviation).max() < 5 * deviation / 200
    assert abs(np.corrcoef(seen.T)[0, 1]) < 5 / 200
    assert abs(np.corrcoef((seen.T - mean) ** 2)[0, 1]) < 5 / 200
    share = (seen <= 0.25).mean(0)
    wanted = 0.25 if noise == "uniform" else 0.5987063257
    assert np.abs(share - wanted).max() < 5 * 0.5 / 200


def test_thresholds_that_are_not_numbers_or_too_large_are_refused():
    batch = mlbits.make_batch(ID, 2)
    for bad in (float("nan"), float("inf"), 4.5, -4.5):
        with pytest.raises(IllegalActionError, match="copy 1, seat 0 in SimilarityPD: got"):
            batch.step(torch.tensor([[[0.5], [0.5]], [[bad], [0.5]]]))
    assert mlbits.make_game(ID, noise_scale=0.5).action_space.high[0] == 2.0
    assert mlbits.make_game(ID, limit=7).action_space.low[0] == -7.0


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [
        ([0.5, float("nan")], "thresholds: got nan; wanted finite numbers"),
        ([[0.5, 0.5], [0.5, float("inf")]], "thresholds: got inf"),
        ([0.5, 0.5, 0.5], r"thresholds: got shape \(3,\); wanted \[..., 2\]"),
        (0.5, r"thresholds: got shape \(\)"),
        (["a", "b"], "thresholds: got .*; wanted numbers"),
    ],
)
def test_bad_thresholds_are_refused_in_closed_form(thresholds, message):
    with pytest.raises(GameError, match=message):
        expected_payoffs(thresholds)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gain": 1.0}, "gain: got 1, where cooperating has no benefit"),
        ({"gain": 0.5}, "gain: got 0.5; wanted a finite number from 1 to 1000"),
        ({"gain": float("nan")}, "gain: got nan"),
        ({"noise": "cauchy"}, "noise: got 'cauchy'; wanted one of 'uniform', 'gaussian'"),
        ({"noise_scale": 0.0}, "noise_scale: got 0.0; wanted a finite number from 1e-06"),
        ({"noise_scale": float("inf")}, "noise_scale: got inf"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(GameError, match=message):
        mlbits.make_game(ID, **settings)
    with pytest.raises(GameError, match=message):
        expected_payoffs([0.5, 0.5], **settings)


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan")])
def test_bad_limits_are_refused(limit):
    with pytest.raises(GameError, match="limit: got"):
        mlbits.make_game(ID, limit=limit)


def test_the_pictures():
    batch = mlbits.make_batch(ID, 1, autoreset="disabled")
    assert batch.render("ansi") == "gain 5, no thresholds yet\n"
    before = batch.render()
    batch.step(torch.tensor([[[-1.0], [3.0]]]))
    text = batch.render("ansi")
    assert text.startswith("seat 0: threshold -1.000, sees 4.")
    assert text.count("defects, paid 1") == 2
    assert (batch.render() != before).any()
