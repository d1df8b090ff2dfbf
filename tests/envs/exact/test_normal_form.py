"""Normal forms of one-shot games: known tables, games played in several batches, and games without a normal form."""

import numpy as np
import pytest

import mlbits
from mlbits.envs.core.errors import GameError
from mlbits.envs.exact import normal_form
from mlbits.envs.exact.normal_form import payoff_tensor
from tests.games import register_test_games

register_test_games()


def test_illegal_actions_are_left_out():
    payoffs = np.arange(72.0).reshape(3, 2, 3, 4)
    tensor = payoff_tensor(mlbits.make_game("mlbits/MatrixGame-v0", payoffs=payoffs))
    assert tensor.dtype == np.float64
    assert np.array_equal(tensor, payoffs)


def test_large_games_are_played_in_several_batches(monkeypatch):
    game = mlbits.make_game("mlbits/Blotto-v0", coins=5, fields=3)
    whole = payoff_tensor(game)
    monkeypatch.setattr(normal_form, "_COPIES", 100)  # 441 joint actions: four batches, and one that is not full
    assert np.array_equal(payoff_tensor(game), whole)


@pytest.mark.parametrize(
    ("game", "settings", "message"),
    [
        (
            "mlbits/SimilarityPD-v0",
            {},
            "game: got SimilarityPD, of Box.*; wanted Discrete actions of all seats at once",
        ),
        ("test/Nim-v0", {}, "game: got Nim"),
        ("mlbits/IteratedMatrixGame-v0", {}, "game: IteratedMatrixGame continues after one step"),
        ("mlbits/IteratedMatrixGame-v0", {"rounds": None, "continuation": 0.0}, "draws random numbers"),
        ("mlbits/Goofspiel-v0", {"cards": 2}, "game: Goofspiel draws random numbers; wanted a game without chance"),
        ("mlbits/Blotto-v0", {"coins": 100}, "game: Blotto has 26532801 joint actions; wanted at most 16777216"),
    ],
)
def test_games_without_a_normal_form_are_refused(game, settings, message):
    with pytest.raises(GameError, match=message):
        payoff_tensor(mlbits.make_game(game, **settings))


def test_one_round_of_an_iterated_game_is_the_game_itself():
    once = mlbits.make_game("mlbits/IteratedMatrixGame-v0", rounds=1)
    one_shot = mlbits.make_game("mlbits/MatrixGame-v0", payoffs="prisoners_dilemma")
    assert np.array_equal(payoff_tensor(once), payoff_tensor(one_shot))
    bids = payoff_tensor(mlbits.make_game("mlbits/Goofspiel-v0", cards=2, prizes="ascending"))
    assert np.array_equal(bids[0], [[0, 1], [-1, 0]])  # bidding high for the prize of 1 loses that of 2
