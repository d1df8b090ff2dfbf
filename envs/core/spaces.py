"""Memory layouts of spaces: shapes and dtypes of observation, action and mask buffers.

| space (one seat) | buffer of one seat | in a batch |
|---|---|---|
| observation Discrete(n) | int32 [1] | int32 [B, P] |
| observation Box, MultiBinary, MultiDiscrete | its shape, in its dtype (MultiDiscrete: int32) | [B, P, *shape] |
| observation Dict of those | one record with a field per key | dict of [B, P, *shape] |
| action Discrete(n) | int64 scalar | int64 [B, P] |
| action MultiDiscrete(nvec) | int64 [k] | int64 [B, P, k] |
| action Box [k] | float32 [k] | float32 [B, P, k] |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mlbits.envs.core.errors import GameError, IllegalActionError


@dataclass(frozen=True, slots=True)
class ObservationLayout:
    """Memory layout of one seat's observation.

    Attributes:
        dtype: element type; structured for a Dict space.
        shape: shape of the buffer of one seat, () for a Dict space's single record.
        scalar: whether users see it without the trailing axis of length 1 (Discrete).
        keys: the keys of a Dict space, else None.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    scalar: bool
    keys: tuple[str, ...] | None

    def user_view(self, buffer: NDArray[Any]) -> Any:
        """View a buffer [..., *shape] as users see it: an array, or for a Dict space a dict of arrays."""
        if self.keys is not None:
            return {key: buffer[key] for key in self.keys}
        return buffer[..., 0] if self.scalar else buffer


# The dtypes that both Numba and torch support, on the CPU and on GPUs.
_BOX_DTYPES = tuple(
    np.dtype(name) for name in ("bool", "uint8", "int8", "int16", "int32", "int64", "float32", "float64")
)


def _check_size(argument: str, space: gym.Space[Any]) -> None:
    """Refuse an empty space, or one with 2^31 values or more."""
    if isinstance(space, spaces.Dict):
        empty = not space.spaces
    else:
        empty = 0 in (space.shape or ())
    if empty:
        raise GameError(f"{argument}: got {space}, which is empty; wanted at least one number")
    most = space.n if isinstance(space, spaces.Discrete) else getattr(space, "nvec", np.zeros(1)).max()
    if most >= 2**31:
        raise GameError(f"{argument}: got {space}; wanted fewer than {2**31} values")


def _check_start(argument: str, space: spaces.Discrete | spaces.MultiDiscrete) -> None:
    if np.any(space.start):
        raise GameError(f"{argument}: got {type(space).__name__} with start={space.start}; wanted start=0")


def observation_layout(space: gym.Space[Any]) -> ObservationLayout:
    """The memory layout of an observation space.

    Raises:
        GameError: if the space is not Discrete, Box, MultiDiscrete, MultiBinary or a flat Dict of those, does not
            start at 0, is empty, has 2^31 values or more, or has a dtype that torch lacks.
    """
    _check_size("observation_space", space)
    if isinstance(space, spaces.Dict):
        fields: list[tuple[str, Any, tuple[int, ...]]] = []
        for key, part in space.items():
            if isinstance(part, spaces.Dict):
                raise GameError(f"observation_space[{key!r}]: got a nested Dict; wanted one level of keys")
            layout = observation_layout(part)
            fields.append((key, layout.dtype, () if layout.scalar else layout.shape))
        return ObservationLayout(np.dtype(fields, align=True), (), False, tuple(space.keys()))
    if isinstance(space, spaces.Discrete):
        _check_start("observation_space", space)
        return ObservationLayout(np.dtype(np.int32), (1,), True, None)
    if isinstance(space, spaces.Box):
        if np.dtype(space.dtype) not in _BOX_DTYPES:
            wanted = ", ".join(dtype.name for dtype in _BOX_DTYPES)
            raise GameError(f"observation_space: got Box of {space.dtype}; wanted one of {wanted}")
        return ObservationLayout(np.dtype(space.dtype), space.shape, False, None)
    if isinstance(space, spaces.MultiDiscrete):
        _check_start("observation_space", space)
        return ObservationLayout(np.dtype(np.int32), space.shape, False, None)
    if isinstance(space, spaces.MultiBinary):
        return ObservationLayout(np.dtype(np.int8), space.shape, False, None)
    raise GameError(
        f"observation_space: got {space!r}; wanted Discrete, Box, MultiDiscrete, MultiBinary or a Dict of those"
    )


