"""A session: the parts of a run in progress (agent, copies, generators, counters), their saving and restoring."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mlbits.agents.agent import Agent, DivergedError, Rollout, prefixed, unprefixed
from mlbits.agents.memory.outcomes import OutcomeReplay
from mlbits.agents.memory.replay import Replay
from mlbits.envs.core.errors import MlbitsError
from mlbits.envs.doors.gymnasium_batch import AnyBatch, reward_threshold
from mlbits.envs.engine.batch import GameBatch
from mlbits.selfplay.actors.actors import Actors
from mlbits.selfplay.callbacks import Callbacks
from mlbits.selfplay.collector import Collector, Episodes
from mlbits.selfplay.finite import Guard, NotFiniteError, check_metrics, check_rollout
from mlbits.selfplay.league.opponents import Opponents
from mlbits.selfplay.lineup import Lineup
from mlbits.selfplay.runs.checkpoints import Checkpoint, CheckpointError
from mlbits.selfplay.runs.config import Settings
from mlbits.selfplay.runs.stopping import reached
from mlbits.selfplay.session.counters import Counters

if TYPE_CHECKING:
    from mlbits.selfplay.curves.tracking import Tracker

# What restoring may raise if names, shapes or kinds are not those of this run.
FOREIGN = (MlbitsError, LookupError, TypeError, ValueError, RuntimeError, ArithmeticError, AttributeError)
# An agent with a replay buffer learns every few steps: too often to log each time.
_RECORD_EVERY = 1000


class Measured(NamedTuple):
    """Measurements of a run besides its return.

    Attributes:
        scalars: numbers by TensorBoard's names.
        pictures: images uint8 [H, W, 3] by TensorBoard's names.
        summary: plain data for the run's summary, under "measured".
    """

    scalars: Mapping[str, float]
    pictures: Mapping[str, np.ndarray]
    summary: Mapping[str, Any] = {}


Measure = Callable[["Session"], Measured]


@dataclass
class Session:
    """The agent, its copies, its random streams and its counters.

    Attributes:
        settings: the run's settings.
        device: device of all tensors.
        batch: the copies.
        learner: the agent that learns.
        lineup: the lineup at the start of the next rollout.
        collector: plays rollouts.
        learning: generator for shuffling and sampling in updates, on the device.
        recent: returns of the latest training episodes.
        replay: the replay buffer, for an agent that learns from one; else None.
        opponents: the opponents besides the learner itself, or None.
        measure: called at every evaluation for more to record, or None.
        callbacks: called while the run is under way, or None.
        stopped: why a callback has ended the run, "" if none has.
        counters: how far the run is.
        cut_due: whether the replay buffer has to note, after the next rollout, that copies were started again there.
        at: in a shard of a run, the fraction of the run that is over; None elsewhere, where the counters say it.
        guard: refuses learners that are no longer finite.
    """

    settings: Settings
    device: torch.device
    batch: AnyBatch
    learner: Agent
    lineup: Lineup
    collector: Collector
    learning: torch.Generator
    recent: deque[float]
    replay: Replay | OutcomeReplay | None = None
    opponents: Opponents | None = None
    measure: Measure | None = None
    callbacks: Callbacks | None = None
    stopped: str = ""
    counters: Counters = field(default_factory=Counters)
    cut_due: bool = False
    at: float | None = None

    def __post_init__(self) -> None:
        self.guard = Guard(self.learner.state_dict())
        self.collector.check = self._check_rollout

    @property
    def finished(self) -> bool:
        """Whether the run has all its steps or all its time, or ends early: see :attr:`why_early`."""
        return self.progress >= 1 or bool(self.why_early)

    @property
    def why_early(self) -> str:
        """Why the run ends with steps left: a callback, or a setting such as ``stop_when_solved``; or ""."""
        return self.stopped or reached(self.settings.run, vars(self.counters))

    @property
    def progress(self) -> float:
        """The fraction of the run that is over, of its steps or of its time, whichever is more."""
        if self.at is not None:
            return self.at
        run, counters = self.settings.run, self.counters
        spent = counters.cpu_seconds / (60 * run.max_cpu_minutes) if run.max_cpu_minutes > 0 else 0.0
        return max(counters.env_steps / run.total_steps, spent)

    @property
    def plays_evaluations(self) -> bool:
        """Whether the agent plays evaluation episodes during the run and at its end."""
        return True

    def evaluates_itself(self, tracker: Tracker) -> bool:
        """Evaluate in a way of the session's own, if it has one; False where episodes are to be played."""
        return False

    @property
    def worker_processes(self) -> list[int]:
        """The ids of the other processes of this run on this machine."""
        return []

    @property
    def restarts(self) -> int:
        """How often they were started again."""
        return 0

    @property
    def losing(self) -> str:
        """Which of the other processes are about to leave, in words; "" if none is."""
        return ""

    @property
    def workers_cpu_seconds(self) -> float:
        """CPU time that other processes have spent on this run."""
        return 0.0

    def record(self) -> dict[str, float]:
        """More to record beside the training's curves, by TensorBoard's names."""
        return {}

    def again(self, lost: MlbitsError) -> Session:
        """A new session after the loss of other processes."""
        raise lost

    def close(self) -> None:
        """End what runs beside this process."""
        if isinstance(self.collector, Actors):
            self.collector.close()

    def evaluated(self, folder: Path) -> None:
        """Called after each evaluation, which is in the counters."""

    def about(self, folder: Path) -> dict[str, Any]:
        """Plain data about the run for its summary."""
        return {}

    @property
    def record_every(self) -> int:
        """Environment steps between records; 0 records after every update."""
        return self.settings.run.record_every or (_RECORD_EVERY if self.replay is not None else 0)

    def start(self) -> None:
        """Begin the first episodes, if they have not begun as it was opened; may compile the rules."""
        if isinstance(self.batch, GameBatch):
            self.batch.reset(seed=self.settings.run.seed)

    def collect(self) -> tuple[Any, Episodes, int]:
        """Draw a lineup and play a rollout; see :meth:`~mlbits.selfplay.collector.Collector.collect`.

        Raises:
            NotFiniteError: if the environment returned a number that is not finite.
        """
        opponents = self.opponents
        if opponents is None:
            found = self.collector.collect(self.lineup)
        else:
            opponents.draw()
            found = self.collector.collect(opponents.lineup, opponents.reseat if opponents.pooled else None)
            self.lineup = opponents.lineup
        return found

    def _check_rollout(self, rollout: Rollout, ended: bool) -> None:
        check_rollout(rollout, ended, self.settings.env, self.counters.env_steps)

    def steps_of(self, rollout: Any) -> int:
        """By how many steps what :meth:`collect` returned advances the run."""
        return int(rollout.reward.shape[0] * rollout.reward.shape[1])

    def learn(self, rollout: Any) -> Mapping[str, Any]:
        """Update the learner from a rollout, or from the replay buffer after adding it; returns its metrics.

        In a league each learner learns from its own copies; the metrics are the first one's.

        Raises:
            NotFiniteError: if a loss, an error or a gradient is not finite.
        """
        env_steps = self.counters.env_steps + self.steps_of(rollout)
        try:
            every = self._learn(rollout)
        except DivergedError as error:
            raise NotFiniteError.of_learning(self.settings.env, error, env_steps) from None
        for metrics in every:
            check_metrics(metrics, self.settings.env, env_steps)
        return every[0]

    def check_weights(self) -> None:
        """Check that every learner's state is finite.

        Raises:
            NotFiniteError: naming the first tensor that is not.
        """
        learners = [self.learner] if self.opponents is None else self.opponents.learners
        for learner in learners:
            self.guard.check(learner.state_dict(), self.settings.env, self.counters.env_steps)

    def _learn(self, rollout: Any) -> list[Mapping[str, Any]]:
        """Each learner's metrics."""
        if self.opponents is not None and len(self.opponents.learners) > 1:
            opponents, now = self.opponents, self.counters.env_steps
            return [
                opponents.learners[number].learn(
                    rollout.of_copies(*part), opponents.progress(number, now), self.learning
                )
                for number, part in zip(opponents.own, opponents.ranges, strict=True)
            ]
        experience: Any = rollout
        if self.replay is not None:
            self.replay.add(rollout)
            if self.cut_due:
                self.replay.cut()
                self.cut_due = False
            experience = self.replay
        return [self.learner.learn(experience, min(self.progress, 1.0), self.learning)]

    def belongs_to(self) -> dict[str, Any]:
        """Facts that have to be the same in a checkpoint for this run to load it."""
        settings = self.settings
        plain = json.loads(json.dumps(settings.to_json()))
        facts: dict[str, Any] = {
            "agent": settings.agent,
            "env": settings.env,
            "agent_config": plain["agent_config"],
            "env_settings": plain["env_settings"],
            "num_envs": settings.run.num_envs,
            "seed": settings.run.seed,
        }
        if isinstance(self.batch, GameBatch):
            facts["state_dtype"] = str(self.batch.game.state_dtype.descr)
        if settings.run.actors:
            facts["policies_behind"] = 1
        return facts

    def to_checkpoint(self) -> Checkpoint:
        """Everything needed to continue the run."""
        arrays: dict[str, Tensor] = {
            "acting": self.collector.generator.get_state(),
            "learning": self.learning.get_state(),
            "recent": torch.tensor(list(self.recent), dtype=torch.float64),
            **self.collector.state_dict(),
        }
        if isinstance(self.batch, GameBatch):
            arrays["environment"] = self.batch.state()
        else:
            arrays |= prefixed("copies", self.batch.state_dict())
        if self.replay is not None:
            arrays |= prefixed("replay", self.replay.state_dict())
        state = self.counters.plain()
        if self.opponents is not None:
            arrays |= prefixed("opponents", self.opponents.arrays())
            state["opponents"] = self.opponents.state()
        return Checkpoint(self.learner.state_dict(), arrays, state)

    def from_checkpoint(
        self, checkpoint: Checkpoint, folder: Path, say: Callable[[str], None] = lambda text: None
    ) -> None:
        """Restore a checkpoint of this run.

        Args:
            checkpoint: the checkpoint.
            folder: the run's folder.
            say: called with lines for the user, about wrapped environments that are slow or impossible to restore.

        Raises:
            CheckpointError: if it lacks what this version of mlbits needs, or a frozen copy that it names is damaged;
                another checkpoint can be restored then.
        """
        try:
            self.learner.load_state_dict(checkpoint.weights)
            arrays = checkpoint.arrays
            self.collector.generator.set_state(arrays["acting"])
            self.learning.set_state(arrays["learning"])
            self.recent.clear()
            self.recent.extend(arrays["recent"].tolist())
            self.collector.load_state_dict(arrays)
            state = dict(checkpoint.state)
            met = state.pop("opponents", None)
            self.counters = Counters(**state)
            self.counters.check()
            if self.opponents is not None and (met is not None or self.opponents.pooled):
                if met is None:  # only runs with guests alone may lack it: older versions did not save it
                    raise KeyError("opponents")
                self.opponents.load(folder, unprefixed("opponents", arrays), met)
                self.lineup = self.opponents.lineup
            if self.replay is not None:
                self.replay.load_state_dict(unprefixed("replay", arrays))
            if isinstance(self.batch, GameBatch):
                self.batch.set_state(arrays["environment"])
            elif copies := unprefixed("copies", arrays):
                self._anew(self.batch.load_state_dict(copies, say))
            else:  # saved by mlbits 0.1, which started all episodes anew at every checkpoint
                self._anew(list(range(self.batch.num_envs)))
            self.check_weights()
        except CheckpointError as error:
            raise CheckpointError(f"step {checkpoint.state['env_steps']}: {error}") from None
        except FOREIGN as error:
            raise CheckpointError(
                f"step {checkpoint.state['env_steps']}: foreign: the checkpoint lacks what this run needs "
                f"({str(error)[:500]})"
            ) from None

    def _anew(self, copies: list[int]) -> None:
        """Forget the unfinished episodes of copies whose episodes were started again."""
        ahead = isinstance(self.collector, Actors) and self.collector.ahead is not None
        self.cut_due = ahead and bool(copies)
        if copies:
            self.collector.episode_return[copies] = 0
            self.collector.episode_length[copies] = 0
            for copy in copies:
                self.collector.memories.forget(copy, copy + 1)
            if self.replay is not None and not self.cut_due:
                self.replay.cut()

    @property
    def player(self) -> Agent:
        """The learner as it plays outside training: in evaluations, and once it is trained."""
        outside = getattr(self.learner, "outside_training", None)
        found: Agent = self.learner if outside is None else outside()
        return found

    @property
    def threshold(self) -> float | None:
        """The mean return that counts as solved; only for the environment's default settings."""
        return reward_threshold(self.settings.env) if not self.settings.env_settings else None
