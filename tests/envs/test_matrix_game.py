"""MatrixGame: the named tables, tensors of any size, masks, observations, and bad payoffs."""

import json

import numpy as np
import pytest
import torch

import mlbits
from mlbits.envs.core.errors import GameError, IllegalActionError
from mlbits.envs.exact.normal_form import payoff_tensor
from mlbits.envs.matrix_game import NAMED, matrix_game

ID = "mlbits/MatrixGame-v0"


@pytest.mark.parametrize("name", NAMED)
def test_rewards_are_those_of_the_table(name):
    """Random play of many copies; each reward is looked up in the table."""
    batch = mlbits.make_batch(ID, 200, payoffs=name, seed=1)
    actions = batch.sample_actions()
    step = batch.step(actions)
    for (row, column), reward in zip(actions.tolist(), step.reward.tolist(), strict=True):
        assert reward == [NAMED[name][1][seat][row][column] for seat in range(2)]
    assert bool(step.terminated.all())
    assert not bool(step.truncated.any())
    assert len(set(map(tuple, actions.tolist()))) == len(NAMED[name][0]) ** 2


def best_responses(payoffs):
    """The pure equilibria of two seats' payoffs [2, A, A]."""
    rows, columns = payoffs[0].max(0), payoffs[1].max(1)
    return [
        (i, j)
        for i in range(payoffs.shape[1])
        for j in range(payoffs.shape[2])
        if payoffs[0, i, j] == rows[j] and payoffs[1, i, j] == columns[i]
    ]


@pytest.mark.parametrize(
    ("name", "pure"),
    [
        ("rock_paper_scissors", []),
        ("matching_pennies", []),
        ("prisoners_dilemma", [(1, 1)]),
        ("stag_hunt", [(0, 0), (1, 1)]),
        ("chicken", [(0, 1), (1, 0)]),
        ("battle_of_the_sexes", [(0, 0), (1, 1)]),
        ("shapley", []),
    ],
)
def test_the_named_games_have_their_known_pure_equilibria(name, pure):
    assert best_responses(payoff_tensor(matrix_game(name))) == pure


def test_the_named_games_have_their_defining_payoff_orders():
    dilemma = payoff_tensor(matrix_game("prisoners_dilemma"))
    assert dilemma[0, 1, 0] > dilemma[0, 0, 0] > dilemma[0, 1, 1] > dilemma[0, 0, 1]  # T > R > P > S
    hunt = payoff_tensor(matrix_game("stag_hunt"))
    assert hunt[0, 0, 0] > hunt[0, 1, 1]  # stag pays more, hare is safe
    assert hunt[0, 1].min() > hunt[0, 0].min()
    chicken = payoff_tensor(matrix_game("chicken"))
    assert chicken[0].min() == chicken[0, 1, 1]
    for name in ("rock_paper_scissors", "matching_pennies"):
        assert not payoff_tensor(matrix_game(name)).sum(0).any()
    for name in ("rock_paper_scissors", "prisoners_dilemma", "stag_hunt", "chicken"):
        table = payoff_tensor(matrix_game(name))
        assert np.array_equal(table[1], table[0].T)
    shapley = payoff_tensor(matrix_game("shapley"))
    assert np.array_equal(shapley.sum(0), [[1, 1, 0], [0, 1, 1], [1, 0, 1]])


@pytest.mark.parametrize("shape", [(2, 2, 3), (3, 2, 3, 4), pytest.param((8, *[2] * 8), marks=pytest.mark.slow)])
def test_a_tensor_of_any_size_is_recovered_by_playing_it(shape):
    payoffs = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    game = matrix_game(payoffs)
    assert (game.seats, game.action_space.n) == (shape[0], max(shape[1:]))
    assert np.array_equal(payoff_tensor(game), payoffs)
    assert np.array_equal(game.layout["payoffs"], payoffs)


def test_one_matrix_is_a_zero_sum_game_and_text_is_parsed_as_json():
    matrix = [[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]]
    wanted = np.stack([matrix, -np.array(matrix)])
    for payoffs in (matrix, np.array(matrix), json.dumps(matrix), json.dumps(wanted.tolist()), wanted):
        assert np.array_equal(payoff_tensor(matrix_game(payoffs)), wanted)


