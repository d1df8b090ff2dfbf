"""Hex: counts of games, winning openings, exactly one winner, both seats' views, and the swap."""

import numpy as np
import pytest
import torch

import mlbits
from mlbits.envs.core.errors import GameError
from tests.envs.board.game_trees import Tree
from tests.envs.board.play import play, result

ID = "mlbits/Hex-v0"
# Each size compiles for some seconds.
SMALL = [pytest.param(1, "1", marks=pytest.mark.slow), pytest.param(2, "01/10", marks=pytest.mark.slow)]


def test_games_are_counted():
    assert Tree(ID, size=3).perft(10) == [9, 72, 504, 3024, 15120, 54720, 146880, 207360, 120960, 0]


@pytest.mark.parametrize(("size", "openings"), [*SMALL, (3, "001/111/100")])
def test_the_first_player_wins_by_exactly_the_known_openings(size, openings):
    values, of_moves = Tree(ID, size=size).values()
    assert values[0].tolist() == [1]
    assert of_moves[0].tolist() == [[1 if won == "1" else -1 for won in openings.replace("/", "")]]


@pytest.mark.slow
def test_with_the_swap_the_second_player_wins():
    values, of_moves = Tree(ID, size=3, swap=True).values()
    assert values[0].tolist() == [-1]
    assert np.isnan(of_moves[0][0]).tolist() == [False] * 9 + [True]  # nothing to swap at the start


def joined(cells, size):
    """Whether cells (row, column) hold a chain from the top row to the bottom row."""
    reached = {cell for cell in cells if cell[0] == 0}
    todo = list(reached)
    while todo:
        row, column = todo.pop()
        for r, c in ((-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0)):
            cell = (row + r, column + c)
            if cell in cells and cell not in reached:
                reached.add(cell)
                todo.append(cell)
    return any(row == size - 1 for row, _ in reached)


@pytest.mark.parametrize("size", [3, 11, pytest.param(20, marks=pytest.mark.slow)])
def test_random_games_end_with_the_first_chain(size):
    """After every move, the boards agree with a search through all stones; and there is always a winner."""
    games = 12
    batch = mlbits.make_batch(ID, games, size=size, seed=size, autoreset="disabled")
    won = np.zeros(games, int)
    for _ in range(size * size):
        live = ~batch.terminated.numpy()
        step = batch.step(batch.sample_actions())
        for b in np.flatnonzero(live):
            red, blue = ({tuple(cell) for cell in batch.obs[b, seat, 0].nonzero().tolist()} for seat in (0, 1))
            assert {(column, row) for row, column in blue}.isdisjoint(red)
            wins = [joined(red, size), joined(blue, size)]
            assert bool(step.terminated[b]) == any(wins)
            if any(wins):
                won[b] = 1 + wins.index(True)
                assert step.reward[b].tolist() == [2 * wins[0] - 1, 2 * wins[1] - 1]
    assert batch.terminated.all()
    assert batch.records()["outcome"].tolist() == won.tolist()
    assert set(won) == {1, 2}


@pytest.mark.parametrize(
    ("moves", "wanted"),
    [
        ("b1 a1 b2 a2 b3", [1, -1]),  # straight down
        ("c1 a1 b2 a2 a3", [1, -1]),  # c1, b2, a3 are neighbours
        ("a1 c1 b2 c2 c3", None),  # a1, b2, c3 are not
        ("a1 a2 b1 b2 a3 c2", [-1, 1]),  # blue from left to right
        ("a1 a2 b1 b2 a3 c1", [-1, 1]),
        ("a2 a1 b3 b1 c3 b2", None),  # for blue, top to bottom is nothing
    ],
)
def test_chains_by_hand(moves, wanted):
    assert result(ID, moves, size=3) == wanted


@pytest.mark.slow
def test_a_chain_closes_in_its_middle():
    assert result(ID, "a1 e1 a2 e2 a4 e3 a5 d1 a3", size=5, swap=True) == [1, -1]
    assert result(ID, "a5 a1 e5 b1 d5 d1 c5 e1 a4 c1", size=5, swap=True) == [-1, 1]


def test_a_chain_may_go_up_on_its_way_down():
    red, blue = "a1 a2 a3 a4 b4 c4 d3 e3 e4 e5".split(), "b1 c1 d1 e1 b2 c2 d2 e2 b3".split()
    moves = [name for pair in zip(red, blue, strict=False) for name in pair]
    assert result(ID, " ".join(moves), size=5, swap=True) is None
    assert result(ID, " ".join([*moves, red[-1]]), size=5, swap=True) == [1, -1]
    # d4 and c3 are not neighbours.
    assert result(ID, "e1 a1 e2 b1 e3 c1 d4 d1 c3 a2 b4 b2 b5", size=5, swap=True) is None


