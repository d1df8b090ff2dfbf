"""A replay as one page of HTML, which loads nothing, runs no script but its own, and shows every name as text."""

from __future__ import annotations

import json
from base64 import b64encode
from functools import cache
from hashlib import sha256
from html import escape
from pathlib import Path

from mlbits.envs.core.plain_json import read_json
from mlbits.evals.replays.replay import Replay, ReplayError, from_json

_OPEN, _CLOSE = '<script type="application/json" id="replay">', "</script>"


def write_page(replay: Replay, path: Path) -> Path:
    """Write a replay to a file.

    Raises:
        ReplayError: if it cannot be written.
    """
    check_page_file(path)
    try:
        path.write_text(page(replay), encoding="utf-8")
    except OSError as error:
        raise ReplayError(f"replay: {path} cannot be written ({error.strerror}); wanted a writable file") from None
    return path


def check_page_file(path: Path | None, argument: str = "replay") -> None:
    """Refuse a file that cannot become a page, before playing.

    Raises:
        ReplayError: for another kind of file, or a folder that does not exist.
    """
    if path is None:
        return
    if path.suffix.lower() not in (".html", ".htm"):
        raise ReplayError(f"{argument}: got {path}; wanted a file name that ends in .html")
    if path.is_dir() or not path.parent.is_dir():
        why = "it is a folder" if path.is_dir() else "its folder does not exist"
        raise ReplayError(f"{argument}: {path} cannot be written ({why}); wanted a writable file")


def page(replay: Replay) -> str:
    """The page: buttons, a slider, the arrow keys, Home, End and P (play); ``#12`` after its address is step 12."""
    style, script = _file("replay.css"), _file("replay.js")
    # "<" is escaped, so that no content can end the script element.
    content = json.dumps(replay.to_json(), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    settings = ", ".join(f"{name} {json.dumps(value)[:80]}" for name, value in replay.settings.items())
    facts = f"seed {replay.seed}{', ' if settings else ''}{settings}; {replay.made_by}"
    seats = ", ".join(f"seat {seat}: {name}" for seat, name in enumerate(replay.names))
    buttons = "".join(
        f'<button id="{name}" type="button" title="{key}">{name}</button>'
        for name, key in (
            ("first", "Home"), ("back", "left arrow"), ("play", "P"), ("next", "right arrow"), ("last", "End"),
        )
    )  # fmt: skip
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">{_policy(style, script)}'
        f'<title>{escape(replay.env)}: replay</title><meta name="viewport" content="width=device-width">'
        f'<link rel="icon" href="data:,"><style>{style}</style></head><body>\n'
        f'<header><h1>{escape(replay.env)}</h1><p>{escape(seats)}</p><p id="facts">{escape(facts)}</p></header>\n'
        f'<nav aria-label="steps">{buttons}<input id="place" type="range" min="0" max="{len(replay.steps)}" value="0" '
        'aria-label="step"><span id="count" role="status"></span></nav>\n'
        '<main><figure><img id="picture" alt=""></figure><div id="side"><p id="earned"></p>'
        '<section id="said" aria-label="this step"></section><h2>moves</h2>'
        '<ol id="moves" start="0"></ol></div></main>\n'
        f"{_OPEN}{content}{_CLOSE}\n<script>{script}</script>\n</body></html>\n"
    )


def read_page(text: str) -> Replay:
    """The replay in a page.

    Raises:
        ReplayError: if there is none, or a damaged one.
    """
    try:
        return from_json(read_json(_content(text)))
    except ReplayError:
        raise
    except ValueError as error:
        raise ReplayError(f"damaged: {str(error)[:200]}") from None


def _content(text: str) -> str:
    """The data in a page, as it is written."""
    before, found, rest = text.partition(_OPEN)
    content, ended, _ = rest.partition(_CLOSE)
    if not (before and found and ended):
        raise ReplayError("it holds no replay of mlbits; wanted a page that mlbits replay wrote")
    return content


@cache
def _file(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """Nothing is loaded, and no style or script counts but those of the page, even if an escape were missing."""
    hashes = [b64encode(sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        f"style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; base-uri 'none'; form-action 'none'\">"
    )
