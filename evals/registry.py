"""The registry of reproductions: what an entry contains, look-up by name, registration of custom reproductions.

The entries are in ``evals/__init__.py``, one per reproduction; the functions that they name are imported at first use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlbits.envs.origins import caller, import_name, importable_name
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
        """Import the function."""
        module, _, name = self.target.partition(":")
        found: Callable[..., dict[str, Any]] = import_name(module, name)
        return found


EVALS: Registry[EvalEntry] = Registry("evaluation")


def eval_entry(name: str) -> EvalEntry:
    """Look up a registered reproduction.

    Args:
        name: a registered name, or "module:name" for a reproduction that the module registers when it is imported.

    Raises:
        UnknownIdError: for an unknown name; the message suggests the nearest known one.
        GameError: if the module cannot be imported.
    """
    return EVALS[EVALS.check(name)]


def register_eval(name: str, entry: EvalEntry) -> None:
    """Register a custom reproduction, for ``mlbits reproduce`` too; other processes find it as "module:name".

    Raises:
        GameError: if the name is malformed, or already taken by another reproduction.
    """
    EVALS.register(name, entry, importable_name(caller()))
