"""The normal form of one-shot games: what every joint action pays, by playing all of them under the game's own rules.

Example:
    >>> import mlbits
    >>> from mlbits.envs.exact.normal_form import payoff_tensor
    >>> payoff_tensor(mlbits.make_game("mlbits/Blotto-v0", coins=10, fields=3)).shape
    (2, 66, 66)
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from mlbits.envs.core.errors import GameError
from mlbits.envs.core.game import Game
from mlbits.envs.engine.batch import GameBatch

MAX_JOINT = 2**24
_COPIES = 2**16


def payoff_tensor(game: Game) -> NDArray[np.float64]:
    """What each seat gets for every joint action of a game of one step without chance.

    Args:
        game: the game; its seats act at once, by Discrete actions.

    Returns:
        float64 [n, A_1, ..., A_n], where A_i counts the legal actions of seat i, in their order. The rules pay in
        float32, so a payoff like 1/3 is as exact as that.

    Raises:
        GameError: if the actions are no Discrete ones, seats take turns, there are more than 2**24 joint actions, the
            game draws at random, or it goes on after one step.
    """
    if game.action.kind != "discrete" or game.acts is not None:
        raise GameError(f"game: got {game.name}, of {game.action_space}; wanted Discrete actions of all seats at once")
    batch = GameBatch(game, 1, autoreset="disabled")
    every = list(range(game.action.nvec[0]))
    legal = [every if batch.legal_mask is None else row.nonzero()[:, 0].tolist() for row in _seats(batch)]
    counts = [len(actions) for actions in legal]
    total = math.prod(counts)
    if total > MAX_JOINT:
        raise GameError(f"game: {game.name} has {total} joint actions; wanted at most {MAX_JOINT}")
    size = min(total, _COPIES)
    batch = GameBatch(game, size, autoreset="disabled")
    payoffs = np.empty((total, game.seats))
    for start in range(0, total, size):
        # The last part is filled up with joint actions that were played already.
        joint = np.unravel_index(np.arange(start, start + size) % total, counts)
        batch.reset()
        before = batch.records()["rng_counter"].copy()
        step = batch.step(np.stack([np.asarray(actions)[at] for actions, at in zip(legal, joint, strict=True)], -1))
        if before.any() or batch.records()["rng_counter"].any():
            raise GameError(f"game: {game.name} draws at random; wanted a game without chance")
        if not bool((step.terminated | step.truncated).all()):
            raise GameError(f"game: {game.name} goes on after one step; wanted a game of one step")
        part = payoffs[start : start + size]
        part[:] = step.reward[: len(part)].double().numpy()
    return np.ascontiguousarray(payoffs.T).reshape(game.seats, *counts)


def _seats(batch: GameBatch) -> list[torch.Tensor]:
    """Each seat's mask, [A]; of a game without masks something for each seat."""
    if batch.legal_mask is None:
        return [torch.empty(0)] * batch.num_seats
    return list(batch.legal_mask[0])
