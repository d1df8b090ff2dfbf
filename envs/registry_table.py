"""The class of all registries: games, agents and reproductions by name, built-in and custom.

Example:
    >>> fruit = Registry[int]("fruit", {"apple": 1, "pear": 2})
    >>> fruit["pear"]
    2
    >>> fruit["aple"]
    Traceback (most recent call last):
    mlbits.envs.core.errors.UnknownIdError: unknown fruit 'aple'; did you mean 'apple'?
    >>> fruit.register("plum", 3, "orchard")  # by a custom module, which "orchard:plum" imports
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
    """Entries by name, in the order of registration: a mapping whose KeyError suggests the nearest name.

    Args:
        kind: what the entries are, for error messages: "agent".
        entries: the first entries.
        argument: what the function that registers an entry calls its name, for error messages.
    """

    def __init__(self, kind: str, entries: Mapping[str, T] | None = None, *, argument: str = "name") -> None:
        self._kind, self._argument = kind, argument
        self._modules: dict[str, str] = {}
        super().__init__(entries)

    def register(self, name: str, entry: T, module: str = "") -> bool:
        """Add an entry.

        Args:
            name: a new name. It may be registered again with an equal entry, as when a notebook's cell is run twice.
            entry: the entry.
            module: the module that another process has to import to register it; "" for built-in entries.

        Returns:
            Whether the name is new.

        Raises:
            GameError: if the name is malformed, or already taken by another entry.
        """
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise GameError(f"{self._argument}: got {name!r}; wanted one without spaces, ':' or a '-' in front")
        if name in self:
            if self[name] == entry:
                return False
            raise GameError(f"{self._argument}: the {self._kind} {name!r} is already registered; wanted another name")
        self[name] = entry
        if module:
            self._modules[name] = module
        return True

    def check(self, name: str, folders: Sequence[str] | None = None) -> str:
        """Check that a name is known, and strip the module from it.

        Args:
            name: a registered name, or "module:name" for an entry that the module registers when it is imported.
            folders: where to look for the module if a file named it; see :func:`mlbits.envs.origins.import_module`.

        Returns:
            The name without the module.

        Raises:
            UnknownIdError: for an unknown name; the message suggests the nearest known one.
            GameError: if the module cannot be imported.
        """
        module, colon, own = name.rpartition(":")
        if colon and self._modules.get(own) != module:
            import_module_of(name, folders)
        self[own]
        return own

    def module(self, name: str) -> str:
        """The module that another process has to import to register a name; "" for built-in entries."""
        return self._modules.get(name, "")

    def copy(self) -> Registry[T]:
        """A new registry with the same entries, independent of this one."""
        other = Registry[T](self._kind, self.data, argument=self._argument)
        other._modules = dict(self._modules)
        return other

    def __missing__(self, name: str) -> NoReturn:
        raise UnknownIdError(self._kind, name, self)

    def __delitem__(self, name: str) -> None:
        super().__delitem__(name)
        self._modules.pop(name, None)
