"""The shards that a process has: what driver and workers both do in an iteration.

Each shard is a session of its own (:mod:`mlbits.selfplay.session`), with a range of the run's copies, its generators,
its episodes under way, its replay buffer and its opponents. Its learner starts from the same weights as all others and
moves by the same gradients, so that all stay equal; after each iteration their checksums are compared.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mlbits.agents.agent import prefixed, unprefixed
from mlbits.selfplay.collector import Episodes
from mlbits.selfplay.finite import NotFiniteError
from mlbits.selfplay.machine import run_cpu_seconds
from mlbits.selfplay.runs.checkpoints import Checkpoint, CheckpointError
from mlbits.selfplay.runs.config import Settings
from mlbits.selfplay.session import Session, open_session
from mlbits.selfplay.shards.links import Links, Orders, packed, unpacked
from mlbits.selfplay.shards.lockstep import Lockstep, OutOfStepError

_FIELDS = ("returns", "lengths", "seat_returns", "seating", "owner")


class Learned(NamedTuple):
    """What all processes report after an iteration.

    Attributes:
        metrics: means over the shards.
        cpu_seconds: of the workers so far, the driver left out.
        leaving: the workers that were asked to stop.
    """

    metrics: dict[str, float]
    cpu_seconds: float
    leaving: list[int]


class Parts:
    """The shards of this process.

    Args:
        settings: the run's.
        links: with the other processes.
        first: the session of the first of them, if it is open already.

    Attributes:
        sessions: one a shard.
    """

    def __init__(self, settings: Settings, links: Links, first: Session | None = None) -> None:
        self._links, self._number = links, settings.run.shards
        self.numbers = links.places[links.rank]
        opened = [] if first is None else [first]
        others = self.numbers[len(opened) :]
        self.sessions = [*opened, *(open_session(settings, start=False, shard=k) for k in others)]
        self._lockstep = Lockstep(len(self.sessions), self._number, links.gather)
        self._copies = settings.run.num_envs // self._number
        self._now = Orders(order=0)  # type: ignore[arg-type]
        self._steps = 0
        self._episodes = Episodes(np.zeros(0), np.zeros(0, np.int64))

    def start(self) -> None:
        """Begin the first episodes."""
        for session in self.sessions:
            session.start()

    def collect(self, now: Orders) -> tuple[list[Any], Episodes, int]:
        """Play a rollout in each shard.

        Returns:
            The rollouts of this process's shards; the episodes that ended in all, in the order of the shards; and the
            environment steps of all.
        """
        self._now, rollouts, parts, steps = now, [], dict[str, Tensor](), 0
        for k, session in zip(self.numbers, self.sessions, strict=True):
            session.counters.env_steps, session.at = now.env_steps, now.progress
            with self._named(k):
                rollout, episodes, played = session.collect()
            rollouts.append(rollout)
            steps += played
            found = {name: value for name in _FIELDS if (value := getattr(episodes, name)) is not None}
            parts |= {f"{k}.{name}": torch.from_numpy(np.ascontiguousarray(value)) for name, value in found.items()}
        messages = [unpacked(message) for message in self._links.exchange(packed(steps, parts))]
        self._steps = sum(count for count, _ in messages)
        self._episodes = _joined({name: value for _, own in messages for name, value in own.items()}, self._number)
        return rollouts, self._episodes, self._steps

    def learn(self, rollouts: Sequence[Any], leaving: bool = False) -> Learned:
        """Learn in all shards from what was collected last.

        Args:
            rollouts: of this process's shards.
            leaving: whether this process has been asked to stop.

        Raises:
            OutOfStepError: if the shards' weights are not the same.
        """
        works = [functools.partial(one.learn, own) for one, own in zip(self.sessions, rollouts, strict=True)]
        found = self._lockstep.run(works)
        report = {
            "checksums": self._lockstep.checksums(),
            "metrics": [{name: float(value) for name, value in metrics.items()} for metrics in found],
            "cpu_seconds": run_cpu_seconds(),
            "leaving": leaving,
        }
        reports = [unpacked(message)[0] for message in self._links.exchange(packed(report))]
        sums = [number for one in reports for number in one["checksums"]]
        if len(set(sums)) > 1:
            odd = next(k for k, number in enumerate(sums) if number != sums[0])
            rank = next(rank for rank, shards in enumerate(self._links.places) if odd in shards)
            raise OutOfStepError(
                f"workers: the weights of shard {odd} (worker {rank}) are not those of shard 0 after step "
                f"{self._now.env_steps + self._steps:,}; wanted equal bits, as equal processors and versions give"
            )
        metrics = [own for one in reports for own in one["metrics"] if own]
        return Learned(
            {name: float(np.mean([own[name] for own in metrics if name in own])) for name in (metrics or [{}])[0]},
            sum(one["cpu_seconds"] for one in reports[1:]),
            [rank for rank, one in enumerate(reports) if one["leaving"]],
        )

    def note(self, without_first: bool) -> None:
        """Tell the shards' opponents how the last episodes ended; for the driver's first shard its loop does it."""
        for session in self.sessions[without_first:]:
            if session.opponents is not None:
                session.opponents.note(self._episodes, self._now.env_steps + self._steps)

    def saved(self) -> bytes:
        """The learner of this process's first shard, and all that each has of its own, as a message."""
        opponents: dict[str, Any] = {}
        common = self.sessions[0].learner.state_dict()
        tensors = prefixed("weights", common)
        for k, session in zip(self.numbers, self.sessions, strict=True):
            checkpoint = session.to_checkpoint()
            own = differing(checkpoint.weights, common)
            tensors |= prefixed(f"shard{k}", checkpoint.arrays | prefixed("own", own))
            opponents[str(k)] = checkpoint.state.get("opponents")
        return packed(opponents, tensors)

    def restore(self, message: bytes, folder: Path, say: Callable[[str], None]) -> str:
        """Restore the shards of this process from :func:`part_of`; returns why it is not possible, or ""."""
        (counters, opponents), tensors = unpacked(message)
        weights = unprefixed("weights", tensors)
        try:
            for k, session in zip(self.numbers, self.sessions, strict=True):
                arrays = unprefixed(f"shard{k}", tensors)
                state = counters if opponents[k] is None else {**counters, "opponents": opponents[k]}
                session.from_checkpoint(Checkpoint(weights | unprefixed("own", arrays), arrays, state), folder, say)
        except CheckpointError as error:
            return str(error)
        return ""

    def check_weights(self) -> None:
        """Check that every learner's state is finite; they are all equal."""
        self.sessions[0].check_weights()

    def close(self) -> None:
        """End the threads of the shards, and what runs beside them."""
        self._lockstep.close()
        for session in self.sessions:
            session.close()

    def _named(self, shard: int) -> _Named:
        return _Named(shard * self._copies)


