"""Opponents: frozen copies of the learners, fixed guests, and which of them each copy of the environment plays next.

A pool (``RunConfig.pool``) takes in a frozen copy of the learner every ``pool_every`` steps, the first before any
learning. One fraction of the environment's copies plays against ``opponents`` (bots, runs, models), one against the
pool, and the rest is self-play. In the pool's copies the learner has one seat, a different one from copy to copy, and
the opponents in the other seats are drawn again when an episode ends:

| pool | who is drawn |
|---|---|
| latest | the newest copy |
| uniform | any copy: fictitious play over the learner's history |
| pfsp | more often those that the learner wins least against, see :mod:`mlbits.selfplay.league.matchmaking` |
| league | AlphaStar's league of several learners, each with copies of its own |

Before each rollout every learner draws ``pool_draws`` opponents, and its copies use only these, so that few networks
run in a step however large the pool is.

Frozen copies are deep copies that never learn. Each is written once into the run's ``pool`` folder, in a file named by
its number and the beginning of the hash of its content, so that no copy is ever written over another. The results of
all games are kept in :class:`~mlbits.selfplay.league.win_rates.Payoffs`. A checkpoint holds all of it, with the random
state and the seating of unfinished episodes.

In a league, schedules that decay over a run (learning rates, exploration) decay over an exploiter's own lifetime, which
starts again when it is reset: a main exploiter is reset when it is frozen, after twice ``pool_every`` steps at the
latest; a league exploiter mostly continues after being frozen, and its lifetime ends with the run. See
:meth:`Opponents.progress`.

Example:
    mlbits train ppo mlbits/Blotto-v0 --pool uniform --pool-every 20000
    mlbits train ppo mlbits/Blotto-v0 --pool league --main-exploiters 1 --league-exploiters 2
    mlbits train ppo mlbits/Blotto-v0 --opponents random runs/mine model.zip --opponent-fraction 0.3
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlbits.agents.agent import Agent, RolloutSpec, content_hash, prefixed, split_optimizers, unprefixed
from mlbits.envs.engine.on_host import to_device
from mlbits.selfplay.collector import Episodes
from mlbits.selfplay.finite import Guard
from mlbits.selfplay.league.learners import learner_names, roles_of
from mlbits.selfplay.league.matchmaking import Player, is_ripe, league_match, pfsp
from mlbits.selfplay.league.win_rates import Payoffs
from mlbits.selfplay.lineup import Lineup
from mlbits.selfplay.runs.checkpoints import CheckpointError, make_folder, write_file
from mlbits.selfplay.runs.config import ConfigError, Settings
from mlbits.selfplay.runs.saved_agents import SUFFIX, SavedAgentError, copy_bytes, read_copy

POOL = "pool"
_MATCHMAKING, _RESTARTS = 3_000_003, 4_000_003
_SHORT = 12  # digits of a copy's hash in its file's name
# Probability that a league exploiter is reset once it is frozen (AlphaStar's).
_RESTART = 0.25


@dataclass(frozen=True, slots=True)
class FrozenCopy:
    """A member of the pool.

    Attributes:
        number: its number in lineups and payoffs.
        parent: the number of the learner that it is a copy of.
        env_steps: environment steps of the run when it was made.
        hash: hash of its content.
        file: name of its file in the run's ``pool`` folder.
    """

    number: int
    parent: int
    env_steps: int
    hash: str
    file: str


class Opponents:
    """The opponents of the learners.

    Args:
        settings: the run's settings.
        make: makes a new agent from a seed.
        learner: the first learner, a main agent.
        guests: the loaded agents of ``RunConfig.opponents``.
        num_seats: P.
        device: device of the agents.
        shard: the number of the shard whose copies they play in; each draws opponents of its own.
        own: the numbers of the learners that learn from these copies; None for all. Others learn from other shards, and
            play here as they were when all met last (:meth:`meet`).

    Attributes:
        learners: the agents that learn; the first is the run's agent.
        own: the numbers of those that learn here.
        ranges: of each of these, the first of its copies and the last + 1.
        agents: all agents by number: learners, guests, frozen copies.
        names: their names by number.
        copies: the frozen ones, oldest first.
        payoffs: results of all pairs.
        lineup: the current lineup.

    Raises:
        ConfigError: if fractions add up to more than 1 or round to no copy, there are fewer copies than learners, or a
            league's agents do not learn from rollouts.
    """

    def __init__(
        self, settings: Settings, make: Callable[[int], Agent], learner: Agent, guests: Sequence[Agent],
        num_seats: int, device: torch.device, shard: int = 0, own: range | None = None,
    ) -> None:  # fmt: skip
        run = settings.run
        self._settings, self._make, self._device = settings, make, device
        self.roles = roles_of(run)
        self.own = range(len(self.roles)) if own is None else own
        _check(settings, learner, len(self.own), len(self.roles))
        self._seeds = [run.seed, *(run.seed + 7919 * k for k in range(1, len(self.roles)))]
        self.learners: list[Agent] = [learner, *(make(seed) for seed in self._seeds[1:])]
        self.agents: list[Agent] = [*self.learners, *guests]
        self._guests = [content_hash(guest) for guest in guests]
        self.names = [*learner_names(self.roles), *run.opponents]
        self.copies: list[FrozenCopy] = []
        self.payoffs = Payoffs(len(self.agents))
        self._frozen_at = [0] * len(self.learners)
        self._born_at = [0] * len(self.learners)
        self._generator = np.random.default_rng([run.seed, _MATCHMAKING, *([shard] if shard else [])])
        self._written: set[str] = set()
        self._met: Mapping[int, Mapping[str, Tensor]] = {}
        # Called with the range of copies, first and last + 1, whose learner was reset.
        self.on_restart: Callable[[int, int], None] = lambda first, last: None
        self._divide_copies(num_seats, len(guests))
        self._draws = np.zeros((len(self.learners), run.pool_draws), np.int64)
        if self.pooled:
            for number in range(len(self.learners)):
                self.freeze(number, 0)
            self.draw()
            self._seat(np.flatnonzero(self._drawn))
        self.lineup = self._new_lineup()

    @property
    def pooled(self) -> bool:
        """Whether there is a pool."""
        return self._settings.run.pool != "none"

    def _divide_copies(self, num_seats: int, guests: int) -> None:
        """Give each learner of this shard a range of copies, and divide it between guests, the pool and self-play."""
        run = self._settings.run
        count = len(self.learners)
        bounds = [round(k * run.num_envs / len(self.own)) for k in range(len(self.own) + 1)]
        self.ranges = list(itertools.pairwise(bounds))
        self._owner = np.zeros(run.num_envs, np.int64)
        self._own_seat = np.zeros(run.num_envs, np.int64)
        self._drawn = np.zeros(run.num_envs, bool)
        seating = np.zeros((run.num_envs, num_seats), np.int64)
        guest_fraction = run.opponent_fraction if guests else 0.0
        pool_fraction = {"none": 0.0, "league": 1 - guest_fraction}.get(run.pool, run.pool_fraction)
        for learner, (first, last) in zip(self.own, self.ranges, strict=True):
            size = last - first
            with_guests = [first + round(size * guest_fraction * k / max(guests, 1)) for k in range(guests + 1)]
            end = first + round(size * (guest_fraction + pool_fraction))
            self._owner[first:last] = learner
            self._own_seat[first:last] = np.arange(size) % num_seats
            seating[first:last] = learner
            for guest, (low, high) in enumerate(itertools.pairwise(with_guests)):
                seating[low:high] = count + guest
                self._own_seat[low:high] = np.arange(high - low) % num_seats
                seating[np.arange(low, high), self._own_seat[low:high]] = learner
            self._drawn[with_guests[-1] : end] = True
        self._seating = seating
        for guest, name in enumerate(run.opponents):
            if guest_fraction > 0 and not (seating == count + guest).any():
                raise ConfigError(
                    f"opponent_fraction: got {guest_fraction:g} of {run.num_envs} copies, which leaves none for "
                    f"{name}; wanted a larger fraction, or more copies (num_envs)"
                )
        if pool_fraction > 0 and not all(self._drawn[first:last].any() for first, last in self.ranges):
            raise ConfigError(
                f"pool_fraction: got {pool_fraction:g} of {run.num_envs} copies, which leaves none for the pool; "
                "wanted a larger fraction, or more copies (num_envs)"
            )

    def draw(self) -> None:
        """Draw the opponents of the next rollout."""
        if not self.pooled:
            return
        run, players = self._settings.run, self._players()
        for number in self.own:
            if run.pool == "league":
                drawn = [
                    league_match(players[number], players, self.payoffs, self._generator) for _ in range(run.pool_draws)
                ]
            else:
                drawn = self._draw_copies(number)
            self._draws[number] = drawn

    def _draw_copies(self, learner: int) -> Any:
        run, numbers = self._settings.run, [copy.number for copy in self.copies]
        if run.pool == "latest":
            return numbers[-1]
        if run.pool == "uniform":
            return self._generator.choice(numbers, run.pool_draws)
        chances = pfsp(self.payoffs.win_rate(learner)[numbers], run.pool_weighting)
        return self._generator.choice(numbers, run.pool_draws, p=chances)

    def reseat(self, ended: Tensor) -> Lineup:
        """The lineup after the episodes of some copies, bool [B], have ended."""
        copies = np.flatnonzero(ended.cpu().numpy() & self._drawn)
        if len(copies):
            self._seat(copies)
            self.lineup = self._new_lineup()
        return self.lineup

    def _seat(self, copies: Any) -> None:
        """Give every seat of these copies, except the learner's own, to one of its drawn opponents."""
        owner, seating = self._owner[copies], self._seating.copy()
        which = self._generator.integers(self._draws.shape[1], size=(len(copies), seating.shape[1]))
        seating[copies] = self._draws[owner[:, None], which]
        seating[copies, self._own_seat[copies]] = owner
        self._seating = seating

    def _new_lineup(self) -> Lineup:
        place = self._device
        owner = to_device(self._owner, place) if len(self.learners) > 1 else None
        return Lineup(tuple(self.agents), to_device(self._seating, place), owner, self._seating)

    def note(self, episodes: Episodes, env_steps: int) -> None:
        """Add the results of a rollout, and freeze the learners that are due.

        Args:
            episodes: those that ended in it.
            env_steps: environment steps of the run, including that rollout.
        """
        if episodes.seating is not None and episodes.seat_returns is not None:
            self.payoffs.add(episodes.seating, episodes.seat_returns)
        if not self.pooled:
            return
        run = self._settings.run
        for number in range(len(self.learners)):
            passed = env_steps - self._frozen_at[number]
            if run.pool == "league":
                players = self._players()
                due = is_ripe(players[number], players, self.payoffs, passed, run.pool_every)
            else:
                due = passed >= run.pool_every
            if due:
                self.freeze(number, env_steps)
                self._restart(number, env_steps)
        self._met = {}

    def learned(self) -> dict[int, dict[str, Tensor]]:
        """What the learners of this shard have learned by now, by number: their states without optimisers."""
        return {number: split_optimizers(self.learners[number].state_dict())[0] for number in self.own}

    def meet(self, states: Mapping[int, Mapping[str, Tensor]]) -> None:
        """Meet the learners of all shards: those of others play here by what they have learned.

        Where a copy is frozen by the next :meth:`note`, it is of these states, so that it is the same in all shards.

        Args:
            states: from :meth:`learned`, by number.
        """
        for number, state in states.items():
            if number not in self.own:
                learner = self.learners[number]
                learner.load_state_dict({**state, **split_optimizers(learner.state_dict())[1]})
        self._met = states

    def freeze(self, learner: int, env_steps: int) -> None:
        """Add a deep copy of a learner to the pool: its weights, with optimisers that have not begun.

        Raises:
            NotFiniteError: if its state contains NaN or infinity.
        """
        agent, living = self._make(self._seeds[learner]), self.agents[learner]
        fresh = agent.state_dict()
        weights = self._met[learner] if learner in self._met else split_optimizers(living.state_dict())[0]
        state = {key: value.detach().clone() for key, value in weights.items()}
        Guard(fresh).check(state, self._settings.env, env_steps)
        agent.load_state_dict(state | split_optimizers(fresh)[1])
        number = self.payoffs.admit(learner)
        content = content_hash(agent)
        file = f"copy-{len(self.copies):04d}-{content[:_SHORT]}{SUFFIX}"
        self.copies.append(FrozenCopy(number, learner, env_steps, content, file))
        self.agents.append(agent)
        self.names.append(f"{self.names[learner]}@{env_steps}")
        self._frozen_at[learner] = env_steps

    def _restart(self, learner: int, env_steps: int) -> None:
        """Reset frozen exploiters to their first weights: main exploiters always, league exploiters at random."""
        role = self.roles[learner]
        draws = np.random.default_rng([self._settings.run.seed, _RESTARTS, learner, env_steps])  # equal in all shards
        if role == "main" or (role == "league_exploiter" and draws.random() >= _RESTART):
            return
        fresh = self._make(self._seeds[learner])
        self.learners[learner] = self.agents[learner] = fresh
        self.payoffs.forget(learner)
        self._born_at[learner] = env_steps
        self.lineup = self._new_lineup()
        if learner in self.own:
            self.on_restart(*self.ranges[self.own.index(learner)])

    def progress(self, learner: int, env_steps: int) -> float:
        """How far a learner is through its lifetime, 0..1, as used by its schedules.

        A main agent's lifetime is the run. An exploiter's starts when it is reset. AlphaStar kept learning rates
        constant, so that the length is our choice: a main exploiter is reset after ``2 * pool_every`` steps at the
        latest; a league exploiter mostly continues, and its schedules end only with the run.

        Args:
            learner: its number.
            env_steps: environment steps of the run.
        """
        run, role = self._settings.run, self.roles[learner]
        born = 0 if role == "main" else self._born_at[learner]
        left = run.total_steps - born
        life = min(left, 2 * run.pool_every) if role == "main_exploiter" else left
        return min(1.0, (env_steps - born) / max(life, 1))

    def _players(self) -> list[Player]:
        learners = [Player(number, role) for number, role in enumerate(self.roles)]
        return [*learners, *(Player(copy.number, self.roles[copy.parent], copy.parent) for copy in self.copies)]

    def record(self) -> dict[str, float]:
        """Scalars for TensorBoard: the pool's size, and the first learner's results against it."""
        if not self.copies:
            return {}
        won = self.payoffs.win_rate(0)[[copy.number for copy in self.copies]]
        return {
            "pool/size": float(len(self.copies)),
            "pool/win_rate": float(won.mean()),
            "pool/win_rate_min": float(won.min()),
        }

    def write(self, folder: Path) -> None:
        """Write the frozen copies that are not on disk yet, each whole or not at all.

        Args:
            folder: the run's folder.

        Raises:
            CheckpointError: if they cannot be written.
        """
        for copy in self.copies:
            if copy.file in self._written:
                continue
            path = folder / POOL / copy.file
            facts = {"name": self.names[copy.number], "env_steps": copy.env_steps}
            try:
                make_folder(path.parent)
                write_file(path, copy_bytes(self.agents[copy.number], self._settings, facts))
            except OSError as error:
                raise CheckpointError(f"{path}: could not be written ({error}); earlier copies are unharmed") from None
            self._written.add(copy.file)

    def arrays(self) -> dict[str, Tensor]:
        """Every tensor needed to continue, except those of the first learner, of other shards' and of frozen copies."""
        found = prefixed("payoffs", self.payoffs.state_dict())
        found |= {"seating": torch.from_numpy(self._seating.copy()), "draws": torch.from_numpy(self._draws.copy())}
        for number in self.own:
            if number:
                found |= prefixed(f"learner{number}", self.learners[number].state_dict())
        return found

    def state(self) -> dict[str, Any]:
        """The rest of the state, as plain data."""
        return {
            "copies": [asdict(copy) for copy in self.copies],
            "frozen_at": list(self._frozen_at),
            "born_at": list(self._born_at),
            "guests": self._guests,
            "generator": json.loads(json.dumps(self._generator.bit_generator.state)),
        }

    def load(self, folder: Path, arrays: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Restore the state of a checkpoint.

        Args:
            folder: the run's folder, which holds its frozen copies.
            arrays: from :meth:`arrays`, with the learners of all shards.
            state: from :meth:`state`.

        Raises:
            CheckpointError: if a frozen copy is missing, damaged or a different one, or a guest has changed.
        """
        guests = zip(self._settings.run.opponents, self._guests, state.get("guests", self._guests), strict=True)
        for name, now, then in guests:
            if now != then:
                raise CheckpointError(
                    f"opponents: {name} has changed since the run's checkpoint; wanted the agent it met, or a new run"
                )
        copies = [FrozenCopy(**copy) for copy in state["copies"]]
        frozen = [self._read_copy(folder, copy) for copy in copies]  # all, before anything is changed
        fixed = len(self.agents) - len(self.copies)
        self.agents, self.names, self.copies = [*self.agents[:fixed], *frozen], self.names[:fixed], copies
        self.names += [f"{self.names[copy.parent]}@{copy.env_steps}" for copy in copies]
        self._written = {copy.file for copy in copies}
        for number, learner in enumerate(self.learners[1:], start=1):
            learner.load_state_dict(unprefixed(f"learner{number}", arrays))
        self.payoffs.load_state_dict(unprefixed("payoffs", arrays))
        self._seating, self._draws = arrays["seating"].numpy().copy(), arrays["draws"].numpy().copy()
        self._frozen_at, self._born_at = list(state["frozen_at"]), list(state.get("born_at", self._born_at))
        self._generator.bit_generator.state = state["generator"]
        self.lineup = self._new_lineup()

    def _read_copy(self, folder: Path, copy: FrozenCopy) -> Agent:
        """A frozen copy of a checkpoint.

        Raises:
            CheckpointError: if it is missing, damaged or a different one.
        """
        if not isinstance(copy.file, str) or Path(copy.file).name != copy.file or copy.file in ("", ".", ".."):
            raise CheckpointError(f"opponents: got the file {copy.file!r}; wanted a name of a file in {POOL}/")
        path = folder / POOL / copy.file
        try:
            agent = read_copy(path, self._settings.env, self._settings.env_settings, self._device)
        except SavedAgentError as error:
            raise CheckpointError(str(error)) from None
        if content_hash(agent) != copy.hash:
            raise CheckpointError(f"{path}: is not the copy that the run has met")
        return agent


def _check(settings: Settings, learner: Agent, own: int, learners: int) -> None:
    run = settings.run
    guest_fraction = run.opponent_fraction if run.opponents else 0.0
    if run.pool not in ("none", "league") and guest_fraction + run.pool_fraction > 1 + 1e-9:
        raise ConfigError(
            f"opponent_fraction and pool_fraction: got {guest_fraction} and {run.pool_fraction}; wanted a sum of at "
            "most 1"
        )
    if run.num_envs < own:
        raise ConfigError(f"num_envs: got {run.num_envs} for a league of {own} learners; wanted at least as many")
    if learners > 1 and not isinstance(learner.experience, RolloutSpec):
        raise ConfigError(
            f"pool: got a league of {settings.agent}, which learns from a replay buffer; wanted one that learns from "
            "rollouts (ppo, reinforce, trpo, q-learning), or another kind of pool"
        )
