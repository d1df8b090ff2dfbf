"""Fictitious play, and iterated best response, which cycles."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mlbits.envs.core.errors import GameError
from mlbits.evals.game_theory.fictitious_play import fictitious_play, iterated_best_response
from mlbits.evals.game_theory.nash_conv import action_payoffs, exploitability, symmetric_game, zero_sum_game
from tests.evals.game_theory.test_nash_conv import THREE

ROCK_PAPER_SCISSORS = symmetric_game([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
PENNIES = zero_sum_game([[1, -1], [-1, 1]])
SHAPLEY = np.array([[[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[0, 1, 0], [0, 0, 1], [1, 0, 0]]], float)


def blotto(coins, fields):
    """Payoffs of all divisions of the coins, in lexicographic order: the player with more fields wins."""
    ways = [way for way in itertools.product(range(coins + 1), repeat=fields) if sum(way) == coins]
    payoffs = np.zeros((len(ways), len(ways)))
    for (i, mine), (j, other) in itertools.product(enumerate(ways), repeat=2):
        won = sum(a > b for a, b in zip(mine, other, strict=True))
        lost = sum(a < b for a, b in zip(mine, other, strict=True))
        payoffs[i, j] = (won > lost) - (won < lost)
    return payoffs


@pytest.fixture(scope="module")
def blotto_10_3():
    return symmetric_game(blotto(10, 3))


@pytest.fixture(scope="module")
def blotto_5_3():
    return symmetric_game(blotto(5, 3))


def test_pennies_by_hand():
    """Both begin with heads. The second, who wants to differ, changes to tails; means, then gaps, by hand."""
    found = fictitious_play(PENNIES, 5, initial=(0, 0), ties="lowest")
    # Round 2: the second answers heads with tails, the first stays. Round 3: the first saw one of each, a tie, and
    # takes heads; the second saw heads twice. Round 4: the first saw tails twice of three and follows.
    assert found.actions.tolist() == [[0, 0], [0, 1], [0, 1], [1, 1], [1, 1]]
    assert found.exploitability[:4] == pytest.approx([1.0, 0.5, (1 / 3 + 1) / 2, 0.5])
    assert found.profile[0].tolist() == [0.6, 0.4]
    assert found.profile[1].tolist() == [0.2, 0.8]
    assert exploitability(PENNIES, found.profile) == pytest.approx(found.exploitability[-1])


def test_alternating_seats_know_the_round():
    found = fictitious_play(PENNIES, 3, initial=(0, 0), updates="alternating", ties="lowest")
    assert found.actions[0].tolist() == [0, 0]  # the given first actions
    # Round 2: the first saw heads and stays, the second saw heads twice and leaves.
    assert found.actions[1].tolist() == [0, 1]
    # Round 3: the first saw one of each, a tie; the second saw heads three times.
    assert found.actions[2].tolist() == [0, 1]
    begun = fictitious_play(PENNIES, 1, updates="alternating", ties="lowest")
    assert begun.actions[0].tolist() == [0, 1]  # the second answers heads, which the first has just played


def test_blotto_of_ten_coins_matches_the_reference(blotto_10_3):
    """Reference: exact payoff matrix, first opponent uniform, (payoffs @ mean).argmax(), NashConv / 2."""
    found = fictitious_play(blotto_10_3, 1000)
    assert blotto_10_3.shape == (2, 66, 66)
    assert found.exploitability[[9, 99, 999]] == pytest.approx([0.400, 0.130, 0.042], abs=5e-4)
    assert found.profile[0] == pytest.approx(found.profile[1])
    assert exploitability(blotto_10_3, found.profile) == pytest.approx(found.exploitability[-1], abs=1e-12)


def test_blotto_of_five_coins_matches_the_reference(blotto_5_3):
    found = fictitious_play(blotto_5_3, 1000)
    assert found.exploitability[[9, 99, 999]] == pytest.approx([0.200, 0.070, 0.026], abs=5e-4)


def test_uniform_play_of_blotto_matches_the_reference(blotto_10_3, blotto_5_3):
    for payoffs, expected in ((blotto_10_3, 0.318), (blotto_5_3, 0.286)):
        uniform = np.full(payoffs.shape[1], 1 / payoffs.shape[1])
        assert exploitability(payoffs, [uniform, uniform]) == pytest.approx(expected, abs=5e-4)


def test_every_tie_rule_plays_best_responses(blotto_10_3):
    """For every rule for ties, every action is a best response, and play approaches the equilibrium."""
    lowest = fictitious_play(blotto_10_3, 1000, ties="lowest")
    drawn = [fictitious_play(blotto_10_3, 300, ties="random", seed=seed) for seed in (0, 0, 1)]
    assert lowest.exploitability[[99, 999]] == pytest.approx([0.140, 0.050], abs=1e-9)
    assert np.array_equal(drawn[0].actions, drawn[1].actions)
    assert not np.array_equal(drawn[0].actions, drawn[2].actions)
    for found in (lowest, *drawn, fictitious_play(blotto_10_3, 300)):
        counts = np.zeros((2, 66))
        for t, joint in enumerate(found.actions[:300]):
            if t > 0:
                for seat in (0, 1):
                    earned = blotto_10_3[0] @ counts[1 - seat]  # whole numbers; the game is the same from both seats
                    assert earned[joint[seat]] == earned.max()
            counts[[0, 1], joint] += 1


def test_simultaneous_play_cycles_in_shapleys_game():
    """Simultaneous fictitious play cycles in Shapley's game, ever more slowly, and does not converge."""
    found = fictitious_play(SHAPLEY, 3000, initial=(0, 0), ties="lowest")
    assert found.exploitability[1000:].min() > 0.05
    assert found.exploitability[-1] > 0.1
    assert fictitious_play(ROCK_PAPER_SCISSORS, 3000, initial=(0, 0)).exploitability[-1] < 0.05


