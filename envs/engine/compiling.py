"""Announces what Numba is about to compile: which part, whether once or in every process, and about how long.

Numba reports its own compilations, so what it finds in its cache is not announced. The messages go to the logger
"mlbits.compiling" at level INFO, which Python does not show by default; the command line prints them.

The estimate comes from the size of all Python code that is compiled together: seconds on one core of the machine on
which it was measured (Zen 4; 1.3 s measured for GridWorld, 29 for Diplomacy, 2 to 20% off in between), times how much
slower this machine runs a short Python loop.

Example:
    >>> import logging
    >>> logging.basicConfig(level=logging.INFO)  # shows the messages in your own program
"""

from __future__ import annotations

import functools
import logging
import sys
import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

from numba.core import event

from mlbits.envs.core.rules import python_function

DRIVER = "mlbits_driver_"
logger = logging.getLogger("mlbits.compiling")

# Seconds per byte of Python bytecode, offset, and minimum; iterations of the timing loop and its CPU time there.
_SECONDS_A_BYTE, _SECONDS_LESS, _SHORTEST = 7.0e-4, 0.5, 0.5
_LOOP, _LOOP_SECONDS = 100_000, 0.0050
_SEVERAL_CORES = 2.0  # seconds for run_parallel; the loop over copies that it calls is compiled by then


def code_size(function: Callable[..., Any]) -> int:
    """Bytes of bytecode of a function and of all compiled functions that it calls, each counted once."""
    seen: dict[int, int] = {}

    def reach(found: Any) -> None:
        plain = python_function(found)
        if id(plain) in seen:
            return
        code = plain.__code__
        seen[id(plain)] = len(code.co_code)
        for name in code.co_names:
            value = plain.__globals__.get(name)
            parts = [getattr(value, own, None) for own in code.co_names] if isinstance(value, ModuleType) else [value]
            for part in parts:
                if hasattr(part, "py_func"):
                    reach(part)

    reach(function)
    return sum(seen.values())


def seconds_for(size: int, slowness: float = 1.0) -> float:
    """Estimated compile time in seconds.

    Args:
        size: bytes of bytecode, see :func:`code_size`.
        slowness: factor for this machine, see :func:`slowness_here`.
    """
    return max(_SHORTEST, _SECONDS_A_BYTE * size - _SECONDS_LESS) * slowness


@functools.cache
def slowness_here() -> float:
    """How many times slower Python is on this machine than where the estimate was measured (takes some 10 ms)."""

    def once() -> float:
        began, total = time.process_time(), 0
        for k in range(_LOOP):
            total += k * k % 7
        return time.process_time() - began

    return min(once() for _ in range(2)) / _LOOP_SECONDS


def message(dispatcher: Any) -> str:
    """The announcement for a function that is about to be compiled."""
    plain = dispatcher.py_func
    module, slowness = plain.__module__, slowness_here()
    if not module.startswith(DRIVER):
        functions = {id(part): part for part in vars(sys.modules[module]).values() if hasattr(part, "py_func")}
        size = sum(len(part.py_func.__code__.co_code) for part in functions.values())
        return f"compiling {module}, {_often(dispatcher)}, about {_round(seconds_for(size, slowness))} s"
    driver = module.removeprefix(DRIVER).rpartition("_")[0]
    name = driver.removesuffix("_cpu").removesuffix("_cuda")
    if plain.__name__ == "run_parallel":
        seconds, what = _SEVERAL_CORES * slowness, f"the rules of {name} for several cores"
    else:
        where = " for a GPU" if driver.endswith("_cuda") else ""
        seconds, what = seconds_for(code_size(dispatcher), slowness), f"the rules of {name}{where}"
    return f"compiling {what}, {_often(dispatcher)}, about {_round(seconds)} s"


def _often(dispatcher: Any) -> str:
    kept = getattr(getattr(dispatcher, "stats", None), "cache_path", None)
    return "once" if kept else "in this process alone (rules that cannot be imported by name are not kept)"


def _round(seconds: float) -> int:
    """Whole seconds; above ten in steps of five."""
    return max(1, round(seconds)) if seconds < 10 else 5 * round(seconds / 5)


_said: set[str] = set()


def announce(dispatcher: Any) -> None:
    """Say, once, that a function of ours is about to be compiled; of kernels for a GPU Numba does not report it."""
    module = str(dispatcher.py_func.__module__)
    if not module.startswith(("mlbits.", DRIVER)) or not logger.isEnabledFor(logging.INFO):
        return
    key = module if not module.startswith(DRIVER) else f"{module}.{dispatcher.py_func.__name__}"
    if key not in _said:
        _said.add(key)
        logger.info(message(dispatcher))


class _Listener(event.Listener):
    """Announces every compilation except those nested in another one."""

    def __init__(self) -> None:
        self._local = threading.local()

    def on_start(self, event: Any) -> None:
        """Announce a function that is about to be compiled."""
        depth = getattr(self._local, "depth", 0)
        self._local.depth = depth + 1
        if not depth:
            announce(event.data["dispatcher"])

    def on_end(self, event: Any) -> None:
        """Leave one level of nested compilations."""
        self._local.depth = max(0, getattr(self._local, "depth", 1) - 1)


event.register("numba:compile", _Listener())
