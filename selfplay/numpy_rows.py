"""Observations, masks and actions between NumPy, as environments give and take them, and the rows of tensors of agents.

An environment gives one observation of its space, a vector environment a batch [N, ...]; the readers here tell the two
apart by their shape, check shape, dtype and range, and make rows [N, ...]. The writer makes actions of the rows that an
agent returns, in the form and dtype of the environment's action space. The spaces are the environment's own; where
agents know them in another form (tuples flattened, counts from 0, one axis), it is that of
:mod:`mlbits.envs.doors.gymnasium_ids`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from mlbits.envs.core.errors import GameError, MlbitsError
from mlbits.envs.core.spaces import action_layout, observation_layout
from mlbits.envs.doors.outcome_checks import check_parts


class PolicyError(MlbitsError, ValueError):
    """An observation, mask or other argument that a policy cannot act on."""


class ObservationReader:
    """Reads one observation, or a batch of them.

    Args:
        space: the environment's observation space.
        device: the agent's.
    """

    def __init__(self, space: gym.Space[Any], device: torch.device) -> None:
        self.space, self._device = space, device
        self._tree = not _plain(space)  # tuples and nested dicts, which agents know as one flat vector
        parts = space.spaces if isinstance(space, spaces.Dict) and not self._tree else {None: space}
        self._parts = {} if self._tree else {key: _Part(part, key) for key, part in parts.items()}
        self._only = self._parts.get(None)

    def read(self, obs: Any) -> tuple[Any, int | None]:
        """Rows for an agent.

        Args:
            obs: an observation of the space, or a batch of them: arrays [N, ...] in place of its arrays and numbers.

        Returns:
            A tensor [N, ...], or a dict of them; and the batch's N, None for a single observation, which gives one row.

        Raises:
            PolicyError: naming the part whose shape, dtype or range is not that of the space.
        """
        if self._only is not None:
            array, single = self._only.read(obs)
            return self._tensor(array), None if single else len(array)
        return self._read_tree(obs) if self._tree else self._read_dict(obs)

    def _read_dict(self, obs: Any) -> tuple[Any, int | None]:
        if not isinstance(obs, Mapping) or obs.keys() != self._parts.keys():
            got = f"the keys {', '.join(map(repr, obs))}" if isinstance(obs, Mapping) else f"a {type(obs).__name__}"
            raise PolicyError(f"obs: got {got}; wanted a dict of {', '.join(map(repr, self._parts))}")
        read = {key: part.read(obs[key]) for key, part in self._parts.items()}
        sizes = {key: None if single else len(array) for key, (array, single) in read.items()}
        first, count = next(iter(sizes.items()))
        for key, size in sizes.items():
            if size != count:
                raise PolicyError(
                    f"obs[{key!r}]: got {_batch(size)}, and in obs[{first!r}] {_batch(count)}; wanted the same in all"
                )
        return {key: self._tensor(array) for key, (array, _) in read.items()}, count

    def _read_tree(self, obs: Any) -> tuple[Tensor, int | None]:
        """Rows of a space that agents know flattened, by Gymnasium's own ``flatten``."""
        count = _leading(self.space, obs)
        _check_count(self.space, obs, count)
        picked = [obs] if count is None else [_row(self.space, obs, n) for n in range(count)]
        for row in picked:
            try:
                check_parts("obs", self.space, row)
            except GameError as error:
                raise PolicyError(str(error)) from None
        flat = np.stack([np.asarray(spaces.flatten(self.space, row)) for row in picked])
        flat = flat.astype(np.float32) if flat.dtype == np.float64 else flat
        if not np.isfinite(flat).all():
            raise PolicyError(f"obs: got {_line(obs)}; wanted finite numbers")
        return self._tensor(flat), count

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor if self._device.type == "cpu" else tensor.to(self._device)


