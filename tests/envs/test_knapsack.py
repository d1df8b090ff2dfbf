"""Knapsack: episodes by hand, the optimum by dynamic programming, availability of items, and bad settings."""

import itertools

import gymnasium as gym
import numpy as np
import pytest
import torch

import mlbits
from mlbits.envs.core.errors import GameError, IllegalActionError

ID = "mlbits/Knapsack-v0"
HAND = {"weights": [2, 3, 5], "values": [3.0, 4.0, 9.0], "capacity": 6, "availability": 1.0}


def dynamic_programming(weights, values, capacity):
    """The textbook 0/1 table: best[c] is the greatest value of the items seen so far within capacity c."""
    best = [0] * (capacity + 1)
    for weight, value in zip(weights, values, strict=True):
        for c in range(capacity, weight - 1, -1):
            best[c] = max(best[c], best[c - weight] + value)
    return best[capacity]


def search(batch, state, memory):
    """The greatest value that can still be packed from a state, by stepping every legal action."""
    batch.set_state(state)
    record = batch.records()[0]
    key = (record["there"].tobytes(), int(record["left"]))
    if record["over"]:
        return 0.0
    if key not in memory:
        memory[key] = 0.0
        for action in np.flatnonzero(batch.legal_mask[0, 0].numpy()):
            batch.set_state(state)
            reward = float(batch.step(torch.tensor([int(action)])).reward[0, 0])
            memory[key] = max(memory[key], reward + search(batch, batch.state(), memory))
    return memory[key]


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_search_by_stepping_finds_the_optimum_of_dynamic_programming(seed):
    batch = mlbits.make_batch(ID, 1, items=5, instance_seed=seed, autoreset="disabled", seed=seed)
    layout, there = batch.game.layout, batch.records()["there"][0][:5] != 0
    optimum = dynamic_programming(
        layout["weights"][there].tolist(), layout["values"][there].tolist(), layout["capacity"]
    )
    found = search(batch, batch.state(), {})
    assert found == optimum
    weights, values = layout["weights"][there], layout["values"][there]
    subsets = itertools.product([0, 1], repeat=len(weights))
    by_hand = max(np.dot(subset, values) for subset in subsets if np.dot(subset, weights) <= layout["capacity"])
    assert found == by_hand


def test_an_episode_by_hand():
    batch = mlbits.make_batch(ID, 1, autoreset="disabled", **HAND)
    assert batch.legal_mask[0, 0].tolist() == [True, True, True]
    third = np.float32([1, 1, 2 / 6, 3 / 9, 1, 3 / 6, 4 / 9, 1, 5 / 6, 1])
    assert np.array_equal(batch.obs[0, 0].numpy(), third)
    step = batch.step(torch.tensor([1]))
    assert float(step.reward[0, 0]) == 4.0
    assert batch.legal_mask[0, 0].tolist() == [True, False, False]  # 3 left: item 2 weighs 5
    assert np.allclose(step.obs[0, 0, [0, 1, 4, 7]], [0.5, 1, 0, 1])
    assert not step.terminated[0]
    with pytest.raises(IllegalActionError, match=r"got 2; wanted one of \[0\]"):
        batch.step(torch.tensor([2]))
    step = batch.step(torch.tensor([0]))
    assert (float(step.reward[0, 0]), bool(step.terminated[0]), bool(step.truncated[0])) == (3.0, True, False)


def test_the_episode_ends_when_the_last_item_is_packed():
    batch = mlbits.make_batch(ID, 1, autoreset="disabled", **{**HAND, "capacity": 11})
    played = [batch.step(torch.tensor([item])) for item in (2, 0)]
    assert not played[-1].terminated[0]
    step = batch.step(torch.tensor([1]))
    assert (float(step.reward[0, 0]), bool(step.terminated[0])) == (4.0, True)


def test_items_are_drawn_with_their_availability_in_every_episode():
    batch = mlbits.make_batch(ID, 20_000, items=5, availability=0.3, seed=1)
    first = batch.records()["there"][:, :5]
    lone = 0.7**5  # no item is drawn, so one is added
    wanted = 0.3 + lone / 5
    assert abs(first.mean() - wanted) < 5 * np.sqrt(0.21 / first.size)
    assert (first.sum(1) >= 1).all()
    batch.reset()
    assert 0.9 < (batch.records()["there"][:, :5] != first).any(1).mean() <= 1


def test_some_fitting_item_is_always_available_and_drawn_uniformly():
    settings = {"weights": [9, 1, 9, 2, 3], "values": [1.0] * 5, "capacity": 3, "availability": 1e-9}
    batch = mlbits.make_batch(ID, 3000, seed=2, **settings)
    there = batch.records()["there"][:, :5]
    assert (there.sum(1) == 1).all()
    assert there[:, [0, 2]].sum() == 0
    assert abs(there[:, [1, 3, 4]].mean(0) - 1 / 3).max() < 5 * np.sqrt(2 / 9 / 3000)
    assert batch.legal_mask.any(-1).all()


