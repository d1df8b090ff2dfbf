"""The compiled adjudicator outside a game: one position, or thousands in one call.

Example:
    >>> from mlbits.envs.diplomacy.board import load_board
    >>> from mlbits.envs.diplomacy.position import first_position
    >>> resolve(first_position(load_board()), {}).after.phase_name
    'F1901M'
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mlbits.envs.diplomacy import aftermath
from mlbits.envs.diplomacy.board import Board
from mlbits.envs.diplomacy.codes import NO_ORDER, NO_UNIT
from mlbits.envs.diplomacy.orders import Order
from mlbits.envs.diplomacy.position import Position, Unit
from mlbits.envs.diplomacy.records import board_dtype, board_record, read_position, write_orders, write_position
from mlbits.envs.engine.batch import parse_device
from mlbits.envs.engine.driver import load_generated
from mlbits.envs.engine.gpu_copies import check_cuda, check_kernels, kernel_view

_TEXT = {
    "cpu": '''"""Diplomacy's adjudicator over many records, written by mlbits; safe to delete, it is made again."""

from numba import njit

from mlbits.envs.diplomacy.aftermath import resolve


@njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
def resolve_all(states, params):
    for b in range(len(states)):
        resolve(states[b], params[0])
''',
    "cuda": '''"""Diplomacy's adjudicator, one thread a record, written by mlbits; safe to delete, it is made again."""

from numba import cuda

from mlbits.envs.diplomacy.aftermath import resolve


@cuda.jit
def resolve_all(states, params):
    b = cuda.grid(1)
    if b < len(states):
        resolve(states[b], params[0])
''',
}
_THREADS_A_BLOCK = 64


class Resolution(NamedTuple):
    """What became of a phase.

    Attributes:
        after: the next position.
        fates: bits of :mod:`~mlbits.envs.diplomacy.codes` for every unit that had orders to get (retreats: dislodged
            ones; builds: every order and every unit that civil disorder took), by province.
        destroyed: units that were taken off the board.
    """

    after: Position
    fates: Mapping[int, int]
    destroyed: tuple[Unit, ...]


def kernel(target: str = "cpu") -> ModuleType:
    """The compiled module of the CPU, or of a GPU ("cuda"); ``resolve_all(states [B], params [1])`` works in place."""
    return load_generated(f"diplomacy_resolve_{target}", _TEXT[target], {"resolve": aftermath.resolve})


class Adjudicator:
    """Many positions at once, their orders in their records, on the CPU (one core) or on a GPU.

    Args:
        states: records of ``board_dtype(board)``, [B]; copied.
        board: the map.
        rules: "datc-2.4" or "datc-3.0".
        device: "cpu" or "cuda".

    Raises:
        DeviceError: if the device is not there.
    """

    def __init__(self, states: NDArray[Any], board: Board, rules: str = "datc-2.4", device: str = "cpu") -> None:
        self.device = parse_device(device)
        if self.device.type == "cuda":
            check_kernels()
            self.device = check_cuda(self.device)
            self._run = kernel("cuda").resolve_all[-(-len(states) // _THREADS_A_BLOCK), _THREADS_A_BLOCK]
        else:
            self._run = kernel().resolve_all
        self._dtype, self._gpu = states.dtype, parse_device(device).type == "cuda"
        self._memory = [self._tensor(array) for array in (states, _board_record(board, rules))]
        self._first = self._memory[0].clone()
        self._views = [
            self._view(*pair) for pair in zip(self._memory, (states, _board_record(board, rules)), strict=True)
        ]

    def _tensor(self, array: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array).view(np.uint8).copy()).to(self.device)

    def _view(self, memory: torch.Tensor, array: NDArray[Any]) -> Any:
        return kernel_view(memory, array.dtype, array.shape) if self._gpu else memory.numpy().view(array.dtype)

    def run(self) -> None:
        """Carry out all orders, from the first records."""
        self._memory[0].copy_(self._first)
        self._run(*self._views)

    def states(self) -> NDArray[Any]:
        """The records as they are now, on the host."""
        return self._memory[0].cpu().numpy().view(self._dtype)


@lru_cache(maxsize=8)
def _board_record(board: Board, rules: str) -> NDArray[Any]:
    return board_record(board, rules)


def resolve(position: Position, orders: Mapping[int, Order], rules: str = "datc-2.4") -> Resolution:
    """Carry out orders.

    Args:
        position: where things stand.
        orders: legal orders, by the province of the unit ordered (builds: the province built in). A unit without one
            holds, disbands instead of retreating, or is not built; no more builds or disbands than are allowed.
        rules: "datc-2.4" or "datc-3.0", where they differ.
    """
    board = position.board
    states = np.zeros(1, board_dtype(board))
    write_position(position, states[0])
    write_orders(orders, states[0])
    before = states.copy()[0]
    kernel().resolve_all(states, _board_record(board, rules))
    state = states[0]
    dislodged = before["out_kind"] != NO_UNIT
    ordered = dislodged if dislodged.any() else (before["unit_kind"] != NO_UNIT)
    if position.phase == 4:
        ordered = (before["order_kind"] != NO_ORDER) | (state["gone"] != 0)
    fates = {int(p): int(state["fate"][p]) for p in np.flatnonzero(ordered)}
    which = "out" if dislodged.any() else "unit"
    destroyed = tuple(
        Unit(int(before[f"{which}_power"][p]), int(before[f"{which}_kind"][p]), int(before[f"{which}_place"][p]))
        for p in np.flatnonzero(state["gone"])
    )
    return Resolution(read_position(state, board), fates, destroyed)
