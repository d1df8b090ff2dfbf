"""FuzzyBear: every way through it by hand, the bears' frequency, exact values of four policies, and bad settings."""

import numpy as np
import pytest
import torch

import mlbits
from mlbits.agents.planning.dynamic_programming import backward_induction
from mlbits.envs.core.errors import GameError
from mlbits.envs.exact.transition_table import read_table

ID = "mlbits/FuzzyBear-v0"


def step(batch, action):
    """Observation, reward, terminated and truncated of copy 0."""
    found = batch.step(torch.full((batch.num_envs,), action))
    return int(found.obs[0, 0]), float(found.reward[0, 0]), bool(found.terminated[0]), bool(found.truncated[0])


@pytest.mark.parametrize(("teddy", "action", "reward"), [(1.0, 1, 1.0), (1.0, 0, 0.0), (0.0, 1, -0.5), (0.0, 0, 0.0)])
def test_every_end_of_the_forest(teddy, action, reward):
    batch = mlbits.make_batch(ID, 1, teddy=teddy, autoreset="disabled")
    bear = 1 if teddy == 1.0 else 2
    assert int(batch.obs[0, 0]) == 0
    assert step(batch, 1) == (bear, 0.0, False, False)
    assert step(batch, action) == (bear, reward, True, False)


def test_going_home_pays_at_once():
    batch = mlbits.make_batch(ID, 1, autoreset="disabled")
    seen, reward, terminated, truncated = step(batch, 0)
    assert (seen, terminated, truncated) == (0, True, False)
    assert reward == pytest.approx(0.6)
    assert batch.render("ansi") == "at home\n"


@pytest.mark.parametrize("teddy", [0.5, 0.8])
def test_bears_are_teddies_with_the_given_probability(teddy):
    batch = mlbits.make_batch(ID, 20_000, teddy=teddy, seed=1)
    seen = batch.step(torch.ones(20_000, dtype=torch.int64)).obs[:, 0]
    assert abs(float((seen == 1).float().mean()) - teddy) < 5 * 0.5 / np.sqrt(20_000)
    assert set(seen.tolist()) == {1, 2}


def test_the_exact_values_are_those_of_the_paper():
    table = read_table(mlbits.make_game(ID))
    solution = backward_induction(table, horizon=2)
    assert table.num_states == 3
    assert float(table.start @ solution.value) == pytest.approx(0.6)
    enter = float(table.start @ solution.action_value[:, 1])
    assert enter == pytest.approx(0.5)  # the forest, hugging teddies alone
    worth_it = read_table(mlbits.make_game(ID, teddy=0.7))
    assert float(worth_it.start @ backward_induction(worth_it, horizon=2).value) == pytest.approx(0.7)


@pytest.mark.parametrize("teddy", [-0.1, 1.5, float("nan"), "many"])
def test_bad_settings_are_refused(teddy):
    with pytest.raises(GameError, match="teddy: got"):
        mlbits.make_game(ID, teddy=teddy)
