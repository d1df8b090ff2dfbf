"""Sessions of populations: an iteration plays whole episodes of many policies, each in copies of its own.

The copies are as many as the agent's settings say (``num_envs`` follows from them). Steps are those of the episodes.
The returns that count as the run's are those of the members as they are, not those of trials.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mlbits.agents.population.spec import Outcomes, Population, PopulationSpec
from mlbits.agents.registry import agent_entry
from mlbits.envs.doors.gymnasium_batch import AnyBatch, device_for, open_batch
from mlbits.envs.engine.gpu_copies import check_cuda
from mlbits.selfplay.collector import Episodes, Timing
from mlbits.selfplay.lineup import Lineup, self_play
from mlbits.selfplay.memories import Memories
from mlbits.selfplay.population.heat_map import heat_map
from mlbits.selfplay.population.members import policy_agent, write_members
from mlbits.selfplay.population.playing import play
from mlbits.selfplay.runs.config import ConfigError, RunConfig, Settings
from mlbits.selfplay.session import Session, open_session
from mlbits.selfplay.session.opening import ACTING, LEARNING

if TYPE_CHECKING:
    from mlbits.selfplay.curves.tracking import Tracker

_UNUSED: dict[str, Any] = {"opponents": (), "pool": "none", "data": ""}


class Players:
    """Plays the policies that a population asks for; stands where other sessions have their collector.

    Args:
        batch: the copies.
        population: the learner.
        env: the environment's id, for messages.
        generator: for the policies and the states that are kept.

    Attributes:
        timing: wall seconds spent in each part.
        check: of a collector; steps are checked as they are played.
    """

    def __init__(self, batch: AnyBatch, population: Population, env: str, generator: torch.Generator) -> None:
        self.batch, self.population, self.env, self.generator = batch, population, env, generator
        self.timing = Timing()
        self.check: Any = None
        # Between two iterations no episode is under way.
        self.episode_return, self.episode_length = np.zeros(batch.num_envs), np.zeros(batch.num_envs, np.int64)
        self.memories = Memories(batch.num_envs, batch.num_seats, batch.device)

    def collect(self, lineup: Lineup, reseat: Any = None) -> tuple[Outcomes, Episodes, int]:
        """What the policies did, the episodes of the members as they are, and the steps of all."""
        spec, began = self.population.experience, time.perf_counter()
        outcomes = play(
            self.population.policies, self.population.ask(self.generator), self.batch, env=self.env,
            episodes=spec.episodes, max_steps=spec.max_steps, states=spec.states, generator=self.generator,
        )  # fmt: skip
        self.timing.environment += time.perf_counter() - began
        returns, lengths = outcomes.each[-spec.measured :].cpu(), outcomes.lengths[-spec.measured :].cpu()
        episodes = Episodes(returns.flatten().numpy(), lengths.flatten().numpy())
        return outcomes, episodes, int(outcomes.lengths.sum())

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Nothing: no episode is under way."""
        return {}

    def load_state_dict(self, state: Any) -> None:
        """Nothing to restore."""


class MembersSession(Session):
    """A session whose learner is a population; each member is written as an agent of its own."""

    def evaluated(self, folder: Path) -> None:
        """Write the members."""
        self.write_members(folder)

    def about(self, folder: Path) -> dict[str, Any]:
        """The members' files, the best one, and their returns when last played."""
        learner: Any = self.learner
        paths = [str(path) for path in self.write_members(folder)]
        return {"members": paths, "best_member": learner.best, "member_returns": self._returns()}

    def write_members(self, folder: Path) -> list[Path]:
        """Write a file for each member."""
        learner: Any = self.learner
        spaces = self.batch.observation_space, self.batch.action_space
        agents = [policy_agent(learner.policies, row, *spaces) for row in learner.member_weights().cpu()]
        return write_members(folder, self.settings, agents, self._returns())

    def _returns(self) -> list[float]:
        learner: Any = self.learner
        return [value if math.isfinite(value) else 0.0 for value in learner.returns.tolist()]


