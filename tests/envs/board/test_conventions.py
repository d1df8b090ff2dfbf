"""What all board games share: symmetries, rewards, names of moves, planes that convolutions take."""

import numpy as np
import pytest
import torch

import mlbits
from mlbits.agents.networks.features import observation_kind
from mlbits.envs.board.conventions import square_symmetries

ENDGAME = "8/8/8/3k4/8/3K4/8/7R w - - 80 90"  # a game of chess that ends within 20 plies
GAMES = [
    ("mlbits/TicTacToe-v0", {}, 8), ("mlbits/ConnectFour-v0", {}, 2), ("mlbits/Othello-v0", {"size": 6}, 8),
    ("mlbits/Hex-v0", {"size": 5, "swap": True}, 2), ("mlbits/Go-v0", {"size": 3, "komi": 1, "horizon": 50}, 8),
    ("mlbits/Chess-v0", {"fen": ENDGAME}, 1),
]  # fmt: skip
every_game = pytest.mark.parametrize(("game_id", "settings", "count"), GAMES)


@every_game
def test_a_transformed_game_shows_transformed_observations_and_masks(game_id, settings, count):
    symmetries = mlbits.make_game(game_id, **settings).layout["symmetries"]
    assert len(symmetries) == count
    assert len({tuple(cells) for cells in symmetries.cells}) == count
    assert np.array_equal(symmetries.cells[0], np.arange(symmetries.cells.shape[1]))
    for g in range(count):
        plain, other = (mlbits.make_batch(game_id, 32, seed=5, autoreset="disabled", **settings) for _ in range(2))
        # Othello's start is the same under a half of its symmetries only: begin where they agree.
        if not torch.equal(symmetries.observation(plain.obs, g), other.obs):
            assert game_id == "mlbits/Othello-v0"
            continue
        while not (plain.terminated | plain.truncated).all():
            actions = plain.sample_actions()
            moved = torch.from_numpy(symmetries.action(actions.numpy(), g))
            moved[~plain.active] = 0
            one, two = plain.step(actions), other.step(moved)
            assert torch.equal(symmetries.observation(one.obs, g), two.obs)
            act = plain.active
            assert torch.equal(symmetries.policy(plain.legal_mask, g)[act], other.legal_mask[act])
            assert torch.equal(one.reward, two.reward)
            assert torch.equal(one.terminated, two.terminated)


def test_half_of_the_symmetries_keep_othellos_start():
    batch = mlbits.make_batch("mlbits/Othello-v0", 1, size=6)
    symmetries = batch.game.layout["symmetries"]
    assert sum(torch.equal(symmetries.observation(batch.obs, g), batch.obs) for g in range(8)) == 4


def test_the_eight_symmetries_by_hand():
    symmetries = square_symmetries(2, extra_actions=1)
    seen = {"".join("abcd"[k] for k in cells) for cells in symmetries.cells}
    assert seen == {"abcd", "bdac", "dcba", "cadb", "acbd", "badc", "dbca", "cdab"}
    board = np.array([[[1, 2], [3, 4]]])
    for g in range(8):
        assert symmetries.observation(board, g).ravel().tolist() == [int(board.ravel()[k]) for k in symmetries.cells[g]]
        assert symmetries.action(4, g) == 4
        for action in range(5):
            assert symmetries.policy(np.eye(5)[action], g).argmax() == symmetries.action(action, g)


@every_game
def test_random_games_are_zero_sum_and_pay_only_at_the_end(game_id, settings, count):
    batch = mlbits.make_batch(game_id, 64, seed=3, **settings)
    ended = 0
    for _ in range(60):
        turn = batch.records()["turn"].copy()
        assert (batch.active.sum(1) == 1).all()
        assert batch.active[np.arange(64), turn].all()
        step = batch.step(batch.sample_actions())
        assert (step.reward.sum(1) == 0).all()
        assert not step.reward[~step.terminated].any()
        assert step.reward[step.terminated].abs().max() <= 1 if step.terminated.any() else True
        ended += int(step.terminated.sum())
        assert (batch.records()["outcome"] == 0).all()  # those that ended began again
    assert ended >= 64


@every_game
def test_moves_have_names_of_their_own_and_observations_are_images(game_id, settings, count):
    game = mlbits.make_game(game_id, **settings)
    for names in game.layout["moves"]:
        assert len(set(names)) == len(names) == game.action.mask_size
    assert observation_kind(game.observation_space) == "image"
    past = game.state_dtype["seen"].itemsize if "seen" in game.state_dtype.names else 0  # Go's positions
    assert game.state_dtype.itemsize - past <= (1024 if game.name == "Chess" else 256)
