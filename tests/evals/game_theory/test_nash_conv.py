"""NashConv, exploitability and best responses of normal-form games."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mlbits.envs.core.errors import GameError
from mlbits.evals.game_theory.nash_conv import (
    action_payoffs,
    best_responses,
    check_payoffs,
    expected_payoffs,
    exploitability,
    nash_conv,
    symmetric_game,
    zero_sum_game,
)

ROCK_PAPER_SCISSORS = np.array([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]])
DILEMMA = np.array([[3.0, 0], [5, 1]])  # cooperate, defect

# Three seats with 2, 3 and 2 actions: np.round(np.random.default_rng(3).normal(size=(3, 2, 3, 2)), 2).
THREE = np.array(
    [
        [[[2.04, -2.56], [0.42, -0.57], [-0.45, -0.22]], [[-2.02, -0.23], [-0.87, 3.32], [0.23, -0.35]]],
        [[[-0.28, -0.67], [-1.06, -0.39], [0.48, -0.24]], [[0.96, -0.2], [0.02, 1.55], [0.55, -0.51]]],
        [[[-0.18, 0.54], [1.94, -0.27], [-0.24, 1.0]], [[-0.89, -0.29], [0.88, 0.58], [0.09, 0.67]]],
    ]
)


def by_enumeration(payoffs, profile):
    """NashConv from every joint action, one by one."""
    seats, sizes = payoffs.shape[0], payoffs.shape[1:]
    total = 0.0
    for seat in range(seats):
        mean, own = 0.0, np.zeros(sizes[seat])
        for joint in itertools.product(*map(range, sizes)):
            chances = [profile[other][joint[other]] for other in range(seats)]
            mean += np.prod(chances) * payoffs[(seat, *joint)]
            own[joint[seat]] += np.prod(chances[:seat] + chances[seat + 1 :]) * payoffs[(seat, *joint)]
        total += own.max() - mean
    return total


@st.composite
def games(draw):
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    numbers = st.floats(-10, 10, allow_nan=False)
    payoffs = draw(arrays.arrays(float, (len(sizes), *sizes), elements=numbers))
    weights = [draw(arrays.arrays(float, size, elements=st.floats(0.01, 1))) for size in sizes]
    return payoffs, [weight / weight.sum() for weight in weights]


def test_rock_against_scissors():
    """Scissors would gain 2 by paper; rock is already the best there is."""
    payoffs = symmetric_game(ROCK_PAPER_SCISSORS)
    profile = [[1, 0, 0], [0, 0, 1]]
    found = best_responses(payoffs, profile)
    assert found.action.tolist() == [0, 1]
    assert found.value.tolist() == [1.0, 1.0]
    assert found.gain.tolist() == [0.0, 2.0]
    assert expected_payoffs(payoffs, profile).tolist() == [1.0, -1.0]
    assert nash_conv(payoffs, profile) == 2.0
    assert exploitability(payoffs, profile) == 1.0


def test_equilibria_have_nash_conv_zero():
    third = [1 / 3] * 3
    assert exploitability(symmetric_game(ROCK_PAPER_SCISSORS), [third, third]) == pytest.approx(0, abs=1e-15)
    assert nash_conv(symmetric_game(DILEMMA), [[0, 1], [0, 1]]) == 0
    assert nash_conv(symmetric_game(DILEMMA), [[1, 0], [1, 0]]) == 4
    stag = symmetric_game([[4, 0], [3, 3]])
    assert nash_conv(stag, [[0.75, 0.25], [0.75, 0.25]]) == pytest.approx(0, abs=1e-15)
    assert nash_conv(stag, [[1, 0], [0, 1]]) == 3 + 1  # each would rather do as the other does


def test_seats_own_axes():
    """Row and column of an asymmetric game are not exchanged."""
    payoffs = zero_sum_game([[1.0, 2, 3], [0, 5, -1]])
    rows, columns = action_payoffs(payoffs, [[0.25, 0.75], [0.5, 0.5, 0]])
    assert rows.tolist() == [1.5, 2.5]
    assert columns.tolist() == [-0.25, -4.25, 0.0]


def test_exploitability_is_the_best_opponents_payoff():
    """Exploitability of a mixture against itself, in a symmetric game of value 0, is what the best opponent earns."""
    mixture = np.array([0.5, 0.3, 0.2])
    earned = float((ROCK_PAPER_SCISSORS @ mixture).max())
    assert exploitability(symmetric_game(ROCK_PAPER_SCISSORS), [mixture, mixture]) == pytest.approx(earned)


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        # OpenSpiel 2.0.2: exploitability.nash_conv(convert_to_turn_based(create_tensor_game(list(THREE))), policy), of
        # UniformRandomPolicy and of a TabularPolicy with the second profile.
        ([[0.5, 0.5], [1 / 3] * 3, [0.5, 0.5]], 0.22333333333333333),
        ([[0.3, 0.7], [0.2, 0.5, 0.3], [0.6, 0.4]], 0.11643999999999997),
    ],
)
def test_three_seats_agree_with_openspiel(profile, expected):
    assert nash_conv(THREE, profile) == pytest.approx(expected, abs=1e-12)
    assert exploitability(THREE, profile) == pytest.approx(expected / 3, abs=1e-12)


def test_uniform_play_of_blotto_agrees_with_openspiel():
    """OpenSpiel 2.0.2: nash_conv of UniformRandomPolicy in blotto(coins=5,fields=3) is 0.5714285714285714."""
    actions = [a for a in itertools.product(range(6), repeat=3) if sum(a) == 5]
    fields = np.array(actions)
    payoffs = np.sign(np.sign(fields[:, None] - fields[None]).sum(2)).astype(float)
    uniform = np.full(21, 1 / 21)
    assert nash_conv(symmetric_game(payoffs), [uniform, uniform]) == pytest.approx(0.5714285714285714, abs=1e-12)


@given(games())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_nash_conv_equals_the_sum_over_joint_actions(game):
    payoffs, profile = game
    assert nash_conv(payoffs, profile) == pytest.approx(by_enumeration(payoffs, profile), abs=1e-9)


@given(games(), st.floats(0.1, 10), st.floats(-5, 5))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_scaling_scales_and_shifting_changes_nothing(game, factor, shift):
    payoffs, profile = game
    before = nash_conv(payoffs, profile)
    assert before >= -1e-9
    assert nash_conv(factor * payoffs + shift, profile) == pytest.approx(factor * before, abs=1e-8)


@given(games(), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_the_order_of_seats_does_not_matter(game, random):
    payoffs, profile = game
    order = list(range(len(profile)))
    random.shuffle(order)
    turned = np.transpose(payoffs[order], [0, *(1 + k for k in order)])
    moved = [profile[k] for k in order]
    assert nash_conv(turned, moved) == pytest.approx(nash_conv(payoffs, profile), abs=1e-9)


@pytest.mark.parametrize(
    ("payoffs", "message"),
    [
        (np.zeros((2, 3)), r"payoffs: got shape \(2, 3\); wanted \[P, A_1, ..., A_P\]"),
        (np.zeros((3, 2, 2)), r"got shape \(3, 2, 2\)"),
        (np.zeros((2, 0, 2)), r"got shape \(2, 0, 2\)"),
        (3.0, r"got shape \(\)"),
        ([[[0, np.nan]], [[1, 2]]], r"payoffs: got nan at \(0, 0, 1\); wanted finite"),
        ([[[0, 1]], [[np.inf, 2]]], r"payoffs: got inf at \(1, 0, 0\)"),
        ([["a"]], "payoffs: got no array of numbers"),
    ],
)
def test_invalid_payoffs_are_refused(payoffs, message):
    with pytest.raises(GameError, match=message):
        check_payoffs(payoffs)


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ([[1, 0, 0]], "profile: got 1 mixtures; wanted 2"),
        ([[1, 0, 0], [1, 0]], r"profile: seat 1 has a mixture of shape \(2,\); wanted \(3,\)"),
        ([[1, 0, 0], [0.5, 0.4, 0]], "the mixture of seat 1 adds up to 0.9"),
        ([[1.5, -0.5, 0], [1, 0, 0]], "the mixture of seat 0 adds up to 1, least -0.5"),
        ([[1, 0, 0], [np.nan, 1, 0]], "the mixture of seat 1 adds up to nan"),
    ],
)
def test_invalid_profiles_are_refused(profile, message):
    with pytest.raises(GameError, match=message):
        nash_conv(symmetric_game(ROCK_PAPER_SCISSORS), profile)


def test_invalid_matrices_are_refused():
    with pytest.raises(GameError, match=r"got shape \(2, 3\); wanted a square matrix"):
        symmetric_game(np.zeros((2, 3)))
    with pytest.raises(GameError, match=r"got shape \(3,\); wanted a matrix"):
        zero_sum_game([1, 2, 3])
    with pytest.raises(GameError, match=r"got nan at \(0, 1\)"):
        zero_sum_game([[1, np.nan]])


def test_float32_mixtures_pass():
    mixture = (np.ones(3, np.float32) / np.float32(3)).astype(np.float32)
    assert abs(nash_conv(symmetric_game(ROCK_PAPER_SCISSORS), [mixture, mixture])) < 1e-7
