"""Connect Four: counts of games and positions, every line of four, and a game by hand."""

import numpy as np
import pytest
import torch

import mlbits
from mlbits.envs.board.connect_four import COLUMNS, ROWS, four
from mlbits.envs.core.errors import IllegalActionError
from tests.envs.board.game_trees import Tree
from tests.envs.board.play import play, result

ID = "mlbits/ConnectFour-v0"
PERFT = [7, 49, 343, 2401, 16807, 117649, 823536, 5673234, 39394572]
CELLS = [(row, column) for row in range(ROWS) for column in range(COLUMNS)]


@pytest.mark.parametrize("depth", [8, pytest.param(9, marks=pytest.mark.slow)])
def test_games_are_counted(depth):
    assert Tree(ID).perft(depth) == PERFT[:depth]


def test_distinct_positions_are_counted():
    assert [len(states) for states, _ in Tree(ID).levels(7)] == [1, 7, 49, 238, 1120, 4263, 16422, 54859]


def lines():
    """Every four cells in a line, rows counted from below."""
    for row, column in CELLS:
        for up, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
            line = [(row + k * up, column + k * right) for k in range(4)]
            if all(cell in CELLS for cell in line):
                yield line


def bits(cells):
    return sum(1 << COLUMNS * (ROWS - 1 - row) + column for row, column in cells)


def test_exactly_the_69_lines_of_four_win():
    found = list(lines())
    assert len(found) == 69
    for line in found:
        assert four(bits(line))
        for missing in range(4):
            assert not four(bits(line[:missing] + line[missing + 1 :]))


def test_no_other_set_of_cells_wins():
    rng = np.random.default_rng(0)
    winning = [bits(line) for line in lines()]
    count = 0
    for _ in range(3000):
        cells = bits([CELLS[k] for k in np.flatnonzero(rng.random(42) < 0.45)])
        wanted = any(cells & line == line for line in winning)
        assert four(cells) == wanted
        count += wanted
    assert 300 < count < 2700


@pytest.mark.parametrize(
    ("moves", "wanted"),
    [
        ("a a b b c c d", [1, -1]),  # level
        ("d e d e d e d", [1, -1]),  # upright
        ("a b b c c d c d d g d", [1, -1]),  # rising
        ("g f f e e d e d d a d", [1, -1]),  # falling
        ("a g b g c g a g", [-1, 1]),
        ("d d d d d d", None),
    ],
)
def test_wins_by_hand(moves, wanted):
    assert result(ID, moves) == wanted


def test_a_full_board_is_a_draw():
    # Columns in pairs, in an order in which no four meet.
    moves = "a b a b b a b a a b a b c d c d d c d c c d c d e f e f f e f e e f e f g g g g g g"
    batch, step = play(ID, moves)
    assert step.terminated.all() and not step.reward.any()
    assert batch.render("ansi").endswith("draw\n")
    assert batch.records()["outcome"].tolist() == [3]


def test_observations_masks_and_text_by_hand():
    batch, _ = play(ID, "d d d a d d d")
    own, other = batch.obs[0, 0, 0], batch.obs[0, 0, 1]
    assert own.nonzero().tolist() == [[0, 3], [2, 3], [3, 3], [5, 3]]
    assert other.nonzero().tolist() == [[1, 3], [4, 3], [5, 0]]
    assert batch.obs[0, 0, 2].tolist() == [[0] * 7] * 6
    assert batch.obs[0, 1].tolist() == [other.tolist(), own.tolist(), [[1] * 7] * 6]
    assert batch.legal_mask[0, 1].tolist() == [True, True, True, False, True, True, True]
    column = [". . . X . . .", ". . . O . . .", ". . . X . . .", ". . . X . . .", ". . . O . . .", "O . . X . . ."]
    assert batch.render("ansi") == "\n".join(["a b c d e f g", *column, "O to move"]) + "\n"
    with pytest.raises(IllegalActionError, match="seat 1 in ConnectFour: got 3"):
        batch.step(torch.tensor([[0, 3]]))


def test_a_picture_rings_the_last_stone_and_a_winners_four():
    rings = []
    for moves in ("a", "a a b b c c d"):
        picture = play(ID, moves)[0].render()
        x, y = 20 + 60 * 0.5 + 11, 48 + 60 * 5.5  # within the ring of a1
        rings.append(picture[int(y), int(x)].tolist())
        assert picture[48 + 330, 20 + 30].tolist() == [205, 70, 60]
    assert rings == [[250, 249, 245]] * 2
    assert play(ID, "a b")[0].render()[int(y), int(x)].tolist() == [205, 70, 60]
    assert mlbits.make_game(ID).layout["moves"][0] == tuple("abcdefg")
