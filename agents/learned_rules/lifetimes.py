"""Lifetimes: agents that are born, learn by a rule in a level of their own, and make room for others.

All live side by side in one batch, with E copies of its level for each. Their ages differ from the start, so that a
window of updates sees young and old agents together. A lifetime ends when its level's number of updates is over, or
when its policy's entropy has collapsed to almost nothing; another agent then begins in a new level, with
hyperparameters drawn by the bandit.

:func:`live` is one whole lifetime of many agents by a rule that stays as it is: how rules are measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from mlbits.agents.agent import AgentError, prefixed, unprefixed
from mlbits.agents.learned_rules.bandit import Bandit
from mlbits.agents.learned_rules.meta_gradient import Window, detached, targets_of
from mlbits.agents.learned_rules.populations import (
    Hyper,
    Lesson,
    MLPAgents,
    Outputs,
    Population,
    State,
    TabularAgents,
    look,
)
from mlbits.agents.learned_rules.rule import LPGRule, Targets
from mlbits.agents.learned_rules.values import MLPValues, TabularValues, Values, advantages, normalised, replaced

COLLAPSED = 0.01  # nats: a policy with less entropy gives no gradient worth having
LEVEL_STEPS = 20  # a level's lifetime is given in updates of so many steps
_VALUE_RATE, _MLP_VALUE_RATE = 0.3, 1e-3
_GAE_LAMBDA = 0.95

Teacher = Callable[[Lesson, Outputs], Targets]


class LevelBatch(Protocol):
    """The levels that lifetimes are in, and their copies: lifetimes x copies, those of one lifetime side by side.

    Attributes:
        batch: the copies, a :class:`~mlbits.envs.engine.batch.GameBatch` with autoreset "same_step".
        num_actions: A.
        num_states: S of tabular levels; None where observations are vectors or planes.
        lifetime_updates: how long an agent lives in each level, in updates of 20 steps, int64 [L].
    """

    batch: Any
    num_actions: int
    num_states: int | None
    lifetime_updates: Tensor

    def renew(self, lifetimes: Tensor | None = None) -> None:
        """Draw new levels for these lifetimes, int64 [k], or all."""

    def state(self) -> Any:
        """All that :meth:`load_state` needs."""

    def load_state(self, state: Any) -> None:
        """Restore a state."""


def population_of(levels: LevelBatch, predictions: int) -> Population:
    """The kind of agents that fits the levels: tables where observations are states, else MLPs."""
    if levels.num_states is not None:
        return TabularAgents(levels.num_states, levels.num_actions, predictions)
    return MLPAgents(levels.batch.obs[0, 0].numel(), levels.num_actions, predictions)


def values_of(levels: LevelBatch, lifetimes: int, generator: torch.Generator) -> Values:
    """A value function for each lifetime, of the kind that fits the levels."""
    if levels.num_states is not None:
        return TabularValues(lifetimes, levels.num_states, _VALUE_RATE, generator.device)
    return MLPValues(lifetimes, levels.batch.obs[0, 0].numel(), _MLP_VALUE_RATE, generator)


class Player:
    """Plays rollouts with all agents at once.

    Args:
        levels: where they play.
        population: the kind of agents.
        lifetimes: L.
        num_steps: T.
        generator: for their actions, on the batch's device.

    Attributes:
        steps: environment steps played so far, over all copies.
        returns: the sum of rewards so far, and the number of episodes that ended, of each lifetime, [L, 2].
    """

    def __init__(
        self, levels: LevelBatch, population: Population, lifetimes: int, num_steps: int, generator: torch.Generator
    ) -> None:
        self.levels, self.population, self.generator = levels, population, generator
        self._lifetimes, self._num_steps = lifetimes, num_steps
        self.steps = 0
        self.returns = torch.zeros(lifetimes, 2, device=generator.device)

    @torch.no_grad()
    def __call__(self, state: State) -> Lesson:
        """Play one rollout."""
        batch, lead = self.levels.batch, (self._lifetimes, -1)
        probabilities = self.population.acting(state)
        draws = torch.rand(
            self._num_steps, *_fold(batch.reward, lead).shape, 1,
            generator=self.generator, device=self.generator.device,
        )  # fmt: skip
        tabular = self.levels.num_states is not None

        def seen(obs: Tensor) -> Tensor:
            folded = _fold(obs, lead)
            return folded.long() if tabular else folded.flatten(2).float()

        obs, rows = seen(batch.obs), []
        for draw in draws:
            action = (probabilities(obs)[..., :-1] < draw).sum(-1)
            step = batch.step(action.view(-1, 1))
            terminated, truncated = (_fold(flag, lead).clone() for flag in (step.terminated, step.truncated))
            following, ended = seen(step.obs), terminated | truncated
            last = torch.where(ended if tabular else ended[..., None], seen(step.final_obs), following)
            rows.append(Lesson(obs, last, action, _fold(step.reward, lead).clone(), terminated, truncated))
            obs = following
        lesson = Lesson(*(torch.stack(column) for column in zip(*rows, strict=True)))
        self.steps += lesson.reward.numel()
        self.returns[:, 0] += lesson.reward.sum((0, 2))
        self.returns[:, 1] += (lesson.terminated | lesson.truncated).sum((0, 2))
        return lesson

    def mean_returns(self) -> Tensor:
        """Mean return of each lifetime's episodes so far, [L]."""
        return self.returns[:, 0] / self.returns[:, 1].clamp(min=1)


