"""Elo by maximum likelihood, from tables and from games, with intervals."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mlbits.evals.ratings import ELO, RatingError, elo_ratings, game_points, points, rate

WINS = np.array([[0, 7, 9, 5], [3, 0, 6, 4], [1, 2, 0, 6], [2, 1, 3, 0]])
DRAWS = np.array([[0, 2, 0, 3], [2, 0, 2, 0], [0, 2, 0, 1], [3, 0, 1, 0]])


def hunter(scores, steps=20_000):
    """Hunter's MM algorithm, equation 3: strength = points / sum over others of games / (own + other's strength)."""
    games, strength = scores + scores.T, np.ones(len(scores))
    for _ in range(steps):
        weights = games / (strength[:, None] + strength[None, :])
        strength = scores.sum(1) / weights.sum(1)
        strength /= strength.sum()
    return np.log(strength) * ELO


def log_likelihood(scores, elo, prior):
    ahead = (elo[:, None] - elo[None, :]) / ELO
    pairs = -(scores * np.logaddexp(0, -ahead)).sum()
    unseen = -0.5 * prior * (np.logaddexp(0, elo / ELO) + np.logaddexp(0, -elo / ELO)).sum()
    return pairs + unseen


def tournament(strengths, games, seed):
    """Games of two, [G, 2] players and returns, with odds by Elo and no draws."""
    generator, who, earned = np.random.default_rng(seed), [], []
    for i, j in itertools.combinations(range(len(strengths)), 2):
        won = generator.random(games) < 1 / (1 + 10 ** ((strengths[j] - strengths[i]) / 400))
        who.append(np.tile([i, j], (games, 1)))
        earned.append(np.where(won[:, None], [1.0, -1.0], [-1.0, 1.0]))
    return np.concatenate(who), np.concatenate(earned)


def test_ten_to_one_is_four_hundred():
    assert elo_ratings(points([[0, 10], [1, 0]]), prior=0, anchor=1) == pytest.approx([400, 0])
    assert elo_ratings(points([[0, 10], [1, 0]]), prior=0) == pytest.approx([200, -200])
    assert elo_ratings(points([[0, 5], [5, 0]]), prior=0) == pytest.approx([0, 0])


def test_draws_are_half_points():
    """Three wins and two draws of five are four points to one."""
    found = elo_ratings(points([[0, 3], [0, 0]], [[0, 2], [2, 0]]), prior=0, anchor=1)
    assert found == pytest.approx([400 * math.log10(4), 0])


def test_a_chain_adds_up():
    """1 beats 2 by 3 to 1, 2 beats 3 by 3 to 1: the pairs that met fix the third, by 9 to 1."""
    found = elo_ratings(points([[0, 3, 0], [1, 0, 3], [0, 1, 0]]), prior=0, anchor=2)
    assert found == pytest.approx([800 * math.log10(3), 400 * math.log10(3), 0])


@pytest.mark.parametrize(
    ("draws", "expected"),
    [
        # OpenSpiel 2.0.2: elo.compute_ratings_from_matrices(WINS, draws, smoothing_factor=0.0, max_iterations=100000,
        # convergence_delta=1e-13).
        (None, [324.879880556028, 209.347082132148, 45.6208537753, 0.0]),
        (DRAWS, [251.51700427746, 162.294416964344, 21.823578735219, 0.0]),
    ],
)
def test_ratings_are_as_openspiel_has_them(draws, expected):
    assert elo_ratings(points(WINS, draws), prior=0, anchor=3) == pytest.approx(expected, abs=1e-6)


def test_ratings_are_as_hunter_has_them():
    scores = points(WINS, DRAWS)
    assert np.ptp(elo_ratings(scores, prior=0) - hunter(scores)) < 1e-6


@pytest.mark.parametrize("prior", [0.5, 1.0, 4.0])
def test_the_prior_is_draws_with_a_player_of_rating_0(prior):
    """As a table with one player more whose rating is the anchor, and as where no other rating is likelier."""
    scores = points([[0, 8, 5], [0, 0, 3], [1, 1, 0]])
    more = np.zeros((4, 4))
    more[:3, :3], more[3, :3], more[:3, 3] = scores, prior / 2, prior / 2
    expected = elo_ratings(more, prior=0, anchor=3)[:3]
    found = elo_ratings(scores, prior=prior)
    assert found == pytest.approx(expected - expected.mean(), abs=1e-6)
    best = log_likelihood(scores, expected, prior)
    for player, change in itertools.product(range(3), (-5, 5)):
        assert log_likelihood(scores, expected + change * np.eye(3)[player], prior) < best


def test_players_that_always_win_stay_in_reach():
    scores = points([[0, 1000], [0, 0]])
    assert 500 < elo_ratings(scores, anchor=1)[0] < 2000
    assert elo_ratings(scores, prior=10, anchor=1)[0] < elo_ratings(scores, prior=1, anchor=1)[0]
    assert elo_ratings(points([[0, 10**6], [0, 0]]), prior=1e-6)[0] < 4000
    with pytest.raises(RatingError, match=r"won or lost all games .*groups \[0\]; \[1\]"):
        elo_ratings(scores, prior=0)
    apart = points([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]])
    with pytest.raises(RatingError, match=r"never met them \(groups \[0, 1\]; \[2, 3\]\); wanted a prior above 0"):
        elo_ratings(apart, prior=0)
    assert elo_ratings(apart) == pytest.approx([0] * 4)


def test_several_tables_at_once():
    tables = np.stack([points(WINS), points(WINS, DRAWS), points(WINS.T)])
    together = elo_ratings(tables)
    assert together.shape == (3, 4)
    for table, found in zip(tables, together, strict=True):
        assert found == pytest.approx(elo_ratings(table), abs=1e-9)
    assert together[2] == pytest.approx(-together[0])


def test_a_game_of_three_by_hand():
    """First, and two who share the second place: 1/2 for each pair, so that the game counts as one for each player."""
    found = game_points([[2, 0, 1]], [[10.0, 3.0, 3.0]], 4)
    assert found.tolist() == [[0, 0.25, 0, 0], [0.25, 0, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 0, 0]]
    twice = game_points([[0, 0, 1]], [[1.0, 0.0, 0.5]], 2)  # one player in two seats: above and below the other
    assert twice.tolist() == [[0, 0.5], [0.5, 0]]


def test_games_of_two_are_their_table():
    who = [[0, 1], [1, 0], [0, 2], [2, 1]]
    earned = [[1, -1], [0, 0], [-1, 1], [2, 3]]
    assert game_points(who, earned, 3).tolist() == [[0, 1.5, 0], [0.5, 0, 1], [1, 0, 0]]


def test_ratings_find_the_odds_of_the_games():
    strengths = np.array([0.0, 150, -80, 300])
    who, earned = tournament(strengths, 4000, seed=3)
    found = rate(who, earned, ["a", "b", "c", "d"], anchor="a")
    assert found.elo == pytest.approx(strengths, abs=25)
    assert (found.low <= found.elo).all()
    assert (found.elo <= found.high).all()
    assert (found.elo[0], found.low[0], found.high[0]) == (0, 0, 0)
    assert (found.high[1:] - found.low[1:] > 10).all()
    assert (found.high[1:] - found.low[1:] < 40).all()
    assert found.games.tolist() == [12_000] * 4


def test_games_of_seven_find_the_odds_of_plackett_and_luce():
    """Luce's rankings are those of exponential clocks: log strength plus Gumbel noise, the greatest first."""
    generator = np.random.default_rng(5)
    strengths = np.linspace(-250, 250, 9)
    who = np.stack([generator.permutation(9)[:7] for _ in range(3000)])
    earned = strengths[who] / ELO + generator.gumbel(size=who.shape)
    found = rate(who, earned, [str(k) for k in range(9)], resamples=200)
    assert found.elo == pytest.approx(strengths, abs=25)
    width = found.high - found.low
    assert ((width > 8) & (width < 40)).all()
    assert ((found.low < strengths) & (strengths < found.high)).sum() >= 7
    assert found.games.sum() == 7 * 3000


