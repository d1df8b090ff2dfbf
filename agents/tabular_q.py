"""Tabular Q-learning, single and double, for observations and actions that can be enumerated.

Watkins (1989); Sutton and Barto, "Reinforcement Learning" (2018), 6.5. After each step from s by a to s' with reward r,

    Q(s, a) <- Q(s, a) + alpha [r + gamma max_b Q(s', b) - Q(s, a)],

without the bootstrap if the game has terminated, and with that of the last observation if it was truncated. With
``double`` (van Hasselt, "Double Q-learning" (2010), algorithm 1; 6.7 of the book) there are two tables. A coin flip
decides which of them, Q, a step updates: by r + gamma Q'(s', argmax_b Q(s', b)). The maximum over noisy estimates is
too high on average, and the other table's estimate for that action is not. Actions are chosen by the sum of the tables.

The step size of an entry's n-th update is ``step_size`` / n ** ``step_power``. A power of 0 keeps it constant; between
1/2 and 1 the table converges to Q* as long as every action keeps being tried (Watkins and Dayan 1992; fastest near 0.8:
Even-Dar and Mansour, "Learning rates for Q-learning", 2003).

Actions are epsilon-greedy, with epsilon decaying linearly. Masked actions are neither explored, chosen nor bootstrapped
from. A seat's steps are the times at which it acts, so that in turn-based games s' is its observation at its next turn.

Differs from the textbook in that B copies learn at once: k updates of one entry in one step count as k updates one
after another, with the mean of their targets (with step size 1 and power 1: exactly the mean of all targets).

Example:
    mlbits train q-learning mlbits/GridWorld-v0
    mlbits train q-learning mlbits/CliffWalk-v0 --agent.double
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import torch
from gymnasium import spaces
from torch import Tensor

from mlbits.agents.agent import AgentError, Decision, Rollout, RolloutSpec
from mlbits.agents.maths.action_distributions import epsilon_greedy
from mlbits.agents.maths.exploration import exploration
from mlbits.envs.core.config_fields import configuration, setting
from mlbits.envs.core.schedules import Scheduled, changes, value_at
from mlbits.envs.core.spaces import action_layout

MAX_ENTRIES = 50_000_000  # of a table: 400 MB


@configuration(AgentError)
class TabularQConfig:
    """Settings of tabular Q-learning."""

    num_steps: int = setting(1, "steps of each copy between two rounds of updates", low=1, high=1e6)
    step_size: Scheduled = setting(0.2, "alpha of an entry's first update", low=0, high=1, scheduled=True)
    step_power: float = setting(
        0.0, "alpha falls with the number n of an entry's updates as n ** -step_power; 0 keeps it", low=0, high=1
    )
    discount: float = setting(0.99, "discount factor, gamma", low=0, high=1)
    double: bool = setting(False, "use double Q-learning: one table chooses the best action, the other values it")
    epsilon: Scheduled = setting(
        "auto", "fraction of random actions", low=0, high=1, scheduled=True,
        auto="linear, from epsilon_start to epsilon_end over epsilon_fraction of the run",
    )  # fmt: skip
    epsilon_start: float = setting(1.0, "fraction of random actions at the start", low=0, high=1)
    epsilon_end: float = setting(0.05, "fraction of random actions at the end", low=0, high=1)
    epsilon_fraction: float = setting(0.5, "fraction of the run over which epsilon falls linearly", low=0, high=1)
    initial_value: float = setting(
        0.0,
        "initial value of all entries; above any possible return it makes the agent explore",
        low=-1e9,
        high=1e9,
    )


class TabularQ:
    """A Q-learning agent for one seat's spaces.

    Args:
        config: settings.
        observation_space: one seat's: Discrete, MultiDiscrete or MultiBinary.
        action_space: one seat's: Discrete or MultiDiscrete.
        seed: not used; part of every agent's signature.
        device: the tables' device.

    Attributes:
        tables: Q, float64 [K, S, A]; K is 2 with ``double`` and else 1, S and A are all combined observations and
            actions (numbered as by ``numpy.ravel_multi_index``).
        updates: number of updates of each entry, float64 [K, S, A].
        epsilon: current fraction of random actions.

    Raises:
        AgentError: if observations cannot be enumerated, or a table would be too large.
    """

    def __init__(
        self,
        config: TabularQConfig,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config, self.device = config, torch.device(device)
        seen, choices = _counts(observation_space), action_layout(action_space).nvec
        if seen is None:
            raise AgentError(
                f"TabularQ: got the observation space {observation_space}; wanted Discrete, MultiDiscrete or "
                "MultiBinary, which can be enumerated. Agents for all others: dqn, ppo, reinforce"
            )
        self.num_states, self.num_actions = math.prod(seen), math.prod(choices)
        if self.num_states * self.num_actions > MAX_ENTRIES:
            raise AgentError(
                f"TabularQ: got {self.num_states:,} observations x {self.num_actions:,} actions; wanted a table of at "
                f"most {MAX_ENTRIES:,} entries. Agents for more: dqn, ppo, reinforce"
            )
        self._state_strides = _strides(seen, device) if len(observation_space.shape or ()) else None
        self._action_strides = _strides(choices, device) if len(action_space.shape or ()) else None
        self._actions = torch.cartesian_prod(*(torch.arange(n) for n in choices)).view(-1, len(choices)).to(device)
        self._choices = list(choices)
        shape = (1 + config.double, self.num_states, self.num_actions)
        self.tables = torch.full(shape, config.initial_value, dtype=torch.float64, device=device)
        self.updates = torch.zeros_like(self.tables)
        # Actions that were legal in each observation; the mask of an episode's last observation is not given.
        self.legal: Tensor | None = None
        self.epsilon, self._step_size = exploration(config, 0.0), value_at(config.step_size, 0.0)
        self._pending = torch.full((0, 0), -1, device=device)
        self._earned = torch.zeros(0, 0, dtype=torch.float64, device=device)

    @property
    def experience(self) -> RolloutSpec:
        """Windows of a few steps."""
        return RolloutSpec(self.config.num_steps, whole_episodes=False)

    @torch.no_grad()
    def act(
        self, obs: Tensor, legal_mask: Tensor | None, generator: torch.Generator, *, greedy: bool = False
    ) -> Decision:
        """Choose actions for N rows of observations: a best one, or with probability epsilon a random legal one.

        Ties are drawn uniformly, so that an untrained table tries all actions; ``greedy`` takes the first.
        """
        mask = None if legal_mask is None else self._joint(legal_mask)
        value = _masked(self.values(obs), mask)
        if greedy:
            flat = value.argmax(-1)
        else:
            candidates = value == value.amax(-1, keepdim=True)
            if self.epsilon > 0:
                explores = torch.rand(len(value), 1, generator=generator, device=self.device) < self.epsilon
                candidates = candidates | (explores if mask is None else explores & mask)
            lot = 1 - torch.rand(value.shape, generator=generator, device=self.device)  # never 0
            flat = (lot * candidates).argmax(-1)
        action = flat if self._action_strides is None else self._actions[flat]
        return Decision(action, action, None)

    @torch.no_grad()
    def action_probabilities(self, obs: Tensor, legal_mask: Tensor | None, *, greedy: bool = False) -> Tensor:
        """Action probabilities pi(a|s), float64 [N, A], with exploration unless ``greedy``.

        Raises:
            AgentError: if the actions are not Discrete.
        """
        if self._action_strides is not None:
            raise AgentError("action_probabilities: got MultiDiscrete actions; wanted Discrete ones")
        value = _masked(self.values(obs), legal_mask)
        if greedy:
            return epsilon_greedy(value.argmax(-1), 0.0, legal_mask, self.num_actions)
        best = (value == value.amax(-1, keepdim=True)).double()
        legal = torch.ones_like(best) if legal_mask is None else legal_mask.double()
        parts = [part / part.sum(-1, keepdim=True) for part in (best, legal)]
        return (1 - self.epsilon) * parts[0] + self.epsilon * parts[1]

    def values(self, obs: Tensor) -> Tensor:
        """Q of each (combined) action, the mean of the tables, float64 [N, A]."""
        table = self.tables[0] if len(self.tables) == 1 else self.tables.mean(0)
        return table[_flat(obs, self._state_strides)]

    def state_values(self, obs: Tensor, legal_mask: Tensor | None = None) -> Tensor:
        """The best legal action's Q, [N]."""
        return _masked(self.values(obs), None if legal_mask is None else self._joint(legal_mask)).amax(-1)

    @torch.no_grad()
    def learn(self, rollout: Rollout, progress: float, generator: torch.Generator) -> Mapping[str, Any]:
        """Update the table by T steps of B copies, one step after another.

        Args:
            rollout: new experience.
            progress: fraction of the run that is over, 0..1.
            generator: for the coin flips of double Q-learning.

        Returns:
            Mean Q and mean absolute error of the entries updated last, and epsilon.
        """
        config = self.config
        self.epsilon, self._step_size = exploration(config, progress), value_at(config.step_size, progress)
        numbers = {"epsilon": self.epsilon} | ({"step_size": self._step_size} if changes(config.step_size) else {})
        obs = _flat(torch.cat([rollout.obs, rollout.last_obs[None]]), self._state_strides)  # [T + 1, B, P]
        final = _flat(rollout.final_obs, self._state_strides)
        entry = obs[:-1] * self.num_actions + _flat(rollout.sample, self._action_strides)
        reward, active = rollout.reward.double(), rollout.active
        alive = (~rollout.terminated[..., None]).expand_as(entry)
        ended = (rollout.terminated | rollout.truncated)[..., None].expand_as(entry)
        self._note_legal(rollout, obs)
        metrics: dict[str, Any] = {}
        if active is None:
            following = torch.where(ended, final, obs[1:])
            for t in range(len(entry)):
                step = (part[t].flatten() for part in (entry, reward, following, alive))
                metrics = self._update(*step, generator=generator)
            return metrics | numbers
        # If seats do not always act, a decision waits for the seat's next one, or for the episode's end.
        if self._pending.shape != entry.shape[1:]:
            self._pending, self._earned = torch.full_like(entry[0], -1), torch.zeros_like(reward[0])
        for t in range(len(entry)):
            metrics |= self._settle(active[t], obs[t], torch.ones_like(alive[t]), generator)
            self._pending = torch.where(active[t], entry[t], self._pending)
            self._earned = self._earned + reward[t]
            metrics |= self._settle(ended[t], final[t], alive[t], generator)
        return metrics | numbers

    def _settle(self, where: Tensor, following: Tensor, alive: Tensor, generator: torch.Generator) -> dict[str, Any]:
        """Update the table by the decisions that wait ``where`` [B, P], now that their next observation is known."""
        who = where & (self._pending >= 0)
        metrics: dict[str, Any] = {}
        index = who.flatten().nonzero().squeeze(-1)
        if len(index):
            parts = (part.flatten()[index] for part in (self._pending, self._earned, following, alive))
            metrics = self._update(*parts, generator=generator)
        self._pending = self._pending.masked_fill(where, -1)
        self._earned = self._earned.masked_fill(where, 0.0)
        return metrics

    def _update(
        self, entry: Tensor, reward: Tensor, following: Tensor, alive: Tensor, *, generator: torch.Generator
    ) -> dict[str, Any]:
        """Move N entries towards their targets.

        Args:
            entry: observation x A + action, int64 [N].
            reward: sum of rewards until the next decision, float64 [N].
            following: the observation of the next decision, int64 [N].
            alive: bool [N], whether there is a next decision.
            generator: for coin flips.
        """
        states, actions = self.num_states, self.num_actions
        flat = self.tables.view(-1, actions)
        own = following
        if self.config.double:
            coin = torch.randint(2, entry.shape, generator=generator, device=generator.device).to(entry.device)
            entry, own, following = entry + coin * states * actions, own + coin * states, own + (1 - coin) * states
        choice = flat[own]
        if self.legal is not None:
            choice = _masked(choice, self.legal[own % states])
        bootstrap = flat[following].gather(-1, choice.argmax(-1, keepdim=True)).squeeze(-1)
        target = reward + self.config.discount * alive * bootstrap
        entries, inverse, count = _groups(entry)
        mean = torch.zeros_like(entries, dtype=target.dtype).index_add_(0, inverse, target) / count
        value, updates = self.tables.view(-1), self.updates.view(-1)
        old, times = value[entries], updates[entries]
        new, times = old + self._rate(times, count) * (mean - old), times + count
        if entry.is_cpu:
            value[entries], updates[entries] = new, times
        else:  # by rows, so that empty groups write nothing
            value[entry], updates[entry] = new[inverse], times[inverse]
        error = (mean - old).abs()
        return {"q": _mean_of_groups(old, count), "error": _mean_of_groups(error, count)}

    def _rate(self, updates: Tensor, count: Tensor) -> Tensor:
        """The fraction of the way to their common target that ``count`` updates in a row move entries, [U]."""
        size, power = self._step_size, self.config.step_power
        if power == 0:
            return 1 - (1 - size) ** count
        order = torch.arange(1, int(count.max()) + 1, device=count.device)
        left = 1 - size * (updates[:, None] + order) ** -power  # [U, most]
        return 1 - torch.where(order <= count[:, None], left, 1.0).prod(-1)

    def _joint(self, mask: Tensor) -> Tensor:
        """Legal combined actions [N, A] from the legal choices of each part [N, sum]."""
        if self._action_strides is None:
            return mask
        parts = [part[:, self._actions[:, k]] for k, part in enumerate(mask.split(self._choices, -1))]
        return torch.stack(parts).all(0)

    def _note_legal(self, rollout: Rollout, obs: Tensor) -> None:
        """Record which actions were legal in which observation."""
        if rollout.legal_mask is None:
            return
        mask, seen = self._joint(rollout.legal_mask.flatten(0, 2)), obs[:-1].flatten()
        if rollout.active is not None:
            mask = mask & rollout.active.flatten()[:, None]
        elif rollout.last_mask is not None:
            mask = torch.cat([mask, self._joint(rollout.last_mask.flatten(0, 1))])
            seen = obs.flatten()
        if self.legal is None:
            self.legal = torch.zeros(self.tables.shape[1:], dtype=torch.bool, device=self.device)
        # The greatest of 0 and 1 at each entry: several rows may have seen the same.
        where = seen[:, None].expand_as(mask)
        self.legal.view(torch.uint8).scatter_reduce_(0, where, mask.to(torch.uint8), "amax")

    def state_dict(self) -> dict[str, Tensor]:
        """The tables, the legal actions seen, the waiting decisions, and epsilon."""
        state = {
            "tables": self.tables, "updates": self.updates, "pending": self._pending, "earned": self._earned,
            "epsilon": torch.tensor(self.epsilon, dtype=torch.float64),
        }  # fmt: skip
        state |= {} if self.legal is None else {"legal": self.legal}
        return {name: tensor.clone() for name, tensor in state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved state."""
        self.tables.copy_(state["tables"])
        self.updates.copy_(state["updates"])
        self._pending, self._earned = (state[name].to(self.device, copy=True) for name in ("pending", "earned"))
        self.legal = state["legal"].to(self.device, copy=True) if "legal" in state else None
        self.epsilon = float(state["epsilon"])


def _groups(entry: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which rows [N] have the same entry: the entry of each group, the group of each row, and how many rows it has.

    As ``torch.unique``. On a GPU, where the host would have to wait for the number of groups, there are N of them, of
    which the last may be empty; the entry of an empty group is 0.
    """
    if entry.is_cpu:
        entries, inverse, count = torch.unique(entry, return_inverse=True, return_counts=True)
        return entries, inverse, count
    ordered, order = entry.sort()
    fresh = torch.cat([torch.ones_like(ordered[:1]), (ordered[1:] != ordered[:-1]).long()])
    group = fresh.cumsum(0) - 1
    none = torch.zeros_like(entry)
    return (
        none.scatter(0, group, ordered),
        none.scatter(0, order, group),
        none.scatter_add(0, group, torch.ones_like(group)),
    )


def _mean_of_groups(values: Tensor, count: Tensor) -> Tensor:
    """The mean of the groups that have rows; a tensor []."""
    if values.is_cpu:  # all have
        return values.mean()
    some = count > 0
    return torch.where(some, values, 0.0).sum() / some.sum()


def _masked(value: Tensor, mask: Tensor | None) -> Tensor:
    """Values [N, A] with illegal actions at minus infinity."""
    return value if mask is None else value.masked_fill(~mask, -math.inf)


def _counts(space: gym.Space[Any]) -> list[int] | None:
    """The number of values of each part of an observation; None if it is not finite."""
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiDiscrete) and len(space.shape) == 1:
        return [int(n) for n in space.nvec]
    if isinstance(space, spaces.MultiBinary) and len(space.shape) == 1:
        return [2] * space.shape[0]
    return None


def _strides(counts: Sequence[int], device: torch.device | str) -> Tensor:
    """The stride of each part in a number that combines all, 1 for the last part; int64 [k]."""
    return torch.tensor([math.prod(counts[k + 1 :]) for k in range(len(counts))], device=device)


def _flat(value: Tensor, strides: Tensor | None) -> Tensor:
    """One number that combines the parts [..., k] of observations or actions; single parts [...] are numbers."""
    return value.long() if strides is None else (value.long() * strides).sum(-1)
