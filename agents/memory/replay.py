"""A replay buffer: the latest transitions, in a fixed amount of memory on the learner's device, to sample from.

Lin, "Self-improving reactive agents" (1992); Mnih et al. (2015). A circular buffer of T steps of N = B x P streams (one
per copy and seat) holds each step once, in the order of play, and each observation once
(:mod:`~mlbits.agents.memory.observations`); n-step returns are computed when they are sampled, with any n. A window of
n steps stops early at the end of an episode and at the newest step, and bootstraps from the observation that followed
there: never across the end of an episode, and never from the next episode.

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

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mlbits.agents.agent import AgentError, ReplaySpec
from mlbits.agents.memory.observations import stored_bytes
from mlbits.agents.memory.stored_steps import MASK, StoredSteps
from mlbits.agents.memory.usable_draws import draw_usable

_NOTHING = "replay: holds no transition that may be sampled; wanted some of the learner's own added before"

# A reward besides the environment's, of N steps: from what was seen, done and seen next.
Bonus = Callable[[Any, Tensor, Any], Tensor]


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


class Replay(StoredSteps):
    """A replay buffer of the latest transitions of N streams.

    Arguments, attributes and errors are those of :class:`~mlbits.agents.memory.stored_steps.StoredSteps`, which it is
    made of.
    """

    def sample(
        self,
        count: int,
        generator: torch.Generator,
        *,
        n_step: int = 1,
        discount: float = 0.99,
        weight_exponent: float = 0.0,
        minibatches: int = 1,
        bonus: Bonus | None = None,
    ) -> Transitions:
        """Sample transitions, with replacement.

        Args:
            count: transitions per minibatch.
            generator: for the draws.
            n_step: the largest number of steps in a window, n.
            discount: gamma.
            weight_exponent: beta of the importance weights of prioritised replay.
            minibatches: how many minibatches, concatenated in the result (N rows in all): the same as from separate
                calls, in less time.
            bonus: added to the reward of each step; None for nothing.

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
        final, reward, gamma = self._window(index, n_step, discount, bonus)
        seen, following = self._seen.of(index), self._seen.after(final)
        return Transitions(
            obs=self._whole(seen),
            action=self._action.index_select(0, index),
            reward=reward,
            discount=gamma,
            next_obs=self._whole(following),
            next_mask=following.get(MASK),
            mask=seen.get(MASK),
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
        self._top.copy_(torch.maximum(self._top, priority.max()))

    def _draw(self, count: int, generator: torch.Generator, beta: float) -> tuple[Tensor, Tensor | None]:
        if self._tree is not None:
            # One sample from each of N equal parts of the total: lower variance than N from the whole (section 3.3).
            total = self._tree.total
            if total.is_cpu and total == 0:
                raise AgentError(_NOTHING)
            parts = torch.arange(count, dtype=torch.float64, device=generator.device)
            parts += torch.rand(count, generator=generator, device=generator.device)
            index = self._tree.find(parts.to(self.device) * (total / count))
            likely = self._tree.get(index) / total
            weight = (likely * len(self)) ** -beta
            return index, (weight / weight.max()).float()
        held = len(self)
        if self._all_usable:
            drawn = torch.randint(held, (count,), generator=generator, device=generator.device)
            return drawn.to(self.device), None
        found = draw_usable(self._usable[:held], count, generator)
        if found is None:
            raise AgentError(_NOTHING)
        return found, None

    def _rewards(self, index: Tensor, bonus: Bonus | None) -> Tensor:
        """The rewards of steps [N]."""
        reward = self._reward.index_select(0, index)
        if bonus is None:
            return reward
        obs, following = self._whole(self._seen.of(index)), self._whole(self._seen.after(index))
        return reward + bonus(obs, self._action.index_select(0, index), following)

    def _window(
        self, index: Tensor, n_step: int, discount: float, bonus: Bonus | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """For windows that begin at ``index``: last steps, discounted rewards, and discounts of the bootstrap."""
        reward = self._rewards(index, bonus)
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
            final = torch.where(going, following, final)
            reward = reward + torch.where(going, gamma * self._rewards(final, bonus), 0.0)
            gamma = torch.where(going, gamma * discount, gamma)
            going = going & ~self._last.index_select(0, following)
        return final, reward, gamma * self._alive.index_select(0, final)


def replay_bytes(spec: ReplaySpec, obs: Any, action: Tensor, mask: Tensor | None, frame_stack: int = 1) -> int:
    """The memory that a replay buffer takes from the start, in bytes.

    Episodes of fewer than 16 steps on average make it larger, because their final observations are stored too; those of
    one step at most by as much again as the observations take.

    Args:
        spec: capacity and other settings that the agent asks for.
        obs: observations of a batch [B, P, ...].
        action: an agent's samples for a batch [B, P, ...].
        mask: legal actions of a batch [B, P, A], or None.
        frame_stack: as for :class:`~mlbits.agents.memory.stored_steps.StoredSteps`.
    """
    streams = action.shape[0] * action.shape[1]
    steps = spec.capacity // streams
    tree = 32 if spec.priority_exponent > 0 else 0  # two float64 per leaf, and up to twice as many leaves
    goals = 24 if spec.hindsight != "none" else 0  # each step's episode, and as many episodes' first and last steps
    each = action.numel() * action.element_size() // streams + 2 * 4 + 2 + tree + goals
    seen = [*obs.values()] if isinstance(obs, dict) else [obs]
    return steps * streams * each + stored_bytes([*seen, *([] if mask is None else [mask])], steps, frame_stack)
