"""The checks of datasets: every error names the dataset, the episode and the field.

The shapes of an episode's fields are checked when it is read or added (:func:`checked_episode`), the numbers of a whole
dataset once it stands in memory (:func:`check_dataset`), array by array.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from mlbits.agents.memory.dataset_spaces import DatasetError, SpaceConversion

if TYPE_CHECKING:
    from mlbits.agents.memory.dataset import Dataset

#: rows of each field of an episode of T steps beyond T
FIELDS = {"obs": 1, "action": 0, "reward": 0, "terminated": 0, "truncated": 0, "log_prob": 0, "draw": 0, "mask": 1}
_MAY_LACK = ("log_prob", "draw", "mask")
_FINITE = "finite numbers of at most 1.8e19 in size"
_LIMIT = math.sqrt(float(np.finfo(np.float32).max))


def checked_episode(fields: Mapping[str, Any], layouts: SpaceConversion, number: int) -> dict[str, Any]:
    """An episode's fields as NumPy arrays of the right types.

    Args:
        fields: those of :class:`~mlbits.agents.memory.dataset.Episode` by name.
        layouts: shapes and types of the dataset.
        number: of the episode, for messages.

    Returns:
        The fields by name; "obs" is a dict of arrays by key, with the key None where the space has none. The last step
        is truncated if no flag ends the episode.

    Raises:
        DatasetError: if a field is missing, or its shape or type does not fit.
    """
    where = f"{layouts.name}: episode {number}"
    steps = len(_array(fields.get("reward"), np.dtype(np.float32), None, f"{where}: reward"))
    if steps == 0:
        raise DatasetError(f"{where}: reward: got 0 steps; wanted at least 1")
    found: dict[str, Any] = {"obs": _observations(fields.get("obs"), layouts, steps + 1, where)}
    found["action"] = layouts.actions(_array(fields.get("action"), layouts.action_kind(), steps, f"{where}: action"))
    none = np.zeros(steps, bool)
    kinds = {
        "reward": np.dtype(np.float32),
        "terminated": np.dtype(bool),
        "truncated": np.dtype(bool),
        "log_prob": np.dtype(np.float32),
        "draw": np.dtype((np.float32, layouts.action.shape)),
        "mask": np.dtype((np.bool_, (layouts.action.mask_size,))),
    }
    for name, kind in kinds.items():
        value = fields.get(name)
        if value is None and name in _MAY_LACK:
            found[name] = None
            continue
        value = none if value is None and name != "reward" else value
        found[name] = _array(value, kind, steps + FIELDS[name], f"{where}: {name}", FIELDS[name])
    if not (found["terminated"][-1] or found["truncated"][-1]):
        found["truncated"] = found["truncated"].copy()
        found["truncated"][-1] = True
    seed = fields.get("seed")
    found["seed"] = -1 if seed is None else int(seed)
    return found


def _observations(value: Any, layouts: SpaceConversion, rows: int, where: str) -> dict[str | None, NDArray[Any]]:
    arrays = {}
    for path, kind in layouts.leaves():
        label = f"{where}: obs" + "".join(f"[{key!r}]" for key in path)
        part = value
        try:
            for key in path:
                part = part[key]
        except (KeyError, IndexError, TypeError):
            raise DatasetError(f"{label}: missing") from None
        arrays[path] = _array(part, kind, rows, label, 1)
    try:
        return layouts.observations(arrays)
    except ValueError as error:
        raise DatasetError(f"{where}: obs: {error}") from None


def _array(value: Any, kind: np.dtype[Any], count: int | None, where: str, more: int = 0) -> NDArray[Any]:
    """A value as an array of ``count`` rows of ``kind``; None takes any number."""
    if value is None:
        raise DatasetError(f"{where}: missing")
    try:
        array = np.asarray(value.cpu() if isinstance(value, Tensor) else value)
    except ValueError:  # rows of different lengths
        shape = ", ".join(map(str, kind.shape)) or "one number"
        raise DatasetError(f"{where}: got rows of different lengths; wanted shape [T, {shape}]") from None
    if array.ndim == 0 or (count is not None and len(array) != count):
        got = "one value" if array.ndim == 0 else f"{len(array)} rows"
        raise DatasetError(f"{where}: got {got}; wanted {count}, {'one more than' if more else 'as many as'} steps")
    if array.shape[1:] == (1, *kind.shape):
        array = array[:, 0]  # Discrete as [T, 1]
    if array.shape[1:] != kind.shape:
        raise DatasetError(f"{where}: got shape {list(array.shape[1:])} per step; wanted {list(kind.shape)}")
    if array.dtype.kind not in {"f": "biuf"}.get(kind.base.kind, "biu") and array.size:
        raise DatasetError(f"{where}: got {array.dtype}; wanted {kind.base}")
    if kind.base.kind in "biu" and array.dtype != kind.base and array.size:
        low, high = (0, 1) if kind.base.kind == "b" else (np.iinfo(kind.base).min, np.iinfo(kind.base).max)
        if int(array.min()) < low or int(array.max()) > high:
            raise DatasetError(f"{where}: got {array.min()} to {array.max()}; wanted {kind.base}")
    with np.errstate(over="ignore", invalid="ignore"):  # what float32 cannot hold becomes infinite, refused later
        return array.astype(kind.base, copy=False)


def check_dataset(data: Dataset) -> None:
    """Refuse a dataset with arrays that do not fit each other, or values that must not be.

    Raises:
        DatasetError: names the dataset, the episode and the field.
    """
    steps, count = len(data.reward), len(data.starts) - 1
    starts = data.starts
    if count < 1 or int(starts[0]) != 0 or int(starts[-1]) != steps or bool((starts.diff() < 1).any()):
        raise DatasetError(f"{data.name}: starts: wanted ascending numbers of first steps from 0 to {steps}")
    layouts = SpaceConversion(data.observation_space, data.action_space, data.name)
    rows = {"action": steps, "terminated": steps, "truncated": steps, "log_prob": steps, "draw": steps, "seeds": count}
    for name, wanted in {**rows, "mask": steps + count}.items():
        value = getattr(data, name)
        if value is not None and len(value) != wanted:
            raise DatasetError(f"{data.name}: {name}: got {len(value)} rows; wanted {wanted}")
    seen = [("obs", data.obs)] if layouts.keys is None else [(f"obs[{k!r}]", data.obs[k]) for k in layouts.keys]
    for (name, value), kind in zip(seen, layouts.obs.values(), strict=True):
        if tuple(value.shape) != (steps + count, *kind.shape):
            shapes = f"got shape {list(value.shape)}; wanted {[steps + count, *kind.shape]}"
            raise DatasetError(f"{data.name}: {name}: {shapes}")
        _refuse(data, name, value, ~_finite(value), _FINITE, seen=True)
    for (name, value), space in zip(seen, _leaves(layouts.observation_space), strict=True):
        _in_range(data, name, value, space)
    _refuse(data, "reward", data.reward, ~_finite(data.reward), _FINITE)
    for name in ("log_prob", "draw"):
        value = getattr(data, name)
        if value is not None:
            _refuse(data, name, value, ~_finite(value), _FINITE)
    _check_actions(data, layouts)
    _check_ends(data)


def _leaves(space: gym.Space[Any]) -> list[gym.Space[Any]]:
    return list(space.values()) if isinstance(space, spaces.Dict) else [space]


def _finite(value: Tensor) -> Tensor:
    """Bool [n]: whether all numbers of a row are finite, and their squares too, which losses take."""
    if not value.is_floating_point():
        return torch.ones(len(value), dtype=torch.bool, device=value.device)
    return (value.reshape(len(value), -1).abs() <= _LIMIT).all(1)


def _in_range(data: Dataset, name: str, value: Tensor, space: gym.Space[Any]) -> None:
    """Refuse indices that no table of an agent has a row for."""
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        most = torch.as_tensor(space.n if isinstance(space, spaces.Discrete) else space.nvec, device=value.device)
        outside = ((value < 0) | (value >= most)).reshape(len(value), -1).any(1)
        _refuse(data, name, value, outside, f"a value of {space}", seen=True)


def _check_actions(data: Dataset, layouts: SpaceConversion) -> None:
    action, layout = data.action, layouts.action
    if tuple(action.shape[1:]) != layout.shape:
        raise DatasetError(f"{data.name}: action: got shape {list(action.shape)}; wanted [{data.num_steps}, ...]")
    flat = action.reshape(len(action), -1)
    if layout.kind == "continuous":
        low, high = (torch.from_numpy(part).to(action.device) for part in (layout.low, layout.high))
    else:
        high = torch.tensor(layout.nvec, device=action.device) - 1
        low = torch.zeros_like(high)
    inside = ((flat >= low) & (flat <= high)).all(1)
    _refuse(data, "action", action, ~inside, f"an action of {data.action_space}")
    if data.mask is not None and layout.kind == "discrete":
        number = torch.arange(data.num_episodes, device=action.device).repeat_interleave(data.starts.diff())
        mask = data.mask[torch.arange(data.num_steps, device=action.device) + number]
        legal = mask.gather(1, action.unsqueeze(1)).squeeze(1)
        _refuse(data, "action", action, ~legal, "a legal action by the mask")


def _check_ends(data: Dataset) -> None:
    """Each episode ends with its last step, and with no other."""
    ended = data.terminated | data.truncated
    last = torch.zeros_like(ended)
    last[data.starts[1:] - 1] = True
    early = ended & ~last
    _refuse(data, "terminated or truncated", ended, early, "only the last step of an episode to end it")
    _refuse(data, "terminated and truncated", ended, last & ~ended, "the last step of an episode to end it")


def _refuse(data: Dataset, name: str, value: Tensor, wrong: Tensor, wanted: str, *, seen: bool = False) -> None:
    """Raise an error that names the first wrong row, if there is one.

    Args:
        data: the dataset.
        name: of the field.
        value: [n, ...].
        wrong: bool [n].
        wanted: what a row has to be.
        seen: whether the rows are observations (N + E) rather than steps.
    """
    if not bool(wrong.any()):
        return
    row = int(wrong.nonzero()[0])
    starts = data.starts + torch.arange(len(data.starts), device=data.starts.device) if seen else data.starts
    episode = int(torch.searchsorted(starts, row, right=True)) - 1
    got = value[row].tolist()
    text = str(got) if len(str(got)) <= 80 else f"{str(got)[:76]} ..."
    step = row - int(starts[episode])
    raise DatasetError(f"{data.name}: episode {episode}: {name}: got {text} at step {step}; wanted {wanted}")
