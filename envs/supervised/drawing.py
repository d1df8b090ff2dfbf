"""Draws datasets' games: the example as an image, the labels, and the answer given."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mlbits.envs.core.drawing import GREEN, GREY, GRID, INK, PAPER, RED, Canvas
from mlbits.envs.core.rules import python_function
from mlbits.envs.supervised.rules import paid


def text(state: Any, params: Any) -> str:
    """One line: the example, its label, the answer and its reward."""
    label = params.classes[params.labels[state.example]]
    if state.answer < 0:
        return f"example {int(state.example)}: label {label}, no answer yet\n"
    answer, pay = params.classes[state.answer], float(python_function(paid)(state, params, state.answer))
    return f"example {int(state.example)}: label {label}, answer {answer}, paid {pay:g}\n"


def draw(state: Any, params: Any, *, ink: bool = False) -> NDArray[np.uint8]:
    """The example as an image, with the labels below: the right one framed, the answer filled.

    Args:
        state: the copy's state.
        params: the game's parameters.
        ink: whether high values are drawn dark, as ink on paper; otherwise they are light.
    """
    image = _image(params, int(state.example))
    if ink:
        paper, full = np.array(PAPER, float), np.array(INK, float)
        image = np.rint(paper + (full - paper) * (image / 255)).astype(np.uint8)
    scale = max(1, 240 // max(image.shape[:2]))
    image = np.kron(image, np.ones((scale, scale, 1), np.uint8))[:480, :480]
    classes = [int(label) for label in params.classes][:100]
    label, answer = int(params.labels[state.example]), int(state.answer)
    columns = min(len(classes), 10)
    width = max(image.shape[1] + 20, columns * 30 + 20, 300)
    top = image.shape[0] + 64
    canvas = Canvas(width, top + -(-len(classes) // columns) * 30 + 10)
    corner = ((width - image.shape[1]) // 2, 34)
    canvas.image.paste(Image.fromarray(image), corner)
    if ink:  # an outline of the paper
        x, y = corner
        canvas.pen.rectangle([x - 1, y - 1, x + image.shape[1], y + image.shape[0]], outline=GRID)
    canvas.text(10, 17, text(state, params).split(": ")[1].strip(), size=13, anchor="lm")
    canvas.text(10, top - 14, "answers (framed: the label)", size=12, fill=GREY, anchor="lm")
    for k, name in enumerate(classes):
        x, y = 10 + k % columns * 30, top + k // columns * 30
        fill = PAPER if k != answer else GREEN if k == label else RED
        frame, thick = (GREEN, 3) if k == label else (GRID, 1)
        canvas.pen.rectangle([x, y, x + 25, y + 25], fill=fill, outline=frame, width=thick)
        canvas.text(x + 13, y + 13, str(name), size=12, fill=PAPER if k == answer else INK)
    return canvas.array()


def _image(params: Any, example: int) -> NDArray[np.uint8]:
    """An example as uint8 [H, W, 3]; a vector is arranged row by row in a square."""
    axes = [int(size) for size in params.axes if size]
    low, high = float(params.low), float(params.high)
    values = np.asarray(params.features[example], np.float64)
    grey = ((values - low) / ((high - low) or 1.0) * 255).astype(np.uint8)
    if len(axes) == 1:
        side = math.ceil(math.sqrt(axes[0]))
        rows = -(-axes[0] // side)
        return np.repeat(np.pad(grey, (0, rows * side - axes[0])).reshape(rows, side, 1), 3, 2)
    if len(axes) == 2:
        return np.repeat(grey.reshape(*axes, 1), 3, 2)
    channels_last = axes[2] in (1, 3, 4) and min(axes[:2]) > 4  # the rule by which networks decide
    planes = grey.reshape(axes) if channels_last else np.moveaxis(grey.reshape(axes), 0, 2)
    colours = planes[..., :3] if planes.shape[2] >= 3 else planes[..., :1]
    return np.repeat(colours, 3 // colours.shape[2], 2)
