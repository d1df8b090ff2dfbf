"""The settings that a sweep tries, from a TOML file, by the names of their flags.

For example::

    num_envs = { choices = [8, 16, 64] }
    agent.learning_rate = { low = 1e-4, high = 1e-2, log = true }
    agent.epochs = { low = 4, high = 20, step = 4 }
    agent.hidden = { choices = [[64], [64, 64]] }
    env.slip = { low = 0.0, high = 0.2 }

``low`` and ``high`` are part of the range; ``log`` draws from a logarithmic scale, ``step`` is the distance of values
from ``low`` on. Settings of whole numbers are drawn as such, all others as fractions, also between whole bounds. What a
wrapped environment takes is told by its constructor's default, or by the bounds as they are written. When the file is
read, every bound and choice is tried on the settings, so that nothing starts with one that is refused.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlbits.envs.core.errors import MlbitsError
from mlbits.envs.doors.gymnasium_batch import open_batch
from mlbits.evals.sweep.config import SweepError
from mlbits.selfplay.runs.config import RunConfig, Settings, make_config
from mlbits.selfplay.runs.env_flags import takes_whole_numbers
from mlbits.selfplay.runs.synonyms import canonical

_KEYS = ("low", "high", "log", "step", "choices")
_NEVER = {"seed": "the seed is no setting to choose by its result", "device": "it does not change the result"}


@dataclass(frozen=True)
class Dimension:
    """One setting to try.

    Attributes:
        name: the setting, as in "num_envs", "agent.learning_rate", "env.slip".
        kind: "float", "int" or "choices".
        low: the smallest value, of numbers.
        high: the largest.
        log: whether to draw from a logarithmic scale.
        step: distance of the values, or None for all.
        choices: the values, of choices.
    """

    name: str
    kind: Literal["float", "int", "choices"]
    low: float = 0
    high: float = 0
    log: bool = False
    step: float | None = None
    choices: tuple[Any, ...] = ()

    def suggested(self, trial: Any) -> Any:
        """The value that Optuna's trial has for it."""
        if self.kind == "choices":  # which Optuna wants as numbers or text
            return json.loads(trial.suggest_categorical(self.name, [json.dumps(choice) for choice in self.choices]))
        if self.kind == "int":
            return trial.suggest_int(self.name, int(self.low), int(self.high), step=int(self.step or 1), log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)

    def extremes(self) -> list[Any]:
        """Its choices, or its bounds."""
        if self.kind == "choices":
            return list(self.choices)
        return [int(bound) if self.kind == "int" else float(bound) for bound in (self.low, self.high)]


def read_space(path: Path, settings: Settings) -> list[Dimension]:
    """Read the settings to try.

    Args:
        path: the file.
        settings: those of the trials, except what is tried.

    Raises:
        SweepError: naming what is wrong in it.
    """
    try:
        data = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise SweepError(f"space: {path} not found; wanted a TOML file of settings to try") from None
    except (OSError, ValueError) as error:
        raise SweepError(f"space: {path} cannot be read ({error}); wanted TOML") from None
    dimensions = [_dimension(path, name, found, settings) for name, found in _flat(path, data)]
    if not dimensions:
        raise SweepError(f"space: {path} is empty; wanted a line as in num_envs = {{ low = 8, high = 64 }}")
    names = [dimension.name for dimension in dimensions]
    for name in names:
        if names.count(name) > 1:
            raise SweepError(f"{path}: {name}: given twice; wanted each once")
    for dimension in dimensions:
        for value in dimension.extremes():
            try:
                applied = with_values(settings, {dimension.name: value})
                if dimension.name.startswith("env."):
                    open_batch(applied.env, 1, settings=applied.env_settings, start=False).close()
            except MlbitsError as error:
                raise SweepError(f"{path}: {dimension.name} = {json.dumps(value)}: {error}") from None
    return dimensions


