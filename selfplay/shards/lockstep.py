"""The shards of one process, each of which learns as if it were alone, taking turns where they exchange something.

Each shard's work runs in a thread of its own, and only one runs at a time. Where a shard asks for the tensors of all
(:func:`mlbits.agents.kernels.shards.gather`), it leaves its own and hands over to the next; the last to come exchanges
them with the other processes and goes on. Algorithms so read as those of one learner, and it makes no difference to a
shard whether the others are in its process.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mlbits.agents.kernels.shards import learning_with
from mlbits.envs.core.errors import MlbitsError

# Given the tensors of this process's shards [K, ...], returns those of all shards [S, ...].
Exchange = Callable[[Tensor], Tensor]


class OutOfStepError(MlbitsError, RuntimeError):
    """Shards that did not exchange the same things in the same order, or do not have the same weights."""


class _Stopped(BaseException):
    """Ends the work of a shard because another one's has failed."""


class Lockstep:
    """Runs the shards of a process.

    Args:
        local: how many shards this process has, K.
        number: how many the run has, S.
        exchange: with the other processes.
    """

    def __init__(self, local: int, number: int, exchange: Exchange) -> None:
        self._shards = [_Shard(self, k, number) for k in range(local)]
        self._exchange = exchange
        self._result = torch.empty(0)
        self._came, self._left = 0, 0
        self._failure: BaseException | None = None

    def run(self, works: Sequence[Callable[[], Any]]) -> list[Any]:
        """Do the work of each shard; returns the results.

        Raises:
            OutOfStepError: if the shards exchange different things.
            Exception: what the first work to fail raised.
        """
        self._came, self._left, self._failure = 0, len(works), None
        first, *others = self._shards
        for shard, work in zip(others, works[1:], strict=True):
            shard.begin(work)
        first.do(works[0])
        if self._failure is not None:
            raise self._failure
        return [shard.outcome for shard in self._shards]

    def checksums(self) -> list[int]:
        """A checksum of the weights that each shard has moved since the last call."""
        return [shard.checksum() for shard in self._shards]

    def close(self) -> None:
        """End the threads."""
        for shard in self._shards[1:]:
            shard.end()

    def _gathered(self, shard: _Shard, value: Tensor) -> Tensor:
        """Leave a shard's tensor [...], and wait for those of all [S, ...]."""
        shard.given = value
        self._came += 1
        if self._left < len(self._shards):
            self._fail(OutOfStepError("a shard has learned while another asks for its part; wanted equal steps in all"))
            raise _Stopped
        if self._came < len(self._shards):
            self._hand_over(shard)
            shard.wait()
            if self._failure is not None:
                raise _Stopped
            return self._result
        given = [other.given for other in self._shards]
        if any(part.shape != value.shape or part.dtype != value.dtype for part in given):
            kinds = ", ".join(f"{part.dtype} {tuple(part.shape)}" for part in given)
            raise OutOfStepError(f"the shards exchange {kinds}; wanted the same of each")
        self._came, self._result = 0, self._exchange(torch.stack(given))
        return self._result

    def _finished(self, shard: _Shard, error: BaseException | None) -> None:
        """A shard's work is done, or failed: the next one goes on."""
        self._left -= 1
        if error is not None:
            self._fail(error)
        elif self._came and self._failure is None:
            self._fail(OutOfStepError("a shard has learned while another waits for its part; wanted equal steps"))
        if self._left:
            self._hand_over(shard)
        elif shard.place:
            self._shards[0].go.release()  # whose thread waits for all

    def _fail(self, error: BaseException) -> None:
        if self._failure is None and not isinstance(error, _Stopped):
            self._failure = error

    def _hand_over(self, shard: _Shard) -> None:
        count = len(self._shards)
        for step in range(1, count + 1):
            following = self._shards[(shard.place + step) % count]
            if not following.done:
                following.go.release()
                return


class _Shard:
    """One shard's turns; see :class:`~mlbits.agents.kernels.shards.Together`."""

    def __init__(self, lockstep: Lockstep, place: int, number: int) -> None:
        self._lockstep, self.place, self.number = lockstep, place, number
        self.go = threading.Semaphore(0)
        self.given = torch.empty(0)
        self.outcome: Any = None
        self.done = True
        self._work: Callable[[], Any] | None = None
        self._thread: threading.Thread | None = None
        self._moved: dict[int, Tensor] = {}

    def gather(self, value: Tensor) -> Tensor:
        return self._lockstep._gathered(self, value)

    def moved(self, weights: Tensor) -> None:
        self._moved.setdefault(weights.data_ptr(), weights)

    def checksum(self) -> int:
        found = 0
        for weights in self._moved.values():
            found = zlib.crc32(weights.detach().cpu().contiguous().view(torch.uint8).numpy().data, found)
        self._moved.clear()
        return found

    def begin(self, work: Callable[[], Any]) -> None:
        """Do some work in the shard's own thread, once it is its turn."""
        self._work, self.done = work, False
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name=f"mlbits-shard-{self.place}", daemon=True)
            self._thread.start()

    def do(self, work: Callable[[], Any]) -> None:
        """Do some work in this thread, and wait until the others have done theirs."""
        self.done = False
        self._attempt(work)
        while self._lockstep._left:
            self.wait()

    def wait(self) -> None:
        """Wait for this shard's turn."""
        self.go.acquire()

    def end(self) -> None:
        """End the thread."""
        if self._thread is not None:
            self._work = None
            self.go.release()
            self._thread.join()
            self._thread = None

    def _serve(self) -> None:
        torch.set_num_threads(torch.get_num_threads())  # which holds for each thread
        while True:
            self.wait()
            work, self._work = self._work, None
            if work is None:
                return
            self._attempt(work)

    def _attempt(self, work: Callable[[], Any]) -> None:
        error: BaseException | None = None
        try:
            if self._lockstep._failure is not None:
                raise _Stopped
            with learning_with(self):
                self.outcome = work()
        except BaseException as found:
            error = found
        self.done = True
        self._lockstep._finished(self, error)
