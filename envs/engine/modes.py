"""Driver operations, autoreset modes and illegal-action modes: their numbers, and the names that users give."""

from __future__ import annotations

from typing import Literal

from mlbits.envs.core.errors import GameError

Autoreset = Literal["same_step", "next_step", "disabled"]
IllegalActions = Literal["error", "replace", "forfeit"]

# Operations of the driver. CHECKED_STEP checks all its copies before it steps the first.
RESET, STEP, REFRESH, CHECK, CHECKED_STEP = range(5)
# What happens to a copy whose episode has ended (Gymnasium's three modes).
DISABLED, NEXT_STEP, SAME_STEP = range(3)
# What happens to an illegal action; under ERROR, CHECK finds it before anything is stepped.
ERROR, REPLACE, FORFEIT = range(3)

AUTORESET = {"disabled": DISABLED, "next_step": NEXT_STEP, "same_step": SAME_STEP}
ILLEGAL = {"error": ERROR, "replace": REPLACE, "forfeit": FORFEIT}


def choice(name: str, value: str, choices: dict[str, int]) -> int:
    """The number of a named choice.

    Raises:
        GameError: if there is no such choice.
    """
    if value not in choices:
        raise GameError(f"{name}: got {value!r}; wanted one of {', '.join(map(repr, choices))}")
    return choices[value]
