"""Policies to sample from in a search: many draws for each row, from trained agents, bots or uniformly.

A policy here is any object with ``draw(obs, mask, count, generator)``, which returns ``count`` actions for each of N
rows, [N, count, ...]. :func:`policy_of` makes one from any agent that acts on observations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlbits.agents.agent import Agent, pick
from mlbits.envs.core.game import Game
from mlbits.envs.core.random import GOLDEN, mix64
from mlbits.envs.engine.kernel_cache import njit


class Policy(Protocol):
    """What a search samples from."""

    def draw(self, obs: Any, mask: Tensor | None, count: int, generator: torch.Generator) -> Tensor:
        """``count`` actions for each of N rows, int64 [N, count, ...]."""


class Uniform:
    """Uniform over the legal actions, part by part.

    Args:
        game: whose actions.
    """

    def __init__(self, game: Game) -> None:
        self.nvec, self.single = np.array(game.action.nvec, np.int64), game.action.kind == "discrete"

    def draw(self, obs: Any, mask: Tensor | None, count: int, generator: torch.Generator) -> Tensor:
        """``count`` actions for each of N rows."""
        some = next(iter(obs.values())) if isinstance(obs, dict) else obs
        rows, size = len(some), int(self.nvec.sum())
        legal = np.ones((1, size), bool) if mask is None else np.ascontiguousarray(mask.cpu().numpy())
        out = np.zeros((rows, count, len(self.nvec)), np.int64)
        _uniform(legal, int(mask is not None), self.nvec, random_keys(rows, generator), out)
        found = torch.from_numpy(out).to(some.device)
        return found[..., 0] if self.single else found


@njit(cache=True, nogil=True, error_model="numpy")
def _uniform(legal: Any, stride: Any, nvec: Any, keys: Any, out: Any) -> None:
    choices = np.zeros(nvec.max(), np.int64)
    for row in range(out.shape[0]):
        start, drawn = 0, np.uint64(0)
        for k in range(len(nvec)):
            found = 0
            for a in range(nvec[k]):
                if legal[row * stride, start + a]:
                    choices[found] = a
                    found += 1
            for c in range(out.shape[1]):
                if found > 0:
                    drawn += np.uint64(1)
                    bits = mix64(keys[row] + drawn * GOLDEN) >> np.uint64(32)
                    out[row, c, k] = choices[np.int64((bits * np.uint64(found)) >> np.uint64(32))]
            start += nvec[k]


class AgentPolicy:
    """An agent's own policy.

    Args:
        agent: with ``act``; of an agent with a core (:mod:`~mlbits.agents.networks.actor_critic`) the network runs once
            a row, however many actions are drawn.
        temperature: below 1 sharpens the policy, for agents with a core.
        top_p: draws only from the most probable choices whose probabilities add up to this, likewise.
    """

    def __init__(self, agent: Any, temperature: float = 1.0, top_p: float = 1.0) -> None:
        self.agent, self.how = agent, {"temperature": temperature, "top_p": top_p}

    @torch.no_grad()
    def draw(self, obs: Any, mask: Tensor | None, count: int, generator: torch.Generator) -> Tensor:
        """``count`` actions for each of N rows."""
        core = getattr(self.agent, "core", None)
        some = next(iter(obs.values())) if isinstance(obs, dict) else obs
        rows = torch.arange(len(some), device=some.device).repeat_interleave(count)
        mask = None if mask is None else mask[rows]
        if core is None:
            action = self.agent.act(pick(obs, rows), mask, generator).action
        else:
            action = draw_from(core, obs, rows, mask, generator, **self.how)
        return action.view(len(some), count, *action.shape[1:])


def draw_from(
    core: Any, obs: Any, rows: Tensor, mask: Tensor | None, generator: torch.Generator, **how: float
) -> Tensor:
    """Actions for rows [R] of N observations: the network runs once per observation.

    Args:
        core: an ActorCriticCore.
        obs: [N, ...].
        rows: of each action, [R].
        mask: of each action, [R, A], or None.
        generator: for draws.
        how: temperature and top_p.
    """
    params = core.network.policy(core.prepare(obs))
    params = params[rows] if isinstance(params, Tensor) else type(params)(*(part[rows] for part in params))
    return core.distribution.sample(params, mask, generator, **how)


def policy_of(agent: Agent | Policy) -> Policy:
    """An agent, or a policy, as a policy."""
    return agent if hasattr(agent, "draw") else AgentPolicy(agent)  # type: ignore[return-value]


class Profiles(Protocol):
    """What draws the joint actions that a search responds to."""

    def profiles(self, table: Any, count: int, generator: torch.Generator) -> Tensor:
        """``count`` joint actions in each of M positions, int64 [M, count, P, ...]."""


class SamePolicy:
    """Every seat plays the same policy, independently.

    Args:
        policy: what they play.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def profiles(self, table: Any, count: int, generator: torch.Generator) -> Tensor:
        """``count`` joint actions in each of M positions."""
        drawn = draw_all(self.policy, table, count, generator)
        return drawn.transpose(1, 2).contiguous()