def test_intervals_hold_the_truth_as_often_as_they_say():
    """90% intervals of a difference over 120 tournaments; a binomial of 0.9 leaves 96 .. 118 once in ten thousand."""
    held, prior = 0, 1e-3
    for seed in range(120):
        who, earned = tournament(np.array([0.0, 120.0]), 150, seed)
        found = rate(who, earned, ["a", "b"], anchor="a", prior=prior, confidence=0.9, resamples=400, seed=seed)
        held += found.low[1] <= 120 <= found.high[1]
    assert 96 <= held <= 118


def test_intervals_are_wider_for_fewer_games_and_the_same_for_the_same_seed():
    few, many = (tournament(np.array([0.0, 100, 200]), games, 1) for games in (50, 800))
    names = ["a", "b", "c"]
    wide, narrow = rate(*few, names), rate(*many, names)
    assert ((wide.high - wide.low) > 2 * (narrow.high - narrow.low)).all()
    again, other = rate(*few, names), rate(*few, names, seed=1)
    assert np.array_equal(again.low, wide.low)
    assert not np.array_equal(other.low, wide.low)


def test_games_in_any_order_of_rows_and_seats_rate_alike():
    who, earned = tournament(np.array([0.0, 100, 200]), 60, 2)
    order = np.random.default_rng(0).permutation(len(who))
    straight, turned = rate(who, earned, "abc"), rate(who[order, ::-1], 7 * earned[order, ::-1] + 1, "abc")
    assert turned.elo == pytest.approx(straight.elo, abs=1e-9)
    assert turned.low == pytest.approx(straight.low, abs=1e-9)


