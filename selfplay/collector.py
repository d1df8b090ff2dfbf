"""Collecting rollouts: a lineup plays a batch of games, and the learner's experience is written to one block of memory.

The block (:mod:`~mlbits.selfplay.rollout_memory`) is overwritten by every rollout; a rollout is valid until the next.

In games where seats wait for their turns, the decisions still open at the end of a window move to the next one, as a
row in front of its steps (:mod:`~mlbits.agents.maths.open_decisions`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mlbits.agents.agent import (
    Agent,
    OnHost,
    OutcomeSpec,
    ReplaySpec,
    Rollout,
    RolloutSpec,
    memory_size,
    prefixed,
    unprefixed,
)
from mlbits.agents.cuda_graphs.captured_call import CapturedCall
from mlbits.agents.maths.open_decisions import OpenDecisions, OpenMarks, leave_out_open, open_marks
from mlbits.envs.doors.gymnasium_batch import AnyBatch
from mlbits.envs.engine.batch import GameBatch
from mlbits.envs.engine.on_host import on_host
from mlbits.selfplay.finite import all_within_limit
from mlbits.selfplay.lineup import LEARNER, Lineup, decide
from mlbits.selfplay.memories import Memories
from mlbits.selfplay.rollout_memory import RolloutMemory

# On a GPU, steps of whole episodes between two looks at whether all are over: the host waits for each look.
_LOOK_EVERY = 32


@dataclass
class Episodes:
    """The episodes that ended in a rollout, in the order of their ends.

    Attributes:
        returns: undiscounted, the mean over the learner's seats, float64 [E].
        lengths: steps, int64 [E].
        seat_returns: undiscounted, of each seat, float64 [E, P]; None where the learner has all.
        seating: the number of the player in each seat, int64 [E, P]; None where the learner has all.
        owner: the number of the player that learns from each, int64 [E]; None where it is player 0 everywhere.
    """

    returns: np.ndarray
    lengths: np.ndarray
    seat_returns: np.ndarray | None = None
    seating: np.ndarray | None = None
    owner: np.ndarray | None = None


class _Seen(NamedTuple):
    """What the host needs to know of a rollout, read in one transfer.

    Attributes:
        reward: [T, B, P].
        terminated: bool [T, B].
        truncated: bool [T, B].
        sound: whether its numbers are known to be finite; if not, they have to be checked.
        num_active: how many settled decisions are the learner's; None on a CPU, where counting later costs no more.
        num_open_cut: likewise, how many decisions are open where an episode was truncated.
    """

    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    sound: bool = False
    num_active: int | None = None
    num_open_cut: int | None = None


def _seen_of(played: Rollout, active: Tensor | None, marks: OpenMarks | None) -> _Seen:
    """What the host needs to know of the rollout as it was played, of which ``active`` [T, B, P] are the learner's."""
    parts = (played.reward, played.terminated, played.truncated)
    if played.reward.is_cpu:
        reward, terminated, truncated = on_host(*parts)
        return _Seen(reward, terminated, truncated)
    flags = [all_within_limit(played)]
    if active is not None:
        flags.append((active if marks is None else active & ~marks.left_out).sum())
    if marks is not None:
        flags.append(marks.cut.sum())
    reward, terminated, truncated, sound, *counts = on_host(*parts, *flags)
    return _Seen(reward, terminated, truncated, bool(sound), *map(int, counts))


# Given which copies' episodes have ended (bool [B]), returns the lineup of their next ones.
Reseat = Callable[[Tensor], Lineup]


@dataclass
class Timing:
    """Wall seconds spent in each part."""

    environment: float = 0.0
    network: float = 0.0
    learning: float = 0.0
    evaluation: float = 0.0


