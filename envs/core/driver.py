"""From rules to a compiled driver that steps, resets and observes all copies of a game.

The driver is one small module of generated text (``driver_text``): the loop over copies and all that games share, with
the game's own rules called by name. On the CPU it is compiled by
Numba with its disk cache on; on the GPU the very same functions are the body of a kernel, one thread a copy.

Why a generated module: a closure over the rules is compiled anew in every process (Numba's cache keys on the
captured objects' identities), and functions cached one by one go stale when a function that they call in another
file is edited. So the text is written to the user's cache folder under a name hashed from itself, from every source
file that it reaches and from the constants that those files read, with ``cache=True`` on the driver alone.
The folder is ``$MLBITS_CACHE_DIR``, else ``$XDG_CACHE_HOME/mlbits``, else ``~/.cache/mlbits``.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import numba
import numpy as np

from mlbits.envs.core.driver_text import driver_text, importable, rules_of
from mlbits.envs.core.game import Game, Rule
from mlbits.envs.core.rules import python_function
from mlbits.version import __version__

_UNUSED_AFTER_SECONDS = 30 * 24 * 3600


def _reached(function: Rule, files: set[str], constants: list[str], seen: set[int]) -> None:
    """Collect the files and constants that a rule's compiled form depends on."""
    plain = python_function(function)
    if id(plain) in seen:
        return
    seen.add(id(plain))
    with contextlib.suppress(TypeError):
        files.add(inspect.getsourcefile(plain) or "")
    names: set[str] = set()
    codes: list[CodeType] = [plain.__code__]
    while codes:
        code = codes.pop()
        names.update(code.co_names)
        codes.extend(constant for constant in code.co_consts if isinstance(constant, CodeType))
    found = {name: plain.__globals__[name] for name in sorted(names) if name in plain.__globals__}
    found |= {
        name: cell.cell_contents for name, cell in zip(plain.__code__.co_freevars, plain.__closure__ or (), strict=True)
    }
    modules: set[str] = set()
    while found:
        name, value = found.popitem()
        if inspect.isfunction(python_function(value)):
            _reached(value, files, constants, seen)
        elif isinstance(value, ModuleType):
            outside = value.__name__.partition(".")[0] not in {"math", "numpy", "numba"}
            if outside and value.__file__ and value.__name__ not in modules:
                modules.add(value.__name__)
                files.add(value.__file__)
                found |= {f"{name}.{own}": vars(value)[own] for own in sorted(names & vars(value).keys())}
        elif inspect.isclass(value):  # an enumeration
            with contextlib.suppress(TypeError):
                files.add(inspect.getsourcefile(value) or "")
        elif isinstance(value, np.ndarray):
            constants.append(f"{name}={value.dtype}{value.shape}{hashlib.sha256(value.tobytes()).hexdigest()}")
        elif isinstance(value, (bool, int, float, complex, str, tuple, np.generic)):
            constants.append(f"{name}={value!r}")


def _fingerprint(rules: Mapping[str, Rule], text: str) -> str:
    files: set[str] = {str(Path(__file__).with_name("rules.py"))}
    constants: list[str] = []
    for function in rules.values():
        _reached(function, files, constants, set())
    digest = hashlib.sha256(text.encode())
    for path in sorted(files):
        if Path(path).is_file():
            digest.update(path.encode() + b"\0" + Path(path).read_bytes() + b"\0")
    digest.update("\n".join([*constants, __version__, numba.__version__, np.__version__, sys.version]).encode())
    return digest.hexdigest()[:20]


def cache_folder() -> Path:
    """Where generated drivers and their machine code are kept."""
    if chosen := os.environ.get("MLBITS_CACHE_DIR"):
        return Path(chosen) / "drivers"
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "mlbits" / "drivers"


_loaded: dict[str, ModuleType] = {}
_loaded_in_memory: dict[tuple[Any, ...], ModuleType] = {}


def load_driver(game: Game, target: str = "cpu") -> ModuleType:
    """Compile, or load from the cache, the driver of a game.

    Args:
        game: the game.
        target: "cpu", or "cuda" (which needs the package numba-cuda).

    Returns:
        The generated module; ``run`` is the driver, ``run_parallel`` (CPU) the driver on several cores.
    """
    return load_generated(f"{game.name}_{target}", driver_text(game, target), rules_of(game))


def load_generated(name: str, text: str, rules: Mapping[str, Rule]) -> ModuleType:
    """Compile, or load from the cache, a module of generated text that calls rules.

    Args:
        name: what it is called, a Python identifier; a hash is added.
        text: its source, with ``cache=True`` on what it compiles.
        rules: the rules it calls, by the names it calls them by. Those that can be imported the text imports itself.
    """
    name = f"mlbits_driver_{name}_{_fingerprint(rules, text)}"
    if all(importable(function) for function in rules.values()):
        if name not in _loaded:
            _loaded[name] = _load_from_folder(name, text)
        return _loaded[name]
    # Rules that live in a notebook, a script or a closure: compiled in memory, without the disk cache.
    key = (text, *rules.values())
    if key not in _loaded_in_memory:
        _loaded_in_memory[key] = _load_in_memory(name, text, rules)
    return _loaded_in_memory[key]


def _load_in_memory(name: str, text: str, rules: Mapping[str, Rule]) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(rules)
    exec(compile(text.replace("cache=True, ", ""), f"<{name}>", "exec"), vars(module))
    return module


def _load_from_folder(name: str, text: str) -> ModuleType:
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.py"
        if not path.is_file() or path.read_text() != text:
            _forget_unused(folder)
            with tempfile.NamedTemporaryFile("w", dir=folder, suffix=".tmp", delete=False) as file:
                file.write(text)
            Path(file.name).replace(path)
    except OSError:  # a home that cannot be written: compile in memory
        return _load_in_memory(name, text, {})
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _forget_unused(folder: Path) -> None:
    """Delete drivers whose machine code nobody has read for a month, so that edits do not pile up."""
    oldest = time.time() - _UNUSED_AFTER_SECONDS
    for path in [*folder.glob("mlbits_driver_*.py"), *folder.glob("__pycache__/mlbits_driver_*")]:
        with contextlib.suppress(OSError):
            if max(path.stat().st_atime, path.stat().st_mtime) < oldest:
                path.unlink()
