"""Action spaces whose ``sample()`` draws only actions that are legal now, for Gymnasium's and PettingZoo's doors.

Random play, exploration that samples the action space (epsilon-greedy DQN) and Gymnasium's own checkers then need not
know about masks. These spaces equal the plain ones, and ``sample(mask=...)`` works as in Gymnasium.
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
    return np.where(mask, random.random(mask.shape), -1.0).argmax(-1)  # -1, because a legal draw may be exactly 0


class LegalDiscrete(spaces.Discrete):
    """Discrete(n) with a live mask bool [n]."""

    def __init__(self, n: int, mask: NDArray[np.bool_]) -> None:
        super().__init__(n)
        self._legal = mask

    def sample(self, mask: Any = None, probability: Any = None) -> np.int64:
        """Sample an action that is legal now, or by Gymnasium's mask or probabilities if given."""
        if mask is not None or probability is not None:
            return super().sample(mask, probability)
        return np.int64(_draw(self.np_random, self._legal))

    def __repr__(self) -> str:
        return f"Discrete({self.n})"


class LegalMultiDiscrete(spaces.MultiDiscrete):
    """MultiDiscrete(nvec) with live masks: the driver's flat bool [..., sum of one row's nvec]."""

    def __init__(self, nvec: NDArray[np.int64], parts: tuple[int, ...], mask: NDArray[np.bool_]) -> None:
        super().__init__(nvec)
        self._parts, self._legal = parts, mask

    def sample(self, mask: Any = None, probability: Any = None) -> NDArray[np.int64]:
        """Sample actions that are legal now, or by Gymnasium's masks or probabilities if given."""
        if mask is not None or probability is not None:
            return super().sample(mask, probability)
        split = np.split(self._legal, np.cumsum(self._parts)[:-1], axis=-1)
        drawn = np.stack([_draw(self.np_random, part) for part in split], -1)
        return drawn.reshape(self.nvec.shape).astype(self.dtype)


def watch_mask(space: Any, mask: NDArray[np.bool_]) -> None:
    """Make a space of this module use another mask; other spaces are left unchanged."""
    if isinstance(space, (LegalDiscrete, LegalMultiDiscrete)):
        space._legal = mask


def legal_action_space(game: Game, mask: NDArray[np.bool_]) -> Any:
    """The action space of one copy; the game's own if it has no masks.

    Args:
        game: the game.
        mask: bool [A], overwritten by every step.
    """
    if not game.masked:
        return game.action_space
    if isinstance(game.action_space, spaces.Discrete):
        return LegalDiscrete(int(game.action_space.n), mask)
    return LegalMultiDiscrete(np.asarray(game.action.nvec), game.action.nvec, mask)


def legal_batch_space(game: Game, mask: NDArray[np.bool_], num_envs: int) -> Any:
    """The action space of B copies; Gymnasium's batched space if the game has no masks.

    Args:
        game: the game.
        mask: bool [B, A], overwritten by every step.
        num_envs: number of copies B.
    """
    if not game.masked:
        return batch_space(game.action_space, num_envs)
    nvec = np.broadcast_to(np.asarray(game.action.nvec), (num_envs, len(game.action.nvec)))
    return LegalMultiDiscrete(nvec[:, 0] if game.action.kind == "discrete" else nvec, game.action.nvec, mask)
