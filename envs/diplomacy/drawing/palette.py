"""Colours of Diplomacy drawings.

The powers' colours start with those of Okabe and Ito (2008), which are distinguishable with all common kinds of colour
blindness; they also differ in lightness.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final

from mlbits.envs.core.drawing import INK, PAPER

RGB = tuple[int, int, int]
LAND: Final[RGB] = (241, 236, 221)
SEA: Final[RGB] = (217, 229, 238)
WASTE: Final[RGB] = (203, 200, 191)
SHORE_LINE: Final[RGB] = (70, 80, 92)
INLAND_LINE: Final[RGB] = (150, 146, 134)
SEA_LINE: Final[RGB] = (166, 186, 204)
FAILURE: Final[RGB] = (200, 16, 46)
SUCCESS: Final[RGB] = (20, 120, 60)
WHITE: Final[RGB] = (255, 255, 255)
_POWERS: Final[tuple[RGB, ...]] = (
    (222, 85, 20),  # vermilion
    (20, 70, 165),  # deep blue
    (95, 190, 240),  # sky blue
    (62, 62, 68),  # charcoal
    (0, 145, 105),  # bluish green
    (198, 100, 165),  # purple
    (243, 214, 50),  # yellow
    (140, 90, 50),
    (250, 250, 250),
    (120, 200, 90),
    (110, 60, 150),
    (160, 30, 50),
    (0, 120, 140),
    (250, 170, 170),
    (170, 170, 60),
    (140, 150, 165),
)


_NAMED: Final = ("AUSTRIA", "ENGLAND", "FRANCE", "GERMANY", "ITALY", "RUSSIA", "TURKEY")


def power_colours(powers: Sequence[str]) -> tuple[RGB, ...]:
    """The colour of each power: fixed for the seven of the standard board, the first unused colours for others."""
    return _colours(tuple(powers))


@cache
def _colours(powers: tuple[str, ...]) -> tuple[RGB, ...]:
    left = [i for i in range(len(_POWERS)) if i >= len(_NAMED) or _NAMED[i] not in powers]
    return tuple(_POWERS[_NAMED.index(name) if name in _NAMED else left.pop(0)] for name in powers)


def mixed(one: RGB, other: RGB, weight: float) -> RGB:
    """A mixture of two colours, with ``weight`` of the first."""
    r, g, b = (round(weight * a + (1 - weight) * c) for a, c in zip(one, other, strict=True))
    return r, g, b


def letter_colour(ground: RGB) -> RGB:
    """Ink or white, whichever is more readable on the ground (Rec. 709 luma)."""
    luma = 0.2126 * ground[0] + 0.7152 * ground[1] + 0.0722 * ground[2]
    return INK if luma > 140 else WHITE


def hexadecimal(colour: RGB) -> str:
    """A colour in SVG's notation."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


__all__ = ["INK", "PAPER"]
