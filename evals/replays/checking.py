"""Whether a replay is true: its actions are played again by the rules, and everything that they decide is compared.

Compared are rewards, who acted, names of actions, the end, every picture, and the page itself, which has to be the one
that this version writes. What agents expected and how probable they found a move cannot be known from the rules.
"""

from __future__ import annotations

import io
import sys
from base64 import b64decode
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mlbits.envs.core.errors import MlbitsError
from mlbits.envs.core.plain_json import read_bytes
from mlbits.envs.core.trust import needs_trust, trusted
from mlbits.envs.doors.gymnasium_batch import AnyBatch
from mlbits.evals.replays.page import page, read_page
from mlbits.evals.replays.recording import Recorder
from mlbits.evals.replays.replay import Replay, ReplayError
from mlbits.selfplay.episodes import open_to_draw

_MOST_SHOWN = 5  # differences
_MOST_PIXELS = 2**26


def read_replay(path: Path) -> tuple[Replay, str]:
    """A replay from its page, and the page's text.

    Raises:
        ReplayError: if the file cannot be read, or holds no replay, or a damaged one.
    """
    try:
        text = read_bytes(path).decode("utf-8")
        return read_page(text), text
    except FileNotFoundError:
        raise ReplayError(f"{path}: not found; wanted a page that mlbits replay wrote") from None
    except UnicodeDecodeError:
        raise ReplayError(f"{path}: is no text; wanted a page that mlbits replay wrote") from None
    except (OSError, ValueError) as error:
        raise ReplayError(f"{path}: {getattr(error, 'strerror', None) or str(error)[:300]}") from None


def check_replay(path: Path) -> tuple[Replay, list[str]]:
    """Play a replay again.

    Args:
        path: the page.

    Returns:
        The replay, and what differs: nothing if it is true.

    Raises:
        ReplayError: if the file cannot be read, or its game cannot be played here.
        NeedsTrust: if it names a module or a file.
    """
    replay, text = read_replay(path)
    _check_trust(path, replay)
    try:
        batch, _ = open_to_draw(replay.env, 1, replay.seed, replay.settings, "cpu", drawn=True)
    except MlbitsError as error:
        raise ReplayError(f"{path}: its game cannot be played: {error}") from None
    try:
        found = _play_again(replay, batch)
    finally:
        batch.close()
    try:
        same = page(replay) == text
    except ValueError:
        raise ReplayError(f"{path}: it holds a number that is not finite; wanted what mlbits replay writes") from None
    if not same:
        found.append(f"the page around the game is not what this version writes (the file says {replay.made_by[:40]})")
    return replay, found


def _play_again(replay: Replay, batch: AnyBatch) -> list[str]:
    """What differs between a replay and its game as the rules play it."""
    if batch.num_seats != len(replay.names):
        return [f"it has {len(replay.names)} seats; the game has {batch.num_seats}"]
    again = Recorder(batch, replay.env, replay.settings, replay.seed, replay.names)
    differences: list[str] = []
    for number, step in enumerate(replay.steps):
        if again.replay.end != "unfinished":
            return [*differences, f"step {number}: the game had ended before it"]
        actions = _actions(step.actions, batch)
        if actions is None:
            return [*differences, f"step {number}: {str(step.actions)[:60]} are no actions of {replay.env}"]
        again.before(actions[0].numpy())
        batch.step(actions)
        again.after(batch.reward[0], bool(batch.terminated[0]), bool(batch.truncated[0]))
        made = again.replay.steps[-1]
        if not np.allclose(made.rewards, step.rewards, rtol=1e-5, atol=1e-6):
            differences.append(f"step {number}: the rewards are {made.rewards}, not {step.rewards}")
        if made.said.keys() != step.said.keys():
            differences.append(f"step {number}: seats {sorted(made.said)} act, not {sorted(step.said)}")
        elif told := [s for s in made.said if made.said[s].name != step.said[s].name]:
            seat = told[0]
            differences.append(
                f"step {number}: seat {seat} plays {made.said[seat].name!r}, not {step.said[seat].name[:60]!r}"
            )
    if again.replay.end != replay.end:
        differences.append(f"the game is {again.replay.end}, not {replay.end}")
    wrong = [
        number
        for number, (told, drawn) in enumerate(zip(replay.frames, again.replay.frames, strict=False))
        if _picture(replay, told) != _picture(again.replay, drawn)
    ]
    if wrong:
        steps = ", ".join(map(str, wrong[:_MOST_SHOWN])) + (", ..." if len(wrong) > _MOST_SHOWN else "")
        differences.append(f"pictures differ from those drawn now: steps {steps}")
    return differences


def _picture(replay: Replay, frame: int) -> tuple[str, ...] | None:
    """A picture as a value that compares: an image by its pixels, since files of equal images may differ."""
    if replay.pictures.kind != "webp":
        return None if replay.pictures.kind == "none" else replay.pictures.of(frame)
    return _pixels(replay.pictures.of(frame)[0])


@lru_cache(maxsize=64)
def _pixels(text: str) -> tuple[str, ...]:
    """The size and a hash of the pixels of a WebP image in base64."""
    try:
        with Image.open(io.BytesIO(b64decode(text, validate=True)), formats=["WEBP"]) as image:
            if image.width * image.height > _MOST_PIXELS:
                return ("too large",)
            pixels = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return ("no picture",)
    return (str(pixels.size), sha256(pixels.tobytes()).hexdigest())


def _actions(actions: list[Any], batch: AnyBatch) -> torch.Tensor | None:
    """A step's actions as a tensor [1, P, ...] if they have the game's form and range."""
    layout = batch.action
    try:
        array = np.asarray(actions, layout.dtype)
        whole = layout.kind == "continuous" or np.array_equal(array, np.asarray(actions, np.float64))
    except (TypeError, ValueError, OverflowError):
        return None
    if array.shape != (batch.num_seats, *layout.shape) or not whole:
        return None
    if layout.kind != "continuous" and not ((array >= 0) & (array < np.asarray(layout.nvec))).all():
        return None
    return torch.from_numpy(array)[None]


def _check_trust(path: Path, replay: Replay) -> None:
    """Refuse what would import a module, or read a file, that a stranger names."""
    module, colon, _ = replay.env.partition(":")
    if colon and module not in sys.modules and not trusted():
        raise needs_trust(path, f"its environment {replay.env[:80]}")
    for name, value in replay.settings.items():
        if _names_a_file(value) and not trusted():
            raise needs_trust(path, f"its setting {name[:40]}, a file,")


def _names_a_file(value: Any) -> bool:
    if isinstance(value, (list, Mapping)):
        return any(_names_a_file(part) for part in (value.values() if isinstance(value, Mapping) else value))
    try:
        return isinstance(value, str) and Path(value).is_file()
    except (OSError, ValueError):
        return False
