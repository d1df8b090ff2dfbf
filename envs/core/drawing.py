"""Drawing with Pillow: a canvas with anti-aliased shapes and the suite's colour palette.

Pillow's own shapes have jagged edges, so round and slanted shapes are painted at four times the size and reduced.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

PAPER, INK, GRID = (250, 249, 245), (40, 44, 52), (214, 214, 208)
BLUE, GREEN, RED, YELLOW, GREY, BROWN = (
    (38, 110, 214), (63, 158, 92), (205, 70, 60), (233, 181, 60), (90, 94, 102), (143, 101, 69)
)  # fmt: skip


# One colour for each of up to ten seats, all readable as text on PAPER and as background of PAPER-coloured text.
SEATS = (BLUE, RED, GREEN, BROWN, (128, 82, 168), (22, 132, 142), (190, 84, 136), GREY, (116, 122, 36), (176, 104, 22))
SMALLEST_TEXT = 11  # smallest readable font size, in pixels
_FINE = 4  # sub-pixels per pixel and axis
_Point = tuple[float, float]


class Canvas:
    """An RGB image under construction; coordinates are pixels (x right, y down)."""

    def __init__(self, width: int, height: int, background: tuple[int, int, int] = PAPER) -> None:
        self.image = Image.new("RGB", (width, height), background)
        self.pen = ImageDraw.Draw(self.image)

    def text(self, x: float, y: float, text: str, size: int = 14, fill: Any = INK, anchor: str = "mm") -> None:
        """Write text; ``anchor`` is Pillow's ("mm" centres it on the point, "lm" starts there)."""
        self.pen.text((x, y), text, fill=fill, font=font(size), anchor=anchor)

    def arrow(self, x: float, y: float, dx: float, dy: float, fill: Any = INK, width: int = 2) -> None:
        """An arrow centred on (x, y) with the extent (dx, dy)."""
        tip, tail = (x + dx / 2, y + dy / 2), (x - dx / 2, y - dy / 2)
        self.line([tail, (x + dx / 4, y + dy / 4)], fill, width)
        left = (tip[0] - dx * 0.35 - dy * 0.25, tip[1] - dy * 0.35 + dx * 0.25)
        right = (tip[0] - dx * 0.35 + dy * 0.25, tip[1] - dy * 0.35 - dx * 0.25)
        self.polygon([tip, left, right], fill)

    def disc(self, x: float, y: float, radius: float, fill: Any, outline: Any = None, width: float = 1) -> None:
        """A disc around (x, y), with an edge of ``width`` in ``outline``."""
        for size, colour in ((radius, outline or fill), (radius - width, fill))[: 1 if outline is None else 2]:
            left, top = math.floor(x - size - 1) - 1, math.floor(y - size - 1) - 1
            mask = _disc_mask(x - left, y - top, size)
            self.image.paste(colour, (left, top, left + mask.width, top + mask.height), mask)

    def line(self, points: Sequence[_Point], fill: Any, width: float = 2, *, round_ends: bool = False) -> None:
        """A line through points."""

        def paint(pen: ImageDraw.ImageDraw, fine: Any) -> None:
            pen.line(fine, fill=255, width=round(width * _FINE), joint="curve")
            for x, y in (fine[0], fine[-1]) if round_ends else ():
                half = width * _FINE / 2
                pen.ellipse([x - half, y - half, x + half, y + half], fill=255)

        self._smooth(points, width, fill, paint)

    def polygon(self, points: Sequence[_Point], fill: Any) -> None:
        """A filled polygon."""
        self._smooth(points, 1, fill, lambda pen, fine: pen.polygon(fine, fill=255))

    def arc(self, x: float, y: float, radius: float, start: float, end: float, fill: Any, width: float = 2) -> None:
        """An arc around (x, y) between two angles in degrees, clockwise from three o'clock."""
        corners = [(x - radius, y - radius), (x + radius, y + radius)]
        self._smooth(
            corners, width, fill, lambda pen, fine: pen.arc(fine, start, end, fill=255, width=round(width * _FINE))
        )

    def _smooth(
        self, points: Sequence[_Point], margin: float, fill: Any, paint: Callable[[ImageDraw.ImageDraw, Any], None]
    ) -> None:
        """Paint a shape at ``_FINE`` times its size and blend it into the image."""
        (left, top), (right, bottom) = (
            (bound(x for x, _ in points) + side, bound(y for _, y in points) + side)
            for bound, side in ((min, -margin), (max, margin))
        )
        left, top = math.floor(left) - 1, math.floor(top) - 1
        size = (math.ceil(right) + 2 - left, math.ceil(bottom) + 2 - top)
        mask = Image.new("L", (size[0] * _FINE, size[1] * _FINE))
        paint(ImageDraw.Draw(mask), [((x - left + 0.5) * _FINE, (y - top + 0.5) * _FINE) for x, y in points])
        self.image.paste(fill, (left, top, left + size[0], top + size[1]), mask.resize(size, Image.Resampling.BOX))

    def array(self) -> NDArray[np.uint8]:
        """The image as uint8 [H, W, 3]."""
        return np.asarray(self.image, np.uint8).copy()


def box(left: float, top: float, width: float, height: float) -> str:
    """A rectangle as SVG path data, for places that are clicked.

    >>> box(10, 20, 30, 40)
    'M10 20h30v40h-30z'
    """
    return f"M{left:g} {top:g}h{width:g}v{height:g}h{-width:g}z"


def ring(points: Sequence[_Point]) -> str:
    """A polygon as SVG path data.

    >>> ring([(0, 0), (2.04, 0), (1, 3)])
    'M0 0L2 0L1 3z'
    """
    return "M" + "L".join(f"{round(x, 1):g} {round(y, 1):g}" for x, y in points) + "z"


@lru_cache(maxsize=256)
def _disc_mask(x: float, y: float, radius: float) -> Image.Image:
    """How much of each pixel a disc around (x, y) covers; boards have many discs at the same place of a cell."""
    size = (math.ceil(x + radius + 1) + 2, math.ceil(y + radius + 1) + 2)
    mask = Image.new("L", (size[0] * _FINE, size[1] * _FINE))
    corners = [(at + end * radius + 0.5) * _FINE for end in (-1, 1) for at in (x, y)]
    ImageDraw.Draw(mask).ellipse(corners, fill=255)
    return mask.resize(size, Image.Resampling.BOX)


@cache
def font(size: int) -> Any:
    """Pillow's built-in scalable font."""
    return ImageFont.load_default(size)
