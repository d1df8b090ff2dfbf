"""Compiles a game's rules into a driver that resets, steps and observes all its copies, and caches it on disk.

The driver is a small module of generated source (``driver_text``): the loop over copies and all that games share, with
calls of the game's own rules. On the CPU it is compiled by Numba with its disk cache on; on the GPU the same functions
are the body of a kernel with one thread per copy.

Why a generated module: a closure over the rules is recompiled in every process (Numba's cache keys on the
captured objects' identities), and functions cached one by one go stale when a function that they call in another
file is edited. So the source is written to the user's cache folder under a name hashed from itself and from everything
its rules depend on (``fingerprint``), with ``cache=True`` on the driver only; files of the cache that are damaged are
noticed and made again (``checked_cache``). Rules that cannot be imported by name, or
that depend on something that cannot be hashed, are compiled in memory.
The folder is ``$MLBITS_CACHE_DIR``, else ``$XDG_CACHE_HOME/mlbits``, else ``~/.cache/mlbits``. What is in it is run, so
it is used only if nobody else can write into it (:mod:`~mlbits.envs.core.private_folders`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from mlbits.envs.core.game import Game, Rule
from mlbits.envs.core.private_folders import home_folder, private_folder
from mlbits.envs.core.rules import rule
from mlbits.envs.engine.checked_cache import check_caches
from mlbits.envs.engine.driver_template import driver_text, importable, rules_of
from mlbits.envs.engine.fingerprint import Fingerprint, fingerprint

_log = logging.getLogger(__name__)
_UNUSED_AFTER_SECONDS = 30 * 24 * 3600


def cache_folder() -> Path | None:
    """The folder of generated drivers and their machine code; None for a user without a home folder."""
    if chosen := os.environ.get("MLBITS_CACHE_DIR"):
        return Path(chosen) / "drivers"
    base = home_folder("XDG_CACHE_HOME", ".cache")
    return None if base is None else base / "mlbits" / "drivers"


_loaded: dict[str, ModuleType] = {}
# Digest of each compiled function and what it reads, from when a driver that calls it was last loaded.
_read: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
_loaded_in_memory: dict[tuple[Any, ...], tuple[ModuleType, Fingerprint]] = {}


def load_driver(game: Game, target: str = "cpu") -> ModuleType:
    """Compile the driver of a game, or load it from the cache.

    Args:
        game: the game.
        target: "cpu", or "cuda" (needs the package numba-cuda).

    Returns:
        The generated module; ``run`` is the driver, ``run_parallel`` (CPU) the driver on several cores.
    """
    return load_generated(f"{game.name}_{target}", driver_text(game, target), rules_of(game))


def load_generated(name: str, text: str, rules: Mapping[str, Rule]) -> ModuleType:
    """Compile a generated module that calls rules, or load it from the cache.

    Args:
        name: a Python identifier; a hash is appended.
        text: its source, with ``cache=True`` on what it compiles.
        rules: the rules it calls, by the names used in ``text``, which itself imports those that can be imported.
    """
    found = fingerprint({**rules, "the driver's own decorator": rule}, text)
    name = f"mlbits_driver_{name}_{found.digest[:20]}"
    _recompile_changed(found)
    if found.unhashable:
        _log.debug("%s: compiled in memory, not cached: cannot hash %s", name, "; ".join(found.unhashable))
    elif all(importable(function) for function in rules.values()):
        if name not in _loaded:
            _loaded[name] = _load_from_folder(name, text)
        return _loaded[name]
    else:
        _log.debug("%s: compiled in memory, not cached: its rules cannot be imported by name", name)
    # Rules with equal text may close over different values or functions; identity distinguishes them in this process.
    key = (name, *rules.values())
    if key not in _loaded_in_memory:
        _loaded_in_memory[key] = (_load_in_memory(name, text, rules), found)
    return _loaded_in_memory[key][0]


def _recompile_changed(found: Fingerprint) -> None:
    """Recompile functions that Numba compiled in this process before something that they read changed.

    Numba compiles a function that is not inlined once, with the constants of that moment. A driver that calls it would
    contain the old constants, and would be cached on disk under the hash of the new ones.
    """
    changed = [one for one, digest in found.dispatchers if _read.setdefault(one, digest) != digest]
    if changed:
        for one, digest in found.dispatchers:  # callees first
            _read[one] = digest
            if one.overloads:
                one.recompile()


def _load_in_memory(name: str, text: str, rules: Mapping[str, Rule]) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(rules)
    exec(compile(text.replace("cache=True", "cache=False"), f"<{name}>", "exec"), vars(module))
    return module


def _load_from_folder(name: str, text: str) -> ModuleType:
    folder = private_folder(cache_folder(), "machine code is not cached")
    if folder is None:
        return _load_in_memory(name, text, {})
    try:
        path = folder / f"{name}.py"
        if not path.is_file() or path.read_bytes() != text.encode():
            _forget_unused(folder)
            with tempfile.NamedTemporaryFile(dir=folder, suffix=".tmp", delete=False) as file:
                file.write(text.encode())
            Path(file.name).replace(path)
    except OSError:  # the folder cannot be written: compile in memory
        return _load_in_memory(name, text, {})
    module = ModuleType(name)  # from the text, not by an import: the bytecode that Python caches has no digest
    module.__file__ = str(path)
    sys.modules[name] = module
    exec(compile(text, module.__file__, "exec"), vars(module))
    check_caches(module)
    return module


def _forget_unused(folder: Path) -> None:
    """Delete drivers whose machine code has not been read for a month, so that old versions do not accumulate."""
    oldest = time.time() - _UNUSED_AFTER_SECONDS
    for path in [*folder.glob("mlbits_driver_*.py"), *folder.glob("__pycache__/mlbits_driver_*")]:
        with contextlib.suppress(OSError):
            if max(path.stat().st_atime, path.stat().st_mtime) < oldest:
                path.unlink()
