"""Ranges of the fields of a game's state, and whether whole states hold together, on the host.

Units stand where their kind may stand; no power has more units to order than the game has slots; counts are right.
Working memory is written before it is read, in every step, and may hold anything.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbits.envs.diplomacy.board import Board
from mlbits.envs.diplomacy.codes import ADJUSTMENTS, FLEET
from mlbits.envs.diplomacy.position import MAX_YEAR


def ranges(board: Board) -> dict[str, tuple[float, float]]:
    """Least and largest values of the fields that hold the position and its counts."""
    n, locations, powers = len(board.provinces), len(board.locations), len(board.powers)
    found: dict[str, tuple[float, float]] = {"year": (0, MAX_YEAR + 1), "phase": (0, ADJUSTMENTS)}
    for name in ("unit_power", "out_power", "owner"):
        found[name] = (-1, powers - 1)
    for name in ("unit_kind", "out_kind"):
        found[name] = (0, FLEET)
    for name in ("unit_place", "out_place", "order_target"):
        found[name] = (-1, locations - 1)
    for name in ("out_from", "order_other"):
        found[name] = (-1, n - 1)
    for name in ("centers", "units", "to_retreat"):
        found[name] = (0, n)
    return found | {"due": (-n, n)}


def soundness(board: Board, slots: int) -> Callable[[NDArray[Any]], NDArray[np.bool_]]:
    """A game's ``sound``.

    Args:
        board: the game's board.
        slots: orders that a power can give.
    """
    return partial(_sound, _places(board), _degrees(board), len(board.powers), slots)


def _sound(
    places: NDArray[np.int64], degrees: NDArray[np.uint32], powers: int, slots: int, states: NDArray[Any]
) -> NDArray[np.bool_]:
    provinces = np.arange(states["owner"].shape[1])
    good = np.ones(len(states), bool)
    for which, count in (("unit", "units"), ("out", "to_retreat")):
        kind, power, place = (states[f"{which}_{name}"].astype(np.int64) for name in ("kind", "power", "place"))
        here = kind > 0
        fits = places[kind, place] == provinces
        good &= (~here | ((power >= 0) & (place >= 0) & fits)).all(1)
        for number in range(powers):
            held = (here & (power == number)).sum(1)
            good &= (held <= slots) & (states[count][:, number] == held)
    neighbours = degrees[states["out_kind"], states["out_place"]]
    good &= ((states["out_open"] >> neighbours == 0) | (states["out_kind"] == 0)).all(1)
    for number in range(powers):
        held = (states["owner"] == number).sum(1)
        good &= (states["centers"][:, number] == held) & ((states["over"] == 1) | (states["due"][:, number] <= slots))
    return good


def _places(board: Board) -> NDArray[np.int64]:
    """The province of each location by kind of unit (none, army, fleet), -1 where that kind cannot be."""
    found = np.full((3, len(board.locations)), -1)
    for kind in (1, 2):
        for place in range(len(board.locations)):
            if board.neighbours(kind, place):
                found[kind, place] = board.province_of[place]
    return found


def _degrees(board: Board) -> NDArray[np.uint32]:
    """How many neighbours a unit has, by kind (none, army, fleet) and location."""
    rows = [[len(board.neighbours(kind, place)) for place in range(len(board.locations))] for kind in (1, 2)]
    return np.array([[31] * len(board.locations), *rows], np.uint32)