class OneOfThePast:
    """Every seat plays the policy of the same past round, drawn uniformly anew for every profile.

    So a profile is play of one point of history, as in fictitious play with joint memory.

    Args:
        policies: of the rounds.
    """

    def __init__(self, policies: Sequence[Policy]) -> None:
        self.policies = list(policies)

    def profiles(self, table: Any, count: int, generator: torch.Generator) -> Tensor:
        """``count`` joint actions in each of M positions."""
        (positions, seats), device = table.shape, table.acts.device
        which = torch.randint(len(self.policies), (positions * count,), generator=generator, device=device)
        found: Tensor | None = None
        for number in which.unique().tolist():
            chosen = (which == number).nonzero().squeeze(1)
            rows = (chosen // count).unsqueeze(1) * seats + torch.arange(seats, device=device)
            part = self.policies[number].draw(*flat_rows(table, rows.flatten()), 1, generator)[:, 0]
            if found is None:
                found = part.new_zeros(positions * count, seats, *part.shape[1:])
            found[chosen] = part.view(len(chosen), seats, *part.shape[1:])
        assert found is not None
        return found.view(positions, count, seats, *found.shape[2:])


def flat_rows(table: Any, rows: Tensor | None = None) -> tuple[Any, Tensor | None]:
    """Observations and masks of a table's positions and seats as rows [M * P], or some of them."""
    obs = {k: v.flatten(0, 1) for k, v in table.obs.items()} if isinstance(table.obs, dict) else table.obs.flatten(0, 1)
    mask = None if table.mask is None else table.mask.flatten(0, 1)
    if rows is not None:
        obs, mask = pick(obs, rows), None if mask is None else mask[rows]
    return obs, mask


def draw_all(policy: Policy, table: Any, count: int, generator: torch.Generator) -> Tensor:
    """``count`` actions of every seat in every position, [M, P, count, ...]; seats that pass get action 0."""
    positions, seats = table.shape
    acting = table.acts.flatten().nonzero().squeeze(1)
    if len(acting) == 0:  # all games are over: one draw gives the actions' shape
        acting = torch.zeros(1, dtype=torch.int64, device=table.acts.device)
    drawn = policy.draw(*flat_rows(table, acting), count, generator)
    found = drawn.new_zeros(positions * seats, *drawn.shape[1:])
    found[acting] = drawn
    return found.view(positions, seats, *drawn.shape[1:])


def random_keys(count: int, generator: torch.Generator) -> NDArray[np.uint64]:
    """Keys of random streams, uint64 [count]."""
    keys = torch.randint(2**62, (count,), generator=generator, device=generator.device)
    return keys.cpu().numpy().astype(np.uint64)
