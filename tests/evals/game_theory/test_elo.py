"""Elo by maximum likelihood, from tables and from games, with intervals, against OpenSpiel and by hand."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import optimize, stats

from mlbits.evals.game_theory.elo import ELO, RatingError, elo_ratings, game_points, meeting_groups, points, rate

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
def test_ratings_agree_with_openspiel(draws, expected):
    assert elo_ratings(points(WINS, draws), prior=0, anchor=3) == pytest.approx(expected, abs=1e-6)


def test_ratings_agree_with_hunters_algorithm():
    scores = points(WINS, DRAWS)
    assert np.ptp(elo_ratings(scores, prior=0) - hunter(scores)) < 1e-6


@pytest.mark.parametrize("prior", [0.5, 1.0, 4.0])
def test_the_prior_is_draws_with_a_player_of_rating_0(prior):
    """The same as a table with one more player, the anchor; and the ratings maximise the likelihood."""
    scores = points([[0, 8, 5], [0, 0, 3], [1, 1, 0]])
    more = np.zeros((4, 4))
    more[:3, :3], more[3, :3], more[:3, 3] = scores, prior / 2, prior / 2
    expected = elo_ratings(more, prior=0, anchor=3)[:3]
    found = elo_ratings(scores, prior=prior)
    assert found == pytest.approx(expected - expected.mean(), abs=1e-6)
    best = log_likelihood(scores, expected, prior)
    for player, change in itertools.product(range(3), (-5, 5)):
        assert log_likelihood(scores, expected + change * np.eye(3)[player], prior) < best


def test_ratings_of_players_that_always_win_are_finite():
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


def test_games_of_two_players_equal_their_table():
    who = [[0, 1], [1, 0], [0, 2], [2, 1]]
    earned = [[1, -1], [0, 0], [-1, 1], [2, 3]]
    assert game_points(who, earned, 3).tolist() == [[0, 1.5, 0], [0.5, 0, 1], [1, 0, 0]]


def test_ratings_recover_the_true_strengths():
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


def test_games_of_seven_recover_plackett_luce_strengths():
    """Luce's rankings are those of exponential clocks: log strength plus Gumbel noise, the greatest first."""
    generator = np.random.default_rng(5)
    strengths = np.linspace(-250, 250, 9)
    who = np.stack([generator.permutation(9)[:7] for _ in range(3000)])
    earned = strengths[who] / ELO + generator.gumbel(size=who.shape)
    found = rate(who, earned, [str(k) for k in range(9)])
    assert found.elo == pytest.approx(strengths, abs=25)
    width = found.high - found.low
    assert ((width > 8) & (width < 40)).all()
    assert ((found.low < strengths) & (strengths < found.high)).sum() >= 7
    assert found.games.sum() == 7 * 3000


def swept_or_not(won, lost, drawn=0, **settings):
    """Ratings of a, with b as the anchor."""
    earned = [[1, -1]] * won + [[-1, 1]] * lost + [[0, 0]] * drawn
    found = rate([[0, 1]] * len(earned), earned, ["a", "b"], anchor="b", **settings)
    assert (found.elo[1], found.low[1], found.high[1]) == (0, 0, 0)
    return found.elo[0], found.low[0], found.high[0]


@pytest.mark.parametrize(("won", "lost"), [(7, 3), (1, 1), (30, 2)])
def test_the_interval_of_two_players_equals_wilsons(won, lost):
    """Rao's score interval of a fraction, converted to Elo; without prior."""
    share = stats.binomtest(won, won + lost).proportion_ci(0.95, method="wilson")
    wanted = [400 * math.log10(end / (1 - end)) for end in share]
    assert swept_or_not(won, lost, prior=0)[1:] == pytest.approx(wanted, abs=0.02)


def test_a_clean_sweep_is_open_above():
    """Three of three: Wilson's interval is from 0.4385, which is -43 of Elo; the prior lowers it further."""
    elo, low, high = swept_or_not(3, 0, prior=1e-9)
    assert (low, high) == (pytest.approx(-43, abs=0.1), math.inf)
    elo, low, high = swept_or_not(3, 0)
    assert high == math.inf
    assert -70 < low < -43 < 150 < elo
    assert swept_or_not(0, 3) == (pytest.approx(-elo), -math.inf, pytest.approx(-low, abs=0.01))
    hundred = stats.binomtest(100, 100).proportion_ci(0.95, method="wilson").low
    assert swept_or_not(100, 0, prior=1e-9)[1] == pytest.approx(400 * math.log10(hundred / (1 - hundred)), abs=0.1)


