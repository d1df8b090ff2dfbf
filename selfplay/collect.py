"""Collecting: a lineup plays a batch, and what the learner needs of it goes into one block of memory.

The block is allocated once and written over by every rollout; a rollout is valid until the next.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mlbits.agents.agent import ReplaySpec, Rollout, RolloutSpec, pick, rows
from mlbits.envs.core.errors import GameError
from mlbits.envs.core.wrapped import AnyBatch
from mlbits.selfplay.lineup import LEARNER, Lineup
from mlbits.selfplay.machine import memory_bytes

_KEPT_VIEWS = 1024


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


# Told which copies' episodes have ended (bool [B]), it says who sits where in their next ones.
Reseat = Callable[[Tensor], Lineup]


@dataclass
class Timing:
    """Wall seconds spent, by what they were spent on."""

    environment: float = 0.0
    network: float = 0.0
    learning: float = 0.0
    evaluation: float = 0.0


@dataclass
class Collector:
    """Plays rollouts and keeps count of the episodes under way.

    Args:
        batch: the copies.
        spec: how long a rollout is.
        generator: the source of the players' draws, on the batch's device.
    """

    batch: AnyBatch
    spec: RolloutSpec | ReplaySpec
    generator: torch.Generator
    timing: Timing = field(default_factory=Timing)

    def __post_init__(self) -> None:
        batch = self.batch
        self._memory = _Memory(batch, self.spec.num_steps)
        self.episode_return = np.zeros((batch.num_envs, batch.num_seats))
        self.episode_length = np.zeros(batch.num_envs, np.int64)

    def collect(self, lineup: Lineup, reseat: Reseat | None = None) -> tuple[Rollout, Episodes, int]:
        """Play one rollout.

        Args:
            lineup: who sits where.
            reseat: asked for another lineup whenever episodes end; None keeps the first. A copy keeps its players for
                a whole episode.

        Returns:
            The learner's experience, the episodes that ended, and the number of environment steps taken.
        """
        batch, memory, spec = self.batch, self._memory, self.spec
        replayed = isinstance(spec, ReplaySpec)
        whole_episodes = isinstance(spec, RolloutSpec) and spec.whole_episodes
        if whole_episodes:
            batch.reset()
            self.episode_return[:] = 0
            self.episode_length[:] = 0
            if reseat is not None:
                lineup = reseat(torch.ones(batch.num_envs, dtype=torch.bool, device=batch.device))
        seatings = [] if lineup.learner_only else [lineup]  # of each step
        over = torch.zeros(batch.num_envs, dtype=torch.bool, device=batch.device) if whole_episodes else None
        steps = 0
        while steps < spec.num_steps:
            memory.write_before(steps, batch)
            if replayed:
                memory.acting = None  # passing is a move like any other
            self._act(lineup, steps)
            began = time.perf_counter()
            result = batch.step(memory.played)
            self.timing.environment += time.perf_counter() - began
            owned = None if lineup.learner_only else lineup.learner_seats()
            memory.write_after(steps, result, _active(memory, owned, over))
            steps += 1
            if reseat is not None:
                ended = result.terminated | result.truncated
                if bool(ended.any()):
                    lineup = reseat(ended)
                seatings.append(lineup)
            if over is not None:
                over |= result.terminated | result.truncated
                if bool(over.all()):
                    break
        memory.write_last(steps, batch)
        if over is not None:
            memory.cut(steps - 1, ~over, batch)
        partly = whole_episodes or not (lineup.learner_only and (replayed or batch.active is None))
        rollout = memory.rollout(steps, batch.legal_mask, partly_active=partly)
        episodes = self._count_episodes(rollout, seatings, first_only=whole_episodes)
        return rollout, episodes, steps * batch.num_envs

    def _act(self, lineup: Lineup, t: int) -> None:
        began = time.perf_counter()
        memory, batch = self._memory, self.batch
        at = memory.at(t)
        obs, mask = at.seen, at.mask
        if lineup.learner_only:
            decision = lineup.players[LEARNER].act(obs, mask, self.generator)
            at.sample.copy_(decision.sample)
            if decision.log_prob is not None:
                at.log_prob.copy_(decision.log_prob)
            memory.played = decision.action.view(batch.num_envs, batch.num_seats, *decision.action.shape[1:])
        else:
            played = torch.zeros_like(at.sample)
            for _, agent, index in lineup.seated:
                decision = agent.act(pick(obs, index), None if mask is None else mask[index], self.generator)
                played[index] = decision.action
                at.sample[index] = decision.sample
                if decision.log_prob is not None:
                    at.log_prob[index] = decision.log_prob
            memory.played = played.view(batch.num_envs, batch.num_seats, *played.shape[1:])
        self.timing.network += time.perf_counter() - began

    def _count_episodes(self, rollout: Rollout, lineups: list[Lineup], first_only: bool) -> Episodes:
        """Returns and lengths of episodes by cumulative sums, so that no Python loop runs over steps.

        Args:
            rollout: what was played.
            lineups: none where the learner has all seats, one for all steps, or one a step.
            first_only: whether each copy's first episode alone counts.
        """
        # By NumPy, whose calls take a third of torch's time on the few numbers between an off-policy agent's updates.
        ended = rollout.terminated.cpu().numpy() | rollout.truncated.cpu().numpy()
        reward = rollout.reward.cpu().numpy().astype(np.float64)
        if not ended.any():  # as in most of those
            self.episode_return += reward.sum(0)
            self.episode_length += len(reward)
            return Episodes(np.zeros(0), np.zeros(0, np.int64))
        if first_only:
            before = np.cumsum(ended, 0) - ended
            ended = ended & (before == 0)
        total = self.episode_return + np.cumsum(reward, 0)  # [T, B, P]
        length = self.episode_length + np.arange(1, len(reward) + 1)[:, None]  # [T, B]
        copy, t = np.nonzero(ended.T)  # each copy's ends one after another
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
        """The episodes under way."""
        return {
            "episode_return": torch.from_numpy(self.episode_return.copy()),
            "episode_length": torch.from_numpy(self.episode_length.copy()),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from saved counts."""
        self.episode_return = state["episode_return"].numpy().copy()
        self.episode_length = state["episode_length"].numpy().copy()


