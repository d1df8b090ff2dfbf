"""Numba's disk cache with digests: what is damaged is compiled anew.

Numba unpickles its index and machine code as they are, so that an empty or cut file is a traceback and a flipped bit
may be a crash, or a wrong number. Here the index begins with a mark and the SHA-256 digest of its content, and has
the digest of each file of machine code beside its name. What does not match counts as absent, and is written again. A
cache that cannot be written is done without.

A digest finds damage, not malice: whoever may write the files may write digests.
"""

from __future__ import annotations

import hashlib
import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from numba.core.caching import FunctionCache, IndexDataCacheFile

_numbas: Any = FunctionCache  # untyped
_numbas_file: Any = IndexDataCacheFile
_log = logging.getLogger(__name__)
_MARK = b"mlbits 1\n"
_HEAD = len(_MARK) + hashlib.sha256().digest_size


class CheckedCache(FunctionCache):
    """The disk cache of one function.

    Args:
        py_func: the function, before compilation.
    """

    def __init__(self, py_func: Any) -> None:
        _numbas.__init__(self, py_func)
        file: Any = self._cache_file
        file.__class__ = _CheckedFile

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The machine code of a signature, or None."""
        try:
            return _numbas.load_overload(self, sig, target_context)
        except Exception as error:  # whatever unpickling and linking raise: the cache is only to save time
            _log.debug("%s: not read from the cache: %r", self._name, error)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Cache the machine code of a signature, if the cache can be written."""
        try:
            _numbas.save_overload(self, sig, data)
        except OSError as error:
            _log.debug("%s: not cached: %s", self._name, error)


class _CheckedFile(IndexDataCacheFile):
    """The files of one function's cache: ``load``, ``save`` and ``flush``, as Numba calls them."""

    _index_path: str
    _version: str
    _source_stamp: Any

    def load(self, key: Any) -> Any:
        """The compiled code of a key, or None."""
        name, digest = self._load_index().get(key, ("", b""))
        data = _bytes(self._path(name)) if name else b""
        if not data or hashlib.sha256(data).digest() != digest:
            return None
        return pickle.loads(data)

    def save(self, key: Any, data: Any) -> None:
        """Store the compiled code of a key."""
        overloads, code = self._load_index(), _numbas_file._dump(self, data)
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
        content = _numbas_file._dump(self, (self._version, self._source_stamp, dict(overloads)))
        with self._writing(Path(self._index_path)) as file:
            file.write(_MARK + hashlib.sha256(content).digest() + content)

    def _name(self, number: int) -> str:
        return _numbas_file._data_name(self, number)

    def _path(self, name: str) -> Path:
        return Path(_numbas_file._data_path(self, name))

    def _writing(self, path: Path) -> Any:
        """Numba's own writing aside and renaming."""
        return _numbas_file._open_for_write(self, str(path))


def check_caches(module: ModuleType) -> None:
    """Put a checked cache in place of Numba's own one, for each compiled function of a module that has one."""
    for one in vars(module).values():
        if isinstance(getattr(one, "_cache", None), FunctionCache):
            one._cache = CheckedCache(one.py_func)


def _bytes(path: Path) -> bytes:
    """The content of a file; nothing if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError:
        return b""
