"""A replay buffer: the latest transitions, in a fixed amount of memory on the learner's device, to sample from.

Lin, "Self-improving reactive agents" (1992); Mnih et al. (2015). A circular buffer of T steps of N = B x P streams (one
per copy and seat) holds each step once, in the order of play; n-step returns are computed when they are sampled, with
any n. A window of n steps stops early at the end of an episode and at the newest step, and bootstraps from the
observation that followed there: never across the end of an episode, and never from the next episode.

Sampling is uniform, or in proportion to priority ** exponent (Schaul et al. 2016, "Prioritized Experience Replay",
section 3.3, proportional) with importance weights that correct the bias. New transitions get the top priority so far.

Terminated and truncated steps differ: after a truncation the value of the final observation still counts. If actions
are masked, the legal actions at an episode's final observation are not known, so truncated steps are not sampled.

If seats wait for their turns, the steps of a stream are its decisions: a pass is not stored, sampled or counted. A
decision is open until its seat's next decision or the end of the episode settles it: its reward is then all that the
seat has earned since, discounted once, and its next observation is the one at the seat's next decision. Open decisions
are not sampled. If a seat is still waiting when its episode is truncated, its last decision never gets an outcome and
is never sampled. A window of n steps is one of n decisions.

Example:
    replay = Replay(ReplaySpec(num_steps=4, capacity=10_000), batch.obs, action, mask=None)
    replay.add(rollout)
    drawn = replay.sample(32, generator, n_step=3, discount=0.99)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mlbits.agents.agent import AgentError, ReplaySpec, Rollout, pick, rows
from mlbits.agents.maths.open_decisions import next_turns_and_ends
from mlbits.agents.maths.returns import decision_rewards
from mlbits.agents.memory.sum_tree import SumTree

_NOTHING = "replay: holds no transition that may be sampled; wanted some of the learner's own added before"
_REDRAWS = 20


class Transitions(NamedTuple):
    """N transitions of up to n steps.

    Attributes:
        obs: [N, ...] or a dict of such tensors.
        action: the agent's sample at the time, [N, ...].
        reward: discounted sum over the window, [N].
        discount: of the value of ``next_obs``: gamma to the window's length, 0 where the episode terminated, [N].
        next_obs: [N, ...] or a dict of such tensors.
        next_mask: bool [N, A], legal actions at ``next_obs``, or None if all are legal.
        mask: bool [N, A], legal actions at ``obs``, or None.
        weight: importance weights, [N], of which the highest in each minibatch is 1; None for uniform sampling.
        slot: rows of the buffer that they are in, int64 [N].
    """

    obs: Any
    action: Tensor
    reward: Tensor
    discount: Tensor
    next_obs: Any
    next_mask: Tensor | None
    mask: Tensor | None
    weight: Tensor | None
    slot: Tensor


class _Outcomes(NamedTuple):
    """The outcomes of N decisions, in a part of a rollout whose steps are rows [t * B * P].

    Attributes:
        row: the decisions' own rows plus B * P; values below B * P are decisions that were open before.
        stream: of each decision.
        slot: rows of the buffer that they are in.
        seen: the row of the seat's next decision.
        after: bool, whether this next decision comes just after the part.
        end: the row of the step that ends the episode.
        by_end: bool, whether the episode ends before another decision.
        finished: bool, whether the episode also terminates there.
        known: bool, whether the outcome is known.
        earned: reward in this part.
    """

    row: Tensor
    stream: Tensor
    slot: Tensor
    seen: Tensor
    after: Tensor
    end: Tensor
    by_end: Tensor
    finished: Tensor
    known: Tensor
    earned: Tensor

    def next_of(self, steps: Tensor, after: Tensor) -> Tensor:
        """The values at the next decisions, given those at each step [t * B * P, ...] and after it [B * P, ...]."""
        return _where(self.after, after.index_select(0, self.stream), steps.index_select(0, self.seen))


class Replay:
    """A replay buffer of the latest transitions of N streams.

    Args:
        spec: capacity and other settings that the agent asks for.
        obs: observations of the batch [B, P, ...], for their shapes, types and device.
        action: an agent's samples for the batch [B, P, ...], for their shape and type.
        mask: legal actions of the batch [B, P, A], or None.

    Attributes:
        latest: the rollout that was added last, valid until the next one is added; None at first.
        added: how many transitions that may be sampled were ever added: the learner's own, once they are settled.
        streams: N = B x P.
        steps: capacity T of the circular buffer, in steps per stream.

    Raises:
        AgentError: if the capacity is too small for two rollouts.
    """

    def __init__(self, spec: ReplaySpec, obs: Any, action: Tensor, mask: Tensor | None) -> None:
        self.streams = action.shape[0] * action.shape[1]
        self.steps = spec.capacity // self.streams
        if self.steps < 2 * spec.num_steps:
            raise AgentError(
                f"buffer_size: got {spec.capacity:,}, which is {self.steps} steps of {self.streams:,} copies and "
                f"seats; wanted at least two rollouts: {2 * spec.num_steps * self.streams:,}"
            )
        self.device = action.device
        total = self.steps * self.streams
        self._obs, self._next_obs = _zeros_like_rows(obs, total), _zeros_like_rows(obs, total)
        self._action = _zeros_like_rows(action, total)
        self._mask = None if mask is None else _zeros_like_rows(mask, total)
        self._next_mask = None if mask is None else _zeros_like_rows(mask, total)
        self._reward = torch.zeros(total, device=self.device)
        # For each step: 0 if the episode terminated there, else 1; and whether windows must end with it.
        self._alive = torch.zeros(total, device=self.device)
        self._last = torch.zeros(total, dtype=torch.bool, device=self.device)
        self._usable = torch.zeros(total, dtype=torch.bool, device=self.device)
        self._all_usable = True
        self._head, self._filled, self.added = 0, 0, 0
        self._exponent = spec.priority_exponent
        self._tree = SumTree(total, self.device) if spec.priority_exponent > 0 else None
        self._top_priority = 1.0
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

    def _write(self, rollout: Rollout, start: int, count: int) -> None:
        low, high = self._head * self.streams, (self._head + count) * self.streams
        end = start + count
        whole, part, place = count == rollout.reward.shape[0], slice(start, end), slice(low, high)
        terminated, truncated, reward, sample = (
            value if whole else value[part]
            for value in (rollout.terminated, rollout.truncated, rollout.reward, rollout.sample)
        )
        shape = reward.shape  # [t, B, P]
        _put(self._obs, place, rollout.obs if whole else pick(rollout.obs, part))
        if count > 1:
            _put(self._next_obs, slice(low, high - self.streams), pick(rollout.obs, slice(start + 1, end)))
        last = rollout.last_obs if end == rollout.reward.shape[0] else pick(rollout.obs, end)
        _put(self._next_obs, slice(high - self.streams, high), last)
        if _any(terminated) or _any(truncated):
            ended = (terminated | truncated).unsqueeze(-1).expand(shape)
            where = ended.flatten().nonzero().squeeze(-1)
            final = pick(rows(pick(rollout.final_obs, part), 3), where)
            for (_, target), (_, source) in zip(_named(self._next_obs), _named(final), strict=True):
                target[where + low] = source
            self._alive[place].view(shape).copy_((~terminated).unsqueeze(-1).expand(shape))
            self._last[place].view(shape).copy_(ended)
        else:  # no episode ends in most short rollouts
            self._alive[place] = 1.0
            self._last[place] = False
        _put(self._action, place, sample)
        _put(self._reward, place, reward)
        usable = rollout.active[part] if rollout.active is not None else None
        if rollout.legal_mask is not None:
            assert self._mask is not None and self._next_mask is not None and rollout.last_mask is not None
            self._mask[place].copy_(rollout.legal_mask[part].flatten(0, 2))
            following = rollout.last_mask if end == rollout.reward.shape[0] else rollout.legal_mask[end]
            masks = torch.cat([rollout.legal_mask[start + 1 : end], following.unsqueeze(0)])
            self._next_mask[place].copy_(masks.flatten(0, 2))
            known = (~(rollout.truncated[part] & ~rollout.terminated[part])).unsqueeze(-1).expand(shape)
            usable = known if usable is None else usable & known
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
            self._tree.set(index, self._usable[place] * self._top_priority)

    def _write_decisions(self, rollout: Rollout, start: int, count: int) -> None:
        """Store the decisions of ``count`` steps, and settle open ones whose outcome is now known."""
        end, streams = start + count, self.streams
        newest, part = end == len(rollout.reward), slice(start, end)
        fresh = slice(self._num_open, None)  # new decisions come after those that were open
        found = self._outcomes(rollout, start, count)
        slot, new = found.slot[fresh], found.row[fresh] - streams
        following = rollout.last_obs if newest else pick(rollout.obs, end)
        parts = (_named(value) for value in (self._obs, self._next_obs, rollout.obs, following, rollout.final_obs))
        for (_, obs), (_, next_obs), (_, source), (_, last), (_, final) in zip(*parts, strict=True):
            source = source[part].flatten(0, 2)
            obs[slot] = source.index_select(0, new)
            value = found.next_of(source, last.flatten(0, 1))
            next_obs[found.slot] = _where(found.by_end, final[part].flatten(0, 2).index_select(0, found.end), value)
        self._action[slot] = rollout.sample[part].flatten(0, 2).index_select(0, new)
        if rollout.legal_mask is not None:
            assert self._mask is not None and self._next_mask is not None and rollout.last_mask is not None
            source = rollout.legal_mask[part].flatten(0, 2)
            self._mask[slot] = source.index_select(0, new)
            value = found.next_of(source, (rollout.last_mask if newest else rollout.legal_mask[end]).flatten(0, 1))
            self._next_mask[found.slot] = _where(found.by_end, self._mask[found.slot], value)  # unused at an end
        self._reward[slot] = 0.0
        self._reward[found.slot] += found.earned
        self._alive[found.slot] = (~found.finished).float()
        self._last[found.slot], self._usable[found.slot] = found.by_end, found.known
        if self._tree is not None:
            self._tree.set(found.slot, found.known * self._top_priority)
        assert self._turns is not None
        counts = torch.stack([found.known.sum(), self._turns[1].max(), self._turns[2].sum()])
        settled, longest, self._num_open = counts.tolist()
        self.added += settled
        self._filled = min(longest, self.steps)

    def _outcomes(self, rollout: Rollout, start: int, count: int) -> _Outcomes:
        """The outcomes of the open decisions and of those of ``count`` steps; advances the streams.

        Along the time axis, index 0 holds the open decisions, index t step ``start`` + t - 1, and ``count`` + 1 the
        step after the part.
        """
        assert rollout.active is not None and rollout.last_active is not None
        if self._turns is None:
            self._turns = torch.zeros(3, self.streams, dtype=torch.int64, device=self.device)
            self._all_usable = False
        head, had, open_ = self._turns
        end, streams, lead = start + count, self.streams, rollout.reward.shape[1:]
        part = slice(start, end)
        acts = torch.cat([open_.view(1, *lead).bool(), rollout.active[part]])
        terminated, truncated, reward = (
            torch.cat([torch.zeros_like(value[:1]), value[part]])
            for value in (rollout.terminated, rollout.truncated, rollout.reward)
        )
        earned = decision_rewards(reward, terminated, truncated, acts)
        turn, stop = next_turns_and_ends(acts, terminated | truncated)
        then = rollout.last_active if end == len(rollout.reward) else rollout.active[end]
        turn = torch.where((turn > count + 1) & then, count + 1, turn)
        still_open = (acts & (turn > stop) & (stop > count)).any(0).flatten()
        order = acts.flatten(1).cumsum(0) - open_  # of each stream's new decisions, from 1
        places = (head - 1 + order) % self.steps * streams + torch.arange(streams, device=self.device)
        self._turns = torch.stack([(head + order[-1]) % self.steps, had + order[-1], still_open.long()])
        index = acts.flatten().nonzero().squeeze(-1)
        stream = index % streams
        slot, turn, stop, earned = (
            value.flatten().index_select(0, index) for value in (places, turn, stop.contiguous(), earned)
        )
        by_turn, by_end = turn <= stop, (turn > stop) & (stop <= count)
        last = (stop - 1).clamp(0, count - 1) * streams + stream
        finished = by_end & terminated[1:].unsqueeze(-1).expand(count, *lead).flatten().index_select(0, last)
        known = by_turn | finished
        if self._mask is None:
            acted = by_end if rollout.final_active is None else rollout.final_active[part].flatten()[last]
            known = known | (by_end & acted)
        seen = (turn - 1).clamp(max=count - 1) * streams + stream
        return _Outcomes(index, stream, slot, seen, turn > count, last, by_end, finished, known, earned)

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

    def sample(
        self,
        count: int,
        generator: torch.Generator,
        *,
        n_step: int = 1,
        discount: float = 0.99,
        weight_exponent: float = 0.0,
        minibatches: int = 1,
    ) -> Transitions:
        """Sample transitions, with replacement.

        Args:
            count: transitions per minibatch.
            generator: on the CPU.
            n_step: the largest number of steps in a window, n.
            discount: gamma.
            weight_exponent: beta of the importance weights of prioritised replay.
            minibatches: how many minibatches, concatenated in the result (N rows in all): the same as from separate
                calls, in less time.

        Raises:
            AgentError: if the buffer holds no transition that may be sampled.
        """
        if self.added == 0:
            raise AgentError(_NOTHING)
        if self._all_usable and self._tree is None:
            count, minibatches = count * minibatches, 1  # takes the same numbers from the generator
        drawn = [self._draw(count, generator, weight_exponent) for _ in range(minibatches)]
        index, weight = drawn[0]
        if minibatches > 1:
            index = torch.cat([index for index, _ in drawn])
            weight = None if weight is None else torch.cat([part for _, part in drawn if part is not None])
        final, reward, gamma = self._window(index, n_step, discount)
        return Transitions(
            obs=pick(self._obs, index),
            action=self._action.index_select(0, index),
            reward=reward,
            discount=gamma,
            next_obs=pick(self._next_obs, final),
            next_mask=None if self._next_mask is None else self._next_mask.index_select(0, final),
            mask=None if self._mask is None else self._mask.index_select(0, index),
            weight=weight,
            slot=index,
        )

    def set_priority(self, slot: Tensor, error: Tensor) -> None:
        """Set priorities to (|error| + a small constant) ** exponent (Schaul et al., section 3.3).

        Raises:
            DivergedError: if an error is not finite.
        """
        assert self._tree is not None
        priority = (error.detach().abs() + 1e-6).to(torch.float64) ** self._exponent
        self._tree.set(slot, priority)
        self._top_priority = max(self._top_priority, float(priority.max()))

    def _draw(self, count: int, generator: torch.Generator, beta: float) -> tuple[Tensor, Tensor | None]:
        if self._tree is not None:
            # One sample from each of N equal parts of the total: lower variance than N from the whole (section 3.3).
            total = self._tree.total
            if total == 0:
                raise AgentError(_NOTHING)
            parts = torch.arange(count, dtype=torch.float64) + torch.rand(count, generator=generator).double()
            index = self._tree.find(parts.to(self.device) * (total / count))
            likely = self._tree.get(index) / total
            weight = (likely * len(self)) ** -beta
            return index, (weight / weight.max()).float()
        index = torch.randint(len(self), (count,), generator=generator).to(self.device)
        if not self._all_usable:
            # Sample again those that may not be used, such as the opponents' half of the seats. Searching the whole
            # buffer takes longer than the rest of an update, so that is done only if almost nothing is usable.
            for _ in range(_REDRAWS):
                wrong = ~self._usable[index]
                if not bool(wrong.any()):
                    return index, None
                again = torch.randint(len(self), (count,), generator=generator).to(self.device)
                index = torch.where(wrong, again, index)
            fit = self._usable.nonzero().squeeze(-1)
            if len(fit) == 0:
                raise AgentError(_NOTHING)
            again = torch.randint(len(fit), (count,), generator=generator).to(self.device)
            index = torch.where(self._usable[index], index, fit[again])
        return index, None

    def _window(self, index: Tensor, n_step: int, discount: float) -> tuple[Tensor, Tensor, Tensor]:
        """For windows that begin at ``index``: last steps, discounted rewards, and discounts of the bootstrap."""
        reward = self._reward.index_select(0, index)
        if n_step == 1:
            return index, reward, self._alive.index_select(0, index) * discount
        newest: Any = (self._head - 1) % self.steps
        final, gamma = index.clone(), torch.full_like(reward, discount)
        going = ~self._last.index_select(0, index)
        for _ in range(n_step - 1):
            following = (final + self.streams) % len(self._reward)
            if self._turns is not None:
                newest = ((self._turns[0] - 1) % self.steps).index_select(0, final % self.streams)
            going = going & (final // self.streams != newest) & self._usable.index_select(0, following)
            reward = reward + torch.where(going, gamma * self._reward.index_select(0, following), 0.0)
            final = torch.where(going, following, final)
            gamma = torch.where(going, gamma * discount, gamma)
            going = going & ~self._last.index_select(0, following)
        return final, reward, gamma * self._alive.index_select(0, final)

    def state_dict(self) -> dict[str, Tensor]:
        """The filled part of the buffer, and its counters."""
        held = len(self)
        state = {f"{name}.{key}": value[:held] for name, part in self._arrays().items() for key, value in _named(part)}
        counts = [self._head, self._filled, self.added, int(self._all_usable)]
        state["counts"] = torch.tensor(counts)
        if self._turns is not None:
            state["turns"] = self._turns.clone()
        if self._tree is not None:
            state["priority"] = self._tree.get(torch.arange(held, device=self.device))
            state["top_priority"] = torch.tensor(self._top_priority, dtype=torch.float64)
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved state.

        Raises:
            KeyError: if an entry is missing.
            ValueError: if it was saved by a buffer of another shape.
        """
        self._head, self._filled, self.added, usable = (int(k) for k in state["counts"])
        self._all_usable = bool(usable)
        self._turns = state["turns"].to(self.device, copy=True) if "turns" in state else None
        self._num_open = 0 if self._turns is None else int(self._turns[2].sum())
        held = len(self)
        for name, array in self._arrays().items():
            for key, value in _named(array):
                saved = state[f"{name}.{key}"]
                if saved.shape != value[:held].shape:
                    raise ValueError(f"replay.{name}: got {tuple(saved.shape)}; wanted {tuple(value[:held].shape)}")
                value[:held].copy_(saved)
        if self._tree is not None:
            self._tree.nodes.zero_()
            self._tree.set(torch.arange(held, device=self.device), state["priority"].to(self.device))
            self._top_priority = float(state["top_priority"])

    def _arrays(self) -> dict[str, Any]:
        arrays = {
            "obs": self._obs, "next_obs": self._next_obs, "action": self._action, "mask": self._mask,
            "next_mask": self._next_mask, "reward": self._reward, "alive": self._alive, "last": self._last,
            "usable": self._usable,
        }  # fmt: skip
        return {name: array for name, array in arrays.items() if array is not None}


