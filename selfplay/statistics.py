"""Means of returns with their intervals: of one agent's episodes, and of several training runs.

Few runs, some of them failures, are told best by the interquartile mean and a stratified bootstrap of it (Agarwal et
al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice", sections 4.1 and 4.3).

Example:
    interquartile_mean([500, 480, 490, 120, 500])  # 490: one of five is left out at each end
    bootstrap_interval([[500, 480, 490, 120, 500]])  # of one task; one list a task where there are several
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def mean_interval(values: ArrayLike, confidence: float = 0.95) -> tuple[float, tuple[float, float]]:
    """The mean and its Student-t confidence interval.

    Args:
        values: independent numbers [N], N >= 1.
        confidence: 0..1.

    Returns:
        The mean and (low, high); with one number, or equal numbers, the interval is the mean itself.

    Raises:
        ValueError: if there are no numbers.
    """
    array = np.asarray(values, float).reshape(-1)
    if len(array) == 0:
        raise ValueError("values: got none; wanted at least one number")
    mean = float(array.mean())
    if len(array) == 1 or np.ptp(array) == 0:
        return mean, (mean, mean)
    from scipy.special import stdtrit  # here: a tenth of a second of import that only evaluation needs

    quantile = stdtrit(len(array) - 1, 0.5 + confidence / 2)
    half = float(quantile * array.std(ddof=1) / np.sqrt(len(array)))
    return mean, (mean - half, mean + half)


def share_interval(count: int, total: int, confidence: float = 0.95) -> tuple[float, tuple[float, float]]:
    """A share and its interval by Wilson (1927), which stays within 0 and 1 and is of use at both.

    Args:
        count: how many of ``total`` were so.
        total: how many there were, at least 1.
        confidence: 0..1.

    Returns:
        The share and (low, high).

    Raises:
        ValueError: if there were none.
    """
    if total < 1:
        raise ValueError(f"total: got {total}; wanted at least 1")
    from scipy.special import ndtri

    z = float(ndtri(0.5 + confidence / 2))
    share = count / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * float(np.sqrt(share * (1 - share) / total + z * z / (4 * total**2)))
    return share, (max(0.0, middle - half), min(1.0, middle + half))


def interquartile_mean(values: ArrayLike) -> float:
    """The mean of the middle half: of N numbers, floor(N / 4) are left out at each end.

    Less moved by a single failed run than the mean, less wasteful of runs than the median. The same as
    ``scipy.stats.trim_mean(values, 0.25)`` and the paper's rliable.

    Args:
        values: numbers of any shape, at least one; runs of several tasks are pooled.

    Raises:
        ValueError: if there are no numbers.
    """
    array = np.asarray(values, float).reshape(1, -1)
    if array.size == 0:
        raise ValueError("values: got none; wanted at least one number")
    return float(_middle_mean(array)[0])


def bootstrap_interval(
    strata: Sequence[ArrayLike], confidence: float = 0.95, *, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the interquartile mean of all strata, by stratified bootstrap.

    Runs are drawn anew, with replacement, within each stratum (a task), never across: every resample has as many runs
    of each task as there were.

    Args:
        strata: one array of numbers a task, each with at least one run.
        confidence: 0..1.
        resamples: how many to draw.
        seed: of the draws; the interval is a function of it and the numbers.

    Returns:
        (low, high).

    Raises:
        ValueError: if there is no stratum, or one without numbers.
    """
    arrays = [np.asarray(stratum, float).reshape(-1) for stratum in strata]
    if not arrays or any(len(array) == 0 for array in arrays):
        raise ValueError(f"strata: got {[len(array) for array in arrays]} numbers; wanted at least one in each")
    generator = np.random.default_rng(seed)
    drawn = [array[generator.integers(len(array), size=(resamples, len(array)))] for array in arrays]
    means = _middle_mean(np.concatenate(drawn, 1))
    low, high = np.quantile(means, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)


def _middle_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interquartile means of rows [R, N]."""
    cut = values.shape[1] // 4
    ordered = np.sort(values, 1)
    return ordered[:, cut : values.shape[1] - cut].mean(1)
