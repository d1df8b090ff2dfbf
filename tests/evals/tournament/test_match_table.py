"""The stored match table, also after a crash, and the payoff matrix computed from it."""

import csv
import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbits.evals.game_theory.alpha_rank import alpha_rank_symmetric
from mlbits.evals.game_theory.nash import nash_average
from mlbits.evals.tournament import match_table
from mlbits.evals.tournament.match_table import MatchTable, MatchTableError, open_matches, read_matches
from mlbits.evals.tournament.payoff_matrix import empirical_game, payoff_matrix, write_csv
from mlbits.selfplay.statistics import fraction_interval

ENV = "mlbits/Blotto-v0"
HEAD = {"table": "mlbits matches", "version": 1, "env": ENV, "env_settings": {"coins": 5}, "seats": 2}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "matches.jsonl"


@pytest.fixture
def writer(path):
    writer = open_matches(path, ENV, {"coins": 5}, seats=2)
    writer.add_players({"a": "hash of a", "b": "hash of b"})
    writer.add_games([[0, 1], [1, 0]], [[1.0, -1.0], [0.0, 0.0]])
    return writer


def table_of(seating, returns, names="abc"):
    seating, returns = np.array(seating), np.array(returns, float)
    return MatchTable(ENV, {}, seating.shape[1], {name: f"hash of {name}" for name in names}, seating, returns)


def lines_of(*lines):
    return "".join(json.dumps(line) + "\n" for line in lines)


# Writing and reading


def test_what_was_written_is_read(path, writer):
    table = read_matches(path)
    assert (table.env, table.env_settings, table.seats) == (ENV, {"coins": 5}, 2)
    assert table.players == {"a": "hash of a", "b": "hash of b"}
    assert table.names == ("a", "b")
    assert table.seating.tolist() == [[0, 1], [1, 0]]
    assert table.returns.tolist() == [[1.0, -1.0], [0.0, 0.0]]
    assert path.read_text().splitlines()[0] == json.dumps(HEAD, separators=(",", ":"))
    assert [entry.name for entry in path.parent.iterdir()] == ["matches.jsonl"]


def test_a_table_can_be_continued(path, writer):
    before = path.read_bytes()
    again = open_matches(path, ENV, {"coins": 5}, seats=2)
    assert path.read_bytes() == before
    assert again.players == {"a": "hash of a", "b": "hash of b"}
    again.add_players({"b": "hash of b", "c": "hash of c"})
    again.add_games([[2, 2]], [[0.1, 1 / 3]])
    assert path.read_bytes().startswith(before)
    table = read_matches(path)
    assert table.names == ("a", "b", "c")
    assert table.seating.tolist() == [[0, 1], [1, 0], [2, 2]]
    assert table.returns[2].tolist() == [0.1, 1 / 3]


def test_a_table_without_games_is_read(path):
    open_matches(path, ENV, seats=7)
    table = read_matches(path)
    assert table.seating.shape == table.returns.shape == (0, 7)
    writer = open_matches(path, ENV, seats=7)
    writer.add_games(np.zeros((0, 7), int), np.zeros((0, 7)))
    assert len(read_matches(path).seating) == 0


def test_a_table_survives_a_crash_at_any_byte(path, writer, monkeypatch):
    """Cut after any byte: whole lines are kept, and the next writer adds to them."""
    monkeypatch.setattr(match_table.os, "fsync", lambda descriptor: None)  # slow, and nothing here depends on it
    whole = path.read_bytes()
    ends = [k + 1 for k, byte in enumerate(whole) if byte == ord("\n")]
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        kept = sum(end <= size for end in ends)  # lines: the head, two players, two games
        if kept:
            table = read_matches(path)
            assert (len(table.players), len(table.seating)) == (min(kept - 1, 2), max(kept - 3, 0))
        again = open_matches(path, ENV, {"coins": 5}, seats=2)
        again.add_players({"a": "hash of a", "b": "hash of b"})
        again.add_games([[0, 1]], [[-1.0, 1.0]])
        table = read_matches(path)
        assert table.names == ("a", "b")
        assert len(table.seating) == max(kept - 3, 0) + 1
        assert table.returns[-1].tolist() == [-1.0, 1.0]


