"""A run in shards as its driver sees it: a session like any other, whose collecting and learning all processes do."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mlbits.agents.agent import ReplaySpec
from mlbits.envs.core.errors import MlbitsError
from mlbits.selfplay.collector import Episodes
from mlbits.selfplay.league.learners import learner_groups
from mlbits.selfplay.runs.checkpoints import Checkpoint, CheckpointError
from mlbits.selfplay.runs.config import ConfigError, Settings
from mlbits.selfplay.session import FOREIGN, Counters, Session, open_session
from mlbits.selfplay.shards.crew import LOAD_SECONDS, START_SECONDS, Crew
from mlbits.selfplay.shards.launcher import launched
from mlbits.selfplay.shards.links import Links, Order, Orders
from mlbits.selfplay.shards.parts import Parts, joined, part_of
from mlbits.selfplay.shards.places import check_sharded, number_of_workers


@dataclass
class ShardedSession(Session):
    """The session of a run in shards; its learner, copies and opponents are those of the first shard.

    Attributes:
        parts: the shards of this process.
        links: with the other processes.
        crew: the worker processes.
    """

    parts: Parts = dataclasses.field(kw_only=True)
    links: Links = dataclasses.field(kw_only=True)
    crew: Crew = dataclasses.field(kw_only=True)
    _cpu_seconds: float = 0.0
    _communicated: float = 0.0
    _recorded: float = 0.0
    _restorings: int = 0

    def start(self) -> None:
        """Begin the first episodes in all shards; this process first, so that it alone compiles rules."""
        self.parts.start()
        self._communicated, self._recorded = self.links.communicating, time.perf_counter()
        with self.crew.explaining():
            self.links.order(Orders(Order.START))
            self.links.wait_for_all("begun", START_SECONDS)

    def collect(self) -> tuple[Any, Episodes, int]:
        """Play a rollout in every shard.

        Raises:
            NotFiniteError: if an environment returned a number that is not finite.
            GroupLostError: if a worker died or hangs.
        """
        for session in self.parts.sessions:
            session.collector.timing = self.collector.timing
        with self.crew.explaining():
            now = Orders(Order.ITERATE, self.counters.env_steps, self.progress)
            return self.parts.collect(self.links.order(now))

    def learn(self, rollout: Any) -> Mapping[str, Any]:
        """Update the learner of every shard by the mean of their gradients; returns the means of their metrics.

        Raises:
            NotFiniteError: if a loss, an error or a gradient is not finite.
            GroupLostError: if a worker died or hangs.
        """
        with self.crew.explaining():
            metrics, self._cpu_seconds, leaving = self.parts.learn(rollout)
        self.lineup = self.parts.sessions[0].lineup
        self.parts.note(without_first=True)
        self.crew.leaving = leaving
        return metrics

    def check_weights(self) -> None:
        """Check that the learner's state is finite."""
        self.parts.sessions[0].counters.env_steps = self.counters.env_steps
        self.parts.check_weights()

    def belongs_to(self) -> dict[str, Any]:
        """Facts that have to be the same in a checkpoint for this run to load it."""
        return super().belongs_to() | {"shards": self.settings.run.shards}

    def to_checkpoint(self) -> Checkpoint:
        """Everything needed to continue the run with any number of workers."""
        with self.crew.explaining():
            self.links.order(Orders(Order.SAVE))
            found = joined(self.links.bring(self.parts.saved()))
        recent = torch.tensor(list(self.recent), dtype=torch.float64)
        return Checkpoint(found.weights, found.arrays | {"recent": recent}, self.counters.plain() | found.state)

    def from_checkpoint(
        self, checkpoint: Checkpoint, folder: Path, say: Callable[[str], None] = lambda text: None
    ) -> None:
        """Restore a checkpoint of this run, in all processes.

        Raises:
            CheckpointError: if it lacks what this version of mlbits needs; another checkpoint can be restored then.
        """
        where = f"step {checkpoint.state['env_steps']}"
        try:
            counters = {name: value for name, value in checkpoint.state.items() if name != "opponents"}
            self.counters = Counters(**counters)
            self.counters.check()
            self.recent.clear()
            self.recent.extend(checkpoint.arrays["recent"].tolist())
            number = self.settings.run.shards
            messages = [part_of(checkpoint, counters, shards, number) for shards in self.links.places]
        except FOREIGN as error:
            raise CheckpointError(
                f"{where}: foreign: the checkpoint lacks what this run needs ({str(error)[:500]})"
            ) from None
        with self.crew.explaining():
            self.links.order(Orders(Order.LOAD))
            self.links.exchange(str(folder.resolve()).encode())
            found = self.parts.restore(self.links.hand_out(messages), folder, say)
            self._restorings += 1
            self.links.wait_for_all(f"restored-{self._restorings}", LOAD_SECONDS)
            faults = [fault.decode() for fault in self.links.exchange(found.encode())]
        if fault := next(filter(None, faults), ""):
            raise CheckpointError(fault)
        self.lineup = self.parts.sessions[0].lineup

    @property
    def worker_processes(self) -> list[int]:
        """The ids of the workers on this machine."""
        return self.crew.processes

    @property
    def restarts(self) -> int:
        """How often they were started again."""
        return self.crew.restarts

    @property
    def losing(self) -> str:
        """Which workers were asked to stop, "" if none was: the group is about to lose them."""
        ranks = " and ".join(map(str, self.crew.leaving))
        return f"workers: {ranks} of {len(self.links.places)} asked to stop (SIGTERM)" if ranks else ""

    @property
    def workers_cpu_seconds(self) -> float:
        """CPU time that the workers have spent."""
        return self._cpu_seconds

    def record(self) -> dict[str, float]:
        """How many workers there are, how often they were started again, and the fraction of time in exchanges."""
        now = time.perf_counter()
        spent, self._communicated = self.links.communicating - self._communicated, self.links.communicating
        wall, self._recorded = max(now - self._recorded, 1e-9), now
        workers = {"workers/number": float(len(self.links.places)), "workers/restarts": float(self.restarts)}
        return {"time/communication": min(spent / wall, 1.0), **workers} if len(self.links.places) > 1 else {}

    def again(self, lost: MlbitsError) -> ShardedSession:
        """A new session with new workers after the group was lost; it has nothing restored yet.

        Raises:
            WorkersError: where this process does not start workers, or they were lost too often.
        """
        self.parts.close()
        self.crew.kill()  # before the links are closed, which wait for what hangs
        self.links.close()
        self.crew.restart(lost, self.counters.env_steps)
        fresh = open_sharded(self.settings, crew=self.crew)
        fresh.measure, fresh.callbacks = self.measure, self.callbacks
        return fresh

    def close(self) -> None:
        """End the workers."""
        self.crew.end(self.links)
        self.parts.close()


