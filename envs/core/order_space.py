"""Actions that are orders about a graph: MultiDiscrete, with what the choices mean.

A plain agent uses it as the MultiDiscrete that it is. A network that knows graphs takes from it which areas border each
other, and which areas each order is about.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray


class OrderSpace(spaces.MultiDiscrete):
    """K slots, each a choice from one of C lists of orders; the observation's key "slots" holds 1 + the list, or 0.

    Args:
        slots: K.
        list_start: first entry of each list and the end of the last, [C + 1].
        entries: what each order is: {"kind": numbers from 0 [V], "actor": area that acts, "other": area that is helped,
            "target": area that it goes to; -1 where there is none}.
        adjacency: whether a unit can step from one area to another, bool [N, N].

    Attributes:
        list_start: int64 [C + 1].
        entries: int64 arrays [V].
        adjacency: bool [N, N].
    """

    def __init__(
        self, slots: int, list_start: NDArray[Any], entries: Mapping[str, NDArray[Any]], adjacency: NDArray[Any]
    ) -> None:
        self.list_start = np.asarray(list_start, np.int64)
        self.entries = {name: np.asarray(values, np.int64) for name, values in entries.items()}
        self.adjacency = np.asarray(adjacency, bool)
        super().__init__([int(np.diff(self.list_start).max())] * slots)
