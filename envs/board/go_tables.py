"""Tables of Go's rules: random bits of stones, places of bits, neighbours, and sets of points as words."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlbits.envs.core.random import GOLDEN, mix64
from mlbits.envs.core.rules import python_function

LARGEST = 19  # rows and columns
# What ``head`` says of a point without a stone: it is free, or off the board.
FREE, OUTSIDE = 1000, 1001


def _random_bits(count: int) -> NDArray[np.uint64]:
    """Constants that look random: SplitMix64 of 1, 2, and so on."""
    with np.errstate(over="ignore"):
        found = python_function(mix64)(np.arange(1, count + 1, dtype=np.uint64) * GOLDEN)
    return np.asarray(found, np.uint64)


# Random bits of a stone of each colour on each point, and of the empty board; a position's hash is their exclusive or.
ZOBRIST = _random_bits(2 * LARGEST * LARGEST).reshape(2, LARGEST * LARGEST)
EMPTY_BOARD = np.uint64(0x6A09E667F3BCC908)
# The lowest bit of a word by multiplication (de Bruijn): bit k times this constant has k's place in its upper six bits.
DE_BRUIJN = np.uint64(0x03F79D71B4CB0A89)
TOP_SIX = np.uint64(58)
BIT_PLACES = np.zeros(64, np.int64)
BIT_PLACES[[(0x03F79D71B4CB0A89 << k & 2**64 - 1) >> 58 for k in range(64)]] = np.arange(64)


def words_of(points: list[int], count: int) -> NDArray[np.uint64]:
    """A set of points as ``count`` words."""
    bits = sum(1 << point for point in points)
    return np.array([bits >> 64 * k & 2**64 - 1 for k in range(count)], np.uint64)


def neighbours(rows: int, columns: int) -> NDArray[np.int64]:
    """The four points around each, [points, 4]; rows * columns stands for all that is outside."""
    inside = np.arange(rows * columns).reshape(rows, columns)
    board = np.pad(inside, 1, constant_values=rows * columns)
    sides = [board[:-2, 1:-1], board[1:-1, :-2], board[1:-1, 2:], board[2:, 1:-1]]
    return np.stack([side.ravel() for side in sides], 1)
