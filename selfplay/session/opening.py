"""Opening a session: from a run's settings its copies, agent, opponents, replay buffer and random streams."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from mlbits.agents.agent import Agent, DatasetSpec, OutcomeSpec, ReplaySpec, RolloutSpec
from mlbits.agents.exploration.explorer import refuse_turns
from mlbits.agents.memory.hindsight import HindsightReplay
from mlbits.agents.memory.outcomes import OutcomeReplay
from mlbits.agents.memory.replay import Replay, replay_bytes
from mlbits.agents.registry import agent_entry
from mlbits.envs.doors.goals import goal_rule
from mlbits.envs.doors.gymnasium_batch import AnyBatch, GymnasiumBatch, device_for, open_batch
from mlbits.envs.engine.gpu_copies import check_cuda
from mlbits.envs.engine.memory import memory_bytes
from mlbits.selfplay.actors.actors import BLOCKS, Actors
from mlbits.selfplay.actors.checks import check_learner
from mlbits.selfplay.collector import Collector
from mlbits.selfplay.league.learners import learner_groups
from mlbits.selfplay.league.opponents import Opponents
from mlbits.selfplay.lineup import self_play
from mlbits.selfplay.runs.config import ConfigError, Settings
from mlbits.selfplay.runs.saved_agents import open_guest
from mlbits.selfplay.session.session import Session

# Separate random streams of one seed, so that more draws in one do not change another.
ACTING, LEARNING = 1_000_003, 2_000_003


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
    own = next(group.learners for group in learner_groups(run) if shard in group.shards)
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
    opponents = open_opponents(settings, make, learner, batch, shard, own)
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
    acting = torch.Generator(batch.device).manual_seed(_stream(run.seed + ACTING, shard))
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
    settings: Settings, make: Callable[[int], Agent], learner: Agent, batch: AnyBatch, shard: int = 0,
    own: range | None = None,
) -> Opponents | None:  # fmt: skip
    """The learner's opponents in training; None for pure self-play.

    Args:
        settings: the run's settings.
        make: makes a new agent from a seed.
        learner: the agent that learns.
        batch: the copies.
        shard: the number of the shard that they play in.
        own: the numbers of a league's learners that learn in this shard; None for all.

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
    return Opponents(settings, make, learner, guests, batch.num_seats, batch.device, shard, own)


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
