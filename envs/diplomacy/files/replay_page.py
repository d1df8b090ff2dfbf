"""Replays of games: a self-contained HTML page to step through, or an animated GIF.

frames = [Frame(position, orders, fates), ...]
Path("game.html").write_text(html_page(frames))
gif(frames, Path("game.gif"))
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from mlbits.envs.core.errors import GameError
from mlbits.envs.diplomacy.codes import WAIVE
from mlbits.envs.diplomacy.drawing.board_image import draw_position, province_colours
from mlbits.envs.diplomacy.drawing.board_marks import title
from mlbits.envs.diplomacy.drawing.board_svg import ground_svg, marks_svg, names_svg, opening_svg, svg
from mlbits.envs.diplomacy.drawing.palette import hexadecimal
from mlbits.envs.diplomacy.drawing.position_text import board_text, order_power
from mlbits.envs.diplomacy.files.saved_games import GameRecord
from mlbits.envs.diplomacy.order_parser import parse_order
from mlbits.envs.diplomacy.orders import Order
from mlbits.envs.diplomacy.position import Position

_STYLE = """
body { margin: 0; font: 14px sans-serif; background: #faf9f5; color: #282c34; }
main { display: flex; flex-wrap: wrap; gap: 12px; padding: 8px; }
#board { flex: 3 1 640px; max-width: 1400px; }
#board svg { width: 100%; height: auto; display: block; border: 1px solid #b8b4a8; }
#side { flex: 1 1 260px; }
nav { display: flex; gap: 6px; align-items: center; padding: 8px 8px 0; }
nav button { font: inherit; min-width: 40px; }
nav input { flex: 1; }
#text { white-space: pre-wrap; font: 12px monospace; margin: 0; }
"""
_SCRIPT = """
const frames = JSON.parse(document.getElementById("frames").textContent);
const one = id => document.getElementById(id);
let now = 0, timer = null;
function show(to) {
  now = Math.max(0, Math.min(frames.length - 1, to));
  const frame = frames[now];
  frame.colours.forEach((colour, i) => {
    for (const area of document.getElementsByClassName("p" + i)) area.setAttribute("fill", colour);
  });
  one("marks").innerHTML = frame.marks;
  one("text").textContent = frame.text;
  one("place").value = now;
  one("count").textContent = frame.title + " (" + (now + 1) + " of " + frames.length + ")";
  if (now === frames.length - 1) stop();
}
function stop() { clearInterval(timer); timer = null; one("play").textContent = "play"; }
function play() {
  if (timer) { stop(); return; }
  if (now === frames.length - 1) show(0);
  one("play").textContent = "stop";
  timer = setInterval(() => show(now + 1), 1200);
}
one("first").onclick = () => show(0);
one("back").onclick = () => show(now - 1);
one("play").onclick = play;
one("next").onclick = () => show(now + 1);
one("last").onclick = () => show(frames.length - 1);
one("place").oninput = event => show(Number(event.target.value));
document.addEventListener("keydown", event => {
  if (event.target.id === "place" || event.ctrlKey || event.metaKey || event.altKey) return;
  const to = { ArrowRight: now + 1, ArrowLeft: now - 1, Home: 0, End: frames.length - 1 }[event.key];
  if (to !== undefined) { show(to); event.preventDefault(); }
  if (event.key === "p") play();
});
show(0);
"""
# Nothing is loaded, no script runs but the one above, and what a game says stays text, even if an escape were missing.
_POLICY = (
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
    f"script-src 'sha256-{b64encode(sha256(_SCRIPT.encode()).digest()).decode()}'; base-uri 'none'; "
    "form-action 'none'\">"
)


class Frame(NamedTuple):
    """A position with the orders given in it.

    Attributes:
        position: the position of a phase.
        orders: orders by the province of the unit.
        fates: fates of those orders, bits of :mod:`mlbits.envs.diplomacy.codes`.
    """

    position: Position
    orders: Mapping[int, Order]
    fates: Mapping[int, int]


def frames_of(game: GameRecord) -> list[Frame]:
    """The phases of a recorded game; orders that cannot be read, or to units of another power, are not drawn."""
    frames = []
    for phase in game.phases:
        position, orders = phase.position, dict[int, Order]()
        for power, texts in phase.orders.items():
            for text in texts:
                with suppress(GameError):
                    order = parse_order(text, game.board, position)
                    province = int(game.board.province_of[order.location])
                    if order.kind != WAIVE and order_power(position, province, order) == game.board.powers.index(power):
                        orders[province] = order
        frames.append(Frame(position, orders, phase.fates or {}))
    return frames


def draw_game(game: GameRecord, out: Path, phase: str = "", size: int = 1000, seconds: float = 1.5) -> None:
    """Draw a recorded game.

    Args:
        game: the recorded game.
        out: output file: ``.html`` and ``.gif`` show the whole game, ``.png`` and ``.svg`` one phase.
        phase: the phase to draw, such as "F1903M"; "" means the last one.
        size: width in pixels, for PNG and GIF.
        seconds: duration of each frame of a GIF.

    Raises:
        GameError: for an unknown file type, a phase that the game does not have, or a size or time out of range.
    """
    frames, kind = frames_of(game), out.suffix.lower()
    if kind not in (".html", ".gif", ".png", ".svg"):
        raise GameError(f"out: got {str(out)!r}; wanted a name that ends in .html, .gif, .png or .svg")
    if phase:
        frames = [frame for frame in frames if frame.position.phase_name == phase]
        if not frames:
            names = f"{game.phases[0].position.phase_name} to {game.phases[-1].position.phase_name}"
            raise GameError(f"phase: got {phase!r}; wanted one of the game's phases, {names}")
    if kind == ".html":
        out.write_text(html_page(frames, game.id), encoding="utf-8")
    elif kind == ".gif":
        gif(frames, out, size, seconds)
    elif kind == ".svg":
        out.write_text(svg(*frames[-1]), encoding="utf-8")
    else:
        Image.fromarray(draw_position(*frames[-1], size=size)).save(out)


def html_page(frames: Sequence[Frame], heading: str = "Diplomacy") -> str:
    """A page to step through a game by buttons, a slider, the arrow keys, Home, End and P (play).

    Args:
        frames: one or more frames of one board.
        heading: title of the page.

    Raises:
        GameError: for no frames, or frames of several boards.
    """
    board = _check(frames).position.board
    first = frames[0].position
    rows = [
        {
            "title": title(frame.position),
            "colours": [hexadecimal(colour) for colour in province_colours(frame.position)],
            "marks": marks_svg(*frame),
            "text": board_text(*frame),
        }
        for frame in frames
    ]
    # "<" is escaped, so that no content can end the script element.
    content = json.dumps(rows, separators=(",", ":")).replace("<", "\\u003c")
    picture = (
        opening_svg(board, heading) + ground_svg(board, province_colours(first))
        + f'<g id="marks">{marks_svg(*frames[0])}</g>' + names_svg(board) + "</svg>"
    )  # fmt: skip
    buttons = "".join(
        f'<button id="{name}" type="button" title="{key}">{label}</button>'
        for name, label, key in (
            ("first", "first", "Home"), ("back", "back", "left arrow"), ("play", "play", "P"),
            ("next", "next", "right arrow"), ("last", "last", "End"),
        )
    )  # fmt: skip
    slider = f'<input id="place" type="range" min="0" max="{len(frames) - 1}" value="0" aria-label="phase">'
    side = f'<div id="side"><pre id="text">{escape(board_text(*frames[0]))}</pre></div>'
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">{_POLICY}<title>{escape(heading)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>\n'
        f'<nav>{buttons}{slider}<span id="count"></span></nav>\n'
        f'<main><div id="board">{picture}</div>{side}</main>\n'
        f'<script type="application/json" id="frames">{content}</script>\n<script>{_SCRIPT}</script>\n'
        "</body></html>\n"
    )


def gif(frames: Sequence[Frame], path: Path, size: int = 800, seconds: float = 1.5) -> None:
    """Write an animation that repeats; consecutive equal images are merged into one that is shown longer.

    Args:
        frames: one or more frames of one board.
        path: the output file.
        size: width in pixels.
        seconds: duration of each frame.

    Raises:
        GameError: for no frames, frames of several boards, or a wrong size or time.
    """
    _check(frames)
    if not 0.02 <= seconds <= 60:
        raise GameError(f"seconds: got {seconds!r}; wanted 0.02 to 60")
    pictures = [
        Image.fromarray(draw_position(*frame, size=size)).quantize(128, dither=Image.Dither.NONE) for frame in frames
    ]
    pictures[0].save(
        path, "GIF", save_all=True, append_images=pictures[1:], duration=round(1000 * seconds), loop=0, optimize=False
    )


def _check(frames: Sequence[Frame]) -> Frame:
    if not frames:
        raise GameError("frames: got none; wanted one or more")
    if any(frame.position.board is not frames[0].position.board for frame in frames):
        raise GameError("frames: got positions of several boards; wanted one board")
    return frames[0]
