"""The registry of reproductions: what an entry says, look-up by name, reproductions of one's own.

The entries stand in ``evals/__init__.py``, one line each; what they name is imported at first use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any

from mlbits.envs.origins import caller, importable_name
from mlbits.envs.registry_table import Registry


@dataclass(frozen=True, slots=True)
class EvalEntry:
    """One registered reproduction.

    Attributes:
        target: "module:function"; the function takes ``quick: bool`` and returns a dict with the key "met". Its other
            parameters, each with a type, a default and a line in its docstring, become flags of ``mlbits reproduce``.
        summary: one line for lists.
    """

    target: str
    summary: str

    def load(self) -> Callable[..., dict[str, Any]]:
        """The function itself."""
        found: Callable[..., dict[str, Any]] = resolve_name(self.target)
        return found


EVALS: Registry[EvalEntry] = Registry("evaluation")


def eval_entry(name: str) -> EvalEntry:
    """A registered reproduction.

    Args:
        name: a registered one, or "module:name" for one that is known once the module has been imported.

    Raises:
        UnknownIdError: with the nearest known name.
        GameError: if the module cannot be imported.
    """
    return EVALS[EVALS.check(name)]


def register_eval(name: str, entry: EvalEntry) -> None:
    """Make a reproduction of one's own known to ``mlbits reproduce``; in another process "module:name" is known.

    Raises:
        GameError: if the name is malformed, or taken by another reproduction.
    """
    EVALS.register(name, entry, importable_name(caller()))
