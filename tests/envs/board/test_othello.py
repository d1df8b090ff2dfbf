"""Othello: counts of games, the value of 4x4, turning in all directions, passes, and ends by hand."""

import numpy as np
import pytest
import torch

import mlbits
from mlbits.envs.core.errors import GameError, IllegalActionError
from tests.envs.board.game_trees import Tree
from tests.envs.board.play import play

ID = "mlbits/Othello-v0"
PERFT = {
    4: [4, 12, 44, 128, 424, 1256, 3624, 9116, 20040, 36528, 50576, 57000],
    6: [4, 12, 56, 244, 1364, 7604, 47740, 308716, 2114912],
    8: [4, 12, 56, 244, 1396, 8200, 55092, 390216, 3005288, 24571284],
}


SLOW = [pytest.param(size, depth, marks=pytest.mark.slow) for size, depth in ((6, 8), (6, 9), (8, 10))]


@pytest.mark.parametrize(("size", "depth"), [(4, 12), (8, 8), *SLOW])
def test_games_are_counted(size, depth):
    assert Tree(ID, size=size).perft(depth) == PERFT[size][:depth]


def test_the_second_player_wins_on_4x4():
    values, of_moves = Tree(ID, size=4).values()
    assert values[0].tolist() == [-1]
    assert of_moves[0][0][~np.isnan(of_moves[0][0])].tolist() == [-1] * 4


def position(rows, turn=0, size=8):
    """A batch of one copy with these stones, X black and O white."""
    batch = mlbits.make_batch(ID, 1, size=size, autoreset="disabled")
    states = batch.records().copy()
    cells = "".join(rows)
    assert len(cells) == size * size
    for seat in (0, 1):
        states["stones"][0, seat] = sum(1 << k for k, mark in enumerate(cells) if mark == "XO"[seat])
    states["turn"] = 1 - turn
    states["moves"] = 0
    batch.set_state(np.asarray(states))
    # The moves are worked out by the step before: the other side passes.
    batch.step(torch.tensor([[size * size] * 2]) * torch.tensor([turn == 1, turn == 0]))
    return batch


def stones(batch):
    return ["".join(row.split()[1:]) for row in batch.render("ansi").splitlines()[1:-1]]


def test_the_start_and_its_moves():
    batch = mlbits.make_batch(ID, 1)
    assert stones(batch)[3:5] == ["...OX...", "...XO..."]
    names = batch.game.layout["moves"][0]
    assert [names[k] for k in batch.legal_mask[0, 0].nonzero().ravel()] == ["d3", "c4", "f5", "e6"]
    assert batch.obs[0, 0, 0].nonzero().tolist() == [[3, 4], [4, 3]]
    assert batch.obs[0, 0, 1].nonzero().tolist() == [[3, 3], [4, 4]]
    assert batch.obs[0, :, 2].flatten(1).float().mean(1).tolist() == [1, 0]
    assert torch.equal(batch.obs[0, 1, :2], batch.obs[0, 0, :2].flip(0))
    with pytest.raises(IllegalActionError, match="seat 0 in Othello: got 0; wanted one of"):
        batch.step(torch.zeros((1, 2), dtype=torch.int64))


@pytest.mark.parametrize("turn", [0, 1])
def test_a_stone_turns_rows_in_all_eight_directions(turn):
    star = ["X..X..X.", ".O.O.O..", "..OOO...", "XOO.OOOX", "..OOO...", ".O.O.O..", "X..X..X.", "...X...X"]
    after = [row.replace("O", "X") for row in star]
    after[3] = "X" * 8
    swapped = str.maketrans("XO", "OX")
    if turn == 1:
        star, after = ([row.translate(swapped) for row in rows] for rows in (star, after))
    batch = position(star, turn)
    action = 3 * 8 + 3
    assert batch.legal_mask[0, turn, action]
    batch.step(torch.tensor([[action * (turn == 0), action * (turn == 1)]]))
    assert stones(batch) == after


def test_rows_do_not_go_around_the_edge_and_stop_at_gaps():
    rows = ["X.....OO", "OOOOOO.X", "........", "OX......", "......OX", "........", "........", "...X...."]
    batch = position(rows)
    names = batch.game.layout["moves"][0]
    found = {names[k] for k in batch.legal_mask[0, 0].nonzero().ravel()}
    assert found == {"a3", "c3", "f5"}


def by_hand(rows, own="X"):
    """The moves of a side by walking in each direction, with what each turns."""
    size, other = len(rows), "O" if own == "X" else "X"
    found = {}
    for row in range(size):
        for column in range(size):
            turned = []
            for down in (-1, 0, 1):
                for right in (-1, 0, 1):
                    if not (down or right):
                        continue
                    line, r, c = [], row + down, column + right
                    while 0 <= r < size and 0 <= c < size and rows[r][c] == other:
                        line.append((r, c))
                        r, c = r + down, c + right
                    if 0 <= r < size and 0 <= c < size and rows[r][c] == own:
                        turned += line
            if turned and rows[row][column] == ".":
                found[size * row + column] = turned
    return found


