"""Sampled best response: a seat's best of a few actions against a few samples of what the others may do.

Anthony et al., "Learning to Play No-Press Diplomacy with Best Response Policy Iteration" (2020), algorithm 1. For a
position s, a seat i, policies of the others pi_b and for candidates pi_c, and a value function V:

1. draw B joint actions b of all seats from pi_b, the base profiles;
2. draw C actions c of seat i from pi_c, the candidates;
3. for every pair the rules give s'(c, b_{-i}), with reward r_i; where seat i passes in s', play goes on by a policy
   until it decides (:mod:`~mlbits.agents.best_response.leaves`);
4. Q(c) = mean over b of r_i + discount V_i(s'); play the candidate with the highest.

The same B profiles serve all candidates and all seats (common random numbers), chance included. Candidates may come
from several policies at once. Ties within 1e-9 are broken at random, as in OpenSpiel's tabular version (sbr_blotto):
with few profiles there are many. The maximum over candidates is optimistic where B is small.

All transitions of all positions, seats and candidates are one call of the compiled rules
(:mod:`~mlbits.agents.best_response.transitions`), and their values one call of the network; both are cut into parts
where they would take more than ``memory``. Candidates that are equal are evaluated once.

Known rules are needed, and positions that hide nothing: the search continues the true state. Simultaneous and
turn-based games are both fine (a seat that passes has one action).

Example:
    >>> import mlbits, torch
    >>> from mlbits.agents.best_response.policies import SamePolicy, Uniform
    >>> game = mlbits.make_game("mlbits/Blotto-v0")
    >>> search = SampledBestResponse(game, SamePolicy(Uniform(game)), [(Uniform(game), 16)], profiles=16)
    >>> table = search.transitions.look(mlbits.make_batch("mlbits/Blotto-v0", 100).copies.states, game.params)
    >>> search(table, torch.Generator().manual_seed(0)).action.shape
    torch.Size([100, 2])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlbits.agents.agent import Agent, AgentError, Decision, Positions
from mlbits.agents.best_response.leaves import Leaf, NoValue, discount_of, leaf_of, values_after
from mlbits.agents.best_response.policies import (
    AgentPolicy,
    Policy,
    Profiles,
    SamePolicy,
    draw_all,
    random_keys,
)
from mlbits.agents.best_response.transitions import Table, Transitions
from mlbits.agents.players import Player
from mlbits.envs.core.config_fields import configuration, setting
from mlbits.envs.core.game import Game

TIE = 1e-9
MEMORY = 2**30
SORTED = 80  # bytes that a candidate takes while equal ones are found, and its values


class Answers(NamedTuple):
    """The outcome of a search in M positions of P seats.

    Attributes:
        action: the chosen actions, int64 [M, P, ...]; 0 for seats that pass, any candidate for those that do not ask.
        value: Q of the chosen actions, float64 [M, P].
        candidates: [M, P, C, ...].
        q: their values, float64 [M, P, C]; 0 for seats that pass or do not ask.
    """

    action: Tensor
    value: Tensor
    candidates: Tensor
    q: Tensor


class SampledBestResponse:
    """Sampled best response for all seats of many positions at once.

    Args:
        game: the game.
        base: draws the base profiles.
        candidates: policies with the number of candidates that each gives.
        profiles: number of base profiles, B.
        leaf: values of next positions; None counts only the rewards of the transition, for games of one step.
        discount: of those values.
        device: where actions and networks live.
        memory: bytes that one part of the work may take.

    Raises:
        AgentError: if there are no profiles or candidates.
    """

    def __init__(
        self,
        game: Game,
        base: Profiles,
        candidates: Sequence[tuple[Policy, int]],
        *,
        profiles: int,
        leaf: Leaf | None = None,
        discount: float = 1.0,
        device: torch.device | str = "cpu",
        memory: int = MEMORY,
    ) -> None:
        if profiles < 1 or not candidates or any(count < 1 for _, count in candidates):
            counts = [count for _, count in candidates]
            raise AgentError(f"profiles and candidates: got {profiles} and {counts}; wanted at least 1 each")
        self.game, self.base, self.candidates, self.profiles = game, base, list(candidates), profiles
        self.transitions = Transitions(game, device)
        self.leaf: Leaf = NoValue() if leaf is None else leaf
        self.discount, self.memory = discount, memory

    def __call__(self, table: Table, generator: torch.Generator) -> Answers:
        """Draw profiles and candidates, and answer for every seat that acts and asks.

        Raises:
            AgentError: if they do not fit into the memory; the message names B, C and the number of copies.
        """
        self.check_memory(table.shape[0])
        profiles = self.base.profiles(table, self.profiles, generator)
        drawn = [draw_all(policy, table, count, generator) for policy, count in self.candidates]
        candidates = torch.cat(drawn, 2)
        q = self.values(table, profiles, candidates, generator, asks=table.asks)
        best = choose(q, generator)
        return Answers(_at(candidates, best), q.gather(2, best.unsqueeze(2)).squeeze(2), candidates, q)

    def values(
        self, table: Table, profiles: Tensor, candidates: Tensor, generator: torch.Generator,
        asks: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Q of every candidate, float64 [M, P, C].

        Args:
            table: M positions.
            profiles: joint actions, [M, B, P, ...].
            candidates: each seat's, [M, P, C, ...].
            generator: for chance, and for policies that leaves follow.
            asks: the seats whose candidates are valued, bool [M, P], if not all that act.
        """
        count, rivals = table.shape[0], profiles.shape[1]
        keys = random_keys(count * rivals, generator)
        same = first_equal(candidates)
        new = same == torch.arange(candidates.shape[2], device=same.device)
        valued = table.acts if asks is None else table.acts & asks
        position, seat, choice = (new & valued.unsqueeze(2)).nonzero(as_tuple=True)
        q = torch.zeros(*candidates.shape[:3], dtype=torch.float64, device=candidates.device)
        room = max(1, self.memory // (rivals * self._bytes()))
        for start in range(0, len(position), room):
            part = slice(start, start + room)
            at = (position[part], seat[part], choice[part])
            q[at] = self._means(table, profiles, candidates[at], at[0], at[1], keys, generator)
        return q.gather(2, same)

    def _means(
        self, table: Table, profiles: Tensor, mine: Tensor, position: Tensor, seat: Tensor, keys: NDArray[np.uint64],
        generator: torch.Generator,
    ) -> Tensor:  # fmt: skip
        """Mean values of some candidates over their positions' profiles, float64 [U]."""
        rivals = profiles.shape[1]
        joint = profiles[position]  # [U, B, P, ...]
        joint[torch.arange(len(seat), device=seat.device), :, seat] = mine.unsqueeze(1)
        streams = (position.unsqueeze(1) * rivals + torch.arange(rivals, device=position.device)).flatten()
        source, viewer = position.repeat_interleave(rivals), seat.repeat_interleave(rivals)
        value = values_after(
            self.transitions, self.leaf, self.discount, table, source, joint.flatten(0, 1), viewer,
            keys[streams.cpu().numpy()], generator,
        )  # fmt: skip
        return value.view(-1, rivals).mean(1)

    def _bytes(self) -> int:
        keeps = self.leaf.keeps or self.leaf.passes is not None
        return self.transitions.branch_bytes * 2 + (self.game.state_dtype.itemsize if keeps else 0)

    def check_memory(self, copies: int, tables: int = 0) -> None:
        """Refuse a search that does not fit into the memory even in parts.

        Args:
            copies: number of positions.
            tables: bytes for each position and seat that the caller adds.

        Raises:
            AgentError: naming B, C and the number of copies.
        """
        total, seats = sum(count for _, count in self.candidates), self.game.seats
        action = 8 * seats * int(np.prod(self.game.action.shape, initial=1))
        # Per candidate and seat: its values, and what finding equal ones sorts.
        kept = copies * action * (self.profiles + total) + copies * seats * (total * SORTED + tables)
        least = kept + self.profiles * self._bytes()
        if least > self.memory:
            raise AgentError(
                f"profiles and candidates: got B = {self.profiles} and C = {total} for {copies} copies of "
                f"{self.game.name}, which take {least / 2**30:,.2f} GiB at least; wanted at most "
                f"{self.memory / 2**30:,.2f} GiB"
            )


def choose(q: Tensor, generator: torch.Generator) -> Tensor:
    """The highest of the last axis, [...]; of values within 1e-9 of it one at random."""
    best = q >= q.amax(-1, keepdim=True) - TIE
    score = torch.rand(q.shape, generator=generator, device=q.device)
    return torch.where(best, score, -1.0).argmax(-1)


def first_equal(candidates: Tensor) -> Tensor:
    """For each candidate the number of the first one equal to it, int64 [M, P, C].

    Args:
        candidates: int64 [M, P, C, ...].
    """
    count = candidates.shape[2]
    flat = candidates.flatten(0, 2).flatten(1) if candidates.dim() > 3 else candidates.reshape(-1, 1)
    if flat.numel() == 0:
        return torch.zeros(candidates.shape[:3], dtype=torch.int64, device=candidates.device)
    rows = torch.arange(len(flat), device=flat.device)
    group = rows // count  # numbers of sets of equal rows, by one part of the action after the other
    for k in range(flat.shape[1]):
        part = flat[:, k] - flat[:, k].min()
        if k and not bool(part.any()):
            continue
        group = torch.unique(group * (part.max() + 1) + part, return_inverse=True)[1]
    first = torch.full_like(group, len(flat)).scatter_reduce_(0, group, rows, "amin")
    return (first[group] % count).view(candidates.shape[:3])


def _at(candidates: Tensor, choice: Tensor) -> Tensor:
    """The chosen candidates [M, P, ...]."""
    (count, seats), device = choice.shape, choice.device
    return candidates[torch.arange(count, device=device)[:, None], torch.arange(seats, device=device)[None], choice]


@configuration(AgentError)
class BestResponseConfig:
    """Settings of sampled best response at play time."""

    profiles: int = setting(16, "base profiles, B: samples of what the others may do", low=1, high=1e5)
    candidates: int = setting(16, "candidates, C: sampled actions to choose from", low=1, high=1e5)
    temperature: float = setting(1.0, "of the policy that candidates are drawn from", low=0.01, high=100)
    rollout_steps: int = setting(0, "steps of policy rollout before the value of a leaf", low=0, high=1e4)
    rollout_temperature: float = setting(0.75, "temperature of the policy in rollouts", low=0.01, high=100)
    rollout_top_p: float = setting(0.95, "rollouts draw from the most probable actions up to this", low=0.01, high=1)


class BestResponsePlayer(Player):
    """Any trained agent, playing the sampled best response to itself in place of its policy.

    Args:
        agent: with a policy (``act``) and values (``state_values``), such as PPO.
        game: the game.
        config: settings.
        device: the agent's.

    Raises:
        AgentError: if the agent has no values.
    """

    def __init__(
        self, agent: Agent, game: Game, config: BestResponseConfig | None = None, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(agent)
        self.config = BestResponseConfig() if config is None else config
        candidates = AgentPolicy(agent, self.config.temperature)
        self.search = SampledBestResponse(
            game, SamePolicy(AgentPolicy(agent)), [(candidates, self.config.candidates)],
            profiles=self.config.profiles, leaf=leaf_of(agent, agent, self.config, game, device), device=device,
            discount=discount_of(agent),
        )  # fmt: skip

    def plan(self, positions: Positions, generator: torch.Generator, *, greedy: bool = False) -> Decision:
        """The best responses; ``greedy`` changes nothing."""
        table, rows = self.search.transitions.table(positions)
        action = self.search(table, generator).action.flatten(0, 1)[rows]
        return Decision(action, action, None)
