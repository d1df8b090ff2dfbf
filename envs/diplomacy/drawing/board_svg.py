"""Draws positions as self-contained SVG, with the same marks as ``board_image``.

Path("start.svg").write_text(svg(first_position(load_board("standard"))))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from mlbits.envs.diplomacy.board import Board
from mlbits.envs.diplomacy.codes import UNIT_LETTERS
from mlbits.envs.diplomacy.drawing.board_image import arrow_head, piece_outlines, province_colours, sign_lines
from mlbits.envs.diplomacy.drawing.board_marks import (
    DASHED,
    DOTTED,
    KEY_HEIGHT,
    Marks,
    Piece,
    Point,
    Sign,
    Stroke,
    Word,
    heading_height,
    key,
    marks_of,
    title,
)
from mlbits.envs.diplomacy.drawing.palette import (
    INK,
    INLAND_LINE,
    PAPER,
    RGB,
    SEA_LINE,
    SHORE_LINE,
    WASTE,
    WHITE,
    hexadecimal,
    letter_colour,
    power_colours,
)
from mlbits.envs.diplomacy.drawing.partition import IMPASSABLE, WIDTH
from mlbits.envs.diplomacy.drawing.province_shapes import CENTER_RADIUS, INLAND, OPEN_SEA, SHORE, geometry_of
from mlbits.envs.diplomacy.orders import Order
from mlbits.envs.diplomacy.position import Position

_LINES = {INLAND: (INLAND_LINE, 0.9), SHORE: (SHORE_LINE, 1.5), OPEN_SEA: (SEA_LINE, 0.9)}


def svg(position: Position, orders: Mapping[int, Order] | None = None, fates: Mapping[int, int] | None = None) -> str:
    """A position as a complete SVG document.

    Args:
        position: the position to show.
        orders: orders given in that position, by the province of the unit.
        fates: fates of those orders, bits of :mod:`mlbits.envs.diplomacy.codes`.
    """
    ground = ground_svg(position.board, province_colours(position))
    return opening_svg(position.board, title(position)) + ground + marks_svg(position, orders, fates) + names_svg(
        position.board
    ) + "</svg>\n"  # fmt: skip


def opening_svg(board: Board, heading: str) -> str:
    """The opening tag and the title."""
    top, height = heading_height(len(board.powers)), geometry_of(board).height + KEY_HEIGHT
    box = f"0 {_n(-top)} {_n(WIDTH)} {_n(top + height)}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" font-family="sans-serif" fill="{hexadecimal(INK)}" '
        f'stroke-linecap="round" stroke-linejoin="round"><title>{escape(heading)}</title>'
    )


def ground_svg(board: Board, colours: Sequence[RGB]) -> str:
    """Provinces (class "pI" for province I, with their names as tooltips), borders, and the key below."""
    geometry = geometry_of(board)
    parts = []
    for province, ring in geometry.areas:
        if province == IMPASSABLE:
            parts.append(f'<path fill="{hexadecimal(WASTE)}" d="{_path(ring)}Z"/>')
        else:
            name, fill = escape(board.provinces[province].name), hexadecimal(colours[province])
            parts.append(f'<path class="p{province}" fill="{fill}" d="{_path(ring)}Z"><title>{name}</title></path>')
    for kind in (OPEN_SEA, INLAND, SHORE):
        colour, width = _LINES[kind]
        lines = "".join(_path(line) for which, line in geometry.borders if which == kind)
        parts.append(f'<path fill="none" stroke="{hexadecimal(colour)}" stroke-width="{width}" d="{lines}"/>')
    top = heading_height(len(board.powers))
    for low, size in ((-top, top), (geometry.height, KEY_HEIGHT)):
        place = f'x="0" y="{_n(low)}" width="{_n(WIDTH)}" height="{_n(size)}"'
        parts.append(f'<rect {place} fill="{hexadecimal(PAPER)}"/>')
    return "<g>" + "".join(parts) + _marks(key(geometry.height)) + "</g>"


def marks_svg(
    position: Position, orders: Mapping[int, Order] | None = None, fates: Mapping[int, int] | None = None
) -> str:
    """The parts that change between positions: centres, units, orders and the heading."""
    return _centres(position) + _marks(marks_of(position, orders, fates)) + "</g>"


def _centres(position: Position) -> str:
    """The opening of a group, and the supply centres with their owners' colours."""
    geometry = geometry_of(position.board)
    radius, tones = CENTER_RADIUS * geometry.scale, power_colours(position.board.powers)
    parts = []
    for province in position.board.centers:
        x, y = geometry.center_points[province]
        owner = position.centers.get(province)
        parts.append(_disc((x, y), radius, WHITE, INK, 1.2))
        if owner is not None:
            parts.append(_disc((x, y), 0.72 * radius, tones[owner]))
    return "<g>" + "".join(parts)


def last_marks_svg(
    position: Position, orders: Mapping[int, Order], fates: Mapping[int, int], powers: Mapping[int, int]
) -> str:
    """As :func:`marks_svg`, for orders of the phase before, after which units have moved.

    Args:
        position: the position after those orders.
        orders: the orders, by the province in which the unit was.
        fates: their fates.
        powers: the powers that gave them.
    """
    return _centres(position) + _marks(marks_of(position, orders, fates, powers)) + "</g>"