def test_a_tail_that_is_not_text_is_cut_off(path, writer):
    with path.open("ab") as file:
        file.write(b'\0\0\0{"game":\xff')
    assert len(read_matches(path).seating) == 2
    open_matches(path, ENV, {"coins": 5}, seats=2).add_games([[0, 1]], [[1, -1]])
    assert len(read_matches(path).seating) == 3


def test_a_full_disk_leaves_the_table_as_it_was(path, writer, monkeypatch):
    """Half of the lines are written when the disk is full: none stays."""
    before, opened = path.read_bytes(), Path.open

    class Full:
        def __init__(self, file):
            self.file, self.written = file, 0

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, data):
            if self.written:
                raise OSError(errno.ENOSPC, "No space left on device")
            self.written = self.file.write(bytes(data)[:10])
            return self.written

        def __getattr__(self, name):
            return getattr(self.file, name)

    monkeypatch.setattr(Path, "open", lambda self, *args, **kwargs: Full(opened(self, *args, **kwargs)))
    with pytest.raises(MatchTableError, match=r"matches.jsonl cannot be written .*No space left"):
        writer.add_games([[0, 1]], [[1, -1]])
    with pytest.raises(MatchTableError, match="cannot be written"):
        writer.add_players({"c": "hash of c"})
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert writer.players == {"a": "hash of a", "b": "hash of b"}
    writer.add_games([[0, 1]], [[1, -1]])
    assert len(read_matches(path).seating) == 3


def test_games_are_synced_before_they_count(path, writer, monkeypatch):
    synced = []
    monkeypatch.setattr(match_table.os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    writer.add_games([[0, 1]] * 3, [[1, -1]] * 3)
    assert synced == [path.stat().st_size]


def test_games_are_written_in_one_call(path, writer):
    who = np.random.default_rng(0).integers(2, size=(20_000, 2))
    earned = np.random.default_rng(1).normal(size=(20_000, 2))
    writer.add_games(who, earned)
    table = read_matches(path)
    assert np.array_equal(table.seating[2:], who)
    assert np.array_equal(table.returns[2:], earned)


# What is refused


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"line 4: got b'\{\\n'; wanted a JSON object"),
        ('{"game": [0, 1],\r"returns": [1]}', r"line 4, returns: got \[1\]"),
        ("[1, 2]", "line 4: got .*; wanted a JSON object"),
        ("", r"line 4: got b'\\n'"),
        ('{"game": [0, 1]}', r"line 4, fields: got \['game'\]; wanted player and hash, or game and returns"),
        ('{"game": [0, 1], "returns": [1, -1], "x": 1}', "line 4, fields: got"),
        ('{"game": [0], "returns": [1, -1]}', r"line 4, game: got \[0\]; wanted 2 player numbers below 2"),
        ('{"game": [0, 2], "returns": [1, -1]}', r"line 4, game: got \[0, 2\]; wanted 2 player numbers"),
        ('{"game": [0, -1], "returns": [1, -1]}', r"line 4, game: got \[0, -1\]"),
        ('{"game": [0, true], "returns": [1, -1]}', r"line 4, game: got \[0, True\]"),
        ('{"game": [0, 1.0], "returns": [1, -1]}', r"line 4, game: got \[0, 1.0\]"),
        ('{"game": "ab", "returns": [1, -1]}', "line 4, game: got 'ab'"),
        ('{"game": [0, 1], "returns": [1]}', r"line 4, returns: got \[1\]; wanted 2 finite numbers"),
        ('{"game": [0, 1], "returns": [1, NaN]}', r"line 4, returns: got \[1, nan\]"),
        ('{"game": [0, 1], "returns": [1, "2"]}', r"line 4, returns: got \[1, '2'\]"),
        ('{"game": [0, 1], "returns": null}', "line 4, returns: got None"),
        ('{"player": "a", "hash": "x"}', "line 4, player: got 'a'; wanted a name that no earlier line has"),
        ('{"player": "", "hash": "x"}', "line 4, player: got ''; wanted a text"),
        ('{"player": "c", "hash": 3}', "line 4, hash: got 3; wanted a text"),
    ],
)
def test_damage_is_named_by_line_and_field(path, line, message):
    text = lines_of(HEAD, {"player": "a", "hash": "x"}, {"player": "b", "hash": "y"})
    path.write_text(text + line + "\n" + lines_of({"game": [0, 1], "returns": [1, -1]}))
    for read in (lambda: read_matches(path), lambda: open_matches(path, ENV, {"coins": 5}, seats=2)):
        with pytest.raises(MatchTableError, match=f"matches.jsonl, {message}"):
            read()
    assert path.read_bytes().startswith((text + line).encode()), "a damaged table was changed"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"table": "chess"}, "line 1, table: got 'chess'; wanted mlbits matches"),
        ({"version": 2}, "line 1, version: got 2; wanted 1, or a newer version of mlbits"),
        ({"env": ""}, "line 1, env: got ''; wanted the id of an environment"),
        ({"env_settings": None}, "line 1, env_settings: got None; wanted an object"),
        ({"seats": 1}, "line 1, seats: got 1; wanted a whole number from 2"),
        ({"seats": True}, "line 1, seats: got True"),
    ],
)
def test_an_invalid_header_is_refused(path, change, message):
    path.write_text(lines_of(HEAD | change))
    with pytest.raises(MatchTableError, match=message):
        read_matches(path)


