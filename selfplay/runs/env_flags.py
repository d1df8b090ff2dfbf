"""Settings of an environment on the command line, the same for every command: ``--env.NAME VALUE``.

For our own games the flags come from the game's signature, with its types. For any other environment each
``--env.NAME`` goes to its constructor: a value is parsed as JSON or as a Python literal, and is a string if it is
neither; a number is a float or a string where the constructor's own default is one. A switch without a value is true,
``--env.no-NAME`` is false. ``--env-json`` gives several settings as a JSON object; flags override it.

Example:
    mlbits eval runs/maze --env.slip 0.2
    mlbits train ppo LunarLander-v3 --env.continuous --env.gravity -8.0
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import itertools
import json
import re
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import tyro

from mlbits.envs.core.errors import MlbitsError
from mlbits.envs.core.plain_json import read_json
from mlbits.envs.doors.gymnasium_batch import check_env_id
from mlbits.envs.registry import entry, registered
from mlbits.selfplay.runs.command_line import read_flags, signature_fields
from mlbits.selfplay.runs.config import ConfigError, make_config

_UNSET = "(its own)"  # shown for a setting of a wrapped environment that was not given


class EnvFlags:
    """The ``--env.NAME`` flags of a command.

    Args:
        env: the environment's id, or "" where it is not known.
        base: settings that apply where no flag is given: those of a preset or a run.
        words: the words of the command line.

    Attributes:
        words: the same without ``--env-json``, with switches written out.
        field: for ``dataclasses.make_dataclass``; its name is "env_settings".

    Raises:
        ConfigError: if ``--env-json`` is not a JSON object, or has settings that the environment does not have.
    """

    def __init__(self, env: str, base: Mapping[str, Any], words: Sequence[str]) -> None:
        self.words, self._given = _without_json(words)
        self._base, self._own = dict(base), dict[str, Any]()
        self._typed: Any = None
        self._known = dict[str, Any]()  # default settings of a wrapped environment
        name = env.rpartition(":")[2]
        if name in registered():
            found = entry(name)
            fields = signature_fields(found.load(), defaults=found.defaults)
            kind = dataclasses.make_dataclass("EnvSettings", fields, frozen=True, kw_only=True)
            try:
                start = make_config(kind, _tuples({**self._base, **self._given}), "env")
            except ConfigError as error:
                raise ConfigError(f"--env-json: {error}" if self._given else str(error)) from None
            self._typed, self._own = kind, {field.name: field.default for field in dataclasses.fields(kind)}
        else:
            self._known = constructor_settings(name)
            values = {name: _text(value) for name, value in {**self._known, **self._base, **self._given}.items()}
            values |= {name: values.get(name, _UNSET) for name in _named(self.words)}
            note = tyro.conf.arg(metavar="VALUE", help="")
            fields = [(name, Annotated[str, note], dataclasses.field(default=text)) for name, text in values.items()]
            kind = dataclasses.make_dataclass("EnvSettings", fields, frozen=True, kw_only=True)
            start = kind()
        self._start = start
        self.words = _switches(self.words, kind, self._typed is not None)
        self.field: Any = ("env_settings", Annotated[kind, tyro.conf.arg(name="env")], start)
        if not dataclasses.fields(kind):
            self.field = ("env_settings", tyro.conf.Suppress[dict[str, str]], dataclasses.field(default_factory=dict))

    def over(self, flags: Any) -> dict[str, Any]:
        """The settings that were given and differ from the base."""
        base = {**self._own, **_tuples(self._base)} if self._typed is not None else self._base
        return {name: value for name, value in self._values(flags).items() if name not in base or value != base[name]}

    def settings(self, flags: Any) -> dict[str, Any]:
        """All settings that differ from the environment's defaults."""
        return {name: value for name, value in self._values(flags).items() if self._own.get(name, _UNSET) != value}

    def _values(self, flags: Any) -> dict[str, Any]:
        if self._typed is not None:
            return {name: getattr(flags.env_settings, name) for name in self._own}
        values = {**self._base, **self._given}
        for field in dataclasses.fields(self._start):
            text = getattr(flags.env_settings, field.name)
            if text != getattr(self._start, field.name):
                values[field.name] = _as_its_default(_value(text), text, self._known.get(field.name))
        return values


def read_with_env(base: type, command: str, words: Sequence[str], named: str = "") -> tuple[Any, EnvFlags]:
    """A command's flags together with ``--env.NAME`` for the settings of its environment.

    Args:
        base: the dataclass of the command's own flags.
        command: as typed, "mlbits eval".
        words: the words after it.
        named: the word that names the environment or the run; "" looks for it in all words.

    Returns:
        The flags, with the field "env_settings", and the object that extracts the settings from them.

    Raises:
        ConfigError: for flags that do not fit.
    """
    env_flags = EnvFlags(*find_env([named] if named else words), words)
    name = base.__name__.removesuffix("Flags")
    together = dataclasses.make_dataclass(name, [env_flags.field], bases=(base,), frozen=True, kw_only=True)
    together.__doc__ = base.__doc__
    return read_flags(together, command, env_flags.words), env_flags


