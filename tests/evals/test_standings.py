"""What a match table says of its players, worked by hand."""

import numpy as np
import pytest

from mlbits.evals.match_table import MatchTable, MatchTableError
from mlbits.evals.standings import standings, standings_table, write_standings


def table_of(seating, returns, names="abc"):
    players = {name: f"hash of {name}" for name in names}
    who, earned = np.array(seating, np.int64), np.array(returns, float)
    return MatchTable("mlbits/Blotto-v0", {}, who.shape[1], players, who, earned)


def test_points_means_and_ranks_by_hand():
    """Rock, paper, scissors: a beats b, b beats c, c beats a; a draws one more with b."""
    found = standings(table_of([[0, 1], [1, 2], [2, 0], [1, 0]], [[1, -1], [1, -1], [1, -1], [0, 0]]))
    assert found.points.tolist() == pytest.approx([1.5 / 3, 1.5 / 3, 1 / 2])
    assert found.return_mean.tolist() == [0, 0, 0]
    assert found.ratings.games.tolist() == [3, 3, 2]
    assert found.ratings.elo == pytest.approx([0, 0, 0], abs=1e-6)
    # Payoffs: a earns 1/2 of b, b earns 1 of c, c earns 1 of a. Nobody is beaten by all, so that all have a share:
    # x_a : x_b : x_c are what the other two make of each other.
    assert found.matrix.payoff[0, 1] == 0.5
    assert found.nash == pytest.approx(np.array([1, 1, 0.5]) / 2.5, abs=1e-4)
    assert found.alpha_rank == pytest.approx([1 / 3] * 3)
    assert found.nash_skill == pytest.approx([0, 0, 0], abs=1e-4)


def test_rows_are_by_elo():
    found = standings(table_of([[0, 1], [1, 2], [0, 2]] * 5, [[-1, 1], [1, -1], [1, -1]] * 5))
    rows = found.rows()
    assert [(row["rank"], row["player"]) for row in rows] == [(1, "b"), (2, "a"), (3, "c")]
    assert [row["points"] for row in rows] == [1, 0.5, 0]
    assert all(row["elo_low"] <= row["elo"] <= row["elo_high"] for row in rows)
    assert [row["alpha_rank"] for row in rows] == pytest.approx([1, 0, 0], abs=1e-6)
    assert found.to_json()["players"][0]["hash"] == "hash of b"
    assert found.to_json()["games"] == 15


def test_games_of_three_are_meetings_of_two():
    """Seat by seat: a first, b second, c last, however the seats are."""
    found = standings(table_of([[0, 1, 2], [1, 2, 0], [2, 0, 1]], [[2, 1, 0], [1, 0, 2], [0, 2, 1]]))
    assert [row["player"] for row in found.rows()] == ["a", "b", "c"]
    assert found.points.tolist() == [1, 0.5, 0]
    assert found.matrix.meetings[0].tolist() == [0, 3, 3]
    assert found.nash[0] == pytest.approx(1)


def test_players_who_never_met_have_ratings_alone(tmp_path):
    found = standings(table_of([[0, 1], [1, 0]], [[1, -1], [-1, 1]]))
    assert found.alpha_rank is found.nash is found.nash_skill is None
    row = found.rows()[1]
    assert (row["player"], row["games"], row["points"], row["return_mean"], row["nash"]) == ("c", 0, None, None, None)
    assert standings_table(found).row_count == 3
    write_standings(found, tmp_path / "new" / "folder")
    assert (tmp_path / "new" / "folder" / "standings.csv").read_text().splitlines()[2].startswith("2,c,0,,")


def test_the_intervals_are_a_function_of_the_table():
    generator = np.random.default_rng(0)
    table = table_of(generator.permuted(np.tile([0, 1], (50, 1)), axis=1), generator.normal(size=(50, 2)), "ab")
    assert standings(table).to_json() == standings(table).to_json()
    assert standings(table).to_json() != standings(table, seed=1).to_json()


def test_no_games_or_no_room_are_refused(tmp_path):
    with pytest.raises(MatchTableError, match="got no games"):
        standings(table_of(np.empty((0, 2)), np.empty((0, 2))))
    (tmp_path / "file").write_text("")
    with pytest.raises(MatchTableError, match="cannot be written"):
        write_standings(standings(table_of([[0, 1]], [[1, -1]], "ab")), tmp_path / "file")