class _Part:
    """Reads the arrays or numbers of one space without parts."""

    def __init__(self, space: gym.Space[Any], key: str | None) -> None:
        layout = observation_layout(space)
        self.space, self._name = space, "obs" if key is None else f"obs[{key!r}]"
        self._dtype = np.dtype(np.float32) if layout.dtype == np.float64 else layout.dtype
        self._shape: tuple[int, ...] = () if layout.scalar else layout.shape
        self._most: Any = None  # the number of values of a space of counts
        if isinstance(space, spaces.Discrete):
            self._most = int(space.n)
        elif isinstance(space, spaces.MultiDiscrete):
            self._most = space.nvec
        elif isinstance(space, spaces.MultiBinary):
            self._most = 2
        self._floats = np.issubdtype(self._dtype, np.floating)

    def read(self, value: Any) -> tuple[NDArray[Any], bool]:
        """An array [N, ...] of its own, and whether the value was a single observation."""
        array = value if type(value) is np.ndarray else self._array(value)
        single = array.shape == self._shape
        if not single and (array.ndim == 0 or array.shape[1:] != self._shape):
            raise PolicyError(
                f"{self._name}: got shape {array.shape}; wanted {self._shape}, or a batch {self._of_many()}"
            )
        if array.dtype != self._dtype and not np.can_cast(array.dtype, self._dtype, "same_kind"):
            whole = array.dtype.kind in "iu" and self._dtype.kind == "u"
            if not (whole and array.size and array.min() >= 0 and array.max() <= 2 ** (8 * self._dtype.itemsize) - 1):
                raise PolicyError(f"{self._name}: got dtype {array.dtype}; wanted {self._dtype}, as in {self._known()}")
        if self._most is not None and not ((array >= 0) & (array < self._most)).all():
            raise PolicyError(f"{self._name}: got {_line(value)}; wanted {self._known()}")
        array = np.array(array[None] if single else array, self._dtype, order="C")
        if self._floats:
            flat = array.reshape(-1)
            if not math.isfinite(flat.dot(flat)):  # the fastest check; no network takes numbers beyond 1.8e19 either
                raise PolicyError(f"{self._name}: got {_line(value)}; wanted finite numbers, smaller than 1.8e19")
        return array, single

    def _array(self, value: Any) -> NDArray[Any]:
        try:
            return np.asarray(value)
        except ValueError:  # rows of different lengths
            raise PolicyError(f"{self._name}: got {_line(value)}; wanted {self._known()}") from None

    def _of_many(self) -> str:
        return f"({', '.join(['N', *map(str, self._shape)])}{'' if self._shape else ','})"

    def _known(self) -> str:
        return _line(self.space)


class MaskReader:
    """Reads which actions are legal.

    Args:
        space: the environment's action space.
        device: the agent's.
    """

    def __init__(self, space: gym.Space[Any], device: torch.device) -> None:
        self._device = device
        self.parts = _choices(space)
        self._size = sum(self.parts)
        self._cuts = np.cumsum(self.parts)[:-1]

    def read(self, mask: Any, count: int | None) -> Tensor:
        """A mask as rows, bool [N, A].

        Args:
            mask: bool, or integers 0 and 1: [A] for one observation, [N, A] for a batch of N; of several sub-actions
                also a tuple of a mask for each.
            count: N, or None for a single observation.

        Raises:
            PolicyError: naming what was wrong.
        """
        if not self.parts:
            raise PolicyError("action_mask: got one; wanted none, as actions are continuous")
        array = self._joined(mask)
        wanted = (self._size,) if count is None else (count, self._size)
        if array.shape != wanted:
            raise PolicyError(f"action_mask: got shape {array.shape}; wanted {wanted}")
        if array.dtype != np.bool_:
            if array.dtype.kind not in "iu" or not ((array == 0) | (array == 1)).all():
                raise PolicyError(f"action_mask: got {array.dtype}, {_line(mask)}; wanted bool, or integers 0 and 1")
            array = array.astype(bool)
        rows = np.array(array.reshape(-1, self._size))
        for k, part in enumerate(np.split(rows, self._cuts, axis=-1) if len(self.parts) > 1 else [rows]):
            some = part.any(-1)
            if not some.all():
                where = "" if count is None else f" in row {int(np.flatnonzero(~some)[0])}"
                what = "" if len(self.parts) == 1 else f" of sub-action {k}"
                raise PolicyError(f"action_mask: got no legal action{what}{where}; wanted at least one")
        tensor = torch.from_numpy(rows)
        return tensor if self._device.type == "cpu" else tensor.to(self._device)

    def _joined(self, mask: Any) -> NDArray[Any]:
        try:
            if isinstance(mask, tuple) and len(mask) == len(self.parts) and np.ndim(mask[0]) > 0:
                return np.concatenate([np.asarray(part) for part in mask], -1)
            return np.asarray(mask)
        except ValueError:
            raise PolicyError(f"action_mask: got {_line(mask)}; wanted {self._size} flags") from None

    def legal(self, action: Tensor, mask: Tensor) -> Tensor:
        """Actions [N] or [N, k] with the lowest legal one in the place of illegal ones, as batches play them."""
        flat = action.view(len(mask), -1)
        chosen = flat if len(self.parts) == 1 else flat + torch.tensor([0, *self._cuts.tolist()], device=action.device)
        if bool(mask.gather(1, chosen).all()):
            return action
        lowest = torch.stack([part.to(torch.uint8).argmax(-1) for part in mask.split(list(self.parts), -1)], -1)
        return torch.where(mask.gather(1, chosen), flat, lowest).view(action.shape)


