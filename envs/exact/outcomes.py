"""Enumerates all outcomes of a rule that draws random numbers, with exact probabilities; nothing is sampled.

The rule's Python code is run with every draw replaced by a symbolic number whose value is not yet known. Such a number
can be scaled, shifted and added. Only where the rule branches on it (compares it, or uses it as an index or an integer)
is the draw resolved: each possible answer is followed in a run of its own from the start. An answer narrows
the range in which the draw lies, and the ratio of the ranges is its probability. So ``uniform(state) < params.slip``
gives two outcomes, of probability slip and 1 - slip, whatever else the rule does, and ``randint(state, 4)`` as an index
gives four of a quarter each. A reward that still depends on a draw counts by its mean. A draw left in a field of the
state that the rules never read back is dropped; in a field that they do read, integers are enumerated and
everything else is refused, since a draw from a continuum has no table.

A rule that sets ``state.rng_key`` to a key of its own (a level's number, for example) draws from a known stream;
such draws are made for real, until the copy's own key is restored.

Example:
    >>> from mlbits.envs.registry import make_game
    >>> chance = Chance(make_game("mlbits/GridWorld-v0", map="SSG"), {"cell"})
    >>> [(start.probability, int(start.record["cell"])) for start in chance.resets()]
    [(0.5, 0), (0.5, 1)]
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterator
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlbits.envs.core import random
from mlbits.envs.core.errors import GameError
from mlbits.envs.core.game import Game, Rule
from mlbits.envs.core.rules import python_function
from mlbits.envs.exact.unresolved_draws import Continuum, Tape, TooMany, Unknown, mean_of


class Outcome(NamedTuple):
    """One possible outcome of a rule.

    Attributes:
        probability: above 0; the probabilities of all outcomes add up to 1.
        reward: seat 0's reward, averaged over draws that the outcome leaves unresolved.
        terminated: whether the game is over.
        truncated: whether the rules cut the episode.
        record: the next state, of the game's ``state_dtype``; fields that were not asked for may be stale.
        rewards: every seat's reward, averaged in the same way.
    """

    probability: float
    reward: float
    terminated: bool
    truncated: bool
    record: Any
    rewards: tuple[float, ...]


class Chance:
    """Enumerates the outcomes of a game's ``reset`` and ``step``.

    Args:
        game: a game with any number of seats.
        fields: names of the state's fields that must be known after a rule: those that rules read back.
        limit: most outcomes of one call; beyond it the call is refused.
    """

    def __init__(self, game: Game, fields: Collection[str], limit: int = 100_000) -> None:
        self.game, self.limit = game, limit
        self._fields = [name for name in game.state_dtype.names or () if name in fields]
        self._tape = Tape(limit)
        self._plain = _Plain(self._tape)
        self._params = _Record(game.params[0])

    def resets(self) -> list[Outcome]:
        """The possible initial states of an episode.

        Raises:
            GameError: if there are more than ``limit``, or a field is drawn from a continuum.
        """
        empty, rule = np.zeros(1, self.game.state_dtype)[0], self._plain(self.game.reset)
        return list(self._outcomes("reset", empty, lambda state, rewards: rule(state, self._params)))

    def steps(self, record: Any, action: Any) -> list[Outcome]:
        """The possible outcomes of an action.

        Args:
            record: the state, of the game's ``state_dtype``.
            action: an integer, or integers [k] for MultiDiscrete; with several seats, one of these for each.

        Raises:
            GameError: if there are more than ``limit`` outcomes, or a field is drawn from a continuum.
        """
        rule = self._plain(self.game.step)
        played = np.array(action, object).reshape(self.game.seats, *self.game.action.shape)
        actions = _Array(played, np.dtype(np.int64))
        params = self._params
        return list(self._outcomes("step", record, lambda state, rewards: rule(state, params, actions, rewards)))

    def _outcomes(self, name: str, record: Any, run: Callable[[Any, Any], Any]) -> Iterator[Outcome]:
        tape, before = self._tape, _Record(record)
        more, count = tape.rewind(), 0
        with np.errstate(over="ignore"):  # the generator's arithmetic wraps around
            while more:
                count += 1
                if count > self.limit:
                    raise GameError(f"{self.game.name}: {name} has more than {self.limit:,} outcomes; wanted fewer")
                try:
                    yield self._one(before, run)
                except Continuum as error:
                    raise GameError(f"{self.game.name}: {name} {error}; wanted finitely many outcomes") from None
                except TooMany as error:
                    raise GameError(f"{self.game.name}: {name} {error}; wanted at most {self.limit:,}") from None
                except (TypeError, AttributeError, ArithmeticError) as error:
                    raise GameError(f"{self.game.name}: {name} cannot be run with symbolic draws ({error})") from error
                more = tape.next()

    def _one(self, before: _Record, run: Callable[[Any, Any], Any]) -> Outcome:
        """Run the rule once, with the answers on the tape."""
        state = _State(before)
        rewards = _Array(np.zeros(self.game.seats, object), np.dtype(np.float32))
        terminated, truncated = (bool(flag) for flag in run(state, rewards) or (False, False))
        after = vars(before)["_record"].copy()
        if not terminated:
            state.write(after, self._fields)
        paid = tuple(mean_of(reward) for reward in rewards)
        return Outcome(self._tape.probability, paid[0], terminated, truncated, after, paid)


class _Stream:
    """Stands for the key and counter of a copy's own random stream, which differ between copies."""


