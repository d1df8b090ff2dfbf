"""Play board games by the names of moves."""

from __future__ import annotations

from typing import Any

import torch

import mlbits


def action_of(batch: Any, name: str) -> tuple[int, int]:
    """The seat to move, and its action of this name."""
    seat = int(batch.records()["turn"][0])
    return seat, batch.game.layout["moves"][seat].index(name)


def play(game_id: str, moves: str, **settings: Any) -> tuple[Any, Any]:
    """A batch of one copy after moves such as "b2 a1", and the last step; only the last move may end the game."""
    batch = mlbits.make_batch(game_id, 1, autoreset="disabled", **settings)
    step = None
    for name in moves.split():
        assert step is None or not (step.terminated.any() or step.reward.any()), name
        seat, action = action_of(batch, name)
        assert batch.active[0].tolist() == [seat == 0, seat == 1]
        assert batch.legal_mask[0, 1 - seat].nonzero().tolist() == [[0]], "the other seat passes"
        actions = torch.zeros((1, 2), dtype=torch.int64)
        actions[0, seat] = action
        step = batch.step(actions)
        assert not step.truncated.any()
    return batch, step


def result(game_id: str, moves: str, **settings: Any) -> list[float] | None:
    """Both seats' rewards if the moves end the game, else None."""
    _, step = play(game_id, moves, **settings)
    if not step.terminated[0]:
        assert not step.reward.any()
        return None
    return step.reward[0].tolist()
