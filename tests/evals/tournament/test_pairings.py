"""Pairings: balanced seats, numbers of games, Swiss rounds by standing."""

import itertools

import numpy as np
import pytest

from mlbits.evals.tournament.pairings import all_against_all, games_a_table, meetings, swiss_round

SIZES = [(2, 2), (5, 2), (8, 2), (3, 3), (4, 3), (8, 3), (7, 7), (9, 7), (2, 3), (3, 7), (2, 7)]


def seats_of(seating, entries):
    """How often each entry had each seat, [N, P]."""
    return np.stack([np.bincount(column, minlength=entries) for column in seating.T], 1)


def apart(met):
    return met[~np.eye(len(met), dtype=bool)]


def no_games(seats):
    return np.empty((0, seats), np.int64), np.empty((0, seats))


# All against all


def test_two_seats_by_hand():
    first = [[0, 1], [1, 0], [0, 2], [2, 0], [1, 2], [2, 1]]
    assert all_against_all(3, 2, 2).tolist() == first
    assert all_against_all(3, 2, 1).tolist() == first
    assert all_against_all(3, 2, 3).tolist() == first * 2


@pytest.mark.parametrize(("entries", "seats"), SIZES)
def test_all_entries_have_every_seat_equally_often(entries, seats):
    for games in (1, 20):
        counts = seats_of(all_against_all(entries, seats, games, seed=3), entries)
        assert (counts == counts[:, :1]).all()
        assert counts.min() > 0


@pytest.mark.parametrize(("entries", "seats"), SIZES)
def test_every_pair_meets_often_enough_and_about_equally_often(entries, seats):
    games = 60
    seating = all_against_all(entries, seats, games, seed=3)
    met = apart(meetings(seating, entries))
    wanted = games_a_table(games, entries, seats)
    assert games <= wanted <= met.min()
    assert met.max() <= wanted + (0 if seats == 2 or entries <= seats else 3 * seats)
    if entries >= seats:  # no entry sits at a table twice
        assert all(len(set(row)) == seats for row in seating.tolist())
    else:  # all are at every table, none with two seats more than another
        rows = np.stack([np.bincount(row, minlength=entries) for row in seating])
        assert (np.ptp(rows, 1) <= 1).all()


@pytest.mark.parametrize(("entries", "seats"), SIZES)
def test_a_longer_schedule_begins_with_the_shorter_one(entries, seats):
    few, many = (all_against_all(entries, seats, games, seed=5) for games in (20, 60))
    assert np.array_equal(many[: len(few)], few)
    assert len(many) > len(few)


def test_the_seed_decides_larger_tables():
    one, again, other = (all_against_all(8, 3, 10, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(one, again)
    assert one.shape != other.shape or not np.array_equal(one, other)


def test_meetings_count_games_once():
    assert meetings(np.array([[0, 1, 1], [0, 0, 2]]), 3).tolist() == [[0, 1, 1], [1, 0, 0], [1, 0, 0]]


# Swiss rounds


def tournament(entries, seats, rounds, seed=0, games=2):
    """Rounds in which entries are as strong as their numbers; gives the seating of each."""
    seating, returns = no_games(seats)
    found = []
    for _ in range(rounds):
        part = swiss_round(entries, seats, games, seating, returns, seed)
        found.append(part)
        seating, returns = np.concatenate([seating, part]), np.concatenate([returns, part.astype(float)])
    return found


def test_the_first_pairs_are_random():
    seen = {tuple(map(tuple, np.sort(swiss_round(4, 2, 2, *no_games(2), seed), 1).tolist())) for seed in range(20)}
    assert len(seen) > 3


def test_entries_of_similar_standing_meet():
    seating, returns = np.array([[0, 1], [2, 3]] * 2), np.array([[1.0, -1.0], [1.0, -1.0]] * 2)
    for seed in range(5):
        second = swiss_round(4, 2, 2, seating, returns, seed)
        assert sorted(map(tuple, np.sort(second, 1).tolist())) == [(0, 2), (0, 2), (1, 3), (1, 3)]


def test_a_round_has_its_games_in_both_seats():
    part = swiss_round(6, 2, 5, *no_games(2))
    assert len(part) == 3 * 6  # 5 rounded up to 6
    assert (seats_of(part, 6) == 3).all()
    part = swiss_round(7, 3, 3, *no_games(3))
    assert len(part) == 2 * 3
    assert sorted(seats_of(part, 7).sum(1).tolist()) == [0] + [3] * 6


def without_repeats(entries, met):
    """Whether entries can be paired so that none have met, by trying all."""
    if not entries:
        return True
    first, rest = entries[0], entries[1:]
    return any(not met[first, other] and without_repeats([e for e in rest if e != other], met) for other in rest)


@pytest.mark.parametrize(("entries", "rounds"), [(4, 3), (6, 5), (7, 7), (8, 7), (5, 5)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_pair_meets_again_while_avoidable(entries, rounds, seed):
    met, sat_out = np.zeros((entries, entries), np.int64), np.zeros(entries, int)
    for part in tournament(entries, 2, rounds, seed):
        playing = np.unique(part)
        pairs = {tuple(sorted(row)) for row in part.tolist()}
        assert len(pairs) == entries // 2
        if any(met[pair] for pair in pairs):
            may = np.flatnonzero(sat_out == sat_out.min()) if entries % 2 else [entries]
            assert not any(without_repeats([e for e in range(entries) if e != out], met) for out in may)
        for one, other in pairs:
            met[one, other] += 1
            met[other, one] += 1
        sat_out[np.setdiff1d(np.arange(entries), playing)] += 1
        assert np.ptp(sat_out) <= 1
    assert met.max() <= 2


def test_all_pairs_meet_twice_before_a_third_time():
    met = sum(meetings(part, 4) > 0 for part in tournament(4, 2, 6))
    assert apart(met).tolist() == [2] * 12


def test_a_long_tournament_of_many_has_no_repeats():
    met = sum(meetings(part, 24) > 0 for part in tournament(24, 2, 15))
    assert met.max() == 1


def test_the_unbeaten_meet():
    unbeaten = set(range(16))
    for part in tournament(16, 2, 4):
        pairs = [set(row) for row in part.tolist()]
        assert all(pair <= unbeaten or not pair & unbeaten for pair in pairs)
        unbeaten -= {min(pair) for pair in pairs}
    assert unbeaten == {15}


def test_larger_tables_are_of_similar_standing():
    first, second = tournament(9, 3, 2)
    winners = {max(row) for row in first.tolist()}
    assert winners in [set(row) for row in second.tolist()]
    assert all(len(set(row)) == 3 for row in itertools.chain(first.tolist(), second.tolist()))
