"""Parsing of command-line flags by tyro, with each error as one line that names what to change.

Whole numbers may be written as 100000, 100_000, 1e5 or 100k. Help is plain text: docstring markup is removed, and there
are no colours if ``NO_COLOR`` is set or the output is not a terminal.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import inspect
import io
import os
import re
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

import docstring_parser
import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from mlbits.envs.core.config_fields import help_text, setting_of
from mlbits.selfplay.runs.config import ConfigError
from mlbits.selfplay.runs.synonyms import ACCEPTED, synonyms

_UNITS = {"k": 3, "K": 3, "M": 6, "G": 9}
_MOST_DIGITS = 30  # beyond any setting's range; stops 1e999999999 from filling the memory
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")

_KINDS = {"INT": "a whole number, as in 100000, 100_000, 1e5 or 100k", "FLOAT": "a number"}
_SEVERAL = {"INT": "whole numbers, as in 64 64", "FLOAT": "numbers, as in 0.5 1"}
# tyro's messages rewritten in our form: the flag, the value got, what was wanted.
_FORMS: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"^Missing value for argument '(.+?)'\. Expected 1 values", r"\1: the value is missing; wanted one"),
    (r"^Missing value for argument '(.+?)'\. Expected (\d+) values", r"\1: values are missing; wanted \2"),
    (r"^invalid choice (.+) for argument '(.+?)'\. Expected one of \((.*?),?\)", r"\2: got \1; wanted one of \3"),
    (r"could not convert string to float: (.*); wanted FLOAT", rf"got \1; wanted {_KINDS['FLOAT']}"),
    (r"Could not find valid parse for arguments: \[(.*?)\](?=;|$)", r"got \1"),
    (  # of a tuple
        r"wanted \[(\w+) \[\w+ \.\.\.\]\]",
        lambda found: f"wanted one or more {_SEVERAL.get(found[1], 'values, as in A B')}",
    ),
    (  # for an optional setting, tyro lists the types it tried
        r"no type matching \{None\}\|(\w+) could be instantiated from \['(.*)'\]; wanted .*",
        lambda found: f"got '{found[2]}'; wanted {_KINDS.get(found[1], found[1])}, or None",
    ),
)

_names: dict[str, str] = {}  # flags of the latest command by the Python names of its settings


def read_flags(flags_class: Any, prog: str, words: Sequence[str], description: str | None = None) -> Any:
    """An instance of a dataclass from the words of a command line.

    Args:
        flags_class: a dataclass whose fields are the flags.
        prog: the command, for help texts.
        words: the words after the command.
        description: what the command does; None takes the dataclass's docstring.

    Raises:
        ConfigError: for a wrong flag or value; one line that names it, and the nearest flag.
        SystemExit: after --help.
    """
    _names.clear()
    _names.update(flag_names(flags_class))
    words = _understood(words)
    description = plain(description if description is not None else _summary(flags_class))
    common: dict[str, Any] = {"prog": prog, "args": list(words), "description": description}
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), _uncoloured(), _registry:
            return tyro.cli(flags_class, **common)
    except SystemExit as stop:
        if not stop.code:
            raise
    with _unwrapped(), contextlib.redirect_stderr(io.StringIO()) as said, contextlib.suppress(SystemExit), _registry:
        tyro.cli(flags_class, **common)
    message = _one_line(said.getvalue(), words)
    see = f" See {prog} --help" if message.endswith("?") else f"; see {prog} --help"
    raise ConfigError(message + see)


def automatic_workers(words: list[str]) -> list[str]:
    """The words with ``--workers auto`` as ``--workers 0``."""
    words = ["--workers=0" if word == "--workers=auto" else word for word in words]
    after = zip(["", *words], words, strict=False)
    return ["0" if (before, word) == ("--workers", "auto") else word for before, word in after]


def signature_fields(
    function: Callable[..., Any], *, defaults: Mapping[str, Any] | None = None, without: Sequence[str] = ()
) -> list[tuple[str, Any, Any]]:
    """A function's parameters as fields for ``dataclasses.make_dataclass``, with their help from its docstring.

    Args:
        function: a function with a default for each parameter.
        defaults: values that replace the signature's.
        without: parameters to leave out.
    """
    parsed = docstring_parser.parse(function.__doc__ or "")
    help_of = {parameter.arg_name: parameter.description or "" for parameter in parsed.params}
    hints, fields = typing.get_type_hints(function), []
    for name, parameter in inspect.signature(function).parameters.items():
        if name not in without:
            default = dict(defaults or {}).get(name, parameter.default)
            note = tyro.conf.arg(help=plain(help_of.get(name, "")))
            fields.append((name, Annotated[hints[name], note], dataclasses.field(default=default)))
    return fields


def whole_number(text: str) -> int:
    """An integer as people write large ones: 100000, 100_000, 1e5 or 100k (k, M, G).

    Raises:
        ValueError: if it is not an integer, as 1.5 or 1e-3.
    """
    digits, unit = (text[:-1], _UNITS[text[-1]]) if text[-1:] in _UNITS else (text, 0)
    try:
        number = Decimal(digits)
        if number.is_finite() and number.adjusted() + unit <= _MOST_DIGITS:
            number = number.scaleb(unit)
            if number == number.to_integral_value():
                return int(number)
    except InvalidOperation:
        pass
    raise ValueError(f"got {text!r}; wanted a whole number, as in 100000, 100_000, 1e5 or 100k")


def plain(text: str) -> str:
    """A docstring's text without Sphinx's markup: roles become the last part of their names, backquotes are removed."""
    text = re.sub(r":[a-z:]+:`(?:[^`<]*<)?~?([^`>]+)>?`", lambda match: match[1].rpartition(".")[2], text)
    return re.sub(r"`+([^`]*)`+_?", r"\1", text)


def flag_names(flags_class: Any) -> dict[str, str]:
    """The flags of a dataclass, by the dotted names of its fields: "agent.num_steps" is "--agent.num-steps"."""
    found: dict[str, str] = {}

    def walk(part: Any, prefix: tuple[str, ...], group: tuple[str, ...]) -> None:
        hints = typing.get_type_hints(part, include_extras=True)
        for field in dataclasses.fields(part):
            hint, notes = hints[field.name], list[Any]()
            while typing.get_origin(hint) is Annotated:
                notes += hint.__metadata__
                hint = hint.__origin__
            if tyro.conf.Positional in notes:
                continue
            said = next((name for note in notes if (name := getattr(note, "name", None))), field.name)
            if dataclasses.is_dataclass(hint):
                bare = tyro.conf.OmitArgPrefixes in notes
                inside = group if bare else (*group, said)
                if not bare:
                    found[".".join((*prefix, field.name))] = "--" + ".".join((*group, said, "NAME")).replace("_", "-")
                walk(hint, prefix if bare else (*prefix, field.name), inside)
            else:
                found[".".join((*prefix, field.name))] = "--" + ".".join((*group, said)).replace("_", "-")

    walk(flags_class, (), ())
    return found


def forget_flags(*known: str) -> None:
    """Reset the known flags at the start of a command, to none or to those given."""
    _names.clear()
    _names.update({name: "--" + name.replace("_", "-") for name in known})


def in_flags(message: str) -> str:
    """A message with the Python names of settings replaced by the flags of the latest command.

    Before the first colon every known name is replaced, as settings that the message is about; after it only names that
    cannot be plain words, those with an underscore or a dot.
    """
    subject, colon, rest = message.partition(": ")
    words = re.split(r"(, | and | or )", subject)
    if colon and all(k % 2 or _flag(word) for k, word in enumerate(words)):
        subject = "".join(word if k % 2 else _flag(word) for k, word in enumerate(words))
    else:
        subject, colon, rest = "", "", message
    name = r"(?<![\w./'\"=-])[a-z]\w*(?:[._]\w+)+(?![\w/'\"=(-]|\.\w)"

    def flag(match: re.Match[str]) -> str:
        found = _flag(match[0])
        return match[0] if found.endswith(".NAME") else found or match[0]  # a whole part is no flag

    return subject + colon + re.sub(name, flag, rest)


def _flag(name: str) -> str:
    """The flag of a setting, or ""; a name without its part is found if only one part has such a setting."""
    if name in _names:
        return _names[name]
    ends = [flag for known, flag in _names.items() if known.rpartition(".")[2] == name]
    return ends[0] if len(ends) == 1 else ""


_registry = ConstructorRegistry()


@_registry.primitive_rule
def _whole_number_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[int] | None:
    if info.type is not int:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=lambda words: whole_number(words[0]),
        is_instance=lambda value: isinstance(value, int) and not isinstance(value, bool),
        str_from_instance=lambda value: [str(value)],
    )


@_registry.struct_rule
def _dataclass_rule(info: StructTypeInfo) -> StructConstructorSpec | None:
    """A dataclass's fields as tyro reads them, with the help of a setting, or else of the docstring in plain text."""
    kind: Any = info.type
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        return None
    hints, given, fields = typing.get_type_hints(kind, include_extras=True), info.default, []
    help_of = _help(kind)
    for field in dataclasses.fields(kind):
        default: Any = tyro.MISSING
        if isinstance(given, kind):
            default = getattr(given, field.name)
        elif field.default is not dataclasses.MISSING:
            default = field.default
        elif field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        fields.append(StructFieldSpec(field.name, hints[field.name], default, help_of.get(field.name, "")))
    return StructConstructorSpec(kind, tuple(fields))


