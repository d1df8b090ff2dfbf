"""Traces the borders of a grid of labels, smooths them, and joins them to outlines."""

from __future__ import annotations

from collections import defaultdict
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

FloatArray = NDArray[np.float64]
Corner = tuple[int, int]
Steps = dict[Corner, dict[Corner, tuple[int, int]]]
OUTSIDE: Final = -2  # beyond the grid
_SMOOTHING: Final = 2.0  # cells


class Border(NamedTuple):
    """A line between two labels, or between a label and the outside.

    Attributes:
        points: float64 [K, 2], x right and y down; a closed line ends where it starts.
        left: label on the left of the line, in its direction, on the screen.
        right: label on the right.
    """

    points: FloatArray
    left: int
    right: int


def trace(labels: NDArray[np.int64], cell: float, origin: float = 0.0) -> list[Border]:
    """Trace the lines between the labels of a grid, from junction to junction.

    Args:
        labels: int64 [H, W], above OUTSIDE.
        cell: width of a cell.
        origin: x and y of the grid's upper left corner.
    """
    steps = _steps(np.pad(labels, 1, constant_values=OUTSIDE))
    degree = {corner: len(leaving) for corner, leaving in steps.items()}
    unused = {(corner, after) for corner, leaving in steps.items() for after in leaving}
    lines = []
    # Lines with ends first, then closed lines without a junction.
    for starts in ([corner for corner in steps if degree[corner] != 2], list(steps)):
        for start in starts:
            for after in steps[start]:
                if (start, after) in unused:
                    lines.append(_walk(start, after, steps, degree, unused))
    return [Border(_smoothed(np.array(path, float)) * cell + origin, *sides) for path, sides in lines]


def _steps(padded: NDArray[np.int64]) -> Steps:
    """For each corner (x, y), the corners one step along a border, with the labels on the left and right."""
    steps: Steps = defaultdict(dict)
    above, below = padded[:-1], padded[1:]
    for y, x in zip(*(above != below).nonzero(), strict=True):
        a, b = (int(x) - 1, int(y)), (int(x), int(y))
        steps[a][b] = (int(above[y, x]), int(below[y, x]))
        steps[b][a] = (int(below[y, x]), int(above[y, x]))
    before, behind = padded[:, :-1], padded[:, 1:]
    for y, x in zip(*(before != behind).nonzero(), strict=True):
        a, b = (int(x), int(y) - 1), (int(x), int(y))
        steps[a][b] = (int(behind[y, x]), int(before[y, x]))
        steps[b][a] = (int(before[y, x]), int(behind[y, x]))
    return dict(steps)


def _walk(
    start: Corner, after: Corner, steps: Steps, degree: dict[Corner, int], unused: set[tuple[Corner, Corner]]
) -> tuple[list[Corner], tuple[int, int]]:
    """The line from ``start`` via ``after`` to the next junction, or back to ``start``."""
    path, sides = [start], steps[start][after]
    here = start
    while True:
        unused.discard((here, after))
        unused.discard((after, here))
        path.append(after)
        if degree[after] != 2 or after == start:
            return path, sides
        here, after = after, next(corner for corner in steps[after] if corner != here)


def _smoothed(path: FloatArray) -> FloatArray:
    """Smooth a staircase line, keeping its ends and half of its points."""
    if len(path) < 4:
        return path
    if (path[0] == path[-1]).all():
        ring = ndimage.gaussian_filter1d(path[:-1], min(_SMOOTHING, len(path) / 8), axis=0, mode="wrap")[::2]
        return np.concatenate([ring, ring[:1]])
    reach = min(len(path) - 1, round(4 * _SMOOTHING))
    head, tail = 2 * path[0] - path[reach:0:-1], 2 * path[-1] - path[-2 : -2 - reach : -1]
    line = ndimage.gaussian_filter1d(np.concatenate([head, path, tail]), _SMOOTHING, axis=0)[reach:-reach]
    return np.concatenate([path[:1], line[2:-1:2], path[-1:]])


def outlines(borders: list[Border]) -> list[tuple[int, FloatArray]]:
    """Each label's outer outlines (closed, float64 [K, 2]) from its borders, largest area first."""
    pieces: dict[int, list[FloatArray]] = defaultdict(list)
    for border in borders:
        pieces[border.left].append(border.points)
        pieces[border.right].append(border.points[::-1])
    found = []
    for label in sorted(pieces):
        if label == OUTSIDE:
            continue
        for ring in _closed_outlines(pieces[label]):
            x, y = ring[:, 0], ring[:, 1]
            area = float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum()) / 2
            if area < 0:  # the label is inside; a positive area is that of a hole
                found.append((area, label, ring))
    return [(label, ring) for area, label, ring in sorted(found, key=lambda entry: (entry[0], entry[1]))]


def _closed_outlines(pieces: list[FloatArray]) -> list[FloatArray]:
    """Join directed pieces end to start."""
    starting: dict[tuple[float, float], list[FloatArray]] = defaultdict(list)
    for piece in pieces:
        starting[float(piece[0, 0]), float(piece[0, 1])].append(piece)
    rings = []
    for key in list(starting):
        while starting[key]:
            ring = [starting[key].pop()]
            while (end := (float(ring[-1][-1, 0]), float(ring[-1][-1, 1]))) != key:
                ring.append(starting[end].pop())
            rings.append(np.concatenate([ring[0], *(piece[1:] for piece in ring[1:])]))
    return rings
