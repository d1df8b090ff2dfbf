"""Goofspiel: OpenSpiel's returns, a game by hand, observations by seat, the order of prizes, and bad settings."""

from collections import Counter

import numpy as np
import pytest
import torch

import mlbits
from mlbits.envs.core.errors import GameError, IllegalActionError

ID = "mlbits/Goofspiel-v0"
# Random games of five cards by OpenSpiel: returns, order, the prizes where they are random, the bids, the returns.
OPENSPIEL = [
    ("win_loss", "random", [3, 2, 1, 0], [[3, 0], [4, 4], [1, 2], [0, 3]], [1, -1]),
    ("win_loss", "ascending", [], [[1, 0], [3, 2], [2, 1], [0, 4]], [1, -1]),
    ("win_loss", "descending", [], [[3, 4], [0, 2], [2, 1], [1, 3]], [-1, 1]),
    ("point_difference", "random", [3, 0, 4, 1], [[4, 2], [0, 0], [2, 4], [3, 3]], [-0.5, 0.5]),
    ("point_difference", "ascending", [], [[1, 2], [0, 1], [4, 0], [2, 3]], [-4.5, 4.5]),
    ("point_difference", "descending", [], [[4, 3], [0, 0], [2, 4], [3, 1]], [1.5, -1.5]),
    ("total_points", "random", [2, 0, 4, 3], [[4, 2], [2, 1], [3, 4], [1, 0]], [8, 7]),
    ("total_points", "ascending", [], [[4, 3], [2, 1], [1, 0], [0, 2]], [6, 9]),
    ("total_points", "descending", [], [[0, 4], [3, 3], [1, 0], [2, 1]], [6, 5]),
    ("win_loss", "random", [0, 3, 4, 2], [[0, 4, 3], [2, 1, 4], [3, 2, 1], [1, 3, 0]], [1, -0.5, -0.5]),
    ("win_loss", "ascending", [], [[3, 4, 2], [1, 1, 0], [4, 2, 1], [0, 3, 3]], [-0.5, -0.5, 1]),
    ("win_loss", "descending", [], [[2, 3, 0], [0, 1, 2], [1, 4, 4], [3, 0, 1]], [-0.5, 1, -0.5]),
    ("point_difference", "random", [1, 4, 0, 2], [[4, 4, 0], [0, 2, 1], [3, 0, 2], [1, 3, 3]], [-7 / 3, 5 / 3, 2 / 3]),
    ("point_difference", "ascending", [], [[0, 0, 4], [4, 1, 2], [1, 2, 0], [3, 4, 3]], [-3, 7, -4]),
    ("total_points", "random", [4, 1, 0, 2], [[1, 1, 0], [2, 3, 3], [4, 2, 4], [0, 4, 2]], [4, 3, 0]),
    ("total_points", "descending", [], [[2, 0, 4], [3, 2, 1], [1, 3, 3], [4, 4, 0]], [4, 0, 6]),
]  # fmt: skip


def put_prize(batch, prize):
    """Turn up this prize instead of the one drawn."""
    states = batch.records().copy()
    states["prizes"] |= 1 << states["prize"]
    states["prizes"] &= ~(1 << prize)
    states["prize"] = prize
    batch.set_state(np.asarray(states))


@pytest.mark.parametrize(("returns", "prizes", "drawn", "bids", "wanted"), OPENSPIEL)
def test_games_have_openspiels_returns(returns, prizes, drawn, bids, wanted):
    seats = len(wanted)
    batch = mlbits.make_batch(ID, 1, cards=5, seats=seats, prizes=prizes, returns=returns, autoreset="disabled")
    for k, bid in enumerate(bids):
        if drawn:
            put_prize(batch, drawn[k])
        step = batch.step(torch.tensor([bid]))
        assert bool(step.terminated[0]) == (k == 3)
        if k < 3:
            assert not step.reward.any()
    assert step.reward[0].tolist() == pytest.approx(wanted, abs=1e-6)


def test_a_game_by_hand():
    batch = mlbits.make_batch(ID, 1, cards=5, prizes="descending", autoreset="disabled")
    full, hand = batch.obs[0].numpy(), [1] * 5
    # Own hand, the other's, points, the prize of 5, those of 1 to 4 to come.
    assert full.tolist() == [[*hand, *hand, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 0]] * 2
    obs = batch.step(torch.tensor([[0, 1]])).obs[0].numpy()
    mine, theirs, prize, to_come = [0, 1, 1, 1, 1], [1, 0, 1, 1, 1], [0, 0, 0, 1, 0], [1, 1, 1, 0, 0]
    assert np.allclose(obs[0], [*mine, *theirs, 0, 1 / 3, *prize, *to_come])
    assert np.allclose(obs[1], [*theirs, *mine, 1 / 3, 0, *prize, *to_come])
    assert batch.legal_mask[0].tolist() == [[False, True, True, True, True], [True, False, True, True, True]]
    with pytest.raises(IllegalActionError, match=r"seat 0 in Goofspiel: got 0; wanted one of \[1, 2, 3, 4\]"):
        batch.step(torch.tensor([[0, 2]]))
    batch.step(torch.tensor([[1, 0]]))
    batch.step(torch.tensor([[2, 2]]))  # a tie: no one gets the prize of 3
    step = batch.step(torch.tensor([[3, 4]]))  # and then the last cards for the prize of 1
    assert step.reward[0].tolist() == [-1, 1]
    assert np.allclose(step.obs[0, 0], [*[0] * 10, 5 / 15, 7 / 15, *[0] * 10])


