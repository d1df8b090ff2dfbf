"""Finds the fields of a copy's state that its rules read back: these make up the state of the decision process.

A field that no rule reads before writing it again does not affect the future, however often ``observe`` or a picture
shows it (a bandit's last arm; a counter that is only incremented). Two states that differ only in such fields have the
same future. The fields are found by static analysis of the rules' source code; the result may contain more fields
than necessary, never fewer.

Example:
    >>> from mlbits.envs.registry import make_game
    >>> sorted(fields_read(make_game("mlbits/Bandit-v0")))
    ['means']
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from mlbits.envs.core import random
from mlbits.envs.core.game import Game, Rule
from mlbits.envs.core.rules import python_function

_DRAWS = (random.random_bits, random.uniform, random.randint, random.normal)


class _AnyField(Exception):
    """The source code does not show which fields are read."""


def fields_read(game: Game, rules: Iterable[Rule | None] | None = None) -> frozenset[str]:
    """Names of the fields of a copy's state that the future depends on.

    Args:
        game: the game.
        rules: which of its rules to analyse; None means ``step``, ``legal`` and ``acts``.

    Returns:
        Fields of ``game.state_dtype``, including the core's header if rules read it; all of them if the rules'
        source is not available or uses the state in a way that is not analysed.
    """
    found: set[str] = set()
    try:
        for rule in (game.step, game.legal, game.acts) if rules is None else rules:
            if rule is not None:
                found |= _read_by(rule, 0, frozenset())
    except _AnyField:
        return frozenset(game.state_dtype.names or ())
    return frozenset(found & set(game.state_dtype.names or ()))


def _read_by(rule: Any, position: int | str, above: frozenset[tuple[int, int | str]]) -> set[str]:
    """Fields of the state that a function reads; the state is its argument ``position``."""
    function = python_function(rule)
    if (id(function), position) in above:  # mutually recursive rules
        return set()
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except (OSError, TypeError, SyntaxError):
        raise _AnyField from None
    if not isinstance(tree, ast.FunctionDef):
        raise _AnyField
    names = [argument.arg for argument in (*tree.args.posonlyargs, *tree.args.args)]
    if position not in names and not (isinstance(position, int) and position < len(names)):
        raise _AnyField
    reader = _Reader(
        function, names[position] if isinstance(position, int) else position, above | {(id(function), position)}
    )
    reader.block(tree.body, set())
    return reader.found


class _Reader:
    """Walks a function's syntax tree with the set of fields written so far."""

    def __init__(self, function: Any, state: str, above: frozenset[tuple[int, int | str]]) -> None:
        self._state, self._above = state, above
        closure = inspect.getclosurevars(function)
        self._known = {**closure.builtins, **closure.globals, **closure.nonlocals}
        self.found: set[str] = set()

    def block(self, statements: list[ast.stmt], written: set[str]) -> set[str] | None:
        """Read statements in order; return the fields written after them, or None if control leaves the block."""
        for statement in statements:
            after = self._statement(statement, written)
            if after is None:
                return None
            written = after
        return written

    def _statement(self, node: ast.stmt, written: set[str]) -> set[str] | None:
        if isinstance(node, ast.Assign):
            self._expression(node.value, written)
            return written.union(*(self._target(target, written) for target in node.targets))
        if isinstance(node, ast.AugAssign):
            # ``state.count += 1`` alone does not reveal the field's value.
            self._expression(node.value, written)
            if not self._is_field(node.target):
                self._expression(node.target, written)
            return written
        if isinstance(node, ast.If):
            self._expression(node.test, written)
            ways = [way for part in (node.body, node.orelse) if (way := self.block(part, written)) is not None]
            return set.intersection(*ways) if ways else None
        if isinstance(node, (ast.For, ast.While)):
            self._expression(node.iter if isinstance(node, ast.For) else node.test, written)
            if isinstance(node, ast.For):
                self._target(node.target, written)
            self.block(node.body, written)
            self.block(node.orelse, written)
            return written
        self._expression(node, written)
        return None if isinstance(node, (ast.Return, ast.Break, ast.Continue, ast.Raise)) else written

    def _target(self, node: ast.expr, written: set[str]) -> set[str]:
        """The fields that an assignment to ``node`` writes as a whole."""
        if isinstance(node, (ast.Tuple, ast.List)):
            return set().union(*(self._target(part, written) for part in node.elts))
        if self._is_field(node):
            return {node.attr}  # type: ignore[attr-defined]
        if isinstance(node, ast.Subscript) and self._is_field(node.value):
            self._expression(node.slice, written)  # a single entry: nothing is read, and the field not fully written
        else:
            self._expression(node, written)
        return set()

    def _expression(self, node: ast.AST, written: set[str]) -> None:
        if self._is_field(node):
            if node.attr not in written:  # type: ignore[attr-defined]
                self.found.add(node.attr)  # type: ignore[attr-defined]
            return
        if isinstance(node, ast.Name) and node.id == self._state:
            raise _AnyField  # an alias of the state, or a use of it as a whole
        if isinstance(node, ast.Call) and self._call(node, written):
            return
        for child in ast.iter_child_nodes(node):
            self._expression(child, written)

    def _call(self, node: ast.Call, written: set[str]) -> bool:
        """Analyse a call that takes the state as an argument; False for any other call."""
        given: list[tuple[int | str, ast.expr]] = list(enumerate(node.args))
        given += [(keyword.arg or "", keyword.value) for keyword in node.keywords]
        places = [place for place, value in given if isinstance(value, ast.Name) and value.id == self._state]
        if not places:
            return False
        called = self._resolved(node.func)
        if called is None:
            raise _AnyField
        if not any(called is draw for draw in _DRAWS):
            for place in places:
                self.found |= _read_by(called, place, self._above) - written
        for place, value in given:
            if place not in places:
                self._expression(value, written)
        return True

    def _resolved(self, node: ast.expr) -> Any:
        """The function that an expression refers to, or None."""
        if isinstance(node, ast.Name):
            return self._known.get(node.id)
        if isinstance(node, ast.Attribute):
            owner = self._resolved(node.value)
            return getattr(owner, node.attr, None) if isinstance(owner, ModuleType) else None
        return None

    def _is_field(self, node: ast.AST) -> bool:
        return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == self._state
