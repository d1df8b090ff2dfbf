"""DeepSea: the path to the treasure, its cost, the stochastic variant against backward induction, and bad settings."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import mlbits
from mlbits.envs.core.errors import GameError

ID = "mlbits/DeepSea-v0"


def dive(batch, moves):
    """Play "R" and "L" in all copies; returns the return of copy 0 and the flags of the last step."""
    right, total = batch.game.layout["right"], 0.0
    for move in moves:
        state = batch.records()[0]
        there = int(right[state["row"], state["column"]])
        step = batch.step(torch.full((batch.num_envs,), there if move == "R" else 1 - there))
        total += float(step.reward[0, 0])
    return total, bool(step.terminated[0]), bool(step.truncated[0])


def test_only_moving_right_every_time_reaches_the_treasure():
    batch = mlbits.make_batch(ID, 1, size=10)
    assert dive(batch, "R" * 10) == (pytest.approx(0.99), True, False)
    assert batch.game.layout["optimal_return"] == pytest.approx(0.99)
    # Nine moves right and one left, in any order: nine tenths of the cost and no reward.
    for k in range(10):
        assert dive(batch, "R" * k + "L" + "R" * (9 - k)) == (pytest.approx(-0.009), True, False)
    assert dive(batch, "L" * 10) == (0.0, True, False)


def test_moves_and_edges_cell_by_cell():
    batch = mlbits.make_batch(ID, 1, size=4, instance_seed=None, autoreset="disabled", move_cost=0.4)
    seen = [int(batch.obs[0, 0])]
    rewards = []
    for action in (0, 1, 0, 1):  # against the left edge, right, left, right
        step = batch.step(torch.tensor([action]))
        seen.append(int(step.obs[0, 0]))
        rewards.append(round(float(step.reward[0, 0]), 6))
    assert seen == [0, 4, 9, 12, 13]  # row * 4 + column; after the last step the column within the bottom row
    assert rewards == [0, -0.1, 0, -0.1]


def test_the_treasures_cell_has_the_last_index():
    batch = mlbits.make_batch(ID, 1, size=3, instance_seed=None, autoreset="disabled")
    seen = []
    for _ in range(3):  # after the last step the column within the bottom row
        seen.append(int(batch.step(torch.tensor([1])).obs[0, 0]))
    assert seen == [4, 8, 8]


def test_the_one_hot_grid_is_empty_after_the_last_step():
    batch = mlbits.make_batch(ID, 1, size=2, instance_seed=None, observation="one_hot", autoreset="disabled")
    assert batch.obs[0, 0].tolist() == [[1, 0], [0, 0]]
    assert batch.step(torch.tensor([1])).obs[0, 0].tolist() == [[0, 0], [0, 1]]
    assert batch.step(torch.tensor([1])).obs[0, 0].tolist() == [[0, 0], [0, 0]]


def test_the_mapping_depends_on_the_seed_alone():
    first, again, other = (mlbits.make_game(ID, instance_seed=seed).layout["right"] for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert 25 <= np.sum(first != other) <= 75
    assert 25 <= first.sum() <= 75  # 0 is an ordinary seed
    assert mlbits.make_game(ID, instance_seed=None).layout["right"].all()


@pytest.mark.parametrize("size", [2, 5, 10])
def test_the_documented_optimum_of_the_stochastic_variant_is_that_of_backward_induction(size):
    value = np.zeros((size + 1, size))
    for row in reversed(range(size)):
        for column in range(size):
            after = value[row + 1]
            right = (1 - 1 / size) * after[min(column + 1, size - 1)] + after[column] / size
            right += float(column == size - 1) - 0.01 / size
            value[row, column] = max(right, after[max(column - 1, 0)])
    game = mlbits.make_game(ID, size=size, stochastic=True)
    assert game.layout["optimal_return"] == pytest.approx(value[0, 0], abs=1e-12)


def test_noise_and_failing_moves_right_have_their_rates():
    copies, size = 40_000, 4
    batch = mlbits.make_batch(ID, copies, size=size, stochastic=True, instance_seed=None, autoreset="disabled", seed=1)
    right = torch.ones(copies, dtype=torch.int64)
    step = batch.step(right)
    assert torch.all(step.reward == -np.float32(0.01 / 4))
    moved = batch.records()["column"]
    assert abs(moved.mean() - 0.75) < 5 * np.sqrt(0.1875 / copies)
    batch.step(right)
    batch.step(right)
    column = batch.records()["column"]
    reward = batch.step(right).reward[:, 0].numpy()
    in_the_middle = (column > 0) & (column < size - 1)
    assert np.all(reward[in_the_middle] == np.float32(-0.01 / 4))
    treasure = reward[column == size - 1] - 1 + 0.01 / 4
    assert abs(treasure.mean()) < 5 / np.sqrt(len(treasure))
    assert abs(treasure.std() - 1) < 0.05
    assert reward[column == 0].std() > 0.9


def test_gymnasiums_checker_on_one_hot():
    check_env(gym.make(ID, stochastic=True, observation="one_hot").unwrapped)


def test_the_pictures():
    batch = mlbits.make_batch(ID, 1, size=3, instance_seed=None, autoreset="disabled")
    assert batch.render("ansi") == "A  \n.. \n..$\nright is 1 here\n"
    dive(batch, "RRR")
    assert batch.render("ansi") == ".  \n.. \n..$\nthe bottom is reached\n"
    for size in (2, 10, 200):
        game = mlbits.make_game(ID, size=size)
        image = game.draw(np.zeros(1, game.state_dtype).view(np.recarray)[0], game.params.view(np.recarray)[0])
        assert image.dtype == np.uint8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 1}, "size: got 1; wanted an integer from 2 to 200"),
        ({"size": -3}, "size: got -3"),
        ({"size": 4.0}, "size: got 4.0"),
        ({"size": 10**6}, "size: got 1000000"),
        ({"stochastic": 2}, "stochastic: got 2; wanted True or False"),
        ({"move_cost": float("nan")}, "move_cost: got nan"),
        ({"move_cost": -0.1}, "move_cost: got -0.1"),
        ({"instance_seed": -1}, "instance_seed: got -1"),
        ({"instance_seed": "a"}, "instance_seed: got 'a'"),
        ({"observation": "pixels"}, "observation: got 'pixels'; wanted one of 'index', 'one_hot'"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(GameError, match=message):
        mlbits.make_game(ID, **settings)
