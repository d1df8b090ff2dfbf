"""Action spaces of Gymnasium's doors whose ``sample()`` draws legal actions alone, by the copies' present masks.

Random play, exploration that draws from the action space (DQN's epsilon) and Gymnasium's own checkers then need to know
nothing of masks. They equal the plain spaces, and ``sample(mask=...)`` is Gymnasium's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from mlbits.envs.core.game import Game


def _draw(random: np.random.Generator, mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For masks [..., n], indices [...] drawn uniformly from the True ones."""
    return np.where(mask, random.random(mask.shape), -1.0).argmax(-1)  # not times the mask: a draw may be 0


class LegalDiscrete(spaces.Discrete):
    """Discrete(n) over a live mask bool [n]."""

    def __init__(self, n: int, mask: NDArray[np.bool_]) -> None:
        super().__init__(n)
        self._legal = mask

    def sample(self, mask: Any = None, probability: Any = None) -> np.int64:
        """An action: legal now, or by Gymnasium's mask or probabilities where they are given."""
        if mask is not None or probability is not None:
            return super().sample(mask, probability)
        return np.int64(_draw(self.np_random, self._legal))

    def __repr__(self) -> str:
        return f"Discrete({self.n})"


class LegalMultiDiscrete(spaces.MultiDiscrete):
    """MultiDiscrete(nvec) over live masks: the flat bool [..., sum of one row's nvec] that the driver writes."""

    def __init__(self, nvec: NDArray[np.int64], parts: tuple[int, ...], mask: NDArray[np.bool_]) -> None:
        super().__init__(nvec)
        self._parts, self._legal = parts, mask

    def sample(self, mask: Any = None, probability: Any = None) -> NDArray[np.int64]:
        """Actions: legal now, or by Gymnasium's masks or probabilities where they are given."""
        if mask is not None or probability is not None:
            return super().sample(mask, probability)
        split = np.split(self._legal, np.cumsum(self._parts)[:-1], axis=-1)
        drawn = np.stack([_draw(self.np_random, part) for part in split], -1)
        return drawn.reshape(self.nvec.shape).astype(self.dtype)


def watch_mask(space: Any, mask: NDArray[np.bool_]) -> None:
    """Let a space of this module draw by another mask; nothing happens to other spaces."""
    if isinstance(space, (LegalDiscrete, LegalMultiDiscrete)):
        space._legal = mask


def legal_action_space(game: Game, mask: NDArray[np.bool_]) -> Any:
    """The action space of one copy; the game's own where it has no masks.

    Args:
        game: the game.
        mask: bool [A], written over by every step.
    """
    if not game.masked:
        return game.action_space
    if isinstance(game.action_space, spaces.Discrete):
        return LegalDiscrete(int(game.action_space.n), mask)
    return LegalMultiDiscrete(np.asarray(game.action.nvec), game.action.nvec, mask)


def legal_batch_space(game: Game, mask: NDArray[np.bool_], num_envs: int) -> Any:
    """The action space of B copies; Gymnasium's batched space where the game has no masks.

    Args:
        game: the game.
        mask: bool [B, A], written over by every step.
        num_envs: number of copies B.
    """
    if not game.masked:
        return batch_space(game.action_space, num_envs)
    nvec = np.broadcast_to(np.asarray(game.action.nvec), (num_envs, len(game.action.nvec)))
    return LegalMultiDiscrete(nvec[:, 0] if game.action.kind == "discrete" else nvec, game.action.nvec, mask)
