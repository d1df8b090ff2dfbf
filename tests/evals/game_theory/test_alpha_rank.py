"""Alpha-rank of symmetric games and of profiles, against OpenSpiel, simulated chains and results by hand."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mlbits.envs.core.errors import GameError
from mlbits.evals.game_theory.alpha_rank import alpha_rank, alpha_rank_symmetric, marginals
from mlbits.evals.game_theory.nash_conv import zero_sum_game
from tests.evals.game_theory.test_nash_conv import THREE

SKEWED = np.array([[0, -0.5, 1], [0.5, 0, -0.1], [-1, 0.1, 0]])
GENERAL = np.array([[1.0, 3.0, 0.0, 2.0], [0.5, 2.0, 2.5, 1.0], [2.0, 0.0, 1.0, 1.5], [1.2, 0.7, 3.0, 0.1]])
TWO_SEATS = np.array([[[1.0, 0.2, 0.5], [0.3, 0.9, 0.4]], [[0.1, 0.6, 0.2], [0.8, 0.3, 0.5]]])

# OpenSpiel 2.0.2: egt.alpharank.compute([payoffs], m=population, alpha=alpha, use_local_selection_model=False)[2], of
# one population; True where it says duel.
OF_ONE_POPULATION = [
    (SKEWED, 50, 0.1, "population", [0.284427282901, 0.582886549609, 0.132686167490]),
    (SKEWED, 50, 1.0, "population", [0.174716583445, 0.716111005536, 0.109172411019]),
    (SKEWED, 50, 10.0, "population", [0.281846301478, 0.438011868718, 0.280141829805]),
    (GENERAL, 20, 0.1, "population", [0.350346260179, 0.368202495783, 0.169017621020, 0.112433623018]),
    (GENERAL, 20, 1.0, "population", [0.430394605338, 0.296953078919, 0.170409422978, 0.102242892765]),
    (GENERAL, 20, 5.0, "population", [0.400677461292, 0.299647879341, 0.199348724024, 0.100325935343]),
    (SKEWED, 50, 0.1, "duel", [0.212955527793, 0.677147168487, 0.109897303720]),
    (SKEWED, 50, 1.0, "duel", [0.191639452977, 0.668260880921, 0.140099666103]),
    (SKEWED, 50, 10.0, "duel", [0.316814645285, 0.366385092140, 0.316800262575]),
    (GENERAL, 20, 0.1, "duel", [0.352858344344, 0.218715012015, 0.181225179114, 0.247201464526]),
    (GENERAL, 20, 5.0, "duel", [0.399157022009, 0.287764173434, 0.199625026862, 0.113453777695]),
]

# The same with compute(list(payoffs), m=10, alpha=alpha)[2], of one population a seat.
OF_PROFILES = [
    (TWO_SEATS, 0.1, [0.172576463783, 0.176147410970, 0.157823501757, 0.169593124728, 0.168224334629, 0.155635164133]),
    (TWO_SEATS, 1.0, [0.193307215125, 0.215105852297, 0.102903148014, 0.195707018146, 0.186167677990, 0.106809088428]),
    (TWO_SEATS, 10.0, [0.136820444950, 0.273407767210, 0.139820802889, 0.222581559058, 0.147023261002, 0.080346164891]),
    (THREE, 0.5, [
        0.063125937018, 0.024639294095, 0.040516999390, 0.011189452349, 0.056248069044, 0.213433329126,
        0.030398266424, 0.049195291483, 0.056809127176, 0.355428786827, 0.063392444376, 0.035623002693,
    ]),
    (THREE, 2.0, [
        0.020983918766, 0.008110724223, 0.016388229249, 0.007095460446, 0.019299624292, 0.685556014169,
        0.019468045655, 0.031469059925, 0.023337827063, 0.125235860538, 0.023755292394, 0.019299943280,
    ]),
]  # fmt: skip

# The same with compute(..., use_inf_alpha=True, inf_alpha_eps=noise)[2].
IN_THE_LIMIT = [
    (TWO_SEATS, 0.001, [0.10722598581, 0.285530454716, 0.178733121751, 0.214094576635, 0.14283671735, 0.071579143737]),
    (THREE, 0.01, [
        0.011321268170, 0.006685361553, 0.009186336877, 0.005198038436, 0.014414453762, 0.838912721836,
        0.013471782504, 0.027321433620, 0.013100261094, 0.039065601575, 0.013725130815, 0.007597609757,
    ]),
]  # fmt: skip


def simulated(payoffs, alpha, population):
    """The chain built mutant by mutant, and its distribution as the solution of linear equations."""
    size = len(payoffs)
    steps = np.zeros((size, size))
    for s, r in itertools.permutations(range(size), 2):
        total, product = 1.0, 1.0
        for p in range(1, population):
            mutant = ((p - 1) * payoffs[r, r] + (population - p) * payoffs[r, s]) / (population - 1)
            resident = (p * payoffs[s, r] + (population - p - 1) * payoffs[s, s]) / (population - 1)
            product *= math.exp(-alpha * (mutant - resident))
            total += product
        steps[s, r] = 1 / total / (size - 1)
    np.fill_diagonal(steps, 1 - steps.sum(1))
    equations = np.vstack([steps.T - np.eye(size), np.ones(size)])
    return np.linalg.lstsq(equations, np.append(np.zeros(size), 1.0), rcond=None)[0]


@pytest.mark.parametrize(("payoffs", "population", "alpha", "fitness", "expected"), OF_ONE_POPULATION)
def test_one_population_agrees_with_openspiel(payoffs, population, alpha, fitness, expected):
    found = alpha_rank_symmetric(payoffs, alpha=alpha, population=population, fitness=fitness)
    assert found == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(("payoffs", "alpha", "expected"), OF_PROFILES)
def test_profiles_agree_with_openspiel(payoffs, alpha, expected):
    found = alpha_rank(payoffs, alpha=alpha, population=10)
    assert found.shape == payoffs.shape[1:]
    assert found.reshape(-1) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(("payoffs", "noise", "expected"), IN_THE_LIMIT)
def test_the_limit_agrees_with_openspiel(payoffs, noise, expected):
    assert alpha_rank(payoffs, noise=noise).reshape(-1) == pytest.approx(expected, abs=1e-10)


def test_the_limit_of_one_population_agrees_with_openspiel():
    expected = [0.397185710830, 0.300379001693, 0.199620998307, 0.102814289170]
    assert alpha_rank_symmetric(GENERAL, noise=0.01) == pytest.approx(expected, abs=1e-10)
    assert alpha_rank_symmetric(SKEWED, noise=0.01) == pytest.approx([1 / 3] * 3, abs=1e-12)


def test_two_strategies_by_hand():
    """Two individuals: a mutant takes over with probability 1 / (1 + e^-alpha gain), so the ranks are in that ratio."""
    payoffs = np.array([[0.0, 1.0], [-1.0, 0.0]])  # the first beats the second by 2, whatever there are of each
    gain = 1.0 - (-1.0)
    to_first, to_second = 1 / (1 + math.exp(-gain)), 1 / (1 + math.exp(gain))
    found = alpha_rank_symmetric(payoffs, alpha=1.0, population=2)
    assert found == pytest.approx([to_first / (to_first + to_second), to_second / (to_first + to_second)], abs=1e-12)


def test_one_seat_alone_climbs():
    """One seat with payoffs 0 and 1: the ratio of the two steps is e^(-(m - 1) alpha)."""
    found = alpha_rank(np.array([[0.0, 1.0]]), alpha=0.5, population=7)
    assert found[0] / found[1] == pytest.approx(math.exp(-6 * 0.5), rel=1e-10)


def test_no_selection_ranks_all_equally():
    assert alpha_rank(THREE, alpha=0.0) == pytest.approx(np.full((2, 3, 2), 1 / 12), abs=1e-12)
    assert alpha_rank_symmetric(GENERAL, alpha=0.0) == pytest.approx(np.full(4, 1 / 4), abs=1e-12)


@pytest.mark.parametrize("alpha", [1e2, 1e4, 1e8, math.inf])
def test_strong_selection_does_not_overflow(alpha):
    with np.errstate(over="raise", invalid="raise"):
        cycle = alpha_rank_symmetric(np.array([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]), alpha=alpha)
        best = alpha_rank_symmetric(np.array([[0.0, 1, 1], [-1, 0, 1], [-1, -1, 0]]), alpha=alpha)
        # Battle of the sexes: two absorbing profiles, from which OpenSpiel finds two distributions and gives up.
        sexes = alpha_rank(np.array([[[3.0, 0], [0, 2]], [[2.0, 0], [0, 3]]]), alpha=alpha)
    assert cycle == pytest.approx([1 / 3] * 3, abs=1e-12)
    assert best == pytest.approx([1, 0, 0], abs=1e-7)
    assert sexes == pytest.approx(np.eye(2) / 2, abs=1e-7)


def test_dominated_strategies_have_rank_zero():
    """Rock, paper and scissors and one that loses to all: the limit leaves it out."""
    payoffs = np.array([[0.0, -1, 1, 1], [1, 0, -1, 1], [-1, 1, 0, 1], [-1, -1, -1, 0]])
    assert alpha_rank_symmetric(payoffs) == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0], abs=1e-8)


def test_matching_pennies_ranks_profiles_equally():
    found = alpha_rank(zero_sum_game([[1, -1], [-1, 1]]), alpha=3.0)
    assert found == pytest.approx(np.full((2, 2), 0.25), abs=1e-12)
    assert [m.tolist() for m in marginals(found)] == [pytest.approx([0.5, 0.5])] * 2


def test_marginals_are_sums():
    first, second, third = marginals(alpha_rank(THREE, alpha=0.5, population=10))
    assert (len(first), len(second), len(third)) == (2, 3, 2)
    assert first[1] == pytest.approx(sum(OF_PROFILES[3][2][6:]), abs=1e-9)
    assert third[0] == pytest.approx(sum(OF_PROFILES[3][2][::2]), abs=1e-9)
    assert second.sum() == pytest.approx(1)


def test_games_of_three_in_one_population():
    """Three seats: as a game of two when the payoff is the mean over both others."""
    three = (GENERAL[:, :, None] + GENERAL[:, None, :]) / 2
    for alpha in (0.3, 3.0):
        expected = alpha_rank_symmetric(GENERAL, alpha=alpha, population=12)
        assert alpha_rank_symmetric(three, alpha=alpha, population=12) == pytest.approx(expected, abs=1e-12)


@given(
    arrays.arrays(float, st.integers(2, 5).map(lambda n: (n, n)), elements=st.floats(-2, 2)),
    st.floats(0, 1),
    st.integers(2, 8),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_one_population_agrees_with_its_simulated_chain(payoffs, alpha, population):
    found = alpha_rank_symmetric(payoffs, alpha=alpha, population=population)
    assert found == pytest.approx(simulated(payoffs, alpha, population), abs=1e-6)
    assert found.sum() == pytest.approx(1)


@given(arrays.arrays(float, (4, 4), elements=st.floats(-5, 5)), st.floats(0, 50), st.permutations(range(4)))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_the_order_of_strategies_does_not_matter(payoffs, alpha, order):
    before = alpha_rank_symmetric(payoffs, alpha=alpha)
    after = alpha_rank_symmetric(payoffs[np.ix_(order, order)], alpha=alpha)
    assert after == pytest.approx(before[list(order)], abs=1e-8)


@pytest.mark.parametrize(
    ("payoffs", "arguments", "message"),
    [
        (GENERAL[:2], {}, r"payoffs: got shape \(2, 4\); wanted \[A, ..., A\]"),
        (GENERAL * np.nan, {}, "payoffs: got NaN or infinity; wanted finite numbers"),
        (GENERAL, {"alpha": -1}, "alpha: got -1; wanted a number from 0"),
        (GENERAL, {"alpha": math.nan}, "alpha: got nan"),
        (GENERAL, {"alpha": 1, "population": 1}, "population: got 1; wanted at least 2"),
        (GENERAL, {"noise": 0}, "noise: got 0; wanted a number above 0, at most 0.5"),
        (GENERAL, {"fitness": "local"}, "fitness: got 'local'; wanted population or duel"),
        (np.arange(8.0).reshape(2, 2, 2), {"alpha": 1}, "not symmetric in seats 1 and 2"),
        (np.zeros((2, 2, 2)), {}, "alpha: got inf, fitness population, for 3 seats"),
        (np.zeros((2, 2, 2)), {"alpha": 1, "population": 2}, "population: got 2; wanted at least 3"),
    ],
)
def test_bad_arguments_are_refused(payoffs, arguments, message):
    with pytest.raises(GameError, match=message):
        alpha_rank_symmetric(payoffs, **arguments)


def test_bad_profiles_are_refused():
    with pytest.raises(GameError, match=r"payoffs: got 1,600 profiles \(40, 40\); wanted at most 1,500"):
        alpha_rank(np.zeros((2, 40, 40)))
    with pytest.raises(GameError, match=r"payoffs: got shape \(2, 3\)"):
        alpha_rank(np.zeros((2, 3)))


def test_a_tie_is_a_step_of_one_half_either_way():
    """a and b tie, c beats b, a beats c: a / 2 = c + b / 2, 3 b / 2 = a / 2 and c = b, so that they are 3 : 1 : 1."""
    payoffs = np.array([[0, 0, 1], [0, 0, -1], [-1, 1, 0]])
    assert alpha_rank_symmetric(payoffs) == pytest.approx([0.6, 0.2, 0.2], abs=1e-6)