@functools.lru_cache(64)
def _help(kind: Any) -> dict[str, str]:
    """The help of each field: of its setting, or from the docstrings of a dataclass and of its bases."""
    found: dict[str, str] = {}
    for part in reversed(kind.__mro__):
        parsed = docstring_parser.parse(part.__doc__ or "")
        found |= {param.arg_name: plain(" ".join((param.description or "").split())) for param in parsed.params}
    return found | {field.name: help_text(field, kind) for field in dataclasses.fields(kind) if setting_of(field)}


def _summary(kind: Any) -> str:
    parsed = docstring_parser.parse(kind.__doc__ or "")
    return "\n\n".join(part for part in (parsed.short_description, parsed.long_description) if part)


def coloured(stream: Any) -> bool:
    """Whether to print colours on a stream: it is a terminal with colours, and NO_COLOR is not set (no-color.org)."""
    return not os.environ.get("NO_COLOR") and stream.isatty() and os.environ.get("TERM") != "dumb"


class _Shown(io.StringIO):
    """Captured output with the terminal's encoding."""

    encoding = property(lambda _: getattr(sys.__stdout__, "encoding", None) or "ascii")


@contextlib.contextmanager
def _uncoloured() -> Iterator[None]:
    """Remove colours from what is printed, unless they are wanted or FORCE_COLOR asks for them."""
    forced = bool(os.environ.get("FORCE_COLOR")) and not os.environ.get("NO_COLOR")
    if forced or coloured(sys.stdout):
        yield
        return
    shown = _Shown()
    try:
        with contextlib.redirect_stdout(shown):
            yield
    finally:
        sys.stdout.write(_ANSI.sub("", shown.getvalue()))