class ActionWriter:
    """Makes actions for an environment of an agent's rows.

    Args:
        space: the environment's action space.
    """

    def __init__(self, space: gym.Space[Any]) -> None:
        self.space = space
        self._dtype: Any = space.dtype
        self._start: Any = (
            getattr(space, "start", 0) if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)) else 0
        )
        self._moved = bool(np.any(self._start))
        self._shape: tuple[int, ...] = space.shape or ()

    def write(self, action: Tensor, single: bool) -> Any:
        """Actions of the space: one of them, or [N, ...].

        Args:
            action: the agent's, [N] or [N, k].
            single: whether there is one row, and one action is wanted.
        """
        array: NDArray[Any] = (action if action.device.type == "cpu" else action.cpu()).numpy()
        if isinstance(self.space, spaces.Discrete):
            array = array.astype(self._dtype)
            array = array + self._start if self._moved else array
            return array[0] if single else array
        array = array.reshape(len(array), *self._shape)
        if isinstance(self.space, spaces.Box):
            array = self._in_box(array, self.space)
        else:
            array = array.astype(self._dtype)
            array = (array + self._start).astype(self._dtype) if self._moved else array
        return array[0] if single else array

    def _in_box(self, array: NDArray[Any], space: spaces.Box) -> NDArray[Any]:
        """Actions [N, *shape] in the box's dtype; agents know its bounds in float32, and one on a bound stays on it."""
        if array.dtype == self._dtype:
            return array.copy()
        cast = (array if np.issubdtype(self._dtype, np.floating) else np.rint(array)).astype(self._dtype)
        layout = action_layout(spaces.Box(space.low.reshape(-1), space.high.reshape(-1), dtype=space.dtype.type))
        low, high = layout.low.reshape(self._shape), layout.high.reshape(self._shape)
        return np.where(array == low, space.low, np.where(array == high, space.high, cast))


def _choices(space: gym.Space[Any]) -> tuple[int, ...]:
    """The number of choices of each sub-action; none for a continuous space."""
    if isinstance(space, spaces.Discrete):
        return (int(space.n),)
    if isinstance(space, spaces.MultiDiscrete):
        return tuple(int(n) for n in space.nvec.reshape(-1))
    return (2,) * int(np.prod(space.shape)) if isinstance(space, spaces.MultiBinary) else ()


def _plain(space: gym.Space[Any]) -> bool:
    """Whether agents take the space as it is."""
    try:
        observation_layout(space)
    except GameError:
        return False
    return True


def _leading(space: gym.Space[Any], obs: Any) -> int | None:
    """The N of a batch by its first part; None for a single observation."""
    while True:
        if isinstance(space, spaces.Dict) and isinstance(obs, Mapping) and obs.keys() == space.keys():
            key = next(iter(space.keys()))
            space, obs = space[key], obs[key]
        elif isinstance(space, spaces.Tuple) and isinstance(obs, Sequence) and len(obs) == len(space):
            space, obs = space[0], obs[0]
        else:
            break
    try:
        shape = np.shape(obs)
    except ValueError:
        return None
    return shape[0] if space.shape is not None and len(shape) == len(space.shape) + 1 else None


def _check_count(space: gym.Space[Any], obs: Any, count: int | None, place: str = "") -> None:
    """Refuse a part of a batch with another number of rows than its first; what else is wrong is found row by row."""
    parts: Any = ()
    if isinstance(space, spaces.Dict) and isinstance(obs, Mapping):
        parts = [(repr(key), part, obs[key]) for key, part in space.items() if key in obs]
    elif isinstance(space, spaces.Tuple) and isinstance(obs, Sequence):
        parts = [(str(k), part, value) for k, (part, value) in enumerate(zip(space, obs, strict=False))]
    elif (found := _leading(space, obs)) is not None and count is not None and found != count:
        raise PolicyError(
            f"obs{place}: got {_batch(found)}, and in its first part {_batch(count)}; wanted the same in all"
        )
    for key, part, value in parts:
        _check_count(part, value, count, f"{place}[{key}]")


def _row(space: gym.Space[Any], obs: Any, n: int) -> Any:
    """Row n of a batch."""
    if isinstance(space, spaces.Dict) and isinstance(obs, Mapping):
        return {key: _row(part, obs[key], n) if key in obs else None for key, part in space.items()}
    if isinstance(space, spaces.Tuple) and isinstance(obs, Sequence):
        return tuple(_row(part, value, n) for part, value in zip(space, obs, strict=False))
    try:
        return obs[n]
    except (IndexError, TypeError, KeyError):
        raise PolicyError(f"obs: got {_line(obs)} in a batch; wanted as many rows in each part") from None


def _batch(size: int | None) -> str:
    return "a single observation" if size is None else f"a batch of {size}"


def _line(value: Any) -> str:
    """A value for an error message: the first 80 characters of its repr, in one line."""
    return f"{' '.join(repr(value).split()):.80}"
