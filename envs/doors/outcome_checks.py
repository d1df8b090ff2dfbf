"""Checks what a wrapped environment returns before it is written into arrays.

NumPy broadcasts an observation of a wrong shape to the array it is assigned to, and truncates fractions in integer
arrays; a number outside a Discrete space's range would index another row of a table, or none. All of these raise an
error with the environment's name, the value got and what its space allows. The bounds of a Box are not enforced:
environments exceed them, for example by rounding, and nothing here indexes by them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mlbits.envs.core.errors import GameError

_NUMBERS = {float, int, bool, np.float64, np.float32, np.int64, np.int32, np.bool_}
_FLAGS = {bool, np.bool_}
_INTEGERS = {int, np.int64, np.int32}
_MOST = float(np.finfo(np.float32).max)


class OutcomeChecks:
    """Writes an environment's observations into arrays, and reads its rewards and flags.

    Args:
        env_id: the environment's name in messages.
        parts: arrays [B, ...] by the key of a Dict space, or one under None: the shapes and dtypes wanted.
        space: space of one observation; Discrete and MultiDiscrete start at 0.
    """

    def __init__(self, env_id: str, parts: Mapping[str | None, NDArray[Any]], space: gym.Space[Any]) -> None:
        self._env_id = env_id
        self._spaces: Mapping[Any, gym.Space[Any]] = space.spaces if isinstance(space, spaces.Dict) else {None: space}
        self._counts = {key: _count(part) for key, part in self._spaces.items()}
        self._shapes = {key: part.shape[1:] for key, part in parts.items()}
        self._keys = None if None in parts else frozenset(parts)
        self._dtypes = {key: part.dtype for key, part in parts.items()}
        self._taken = {key: {part.dtype} for key, part in parts.items()}  # dtypes written without a further check

    def write(self, parts: Mapping[str | None, NDArray[Any]], b: int, obs: Any) -> None:
        """Write copy b's observation.

        Raises:
            GameError: if its shape, dtype or keys do not match the space.
        """
        if self._keys is None:
            parts[None][b] = obs if self._fits(None, obs) else self._converted(None, obs)
            return
        if not isinstance(obs, Mapping) or obs.keys() != self._keys:
            raise self._wrong_keys(obs)
        for key, part in parts.items():
            value = obs[key]
            part[b] = value if self._fits(key, value) else self._converted(key, value)

    def _fits(self, key: str | None, value: Any) -> bool:
        count = self._counts[key]
        if type(count) is int:
            return type(value) in _INTEGERS and 0 <= value < count
        return (
            type(value) is np.ndarray
            and value.shape == self._shapes[key]
            and value.dtype in self._taken[key]
            and (count is None or _counted(value, count))
        )

    def _converted(self, key: str | None, value: Any) -> NDArray[Any]:
        """An observation as an array of the right shape, with a dtype that can be cast without relevant loss."""
        shape, dtype, count = self._shapes[key], self._dtypes[key], self._counts[key]
        try:
            array = np.asarray(value)
        except ValueError:  # rows of different lengths
            array = np.asarray(None)
        place = "" if key is None else f"[{key!r}]"
        if array.shape != shape:
            got = f"of shape {array.shape}" if array.dtype != object else f"{_line(value)}"
            raise GameError(f"{self._env_id}: got an observation{place} {got}; wanted {shape}, as its space")
        if not np.can_cast(array.dtype, dtype, "same_kind"):
            raise GameError(
                f"{self._env_id}: got an observation{place} of dtype {array.dtype}; wanted {dtype}, as its space"
            )
        narrower = array.dtype.kind in "iu" and not np.can_cast(array.dtype, dtype)
        within = _counted(array, count) if count is not None else not narrower or (array.astype(dtype) == array).all()
        if not within:
            raise GameError(
                f"{self._env_id}: got the observation{place} {_line(value)}; wanted {_line(self._spaces[key])}"
            )
        if not narrower:
            self._taken[key].add(array.dtype)
        return array

    def _wrong_keys(self, obs: Any) -> GameError:
        assert self._keys is not None
        wanted = ", ".join(sorted(map(repr, self._keys)))
        if not isinstance(obs, Mapping):
            return GameError(f"{self._env_id}: got an observation of {type(obs).__name__}; wanted a dict of {wanted}")
        missing, more = sorted(map(repr, self._keys - obs.keys())), sorted(map(repr, obs.keys() - self._keys))
        parts = [f"without {', '.join(missing)}"] if missing else []
        parts += [f"with {', '.join(more)}"] if more else []
        return GameError(f"{self._env_id}: got an observation {' and '.join(parts)}; wanted the keys {wanted}")

    def check_reset(self, result: Any) -> Any:
        """The observation from ``reset``'s (observation, info).

        Raises:
            GameError: for anything else.
        """
        if not isinstance(result, tuple) or len(result) != 2:
            raise GameError(f"{self._env_id}: reset returned {_kind(result)}; wanted (observation, info)")
        return result[0]

    def check_step(self, result: Any) -> tuple[Any, float, bool, bool]:
        """Observation, reward and both flags from ``step``'s five values.

        Raises:
            GameError: if there are not five, the reward is not a single number, or a flag is not a bool.
        """
        if type(result) is not tuple or len(result) != 5:
            raise GameError(
                f"{self._env_id}: step returned {_kind(result)}; wanted (observation, reward, terminated, truncated, "
                "info)"
            )
        obs, reward, terminated, truncated, _ = result
        if type(reward) not in _NUMBERS:
            reward = self._number(reward)
        if not -_MOST <= reward <= _MOST:  # infinite in float32; NumPy would warn, and refuse an int beyond float64
            reward = float("nan") if reward != reward else float("inf") if reward > 0 else float("-inf")
        if type(terminated) not in _FLAGS or type(truncated) not in _FLAGS:
            terminated, truncated = self._flag("terminated", terminated), self._flag("truncated", truncated)
        return obs, reward, terminated, truncated

    def _number(self, reward: Any) -> float:
        array = np.asarray(reward)
        if array.shape != () or not (np.issubdtype(array.dtype, np.number) or array.dtype == np.bool_):
            raise GameError(f"{self._env_id}: got the reward {_line(reward)}; wanted a single number")
        if np.issubdtype(array.dtype, np.complexfloating):
            raise GameError(f"{self._env_id}: got the reward {_line(reward)}; wanted a real number")
        return float(array)

    def _flag(self, name: str, flag: Any) -> bool:
        array = np.asarray(flag)
        if array.shape != () or array.dtype != np.bool_:
            raise GameError(f"{self._env_id}: got {name} {_line(flag)}; wanted True or False")
        return bool(array)


def check_parts(env_id: str, space: gym.Space[Any], obs: Any, place: str = "") -> None:
    """Raise an error for observations that flattening would misread: values out of range, wrong shapes, missing parts.

    Args:
        env_id: the environment's name in messages.
        space: any flattenable space.
        obs: an observation.
        place: path of this part within the observation, for messages.

    Raises:
        GameError: naming the part, the value got and what its space allows.
    """
    if isinstance(space, spaces.Dict) and isinstance(obs, Mapping) and obs.keys() == space.keys():
        for key, part in space.items():
            check_parts(env_id, part, obs[key], f"{place}[{key!r}]")
    elif isinstance(space, spaces.Tuple) and isinstance(obs, Sequence) and len(obs) == len(space):
        for k, part in enumerate(space):
            check_parts(env_id, part, obs[k], f"{place}[{k}]")
    elif not (_shape(obs) == space.shape if isinstance(space, spaces.Box) else space.contains(obs)):
        raise GameError(f"{env_id}: got the observation{place} {_line(obs)}; wanted {_line(space)}")


def _shape(obs: Any) -> tuple[int, ...] | None:
    try:
        return np.shape(obs)
    except ValueError:  # rows of different lengths
        return None


def _count(space: gym.Space[Any]) -> int | NDArray[np.int64] | None:
    """The number of values of a discrete space, per entry; None for a Box."""
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return space.nvec.astype(np.int64)
    return np.full(space.shape, 2) if isinstance(space, spaces.MultiBinary) else None


def _counted(array: NDArray[Any], count: int | NDArray[np.int64]) -> bool:
    return bool(((array >= 0) & (array < count)).all())


def _line(value: Any) -> str:
    """A value for an error message: the first 80 characters of its repr, in one line."""
    return f"{' '.join(repr(value).split()):.80}"


def _kind(result: Any) -> str:
    return f"{len(result)} values" if isinstance(result, tuple) else f"a {type(result).__name__}"
