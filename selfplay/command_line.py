"""Reading flags: tyro does it, and a mistake becomes one line that names what to change."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import os
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import docstring_parser
import tyro

from mlbits.selfplay.config import ConfigError


def read_flags(flags_class: Any, prog: str, words: Sequence[str], description: str | None = None) -> Any:
    """An instance of a dataclass from the words of a command line.

    Args:
        flags_class: a dataclass whose fields are the flags.
        prog: the command, for help texts.
        words: what came after the command.
        description: what the command does; the dataclass's docstring without it.

    Raises:
        ConfigError: for a wrong flag or value; one line that names it, and the nearest flag.
        SystemExit: after --help.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(flags_class, prog=prog, args=list(words), description=description)
    except SystemExit as stop:
        if not stop.code:
            raise
    with _wide(), contextlib.redirect_stderr(io.StringIO()) as said, contextlib.suppress(SystemExit):
        tyro.cli(flags_class, prog=prog, args=list(words), description=description)
    raise ConfigError(f"{_one_line(said.getvalue())}; see {prog} --help")


def signature_fields(
    function: Callable[..., Any], *, defaults: Mapping[str, Any] | None = None, without: Sequence[str] = ()
) -> list[tuple[str, Any, Any]]:
    """A function's parameters as fields for ``dataclasses.make_dataclass``, with their help from its docstring.

    Args:
        function: with a default for each parameter.
        defaults: values that go over the signature's.
        without: parameters to leave out.
    """
    parsed = docstring_parser.parse(function.__doc__ or "")
    help_of = {parameter.arg_name: parameter.description or "" for parameter in parsed.params}
    hints, fields = typing.get_type_hints(function), []
    for name, parameter in inspect.signature(function).parameters.items():
        if name not in without:
            default = dict(defaults or {}).get(name, parameter.default)
            note = tyro.conf.arg(help=help_of.get(name, ""))
            fields.append((name, Annotated[hints[name], note], dataclasses.field(default=default)))
    return fields


@contextlib.contextmanager
def _wide() -> Iterator[None]:
    """Let tyro write each message in one line, in place of folding it at the terminal's width."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "10000"
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        if before is not None:
            os.environ["COLUMNS"] = before


def _one_line(box: str) -> str:
    """What a framed message of tyro's says, without its frame, its help and the way to more help.

    A message is a title line and sections, ruled off from each other: what is wrong, then hints.
    """
    box = re.sub(r"\x1b\[[0-9;]*m", "", box)  # colours
    sections: list[list[str]] = [[]]
    for line in (line.strip(" │╭╮╰╯") for line in box.splitlines()[1:]):
        if line.strip("─-"):
            sections[-1].append(line)
        else:
            sections.append([])
    sections = [section for section in sections if section and not section[0].startswith("For full helptext")]
    if not sections:
        return " ".join(box.split())
    message, hint = " ".join(sections[0]), ""
    for section in sections[1:]:
        flag = next((word for line in section[1:] for word in line.split() if word.startswith("--")), "")
        if flag and not hint and section[0].startswith(("Perhaps you meant", "Arguments similar to")):
            hint = f"did you mean {flag}?"
        elif flag and section[0].startswith("Argument helptext"):
            hint = f"wanted {section[1]}"
    message = re.sub(r"^Error parsing run: ", "", message)
    message = re.sub(r"^Error parsing (agent|env): ", r"\1.", message)
    message = re.sub(r"^Error parsing ", "", message).rstrip(".")
    return f"{message}; {hint}" if hint else message
