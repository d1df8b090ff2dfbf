"""Lineups: which player sits in each seat of each copy.

A lineup names players and gives each seat of each copy to one of them. Player 0 is the learner; in a league there are
several learners, each with copies of its own. One forward pass computes all decisions of one player, over all of its
copies and seats.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlbits.agents.agent import Agent, AgentError, Decision, Positions, memory_size, pick
from mlbits.envs.doors.gymnasium_batch import AnyBatch
from mlbits.envs.engine.batch import GameBatch
from mlbits.envs.engine.on_host import to_device
from mlbits.selfplay.memories import Memories

LEARNER = 0


@dataclass(frozen=True)
class Lineup:
    """Which player sits in each seat of each copy.

    Attributes:
        players: agents; players[0] is the learner.
        seating: int64 [B, P], the number of the player in each seat of each copy.
        owner: int64 [B], the number of the player that learns from each copy; None where it is player 0 everywhere.
        known: ``seating`` as the host knows it, which spares a wait for a GPU; None where only the tensor says.
    """

    players: tuple[Agent, ...]
    seating: Tensor
    owner: Tensor | None = None
    known: NDArray[np.int64] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.seating.dim() != 2 or self.seating.dtype != torch.int64:
            raise AgentError(f"seating: got {self.seating.dtype} {tuple(self.seating.shape)}; wanted int64 [B, P]")
        if not 0 <= int(self.on_host.min()) <= int(self.on_host.max()) < len(self.players):
            raise AgentError(f"seating: wanted numbers of players, 0 to {len(self.players) - 1}")

    @property
    def learner_only(self) -> bool:
        """Whether the learner has every seat."""
        return len(self.players) == 1

    def learner_seats(self) -> Tensor:
        """Bool [B, P]: the seats from which a learner learns."""
        return self.seating == (LEARNER if self.owner is None else self.owner[:, None])

    def rows(self, player: int) -> Tensor:
        """Numbers of a player's rows among the flattened [B * P], ascending."""
        return self._rows.get(player, self.seating.new_zeros(0))

    @property
    def seated(self) -> list[tuple[int, Agent, Tensor]]:
        """Number, agent and rows of every player that has a seat."""
        return [(player, self.players[player], index) for player, index in self._rows.items()]

    @cached_property
    def on_host(self) -> NDArray[np.int64]:
        """``seating`` as an array."""
        return self.seating.cpu().numpy() if self.known is None else self.known

    @cached_property
    def _rows(self) -> dict[int, Tensor]:
        """The rows of every player, by a single sort."""
        flat = self.on_host.reshape(-1)
        order = flat.argsort(kind="stable")
        ends = np.bincount(flat, minlength=len(self.players)).cumsum()
        parts = np.split(order, ends[:-1])
        return {player: to_device(part, self.seating.device) for player, part in enumerate(parts) if len(part)}


def self_play(learner: Agent, num_envs: int, num_seats: int, device: torch.device) -> Lineup:
    """The learner in every seat of every copy. With one seat this is ordinary reinforcement learning."""
    seating = torch.zeros(num_envs, num_seats, dtype=torch.int64, device=device)
    return Lineup((learner,), seating, known=np.zeros((num_envs, num_seats), np.int64))


def against(
    learner: Agent, opponents: Sequence[tuple[Agent, float]], num_envs: int, num_seats: int, device: torch.device
) -> Lineup:
    """The learner in one seat, a different one from copy to copy, opponents in the others; other copies are self-play.

    Args:
        learner: the agent that learns.
        opponents: agents with their fraction of the copies; what is left of 1 is self-play.
        num_envs: number of copies B.
        num_seats: number of seats P.
        device: where the seating lives.

    Raises:
        AgentError: if a fraction is negative or they add up to more than 1.
    """
    shares = [share for _, share in opponents]
    if any(share < 0 for share in shares) or sum(shares) > 1 + 1e-9:
        raise AgentError(f"opponents: got shares {shares}; wanted numbers from 0 that add up to at most 1")
    seating = torch.zeros(num_envs, num_seats, dtype=torch.int64)
    bounds = [round(sum(shares[:k]) * num_envs) for k in range(len(shares) + 1)]
    for player, (low, high) in enumerate(itertools.pairwise(bounds), start=1):
        copies = torch.arange(low, high)
        seating[low:high] = player
        seating[copies, (copies - low) % num_seats] = LEARNER
    return Lineup((learner, *(agent for agent, _ in opponents)), seating.to(device))


def decide(
    agent: Agent,
    batch: AnyBatch,
    index: Tensor | None,
    obs: Any,
    legal_mask: Tensor | None,
    generator: torch.Generator,
    *,
    greedy: bool = False,
    memories: Memories | None = None,
) -> Decision:
    """An agent's decisions in a batch, by its policy or, for an agent that plans, by its search.

    An agent with memory gets what it remembers from ``memories``, and what it remembers afterwards is kept there; the
    caller ends episodes there (:meth:`~mlbits.selfplay.memories.Memories.end`).

    Args:
        agent: the agent.
        batch: the copies as they are now.
        index: its rows among the flattened [B * P]; None for all.
        obs: the batch's observations as rows [B * P, ...].
        legal_mask: its masks as rows [B * P, A], or None.
        generator: for draws.
        greedy: whether to take the best action instead of a draw.
        memories: of the episodes under way; None where only agents without memory can play.

    Raises:
        AgentError: if the agent plans and the batch is not one of mlbits' own games, or it has a memory and there is
            nowhere to keep it.
    """
    if index is not None:
        obs, legal_mask = pick(obs, index), None if legal_mask is None else legal_mask[index]
    plan = getattr(agent, "plan", None)
    if size := memory_size(agent):
        if memories is None:
            raise AgentError(f"{type(agent).__name__}: has a memory; wanted an agent that decides by what it sees now")
        block, recalling = memories.of(size), cast(Any, agent)
        before = block if index is None else block[index]
        decision: Decision = recalling.act(obs, legal_mask, generator, greedy=greedy, memory=before)
        assert decision.memory is not None
        memories.keep(index, decision.memory, batch.active)
        return decision
    if plan is None:
        return agent.act(obs, legal_mask, generator, greedy=greedy)
    if not isinstance(batch, GameBatch):
        raise AgentError(f"{type(agent).__name__}: plans by a game's rules; wanted one of mlbits' own games")
    found: Decision = plan(positions_of(batch, index, obs, legal_mask), generator, greedy=greedy)
    return found


def positions_of(batch: GameBatch, index: Tensor | None, obs: Any, legal_mask: Tensor | None) -> Positions:
    """The positions of the rows ``index`` [n] of a batch (None for all), whose observations and masks are given."""
    index = torch.arange(batch.num_envs * batch.num_seats, device=batch.device) if index is None else index
    copy, seat = index // batch.num_seats, index % batch.num_seats
    acts = torch.ones_like(index, dtype=torch.bool) if batch.active is None else batch.active.flatten()[index]
    return Positions(batch.game, batch.copies.params, batch.state()[copy], copy, seat, acts, obs, legal_mask)