def test_files_that_cannot_be_read_are_refused(path, tmp_path):
    with pytest.raises(MatchTableError, match=r"matches.jsonl cannot be read \(.*No such file"):
        read_matches(path)
    path.write_text("")
    with pytest.raises(MatchTableError, match="line 1: got nothing; wanted the table's header"):
        read_matches(path)
    with pytest.raises(MatchTableError, match="cannot be read"):
        open_matches(tmp_path, ENV, seats=2)
    (tmp_path / "file").write_text("")
    with pytest.raises(MatchTableError, match="cannot be written"):
        open_matches(tmp_path / "file" / "matches.jsonl", ENV, seats=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mlbits/Nim-v0", {"coins": 5}, 2), "line 1, env: got 'mlbits/Blotto-v0'; wanted 'mlbits/Nim-v0', or another"),
        ((ENV, {"coins": 6}, 2), "line 1, env_settings: got {'coins': 5}; wanted {'coins': 6}"),
        ((ENV, {"coins": 5}, 3), "line 1, seats: got 2; wanted 3"),
        ((ENV, {"coins": 5}, 1), "seats: got 1; wanted at least 2"),
    ],
)
def test_tables_of_other_games_are_refused(path, writer, arguments, message):
    env, env_settings, seats = arguments
    with pytest.raises(MatchTableError, match=message):
        open_matches(path, env, env_settings, seats=seats)


def test_settings_read_back_as_they_were(path):
    for _ in range(2):
        open_matches(path, ENV, {"map": ("ab", "cd"), "sizes": [1, 2.5]}, seats=2)
    with pytest.raises(MatchTableError, match="cannot be written as JSON"):
        open_matches(path.with_name("other"), ENV, {"map": object()}, seats=2)


