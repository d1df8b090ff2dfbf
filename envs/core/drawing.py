"""Drawing with Pillow: a canvas on which games paint themselves, in one palette."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

PAPER, INK, GRID = (250, 249, 245), (40, 44, 52), (214, 214, 208)
BLUE, GREEN, RED, YELLOW, GREY, BROWN = (
    (38, 110, 214), (63, 158, 92), (205, 70, 60), (233, 181, 60), (90, 94, 102), (143, 101, 69)
)  # fmt: skip


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
        self.pen.line([tail, tip], fill=fill, width=width)
        left = (tip[0] - dx * 0.35 - dy * 0.25, tip[1] - dy * 0.35 + dx * 0.25)
        right = (tip[0] - dx * 0.35 + dy * 0.25, tip[1] - dy * 0.35 - dx * 0.25)
        self.pen.polygon([tip, left, right], fill=fill)

    def array(self) -> NDArray[np.uint8]:
        """The image as uint8 [H, W, 3]."""
        return np.asarray(self.image, np.uint8).copy()


@cache
def font(size: int) -> Any:
    """Pillow's own scalable font."""
    return ImageFont.load_default(size)
