"""Go's board as text, and as a picture: a wooden board with star points, shaded stones, and areas at the end."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mlbits.envs.board.conventions import DRAWN, OPEN, board_text, cell_shapes, label_columns, label_rows, title
from mlbits.envs.core.drawing import PAPER, Canvas

Sprite = tuple[Image.Image, Image.Image]  # colours, and how much of them covers what is beneath

WOOD, LINE, EDGE, FORBIDDEN = (226, 188, 124), (92, 66, 38), (150, 108, 62), (176, 70, 48)
BLACK, WHITE = (30, 31, 36), (243, 241, 234)
BLACK_SHINE, WHITE_SHINE, WHITE_RIM = (128, 130, 140), (255, 255, 255), (176, 170, 158)
LEFT, TOP, BELOW = 42, 42, 46
NARROWEST = 250  # room for the line below the board
FINE = 4  # sub-pixels per pixel and axis


def point_of(words: Any, point: int) -> bool:
    """Whether a point is in a set of points."""
    return bool(int(words[point >> 6]) >> (point & 63) & 1)


def stone_on(state: Any, point: int) -> int:
    """The seat whose stone lies on a point, or -1."""
    return next((seat for seat in (0, 1) if point_of(state.stones[seat], point)), -1)


def heading(state: Any, params: Any, names: tuple[str, str]) -> str:
    """Who is to move and whether the other passed, or who won by how many points."""
    words = title(state, names)
    if int(state.outcome) == OPEN:
        passed = int(state.passes) > 0
        return words + f", {names[1 - int(state.turn)]} passed" * passed
    if int(state.outcome) == DRAWN:
        return words
    return f"{words} by {abs(2 * int(state.lead) - int(params.twice_komi)) / 2:g}"


def text(state: Any, params: Any) -> str:
    """X is black, O white; the line below says who is to move, or who won by how many points."""
    columns = int(params.columns)
    marks = ["XO."[stone_on(state, point)] for point in range(len(state.following))]
    rows = ["".join(marks[k : k + columns]) for k in range(0, len(marks), columns)]
    return board_text(rows, heading(state, params, ("X", "O")))


def _frame(state: Any, params: Any) -> tuple[int, int, int, int, int]:
    """Rows, columns, the size of a cell, the left edge of the board and the width of the drawing, in pixels."""
    columns = int(params.columns)
    rows = len(state.following) // columns
    cell = 40 if max(rows, columns) <= 13 else 34
    width = max(2 * LEFT + columns * cell, NARROWEST)
    return rows, columns, cell, (width - columns * cell) // 2, width


def shapes(state: Any, params: Any, seat: int) -> dict[str, str]:
    """Where the points are on the drawing, by their names."""
    rows, columns, cell, left, _ = _frame(state, params)
    return cell_shapes(left, TOP, cell, rows, columns)


def draw(state: Any, params: Any) -> NDArray[np.uint8]:
    """A ring marks the last stone, crosses where the player to move may not play, squares the areas at the end."""
    rows, columns, cell, left, width = _frame(state, params)
    canvas = Canvas(width, TOP + rows * cell + BELOW)
    _board(canvas, left, cell, rows, columns)
    for point in range(rows * columns):
        x, y = left + (point % columns + 0.5) * cell, TOP + (point // columns + 0.5) * cell
        seat = stone_on(state, point)
        if seat >= 0:
            _stone(canvas, x, y, cell, seat)
            if point == int(state.last):
                canvas.arc(x, y, 0.25 * cell, 0, 360, (PAPER, BLACK)[seat], 2.5)
        elif int(state.outcome) != OPEN:
            sides = [side for side in (0, 1) if point_of(state.reached[side], point)]
            if len(sides) == 1:
                _square(canvas, x, y, 0.13 * cell, (BLACK, WHITE)[sides[0]])
        elif not point_of(state.moves, point):
            half = 0.12 * cell
            canvas.line([(x - half, y - half), (x + half, y + half)], FORBIDDEN, 2.5, round_ends=True)
            canvas.line([(x - half, y + half), (x + half, y - half)], FORBIDDEN, 2.5, round_ends=True)
    label_columns(canvas, left, TOP - 20, cell, columns)
    label_rows(canvas, left - 20, TOP, cell, rows)
    canvas.text(width / 2, TOP + rows * cell + 25, heading(state, params, ("black", "white")), size=16)
    return canvas.array()


def star_points(rows: int, columns: int) -> list[tuple[int, int]]:
    """The points that boards of this size have marked: corners from 7x7 on, the centre, and sides from 15x15 on."""

    def places(length: int) -> list[int]:
        if length < 7:
            return [length // 2] if length == 5 else []
        near = 2 if length < 12 else 3
        middle = [length // 2] if length % 2 else []
        return [near, *middle, length - 1 - near]

    across, down = places(columns), places(rows)
    found = [(row, column) for row in down for column in across]
    if min(rows, columns) < 15:  # corners and the centre only
        found = [(r, c) for r, c in found if (2 * r == rows - 1) == (2 * c == columns - 1)]
    return found


def _board(canvas: Canvas, left: int, cell: int, rows: int, columns: int) -> None:
    """Wood with its grain, lines and star points."""
    width, height = columns * cell, rows * cell
    canvas.pen.rectangle([left - 3, TOP - 3, left + width + 2, TOP + height + 2], fill=EDGE)
    canvas.image.paste(Image.fromarray(_wood(height, width)), (left, TOP))
    first_x, first_y = left + cell // 2, TOP + cell // 2
    last_x, last_y = first_x + (columns - 1) * cell, first_y + (rows - 1) * cell
    for row in range(rows):
        y = first_y + row * cell
        canvas.pen.line([(first_x, y), (last_x, y)], fill=LINE, width=2 if row in (0, rows - 1) else 1)
    for column in range(columns):
        x = first_x + column * cell
        canvas.pen.line([(x, first_y), (x, last_y)], fill=LINE, width=2 if column in (0, columns - 1) else 1)
    for row, column in star_points(rows, columns):
        canvas.disc(first_x + column * cell + 0.25, first_y + row * cell + 0.25, 3.5, LINE)


@cache
def _wood(height: int, width: int) -> NDArray[np.uint8]:
    """Grain along the rows: bands of light and dark that bend a little."""
    y, x = np.mgrid[0:height, 0:width].astype(float)
    along = y + 7 * np.sin(x / 97 + 0.6) + 3 * np.sin(x / 41)
    grain = np.sin(along / 5.1) + 0.7 * np.sin(along / 2.3 + 1.3 * np.sin(along / 19)) + 0.9 * np.sin(along / 23)
    return np.clip(np.array(WOOD) + 2.6 * grain[..., None], 0, 255).astype(np.uint8)


def _stone(canvas: Canvas, x: float, y: float, cell: int, seat: int) -> None:
    """A stone and its shadow."""
    for colours, cover in (_shadow(cell), _shaded(cell, seat)):
        canvas.image.paste(colours, (int(x - colours.width / 2), int(y - colours.height / 2)), cover)


def _sprite(colours: NDArray[Any], cover: NDArray[Any], size: int) -> Sprite:
    """An image of [size * FINE]^2 sub-pixels, reduced."""
    picture = Image.fromarray(np.clip(colours, 0, 255).astype(np.uint8))
    mask = Image.fromarray(np.clip(255 * cover, 0, 255).astype(np.uint8))
    small = (size, size)
    return picture.resize(small, Image.Resampling.BOX), mask.resize(small, Image.Resampling.BOX)


@cache
def _shadow(cell: int) -> Sprite:
    """A soft dark patch to the lower right."""
    size = 2 * cell
    y, x = (np.mgrid[0 : size * FINE, 0 : size * FINE] + 0.5) / FINE - size / 2
    apart = np.hypot(x - 0.05 * cell, y - 0.08 * cell) / cell
    cover = 0.42 * np.clip((0.54 - apart) / 0.14, 0, 1)
    return _sprite(np.full((*apart.shape, 3), 40.0), cover, size)


@cache
def _shaded(cell: int, seat: int) -> Sprite:
    """A lens that shines at the upper left."""
    size, radius = 2 * (cell // 2), 0.475 * cell
    y, x = (np.mgrid[0 : size * FINE, 0 : size * FINE] + 0.5) / FINE - size / 2
    inside = np.hypot(x, y) <= radius
    shine = np.exp(-((x + 0.36 * radius) ** 2 + (y + 0.4 * radius) ** 2) / (0.42 * radius) ** 2)[..., None]
    rim = (np.clip(np.hypot(x + 0.16 * radius, y + 0.2 * radius) / radius - 0.45, 0, 1) ** 1.5)[..., None]
    base, light, dark = ((BLACK, BLACK_SHINE, (8, 8, 10)), (WHITE, WHITE_SHINE, WHITE_RIM))[seat]
    colours = np.array(base) + shine * (np.array(light) - base) + rim * (np.array(dark) - base)
    return _sprite(colours, inside.astype(float), size)


def _square(canvas: Canvas, x: float, y: float, half: float, fill: Any) -> None:
    canvas.polygon([(x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half)], fill)
