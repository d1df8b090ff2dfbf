"""Returns and advantages, with terminated and truncated kept apart.

Terminated: the game is over, and the next value is 0. Truncated: a limit cut the episode, and the next value is that of
the final observation. Merging the two is a common silent bug.

Generalised advantage estimation (Schulman et al. 2016, equations 11 to 16; Kaplan, "Notes on Contemporary Machine
Learning for Physicists", 8.2):

    delta_t = r_t + gamma V(s_{t+1}) - V(s_t),    A_t = sum_l (gamma lambda)^l delta_{t+l}

lambda = 1 gives rewards-to-go minus the value; lambda = 0 the one-step temporal difference.

Seats that do not act: a seat's steps are the times at which it acts. Its rewards between two of them belong to the
first, and discounting is per decision, not per tick, so that a turn-based game has the same horizon for its seats as a
simultaneous one. Rewards before a seat's first decision belong to none. The last decision of a window leads to the
observation after the window, and that of a truncated episode to the episode's last: rollouts do not contain decisions
that are still open there (``open_decisions``).

Example:
    >>> import torch
    >>> one = torch.ones(2, 1, 1)
    >>> never = torch.zeros(2, 1, dtype=torch.bool)
    >>> gae(one, 0 * one, 0 * one, never, never, discount=0.5, gae_lambda=1.0).flatten().tolist()
    [1.5, 1.0]
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mlbits.agents import kernels
from mlbits.agents.agent import true_places
from mlbits.agents.kernels import shards

_READ_EVERY = 100  # checks of a support on a GPU between two looks at what was seen: the host waits for each
_CONSTANT = 1e-12  # a variance below this fraction of the mean's square is that of rounding


def next_values(
    value: Tensor, last_value: Tensor, final_value: Tensor, terminated: Tensor, truncated: Tensor
) -> Tensor:
    """The next value of each step, for bootstrapping.

    Args:
        value: V of each step's observation, [T, B, P].
        last_value: V of the observation after the last step, [B, P].
        final_value: V of the final observation of episodes that end in a step, [T, B, P]; used only where truncated.
        terminated: bool [T, B].
        truncated: bool [T, B].

    Returns:
        [T, B, P]: 0 where terminated, the final observation's value where truncated only, else the next step's.
    """
    following = torch.cat([value[1:], last_value[None]])
    following = torch.where(truncated[..., None], final_value, following)
    return following.masked_fill(terminated[..., None], 0.0)


def gae(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    discount: float,
    gae_lambda: float,
    active: Tensor | None = None,
) -> Tensor:
    """Generalised advantage estimates.

    Args:
        reward: [T, B, P].
        value: V of each step's observation, [T, B, P].
        next_value: the next value of each step, from :func:`next_values`, [T, B, P].
        terminated: bool [T, B].
        truncated: bool [T, B].
        discount: gamma, 0..1.
        gae_lambda: lambda, 0..1.
        active: bool [T, B, P], which seats act in a step; None if all do.

    Returns:
        Advantages [T, B, P]; 0 where a seat does not act.

    Raises:
        ValueError: if shapes do not agree or a factor is out of range.
    """
    if not (0.0 <= discount <= 1.0 and 0.0 <= gae_lambda <= 1.0):
        raise ValueError(f"discount and gae_lambda: got {discount} and {gae_lambda}; wanted numbers from 0 to 1")
    if not (
        reward.shape == value.shape == next_value.shape and reward.shape[:2] == terminated.shape == truncated.shape
    ):
        raise ValueError(
            f"shapes: got reward {tuple(reward.shape)}, value {tuple(value.shape)}, next_value "
            f"{tuple(next_value.shape)}, terminated {tuple(terminated.shape)}, truncated {tuple(truncated.shape)}; "
            "wanted [T, B, P] three times, then [T, B] twice"
        )
    if reward.is_cuda and reward.dtype == torch.float32 and kernels.enabled():
        from mlbits.agents.kernels.advantages_on_gpu import advantages

        return advantages(reward, value, next_value, terminated | truncated, active, discount, gae_lambda)
    ended = (terminated | truncated)[..., None]
    if active is not None:
        return _gae_with_turns(reward, value, next_value, ended, discount, gae_lambda, active)
    delta = reward + discount * next_value - value
    decay = (discount * gae_lambda) * (~ended).to(reward.dtype).expand_as(reward)
    advantage = torch.empty_like(reward)
    running = torch.zeros_like(reward[0])
    for t in range(len(reward) - 1, -1, -1):
        running = torch.addcmul(delta[t], decay[t], running, out=advantage[t])
    return advantage


def _gae_with_turns(
    reward: Tensor, value: Tensor, next_value: Tensor, ended: Tensor, discount: float, gae_lambda: float, active: Tensor
) -> Tensor:
    """:func:`gae` over the steps at which each seat acts; see the module's docstring."""
    advantage = torch.zeros_like(reward)
    follow_value = next_value[-1]  # value at the seat's next decision
    follow_advantage = torch.zeros_like(reward[0])
    earned = torch.zeros_like(reward[0])  # rewards since the decision, at steps where the seat did not act
    for t in range(len(reward) - 1, -1, -1):
        follow_value = torch.where(ended[t], next_value[t], follow_value)
        follow_advantage = follow_advantage.masked_fill(ended[t], 0.0)
        earned = earned.masked_fill(ended[t], 0.0) + reward[t]
        own = earned + discount * follow_value - value[t] + discount * gae_lambda * follow_advantage
        advantage[t] = torch.where(active[t], own, 0.0)
        follow_value = torch.where(active[t], value[t], follow_value)
        follow_advantage = torch.where(active[t], own, follow_advantage)
        earned = earned.masked_fill(active[t], 0.0)
    return advantage


