"""The picture of an archive: a square for each cell, dark for a low return of its elite and light for a high one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# From dark blue over green to yellow, as matplotlib's viridis at five points.
_RAMP = np.array([[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]], float)
_EMPTY = 255
_LEAST = 300  # pixels along the longer side


def heat_map(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The image uint8 [H, W, 3]: the first entry runs to the right and the second upwards; empty cells are white.

    Args:
        values: of each cell, [cells along the first entry, along the second]; NaN where there is no elite.
    """
    known = np.isfinite(values)
    shown = np.zeros_like(values)
    if known.any():
        low, high = values[known].min(), values[known].max()
        shown[known] = (values[known] - low) / max(high - low, 1e-12) * (len(_RAMP) - 1)
    colours = np.stack([np.interp(shown, np.arange(len(_RAMP)), _RAMP[:, c]) for c in range(3)], -1)
    colours[~known] = _EMPTY
    picture = colours.round().astype(np.uint8).transpose(1, 0, 2)[::-1]
    size = -(-_LEAST // max(values.shape))
    return np.ascontiguousarray(picture.repeat(size, 0).repeat(size, 1))
