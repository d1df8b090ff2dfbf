"""Checks states and parameters before compiled rules read them: saved ones may be damaged, or a stranger's.

Compiled rules do not check indices: a field out of range would make them read or write memory that is not theirs, or
never end. A game therefore declares the ranges of the fields with which its rules index or count (``state_ranges``),
and, where that is not enough, whether a whole state holds together (``sound``); likewise for parameters that a batch
takes while it runs (``params_ranges``, ``params_sound``). Fields of floats have to be finite.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbits.envs.core.errors import GameError
from mlbits.envs.core.game import Game

_HEADER = {"elapsed": (0, 2**31 - 1), "over": (0, 1)}
_PARAMS_HEADER = {"horizon": (0, 2**31 - 1), "cut_after": (0, 2**31 - 1)}


def check_states(game: Game, states: NDArray[Any]) -> None:
    """Refuse states that the game's rules could not have written.

    Args:
        game: the game.
        states: structured [B] of the game's ``state_dtype``.

    Raises:
        GameError: naming the first copy and field that is out of range.
    """
    _check_fields("state: copy", states, _HEADER | dict(game.state_ranges))
    if game.sound is not None:
        good = game.sound(states) | _never_begun(game, states)
        if not good.all():
            raise GameError(f"state: copy {int(np.argmin(good))}: its fields do not fit together in {game.name}")


def check_params(game: Game, params: NDArray[Any]) -> None:
    """Refuse parameters with which the game's rules could leave their memory.

    Args:
        game: the game.
        params: structured [N] of the dtype of ``game.params``.

    Raises:
        GameError: if the game does not say what its parameters may be; or naming the first record and field that is
            out of range.
    """
    if game.params_ranges is None:
        raise GameError(f"params: {game.name} declares no params_ranges; wanted a game whose parameters may change")
    _check_fields("params: record", params, _PARAMS_HEADER | dict(game.params_ranges))
    if game.params_sound is not None:
        good = game.params_sound(params)
        if not good.all():
            raise GameError(f"params: record {int(np.argmin(good))}: its fields do not fit together in {game.name}")


def _check_fields(what: str, records: NDArray[Any], ranges: Mapping[str, tuple[float, float]]) -> None:
    for name, (low, high) in ranges.items():
        values = records[name]
        if values.size and not (low <= values.min() and values.max() <= high):
            _refuse(what, name, values, (values < low) | (values > high), f"{low} to {high}")
    for name in records.dtype.names or ():
        if records[name].dtype.kind == "f":
            _refuse(what, name, records[name], ~np.isfinite(records[name]), "a finite number")


def _refuse(what: str, name: str, values: NDArray[Any], wrong: NDArray[np.bool_], wanted: str) -> None:
    if wrong.any():
        where = tuple(int(k) for k in np.argwhere(wrong)[0])
        raise GameError(f"{what} {where[0]}, {name}{list(where[1:]) or ''}: got {values[where]}; wanted {wanted}")


def _never_begun(game: Game, states: NDArray[Any]) -> NDArray[np.bool_]:
    """Copies without an episode so far: no rule plays in them."""
    own = [str(field[0]) for field in game.state_fields]
    clear = [~(states[name] != 0).reshape(len(states), -1).any(1) for name in own]
    return (states["over"] == 1) & np.all(clear, axis=0)
