"""Sets of squares as 64 bits, and where pieces attack.

Square 8 * rank + file, a1 = 0, is bit 1 << square. All of it sees the board as the side to move does: its own pawns
go up, towards higher squares; for black the ranks are mirrored, and the files are what they are.

Source: the attack of a slider along a line is "hyperbola quintessence" (Gerd Isenberg and Aleks Peschmeteren, Chess
Programming Wiki): subtracting the slider from what is on the line borrows up to the nearest piece, and once more on
the board upside down. It needs no large tables, so that it runs on a GPU; ranks are looked up. Counting and finding
bits are written so that LLVM recognises them as one instruction.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbits.envs.core.rules import rule

ZERO, ONE, THREE, SEVEN, EIGHT, NINE = (np.uint64(number) for number in (0, 1, 3, 7, 8, 9))
ALL = np.uint64(2**64 - 1)
NOT_A, NOT_H = np.uint64(0xFEFEFEFEFEFEFEFE), np.uint64(0x7F7F7F7F7F7F7F7F)
THIRD_RANK, LAST_RANK = np.uint64(0xFF << 16), np.uint64(0xFF << 56)
DARK = np.uint64(0xAA55AA55AA55AA55)  # a1 and all squares of its colour
_INNER_RANK = np.uint64(126)  # the six squares of a rank that can block a slider, shifted to the first rank
_2, _4, _16, _32, _56 = (np.uint64(number) for number in (2, 4, 16, 32, 56))
_ODD, _PAIRS, _NIBBLES, _BYTES = (np.uint64(int(part * 8, 16)) for part in ("55", "33", "0f", "01"))
_WORDS, _LONGS = np.uint64(0x00FF00FF00FF00FF), np.uint64(0x0000FFFF0000FFFF)


def _steps(steps: list[tuple[int, int]], longest: int) -> NDArray[np.uint64]:
    """Squares reached from each square on an empty board, by steps of (ranks, files)."""
    reached = [0] * 64
    for square in range(64):
        for up, right in steps:
            for k in range(1, longest + 1):
                rank, file = square // 8 + k * up, square % 8 + k * right
                if 0 <= rank < 8 and 0 <= file < 8:
                    reached[square] |= 1 << 8 * rank + file
    return np.array(reached, np.uint64)


def _rank_attacks() -> NDArray[np.uint64]:
    """Attacks on the first rank from each file, [8 * 64], by the six inner squares of the rank."""
    attacks = np.zeros((8, 64), np.uint64)
    for file in range(8):
        for inner in range(64):
            for way in (1, -1):
                at = file + way
                while 0 <= at < 8:
                    attacks[file, inner] |= np.uint64(1 << at)
                    at = at + way if not inner << 1 >> at & 1 else 8
    return attacks.ravel()


KNIGHT = _steps([(1, 2), (2, 1), (2, -1), (1, -2), (-1, -2), (-2, -1), (-2, 1), (-1, 2)], 1)
KING = _steps([(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)], 1)
FILE = _steps([(1, 0), (-1, 0)], 7)
RISING = _steps([(1, 1), (-1, -1)], 7)
FALLING = _steps([(1, -1), (-1, 1)], 7)
RANK_ATTACKS = _rank_attacks()


@rule
def count(squares: Any) -> Any:
    """The number of squares in a set."""
    squares = squares - ((squares >> ONE) & _ODD)
    squares = (squares & _PAIRS) + ((squares >> _2) & _PAIRS)
    squares = (squares + (squares >> _4)) & _NIBBLES
    return (squares * _BYTES) >> _56


@rule
def lowest(squares: Any) -> Any:
    """The lowest square of a set that is not empty."""
    return count(~squares & (squares - ONE))


@rule
def flip(squares: Any) -> Any:
    """The set upside down: as the other side sees it."""
    squares = ((squares >> EIGHT) & _WORDS) | ((squares & _WORDS) << EIGHT)
    squares = ((squares >> _16) & _LONGS) | ((squares & _LONGS) << _16)
    return (squares >> _32) | (squares << _32)


@rule
def along(bit: Any, taken: Any, line: Any) -> Any:
    """What a slider attacks along a line that is not a rank; ``line`` is without the slider's own square."""
    ahead = taken & line
    behind = flip(ahead) - flip(bit)
    return ((ahead - bit) ^ flip(behind)) & line


@rule
def straight(square: Any, taken: Any) -> Any:
    """What a rook attacks."""
    start = square & _56
    rank = RANK_ATTACKS[((square & SEVEN) << np.uint64(6)) | (((taken >> start) & _INNER_RANK) >> ONE)] << start
    return rank | along(ONE << square, taken, FILE[square])


@rule
def diagonal(square: Any, taken: Any) -> Any:
    """What a bishop attacks."""
    bit = ONE << square
    return along(bit, taken, RISING[square]) | along(bit, taken, FALLING[square])


@rule
def pawns_up(pawns: Any) -> Any:
    """What pawns of the side to move attack."""
    return ((pawns << SEVEN) & NOT_H) | ((pawns << NINE) & NOT_A)


@rule
def pawns_down(pawns: Any) -> Any:
    """What pawns of the other side attack."""
    return ((pawns >> SEVEN) & NOT_A) | ((pawns >> NINE) & NOT_H)
