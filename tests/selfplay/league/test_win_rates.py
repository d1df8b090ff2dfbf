"""Win and draw counts of every pair of players, with older games decayed."""

import numpy as np
import pytest

from mlbits.selfplay.league.win_rates import FEW, Payoffs


def seats(*games):
    return np.array(games, np.int64)


def test_a_game_is_a_meeting_of_each_pair_in_it():
    payoffs = Payoffs(3)
    payoffs.add(seats([0, 1, 2], [2, 1, 0]), np.array([[3.0, 1.0, 1.0], [0.0, 5.0, 0.0]]))
    assert payoffs.wins.tolist() == [[0, 1, 1], [1, 0, 1], [0, 0, 0]]
    assert payoffs.draws.tolist() == [[0, 0, 1], [0, 0, 1], [1, 1, 0]]
    assert payoffs.meetings.tolist() == [[0, 2, 2], [2, 0, 2], [2, 2, 0]]


def test_a_player_does_not_meet_itself():
    payoffs = Payoffs(2)
    payoffs.add(seats([0, 0], [1, 1]), np.array([[1.0, -1.0], [0.0, 0.0]]))
    assert not payoffs.meetings.any()


def test_a_pair_with_few_meetings_counts_as_even():
    payoffs = Payoffs(2)
    few = int(FEW) - 1
    payoffs.add(seats(*[[0, 1]] * few), np.array([[1.0, 0.0]] * few))
    assert payoffs.win_rate(0).tolist() == [0.5, 0.5]
    payoffs.add(seats([1, 0]), np.array([[0.0, 0.0]]))
    assert payoffs.win_rate(0)[1] == pytest.approx((few + 0.5) / (few + 1))
    assert payoffs.win_rate(1)[0] == pytest.approx(0.5 / (few + 1))


def test_older_meetings_decay_to_at_most_the_memory():
    payoffs = Payoffs(2, memory=100)
    payoffs.add(seats(*[[0, 1]] * 100), np.array([[1.0, 0.0]] * 100))
    assert payoffs.win_rate(0)[1] == 1
    payoffs.add(seats(*[[0, 1]] * 50), np.array([[0.0, 1.0]] * 50))
    assert payoffs.meetings[0, 1] == pytest.approx(100)
    assert payoffs.win_rate(0)[1] == pytest.approx(0.5)
    payoffs.add(seats(*[[0, 1]] * 300), np.array([[0.0, 1.0]] * 300))  # more than it holds: these alone
    assert payoffs.win_rate(0)[1] == 0


def test_draws_decay_like_wins():
    payoffs = Payoffs(2, memory=100)
    payoffs.add(seats(*[[0, 1]] * 60), np.array([[1.0, 1.0]] * 60))
    payoffs.add(seats(*[[0, 1]] * 40), np.array([[0.0, 1.0]] * 40))
    payoffs.add(seats(*[[1, 0]] * 50), np.array([[0.0, 1.0]] * 50))  # half of 60 draws and 40 losses is left
    assert payoffs.draws.tolist() == [[0, 30], [30, 0]]
    assert payoffs.wins.tolist() == [[0, 50], [20, 0]]
    assert payoffs.meetings[0, 1] == payoffs.meetings[1, 0] == 100
    assert payoffs.win_rate(0)[1] == pytest.approx(0.65)
    payoffs.add(seats(*[[0, 1]] * 100), np.array([[2.0, 2.0]] * 100))
    assert payoffs.win_rate(0)[1] == payoffs.win_rate(1)[0] == 0.5
    assert not payoffs.wins.any()


def test_nothing_decays_below_the_memory():
    payoffs = Payoffs(3, memory=100)
    for winner in (1.0, 0.0, 1.0):
        payoffs.add(seats(*[[0, 1]] * 30, *[[2, 2]] * 30), np.array([[winner, 0.0]] * 30 + [[1.0, 0.0]] * 30))
    assert (payoffs.wins[0, 1], payoffs.wins[1, 0], payoffs.draws[0, 1], payoffs.draws[1, 0]) == (60, 0, 30, 30)
    assert not payoffs.meetings[2].any()


def test_players_without_games_keep_their_counts():
    payoffs = Payoffs(5, memory=100)
    payoffs.wins[:], payoffs.draws[:] = 30.0, 0.0
    np.fill_diagonal(payoffs.wins, 0)
    payoffs.add(seats(*[[4, 1]] * 70), np.array([[1.0, 0.0]] * 70))
    wanted = np.full((5, 5), 30.0) - 30 * np.eye(5)
    wanted[4, 1], wanted[1, 4] = 70 + 30 / 2, 30 / 2  # there is room for half of the old
    assert np.allclose(payoffs.wins, wanted)
    assert payoffs.win_rate(4) == pytest.approx(np.array([0.5, 0.85, 0.5, 0.5, 0.5]))
    assert not payoffs.draws.any()


def test_a_copy_inherits_its_parents_counts():
    payoffs = Payoffs(2)
    payoffs.add(seats(*[[0, 1]] * 10), np.array([[1.0, 0.0]] * 10))
    assert payoffs.admit(0) == 2
    assert len(payoffs) == 3
    assert payoffs.win_rate(2).tolist() == [0.5, 1.0, 0.5]
    assert payoffs.win_rate(1).tolist() == [0.0, 0.5, 0.0]
    payoffs.forget(0)
    assert payoffs.win_rate(0).tolist() == [0.5, 0.5, 0.5]
    assert payoffs.win_rate(2)[1] == 1.0


def test_counts_are_saved_as_a_copy():
    payoffs, other = Payoffs(2), Payoffs(2)
    payoffs.add(seats(*[[0, 1]] * 10), np.array([[1.0, 0.0]] * 10))
    other.load_state_dict(payoffs.state_dict())
    payoffs.add(seats(*[[0, 1]] * 10), np.array([[0.0, 1.0]] * 10))
    assert other.win_rate(0)[1] == 1
    assert payoffs.win_rate(0)[1] == 0.5
