"""The shards that a process has: what driver and workers both do in an iteration.

Each shard is a session of its own (:mod:`mlbits.selfplay.session`), with a range of the run's copies, its generators,
its episodes under way, its replay buffer and its opponents. Its learner starts from the same weights as all others and
moves by the same gradients, so that all stay equal; after each iteration their checksums are compared.

In a league the shards are those of groups of learners (:mod:`mlbits.selfplay.league.learners`), and only those of one
group learn in step. After each iteration all meet: the results of all games are known to all, and each group brings
what its learners have learned, by which they play in the shards of others and of which copies are frozen.
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
from mlbits.selfplay.league.learners import learner_groups, overlap
from mlbits.selfplay.machine import run_cpu_seconds
from mlbits.selfplay.runs.checkpoints import Checkpoint, CheckpointError
from mlbits.selfplay.runs.config import Settings
from mlbits.selfplay.session import Session, open_session
from mlbits.selfplay.shards.links import Links, Orders, packed, unpacked
from mlbits.selfplay.shards.lockstep import Lockstep, OutOfStepError

# What shards have in common: a checkpoint has it once, of the first shard, and what differs elsewhere.
_SHARED = ("opponents.learner", "opponents.payoffs.")
_FIELDS = ("returns", "lengths", "seat_returns", "seating", "owner")


class Learned(NamedTuple):
    """What all processes report after an iteration.

    Attributes:
        metrics: means over the shards of the first group, which has the run's agent.
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
        self._groups = learner_groups(settings.run)
        self._locksteps: dict[int, Lockstep] = {}
        for g, group in enumerate(self._groups):
            if local := len(overlap(group.shards, self.numbers)):
                self._locksteps[g] = Lockstep(local, len(group.shards), functools.partial(links.gather, group=g))
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
            OutOfStepError: if the weights of a group's shards are not the same.
        """
        works = [functools.partial(one.learn, own) for one, own in zip(self.sessions, rollouts, strict=True)]
        found: list[Mapping[str, Any]] = []
        for g, lockstep in self._locksteps.items():  # in the same order in all processes, so that none waits for ever
            here = overlap(self._groups[g].shards, self.numbers)
            found += lockstep.run([works[k - self.numbers.start] for k in here])
        report = {
            "checksums": [number for lockstep in self._locksteps.values() for number in lockstep.checksums()],
            "metrics": [{name: float(value) for name, value in metrics.items()} for metrics in found],
            "cpu_seconds": run_cpu_seconds(),
            "leaving": leaving,
        }
        messages = [unpacked(message) for message in self._links.exchange(packed(report, self._brought()))]
        reports = [report for report, _ in messages]
        self._check_equal([number for one in reports for number in one["checksums"]])
        self._meet({name: value for _, tensors in messages for name, value in tensors.items()})
        every = [own for one in reports for own in one["metrics"]]
        metrics = [own for own in every[: len(self._groups[0].shards)] if own]
        return Learned(
            {name: float(np.mean([own[name] for own in metrics if name in own])) for name in (metrics or [{}])[0]},
            sum(one["cpu_seconds"] for one in reports[1:]),
            [rank for rank, one in enumerate(reports) if one["leaving"]],
        )

    def _check_equal(self, sums: Sequence[int]) -> None:
        """Check that the weights of each group's shards are the same, by their checksums in the order of the shards."""
        firsts = [group.shards.start for group in self._groups for _ in group.shards]
        for odd, first in enumerate(firsts):
            if sums[odd] != sums[first]:
                rank = next(rank for rank, shards in enumerate(self._links.places) if odd in shards)
                raise OutOfStepError(
                    f"workers: the weights of shard {odd} (worker {rank}) are not those of shard {first} after step "
                    f"{self._now.env_steps + self._steps:,}; wanted equal bits, as equal processors and versions give"
                )

    def _brought(self) -> dict[str, Tensor]:
        """What the learners of groups whose first shard is here have learned; nothing where there is one group."""
        found: dict[str, Tensor] = {}
        if len(self._groups) > 1:
            firsts = {group.shards.start for group in self._groups}
            for k, session in zip(self.numbers, self.sessions, strict=True):
                if k in firsts and session.opponents is not None:
                    for number, state in session.opponents.learned().items():
                        found |= prefixed(str(number), state)
        return found

    def _meet(self, brought: Mapping[str, Tensor]) -> None:
        """Give all shards what all groups have brought."""
        if len(self._groups) > 1:
            learners = [number for group in self._groups for number in group.learners]
            states = {number: unprefixed(str(number), brought) for number in learners}
            for session in self.sessions:
                if session.opponents is not None:
                    session.opponents.meet(states)

    def note(self, without_first: bool) -> None:
        """Tell the shards' opponents how the last episodes ended; for the driver's first shard its loop does it."""
        for session in self.sessions[without_first:]:
            if session.opponents is not None:
                session.opponents.note(self._episodes, self._now.env_steps + self._steps)

    def saved(self) -> bytes:
        """What each shard of this process has, as a message; with the run's agent where it learns there."""
        opponents: dict[str, Any] = {}
        tensors: dict[str, Tensor] = {}
        for k, session in zip(self.numbers, self.sessions, strict=True):
            checkpoint = session.to_checkpoint()
            tensors |= prefixed(f"shard{k}", checkpoint.arrays)
            if k in self._groups[0].shards:
                tensors |= prefixed(f"shard{k}.own", checkpoint.weights)
            opponents[str(k)] = checkpoint.state.get("opponents")
        return packed(opponents, tensors)

    def restore(self, message: bytes, folder: Path, say: Callable[[str], None]) -> str:
        """Restore the shards of this process from :func:`part_of`; returns why it is not possible, or ""."""
        (counters, opponents), tensors = unpacked(message)
        weights, shared = unprefixed("weights", tensors), unprefixed("shared", tensors)
        try:
            for k, session in zip(self.numbers, self.sessions, strict=True):
                arrays = shared | unprefixed(f"shard{k}", tensors)
                state = counters if opponents[k] is None else {**counters, "opponents": opponents[k]}
                session.from_checkpoint(Checkpoint(weights | unprefixed("own", arrays), arrays, state), folder, say)
        except CheckpointError as error:
            return str(error)
        return ""

    def check_weights(self) -> None:
        """Check that every learner's state is finite; other shards' learners are here as all met last."""
        self.sessions[0].check_weights()

    def close(self) -> None:
        """End the threads of the shards, and what runs beside them."""
        for lockstep in self._locksteps.values():
            lockstep.close()
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
    learner's state that is not as in shard 0 (running returns of its copies, say). What shards have in common, payoffs
    and a league's other learners, is the first one's that has it, and stands elsewhere only where it differs.
    """
    weights: dict[str, Tensor] = {}
    arrays: dict[str, Tensor] = {}
    shared: dict[str, Tensor] = {}
    opponents: dict[int, Any] = {}
    for message in messages:
        states, tensors = unpacked(message)
        for k, state in states.items():
            found = unprefixed(f"shard{k}", tensors)
            agent = unprefixed("own", found)
            weights = weights or agent
            common = {name: value for name, value in found.items() if name.startswith(_SHARED)}
            rest = {name: value for name, value in found.items() if not name.startswith(("own.", *_SHARED))}
            own = differing(common, shared) | prefixed("own", differing(agent, weights))
            arrays |= prefixed(f"shard{k}", rest | own)
            shared = common | shared
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
    arrays = [unprefixed(f"shard{k}", checkpoint.arrays) for k in range(number)]
    shared: dict[str, Tensor] = {}
    for one in arrays:
        shared = {name: value for name, value in one.items() if name.startswith(_SHARED)} | shared
    tensors = prefixed("weights", checkpoint.weights) | prefixed("shared", shared)
    for k in shards:
        own = {name: value for name, value in arrays[k].items() if value is not shared.get(name)}
        tensors |= prefixed(f"shard{k}", own)
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
