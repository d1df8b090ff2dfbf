"""Datasets in Minari's format: read into memory, checked, and written so that Minari and its readers take them.

A dataset has an id, "cartpole/medium-v0", and stands in a folder of that name in ``$MINARI_DATASETS_PATH`` (else
``~/.minari/datasets``); or it is a folder of its own. ``data/metadata.json`` describes it; ``data/main_data.hdf5``
holds its episodes (:mod:`~mlbits.agents.memory.hdf5_episodes`). Arrow and Parquet are read by Minari's own reader.

**Reading is safe.** No pickle, no import: an environment is taken from the metadata as an id and plain settings, and
only if it is registered already; the entry points and wrappers in an ``env_spec`` are never imported. Minari's own
``load_dataset`` makes the environment, by whatever entry point the file names, if the metadata lack a space.

**Reading is all or nothing.** Episodes are read in the order of their numbers and checked
(:mod:`~mlbits.agents.memory.dataset_checks`); what is half written, damaged, ragged or out of its space is an error
that names dataset, episode and field. Files that we wrote are compared with their SHA-256.

**Writing is atomic.** Episodes go to a hidden folder beside the dataset's, which is renamed when it is complete; a
writer that is killed leaves nothing under the dataset's name.

Example:
    write_dataset(dataset, "cartpole/mixed-v0")
    data = read_dataset("cartpole/mixed-v0")
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mlbits.agents.memory.dataset import Dataset, DatasetBuilder, Episode
from mlbits.agents.memory.dataset_spaces import DatasetError
from mlbits.agents.memory.hdf5_episodes import EpisodeFile, EpisodeInParts, read_hdf5_episodes
from mlbits.agents.memory.minari_metadata import (
    environment_of,
    environment_spec,
    id_of_folder,
    read_metadata,
    space_to_json,
    spaces_of,
)
from mlbits.version import __version__

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_MAIN, _METADATA = "main_data.hdf5", "metadata.json"
_ID = re.compile(r"(?:[\w-]+/)*[\w-]+-v\d+")
_PARTIAL, _LOCK = ".recording", "lock"
_FORMAT = "0.5.4"  # Minari's version whose format this is


def dataset_folder(name: str | Path) -> Path:
    """The folder of a dataset.

    Args:
        name: an id, or a path: of an existing folder, or one that begins with "/", "." or "~".

    Raises:
        DatasetError: if it is neither.
    """
    text = str(name)
    path = Path(text).expanduser()
    if text.startswith(("/", ".", "~")) or (path / "data" / _METADATA).exists() or (path / _METADATA).exists():
        return path.parent if path.name == "data" else path
    if _ID.fullmatch(text) is None:
        raise DatasetError(f"dataset: got {text!r}; wanted an id with a version, as cartpole/medium-v0, or a folder")
    root = os.environ.get("MINARI_DATASETS_PATH")
    return (Path(root) if root else Path.home() / ".minari" / "datasets") / text


def read_dataset(name: str | Path) -> Dataset:
    """Read a dataset into memory.

    Args:
        name: a Minari id, or the folder of a dataset.

    Raises:
        DatasetError: if there is none, or something in it is wrong; names dataset, episode and field.
    """
    label = str(name)
    data = _data_folder(dataset_folder(name), label)
    metadata = read_metadata(data / _METADATA, label)
    env, settings = environment_of(metadata, label)
    seen, played = spaces_of(metadata, env, settings, label)
    own = isinstance(metadata.get("mlbits"), dict)
    count, steps = (_positive(metadata, key, label) for key in ("total_episodes", "total_steps"))
    kind = metadata.get("data_format", "hdf5")
    if kind == "hdf5":
        if not (data / _MAIN).is_file():
            raise DatasetError(f"{label}: {_MAIN}: missing")
        _check_digest(data / _MAIN, metadata, label)
        episodes = read_hdf5_episodes(data / _MAIN, label, count, seen, played, own)
    elif kind in ("arrow", "parquet"):
        from mlbits.agents.memory.minari_arrow import read_arrow_episodes

        episodes = read_arrow_episodes(data, kind, label, count, seen, played, metadata)
    else:
        raise DatasetError(f"{label}: metadata: data_format: got {kind!r}; wanted hdf5, arrow or parquet")
    builder = DatasetBuilder(seen, played, env=env, settings=settings, name=label, steps=min(steps + count, 1 << 24))
    for fields in episodes:
        builder.add(Episode(**fields))
    found = builder.dataset()
    if found.num_steps != steps:
        raise DatasetError(f"{label}: metadata: total_steps: got {steps}; the episodes have {found.num_steps}")
    return found


def _positive(metadata: Mapping[str, Any], key: str, label: str) -> int:
    value = metadata.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise DatasetError(f"{label}: metadata: {key}: got {value!r}; wanted a positive integer")
    return value


def _data_folder(folder: Path, label: str) -> Path:
    data = folder / "data" if (folder / "data").is_dir() else folder
    if (data / _METADATA).is_file():
        return data
    if not folder.exists():
        hint = "" if str(folder) == label else f" at {folder}"
        raise DatasetError(
            f"dataset: {label}: not found{hint}; wanted a recorded one (mlbits record), or minari download"
        )
    raise DatasetError(f"dataset: {label}: no dataset ({_METADATA} is missing in {data})")


def _check_digest(path: Path, metadata: Mapping[str, Any], label: str) -> None:
    own = metadata.get("mlbits")
    known = own.get("sha256") if isinstance(own, dict) else None
    totals = own.get("totals") if isinstance(own, dict) else None
    if known is None or totals != [metadata.get("total_episodes"), metadata.get("total_steps")]:
        return  # another program's, or one has added to it since
    if _sha256(path) != known:
        raise DatasetError(f"{label}: {path.name}: damaged, or changed since it was written: its SHA-256 differs")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_dataset(dataset: Dataset, name: str | Path, about: Mapping[str, Any] | None = None) -> Path:
    """Write a dataset in Minari's format.

    Args:
        dataset: the dataset.
        name: a new Minari id, or a new folder.
        about: what to note in the metadata, as plain data.

    Returns:
        Its folder.

    Raises:
        DatasetError: if the name is taken or not an id, or the folder cannot be written.
    """
    with DatasetWriter(
        name, dataset.observation_space, dataset.action_space, env=dataset.env, settings=dataset.settings, about=about
    ) as writer:
        for number in range(dataset.num_episodes):
            writer.write(number, dataset.episode(number))
        return writer.publish()


def check_new(name: str | Path) -> Path:
    """The folder for a new dataset.

    Raises:
        DatasetError: if the name is not an id, or is taken.
    """
    folder = dataset_folder(name)
    id_of_folder(folder, str(name))
    if folder.exists():
        raise DatasetError(f"dataset: {name} exists already ({folder}); wanted a new name")
    return folder


class DatasetWriter:
    """Write a dataset episode by episode, in constant memory; :meth:`publish` gives it its name.

    Used as a context: an error or a kill before :meth:`publish` leaves nothing under the name.

    Args:
        name: a new Minari id, or a new folder.
        observation_space: as agents see it.
        action_space: as agents see it.
        env: id of the environment, or None.
        settings: the environment's settings.
        about: what to note in the metadata, as plain data.

    Raises:
        DatasetError: if the name is taken or not an id, or the folder cannot be written.
    """

    def __init__(
        self,
        name: str | Path,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        env: str | None = None,
        settings: Mapping[str, Any] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.name = check_new(name), str(name)
        self._id = id_of_folder(self.folder, self.name)
        self._space = observation_space
        self._metadata: dict[str, Any] = {
            "data_format": "hdf5", "jpeg_encoding": False, "minari_version": _FORMAT, "dataset_id": self._id,
            "observation_space": space_to_json(observation_space), "action_space": space_to_json(action_space),
        }  # fmt: skip
        spec = environment_spec(env, settings or {})
        if spec is not None:
            self._metadata["env_spec"] = spec
        self._about = {"version": __version__, "env": env, "settings": dict(settings or {}), **(about or {})}
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            _remove_stale(self.folder)
            self._partial = Path(tempfile.mkdtemp(prefix=f".{self.folder.name}{_PARTIAL}-", dir=self.folder.parent))
            self._lock = _locked(self._partial / _LOCK)
            (self._partial / "data").mkdir()
        except OSError as error:
            why = error.strerror or error
            raise DatasetError(f"dataset: {self.folder} cannot be written ({why}); wanted a writable folder") from None
        self._file = EpisodeFile(self._partial / "data" / _MAIN)

    @property
    def episodes(self) -> int:
        """How many episodes were begun."""
        return self._file.episodes

    @property
    def steps(self) -> int:
        """Steps of the episodes that are complete."""
        return self._file.steps

    def write(self, number: int, episode: Episode, **attributes: int) -> None:
        """Write a whole episode, whose fields must fit the spaces.

        Args:
            number: of the episode, from 0; in any order, and numbers left out are closed up in the end.
            episode: the episode.
            attributes: further integers to keep with it.
        """
        self._file.write(number, self._arrays(episode, last=True), self._attributes(episode.seed, attributes))

    def begin(self, number: int, seed: int, **attributes: int) -> EpisodeInParts:
        """Begin an episode that is written in parts by :meth:`append`; its own ``end`` finishes it."""
        return self._file.begin(number, self._attributes(seed, attributes))

    def append(self, parts: EpisodeInParts, episode: Episode, *, last: bool) -> None:
        """Append steps to an episode; observations and masks have one more row only in its ``last`` part."""
        parts.append(self._arrays(episode, last=last))

    def _attributes(self, seed: int, more: Mapping[str, int]) -> dict[str, int]:
        return ({} if seed < 0 else {"seed": seed}) | dict(more)

    def _arrays(self, episode: Episode, *, last: bool) -> dict[tuple[str, ...], NDArray[Any]]:
        steps = len(episode.reward)
        flags = [
            np.zeros(steps, bool) if flag is None else _numpy(flag) for flag in (episode.terminated, episode.truncated)
        ]
        found: dict[tuple[str, ...], NDArray[Any]] = {}
        if isinstance(self._space, spaces.Dict):
            for key, part in self._space.items():
                found["observations", key] = _numpy(episode.obs[key]).astype(part.dtype, copy=False)
        else:
            found["observations",] = _numpy(episode.obs).astype(self._space.dtype, copy=False)
        found["actions",], found["rewards",] = _numpy(episode.action), _numpy(episode.reward)
        found["terminations",], found["truncations",] = flags
        if episode.mask is not None:
            found["infos", "action_mask"] = _numpy(episode.mask).astype(np.int8)
        for name in ("log_prob", "draw"):
            value = getattr(episode, name)
            if value is not None:
                array = _numpy(value)
                found["infos", name] = np.concatenate([array, np.zeros_like(array[:1])]) if last else array
        return found

    def publish(self, **about: Any) -> Path:
        """Finish the dataset and give it its name.

        Args:
            about: further notes for the metadata.

        Raises:
            DatasetError: if there are no episodes, or the name was taken meanwhile.
        """
        if not self._file.steps:
            raise DatasetError(f"{self.name}: got no episodes; wanted at least one")
        self._file.close()
        main = self._partial / "data" / _MAIN
        totals = [self._file.episodes, self._file.steps]
        notes = self._about | about | {"totals": totals, "sha256": _sha256(main)}
        metadata = self._metadata | {
            "total_episodes": totals[0], "total_steps": totals[1], "mlbits": notes,
            "dataset_size": round(main.stat().st_size / 1e6, 1),
        }  # fmt: skip
        text = self._partial / "data" / _METADATA
        text.write_text(json.dumps(metadata))
        self._unlock()
        for path in (main, text, self._partial / "data", self._partial):
            _sync(path)
        self._partial.chmod(0o777 & ~_umask())
        try:
            self._partial.rename(self.folder)
        except OSError:
            raise DatasetError(f"dataset: {self.name} exists already ({self.folder}); wanted a new name") from None
        _sync(self.folder.parent)
        return self.folder

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(Exception):
            self._file.close()
        self._unlock()
        shutil.rmtree(self._partial, ignore_errors=True)

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            (self._partial / _LOCK).unlink(missing_ok=True)
        self._lock = None


def _numpy(value: Any) -> NDArray[Any]:
    return value.cpu().numpy() if hasattr(value, "cpu") else np.asarray(value)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _locked(path: Path) -> IO[bytes] | None:
    """The file, locked for as long as it is open; None where another process has it, or files cannot be locked."""
    if fcntl is None:
        return None
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def _remove_stale(folder: Path) -> None:
    """Remove what killed writers of this dataset left behind: their locks are free."""
    for path in folder.parent.glob(f".{folder.name}{_PARTIAL}-*"):
        if (path / _LOCK).exists() and (lock := _locked(path / _LOCK)) is not None:
            shutil.rmtree(path, ignore_errors=True)
            lock.close()
