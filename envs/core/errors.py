"""The errors that the environments raise. Each message names the argument, what was got and what was wanted."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MlbitsError(Exception):
    """A mistake that the user can mend; the command line prints it as one line, without a traceback."""


class GameError(MlbitsError, ValueError):
    """A game that is declared or set up wrongly: a bad map, size, space or parameter."""


class IllegalActionError(MlbitsError, ValueError):
    """An action of a wrong shape, dtype or range, or one that the rules forbid."""


class UnknownIdError(MlbitsError, KeyError):
    """A name that is not registered.

    Args:
        kind: what it would be the name of.
        name: the one that was got.
        known: those that there are.
        argument: the argument that it was given to, where that is not plain from the kind.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], argument: str = "") -> None:
        known = sorted(known)
        # Of several with the same last part the first is meant: CartPole-v1 before phys2d/CartPole-v1.
        short = {entry.rsplit("/", 1)[-1].lower(): entry for entry in reversed(known)}
        near = difflib.get_close_matches(name.rsplit("/", 1)[-1].lower(), short, n=1, cutoff=0.4)
        hint = f"did you mean {short[near[0]]!r}?" if near else f"known: {', '.join(known)}"
        super().__init__(f"{argument}{': ' if argument else ''}unknown {kind} {name!r}; {hint}")

    def __str__(self) -> str:
        return str(self.args[0])


class DeviceError(MlbitsError, RuntimeError):
    """A device that was asked for and is not there."""
