"""What a seat's page shows of a match: drawing or observation, text, legal actions by name and place, and hints.

A page gets nothing but this, so that what a seat must not see never leaves the server.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbits.agents.agent import Agent
from mlbits.envs.core.errors import MlbitsError
from mlbits.envs.engine.batch import GameBatch
from mlbits.evals.play.hints import suggested
from mlbits.evals.play.match import Match
from mlbits.evals.replays.decisions import opinion, path_of
from mlbits.evals.replays.recording import MOST_PICTURES, frame_rate, picture, webp_text

REAL_TIME = 10  # frames a second from which on a game of one seat is played in real time
MOST_NUMBERS = 400  # of an observation that is shown as text
_MOST_LINES = 200  # of the log
_COLOURS = re.compile(r"\x1b\[[\d;]*m")  # of a terminal, in which Gymnasium's boards are written
_KEYS = {"left": "ArrowLeft", "right": "ArrowRight", "up": "ArrowUp", "down": "ArrowDown"}


def view(match: Match, seat: int) -> dict[str, Any]:
    """What the page of a seat shows now, as plain data."""
    mine = seat in match.waiting
    hidden = _hides(match) and not match.over
    shapes = {} if hidden or not mine else dict(match.words.shapes(seat))
    shown: dict[str, Any] = {
        "env": match.env,
        "turn": match.turn,
        "step": len(match.replay.steps),
        "seat": seat,
        "names": ["you" if k == seat else name for k, name in enumerate(match.names)],
        "returns": match.returns,
        "over": match.over,
        "result": match.result(seat) if match.over else "",
        "yours": mine,
        "waiting": [match.names[k] for k in match.waiting if k != seat],
        "log": match.log[-_MOST_LINES:],
        "picture": observed(match, seat) if hidden else drawn(match),
        "text": _COLOURS.sub("", position_text(match, seat)),
        "slots": [],
        "shapes": shapes,
        "bounds": None,
        "undo": bool(match.replay.steps),
    }
    if mine and match.batch.action.kind == "continuous":
        layout = match.batch.action
        shown["bounds"] = [
            [float(np.clip(bound, -1e6, 1e6)) for bound in pair] for pair in zip(layout.low, layout.high, strict=True)
        ]
    elif mine:
        shown["slots"] = [
            {
                "heading": slot.heading,
                "choices": [[k, name, list(path_of(name, shapes))] for k, name in slot.names.items()],
            }
            for slot in match.slots(seat)
        ]
    return shown


def drawn(match: Match) -> dict[str, Any] | None:
    """The drawing: its kind and its parts; None for an environment that draws nothing."""
    seen = match.replay.pictures
    # The replay has drawn it already, unless it is too long.
    kept = seen.kind != "none" and len(seen.list) < MOST_PICTURES
    kind, parts = seen.kind, seen.of(match.replay.frames[-1]) if kept else picture(match.batch, seen.kind)
    return None if parts is None else {"kind": kind, "parts": list(parts)}


def observed(match: Match, seat: int) -> dict[str, Any] | None:
    """A seat's observation as a picture, if it has the form of one."""
    obs: Any = match.batch.obs
    if isinstance(obs, dict):
        return None
    image = _squared(obs[0, seat].cpu().numpy().astype(np.float64))
    if image.ndim != 2 or min(image.shape) < 4:
        return None
    return {"kind": "webp", "parts": [webp_text(_grey(image))]}


def position_text(match: Match, seat: int) -> str:
    """The position as text: as the environment writes it, or else the seat's observation."""
    if isinstance(match.batch, GameBatch):
        written = None if _hides(match) and not match.over else str(match.batch.render("ansi"))
    else:
        written = match.batch.text()
    if written is not None:
        return written
    obs: Any = match.batch.obs
    parts = obs if isinstance(obs, dict) else {"observation": obs}
    return "\n".join(f"{name}: {_in_numbers(part[0, seat].cpu().numpy())}" for name, part in parts.items())


def hints(match: Match, seat: int, by: Agent | None) -> dict[str, Any]:
    """A player's opinion of a seat's position: value, and the chance of each legal action by its number.

    Of a player that does not say its chances, it is what it would play.

    Raises:
        MlbitsError: if there is no such player.
    """
    if by is None:
        raise MlbitsError("no hint: there is no trained agent and no search for this game")
    thought = opinion(by, match.batch, seat)
    chances, plays = {}, ""
    if thought.chances is not None:
        chances = {str(action): round(float(thought.chances[action]), 4) for action in match.slots(seat)[0].names}
    else:
        plays = suggested(match, seat, by)
    return {"chances": chances, "plays": plays, "value": thought.value, "turn": match.turn}


def pace(match: Match) -> int:
    """Steps a second of a game that is played in real time, else 0."""
    if match.batch.num_seats != 1:
        return 0
    batch = match.batch
    rate = batch.game.frames_per_second if isinstance(batch, GameBatch) else frame_rate(batch)
    return rate if rate >= REAL_TIME else 0


def held(match: Match, keys: list[str], last: list[float] | None) -> list[float]:
    """The action of the keys that are held, in real time.

    Args:
        match: a game of one seat.
        keys: names of keys as browsers name them, the latest last.
        last: the action before.

    Returns:
        For continuous actions the bounds along the arrows, else 0. For others the latest key that names an action by
        an arrow or a digit; else the action that does nothing, if one says so; else with two actions the last one, and
        with more action 0.
    """
    layout = match.batch.action
    if layout.kind == "continuous":
        ends = ("ArrowLeft", "ArrowRight"), ("ArrowDown", "ArrowUp")
        action = [float(np.clip(0, low, high)) for low, high in zip(layout.low, layout.high, strict=True)]
        for k, (less, more) in enumerate(ends[: len(action)]):
            if (less in keys) != (more in keys):
                action[k] = float(layout.low[k] if less in keys else layout.high[k])
        return action
    slots = match.slots(0)
    names = {name: number for number, name in slots[0].names.items()}
    rest = [min(slot.names) for slot in slots[1:]]
    by_key = {_KEYS[name]: number for name, number in names.items() if name in _KEYS}
    by_key |= {str(number): number for number in names.values() if number < 10 and str(number) not in by_key}
    for key in reversed(keys):
        if key in by_key:
            return [by_key[key], *rest]
    idle = next((names[name] for name in ("stay", "noop") if name in names), None)
    if idle is None:
        idle = int(last[0]) if last and len(names) == 2 else min(names.values())
    return [idle, *rest]


def _hides(match: Match) -> bool:
    return isinstance(match.batch, GameBatch) and match.batch.game.reveals


def _in_numbers(part: NDArray[Any]) -> str:
    """An observation, or a part of one; of one that is too large to read the shape."""
    if part.size > MOST_NUMBERS:
        return f"{' x '.join(map(str, part.shape))} numbers"
    return np.array2string(_squared(part), precision=3, suppress_small=True)


def _squared(part: NDArray[Any]) -> NDArray[Any]:
    """An observation as a square, if it may be the pixels of one."""
    side = round(part.size**0.5)
    return part.reshape(side, side) if part.ndim == 1 and side >= 8 and side * side == part.size else part


def _grey(image: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Numbers [H, W] as a grey image of at least 256 pixels a side: the least black, the largest white."""
    low, high = float(image.min()), float(image.max())
    grey = (255 * (image - low) / max(high - low, 1e-9)).astype(np.uint8)
    times = max(1, -(-256 // min(image.shape)))
    return np.repeat(np.kron(grey, np.ones((times, times), np.uint8))[:, :, None], 3, 2)
