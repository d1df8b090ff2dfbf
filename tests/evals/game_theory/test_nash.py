"""Nash mixtures by linear programming, and those of greatest entropy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mlbits.envs.core.errors import GameError
from mlbits.evals.game_theory.nash import nash_average, zero_sum_equilibrium
from mlbits.evals.game_theory.nash_conv import nash_conv, zero_sum_game


def entropy(mixture):
    positive = mixture[mixture > 0]
    return -float((positive * np.log(positive)).sum())


MATRICES = arrays.arrays(float, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.integers(-4, 4))


def test_two_by_two_by_hand():
    """Indifference: 2 p - (1 - p) = -p + (1 - p), so p = 2/5, and the value is 1/5; the same for both seats."""
    found = zero_sum_equilibrium([[2, -1], [-1, 1]])
    assert found.row == pytest.approx([0.4, 0.6], abs=1e-9)
    assert found.column == pytest.approx([0.4, 0.6], abs=1e-9)
    assert found.value == pytest.approx(0.2, abs=1e-9)


def test_dominated_actions_are_left_out():
    found = zero_sum_equilibrium([[3, 2], [1, 0]], max_entropy=True)
    assert found.row == pytest.approx([1, 0], abs=1e-6)
    assert found.column == pytest.approx([0, 1], abs=1e-6)
    assert found.value == pytest.approx(2, abs=1e-6)


def test_weighted_rock_paper_scissors():
    """Rock's win pays a, paper's b, scissors' c: each is played in proportion to what the win of the other two pays."""
    a, b, c = 1.0, 2.0, 5.0  # rock beats scissors by a, paper beats rock by b, scissors beat paper by c
    payoffs = [[0, -b, a], [b, 0, -c], [-a, c, 0]]
    assert zero_sum_equilibrium(payoffs).row == pytest.approx(np.array([c, a, b]) / (a + b + c), abs=1e-9)
    assert zero_sum_equilibrium(payoffs, max_entropy=True).row == pytest.approx(np.array([c, a, b]) / 8, abs=1e-6)


def test_copies_divide_the_probability():
    """Of two rocks the mixture of greatest entropy takes half each, and skills are as if there were one."""
    payoffs = np.array([[0.0, -1, 1, 0], [1, 0, -1, 1], [-1, 1, 0, -1], [0, -1, 1, 0]])
    found = nash_average(payoffs)
    assert found.mixture == pytest.approx([1 / 6, 1 / 3, 1 / 3, 1 / 6], abs=1e-6)
    assert found.skill == pytest.approx(np.zeros(4), abs=1e-6)


@pytest.mark.parametrize(
    ("payoffs", "mixture", "skill"),
    [
        # OpenSpiel 2.0.2 with cvxpy: p = nash_averaging._max_entropy_symmetric_nash(payoffs), payoffs @ p.
        (
            [[0, 4.6, -4.6, 4.6], [-4.6, 0, 4.6, -4.6], [4.6, -4.6, 0, 4.6], [-4.6, 4.6, -4.6, 0]],
            [0.33333333, 0.33333333, 0.33333333, 0.0], [0.0, 0.0, 0.0, -1.53333333],
        ),
        (
            [[0, 1, -2, 1], [-1, 0, 3, 0], [2, -3, 0, 1], [-1, 0, -1, 0]],
            [0.5, 0.33333333, 0.16666667, 0.0], [0.0, 0.0, 0.0, -0.66666663],
        ),
    ],
)  # fmt: skip
def test_averages_agree_with_openspiel(payoffs, mixture, skill):
    found = nash_average(payoffs)
    assert found.mixture == pytest.approx(mixture, abs=1e-6)
    assert found.skill == pytest.approx(skill, abs=1e-6)


def test_the_symmetric_part_of_payoffs_is_ignored():
    """Fractions of won games, with draws and games against oneself, give the same as margins."""
    shares = np.array([[0.5, 0.9, 0.2], [0.1, 0.5, 0.7], [0.8, 0.3, 0.5]])
    margins = np.array([[0.0, 0.4, -0.3], [-0.4, 0, 0.2], [0.3, -0.2, 0]])
    assert nash_average(shares).mixture == pytest.approx(nash_average(margins).mixture, abs=1e-6)
    assert nash_average(margins).mixture == pytest.approx(np.array([2, 3, 4]) / 9, abs=1e-6)
    for_both = np.array([[1.0, -2, 0], [-2, 3, 1], [0, 1, 5]])  # what two players earn together, by who meets whom
    found = nash_average(margins + for_both)
    assert found.mixture == pytest.approx(np.array([2, 3, 4]) / 9, abs=1e-6)
    assert found.skill == pytest.approx([0, 0, 0], abs=1e-6)


def test_a_game_with_equal_payoffs():
    found = zero_sum_equilibrium(np.full((3, 2), 7.0), max_entropy=True)
    assert found.value == pytest.approx(7)
    assert found.row == pytest.approx([1 / 3] * 3, abs=1e-9)
    assert found.column == pytest.approx([1 / 2] * 2, abs=1e-9)
    assert zero_sum_equilibrium([[4.0]]).value == 4.0


@given(MATRICES)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_no_best_response_gains(matrix):
    found = zero_sum_equilibrium(matrix)
    game, scale = zero_sum_game(matrix), max(np.ptp(matrix), 1)
    assert nash_conv(game, [found.row, found.column]) <= 1e-7 * scale
    assert (found.row @ matrix).min() == pytest.approx(found.value, abs=1e-7 * scale)
    even = zero_sum_equilibrium(matrix, max_entropy=True)
    assert nash_conv(game, [even.row, even.column]) <= 2e-5 * scale
    assert even.value == pytest.approx(found.value, abs=2e-5 * scale)
    assert entropy(even.row) >= entropy(found.row) - 1e-4
    assert entropy(even.column) >= entropy(found.column) - 1e-4


@given(MATRICES, st.integers(-3, 3), st.floats(-100, 100))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_scale_and_shift_only_change_the_value(matrix, power, shift):
    found = zero_sum_equilibrium(matrix)
    other = zero_sum_equilibrium(matrix * 10.0**power + shift)
    assert other.value == pytest.approx(found.value * 10.0**power + shift, abs=1e-7 * 10.0**power + 1e-12 * abs(shift))


@given(arrays.arrays(float, (4, 4), elements=st.integers(-3, 3)), st.permutations(range(4)))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_the_order_of_players_does_not_matter(matrix, order):
    """Greatest entropy makes the mixture unique, so that it moves with the players."""
    before, after = nash_average(matrix), nash_average(matrix[np.ix_(order, order)])
    assert after.mixture == pytest.approx(before.mixture[list(order)], abs=5e-3)


def test_bad_payoffs_are_refused():
    with pytest.raises(GameError, match=r"payoffs: got shape \(3,\); wanted a matrix"):
        zero_sum_equilibrium([1, 2, 3])
    with pytest.raises(GameError, match=r"payoffs: got nan at \(1, 0\)"):
        zero_sum_equilibrium([[0, 1], [np.nan, 2]])
    with pytest.raises(GameError, match=r"got shape \(1, 2\); wanted a square matrix"):
        nash_average([[0, 1]])
