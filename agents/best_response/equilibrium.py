"""Equilibrium search: regret matching over a few actions of every seat, and agents that learn from it.

Gray et al., "Human-Level Performance in No-Press Diplomacy via Equilibrium Search" (2021, SearchBot) and Bakhtin et
al., "No-Press Diplomacy from Scratch" (2021, DORA). In a position every seat gets candidates: the likeliest actions of
its policy, that is the most frequent of some draws, more of them the more units it orders, and perhaps a few draws
of the initial policy. Payoffs of joint actions are the rules' next positions, valued by a network, after a short
rollout if asked for. Then regret matching plus (:mod:`~mlbits.agents.best_response.regret`) finds how to mix them:

- two seats: payoffs of all pairs of candidates, and regret matching on the whole table;
- more seats: in each iteration some joint actions are drawn from the present mixtures, and every candidate of every
  seat is evaluated against the mean of them.

What is played, sigma, is the last iterate with more seats, as SearchBot's, and with two seats the average, in which
iterate t weighs t, because there the last one need not be near an equilibrium. After few iterations the last one
follows the noise of the draws if each iteration has one joint action only, hence several. The values are those of
what is played, with b drawn from sigma anew:

    q_i(c) = mean over b of r_i + discount V_i(s'(c, b_{-i})),    v_i = sum_c sigma_i(c) q_i(c)

The agent ``equilibrium`` plays itself by this search; its policy learns sigma. In DORA the value learns v alone. Here
it learns the game's outcome at first and more and more of v, because rewards at the end of a game reach the value of
its beginning one step a round if each step's target is the next one's estimate. DORA also looks for candidates outside
the policy (double oracle); draws of the initial policy are in their place here.

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
from mlbits.agents.best_response.policies import AgentPolicy, Policy, SamePolicy, draw_all
from mlbits.agents.best_response.regret import against, match, solve, step
from mlbits.agents.best_response.sampled_best_response import SampledBestResponse, first_equal
from mlbits.agents.best_response.transitions import Table
from mlbits.agents.players import Player
from mlbits.envs.core.config_fields import configuration, setting
from mlbits.envs.core.game import Game


@configuration(AgentError)
class EquilibriumSearchConfig:
    """Settings of equilibrium search at play time."""

    iterations: int = setting(64, "iterations of regret matching", low=1, high=1e6)
    samples: int = setting(48, "actions drawn from the policy, from which the candidates are taken", low=1, high=1e5)
    candidates: int = setting(16, "candidates of a seat, the most frequent of those", low=1, high=1e4)
    per_unit: int = setting(5, "candidates per unit that the seat orders, at most (orders only)", low=1, high=1e4)
    joint: int = setting(2, "joint actions drawn in each iteration, with three seats or more", low=1, high=1e5)
    valued: int = setting(16, "joint actions drawn to value what is played, likewise", low=1, high=1e5)
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
        q: the value of each candidate against what the others play, float64 [M, P, C].
        valid: which candidates count, bool [M, P, C].
    """

    candidates: Tensor
    mixture: Tensor
    q: Tensor
    valid: Tensor

    @property
    def value(self) -> Tensor:
        """The value of what is played for each seat, float64 [M, P]."""
        return (self.mixture * self.q).sum(2)

    def choose(self, count: int, generator: torch.Generator, probabilities: Tensor | None = None) -> Tensor:
        """Numbers of ``count`` candidates of each seat, from its mixture or other probabilities, [M, P, count]."""
        flat = (self.mixture if probabilities is None else probabilities).flatten(0, 1).float()
        choice = torch.multinomial(flat, count, replacement=True, generator=generator)
        return choice.view(*self.mixture.shape[:2], count)

    def at(self, choice: Tensor) -> Tensor:
        """The candidates of these numbers [M, P, K], [M, P, K, ...]."""
        rest = self.candidates.shape[3:]
        index = choice.view(*choice.shape, *(1 for _ in rest)).expand(*choice.shape, *rest)
        return self.candidates.gather(2, index)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """``count`` actions of each seat from its mixture, [M, P, count, ...]."""
        return self.at(self.choose(count, generator))