class PopulationSession(MembersSession):
    """A session whose learner is a population that learns from whole episodes."""

    @property
    def population(self) -> Population:
        """The learner."""
        learner: Any = self.learner
        return learner

    def evaluates_itself(self, tracker: Tracker) -> bool:
        """Show the archive, if the learner has one; False, as episodes of the best member are played too."""
        archive = getattr(self.learner, "heat_map", None)
        if archive is not None and self.settings.run.video:
            tracker.picture(self.counters.env_steps, [heat_map(archive())], name="archive")
        return False

    def steps_of(self, rollout: Any) -> int:
        """Steps of all episodes."""
        return int(rollout.lengths.sum())


def check_unused(settings: Settings) -> None:
    """Refuse settings of runs that populations have no use for.

    Raises:
        ConfigError: naming the first one.
    """
    for name, usual in _UNUSED.items():
        if getattr(settings.run, name) != usual:
            raise ConfigError(
                f"{name}: got {getattr(settings.run, name)!r}; {settings.agent} is a population that plays alone: "
                "wanted none"
            )


def _of_steps(settings: Settings, start: bool) -> MembersSession:
    """The session of a population whose members play their shares of the copies, and learn from a replay buffer."""
    members, copies = settings.agent_config.population, settings.run.num_envs
    if copies < members:
        raise ConfigError(f"num_envs: got {copies}; wanted at least a copy for each of {members} members")
    session = open_session(settings, start=start)
    check_seats(session)
    return MembersSession(**{field.name: getattr(session, field.name) for field in dataclasses.fields(session)})


def check_seats(session: Session) -> None:
    """Refuse a game of several seats.

    Raises:
        ConfigError: naming it.
    """
    settings, seats = session.settings, session.batch.num_seats
    if seats > 1:
        raise ConfigError(
            f"env: got {settings.env} with {seats} seats; {settings.agent} learns in environments with one"
        )


def open_population_session(settings: Settings, *, start: bool = True) -> Session:
    """Build everything that a run of a population needs.

    Args:
        settings: of the run.
        start: whether to begin the first episodes now.

    Raises:
        MlbitsError: naming the setting, space or device that does not fit.
    """
    check_unused(settings)
    if not hasattr(settings.agent_config, "num_envs"):
        return _of_steps(settings, start)
    run = settings.run
    needed = int(settings.agent_config.num_envs)
    if run.num_envs not in (needed, RunConfig().num_envs):
        raise ConfigError(
            f"num_envs: got {run.num_envs}; {settings.agent} plays {needed} episodes at a time, as its own settings "
            "say: wanted that, or nothing"
        )
    run = dataclasses.replace(run, num_envs=needed)
    settings = dataclasses.replace(settings, run=run)
    device = device_for(run.device, settings.env)
    if device.type == "cuda":
        device = check_cuda(device)
    batch = open_batch(
        settings.env, run.num_envs, device=device, seed=run.seed, settings=settings.env_settings, illegal="replace",
        training=True, recorded=True, start=start, workers=run.env_workers, steps=run.total_steps,
    )  # fmt: skip
    learner: Any = agent_entry(settings.agent).make(
        settings.agent_config, batch.observation_space, batch.action_space, seed=run.seed, device=batch.device
    )
    spec: PopulationSpec = learner.experience
    assert spec.policies * spec.episodes == needed
    acting = torch.Generator(batch.device).manual_seed(run.seed + ACTING)
    players: Any = Players(batch, learner, settings.env, acting)
    session = PopulationSession(
        settings=settings,
        device=batch.device,
        batch=batch,
        learner=learner,
        lineup=self_play(learner, batch.num_envs, batch.num_seats, batch.device),
        collector=players,
        learning=torch.Generator(batch.device).manual_seed(run.seed + LEARNING),
        recent=deque(maxlen=run.solved_episodes),
    )
    check_seats(session)
    return session
