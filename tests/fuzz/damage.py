"""Changes of inputs: bytes, stretches and words, and of JSON also values, keys and nesting."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

# What readers tend not to expect, in place of any value of JSON.
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3, 255, 2**31, -(2**31), 2**63, -(2**63) - 1, 2**64, 10**39, 10**400, 0.5, -0.5,
    1e308, -1e308, 1e-320, float("inf"), float("-inf"), float("nan"), "", " ", "a", "0", "-1", "1e9", "nan", "none",
    "../../../etc/passwd", "/etc/passwd", "..", ".", "\x00", "\x1b[31mred\x1b[0m", "\u202egpj", "\ud800", "é" * 50,
    "x" * 5000, "[bold]", "%s%n{0}", "os:system", "a:b:c", "\n", [], [[]], [None], [0] * 100, ["a"], {}, {"": 0},
    {"a": {"b": []}},
)  # fmt: skip
WORDS = (
    b"", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80",
    b"\r\n", b"\n", b" ", b"[", b"]", b"{", b"}", b'"', b",",
    b":", b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"-0", b"9" * 400, b"[" * 3000, b'{"a":' * 2000, b"\\u0000",
    b"\\ud800", b"\x1b[2J", b"../", b"/", b"A" * 300, b"(" * 400, b"-", b"1.5",
)  # fmt: skip


def damaged(seeds: list[bytes], draw: random.Random) -> bytes:
    """An input after one to four changes of one of the seeds."""
    data = draw.choice(seeds)
    lines = data.split(b"\n")
    if len(lines) > 2 and draw.random() < 0.7:  # JSON lines: one of them
        at = draw.randrange(len(lines))
        if _json(lines[at]) is not None:
            lines[at] = damaged([lines[at]], draw).rstrip(b"\n")
            return b"\n".join(lines)
    form = _json(data) if draw.random() < 0.7 else None
    if form is not None:
        for _ in range(draw.choice((1, 1, 1, 2, 4))):
            form = _change_value(form, draw)
        if draw.random() < 0.03:
            return _nested(form, draw)
        try:
            return json.dumps(form).encode("utf-8", "surrogatepass") + b"\n"
        except (ValueError, RecursionError):
            return data
    for _ in range(draw.choice((1, 1, 2, 4))):
        data = _change_bytes(data, seeds, draw)
    return data[:200_000]


def _json(data: bytes) -> Any:
    """The value of a JSON text; of JSON lines, the list of lines is damaged as bytes instead."""
    try:
        form = json.loads(data)
    except ValueError:
        return None
    return form if isinstance(form, (dict, list)) else None


def _places(form: Any) -> list[tuple[Any, Any]]:
    """(container, key) of all values."""
    found, left = [], [form]
    while left:
        one = left.pop()
        keys = list(one) if isinstance(one, dict) else range(len(one))
        for key in keys:
            found.append((one, key))
            if isinstance(one[key], (dict, list)):
                left.append(one[key])
    return found


def _change_value(form: Any, draw: random.Random) -> Any:
    form = copy.deepcopy(form)
    places = _places(form) if isinstance(form, (dict, list)) else []
    if not places or draw.random() < 0.02:
        return draw.choice(ODD)
    box, key = draw.choice(places)
    kind = draw.randrange(7)
    if kind < 3:
        box[key] = copy.deepcopy(draw.choice(ODD))
    elif kind == 3:
        del box[key]
    elif kind == 4:
        other, place = draw.choice(places)
        box[key] = copy.deepcopy(other[place]) if _has(other, place) else None
    elif kind == 5 and isinstance(box, dict):
        box[draw.choice(("", "x", "\x1b[1m", *map(str, box)))] = copy.deepcopy(draw.choice(ODD))
    elif isinstance(box, list):
        box.insert(draw.randrange(len(box) + 1), copy.deepcopy(box[key]))
    elif isinstance(box[key], str) and box[key]:
        text = box[key]
        at = draw.randrange(len(text))
        box[key] = text[:at] + draw.choice("a0-/ \x1bé") + text[at + draw.randrange(2) :]
    elif type(box[key]) in (int, float) and abs(box[key]) < 1e300:
        box[key] = draw.choice((-box[key], box[key] + 1, box[key] - 1, 10 * box[key], float(box[key]), str(box[key])))
    return form


def _has(box: Any, key: Any) -> bool:
    return key in box if isinstance(box, dict) else key < len(box)


def _nested(form: Any, draw: random.Random) -> bytes:
    text, depth = json.dumps(form), draw.choice((90, 101, 500, 990, 3000, 100_000))
    if draw.random() < 0.5:
        return ("[" * depth + text + "]" * depth).encode("utf-8", "surrogatepass")
    return ('{"a":' * depth + text + "}" * depth).encode("utf-8", "surrogatepass")


def _change_bytes(data: bytes, seeds: list[bytes], draw: random.Random) -> bytes:
    a, b = sorted((draw.randrange(len(data) + 1), draw.randrange(len(data) + 1)))
    near = min(a + draw.randrange(1, 5), len(data))
    kind = draw.randrange(8)
    if kind == 0:
        return data[:a] + bytes([draw.randrange(256)]) + data[near:]
    if kind == 1:
        return data[:a] + draw.choice(WORDS) + data[a:]
    if kind == 2:
        return data[:a] + draw.choice(WORDS) + data[near:]
    if kind == 3:
        return data[:a] + data[near:]
    if kind == 4:
        return data[:a] + data[b:] if draw.random() < 0.5 else data[:a]
    if kind == 5:
        return data[:b] + data[a:b] + data[b:]
    if kind == 6:
        other = draw.choice(seeds)
        c, d = sorted((draw.randrange(len(other) + 1), draw.randrange(len(other) + 1)))
        return data[:a] + other[c:d] + data[b:]
    if not data:
        return data
    at = min(a, len(data) - 1)
    return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
