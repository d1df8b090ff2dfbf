"""Normal forms of one-shot games: the payoffs of every joint action, found by playing each under the game's own rules.

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
    """The payoff of each seat for every joint action of a one-step game without chance.

    Args:
        game: the game; its seats act simultaneously, with Discrete actions.

    Returns:
        float64 [n, A_1, ..., A_n], where A_i is the number of legal actions of seat i, in their order. The rules pay in
        float32, so a payoff like 1/3 has float32 precision.

    Raises:
        GameError: if the actions are not Discrete, seats take turns, there are more than 2**24 joint actions, the
            game draws random numbers, or it continues after one step.
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
        # The last batch is padded with joint actions that were played already.
        joint = np.unravel_index(np.arange(start, start + size) % total, counts)
        batch.reset()
        before = batch.records()["rng_counter"].copy()
        step = batch.step(np.stack([np.asarray(actions)[at] for actions, at in zip(legal, joint, strict=True)], -1))
        if before.any() or batch.records()["rng_counter"].any():
            raise GameError(f"game: {game.name} draws random numbers; wanted a game without chance")
        if not bool((step.terminated | step.truncated).all()):
            raise GameError(f"game: {game.name} continues after one step; wanted a game of one step")
        part = payoffs[start : start + size]
        part[:] = step.reward[: len(part)].double().numpy()
    return np.ascontiguousarray(payoffs.T).reshape(game.seats, *counts)


def _seats(batch: GameBatch) -> list[torch.Tensor]:
    """Each seat's mask [A]; for a game without masks an empty tensor per seat."""
    if batch.legal_mask is None:
        return [torch.empty(0)] * batch.num_seats
    return list(batch.legal_mask[0])
