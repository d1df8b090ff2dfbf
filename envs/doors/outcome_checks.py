"""What another's environment gives back, checked before it is written into arrays that would take almost anything.

NumPy spreads an observation of a wrong shape over the array that it is assigned to, and cuts fractions off where that
is of integers; a number beyond those that a Discrete space counts reads another's row of a table, or none. All of it is
refused, with the environment's name, what came, and what its space says. A Box's bounds are not enforced: environments
overstep them, as by a last bit, and nothing here reads by them.
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


class OutcomeChecks:
    """Writes an environment's observations into arrays, and reads its rewards and flags.

    Args:
        env_id: the environment's name in messages.
        parts: arrays [B, ...] by the key of a Dict space, or one under None: shapes and dtypes that are wanted.
        space: of one observation; those that count start at 0.
    """

    def __init__(self, env_id: str, parts: Mapping[str | None, NDArray[Any]], space: gym.Space[Any]) -> None:
        self._env_id = env_id
        self._spaces: Mapping[Any, gym.Space[Any]] = space.spaces if isinstance(space, spaces.Dict) else {None: space}
        self._counts = {key: _count(part) for key, part in self._spaces.items()}
        self._shapes = {key: part.shape[1:] for key, part in parts.items()}
        self._keys = None if None in parts else frozenset(parts)
        self._dtypes = {key: part.dtype for key, part in parts.items()}
        self._taken = {key: {part.dtype} for key, part in parts.items()}  # written as they are

    def write(self, parts: Mapping[str | None, NDArray[Any]], b: int, obs: Any) -> None:
        """Write copy b's observation.

        Raises:
            GameError: if its shape, dtype or keys are not those of the space.
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
        """An observation as an array of the right shape and a dtype that loses nothing of consequence."""
        shape, dtype, count = self._shapes[key], self._dtypes[key], self._counts[key]
        try:
            array = np.asarray(value)
        except ValueError:  # rows of several lengths
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
        said = [f"without {', '.join(missing)}"] if missing else []
        said += [f"with {', '.join(more)}"] if more else []
        return GameError(f"{self._env_id}: got an observation {' and '.join(said)}; wanted the keys {wanted}")

    def started(self, result: Any) -> Any:
        """The observation of ``reset``'s (observation, info).

        Raises:
            GameError: for anything else.
        """
        if not isinstance(result, tuple) or len(result) != 2:
            raise GameError(f"{self._env_id}: reset gave {_kind(result)}; wanted (observation, info)")
        return result[0]

    def stepped(self, result: Any) -> tuple[Any, float, bool, bool]:
        """Observation, reward and both flags of ``step``'s five values.

        Raises:
            GameError: if there are not five, the reward is no single number, or a flag is no bool.
        """
        if type(result) is not tuple or len(result) != 5:
            raise GameError(
                f"{self._env_id}: step gave {_kind(result)}; wanted (observation, reward, terminated, truncated, info)"
            )
        obs, reward, terminated, truncated, _ = result
        if type(reward) not in _NUMBERS:
            reward = self._number(reward)
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
    """Refuse what flattening would take for something else: counts out of range, other shapes, parts too few.

    Args:
        env_id: the environment's name in messages.
        space: any that can be flattened.
        obs: an observation.
        place: of the part in the whole, for messages.

    Raises:
        GameError: naming the part, what came, and what its space says.
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
    except ValueError:  # rows of several lengths
        return None


def _count(space: gym.Space[Any]) -> int | NDArray[np.int64] | None:
    """How many values a space that counts has; None for a Box."""
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return space.nvec.astype(np.int64)
    return np.full(space.shape, 2) if isinstance(space, spaces.MultiBinary) else None


def _counted(array: NDArray[Any], count: int | NDArray[np.int64]) -> bool:
    return bool(((array >= 0) & (array < count)).all())


def _line(value: Any) -> str:
    """What is written of a value in an error: its beginning, in one line."""
    return f"{' '.join(repr(value).split()):.80}"


def _kind(result: Any) -> str:
    return f"{len(result)} values" if isinstance(result, tuple) else f"a {type(result).__name__}"