def test_draws_narrow_an_interval():
    """Of 40 games half are drawn: variance 1/8 a game for 1/4. Shrunk to 1 by 8 games: (40 / 2 + 8) / 48."""
    plain, drawn = swept_or_not(20, 20, prior=0), swept_or_not(10, 10, 20, prior=0)
    z = 1.959964 * math.sqrt((40 * 0.5 + 8) / 48)
    end = 0.5 + z / 2 / math.sqrt(40 + z * z)  # Wilson's of one half, with that z
    assert drawn == pytest.approx((0, -400 * math.log10(end / (1 - end)), 400 * math.log10(end / (1 - end))), abs=0.02)
    assert drawn[2] < plain[2]


def test_the_score_meets_its_bound_at_the_ends():
    """Three players, against scipy's constrained maximum and numerical derivatives of its value."""
    scores, prior = points(WINS[:3, :3]), 1.0
    who, earned = [], []
    for i, j in itertools.permutations(range(3), 2):
        who += [[i, j]] * int(scores[i, j])
        earned += [[1, -1]] * int(scores[i, j])
    found = rate(who, earned, "abc", prior=prior)

    def profile(psi):
        """The greatest log-likelihood given a's distance psi from the mean, and its argmax."""

        def negative(free):
            shift, b = free  # a, b, c = shift + (psi, b, -psi - b): mean shift
            return -log_likelihood(scores, (np.array([psi, b, -psi - b]) + shift) * ELO, prior)

        best = optimize.minimize(negative, [0.0, 0.0], tol=1e-12, method="BFGS", options={"gtol": 1e-9})
        return -best.fun

    for end in (found.low[0], found.high[0]):
        psi, step = end / ELO, 1e-3
        before, here, after = (profile(psi + change) for change in (-step, 0, step))
        score, information = (after - before) / (2 * step), -(after - 2 * here + before) / step**2
        # All wins and losses: the dispersion is nearly 1; held to it by hand within what 8 games leave.
        assert abs(score) / math.sqrt(information) == pytest.approx(1.96, rel=0.05)


def test_intervals_have_their_nominal_coverage():
    """Two players, exactly: every result of n games has its interval, and a binomial probability."""
    covered = {}
    for games, apart in itertools.product((3, 5, 10, 30), (0.0, 100.0, 300.0)):
        chances = stats.binom.pmf(range(games + 1), games, 1 / (1 + 10 ** (-apart / 400)))
        ends = [swept_or_not(won, games - won)[1:] for won in range(games + 1)]
        covered[games, apart] = sum(p for p, (low, high) in zip(chances, ends, strict=True) if low <= apart <= high)
    assert min(covered.values()) > 0.92, covered
    assert np.mean(list(covered.values())) < 0.98, covered


@pytest.mark.parametrize(("seats", "games"), [(2, 60), (3, 40), (7, 30)])
def test_intervals_of_games_of_more_seats_cover_too(seats, games):
    """Nine players, 40 tournaments of Plackett and Luce: 360 intervals."""
    held, strengths = 0, np.linspace(-250, 250, 9)
    for seed in range(40):
        generator = np.random.default_rng(seed)
        who = np.stack([generator.permutation(9)[:seats] for _ in range(games)])
        earned = strengths[who] / ELO + generator.gumbel(size=who.shape)
        found = rate(who, earned, [str(k) for k in range(9)])
        if len(found.groups) == 1:
            centre = strengths[[int(name) for name in max(found.tiers[0], key=len)]].mean()
            held += ((found.low <= strengths - centre) & (strengths - centre <= found.high)).sum()
        else:
            held += 9
    assert 0.92 < held / 360 < 0.995


def test_correlated_pairs_of_a_game_count_as_one_game():
    """Seven seats, two players: each game's luck decides between them; it counts as one, not as twelve or six."""
    generator = np.random.default_rng(0)
    who = np.tile([0, 1, 0, 1, 0, 1, 0], (60, 1))
    luck = generator.random(60) < 0.5
    earned = np.where((who == 0) == luck[:, None], 1.0, 0.0)
    found = rate(who, earned, "ab", anchor="b", prior=1e-6)
    share = luck.mean()
    # 12 pairs of 1/6 a game, all equal: the variance of a game is 4 for 2 of independent pairs of points 1/6.
    wanted = share_of_games(share, 60)
    assert (found.low[0], found.high[0]) == pytest.approx(wanted, rel=0.1)


def share_of_games(share, games):
    """Wilson's interval for a number of games, in Elo."""
    ends = stats.binomtest(round(share * games), games).proportion_ci(0.95, method="wilson")
    return [400 * math.log10(end / (1 - end)) for end in ends]