@dataclass(frozen=True, slots=True)
class ActionLayout:
    """Memory layout of one seat's action.

    Attributes:
        kind: "discrete", "multi_discrete" or "continuous".
        dtype: int64 or float32.
        shape: shape of one seat's action, () for Discrete.
        nvec: number of choices of each sub-action (empty for continuous).
        low: lower bounds [k] for continuous actions: the space's, rounded up to float32.
        high: upper bounds [k] for continuous actions: the space's, rounded down to float32.
    """

    kind: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    nvec: tuple[int, ...]
    low: NDArray[np.float32]
    high: NDArray[np.float32]

    @property
    def mask_size(self) -> int:
        """Length of a legal mask: the choices of all sub-actions, concatenated."""
        return sum(self.nvec)


def action_layout(space: gym.Space[Any]) -> ActionLayout:
    """The memory layout of an action space.

    Raises:
        GameError: if the space is not Discrete, MultiDiscrete (one axis) or a Box of one axis, is empty, or has 2^31
            values or more.
    """
    _check_size("action_space", space)
    empty = np.zeros(1, np.float32)
    if isinstance(space, spaces.Discrete):
        _check_start("action_space", space)
        return ActionLayout("discrete", np.dtype(np.int64), (), (int(space.n),), empty, empty)
    if isinstance(space, spaces.MultiDiscrete) and len(space.shape) == 1:
        _check_start("action_space", space)
        nvec = tuple(int(n) for n in space.nvec)
        return ActionLayout("multi_discrete", np.dtype(np.int64), space.shape, nvec, empty, empty)
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        return ActionLayout("continuous", np.dtype(np.float32), space.shape, (), *_float32_bounds(space))
    raise GameError(f"action_space: got {space!r}; wanted Discrete, MultiDiscrete of one axis or Box of one axis")


def _float32_bounds(space: spaces.Box) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The bounds rounded inwards, so that every float32 between them is in the space."""
    with np.errstate(over="ignore"):  # a bound beyond float32's range becomes the largest finite number
        low, high = space.low.astype(np.float32), space.high.astype(np.float32)
    inner_low = np.where(low < space.low, np.nextafter(low, np.float32(np.inf)), low)
    inner_high = np.where(high > space.high, np.nextafter(high, np.float32(-np.inf)), high)
    narrow = inner_low > inner_high  # no float32 lies between them
    return np.where(narrow, low, inner_low), np.where(narrow, high, inner_high)


def cast_action(action: NDArray[Any], space: gym.Space[Any], layout: ActionLayout) -> NDArray[Any]:
    """Cast actions [..., *shape] to the layout's dtype; actions in the space stay within the layout's bounds.

    Args:
        action: any dtype that casts to the layout's.
        space: the action space of one seat.
        layout: the memory layout of ``space``.
    """
    with np.errstate(over="ignore"):  # a float64 beyond float32's range becomes inf, which is out of bounds
        cast = action.astype(layout.dtype)
    if layout.kind != "continuous" or action.dtype in (np.float32, np.float16):
        return cast
    box: Any = space
    inside = (action >= box.low) & (action <= box.high)
    return np.where(inside, np.clip(cast, layout.low, layout.high), cast)


def checked_action(action: Any, space: gym.Space[Any], layout: ActionLayout, who: str = "action") -> NDArray[Any]:
    """One seat's action as an array of the layout's shape and dtype; the driver checks the values.

    Args:
        action: what the user gave: integers of any dtype; also floats if the space is continuous.
        space: the action space, for the message.
        layout: the memory layout of ``space``.
        who: start of the error message.

    Raises:
            IllegalActionError: for a wrong shape or a dtype that cannot be cast safely.
    """
    try:
        array = np.asarray(action)
    except ValueError:  # rows of different lengths
        array = np.asarray(None)
    fits = np.can_cast(array.dtype, layout.dtype, "same_kind") and array.dtype != np.bool_
    if array.shape != layout.shape or not fits:
        wanted = f"{space} ({layout.dtype}, shape {layout.shape})"
        raise IllegalActionError(f"{who}: got {action!r}; wanted {wanted}")
    return cast_action(array, space, layout)


def own_observation(space: gym.Space[Any], view: Any) -> Any:
    """One seat's observation as a copy the caller may keep: arrays (an integer for Discrete) in the space's dtypes.

    Args:
        space: the observation space.
        view: the observation as shown by :meth:`ObservationLayout.user_view`.
    """
    if isinstance(space, spaces.Dict):
        return {key: own_observation(part, view[key]) for key, part in space.items()}
    array = np.array(view, space.dtype)
    return array[()] if isinstance(space, spaces.Discrete) else array
