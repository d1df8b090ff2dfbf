"""Random numbers that belong to a level: a function of the distribution's name and the level's number alone.

SplitMix64 in counter-based form, as in :mod:`mlbits.envs.core.random`, for many levels at once.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from mlbits.envs.core.random import GOLDEN, mix_array


class Stream:
    """The streams of N levels.

    Args:
        name: what is drawn, so that equal numbers of two distributions have unrelated levels.
        numbers: the levels' numbers, uint64 [N].
    """

    def __init__(self, name: str, numbers: NDArray[np.uint64]) -> None:
        salt = np.uint64(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))
        self._key = mix_array(mix_array(np.asarray(numbers, np.uint64) + GOLDEN) ^ salt)
        self._drawn = 0

    def bits(self, count: int) -> NDArray[np.uint64]:
        """The next ``count`` numbers of 64 random bits of each level, uint64 [N, count]."""
        first = self._drawn + 1
        self._drawn += count
        with np.errstate(over="ignore"):
            return mix_array(self._key[:, None] + np.arange(first, first + count, dtype=np.uint64) * GOLDEN)

    def uniform(self, count: int) -> NDArray[np.float64]:
        """The next ``count`` numbers on [0, 1) of each level, float64 [N, count]."""
        return (self.bits(count) >> np.uint64(11)).astype(np.float64) * 2.0**-53