def test_groups_that_never_met_have_separate_scales():
    who = [[0, 1], [1, 0], [2, 3], [3, 2], [2, 4], [4, 2], [2, 3]]
    earned = [[1, 0]] * 7
    found = rate(who, earned, "abcdef")
    assert found.groups == (("c", "d", "e"), ("a", "b"), ("f",))
    assert found.group.tolist() == [1, 1, 0, 0, 0, 2]
    assert found.tiers == ((("c", "d", "e"),), (("a", "b"),), (("f",),))
    assert found.elo[:2] == pytest.approx([0, 0], abs=1e-6)
    assert found.elo[2:5].mean() == pytest.approx(0, abs=1e-9)
    assert np.isnan([found.elo[5], found.low[5], found.high[5]]).all()
    assert found.notes() == ["no common scale: these groups never met, and each has its own Elo: c, d, e; a, b; f"]
    anchored = rate(who, earned, "abcdef", anchor="d")
    assert anchored.elo[3] == 0
    assert anchored.elo[:2] == pytest.approx([0, 0], abs=1e-6)
    assert anchored.elo[2:5] - anchored.elo[3] == pytest.approx(found.elo[2:5] - found.elo[3])
    assert np.isfinite(anchored.low[:5]).all()
    assert meeting_groups(game_points(who, earned, 6)).tolist() == found.group.tolist()


def test_tiers_between_which_all_points_went_one_way():
    """a and b exchange wins and beat c, who beats d and e, who exchange wins; and beside them f and g drew."""
    ring = [[0, 1], [1, 0], [3, 4], [4, 3]]
    who = [*ring, [0, 2], [1, 2], [2, 3], [2, 4], [5, 6]]
    earned = [[1, 0]] * 8 + [[1, 1]]
    found = rate(who, earned, "abcdefg")
    assert found.groups == (("a", "b", "c", "d", "e"), ("f", "g"))
    assert found.tiers == ((("a", "b"), ("c",), ("d", "e")), (("f", "g"),))
    assert found.tier.tolist() == [0, 0, 1, 2, 2, 0, 0]
    assert np.isposinf(found.high).tolist() == [True, True, False, False, False, False, False]
    assert np.isneginf(found.low).tolist() == [False, False, False, True, True, False, False]
    assert found.notes()[1:] == [
        "all points between these went one way, which leaves their distances open: a, b; c; d, e"
    ]
    # Beside an anchor: who never took a point from it may be anywhere below, whom it took none from anywhere above.
    anchored = rate(who, earned, "abcdefg", anchor="c")
    assert np.isposinf(anchored.high).tolist() == [True, True, False, False, False, False, False]
    assert np.isneginf(anchored.low).tolist() == [False, False, False, True, True, False, False]
    top = rate(who, earned, "abcdefg", anchor="a")
    assert np.isposinf(top.high).tolist() == [False] * 7
    assert np.isneginf(top.low).tolist() == [False, False, True, True, True, False, False]


def test_zero_is_the_mean_of_the_largest_tier():
    """a, b and c exchange wins, all beat d: d's rating does not move their mean from 0."""
    who = [[0, 1], [1, 0], [1, 2], [2, 1], [0, 2], [2, 0], [0, 1]] + [[0, 3], [1, 3], [2, 3]] * 20
    found = rate(who, [[1, 0]] * len(who), "abcd")
    assert found.elo[:3].mean() == pytest.approx(0, abs=1e-9)
    assert (found.high[:3] < 500).all() or np.isposinf(found.high[:3]).all()
    assert found.low[3] == -math.inf
    assert found.high[3] < -100


def test_intervals_are_wider_for_fewer_games():
    few, many = (tournament(np.array([0.0, 100, 200]), games, 1) for games in (50, 800))
    names = ["a", "b", "c"]
    wide, narrow = rate(*few, names), rate(*many, names)
    assert ((wide.high - wide.low) > 2 * (narrow.high - narrow.low)).all()


def test_ratings_do_not_depend_on_the_order_of_games_and_seats():
    who, earned = tournament(np.array([0.0, 100, 200]), 60, 2)
    order = np.random.default_rng(0).permutation(len(who))
    straight, turned = rate(who, earned, "abc"), rate(who[order, ::-1], 7 * earned[order, ::-1] + 1, "abc")
    assert turned.elo == pytest.approx(straight.elo, abs=1e-9)
    assert turned.low == pytest.approx(straight.low, abs=1e-3)


@given(arrays.arrays(float, st.integers(2, 6).map(lambda n: (n, n)), elements=st.integers(0, 30)), st.floats(0.1, 5))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_ratings_maximise_the_likelihood(scores, prior):
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
        ([[0, 1]], [[1, 0]], {"confidence": 1}, "confidence: got 1; wanted a number between 0 and 1"),
        ([[0, 1]], [[1, 0]], {"prior": 0}, "wanted a prior above 0"),
    ],
)
def test_bad_games_are_refused(who, earned, arguments, message):
    with pytest.raises(RatingError, match=message):
        rate(who, earned, ["a", "b"], **arguments)
