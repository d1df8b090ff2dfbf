"""Spaces of datasets as agents see them, and whole arrays of observations and actions converted to them.

The conversions are those of the environments' doors (:mod:`mlbits.envs.doors.gymnasium_ids`), so that an agent trained
on a dataset can be played in its environment: observations of spaces that networks do not take (tuples, nested
dictionaries) are flattened as by Gymnasium's ``FlattenObservation``, float64 becomes float32, Discrete and
MultiDiscrete actions start at 0, MultiBinary actions become MultiDiscrete with two choices each, and actions with
several axes are flattened to one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mlbits.envs.core.errors import GameError, MlbitsError
from mlbits.envs.core.spaces import action_layout, cast_action, observation_layout
from mlbits.envs.doors.gymnasium_batch import single_precision

_Nested = (spaces.Dict, spaces.Tuple)
_ARRAYS = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


class DatasetError(MlbitsError, ValueError):
    """A dataset that is not what it has to be; the message names dataset, episode and field."""


def plain_observation_space(space: gym.Space[Any]) -> gym.Space[Any]:
    """An observation space as agents see it.

    Raises:
        GameError: if agents do not support it, flattened or not.
    """
    if _is_plain(space):
        return single_precision(space)
    if not all(isinstance(part, _ARRAYS) for part in _arrays(space)):
        observation_layout(space)
    flat = single_precision(spaces.flatten_space(space))
    observation_layout(flat)
    return flat


def _is_plain(space: gym.Space[Any]) -> bool:
    try:
        observation_layout(single_precision(space))
    except GameError:
        return False
    return True


def plain_action_space(space: gym.Space[Any]) -> gym.Space[Any]:
    """An action space as agents see it.

    Raises:
        GameError: if agents do not support it.
    """
    plain = space
    if isinstance(space, spaces.Discrete):
        plain = spaces.Discrete(int(space.n))
    elif isinstance(space, spaces.MultiDiscrete):
        plain = spaces.MultiDiscrete(space.nvec.reshape(-1))
    elif isinstance(space, spaces.Box) and len(space.shape) != 1:
        plain = spaces.Box(space.low.reshape(-1), space.high.reshape(-1), dtype=space.dtype.type)
    elif isinstance(space, spaces.MultiBinary):
        plain = spaces.MultiDiscrete(np.full(int(np.prod(space.shape)), 2))
    action_layout(plain)
    return plain


class SpaceConversion:
    """Shapes and dtypes of a dataset's steps, and the conversion of arrays to them.

    Args:
        observation_space: that of the recorded arrays.
        action_space: likewise.
        name: of the dataset, for messages.

    Attributes:
        observation_space: as agents see it.
        action_space: as agents see it.
        keys: those of a Dict observation space, or None.
        obs: dtype, with its shape, of one observation by key (None where there are no keys).
        action: layout of one action.

    Raises:
        DatasetError: if agents do not support a space.
    """

    def __init__(self, observation_space: gym.Space[Any], action_space: gym.Space[Any], name: str) -> None:
        self.name, self._seen, self._played = name, observation_space, action_space
        try:
            self.observation_space = plain_observation_space(observation_space)
            self.action_space = plain_action_space(action_space)
        except GameError as error:
            raise DatasetError(f"{name}: {error}") from None
        layout = observation_layout(self.observation_space)
        self.action = action_layout(self.action_space)
        self.keys = layout.keys
        self.obs: dict[str | None, np.dtype[Any]] = {key: layout.dtype[key] for key in layout.keys or ()}
        if layout.keys is None:
            self.obs = {None: np.dtype((layout.dtype, () if layout.scalar else layout.shape))}
        self._flattens = not _is_plain(observation_space)

    def leaves(self) -> Iterator[tuple[tuple[str | int, ...], np.dtype[Any]]]:
        """The arrays that make up recorded observations: their paths into them, and dtypes with shapes."""
        return _leaves(self._seen, ())

    def observations(self, arrays: dict[tuple[str | int, ...], NDArray[Any]]) -> dict[str | None, NDArray[Any]]:
        """Recorded observations as agents see them.

        Args:
            arrays: [n, ...] by the paths of :meth:`leaves`.

        Returns:
            Arrays [n, ...] by key.

        Raises:
            ValueError: for an index that is not in its space; says which.
        """
        if self.keys is not None:
            return {key: arrays[key,].astype(self.obs[key].base, copy=False) for key in self.keys}
        if not self._flattens:
            return {None: arrays[()].astype(self.obs[None].base, copy=False)}
        parts = [_flattened(_part(self._seen, path), array) for path, array in arrays.items()]
        return {None: np.concatenate(parts, 1)}

    def action_kind(self) -> np.dtype[Any]:
        """The dtype, with its shape, of one recorded action."""
        return _kind(self._played, exact=True)

    def actions(self, array: NDArray[Any]) -> NDArray[Any]:
        """Recorded actions [n, ...] as agents see them, [n, *shape] int64 or float32."""
        space: Any = self._played
        if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
            array = array.astype(np.int64) - space.start
        array = array.reshape(len(array), *self.action.shape)
        if self.action.kind != "continuous":
            return array.astype(np.int64, copy=False)
        cast = cast_action(array, self.action_space, self.action)
        low, high = self.action.low, self.action.high  # a bound that was rounded to float32 may lie just outside
        near = (cast >= np.nextafter(low, -np.inf, dtype=np.float32)) & (
            cast <= np.nextafter(high, np.inf, dtype=np.float32)
        )
        return np.where(near, np.clip(cast, low, high), cast)


def same_space(one: gym.Space[Any], other: gym.Space[Any], *, bounds: bool) -> bool:
    """Whether two spaces are the same; without ``bounds`` those of boxes may differ, as versions write them."""
    if isinstance(one, spaces.Dict) and isinstance(other, spaces.Dict):
        return set(one) == set(other) and all(same_space(one[key], other[key], bounds=bounds) for key in one)
    if isinstance(one, spaces.Box) and isinstance(other, spaces.Box):
        same = one.shape == other.shape
        return same and (not bounds or (np.allclose(one.low, other.low) and np.allclose(one.high, other.high)))
    return bool(one == other)


def _arrays(space: gym.Space[Any]) -> Iterator[gym.Space[Any]]:
    """The spaces of the arrays that make up a value of a space."""
    for path, _ in _leaves(space, ()):
        yield _part(space, path)


def _leaves(space: gym.Space[Any], path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    if not isinstance(space, _Nested):
        yield path, _kind(space)
        return
    parts = space.items() if isinstance(space, spaces.Dict) else enumerate(space)
    for key, part in parts:
        yield from _leaves(part, (*path, key))


def _part(space: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        space = space[key]
    return space


def _kind(space: gym.Space[Any], *, exact: bool = False) -> np.dtype[Any]:
    """The dtype, with its shape, of one value of a space in an array; float32 for float64 unless ``exact``."""
    if isinstance(space, spaces.Box):
        base = np.dtype(np.float32) if space.dtype == np.float64 and not exact else np.dtype(space.dtype)
        return np.dtype((base, space.shape))
    return np.dtype((np.int8 if isinstance(space, spaces.MultiBinary) else np.int64, space.shape or ()))


def _flattened(space: Any, array: NDArray[Any]) -> NDArray[Any]:
    """Values [n, ...] of one space as vectors [n, d], as ``gymnasium.spaces.flatten`` makes them."""
    if isinstance(space, (spaces.Box, spaces.MultiBinary)):
        return array.reshape(len(array), -1)
    choices = np.atleast_1d(space.n if isinstance(space, spaces.Discrete) else space.nvec.reshape(-1))
    index = (array - space.start).reshape(len(array), -1)
    wrong = ((index < 0) | (index >= choices)).any(1)
    if wrong.any():
        step = int(wrong.argmax())
        raise ValueError(f"got {array[step].tolist()} at step {step}; wanted a value of {space}")
    first = np.concatenate([[0], np.cumsum(choices)[:-1]])
    hot = np.zeros((len(array), int(choices.sum())), np.float32)
    hot[np.arange(len(array))[:, None], index + first] = 1
    return hot