def open_run(settings: Settings, *, start: bool = True) -> Session:
    """Build everything that a run needs, in one shard or several.

    Raises:
        MlbitsError: naming the setting that does not fit.
    """
    if settings.run.shards > 1:
        return open_sharded(settings, start=start)
    number_of_workers(settings.run, launched())  # refuses processes that would have no shard
    return open_session(settings, start=start)


def open_sharded(settings: Settings, *, start: bool = True, crew: Crew | None = None) -> ShardedSession:
    """Build everything that a run in shards needs, and start its workers.

    Args:
        settings: the run's settings.
        start: whether to begin the first episodes; if not, :meth:`ShardedSession.start` does.
        crew: the workers of before, after a group was lost.

    Raises:
        MlbitsError: naming the setting that does not fit, or the worker that did not come.
    """
    check_sharded(settings)
    crew = crew or Crew(settings)
    first = open_session(settings, start=False, shard=0)  # which checks what can be, before workers are started
    check_agent(settings, first)
    try:
        links = crew.gathered()
        session = ShardedSession(
            settings=settings, device=first.device, batch=first.batch, learner=first.learner, lineup=first.lineup,
            collector=first.collector, learning=first.learning, recent=deque(maxlen=settings.run.solved_episodes),
            opponents=first.opponents, replay=first.replay, parts=Parts(settings, links, first), links=links, crew=crew,
        )  # fmt: skip
    except BaseException:
        crew.kill()
        raise
    if start:
        session.start()
    return session


def check_agent(settings: Settings, session: Session) -> None:
    """Refuse an agent that decides by figures of one shard, or whose minibatch cannot be cut."""
    number = settings.run.shards
    together = max(len(group.shards) for group in learner_groups(settings.run))
    if together > 1 and not getattr(session.learner, "in_shards", False):
        able = "ppo, reinforce, trpo, dqn or ddpg"
        raise ConfigError(f"shards: got {number} with {settings.agent}, which learns in one; wanted 1, or {able}")
    size = getattr(settings.agent_config, "batch_size", 0)
    if isinstance(session.learner.experience, ReplaySpec) and size % number:
        raise ConfigError(f"agent.batch_size: got {size} for {number} shards; wanted a multiple of their number")
