"""Draws positions as images with Pillow.

The board without pieces is painted once per board and size as a palette image, so that changing a province's
colour only changes the palette. It is painted at twice the size and halved, which smooths all lines.

    picture = draw_position(first_position(load_board("standard")))
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mlbits.envs.core.drawing import font
from mlbits.envs.core.errors import GameError
from mlbits.envs.diplomacy.board import Board
from mlbits.envs.diplomacy.codes import ARMY, SEA, UNIT_LETTERS
from mlbits.envs.diplomacy.drawing.board_marks import (
    DOTTED,
    KEY_HEIGHT,
    SOLID,
    Marks,
    Piece,
    Point,
    Sign,
    Stroke,
    heading_height,
    key,
    marks_of,
)
from mlbits.envs.diplomacy.drawing.palette import (
    INK,
    INLAND_LINE,
    LAND,
    PAPER,
    RGB,
    SEA_LINE,
    SHORE_LINE,
    WASTE,
    WHITE,
    letter_colour,
    mixed,
    power_colours,
)
from mlbits.envs.diplomacy.drawing.palette import SEA as SEA_COLOUR
from mlbits.envs.diplomacy.drawing.partition import IMPASSABLE, WIDTH
from mlbits.envs.diplomacy.drawing.province_shapes import CENTER_RADIUS, SHORE, geometry_of
from mlbits.envs.diplomacy.orders import Order
from mlbits.envs.diplomacy.position import Position

_FINER = 2
SIZES: Final = (200, 4000)


def draw_position(
    position: Position,
    orders: Mapping[int, Order] | None = None,
    fates: Mapping[int, int] | None = None,
    powers: Mapping[int, int] | None = None,
    size: int = 1000,
) -> NDArray[np.uint8]:
    """Draw a position as an image.

    Args:
        position: the position to show.
        orders: orders given in that position, by the province of the unit.
        fates: fates of those orders, bits of :mod:`mlbits.envs.diplomacy.codes`.
        powers: the power that gave each order, if the orders are from the phase before (the units have moved since).
        size: width in pixels, 200 to 4000.

    Returns:
        uint8 [H, size, 3]; H follows from the board.

    Raises:
        GameError: for a size out of range.
    """
    if not SIZES[0] <= size <= SIZES[1]:
        raise GameError(f"size: got {size!r}; wanted {SIZES[0]} to {SIZES[1]} pixels")
    sheet = _sheet(position.board, size)
    indexed = sheet.indices.copy()
    indexed.putpalette([part for colour in province_colours(position) + sheet.line_colours for part in colour])
    painter = _Painter(indexed.convert("RGB"), sheet.scale * _FINER, sheet.top)
    tones = power_colours(position.board.powers)
    marks = marks_of(position, orders, fates, powers)
    for province in position.board.centers:
        owner = position.centers.get(province)
        painter.center(sheet.centers[province], sheet.center_radius, None if owner is None else tones[owner])
    for part in (sheet.key, marks):
        painter.paint(part)
    picture = painter.image.reduce(_FINER)
    picture.paste(WHITE, (0, 0), sheet.halos)
    picture.paste(INK, (0, 0), sheet.names)
    for part in (sheet.key, marks):
        _write(picture, part, sheet.scale, sheet.top)
    return np.asarray(picture, np.uint8).copy()


def province_colours(position: Position) -> list[RGB]:
    """The colour of each province: land, sea, or a tint of its centre's owner."""
    colours = [SEA_COLOUR if province.type == SEA else LAND for province in position.board.provinces]
    tones = power_colours(position.board.powers)
    for province, owner in position.centers.items():
        colours[province] = mixed(tones[owner], LAND, 0.42)
    return colours