def _seating(lineups: list[Lineup], t: np.ndarray, copy: np.ndarray) -> np.ndarray | None:
    """The player in each seat of copies at steps, [E, P]; None where the learner has all."""
    if not lineups:
        return None
    if len(lineups) == 1:
        return lineups[0].seating.cpu().numpy()[copy]
    used, which = np.unique(t, return_inverse=True)
    of_steps = np.zeros((len(used), *lineups[0].seating.shape), np.int64)
    for row, step in enumerate(used):
        of_steps[row] = lineups[step].seating.cpu().numpy()
    return of_steps[which, copy]


def _active(memory: _Memory, owned: Tensor | None, over: Tensor | None) -> Tensor | None:
    """Which seats act as the learner in a step, [B, P]; None where all do."""
    active = None if memory.acting is None else memory.acting
    for part in (owned, None if over is None else ~over[:, None]):
        if part is not None:
            active = part if active is None else active & part
    return active


class _At(NamedTuple):
    """One step's views of a rollout's memory.

    Attributes:
        obs: [B, P, ...], one tensor or those of a dict.
        seen: the same as rows [B * P, ...], as players take it.
        mask: legal actions as rows [B * P, A], or None.
        sample: rows [B * P, ...].
        log_prob: rows [B * P].
        reward: [B, P].
        terminated: [B].
        truncated: [B].
        final_obs: as ``obs``.
    """

    obs: list[Tensor]
    seen: Any
    mask: Tensor | None
    sample: Tensor
    log_prob: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    final_obs: list[Tensor]


