"""Computes the shapes of a board's provinces, and the places of units, names and centres in them.

A map file has at most points; the shapes are computed from them. Every cell of a grid goes to the province
with the nearest site (a Voronoi partition, Aurenhammer 1991). A province's sites are its own point, those of its
coasts, and those in the optional key ``coordinates.sites`` ({province or impassable place: [[x, y]]}). If adjacent
provinces do not touch, sites are added between them as long as that helps. With the optional key
``coordinates.land`` (a list of outlines, even-odd) land provinces divide the land and seas the rest; land without a
site belongs to no province. For a map without coordinates a layout is computed first: classical scaling of the
distances in steps, then stress majorization (Gansner, Koren and North 2005). Borders are traced once for both
neighbours and then smoothed, so that no gap opens between them.

Everything is computed deterministically from the map alone, and cached for each board.

    geometry = geometry_of(load_board("standard"))
    geometry.unit_points[board.location_index["STP/NC"]]
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mlbits.envs.diplomacy.board import Board
from mlbits.envs.diplomacy.codes import SEA
from mlbits.envs.diplomacy.drawing.borders import OUTSIDE, outlines, trace
from mlbits.envs.diplomacy.drawing.partition import (
    CELL,
    WIDTH,
    Layout,
    assign_cells,
    connect_neighbours,
    layout_of,
    remove_loose_pieces,
    touching,
)

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
# Sizes on a board of WIDTH with as many provinces as the standard one, in the units of all coordinates here.
UNIT_RADIUS: Final = 10.0
CENTER_RADIUS: Final = 4.5
LETTER_WIDTH: Final = 8.0
LABEL_HEIGHT: Final = 12.0
# Kinds of borders.
INLAND: Final = 0
SHORE: Final = 1
OPEN_SEA: Final = 2


@dataclass(frozen=True, eq=False)
class Geometry:
    """The geometry of a board's drawing; x goes right, y down, the size is WIDTH (1,000) by ``height``.

    Attributes:
        height: height of the drawing.
        scale: scale of units, names and marks: above 1 on a board with few, large provinces.
        areas: (province, or IMPASSABLE for land that cannot be entered; closed outline float64 [K, 2]), the largest
            first: areas inside another come after it.
        borders: (INLAND, SHORE or OPEN_SEA; line float64 [K, 2]), each once.
        unit_points: where units are drawn, float64 [L, 2].
        label_points: centre of each province's name, float64 [N, 2].
        center_points: centre of each supply centre's mark, float64 [N, 2].
        touching: pairs of provinces (low, high) with a common border.
    """

    height: float
    scale: float
    areas: tuple[tuple[int, FloatArray], ...]
    borders: tuple[tuple[int, FloatArray], ...]
    unit_points: FloatArray
    label_points: FloatArray
    center_points: FloatArray
    touching: frozenset[tuple[int, int]]


_KEPT: WeakKeyDictionary[Board, Geometry] = WeakKeyDictionary()
_BY_CONTENT: dict[str, Geometry] = {}  # a map that is loaded again has the same geometry
_MOST_CONTENTS = 16


def geometry_of(board: Board) -> Geometry:
    """The geometry of a board, computed at the first call for its map.

    Raises:
        GameError: for invalid ``coordinates.land`` or ``coordinates.sites``.
    """
    if board not in _KEPT:
        content = json.dumps(board.source, sort_keys=True, default=repr)
        if content not in _BY_CONTENT:
            if len(_BY_CONTENT) >= _MOST_CONTENTS:
                _BY_CONTENT.clear()
            _BY_CONTENT[content] = compute_geometry(board)
        _KEPT[board] = _BY_CONTENT[content]
    return _KEPT[board]


def compute_geometry(board: Board) -> Geometry:
    """As :func:`geometry_of`, but without the cache."""
    layout = layout_of(board)
    sites = connect_neighbours(layout)
    labels = remove_loose_pieces(layout, assign_cells(layout, sites, CELL), sites)
    # One extra cell on every side moves the rounded corners out of the drawing.
    lines = trace(np.pad(labels, 1, mode="edge"), CELL, origin=-CELL)
    sea = np.array([province.type == SEA for province in board.provinces] + [False])  # IMPASSABLE is the last
    scale = float(np.clip(np.sqrt(WIDTH * layout.height / len(board.provinces)) / 100, 0.6, 1.8))
    units = _unit_points(layout, labels, UNIT_RADIUS * scale)
    names, centers = _label_points(layout, labels, units, scale)
    return Geometry(
        height=layout.height,
        scale=scale,
        areas=tuple(outlines(lines)),
        borders=tuple(
            (int(sea[line.left]) + int(sea[line.right]), line.points)
            for line in lines
            if OUTSIDE not in (line.left, line.right)
        ),
        unit_points=units,
        label_points=names,
        center_points=centers,
        touching=touching(labels),
    )


def _unit_points(layout: Layout, labels: IntArray, radius: float) -> FloatArray:
    """Place units near their locations' points, with room around them and apart from each other."""
    board, points = layout.board, layout.points.copy()
    boxes = ndimage.find_objects(labels + 1)
    sizes = np.bincount(labels[labels >= 0], minlength=len(board.provinces))
    placed: list[FloatArray] = []
    for province in sorted(range(len(board.provinces)), key=lambda province: (sizes[province], province)):
        box = boxes[province] if province < len(boxes) else None
        if box is None:  # another province has the same point
            continue
        # Outside the box counts as outside the province, so that no unit is cut off at the edge of the drawing.
        room = ndimage.distance_transform_edt(np.pad(labels[box] == province, 1))[1:-1, 1:-1] * CELL
        down, right = (np.mgrid[box] + 0.5) * CELL
        crowd = np.zeros(room.shape)
        for x, y in placed:
            crowd += np.maximum(0, 2 * radius + 2 - np.hypot(right - x, down - y))
        for location in (province, *board.coasts_of[province]):
            away = np.hypot(right - points[location, 0], down - points[location, 1])
            wanted, price = (radius + 7, 0.15) if location == province else (0.7 * radius, 0.3)
            score = np.where(room > 0, np.minimum(room, wanted) - price * away - crowd, -np.inf)
            row, column = np.unravel_index(score.argmax(), score.shape)
            points[location] = right[row, column], down[row, column]
            placed.append(points[location])
    return points