class _Sheet:
    """The unchanging parts of a board at one size."""

    def __init__(self, board: Board, size: int) -> None:
        geometry = geometry_of(board)
        self.scale, self.top = size / WIDTH, heading_height(len(board.powers))
        self.centers = [(float(x), float(y)) for x, y in geometry.center_points]
        self.center_radius = CENTER_RADIUS * geometry.scale
        # Palette indices: the provinces, then these.
        self.line_colours: list[RGB] = [WASTE, INLAND_LINE, SHORE_LINE, SEA_LINE, PAPER]
        first, fine = len(board.provinces), self.scale * _FINER
        height = round((self.top + geometry.height + KEY_HEIGHT) * self.scale)
        self.indices = Image.new("P", (size * _FINER, height * _FINER), first + 4)
        pen = ImageDraw.Draw(self.indices)
        for province, ring in geometry.areas:
            fill = first if province == IMPASSABLE else province
            pen.polygon([((x * fine), (y + self.top) * fine) for x, y in ring], fill=fill)
        for kind, line in sorted(geometry.borders, key=lambda border: -border[0]):
            width = 1.5 if kind == SHORE else 0.9
            points = [(x * fine, (y + self.top) * fine) for x, y in line]
            pen.line(points, fill=first + 1 + kind, width=max(1, round(width * fine)), joint="curve")
        bottom = (self.top + geometry.height) * fine
        for low, high in ((0, self.top * fine - 1), (bottom, height * _FINER)):
            pen.rectangle([0, low, size * _FINER, high], fill=first + 4)
        self.names, self.halos = Image.new("L", (size, height)), Image.new("L", (size, height))
        look: dict[str, Any] = {"anchor": "mm", "font": font(_text_size(12 * geometry.scale * self.scale))}
        for province, (x, y) in enumerate(geometry.label_points):
            at, name = (x * self.scale, (y + self.top) * self.scale), board.provinces[province].id
            ImageDraw.Draw(self.names).text(at, name, fill=255, **look)
            ImageDraw.Draw(self.halos).text(at, name, fill=150, stroke_width=max(1, round(1.6 * self.scale)), **look)
        self.key = key(geometry.height)


_SHEETS: WeakKeyDictionary[Board, dict[int, _Sheet]] = WeakKeyDictionary()


def _sheet(board: Board, size: int) -> _Sheet:
    sheets = _SHEETS.setdefault(board, {})
    if size not in sheets:
        sheets[size] = _Sheet(board, size)
    return sheets[size]


class _Painter:
    """Paints marks on an image of ``scale`` pixels per unit, whose top is ``top`` units above the board's."""

    def __init__(self, image: Image.Image, scale: float, top: float) -> None:
        self.image, self.scale, self.top = image, scale, top
        self.pen = ImageDraw.Draw(image)

    def paint(self, marks: Marks) -> None:
        """Paint strokes, chips, pieces and signs; text is written on the finished image."""
        for stroke in marks.strokes:
            self.stroke(stroke)
        for chip in marks.chips:
            (x, y), side = self.at(chip.at), chip.side * self.scale
            self.pen.rectangle([x, y, x + side, y + side], fill=chip.colour, outline=INK, width=self.thick(1))
        for piece in marks.pieces:
            self.piece(piece)
        for sign in marks.signs:
            self.sign(sign)

    def at(self, point: Point) -> Point:
        return point[0] * self.scale, (point[1] + self.top) * self.scale

    def thick(self, width: float) -> int:
        return max(1, round(width * self.scale))

    def disc(self, at: Point, radius: float, fill: RGB | None, rim: RGB | None = None, width: float = 1.0) -> None:
        (x, y), r = self.at(at), radius * self.scale
        self.pen.ellipse([x - r, y - r, x + r, y + r], fill=fill, outline=rim, width=self.thick(width))

    def center(self, at: Point, radius: float, owner: RGB | None) -> None:
        """A supply centre: a circle filled with the owner's colour, or with white."""
        self.disc(at, radius, WHITE, INK, 1.2)
        if owner is not None:
            self.disc(at, 0.72 * radius, owner)

    def stroke(self, stroke: Stroke) -> None:
        """Paint the rim first, then the line, so that crossing parts of a line have no rim between them."""
        points = list(stroke.points)
        tip = points[-1]
        if stroke.arrow:
            points[-1] = _back(points[-2], tip, 0.8 * stroke.arrow)
        for colour, more in ((stroke.rim, 1.6), (stroke.colour, 0.0)):
            for part in pieces_of(points, stroke.style, stroke.width):
                if len(part) == 1:
                    self.disc(part[0], 0.5 * (stroke.width + more), colour)
                else:
                    width = self.thick(stroke.width + more)
                    self.pen.line([self.at(point) for point in part], fill=colour, width=width, joint="curve")
            if stroke.arrow:
                head = arrow_head(points[-2], tip, stroke.arrow, 0.8 * more)
                self.pen.polygon([self.at(point) for point in head], fill=colour)

    def piece(self, piece: Piece) -> None:
        """An army is a square, a fleet a ship; both carry their letter."""
        for colour, more in ((WHITE, 1.8), (piece.rim, 0.8), (piece.colour, -0.6)):
            for outline in piece_outlines(piece, more):
                self.pen.polygon([self.at(point) for point in outline], fill=colour)

    def sign(self, sign: Sign) -> None:
        """A circle, cross, plus, dot or burst."""
        if sign.kind in ("ring", "dot"):
            self.disc(sign.at, sign.radius, sign.colour if sign.kind == "dot" else None, INK, sign.width)
            return
        lines = sign_lines(sign)
        for colour, more in ((WHITE, 1.6), (sign.colour, 0.0)):
            for line in lines:
                width = self.thick(sign.width + more)
                self.pen.line([self.at(point) for point in line], fill=colour, width=width)


