"""Means of returns with their intervals."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


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
