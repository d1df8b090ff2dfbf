"""A session: the parts of a run in progress (agent, copies, generators, counters), their saving and restoring."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mlbits.agents.agent import (
    Agent,
    DatasetSpec,
    DivergedError,
    OutcomeSpec,
    ReplaySpec,
    Rollout,
    RolloutSpec,
    prefixed,
    unprefixed,
)
from mlbits.agents.exploration.explorer import refuse_turns
from mlbits.agents.memory.hindsight import HindsightReplay
from mlbits.agents.memory.outcomes import OutcomeReplay
from mlbits.agents.memory.replay import Replay, replay_bytes
from mlbits.agents.registry import agent_entry
from mlbits.envs.core.errors import MlbitsError
from mlbits.envs.doors.goals import goal_rule
from mlbits.envs.doors.gymnasium_batch import AnyBatch, GymnasiumBatch, device_for, open_batch, reward_threshold
from mlbits.envs.engine.batch import GameBatch
from mlbits.envs.engine.gpu_copies import check_cuda
from mlbits.envs.engine.memory import memory_bytes
from mlbits.selfplay.actors.actors import BLOCKS, Actors
from mlbits.selfplay.actors.checks import check_learner
from mlbits.selfplay.callbacks import Callbacks
from mlbits.selfplay.collector import Collector, Episodes
from mlbits.selfplay.finite import Guard, NotFiniteError, check_metrics, check_rollout
from mlbits.selfplay.league.opponents import Opponents
from mlbits.selfplay.lineup import Lineup, self_play
from mlbits.selfplay.runs.checkpoints import Checkpoint, CheckpointError
from mlbits.selfplay.runs.config import ConfigError, Settings
from mlbits.selfplay.runs.saved_agents import open_guest
from mlbits.selfplay.runs.stopping import reached

if TYPE_CHECKING:
    from mlbits.selfplay.curves.tracking import Tracker

# Separate random streams of one seed, so that more draws in one do not change another.
_ACTING, LEARNING = 1_000_003, 2_000_003
# What restoring may raise if names, shapes or kinds are not those of this run.
FOREIGN = (MlbitsError, LookupError, TypeError, ValueError, RuntimeError, ArithmeticError, AttributeError)
# An agent with a replay buffer learns every few steps: too often to log each time.
_RECORD_EVERY = 1000


@dataclass
class Counters:
    """How far a run is.

    Attributes:
        env_steps: environment steps so far, over all copies.
        iterations: iterations of the loop so far.
        wall_seconds: wall time over all processes of the run.
        cpu_seconds: CPU time over all processes of the run, imports included.
        solved_at: env_steps, wall_seconds and cpu_seconds when it was solved, or None.
        best_return_mean: best mean return of all evaluations, or None before the first.
        best_env_steps: env_steps of the best checkpoint, or None without one.
        evaluations_without_improvement: latest evaluations in a row whose mean return was no better than the best.
        evaluation: env_steps, return_mean, return_interval and episodes of the latest evaluation, or None.
        next_eval: env_steps at which the next evaluation is due.
        next_checkpoint: env_steps at which the next checkpoint is due.
        next_record: env_steps at which the next record is due.
        unrecorded_metrics: the learner's latest report since the last record.
        unrecorded_lengths: lengths of the episodes that ended since the last record.
    """

    env_steps: int = 0
    iterations: int = 0
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    solved_at: dict[str, float] | None = None
    best_return_mean: float | None = None
    best_env_steps: int | None = None
    evaluations_without_improvement: int = 0
    evaluation: dict[str, Any] | None = None
    next_eval: int = 0
    next_checkpoint: int = 0
    next_record: int = 0
    unrecorded_metrics: dict[str, Any] = field(default_factory=dict)
    unrecorded_lengths: list[int] = field(default_factory=list)

    def check(self) -> None:
        """Refuse a counter that is not of its kind, as a file may say.

        Raises:
            ValueError: naming it.
        """
        for name, value in vars(self).items():
            if not _FITS.get(type(getattr(_FRESH, name)), _is_optional)(value):
                raise ValueError(f"state.json: {name} is {value!r:.60}")

    def plain(self) -> dict[str, Any]:
        """The counters as plain data, by name."""
        return {**vars(self), "unrecorded_metrics": {name: float(v) for name, v in self.unrecorded_metrics.items()}}


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_optional(value: Any) -> bool:
    """Whether it may stand for what is not there at first: a number, or a table."""
    return value is None or _is_finite(value) or isinstance(value, dict)


_FRESH = Counters()
_FITS: dict[type, Callable[[Any], bool]] = {
    int: _is_count,
    float: _is_finite,
    list: lambda value: isinstance(value, list) and all(map(_is_count, value)),
    dict: lambda value: isinstance(value, dict) and all(map(_is_finite, value.values())),
}


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
        """Begin the first episodes, if :func:`open_session` has not; may compile the rules."""
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
            league = enumerate(zip(opponents.learners, opponents.ranges, strict=True))
            return [
                learner.learn(rollout.of_copies(*part), opponents.progress(number, now), self.learning)
                for number, (learner, part) in league
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
    def threshold(self) -> float | None:
        """The mean return that counts as solved; only for the environment's default settings."""
        return reward_threshold(self.settings.env) if not self.settings.env_settings else None


