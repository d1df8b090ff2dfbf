"""What a reader is; and states of games, which compiled rules read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Reader:
    """A reader.

    Attributes:
        seeds: sound inputs.
        read: reads an input; raises our errors for what it refuses, and AssertionError for damage that is accepted.
    """

    seeds: list[bytes]
    read: Callable[[bytes], Any]


@contextlib.contextmanager
def states(game_id: str) -> Iterator[Reader]:
    """States of a game, which compiled rules read for some steps; a seed is one copy's record."""
    from mlbits.envs.engine.batch import GameBatch
    from mlbits.envs.registry import make_game

    game = make_game(game_id)
    size, seeds = game.state_dtype.itemsize, []
    batch = GameBatch(game, 4, seed=3)
    one = GameBatch(game, 1, illegal="replace", autoreset="disabled", start=False)
    for _ in range(12):
        seeds += [row.tobytes() for row in batch.state().numpy()]
        for _ in range(5):
            batch.step(batch.sample_actions())

    def read(data: bytes) -> None:
        record = np.frombuffer(data[:size].ljust(size, b"\0"), np.uint8).copy().reshape(1, size)
        one.set_state(record.view(game.state_dtype).reshape(1))
        for _ in range(3):
            one.step(one.sample_actions())

    yield Reader(seeds, read)