class _Named:
    """A context in which an error that names a copy of a shard names the run's copy."""

    def __init__(self, first: int) -> None:
        self._first = first

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, NotFiniteError) and error.copy is not None and self._first:
            raise NotFiniteError(
                error.env, error.quantity, error.value, error.env_steps, error.copy + self._first
            ) from None


def joined(messages: Sequence[bytes]) -> Checkpoint:
    """The checkpoint of a run from what its processes saved, :meth:`Parts.saved`: the same however many they are.

    It has the weights of shard 0; ``shard3.NAME`` is an array of shard 3, and ``shard3.own.NAME`` an entry of its
    learner's state that is not as in shard 0 (running returns of its copies, say).
    """
    weights: dict[str, Tensor] = {}
    arrays: dict[str, Tensor] = {}
    opponents: dict[int, Any] = {}
    for message in messages:
        states, tensors = unpacked(message)
        base = unprefixed("weights", tensors)
        weights = weights or base
        for k, state in states.items():
            kept = unprefixed(f"shard{k}", tensors)
            learner = base | unprefixed("own", kept)
            kept = {name: value for name, value in kept.items() if not name.startswith("own.")}
            arrays |= prefixed(f"shard{k}", kept | prefixed("own", differing(learner, weights)))
            opponents[int(k)] = state
    if opponents[0] is None:
        return Checkpoint(weights, arrays, {})
    # Frozen copies are equal in all shards but for what each has of its own: the first one's are written.
    others = [
        {name: value for name, value in opponents[k].items() if name != "copies"} for k in range(1, len(opponents))
    ]
    return Checkpoint(weights, arrays, {"opponents": [opponents[0], *others]})


def part_of(checkpoint: Checkpoint, counters: Mapping[str, Any], shards: range, number: int) -> bytes:
    """What a process needs of a checkpoint for its shards: a message for :meth:`Parts.restore`.

    Args:
        checkpoint: from :func:`joined`.
        counters: of the run.
        shards: the process's.
        number: of all shards.
    """
    tensors = prefixed("weights", checkpoint.weights)
    for k in shards:
        tensors |= prefixed(f"shard{k}", unprefixed(f"shard{k}", checkpoint.arrays))
    found: list[Any] = checkpoint.state.get("opponents") or [None] * number
    opponents = [None if own is None else {**own, "copies": found[0]["copies"]} for own in found]
    return packed([dict(counters), opponents], tensors)


def differing(state: Mapping[str, Tensor], common: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries of a state that do not have the bits of another's."""
    return {name: value for name, value in state.items() if name not in common or not _equal(value, common[name])}


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and one.cpu().numpy().tobytes() == (
        other.cpu().numpy().tobytes()
    )  # fmt: skip


def _joined(parts: Mapping[str, Tensor], number: int) -> Episodes:
    """The episodes of all shards, one shard after another."""
    found: dict[str, Any] = {}
    for name in _FIELDS:
        own = [parts[key].numpy() for k in range(number) if (key := f"{k}.{name}") in parts]
        found[name] = np.concatenate(own) if own else None
    return Episodes(**found)
