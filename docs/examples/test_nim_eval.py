"""The evaluation of Nim: its measurement on known players, and that training meets the target."""

from __future__ import annotations

import nim_eval
import pytest
import torch

import mlbits
from mlbits.agents import agent_entry
from mlbits.agents.bots.random_bot import RandomAgent
from mlbits.evals import eval_entry


def test_random_moves_against_random_moves_are_even() -> None:
    """With either seat in half of the games, neither side has an advantage."""
    batch = mlbits.make_batch(nim_eval.ENV, 1)
    player = RandomAgent(batch.observation_space, batch.action_space)
    mean, (low, high) = nim_eval.return_against_random(player, seed=3)
    assert low < 0 < high
    assert mean == pytest.approx(0, abs=0.1)


def test_the_perfect_player_hardly_ever_loses() -> None:
    """Leaving a multiple of four always wins, once random moves have made a mistake."""
    batch, entry = mlbits.make_batch(nim_eval.ENV, 1), agent_entry("cross_entropy")
    spaces = batch.observation_space, batch.action_space
    player = entry.make(entry.config_class()(), *spaces, seed=0, device="cpu")
    take = torch.arange(21) % 4
    player.table.copy_(torch.eye(3)[(take - 1).clamp(min=0)])
    mean, _ = nim_eval.return_against_random(player, seed=3)
    assert mean > 0.95


def test_training_meets_the_target() -> None:
    """What the command ``reproduce nim --quick`` does."""
    result = eval_entry("nim").load()(quick=True)
    assert result["met"]
    assert len(result["rows"]) == 1
