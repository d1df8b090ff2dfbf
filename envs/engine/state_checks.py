"""Checks states before compiled rules read them: saved states may be damaged, or a stranger's.

Compiled rules do not check indices: a field out of range would make them read or write memory that is not theirs, or
never end. A game therefore declares the ranges of the fields with which its rules index or count (``state_ranges``),
and, where that is not enough, whether a whole state holds together (``sound``). Fields of floats have to be finite.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbits.envs.core.errors import GameError
from mlbits.envs.core.game import Game

_HEADER = {"elapsed": (0, 2**31 - 1), "over": (0, 1)}


def check_states(game: Game, states: NDArray[Any]) -> None:
    """Refuse states that the game's rules could not have written.

    Args:
        game: the game.
        states: structured [B] of the game's ``state_dtype``.

    Raises:
        GameError: naming the first copy and field that is out of range.
    """
    for name, (low, high) in (_HEADER | dict(game.state_ranges)).items():
        _check_range(name, states[name], low, high)
    for name in game.state_dtype.names or ():
        if states[name].dtype.kind == "f":
            _refuse(name, states[name], ~np.isfinite(states[name]), "a finite number")
    if game.sound is not None:
        good = game.sound(states) | _never_begun(game, states)
        if not good.all():
            raise GameError(f"state: copy {int(np.argmin(good))}: its fields do not fit together in {game.name}")


def _check_range(name: str, values: NDArray[Any], low: float, high: float) -> None:
    if values.size and not (low <= values.min() and values.max() <= high):
        _refuse(name, values, (values < low) | (values > high), f"{low} to {high}")


def _refuse(name: str, values: NDArray[Any], wrong: NDArray[np.bool_], wanted: str) -> None:
    if wrong.any():
        where = tuple(int(k) for k in np.argwhere(wrong)[0])
        raise GameError(f"state: copy {where[0]}, {name}{list(where[1:]) or ''}: got {values[where]}; wanted {wanted}")


def _never_begun(game: Game, states: NDArray[Any]) -> NDArray[np.bool_]:
    """Copies without an episode so far: no rule plays in them."""
    own = [str(field[0]) for field in game.state_fields]
    clear = [~(states[name] != 0).reshape(len(states), -1).any(1) for name in own]
    return (states["over"] == 1) & np.all(clear, axis=0)
