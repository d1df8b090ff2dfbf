"""The memory of a rollout: one block of tensors [T, B, P, ...], allocated once and overwritten by every rollout.

:mod:`~mlbits.selfplay.collector` writes it step by step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mlbits.agents.agent import AgentError, Rollout, pick, rows
from mlbits.agents.maths.open_decisions import OpenDecisions, choose
from mlbits.envs.core.errors import GameError
from mlbits.envs.doors.gymnasium_batch import AnyBatch
from mlbits.envs.engine.memory import memory_bytes
from mlbits.selfplay.memories import Memories

_KEPT_VIEWS = 1024


class _At(NamedTuple):
    """Views of a rollout's memory at one step.

    Attributes:
        obs: [B, P, ...], one tensor or a dict of tensors.
        seen: the same as rows [B * P, ...], the input of the players.
        mask: legal actions as rows [B * P, A], or None.
        sample: rows [B * P, ...].
        log_prob: rows [B * P].
        reward: [B, P].
        terminated: [B].
        truncated: [B].
        final_obs: shaped as ``obs``.
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


class RolloutMemory:
    """The tensors of one rollout, [T, B, P, ...], with one more step of observations.

    Args:
        batch: the copies.
        num_steps: maximum number of steps.
        front: rows in front of the first step: 1 for decisions carried over, else 0.
    """

    def __init__(self, batch: AnyBatch, num_steps: int, front: int) -> None:
        self.front, count = front, num_steps + front
        lead, device = (count, batch.num_envs, batch.num_seats), batch.device
        layout = batch.action
        sample_type = torch.float32 if layout.kind == "continuous" else torch.int64
        _check_memory(batch, count)
        try:
            self.obs = _like(batch.obs, count + 1)
            self.final_obs = _like(batch.obs, count)
            self.sample = torch.zeros(*lead, *layout.shape, dtype=sample_type, device=device)
            self.legal_mask = None if batch.legal_mask is None else _like(batch.legal_mask, count)
        except RuntimeError as error:
            raise _too_large(batch, num_steps, str(error).splitlines()[0]) from None
        self.log_prob = torch.zeros(lead, device=device)
        self.reward = torch.zeros(lead, device=device)
        self.terminated = torch.zeros(lead[:2], dtype=torch.bool, device=device)
        self.truncated = torch.zeros(lead[:2], dtype=torch.bool, device=device)
        self.active = torch.zeros(lead, dtype=torch.bool, device=device)
        self.final_active = None if batch.final_active is None else torch.zeros_like(self.active)
        self.acting: Tensor | None = None
        self.notes: dict[str, Tensor] = {}
        self.memory: Tensor | None = None  # as obs, with one more step
        self.final_memory: Tensor | None = None
        self.played: Any = None
        self._views: dict[int, _At] = {}

    def at(self, t: int) -> _At:
        """Step t's views; creating them costs as much as a small network's forward pass, so early steps' are cached."""
        view = self._views.get(t)
        if view is None:
            row = t + self.front
            obs = pick(self.obs, row)
            view = _At(
                obs=_tensors(obs),
                seen=rows(obs, 2),
                mask=None if self.legal_mask is None else self.legal_mask[row].flatten(0, 1),
                sample=self.sample[row].flatten(0, 1),
                log_prob=self.log_prob[row].flatten(),
                reward=self.reward[row],
                terminated=self.terminated[row],
                truncated=self.truncated[row],
                final_obs=_tensors(pick(self.final_obs, row)),
            )
            if len(self._views) < _KEPT_VIEWS:
                self._views[t] = view
        return view

    def write_before(self, t: int, batch: AnyBatch) -> None:
        """Write the players' inputs before step t."""
        at = self.at(t)
        for target, source in zip(at.obs, _tensors(batch.obs), strict=True):
            target.copy_(source)
        if batch.legal_mask is not None:
            assert at.mask is not None
            at.mask.copy_(batch.legal_mask.flatten(0, 1))
        self.acting = None if batch.active is None else batch.active.clone()

    def write_memory(self, t: int, memory: Tensor) -> None:
        """Write what the learner remembers before step t, [B * P, M]."""
        if self.memory is None:
            lead = (len(self.sample), *self.sample.shape[1:3], memory.shape[1])
            self.memory = memory.new_zeros(lead[0] + 1, *lead[1:])
            self.final_memory = memory.new_zeros(lead)
        self.memory[t + self.front].copy_(memory.view(self.memory.shape[1:]))

    def write_memory_after(self, t: int, memories: Memories) -> None:
        """Write what it remembers after step t, before the ends of episodes are forgotten."""
        if self.memory is not None and self.final_memory is not None:
            self.final_memory[t + self.front].copy_(memories.of(self.memory.shape[-1]).view(self.memory.shape[1:]))

    def write_notes(self, t: int, index: Any, notes: Mapping[str, Tensor] | None) -> None:
        """Write the notes of step t for rows ``index`` of the learner.

        Raises:
            AgentError: if decisions are carried from one window to the next, whose notes would be lost.
        """
        if notes is None:
            return
        if self.front:
            raise AgentError("notes: wanted an agent that learns from a replay buffer, or from whole episodes")
        for name, note in notes.items():
            if name not in self.notes:
                self.notes[name] = note.new_zeros(len(self.sample), *self.sample.shape[1:3], *note.shape[1:])
            self.notes[name][t].flatten(0, 1)[index] = note

    def write_after(self, t: int, result: Any, active: Tensor | None, final_active: Tensor | None) -> None:
        """Write the results of step t."""
        at = self.at(t)
        at.reward.copy_(result.reward)
        at.terminated.copy_(result.terminated)
        at.truncated.copy_(result.truncated)
        for target, source in zip(at.final_obs, _tensors(result.final_obs), strict=True):
            target.copy_(source)
        if active is not None:
            self.active[t + self.front].copy_(active)
        if self.final_active is not None and final_active is not None:
            self.final_active[t + self.front].copy_(final_active)

    def write_front(self, open_: OpenDecisions) -> None:
        """Write decisions that are carried over into the row in front of the first step."""
        for target, source in _pairs(self.obs, open_.obs):
            target[0].copy_(source)
        self.sample[0].copy_(open_.sample)
        self.log_prob[0].copy_(open_.log_prob)
        self.reward[0].copy_(open_.reward)
        self.active[0].copy_(open_.where)
        if self.legal_mask is not None and open_.legal_mask is not None:
            self.legal_mask[0].copy_(open_.legal_mask)
        if self.memory is not None and open_.memory is not None:
            self.memory[0].copy_(open_.memory)

    def write_last(self, steps: int, batch: AnyBatch, memories: Memories) -> None:
        """Write the observation after the last step, and what the learner remembers then."""
        for target, source in zip(_tensors(self.obs), _tensors(batch.obs), strict=True):
            target[steps + self.front].copy_(source)
        if self.memory is not None:
            self.write_memory(steps, memories.of(self.memory.shape[-1]))

    def cut(self, t: int, unfinished: Tensor, batch: AnyBatch) -> None:
        """Mark episodes that are not over by step t as truncated there."""
        self.truncated[t] |= unfinished
        for final, obs in _pairs(self.final_obs, batch.obs):
            final[t] = choose(unfinished, obs, final[t])
        if self.final_active is not None and batch.active is not None:
            self.final_active[t] = torch.where(unfinished[:, None], batch.active, self.final_active[t])

    def rollout(self, steps: int, batch: AnyBatch, partly_active: bool, carried: Tensor | None = None) -> Rollout:
        """The first ``steps`` steps, with the row in front of them where decisions were carried over."""
        first = slice(self.front if carried is None else 0, steps + self.front)
        return Rollout(
            obs=pick(self.obs, first),
            last_obs=pick(self.obs, first.stop),
            final_obs=pick(self.final_obs, first),
            sample=self.sample[first],
            log_prob=self.log_prob[first],
            reward=self.reward[first],
            terminated=self.terminated[first],
            truncated=self.truncated[first],
            legal_mask=None if self.legal_mask is None else self.legal_mask[first],
            active=self.active[first] if partly_active else None,
            last_mask=batch.legal_mask,
            last_active=batch.active,
            final_active=None if self.final_active is None else self.final_active[first],
            carried=carried,
            notes={name: note[first] for name, note in self.notes.items()} or None,
            memory=None if self.memory is None else self.memory[first],
            last_memory=None if self.memory is None else self.memory[first.stop],
            final_memory=None if self.final_memory is None else self.final_memory[first],
        )


def _check_memory(batch: AnyBatch, num_steps: int) -> None:
    """Refuse a rollout larger than the machine's memory before the system grants memory that it does not have.

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
