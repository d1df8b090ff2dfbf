"""The generator: SplitMix64's published values, distributions, and keys. All seeds are fixed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numba import njit
from scipy import stats

from mlbits.envs.core.game import STATE_HEADER
from mlbits.envs.core.random import copy_keys, normal, randint, random_bits, uniform

MASK = 2**64 - 1
N = 100_000


def splitmix64(key: int, count: int) -> list[int]:
    """Figure 16 of Steele, Lea and Flood (2014) in Python's integers."""
    out = []
    for n in range(1, count + 1):
        z = (key + n * 0x9E3779B97F4A7C15) & MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        out.append(z ^ (z >> 31))
    return out


def state_of(key: int) -> np.ndarray:
    states = np.zeros(1, np.dtype(STATE_HEADER, align=True))
    states["rng_key"] = key
    return states


@njit
def draw_bits(states, out):
    for i in range(len(out)):
        out[i] = random_bits(states[0])


@njit
def draw_uniform(states, out):
    for i in range(len(out)):
        out[i] = uniform(states[0])


@njit
def draw_normal(states, out):
    for i in range(len(out)):
        out[i] = normal(states[0])


@njit
def draw_randint(states, n, out):
    for i in range(len(out)):
        out[i] = randint(states[0], n)


def test_the_published_values_of_splitmix64() -> None:
    """The first outputs for seed 1234567, as printed with many implementations of it."""
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert splitmix64(1234567, 5) == published
    out = np.empty(5, np.uint64)
    draw_bits(state_of(1234567), out)
    assert out.tolist() == published


@pytest.mark.parametrize("key", [0, 1, 2**63, 2**64 - 1])
def test_bits_wrap_around(key: int) -> None:
    out = np.empty(200, np.uint64)
    states = state_of(key)
    draw_bits(states, out)
    assert out.tolist() == splitmix64(key, 200)
    assert states["rng_counter"][0] == 200
    assert states["rng_key"][0] == key


def test_uniform_is_the_top_53_bits() -> None:
    out = np.empty(1000)
    draw_uniform(state_of(5), out)
    assert out.tolist() == [(bits >> 11) / 2**53 for bits in splitmix64(5, 1000)]


def test_uniform_is_uniform() -> None:
    out = np.empty(N)
    draw_uniform(state_of(6), out)
    assert 0 <= out.min() < out.max() < 1
    assert stats.kstest(out, "uniform").pvalue > 0.01
    assert abs(np.corrcoef(out[:-1], out[1:])[0, 1]) < 4 / math.sqrt(N)


def test_normal_is_standard_normal_and_uses_two_draws() -> None:
    out, states = np.empty(N), state_of(7)
    draw_normal(states, out)
    assert states["rng_counter"][0] == 2 * N
    assert np.isfinite(out).all()
    assert stats.kstest(out, "norm").pvalue > 0.01
    assert abs(np.corrcoef(out[:-1], out[1:])[0, 1]) < 4 / math.sqrt(N)
    first, second = splitmix64(7, 2)
    radius = math.sqrt(-2 * math.log(1 - (first >> 11) / 2**53))
    assert out[0] == pytest.approx(radius * math.cos(2 * math.pi * (second >> 11) / 2**53), rel=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 100])
def test_randint_is_uniform(n: int) -> None:
    out = np.empty(N, np.int64)
    draw_randint(state_of(8), n, out)
    counts = np.bincount(out, minlength=n)
    assert len(counts) == n
    assert n == 1 or stats.chisquare(counts).pvalue > 0.01


@pytest.mark.parametrize("n", [5, 2**31, 2**32 - 1])
def test_randint_is_the_top_half_times_n(n: int) -> None:
    out = np.empty(100, np.int64)
    draw_randint(state_of(9), n, out)
    assert out.tolist() == [((bits >> 32) * n) >> 32 for bits in splitmix64(9, 100)]


def key_of(seed: int, copy: int) -> int:
    """A copy's key in Python's integers: two rounds of SplitMix64's finaliser over (seed, copy)."""

    def mix(z: int) -> int:
        return splitmix64((z - 0x9E3779B97F4A7C15) & MASK, 1)[0]

    return mix((mix((seed + 0x9E3779B97F4A7C15) & MASK) + (copy + 1) * 0xBF58476D1CE4E5B9) & MASK)


@pytest.mark.parametrize("seed", [0, 1, 12345, 2**64 - 1])
def test_keys_by_hand(seed: int) -> None:
    assert copy_keys(seed, 4).tolist() == [key_of(seed, copy) for copy in range(4)]


def test_keys_do_not_depend_on_the_batch_size_and_lists_give_keys_of_single_copies() -> None:
    assert copy_keys(3, 5).tolist() == copy_keys(3, 9)[:5].tolist()
    assert copy_keys([3, 8, 3], 3).tolist() == [key_of(3, 0), key_of(8, 0), key_of(3, 0)]
    assert copy_keys(np.array([3, 8]), 2).tolist() == [key_of(3, 0), key_of(8, 0)]


def test_keys_of_neighbouring_seeds_and_copies_are_all_different() -> None:
    keys = np.concatenate([copy_keys(seed, 1000) for seed in range(20)])
    assert len(np.unique(keys)) == len(keys)


def test_streams_of_neighbouring_copies_are_independent() -> None:
    first = np.empty((N // 10, 2))
    for row, key in enumerate(copy_keys(0, N // 10)):
        draw_uniform(state_of(key), first[row])
    assert stats.kstest(first[:, 0], "uniform").pvalue > 0.01
    assert abs(np.corrcoef(first[:-1, 0], first[1:, 0])[0, 1]) < 4 / math.sqrt(len(first))
    assert abs(np.corrcoef(first[:, 0], first[:, 1])[0, 1]) < 4 / math.sqrt(len(first))


@pytest.mark.parametrize(
    ("seed", "message"),
    [(-1, "from 0 to"), (2**64, "from 0 to"), ([1, 2], "2 seeds for 3 copies"), ([1, 2, -3], "from 0 to")],
)
def test_bad_seeds(seed: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        copy_keys(seed, 3)  # type: ignore[arg-type]
