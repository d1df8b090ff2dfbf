"""Episodes in an HDF5 file as Minari lays them out: written one by one, and read by number.

| in group ``episode_k`` | rows | |
|---|---|---|
| ``observations`` | T + 1 | a group of arrays for a Dict or Tuple space |
| ``actions``, ``rewards``, ``terminations``, ``truncations`` | T | |
| ``infos/action_mask`` | T + 1 | legal actions at each observation |
| ``infos/log_prob``, ``infos/draw`` | T + 1 | of the action that follows the observation; the last row is 0 |
| attributes ``id``, ``seed``, ``total_steps`` | | |

``infos/log_prob`` and ``infos/draw`` are ours. They have T + 1 rows because Minari's Arrow format wants as many infos
as observations.

h5py's convenient calls take a millisecond for an episode; its low-level ones, used here, a third of that, which counts
where episodes are short.

Nothing in a file is run: values are numbers, and only plain arrays of this file are read. Links to other files,
arrays kept in other files and virtual arrays are refused.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mlbits.agents.memory.dataset_spaces import DatasetError
from mlbits.envs.engine.memory import memory_bytes

Path_ = tuple[str, ...]
_FLAGS = ("terminations", "truncations")
_MOST_CACHED = 4096
_COMPACT_BYTES = 8192
_SMALL_BYTES, _MOST_RATIO = 1 << 20, 1100  # gzip packs at most 1032 bytes into one
_CHUNK_BYTES = 1 << 18
_IMAGE_BYTES = 1024  # arrays of bytes with rows of at least this size are compressed


def h5py_module() -> Any:
    """The package h5py.

    Raises:
        DatasetError: if it is not installed.
    """
    try:
        import h5py
    except ImportError:
        raise DatasetError('datasets need the package h5py; wanted pip install "mlbits[data]"') from None
    return h5py


class EpisodeFile:
    """Write episodes to a new HDF5 file.

    Episodes may be written in any order of their numbers; numbers that were left out are closed up in the end.

    Args:
        path: the file, which must not exist.

    Attributes:
        episodes: how many were begun.
        steps: how many steps were written.
    """

    def __init__(self, path: Path) -> None:
        h5py = h5py_module()
        # The format of HDF5 1.10 is a third smaller for short episodes than the oldest one, and read by all of today's.
        self._file = h5py.File(path, "x", libver=("v110", "v110"))
        self._h5, self._types, self._spaces = h5py, dict[Any, Any](), dict[Any, Any]()
        # Small arrays stand within the file's description of them, others apart from it.
        self._within, self._apart = (h5py.h5p.create(h5py.h5p.DATASET_CREATE) for _ in range(2))
        self._within.set_layout(h5py.h5d.COMPACT)
        for plan in (self._within, self._apart):
            plan.set_obj_track_times(False)
        self._scalar = h5py.h5s.create(h5py.h5s.SCALAR)
        # Flags that are the same in many episodes are stored once and linked to.
        self._flags: dict[Any, Any] = {}
        self.episodes = self.steps = 0
        self._numbers_end = 0

    def write(self, number: int, arrays: Mapping[Path_, NDArray[Any]], attributes: Mapping[str, int]) -> None:
        """Write a whole episode.

        Args:
            number: of the episode, from 0.
            arrays: by their paths in the episode's group; with "rewards".
            attributes: integers by name, besides "id" and "total_steps".
        """
        steps = len(arrays["rewards",])
        group = self._begin(number, attributes)
        self._attribute(group, b"total_steps", steps)
        inner: dict[Path_, Any] = {(): group}
        for path, array in arrays.items():
            self._array(self._group(inner, path[:-1]), path[-1], np.ascontiguousarray(array))
        self.steps += steps

    def begin(self, number: int, attributes: Mapping[str, int]) -> EpisodeInParts:
        """Begin episode ``number``, written in parts because it does not fit in memory."""
        return EpisodeInParts(self, self._h5.Group(self._begin(number, attributes)))

    def close(self) -> None:
        """Close up the numbers, and write what is still in memory."""
        self._flags.clear()
        if self._file and self._numbers_end > self.episodes:
            self._close_up()
        self._file.close()

    def _close_up(self) -> None:
        free = 0
        for number in range(self._numbers_end):
            if f"episode_{number}" in self._file:
                if free < number:
                    self._file.move(f"episode_{number}", f"episode_{free}")
                    self._file[f"episode_{free}"].attrs["id"] = free
                free += 1

    def _begin(self, number: int, attributes: Mapping[str, int]) -> Any:
        group = self._h5.h5g.create(self._file.id, b"episode_%d" % number)
        self._attribute(group, b"id", number)
        self._numbers_end = max(self._numbers_end, number + 1)
        for name, value in attributes.items():
            self._attribute(group, name.encode(), value)
        self.episodes += 1
        return group

    def _attribute(self, group: Any, name: bytes, value: int) -> None:
        kind, held = (self._h5.h5t.NATIVE_INT64, np.int64) if value < 2**63 else (self._h5.h5t.NATIVE_UINT64, np.uint64)
        self._h5.h5a.create(group, name, kind, self._scalar).write(np.array(value, held), kind)

    def _group(self, inner: dict[Path_, Any], path: Path_) -> Any:
        if path not in inner:
            inner[path] = self._h5.h5g.create(self._group(inner, path[:-1]), path[-1].encode())
        return inner[path]

    def _array(self, group: Any, name: str, array: NDArray[Any]) -> None:
        h5, key = self._h5, name.encode()
        if array.dtype == np.uint8 and _is_image(array):
            _create(h5.Group(group), name, array)
            return
        same = None
        if name in _FLAGS and not array[:-1].any():
            same = (name, len(array), bool(array[-1]))
            if same in self._flags:
                h5.h5o.link(self._flags[same], group, key)
                return
        kind = self._types.get(array.dtype)
        if kind is None:
            kind = self._types[array.dtype] = h5.h5t.py_create(array.dtype, logical=True)
        space = self._spaces.get(array.shape)
        if space is None:
            if len(self._spaces) >= _MOST_CACHED:
                self._spaces.clear()
            space = self._spaces[array.shape] = h5.h5s.create_simple(array.shape)
        plan = self._within if array.nbytes <= _COMPACT_BYTES else self._apart
        made = h5.h5d.create(group, key, kind, space, plan)
        made.write(h5.h5s.ALL, h5.h5s.ALL, array, kind)
        if same is not None and len(self._flags) < _MOST_CACHED:
            self._flags[same] = made


class EpisodeInParts:
    """An episode that is written in parts; begun by :meth:`EpisodeFile.begin`."""

    def __init__(self, file: EpisodeFile, group: Any) -> None:
        self._file, self._group = file, group

    def append(self, arrays: Mapping[Path_, NDArray[Any]]) -> None:
        """Append rows to the episode's arrays."""
        for path, array in arrays.items():
            name = "/".join(path)
            if name not in self._group:
                _create(self._group, name, array)
                continue
            kept = self._group[name]
            kept.resize(len(kept) + len(array), axis=0)
            kept[len(kept) - len(array) :] = array

    def end(self) -> None:
        """Finish the episode."""
        steps = len(self._group["rewards"])
        self._group.attrs["total_steps"] = steps
        self._file.steps += steps