_STREAM = _Stream()


class _Record:
    """A record in plain Python; a field is read when a rule first uses it."""

    def __init__(self, record: Any) -> None:
        vars(self)["_record"] = record

    def __getattr__(self, name: str) -> Any:
        record = vars(self)["_record"]
        if name not in record.dtype.names:
            raise AttributeError(f"there is no field {name!r}")
        kind, value = record.dtype[name], record[name]
        read = _Array(_objects(value), kind.base) if kind.shape else _python(value)
        vars(self)[name] = read
        return read


class _State:
    """The state of a copy in plain Python, writable.

    Integers are Python's, so that intermediate results do not wrap around; a stored value is cast to its field's type.
    """

    def __init__(self, before: _Record) -> None:
        vars(self).update(_before=before, rng_key=_STREAM, rng_counter=_STREAM)

    def __getattr__(self, name: str) -> Any:
        read = getattr(vars(self)["_before"], name)
        vars(self)[name] = read = _Array(read.values.copy(), read.dtype) if isinstance(read, _Array) else read
        return read

    def __setattr__(self, name: str, value: Any) -> None:
        kind = vars(self)["_before"]._record.dtype[name]
        vars(self)[name] = value if value is _STREAM else _fitted(value, kind)

    def write(self, target: NDArray[Any], fields: Collection[str]) -> None:
        """Write changed fields into a NumPy record, resolving draws that are left in ``fields``."""
        for name, value in vars(self).items():
            if value is _STREAM or name == "_before" or (isinstance(value, _Array) and not value.changed):
                continue
            entries = list(value.values.reshape(-1)) if isinstance(value, _Array) else [value]
            if name in fields:
                entries = [_resolved(entry, name) for entry in entries]
            elif any(isinstance(entry, Unknown) for entry in entries):
                continue
            target[name] = np.array(entries).reshape(value.shape) if isinstance(value, _Array) else entries[0]


def _resolved(value: Any, name: str) -> Any:
    if not isinstance(value, Unknown):
        return value
    try:
        return value.resolve()
    except Continuum:
        raise Continuum(f"draws the field {name!r} of the state from a continuum") from None


class _Array:
    """A field with several entries, or the actions or rewards, as rules index it."""

    __slots__ = ("_changed", "dtype", "values")

    def __init__(self, values: NDArray[Any], dtype: np.dtype[Any], changed: list[bool] | None = None) -> None:
        self.values, self.dtype = values, dtype
        self._changed = [False] if changed is None else changed  # shared with its slices

    @property
    def changed(self) -> bool:
        return self._changed[0]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def size(self) -> int:
        return self.values.size

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Any]:
        return (self[k] for k in range(len(self.values)))

    def __getitem__(self, index: Any) -> Any:
        part = self.values[index if type(index) is int else _index(index)]
        return _Array(part, self.dtype, self._changed) if isinstance(part, np.ndarray) else part

    def __setitem__(self, index: Any, value: Any) -> None:
        fitted = value.values if isinstance(value, _Array) else _fitted(value, self.dtype)
        self.values[index if type(index) is int else _index(index)] = fitted
        self._changed[0] = True


