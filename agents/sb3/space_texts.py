"""Spaces from the text that Stable-Baselines3 writes for people beside each pickled space.

The text of an array has eight digits and is shortened beyond a thousand entries. A space that is given, whose text is
the same, supplies the exact bounds then.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

MOST_ENTRIES = 2**24  # of one observation or action
_TYPE = re.compile(r"<class '(?:gym|gymnasium)\.spaces\.\w+\.(\w+)'>")
_DTYPES = {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)} | {"float16", "float32", "float64"}
_NUMBER = re.compile(r"[-+]?(?:inf|\d+\.?\d*(?:e[-+]?\d+)?|\.\d+(?:e[-+]?\d+)?)")
_BOUND = r"(\[.*?\]+|[-+.\w]+)"
_BOX = re.compile(rf"Box\({_BOUND}, {_BOUND}, (\([\d, ]*\)), (\w+)\)", re.S)
_PART = re.compile(r"(?:^\{|, )'([^'\\]*)': ((?:Box|Discrete|MultiDiscrete|MultiBinary)\(.*?\))(?=, '|\}$)", re.S)


class UnreadableSpace(ValueError):
    """A space whose text does not say all of it."""


def read_space(form: Any, given: gym.Space[Any] | None = None) -> gym.Space[Any]:
    """A space from its entry in a saved model's data.

    Args:
        form: the entry: ``:type:`` and the space's attributes as text.
        given: a space that may be the same.

    Raises:
        UnreadableSpace: if the text is not enough.
    """
    kind = _TYPE.fullmatch(str(form.get(":type:"))) if isinstance(form, Mapping) else None
    if kind is None:
        raise UnreadableSpace("not a space of Gymnasium")
    name = kind[1]
    try:
        if name == "Box":
            return _box(form["low"], form["high"], _shape(form["_shape"]), form["dtype"], given)
        if name == "Discrete":
            return spaces.Discrete(_count(form["n"]), start=int(form.get("start", 0)))
        if name == "MultiDiscrete":
            nvec, start = _integers(form["nvec"]), _integers(form["start"]) if "start" in form else None
            return spaces.MultiDiscrete(nvec, start=start)
        if name == "MultiBinary":
            return spaces.MultiBinary(_choices(form["n"]))
        if name == "Dict":
            return _dict(str(form["spaces"]), given)
    except UnreadableSpace:
        raise
    except (KeyError, TypeError, ValueError, OverflowError, SyntaxError, AssertionError, RecursionError) as error:
        raise UnreadableSpace(f"{name}: {type(error).__name__}") from None
    raise UnreadableSpace(name)


def _shape(text: Any) -> tuple[int, ...]:
    shape = tuple(text) if isinstance(text, list) else ast.literal_eval(str(text)[:200])
    if isinstance(shape, list):
        shape = tuple(shape)
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise UnreadableSpace("no shape")
    if len(shape) > 8 or np.prod([float(n) for n in shape]) > MOST_ENTRIES:
        raise UnreadableSpace(f"a shape of more than {MOST_ENTRIES} entries")
    return shape


def _count(text: Any) -> int:
    count = int(text)
    if not 1 <= count <= MOST_ENTRIES:
        raise UnreadableSpace(f"{count} choices")
    return count


def _integers(text: Any) -> NDArray[np.int64]:
    if not re.fullmatch(r"\[[\d\s]*\]", str(text)):
        raise UnreadableSpace("nested or shortened choices")
    found = np.array([int(one) for one in str(text)[1:-1].split()], np.int64)
    if found.sum() > MOST_ENTRIES:
        raise UnreadableSpace(f"{found.sum()} choices")
    return found


def _choices(form: Any) -> Any:
    return _shape(form) if isinstance(form, (list, tuple)) or str(form)[:1] in "[(" else _count(form)


def _box(low: Any, high: Any, shape: tuple[int, ...], dtype: Any, given: Any) -> spaces.Box:
    if str(dtype) not in _DTYPES:
        raise UnreadableSpace(f"numbers of type {dtype}")
    kind: Any = np.dtype(str(dtype))
    for same in _alike(given):
        if same.shape == shape and same.dtype == kind and str(same.low) == low and str(same.high) == high:
            return spaces.Box(same.low, same.high, shape, kind)
    return spaces.Box(_bounds(low, shape, kind), _bounds(high, shape, kind), shape, kind)


def _alike(given: Any) -> list[spaces.Box]:
    return [given] if isinstance(given, spaces.Box) else []


def _bounds(text: Any, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """An array from its text; a shortened one only if the entries that are shown are all the same."""
    found = [float(one) for one in _NUMBER.findall(str(text))]
    if found and "..." in str(text):
        if len(set(found)) > 1:
            raise UnreadableSpace("bounds that are shortened")
        found = found[:1]
    size = int(np.prod(shape))
    if len(found) == 1 and size > 1:
        return np.full(shape, found[0]).astype(dtype)
    if len(found) != size:
        raise UnreadableSpace(f"{len(found)} bounds for {size} numbers")
    return np.array(found).astype(dtype).reshape(shape)


def _dict(text: str, given: Any) -> spaces.Dict:
    parts = {}
    theirs = dict(given.items()) if isinstance(given, spaces.Dict) else {}
    for key, part in _PART.findall(text):
        same = theirs.get(key)
        parts[key] = same if same is not None and str(same) == part else _part(part)
    if not parts or str(parts) != text.removeprefix("OrderedDict(").removesuffix(")"):
        raise UnreadableSpace("a Dict with parts that are not plain")
    return spaces.Dict(parts)


def _part(text: str) -> gym.Space[Any]:
    if found := _BOX.fullmatch(text):
        low, high, shape, dtype = found.groups()
        return _box(low, high, _shape(shape), dtype, None)
    if found := re.fullmatch(r"Discrete\((\d+)\)", text):
        return spaces.Discrete(_count(found[1]))
    if found := re.fullmatch(r"MultiDiscrete\((\[[\d\s]*\])\)", text):
        return spaces.MultiDiscrete(_integers(found[1]))
    if found := re.fullmatch(r"MultiBinary\((\d+)\)", text):
        return spaces.MultiBinary(_count(found[1]))
    raise UnreadableSpace(text[:60])