def test_seats_with_fewer_actions_are_masked():
    batch = mlbits.make_batch(ID, 1, payoffs=np.arange(72.0).reshape(3, 2, 3, 4))
    assert batch.legal_mask[0].sum(-1).tolist() == [2, 3, 4]
    assert batch.legal_mask[0, 0].tolist() == [True, True, False, False]
    assert batch.step(torch.tensor([[1, 0, 2]])).reward[0].tolist() == [14.0, 38.0, 62.0]
    with pytest.raises(IllegalActionError, match=r"seat 1 in MatrixGame: got 3; wanted one of \[0, 1, 2\]"):
        batch.step(torch.tensor([[1, 3, 2]]))
    assert mlbits.make_batch(ID, 1).legal_mask is None


def test_a_seat_observes_itself_or_nothing():
    batch = mlbits.make_batch(ID, 2, payoffs=np.zeros((3, 2, 3, 4)))
    assert batch.obs.tolist() == [[0, 1, 2]] * 2
    batch = mlbits.make_batch(ID, 2, see_seat=False)
    assert batch.obs.tolist() == [[0, 0]] * 2
    assert batch.observation_space.n == 1


def test_copies_of_one_batch_may_play_different_games():
    names = ["rock_paper_scissors", "shapley"]
    batch = mlbits.make_batch(ID, 2, settings_per_copy=[{"payoffs": name} for name in names])
    assert batch.step(torch.tensor([[0, 0], [0, 0]])).reward.tolist() == [[0, 0], [1, 0]]


def test_the_pictures():
    batch = mlbits.make_batch(ID, 1, autoreset="disabled")
    assert batch.render("ansi") == "2 seats, nothing played\n"
    before = batch.render()
    batch.step(torch.tensor([[1, 0]]))
    assert batch.render("ansi") == "seat 0: paper, paid 1\nseat 1: rock, paid -1\n"
    assert (batch.render() != before).any()
    for payoffs in (np.zeros((3, 2, 2, 2)), np.zeros((20, 30)), np.zeros((2, 1, 1))):
        game = matrix_game(payoffs)
        state, params = np.zeros(1, game.state_dtype).view(np.recarray)[0], game.params.view(np.recarray)[0]
        after = game.draw(state, params)  # all seats have played 0
        assert game.text(state, params).startswith("seat 0: 0, paid 0\nseat 1: 0, paid 0\n")
        state.played[:] = -1
        before = game.draw(state, params)
        assert before.dtype == np.uint8
        assert (before != after).any()


@pytest.mark.parametrize(
    ("payoffs", "message"),
    [
        ("rock", "payoffs: got 'rock'; wanted one of 'rock_paper_scissors', 'matching_pennies'"),
        ("[[1, 2], [3]]", r"payoffs: got \[\[1, 2\], \[3\]\], which is not an array of numbers; wanted a tensor"),
        ("[[1, 2", "payoffs: got .*which is not an array of numbers"),
        ([["a", "b"]], "which is not an array of numbers"),
        (None, r"payoffs: got shape \(\); wanted a tensor"),
        ([1.0, 2.0], r"payoffs: got shape \(2,\); wanted a tensor"),
        ([], r"payoffs: got shape \(0,\)"),
        ([[]], r"payoffs: got shape \(1, 0\)"),
        (np.zeros((3, 2, 2)), r"payoffs: got shape \(3, 2, 2\); wanted a tensor .*for 2 to 8 seats"),
        (np.zeros((2, 2, 2, 2)), r"payoffs: got shape \(2, 2, 2, 2\)"),
        (np.zeros((9, *[1] * 9)), r"payoffs: got shape \(9, 1"),
        ([[0.0, float("nan")]], r"payoffs\[0\]\[0\]\[1\]: got nan; wanted a finite number"),
        ([[[0.0], [1.0]], [[float("inf")], [1.0]]], r"payoffs\[1\]\[0\]\[0\]: got inf"),
        ([[1.5e6]], r"payoffs\[0\]\[0\]\[0\]: got 1500000.0; wanted a finite number from"),
        ([[1e7]], r"payoffs\[0\]\[0\]\[0\]: got 10000000.0; wanted a finite number from -1e\+06"),
        (np.zeros((2, 1000, 1000)), "payoffs: got 2000000 numbers; wanted at most 1048576"),
    ],
)
def test_bad_payoffs_are_refused(payoffs, message):
    with pytest.raises(GameError, match=message):
        mlbits.make_game(ID, payoffs=payoffs)


def test_a_flag_that_is_not_a_bool_is_refused():
    with pytest.raises(GameError, match="see_seat: got 1; wanted True or False"):
        mlbits.make_game(ID, see_seat=1)
