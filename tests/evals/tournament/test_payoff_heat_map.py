"""The payoff heat map: wins are blue, gaps are grey, and any number of players fits."""

import numpy as np
import pytest

from mlbits.envs.core.errors import GameError
from mlbits.evals.tournament.payoff_heat_map import payoff_heat_map

BLUE, RED, WHITE, GREY = (38, 110, 214), (205, 70, 60), (255, 255, 255), (214, 214, 208)


def corner(picture, players, row, column):
    """The colour near the corner of a cell; where cells begin is read off the first row's, which follow each other."""
    top = 66  # below the title and the numbers
    inked = np.flatnonzero((picture[top] != picture[0, 0]).any(1))
    starts = [inked[0], *inked[1:][np.diff(inked) > 1]]
    assert len(starts) > players  # the cells, and the scale
    return tuple(picture[top + (starts[1] - starts[0]) * row, starts[column] + 3].tolist())


def test_winners_are_blue_losers_red_and_gaps_grey():
    payoff = np.array([[np.nan, 1, 0], [-1, np.nan, np.nan], [0, np.nan, 0.5]])
    picture = payoff_heat_map(payoff, ["a", "b", "c"])
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.shape[2] == 3
    assert corner(picture, 3, 0, 1) == BLUE
    assert corner(picture, 3, 1, 0) == RED
    assert corner(picture, 3, 0, 2) == corner(picture, 3, 2, 0) == WHITE
    assert corner(picture, 3, 0, 0) == corner(picture, 3, 1, 2) == GREY


def test_white_is_the_mean_payoff():
    picture = payoff_heat_map([[3, 5], [0, 1]], ["defects", "cooperates"])  # between the two: 5 and 0
    assert corner(picture, 2, 0, 1) == BLUE
    assert corner(picture, 2, 1, 0) == RED
    assert corner(picture, 2, 0, 0) == tuple(int(c) for c in np.round(255 + 0.2 * (np.array(BLUE) - 255)))


def test_equal_payoffs_are_white():
    assert corner(payoff_heat_map(np.zeros((2, 2)), ["a", "b"]), 2, 0, 1) == WHITE
    payoff_heat_map(np.full((2, 2), np.nan), ["a", "b"])


def test_numbers_and_intervals_are_written():
    payoff = np.array([[0.0, 0.25], [-0.25, 0.0]])
    plain = payoff_heat_map(payoff, ["a", "b"])
    known = payoff_heat_map(payoff, ["a", "b"], interval=(payoff - 0.1, payoff + 0.1))
    assert plain.shape == known.shape
    assert (plain != known).any()
    assert (known != payoff_heat_map(payoff, ["a", "b"], interval=(payoff - 0.2, payoff + 0.1))).any()


@pytest.mark.parametrize("size", [1, 24, 25, 100])
def test_any_number_of_players_fits(size):
    names = ["a player with a very long name indeed, longer than there is room for"] * size
    picture = payoff_heat_map(np.random.default_rng(0).normal(size=(size, size)), names)
    assert max(picture.shape) < 2300


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(GameError, match=r"got shape \(2, 2\) for 3 players"):
        payoff_heat_map(np.zeros((2, 2)), ["a", "b", "c"])
    with pytest.raises(GameError, match="interval"):
        payoff_heat_map(np.zeros((2, 2)), ["a", "b"], interval=(np.zeros(2), np.zeros(2)))


def test_groups_that_never_met_are_separated_by_lines():
    payoff = np.full((4, 4), np.nan)
    payoff[:2, :2], payoff[2:, 2:] = 0.5, 0.5
    together, apart = (payoff_heat_map(payoff, list("abcd"), groups=groups) for groups in ([0] * 4, [0, 0, 1, 1]))
    assert np.array_equal(together, payoff_heat_map(payoff, list("abcd")))
    height, width = together.shape[:2]
    dark = (apart[:height, :width].sum(-1) < 200) & (together.sum(-1) >= 200)
    rows, columns = (np.flatnonzero(dark.sum(axis) > 200) for axis in (1, 0))
    assert 1 <= len(rows) <= 2  # one line across all cells each way
    assert 1 <= len(columns) <= 2


def test_open_ends_are_not_written():
    ends = np.full((2, 2), -np.inf), np.full((2, 2), np.inf)
    payoff = [[0.0, 1.0], [-1.0, 0.0]]
    assert payoff_heat_map(payoff, ["a", "b"], interval=ends).shape == payoff_heat_map(payoff, ["a", "b"]).shape