class EquilibriumSearch:
    """Equilibrium search for all seats of many positions at once.

    Args:
        game: the game, with two seats or more.
        policy: candidates are the most frequent of its draws.
        leaf: values of next positions.
        config: settings.
        initial: another policy, and the number of candidates that are its draws.
        discount: of those values.
        device: where actions and networks live.

    Raises:
        AgentError: for a game of one seat.
    """

    def __init__(
        self, game: Game, policy: Policy, leaf: Leaf | None, config: Any, *, initial: tuple[Policy, int] | None = None,
        discount: float = 1.0, device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        if game.seats < 2:
            raise AgentError(f"{game.name}: got one seat; wanted a game of two or more")
        self.game, self.config = game, config
        self.average = config.plays == "average" or (config.plays == "auto" and game.seats == 2)
        few = () if initial is None or initial[1] == 0 else (initial,)
        # Evaluates candidates against profiles; its own choice of an action is not used.
        self.sampled = SampledBestResponse(
            game, SamePolicy(policy), [(policy, config.samples), *few], leaf=leaf, discount=discount, device=device,
            profiles=1 if game.seats == 2 else max(config.joint, config.valued),
        )  # fmt: skip

    def __call__(self, table: Table, generator: torch.Generator) -> Mixtures:
        """Find mixtures for every seat.

        Raises:
            AgentError: if the search does not fit into the memory.
        """
        most = min(self.config.candidates, self.config.samples)
        self.sampled.check_memory(table.shape[0], 48 * most * (most if self.game.seats == 2 else self.game.seats))
        candidates, valid = self.candidates(table, generator)
        if self.game.seats > 2:
            return self._sampled(table, candidates, valid, generator)
        payoffs = self._payoffs(table, candidates, valid, generator)
        last, average = solve(payoffs, valid, self.config.iterations)
        played = average if self.average else last
        return Mixtures(candidates, played, against(payoffs, played), valid)

    def candidates(self, table: Table, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Every seat's candidates [M, P, C, ...], and which of them count, bool [M, P, C].

        The others repeat the first one; there is at least one. A seat has ``per_unit`` candidates for each of its
        units, at most ``candidates``; initial draws that are new take the last places of it, never the first.
        """
        (_, samples), *initial = self.sampled.candidates
        few = initial[0][1] if initial else 0
        drawn = torch.cat([draw_all(one, table, count, generator) for one, count in self.sampled.candidates], 2)
        same = first_equal(drawn)
        counts = torch.zeros_like(same).scatter_add(2, same[:, :, :samples], torch.ones_like(same[:, :, :samples]))
        most = min(self.config.candidates, samples)
        # Of equal counts the one drawn first, so that the result is the same on every device.
        order = counts[:, :, :samples] * samples - torch.arange(samples, device=same.device)
        index = order.topk(most, 2).indices
        limit = torch.full(same.shape[:2], most, device=same.device)
        if isinstance(table.obs, dict) and "slots" in table.obs:
            limit = ((table.obs["slots"] > 0).sum(2) * self.config.per_unit).clamp(1, most)
        limit, places = limit.unsqueeze(2), torch.arange(most, device=same.device)
        quota = (limit - few).clamp(min=1)
        valid = (counts.gather(2, index) > 0) & (places < quota)
        if few:
            taken = torch.zeros_like(counts, dtype=torch.bool).scatter_(2, index, valid)
            late = same[:, :, samples:]
            own = torch.arange(few, device=same.device)
            new = first_equal(drawn[:, :, samples:]) == own
            fresh = ~taken.gather(2, late) & new & (quota + own < limit)
            index, valid = torch.cat([index, (samples + own).expand_as(late)], 2), torch.cat([valid, fresh], 2)
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

    def _sampled(self, table: Table, candidates: Tensor, valid: Tensor, generator: torch.Generator) -> Mixtures:
        """Regret matching plus against joint actions that are drawn from the present mixtures."""
        config, nothing = self.config, torch.zeros(valid.shape, dtype=torch.float64, device=valid.device)

        def values(mixture: Tensor, count: int) -> Tensor:
            joint = Mixtures(candidates, mixture, nothing, valid).draw(count, generator).transpose(1, 2).contiguous()
            return self.sampled.values(table, joint, candidates, generator)

        regret, average, mixture = nothing, nothing, match(nothing, valid)
        for t in range(1, config.iterations + 1):
            average = average + t * mixture
            regret, mixture = step(regret, mixture, values(mixture, config.joint), valid)
        if self.average:
            mixture = average / average.sum(2, keepdim=True)
        return Mixtures(candidates, mixture, values(mixture, config.valued), valid)


@configuration(AgentError)
class EquilibriumConfig(SearchLearnerConfig):
    """Settings of the equilibrium-search agent."""

    outcome_weight_end: float = setting(
        0.25, "outcome_weight at the end of the run; it changes linearly from its first value", low=0, high=1
    )
    iterations: int = setting(16, "iterations of regret matching in training", low=1, high=1e6)
    samples: int = setting(24, "actions drawn from the latest policy, to take the candidates from", low=2, high=1e5)
    candidates: int = setting(8, "candidates of a seat, the most frequent of those", low=1, high=1e4)
    per_unit: int = setting(4, "candidates per unit that the seat orders, at most (orders only)", low=1, high=1e4)
    joint: int = setting(4, "joint actions drawn in each iteration, with three seats or more", low=1, high=1e5)
    valued: int = setting(8, "joint actions drawn to value what is played, likewise", low=1, high=1e5)
    plays: Literal["auto", "average", "last"] = setting(
        "auto", "plays from the average of the iterates or the last; auto: the average with two seats, else the last"
    )
    initial: int = setting(1, "draws of the initial policy among the candidates in training", low=0, high=1e4)
    explore: float = setting(0.1, "fraction of actions in training drawn evenly from the candidates", low=0, high=1)
    imitated: int = setting(4, "actions drawn from the search's mixture for the policy to imitate", low=1, high=1000)


class Equilibrium(SearchLearner):
    """The equilibrium-search agent; see :class:`~mlbits.agents.best_response.learner.SearchLearner`."""

    config: EquilibriumConfig

    @property
    def targets(self) -> int:
        """Number of actions per decision that the policy imitates."""
        return self.config.imitated

    def outcome_weight(self, progress: float) -> float:
        """From ``outcome_weight`` to ``outcome_weight_end``."""
        first = self.config.outcome_weight
        return first + (self.config.outcome_weight_end - first) * progress

    def search(self, table: Table, generator: torch.Generator, *, explore: bool, greedy: bool) -> Chosen:
        """Every seat's action from its mixture, or if ``greedy`` the most probable one.

        If it explores, candidates of the initial policy are among them, and now and then any candidate is played.
        """
        config, policy = self.config, self.policy(self.latest)
        search = EquilibriumSearch(
            self.game, policy, leaf_of(self, self.latest, config, self.game, self.device), config, device=self.device,
            initial=(self.policy(self.past[0]), config.initial if explore else 0), discount=config.discount,
        )  # fmt: skip
        search.sampled.transitions = self.transitions
        found = search(table, generator)
        choice = found.mixture.argmax(2, keepdim=True) if greedy else found.choose(1, generator)
        if explore and config.explore:
            other = found.choose(1, generator, found.valid.double())
            explores = torch.rand(choice.shape, generator=generator, device=choice.device) < config.explore
            choice = torch.where(explores, other, choice)
        q = found.q.gather(2, choice).squeeze(2)
        return Chosen(found.at(choice)[:, :, 0], found.draw(self.targets, generator), found.value, q)


class EquilibriumPlayer(Player):
    """Any trained agent, playing by equilibrium search in place of its policy.

    Args:
        agent: with a policy (``act``) and values (``state_values``), such as PPO.
        game: the game.
        config: settings.
        device: the agent's.
    """

    def __init__(
        self, agent: Agent, game: Game, config: EquilibriumSearchConfig | None = None,
        device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        super().__init__(agent)
        self.config = EquilibriumSearchConfig() if config is None else config
        policy = AgentPolicy(agent)
        discount = discount_of(agent)
        leaf = leaf_of(agent, agent, self.config, game, device)
        self.search = EquilibriumSearch(game, policy, leaf, self.config, discount=discount, device=device)

    def plan(self, positions: Positions, generator: torch.Generator, *, greedy: bool = False) -> Decision:
        """An action from the mixture; the most probable one if ``greedy``."""
        table, rows = self.search.sampled.transitions.table(positions)
        found = self.search(table, generator)
        if greedy:
            action = found.at(found.mixture.argmax(2, keepdim=True))[:, :, 0].flatten(0, 1)[rows]
        else:
            action = found.draw(1, generator)[:, :, 0].flatten(0, 1)[rows]
        return Decision(action, action, None)
