"""What joins the processes of a run in shards: gathering tensors, orders of the driver, reports to it.

A run of one process is :class:`Alone`. Several use torch.distributed with gloo, which only carries the tensors: every
process gathers those of all shards and sums them in their order (:mod:`mlbits.agents.kernels.shards`), because gloo's
own sums depend on the number of processes.

A process that dies is noticed at the next exchange; one that hangs after ``timeout`` seconds. Then the group is lost
(:class:`GroupLostError`), as it cannot go on without a member.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from enum import IntEnum
from typing import Any, NamedTuple, Protocol

import torch
from safetensors.torch import load, save
from torch import Tensor

from mlbits.envs.core.errors import MlbitsError
from mlbits.selfplay.league.learners import overlap

_LONG = timedelta(days=365)  # between two orders the driver may evaluate for as long as it likes
_FIRST = 1 << 12  # bytes of a message that are sent at once, its length included
_TEXT = "json"


class GroupLostError(MlbitsError, RuntimeError):
    """A group of processes that has lost a member."""


class WorkersError(MlbitsError, RuntimeError):
    """Workers that were lost, and are not started again."""


class Order(IntEnum):
    """What the driver asks all processes to do next."""

    START = 0
    ITERATE = 1
    SAVE = 2
    LOAD = 3
    END = 4


class Orders(NamedTuple):
    """An order, and how far the run is.

    Attributes:
        order: what to do.
        env_steps: environment steps so far.
        progress: the fraction of the run that is over.
    """

    order: Order
    env_steps: int = 0
    progress: float = 0.0


class Links(Protocol):
    """What joins the processes.

    Attributes:
        rank: this process's number; the driver is 0.
        places: for each process the numbers of its shards.
        communicating: seconds spent in exchanges.
    """

    rank: int
    places: Sequence[range]
    communicating: float

    def gather(self, value: Tensor, group: int = 0) -> Tensor:
        """The tensors of all shards of a group of learners [S, ...], given those of this process [K, ...]."""

    def exchange(self, message: bytes) -> list[bytes]:
        """The messages of all processes, by rank."""

    def order(self, orders: Orders | None) -> Orders:
        """The driver's orders, which only it gives."""

    def bring(self, message: bytes) -> list[bytes]:
        """Long messages of all processes, at the driver; nothing elsewhere."""

    def hand_out(self, messages: Sequence[bytes]) -> bytes:
        """This process's part of the long messages that the driver has for each."""

    def wait_for_all(self, what: str, seconds: float) -> None:
        """Wait until all processes have come this far, for longer than between exchanges; each ``what`` once."""

    def close(self) -> None:
        """Leave the group."""


class Alone:
    """One process that has all shards."""

    def __init__(self, number: int) -> None:
        self.rank, self.communicating = 0, 0.0
        self.places: Sequence[range] = [range(number)]

    def gather(self, value: Tensor, group: int = 0) -> Tensor:
        """See :meth:`Links.gather`."""
        return value

    def exchange(self, message: bytes) -> list[bytes]:
        """See :meth:`Links.exchange`."""
        return [message]

    def order(self, orders: Orders | None) -> Orders:
        """See :meth:`Links.order`."""
        assert orders is not None
        return orders

    def bring(self, message: bytes) -> list[bytes]:
        """See :meth:`Links.bring`."""
        return [message]

    def hand_out(self, messages: Sequence[bytes]) -> bytes:
        """See :meth:`Links.hand_out`."""
        return messages[0]

    def wait_for_all(self, what: str, seconds: float) -> None:
        """See :meth:`Links.wait_for_all`."""

    def close(self) -> None:
        """See :meth:`Links.close`."""


class _Circle(NamedTuple):
    """Processes that gather something.

    Attributes:
        counts: how many shards each has, by rank.
        handle: their group of torch.distributed; None for all processes.
    """

    counts: list[int]
    handle: Any


