"""``njit`` for kernels outside games, with a disk cache that notices every change of what the kernel depends on.

With ``cache=True`` Numba checks only the function's own file. A kernel that calls one in another file
therefore stays stale after that file is edited, or after an upgrade. Here the cache key includes the kernel's
:func:`~mlbits.envs.engine.fingerprint.fingerprint`, computed when the kernel is first called; a kernel that depends on
something that cannot be hashed is compiled in every process.

Example:
    >>> @njit()  # in a file, where kernels can be cached: @njit(cache=True)
    ... def double(x):
    ...     return 2 * x
    >>> double(4)
    8
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

from mlbits.envs.core.private_folders import private_folder
from mlbits.envs.engine.checked_cache import CheckedCache
from mlbits.envs.engine.fingerprint import fingerprint

_checked: Any = CheckedCache  # untyped
_log = logging.getLogger(__name__)
_numba_config: Any = numba.config  # its attributes are set at run time


def njit(*, cache: bool = False, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """``numba.njit`` with a cache keyed on everything the kernel depends on.

    Args:
        cache: whether machine code is cached on disk.
        options: options of ``numba.njit``.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher: Any = numba.njit(**options)(function)
        if cache and not _numba_config.DISABLE_JIT:
            try:
                dispatcher._cache = _Cache(dispatcher)
            except RuntimeError as error:  # neither the file's folder nor the user's home can be written
                _log.debug("%s: compiled, not cached: %s", dispatcher, error)
        return dispatcher

    return decorate


class _Cache(CheckedCache):
    """The disk cache of one kernel."""

    def __init__(self, dispatcher: Any) -> None:
        _checked.__init__(self, dispatcher.py_func)
        self._dispatcher = dispatcher

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        return (*_checked._index_key(self, sig, codegen), fingerprint({"kernel": self._dispatcher}).digest)

    def _usable(self) -> bool:
        """Whether the kernel can be hashed, and only this user can write into the folder of its machine code."""
        # Beside a source file this is Python's own folder of compiled code, which a group may share.
        if private_folder(Path(self.cache_path), "machine code is not cached", group=False) is None:
            return False
        unhashable = fingerprint({"kernel": self._dispatcher}).unhashable
        if unhashable:
            _log.debug("%s: compiled, not cached: cannot hash %s", self._dispatcher, "; ".join(unhashable))
        return not unhashable

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The cached machine code of a signature, or None."""
        return _checked.load_overload(self, sig, target_context) if self._usable() else None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Cache the machine code of a signature."""
        if self._usable():
            _checked.save_overload(self, sig, data)