def test_each_seat_sees_its_goal_from_top_to_bottom():
    batch, _ = play(ID, "b1 a3 c3", size=5, swap=True)
    assert batch.obs[0, 0, 0].nonzero().tolist() == [[0, 1], [2, 2]]
    assert batch.obs[0, 0, 1].nonzero().tolist() == [[2, 0]]
    assert batch.obs[0, 1, 0].nonzero().tolist() == [[0, 2]]  # a3, mirrored
    assert batch.obs[0, 1, 1].nonzero().tolist() == [[1, 0], [2, 2]]
    assert batch.obs[0, :, 2].flatten(1).float().mean(1).tolist() == [0, 1]
    names = batch.game.layout["moves"]
    assert names[0][1] == "b1" and names[1][1] == "a2"
    free = {names[1][k] for k in batch.legal_mask[0, 1].nonzero().ravel()}
    assert free == set(names[0]) - {"b1", "a3", "c3", "swap"}
    rows = "1 . X . . .\n 2 . . . . .\n  3 O . X . .\n   4 . . . . .\n    5 . . . . .\n"
    assert batch.render("ansi") == f"  a b c d e\n{rows}O to move\n"


def test_the_swap_takes_the_first_stone_over_mirrored():
    batch, _ = play(ID, "b1", size=5, swap=True)
    names = batch.game.layout["moves"]
    assert names[1][25] == "swap"
    assert batch.legal_mask[0, 1].sum() == 25  # 24 free cells, and the swap
    batch, _ = play(ID, "b1 swap", size=5, swap=True)
    rows = "1 . . . . .\n 2 O . . . .\n  3 . . . . .\n   4 . . . . .\n    5 . . . . .\n"
    assert batch.render("ansi") == f"  a b c d e\n{rows}X to move\n"
    assert not batch.legal_mask[0, 0, 25]
    assert batch.legal_mask[0, 0].sum() == 24
    assert batch.obs[0, 1, 0].nonzero().tolist() == [[0, 1]]
    assert not batch.obs[0, 0, 0].any()
    batch, _ = play(ID, "b1 c3", size=5, swap=True)
    assert not batch.legal_mask[0, :, 25].any()
    # What was joined goes along: a2 is joined to blue's left side, and red's b1 to nothing any more.
    assert result(ID, "b1 swap e4 b2 e3 c2 d1 d2 d3 e2", size=5, swap=True) == [-1, 1]
    assert result(ID, "b1 swap b2 a4 b3 c4 b4 d4 b5", size=5, swap=True) is None


def test_the_last_stone_has_a_dot():
    for moves in ("b1", "b1 c2", "b1 swap"):
        batch, _ = play(ID, moves, size=5, swap=True)
        wide = 24 * 3**0.5
        row, column = {"b1": (0, 1), "b1 c2": (1, 2), "b1 swap": (1, 0)}[moves]
        x, y = 46 + wide / 2 + wide * (column + row / 2), 74 + 36 * row
        assert batch.render()[round(y), round(x)].tolist() == [250, 249, 245], moves


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "size: got 0; wanted an integer from 1 to 26"),
        ({"size": 27}, "size: got 27"),
        ({"size": 11.0}, "size: got 11.0"),
        ({"swap": 1}, "swap: got 1; wanted True or False"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(GameError, match=message):
        mlbits.make_game(ID, **settings)


def test_the_largest_board_is_drawn():
    game = mlbits.make_game(ID, size=26)
    state = np.zeros(1, game.state_dtype).view(np.recarray)[0]
    state.last = -1
    state.stones[1, 25] = 1 << 25
    assert game.text(state, game.params.view(np.recarray)[0]).splitlines()[26].endswith("26" + " ." * 25 + " O")
    assert game.draw(state, game.params.view(np.recarray)[0]).shape[1] < 1400


@pytest.mark.slow
def test_the_largest_board_is_played():
    batch = mlbits.make_batch(ID, 1, size=26, autoreset="disabled")
    step = batch.step(torch.tensor([[26 * 25 + 25, 0]]))
    assert batch.obs[0, 0, 0, 25, 25] == 1 and not step.terminated.any()
