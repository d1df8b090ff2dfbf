"""What another's environment gives back, checked before it is written into arrays that would take almost anything.

NumPy spreads an observation of a wrong shape over the array that it is assigned to, and cuts fractions off where that
is of integers. Here both are refused, with the environment's name, what came, and what its space says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbits.envs.core.errors import GameError

_NUMBERS = {float, int, bool, np.float64, np.float32, np.int64, np.int32, np.bool_}
_FLAGS = {bool, np.bool_}


class OutcomeChecks:
    """Writes an environment's observations into arrays, and reads its rewards and flags.

    Args:
        env_id: the environment's name in messages.
        parts: arrays [B, ...] by the key of a Dict space, or one under None: shapes and dtypes that are wanted.
    """

    def __init__(self, env_id: str, parts: Mapping[str | None, NDArray[Any]]) -> None:
        self._env_id = env_id
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
        return type(value) is np.ndarray and value.shape == self._shapes[key] and value.dtype in self._taken[key]

    def _converted(self, key: str | None, value: Any) -> NDArray[Any]:
        """An observation as an array of the right shape and a dtype that loses nothing of consequence."""
        shape = self._shapes[key]
        try:
            array = np.asarray(value)
        except ValueError:  # rows of several lengths
            array = np.asarray(None)
        place = "" if key is None else f"[{key!r}]"
        if array.shape != shape:
            got = f"of shape {array.shape}" if array.dtype != object else f"{value!r:.80}"
            raise GameError(f"{self._env_id}: got an observation{place} {got}; wanted {shape}, as its space")
        if array.dtype not in self._taken[key]:
            if not np.can_cast(array.dtype, self._dtypes[key], "same_kind"):
                raise GameError(
                    f"{self._env_id}: got an observation{place} of dtype {array.dtype}; wanted {self._dtypes[key]}, as "
                    "its space"
                )
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
            raise GameError(f"{self._env_id}: got the reward {reward!r:.80}; wanted a single number")
        if np.issubdtype(array.dtype, np.complexfloating):
            raise GameError(f"{self._env_id}: got the reward {reward!r:.80}; wanted a real number")
        return float(array)

    def _flag(self, name: str, flag: Any) -> bool:
        array = np.asarray(flag)
        if array.shape != () or array.dtype != np.bool_:
            raise GameError(f"{self._env_id}: got {name} {flag!r:.80}; wanted True or False")
        return bool(array)


def _kind(result: Any) -> str:
    return f"{len(result)} values" if isinstance(result, tuple) else f"a {type(result).__name__}"
