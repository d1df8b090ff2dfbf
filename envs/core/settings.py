"""Helpers for game factories: check settings, and size the arrays of records.

Each error names the setting, the value got and what was wanted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbits.envs.core.errors import GameError


def integer(name: str, value: Any, low: int, high: int) -> int:
    """Return an integer from ``low`` to ``high`` as int.

    Raises:
        GameError: for any other value, including True and 2.0.
    """
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or not low <= value <= high:
        raise GameError(f"{name}: got {value!r}; wanted an integer from {low} to {high}")
    return int(value)


def flag(name: str, value: Any) -> bool:
    """Return True or False as bool.

    Raises:
        GameError: for any other value.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise GameError(f"{name}: got {value!r}; wanted True or False")
    return bool(value)


def number(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> float:
    """Return a finite number from ``low`` to ``high`` as float.

    Raises:
        GameError: for any other value, NaN and infinities included.
    """
    good = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not good or not math.isfinite(value) or not low <= value <= high:
        bounds = [f"from {low:g}"] * (low > -math.inf) + [f"to {high:g}"] * (high < math.inf)
        raise GameError(f"{name}: got {value!r}; wanted {' '.join(['a finite number', *bounds])}")
    return float(value)


def numbers(name: str, values: Any, low: float = -math.inf, high: float = math.inf) -> NDArray[np.float64]:
    """Return a non-empty list of finite numbers from ``low`` to ``high`` as float64 [n].

    Raises:
        GameError: if it is not a list, is empty, or an entry is out of range (the message gives its index).
    """
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise GameError(f"{name}: got {values!r}; wanted a list of numbers")
    checked = [number(f"{name}[{i}]", value, low, high) for i, value in enumerate(values)]
    if not checked:
        raise GameError(f"{name}: got an empty list; wanted at least one number")
    return np.array(checked)


def choice(name: str, value: Any, choices: Iterable[str]) -> str:
    """Return one of the given strings.

    Raises:
        GameError: for any other value.
    """
    known = list(choices)
    if not isinstance(value, str) or value not in known:
        raise GameError(f"{name}: got {value!r}; wanted one of {', '.join(map(repr, known))}")
    return value


def capacity(count: int) -> int:
    """The array size for ``count`` entries of a record: 16, 64, 256 and so on.

    With few distinct sizes, games of different settings share compiled code and fit into one batch.
    """
    size = 16
    while size < count:
        size *= 4
    return size