def _index(index: Any) -> Any:
    if isinstance(index, tuple):
        return tuple([part if type(part) is int else _index(part) for part in index])
    return index if isinstance(index, slice) else operator.index(index)


def _python(value: Any) -> Any:
    """A scalar as a Python number; uint64 stays NumPy's, because it is meant to wrap around."""
    return value if value.dtype == np.uint64 else value.item()


def _objects(values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype.names:
        raise GameError("a field of records cannot be run with symbolic draws; wanted fields of numbers")
    if values.dtype != np.uint64:
        return values.astype(object)
    flat = np.empty(values.size, object)
    flat[:] = list(values.reshape(-1))
    return flat.reshape(values.shape)


def _fitted(value: Any, kind: np.dtype[Any]) -> Any:
    """A value cast to its field's type."""
    if isinstance(value, Unknown):
        return value if kind.kind == "f" or value.whole else int(value)
    try:
        fitted = kind.type(value)
    except OverflowError:
        fitted = np.asarray(value).astype(kind)[()]
    return _python(fitted)


class _Plain:
    """Rules as plain Python functions that call each other, with draws taken from a tape."""

    def __init__(self, tape: Tape) -> None:
        self._made: dict[int, Any] = {}
        self._kept: list[Any] = []  # keeps objects alive, so that no id is used twice
        draws: dict[Rule, Callable[..., Any]] = {
            random.random_bits: lambda: tape.integer(2**64),
            random.uniform: tape.uniform,
            random.randint: tape.integer,
            random.normal: tape.normal,
        }
        for rule, draw in draws.items():
            self._put(rule, _draw(draw, self._rebuilt(python_function(rule))))

    def __call__(self, rule: Rule) -> Callable[..., Any]:
        """The plain form of a rule."""
        return self._swapped(rule)

    def _put(self, key: Any, value: Any) -> Any:
        self._made[id(key)] = value
        self._kept.append(key)
        return value

    def _swapped(self, value: Any) -> Any:
        """The replacement of an object that a rule's code names."""
        if id(value) in self._made:
            return self._made[id(value)]
        if isinstance(value, ModuleType):
            return self._put(value, _Names(value, self._swapped))
        plain = python_function(value)
        if not isinstance(plain, FunctionType):
            return value
        return self._rebuilt(plain, value)

    def _rebuilt(self, plain: Any, key: Any = None) -> Any:
        names = {"__builtins__": plain.__globals__.get("__builtins__", __builtins__)}
        made = FunctionType(
            plain.__code__, names, plain.__name__, plain.__defaults__,
            tuple(CellType() for _ in plain.__closure__ or ()),
        )  # fmt: skip
        made.__kwdefaults__ = plain.__kwdefaults__
        if key is not None:
            self._put(key, made)  # before the functions it calls: rules may be mutually recursive
        for name in _names(plain.__code__):
            if name in plain.__globals__:
                names[name] = self._swapped(plain.__globals__[name])
        for cell, filled in zip(plain.__closure__ or (), made.__closure__ or (), strict=True):
            filled.cell_contents = self._swapped(cell.cell_contents)
        return made


def _draw(unknown: Callable[..., Any], known: Callable[..., Any]) -> Callable[..., Any]:
    """A draw: symbolic from the copy's own stream, real from a stream that a rule has put in its place."""

    def draw(state: Any, *arguments: Any) -> Any:
        if state.rng_key is _STREAM:
            return unknown(*(operator.index(n) for n in arguments))
        return known(state, *arguments)

    return draw


class _Names:
    """A module as rules see it, with its rules replaced."""

    def __init__(self, module: ModuleType, swapped: Callable[[Any], Any]) -> None:
        self._module, self._swap = module, swapped

    def __getattr__(self, name: str) -> Any:
        value = self._swap(getattr(self._module, name))
        setattr(self, name, value)
        return value


def _names(code: CodeType) -> set[str]:
    inner = [_names(constant) for constant in code.co_consts if isinstance(constant, CodeType)]
    return set(code.co_names).union(*inner)
