"""Nim: numbers worked out by hand, and PettingZoo's own checks."""

from __future__ import annotations

import nim  # noqa: F401  (registers the game; not needed within the suite)
import pettingzoo
import pytest
import torch
from pettingzoo.test import api_test, parallel_api_test

import mlbits
from mlbits.envs.core.errors import GameError, IllegalActionError
from mlbits.envs.engine.batch import GameBatch

ENV = "examples/Nim-v0"


def with_heap(stones: int) -> GameBatch:
    """One game in which player 0 is to move with this heap."""
    batch = mlbits.make_batch(ENV, 1, autoreset="disabled")
    state = batch.records()
    state["stones"], state["turn"] = stones, 0
    batch.set_state(state)
    return batch


def test_taking_the_last_stone_wins() -> None:
    """Five stones: player 0 takes three, player 1 the two that are left; whoever waits can only pass."""
    batch = with_heap(5)
    assert batch.legal_mask[0].tolist() == [[True, True, True], [True, False, False]]
    step = batch.step(torch.tensor([[2, 0]]))
    assert step.obs.tolist() == [[2, 2]]
    assert step.reward.tolist() == [[0, 0]]
    assert not step.terminated
    assert batch.legal_mask[0].tolist() == [[True, False, False], [True, True, False]]
    step = batch.step(torch.tensor([[0, 1]]))
    assert step.reward.tolist() == [[-1, 1]]
    assert step.terminated
    assert not step.truncated


def test_taking_more_stones_than_there_are_is_illegal() -> None:
    """With two stones left, action 2 (three stones) is refused."""
    with pytest.raises(IllegalActionError, match=r"wanted one of \[0, 1\]"):
        with_heap(2).step(torch.tensor([[2, 0]]))


def test_the_range_of_initial_heaps() -> None:
    """Among 1,000 heaps all of 11 to 20 occur, and no others."""
    assert set(mlbits.make_batch(ENV, 1000).obs[:, 0].tolist()) == set(range(11, 21))


def test_settings_out_of_range_are_refused() -> None:
    """The message names the setting."""
    with pytest.raises(GameError, match="most: got 0"):
        mlbits.make_game(ENV, most=0)


def test_pettingzoo_accepts_it() -> None:
    """PettingZoo's own checks, through both doors."""
    parallel_api_test(pettingzoo.make("parallel", ENV), num_cycles=50)
    api_test(pettingzoo.make("aec", ENV), num_cycles=50)
