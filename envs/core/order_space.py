"""``OrderSpace``: a MultiDiscrete action space of orders on a graph, with what each choice means.

Ordinary agents treat it as a plain MultiDiscrete. A graph network can read from it which areas are adjacent and which
areas each order refers to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray


class OrderSpace(spaces.MultiDiscrete):
    """K slots, each a choice from one of C lists of orders; the observation's "slots" holds 1 + the list's index, or 0.

    Args:
        slots: K.
        list_start: index of the first entry of each list, then the end of the last list, [C + 1].
        entries: what each of the V orders is: {"kind": integers from 0 [V], "actor": the area that acts, "other": the
            area that is helped, "target": the destination; -1 where there is none}.
        adjacency: whether a unit can move from one area to another in one step, bool [N, N].

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
