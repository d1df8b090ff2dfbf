"""Blotto: the order of the actions, OpenSpiel's returns, the value of uniform play, and bad settings."""

import itertools
import math

import numpy as np
import pytest
import torch

import mlbits
from mlbits.envs.blotto import blotto, divisions
from mlbits.envs.core.errors import GameError
from mlbits.envs.exact.normal_form import payoff_tensor

ID = "mlbits/Blotto-v0"
# The returns of OpenSpiel's blotto(coins=3, fields=2, players=3) by the three players' actions.
THREE_PLAYERS = {
    (0, 0, 0): (0, 0, 0), (0, 0, 1): (-0.5, -0.5, 1), (0, 1, 0): (-0.5, 1, -0.5), (0, 1, 1): (1, -0.5, -0.5),
    (0, 1, 2): (0.5, -1, 0.5), (0, 2, 1): (0.5, 0.5, -1), (0, 2, 2): (1, -0.5, -0.5), (0, 3, 1): (0.5, 0.5, -1),
    (1, 0, 2): (-1, 0.5, 0.5), (1, 1, 1): (0, 0, 0), (1, 2, 0): (-1, 0.5, 0.5), (1, 3, 2): (0.5, 0.5, -1),
    (2, 0, 2): (-0.5, 1, -0.5), (2, 3, 0): (-1, 0.5, 0.5), (3, 0, 3): (-0.5, 1, -0.5), (3, 2, 1): (0.5, -1, 0.5),
}  # fmt: skip


def returns_by_hand(allocations):
    """The rules once more, on lists."""
    fields = [0] * len(allocations)
    for coins in zip(*allocations, strict=True):
        if coins.count(max(coins)) == 1:
            fields[coins.index(max(coins))] += 1
    winners = fields.count(max(fields))
    if winners == len(fields):
        return [0.0] * winners
    return [1 / winners if won == max(fields) else -1 / (len(fields) - winners) for won in fields]


def test_the_divisions_are_all_and_in_lexicographic_order():
    for coins, fields in ((5, 3), (10, 3), (1, 2), (4, 5), (7, 2)):
        wanted = [row for row in itertools.product(range(coins + 1), repeat=fields) if sum(row) == coins]
        assert divisions(coins, fields).tolist() == [list(row) for row in wanted]
        assert len(wanted) == math.comb(coins + fields - 1, fields - 1) == blotto(coins, fields).action_space.n


def test_three_players_get_openspiels_returns():
    batch = mlbits.make_batch(ID, len(THREE_PLAYERS), coins=3, fields=2, seats=3)
    for turn in (1, -1):  # and the copy's next episode, with other actions, is not affected
        step = batch.step(torch.tensor(list(THREE_PLAYERS)[::turn]))
        assert step.reward.tolist() == [list(returns) for returns in THREE_PLAYERS.values()][::turn]
        assert bool(step.terminated.all())


@pytest.mark.parametrize(("coins", "fields", "seats"), [(5, 3, 2), (6, 3, 5)])
def test_random_games_agree_with_the_rules_on_lists(coins, fields, seats):
    batch = mlbits.make_batch(ID, 400, coins=coins, fields=fields, seats=seats, seed=1)
    table, actions = divisions(coins, fields), batch.sample_actions()
    reward = batch.step(actions).reward.numpy()
    for joint, got in zip(actions.tolist(), reward, strict=True):
        assert np.allclose(got, returns_by_hand(table[joint].tolist()), atol=1e-6)
    assert np.allclose(reward.sum(1), 0, atol=1e-6)


@pytest.mark.parametrize(("coins", "uniform"), [(10, 0.318), (5, 0.286)])
def test_uniform_play_has_its_known_exploitability(coins, uniform):
    payoffs = payoff_tensor(blotto(coins, 3))
    assert np.array_equal(payoffs[0], -payoffs[1])
    assert np.array_equal(payoffs[1], payoffs[0].T)
    assert payoffs[0].mean(1).max() == pytest.approx(uniform, abs=5e-4)


@pytest.mark.parametrize("coins", [5, 10])
def test_pure_best_responses_cycle(coins):
    payoffs, action, seen = payoff_tensor(blotto(coins, 3))[0], 0, []
    for _ in range(200):
        assert payoffs[:, action].max() == 1  # every pure strategy is fully exploitable
        action = int(payoffs[:, action].argmax())
        seen.append(action)
    assert len(set(seen[100:])) == 3
    assert seen[100:-3] == seen[103:]


def test_nothing_is_observed():
    batch = mlbits.make_batch(ID, 2, coins=3, fields=2, seats=3)
    assert batch.obs.tolist() == [[0, 0, 0]] * 2
    assert batch.legal_mask is None


def test_the_pictures():
    batch = mlbits.make_batch(ID, 1, coins=5, fields=3, autoreset="disabled")
    assert batch.render("ansi") == "5 coins, 3 fields, 2 players\n"
    before = batch.render()
    batch.step(torch.tensor([[2, 20]]))
    assert batch.render("ansi") == "5 coins, 3 fields, 2 players\nseat 0: 0 2 3  won 2\nseat 1: 5 0 0  won 1\n"
    assert (batch.render() != before).any()
    for settings in ({"coins": 3, "fields": 9, "seats": 10}, {"coins": 1000, "fields": 2}):
        game = blotto(**settings)
        state = np.zeros(1, game.state_dtype).view(np.recarray)[0]  # all players have put all coins on the last field
        assert game.draw(state, game.params.view(np.recarray)[0]).shape[1] < 4000


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"coins": 0}, "coins: got 0; wanted an integer from 1 to 1000"),
        ({"coins": 2.5}, "coins: got 2.5"),
        ({"fields": 1}, "fields: got 1; wanted an integer from 2 to 20"),
        ({"seats": 1}, "seats: got 1; wanted an integer from 2 to 10"),
        ({"seats": 11}, "seats: got 11"),
        ({"coins": 30, "fields": 6}, "coins, fields: got 30, 6: 324632 divisions; wanted at most 100000"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(GameError, match=message):
        mlbits.make_game(ID, **settings)
