"""The setting ``frame_stack``, which every game has: how many of its last observations are shown at once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from mlbits.envs.core.game import Game

SETTING = "frame_stack"
HELP = "how many of the last observations are shown, stacked; 1 for the newest alone"


@functools.lru_cache(1024)
def stackable(factory: Callable[..., Game]) -> Callable[..., Game]:
    """A game's factory with the setting ``frame_stack``; one that has it already is unchanged."""
    signature = inspect.signature(factory)
    if SETTING in signature.parameters or any(part.kind == part.VAR_KEYWORD for part in signature.parameters.values()):
        return factory

    @functools.wraps(factory)
    def make(*args: Any, frame_stack: int = 1, **settings: Any) -> Game:
        from mlbits.envs.core.stacking import stacked  # which compiles: not before it is needed

        return stacked(factory(*args, **settings), frame_stack)

    more = inspect.Parameter(SETTING, inspect.Parameter.KEYWORD_ONLY, default=1, annotation=int)
    made: Any = make
    made.__signature__ = signature.replace(parameters=[*signature.parameters.values(), more])
    made.__annotations__ = {**factory.__annotations__, SETTING: int}
    text = inspect.cleandoc(factory.__doc__ or "")
    head, args, tail = text.partition("\nArgs:\n")
    line = f"    {SETTING}: {HELP}.\n"
    made.__doc__ = f"{head}{args}{line}{tail}" if args else f"{text}\n\nArgs:\n{line}"
    return make