@pytest.mark.parametrize(
    ("players", "message"),
    [
        ({"a": "another"}, "players: a has the hash another, but hash of a in .*; wanted another name"),
        ({"": "x"}, "players: got '' with hash 'x'; wanted a name and a hash"),
        ({"c": ""}, "players: got 'c' with hash ''"),
    ],
)
def test_a_name_has_one_content(path, writer, players, message):
    before = path.read_bytes()
    with pytest.raises(MatchTableError, match=message):
        writer.add_players({"d": "hash of d"} | players)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("seating", "returns", "message"),
    [
        ([[0, 1, 0]], [[1, 0, 0]], r"seating, returns: got shapes \(1, 3\), \(1, 3\); wanted twice \[G, 2\]"),
        ([[0, 1]], [[1, 0], [0, 1]], r"got shapes \(1, 2\), \(2, 2\)"),
        ([0, 1], [1, 0], r"got shapes \(2,\), \(2,\)"),
        ([[0, 2]], [[1, 0]], "seating: got 0 .. 2; wanted one of 2 players"),
        ([[0, 1.0]], [[1, 0]], "seating: got"),
        ([[0, 1], [1, 0]], [[1, 0], [0, np.inf]], "returns: got inf; wanted finite numbers"),
    ],
)
def test_games_that_do_not_fit_are_refused(path, writer, seating, returns, message):
    before = path.read_bytes()
    with pytest.raises(MatchTableError, match=message):
        writer.add_games(seating, returns)
    assert path.read_bytes() == before


# The payoff matrix


def test_a_matrix_by_hand():
    """a beats b twice and draws once, b beats c once, a plays itself."""
    seating = [[0, 1], [1, 0], [0, 1], [1, 2], [0, 0]]
    returns = [[1, -1], [-1, 1], [0, 0], [3, 1], [2, -1]]
    found = payoff_matrix(table_of(seating, returns))
    assert found.meetings.tolist() == [[1, 3, 0], [3, 0, 1], [0, 1, 0]]
    assert found.wins.tolist() == [[0, 2, 0], [0, 0, 1], [0, 0, 0]]
    assert found.draws.tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    nan = np.nan
    assert found.payoff == pytest.approx(np.array([[0.5, 2 / 3, nan], [-2 / 3, nan, 3], [nan, 1, nan]]), nan_ok=True)
    assert found.won[0, 1] == pytest.approx(2 / 3)
    assert (found.won_low[0, 1], found.won_high[0, 1]) == pytest.approx(fraction_interval(2, 3)[1])
    assert (found.won[1, 2], found.won_low[1, 2]) == (1, pytest.approx(fraction_interval(1, 1)[1][0]))
    # One game of 3, where returns are from -1 to 3: what others there may be, up to Wilson's limit of 0 of 1, are -1.
    other = 1 - fraction_interval(1, 1)[1][0]
    assert (found.low[1, 2], found.high[1, 2]) == (pytest.approx(3 - 4 * other), 3)
    assert np.isnan(found.low[0, 2])


def test_tables_of_three_seats_by_hand():
    """One game: a 2, b 1, c 1; another with a twice, 5 and 1, and c between them."""
    found = payoff_matrix(table_of([[0, 1, 2], [0, 2, 0]], [[2, 1, 1], [5, 3, 1]]))
    assert found.meetings.tolist() == [[1, 1, 3], [1, 0, 1], [3, 1, 0]]
    assert found.wins.tolist() == [[0, 1, 2], [0, 0, 0], [1, 0, 0]]
    assert found.draws.tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0]]
    assert found.payoff[0].tolist() == [3.0, 2.0, pytest.approx((2 + 5 + 1) / 3)]
    assert found.payoff[2, 0] == pytest.approx((1 + 3 + 3) / 3)


def test_a_table_without_games_has_an_empty_matrix():
    found = payoff_matrix(table_of(np.zeros((0, 2), int), np.zeros((0, 2))))
    assert found.meetings.sum() == 0
    assert np.isnan(found.payoff).all()