def replay_bytes(spec: ReplaySpec, obs: Any, action: Tensor, mask: Tensor | None) -> int:
    """The most memory that a replay buffer takes, in bytes.

    Args:
        spec: capacity and other settings that the agent asks for.
        obs: observations of a batch [B, P, ...].
        action: an agent's samples for a batch [B, P, ...].
        mask: legal actions of a batch [B, P, A], or None.
    """
    streams = action.shape[0] * action.shape[1]
    seen = [value for _, value in _named(obs)] + ([] if mask is None else [mask])
    each = sum(2 * value.numel() * value.element_size() for value in seen) + action.numel() * action.element_size()
    tree = 32 if spec.priority_exponent > 0 else 0  # two float64 per leaf, and up to twice as many leaves
    return spec.capacity * (each // streams + 2 * 4 + 2 + tree)


def _zeros_like_rows(value: Any, total: int) -> Any:
    """Zeros [total, ...] with rows like those of a tensor [B, P, ...], or of each tensor of a dict."""
    if isinstance(value, dict):
        return {key: _zeros_like_rows(part, total) for key, part in value.items()}
    return torch.zeros((total, *value.shape[2:]), dtype=value.dtype, device=value.device)


def _put(array: Any, place: slice, value: Any) -> None:
    """Write values [t, B, P, ...] to the rows ``place``; on a CPU by NumPy, whose calls cost a third of torch's."""
    for (_, target), (_, source) in zip(_named(array), _named(value), strict=True):
        if source.is_cpu:
            rows = target.numpy()[place]
            rows[...] = source.numpy().reshape(rows.shape)
        else:
            target[place] = source.reshape(-1, *target.shape[1:])


def _where(condition: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Rows [N, ...] of one tensor where ``condition`` [N] is True, else of another."""
    return torch.where(condition.view(-1, *[1] * (one.dim() - 1)), one, other)


def _any(flags: Tensor) -> bool:
    return bool(flags.numpy().any() if flags.is_cpu else flags.any())


def _named(value: Any) -> list[tuple[str, Tensor]]:
    return list(value.items()) if isinstance(value, dict) else [("all", value)]
