"""What factories of games do with their settings: check them, and size their records' arrays.

Each check names the setting, the value got and the one wanted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbits.envs.core.errors import GameError


def integer(name: str, value: Any, low: int, high: int) -> int:
    """A whole number from ``low`` to ``high``, as int.

    Raises:
        GameError: for any other value; True and 2.0 are none.
    """
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or not low <= value <= high:
        raise GameError(f"{name}: got {value!r}; wanted an integer from {low} to {high}")
    return int(value)


def flag(name: str, value: Any) -> bool:
    """True or False.

    Raises:
        GameError: for any other value.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise GameError(f"{name}: got {value!r}; wanted True or False")
    return bool(value)


def number(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> float:
    """A finite number from ``low`` to ``high``, as float.

    Raises:
        GameError: for any other value, NaN and infinities included.
    """
    good = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not good or not math.isfinite(value) or not low <= value <= high:
        bounds = [f"from {low:g}"] * (low > -math.inf) + [f"to {high:g}"] * (high < math.inf)
        raise GameError(f"{name}: got {value!r}; wanted {' '.join(['a finite number', *bounds])}")
    return float(value)


def numbers(name: str, values: Any, low: float = -math.inf, high: float = math.inf) -> NDArray[np.float64]:
    """A list of finite numbers from ``low`` to ``high``, as float64 [n] with n at least 1.

    Raises:
        GameError: if it is no list, is empty, or one of its entries is out of range (named by its place).
    """
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise GameError(f"{name}: got {values!r}; wanted a list of numbers")
    checked = [number(f"{name}[{i}]", value, low, high) for i, value in enumerate(values)]
    if not checked:
        raise GameError(f"{name}: got an empty list; wanted at least one number")
    return np.array(checked)


def choice(name: str, value: Any, choices: Iterable[str]) -> str:
    """One of several words.

    Raises:
        GameError: for any other value.
    """
    known = list(choices)
    if not isinstance(value, str) or value not in known:
        raise GameError(f"{name}: got {value!r}; wanted one of {', '.join(map(repr, known))}")
    return value


def capacity(count: int) -> int:
    """The size of a record's array for ``count`` entries: 16, 64, 256 and so on.

    Records of few sizes let games of different settings share compiled code, and copies of one batch too.
    """
    size = 16
    while size < count:
        size *= 4
    return size