class Group:
    """Several processes.

    Args:
        store: where they meet, of torch.distributed.
        rank: this one's number.
        places: for each process the numbers of its shards.
        timeout: seconds after which a process that is waited for counts as lost.
        alive: whether the other processes are still there; None where this one cannot know, nor end them.
        groups: for each group of learners the numbers of its shards; none where all shards are one group.

    Raises:
        GroupLostError: if they do not meet.
    """

    def __init__(
        self, store: Any, rank: int, places: Sequence[range], timeout: float, alive: Callable[[], bool] | None = None,
        groups: Sequence[range] = (),
    ) -> None:  # fmt: skip
        import torch.distributed as distributed

        self.rank, self.places, self.communicating = rank, places, 0.0
        self._distributed, self._timeout, self._store, self._alive = distributed, timeout, store, alive
        self._lost = False
        with self._watched():
            limit, world = timedelta(seconds=timeout), len(places)
            distributed.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=limit)
            self._waiting = distributed.new_group(backend="gloo", timeout=_LONG)
            self._everyone = _Circle(list(map(len, places)), None)
            self._circles = [self._circle(shards, limit) for shards in groups] or [self._everyone]

    def _circle(self, shards: range, limit: timedelta) -> _Circle:
        """The processes that have some of these shards; all processes have to call this in the same order."""
        counts = [len(overlap(place, shards)) for place in self.places]
        members = [rank for rank, count in enumerate(counts) if count]
        apart = 1 < len(members) < len(counts)
        handle = self._distributed.new_group(members, backend="gloo", timeout=limit) if apart else None
        return _Circle([counts[rank] for rank in members], handle)

    def gather(self, value: Tensor, group: int = 0) -> Tensor:
        """See :meth:`Links.gather`."""
        circle = self._circles[group]
        if len(circle.counts) == 1:
            return value
        if len(value) < (most := max(circle.counts)):  # gloo gathers tensors of one size
            value = torch.cat([value, value.new_zeros((most - len(value), *value.shape[1:]))])
        found = self._gathered(value, circle)
        return torch.cat([part[:count] for part, count in zip(found, circle.counts, strict=True)])

    def _gathered(self, value: Tensor, circle: _Circle | None = None) -> list[Tensor]:
        circle = circle or self._everyone
        plain = value.cpu().contiguous()
        found = [torch.empty_like(plain) for _ in circle.counts]
        with self._watched():
            self._distributed.all_gather(found, plain, group=circle.handle)
        return [part.to(value.device) for part in found]

    def exchange(self, message: bytes) -> list[bytes]:
        """See :meth:`Links.exchange`."""
        head = torch.zeros(_FIRST, dtype=torch.uint8)
        head[:8] = _bytes_of(len(message).to_bytes(8, "little"))
        rest = _FIRST - 8
        head[8 : 8 + min(len(message), rest)] = _bytes_of(message[:rest])
        heads = self._gathered(head)
        sizes = [int.from_bytes(one[:8].numpy().tobytes(), "little") for one in heads]
        found = [one[8 : 8 + min(size, rest)].numpy().tobytes() for one, size in zip(heads, sizes, strict=True)]
        if (longest := max(sizes)) > rest:
            tail = torch.zeros(longest - rest, dtype=torch.uint8)
            if len(message) > rest:
                tail[: len(message) - rest] = _bytes_of(message[rest:])
            tails = self._gathered(tail)
            found = [
                begun + one[: max(size - rest, 0)].numpy().tobytes()
                for begun, one, size in zip(found, tails, sizes, strict=True)
            ]
        return found

    def order(self, orders: Orders | None) -> Orders:
        """See :meth:`Links.order`."""
        numbers = torch.zeros(3, dtype=torch.float64)
        if orders is not None:
            numbers = torch.tensor([float(orders.order), float(orders.env_steps), orders.progress], dtype=torch.float64)
        began = self.communicating
        with self._watched():
            sent = self._distributed.broadcast(numbers, 0, group=self._waiting, async_op=True)
            if orders is None:
                sent.wait()
            else:  # a worker that hangs does not take it
                sent.wait(timedelta(seconds=self._timeout))
        if orders is None:
            self.communicating = began  # waiting for the driver
        order, steps, progress = numbers.tolist()
        return Orders(Order(int(order)), int(steps), progress)

    def bring(self, message: bytes) -> list[bytes]:
        """See :meth:`Links.bring`."""
        if self.rank:
            self._send(message, 0)
            return []
        return [message, *(self._receive(rank) for rank in range(1, len(self.places)))]

    def hand_out(self, messages: Sequence[bytes]) -> bytes:
        """See :meth:`Links.hand_out`."""
        if self.rank:
            return self._receive(0)
        for rank, message in enumerate(messages):
            if rank:
                self._send(message, rank)
        return messages[0]

    def _send(self, message: bytes, rank: int) -> None:
        with self._watched():
            self._distributed.send(torch.tensor(len(message)), rank)
            self._distributed.send(_bytes_of(message), rank)

    def _receive(self, rank: int) -> bytes:
        size = torch.tensor(0)
        with self._watched():
            self._distributed.recv(size, rank)
            message = torch.empty(int(size), dtype=torch.uint8)
            self._distributed.recv(message, rank)
        return message.numpy().tobytes()

    def wait_for_all(self, what: str, seconds: float) -> None:
        """See :meth:`Links.wait_for_all`."""
        with self._watched():
            self._store.set(f"{what}-{self.rank}", "1")
            missing = list(range(len(self.places)))
            deadline = time.monotonic() + seconds
            while missing := [rank for rank in missing if not self._store.check([f"{what}-{rank}"])]:
                late = time.monotonic() > deadline
                if late or not (self._alive is None or self._alive()):
                    how = f"has not {what.partition('-')[0]} after {seconds:g} seconds" if late else "is gone"
                    raise GroupLostError(f"workers: one of {len(self.places)} {how}")
                time.sleep(0.02)

    def close(self) -> None:
        """See :meth:`Links.close`; a lost group is left as it is where its processes cannot be ended."""
        if self._lost and self._alive is None:
            return
        self._lost = True
        with contextlib.suppress(RuntimeError, ValueError, AssertionError):
            self._distributed.destroy_process_group()

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        began = time.perf_counter()
        if self._lost:
            raise GroupLostError(f"workers: the group of {len(self.places)} is lost")
        try:
            yield
        except GroupLostError:
            self._lost = True
            raise
        except RuntimeError as error:
            self._lost = True
            why = str(error).splitlines()[0].rpartition("] ")[2]
            late = time.perf_counter() - began >= 0.9 * self._timeout
            what = (
                f"did not answer for {self._timeout:g} seconds" if late else f"is gone ({why.partition('. ')[0]:.120})"
            )
            raise GroupLostError(f"workers: one of {len(self.places)} {what}") from None
        finally:
            self.communicating += time.perf_counter() - began


def _bytes_of(message: bytes) -> Tensor:
    return torch.frombuffer(bytearray(message), dtype=torch.uint8) if message else torch.empty(0, dtype=torch.uint8)


def packed(plain: Any, tensors: Mapping[str, Tensor] | None = None) -> bytes:
    """Plain data and tensors as one message; nothing is pickled."""
    text = torch.frombuffer(bytearray(json.dumps(plain).encode()), dtype=torch.uint8)
    rest = {} if tensors is None else {f"t.{name}": value.contiguous().cpu() for name, value in tensors.items()}
    return save({_TEXT: text, **rest})


def unpacked(message: bytes) -> tuple[Any, dict[str, Tensor]]:
    """The plain data and the tensors of a message."""
    found = load(message)
    plain = json.loads(found.pop(_TEXT).numpy().tobytes())
    return plain, {name[2:]: value for name, value in found.items()}
