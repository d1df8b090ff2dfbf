"""The parameters of CollectObjects: one record per level, and what a record has to keep to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbits.envs.core.game import PARAMS_HEADER
from mlbits.envs.core.settings import capacity
from mlbits.envs.levels.rules import MOST_OBJECTS


@dataclass(frozen=True)
class Frame:
    """What all levels of one batch share: room for the largest of them.

    A cell's number is its row times the frame's width plus its column, also in smaller levels, around which is wall.

    Attributes:
        height: rows of the largest grid.
        width: its columns.
        objects: most objects, at most 8.
    """

    height: int
    width: int
    objects: int

    @property
    def cells(self) -> int:
        """Cells of the largest grid."""
        return self.height * self.width

    @property
    def num_states(self) -> int:
        """Cells times sets of objects: the size of "index" observations."""
        return self.cells << self.objects

    @property
    def fields(self) -> list[tuple[Any, ...]]:
        """The game's own fields, for ``make_params``."""
        room, objects = capacity(self.cells), MOST_OBJECTS
        return [
            ("height", "i4"), ("width", "i4"), ("num_objects", "i4"), ("num_starts", "i4"), ("num_floor", "i4"),
            ("rows", "u1"), ("columns", "u1"), ("automatic", "u1"), ("scattered", "u1"), ("place", "i2", (objects,)),
            ("reward", "f4", (objects,)), ("ending", "f4", (objects,)), ("respawn", "f4", (objects,)),
            ("wall", "u1", (room,)), ("floor", "i2", (room,)),
        ]  # fmt: skip

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of a record, the core's header included."""
        return np.dtype(PARAMS_HEADER + self.fields, align=True)

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Least and largest value of each field."""
        cells = self.cells
        return {
            "height": (self.height, self.height), "width": (self.width, self.width), "rows": (1, self.height),
            "columns": (1, self.width), "num_objects": (0, self.objects), "num_starts": (1, cells),
            "num_floor": (1, cells), "automatic": (0, 1), "scattered": (0, 1), "place": (0, cells - 1),
            "floor": (0, cells - 1), "wall": (0, 1), "ending": (0, 1), "respawn": (0, 1),
        }  # fmt: skip


def sound(params: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether the floor has room for the agent and all objects, bool [N]."""
    enough = (params["num_starts"] <= params["num_floor"]) & (params["num_objects"] < params["num_floor"])
    return np.asarray(enough)