def _label_points(layout: Layout, labels: IntArray, units: FloatArray, scale: float) -> tuple[FloatArray, FloatArray]:
    """Place names and centres inside their province, close to the unit, without overlaps."""
    board, count = layout.board, len(layout.board.provinces)
    taken = np.zeros(labels.shape)
    down, right = np.mgrid[: labels.shape[0], : labels.shape[1]] * CELL + CELL / 2
    for x, y in units:
        taken[np.hypot(right - x, down - y) < UNIT_RADIUS * scale + 1] = 1
    names, centers = np.zeros((count, 2)), np.zeros((count, 2))
    sizes = np.bincount(labels[labels >= 0], minlength=count)
    smallest_first = sorted(range(count), key=lambda province: (sizes[province], province))
    with_centers = [province for province in smallest_first if board.provinces[province].center]
    dot = (2 * CENTER_RADIUS + 3) * scale
    for places, provinces in ((names, smallest_first), (centers, with_centers)):
        for province in provinces:
            word = (LABEL_HEIGHT * scale, LETTER_WIDTH * scale * len(board.provinces[province].id))
            size = word if places is names else (dot, dot)
            x, y = places[province] = _free_place(labels == province, taken, size, units[province])
            taken[(np.abs(right - x) < size[1] / 2) & (np.abs(down - y) < size[0] / 2)] = 1
    return names, centers


def _free_place(
    inside: NDArray[np.bool_], taken: FloatArray, size: tuple[float, float], near: FloatArray
) -> tuple[float, float]:
    """Centre of a box of ``size`` (height, width) in the province, without overlaps, and close to ``near``."""
    reach = 90.0
    top, left = (max(0, int((c - reach) / CELL)) for c in near[::-1])
    bottom, end = (int((c + reach) / CELL) for c in near[::-1])
    mask, busy = inside[top:bottom, left:end].astype(float), taken[top:bottom, left:end]
    box = tuple(2 * round(side / CELL / 2) + 1 for side in size)
    within = ndimage.uniform_filter(mask, box, mode="constant")
    covered = ndimage.uniform_filter(busy, box, mode="constant")
    down, right = np.mgrid[: mask.shape[0], : mask.shape[1]] * CELL + CELL / 2
    x, y = right + left * CELL, down + top * CELL
    cost = 60 * (1 - within) + 150 * covered + 0.35 * np.hypot(x - near[0], y - near[1])
    # A name beyond the edge of the drawing would not be readable.
    height, width = inside.shape[0] * CELL, inside.shape[1] * CELL
    cost += 500 * ((x < size[1] / 2) | (x > width - size[1] / 2) | (y < size[0] / 2) | (y > height - size[0] / 2))
    row, column = np.unravel_index(cost.argmin(), cost.shape)
    return float(x[row, column]), float(y[row, column])
