"""Tic-tac-toe: its whole tree, its value, every line, and a game by hand."""

from itertools import combinations

import numpy as np
import pytest
import torch

import mlbits
from mlbits.envs.core.errors import IllegalActionError
from tests.envs.board.game_trees import Tree
from tests.envs.board.play import play, result

ID = "mlbits/TicTacToe-v0"
LINES = ["a1 b1 c1", "a2 b2 c2", "a3 b3 c3", "a1 a2 a3", "b1 b2 b3", "c1 c2 c3", "a1 b2 c3", "c1 b2 a3"]


def test_all_games_are_counted_and_end_as_they_do():
    tree = Tree(ID)
    assert tree.perft(10) == [9, 72, 504, 3024, 15120, 54720, 148176, 200448, 127872, 0]
    outcomes = np.concatenate([ended["outcome"] for ended in tree.ended])
    assert np.bincount(outcomes).tolist() == [0, 131_184, 77_904, 46_080]


def test_perfect_play_is_a_draw_on_5478_positions():
    tree = Tree(ID)
    values, of_moves = tree.values()
    assert sum(map(len, values)) == 5478
    assert values[0].tolist() == [0]
    assert of_moves[0].tolist() == [[0] * 9]
    replies = tree.levels(1)
    *_, (states, _) = replies
    corner = int(np.flatnonzero(states["marks"][:, 0] == 1)[0])
    assert of_moves[1][corner, 1:].tolist() == [1, 1, 1, 0, 1, 1, 1, 1], "only the centre holds against a corner"


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("seat", [0, 1])
def test_either_seat_wins_by_every_line(line, seat):
    own = line.split()
    free = [f"{column}{row}" for row in "123" for column in "abc" if f"{column}{row}" not in own]
    no_line = (three for three in combinations(free, 3) if not any(set(one.split()) == set(three) for one in LINES))
    others = next(no_line)
    moves = zip(own, others, strict=True) if seat == 0 else zip(others, own, strict=True)
    names = [name for pair in moves for name in pair][: 5 + seat]
    assert result(ID, " ".join(names[:-1])) is None
    assert result(ID, " ".join(names)) == [1 - 2 * seat, 2 * seat - 1]


def test_a_full_board_without_a_line_is_a_draw_and_with_one_a_win():
    batch, step = play(ID, "b2 a1 c1 a3 a2 c2 b3 b1 c3")
    assert step.terminated.all() and not step.reward.any()
    assert batch.render("ansi") == "  a b c\n1 O O X\n2 X X O\n3 O X X\ndraw\n"
    assert result(ID, "a1 b1 b2 c1 a3 a2 c2 b3 c3") == [1, -1]


def test_observations_masks_and_text_by_hand():
    batch, _ = play(ID, "b2 a1 c1")
    x, o = [[0, 0, 1], [0, 1, 0], [0, 0, 0]], [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    zeros, ones = [[0] * 3] * 3, [[1] * 3] * 3
    assert batch.obs[0].tolist() == [[x, o, zeros], [o, x, ones]]
    assert batch.legal_mask[0].tolist() == [[True] + [False] * 8, [False, True, False, True, False] + [True] * 4]
    assert batch.render("ansi") == "  a b c\n1 O . X\n2 . X .\n3 . . .\nO to move\n"
    with pytest.raises(IllegalActionError, match=r"seat 1 in TicTacToe: got 4; wanted one of \[1, 3, 5, 6, 7, 8\]"):
        batch.step(torch.tensor([[0, 4]]))
    assert (batch.render() != mlbits.make_batch(ID, 1).render()).any()
