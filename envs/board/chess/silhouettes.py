"""The six chess pieces as shapes, drawn in the style of Staunton's set, so that no font has to have them.

A piece is a list of discs and polygons in a square of 100 by 100, y down, and a list of lines on top of it. It is
painted twice: all shapes wider in the colour of the edge, then all shapes in the colour of the piece, so that only
the outline of them together shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlbits.envs.core.drawing import Canvas

_Points = list[tuple[float, float]]
_EDGE = 2.6  # width of the edge, in hundredths of the square


def _mirrored(right: _Points) -> _Points:
    """A polygon from its right half, top to bottom."""
    return [*right, *((100 - x, y) for x, y in reversed(right))]


def _rounded(points: Sequence[tuple[float, float]], times: int = 2) -> _Points:
    """The polygon with its corners cut (Chaikin's algorithm)."""
    points = list(points)
    for _ in range(times):
        pairs = zip(points, [*points[1:], points[0]], strict=True)
        points = [
            (ax + (bx - ax) * part, ay + (by - ay) * part) for (ax, ay), (bx, by) in pairs for part in (0.25, 0.75)
        ]
    return points


def _foot(half: float, top: float = 77) -> list[_Points]:
    """What a piece stands on: a plate, and a moulding above it."""
    plate = _rounded(_mirrored([(50 + half + 4, top + 5), (50 + half + 4, top + 12)]), 1)
    return [plate, _rounded(_mirrored([(50 + half - 1, top), (50 + half + 1, top + 6)]), 1)]


_HEAD = [
    (38, 78), (39, 71), (47, 63), (52, 55), (43, 57), (37, 62), (31, 67), (25, 67), (20, 61), (21, 54), (27, 47),
    (31, 37), (36, 29), (40, 25), (40, 15), (47, 21), (55, 14), (57, 23), (66, 29), (73, 40), (76, 53), (75, 66),
    (73, 78),
]  # fmt: skip
_DISCS: dict[str, list[tuple[float, float, float]]] = {
    "p": [(50, 34, 12.5)],
    "n": [],
    "b": [(50, 14, 5)],
    "r": [],
    "q": [(17, 31, 4.6), (33, 22, 4.6), (50, 18, 4.6), (67, 22, 4.6), (83, 31, 4.6)],
    "k": [],
}
_POLYGONS: dict[str, list[_Points]] = {
    "p": [
        _rounded(_mirrored([(62, 45), (64, 50)]), 1),
        _mirrored([(56, 49), (58, 60), (64, 70), (67, 78)]),
        *_foot(19),
    ],
    "n": [_rounded(_HEAD), *_foot(22)],
    "b": [
        _rounded(_mirrored([(53, 17), (61, 28), (67, 41), (65, 51), (58, 58)])),
        _rounded(_mirrored([(64, 56), (64, 62)]), 1),
        _mirrored([(57, 61), (59, 69), (66, 78)]),
        *_foot(20),
    ],
    "r": [
        [(27, 19), (37, 19), (37, 26), (45, 26), (45, 19), (55, 19), (55, 26), (63, 26), (63, 19), (73, 19), (73, 34),
         (66, 40), (34, 40), (27, 34)],
        _mirrored([(64, 39), (66, 66), (71, 78)]),
        *_foot(23),
    ],
    "q": [
        [(17, 33), (31, 56), (33, 25), (43, 53), (50, 21), (57, 53), (67, 25), (69, 56), (83, 33), (73, 66), (70, 78),
         (30, 78), (27, 66)],
        *_foot(24),
    ],
    "k": [
        [(47, 6), (53, 6), (53, 12), (60, 12), (60, 18), (53, 18), (53, 30), (47, 30), (47, 18), (40, 18), (40, 12),
         (47, 12)],
        _rounded(_mirrored([(50, 24), (57, 33), (55, 46)])),
        _rounded([(51, 46), (56, 36), (66, 31), (77, 33), (83, 42), (81, 52), (73, 62), (70, 78), (51, 78)]),
        _rounded([(49, 46), (44, 36), (34, 31), (23, 33), (17, 42), (19, 52), (27, 62), (30, 78), (49, 78)]),
        _mirrored([(56, 44), (68, 70), (69, 78)]),
        *_foot(24),
    ],
}  # fmt: skip
_LINES: dict[str, list[_Points]] = {
    "p": [],
    "n": [[(44.5, 33), (40.5, 36)], [(26, 58), (28.5, 57)], [(58, 27), (66, 38), (68.5, 52), (67.5, 68)]],
    "b": [[(50, 30), (50, 46)], [(43, 37), (57, 37)]],
    "r": [[(34, 40), (66, 40)], [(34, 66), (66, 66)]],
    "q": [[(29, 65), (40, 62), (60, 62), (71, 65)], [(30, 72), (50, 69.5), (70, 72)]],
    "k": [[(50, 46), (50, 62)], [(30, 67), (42, 63), (58, 63), (70, 67)], [(30, 73.5), (50, 70), (70, 73.5)]],
}


def draw_piece(canvas: Canvas, kind: str, left: float, top: float, size: float, fill: Any, edge: Any) -> None:
    """Draw a piece into a square of a board.

    Args:
        canvas: where.
        kind: a letter of "pnbrqk".
        left: the square's left side.
        top: its upper side.
        size: its width in pixels.
        fill: the colour of the piece.
        edge: the colour of its outline and lines.
    """
    scale = size / 100

    def placed(points: Sequence[tuple[float, float]]) -> _Points:
        return [(left + x * scale, top + y * scale) for x, y in points]

    for x, y, radius in _DISCS[kind]:
        canvas.disc(left + x * scale, top + y * scale, (radius + _EDGE) * scale, edge)
    for polygon in _POLYGONS[kind]:
        canvas.line(placed([*polygon, *polygon[:2]]), edge, 2 * _EDGE * scale)
    for polygon in _POLYGONS[kind]:
        canvas.polygon(placed(polygon), fill)
    for x, y, radius in _DISCS[kind]:
        canvas.disc(left + x * scale, top + y * scale, radius * scale, fill)
    for line in _LINES[kind]:
        canvas.line(placed(line), edge, max(1.25, 2.4 * scale), round_ends=True)
