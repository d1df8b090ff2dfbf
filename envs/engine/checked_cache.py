"""Numba's disk cache with digests: what is damaged is compiled anew.

Numba unpickles its index and machine code as they are, so that an empty or cut file is a traceback and a flipped bit
may be a crash, or a wrong number. Here the index begins with a mark and the SHA-256 digest of its content, and has
the digest of each file of machine code beside its name. What does not match counts as absent, and is written again. A
cache that cannot be written is done without.

A digest finds damage, not malice: whoever may write the files may write digests.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from numba.core.caching import FunctionCache

from mlbits.envs.engine import compiling

_log = logging.getLogger(__name__)
_MARK = b"mlbits 1\n"
_HEAD = len(_MARK) + hashlib.sha256().digest_size
# What makes machine code for a GPU out of Numba's; a CUDA toolkit of another kind has the driver's version beside it.
_GPU_COMPILERS = ("numba-cuda", "cuda-bindings", "cuda-core", "nvidia-nvvm", "nvidia-nvjitlink", "nvidia-cuda-nvrtc",
                  "nvidia-cuda-nvcc-cu12", "nvidia-nvjitlink-cu12", "nvidia-cuda-nvrtc-cu12")  # fmt: skip


class _Checked:
    """What a disk cache of Numba's does here beside its own: all it reads is checked, and it fails silently."""

    def __init__(self, py_func: Any) -> None:
        super().__init__(py_func)  # type: ignore[call-arg]
        file: Any = self._cache_file  # type: ignore[attr-defined]
        numbas: Any = type(file)
        file.__class__ = _checked_file(numbas)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The machine code of a signature, or None."""
        try:
            return super().load_overload(sig, target_context)  # type: ignore[misc]
        except Exception as error:  # whatever unpickling and linking raise: the cache is only to save time
            _log.debug("%s: not read from the cache: %r", self._name, error)  # type: ignore[attr-defined]
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Cache the machine code of a signature, if the cache can be written."""
        try:
            super().save_overload(sig, data)  # type: ignore[misc]
        except (OSError, pickle.PicklingError) as error:
            _log.debug("%s: not cached: %s", self._name, error)  # type: ignore[attr-defined]


class CheckedCache(_Checked, FunctionCache):
    """The disk cache of one function for the CPU.

    Args:
        py_func: the function, before compilation.
    """


@functools.cache
def checked_gpu_cache(numbas: Any) -> Any:
    """The class of the disk cache of one kernel for a GPU, made from Numba's own class.

    Numba keys on the compute capability; this one also on the versions of the driver and of all that compiles.
    """

    class CheckedGpuCache(_Checked, numbas):
        dispatcher: Any

        def load_overload(self, sig: Any, target_context: Any) -> Any:
            found = super().load_overload(sig, target_context)
            if found is None:
                compiling.announce(self.dispatcher)
            return found

        def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
            return (*super()._index_key(sig, codegen), *gpu_versions())

    return CheckedGpuCache


@functools.cache
def gpu_versions() -> tuple[str, ...]:
    """The driver's version ("" if it cannot be asked), and the packages that compile for a GPU with theirs."""
    try:
        driver = ".".join(map(str, importlib.import_module("numba.cuda.cudadrv.driver").driver.get_version()))
    except Exception as error:  # whatever a driver that is absent or broken raises
        _log.debug("the driver's version cannot be asked: %r", error)
        driver = ""
    found = []
    for name in _GPU_COMPILERS:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return driver, *found


@functools.cache
def _checked_file(numbas: Any) -> Any:
    """The class of a cache's files: Numba's, of the CPU's cache or of the GPU's, with digests."""
    return type("_CheckedFileOf", (_CheckedFile, numbas), {})


class _CheckedFile:
    """The files of one function's cache: ``load``, ``save`` and ``flush``, as Numba calls them."""

    # Numba's own, of ``IndexDataCacheFile``.
    _index_path: str
    _version: str
    _source_stamp: Any
    _dump: Any
    _data_name: Any
    _data_path: Any
    _open_for_write: Any

    def load(self, key: Any) -> Any:
        """The compiled code of a key, or None."""
        name, digest = self._load_index().get(key, ("", b""))
        data = _bytes(self._path(name)) if name else b""
        if not data or hashlib.sha256(data).digest() != digest:
            return None
        return pickle.loads(data)

    def save(self, key: Any, data: Any) -> None:
        """Store the compiled code of a key."""
        overloads, code = self._load_index(), self._dump(data)
        taken, number = {name for name, _ in overloads.values()}, 1
        while self._name(number) in taken:
            number += 1
        name = overloads[key][0] if key in overloads else self._name(number)
        with self._writing(self._path(name)) as file:
            file.write(code)
        self._save_index(overloads | {key: (name, hashlib.sha256(code).digest())})

    def _load_index(self) -> dict[Any, tuple[str, bytes]]:
        data = _bytes(Path(self._index_path))
        digest, content = data[len(_MARK) : _HEAD], data[_HEAD:]
        if not data.startswith(_MARK) or digest != hashlib.sha256(content).digest():
            return {}
        version, stamp, overloads = pickle.loads(content)
        return overloads if (version, stamp) == (self._version, self._source_stamp) else {}

    def _save_index(self, overloads: Mapping[Any, tuple[str, bytes]]) -> None:
        content = self._dump((self._version, self._source_stamp, dict(overloads)))
        with self._writing(Path(self._index_path)) as file:
            file.write(_MARK + hashlib.sha256(content).digest() + content)

    def _name(self, number: int) -> str:
        return str(self._data_name(number))

    def _path(self, name: str) -> Path:
        return Path(self._data_path(name))

    def _writing(self, path: Path) -> Any:
        """Numba's own writing aside and renaming."""
        return self._open_for_write(str(path))


def check_caches(module: ModuleType) -> None:
    """Put a checked cache in place of Numba's own one, for each compiled function of a module that has one."""
    for one in vars(module).values():
        cache = getattr(one, "_cache", None)
        numbas: Any = type(cache)
        if isinstance(cache, FunctionCache):
            one._cache = CheckedCache(one.py_func)
        elif numbas.__name__ == "CUDACache":  # of numba-cuda, which may not be installed
            one._cache = checked_gpu_cache(numbas)(one.py_func)
            one._cache.dispatcher = one


def _bytes(path: Path) -> bytes:
    """The content of a file; nothing if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError:
        return b""