def with_values(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """Settings with other values.

    Args:
        settings: the settings.
        values: by the names of :class:`Dimension`.

    Raises:
        ConfigError: for an unknown setting, or a value that is refused.
    """
    groups: dict[str, dict[str, Any]] = {"run": {}, "agent": {}, "env": {}}
    for name, value in values.items():
        group, dot, own = name.rpartition(".")
        groups[group if dot else "run"][own] = value
    run = {**dataclasses.asdict(settings.run), **groups["run"]}
    agent = {**dataclasses.asdict(settings.agent_config), **groups["agent"]}
    return dataclasses.replace(
        settings, run=make_config(RunConfig, run, "run"),
        agent_config=make_config(type(settings.agent_config), agent, "agent"),
        env_settings={**settings.env_settings, **groups["env"]},
    )  # fmt: skip


def _flat(path: Path, data: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The entries by dotted names; TOML reads ``agent.epochs = ...`` as a table in a table."""
    found = []
    for key, value in data.items():
        name = key.replace("-", "_")
        if not isinstance(value, dict):
            wanted = "{ low = NUMBER, high = NUMBER } or { choices = [...] }"
            raise SweepError(f"{path}: {name}: got {value!r:.60}; wanted {wanted}")
        if name in ("agent", "env") and not value.keys() & set(_KEYS):
            found += [(f"{name}.{inner}", rest) for inner, rest in _flat(path, value)]
        else:
            found.append((name, value))
    return found


def _dimension(path: Path, name: str, found: Mapping[str, Any], settings: Settings) -> Dimension:
    """A setting to try, from its entry.

    Raises:
        SweepError: naming the setting and what is wrong.
    """
    group, _, own = name.rpartition(".")
    kind: Any = type(settings.agent_config) if group == "agent" else RunConfig
    try:
        if group not in ("", "agent", "env"):
            raise SweepError("unknown group; wanted agent.NAME, env.NAME, or a setting of the run by its name")
        if not group and own in _NEVER:
            raise SweepError(f"{_NEVER[own]}; wanted another setting")
        if group != "env":
            (own,) = canonical({own: None}, kind)
            if own not in kind.__dataclass_fields__:
                make_config(kind, {own: None}, "agent" if group else "run")  # raises, with the nearest name
        name = f"{group}.{own}" if group else own
        unknown = [key for key in found if key not in _KEYS]
        if unknown:
            raise SweepError(f"unknown key {unknown[0]!r}; wanted any of {', '.join(_KEYS)}")
        if "choices" in found:
            choices = found["choices"]
            if len(found) > 1 or not isinstance(choices, list) or not choices:
                raise SweepError(f"got {dict(found)!r:.80}; wanted choices = [...] alone, with one or more")
            return Dimension(name, "choices", choices=tuple(choices))
        numbers = [found[key] for key in ("low", "high", "step") if key in found]
        if {"low", "high"} - found.keys() or any(type(number) not in (int, float) for number in numbers):
            raise SweepError(f"got {dict(found)!r:.80}; wanted numbers low and high, or choices")
        whole = all(isinstance(number, int) for number in numbers)
        alone = takes_whole_numbers(settings.env, own) if group == "env" else _is_whole(kind, own)
        if alone and not whole:
            raise SweepError(f"got {dict(found)!r:.80}; wanted whole numbers")
        whole = whole and alone is not False
        low, high, log, step = found["low"], found["high"], found.get("log", False), found.get("step")
        if not low < high:
            raise SweepError(f"got low {low}, high {high}; wanted low below high")
        if not isinstance(log, bool) or (log and (low <= 0 or step is not None)):
            raise SweepError(f"log: got {log!r}; wanted true with low above 0 and no step, or false")
        if step is not None and step <= 0:
            raise SweepError(f"step: got {step}; wanted a positive number")
    except MlbitsError as error:
        raise SweepError(f"{path}: {error}" if str(error).startswith(name) else f"{path}: {name}: {error}") from None
    return Dimension(name, "int" if whole else "float", low, high, log, step)


def _is_whole(kind: Any, name: str) -> bool:
    """Whether a setting takes whole numbers alone."""
    hint = typing.get_type_hints(kind)[name]
    parts = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    return int in parts and float not in parts