@pytest.mark.parametrize("size", [4, 6, 8])
def test_random_games_move_and_turn_as_a_walk_over_the_board_does(size):
    batch = mlbits.make_batch(ID, 8, size=size, seed=size, autoreset="disabled")
    checked = passes = 0
    while not batch.terminated.all():
        boards = [board(batch, b) for b in range(8)]
        turns, live = batch.records()["turn"].copy(), ~batch.terminated
        for b in range(8):
            if live[b]:
                wanted = by_hand(boards[b], "XO"[turns[b]])
                legal = batch.legal_mask[b, turns[b]].nonzero().ravel().tolist()
                assert legal == (sorted(wanted) or [size * size])
                passes += not wanted
        actions = batch.sample_actions()
        batch.step(actions)
        for b in range(8):
            action = int(actions[b, turns[b]])
            if live[b] and action < size * size:
                own = "XO"[turns[b]]
                cells = [list(row) for row in boards[b]]
                for row, column in [divmod(action, size), *by_hand(boards[b], own)[action]]:
                    cells[row][column] = own
                assert board(batch, b) == ["".join(row) for row in cells]
                checked += 1
    assert checked > 80 * (size > 4)
    assert passes > 0
    for b in range(8):
        last = board(batch, b)
        assert not by_hand(last, "X") and not by_hand(last, "O")
        lead = np.sign(sum(row.count("X") - row.count("O") for row in last))
        assert batch.records()["outcome"][b] == {1: 1, -1: 2, 0: 3}[int(lead)]


def board(batch, b):
    record = batch.records()[b]
    size = batch.obs.shape[-1]
    marks = ["XO"[seat] if int(record["stones"][seat]) >> k & 1 else "" for k in range(size * size) for seat in (0, 1)]
    cells = [marks[2 * k] + marks[2 * k + 1] or "." for k in range(size * size)]
    return ["".join(cells[size * row : size * (row + 1)]) for row in range(size)]


def test_a_forced_pass_is_a_move_and_the_only_one():
    batch = position(["XO..", "....", "....", "XO.."], turn=0, size=4)
    names = batch.game.layout["moves"][1]
    step = batch.step(torch.tensor([[2, 0]]))
    assert not step.terminated.any()
    assert [names[k] for k in batch.legal_mask[0, 1].nonzero().ravel()] == ["pass"]
    step = batch.step(torch.tensor([[0, 16]]))
    assert not step.terminated.any()
    assert batch.records()["turn"].tolist() == [0]
    assert [names[k] for k in batch.legal_mask[0, 0].nonzero().ravel()] == ["c4"]
    step = batch.step(torch.tensor([[14, 0]]))  # no white stone is left
    assert not step.terminated.any()
    step = batch.step(torch.tensor([[0, 16]]))  # white passes, and black could only pass too
    assert step.terminated.all()
    assert step.reward.tolist() == [[1, -1]]
    assert batch.render("ansi") == "  a b c d\n1 X X X .\n2 . . . .\n3 . . . .\n4 X X X .\nX won, 6 to 0\n"


def test_the_shortest_game_wipes_white_out_in_nine_moves():
    batch, step = play(ID, "e6 f4 e3 f6 g5 d6 e7 f5 c5 pass")
    assert step.terminated.all()
    assert step.reward.tolist() == [[1, -1]]
    assert batch.render("ansi").endswith("X won, 13 to 0\n")


def test_equal_counts_on_a_full_board_are_a_draw():
    batch = position(["OOOO", "XXOX", "OOXO", "XOX."], turn=0, size=4)
    step = batch.step(torch.tensor([[15, 0]]))  # turns d3
    assert step.terminated.all() and not step.reward.any()
    assert batch.render("ansi").endswith("4 X O X X\ndraw, 8 to 8\n")


def test_the_second_player_may_win():
    batch = position(["OOOO", "XOOX", "OOXO", "XOX."], turn=0, size=4)
    step = batch.step(torch.tensor([[15, 0]]))
    assert step.terminated.all()
    assert step.reward.tolist() == [[-1, 1]]
    assert batch.render("ansi").endswith("O won, 7 to 9\n")


def test_the_picture_shows_where_to_play():
    batch = mlbits.make_batch(ID, 1)
    assert batch.render()[42 + 54 * 2 + 27, 42 + 54 * 3 + 27].tolist() == [34, 36, 40]  # d3, a dot
    assert batch.render()[42 + 54 * 2 + 27, 42 + 54 * 4 + 27].tolist() == [58, 140, 92]  # e3


@pytest.mark.parametrize("size", [5, 2, 10, True, "8", 8.5])
def test_other_sizes_are_refused(size):
    with pytest.raises(GameError, match=f"size: got {size!r}; wanted 4, 6 or 8"):
        mlbits.make_game(ID, size=size)
