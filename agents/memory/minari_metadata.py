"""Minari's metadata.json: spaces and the environment, read as plain data."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from mlbits.agents.memory.dataset_spaces import DatasetError
from mlbits.envs.doors.atari import is_atari
from mlbits.envs.registry import registered

_MOST_BYTES = 1 << 26  # of metadata; the spaces of an environment take a few kilobytes
_ENV = re.compile(r"[\w:./ -]{1,200}")
_NAME = re.compile(r"[\w-]+-v\d+")


def read_metadata(path: Path, name: str) -> dict[str, Any]:
    """The metadata of a dataset.

    Raises:
        DatasetError: if the file is not a JSON object.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DatasetError(f"{name}: metadata: got {path.stat().st_size:,} bytes; wanted at most {_MOST_BYTES:,}")
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{name}: metadata: damaged or half written ({error})") from None
    if not isinstance(found, dict):
        raise DatasetError(f"{name}: metadata: got {type(found).__name__}; wanted a JSON object")
    return found


def environment_of(metadata: Mapping[str, Any], name: str) -> tuple[str | None, dict[str, Any]]:
    """The id and settings of a dataset's environment; nothing that they name is imported.

    Raises:
        DatasetError: if the entry that holds them is damaged.
    """
    own = metadata.get("mlbits")
    if isinstance(own, dict) and own.get("env") is not None:
        settings = own.get("settings")
        return _checked_id(own["env"], "mlbits", name), dict(settings) if isinstance(settings, dict) else {}
    text = metadata.get("env_spec")
    if text is None:
        return None, {}
    try:
        spec = json.loads(text) if isinstance(text, str) else text
        env, settings = spec["id"], spec.get("kwargs") or {}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DatasetError(f"{name}: metadata: env_spec: damaged ({error!r})") from None
    if not isinstance(settings, dict):
        raise DatasetError(f"{name}: metadata: env_spec: got kwargs {settings!r}; wanted settings by name")
    env = _checked_id(env, "env_spec", name)
    env, steps = env.rpartition(":")[2], spec.get("max_episode_steps")
    settings = {key: value for key, value in settings.items() if key not in ("render_mode", "game_id")}
    known = gym.registry.get(env)
    if known is not None and env not in registered():
        settings = {key: value for key, value in settings.items() if known.kwargs.get(key, None) != value}
        if isinstance(steps, int) and steps != known.max_episode_steps:
            settings["max_episode_steps"] = steps
    return env, settings


def _checked_id(env: Any, key: str, name: str) -> str:
    if not isinstance(env, str) or _ENV.fullmatch(env) is None:
        raise DatasetError(f"{name}: metadata: {key}: got {env!r}; wanted the id of an environment")
    return env


def spaces_of(
    metadata: Mapping[str, Any], env: str | None, settings: Mapping[str, Any], name: str
) -> tuple[gym.Space[Any], gym.Space[Any]]:
    """Observation and action space of a dataset; where the metadata lack one, that of its environment.

    Raises:
        DatasetError: if a space is damaged, or missing and the environment is not registered.
    """
    found = []
    for key in ("observation_space", "action_space"):
        text = metadata.get(key)
        if text is None:
            found.append(getattr(_environment(env, settings, name, key), key))
            continue
        try:
            found.append(space_from_json(json.loads(text) if isinstance(text, str) else text))
        except (ValueError, TypeError, KeyError, AttributeError, AssertionError, RecursionError, MemoryError) as error:
            raise DatasetError(f"{name}: metadata: {key}: damaged ({error!r})") from None
    return found[0], found[1]


def _environment(env: str | None, settings: Mapping[str, Any], name: str, key: str) -> gym.Env[Any, Any]:
    if env is None or env not in gym.registry:
        where = "no environment" if env is None else f"the environment {env}, which is not registered"
        raise DatasetError(f"{name}: metadata: {key}: missing, and they name {where}; wanted the space")
    try:
        return gym.make(env, **settings)
    except Exception as error:  # any error of the environment's constructor
        raise DatasetError(f"{name}: metadata: {key}: missing, and {env} cannot be made ({error})") from None


def space_from_json(data: Any) -> gym.Space[Any]:
    """A space from plain data as Minari writes it.

    Raises:
        ValueError: for an unknown kind of space. Other errors for what is not a space's data.
    """
    kind = data["type"]
    if kind == "Box":
        dtype = np.dtype(data["dtype"])
        if dtype.kind not in "biuf":
            raise ValueError(f"got dtype {dtype}; wanted numbers")
        low, high = (np.array(data[end], dtype) for end in ("low", "high"))
        return spaces.Box(low, high, shape=tuple(data["shape"]), dtype=dtype.type)
    if kind == "Discrete":
        return spaces.Discrete(int(data["n"]), start=int(data.get("start", 0)))
    if kind == "MultiDiscrete":
        nvec = np.array(data["nvec"], np.int64)
        return spaces.MultiDiscrete(nvec, start=np.array(data.get("start", np.zeros_like(nvec)), np.int64))
    if kind == "MultiBinary":
        return spaces.MultiBinary(data["n"])
    if kind == "Dict":
        return spaces.Dict({str(key): space_from_json(part) for key, part in data["subspaces"].items()})
    if kind == "Tuple":
        return spaces.Tuple([space_from_json(part) for part in data["subspaces"]])
    raise ValueError(f"got the space {kind!r}; wanted Box, Discrete, MultiDiscrete, MultiBinary, Dict or Tuple")


def space_to_json(space: gym.Space[Any]) -> str:
    """A space in Minari's form; only those that agents support."""
    return json.dumps(_plain(space))


def _plain(space: gym.Space[Any]) -> dict[str, Any]:
    if isinstance(space, spaces.Box):
        low, high = space.low.tolist(), space.high.tolist()
        return {"type": "Box", "dtype": str(space.dtype), "shape": list(space.shape), "low": low, "high": high}
    if isinstance(space, spaces.Discrete):
        return {"type": "Discrete", "dtype": "int64", "start": int(space.start), "n": int(space.n)}
    if isinstance(space, spaces.MultiDiscrete):
        start = space.start.tolist()
        return {"type": "MultiDiscrete", "dtype": str(space.dtype), "nvec": space.nvec.tolist(), "start": start}
    if isinstance(space, spaces.MultiBinary):
        n = space.n if isinstance(space.n, int) else [int(k) for k in space.n]
        return {"type": "MultiBinary", "n": n}
    assert isinstance(space, spaces.Dict)
    return {"type": "Dict", "subspaces": {key: _plain(part) for key, part in space.items()}}


def environment_spec(env: str | None, settings: Mapping[str, Any]) -> str | None:
    """Gymnasium's spec of a registered environment as JSON, from which Minari makes it; None if it cannot."""
    if env is None or env not in gym.registry or is_atari(gym.spec(env)):  # Atari has settings of our own
        return None
    spec = copy.deepcopy(gym.spec(env))
    own = dict(settings)
    if "max_episode_steps" in own:
        spec.max_episode_steps = own.pop("max_episode_steps")
    spec.kwargs.update(own)
    try:
        return spec.to_json()
    except (TypeError, ValueError):  # an entry point or a setting that is not plain data
        return None


def id_of_folder(folder: Path, name: str) -> str:
    """The Minari id of a dataset's folder.

    Raises:
        DatasetError: if the folder's name does not end in a version, as Minari wants.
    """
    if _NAME.fullmatch(folder.name) is None:
        raise DatasetError(f"dataset: got {name!r}; wanted a name that ends in a version, as medium-v0")
    return name if not name.startswith(("/", ".", "~")) else folder.name
