"""Divides a board's area among its provinces: each cell of a grid goes to the province with the nearest site.

See :mod:`mlbits.envs.diplomacy.drawing.province_shapes` for sites and land outlines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw
from scipy import ndimage
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, shortest_path
from scipy.spatial import cKDTree

from mlbits.envs.core.errors import GameError
from mlbits.envs.diplomacy.board import Board
from mlbits.envs.diplomacy.codes import SEA

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
WIDTH: Final = 1000.0  # every board is scaled to this width
CELL: Final = 2.5
IMPASSABLE: Final = -1  # land that cannot be entered
MOST_OBLONG: Final = 4
_FAR = 1e7  # larger coordinates are refused
_COARSE = 10.0
_SPECK = 24  # cells; smaller pieces are removed
_MOST_TRIES = 150
_NEWCOMERS = ((0.35, 0.65), (0.45, 0.55), (0.25, 0.4, 0.6, 0.75))  # positions of sites added between two provinces


@dataclass(frozen=True, eq=False)
class Layout:
    """A board's points, scaled to WIDTH.

    Attributes:
        board: the map.
        height: height of the drawing.
        points: points of the locations, float64 [L, 2].
        sites: (owner, x, y) of every site, float64 [S, 3]; the owner is a province or IMPASSABLE.
        land: where land is, bool [ceil(height), WIDTH], or None if land and sea provinces are divided together.
    """

    board: Board
    height: float
    points: FloatArray
    sites: FloatArray
    land: NDArray[np.bool_] | None


def layout_of(board: Board) -> Layout:
    """Read a board's coordinates, or compute a layout if it has none.

    Raises:
        GameError: for invalid ``coordinates.land`` or ``coordinates.sites``.
    """
    coordinates = board.coordinates
    if coordinates is None:
        points, height = _compute_layout(board)
        owners = np.asarray(board.province_of, float)
        return Layout(board, height, points, np.column_stack([owners, points]), None)
    left, top, width, height = (float(part) for part in str(coordinates["viewBox"]).split())
    if not (width > 0 and MOST_OBLONG * width >= height >= width / MOST_OBLONG):
        wanted = f"a width and height above 0, neither over {MOST_OBLONG} times the other"
        raise GameError(f"map, coordinates.viewBox: got {coordinates['viewBox']!r}"[:120] + f"; wanted {wanted}")
    scale = WIDTH / width

    def scaled(key: str, rows: Any) -> FloatArray:
        try:
            table = np.array(rows, float)
        except (TypeError, ValueError):
            table = np.zeros(0)
        if table.ndim != 2 or table.shape[1] != 2 or not (np.abs(table) < _FAR).all():
            raise GameError(f"map, {key}: got {rows!r}"[:120] + "; wanted a list of [x, y]")
        return (table - (left, top)) * scale

    points = scaled("coordinates.points", [coordinates["points"][name]["unit"] for name in board.locations])
    points = np.clip(points, 0, (WIDTH, height * scale))  # points outside are drawn at the edge
    sites = [np.column_stack([board.province_of, points])]
    for name, rows in _object(coordinates, "sites").items():
        if name not in board.location_index and name not in board.impassable:
            raise GameError(f"map, coordinates.sites: got {name!r}; wanted a province or an impassable place")
        owner = int(board.province_of[board.location_index[name]]) if name in board.location_index else IMPASSABLE
        places = scaled(f"coordinates.sites[{name!r}]", rows)
        sites.append(np.column_stack([np.full(len(places), owner), places]))
    outlines = coordinates.get("land")
    if outlines is not None and not isinstance(outlines, list):
        raise GameError(f"map, coordinates.land: got {outlines!r}"[:120] + "; wanted a list of outlines")
    land = None
    if outlines is not None:
        rings = [scaled(f"coordinates.land[{i}]", ring) for i, ring in enumerate(outlines)]
        for i, ring in enumerate(rings):
            if len(ring) < 3:
                raise GameError(f"map, coordinates.land[{i}]: got {len(ring)} points; wanted 3 or more")
        land = _filled(rings, int(np.ceil(height * scale)))
    return Layout(board, height * scale, points, np.concatenate(sites), land)


def _object(coordinates: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = coordinates.get(key, {})
    if not isinstance(value, Mapping):
        raise GameError(f"map, coordinates.{key}: got {value!r}"[:120] + "; wanted an object of lists")
    return value


def _filled(rings: list[FloatArray], height: int) -> NDArray[np.bool_]:
    """The area inside an odd number of the outlines."""
    whole = Image.new("1", (int(WIDTH), height))
    for ring in rings:
        one = Image.new("1", whole.size)
        ImageDraw.Draw(one).polygon([(float(x), float(y)) for x, y in ring], fill=1)
        whole = ImageChops.logical_xor(whole, one)
    return np.asarray(whole, bool)


def _compute_layout(board: Board) -> tuple[FloatArray, float]:
    """Points for a board without coordinates, from distances in steps; also the height of the drawing."""
    count = len(board.locations)
    near = np.zeros((count, count))
    for table in (board.army_neighbours, board.fleet_neighbours):
        for a, row in enumerate(table):
            near[a, list(row)] = 1
    for location in range(len(board.provinces), count):
        near[location, board.province_of[location]] = near[board.province_of[location], location] = 0.5
    steps = shortest_path(csr_array(near), directed=False)
    steps[np.isinf(steps)] = steps[np.isfinite(steps)].max() + 1
    # Classical scaling: the two largest eigenvectors of the centred squared distances, with a fixed choice of signs.
    centring = np.eye(count) - 1 / count
    values, vectors = np.linalg.eigh(-0.5 * centring @ steps**2 @ centring)
    points = vectors[:, -2:] * np.sqrt(np.maximum(values[-2:], 1e-9))
    points *= np.where(points[np.abs(points).argmax(0), [0, 1]] < 0, -1, 1)
    points += 1e-3 * np.column_stack([np.cos(np.arange(count)), np.sin(np.arange(count))])
    # Stress majorization with weights 1/d^2: each point moves to the weighted mean of the positions wanted by others.
    weights = 1 / np.maximum(steps, 0.25) ** 2
    np.fill_diagonal(weights, 0)
    for _ in range(300):
        gaps = points[:, None] - points[None]
        lengths = np.maximum(np.linalg.norm(gaps, axis=2), 1e-6)
        wanted = points[None] + gaps * (steps / lengths)[..., None]
        points = (weights[..., None] * wanted).sum(1) / weights.sum(1)[:, None]
    low, high = points.min(0), points.max(0)
    spread = np.maximum(high - low, 1e-6)
    height = WIDTH * float(np.clip(spread[1] / spread[0], 0.5, 1.2))
    margin = 0.1 * min(WIDTH, height)
    return margin + (points - low) / spread * (np.array([WIDTH, height]) - 2 * margin), height


def assign_cells(layout: Layout, sites: FloatArray, cell: float) -> IntArray:
    """The owner of each cell, a province or IMPASSABLE, int64 [H, W]."""
    columns, rows = round(WIDTH / cell), max(1, round(layout.height / cell))
    x, y = np.meshgrid((np.arange(columns) + 0.5) * cell, (np.arange(rows) + 0.5) * cell)
    # Borders are slightly bent, so that they look natural.
    bent_x = x + 3 * np.sin(y / 17 + 1.3 * np.sin(x / 29)) + 1.5 * np.sin(y / 7 + x / 11)
    bent_y = y + 3 * np.sin(x / 19 + 1.7 * np.sin(y / 23)) + 1.5 * np.sin(x / 8 - y / 13)
    cells = np.stack([bent_x, bent_y], -1)
    owners = sites[:, 0].astype(np.int64)
    if layout.land is None:
        return np.asarray(owners[cKDTree(sites[:, 1:]).query(cells)[1]])
    height, width = layout.land.shape
    inside = layout.land[
        np.clip(bent_y.astype(int), 0, height - 1),
        np.clip(bent_x.astype(int), 0, width - 1),
    ]
    sea = np.array([province.type == SEA for province in layout.board.provinces] + [False])[owners]
    labels = np.full(inside.shape, IMPASSABLE)
    for where, who in ((inside, ~sea), (~inside, sea)):
        if who.any():
            labels[where] = owners[who][cKDTree(sites[who, 1:]).query(cells[where])[1]]
    return labels


def touching(labels: IntArray) -> frozenset[tuple[int, int]]:
    """Pairs of owners (low, high) with adjacent cells."""
    pairs: set[tuple[int, int]] = set()
    for a, b in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
        found = np.unique(np.stack([a[a != b], b[a != b]], -1), axis=0)
        pairs |= {(min(int(p), int(q)), max(int(p), int(q))) for p, q in found}
    return frozenset(pair for pair in pairs if pair[0] != IMPASSABLE)


def adjacent_pairs(board: Board) -> frozenset[tuple[int, int]]:
    """Pairs of provinces (low, high) between which some unit can move without a convoy."""
    table = [*enumerate(board.army_neighbours), *enumerate(board.fleet_neighbours)]
    pairs = {(int(board.province_of[a]), int(board.province_of[b])) for a, row in table for b in row}
    return frozenset((min(pair), max(pair)) for pair in pairs)


def connect_neighbours(layout: Layout) -> FloatArray:
    """The sites, plus sites between adjacent provinces as long as these make more of them touch."""
    wanted, sites = adjacent_pairs(layout.board), layout.sites

    def evaluate(candidate: FloatArray) -> tuple[float, frozenset[tuple[int, int]]]:
        labels = assign_cells(layout, candidate, _COARSE)
        pairs = touching(labels)
        return len(pairs & wanted) - 0.4 * len(pairs - wanted) - 0.7 * _pieces(labels), pairs

    best, pairs = evaluate(sites)
    tries = 0
    for fractions in _NEWCOMERS:
        for a, b in sorted(wanted - pairs):
            tries += 1
            if tries > _MOST_TRIES:  # probably not a planar map: stop trying
                return sites
            gap = layout.points[b] - layout.points[a]
            extra = [(a if x < 0.5 else b, *(layout.points[a] + x * gap)) for x in fractions]
            candidate = np.concatenate([sites, extra])
            score, found = evaluate(candidate)
            if score > best:
                sites, best, pairs = candidate, score, found
    return sites


def _pieces(labels: IntArray) -> int:
    """Number of connected pieces of all owners."""
    cells = np.arange(labels.size).reshape(labels.shape)
    down, right = labels[1:] == labels[:-1], labels[:, 1:] == labels[:, :-1]
    starts, ends = np.r_[cells[1:][down], cells[:, 1:][right]], np.r_[cells[:-1][down], cells[:, :-1][right]]
    graph = csr_array((np.ones(len(starts), np.int8), (starts, ends)), (labels.size, labels.size))
    return int(connected_components(graph, directed=False, return_labels=False))


def remove_loose_pieces(layout: Layout, labels: IntArray, sites: FloatArray) -> IntArray:
    """Remove pieces without a site of their owner; give a province without cells a patch at its point."""
    labels = labels.copy()
    rows, columns = labels.shape
    for province, (x, y) in enumerate(layout.points[: len(layout.board.provinces)]):
        if (labels == province).sum() < _SPECK:
            down, right = np.ogrid[:rows, :columns]
            labels[(down - y / CELL) ** 2 + (right - x / CELL) ** 2 < 40] = province
    loose = np.zeros(labels.shape, bool)
    own = np.clip(sites[:, :0:-1] / CELL, 0, (rows - 1, columns - 1)).astype(int)
    for owner in np.unique(labels):
        pieces, count = ndimage.label(labels == owner)
        at = own[sites[:, 0] == owner]
        kept = set(pieces[at[:, 0], at[:, 1]].tolist()) - {0}
        sizes = np.bincount(pieces.ravel(), minlength=count + 1)
        kept = kept or {int(sizes[1:].argmax()) + 1}
        is_land = owner == IMPASSABLE or layout.board.provinces[owner].type != SEA
        for piece in set(range(1, count + 1)) - kept:
            if is_land and layout.land is not None and sizes[piece] >= _SPECK:
                labels[pieces == piece] = IMPASSABLE  # an island that belongs to no province
            elif owner != IMPASSABLE or sizes[piece] < _SPECK:
                loose |= pieces == piece
    if loose.any():
        nearest = ndimage.distance_transform_edt(loose, return_distances=False, return_indices=True)
        labels = labels[tuple(nearest)]
    return labels
