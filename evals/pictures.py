"""``Picture``: frames as notebooks show them, a single one as an image and several as an animation.

Example:
    env = gym.make("mlbits/GridWorld-v0", render_mode="rgb_array")
    env.reset(seed=0)
    mlbits.show(env)            # in a notebook, as the last line of a cell: the image
    run.watch().save("maze.gif")
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbits.envs.core.errors import MlbitsError
from mlbits.selfplay.curves.tracking import ANIMATIONS, encode_animation


class PictureError(MlbitsError, ValueError):
    """Something that cannot be shown or written as a picture."""


class Picture:
    """One frame, or several as an animation.

    Args:
        frames: images uint8 [H, W, 3], at least one.
        frames_per_second: of an animation.
    """

    def __init__(self, frames: Sequence[NDArray[np.uint8]], frames_per_second: int = 8) -> None:
        self.frames = [_checked(frame) for frame in frames]
        if not self.frames:
            raise PictureError("frames: got none; wanted at least one image")
        self.frames_per_second = frames_per_second

    def save(self, path: str | Path) -> Path:
        """Write it to a file: .gif, .webp or .png (of several frames animated).

        Raises:
            PictureError: for another kind of file, or one that cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() not in ANIMATIONS:
            raise PictureError(f"path: got {path}; wanted a file name that ends in {', '.join(ANIMATIONS)}")
        try:
            path.write_bytes(encode_animation(self.frames, path.suffix.lower(), self.frames_per_second))
        except OSError as error:
            raise PictureError(f"path: {path} cannot be written ({error.strerror}); wanted a writable file") from None
        return path

    def _repr_png_(self) -> bytes | None:
        if len(self.frames) > 1:
            return None
        from PIL import Image

        data = io.BytesIO()
        Image.fromarray(self.frames[0]).save(data, "PNG")
        return data.getvalue()

    def _repr_html_(self) -> str | None:
        if len(self.frames) == 1:
            return None
        data = base64.b64encode(encode_animation(self.frames, ".gif", self.frames_per_second)).decode()
        return f'<img src="data:image/gif;base64,{data}">'

    def __repr__(self) -> str:
        height, width = self.frames[0].shape[:2]
        return f"Picture({len(self.frames)} of {height} x {width})"


def show(what: Any, frames_per_second: int = 8) -> Picture:
    """A picture for a notebook.

    Args:
        what: an environment made with ``render_mode="rgb_array"``, which is drawn as it is now; an image uint8
            [H, W, 3], or a list of images.
        frames_per_second: of an animation.

    Raises:
        PictureError: for an environment that draws no images, or anything else.
    """
    if hasattr(what, "render"):
        if getattr(what, "render_mode", None) not in ("rgb_array", "rgb_array_list"):
            mode = getattr(what, "render_mode", None)
            raise PictureError(f'env: its render_mode is {mode!r}; wanted render_mode="rgb_array"')
        what = what.render()
    if isinstance(what, np.ndarray) and what.ndim < 4:
        what = [what]
    if not isinstance(what, (list, tuple, np.ndarray)):
        raise PictureError(f"what: got {what!r:.60}; wanted an environment, an image or a list of images")
    return Picture(list(what), frames_per_second)


def _checked(frame: Any) -> NDArray[np.uint8]:
    array = np.asarray(frame)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3:
        raise PictureError(f"frames: got {array.dtype} {array.shape}; wanted images uint8 [H, W, 3]")
    return array
