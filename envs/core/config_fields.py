"""Declaring the settings of a config: one line per setting gives its default, help, range and unit.

The check on construction and its error message, the docstring's "Attributes", the flag's help and the tables of the
docs are all derived from this line. Choices are given by a ``Literal`` annotation.

Example:
    >>> from typing import Literal
    >>> @configuration(ValueError)
    ... class Exploration:
    ...     '''How the agent explores.'''
    ...     kind: Literal["greedy", "softmax"] = setting("greedy", "distribution of actions")
    ...     epsilon: float = setting(0.1, "fraction of random actions", low=0, high=1)
    >>> Exploration(epsilon=0.2)
    Exploration(kind='greedy', epsilon=0.2)
    >>> Exploration(epsilon=1.5)
    Traceback (most recent call last):
    ValueError: epsilon: got 1.5; wanted a number from 0 to 1
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import numbers
import types
import typing
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeVar, dataclass_transform

from mlbits.envs.core.schedules import schedule

T = TypeVar("T")
C = TypeVar("C")

REQUIRED: Any = dataclasses.MISSING  # in place of a default, for settings without one

_KEY = "setting"  # in a field's metadata
_LARGE, _TINY = 1e5, 1e-6  # bounds beyond these are not shown in help texts


class Setting(NamedTuple):
    """The properties of a setting besides its name, type and default.

    Attributes:
        help: what it is, without a full stop.
        low: the smallest value, or None.
        high: the largest value, or None; infinity allows infinity.
        unit: of the value, such as "nats".
        scheduled: whether it may be a schedule, which changes over the run.
        auto: what the value "auto" stands for; "" if it is no value of the setting.
    """

    help: str = ""
    low: float | None = None
    high: float | None = None
    unit: str = ""
    scheduled: bool = False
    auto: str = ""


def setting(
    default: T,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    unit: str = "",
    scheduled: bool = False,
    auto: str = "",
) -> T:
    """A field of a :func:`configuration`.

    Args:
        default: the default; ``REQUIRED`` for none.
        help: what it is, without a full stop.
        low: the smallest value; for a tuple, of each entry (and there must be at least one entry).
        high: the largest value. Infinite values are rejected unless this is ``math.inf``; NaN always is.
        unit: of the value, such as "nats".
        scheduled: whether it may be a schedule (:mod:`~mlbits.envs.core.schedules`), all of whose values are in the
            range (or 0, where that is the bound but for nonsense); its type is ``Scheduled``.
        auto: what the value "auto" of such a setting stands for, without a full stop.

    Returns:
        A field for ``dataclasses``; its type is the default's, so that type checkers compare it with the annotation.
    """
    return dataclasses.field(default=default, metadata={_KEY: Setting(help, low, high, unit, scheduled, auto)})


@dataclass_transform(frozen_default=True, kw_only_default=True)
def configuration(error: type[Exception]) -> Callable[[type[C]], type[C]]:
    """A decorator that makes a frozen, keyword-only dataclass with slots, which checks its settings on construction.

    Each field is checked against its type, range and choices; then the method ``check()``, if there is one, checks
    rules across fields. A subclass may change the default of a field (``name: int = 5``); help and range stay the same.

    Args:
        error: type of the exception for a value that is rejected.
    """

    def decorate(cls: type[C]) -> type[C]:
        for name in inspect.get_annotations(cls):
            default, known = cls.__dict__.get(name, REQUIRED), _inherited(cls, name)
            if known is not None and default is not REQUIRED and not isinstance(default, dataclasses.Field):
                setattr(cls, name, dataclasses.field(default=default, metadata={_KEY: known}))

        def check(self: Any) -> None:
            for field in dataclasses.fields(self):
                object.__setattr__(self, field.name, _plain(getattr(self, field.name)))
                if wanted := _refused(type(self), field, getattr(self, field.name)):
                    value = getattr(self, field.name)
                    got = repr(value) if isinstance(value, str) else value
                    raise error(f"{field.name}: got {got}; wanted {wanted}")
            own = getattr(self, "check", None)
            if own is not None:
                own()

        cls.__post_init__ = check  # type: ignore[attr-defined]
        made: Any = dataclasses.dataclass(frozen=True, slots=True, kw_only=True)(cls)
        made.__doc__ = _documented(made, cls.__dict__.get("__doc__") or "Settings.")
        return made

    return decorate


def setting_of(field: dataclasses.Field[Any]) -> Setting | None:
    """A field's properties from :func:`setting`, or None for a field of an ordinary dataclass."""
    return field.metadata.get(_KEY)


def range_text(config_class: Any, field: dataclasses.Field[Any]) -> str:
    """The values that a field may have, in short: "0 to 1", "at least 0, in nats", "'a' or 'b'"; "" for any.

    Bounds that only exclude nonsense (100,000 and more) are left out here; the error message names them.
    """
    kind, known = _plain_kind(_hints(config_class)[field.name])[0], setting_of(field) or Setting()
    if typing.get_origin(kind) is Literal:
        return choices_text(typing.get_args(kind))
    low = known.low if known.low is not None and known.low > -_LARGE else None
    high = known.high if known.high is not None and known.high < _LARGE else None
    tiny = low is not None and 0 < low <= _TINY
    if low is not None and high is not None:
        text = f"above 0, at most {high:g}" if tiny else f"{low:g} to {high:g}"
    elif low is not None:
        text = "above 0" if tiny else f"at least {low:g}"
    else:
        text = f"at most {high:g}" if high is not None else ""
    text = f"each {text}" if text and typing.get_origin(kind) is tuple else text
    words = [text] * bool(text) + [f"in {known.unit}"] * bool(known.unit)
    return ", ".join(words + ["or a schedule"] * known.scheduled)