@given(arrays.arrays(float, st.integers(2, 6).map(lambda n: (n, n)), elements=st.integers(0, 30)), st.floats(0.1, 5))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_no_other_ratings_are_likelier(scores, prior):
    np.fill_diagonal(scores, 0)
    found = elo_ratings(scores, prior=prior)
    # The maximum fixes the shift, too: of all shifts it is the likeliest.
    shifts = np.linspace(-400, 400, 201)
    best = max(log_likelihood(scores, found + shift, prior) for shift in shifts)
    generator = np.random.default_rng(0)
    for _ in range(10):
        other = found + generator.normal(size=len(found)) * 20
        assert max(log_likelihood(scores, other + shift, prior) for shift in shifts[::4]) <= best + 1e-6


@given(arrays.arrays(float, (4, 4), elements=st.integers(0, 9)), st.permutations(range(4)))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_the_order_of_players_does_not_matter(scores, order):
    before, after = elo_ratings(scores), elo_ratings(scores[np.ix_(order, order)])
    assert after == pytest.approx(before[list(order)], abs=1e-6)
    assert elo_ratings(scores.T) == pytest.approx(-before, abs=1e-6)


@pytest.mark.parametrize(
    ("wins", "draws", "message"),
    [
        ([[0, 1]], None, r"wins, draws: got shapes \(1, 2\)"),
        ([[0, 1], [1, 0]], [[0]], r"got shapes \(2, 2\), \(1, 1\)"),
        ([[0, -1], [1, 0]], None, "wins: got numbers that are negative or not finite"),
        ([[0, math.nan], [1, 0]], None, "wins: got numbers"),
        ([[0, 1], [1, 2]], None, "wins: got games of player 1 against itself"),
        ([[0, 1], [1, 0]], [[0, 1], [2, 0]], "draws: got a table that is not symmetric"),
    ],
)
def test_bad_tables_are_refused(wins, draws, message):
    with pytest.raises(RatingError, match=message):
        points(wins, draws)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prior": -1}, "prior: got -1; wanted a number of games from 0"),
        ({"prior": math.inf}, "prior: got inf"),
        ({"anchor": 4}, "anchor: got 4; wanted a player from 0 to 3"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(RatingError, match=message):
        elo_ratings(points(WINS), **arguments)


@pytest.mark.parametrize(
    ("who", "earned", "arguments", "message"),
    [
        ([[0, 1]], [[1, 2, 3]], {}, r"players, returns: got shapes \(1, 2\), \(1, 3\)"),
        ([[0]], [[1]], {}, "wanted twice"),
        (np.zeros((0, 2), int), np.zeros((0, 2)), {}, r"got shapes \(0, 2\)"),
        ([[0, 2]], [[1, 0]], {}, "players: got 0 .. 2; wanted whole numbers below 2"),
        ([[0, 0.5]], [[1, 0]], {}, "players: got"),
        ([[0, 1]], [[1, math.nan]], {}, "returns: got NaN in game 0"),
        ([[0, 1]], [[1, 0]], {"anchor": "c"}, "anchor: got 'c'; wanted any of a, b"),
        ([[0, 1]], [[1, 0]], {"confidence": 1}, "confidence, resamples: got 1, 1000"),
        ([[0, 1]], [[1, 0]], {"prior": 0}, "wanted a prior above 0"),
    ],
)
def test_bad_games_are_refused(who, earned, arguments, message):
    with pytest.raises(RatingError, match=message):
        rate(who, earned, ["a", "b"], **arguments)
