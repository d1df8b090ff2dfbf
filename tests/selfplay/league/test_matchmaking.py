"""Matchmaking: PFSP's weightings worked out by hand, and the branches of AlphaStar's league."""

from collections import Counter

import numpy as np
import pytest

from mlbits.selfplay.league.matchmaking import WEIGHTINGS, Player, is_ripe, league_match, pfsp, without_harder_tail

MAIN, EXPLOITER, LEAGUE = Player(0, "main"), Player(1, "main_exploiter"), Player(2, "league_exploiter")
COPIES = [
    Player(3, "main", 0),
    Player(4, "main_exploiter", 1),
    Player(5, "league_exploiter", 2),
    Player(6, "main", 0),
    Player(7, "main", 0),
]
EVERYBODY = [MAIN, EXPLOITER, LEAGUE, *COPIES]


class Record:
    """Fake payoffs with given win rates of a player against each."""

    def __init__(self, **won):
        self.won = np.full(len(EVERYBODY), 0.5)
        for number, share in won.items():
            self.won[int(number[1:])] = share

    def win_rate(self, player):
        return self.won


def met(learner, record, count=4000, seed=0):
    draws = np.random.default_rng(seed)
    found = Counter(league_match(learner, EVERYBODY, record, draws) for _ in range(count))
    return {number: found[number] / count for number in sorted(found)}


@pytest.mark.parametrize(
    ("weighting", "weights"),
    [
        ("squared", [1, 0.25, 0.01]),
        ("variance", [0, 0.25, 0.09]),
        ("linear", [1, 0.5, 0.1]),
        ("linear_capped", [0.5, 0.5, 0.1]),
    ],
)
def test_pfsp_weightings_by_hand(weighting, weights):
    assert pfsp([0, 0.5, 0.9], weighting) == pytest.approx(np.array(weights) / sum(weights))


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_draws_are_uniform_if_all_weights_are_zero(weighting):
    assert pfsp([1, 1, 1], weighting).tolist() == [1 / 3] * 3
    # The weights' sum decides, not the win rates': a learner that wins against none still draws by weight.
    never = pfsp([0, 0], weighting)
    assert never.tolist() == [0.5, 0.5]
    assert pfsp([0, 1], weighting).tolist() == ([0.5, 0.5] if weighting == "variance" else [1, 0])


@pytest.mark.parametrize(
    ("won", "weighting", "said"),
    [
        ([0.5], "cubed", "weighting: got 'cubed'"),
        ([], "linear", "win_rate"),
        ([1.5], "linear", "win_rate"),
        ([float("nan")], "linear", "win_rate"),
    ],
)
def test_win_rates_out_of_range_are_refused(won, weighting, said):
    with pytest.raises(ValueError, match=said):
        pfsp(won, weighting)


def test_the_tail_of_ever_harder_copies_is_left_out():
    won = np.array([0.9, 0.8, 0.6, 0.7, 0.5, 0.4])
    assert without_harder_tail([0, 1, 2, 3, 4, 5], won) == [0, 1, 2, 3]
    assert without_harder_tail([0, 1, 2], won) == []
    assert without_harder_tail([2, 3], won) == [2, 3]
    assert without_harder_tail([0], won) == without_harder_tail([], won) == []


def test_a_main_agent_meets_the_frozen_half_of_the_time_and_itself_in_the_rest():
    shares = met(MAIN, Record())
    assert shares[0] == pytest.approx(0.5, abs=0.04)  # no exploiter beats it, nothing is forgotten
    assert all(shares[copy.number] == pytest.approx(0.1, abs=0.03) for copy in COPIES)


def test_an_exploited_main_agent_meets_the_exploiters():
    shares = met(MAIN, Record(_4=0.2))
    squared = pfsp([0.5, 0.2, 0.5, 0.5, 0.5], "squared")[1]
    assert shares[4] == pytest.approx(0.15 + 0.5 * squared, abs=0.04)
    assert shares[0] == pytest.approx(0.35, abs=0.04)


