"""A log of the actions that B copies of an environment have played since they were last seeded, for replaying them.

An environment that cannot save its state, but is deterministic given its seed, is restored by seeding it and
playing the same actions again. The copies step together, so the log is one array [T, B, ...] in chunks; the oldest
chunks are dropped as soon as no copy needs them. Its size is bounded: a copy whose actions no longer fit is ``lost``
until it is seeded again.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

# 64 copies of a Discrete environment: 16 million steps each; 64 of HalfCheetah (six float32): 700 thousand.
MOST_BYTES = 2**30
_CHUNK_BYTES = 2**18


class ActionLog:
    """Actions that B copies have played since they were last seeded.

    Args:
        num_envs: number of copies B.
        shape: shape of one copy's action.
        dtype: dtype in which actions are stored.
        most_bytes: upper bound on the log's memory.

    Attributes:
        resets: for each copy, after how many of its actions it was reset before its episode had ended.
        lost: bool [B], copies whose log is incomplete.
    """

    def __init__(
        self, num_envs: int, shape: tuple[int, ...], dtype: np.dtype[Any], most_bytes: int = MOST_BYTES
    ) -> None:
        self.num_envs, self.shape, self.dtype = num_envs, shape, dtype
        row_bytes = num_envs * int(np.prod(shape, initial=1)) * dtype.itemsize
        self._rows = max(1, min(_CHUNK_BYTES, most_bytes // 4) // row_bytes)
        self._most_chunks = max(2, most_bytes // (self._rows * row_bytes))
        self._chunks: deque[NDArray[Any]] = deque()
        self._base = 0  # steps before the first chunk
        self._time = 0  # steps so far
        self._began = np.zeros(num_envs, np.int64)
        self.resets: list[list[int]] = [[] for _ in range(num_envs)]
        self.lost = np.zeros(num_envs, bool)

    def add(self, actions: NDArray[Any]) -> None:
        """Record one step of all copies, [B, ...]."""
        row = (self._time - self._base) % self._rows
        if row == 0:
            self._make_room()
        self._chunks[-1][row] = actions
        self._time += 1

    def _make_room(self) -> None:
        kept = self._began[~self.lost]
        needed = int(kept.min()) if len(kept) else self._time
        while self._chunks and (self._base + self._rows <= needed or len(self._chunks) >= self._most_chunks):
            self._chunks.popleft()
            self._base += self._rows
        self.lost |= self._began < self._base
        self._chunks.append(np.empty((self._rows, self.num_envs, *self.shape), self.dtype))

    def restart(self, b: int) -> None:
        """Drop copy b's actions, because it was seeded."""
        self._began[b], self.lost[b] = self._time, False
        self.resets[b].clear()

    def note_reset(self, b: int) -> None:
        """Record that copy b was reset now, before its episode had ended."""
        self.resets[b].append(self.length(b))

    def length(self, b: int) -> int:
        """Number of steps since copy b was seeded."""
        return self._time - int(self._began[b])

    def actions(self, b: int) -> NDArray[Any]:
        """Copy b's actions since it was seeded, [T, ...]; empty if they are lost."""
        if self.lost[b] or self.length(b) == 0:
            return np.empty((0, *self.shape), self.dtype)
        first = int(self._began[b]) - self._base
        parts = [chunk[:, b] for chunk in self._chunks]
        return np.concatenate(parts)[first : self._time - self._base]

    def load(self, actions: list[NDArray[Any]], resets: list[list[int]], lost: NDArray[np.bool_]) -> None:
        """Continue from saved :meth:`actions`, ``resets`` and ``lost`` of B copies."""
        longest = max(len(played) for played in actions)
        self._chunks.clear()
        for start in range(0, longest, self._rows):
            chunk = np.zeros((self._rows, self.num_envs, *self.shape), self.dtype)
            for b, played in enumerate(actions):
                before = longest - len(played)  # the copies end together
                first, last = max(start, before), min(start + self._rows, longest)
                if first < last:
                    chunk[first - start : last - start, b] = played[first - before : last - before]
            self._chunks.append(chunk)
        self._base, self._time = 0, longest
        self._began[:] = [longest - len(played) for played in actions]
        self.lost, self.resets = lost.copy(), [list(own) for own in resets]
