"""Distributions of small gridworlds: a level's map, objects and time limit are drawn from its number.

| name | grid | objects | walls | steps of an episode | lifetime (updates of 20 steps) |
|---|---|---|---|---|---|
| small | 4 to 6 | 1 to 3 | 7 | 20 to 100 | 250 |
| medium | 6 to 8 | 2 to 4 | 10 | 100 to 250 | 1000 |
| large | 8 to 10 | 2 to 5 | 15 | 250 to 750 | 2500 |
| all | 4 to 10 | 1 to 5 | 15 | 20 to 750 | 1000 |
| all_short | as all | | | | 250 |
| mazes | 13 | 3 | one of six mazes | 25 to 50 | 2500 |

Grids are square. An object's reward is uniform on [-1, 1], the first one's on [0, 1] (in mazes all of them); collecting
it ends the episode with a probability that is log-uniform on [0.01, 1], and it comes back in each step with one on
[0.001, 0.1]. Objects keep their places, and episodes begin in one cell, from which all of them can be reached. Time
limits are log-uniform.

Source: Jackson et al., "Discovering general reinforcement learning algorithms with adversarial environment design"
(2023), and its code. Differences: walls are distinct cells, at most 7 of 16; what cannot be reached is drawn again; the
mazes are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbits.envs.levels.mazes import MAZES
from mlbits.envs.levels.records import Frame
from mlbits.envs.levels.streams import Stream

MAZE_SIDE = 13
_ATTEMPTS = 16  # draws of walls before a level goes without


@dataclass(frozen=True)
class Distribution:
    """Ranges from which a level is drawn, both ends included.

    Attributes:
        sides: rows and columns of the grid.
        objects: number of objects.
        walls: number of walls, at most 7 of 16 cells; None for mazes.
        horizon: steps after which an episode is truncated.
        lifetime: updates of 20 steps that an agent has in a level.
    """

    sides: tuple[int, int]
    objects: tuple[int, int]
    walls: int | None
    horizon: tuple[int, int]
    lifetime: int

    @property
    def frame(self) -> Frame:
        """Room for the largest level."""
        return Frame(self.sides[1], self.sides[1], self.objects[1])


DISTRIBUTIONS = {
    "small": Distribution((4, 6), (1, 3), 7, (20, 100), 250),
    "medium": Distribution((6, 8), (2, 4), 10, (100, 250), 1000),
    "large": Distribution((8, 10), (2, 5), 15, (250, 750), 2500),
    "all": Distribution((4, 10), (1, 5), 15, (20, 750), 1000),
    "all_short": Distribution((4, 10), (1, 5), 15, (20, 750), 250),
    "mazes": Distribution((MAZE_SIDE, MAZE_SIDE), (3, 3), None, (25, 50), 2500),
}


def level_records(name: str, numbers: NDArray[np.uint64], automatic: bool) -> NDArray[Any]:
    """The parameters of levels of a distribution.

    Args:
        name: a distribution.
        numbers: the levels' numbers, uint64 [N].
        automatic: whether entering an object's cell collects it.

    Returns:
        Records [N]; each is a function of the distribution and its number alone.
    """
    ranges = DISTRIBUTIONS[name]
    frame, most = ranges.frame, ranges.objects[1]
    stream = Stream(name, numbers)
    sides = whole(stream.uniform(1)[:, 0], *ranges.sides)
    counts = whole(stream.uniform(1)[:, 0], *ranges.objects)
    low, high = ranges.horizon
    records = np.zeros(len(numbers), frame.dtype)
    records["horizon"] = records["cut_after"] = log_uniform(stream.uniform(1)[:, 0], low, high + 1).astype(np.int32)
    exists = np.arange(most) < counts[:, None]
    reward = stream.uniform(most)
    if ranges.walls is not None:
        reward[:, 1:] = 2 * reward[:, 1:] - 1
    ending, respawn = log_uniform(stream.uniform(most), 0.01, 1.0), log_uniform(stream.uniform(most), 0.001, 0.1)
    for field, values in (("reward", reward), ("ending", ending), ("respawn", respawn)):
        records[field][:, :most] = np.where(exists, values, 0)
    records["height"] = records["width"] = ranges.sides[1]
    records["rows"] = records["columns"] = sides
    records["num_objects"], records["num_starts"], records["automatic"] = counts, 1, automatic
    pending = np.arange(len(numbers))
    for attempt in range(_ATTEMPTS + 1):
        places = Stream(f"{name}, map {attempt}", numbers[pending])
        if ranges.walls is None:
            wall = _maze_walls(places)
        else:
            walls = np.minimum(ranges.walls, 7 * sides[pending] ** 2 // 16) * (attempt < _ATTEMPTS)
            wall = _random_walls(places, sides[pending], walls, frame)
        done = _place(records, pending, wall, places.uniform(frame.cells))
        pending = pending[~done]
        if len(pending) == 0:
            break
    return records


def whole(u: NDArray[np.float64], low: int, high: int) -> NDArray[np.int64]:
    """Integers from ``low`` to ``high``, both included, for numbers on [0, 1)."""
    return low + (u * (high - low + 1)).astype(np.int64)


def log_uniform(u: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """Numbers from ``low`` to ``high`` with uniform logarithms, for numbers on [0, 1)."""
    scaled: NDArray[np.float64] = low * np.exp(u * np.log(high / low))
    return scaled


def _maze_walls(places: Stream) -> NDArray[np.bool_]:
    """One of the mazes for each level, bool [N, cells]."""
    kinds = np.array([[letter == "#" for letter in rows.replace("\n", "")] for rows in MAZES.values()])
    return kinds[whole(places.uniform(1)[:, 0], 0, len(kinds) - 1)]


def _random_walls(
    places: Stream, sides: NDArray[np.int64], walls: NDArray[np.int64], frame: Frame
) -> NDArray[np.bool_]:
    """``walls`` [N] cells of each level's grid, and all cells beyond it, bool [N, cells]."""
    row, column = np.divmod(np.arange(frame.cells), frame.width)
    beyond = np.maximum(row, column) >= sides[:, None]
    score = np.where(beyond, 1.0, places.uniform(frame.cells))
    rank = np.argsort(np.argsort(score, axis=1, kind="stable"), axis=1, kind="stable")
    return np.asarray(beyond | (rank < walls[:, None]))