@contextlib.contextmanager
def _unwrapped() -> Iterator[None]:
    """Let tyro write each message in one line instead of wrapping it at the terminal's width."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "10000"
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        if before is not None:
            os.environ["COLUMNS"] = before


def _one_line(box: str, words: Sequence[str]) -> str:
    """The text of a framed message of tyro's, without its frame, help text and pointer to more help.

    A message is a title line and sections separated by rules: what is wrong, then hints.
    """
    box = _ANSI.sub("", box)
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
        # A switch is listed with its opposite: "--video, --no-video".
        flags = next((found for line in section[1:] if (found := re.findall(r"(?<!\S)--[^\s,]+", line))), [])
        if flags and not hint and section[0].startswith(("Perhaps you meant", "Arguments similar to")):
            hint = f"did you mean {_nearest(flags, words)}?"
        elif flags and section[0].startswith("Argument helptext") and "; wanted " not in message:
            hint = f"wanted {section[1].partition(' ')[2]}"  # "--seed INT"
    if sections[0][0].startswith("Missing from "):  # a positional argument, and its help, ending in "(required)"
        name, about = sections[0][1], " ".join(sections[0][2:]).rpartition("(required)")[0]
        return f"{name} missing; wanted {about.strip().rstrip('.')}"
    if message.startswith("Unrecognized options: "):
        unknown = message.partition(": ")[2].split(", ")
        message, meant = _unrecognised(unknown, words), _meant(unknown)
        hint = f"did you mean {meant}?" if meant else hint
    message = re.sub(r"^Error parsing (run|sweep|(?:sweep\.)?(?:how|where)|[A-Z]\w*): ", "", message)
    message = re.sub(r"^Error parsing (agent|env): ", r"\1.", message)
    message = re.sub(r"^Error parsing ", "", message).rstrip(".")
    message = f"{message}; {hint}" if hint else message
    for pattern, said in _FORMS:
        message = re.sub(pattern, said, message)
    return message


def _unrecognised(unknown: Sequence[str], words: Sequence[str]) -> str:
    """The message for words that no flag takes: unknown flags and the words after them, or one word too many."""
    flags = [word.partition("=")[0] for word in unknown if re.match(r"--?[A-Za-z]", word)]
    if flags:
        return f"unknown flag{'s' if len(flags) > 1 else ''} {', '.join(flags)}"
    extra = unknown[0]
    before = words[words.index(extra) - 1] if extra in words[1:] else ""
    if not before.startswith("--") or "=" in before:
        return f"got {extra!r}, one word too many"
    part, name = re.fullmatch(r"(--(?:\w+\.)?)(?:no-)?(.*)", before).groups()  # type: ignore[union-attr]
    return f"{before}: got {extra!r}; wanted no value, but {part}{name} or {part}no-{name}"


def _understood(words: Sequence[str]) -> list[str]:
    """The words with our names in place of others that are understood: --agent.gamma is --agent.discount."""
    known, found = set(_names.values()), []
    for word in words:
        flag, equals, value = word.partition("=")
        name = re.split(r"\.|--", flag)[-1]
        ours = flag[: len(flag) - len(name)] + ACCEPTED.get(name, name)
        swap = flag.startswith("--") and flag not in known and ours in known
        found.append(ours + equals + value if swap else word)
    return found


def _meant(unknown: Sequence[str]) -> str:
    """Flags whose settings have the names of unknown flags, or go by them elsewhere; "" for none.

    Of one unknown flag all of them, of several the first of each.
    """
    found = []
    for word in unknown:
        if match := re.match(r"--([\w-]+\.)?(?:no-)?([\w-]+)", word):
            name = match[2].replace("-", "_")
            ours = [name, *synonyms(name)]
            flags = [
                (ours.index(last), not flag.startswith(f"--{match[1]}"), flag)
                for known, flag in _names.items()
                if (last := known.rpartition(".")[2]) in ours and not known.startswith("env_settings")
            ]
            if flags:
                found.append([flag for _, _, flag in sorted(flags)])
    if len(found) == 1:
        return " or ".join(found[0])
    return " and ".join(flags[0] for flags in found)


def _nearest(flags: Sequence[str], words: Sequence[str]) -> str:
    """The known flag that is most similar to one of those given."""
    given = [word.partition("=")[0] for word in words if word.startswith("--")]
    return max(flags, key=lambda flag: max(difflib.SequenceMatcher(None, flag, word).ratio() for word in given))
