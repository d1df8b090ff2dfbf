"""The observations of a replay buffer, each stored once: a step's next observation is the following step's own.

There are T steps of N streams, and a ring of T + 1 rows per stream: a step's observation has the next row of its
stream, and the row after the newest step already holds the observation that followed it. What is followed by nothing
else in its stream, as the final observation of an episode is, goes to spare rows behind the ring; they are reused when
the step that they belong to is overwritten, and there are more of them only if episodes are short. Every step knows the
row of its observation and the row of the next, so that sampling takes what it is asked for from one array.

Observations are dicts of tensors by name here; legal actions are one of them.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlbits.agents.agent import AgentError
from mlbits.envs.engine.memory import memory_bytes
from mlbits.envs.engine.on_host import to_device

_SPARE = 16  # one spare row per so many steps at first
_FEW = 4096  # bytes that are compared faster as strings
_NONE = -1  # the row of an observation that is not known
_SAME_SIZE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

Parts = Mapping[str, Tensor]


class Observations:
    """Observations of the latest T steps of N streams.

    What is stored is on the device of the observations; which rows are whose is kept by the CPU, and copied there.

    Args:
        like: observations of all streams by name, [N, ...], for their shapes, types and device.
        steps: T.

    Attributes:
        rows: what is stored by name, [rows, ...].
    """

    stack = 1  # how many rows an observation is made of

    def __init__(self, like: Parts, steps: int) -> None:
        first = next(iter(like.values()))
        self.steps, self.streams, self.device = steps, len(first), first.device
        self.ring = ring_rows(steps, self.streams, self.stack)
        self._spare = spare_rows(steps, self.streams)
        self._blocks: dict[str, NDArray[Any]] = {}  # on a CPU, the memory of the rows
        self.rows = {name: self._zeros(name, value) for name, value in like.items()}
        shape = (steps * self.streams, *self._pointers())
        self.kind = kind_of(steps, self.streams, self.stack)
        self._at, self._next = np.full(shape, _NONE, self.kind), np.full(shape, _NONE, self.kind)
        self._of, self._after = (torch.from_numpy(table).to(self.device) for table in (self._at, self._next))
        self._stream = np.arange(self.streams, dtype=self.kind)
        self._uses = np.zeros(self._spare, np.int32)  # of each spare row
        self._free: list[int] = []  # spare rows that were used and are not now
        self._used = 0  # spare rows that were ever used
        self._count = 0  # steps ever added, if all streams have the same

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy whose tensors share the memory of its own arrays, as they do here."""
        made = memo[id(self)] = object.__new__(type(self))
        vars(made).update(copy.deepcopy(vars(self), memo))
        made.rows |= {name: torch.from_numpy(block) for name, block in made._blocks.items()}
        if made.device.type == "cpu":
            made._of, made._after = torch.from_numpy(made._at), torch.from_numpy(made._next)
        return made

    def shape_of(self, value: Tensor) -> tuple[int, ...]:
        """The shape of one stored row of observations [N, ...]."""
        return tuple(value.shape[1:])

    def _zeros(self, name: str, like: Tensor) -> Tensor:
        shape = (self.ring + self._spare, *self.shape_of(like))
        if not like.is_cpu:
            return torch.zeros(shape, dtype=like.dtype, device=like.device)
        block = self._blocks[name] = np.empty(shape, like[:0].numpy().dtype)
        block.fill(0)  # the system grants it now, not in the middle of a run
        return torch.from_numpy(block)

    def _pointers(self) -> tuple[int, ...]:
        return ()

    @property
    def nbytes(self) -> int:
        """The memory that everything takes now, on the device."""
        every = [*self.rows.values(), self._of, self._after]
        return sum(value.numel() * value.element_size() for value in every)

    def of(self, slot: Tensor) -> dict[str, Tensor]:
        """The observations of steps, [n, ...] by name."""
        return self._taken(self._of.index_select(0, slot))

    def after(self, slot: Tensor) -> dict[str, Tensor]:
        """The observations that followed steps, [n, ...] by name."""
        return self._taken(self._after.index_select(0, slot))

    def part_after(self, name: str, slot: Tensor) -> Tensor:
        """One part, which is no stack, of the observations that followed steps, [n, ...]."""
        row = self._after.index_select(0, slot)
        return self.rows[name].index_select(0, row if row.dim() == 1 else row[:, -1])

    def _taken(self, row: Tensor) -> dict[str, Tensor]:
        return {name: value.index_select(0, row) for name, value in self.rows.items()}

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
        """Store consecutive steps of all streams.

        Args:
            slot: of the first step and stream; the others follow it.
            obs: [t, N, ...], with t <= T steps that do not pass the end of the buffer.
            last: what followed the last of them, [N, ...].
            ends: which of the t * N steps ended an episode, int64 [n]; None for none.
            final: the last observations of those episodes, [n, ...].
            known_ends: the same as ``ends``, if the host knows them.
            continues: whether the first observations are known to be those that came last.
        """
        steps = len(next(iter(obs.values())))
        ring, count = self.ring // self.streams, steps * self.streams
        place, part = self._count % ring, slice(slot, slot + count)
        if self._count and not continues:
            self._keep_if_other(slot, place * self.streams, {name: value[0] for name, value in obs.items()})
        if self._used:
            self._use(self._next[part], -1)
        head = min(steps, ring - place)  # the ring may end within the steps
        for name, value in obs.items():
            self._put(name, place * self.streams, value if head == steps else value[:head])
            if head < steps:
                self._put(name, 0, value[head:])
        for name, value in last.items():
            self._put(name, (place + steps) % ring * self.streams, value)
        row = np.arange(place * self.streams, (place + steps + 1) * self.streams, dtype=self.kind)
        if place + steps >= ring:
            row %= self.ring
        self._at[part] = row[:count]
        self._next[part] = row[self.streams :]
        if ends is not None:
            self._next[(ends.cpu().numpy() if known_ends is None else known_ends) + slot] = self._spared(final)
        self._count += steps
        self._publish(part)

    def _keep_if_other(self, slot: int, low: int, first: Parts) -> None:
        """Move what followed the newest steps to spare rows where the first new observations [N, ...] are others."""
        same = self._same(slice(low, low + self.streams), first)
        if same is None:
            return
        newest = (slot - self.streams) % len(self._at)
        other = np.flatnonzero(~same & (self._next[newest : newest + self.streams] == self._stream + low))
        self._move(newest + other, low + other)

    def _move(self, slot: NDArray[Any], row: NDArray[Any]) -> None:
        """Copy rows to spare ones, as the next observations of steps."""
        if len(slot):
            index = to_device(row, self.device)
            self._next[slot] = self._spared({name: value.index_select(0, index) for name, value in self.rows.items()})
            self._publish(slot)

    def add_decisions(
        self,
        new: NDArray[Any],
        place: NDArray[Any],
        first: NDArray[np.bool_],
        obs: Parts,
        settled: NDArray[Any],
        follows: NDArray[Any],
        by_end: NDArray[Any],
        end: Parts,
        after: NDArray[Any],
        last: Parts,
        *,
        continues: bool = False,
    ) -> None:
        """Store decisions of streams that advance at their own pace, and what followed those whose outcome is known.

        Args:
            new: slots of the new decisions, int64 [n].
            place: how many decisions their streams had before each, int64 [n].
            first: bool [n], whether a decision is its stream's first among them.
            obs: their observations, [n, ...].
            settled: slots of the decisions that are followed by another, int64 [m].
            follows: how many decisions their streams had before that other one, int64 [m].
            by_end: slots of the decisions whose episode ended, int64 [e].
            end: the last observations of these episodes, [e, ...]; parts that it lacks are the decisions' own.
            after: positions among the m of those whose next decision is not among the new ones, int64.
            last: the observations of these next decisions.
            continues: whether the first observations are known to be those that came last.
        """
        row, following = self._row_of(new, place), self._row_of(settled, follows)
        if not continues:
            self._move_if_other(new, row, np.flatnonzero(first), obs)
        if self._used:
            self._use(self._next[new], -1)
        self._at[new], self._next[new] = row, _NONE
        self._next[settled] = following
        self._write(row, obs)
        self._write(following[after], last)
        if len(by_end):
            own = to_device(self._at[by_end], self.device)
            kept = {name: end[name] if name in end else value[own] for name, value in self.rows.items()}
            self._next[by_end] = self._spared(kept)
        for changed in (new, settled, by_end):
            self._publish(changed)

    def _move_if_other(self, new: NDArray[Any], row: NDArray[Any], of: NDArray[Any], obs: Parts) -> None:
        """Move what followed streams' newest decisions to spare rows where their first new observations are others."""
        before = (new - self.streams) % len(self._at)
        of = of[self._next[before[of]] == row[of]]
        index = to_device(of, self.device)
        same = self._same(row[of], {name: value.index_select(0, index) for name, value in obs.items()})
        if same is not None:
            self._move(before[of[~same]], row[of[~same]])

    def _row_of(self, slot: NDArray[Any], place: NDArray[Any]) -> NDArray[Any]:
        """The rows in the ring of decisions by their slots, and how many their streams had before them."""
        row = place % (self.ring // self.streams) * self.streams + slot % self.streams
        return row.astype(self.kind)

    def _publish(self, part: slice | NDArray[Any]) -> None:
        """Copy changed rows of the tables to the device."""
        if self.device.type != "cpu":  # else they are the same memory
            where = part if isinstance(part, slice) else to_device(part, self.device)
            for table, copy in ((self._at, self._of), (self._next, self._after)):
                copy[where] = to_device(table[part], self.device)

    def _same(self, where: slice | NDArray[Any], values: Parts) -> NDArray[np.bool_] | None:
        """Bool [n], where stored rows equal values [n, ...] in all parts; None if they all do."""
        same: NDArray[np.bool_] | None = None
        for name, value in values.items():
            if name in self._blocks:
                stored, given = self._blocks[name][where], value.numpy()
                if stored.nbytes <= _FEW and stored.tobytes() == given.tobytes():
                    continue
                one, other = bits(stored), bits(given)
                if (one == other).all():  # the usual case
                    continue
                equal = (one == other).reshape(len(value), -1).all(1)
            else:
                index = where if isinstance(where, slice) else to_device(where, self.device)
                equal = equal_on_device(self.rows[name][index], value)
            same = equal if same is None else same & equal
        return None if same is None or same.all() else same

    def _put(self, name: str, low: int, value: Tensor) -> None:
        """Write [..., ...] over the rows from ``low`` on; on a CPU by NumPy, whose calls cost a third of torch's."""
        shape = self.rows[name].shape[1:]
        if name in self._blocks:
            rows = value.numpy().reshape(-1, *shape)
            self._blocks[name][low : low + len(rows)] = rows
        else:
            several = value.reshape(-1, *shape)
            self.rows[name][low : low + len(several)] = several

    def _write(self, row: NDArray[Any], values: Parts) -> None:
        """Write values [n, ...] to rows."""
        for name, value in values.items():
            if name in self._blocks:
                self._blocks[name][row] = value.numpy()
            else:
                self.rows[name][to_device(row, self.device)] = value

    def _spared(self, values: Parts) -> NDArray[Any]:
        """Store observations [n, ...] in spare rows; returns these rows, which are in use once."""
        row = self._take(len(next(iter(values.values()))))
        self._write(row, values)
        self._use(row, 1)
        return row

    def _take(self, count: int) -> NDArray[Any]:
        """Spare rows that nothing uses."""
        again = min(count, len(self._free))
        fresh = count - again
        if self._used + fresh > self._spare:
            self._grow(self._used + fresh - self._spare)
        row = np.arange(self._used - again, self._used + fresh, dtype=self.kind) + self.ring
        if again:
            row[:again] = self._free[len(self._free) - again :]
            del self._free[len(self._free) - again :]
        self._used += fresh
        return row

    def _use(self, row: NDArray[Any], by: int) -> None:
        """Count ``by`` more uses of the rows, of which only spare ones are counted; frees what is not used."""
        spare = row[row >= self.ring] - self.ring
        if len(spare):
            np.add.at(self._uses, spare, by)
            if by < 0:
                gone = np.unique(spare)
                self._free += (gone[self._uses[gone] == 0] + self.ring).tolist()

    def _grow(self, rows: int) -> None:
        """Make more spare rows.

        Raises:
            AgentError: if they do not fit into the device's memory.
        """
        more = max(rows, spare_rows(self.steps, self.streams))
        size = self.nbytes + more * sum(value[:1].numel() * value.element_size() for value in self.rows.values())
        if size > memory_bytes(self.device):
            raise AgentError(
                f"buffer_size: the observations at the ends of short episodes make the replay buffer of "
                f"{self.steps * self.streams:,} transitions {size / 2**30:,.1f} GiB, more than there is; wanted fewer"
            )
        self._spare += more
        for name, value in self.rows.items():
            shape = tuple(value.shape[1:])
            if name in self._blocks:  # the system extends a large block where it is; no one else has views of it
                self._blocks[name].resize((len(value) + more, *shape), refcheck=False)
                self.rows[name] = torch.from_numpy(self._blocks[name])
            else:
                self.rows[name] = torch.cat([value, value.new_zeros((more, *shape))])
        self._uses = np.concatenate([self._uses, np.zeros(more, np.int32)])

    def state_dict(self, held: int) -> dict[str, Tensor]:
        """What the first ``held`` slots need, by name."""
        filled = self.ring if self._count == 0 else min((self._count + 1) * self.streams, self.ring)
        state = {f"ring.{name}": value[:filled] for name, value in self.rows.items()}
        state |= {f"spare.{name}": value[self.ring : self.ring + self._used] for name, value in self.rows.items()}
        own = {"at": self._at[:held], "next": self._next[:held], "free": np.array(self._free, self.kind)}
        return state | {name: torch.from_numpy(value) for name, value in (own | self._counted()).items()}

    def _counted(self) -> dict[str, NDArray[Any]]:
        return {"steps": np.array([self._count])}

    def load_state_dict(self, state: Mapping[str, Tensor], held: int) -> None:
        """Restore a saved state.

        Raises:
            KeyError: if an entry is missing.
            ValueError: if it was saved by another kind of buffer, or names rows that do not exist.
        """
        (count,) = (int(k) for k in state["steps"])
        used = len(state[f"spare.{next(iter(self.rows))}"])
        if used > self._spare:
            self._grow(used - self._spare)
        for name, value in self.rows.items():
            for part, low, high in (("ring", 0, self.ring), ("spare", self.ring, self.ring + self._spare)):
                saved = state[f"{part}.{name}"]
                if saved.shape[1:] != value.shape[1:] or saved.dtype != value.dtype or len(saved) > high - low:
                    raise ValueError(
                        f"replay.{part}.{name}: got {tuple(saved.shape)}; wanted {tuple(value[low:high].shape)}"
                    )
                value[low : low + len(saved)].copy_(saved)
        for name, table in (("at", self._at), ("next", self._next)):
            row = self._rows_in(state, name, table[:held].shape, used)
            table.fill(_NONE)
            table[:held] = row
        self._free = self._rows_in(state, "free", state["free"].shape, used).tolist()
        self._used, self._count = used, count
        self._uses[:] = 0
        self._count_uses()
        self._publish(slice(0, len(self._at)))

    def _rows_in(self, state: Mapping[str, Tensor], name: str, shape: Sequence[int], used: int) -> NDArray[Any]:
        """A saved table of rows."""
        row = state[name].cpu().numpy()
        if row.shape != tuple(shape):
            raise ValueError(f"replay.{name}: got {tuple(row.shape)}; wanted {tuple(shape)}")
        low, high = (0, 0) if row.size == 0 else (int(row.min()), int(row.max()))
        if low < _NONE or high >= self.ring + used:
            raise ValueError(f"replay.{name}: got rows {low} to {high}; wanted {_NONE} to {self.ring + used - 1}")
        return row

    def _count_uses(self) -> None:
        self._use(self._next, 1)


def ring_rows(steps: int, streams: int, stack: int = 1) -> int:
    """Rows of the ring: the latest T steps, what followed, and for stacks the older frames of the first of them."""
    return (steps + stack) * streams


def spare_rows(steps: int, streams: int) -> int:
    """Spare rows that there are at first."""
    return max(1, steps * streams // _SPARE)


def stored_bytes(like: Sequence[Tensor], steps: int, stack: int = 1) -> int:
    """What observations of T steps take from the start, in bytes.

    Args:
        like: the observations of a batch and what is stored with them, [B, P, ...].
        steps: T.
        stack: k if they are stacks of k frames.
    """
    streams = like[0].shape[0] * like[0].shape[1]
    rows, spare = ring_rows(steps, streams, stack), spare_rows(steps, streams)
    row = 0
    for value in like:
        frames = stack if stack > 1 and value.dim() > 2 and value.shape[2] == stack else 1
        row += value.numel() * value.element_size() // (streams * frames)
    return (rows + spare) * row + kind_of(steps, streams, stack).itemsize * 2 * stack * steps * streams


def kind_of(steps: int, streams: int, stack: int) -> np.dtype[Any]:
    """The integers that number the rows."""
    most = ring_rows(steps, streams, stack) + steps * streams * 2 * stack
    return np.dtype(np.int32 if most < 2**31 else np.int64)


def bits(array: NDArray[Any]) -> NDArray[Any]:
    """An array [n, ...] as integers that are equal only where its bytes are; in as few as possible, [n, m]."""
    array = np.ascontiguousarray(array)
    if array.nbytes and array.nbytes % (8 * len(array)) == 0:
        return array.reshape(len(array), -1).view(np.uint64)
    return array.view(f"u{array.dtype.itemsize}")


def equal_on_device(one: Tensor, other: Tensor) -> NDArray[np.bool_]:
    """Bool [n], which rows of two tensors [n, ...] on any device are equal bit for bit."""
    kind = _SAME_SIZE[one.element_size()]
    equal = one.view(kind) == other.view(kind)
    return (equal.flatten(1).all(1) if equal.dim() > 1 else equal).cpu().numpy()