def test_games_of_three_seats():
    """Three players who each want to be alone: one apart from the two others earns 1."""
    payoffs = np.zeros((3, 2, 2, 2))
    for joint in itertools.product((0, 1), repeat=3):
        for seat in range(3):
            payoffs[(seat, *joint)] = sum(joint[seat] == other for other in joint) == 1
    found = fictitious_play(payoffs, 2000, initial=(0, 1, 1), ties="lowest")
    assert found.exploitability[0] == 0.0  # an equilibrium: neither of the two is better off elsewhere
    assert exploitability(payoffs, found.profile) == pytest.approx(found.exploitability[-1], abs=1e-12)
    with_rounding = fictitious_play(payoffs, 200)
    assert len(with_rounding.profile) == 3
    assert with_rounding.actions.shape == (200, 3)


@pytest.mark.parametrize("ties", ["rounding", "lowest", "random"])
def test_every_seat_answers_the_means_of_the_others(ties):
    """Three different seats: each action is a best response to what the other seats have played so far."""
    found = fictitious_play(THREE, 60, initial=(1, 2, 0), ties=ties)
    counts = [np.zeros(size) for size in THREE.shape[1:]]
    for t, joint in enumerate(found.actions):
        if t > 0:
            for own, action in zip(action_payoffs(THREE, [count / t for count in counts]), joint, strict=True):
                assert own[action] >= own.max() - 1e-9
        for count, action in zip(counts, joint, strict=True):
            count[action] += 1
        means = [count / (t + 1) for count in counts]
        assert found.exploitability[t] == pytest.approx(exploitability(THREE, means), abs=1e-12)


