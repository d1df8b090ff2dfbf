"""The dataset of a run: read by name, with a hash of its content, and checked against the run's environment."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import torch

from mlbits.agents.memory.dataset import Dataset
from mlbits.agents.memory.dataset_spaces import same_space
from mlbits.envs.doors.gymnasium_batch import AnyBatch
from mlbits.envs.doors.gymnasium_ids import check_env_id
from mlbits.envs.origins import own_folders
from mlbits.selfplay.runs.config import ConfigError

_ARRAYS = ("obs", "action", "reward", "terminated", "truncated", "starts", "mask")


def read_data(name: str) -> Dataset:
    """A dataset by its Minari name or its folder.

    Raises:
        DatasetError: if there is none, or it is damaged; names the episode and the field.
    """
    from mlbits.agents.memory.minari import read_dataset

    return read_dataset(name)


def lasting_name(name: str) -> str:
    """The name under which a dataset is found from any working folder: of a folder its absolute path."""
    return str(Path(name).resolve()) if Path(name).exists() else name


def environment_of(name: str) -> tuple[str, dict[str, Any]]:
    """The environment that a dataset was recorded in: its id and settings.

    A module that a dataset names is not looked for in the working folder; see :mod:`mlbits.envs.origins`.

    Raises:
        DatasetError: if the dataset cannot be read.
        GameError: if the module that registers the environment cannot be imported.
        ConfigError: if it does not name its environment.
    """
    data = read_data(name)
    if not data.env:
        raise ConfigError(
            f"ENV missing: the dataset {name} does not name its environment; wanted its id after the agent"
        )
    return check_env_id(data.env, own_folders()) if ":" in data.env else data.env, dict(data.settings)


def data_hash(data: Dataset) -> str:
    """A hash of the steps of a dataset, 64 hexadecimal digits: the same wherever and under what name it is stored."""
    found = hashlib.sha256(f"{data.observation_space} {data.action_space}".encode())
    for name in _ARRAYS:
        value = getattr(data, name)
        parts = sorted(value.items()) if isinstance(value, dict) else [("", value)] if value is not None else []
        for key, part in parts:
            plain = part.detach().cpu().contiguous()
            found.update(f"{name} {key} {plain.dtype} {tuple(plain.shape)}".encode())
            found.update(plain.flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def check_same(name: str, data: Dataset, wanted: str) -> str:
    """The hash of a dataset, which is the wanted one if there is one.

    Args:
        name: of the dataset.
        data: the dataset.
        wanted: its hash, or "" for any.

    Raises:
        ConfigError: if it is another one.
    """
    found = data_hash(data)
    if wanted and found != wanted:
        raise ConfigError(
            f"data: the content of {name} has the hash {found[:16]}...; wanted {wanted[:16]}..., that of the dataset "
            "this run began with (a run keeps to one dataset; for another one start a new run)"
        )
    return found


def check_environment(data: Dataset, env: str, batch: AnyBatch) -> None:
    """Refuse a dataset of another environment.

    Args:
        data: the dataset.
        env: the environment's id.
        batch: a batch of it.

    Raises:
        ConfigError: naming what differs.
    """
    if batch.num_seats != 1:
        raise ConfigError(f"data: {env} has {batch.num_seats} seats; wanted an environment with one, as datasets have")
    if data.env and _kind(data.env) != _kind(env):
        raise ConfigError(f"data: {data.name} was recorded in {data.env}; wanted a dataset of {env}")
    for what in ("observation_space", "action_space"):
        theirs, ours = getattr(data, what), getattr(batch, what)
        if not same_space(theirs, ours, bounds=what == "action_space"):
            raise ConfigError(
                f"data: the {what.replace('_', ' ')} of {data.name} is {theirs}; wanted {ours}, as {env}'s"
            )


def _kind(env: str) -> str:
    """An id without namespace and version: of mlbits/Pendulum-v0 and Pendulum-v1 it is the same."""
    return re.sub(r"-v\d+$", "", env.rpartition("/")[2]).lower()