def test_the_default_instance_stays_the_same_in_every_version():
    layout = mlbits.make_game(ID).layout
    assert layout["weights"].tolist() == [13, 6, 1, 1, 17, 19, 13, 15, 11, 19]
    assert layout["values"].tolist() == [17, 1, 18, 1, 15, 4, 18, 11, 6, 9]
    assert layout["capacity"] == 57  # half of 115


def test_the_solving_threshold_lies_just_below_the_mean_optimum():
    layout = mlbits.make_game(ID).layout
    weights, values = layout["weights"].tolist(), layout["values"].tolist()
    mean = 0.0
    for subset in itertools.product([0, 1], repeat=10):
        chosen = [i for i in range(10) if subset[i]]
        share = 0.8 ** len(chosen) * 0.2 ** (10 - len(chosen))
        mean += share * dynamic_programming(
            [weights[i] for i in chosen], [values[i] for i in chosen], layout["capacity"]
        )
    threshold = gym.spec(ID).reward_threshold
    assert mean == pytest.approx(65.3, abs=0.05)
    assert 0.97 * mean < threshold < mean


def test_a_heavy_item_keeps_the_observations_within_their_bounds():
    batch = mlbits.make_batch(ID, 1, weights=[50, 1, 2], values=[1, 4, 4], capacity=5, availability=1.0)
    assert np.allclose(batch.obs[0, 0], [0.1, 1, 1, 0.25, 1, 0.02, 1, 1, 0.04, 1])
    assert batch.obs[0, 0].numpy() in batch.observation_space


def test_copies_of_one_batch_may_have_different_instances():
    batch = mlbits.make_batch(ID, 2, items=5, settings_per_copy=[{"instance_seed": s} for s in (0, 1)])
    capacities = [mlbits.make_game(ID, items=5, instance_seed=s).layout["capacity"] for s in (0, 1)]
    assert batch.records()["left"].tolist() == capacities


def test_the_pictures():
    batch = mlbits.make_batch(ID, 1, autoreset="disabled", **HAND)
    batch.step(torch.tensor([1]))
    assert batch.render("ansi") == (
        "capacity left 3 of 6, value packed 4\n"
        "item   0  weight    2  value      3  fits\n"
        "item   1  weight    3  value      4  packed\n"
        "item   2  weight    5  value      9  too heavy\n"
    )
    batch.reset()
    assert batch.render("ansi").startswith("capacity left 6 of 6, value packed 0\n")
    for items in (1, 10, 1000):  # nothing packed, nothing available
        game = mlbits.make_game(ID, items=items)
        state, params = np.zeros(1, game.state_dtype).view(np.recarray)[0], game.params.view(np.recarray)[0]
        assert game.draw(state, params).dtype == np.uint8
        assert "not there" in game.text(state, params)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"items": 0}, "items: got 0; wanted an integer from 1 to 1000"),
        ({"items": -2}, "items: got -2"),
        ({"items": 10**7}, "items: got 10000000"),
        ({"weights": [1, 2], "values": [1.0]}, "values: got 1 entries; wanted 2, the number given by weights"),
        ({"items": 3, "weights": [1, 2]}, "weights: got 2 entries; wanted 3, the number given by items"),
        ({"weights": [1] * 1001}, "length of weights: got 1001"),
        ({"weights": []}, "weights: got an empty list"),
        ({"weights": "12"}, "weights: got '12'; wanted a list of numbers"),
        ({"weights": [1, 0]}, r"weights\[1\]: got 0; wanted a finite number from 1"),
        ({"weights": [1.5]}, r"weights\[0\]: got 1.5; wanted an integer"),
        ({"values": [1.0, float("nan")]}, r"values\[1\]: got nan"),
        ({"values": [0.0]}, r"values\[0\]: got 0.0; wanted a finite number from 0.001 to 1e"),
        ({"values": [-1.0]}, r"values\[0\]: got -1.0"),
        ({"weights": [5, 6], "capacity": 4}, "capacity: got 4; wanted at least 5"),
        ({"capacity": -1}, "capacity: got -1"),
        ({"capacity": 2.5}, "capacity: got 2.5"),
        ({"availability": 0.0}, "availability: got 0; wanted a probability above 0"),
        ({"availability": 1.1}, "availability: got 1.1; wanted a finite number from 0 to 1"),
        ({"availability": float("nan")}, "availability: got nan"),
        ({"instance_seed": -1}, "instance_seed: got -1"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(GameError, match=message):
        mlbits.make_game(ID, **settings)
