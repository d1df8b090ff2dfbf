"""The table that all registries are: games, agents and evaluations by name, one's own among them.

Example:
    >>> fruit = Registry[int]("fruit", {"apple": 1, "pear": 2})
    >>> fruit["pear"]
    2
    >>> fruit["aple"]
    Traceback (most recent call last):
    mlbits.envs.core.errors.UnknownIdError: unknown fruit 'aple'; did you mean 'apple'?
    >>> fruit.register("plum", 3, "orchard")  # by a module of one's own, which "orchard:plum" imports
    True
    >>> list(fruit), fruit.module("plum")
    (['apple', 'pear', 'plum'], 'orchard')
"""

from __future__ import annotations

import re
from collections import UserDict
from collections.abc import Mapping, Sequence
from typing import NoReturn, TypeVar

from mlbits.envs.core.errors import GameError, UnknownIdError
from mlbits.envs.origins import import_module_of

T = TypeVar("T")

_NAME = re.compile(r"[^\s:-][^\s:]*")  # neither "module:name" nor a flag


class Registry(UserDict[str, T]):
    """Entries by name, in the order of their registration; a mapping whose KeyError suggests the nearest name.

    Args:
        kind: what the entries are, for messages: "agent".
        entries: the first of them.
        argument: what a name is called where one is registered, for messages.
    """

    def __init__(self, kind: str, entries: Mapping[str, T] | None = None, *, argument: str = "name") -> None:
        self._kind, self._argument = kind, argument
        self._modules: dict[str, str] = {}
        super().__init__(entries)

    def register(self, name: str, entry: T, module: str = "") -> bool:
        """Add an entry.

        Args:
            name: a new one. With an entry equal to the one that it has it may come again, as from a notebook's cell.
            entry: what it names.
            module: the one that another process imports to know the name; "" for our own.

        Returns:
            Whether the name is new.

        Raises:
            GameError: if the name is malformed, or taken by another entry.
        """
        if not _NAME.fullmatch(name):
            raise GameError(f"{self._argument}: got {name!r}; wanted one without spaces, ':' or a '-' in front")
        if name in self:
            if self[name] == entry:
                return False
            raise GameError(f"{self._argument}: the {self._kind} {name!r} is registered already; wanted another name")
        self[name] = entry
        if module:
            self._modules[name] = module
        return True

    def check(self, name: str, folders: Sequence[str] | None = None) -> str:
        """Refuse a name that is not known.

        Args:
            name: a registered one, or "module:name" for one that is known once the module has been imported.
            folders: of the module, where a file has named it; see :func:`mlbits.envs.origins.import_module`.

        Returns:
            The name without the module.

        Raises:
            UnknownIdError: with the nearest known name.
            GameError: if the module cannot be imported.
        """
        module, colon, own = name.rpartition(":")
        if colon and self._modules.get(own) != module:
            import_module_of(name, folders)
        self[own]
        return own

    def module(self, name: str) -> str:
        """The module that another process imports to know a name; "" for our own."""
        return self._modules.get(name, "")

    def copy(self) -> Registry[T]:
        """A registry of the same entries, which is changed alone."""
        other = Registry[T](self._kind, self.data, argument=self._argument)
        other._modules = dict(self._modules)
        return other

    def __missing__(self, name: str) -> NoReturn:
        raise UnknownIdError(self._kind, name, self)

    def __delitem__(self, name: str) -> None:
        super().__delitem__(name)
        self._modules.pop(name, None)
