"""The ten gridworlds of Oh et al. (2020): five whose objects keep their places, and five that scatter them.

Source: "Discovering reinforcement learning algorithms" (2020), appendix A. A level's number draws the places of the
objects in the first five; the others are one level each. The grids have the stated sizes without a border of walls,
on which published code differs. The text does not print the two maps with walls and the two wall cells of
"scattered_small": these are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbits.envs.levels.records import Frame
from mlbits.envs.levels.streams import Stream

Thing = tuple[float, float, float]  # reward, probability that collecting it ends the episode, and that it comes back


@dataclass(frozen=True)
class Layout:
    """One gridworld.

    Attributes:
        rows: the map: floor ``.`` and wall ``#``.
        objects: (reward, probability of an end, probability to come back in each step) of each object.
        horizon: steps after which an episode is truncated.
        scattered: whether objects are placed anew in every episode and whenever they come back.
    """

    rows: tuple[str, ...]
    objects: tuple[Thing, ...]
    horizon: int
    scattered: bool = False

    @property
    def frame(self) -> Frame:
        """Room for this map alone."""
        return Frame(len(self.rows), len(self.rows[0]), len(self.objects))


_OPEN_11, _OPEN_13, _SMALL = (
    ("...........",) * 11,
    (".............",) * 13,
    ("." * 7, "..#....", "." * 7, "....#..", "." * 7),
)
_DIVIDED = ("....#....", ".........", "....#....", "....#....", "....#....", ".........", "....#....")
_ROOMS = (
    ".....#.....", "...........", ".....#.....", "...........", ".....#.....", "#.#.###.#.#",
    ".....#.....", "...........", ".....#.....", "...........", ".....#.....",
)  # fmt: skip
_DENSE = ((1.0, 0.0, 0.05), (1.0, 0.0, 0.05), (-1.0, 0.5, 0.1), (-1.0, 0.0, 0.5))
_LONG = ((1.0, 0.0, 0.01),) * 2 + ((-1.0, 0.5, 1.0),) * 2

LAYOUTS = {
    "dense": Layout(_OPEN_11, _DENSE, 500),
    "sparse": Layout(_OPEN_13, ((1.0, 1.0, 0.0), (-1.0, 1.0, 0.0)), 50),
    "long_horizon": Layout(_OPEN_11, _LONG, 1000),
    "longer_horizon": Layout(_DIVIDED, ((1.0, 0.1, 0.01),) * 2 + ((-1.0, 0.8, 1.0),) * 5, 2000),
    "long_dense": Layout(_ROOMS, ((1.0, 0.0, 0.005),) * 4, 2000),
    "scattered_dense": Layout(_OPEN_11, _DENSE, 500, scattered=True),
    "scattered_long_horizon": Layout(_OPEN_11, _LONG, 1000, scattered=True),
    "scattered_small": Layout(_SMALL, ((1.0, 0.0, 0.05),) * 2 + ((-1.0, 0.5, 0.1),) * 2, 500, scattered=True),
    "scattered_small_sparse": Layout(_SMALL, ((1.0, 1.0, 1.0),) + ((-1.0, 1.0, 1.0),) * 2, 50, scattered=True),
    "scattered_very_dense": Layout(_OPEN_11, ((1.0, 0.0, 1.0),), 2000, scattered=True),
}


def layout_records(name: str, numbers: NDArray[np.uint64], automatic: bool) -> NDArray[Any]:
    """The parameters of levels of a layout.

    Args:
        name: a layout.
        numbers: the levels' numbers, uint64 [N].
        automatic: whether entering an object's cell collects it.

    Returns:
        Records [N].
    """
    layout = LAYOUTS[name]
    frame, count = layout.frame, len(layout.objects)
    records = np.zeros(len(numbers), frame.dtype)
    wall = np.array([[letter == "#" for letter in row] for row in layout.rows]).reshape(-1)
    floor = np.flatnonzero(~wall)
    records["horizon"] = records["cut_after"] = layout.horizon
    records["height"], records["rows"] = frame.height, frame.height
    records["width"], records["columns"] = frame.width, frame.width
    records["num_objects"], records["num_floor"] = count, len(floor)
    records["automatic"], records["scattered"] = automatic, layout.scattered
    records["wall"][:, : frame.cells] = wall
    for k, field in enumerate(("reward", "ending", "respawn")):
        records[field][:, :count] = [thing[k] for thing in layout.objects]
    if layout.scattered:
        records["num_starts"] = len(floor)
        records["floor"][:, : len(floor)] = floor
    else:  # the last cells of a shuffled floor are the objects'; episodes begin on the others
        shuffled = floor[np.argsort(Stream(name, numbers).uniform(len(floor)), axis=1, kind="stable")]
        records["num_starts"] = len(floor) - count
        records["place"][:, :count] = shuffled[:, len(floor) - count :]
        records["floor"][:, : len(floor) - count] = np.sort(shuffled[:, : len(floor) - count], axis=1)
        records["floor"][:, len(floor) - count : len(floor)] = records["place"][:, :count]
    return records