def help_text(field: dataclasses.Field[Any], config_class: Any) -> str:
    """The help text of a field's flag: its help and its range; choices are shown by the flag itself."""
    known = setting_of(field) or Setting()
    kind = _plain_kind(_hints(config_class)[field.name])[0]
    within = "" if typing.get_origin(kind) is Literal else range_text(config_class, field)
    auto = f"auto: {known.auto}" if known.auto else ""
    return "; ".join(part for part in (known.help, auto, within) if part)


def choices_text(choices: typing.Sequence[Any]) -> str:
    """Choices in words: "'a', 'b' or 'c'"."""
    words = [repr(choice) for choice in choices]
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _inherited(cls: type, name: str) -> Setting | None:
    for base in cls.__mro__[1:]:
        field = base.__dict__.get("__dataclass_fields__", {}).get(name)
        if field is not None:
            return setting_of(field)
    return None


def _documented(made: Any, text: str) -> str:
    """The docstring, with a line for each setting."""
    lines = [inspect.cleandoc(text), "", "Attributes:"]
    for field in dataclasses.fields(made):
        if known := setting_of(field):
            lines.append(f"    {field.name}: {known.help}.")
    return "\n".join(lines if len(lines) > 3 else lines[:1])


@functools.lru_cache(256)
def _hints(config_class: Any) -> dict[str, Any]:
    return typing.get_type_hints(config_class)


def _plain_kind(hint: Any) -> tuple[Any, bool]:
    """A type without its None, and whether None is allowed."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        parts = [part for part in typing.get_args(hint) if part is not type(None)]
        if len(parts) < len(typing.get_args(hint)):
            return (parts[0] if len(parts) == 1 else Any), True
    return hint, False


def _refused(config_class: Any, field: dataclasses.Field[Any], value: Any) -> str:
    """What was wanted instead of a value, or "" if the value is valid."""
    kind, optional = _plain_kind(_hints(config_class)[field.name])
    known = setting_of(field) or Setting()
    end = ", or None" if optional else ""
    if value is None and optional:
        return ""
    if known.scheduled:
        return _refused_schedule(value, known)
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        return "" if value in choices else choices_text(choices) + end
    if kind is bool:
        return "" if isinstance(value, bool) else f"True or False{end}"
    if kind is str:
        return "" if isinstance(value, str) else f"a string{end}"
    if kind is float and not _inside(value, known):
        return _wanted_number(known) + end
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if kind is int and not (whole and _inside(value, known)):
        return _wanted_number(known).replace(" number", " number" if whole else " whole number") + end
    if typing.get_origin(kind) is tuple:
        return _refused_tuple(typing.get_args(kind)[0], value, known) + end * bool(value is None)
    return ""


def _refused_schedule(value: Any, known: Setting) -> str:
    """The same for a number, a schedule, or "auto" where that is a value."""
    auto = ", or 'auto'" if known.auto else ""
    if not isinstance(value, str):
        return "" if _inside(value, known) else f"{_wanted_number(known)}, or a schedule{auto}"
    if value == "auto" and known.auto:
        return ""
    try:
        values = schedule(value).values
    except ValueError as error:
        return str(error) + auto
    # A schedule may end where only a constant would be nonsense.
    within = known._replace(low=0.0) if known.low is not None and 0 < known.low <= _TINY else known
    if all(_inside(number, within) for number in values):
        return ""
    return f"a schedule of {_wanted_number(within).replace('a number', 'numbers')}"


def _refused_tuple(kind: Any, value: Any, known: Setting) -> str:
    """The same for a tuple of entries of one type, of which there must be one if the entries have a lower bound."""
    things = {int: "whole numbers", float: "numbers", str: "strings"}.get(kind, "values")
    good = isinstance(value, tuple)
    if good and kind in (int, float):
        good = all(_inside(entry, known) and (kind is float or isinstance(entry, numbers.Integral)) for entry in value)
    elif good and kind is str:
        good = all(isinstance(entry, str) for entry in value)
    if known.low is None:
        return "" if good else f"a tuple of {things}"
    things = "positive widths" if known.low == 1 and kind is int else f"{things} of at least {_number(known.low)}"
    return "" if good and value else f"one or more {things}"


def _plain(value: Any) -> Any:
    """NumPy's numbers as Python's, and lists as tuples."""
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return tuple(_plain(entry) for entry in value)
    return value.item() if type(value).__module__ == "numpy" and getattr(value, "shape", None) == () else value


def _inside(value: Any, known: Setting) -> bool:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    if not isinstance(value, int):  # of which some are too large for a float
        value = float(value)
        if math.isnan(value) or (math.isinf(value) and known.high != math.inf):
            return False
    return (known.low is None or value >= known.low) and (known.high is None or value <= known.high)


def _wanted_number(known: Setting) -> str:
    """A number's range in words, for an error message."""
    low, high = known.low, None if known.high == math.inf else known.high
    if low is not None and high is not None:
        return f"a number from {_number(low)} to {_number(high)}"
    if low is not None:
        return "a positive number" if 0 < low <= _TINY else f"a number of at least {_number(low)}"
    return f"a number of at most {_number(high)}" if high is not None else "a finite number"


def _number(value: float) -> str:
    if math.isfinite(value) and value == int(value) and abs(value) < 1e19:
        return f"{int(value):,}"
    return f"{value:g}"