def names_svg(board: Board) -> str:
    """The provinces' short names; they ignore the pointer, so that tooltips work below them."""
    geometry = geometry_of(board)
    style = 'pointer-events="none" paint-order="stroke" stroke="#ffffff" stroke-opacity="0.6" stroke-width="3"'
    words = (
        _word(Word(province.id, (float(x), float(y)), 12 * geometry.scale))
        for province, (x, y) in zip(board.provinces, geometry.label_points, strict=True)
    )
    return f"<g {style}>{''.join(words)}</g>"


def _marks(marks: Marks) -> str:
    parts = [_stroke(stroke) for stroke in marks.strokes]
    for chip in marks.chips:
        place = f'x="{_n(chip.at[0])}" y="{_n(chip.at[1])}" width="{_n(chip.side)}" height="{_n(chip.side)}"'
        parts.append(f'<rect {place} fill="{hexadecimal(chip.colour)}" stroke="{hexadecimal(INK)}"/>')
    parts += [_piece(piece) for piece in marks.pieces]
    parts += [_sign(sign) for sign in marks.signs]
    return "".join(parts) + "".join(_word(word) for word in marks.words)


def _stroke(stroke: Stroke) -> str:
    points, tip = list(stroke.points), stroke.points[-1]
    if stroke.arrow:
        # The line ends inside the head.
        fraction = max(0.0, 1 - 0.8 * stroke.arrow / max(float(np.hypot(*np.subtract(tip, points[-2]))), 1e-9))
        points[-1] = (
            points[-2][0] + fraction * (tip[0] - points[-2][0]),
            points[-2][1] + fraction * (tip[1] - points[-2][1]),
        )
    gaps = {DOTTED: (0.0, 2.7), DASHED: (2.7, 1.8)}.get(stroke.style)
    dashes = f' stroke-dasharray="{_n(gaps[0] * stroke.width)} {_n(gaps[1] * stroke.width)}"' if gaps else ""
    cap = ' stroke-linecap="butt"' if stroke.style == DASHED else ""
    parts = []
    for colour, more in ((stroke.rim, 1.6), (stroke.colour, 0.0)):
        look = f'stroke="{hexadecimal(colour)}" stroke-width="{_n(stroke.width + more)}"{dashes}{cap}'
        parts.append(f'<path fill="none" {look} d="{_path(points)}"/>')
        if stroke.arrow:
            head = arrow_head(points[-2], tip, stroke.arrow, 0.8 * more)
            parts.append(f'<path fill="{hexadecimal(colour)}" d="{_path(head)}Z"/>')
    return "".join(parts)


def _piece(piece: Piece) -> str:
    parts = []
    for colour, more in ((WHITE, 1.8), (piece.rim, 0.8), (piece.colour, -0.6)):
        outline = "".join(f"{_path(ring)}Z" for ring in piece_outlines(piece, more))
        parts.append(f'<path fill="{hexadecimal(colour)}" d="{outline}"/>')
    letter, at = UNIT_LETTERS[piece.kind], (piece.at[0], piece.at[1] + 0.05 * piece.radius)
    return "".join(parts) + _word(Word(letter, at, 1.25 * piece.radius), letter_colour(piece.colour))


def _sign(sign: Sign) -> str:
    if sign.kind in ("ring", "dot"):
        return _disc(sign.at, sign.radius, sign.colour if sign.kind == "dot" else None, INK, sign.width)
    lines = "".join(_path(line) for line in sign_lines(sign))
    looks = ((WHITE, sign.width + 1.6), (sign.colour, sign.width))
    return "".join(
        f'<path fill="none" stroke="{hexadecimal(colour)}" stroke-width="{_n(width)}" d="{lines}"/>'
        for colour, width in looks
    )


def _disc(at: Point, radius: float, fill: RGB | None, rim: RGB | None = None, width: float = 1.0) -> str:
    stroke = "" if rim is None else f' stroke="{hexadecimal(rim)}" stroke-width="{_n(width)}"'
    inside = "none" if fill is None else hexadecimal(fill)
    return f'<circle cx="{_n(at[0])}" cy="{_n(at[1])}" r="{_n(radius)}" fill="{inside}"{stroke}/>'


def _word(word: Word, colour: RGB | None = None) -> str:
    anchor = {"lm": "start", "mm": "middle", "rm": "end"}[word.anchor]
    fill = "" if colour is None else f' fill="{hexadecimal(colour)}"'
    # The baseline is 0.35 of the size below the middle; not every viewer supports dominant-baseline.
    place = f'x="{_n(word.at[0])}" y="{_n(word.at[1] + 0.35 * word.size)}"'
    return f'<text {place} font-size="{_n(word.size)}" text-anchor="{anchor}"{fill}>{escape(word.text)}</text>'


def _path(points: Sequence[Point] | NDArray[np.float64]) -> str:
    return "M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in points)


def _n(number: float) -> str:
    """A number with at most one decimal, for short files."""
    return f"{number:.1f}".removesuffix(".0").replace("-0.0", "0") if abs(number) >= 0.05 else "0"
