"""Equilibrium search: regret matching over a few actions of every seat, and agents that learn from it.

Gray et al., "Human-Level Performance in No-Press Diplomacy via Equilibrium Search" (2021, SearchBot) and Bakhtin et
al., "No-Press Diplomacy from Scratch" (2021, DORA). In a position every seat gets candidates, the likeliest of its
policy, more of them the more units it orders. Payoffs of joint actions are the rules' next positions, valued by a
network, at the end of a short rollout if asked for. Then regret matching plus (Tammelin 2014) finds how to mix the
candidates:

- two seats: payoffs of all pairs of candidates, and regret matching on the whole table; play is from the average of the
  iterates, in which iterate t weighs t (the last one need not be near an equilibrium);
- more seats: in each iteration the seats' joint actions are sampled from the present mixtures, and every candidate of
  every seat is evaluated against them; play is from the last iterate, as SearchBot's.

The agent ``equilibrium`` plays itself by this search. As in DORA its policy learns the search's mixture and its value
the search's value, not outcomes (:mod:`~mlbits.agents.best_response.learner`). DORA also looks for candidates outside
the policy (double oracle); here some are drawn from the initial policy.

Example:
    mlbits train equilibrium mlbits/DiplomacyMini-v0
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from mlbits.agents.agent import Agent, AgentError, Decision, Positions
from mlbits.agents.best_response.learner import Chosen, SearchLearner, SearchLearnerConfig
from mlbits.agents.best_response.leaves import Leaf, discount_of, leaf_of
from mlbits.agents.best_response.players import Player
from mlbits.agents.best_response.policies import AgentPolicy, Policy, SamePolicy, draw_all
from mlbits.agents.best_response.sampled_best_response import SampledBestResponse, first_equal
from mlbits.agents.best_response.transitions import Table
from mlbits.envs.core.config_fields import configuration, setting
from mlbits.envs.core.game import Game


@configuration(AgentError)
class SearchConfig:
    """Settings of equilibrium search at play time."""

    iterations: int = setting(64, "iterations of regret matching", low=1, high=1e6)
    samples: int = setting(48, "actions drawn from the policy, from which the candidates are taken", low=1, high=1e5)
    candidates: int = setting(16, "candidates of a seat, the most frequent of those", low=1, high=1e4)
    per_unit: int = setting(5, "candidates per unit that the seat orders, at most (orders only)", low=1, high=1e4)
    plays: Literal["auto", "average", "last"] = setting(
        "auto", "plays from the average of the iterates or the last; auto: the average with two seats, else the last"
    )
    rollout_steps: int = setting(0, "steps of policy rollout before the value of a leaf", low=0, high=1e4)
    rollout_temperature: float = setting(0.75, "temperature of the policy in rollouts", low=0.01, high=100)
    rollout_top_p: float = setting(0.95, "rollouts draw from the most probable actions up to this", low=0.01, high=1)


class Mixtures(NamedTuple):
    """The outcome of a search in M positions of P seats, with C candidates each.

    Attributes:
        candidates: [M, P, C, ...]; beyond a seat's number of candidates its first one again.
        mixture: what the seats play, probabilities [M, P, C]; 0 beyond.
        value: the value of play for each seat, float64 [M, P].
    """

    candidates: Tensor
    mixture: Tensor
    value: Tensor

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """``count`` actions of each seat from its mixture, [M, P, count, ...]."""
        flat = self.mixture.flatten(0, 1).float()
        choice = torch.multinomial(flat, count, replacement=True, generator=generator)
        rows = torch.arange(len(flat), device=flat.device).unsqueeze(1)
        drawn = self.candidates.flatten(0, 1)[rows, choice]
        return drawn.view(*self.mixture.shape[:2], *drawn.shape[1:])


class EquilibriumSearch:
    """Equilibrium search for all seats of many positions at once.

    Args:
        game: the game, with two seats or more.
        policies: candidates are taken from an equal number of draws from each.
        leaf: values of next positions.
        config: settings.
        discount: of those values.
        device: where actions and networks live.

    Raises:
        AgentError: for a game of one seat.
    """

    def __init__(
        self, game: Game, policies: list[Policy], leaf: Leaf | None, config: Any, *, discount: float = 1.0,
        device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        if game.seats < 2:
            raise AgentError(f"{game.name}: got one seat; wanted a game of two or more")
        self.game, self.policies, self.config = game, policies, config
        # Evaluates candidates against profiles; its own choice of an action is not used.
        each = max(1, config.samples // len(policies))
        self.sampled = SampledBestResponse(
            game, SamePolicy(policies[-1]), [(policy, each) for policy in policies], profiles=1, leaf=leaf,
            discount=discount, device=device,
        )  # fmt: skip
        last = config.plays == "last" or (config.plays == "auto" and game.seats > 2)
        self.average = not last

    def __call__(self, table: Table, generator: torch.Generator) -> Mixtures:
        """Find mixtures for every seat."""
        candidates, valid = self.candidates(table, generator)
        if self.game.seats == 2:
            payoffs = self._payoffs(table, candidates, valid, generator)
            last, average, value = solve(payoffs, valid, self.config.iterations)
        else:
            last, average, value = self._sampled(table, candidates, valid, generator)
        return Mixtures(candidates, average if self.average else last, value)

    def candidates(self, table: Table, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Every seat's candidates [M, P, C, ...], and which of them count, bool [M, P, C].

        The others repeat the first one; there is at least one.
        """
        drawn = torch.cat([draw_all(policy, table, count, generator) for policy, count in self.sampled.candidates], 2)
        same = first_equal(drawn)
        counts = torch.zeros_like(same).scatter_add(2, same, torch.ones_like(same))
        most = min(self.config.candidates, drawn.shape[2])
        # Of equal counts the one drawn first, so that the result is the same on every device.
        order = counts * drawn.shape[2] - torch.arange(drawn.shape[2], device=same.device)
        index = order.topk(most, 2).indices
        valid = counts.gather(2, index) > 0
        limit = torch.full(valid.shape[:2], most, device=valid.device)
        if isinstance(table.obs, dict) and "slots" in table.obs:
            limit = ((table.obs["slots"] > 0).sum(2) * self.config.per_unit).clamp(1, most)
        valid &= torch.arange(most, device=valid.device) < limit.unsqueeze(2)
        index = torch.where(valid, index, index[:, :, :1])
        rest = drawn.shape[3:]
        index = index.view(*index.shape, *(1 for _ in rest)).expand(*index.shape, *rest)
        return drawn.gather(2, index), valid

    def _payoffs(self, table: Table, candidates: Tensor, valid: Tensor, generator: torch.Generator) -> Tensor:
        """Payoffs of all pairs of two seats' candidates, float64 [M, 2, C, C]: seat 0's candidate, then seat 1's."""
        rivals = candidates.transpose(1, 2)  # as profiles: the k-th candidates of both seats
        found = []
        for k in range(rivals.shape[1]):
            found.append(self.sampled.values(table, rivals[:, k : k + 1].contiguous(), candidates, generator))
        mine, theirs = (torch.stack([q[:, seat] for q in found], -1) for seat in (0, 1))
        return torch.stack([mine, theirs.transpose(1, 2)], 1)

    def _sampled(
        self, table: Table, candidates: Tensor, valid: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Regret matching plus against sampled joint actions: the last and average mixtures, and the values."""
        regret = torch.zeros(valid.shape, dtype=torch.float64, device=valid.device)
        mixture = match(regret, valid)
        average, value, total = torch.zeros_like(regret), torch.zeros_like(regret[..., 0]), 0.0
        rows = torch.arange(valid.shape[0] * valid.shape[1], device=valid.device)
        flat = candidates.flatten(0, 1)
        for t in range(1, self.config.iterations + 1):
            choice = torch.multinomial(mixture.flatten(0, 1).float(), 1, generator=generator).squeeze(1)
            joint = flat[rows, choice].view(candidates.shape[0], 1, *candidates.shape[1:2], *candidates.shape[3:])
            q = self.sampled.values(table, joint, candidates, generator)
            average, value, total = average + t * mixture, value + t * (mixture * q).sum(2), total + t
            regret, mixture = step(regret, mixture, q, valid)
        return mixture, average / total, value / total


def match(regret: Tensor, valid: Tensor) -> Tensor:
    """Probabilities in proportion to positive regrets, uniform where there are none, [..., C]."""
    positive = torch.where(valid, regret.clamp(min=0), 0.0)
    total, even = positive.sum(-1, keepdim=True), valid / valid.sum(-1, keepdim=True)
    return torch.where(total > 0, positive / total.clamp(min=1e-300), even)


def step(regret: Tensor, mixture: Tensor, q: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """One step of regret matching plus: new regrets, never negative, and the next mixture, [..., C]."""
    regret = (regret + q - (mixture * q).sum(-1, keepdim=True)).clamp(min=0)
    return regret, match(regret, valid)


def solve(payoffs: Tensor, valid: Tensor, iterations: int) -> tuple[Tensor, Tensor, Tensor]:
    """Regret matching plus on whole tables of two seats.

    Args:
        payoffs: float64 [M, 2, C, C], the seat that is paid, seat 0's choice, seat 1's.
        valid: which choices count, bool [M, 2, C].
        iterations: number of steps.

    Returns:
        The last mixtures and their linear averages, [M, 2, C], and the values of the averages, [M, 2].
    """
    mine, theirs = payoffs[:, 0], payoffs[:, 1].transpose(1, 2)
    regret = torch.zeros(valid.shape, dtype=torch.float64, device=valid.device)
    mixture = match(regret, valid)
    average = torch.zeros_like(regret)

    def against(mixture: Tensor) -> Tensor:
        one, two = mine @ mixture[:, 1].unsqueeze(2), theirs @ mixture[:, 0].unsqueeze(2)
        return torch.stack([one.squeeze(2), two.squeeze(2)], 1)

    for t in range(1, iterations + 1):
        average = average + t * mixture
        regret, mixture = step(regret, mixture, against(mixture), valid)
    average = average / (iterations * (iterations + 1) / 2)
    return mixture, average, (average * against(average)).sum(2)


@configuration(AgentError)
class EquilibriumConfig(SearchLearnerConfig):
    """Settings of the equilibrium-search agent."""

    outcome_weight: float = 0.0
    iterations: int = setting(16, "iterations of regret matching in training", low=1, high=1e6)
    samples: int = setting(24, "actions drawn from the policies, from which the candidates are taken", low=2, high=1e5)
    candidates: int = setting(8, "candidates of a seat, the most frequent of those", low=1, high=1e4)
    per_unit: int = setting(4, "candidates per unit that the seat orders, at most (orders only)", low=1, high=1e4)
    plays: Literal["auto", "average", "last"] = setting(
        "auto", "plays from the average of the iterates or the last; auto: the average with two seats, else the last"
    )
    explore: float = setting(0.1, "fraction of actions in training drawn from the policy instead", low=0, high=1)
    imitated: int = setting(4, "actions drawn from the search's mixture for the policy to imitate", low=1, high=1000)


class Equilibrium(SearchLearner):
    """The equilibrium-search agent; see :class:`~mlbits.agents.best_response.learner.SearchLearner`."""

    config: EquilibriumConfig

    @property
    def targets(self) -> int:
        """Number of actions per decision that the policy imitates."""
        return self.config.imitated

    def search(self, table: Table, generator: torch.Generator) -> Chosen:
        """Every seat's action from its mixture, now and then from its policy."""
        config = self.config
        policies: list[Policy] = [self.policy(self.past[0]), self.policy(self.latest)]
        leaf = leaf_of(self, self.latest, config, self.game, self.device)
        search = EquilibriumSearch(self.game, policies, leaf, config, discount=config.discount, device=self.device)
        search.sampled.transitions = self.transitions
        found = search(table, generator)
        action = found.draw(1, generator)[:, :, 0]
        if config.explore:
            other = draw_all(policies[1], table, 1, generator)[:, :, 0]
            explores = torch.rand(action.shape[:2], generator=generator, device=action.device) < config.explore
            action = torch.where(explores.view(*explores.shape, *(1 for _ in action.shape[2:])), other, action)
        return Chosen(action, found.draw(self.targets, generator), found.value, found.value)


class EquilibriumPlayer(Player):
    """Any trained agent, playing by equilibrium search in place of its policy.

    Args:
        agent: with a policy (``act``) and values (``state_values``), such as PPO.
        game: the game.
        config: settings.
        device: the agent's.
    """

    def __init__(
        self, agent: Agent, game: Game, config: SearchConfig | None = None, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(agent)
        self.config = SearchConfig() if config is None else config
        policy = AgentPolicy(agent)
        discount = discount_of(agent)
        leaf = leaf_of(agent, agent, self.config, game, device)
        self.search = EquilibriumSearch(game, [policy], leaf, self.config, discount=discount, device=device)

    def plan(self, positions: Positions, generator: torch.Generator, *, greedy: bool = False) -> Decision:
        """An action from the mixture; the most probable one if ``greedy``."""
        table, rows = self.search.sampled.transitions.table(positions)
        found = self.search(table, generator)
        if greedy:
            seats = torch.arange(found.mixture.shape[0] * found.mixture.shape[1], device=rows.device)
            action = found.candidates.flatten(0, 1)[seats, found.mixture.flatten(0, 1).argmax(1)][rows]
        else:
            action = found.draw(1, generator)[:, :, 0].flatten(0, 1)[rows]
        return Decision(action, action, None)
