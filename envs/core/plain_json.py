"""JSON from files that may be a stranger's: limits on size, depth and digits, so that a reader fails in one line.

``json.loads`` alone raises RecursionError for deep nesting (and what it reads just below that limit cannot be
compared or written any more), and reads whole numbers of thousands of digits, with which arithmetic raises
OverflowError. Here both raise PlainJsonError, a ValueError, as text that is not JSON does.

Example:
    >>> read_json('{"step": 3}')
    {'step': 3}
    >>> read_json("[" * 200 + "]" * 200)
    Traceback (most recent call last):
        ...
    mlbits.envs.core.plain_json.PlainJsonError: nested more than 100 deep; wanted plain JSON
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

MOST_BYTES = 64 * 2**20
MOST_DEPTH = 100
MOST_DIGITS = 40  # NumPy's generators have states of 128 bits, 39 digits

_LONG = re.compile(r"[0-9]{41}")
_DECODER = json.JSONDecoder()


class PlainJsonError(ValueError):
    """JSON beyond the limits."""


def read_json(text: str | bytes) -> Any:
    """Parse JSON within the limits.

    Raises:
        ValueError: for text that is not JSON or not UTF-8, and for JSON beyond the limits.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")
    value, end = read_json_at(text, len(text) - len(text.lstrip(" \t\r\n")))
    if text[end:].strip(" \t\r\n"):
        raise json.JSONDecodeError("Extra data", text, end)
    return value


def read_json_at(text: str, start: int) -> tuple[Any, int]:
    """Parse the JSON value that begins at an index; returns it and the index behind it.

    Raises:
        ValueError: as :func:`read_json`.
    """
    try:
        value, end = _decoder(text).raw_decode(text, start)
    except RecursionError:
        raise PlainJsonError(_deep()) from None
    # A value cannot be deeper than it has brackets, and most have few.
    if text.count("[", start, end) + text.count("{", start, end) > MOST_DEPTH:
        _check_depth(value)
    return value, end


def read_json_file(path: Path) -> Any:
    """Parse a file of JSON.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is larger than MOST_BYTES, and as :func:`read_json`.
    """
    return read_json(read_bytes(path))


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """A file's bytes, if they are not too many.

    Raises:
        OSError: if it cannot be read.
        PlainJsonError: if it is larger; not more than ``most`` bytes are read.
    """
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise PlainJsonError(f"larger than {most:,} bytes; wanted a smaller file")
    return data


def _decoder(text: str) -> json.JSONDecoder:
    """The usual decoder, or a slower one that counts digits where some number or text may have too many."""
    return json.JSONDecoder(parse_int=_whole) if _LONG.search(text) else _DECODER


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise PlainJsonError(f"a number of {len(digits)} digits; wanted at most {MOST_DIGITS}")
    return int(digits)


def _deep() -> str:
    return f"nested more than {MOST_DEPTH} deep; wanted plain JSON"


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MOST_DEPTH + 1):
        parts = [list(one.values()) if isinstance(one, dict) else one for one in level if isinstance(one, (dict, list))]
        level = [one for part in parts for one in part]
        if not level:
            return
    raise PlainJsonError(_deep())