@dataclass
class Collector:
    """Plays rollouts and tracks unfinished episodes.

    Args:
        batch: the copies.
        spec: how long a rollout is.
        generator: random generator for the players' actions, on the batch's device.
        check: called with each rollout, and whether an episode ended in it, before its open decisions are taken out and
            kept; may raise.
        blocks: how many blocks of memory rollouts take in turn; each is valid until as many more have begun.
    """

    batch: AnyBatch
    spec: RolloutSpec | ReplaySpec | OutcomeSpec
    generator: torch.Generator
    timing: Timing = field(default_factory=Timing)
    check: Callable[[Rollout, bool], None] | None = None
    blocks: int = 1

    def __post_init__(self) -> None:
        batch = self.batch
        windows = isinstance(self.spec, RolloutSpec) and not self.spec.whole_episodes
        self._carries = windows and batch.active is not None
        front = int(self._carries)
        self._blocks = deque(RolloutMemory(batch, self.spec.num_steps, front=front) for _ in range(self.blocks))
        self._memory = self._blocks[0]
        self._open: OpenDecisions | None = None
        self._left_at: int | None = None  # the batch's count of changes at the end of the last rollout
        self._graph: CapturedCall[None] | None = None
        self._graph_of: Agent | None = None
        self.memories = Memories(batch.num_envs, batch.num_seats, batch.device)
        self.episode_return = np.zeros((batch.num_envs, batch.num_seats))
        self.episode_length = np.zeros(batch.num_envs, np.int64)

    def collect(self, lineup: Lineup, reseat: Reseat | None = None) -> tuple[Rollout, Episodes, int]:
        """Play one rollout.

        Args:
            lineup: who sits where.
            reseat: called for another lineup whenever episodes end; None keeps the first. A copy keeps its players for
                a whole episode.

        Returns:
            The learner's experience, the episodes that ended, and the number of environment steps taken.
        """
        self._blocks.rotate()
        self._memory = self._blocks[0]
        batch, memory, spec = self.batch, self._memory, self.spec
        whole_episodes = isinstance(spec, RolloutSpec) and spec.whole_episodes
        if whole_episodes:
            batch.reset()
            self.memories.forget()
            self.episode_return[:] = 0
            self.episode_length[:] = 0
            if reseat is not None:
                lineup = reseat(torch.ones(batch.num_envs, dtype=torch.bool, device=batch.device))
        seatings = [] if lineup.learner_only else [lineup]  # of each step
        over = torch.zeros(batch.num_envs, dtype=torch.bool, device=batch.device) if whole_episodes else None
        look_every = 1 if batch.device.type == "cpu" else _LOOK_EVERY
        remembers = any(memory_size(agent) for agent in lineup.players)
        continues = self._left_at is not None and self._left_at == getattr(batch, "changes", None)
        steps = 0
        if reseat is None and not whole_episodes and self._has_graph(lineup):
            self._play_graph(lineup)
            steps = spec.num_steps
        while steps < spec.num_steps:
            result = self._play_step(lineup, steps, over)
            if remembers:
                memory.write_memory_after(steps, self.memories)
                self.memories.end(result.terminated | result.truncated)
            steps += 1
            if reseat is not None:
                ended = (result.terminated | result.truncated).cpu()
                if bool(ended.any()):
                    lineup = reseat(ended)
                seatings.append(lineup)
            if over is not None:
                over |= result.terminated | result.truncated
                if steps % look_every == 0 and bool(over.all()):
                    break
        memory.write_last(steps, batch, self.memories)
        if over is not None:
            memory.cut(steps - 1, ~over, batch)
        partly = whole_episodes or not lineup.learner_only or batch.active is not None
        played = memory.rollout(steps, batch, partly_active=partly)
        rollout = self._continued(played, steps)
        marks = open_marks(rollout) if self._carries else None
        seen = _seen_of(played, rollout.active, marks)
        episodes = self._count_episodes(seen, seatings, first_only=whole_episodes)
        if self.check is not None and not seen.sound:
            self.check(played, len(episodes.lengths) > 0)
        if self._carries:
            rollout, self._open = leave_out_open(rollout, marks, seen.num_open_cut)
        if not rollout.reward.is_cpu:
            rollout = replace(rollout, host=OnHost(seen.terminated, seen.truncated, seen.num_active, continues))
        self._left_at = getattr(batch, "changes", None)
        return rollout, episodes, steps * batch.num_envs

    def _play_step(self, lineup: Lineup, t: int, over: Tensor | None) -> Any:
        """Play step t, and write what the players saw and did, and what came of it."""
        memory, batch = self._memory, self.batch
        memory.write_before(t, batch)
        self._act(lineup, t)
        began = time.perf_counter()
        result = batch.step(memory.played)
        self.timing.environment += time.perf_counter() - began
        owned = None if lineup.learner_only else lineup.learner_seats()
        memory.write_after(t, result, _active(memory, owned, over), batch.final_active)
        return result

    def _has_graph(self, lineup: Lineup) -> bool:
        """Whether all steps are one graph: the learner asks for it, has every seat, and the rules are on its device."""
        asked = lineup.learner_only and getattr(lineup.players[LEARNER], "graph", None) is not None
        return asked and isinstance(self.batch, GameBatch)

    def _play_graph(self, lineup: Lineup) -> None:
        """Play all steps of a rollout."""
        if self._graph is None or self._graph_of is not lineup.players[LEARNER]:
            self._graph_of = lineup.players[LEARNER]
            self._graph = CapturedCall(lambda: self._play_steps(lineup), self.batch.device, [self.generator])
        before, began = self.batch.changes, time.perf_counter()
        self._graph()
        self.batch.changes = before + self.spec.num_steps
        self.timing.network += time.perf_counter() - began

    def _play_steps(self, lineup: Lineup) -> None:
        for t in range(self.spec.num_steps):
            self._play_step(lineup, t, None)

    def _continued(self, played: Rollout, steps: int) -> Rollout:
        """The rollout with the open decisions of the previous one in front."""
        before = self._open if self._carries else None
        # A GPU is not asked whether there are any: then none of that row are active.
        if before is None or (before.where.is_cpu and not bool(before.where.any())):
            return played
        self._memory.write_front(before)
        return self._memory.rollout(steps, self.batch, partly_active=True, carried=before.where)

    def shaped(self, steps: int, partly_active: bool) -> Rollout:
        """A rollout of so many steps as this collector plays them, whose numbers mean nothing."""
        return self._memory.rollout(steps, self.batch, partly_active=partly_active)

    def forget_open(self, first: int, last: int) -> None:
        """Drop what copies ``first`` to ``last`` - 1, whose learner has been replaced, have open and remember."""
        if self._open is not None:
            self._open.where[first:last] = False
        self.memories.forget(first, last)

    def _act(self, lineup: Lineup, t: int) -> None:
        began = time.perf_counter()
        memory, batch = self._memory, self.batch
        at = memory.at(t)
        obs, mask, memories = at.seen, at.mask, self.memories
        if size := memory_size(lineup.players[LEARNER]):
            memory.write_memory(t, memories.of(size))
        if lineup.learner_only:
            decision = decide(lineup.players[LEARNER], batch, None, obs, mask, self.generator, memories=memories)
            at.sample.copy_(decision.sample)
            memory.write_notes(t, slice(None), decision.notes)
            if decision.log_prob is not None:
                at.log_prob.copy_(decision.log_prob)
            memory.played = decision.action.view(batch.num_envs, batch.num_seats, *decision.action.shape[1:])
        else:
            played = torch.zeros_like(at.sample)
            for player, agent, index in lineup.seated:
                decision = decide(agent, batch, index, obs, mask, self.generator, memories=memories)
                played[index] = decision.action
                if player == LEARNER or lineup.owner is not None:
                    memory.write_notes(t, index, decision.notes)
                at.sample[index] = decision.sample
                if decision.log_prob is not None:
                    at.log_prob[index] = decision.log_prob
            memory.played = played.view(batch.num_envs, batch.num_seats, *played.shape[1:])
        self.timing.network += time.perf_counter() - began

    def _count_episodes(self, seen: _Seen, lineups: list[Lineup], first_only: bool) -> Episodes:
        """Returns and lengths of episodes by cumulative sums, so that no Python loop runs over steps.

        Args:
            seen: what was played.
            lineups: none where the learner has all seats, one for all steps, or one per step.
            first_only: whether only each copy's first episode counts.
        """
        # NumPy: its calls take a third of torch's time on the few numbers between an off-policy agent's updates.
        ended = seen.terminated | seen.truncated
        reward = seen.reward.astype(np.float64)
        if not ended.any():  # the usual case there
            self.episode_return += reward.sum(0)
            self.episode_length += len(reward)
            return Episodes(np.zeros(0), np.zeros(0, np.int64))
        if first_only:
            before = np.cumsum(ended, 0) - ended
            ended = ended & (before == 0)
        total = self.episode_return + np.cumsum(reward, 0)  # [T, B, P]
        length = self.episode_length + np.arange(1, len(reward) + 1)[:, None]  # [T, B]
        copy, t = np.nonzero(ended.T)  # sorted by copy, then time
        first = np.ones(len(copy), bool)
        first[1:] = copy[1:] != copy[:-1]
        at_end, length_at_end = total[t, copy], length[t, copy]
        returns, lengths = at_end.copy(), length_at_end.copy()
        returns[~first] -= at_end[:-1][~first[1:]]
        lengths[~first] -= length_at_end[:-1][~first[1:]]
        last = np.ones(len(copy), bool)
        last[:-1] = first[1:]
        self.episode_return, self.episode_length = total[-1].copy(), length[-1].copy()
        self.episode_return[copy[last]] -= at_end[last]
        self.episode_length[copy[last]] -= length_at_end[last]
        order = np.lexsort((copy, t))
        copy, t, returns, lengths = copy[order], t[order], returns[order], lengths[order]
        seating = _seating(lineups, t, copy)
        owner = None if not lineups or lineups[0].owner is None else lineups[0].owner.cpu().numpy()[copy]
        learner = LEARNER if owner is None else owner[:, None]
        own = np.ones(returns.shape) if seating is None else seating == learner
        means = (returns * own).sum(1) / np.maximum(own.sum(1), 1)
        return Episodes(means, lengths, None if seating is None else returns, seating, owner)

    def state_dict(self) -> dict[str, Tensor]:
        """The unfinished episodes, what is remembered of them, and the open decisions."""
        state = {
            "episode_return": torch.from_numpy(self.episode_return.copy()),
            "episode_length": torch.from_numpy(self.episode_length.copy()),
        }
        if self._open is not None:
            named = {name: value for name, value in self._open._asdict().items() if value is not None}
            seen = named.pop("obs")
            named |= {f"obs.{key}": part for key, part in seen.items()} if isinstance(seen, dict) else {"obs": seen}
            state |= prefixed("open", {name: part.clone().contiguous() for name, part in named.items()})
        return state | prefixed("memory", self.memories.state_dict())

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore a saved state.

        Raises:
            KeyError: if an entry is missing.
            ValueError: if a memory has another shape.
        """
        self.memories.load_state_dict(unprefixed("memory", state))
        self.episode_return = state["episode_return"].numpy().copy()
        self.episode_length = state["episode_length"].numpy().copy()
        named = {name: part.to(self.batch.device, copy=True) for name, part in unprefixed("open", state).items()}
        if self._carries and named:
            seen = named["obs"] if "obs" in named else unprefixed("obs", named)
            parts = (named[name] for name in ("where", "sample", "log_prob", "reward"))
            where, sample, log_prob, reward = parts
            masks, memory = named.get("legal_mask"), named.get("memory")
            self._open = OpenDecisions(where, seen, sample, log_prob, masks, reward, memory)
        else:
            self._open = None


def _seating(lineups: list[Lineup], t: np.ndarray, copy: np.ndarray) -> np.ndarray | None:
    """The player in each seat of these copies at these steps, [E, P]; None where the learner has all."""
    if not lineups:
        return None
    if len(lineups) == 1:
        return lineups[0].on_host[copy]
    used, which = np.unique(t, return_inverse=True)
    of_steps = np.zeros((len(used), *lineups[0].seating.shape), np.int64)
    for row, step in enumerate(used):
        of_steps[row] = lineups[step].on_host
    return of_steps[which, copy]


def _active(memory: RolloutMemory, owned: Tensor | None, over: Tensor | None) -> Tensor | None:
    """Which seats the learner acts in during a step, [B, P]; None where it acts in all."""
    active = None if memory.acting is None else memory.acting
    for part in (owned, None if over is None else ~over[:, None]):
        if part is not None:
            active = part if active is None else active & part
    return active
