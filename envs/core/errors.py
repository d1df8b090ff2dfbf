"""Errors raised by the environments. Each message names the argument, the value got and what was wanted."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MlbitsError(Exception):
    """An error that the user can correct; the command line prints it as one line, without a traceback."""


class GameError(MlbitsError, ValueError):
    """A game was declared or configured wrongly: a bad map, size, space or parameter."""


class IllegalActionError(MlbitsError, ValueError):
    """An action has the wrong shape, dtype or range, or the rules forbid it."""


class UnknownIdError(MlbitsError, KeyError):
    """A name that is not registered.

    Args:
        kind: what kind of thing was looked up ("environment").
        name: the unknown name.
        known: the registered names.
        argument: the argument that held the name, where ``kind`` does not make it clear.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], argument: str = "") -> None:
        known = sorted(known)
        # If several share the last part, the first one wins: CartPole-v1 before phys2d/CartPole-v1.
        short = {entry.rsplit("/", 1)[-1].lower(): entry for entry in reversed(known)}
        near = difflib.get_close_matches(name.rsplit("/", 1)[-1].lower(), short, n=1, cutoff=0.4)
        hint = f"did you mean {short[near[0]]!r}?" if near else f"known: {', '.join(known)}"
        super().__init__(f"{argument}{': ' if argument else ''}unknown {kind} {name!r}; {hint}")

    def __str__(self) -> str:
        return str(self.args[0])


class DeviceError(MlbitsError, RuntimeError):
    """The requested device is not available."""
