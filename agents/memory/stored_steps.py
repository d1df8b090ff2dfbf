"""What a replay buffer holds: the latest steps, where each is written, and what is known of it.

A circular buffer of T steps of N = B x P streams (one per copy and seat) holds each step once, in the order of play,
and each observation once (:mod:`~mlbits.agents.memory.observations`). Sampling from it is the buffer's own
(:mod:`~mlbits.agents.memory.replay`), which also describes seats that wait for their turns; in short, the steps of
their streams are decisions, and an open one may not be sampled until its outcome is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlbits.agents.agent import (
    AgentError,
    OnHost,
    ReplaySpec,
    Rollout,
    pick,
    prefixed,
    rows,
    true_places,
    unprefixed,
)
from mlbits.agents.memory.decisions import Outcomes, outcomes
from mlbits.agents.memory.frame_stacks import FrameStacks
from mlbits.agents.memory.observations import Observations
from mlbits.agents.memory.sum_tree import SumTree
from mlbits.envs.engine.on_host import on_host, to_device

OBS, MASK = "obs", "mask"  # names of what is stored with a step: parts of the observation, legal actions


class StoredSteps:
    """The latest steps of N streams, in a fixed amount of memory.

    Args:
        spec: capacity and other settings that the agent asks for.
        obs: observations of the batch [B, P, ...], for their shapes, types and device.
        action: an agent's samples for the batch [B, P, ...], for their shape and type.
        mask: legal actions of the batch [B, P, A], or None.
        frame_stack: k if observations, or parts of them, are stacks of the latest k frames, [B, P, k, ...]; 1 if not.
            Stacks of seats that wait for their turns are stored whole.

    Attributes:
        latest: the rollout that was added last, valid until the next one is added; None at first.
        added: how many transitions that may be sampled were ever added: the learner's own, once they are settled.
        streams: N = B x P.
        steps: capacity T of the circular buffer, in steps per stream.

    Raises:
        AgentError: if the capacity is too small for two rollouts.
    """

    def __init__(self, spec: ReplaySpec, obs: Any, action: Tensor, mask: Tensor | None, frame_stack: int = 1) -> None:
        self.streams = action.shape[0] * action.shape[1]
        self.steps = spec.capacity // self.streams
        if self.steps < 2 * spec.num_steps:
            raise AgentError(
                f"buffer_size: got {spec.capacity:,}, which is {self.steps} steps of {self.streams:,} copies and "
                f"seats; wanted at least two rollouts: {2 * spec.num_steps * self.streams:,}"
            )
        self.device = action.device
        total = self.steps * self.streams
        self._names = list(obs) if isinstance(obs, dict) else None
        self._masked = mask is not None
        like = self._parts(rows(obs, 2), None if mask is None else mask.flatten(0, 1))
        self._seen = FrameStacks(like, self.steps, frame_stack) if frame_stack > 1 else Observations(like, self.steps)
        self._action = torch.zeros((total, *action.shape[2:]), dtype=action.dtype, device=self.device)
        self._reward = torch.zeros(total, device=self.device)
        # For each step: 0 if the episode terminated there, else 1; and whether windows must end with it.
        self._alive = torch.zeros(total, device=self.device)
        self._last = torch.zeros(total, dtype=torch.bool, device=self.device)
        self._usable = torch.zeros(total, dtype=torch.bool, device=self.device)
        self._all_usable = True
        self._head, self._filled, self.added = 0, 0, 0
        self._exponent = spec.priority_exponent
        self._tree = SumTree(total, self.device) if spec.priority_exponent > 0 else None
        if self._tree is not None:
            self._top.fill_(1.0)
        # If seats wait for their turns, int64 [3, N]: each stream's next step in the buffer, how many decisions it has
        # had so far, and whether the latest of them is open.
        self._turns: Tensor | None = None
        self._num_open = 0
        self.latest: Rollout | None = None

    def __len__(self) -> int:
        """Transitions stored, those of other players included; if seats wait, streams times the longest stream."""
        return self._filled * self.streams

    def add(self, rollout: Rollout) -> None:
        """Store a rollout's T steps over the oldest ones."""
        self.latest = rollout
        steps = len(rollout.reward)
        start = 0
        if rollout.last_active is not None:
            while start < steps:
                count = min(steps - start, self.steps - 1)  # so that no open decision is overwritten
                self._write_decisions(rollout, start, count)
                start += count
            return
        while start < steps:  # in several pieces if the circular buffer wraps around
            count = min(steps - start, self.steps - self._head)
            self._write(rollout, start, count)
            start += count

    def add_to_latest(self, reward: Tensor) -> None:
        """Add to the rewards [T, S] of the T steps of S streams that were added last, where none waits for its turn."""
        steps = min(len(reward), self.steps)
        place = (self._head - steps + torch.arange(steps, device=self.device)) % self.steps
        self._reward.view(self.steps, self.streams)[place] += reward[-steps:]

    def _write(self, rollout: Rollout, start: int, count: int) -> None:
        low, high = self._head * self.streams, (self._head + count) * self.streams
        end = start + count
        whole, part, place = count == rollout.reward.shape[0], slice(start, end), slice(low, high)
        terminated, truncated, reward, sample = (
            value if whole else value[part]
            for value in (rollout.terminated, rollout.truncated, rollout.reward, rollout.sample)
        )
        shape = reward.shape  # [t, B, P]
        usable = rollout.active[part] if rollout.active is not None else None
        where, final = None, {}
        known = None if rollout.host is None else _known_ends(rollout.host, part, shape[2])
        if len(known) if known is not None else (_any(terminated) or _any(truncated)):
            ended = (terminated | truncated).unsqueeze(-1).expand(shape)
            where = true_places(ended.flatten(), None if known is None else len(known))[0]
            final = pick(rows(pick(rollout.final_obs, part), 3), where)
            self._alive[place].view(shape).copy_((~terminated).unsqueeze(-1).expand(shape))
            self._last[place].view(shape).copy_(ended)
        else:  # no episode ends in most short rollouts
            self._alive[place] = 1.0
            self._last[place] = False
        following = rollout.last_obs if end == rollout.reward.shape[0] else pick(rollout.obs, end)
        following_mask = mask = end_mask = None
        if rollout.legal_mask is not None:
            assert rollout.last_mask is not None
            mask = rollout.legal_mask[part].flatten(1, 2)
            following_mask = rollout.last_mask if end == rollout.reward.shape[0] else rollout.legal_mask[end]
            following_mask = following_mask.flatten(0, 1)
            if where is not None:  # in place of the unknown legal actions at an end, those of the next episode's start
                end_mask = torch.cat([mask[1:], following_mask.unsqueeze(0)]).flatten(0, 1).index_select(0, where)
            legal_known = (~(rollout.truncated[part] & ~rollout.terminated[part])).unsqueeze(-1).expand(shape)
            usable = legal_known if usable is None else usable & legal_known
        obs = rollout.obs if whole else pick(rollout.obs, part)
        self._seen.add_steps(
            low,
            self._parts(_streams(obs, 1), mask),
            self._parts(_streams(following, 0), following_mask),
            where,
            {} if where is None else self._parts(final, end_mask),
            known_ends=None if where is None else known,
            continues=start == 0 and rollout.host is not None and rollout.host.continues,
        )
        _put(self._action, place, sample)
        _put(self._reward, place, reward)
        self._mark(place, usable, count)
        self._head = (self._head + count) % self.steps
        self._filled = min(self._filled + count, self.steps)

    def _mark(self, place: slice, usable: Tensor | None, count: int) -> None:
        """Record which of the new transitions may be sampled, and give those the highest priority so far."""
        if usable is None:
            self._usable[place] = True
            self.added += count * self.streams
        else:
            self._usable[place].copy_(usable.flatten())
            self.added += int(usable.sum())
            self._all_usable = False
        if self._tree is not None:
            index = torch.arange(place.start, place.stop, device=self.device)
            self._tree.set(index, self._usable[place] * self._top.float())

    def _write_decisions(self, rollout: Rollout, start: int, count: int) -> None:
        """Store the decisions of ``count`` steps, and settle open ones whose outcome is now known."""
        streams, part = self.streams, slice(start, start + count)
        fresh = slice(self._num_open, None)  # new decisions come after those that were open
        if self._turns is None:
            self._turns = torch.zeros(3, streams, dtype=torch.int64, device=self.device)
            self._all_usable = False
        number = None  # of decisions, those that were open included
        if rollout.host is not None and rollout.host.num_active is not None and count == len(rollout.reward):
            number = self._num_open + rollout.host.num_active
        found, self._turns = outcomes(self._turns, rollout, part, self.steps, self._masked, number)
        counts = torch.stack([self._turns[1].max(), self._turns[2].sum()])
        parts = (found.slot, found.place, found.first, found.known, found.by_end, found.after, counts)
        *known, (longest, num_open) = on_host(*parts)
        slot, new = found.slot[fresh], found.row[fresh] - streams
        self._write_seen(rollout, part, found, fresh, new, *known)
        self._action[slot] = rollout.sample[part].flatten(0, 2).index_select(0, new)
        self._reward[slot] = 0.0
        self._reward[found.slot] += found.earned
        self._alive[found.slot] = (~found.finished).float()
        self._last[found.slot], self._usable[found.slot] = found.by_end, found.known
        if self._tree is not None:
            self._tree.set(found.slot, found.known * self._top.float())
        self.added += int(np.count_nonzero(known[3]))
        self._filled, self._num_open = min(int(longest), self.steps), int(num_open)

    def _write_seen(
        self, rollout: Rollout, part: slice, found: Outcomes, fresh: slice, new: Tensor, slot: np.ndarray,
        place: np.ndarray, first: np.ndarray, known: np.ndarray, by_end: np.ndarray, follows: np.ndarray,
    ) -> None:  # fmt: skip
        """Store what new decisions saw, and what followed those whose outcome is now known; by arrays of ``found``."""
        newest = part.stop == len(rollout.reward)
        following = rollout.last_obs if newest else pick(rollout.obs, part.stop)
        settled, ends = np.flatnonzero(known & ~by_end), np.flatnonzero(known & by_end)
        after = np.flatnonzero(follows[settled])
        stream = found.stream.index_select(0, to_device(settled[after], self.device))
        ended = found.end.index_select(0, to_device(ends, self.device))
        mask = last_mask = None
        if rollout.legal_mask is not None:
            assert rollout.last_mask is not None
            mask = rollout.legal_mask[part].flatten(0, 2)
            last_mask = (rollout.last_mask if newest else rollout.legal_mask[part.stop]).flatten(0, 1)
            last_mask = last_mask.index_select(0, stream)
            mask = mask.index_select(0, new)
        self._seen.add_decisions(
            slot[fresh],
            place[fresh],
            first[fresh],
            self._parts(pick(rows(pick(rollout.obs, part), 3), new), mask),
            slot[settled],
            place[settled] + 1,
            slot[ends],
            self._parts(pick(rows(pick(rollout.final_obs, part), 3), ended), None),
            after,
            self._parts(pick(rows(following, 2), stream), last_mask),
            continues=part.start == 0 and rollout.host is not None and rollout.host.continues,
        )

    def cut(self) -> None:
        """Mark that what is added next does not continue what was added last (the copies were reset)."""
        if self._turns is not None:
            newest_of = (self._turns[0] - 1) % self.steps * self.streams
            self._last[newest_of + torch.arange(self.streams, device=self.device)] = True
            self._turns[2].zero_()
            self._num_open = 0
        elif self._filled:
            newest = (self._head - 1) % self.steps * self.streams
            self._last[newest : newest + self.streams] = True

    @property
    def _top(self) -> Tensor:
        """The highest priority so far, a tensor []."""
        assert self._tree is not None
        return self._tree.nodes[0]

    def state_dict(self) -> dict[str, Tensor]:
        """The filled part of the buffer, and its counters."""
        held = len(self)
        state = {f"{name}.all": value[:held] for name, value in self._arrays().items()}
        state |= prefixed("seen", self._seen.state_dict(held))
        counts = [self._head, self._filled, self.added, int(self._all_usable)]
        state["counts"] = torch.tensor(counts)
        if self._turns is not None:
            state["turns"] = self._turns.clone()
        if self._tree is not None:
            state["priority"] = self._tree.get(torch.arange(held, device=self.device))
            state["top_priority"] = self._top
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved state.

        Raises:
            KeyError: if an entry is missing.
            ValueError: if it was saved by a buffer of another shape, or by one that stored observations twice.
        """
        if any(name.startswith("next_obs.") for name in state):
            raise ValueError(
                "the replay buffer was saved by an older version of mlbits, which stored each observation twice; "
                "wanted a run of this version: it cannot be resumed, but it can still be evaluated and played"
            )
        self._head, self._filled, self.added, usable = (int(k) for k in state["counts"])
        self._all_usable = bool(usable)
        self._turns = state["turns"].to(self.device, copy=True) if "turns" in state else None
        self._num_open = 0 if self._turns is None else int(self._turns[2].sum())
        held = len(self)
        for name, value in self._arrays().items():
            saved = state[f"{name}.all"]
            if saved.shape != value[:held].shape:
                raise ValueError(f"replay.{name}: got {tuple(saved.shape)}; wanted {tuple(value[:held].shape)}")
            value[:held].copy_(saved)
        self._seen.load_state_dict(unprefixed("seen", state), held)
        if self._tree is not None:
            self._tree.nodes.zero_()
            self._tree.set(torch.arange(held, device=self.device), state["priority"].to(self.device))
            self._top.copy_(state["top_priority"])

    def _arrays(self) -> dict[str, Tensor]:
        return {
            "action": self._action, "reward": self._reward, "alive": self._alive, "last": self._last,
            "usable": self._usable,
        }  # fmt: skip

    def _parts(self, obs: Any, mask: Tensor | None) -> dict[str, Tensor]:
        """Observations and legal actions as named parts."""
        parts = {f"{OBS}.{name}": obs[name] for name in self._names} if self._names is not None else {OBS: obs}
        return parts if mask is None else parts | {MASK: mask}

    def _whole(self, parts: Mapping[str, Tensor]) -> Any:
        """The observation in named parts."""
        return parts[OBS] if self._names is None else {name: parts[f"{OBS}.{name}"] for name in self._names}


def _streams(value: Any, lead: int) -> Any:
    """Values [..., B, P, ...] as [..., B * P, ...], where ``lead`` axes come before."""
    if isinstance(value, dict):
        return {key: part.flatten(lead, lead + 1) for key, part in value.items()}
    return value.flatten(lead, lead + 1)


def _put(array: Tensor, place: slice, value: Tensor) -> None:
    """Write values [t, B, P, ...] to the rows ``place``; on a CPU by NumPy, whose calls cost a third of torch's."""
    if value.is_cpu:
        target = array.numpy()[place]
        target[...] = value.numpy().reshape(target.shape)
    else:
        array[place] = value.reshape(-1, *array.shape[1:])


def _known_ends(host: OnHost, part: slice, seats: int) -> np.ndarray:
    """Which of the steps of all streams in a part of a rollout ended an episode, int64 [n], as the host knows it."""
    return np.flatnonzero(np.repeat((host.terminated[part] | host.truncated[part]).reshape(-1), seats))


def _any(flags: Tensor) -> bool:
    return bool(flags.numpy().any() if flags.is_cpu else flags.any())
