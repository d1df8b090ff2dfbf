"""Checks and converts a user's dataset: features, labels, classes in use, rewards and the split.

Each error names what is wrong, the value got and what was wanted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbits.envs.core.errors import GameError
from mlbits.envs.core.settings import integer, number

MAX_CLASSES = 1000
MAX_BYTES = 2**31 - 2**16  # NumPy's limit on a record, minus room for its small fields


def read_data(features: Any, labels: Any, num_classes: int | None) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Check features and labels; return float32 or uint8 [N, ...] and int64 [N]."""
    if labels is None:
        try:
            if hasattr(features, "dtype"):  # the rows of an array could be mistaken for pairs
                raise TypeError
            pairs = [features[i] for i in range(len(features))]
            features, labels = [np.asarray(x) for x, _ in pairs], [y for _, y in pairs]
        except (TypeError, ValueError, IndexError, KeyError):
            raise GameError(
                f"labels: got none, and features of type {type(features).__name__}; wanted labels [N], or a Dataset of "
                "pairs (features, label)"
            ) from None
    try:
        table = np.asarray(features)
    except ValueError:
        raise GameError("features: got examples of different shapes; wanted one shape") from None
    given = _labels(labels)
    if table.dtype.kind not in "biuf":
        raise GameError(f"features: got {table.dtype}; wanted numbers")
    if table.ndim == 1:
        table = table[:, None]
    if not 2 <= table.ndim <= 4 or 0 in table.shape[1:]:
        raise GameError(f"features: got shape {table.shape}; wanted [N, ...] with one to three axes per example")
    if len(table) != len(given):
        raise GameError(f"labels: got {len(given)} for {len(table)} examples; wanted one per example")
    if len(table) == 0:
        raise GameError("features: got no examples; wanted at least two")
    if num_classes is not None:
        integer("num_classes", num_classes, 2, MAX_CLASSES)
    most = (num_classes or MAX_CLASSES) - 1
    for i in np.flatnonzero((given < 0) | (given > most))[:1]:
        raise GameError(f"labels[{i}]: got {given[i]}; wanted an integer from 0 to {most}")
    return _numbers(table), given


def check_size(table: NDArray[Any], kind: np.dtype[Any], pay_bytes: int) -> None:
    """Refuse data that do not fit into a record, before they are copied."""
    size = table.size * kind.itemsize + pay_bytes + len(table) * 6  # 6 bytes for a label and an index per example
    if size > MAX_BYTES:
        rewards = " and their rewards" if pay_bytes else ""
        raise GameError(
            f"features: {len(table):,} examples of {math.prod(table.shape[1:]):,} numbers ({kind}){rewards} take "
            f"{size / 2**30:.1f} GiB; wanted less than 2 GiB: fewer examples, or uint8"
        )


def _labels(labels: Any) -> NDArray[np.int64]:
    """Labels as int64 [N]."""
    given = np.asarray(labels)
    if given.ndim != 1:
        raise GameError(f"labels: got shape {given.shape}; wanted [N], one integer per example")
    if given.dtype.kind not in "biuf" and len(given):
        raise GameError(f"labels: got {given.dtype}, as in {given[0]!r}; wanted non-negative integers")
    if given.dtype.kind == "f":
        for i in np.flatnonzero(~np.isfinite(given) | (given != np.floor(given)))[:1]:
            raise GameError(f"labels[{i}]: got {given[i]}; wanted an integer")
    return given.astype(np.int64)


def _numbers(table: NDArray[Any]) -> NDArray[Any]:
    """Features as uint8 if they fit, else as float32."""
    small = table.dtype == np.bool_ or (table.dtype.kind in "iu" and table.min() >= 0 and table.max() <= 255)
    kind = np.dtype(np.uint8 if small else np.float32)
    check_size(table, kind, 0)
    with np.errstate(over="ignore"):
        numbers = table.astype(kind)
    bad = np.empty((0,)) if small else np.argwhere(~np.isfinite(numbers))
    if len(bad):
        place = tuple(int(k) for k in bad[0])
        where = ", ".join(map(str, place))
        raise GameError(f"features[{where}]: got {table[place]}; wanted a finite number (as float32)")
    return numbers


def read_classes(classes: Any, given: NDArray[np.int64], num_classes: int | None) -> tuple[int, ...]:
    """The labels in use."""
    present = np.unique(given)
    if len(present) == 1:
        raise GameError(f"labels: got one class, {present[0]}; wanted at least two")
    if classes is None:
        return tuple(range(num_classes or int(present[-1]) + 1))
    if isinstance(classes, (str, bytes)) or not isinstance(classes, (Sequence, np.ndarray)):
        raise GameError(f"classes: got {classes!r}; wanted a list of labels")
    shown = tuple(integer(f"classes[{k}]", label, 0, MAX_CLASSES - 1) for k, label in enumerate(classes))
    if len(set(shown)) != len(shown) or len(shown) < 2:
        raise GameError(f"classes: got {shown}; wanted at least two labels, each once")
    missing = sorted(set(shown) - set(present.tolist()))
    if missing:
        raise GameError(f"classes: no example has the label {missing[0]}; wanted labels of {present[:20].tolist()}")
    return shown


def read_rewards(rewards: Any, classes: int, examples: int) -> NDArray[np.float32]:
    """The rewards of answers, float32 [A, A] by label or [N, A] by example."""
    if rewards is None:
        return np.eye(classes, dtype=np.float32)
    try:
        table = np.asarray(rewards, np.float32)
    except (TypeError, ValueError):
        raise GameError(f"rewards: got {rewards!r}; wanted numbers [{classes}, {classes}] or [N, {classes}]") from None
    if table.shape == (classes * classes,):
        table = table.reshape(classes, classes)
    if table.shape not in ((classes, classes), (examples, classes)):
        raise GameError(
            f"rewards: got shape {table.shape}; wanted [{classes}, {classes}] by label and answer, "
            f"or [{examples}, {classes}] by example and answer"
        )
    if not np.isfinite(table).all():
        row, column = np.argwhere(~np.isfinite(table))[0]
        raise GameError(f"rewards[{row}, {column}]: got {table[row, column]}; wanted a finite number")
    return table


def split_examples(
    given: NDArray[np.int64], shown: tuple[int, ...], split: str, test_fraction: Any, split_seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The indices of the training and the test examples, among those whose labels are in use.

    An example's split depends only on the seed and on the labels of its own class, not on which classes are in use.
    """
    fraction = number("test_fraction", test_fraction, 0.0, 1.0)
    if fraction in (0.0, 1.0):
        raise GameError(f"test_fraction: got {fraction:g}; wanted a number above 0 and below 1")
    key = np.random.default_rng(split_seed).random(len(given))
    tested = np.zeros(len(given), bool)
    for label in shown:
        members = np.flatnonzero(given == label)
        if len(members) == 1 and split != "all":
            raise GameError(f"split: got {split!r}, with one example of the label {label}; wanted two or more of each")
        count = min(max(round(fraction * len(members)), 1), len(members) - 1) if len(members) else 0
        tested[members[np.argsort(key[members])[:count]]] = True
    part = np.isin(given, shown)
    return np.flatnonzero(part & ~tested), np.flatnonzero(part & tested)
