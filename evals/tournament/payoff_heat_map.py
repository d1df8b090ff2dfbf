"""A heat map of a payoff matrix, with numbers.

Blue is above the middle, red below it, white the middle itself; grey marks pairs that never met. The middle is the mean
payoff between different players, which is 0 in a zero-sum game. Black lines separate groups that never met, directly or
through a chain of games.

Example:
    >>> from PIL import Image
    >>> Image.fromarray(payoff_heat_map([[0, 1], [-1, 0]], ["main", "past"])).save("payoffs.png")
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlbits.envs.core.drawing import GREY, INK, Canvas, font
from mlbits.envs.core.errors import GameError

_BLUE, _RED, _WHITE, _UNMET = (np.array(colour, float) for colour in (
    (38, 110, 214), (205, 70, 60), (255, 255, 255), (214, 214, 208)
))  # fmt: skip
_NUMBERED = 24  # maximum number of players for which cells are wide enough for numbers
_PARTED = "black lines separate groups that never met: their ratings have no common scale"
_TOP, _BAR = 62, 130  # pixels above the cells; the height of the scale's bar


def payoff_heat_map(
    payoff: ArrayLike,
    players: Sequence[str],
    title: str = "mean return of the row player against the column player",
    *,
    interval: tuple[ArrayLike, ArrayLike] | None = None,
    groups: Sequence[int] | None = None,
) -> NDArray[np.uint8]:
    """Draw a payoff matrix.

    Args:
        payoff: what the row player earns against the column player, [N, N]; NaN where they never met.
        players: names, N.
        title: what the numbers are.
        interval: lower and upper ends of the payoffs' intervals, [N, N] each, printed below them; none is printed where
            they are not finite.
        groups: the number of each player's group, [N], with players sorted by group; None for one group.

    Returns:
        The picture, uint8 [H, W, 3].

    Raises:
        GameError: if the shapes do not fit.
    """
    table, size = np.asarray(payoff, float), len(players)
    ends = None if interval is None else np.stack([np.asarray(end, float) for end in interval])
    if table.shape != (size, size) or size == 0 or (ends is not None and ends.shape != (2, size, size)):
        raise GameError(f"payoff, interval: got shape {table.shape} for {size} players; wanted [N, N]")
    middle, reach = _scale(table)
    side = 72 if size <= _NUMBERED else max(8, 1500 // size)
    names = [name if len(name) <= 24 else f"{name[:11]}..{name[-11:]}" for name in players]
    letters = max(7, min(13, side - 1))
    left = int(max(font(letters).getlength(name) for name in names)) + 46
    right = left + size * side
    width = max(right + 90, int(font(14).getlength(title)) + 24)
    if groups is not None and len(set(groups)) > 1:
        width = max(width, int(font(11).getlength(_PARTED)) + 24)
    canvas = Canvas(width, _TOP + max(size * side, _BAR + 10) + 14)
    canvas.text(12, 20, title, anchor="lm")
    shade = _shade((table - middle) / reach)
    for i, name in enumerate(names):
        at = (i + 0.5) * side
        canvas.text(left - 34, _TOP + at, name, letters, anchor="rm")
        if size <= _NUMBERED or (i + 1) % 5 == 0:
            canvas.text(left + at, _TOP - 11, str(i + 1), 12, GREY)  # columns have the numbers of the rows
            canvas.text(left - 8, _TOP + at, str(i + 1), 12, GREY, "rm")
        for j in range(size):
            x, y = float(left + j * side), float(_TOP + i * side)
            canvas.pen.rectangle([x, y, x + side - 2, y + side - 2], fill=_pixel(shade[i, j]))
            if size <= _NUMBERED and not np.isnan(table[i, j]):
                fill = INK if shade[i, j].mean() > 150 else (255, 255, 255)
                x, y = x + side / 2 - 1, y + side / 2
                canvas.text(x, y - (7 if ends is not None else 1), _number(table[i, j]), 14, fill)
                if ends is not None and np.isfinite(ends[:, i, j]).all():
                    canvas.text(x, y + 13, " to ".join(_number(end) for end in ends[:, i, j]), 10, fill)
    parted = () if groups is None else np.flatnonzero(np.diff(groups)) + 1
    for place in parted:
        at = float(place * side - 1)
        canvas.pen.line([left, _TOP + at, right - 2, _TOP + at], fill=INK, width=2)
        canvas.pen.line([left + at, _TOP, left + at, _TOP + size * side - 2], fill=INK, width=2)
    if len(parted):
        canvas.text(12, 40, _PARTED, 11, GREY, "lm")
    _draw_scale(canvas, right + 14, middle, reach)
    return canvas.array()


def _draw_scale(canvas: Canvas, x: int, middle: float, reach: float) -> None:
    """A colour bar, with the payoffs at its ends and middle."""
    for y, colour in enumerate(_shade(np.linspace(1, -1, _BAR))):
        canvas.pen.line([x, _TOP + y, x + 12, _TOP + y], fill=_pixel(colour))
    for place, payoff in ((0, middle + reach), (0.5, middle), (1, middle - reach)):
        canvas.text(x + 20, _TOP + place * _BAR, _number(payoff), 12, GREY, "lm")


def _scale(table: NDArray[np.float64]) -> tuple[float, float]:
    """The payoff shown white, and the distance from it of the strongest colours."""
    between = table[~np.eye(len(table), dtype=bool)]
    between = between[~np.isnan(between)]
    middle = float(between.mean()) if len(between) else 0.0
    far = np.abs(table[~np.isnan(table)] - middle)
    return middle, max(float(far.max()) if len(far) else 0.0, 1e-12)


def _shade(strength: NDArray[np.float64]) -> NDArray[np.float64]:
    """The colour [..., 3] of numbers [...] from -1, red, to 1, blue."""
    share = np.nan_to_num(np.clip(strength, -1, 1))[..., None]
    shade = _WHITE + np.abs(share) * (np.where(share > 0, _BLUE, _RED) - _WHITE)
    shade[np.isnan(strength)] = _UNMET
    return shade


def _pixel(shade: NDArray[np.float64]) -> tuple[int, int, int]:
    red, green, blue = (int(part) for part in shade.round())
    return red, green, blue


def _number(value: float) -> str:
    text = f"{value:.2f}" if abs(value) < 10 else f"{value:.3g}"
    return "0" if float(text) == 0 else text