def find_env(words: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The environment of a command and the settings that it starts from, found before its flags are read.

    That is the value of ``--env``, or the environment of the first run or frozen copy named, or the first word that is
    an environment's id. A run that cannot be read is left to the command to refuse.
    """
    from mlbits.selfplay.runs.folder import CONFIG, read_settings
    from mlbits.selfplay.runs.saved_agents import SUFFIX, copy_settings

    asked = next((b for a, b in itertools.pairwise(words) if a == "--env"), "")
    asked = next((word.partition("=")[2] for word in words if word.startswith("--env=")), asked)
    for word in words:
        try:
            if (Path(word) / CONFIG).is_file():
                found = read_settings(word)
            elif word.endswith(SUFFIX) and Path(word).is_file():
                found = copy_settings(Path(word))
            else:
                continue
        except (MlbitsError, OSError):
            continue
        if asked in ("", found.env):
            return found.env, dict(found.env_settings)
    if not asked:
        asked = next((word for word in words if word in registered() or word in gym.registry or _with_module(word)), "")
    try:
        return (check_env_id(asked), {}) if asked else ("", {})
    except MlbitsError:
        return "", {}


def json_settings(text: str) -> dict[str, Any]:
    """An environment's settings from ``--env-json``.

    Raises:
        ConfigError: if it is not a JSON object.
    """
    try:
        values = read_json(text)
    except ValueError as error:
        raise ConfigError(f"--env-json: {error}; wanted a JSON object") from None
    if not isinstance(values, dict):
        raise ConfigError(f"--env-json: got {text}; wanted a JSON object")
    return values


def _with_module(word: str) -> bool:
    return re.fullmatch(r"[A-Za-z_][\w.]*:[\w./-]+-v\d+", word) is not None


def _without_json(words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    rest: list[str] = []
    given: dict[str, Any] = {}
    waiting = iter(words)
    for word in waiting:
        name, equals, text = word.partition("=")
        if name not in ("--env-json", "--env_json"):
            rest.append(word)
            continue
        if not equals and (text := next(waiting, "")) == "":
            raise ConfigError("--env-json: the value is missing; wanted a JSON object")
        given |= json_settings(text)
    return rest, given


def _named(words: Sequence[str]) -> list[str]:
    """The settings that ``--env.NAME`` flags name, including ``--env.no-NAME``."""
    names = [match[1].replace("-", "_") for word in words if (match := re.match(r"--env\.([\w-]+)", word))]
    return [name.removeprefix("no_") for name in names]


def _switches(words: Sequence[str], kind: Any, typed: bool) -> list[str]:
    """Boolean flags in the form that the parser takes: switches for typed settings, values for others."""
    fields = {field.name: field.default for field in dataclasses.fields(kind)}
    rest, k = [], 0
    while k < len(words):
        word, after = words[k], words[k + 1] if k + 1 < len(words) else ""
        k += 1
        match = re.fullmatch(r"--env\.([\w-]+)(?:=(.*))?", word)
        if match is None:
            rest.append(word)
            continue
        name, value = match[1].replace("-", "_"), match[2]
        if typed:
            if isinstance(fields.get(name), bool) and (said := (value or after).lower()) in ("true", "false"):
                k += value is None
                rest.append(f"--env.{'' if said == 'true' else 'no-'}{name.replace('_', '-')}")
            else:
                rest.append(word)
        elif name not in fields and name.startswith("no_"):
            rest.append(f"--env.{name.removeprefix('no_')}=false")
        elif value is None and (not after or re.match(r"--?[A-Za-z]", after)):
            rest.append(f"--env.{name}=true")
        elif value is None:
            rest.append(f"--env.{name}={after}")
            k += 1
        else:
            rest.append(word)
    return rest


def takes_whole_numbers(env: str, setting: str) -> bool | None:
    """Whether a setting of an environment takes whole numbers alone, by its type or the constructor's own default.

    Args:
        env: the environment's id.
        setting: the setting's name.

    Returns:
        None where neither says so.
    """
    name = env.rpartition(":")[2]
    if name in registered():
        hints = {own: hint for own, hint, _ in signature_fields(entry(name).load())}
        parts = _types_in(hints.get(setting))
        return None if not parts & {int, float} else float not in parts
    kind = type(constructor_settings(name).get(setting))
    return kind is int if kind in (int, float) else None


def _types_in(hint: Any) -> set[Any]:
    """The types that a hint allows, without its annotations."""
    return set().union(*map(_types_in, typing.get_args(hint))) if typing.get_args(hint) else {hint}


def constructor_settings(name: str) -> dict[str, Any]:
    """A wrapped environment's default settings, as far as its id and constructor give them."""
    if name not in gym.registry:
        return {}
    spec = gym.spec(name)
    made: Any = spec.entry_point
    try:
        if isinstance(made, str):
            module, _, attribute = made.partition(":")
            made = getattr(importlib.import_module(module), attribute)
        parameters = inspect.signature(made).parameters.values()
    except (ImportError, AttributeError, TypeError, ValueError, gym.error.Error):
        parameters = {}.values()
    own = {p.name: p.default for p in parameters if p.default is not p.empty and p.name != "render_mode"}
    return {name: value for name, value in (own | dict(spec.kwargs)).items() if _plain(value)}


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))


def _text(value: Any) -> str:
    return value if isinstance(value, str) and _value(value) == value else json.dumps(value)


def _value(text: str) -> Any:
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return text


def _as_its_default(value: Any, text: str, default: Any) -> Any:
    """A value that was read from a text, as the type of a setting's default asks: 1 is 1.0, or "1"."""
    if type(default) is float and type(value) is int:
        return float(value)
    return text if type(default) is str and type(value) in (int, float) else value


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(part) for key, part in value.items()}
    return tuple(_tuples(part) for part in value) if isinstance(value, (list, tuple)) else value