def test_one_strong_exploiter_suffices_to_meet_all_of_them():
    """Copies 3 and 4 of main exploiters: one always loses, the other loses in a fifth of games; both are met."""
    players = [MAIN, EXPLOITER, Player(2, "main", 0), Player(3, "main_exploiter", 1), Player(4, "main_exploiter", 1)]
    record = Record(_2=1.0, _3=1.0, _4=0.2)
    draws = np.random.default_rng(0)
    found = Counter(league_match(MAIN, players, record, draws) for _ in range(4000))
    assert found[4] / 4000 == pytest.approx(0.5 + 0.15, abs=0.03)  # squared: the other copies weigh nothing
    assert found[0] / 4000 == pytest.approx(0.35, abs=0.03)
    draws, even = np.random.default_rng(0), Record(_2=1.0, _3=1.0, _4=0.35)  # no exploiter beats it: 0.3 is the bound
    found = Counter(league_match(MAIN, players, even, draws) for _ in range(4000))
    assert found[4] / 4000 == pytest.approx(0.5, abs=0.03)
    assert found[0] / 4000 == pytest.approx(0.5, abs=0.03)


def test_a_main_agent_meets_forgotten_past_copies():
    record = Record(_3=0.1, _6=0.9, _7=0.8)  # 3 is older than 6, and yet harder
    shares = met(MAIN, record)
    among_copies, among_past = pfsp(record.won[3:8], "squared")[0], pfsp([0.1, 0.9], "squared")[0]
    assert shares[3] == pytest.approx(0.5 * among_copies + 0.15 * among_past, abs=0.04)


def test_a_main_exploiter_meets_the_main_agent_or_its_copies_while_too_weak():
    assert met(EXPLOITER, Record(), 50) == {0: 1.0}
    shares = met(EXPLOITER, Record(_0=0.05, _3=0.5, _6=0.9, _7=1.0))
    wanted = pfsp([0.5, 0.9, 1.0], "variance")
    assert set(shares) == {3, 6}
    assert shares[3] == pytest.approx(wanted[0], abs=0.04)


def test_a_league_exploiter_meets_all_frozen_players():
    record = Record(_3=0.0, _4=0.5, _5=0.9, _6=1.0, _7=1.0)
    shares = met(LEAGUE, record)
    assert set(shares) == {3, 4, 5}
    assert shares[5] == pytest.approx(0.1 / 1.1, abs=0.03)


def test_past_copies_of_a_main_agent_are_met_while_it_is_too_strong():
    other, copies = Player(1, "main"), [Player(2, "main", 0), Player(3, "main", 1)]
    record = Record(_1=0.2, _2=1.0, _3=0.5)
    draws = np.random.default_rng(0)
    found = Counter(league_match(MAIN, [MAIN, other, *copies], record, draws) for _ in range(4000))
    assert found[1] == 0  # not as it is now
    assert found[0] > 500  # itself
    assert found[3] > 500


def test_a_learner_that_beats_all_opponents_is_frozen_early():
    assert not is_ripe(MAIN, EVERYBODY, Record(), 199, 100)
    assert is_ripe(MAIN, EVERYBODY, Record(), 200, 100)
    good = Record(_3=0.8, _4=0.8, _5=0.8, _6=0.8, _7=0.8)
    assert is_ripe(MAIN, EVERYBODY, good, 100, 100)
    assert not is_ripe(MAIN, EVERYBODY, good, 99, 100)
    assert not is_ripe(
        MAIN, EVERYBODY, Record(_3=0.8, _4=0.8, _5=0.8, _6=0.8, _7=0.65), 100, 100
    )  # one is not yet beaten
    assert not is_ripe(EXPLOITER, EVERYBODY, good, 100, 100)  # only its results against the main agent count
    assert is_ripe(EXPLOITER, EVERYBODY, Record(_0=0.8), 100, 100)
    assert not is_ripe(LEAGUE, EVERYBODY, Record(_0=0.8), 100, 100)