def _is_image(array: NDArray[Any]) -> bool:
    return array.dtype == np.uint8 and array[:1].nbytes >= _IMAGE_BYTES


def _create(group: Any, name: str, array: NDArray[Any]) -> None:
    """Create an array in chunks, which can grow; images are compressed, without loss."""
    rows = min(4096, max(1, _CHUNK_BYTES // max(1, array[:1].nbytes)))
    how: dict[str, Any] = {"compression": "gzip", "compression_opts": 1} if _is_image(array) else {}
    shape = array.shape[1:]
    group.create_dataset(name, data=array, maxshape=(None, *shape), chunks=(rows, *shape), **how)


def read_hdf5_episodes(
    path: Path, name: str, count: int, observation_space: gym.Space[Any], action_space: gym.Space[Any], own_infos: bool
) -> Iterator[dict[str, Any]]:
    """The episodes of a file in the order of their numbers (HDF5 itself lists them as 0, 1, 10, 11, ...).

    Args:
        path: the file.
        name: of the dataset, for messages.
        count: how many there must be.
        observation_space: as recorded.
        action_space: as recorded.
        own_infos: whether infos are as :class:`EpisodeFile` writes them.

    Yields:
        Fields of :class:`~mlbits.agents.memory.dataset.Episode` by name.

    Raises:
        DatasetError: if the file is damaged, or an episode or one of its arrays is missing; named.
    """
    h5py = h5py_module()
    try:
        file = h5py.File(path, "r")
        held = len(file)
    except (OSError, RuntimeError) as error:
        raise DatasetError(f"{name}: {path.name}: damaged or half written ({error})") from None
    with file:
        if held != count:
            raise DatasetError(
                f"{name}: {path.name}: holds {held} groups; wanted the {count} episodes of its metadata's "
                "total_episodes (half written?)"
            )
        reader = _Reader(h5py, observation_space, action_space, own_infos)
        for number in range(count):
            where = f"{name}: episode {number}"
            try:
                yield reader.episode(file.id, number, where)
            except DatasetError:
                raise
            except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
                raise DatasetError(f"{where}: damaged ({error})") from None


class _Reader:
    """Reads episodes from groups of an open file."""

    def __init__(self, h5py: Any, seen: gym.Space[Any], played: gym.Space[Any], own_infos: bool) -> None:
        self._h5, self._seen, self._played, self._own = h5py, seen, played, own_infos
        self._bytes, self._memory = 0, memory_bytes()
        # Types of arrays met so far: in the file, in memory, and NumPy's.
        self._kinds: list[tuple[Any, Any, np.dtype[Any]]] = []

    def episode(self, file: Any, number: int, where: str) -> dict[str, Any]:
        """The fields of an episode."""
        group = self._group(file, f"episode_{number}", where)
        found: dict[str, Any] = {"obs": self._values(group, "observations", self._seen, f"{where}: obs")}
        found["action"] = self._values(group, "actions", self._played, f"{where}: action")
        for field, array in (("reward", "rewards"), ("terminated", "terminations"), ("truncated", "truncations")):
            found[field] = self._rows(group, array, f"{where}: {field}")
        found["seed"] = self._integer(group, b"seed", f"{where}: seed")
        steps = self._integer(group, b"total_steps", f"{where}: total_steps")
        if steps not in (None, len(found["reward"])):
            raise DatasetError(f"{where}: reward: got {len(found['reward'])} rows; wanted total_steps, {steps}")
        if group.links.exists(b"infos"):
            found |= self._infos(self._group(group, "infos", f"{where}: infos"), len(found["reward"]), where)
        return found

    def _infos(self, infos: Any, steps: int, where: str) -> dict[str, NDArray[Any]]:
        found = {}
        for field in ("log_prob", "draw") if self._own else ():
            if infos.links.exists(field.encode()):
                rows = self._rows(infos, field, f"{where}: {field}")
                if len(rows) != steps + 1:
                    got = f"{len(rows)} rows; wanted {steps + 1}, one more than steps"
                    raise DatasetError(f"{where}: {field}: got {got}")
                found[field] = rows[:-1]
        if isinstance(self._played, (spaces.Discrete, spaces.MultiDiscrete)) and infos.links.exists(b"action_mask"):
            found["mask"] = self._rows(infos, "action_mask", f"{where}: mask").astype(bool)
        return found

    def _values(self, group: Any, name: str, space: gym.Space[Any], where: str) -> Any:
        """The array of a space, or a dict or list of them for Dict and Tuple."""
        if isinstance(space, spaces.Dict):
            inner = self._group(group, name, where)
            return {key: self._values(inner, key, part, f"{where}[{key!r}]") for key, part in space.items()}
        if isinstance(space, spaces.Tuple):
            inner = self._group(group, name, where)
            return [self._values(inner, f"_index_{k}", part, f"{where}[{k}]") for k, part in enumerate(space)]
        array = self._rows(group, name, where)
        if isinstance(space, spaces.Box) and space.dtype == np.uint8 and array.ndim <= 2 < len(space.shape) + 1:
            return decoded_images(array, space.shape, where)
        return array

    def _check_link(self, group: Any, name: str, where: str) -> bytes:
        key = name.encode()
        try:
            kind = group.links.get_info(key).type
        except (KeyError, RuntimeError):
            raise DatasetError(f"{where}: missing") from None
        if kind != self._h5.h5l.TYPE_HARD:
            raise DatasetError(f"{where}: is a link; wanted an array of this file")
        return key

    def _group(self, group: Any, name: str, where: str) -> Any:
        found = self._h5.h5o.open(group, self._check_link(group, name, where))
        if not isinstance(found, self._h5.h5g.GroupID):
            raise DatasetError(f"{where}: got an array; wanted a group")
        return found

    def _rows(self, group: Any, name: str, where: str) -> NDArray[Any]:
        """An array of a group."""
        found = self._h5.h5o.open(group, self._check_link(group, name, where))
        if not isinstance(found, self._h5.h5d.DatasetID):
            raise DatasetError(f"{where}: got a group; wanted an array")
        if found.get_offset() is None:  # not in one piece in this file
            plan = found.get_create_plist()
            layout = plan.get_layout()
            if layout == self._h5.h5d.VIRTUAL or (layout == self._h5.h5d.CONTIGUOUS and plan.get_external_count()):
                raise DatasetError(f"{where}: its numbers are in another file; wanted an array of this file")
        stored = found.get_type()
        mtype, kind = next((kinds for known, *kinds in self._kinds if known == stored), (None, None))
        if kind is None:
            kind = found.dtype
            mtype = self._h5.h5t.py_create(kind) if kind.kind in "biuf" else None
            self._kinds.append((stored, mtype, kind))
        if kind.kind == "O" and self._h5.check_vlen_dtype(kind) == np.uint8:
            return np.asarray(self._h5.Dataset(found)[()])
        if kind.kind not in "biuf":
            raise DatasetError(f"{where}: got {kind}; wanted numbers")
        shape = found.shape
        self._check_size(found, shape, kind, where)
        array = np.empty(shape, kind)
        found.read(self._h5.h5s.ALL, self._h5.h5s.ALL, array, mtype)
        return array

    def _check_size(self, found: Any, shape: tuple[int, ...], kind: np.dtype[Any], where: str) -> None:
        """Refuse an array that says to be far larger than what is stored, or more of them than memory holds."""
        size = math.prod(shape) * kind.itemsize
        self._bytes += size
        if size > _SMALL_BYTES and size > _MOST_RATIO * found.get_storage_size():
            got = f"{size:,} bytes of which {found.get_storage_size():,} are stored"
            raise DatasetError(f"{where}: got {got}; wanted an array that is whole")
        if self._bytes > self._memory:
            raise DatasetError(
                f"{where}: got {self._bytes:,} bytes so far; wanted a dataset that fits into memory "
                f"({self._memory:,.0f} bytes)"
            )

    def _integer(self, group: Any, name: bytes, where: str) -> int | None:
        """An integer attribute, or None."""
        if not self._h5.h5a.exists(group, name):
            return None
        attribute = self._h5.h5a.open(group, name)
        kind, shape = attribute.dtype, attribute.shape
        if kind.kind not in "iu" or shape not in ((), (1,)):
            raise DatasetError(f"{where}: got {kind} {shape}; wanted an integer")
        value = np.empty(shape, kind)
        attribute.read(value)
        return int(value.item())


def decoded_images(rows: NDArray[Any], shape: tuple[int, ...], where: str) -> NDArray[np.uint8]:
    """Images [n, *shape] from Minari's JPEG encoding.

    Raises:
        DatasetError: for an image of another size, or none.
    """
    from PIL import Image

    found = np.empty((len(rows), *shape), np.uint8)
    for step, row in enumerate(rows):
        try:
            image = Image.open(io.BytesIO(np.asarray(row, np.uint8).tobytes()), formats=["JPEG"])
            if image.size != (shape[1], shape[0]):
                raise DatasetError(f"{where}: got an image of {image.size} at step {step}; wanted {shape}")
            found[step] = np.asarray(image).reshape(shape)
        except (OSError, ValueError) as error:
            if isinstance(error, DatasetError):
                raise
            raise DatasetError(f"{where}: image {step}: damaged ({error})") from None
    return found
