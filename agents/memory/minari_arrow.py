"""Datasets in Minari's Arrow and Parquet formats, by Minari's own reader."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
from gymnasium import spaces

from mlbits.agents.memory.dataset_spaces import DatasetError


def read_arrow_episodes(
    folder: Path, kind: str, name: str, count: int, observation_space: gym.Space[Any], action_space: gym.Space[Any],
    metadata: Mapping[str, Any],
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """The episodes of a dataset in the order of their numbers.

    Args:
        folder: the one that holds the episodes' folders.
        kind: "arrow" or "parquet".
        name: of the dataset, for messages.
        count: how many episodes there must be.
        observation_space: as recorded.
        action_space: as recorded.
        metadata: of the dataset.

    Yields:
        Fields of :class:`~mlbits.agents.memory.dataset.Episode` by name.

    Raises:
        DatasetError: if packages are missing, or an episode is damaged or missing; named.
    """
    try:
        from minari.dataset._storages import get_minari_storage

        jpeg = bool(metadata.get("jpeg_encoding", True))
        storage = get_minari_storage(kind)(folder, observation_space, action_space, jpeg)
    except (ImportError, ValueError):
        wanted = 'pip install "mlbits[data]" "minari[arrow]>=0.5.3" "pyarrow>=15"'
        raise DatasetError(
            f"{name}: data_format {kind} needs the packages minari and pyarrow; wanted {wanted}"
        ) from None
    for number in range(count):
        where = f"{name}: episode {number}"
        if not (folder / str(number)).is_dir():
            raise DatasetError(f"{where}: missing")
        try:
            (about,) = storage.get_episode_metadata([number])
            parts = list(storage.get_episodes([number]))
            if len(parts) != 1:
                raise DatasetError(f"{where}: got {len(parts)} parts; wanted 1")
            episode = parts[0]
        except DatasetError:
            raise
        except Exception as error:  # Arrow raises errors of many classes for a damaged file
            raise DatasetError(f"{where}: damaged ({error})") from None
        found = {
            "obs": episode["observations"], "action": episode["actions"], "reward": episode["rewards"],
            "terminated": episode["terminations"], "truncated": episode["truncations"], "seed": about.get("seed"),
        }  # fmt: skip
        mask = (episode.get("infos") or {}).get("action_mask")
        if mask is not None and isinstance(action_space, spaces.Discrete):
            found["mask"] = mask.astype(bool)
        if about.get("total_steps") not in (None, len(found["reward"])):
            raise DatasetError(
                f"{where}: reward: got {len(found['reward'])} rows; wanted total_steps, {about['total_steps']}"
            )
        yield found
