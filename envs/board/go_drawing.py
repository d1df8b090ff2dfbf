"""Go's board as text and as a picture."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def text(state: Any, params: Any) -> str:
    return ""


def draw(state: Any, params: Any) -> NDArray[np.uint8]:
    return np.zeros((4, 4, 3), np.uint8)
