"""The observations of a replay buffer if they are stacks of the latest k frames: each frame is stored once.

A step's observation differs from that of the step before by its newest frame, so one new row per step suffices, and
the observation is k rows. That it is so is checked, byte by byte, when a step is added. The first observation of an
episode repeats frames or has blank ones: equal neighbours in a stack are stored once. Any other stack is stored with
all its frames, so what is sampled is always what was added.

Parts of an observation that are not stacks, such as legal actions, are stored beside the newest frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlbits.agents.memory.observations import Observations, Parts, bits, equal_on_device


class FrameStacks(Observations):
    """Observations of the latest T steps of N streams, of which the first axis is the latest k frames, oldest first.

    Args:
        like: observations of all streams by name, [N, ...]; the parts [N, k, ...] are stacks.
        steps: T.
        stack: k, at least 2.
    """

    def __init__(self, like: Parts, steps: int, stack: int) -> None:
        self.stack = stack
        self._stacked = {name for name, value in like.items() if value.dim() > 1 and value.shape[1] == stack}
        self._plain = len(self._stacked) < len(like)
        super().__init__(like, steps)
        self._ahead = np.full((self.streams, stack), -1, self.kind)  # rows of what came last

    def shape_of(self, value: Tensor) -> tuple[int, ...]:
        """The shape of one frame, or of a part that is not a stack."""
        return tuple(value.shape[2:] if value.dim() > 1 and value.shape[1] == self.stack else value.shape[1:])

    def _pointers(self) -> tuple[int, ...]:
        return (self.stack,)

    def _taken(self, row: Tensor) -> dict[str, Tensor]:
        every, newest = row.view(-1), row[:, -1].contiguous() if self._plain else row
        return {
            name: value.index_select(0, every).view(*row.shape, *value.shape[1:])
            if name in self._stacked
            else value.index_select(0, newest)
            for name, value in self.rows.items()
        }

    def add_steps(
        self,
        slot: int,
        obs: Parts,
        last: Parts,
        ends: Tensor | None,
        final: Parts,
        *,
        known_ends: NDArray[Any] | None = None,
        continues: bool = False,
    ) -> None:
        """Store consecutive steps of all streams; as in :class:`Observations`."""
        streams, ring = self.streams, self.ring // self.streams
        steps = len(next(iter(obs.values())))
        part = slice(slot, slot + steps * streams)
        at = np.empty((steps * streams, self.stack), self.kind)
        following = np.empty_like(at)
        ended = np.zeros((steps, streams), bool)
        where = ends.cpu().numpy() if ends is not None and known_ends is None else known_ends
        if where is not None:
            ended.reshape(-1)[where] = True
        before: Parts = {name: value[0] for name, value in obs.items()}
        row = self._first_rows(slot, before)
        # Rows that are overwritten are given up only when the new ones are known to be used.
        old = [self._at[part].copy(), self._next[part].copy(), self._ahead]
        for t in range(steps):
            own = slice(t * streams, (t + 1) * streams)
            at[own] = row
            now = last if t == steps - 1 else {name: value[t + 1] for name, value in obs.items()}
            newest = self._stream + (self._count + t + 1) % ring * streams
            row = self._stacked_rows(now, newest, before, row, ~ended[t])
            for name, value in now.items():
                self._put(name, int(newest[0]), value[:, -1] if name in self._stacked else value)
            following[own] = row
            before = now
        if ends is not None and where is not None:
            whole = {name: value.flatten(0, 1).index_select(0, ends) for name, value in obs.items()}
            newest = self._take(len(ends))
            following[where] = self._stacked_rows(final, newest, whole, at[where], np.ones(len(where), bool))
            self._write(newest, self._newest(final))
        self._at[part], self._next[part], self._ahead = at, following, row
        for new in (at, following, row):
            self._use(new, 1)
        if self._used:
            for gone in old:
                self._use(gone, -1)
        self._count += steps
        self._publish(part)

    def _first_rows(self, slot: int, first: Parts) -> NDArray[Any]:
        """The rows of the first new observations: those of what came last, unless they are others."""
        newest = self._stream + self._count % (self.ring // self.streams) * self.streams
        nothing = np.zeros(self.streams, bool)
        if self._count == 0:
            row = self._stacked_rows(first, newest, first, self._ahead, nothing)
            self._write(newest, self._newest(first))
            return row
        same = ~nothing
        for name, value in self._taken(torch.from_numpy(self._ahead).to(self.device)).items():
            same &= equal_rows(value, first[name])
        if same.all():
            return self._ahead
        other = np.flatnonzero(~same)
        before = (slot - self.streams) % len(self._at) + other
        before = before[self._next[before, -1] == newest[other]]
        if len(before):  # what followed there keeps its newest frame elsewhere
            overwritten = newest[before % self.streams]
            moved = self._take(len(before))
            index = torch.from_numpy(overwritten).to(self.device)
            self._write(moved, {name: value.index_select(0, index) for name, value in self.rows.items()})
            rows = self._next[before]
            rows = np.where(rows == overwritten[:, None], moved[:, None], rows)
            self._use(rows[rows == moved[:, None]], 1)
            self._next[before] = rows
            self._publish(before)
        index = torch.from_numpy(other).to(self.device)
        changed = {name: value.index_select(0, index) for name, value in first.items()}
        row = self._ahead.copy()
        row[other] = self._stacked_rows(changed, newest[other], changed, row[other], nothing[other])
        self._write(newest[other], self._newest(changed))
        return row

    def _stacked_rows(
        self, obs: Parts, newest: NDArray[Any], before: Parts, row: NDArray[Any], goes_on: NDArray[np.bool_]
    ) -> NDArray[Any]:
        """The rows of n observations, of which the newest frames are to be in rows ``newest``, [n, k].

        Args:
            obs: [n, ...].
            newest: [n].
            before: the observations before them, [n, ...].
            row: rows of those, [n, k].
            goes_on: bool [n], whether an observation is of the same episode as that before it.
        """
        out = np.concatenate([row[:, 1:], newest[:, None]], 1)
        for name in self._stacked:
            goes_on = goes_on & equal_rows(obs[name], before[name], shifted=True)
        if goes_on.all():
            return out
        other = np.flatnonzero(~goes_on)
        for k in range(self.stack - 2, -1, -1):
            same = np.ones(len(other), bool)
            index = torch.from_numpy(other).to(self.device)
            for name in self._stacked:
                same &= equal_rows(obs[name][index, k], obs[name][index, k + 1])
            out[other, k] = out[other, k + 1]
            differs = other[~same]
            if len(differs):
                own = self._take(len(differs))
                index = torch.from_numpy(differs).to(self.device)
                self._write(own, {name: obs[name][index, k] for name in self._stacked})
                out[differs, k] = own
        return out

    def _newest(self, obs: Parts) -> Parts:
        """The newest frames of observations [n, ...], and what is no stack."""
        return {name: value[:, -1] if name in self._stacked else value for name, value in obs.items()}

    def _counted(self) -> dict[str, NDArray[Any]]:
        return {**super()._counted(), "ahead": self._ahead}

    def load_state_dict(self, state: Mapping[str, Tensor], held: int) -> None:
        """Restore a saved state; as in :class:`Observations`."""
        used = len(state[f"spare.{next(iter(self.rows))}"])
        self._ahead = self._rows_in(state, "ahead", self._ahead.shape, used).astype(self.kind)
        super().load_state_dict(state, held)

    def _count_uses(self) -> None:
        for row in (self._at, self._next, self._ahead):
            self._use(row, 1)


def equal_rows(one: Tensor, other: Tensor, shifted: bool = False) -> NDArray[np.bool_]:
    """Bool [n], which rows of two tensors [n, ...] are equal bit for bit.

    Args:
        one: [n, ...]; if ``shifted``, [n, k, ...].
        other: the same.
        shifted: compare all but the last of the k frames of the one with all but the first of the other.
    """
    if one.is_cpu and shifted:
        a, b = (bits(x.flatten(0, 1).numpy()).reshape(*x.shape[:2], -1) for x in (one, other))
        return (a[:, :-1] == b[:, 1:]).all((1, 2))
    if one.is_cpu:
        return (bits(one.numpy()) == bits(other.numpy())).reshape(len(one), -1).all(1)
    return equal_on_device(one[:, :-1], other[:, 1:]) if shifted else equal_on_device(one, other)