def _place(
    records: NDArray[Any], rows: NDArray[np.int64], wall: NDArray[np.bool_], score: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Write maps and places into the records ``rows`` [n]; returns for which the map had room, bool [n].

    The floor's cells are shuffled by their scores: the first is where episodes begin, the next ones that can be reached
    from it are the objects'.
    """
    cells = wall.shape[1]
    order = np.argsort(np.where(wall, 1.0, score), axis=1, kind="stable")
    start = order[:, 0]
    reached = reach(wall, start, int(records["width"][0]))
    reached[np.arange(len(rows)), start] = False
    counts = records["num_objects"][rows]
    done = np.asarray(reached.sum(1) >= counts)
    rows, wall, reached, order, start, counts = (part[done] for part in (rows, wall, reached, order, start, counts))
    nearest = np.argsort(~np.take_along_axis(reached, order, axis=1), axis=1, kind="stable")
    places = np.take_along_axis(order, nearest, axis=1)[:, : records["place"].shape[1]]
    floor = np.where(wall, 2 * cells, np.arange(cells))
    floor[np.arange(len(rows)), start] = -1
    listed = np.sort(floor, axis=1)
    listed[:, 0] = start
    records["wall"][rows, :cells] = wall
    records["num_floor"][rows] = (~wall).sum(1)
    records["floor"][rows, :cells] = np.where(listed < cells, listed, 0)
    records["place"][rows] = np.where(np.arange(places.shape[1]) < counts[:, None], places, 0)
    return done


def reach(wall: NDArray[np.bool_], start: NDArray[np.int64], width: int) -> NDArray[np.bool_]:
    """Cells that can be reached from ``start`` [N] by moves up, right, down and left, bool [N, cells]."""
    floor = ~wall.reshape(len(wall), -1, width)
    reached = np.zeros_like(floor)
    reached.reshape(len(wall), -1)[np.arange(len(wall)), start] = True
    while True:
        grown = reached.copy()
        grown[:, 1:] |= reached[:, :-1]
        grown[:, :-1] |= reached[:, 1:]
        grown[:, :, 1:] |= reached[:, :, :-1]
        grown[:, :, :-1] |= reached[:, :, 1:]
        grown &= floor
        if np.array_equal(grown, reached):
            return reached.reshape(len(wall), -1)
        reached = grown
