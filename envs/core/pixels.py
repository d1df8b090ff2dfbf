"""Pictures by formula, for observations: parts of rules, which run compiled for every pixel on CPUs and GPUs.

A picture is a function of the state alone: how much of a pixel a shape covers, from 0 to 1, follows from the distance
between the pixel's middle and the shape. Edges are therefore soft, and a shape that moves by a tenth of a pixel changes
the picture. A frame shows no velocities: ``frame_stack=2`` or more shows how things move, and a replay buffer then
stores each frame once.

Coordinates are the game's own, x to the right and y up; row 0 of a picture is its top.

Example:
    >>> picture_space(32).shape
    (32, 32)
    >>> coverage(0.0, 2.0, 1.0), coverage(2.0, 2.0, 1.0), coverage(3.0, 2.0, 1.0)
    (1.0, 0.5, 0.0)
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium import spaces

from mlbits.envs.core.rules import rule
from mlbits.envs.core.settings import integer

SMALLEST, LARGEST = 24, 84  # pixels along each side


def picture_space(size: int, channels: int = 0) -> spaces.Box:
    """The space of square pictures of bytes: [size, size] if grey, [channels, size, size] if there are channels.

    Raises:
        GameError: for a size that is not from 24 to 84.
    """
    side = integer("size", size, SMALLEST, LARGEST)
    shape = (channels, side, side) if channels else (side, side)
    return spaces.Box(0, 255, shape, np.uint8)


@rule
def coverage(distance: Any, radius: Any, pixel: Any) -> Any:
    """How much of a pixel is covered by a shape, whose edge is ``radius`` away from what ``distance`` is measured to.

    Args:
        distance: from the pixel's middle to the shape's middle point or line.
        radius: half the shape's thickness.
        pixel: a pixel's side, in the same unit.
    """
    return min(max(0.5 + (radius - distance) / pixel, 0.0), 1.0)


@rule
def disc(x: Any, y: Any, middle_x: Any, middle_y: Any, radius: Any, pixel: Any) -> Any:
    """How much of the pixel at (x, y) a disc covers."""
    dx, dy = x - middle_x, y - middle_y
    return coverage(math.sqrt(dx * dx + dy * dy), radius, pixel)


@rule
def rod(
    x: Any, y: Any, from_x: Any, from_y: Any, along_x: Any, along_y: Any, length: Any, half: Any, pixel: Any
) -> Any:
    """How much of the pixel at (x, y) a rod with round ends covers.

    Args:
        x: the pixel's middle.
        y: the same.
        from_x: where the rod begins.
        from_y: the same.
        along_x: its direction, of length 1.
        along_y: the same.
        length: its length.
        half: half its thickness.
        pixel: a pixel's side.
    """
    dx, dy = x - from_x, y - from_y
    part = min(max(dx * along_x + dy * along_y, 0.0), length)
    dx -= part * along_x
    dy -= part * along_y
    return coverage(math.sqrt(dx * dx + dy * dy), half, pixel)


@rule
def box(x: Any, y: Any, left: Any, bottom: Any, right: Any, top: Any, pixel: Any) -> Any:
    """How much of the pixel at (x, y) a rectangle covers, which is at least as wide and high as a pixel."""
    across = coverage(abs(x - 0.5 * (left + right)), 0.5 * (right - left), pixel)
    return across * coverage(abs(y - 0.5 * (bottom + top)), 0.5 * (top - bottom), pixel)


@rule
def byte(brightness: Any) -> Any:
    """A brightness from 0 to 1 as a byte."""
    return np.uint8(255.0 * brightness + 0.5)
