"""Best-response policy iteration on payoff tables."""

import numpy as np
import pytest

from mlbits.agents.agent import AgentError
from mlbits.agents.best_response.tabular import METHODS, TabularConfig, _History, answer, policy_iteration

ROCK = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], float)
THROWS = np.stack([ROCK, -ROCK])


def test_one_round_against_uniform_stays_uniform_in_a_symmetric_game():
    mixtures = policy_iteration(THROWS, TabularConfig(profiles=1, num_candidates=2, answers=20_000), 1, seed=0)
    history = _History(THROWS, np.random.default_rng(1))
    config = TabularConfig(profiles=1, num_candidates=2, answers=20_000)
    answers = answer(THROWS, config, history)
    assert answers.shape == (2, 20_000)
    for mixture in mixtures:
        assert mixture[0] == pytest.approx(np.full(3, 1 / 3))
        assert mixture[1] == pytest.approx(np.full(3, 1 / 3), abs=0.02)


def test_many_profiles_and_candidates_give_the_best_response():
    payoffs = np.stack([np.array([[3.0, 0.0], [5.0, 1.0]]), np.array([[3.0, 5.0], [0.0, 1.0]])])
    mixtures = policy_iteration(payoffs, TabularConfig(answers=200), 2, seed=0)
    assert all(mixture[1][1] == 1 for mixture in mixtures)  # both defect


def test_three_seats_answer_with_their_own_payoffs():
    payoffs = np.zeros((3, 2, 3, 4))
    payoffs[0, 1], payoffs[1, :, 2], payoffs[2, :, :, 3] = 1, 1, 1
    mixtures = policy_iteration(payoffs, TabularConfig(answers=100, num_candidates=60), 1, seed=0)
    assert [mixture[1].argmax() for mixture in mixtures] == [1, 2, 3]
    assert [mixture[1].max() for mixture in mixtures] == [1, 1, 1]


def test_a_profile_is_of_one_round_for_all_seats():
    history = _History(THROWS, np.random.default_rng(0))
    history.answers = [np.full((2, 10), 1), np.full((2, 10), 2)]
    rounds = history.rounds("past", (1000,))
    one, two = history.draw(0, rounds), history.draw(1, rounds)
    assert (one[rounds > 0] == rounds[rounds > 0]).all()
    assert (two[rounds > 0] == one[rounds > 0]).all()
    assert 250 < (rounds == 0).sum() < 420
    assert (history.rounds("latest", (4,)) == 2).all()
    assert (history.rounds("initial", (4,)) == 0).all()


def test_only_ibr_responds_to_the_latest_round_alone():
    assert [METHODS[name].base for name in ("ibr", "fppi1", "fppi2")] == ["latest", "past", "past"]
    with pytest.raises(AgentError, match="profiles: got 0"):
        TabularConfig(profiles=0)
