"""Draws gridworlds as text and images, with an optional overlay of state values and policy arrows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlbits.envs.core.drawing import BLUE, BROWN, GREEN, GREY, GRID, INK, PAPER, RED, SMALLEST_TEXT, Canvas, box
from mlbits.envs.core.errors import GameError
from mlbits.envs.core.game import Game
from mlbits.envs.gridworld.maps import MOVE_NAMES, MOVES
from mlbits.envs.gridworld.rules import CLIFF, EMPTY, GOAL, PIT, WALL

_FILL = {EMPTY: PAPER, WALL: GREY, GOAL: GREEN, PIT: RED, CLIFF: BROWN}
_LETTER = {EMPTY: ".", WALL: "#", GOAL: "G", PIT: "X", CLIFF: "C"}
_BIGGEST_SIDE = 512


def text(kinds: NDArray[Any], agent: int) -> str:
    """A map as letters, with ``A`` at the agent's cell."""
    height, width = kinds.shape
    letters = [_LETTER[int(kind)] for kind in kinds.reshape(-1)]
    letters[agent] = "A"
    return "\n".join("".join(letters[row * width : (row + 1) * width]) for row in range(height)) + "\n"


def neighbours(height: int, width: int, agent: int) -> dict[str, str]:
    """Where the cells around the agent are on the drawing, by the names of the moves to them."""
    side, (row, column) = _side(height, width), divmod(agent, width)
    return {
        name: box((column + right) * side, (row + down) * side, side, side)
        for name, (down, right) in zip(MOVE_NAMES, MOVES, strict=True)
        if 0 <= row + down < height and 0 <= column + right < width
    }


def _side(height: int, width: int) -> int:
    """The size of a cell in pixels."""
    return max(8, min(48, _BIGGEST_SIDE // max(height, width)))


def draw(
    kinds: NDArray[Any], agent: int | None, values: NDArray[Any] | None = None, policy: NDArray[Any] | None = None
) -> NDArray[np.uint8]:
    """A map as an image.

    Args:
        kinds: [H, W] kinds of cells.
        agent: cell of the agent, or None.
        values: [H * W] numbers shown as a heat map (blue low, yellow high), NaN for none.
        policy: [H * W, 4] probabilities of up, right, down, left, drawn as arrows with area proportional to them.

    Returns:
        uint8 [side H, side W, 3].
    """
    height, width = kinds.shape
    side = _side(height, width)
    canvas = Canvas(width * side + 1, height * side + 1)
    heat = None if values is None else _heat(np.asarray(values, float), kinds)
    for row in range(height):
        for column in range(width):
            cell, kind = row * width + column, int(kinds[row, column])
            x, y = column * side, row * side
            fill = _FILL[kind]
            if heat is not None and kind == EMPTY and not np.isnan(heat[cell, 0]):
                fill = tuple(int(part) for part in heat[cell])  # type: ignore[assignment]
            canvas.pen.rectangle([x, y, x + side, y + side], fill=fill, outline=GRID)
            if kind in (GOAL, PIT) and side // 2 >= SMALLEST_TEXT:
                canvas.text(x + side / 2, y + side / 2, _LETTER[kind], size=side // 2, fill=PAPER)
            if policy is not None and kind == EMPTY:
                aside = side * 0.06 if heat is not None else 0.0  # keeps clear of the number in the corner
                _draw_arrows(canvas, x + side / 2 + aside, y + side / 2 - aside, side, policy[cell])
            if heat is not None and kind == EMPTY and side >= 40 and not np.isnan(heat[cell, 0]):
                number = f"{round(float(values[cell]), 2) + 0.0:.2f}"  # type: ignore[index]
                canvas.text(x + 3, y + side - 7, number, size=SMALLEST_TEXT, anchor="lm")
    if agent is not None:
        x, y = (agent % width + 0.5) * side, (agent // width + 0.5) * side
        canvas.disc(x, y, side * 0.32, BLUE, outline=INK)
    return canvas.array()


def draw_overlay(game: Game, values: ArrayLike | None = None, policy: ArrayLike | None = None) -> NDArray[np.uint8]:
    """A gridworld's map with an overlay of a value heat map and policy arrows.

    Args:
        game: a gridworld with a fixed map.
        values: [H * W], or None.
        policy: [H * W] best actions (negative for none) or [H * W, 4] probabilities, or None.

    Raises:
        GameError: if the game has no fixed map, or a shape does not match it.
    """
    kinds = game.layout.get("kinds")
    if kinds is None:
        raise GameError(f"game: {game.name} has no fixed map; wanted a gridworld with one")
    cells = kinds.size
    if values is not None and np.shape(values) != (cells,):
        raise GameError(f"values: got shape {np.shape(values)}; wanted {(cells,)}")
    table = None
    if policy is not None:
        table = np.asarray(policy, float)
        if table.shape == (cells,):
            best = table.astype(int)
            table = np.eye(len(MOVES))[np.maximum(best, 0)] * (best >= 0)[:, None]
        if table.shape != (cells, len(MOVES)):
            raise GameError(f"policy: got shape {np.shape(policy)}; wanted {(cells,)} or {(cells, len(MOVES))}")
    return draw(kinds, None, None if values is None else np.asarray(values, float), table)


def _heat(values: NDArray[Any], kinds: NDArray[Any]) -> NDArray[Any]:
    """Colours [H * W, 3] from pale blue (lowest value of a floor cell) to yellow (highest)."""
    floor = values[(kinds.reshape(-1) == EMPTY) & np.isfinite(values)]
    low, high = (float(floor.min()), float(floor.max())) if floor.size else (0.0, 1.0)
    fraction = ((values - low) / (high - low if high > low else 1.0))[:, None]
    return np.array([190.0, 208.0, 240.0]) * (1 - fraction) + np.array([252.0, 214.0, 92.0]) * fraction


def _draw_arrows(canvas: Canvas, x: float, y: float, side: int, probabilities: NDArray[Any]) -> None:
    for (down, right), probability in zip(MOVES, probabilities, strict=True):
        if probability > 0.05:
            reach = side * 0.38 * float(probability) ** 0.5
            canvas.arrow(x + right * reach / 2, y + down * reach / 2, right * reach, down * reach)