class _Memory:
    """The tensors of one rollout, [T, B, P, ...] and one step more of observations."""

    def __init__(self, batch: AnyBatch, num_steps: int) -> None:
        lead, device = (num_steps, batch.num_envs, batch.num_seats), batch.device
        layout = batch.action
        sample_type = torch.float32 if layout.kind == "continuous" else torch.int64
        _check_memory(batch, num_steps)
        try:
            self.obs = _like(batch.obs, num_steps + 1)
            self.final_obs = _like(batch.obs, num_steps)
            self.sample = torch.zeros(*lead, *layout.shape, dtype=sample_type, device=device)
            self.legal_mask = None if batch.legal_mask is None else _like(batch.legal_mask, num_steps)
        except RuntimeError as error:
            raise _too_large(batch, num_steps, str(error).splitlines()[0]) from None
        self.log_prob = torch.zeros(lead, device=device)
        self.reward = torch.zeros(lead, device=device)
        self.terminated = torch.zeros(lead[:2], dtype=torch.bool, device=device)
        self.truncated = torch.zeros(lead[:2], dtype=torch.bool, device=device)
        self.active = torch.zeros(lead, dtype=torch.bool, device=device)
        self.acting: Tensor | None = None
        self.played: Any = None
        self._views: dict[int, _At] = {}

    def at(self, t: int) -> _At:
        """Step t's views; making them costs as much as a small network, so those of the first steps are kept."""
        view = self._views.get(t)
        if view is None:
            obs = pick(self.obs, t)
            view = _At(
                obs=_tensors(obs),
                seen=rows(obs, 2),
                mask=None if self.legal_mask is None else self.legal_mask[t].flatten(0, 1),
                sample=self.sample[t].flatten(0, 1),
                log_prob=self.log_prob[t].flatten(),
                reward=self.reward[t],
                terminated=self.terminated[t],
                truncated=self.truncated[t],
                final_obs=_tensors(pick(self.final_obs, t)),
            )
            if len(self._views) < _KEPT_VIEWS:
                self._views[t] = view
        return view

    def write_before(self, t: int, batch: AnyBatch) -> None:
        """What the players see before step t."""
        at = self.at(t)
        for target, source in zip(at.obs, _tensors(batch.obs), strict=True):
            target.copy_(source)
        if batch.legal_mask is not None:
            assert at.mask is not None
            at.mask.copy_(batch.legal_mask.flatten(0, 1))
        self.acting = None if batch.active is None else batch.active.clone()

    def write_after(self, t: int, result: Any, active: Tensor | None) -> None:
        """What step t gave."""
        at = self.at(t)
        at.reward.copy_(result.reward)
        at.terminated.copy_(result.terminated)
        at.truncated.copy_(result.truncated)
        for target, source in zip(at.final_obs, _tensors(result.final_obs), strict=True):
            target.copy_(source)
        if active is not None:
            self.active[t].copy_(active)

    def write_last(self, steps: int, batch: AnyBatch) -> None:
        """The observation after the last step."""
        for target, source in zip(_tensors(self.obs), _tensors(batch.obs), strict=True):
            target[steps].copy_(source)

    def cut(self, t: int, unfinished: Tensor, batch: AnyBatch) -> None:
        """Count episodes that are not over by step t as truncated there."""
        self.truncated[t] |= unfinished
        for final, obs in _pairs(self.final_obs, batch.obs):
            final[t][unfinished] = obs[unfinished]

    def rollout(self, steps: int, last_mask: Tensor | None, partly_active: bool) -> Rollout:
        """The first ``steps`` steps; ``last_mask`` [B, P, A] says what is legal after them."""
        first = slice(0, steps)
        return Rollout(
            obs=pick(self.obs, first),
            last_obs=pick(self.obs, steps),
            final_obs=pick(self.final_obs, first),
            sample=self.sample[first],
            log_prob=self.log_prob[first],
            reward=self.reward[first],
            terminated=self.terminated[first],
            truncated=self.truncated[first],
            legal_mask=None if self.legal_mask is None else self.legal_mask[first],
            active=self.active[first] if partly_active else None,
            last_mask=last_mask,
        )


def _check_memory(batch: AnyBatch, num_steps: int) -> None:
    """Refuse a rollout larger than the machine before the system grants memory that it does not have.

    Raises:
        GameError: naming the settings that make it large.
    """
    masks = [] if batch.legal_mask is None else [batch.legal_mask]
    seen = [*(part for part, _ in _pairs(batch.obs, batch.obs)), *masks]
    size = num_steps * sum(tensor.numel() * tensor.element_size() for tensor in seen)
    if batch.device.type == "cpu" and size > memory_bytes():
        raise _too_large(batch, num_steps, f"its observations take {size / 2**30:,.0f} GiB")


def _too_large(batch: AnyBatch, num_steps: int, why: str) -> GameError:
    return GameError(
        f"num_envs and num_steps: a rollout of {num_steps} x {batch.num_envs} steps does not fit into memory ({why}); "
        "wanted fewer"
    )


def _like(value: Any, count: int) -> Any:
    """Zeros [count, *shape] for a tensor, or for each tensor of a dict."""
    if isinstance(value, dict):
        return {key: _like(part, count) for key, part in value.items()}
    return torch.zeros((count, *value.shape), dtype=value.dtype, device=value.device)


def _tensors(value: Any) -> list[Tensor]:
    """A tensor, or those of a dict in the order of its keys."""
    return [value[key] for key in sorted(value)] if isinstance(value, dict) else [value]


def _pairs(memory: Any, value: Any) -> list[tuple[Tensor, Tensor]]:
    if isinstance(memory, dict):
        return [(memory[key], value[key]) for key in memory]
    return [(memory, value)]