def _write(picture: Image.Image, marks: Marks, scale: float, top: float) -> None:
    """Write text, and the letters of pieces."""
    pen = ImageDraw.Draw(picture)
    for word in marks.words:
        place = (word.at[0] * scale, (word.at[1] + top) * scale)
        pen.text(place, word.text, fill=INK, font=font(_text_size(word.size * scale)), anchor=word.anchor)
    for piece in marks.pieces:
        x, y = piece.at[0] * scale, (piece.at[1] + top + 0.05 * piece.radius) * scale
        size, letter = _text_size(1.25 * piece.radius * scale), UNIT_LETTERS[piece.kind]
        pen.text((x, y), letter, fill=letter_colour(piece.colour), font=font(size), anchor="mm")


def _text_size(size: float) -> int:
    return max(6, round(size))


def _back(start: Point, end: Point, length: float) -> Point:
    """The point at a given distance before the end."""
    distance = math.hypot(end[0] - start[0], end[1] - start[1])
    fraction = 1 - min(1.0, length / distance) if distance > 0 else 0.0
    return start[0] + fraction * (end[0] - start[0]), start[1] + fraction * (end[1] - start[1])


def arrow_head(start: Point, tip: Point, length: float, rim: float = 0.0) -> list[Point]:
    """The triangle at the end of an arrow, enlarged by a rim."""
    x, y = tip[0] - start[0], tip[1] - start[1]
    distance = math.hypot(x, y) or 1.0
    x, y = x / distance, y / distance
    long, half = length + 2 * rim, 0.52 * length + 1.4 * rim
    front = (tip[0] + 1.2 * rim * x, tip[1] + 1.2 * rim * y)
    back = (front[0] - long * x, front[1] - long * y)
    return [front, (back[0] - half * y, back[1] + half * x), (back[0] + half * y, back[1] - half * x)]


def piece_outlines(piece: Piece, rim: float = 0.0) -> list[list[Point]]:
    """Polygons of a unit, enlarged by a rim: a square, or a hull below a sail."""
    x, y, r = piece.at[0], piece.at[1], piece.radius
    if piece.kind == ARMY:
        a, c = 0.84 * r + rim, 0.5 * r + rim  # a square with its corners cut
        corners = [(-a, -c), (-c, -a), (c, -a), (a, -c), (a, c), (c, a), (-c, a), (-a, c)]
        return [[(x + dx, y + dy) for dx, dy in corners]]
    wide, low, high, keel = 1.25 * r + 1.3 * rim, 0.85 * r + rim, -0.55 * r - rim, 0.72 * r + 0.7 * rim
    hull = [(-wide, high), (wide, high), (keel, low), (-keel, low)]
    sail = [(-0.1 * r - rim, high + 0.05 * r), (-0.1 * r - rim, -1.02 * r - 1.5 * rim), (0.65 * r + 1.5 * rim, high)]
    return [[(x + dx, y + dy) for dx, dy in hull], [(x + dx, y + dy) for dx, dy in sail]]


def sign_lines(sign: Sign) -> list[list[Point]]:
    """The lines of a cross, a plus or a burst."""
    (x, y), r = sign.at, sign.radius
    if sign.kind == "burst":
        rays = [(math.cos(math.pi * i / 6), math.sin(math.pi * i / 6)) for i in range(12)]
        return [[(x + 0.8 * r * c, y + 0.8 * r * s), (x + 1.15 * r * c, y + 1.15 * r * s)] for c, s in rays]
    if sign.kind == "plus":
        return [[(x - r, y), (x + r, y)], [(x, y - r), (x, y + r)]]
    return [[(x - r, y - r), (x + r, y + r)], [(x - r, y + r), (x + r, y - r)]]


def pieces_of(points: list[Point], style: str, width: float) -> Iterator[list[Point]]:
    """Split a line for drawing: whole, dashes, or dots (lists of one point)."""
    if style == SOLID:
        yield points
        return
    (x0, y0), (x1, y1) = points[0], points[-1]
    distance = math.hypot(x1 - x0, y1 - y0)
    step = (2.7 if style == DOTTED else 4.5) * width
    count = max(1, round(distance / step))
    for i in range(count):
        begin, end = i / count, (i + 0.6) / count
        start = (x0 + begin * (x1 - x0), y0 + begin * (y1 - y0))
        yield [start] if style == DOTTED else [start, (x0 + end * (x1 - x0), y0 + end * (y1 - y0))]