@given(
    arrays.arrays(float, st.tuples(st.integers(1, 5), st.integers(1, 5)), elements=st.integers(-3, 3)),
    st.sampled_from(["simultaneous", "alternating"]),
    st.sampled_from(["rounding", "lowest", "random"]),
)
@settings(max_examples=20, deadline=None, derandomize=True)
def test_zero_sum_games_converge(matrix, updates, ties):
    """Robinson's theorem, at a number of rounds where it shows."""
    payoffs = zero_sum_game(matrix)
    found = fictitious_play(payoffs, 400, updates=updates, ties=ties)
    assert found.exploitability[-1] <= 0.12 * max(np.ptp(matrix), 1)
    assert exploitability(payoffs, found.profile) == pytest.approx(found.exploitability[-1], abs=1e-9)
    assert np.bincount(found.actions[:, 0], minlength=len(matrix)) / 400 == pytest.approx(found.profile[0])


@pytest.mark.parametrize("start", range(3))
def test_best_responses_in_rock_paper_scissors_cycle(start):
    found = iterated_best_response(ROCK_PAPER_SCISSORS, (start, start))
    assert len(found.cycle) == 3
    assert sorted(found.cycle[:, 0].tolist()) == [0, 1, 2]
    assert found.exploitability.tolist() == [1.0, 1.0, 1.0]
    apart = iterated_best_response(ROCK_PAPER_SCISSORS, (0, 1))
    assert len(apart.cycle) == 6
    assert len(iterated_best_response(ROCK_PAPER_SCISSORS, (0, 0), updates="alternating").cycle) == 3


def test_best_responses_in_blotto_cycle(blotto_10_3, blotto_5_3):
    """Among three actions, each of them fully exploitable, from any start."""
    for payoffs in (blotto_10_3, blotto_5_3):
        for start in range(payoffs.shape[1]):
            found = iterated_best_response(payoffs, (start, start))
            actions = found.cycle[:, 0].tolist()
            assert len(set(actions)) == 3
            assert (found.exploitability == 1.0).all()
            for before, after in itertools.pairwise([*actions, actions[0]]):  # each beats the one before
                assert payoffs[0][after, before] == 1
            assert len(iterated_best_response(payoffs, (start, 0), updates="alternating").cycle) > 1


def test_best_responses_may_converge():
    dilemma = iterated_best_response(symmetric_game([[3, 0], [5, 1]]), (0, 0))
    assert dilemma.actions.tolist() == [[0, 0], [1, 1]]
    assert (dilemma.start, dilemma.cycle.tolist()) == (1, [[1, 1]])
    assert dilemma.exploitability.tolist() == [2.0, 0.0]
    meeting = symmetric_game([[1, 0], [0, 1]])  # simultaneous responses miss each other for ever
    assert iterated_best_response(meeting, (0, 1)).cycle.tolist() == [[0, 1], [1, 0]]
    assert iterated_best_response(meeting, (0, 1), updates="alternating").cycle.tolist() == [[1, 1]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rounds": 0}, "rounds: got 0; wanted at least 1"),
        ({"rounds": 5, "initial": (0, 3)}, r"initial: got \(0, 3\); wanted 2 actions, below \(3, 3\)"),
        ({"rounds": 5, "initial": (0,)}, r"initial: got \(0,\)"),
        ({"rounds": 5, "updates": "both"}, "updates: got 'both'; wanted any of simultaneous, alternating"),
        ({"rounds": 5, "ties": "first"}, "ties: got 'first'; wanted any of rounding, lowest, random"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(GameError, match=message):
        fictitious_play(ROCK_PAPER_SCISSORS, **arguments)


def test_bad_starts_of_best_responses_are_refused():
    with pytest.raises(GameError, match="initial: got"):
        iterated_best_response(ROCK_PAPER_SCISSORS, (0, -1))
    with pytest.raises(GameError, match="updates: got"):
        iterated_best_response(ROCK_PAPER_SCISSORS, (0, 0), updates="now")
    with pytest.raises(GameError, match="payoffs: got shape"):
        iterated_best_response(np.zeros((2, 2)), (0, 0))
