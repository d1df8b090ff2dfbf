"""``mlbits reproduce NAME``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import tyro

from mlbits.cli.printing import check_file, write_json
from mlbits.envs.core.config_fields import REQUIRED, configuration, setting
from mlbits.selfplay.runs.command_line import read_flags, signature_fields
from mlbits.selfplay.runs.config import ConfigError


@configuration(ConfigError)
class ReproduceFlags:
    """Repeat a result and compare it with its target. "mlbits reproduce NAME --help" shows what else that one takes."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")] = setting(
        REQUIRED, "name of the result (mlbits list evals)"
    )
    quick: bool = setting(False, "run a short form with fewer seeds")
    json: Path | None = setting(None, "write the result to this file")


def reproduce_flags(words: list[str]) -> Any:
    """The flags of a reproduction: the common ones and the other parameters of its function.

    Raises:
        UnknownIdError: for an unknown reproduction.
    """
    from mlbits.evals.registry import EVALS, eval_entry

    first = words[0] if words and not words[0].startswith("-") else None
    name = first or next((word for word in words if word in EVALS), None)
    if name is None:
        return ReproduceFlags
    fields = signature_fields(eval_entry(name).load(), without=["quick"])
    flags = dataclasses.make_dataclass("Flags", fields, bases=(ReproduceFlags,), frozen=True, kw_only=True)
    flags.__doc__ = ReproduceFlags.__doc__
    return flags


def parse(words: list[str]) -> Any:
    """The flags."""
    prog = " ".join(["mlbits reproduce", *(word for word in words[:1] if not word.startswith("-"))])
    return read_flags(reproduce_flags(words), prog, words)


def command(words: list[str]) -> int:
    """Repeat a result; exit status 1 if it misses its target."""
    flags = parse(words)
    check_file("json", flags.json)
    from mlbits.evals.registry import eval_entry
    from mlbits.selfplay.curves.progress import compilation_messages

    common = {field.name for field in dataclasses.fields(ReproduceFlags)} - {"quick"}
    settings = {field.name: getattr(flags, field.name) for field in dataclasses.fields(flags)}
    with compilation_messages():
        result = eval_entry(flags.name).load()(**{name: settings[name] for name in settings.keys() - common})
    write_json(flags.json, result)
    print("target met" if result["met"] else "target missed")
    return 0 if result["met"] else 1
