"""The checks of datasets: every error names the dataset, the episode and the field.

The shapes of an episode's fields are checked when it is read or added (:func:`checked_episode`), the numbers of a whole
dataset once it stands in memory (:func:`check_dataset`), array by array.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from mlbits.envs.core.errors import GameError, MlbitsError
from mlbits.envs.core.spaces import action_layout, cast_action, observation_layout
from mlbits.envs.doors.gymnasium_batch import single_precision

if TYPE_CHECKING:
    from mlbits.agents.memory.dataset import Dataset


class DatasetError(MlbitsError, ValueError):
    """A dataset that is not what it has to be; the message names dataset, episode and field."""


def flat_space(space: gym.Space[Any]) -> gym.Space[Any]:
    """An observation space as agents see it: one level of keys, "a/b" for nested ones, float32 for float64.

    The parts of a Tuple get their numbers as keys.
    """
    if not isinstance(space, (spaces.Dict, spaces.Tuple)):
        return single_precision(space)
    found: dict[str, gym.Space[Any]] = {}
    for key, part in _parts(space):
        flat = flat_space(part)
        if isinstance(flat, spaces.Dict):
            found |= {f"{key}/{name}": inner for name, inner in flat.items()}
        else:
            found[key] = flat
    return spaces.Dict(found)


def flat_values(space: gym.Space[Any], value: Any) -> Any:
    """Values of a space by the keys of :func:`flat_space`: an array, or a dict of arrays.

    Raises:
        KeyError: if a key is missing.
    """
    if not isinstance(space, (spaces.Dict, spaces.Tuple)):
        return value
    flat: Any = flat_space(space)
    if isinstance(value, Mapping) and set(value) == set(flat):
        return dict(value)  # flat already
    found: dict[str, Any] = {}
    for key, part in _parts(space):
        inner = value[key] if isinstance(value, Mapping) else value[int(key)]
        if isinstance(part, (spaces.Dict, spaces.Tuple)):
            found |= {f"{key}/{name}": array for name, array in flat_values(part, inner).items()}
        else:
            found[key] = inner
    return found


def _parts(space: spaces.Dict | spaces.Tuple) -> list[tuple[str, gym.Space[Any]]]:
    if isinstance(space, spaces.Dict):
        return list(space.items())
    return [(str(k), part) for k, part in enumerate(space)]


class Layouts:
    """Shapes and dtypes of one step of a dataset.

    Args:
        observation_space: nested or not.
        action_space: of one step.
        name: of the dataset, for messages.

    Attributes:
        observation_space: as agents see it.
        action_space: of one step.
        keys: those of a Dict observation, or None.

    Raises:
        DatasetError: if agents do not support a space.
    """

    def __init__(self, observation_space: gym.Space[Any], action_space: gym.Space[Any], name: str) -> None:
        self.name, self.raw = name, observation_space
        self.observation_space, self.action_space = flat_space(observation_space), action_space
        try:
            layout = observation_layout(self.observation_space)
            self.action = action_layout(action_space)
        except GameError as error:
            raise DatasetError(f"{name}: {error}") from None
        self.keys = layout.keys
        kinds = {None: np.dtype((layout.dtype, () if layout.scalar else layout.shape))}
        #: dtype (with its shape) of one observation by key, None for one without keys
        self.obs = kinds if self.keys is None else {key: layout.dtype[key] for key in self.keys}


def checked_episode(fields: Mapping[str, Any], layouts: Layouts, number: int) -> dict[str, Any]:
    """An episode's fields as NumPy arrays of the right types, which the caller may keep.

    Args:
        fields: those of :class:`~mlbits.agents.memory.dataset.Episode` by name.
        layouts: of the dataset.
        number: of the episode, for messages.

    Raises:
        DatasetError: if a field is missing, or its shape or type does not fit.
    """
    where = f"{layouts.name}: episode {number}"
    reward = _array(fields.get("reward"), np.dtype(np.float32), None, f"{where}: reward")
    steps = len(reward)
    if steps == 0:
        raise DatasetError(f"{where}: reward: got 0 steps; wanted at least 1")
    try:
        seen = flat_values(layouts.raw, fields.get("obs"))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        wanted = f"the keys {', '.join(layouts.keys or ())}"
        raise DatasetError(f"{where}: obs: {error} is missing; wanted {wanted}") from None
    obs: dict[str | None, Any] = {}
    for key, kind in layouts.obs.items():
        label = f"{where}: obs" if key is None else f"{where}: obs[{key!r}]"
        obs[key] = _array(seen if key is None else seen[key], kind, steps + 1, label, "observations, one more than")
    found: dict[str, Any] = {"obs": obs[None] if layouts.keys is None else obs, "reward": reward}
    kind = np.dtype((layouts.action.dtype, layouts.action.shape))
    found["action"] = _array(fields.get("action"), kind, steps, f"{where}: action", space=layouts)
    for name in ("terminated", "truncated"):
        value = fields.get(name)
        flags = np.zeros(steps, bool) if value is None else value
        found[name] = _array(flags, np.dtype(bool), steps, f"{where}: {name}")
    if not (found["terminated"][-1] or found["truncated"][-1]):
        found["truncated"][-1] = True
    value = fields.get("log_prob")
    found["log_prob"] = None if value is None else _array(value, np.dtype(np.float32), steps, f"{where}: log_prob")
    value = fields.get("draw")
    kind = np.dtype((np.float32, layouts.action.shape))
    found["draw"] = None if value is None else _array(value, kind, steps, f"{where}: draw")
    value = fields.get("mask")
    kind = np.dtype((np.bool_, (layouts.action.mask_size,)))
    found["mask"] = None if value is None else _array(value, kind, steps + 1, f"{where}: mask", "rows, one more than")
    seed = fields.get("seed")
    found["seed"] = -1 if seed is None else int(seed)
    return found


def _array(
    value: Any, kind: np.dtype[Any], count: int | None, where: str, what: str = "rows, as many as", *,
    space: Layouts | None = None,
) -> NDArray[Any]:  # fmt: skip
    """A value as a new array of ``count`` rows of ``kind``."""
    if value is None:
        raise DatasetError(f"{where}: missing")
    try:
        array = np.asarray(value.cpu() if isinstance(value, Tensor) else value)
    except ValueError:  # rows of different lengths
        raise DatasetError(f"{where}: got rows of different lengths; wanted shape [T, {_shape(kind)}]") from None
    if array.ndim == 0 or (count is not None and len(array) != count):
        got = "one number" if array.ndim == 0 else f"{len(array)}"
        raise DatasetError(f"{where}: got {got}; wanted {count} {what} steps")
    if array.ndim == len(kind.shape) + 2 and array.shape[1] == 1 and kind.shape == array.shape[2:]:
        array = array[:, 0]  # Discrete as [T, 1]
    if array.shape[1:] != kind.shape:
        raise DatasetError(f"{where}: got shape {list(array.shape[1:])} per step; wanted {list(kind.shape)}")
    same = array.dtype.kind in ("b" if kind.base.kind == "b" else "biuf" if kind.base.kind == "f" else "biu")
    if not same:
        raise DatasetError(f"{where}: got {array.dtype}; wanted {kind.base}")
    if space is not None:
        return np.array(cast_action(array, space.action_space, space.action))
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which is refused later
        return np.array(array, kind.base)


def _shape(kind: np.dtype[Any]) -> str:
    return ", ".join(map(str, kind.shape)) or "one number"


def check_dataset(data: Dataset) -> None:
    """Refuse a dataset with arrays that do not fit each other, or values that must not be.

    Raises:
        DatasetError: names the dataset, the episode and the field.
    """
    steps, count = len(data.reward), len(data.starts) - 1
    starts = data.starts
    if count < 1 or int(starts[0]) != 0 or int(starts[-1]) != steps or bool((starts.diff() < 1).any()):
        raise DatasetError(f"{data.name}: starts: wanted ascending numbers of first steps from 0 to {steps}")
    layouts = Layouts(data.observation_space, data.action_space, data.name)
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
        _refuse(data, name, value, ~_finite(value), "a finite number", seen=True)
    for (name, value), space in zip(seen, _leaves(layouts.observation_space), strict=True):
        _in_range(data, name, value, space)
    _refuse(data, "reward", data.reward, ~_finite(data.reward), "a finite number")
    for name in ("log_prob", "draw"):
        value = getattr(data, name)
        if value is not None:
            _refuse(data, name, value, ~_finite(value), "a finite number")
    _check_actions(data, layouts)
    _check_ends(data)


def _leaves(space: gym.Space[Any]) -> list[gym.Space[Any]]:
    return list(space.values()) if isinstance(space, spaces.Dict) else [space]


def _finite(value: Tensor) -> Tensor:
    """Bool [n]: whether all numbers of a row are finite."""
    if not value.is_floating_point():
        return torch.ones(len(value), dtype=torch.bool, device=value.device)
    flat = value.reshape(len(value), -1)
    total = flat.sum(1)  # finite if all are, and none is near the largest
    return torch.isfinite(total) | torch.isfinite(flat).all(1)


def _in_range(data: Dataset, name: str, value: Tensor, space: gym.Space[Any]) -> None:
    """Refuse indices that no table of an agent has a row for."""
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        most = torch.as_tensor(space.n if isinstance(space, spaces.Discrete) else space.nvec, device=value.device)
        outside = ((value < 0) | (value >= most)).reshape(len(value), -1).any(1)
        _refuse(data, name, value, outside, f"a value of {space}", seen=True)


def _check_actions(data: Dataset, layouts: Layouts) -> None:
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