@pytest.mark.parametrize("draw", [lambda g, n: g.choice([-1.0, 0, 1], n), lambda g, n: g.normal(size=n)])
def test_intervals_are_those_of_the_mean(draw):
    """Intervals of 2,000 returns, few values or all different, are the normal's 1.96 standard errors."""
    generator = np.random.default_rng(7)
    earned = draw(generator, 2000)
    found = payoff_matrix(table_of(np.tile([0, 1], (2000, 1)), np.stack([earned, -earned], 1), "ab"))
    error = 1.96 * earned.std() / np.sqrt(2000)
    assert found.payoff[0, 1] == pytest.approx(earned.mean())
    assert found.high[0, 1] - found.payoff[0, 1] == pytest.approx(error, rel=0.01)
    assert found.payoff[0, 1] - found.low[0, 1] == pytest.approx(error, rel=0.01)


def test_an_interval_is_over_games_by_hand():
    """Three seats, a sits twice: two meetings a game, of values (1, 3), (2, 2) and (6, 4).

    Sums 4, 4, 10 of 2 meetings each, mean 3; residuals -2, -2, 4; variance 3 / 2 * 24 / 6^2 = 1; t of 2 degrees 4.3027.
    """
    seating = [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
    found = payoff_matrix(table_of(seating, [[1, 0, 3], [2, 2, 7], [0, 6, 4]], "ab"))
    assert found.payoff[0, 1] == 3
    assert (found.low[0, 1], found.high[0, 1]) == pytest.approx((3 - 4.3027, 3 + 4.3027), abs=1e-4)
    # Won both, none, both: 4 of 6, residuals 2/3, -4/3, 2/3; variance (8/3) / 36 = 2/27, that of 3 single meetings.
    # Of so few games little is known: 3 (1.96 / 4.3027)^2.
    assert found.won[0, 1] == pytest.approx(2 / 3)
    z, n = 1.959964, 3 * (1.959964 / 4.302653) ** 2
    half = z / (1 + z * z / n) * np.sqrt(2 / 9 / n + z * z / (4 * n * n))
    middle = (2 / 3 + z * z / (2 * n)) / (1 + z * z / n)
    assert (found.won_low[0, 1], found.won_high[0, 1]) == pytest.approx((middle - half, middle + half), abs=1e-6)


def test_a_sweep_counts_games_not_meetings():
    """Four games, a sits twice and wins both meetings of each: four of four, not eight of eight."""
    found = payoff_matrix(table_of([[0, 0, 1]] * 4, [[1, 2, 0]] * 4, "ab"))
    assert (found.won[0, 1], found.won_low[0, 1]) == (1, pytest.approx(fraction_interval(4, 4)[1][0]))


def test_a_table_with_a_single_return_has_no_intervals():
    found = payoff_matrix(table_of([[0, 1]] * 9, [[0, 0]] * 9, "ab"))
    assert (found.payoff[0, 1], found.low[0, 1], found.high[0, 1]) == (0, -np.inf, np.inf)


def test_means_of_few_outcomes_stay_within_them():
    found = payoff_matrix(table_of([[0, 1]] * 8, [[1, -1]] * 7 + [[-1, 1]], "ab"))
    assert (found.payoff[0, 1], found.high[0, 1], found.low[1, 0]) == (0.75, 1, -1)
    assert found.low[0, 1] < 0.25


@pytest.mark.parametrize(("seats", "games", "luck"), [(7, 200, 1.0), (7, 20, 1.0), (3, 40, 1.0), (2, 30, 0.0)])
@pytest.mark.parametrize("winner_takes_all", [False, True])
def test_payoff_and_win_intervals_have_their_nominal_coverage(seats, games, luck, winner_takes_all):
    """Two players share tables whose luck, a player's and the table's, their seats share; 95% intervals, 250 times.

    The truth is the mean of 250 * games. Of 250 hits 0.95 leaves 224 (0.896) to 248 (0.992) once in a thousand.
    """
    generator, times = np.random.default_rng(seats * games), 250
    who = generator.integers(2, size=(times * games, seats))
    who[:, 0], who[:, 1] = 0, 1  # they meet in every game
    favour = luck * generator.normal(size=(len(who), 2))
    earned = np.take_along_axis(favour, who, 1) + luck * generator.normal(size=(len(who), 1)) + 0.3 * who
    earned += generator.normal(size=who.shape)
    if winner_takes_all:
        earned = (earned == earned.max(1, keepdims=True)) * 1.0
    truth = payoff_matrix(table_of(who, earned, "ab"))
    held = np.zeros(2)
    for k in range(times):
        part = slice(k * games, (k + 1) * games)
        found = payoff_matrix(table_of(who[part], earned[part], "ab"))
        held[0] += found.low[1, 0] <= truth.payoff[1, 0] <= found.high[1, 0]
        held[1] += found.won_low[1, 0] <= truth.won[1, 0] <= found.won_high[1, 0]
    assert (held / times >= 0.9).all(), held / times
    assert (held / times <= 0.996).all(), held / times


@given(st.lists(st.tuples(st.permutations(range(4)), st.lists(st.integers(-2, 2), min_size=3, max_size=3)), min_size=1))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_wins_of_one_are_losses_of_the_other(games):
    seating, returns = [list(who)[:3] for who, _ in games], [earned for _, earned in games]
    found = payoff_matrix(table_of(seating, returns, "abcd"))
    assert np.array_equal(found.meetings, found.meetings.T)
    assert np.array_equal(found.draws, found.draws.T)
    assert np.array_equal(found.wins + found.wins.T + found.draws, found.meetings)
    assert found.meetings.sum() == 6 * len(games)
    assert np.nansum(found.payoff * found.meetings) == pytest.approx(2 * np.sum(returns), abs=1e-9)


def test_the_empirical_game():
    """Rock, paper and scissors: their game of choosing a player is a cycle."""
    found = payoff_matrix(table_of([[0, 1], [2, 0], [1, 2]], [[-1, 1], [-1, 1], [-1, 1]]))
    game = empirical_game(found)
    assert game.tolist() == [[0, -1, 1], [1, 0, -1], [-1, 1, 0]]
    assert nash_average(game).mixture == pytest.approx([1 / 3] * 3, abs=1e-6)
    assert alpha_rank_symmetric(game) == pytest.approx([1 / 3] * 3, abs=1e-9)
    shares = payoff_matrix(table_of([[0, 1], [0, 0]], [[1, 0], [0.75, 0.25]], "ab"))
    assert empirical_game(shares).tolist() == [[0.5, 1.0], [0.0, 0.5]]
    with pytest.raises(MatchTableError, match="matches: a and c never met; wanted games of every pair"):
        empirical_game(payoff_matrix(table_of([[0, 1], [1, 2]], [[1, 0], [1, 0]])))


def test_csv_has_a_row_for_each_pair_that_met(tmp_path):
    names = ["a, the first", 'b "two"', "c"]
    found = payoff_matrix(table_of([[0, 1], [1, 0], [1, 1]], [[1, -1], [0.5, -0.5], [0, 0]], names))
    write_csv(found, tmp_path / "payoffs.csv")
    with (tmp_path / "payoffs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["player"], row["opponent"]) for row in rows] == [
        (names[0], names[1]),
        (names[1], names[0]),
        (names[1],) * 2,
    ]
    first = {key: float(value) for key, value in list(rows[0].items())[2:]}
    assert (first["meetings"], first["wins"], first["draws"], first["losses"]) == (2, 1, 0, 1)
    # Returns 1 and -1/2: mean 1/4, standard error 3/4, and Student's t of one degree of freedom is 12.706.
    half = 12.7062 * 0.75
    assert (first["payoff"], first["low"], first["high"]) == pytest.approx((0.25, 0.25 - half, 0.25 + half), abs=1e-3)
    assert first["won_low"] == pytest.approx(fraction_interval(1, 2)[1][0], abs=1e-6)
    assert [entry.name for entry in tmp_path.iterdir()] == ["payoffs.csv"]
    with pytest.raises(MatchTableError, match="cannot be written"):
        write_csv(found, tmp_path / "no" / "payoffs.csv")