def open_session(settings: Settings, *, start: bool = True, shard: int = 0) -> Session:
    """Build everything that a run needs, or one of its shards.

    Args:
        settings: the run's settings.
        shard: of a run in several shards, the number of this one; the session then has its range of the copies.
        start: whether to begin the first episodes; if not, :meth:`Session.start` does, and nothing has been compiled
            when this returns.

    Raises:
        MlbitsError: naming the setting, space or device that does not fit.
    """
    run, shards = settings.run, settings.run.shards
    if run.data:
        from mlbits.selfplay.offline.session import open_offline

        return open_offline(settings)
    if shards > 1:  # from here on the shard is a run of its own
        run = replace(run, num_envs=run.num_envs // shards, shards=1, workers=1, env_workers=max(run.env_workers, 1))
        settings = replace(settings, run=run)
    device = device_for(run.device, settings.env)
    if device.type == "cuda":
        device = check_cuda(device)
    # Our policies mask, and never play an illegal action, so the loop need not check for them.
    batch = open_batch(
        settings.env, run.num_envs, device=device, seed=run.seed,
        settings=settings.env_settings, illegal="replace", training=True, recorded=True, start=start,
        workers=run.actors or run.env_workers, apart=run.actors > 0, steps=run.total_steps,
        first_copy=shard * run.num_envs,
    )  # fmt: skip
    entry = agent_entry(settings.agent)
    refuse_turns(settings.agent_config, settings.env, batch.active)

    def make(seed: int) -> Agent:
        spaces, game = (batch.observation_space, batch.action_space), getattr(batch, "game", None)
        agent: Agent = entry.make(settings.agent_config, *spaces, seed=seed, device=batch.device, game=game)
        return agent

    if batch.legal_mask is not None and not entry.masks:
        able = "ppo, dqn or reinforce"
        raise ConfigError(f"{settings.agent}: got {settings.env}, some of whose actions are illegal at times (action "
                          f"masks); wanted an environment without, or an agent such as {able}")  # fmt: skip
    learner = make(run.seed)
    if hasattr(learner, "prepare_to_learn"):
        learner.prepare_to_learn()
    opponents = open_opponents(settings, make, learner, batch, shard)
    if run.actors:
        check_learner(settings, learner)
    spec, rows = learner.experience, _rows_a_step(opponents, batch)
    if spec is None:
        raise ConfigError(f"{settings.agent}: got a bot, which does not learn; wanted an agent that does, such as ppo")
    if isinstance(spec, DatasetSpec):
        raise ConfigError(f"data: missing; {settings.agent} learns from a dataset: wanted its name or folder")
    if isinstance(spec, RolloutSpec) and spec.num_steps * rows < spec.min_rows:
        raise ConfigError(
            f"num_envs and agent.num_steps: a rollout has {spec.num_steps} x {rows} steps; {settings.agent} wants at "
            f"least {spec.min_rows} (for PPO its minibatches); wanted more copies or steps, or fewer minibatches"
        )
    if isinstance(spec, ReplaySpec):
        spec = spec._replace(capacity=spec.capacity // shards)
    acting = torch.Generator(batch.device).manual_seed(_stream(run.seed + _ACTING, shard))
    collector: Any = Collector(batch, spec, acting, blocks=BLOCKS if run.actors else 1)
    if run.actors:
        assert isinstance(batch, GymnasiumBatch)
        collector = Actors(batch, collector, learner, make(run.seed))
    if opponents is not None:
        opponents.on_restart = collector.forget_open  # the reset learner has no use for its old decisions
    session = Session(
        settings=settings,
        device=batch.device,
        batch=batch,
        learner=learner,
        lineup=self_play(learner, batch.num_envs, batch.num_seats, batch.device)
        if opponents is None
        else opponents.lineup,
        collector=collector,
        learning=torch.Generator(batch.device).manual_seed(_stream(run.seed + LEARNING, shard)),
        recent=deque(maxlen=run.solved_episodes),
        replay=None if isinstance(spec, RolloutSpec) else make_replay(spec, batch),
        opponents=opponents,
    )
    if run.actors:
        collector.ending = lambda steps: session.counters.env_steps + shards * steps >= run.total_steps
    return session


def _stream(seed: int, shard: int) -> int:
    """The seed of a shard's generator; the first shard has that of a run without shards."""
    return seed if shard == 0 else int(np.random.SeedSequence([seed, shard]).generate_state(1, np.uint64)[0] >> 1)


def open_opponents(
    settings: Settings, make: Callable[[int], Agent], learner: Agent, batch: AnyBatch, shard: int = 0
) -> Opponents | None:
    """The learner's opponents in training; None for pure self-play.

    Args:
        settings: the run's settings.
        make: makes a new agent from a seed.
        learner: the agent that learns.
        batch: the copies.
        shard: the number of the shard that they play in.

    Raises:
        ConfigError: for settings that do not fit.
        MlbitsError: for an opponent that is unknown, has not been trained, or cannot play this environment.
    """
    run = settings.run
    if not run.opponents and run.pool == "none":
        return None
    if batch.num_seats < 2:
        what = "opponents" if run.opponents else "pool"
        raise ConfigError(f"{what}: {settings.env} has one seat; wanted an environment with two or more")
    guests = [open_guest(name, settings.env, settings.env_settings, batch.device) for name in run.opponents]
    return Opponents(settings, make, learner, guests, batch.num_seats, batch.device, shard)


def _rows_a_step(opponents: Opponents | None, batch: AnyBatch) -> int:
    """The least number of rows (seats of copies) that a learner has."""
    if opponents is None:
        return batch.num_envs * batch.num_seats
    owned = opponents.lineup.learner_seats()
    return min(int(owned[first:last].sum()) for first, last in opponents.ranges)


def make_replay(spec: ReplaySpec | OutcomeSpec, batch: AnyBatch) -> Replay | OutcomeReplay:
    """The replay buffer that an agent asks for; refused where it does not fit into the machine's memory.

    Raises:
        ConfigError: naming the size that it would take.
        AgentError: if its capacity does not hold two rollouts.
    """
    if isinstance(spec, OutcomeSpec):
        return OutcomeReplay(spec, batch)
    layout = batch.action
    dtype = torch.float32 if layout.kind == "continuous" else torch.int64
    shape = (batch.num_envs, batch.num_seats, *layout.shape)
    action = torch.zeros(1, dtype=dtype, device=batch.device).expand(shape)
    stack = 1 if batch.active is not None else batch.frame_stack
    kept = (batch.obs, action, batch.legal_mask, stack)
    size, room = replay_bytes(spec, *kept), memory_bytes(batch.device)
    if size > room:
        most = int(spec.capacity * room / size)
        while most > 0 and replay_bytes(spec._replace(capacity=most), *kept) > room:  # not all of it grows with it
            most -= max(1, most // 10_000)
        raise ConfigError(
            f"agent.buffer_size: a replay buffer of {spec.capacity:,} transitions of this environment takes "
            f"{size / 2**30:,.1f} GiB, and there are {room / 2**30:,.1f} GiB; "
            f"wanted at most {most:,}, with room for the rest"
        )
    try:
        if spec.hindsight != "none":
            return HindsightReplay(spec, *kept, goals=goal_rule(batch))
        return Replay(spec, *kept)
    except (MemoryError, RuntimeError) as error:
        raise ConfigError(
            f"agent.buffer_size: a replay buffer of {spec.capacity:,} transitions takes {size / 2**30:,.1f} GiB, which "
            f"the machine does not grant ({str(error).splitlines()[0]}); wanted fewer"
        ) from None