def rewards_to_go(
    reward: Tensor, terminated: Tensor, truncated: Tensor, *, discount: float, active: Tensor | None = None
) -> Tensor:
    """The discounted sum of the rewards from each step to its episode's end, without bootstrapping; [T, B, P].

    Args:
        reward: [T, B, P].
        terminated: bool [T, B].
        truncated: bool [T, B].
        discount: gamma, 0..1.
        active: bool [T, B, P], or None.
    """
    zero = torch.zeros_like(reward)
    return gae(reward, zero, zero, terminated, truncated, discount=discount, gae_lambda=1.0, active=active)


def whole_returns(
    reward: Tensor, terminated: Tensor, truncated: Tensor, *, discount: float, active: Tensor | None = None
) -> Tensor:
    """The discounted return of the whole episode that each step belongs to, counted from its first step; [T, B, P].

    Rewards before the window are unknown: an episode that was already running at t = 0 counts from there. If seats do
    not always act, an episode counts from a seat's first decision, and is 0 at the steps between its decisions.
    """
    ended = (terminated | truncated)[..., None]
    to_go = rewards_to_go(reward, terminated, truncated, discount=discount, active=active)
    acts = torch.ones_like(reward, dtype=torch.bool) if active is None else active
    total = torch.empty_like(reward)
    running = torch.zeros_like(reward[0])
    fresh = torch.ones_like(acts[0])  # seats without a decision in the current episode so far
    for t in range(len(reward)):
        running = torch.where(fresh & acts[t], to_go[t], running)
        total[t] = torch.where(acts[t], running, 0.0)
        fresh = (fresh & ~acts[t]) | ended[t]
    return total


def decision_rewards(reward: Tensor, terminated: Tensor, truncated: Tensor, active: Tensor) -> Tensor:
    """The reward of each decision until its seat's next one, or the end of the episode or window.

    Args:
        reward: [T, B, P].
        terminated: bool [T, B].
        truncated: bool [T, B].
        active: bool [T, B, P].

    Returns:
        [T, B, P], 0 where a seat does not act.
    """
    ended, result = (terminated | truncated)[..., None], torch.empty_like(reward)
    earned = torch.zeros_like(reward[0])
    for t in range(len(reward) - 1, -1, -1):
        earned = earned.masked_fill(ended[t], 0.0) + reward[t]
        result[t] = torch.where(active[t], earned, 0.0)
        earned = earned.masked_fill(active[t], 0.0)
    return result