def _fold(tensor: Tensor, lead: tuple[int, int]) -> Tensor:
    """[L * E, 1, ...] or [L * E] as [L, E, ...]."""
    flat = tensor[:, 0] if tensor.dim() > 1 else tensor
    return flat.view(*lead, *flat.shape[1:])


class Lifetimes:
    """L lifetimes under way.

    Args:
        levels: where they are; L is the length of its ``lifetime_updates``.
        predictions: m.
        num_steps: steps of a rollout, T.
        updates: of a window, K.
        learning_rates: of the agents; with ``alphas`` the arms of the bandit.
        alphas: weights of the prediction's loss.
        discount: gamma of the meta-objective.
        seed: of all draws.

    Attributes:
        population: the kind of agents.
        state: the agents.
        hyper: their hyperparameters.
        player: plays their rollouts.
        ended: lifetimes that ended so far, and how many of them because their policy collapsed.

    Raises:
        AgentError: if a lifetime is shorter than a window of updates.
    """

    def __init__(
        self,
        levels: LevelBatch,
        *,
        predictions: int,
        num_steps: int,
        updates: int,
        learning_rates: Sequence[float],
        alphas: Sequence[float],
        discount: float,
        seed: int,
    ) -> None:
        self.levels, self._discount = levels, discount
        self._num_steps, self._updates = num_steps, updates
        device, count = levels.batch.device, len(levels.lifetime_updates)
        self._draws = torch.Generator().manual_seed(seed)
        self._weights = torch.Generator(device).manual_seed(seed + 1)
        acting = torch.Generator(device).manual_seed(seed + 2)
        self.population = population_of(levels, predictions)
        self.player = Player(levels, self.population, count, num_steps, acting)
        self.values = values_of(levels, count, self._weights)
        self.bandit = Bandit(learning_rates, alphas)
        self.state = self.population.initial(count, self._weights)
        self.arms = self.bandit.draw(count, self._draws)
        # The first agents are as many updates short of a whole lifetime, from none to all of them.
        lengths = self.lengths()
        self.ages = (torch.rand(count, generator=self._draws) * lengths).long()
        self.ended = torch.zeros(2, dtype=torch.int64)

    @property
    def hyper(self) -> Hyper:
        """The agents' hyperparameters, [L] each."""
        return self.bandit.hyper(self.arms, self.levels.batch.device)

    def lengths(self) -> Tensor:
        """Updates in each lifetime, int64 [L].

        Raises:
            AgentError: if one is shorter than a window.
        """
        steps = self.levels.lifetime_updates.cpu() * LEVEL_STEPS
        lengths = steps // self._num_steps
        if bool((lengths < self._updates).any()):
            raise AgentError(
                f"num_steps and inner_updates: got {self._num_steps} and {self._updates}, in lifetimes of "
                f"{int(steps.min())} steps; wanted lifetimes of at least that many updates"
            )
        return lengths

    def advantages(self, lesson: Lesson) -> Tensor:
        """Normalised advantages of a rollout, [T, L, E]; the values learn from it."""
        with torch.no_grad():
            return normalised(advantages(self.values, lesson, discount=self._discount, gae_lambda=_GAE_LAMBDA))

    def go_on(self, window: Window) -> None:
        """Take over the agents after a window; lifetimes that are over begin anew."""
        self.state = window.state
        self.ages += self._updates
        collapsed = window.policy_entropy.cpu() < COLLAPSED
        over = (self.ages >= self.lengths()) | collapsed
        if not bool(over.any()):
            return
        self.ended += torch.stack([over.sum(), (over & collapsed).sum()])
        which = over.nonzero()[:, 0]
        self.bandit.note(self.arms[which], self.player.mean_returns().cpu()[which])
        self.arms[which] = self.bandit.draw(len(which), self._draws)
        self.ages[which] = 0
        there = over.to(self.levels.batch.device)
        self.player.returns[there] = 0
        self.state = replaced(self.state, self.population.initial(len(over), self._weights), there)
        self.values.forget(there)
        self.levels.renew(which)

    def state_dict(self) -> dict[str, Tensor]:
        """Everything needed to go on, as tensors."""
        own = {"arms": self.arms, "ages": self.ages, "ended": self.ended, "returns": self.player.returns,
               "draws": self._draws.get_state(), "weights": self._weights.get_state(),
               "acting": self.player.generator.get_state()}  # fmt: skip
        parts = {"agents": self.state, "values": self.values.state, "bandit": self.bandit.state}
        for name, part in parts.items():
            own |= prefixed(name, part)
        return {name: value.clone() for name, value in own.items()} | prefixed("levels", self.levels.state())

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved state.

        Raises:
            KeyError: if an entry is missing.
            AgentError: if one has another shape.
        """
        self.state = _like(self.state, unprefixed("agents", state))
        self.values.state = _like(self.values.state, unprefixed("values", state))
        self.bandit.state = _like(self.bandit.state, unprefixed("bandit", state))
        own = {"arms": self.arms, "ages": self.ages, "ended": self.ended, "returns": self.player.returns}
        for name, value in _like(own, state).items():
            own[name].copy_(value)
        self._draws.set_state(state["draws"])
        self._weights.set_state(state["weights"])
        self.player.generator.set_state(state["acting"])
        self.levels.load_state(unprefixed("levels", state))


def _like(mine: State, found: Mapping[str, Tensor]) -> State:
    """The entries of a saved state that have the names and shapes of mine, on my device."""
    for name, value in mine.items():
        if found[name].shape != value.shape or found[name].dtype != value.dtype:
            got = f"{found[name].dtype} {tuple(found[name].shape)}"
            raise AgentError(f"{name}: got {got}; wanted {value.dtype} {tuple(value.shape)}")
    return {name: found[name].to(value.device, copy=True) for name, value in mine.items()}


class Life(NamedTuple):
    """A whole lifetime of many agents.

    Attributes:
        rewards: mean reward a step of each agent in each of its rollouts, [updates, L].
        state: the agents at its end.
        lesson: the last rollout.
        outputs: what the agents said about it.
    """

    rewards: Tensor
    state: State
    lesson: Lesson
    outputs: Outputs


def by_rule(rule: LPGRule) -> Teacher:
    """A rule as it is, as a teacher."""
    return lambda lesson, outputs: targets_of(rule, lesson, outputs)


@torch.no_grad()
def live(
    teach: Teacher,
    levels: LevelBatch,
    population: Population,
    hyper: Hyper,
    *,
    updates: int,
    num_steps: int,
    seed: int,
    watch: Callable[[Lesson], None] = lambda lesson: None,
) -> Life:
    """One lifetime of new agents, all taught in the same way, each in its level.

    Args:
        teach: gives the targets of a rollout: :func:`by_rule`, or an algorithm that is written down
            (:mod:`~mlbits.agents.learned_rules.teachers`).
        levels: where they live, as they are.
        population: the kind of agents.
        hyper: their hyperparameters, [L] each.
        updates: how long they live.
        num_steps: steps of a rollout, T.
        seed: of initial weights and actions.
        watch: called with each rollout.
    """
    device, count = levels.batch.device, len(hyper.alpha)
    generator = torch.Generator(device).manual_seed(seed)
    state = population.initial(count, generator)
    player = Player(levels, population, count, num_steps, generator)
    rewards = []
    for _ in range(updates):
        lesson = player(state)
        outputs = look(population, state, lesson)
        watch(lesson)
        rewards.append(lesson.reward.mean((0, 2)))
        state = detached(population.update(state, lesson, outputs, teach(lesson, outputs), hyper))
    return Life(torch.stack(rewards), state, lesson, outputs)
