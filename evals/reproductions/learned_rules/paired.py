"""Statistics of rules on the same levels: bootstrap intervals of paired differences, and normalised scores.

Rows are rules (meta-seeds), columns are levels. A bootstrap sample draws rules and levels with replacement, each on
their own, since both are samples: of what meta-training may give, and of the levels there are.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlbits.selfplay.statistics import interquartile_mean

SAMPLES = 4_000
_POINTS = 50


class Interval(NamedTuple):
    """An estimate and its 95% interval."""

    value: float
    low: float
    high: float


def bootstrap(statistic: Callable[..., float], *samples: ArrayLike, seed: int = 0, count: int = SAMPLES) -> Interval:
    """A statistic of arrays that share rules and levels, with its percentile interval (Efron 1979).

    Args:
        statistic: of arrays shaped as ``samples``.
        *samples: [R, N] each: R rules on the same N levels. What no rule was involved in has its row repeated.
        seed: of the draws.
        count: bootstrap samples.
    """
    arrays = [np.atleast_2d(np.asarray(sample, float)) for sample in samples]
    rules, levels = arrays[0].shape
    if any(array.shape != (rules, levels) for array in arrays):
        raise ValueError(f"samples: got shapes {[array.shape for array in arrays]}; wanted equal ones")
    rng = np.random.default_rng(seed)
    drawn = np.empty(count)
    for k in range(count):
        chosen = np.ix_(rng.integers(rules, size=rules), rng.integers(levels, size=levels))
        drawn[k] = statistic(*(array[chosen] for array in arrays))
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Interval(float(statistic(*arrays)), float(low), float(high))


def paired_difference(one: ArrayLike, other: ArrayLike, seed: int = 0) -> Interval:
    """The mean of one minus the mean of the other on the same levels, [R, N] each or [N]."""
    difference = np.atleast_2d(np.asarray(one, float)) - np.atleast_2d(np.asarray(other, float))
    return bootstrap(lambda values: float(values.mean()), difference, seed=seed)


def ratio(one: ArrayLike, other: ArrayLike, seed: int = 0) -> Interval:
    """The mean of one over the mean of the other on the same levels."""
    arrays = np.broadcast_arrays(np.atleast_2d(np.asarray(one, float)), np.atleast_2d(np.asarray(other, float)))
    return bootstrap(lambda a, b: float(a.mean() / b.mean()), *arrays, seed=seed)


def normalised(score: ArrayLike, zero: ArrayLike, unit: ArrayLike, least: float) -> NDArray[np.float64]:
    """(score - zero) / (unit - zero) of each level, [R, N]: 0 is play at random, 1 is the yardstick.

    Args:
        score: [R, N].
        zero: of random play, [N].
        unit: of the yardstick, [N].
        least: levels where the yardstick gains less than this are left out (there is nothing to learn in them).
    """
    gain = np.asarray(unit, float) - np.asarray(zero, float)
    kept = gain >= least
    return (np.atleast_2d(np.asarray(score, float)) - zero)[:, kept] / gain[kept]


def normalised_iqm(score: ArrayLike, zero: ArrayLike, unit: ArrayLike, least: float, seed: int = 0) -> Interval:
    """The interquartile mean of :func:`normalised` scores; NaN where no level is left."""
    values = normalised(score, zero, unit, least)
    return bootstrap(interquartile_mean, values, seed=seed) if values.size else Interval(*[float("nan")] * 3)


def share_above(one: ArrayLike, other: ArrayLike, seed: int = 0) -> Interval:
    """On which share of levels one is better than the other; equal levels count one half."""
    difference = np.atleast_2d(np.asarray(one, float)) - np.atleast_2d(np.asarray(other, float))
    return bootstrap(lambda d: float((d > 0).mean() + 0.5 * (d == 0).mean()), difference, seed=seed)


def thinned(curve: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means over at most 50 equal parts of a curve [levels, updates], and the middle of each."""
    updates = curve.shape[1]
    edges = np.unique(np.linspace(0, updates, min(_POINTS, updates) + 1).astype(int))
    parts = [curve[:, a:b].mean(1) for a, b in itertools.pairwise(edges)]
    return (edges[:-1] + edges[1:]) / 2, np.stack(parts, 1)