def test_bids_may_stay_hidden():
    batches = [mlbits.make_batch(ID, 1, cards=5, seats=3, prizes="ascending", observation="winners") for _ in range(2)]
    for batch, bids in zip(batches, ([0, 2, 3], [0, 1, 2]), strict=True):
        batch.step(torch.tensor([bids]))
    seen = batches[0].obs[0].numpy()
    hand, points, prize, to_come = [0, 1, 1, 1, 1], [0, 0, 1 / 15], [0, 1, 0, 0, 0], [0, 0, 1, 1, 1]
    assert np.allclose(seen[0], [*hand, *points, *prize, *to_come, *[0] * 10, 1, 0, 0, 0, 0])
    assert np.allclose(seen[2][5:8], [1 / 15, 0, 0])
    assert np.allclose(seen[2][-15:], [1, 0, 0, 0, 0, *[0] * 10])
    assert np.array_equal(seen[0], batches[1].obs[0, 0])  # the same winner by other bids
    full = [mlbits.make_batch(ID, 1, cards=5, seats=3, prizes="ascending") for _ in range(2)]
    for batch, bids in zip(full, ([0, 2, 3], [0, 1, 2]), strict=True):
        batch.step(torch.tensor([bids]))
    assert not torch.equal(full[0].obs[0, 0], full[1].obs[0, 0])


@pytest.mark.parametrize("observation", ["full", "winners"])
def test_every_episode_begins_in_the_same_way(observation):
    batch = mlbits.make_batch(ID, 4, cards=4, seats=3, prizes="ascending", observation=observation, seed=2)
    first = batch.obs.clone()
    for _ in range(3):
        assert not batch.step(batch.sample_actions()).truncated.any()
    assert torch.equal(batch.obs, first)


@pytest.mark.parametrize(("prizes", "wanted"), [("ascending", [0, 1, 2, 3]), ("descending", [4, 3, 2, 1])])
def test_prizes_in_order(prizes, wanted):
    batch = mlbits.make_batch(ID, 1, cards=5, prizes=prizes)
    seen = []
    for _ in range(4):
        seen.append(int(batch.records()["prize"][0]))
        batch.step(batch.sample_actions())
    assert seen == wanted


def test_random_prizes_come_in_every_order_equally_often():
    copies = 24_000
    batch = mlbits.make_batch(ID, copies, cards=5, seed=5, threads=1)
    orders = []
    for _ in range(4):
        orders.append(batch.records()["prize"].tolist())
        batch.step(batch.sample_actions())
    counts = Counter(zip(*orders, strict=True))
    assert len(counts) == 120
    assert max(abs(count - 200) for count in counts.values()) < 5 * np.sqrt(200)


@pytest.mark.parametrize(("cards", "seats"), [(13, 2), pytest.param(32, 3, marks=pytest.mark.slow)])
def test_random_games_use_each_card_and_each_prize_once(cards, seats):
    batch = mlbits.make_batch(ID, 50, cards=cards, seats=seats, returns="total_points", autoreset="disabled", seed=6)
    for k in range(cards - 1):
        assert (batch.legal_mask.sum(-1) == cards - k).all()
        assert (np.bitwise_count(batch.records()["prizes"].astype(np.uint64)) == cards - k - 1).all()
        assert batch.obs[0, 0].numpy() in batch.observation_space
        step = batch.step(batch.sample_actions())
    assert bool(step.terminated.all())
    records = batch.records()
    assert not records["hand"].any()
    won = records["won"][:, :seats]
    assert (np.bitwise_or.reduce(won, 1) == won.sum(1)).all()  # no prize twice
    points = [[sum(k + 1 for k in range(cards) if int(mask) >> k & 1) for mask in row] for row in won]
    assert step.reward.tolist() == points


def test_the_pictures():
    batch = mlbits.make_batch(ID, 1, cards=5, prizes="ascending", autoreset="disabled")
    line = "holds 1 2 3 4 5\n"
    assert batch.render("ansi") == f"prize 1, still to come: 2 3 4 5\nseat 0: 0 points, {line}seat 1: 0 points, {line}"
    before = batch.render()
    batch.step(torch.tensor([[1, 0]]))
    assert batch.render("ansi") == (
        "prize 2, still to come: 3 4 5\n"
        "seat 0: 1 points, bid 2, holds 1 3 4 5\nseat 1: 0 points, bid 1, holds 2 3 4 5\n"
    )
    assert (batch.render() != before).any()
    for bids in ([0, 1], [2, 2], [3, 4]):
        batch.step(torch.tensor([bids]))
    assert batch.render("ansi").startswith("over, still to come: none\nseat 0: 6 points, bid 5, holds nothing\n")
    game = mlbits.make_game(ID, cards=32, seats=10)
    state = np.zeros(1, game.state_dtype).view(np.recarray)[0]
    assert game.draw(state, game.params.view(np.recarray)[0]).shape[1] < 4000


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cards": 1}, "cards: got 1; wanted an integer from 2 to 32"),
        ({"cards": 33}, "cards: got 33"),
        ({"cards": True}, "cards: got True"),
        ({"seats": 1}, "seats: got 1; wanted an integer from 2 to 10"),
        ({"prizes": "shuffled"}, "prizes: got 'shuffled'; wanted one of 'random', 'ascending', 'descending'"),
        ({"returns": "points"}, "returns: got 'points'; wanted one of 'win_loss'"),
        ({"observation": "none"}, "observation: got 'none'; wanted one of 'full', 'winners'"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(GameError, match=message):
        mlbits.make_game(ID, **settings)
