"""Standings of a match table, worked out by hand."""

import numpy as np
import pytest

from mlbits.evals.tournament.match_table import MatchTable, MatchTableError
from mlbits.evals.tournament.standings import standings, standings_table, write_standings


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
    # b beat a beat c: nothing bounds b from above or c from below, and where a lies between them is open to both sides.
    assert [row["elo_high"] is None for row in rows] == [True, False, False]
    assert [row["elo_low"] is None for row in rows] == [False, False, True]
    assert rows[1]["elo_low"] < -50 < 50 < rows[1]["elo_high"]
    assert found.to_json()["tiers"] == [[["b"], ["a"], ["c"]]]
    assert found.to_json()["groups"] == [["a", "b", "c"]]
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


def test_players_who_never_met_only_have_ratings(tmp_path):
    found = standings(table_of([[0, 1], [1, 0]], [[1, -1], [-1, 1]]))
    assert found.alpha_rank is found.nash is found.nash_skill is None
    row = found.rows()[2]
    assert (row["player"], row["games"], row["points"], row["return_mean"], row["nash"]) == ("c", 0, None, None, None)
    assert (row["group"], row["rank"], row["elo"], row["elo_low"], row["elo_high"]) == (2, 1, None, None, None)
    assert standings_table(found).row_count == 3
    write_standings(found, tmp_path / "new" / "folder")
    assert (tmp_path / "new" / "folder" / "standings.csv").read_text().splitlines()[3] == "2,1,c,0,,,,,,,,"


def test_groups_that_never_met_are_separated_everywhere(tmp_path):
    """a and b exchange wins, and so do c, d and e; d is the best of all by points, and no rating says so."""
    seating = [[0, 1], [1, 0], [0, 1], [2, 3], [3, 2], [3, 4], [4, 3], [3, 4], [4, 2], [2, 4]]
    returns = [[1, -1], [1, -1], [1, -1], [1, -1], [1, -1], [1, -1], [1, -1], [1, -1], [1, -1], [1, -1]]
    found = standings(table_of(seating, returns, "abcde"))
    rows = found.rows()
    assert [(row["group"], row["rank"], row["player"]) for row in rows] == [
        (1, 1, "d"), (1, 2, "c"), (1, 3, "e"), (2, 1, "a"), (2, 2, "b")
    ]  # fmt: skip
    assert found.to_json()["groups"] == [["c", "d", "e"], ["a", "b"]]
    (note,) = found.to_json()["notes"]
    assert note == "no common scale: these groups never met, and each has its own Elo: c, d, e; a, b"
    elo = found.ratings.elo
    assert elo[:2].mean() == pytest.approx(0, abs=1e-9)
    assert elo[2:].mean() == pytest.approx(0, abs=1e-9)
    # What one group did is nothing to the other's ratings.
    alone = standings(table_of(seating[:3], returns[:3], "ab"))
    assert alone.ratings.elo == pytest.approx(elo[:2])
    assert alone.ratings.low == pytest.approx(found.ratings.low[:2], abs=1e-3)
    shown = standings_table(found)
    assert str(shown.caption) == note
    assert [row.end_section for row in shown.rows] == [False, False, True, False, False]
    write_standings(found, tmp_path)
    lines = (tmp_path / "standings.csv").read_text().splitlines()
    assert lines[0].startswith("group,rank,player,")
    assert [line[:5] for line in lines[1:]] == ["1,1,d", "1,2,c", "1,3,e", "2,1,a", "2,2,b"]


def test_a_clean_sweep_has_an_open_interval():
    found = standings(table_of([[0, 1]] * 3, [[1, -1]] * 3, "ab"))
    rows = found.rows()
    assert rows[0]["elo_high"] is rows[1]["elo_low"] is None
    assert rows[0]["elo_low"] < 0 < rows[0]["elo"]
    cells = [list(column.cells) for column in standings_table(found).columns]
    assert cells[6] == [f"above {rows[0]['elo_low']:.0f}", f"below {rows[1]['elo_high']:.0f}"]


def test_no_games_or_no_room_are_refused(tmp_path):
    with pytest.raises(MatchTableError, match="got no games"):
        standings(table_of(np.empty((0, 2)), np.empty((0, 2))))
    (tmp_path / "file").write_text("")
    with pytest.raises(MatchTableError, match="cannot be written"):
        write_standings(standings(table_of([[0, 1]], [[1, -1]], "ab")), tmp_path / "file")
