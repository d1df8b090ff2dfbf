"""All kinds of levels by name: gridworlds of CollectObjects, and the five delayed chains.

Example:
    >>> kind = level_kind("small")
    >>> records = kind.records(np.arange(3, dtype=np.uint64))  # the parameters of levels 0, 1 and 2
    >>> records["rows"].tolist(), int(kind.game.action_space.n), kind.lifetime
    ([5, 5, 4], 5, 250)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mlbits.envs.core.errors import GameError, UnknownIdError
from mlbits.envs.core.game import Game
from mlbits.envs.delayed_chain import delayed_chain
from mlbits.envs.levels.collect_objects import HELD_OUT, KINDS, NUM_LEVELS, collect_objects, records_of
from mlbits.envs.levels.distributions import DISTRIBUTIONS
from mlbits.envs.levels.layouts import LAYOUTS

LIFETIME, SCATTERED_LIFETIME = 2_500, 25_000  # updates of 20 steps of 64 copies: 3 and 30 million steps, rounded
CHAINS: dict[str, dict[str, Any]] = {
    "chain_short": {"length": (5, 30)},
    "chain_short_noisy": {"length": (5, 30), "noisy": True},
    "chain_long": {"length": (5, 50)},
    "chain_long_noisy": {"length": (5, 50), "noisy": True},
    "chain_distraction": {"length": (5, 30), "observation": "distraction"},
}
NAMES = (*KINDS, *CHAINS)


@dataclass(frozen=True)
class LevelKind:
    """One kind of level.

    Attributes:
        name: its name.
        game: the game of its level 0; all levels share its spaces, sizes and rules.
        records: parameters [N] of the levels with the numbers uint64 [N].
        lifetime: updates of 20 steps that an agent has in a level.
    """

    name: str
    game: Game
    records: Callable[[NDArray[np.uint64]], NDArray[Any]]
    lifetime: int

    @property
    def num_states(self) -> int | None:
        """The size of index observations; None for other observations."""
        space = self.game.observation_space
        return int(space.n) if isinstance(space, spaces.Discrete) else None

    @property
    def num_actions(self) -> int:
        """The number of actions."""
        return int(self.game.action.nvec[0])

    def level(self, number: int) -> Game:
        """The game of one level, for exact models of it."""
        return replace(self.game, params=self.records(checked_numbers([number])))


def level_kind(name: str, *, moves: int | None = None, observation: str | None = None) -> LevelKind:
    """A kind of level by name.

    Args:
        name: "small", "medium" and the others of ``NAMES``.
        moves: 5, 9 or 18 actions in a gridworld; None: its usual ones.
        observation: "index" or "planes" of a gridworld; None: its usual one.

    Raises:
        UnknownIdError: if there is no such kind.
        GameError: if a setting does not fit.
    """
    if name not in NAMES:
        raise UnknownIdError("kind of level", name, NAMES, "levels")
    if name in CHAINS:
        for setting, value in (("moves", moves), ("observation", observation)):
            if value is not None:
                raise GameError(f"{setting}: got {value!r} for {name!r}; wanted a gridworld, or None")

        def chains(numbers: NDArray[np.uint64]) -> NDArray[Any]:
            return np.concatenate([delayed_chain(**CHAINS[name], instance_seed=int(n)).params for n in numbers])

        return LevelKind(name, delayed_chain(**CHAINS[name]), chains, LIFETIME)
    game = collect_objects(name, moves=moves, observation=observation)  # type: ignore[arg-type]
    if name in DISTRIBUTIONS:
        lifetime = DISTRIBUTIONS[name].lifetime
    else:
        lifetime = SCATTERED_LIFETIME if LAYOUTS[name].scattered else LIFETIME
    actions = int(game.action.nvec[0])
    return LevelKind(name, game, lambda numbers: records_of(name, numbers, actions), lifetime)


def checked_numbers(numbers: Any, split: str | None = None) -> NDArray[np.uint64]:
    """Numbers of levels as uint64 [N].

    Args:
        numbers: integers.
        split: "train" or "held-out", to which all must belong; None allows both.

    Raises:
        GameError: naming the first that is no number of a level, or belongs to the other split.
    """
    low, high = (0, NUM_LEVELS) if split is None else split_range(split)
    array = np.asarray(numbers)
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu":
        raise GameError(f"numbers: got {numbers!r}; wanted one or more integers")
    wrong = (array < low) | (array >= high)
    if wrong.any():
        place = int(np.argmax(wrong))
        of = "" if split is None else f" of the {split} levels"
        raise GameError(f"numbers[{place}]: got {int(array[place])}; wanted a number{of}, {low} to {high - 1}")
    return array.astype(np.uint64)


def split_range(split: str) -> tuple[int, int]:
    """The first number of a split, and the first after it.

    Raises:
        GameError: if there is no such split.
    """
    ranges = {"train": (0, HELD_OUT), "held-out": (HELD_OUT, NUM_LEVELS)}
    if split not in ranges:
        raise GameError(f"split: got {split!r}; wanted 'train' or 'held-out'")
    return ranges[split]