class RewardScale:
    """Divides rewards by the running standard deviation of each seat's discounted return (PPO's reward scaling).

    Source: Engstrom et al., "Implementation matters in deep policy gradients" (2020), section 3, item 2: R <- gamma R +
    r, reset in each episode, and the standard deviation of all R so far. Rewards are not shifted, so optimal policies
    stay optimal. As in :func:`gae`, a seat's steps are its own decisions: each counts once, discounts once, and its
    r is the sum of its rewards until the next. Returns that were all the same have no deviation: then rewards are
    divided by the size of these returns.

    Rollouts for a replay buffer hold decisions that are still open where they end. Each is counted once it is settled,
    with the rewards of later rollouts.

    Args:
        discount: gamma of the running return.
    """

    def __init__(self, discount: float) -> None:
        self.discount = discount
        self.carry: Tensor | None = None  # discounted return so far, [B, P]
        self.earned: Tensor | None = None  # by open decisions so far, [B, P]
        self.open: Tensor | None = None  # bool [B, P], seats with an open decision
        self.count, self.mean, self.m2 = 0.0, 0.0, 0.0

    def __call__(self, rollout: Any) -> Tensor:
        """The rollout's rewards, scaled, [T, B, P], after adding the learner's returns to the statistics."""
        self.update(rollout)
        return rollout.reward / self.unit

    def update(self, rollout: Any) -> None:
        """Add the returns of a rollout's decisions to the statistics."""
        seen = self._returns(rollout).double()
        n, average = float(seen.numel()), seen.sum() / max(seen.numel(), 1)
        mean, m2 = torch.stack([average, (seen - average).square().sum()]).tolist()  # in one go: a GPU waits for each
        for count, other, spread in shards.gather(torch.tensor([n, mean, m2], dtype=torch.float64)).tolist():
            total, delta = max(self.count + count, 1.0), other - self.mean
            self.m2 += spread + delta**2 * self.count * count / total
            self.mean += delta * count / total
            self.count += count

    def forget_episodes(self) -> None:
        """Mark that the copies were reset: what comes next continues no episode."""
        self.carry = self.earned = self.open = None

    def _returns(self, rollout: Any) -> Tensor:
        """The running return at each of the learner's decisions, flat."""
        reward, active = rollout.reward, rollout.active
        ended = (rollout.terminated | rollout.truncated)[..., None]
        carry = torch.zeros_like(reward[0]) if self.carry is None else self.carry.to(reward.device)
        if getattr(rollout, "last_active", None) is not None:
            return self._settled_returns(rollout, carry, ended)
        earned = reward
        if active is not None:
            earned = decision_rewards(reward, rollout.terminated, rollout.truncated, active)
        running = torch.empty_like(reward)
        for t in range(len(reward)):
            following = self.discount * carry + earned[t]
            running[t] = carry = following if active is None else torch.where(active[t], following, carry)
            carry = carry.masked_fill(ended[t], 0.0)
        self.carry = carry
        if active is None:
            return running.flatten()
        host = getattr(rollout, "host", None)
        return running.flatten()[true_places(active.flatten(), None if host is None else host.num_active)]

    def _settled_returns(self, rollout: Any, carry: Tensor, ended: Tensor) -> Tensor:
        """The same where decisions may be open at the rollout's ends, for those that this rollout settles."""
        reward, active = rollout.reward, rollout.active
        if self.open is None or self.earned is None:
            self.open, self.earned = torch.zeros_like(active[0]), torch.zeros_like(carry)
        still_open, earned = self.open.to(reward.device), self.earned.to(reward.device)
        # A seat that waits when its episode is truncated never sees what its last decision led to.
        known = rollout.terminated[..., None].expand_as(active)
        known = torch.ones_like(known) if rollout.final_active is None else known | rollout.final_active
        running: list[Tensor] = []
        for t in range(len(reward)):
            for turn in (True, False):  # at a seat's next decision, or at the end of the episode
                settles = still_open & (active[t] if turn else ended[t])
                carry = torch.where(settles, self.discount * carry + earned, carry)
                running.append(carry[settles if turn else settles & known[t]])
                earned, still_open = earned.masked_fill(settles, 0.0), still_open & ~settles
                if turn:
                    still_open = still_open | active[t]
                    earned = torch.where(still_open, earned + reward[t], earned)
            carry = carry.masked_fill(ended[t], 0.0)
        self.carry, self.earned, self.open = carry, earned, still_open
        return torch.cat(running)

    @property
    def unit(self) -> float:
        """What rewards are divided by."""
        variance = self.m2 / max(self.count, 1.0)
        if variance <= _CONSTANT * self.mean**2:
            return abs(self.mean) or 1.0
        return math.sqrt(variance + 1e-8)

    def state_dict(self) -> dict[str, Tensor]:
        """Moments and the running returns."""
        state = {"moments": torch.tensor([self.count, self.mean, self.m2], dtype=torch.float64)}
        parts = {"carry": self.carry, "earned": self.earned, "open": self.open}
        state |= {name: value.clone() for name, value in parts.items() if value is not None}
        return {f"reward_scale.{name}": value for name, value in state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved state."""
        self.count, self.mean, self.m2 = state["reward_scale.moments"].tolist()
        self.carry, self.earned, self.open = (state.get(f"reward_scale.{name}") for name in ("carry", "earned", "open"))


class ReturnRange:
    """The least and greatest discounted sums of rewards seen, to warn of a support that does not contain them.

    Each seat's rewards are summed with the latest weighted most, s <- gamma s + r, which is known before an episode is
    over. If rewards are constant over an episode it is the discounted return. A seat's steps are its own decisions, and
    the r of each is the sum of its rewards until the next: s is checked at the next decision, or when the episode ends.

    Args:
        discount: gamma.
    """

    def __init__(self, discount: float) -> None:
        self.discount = discount
        self.low, self.high, self.warned = math.inf, -math.inf, False
        self.carry: Tensor | None = None  # [B, P]
        self.waiting: Tensor | None = None  # bool [B, P], seats with a decision that may earn more
        # On a GPU: minus the least and the greatest sum since the range was last read, and how often it was checked.
        self._unread: Tensor | None = None
        self._checks = 0

    def check(self, rollout: Any, low: float, high: float) -> None:
        """Add a rollout's rewards, and warn, once, if sums are beyond ``low`` or ``high``."""
        if self.warned:
            return
        reward, ended = rollout.reward, (rollout.terminated | rollout.truncated)[..., None]
        carry = torch.zeros_like(reward[0]) if self.carry is None else self.carry.to(reward.device)
        if rollout.active is not None:
            carry = self._check_decisions(rollout, carry, ended)
        else:
            for t in range(len(reward)):
                carry = self.discount * carry + reward[t]
                self._see(carry.min(), carry.max())
                carry = carry.masked_fill(ended[t], 0.0)
        self.carry = carry
        self._checks += 1
        if self._checks % _READ_EVERY == 0:
            self._read()
        if self.low < low or self.high > high:
            self.warned = True
            warnings.warn(
                f"v_min, v_max: discounted returns from {self.low:.4g} to {self.high:.4g} were seen, "
                f"and the support is {low:g} to {high:g}, whose ends stand for all returns beyond; wanted a wider one",
                stacklevel=3,
            )

    def _see(self, low: Tensor, high: Tensor) -> None:
        """Widen the range; what is on a GPU is read there only at times."""
        seen = torch.stack([-low, high])
        self._unread = seen if self._unread is None else torch.maximum(self._unread, seen)
        if seen.is_cpu:
            self._read()

    def _read(self) -> None:
        if self._unread is not None:
            negative, high = self._unread.tolist()
            self.low, self.high, self._unread = min(self.low, -negative), max(self.high, high), None

    def _check_decisions(self, rollout: Any, carry: Tensor, ended: Tensor) -> Tensor:
        """:meth:`check` if seats do not act in every step; returns the running sums [B, P]."""
        reward, active = rollout.reward, rollout.active
        waiting = torch.zeros_like(active[0]) if self.waiting is None else self.waiting.to(reward.device)
        settled: list[tuple[Tensor, Tensor]] = []
        for t in range(len(reward)):
            settled.append((carry, active[t] & waiting))
            waiting = waiting | active[t]
            carry = torch.where(active[t], self.discount * carry, carry) + torch.where(waiting, reward[t], 0.0)
            settled.append((carry, ended[t] & waiting))
            carry, waiting = carry.masked_fill(ended[t], 0.0), waiting & ~ended[t]
        last_active = getattr(rollout, "last_active", None)
        settled.append((carry, waiting if last_active is None else waiting & last_active))
        totals, where = torch.stack([total for total, _ in settled]), torch.stack([which for _, which in settled])
        self._see(totals.masked_fill(~where, math.inf).min(), totals.masked_fill(~where, -math.inf).max())
        self.waiting = waiting
        return carry

    def state_dict(self) -> dict[str, Tensor]:
        """The range, if anything was seen, and the running sums."""
        self._read()
        values = torch.tensor([self.low, self.high, self.warned], dtype=torch.float64)
        seen = self.warned or self.low <= self.high
        parts = {"range": values if seen else None, "carry": self.carry, "waiting": self.waiting}
        return {name: value for name, value in parts.items() if value is not None}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved state."""
        low, high, warned = state["range"].tolist() if "range" in state else (math.inf, -math.inf, False)
        self.low, self.high, self.warned = low, high, bool(warned)
        self.carry, self.waiting = state.get("carry"), state.get("waiting")
