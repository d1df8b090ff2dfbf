"""Random numbers from each copy's own state: SplitMix64 in counter-based form.

Draw ``n`` of a copy is ``mix64(key + n * GOLDEN)``, where the key is hashed from (seed, copy index). Nothing is
shared between copies, so a trajectory depends only on (seed, copy index, actions): the same bit for bit in a
batch of any size, through any door, and on the GPU.

Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (OOPSLA 2014), figure 16; the
finaliser is their variant 13 of MurmurHash3's. Unlike the source, the counter is stored apart from the key, so that
a state can be read, copied and rewound.

Inside a rule:
    ``uniform(state)`` in [0, 1), ``randint(state, n)`` in 0..n-1, ``normal(state)``, ``random_bits(state)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbits.envs.core.errors import GameError
from mlbits.envs.core.rules import rule
from mlbits.envs.core.settings import integer

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S11, _S27, _S30, _S31, _S32 = (np.uint64(shift) for shift in (11, 27, 30, 31, 32))
_ONE = np.uint64(1)
_UNIT = 1.0 / 9007199254740992.0  # 2**-53
_TWO_PI = 2.0 * math.pi


@rule
def mix64(value: Any) -> Any:
    """Scramble 64 bits so that each input bit changes half of the output bits."""
    value = (value ^ (value >> _S30)) * _MIX_1
    value = (value ^ (value >> _S27)) * _MIX_2
    return value ^ (value >> _S31)


@rule
def random_bits(state: Any) -> Any:
    """The copy's next 64 random bits, as uint64."""
    state.rng_counter = state.rng_counter + _ONE
    return mix64(state.rng_key + state.rng_counter * GOLDEN)


@rule
def uniform(state: Any) -> Any:
    """A float64 uniform on [0, 1) with 53 random bits."""
    return np.float64(random_bits(state) >> _S11) * _UNIT


@rule
def randint(state: Any, n: Any) -> Any:
    """An int64 uniform on 0..n-1, for 1 <= n < 2**32 (by multiplication; bias below n / 2**32)."""
    return np.int64(((random_bits(state) >> _S32) * np.uint64(n)) >> _S32)


@rule
def normal(state: Any) -> Any:
    """A standard normal float64 by Box-Muller (two draws, one result used, so that the number of draws is constant)."""
    radius = math.sqrt(-2.0 * math.log(1.0 - uniform(state)))
    return radius * math.cos(_TWO_PI * uniform(state))


def copy_keys(seed: int | Sequence[int], num_envs: int, first: int = 0) -> NDArray[np.uint64]:
    """The random key of each copy.

    Args:
        seed: one seed for the batch (copy b gets the key of (seed, b)), or one seed per copy (copy b gets the key
            of (seed[b], 0), the key of a single environment seeded with seed[b]).
        num_envs: number of copies B.
        first: the number of the first copy: with one seed for the batch, copy b gets the key of (seed, first + b).

    Returns:
        uint64 array [B].

    Raises:
        GameError: if a seed is not an integer from 0 to 2**64 - 1, or the list's length is not B.
    """
    several = isinstance(seed, (list, tuple, range, np.ndarray))
    whole = (
        isinstance(seed, np.ndarray)
        and seed.dtype.kind in "iu"
        and seed.ndim == 1
        and seed.size > 0
        and seed.min() >= 0
    )
    seeds: Any = seed  # an array is checked at once
    if not whole:
        seeds = [integer("seed", one, 0, 2**64 - 1) for one in (seed if several else [seed])]  # type: ignore[union-attr]
    if several and len(seeds) != num_envs:
        raise GameError(f"seed: got {len(seeds)} seeds for {num_envs} copies; wanted one seed, or one per copy")
    index = np.zeros(num_envs, np.uint64) if several else np.arange(first, first + num_envs, dtype=np.uint64)
    base = np.asarray(seeds, np.uint64)
    with np.errstate(over="ignore"):
        return mix_array(mix_array(base + GOLDEN) + (index + _ONE) * _MIX_1)


def mix_array(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """:func:`mix64` on an array, in NumPy."""
    value = (value ^ (value >> _S30)) * _MIX_1
    value = (value ^ (value >> _S27)) * _MIX_2
    return value ^ (value >> _S31)
