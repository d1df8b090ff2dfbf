"""Golden transcripts: a random game of every environment as text, stored beside this file.

A change of rules, observations, masks, rewards, drawings or random streams shows as a difference in the text. After an
intended change, ``python -m tests.golden`` rewrites all of them, ``python -m tests.golden NAME...`` some.

Actions are drawn here, by Python's own generator, whose stream is the same in all versions.
"""

from __future__ import annotations

import random
import zlib
from pathlib import Path
from typing import Any

import numpy as np

import mlbits
from mlbits.envs.engine.cpu_copies import Copies

FOLDER = Path(__file__).parent
SEED = 2024
STEPS = 40  # at most
LENGTH = 4000  # characters after which a transcript ends with the current step
WIDE = 24  # most numbers that are written out; otherwise the count of non-zeros and a checksum

# Settings other than the defaults, by file name.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "GridWorld-v0-slippery-maze": ("mlbits/GridWorld-v0", {"map": "maze", "slip": 0.2}),
    "GridWorld-v0-cut": ("mlbits/GridWorld-v0", {"horizon": 5}),
    "Bandit-v0-bernoulli": ("mlbits/Bandit-v0", {"kind": "bernoulli", "arms": 3}),
    "Blotto-v0-three-seats": ("mlbits/Blotto-v0", {"seats": 3, "fields": 4}),
    "Goofspiel-v0-three-seats": ("mlbits/Goofspiel-v0", {"seats": 3, "cards": 5}),
    "Go-v0-small": ("mlbits/Go-v0", {"size": 3, "komi": 1, "suicide": True}),
    "CollectObjects-v0-scattered": ("mlbits/CollectObjects-v0", {"levels": "scattered_small", "moves": 18}),
    "SimilarityPD-v0-gaussian": ("mlbits/SimilarityPD-v0", {"noise": "gaussian"}),
}


def games() -> dict[str, tuple[str, dict[str, Any]]]:
    """Every transcript: its file name, the id and the settings."""
    own = [game_id for game_id in mlbits.registered() if game_id.startswith("mlbits/")]
    return {game_id.partition("/")[2]: (game_id, {}) for game_id in own} | VARIANTS


def numbers(values: Any) -> str:
    """Numbers as text with six significant digits, 0 without a sign; many as a count of non-zeros and a checksum."""
    flat = np.asarray(values).ravel()
    texts = [f"{0.0 if value == 0 else value:.6g}" for value in flat.astype(float).tolist()]
    if len(texts) <= WIDE:
        return " ".join(texts)
    return f"{np.count_nonzero(flat)} of {len(texts)}, {zlib.crc32(' '.join(texts).encode()):08x}"


def fields(values: Any) -> list[tuple[str, str]]:
    """An observation [...] as (key, numbers) pairs, one per key of a record."""
    names = values.dtype.names
    return [("", numbers(values))] if names is None else [(f".{name}", numbers(values[name])) for name in names]


def choose(copies: Copies, generator: random.Random) -> np.ndarray:
    """Actions [1, P, ...], uniform over the legal ones; continuous ones uniform within the bounds, at most 2 from 0."""
    layout, seats = copies.game.action, copies.game.seats
    actions = np.zeros((1, seats, *layout.shape), layout.dtype)
    for seat in range(seats):
        if layout.kind == "continuous":
            low, high = np.clip(layout.low, -2, 2).ravel(), np.clip(layout.high, -2, 2).ravel()
            drawn = [a + (b - a) * generator.random() for a, b in zip(low.tolist(), high.tolist(), strict=True)]
            # A grid of eighths is exact in float32.
            actions[0, seat] = np.reshape([np.clip(round(8 * x) / 8, -2, 2) for x in drawn], layout.shape)
            continue
        start, parts = 0, []
        for n in layout.nvec:
            legal = range(n)
            if copies.game.masked:
                legal = np.flatnonzero(copies.legal[0, seat, start : start + n]).tolist()
            parts.append(legal[int(generator.random() * len(legal))])
            start += n
        actions[0, seat] = np.reshape(parts, layout.shape)
    return actions


def position(copies: Copies) -> list[str]:
    """The visible position: the drawing, each seat's observation and mask, and who acts."""
    game = copies.game
    lines = ["  | " + line for line in game.text(*copies.record()).splitlines()]
    for seat in range(game.seats):
        lines += [f"  obs{key} of {seat}: {text}" for key, text in fields(copies.obs[0, seat])]
        if game.masked:
            lines.append(f"  legal of {seat}: {numbers(copies.legal[0, seat])}")
    if game.acts is not None:
        lines.append(f"  acts: {numbers(copies.active[0, : game.seats])}")
    return [line.rstrip() for line in lines]


def transcript(name: str) -> str:
    """One game, from its start to its end or to the transcript's maximal length."""
    game_id, settings = games()[name]
    copies, generator = Copies(mlbits.make_game(game_id, **settings), autoreset="disabled"), random.Random(SEED)
    copies.seed(SEED)
    copies.reset()
    words = "".join(f", {key} {value}" for key, value in settings.items())
    lines = [f"{game_id}{words}, seed {SEED}", *position(copies)]
    for step in range(1, STEPS + 1):
        actions = choose(copies, generator)
        copies.step(actions)
        lines.append(f"step {step}")
        lines += [f"  action of {seat}: {numbers(actions[0, seat])}" for seat in range(copies.game.seats)]
        lines.append(f"  rewards: {numbers(copies.rewards[0])}")
        lines += position(copies)
        if copies.terminated[0] or copies.truncated[0]:
            lines.append(" and ".join(flag for flag in ("terminated", "truncated") if getattr(copies, flag)[0]))
            break
        if sum(map(len, lines)) > LENGTH:
            break
    return "\n".join(lines) + "\n"


def path_of(name: str) -> Path:
    """The path of a transcript."""
    return FOLDER / f"{name}.txt"
