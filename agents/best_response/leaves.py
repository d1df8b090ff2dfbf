"""Values of the positions after a search's transitions: by a critic, by rollouts, or the rewards of a whole game.

A leaf is called with what the asked seats see (if it ``looks``) and the states (if it ``keeps``), and returns each
seat's value of going on, without the transition's own reward.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mlbits.agents.agent import AgentError
from mlbits.agents.best_response.policies import AgentPolicy, Policy, draw_all, flat_rows
from mlbits.agents.best_response.transitions import Table, Transitions
from mlbits.envs.core.game import Game


class Leaf(Protocol):
    """Values of positions.

    Attributes:
        looks: whether it needs observations.
        keeps: whether it needs states.
    """

    looks: bool
    keeps: bool

    def __call__(
        self, obs: Any, seats: Tensor, states: np.ndarray | None, params: np.ndarray, truncated: Tensor,
        generator: torch.Generator,
    ) -> Tensor:  # fmt: skip
        """Values for ``seats`` [N] of N positions that have not terminated, [N].

        Args:
            obs: what those seats see, [N, ...], or None.
            seats: int64 [N].
            states: the positions, a structured array [N] on the host, or None.
            params: the game's parameters, [1] or [N].
            truncated: bool [N], cut here by a time limit.
            generator: for draws.
        """


class NoValue:
    """Nothing comes after the transition: games of one step."""

    looks = keeps = False

    def __call__(
        self, obs: Any, seats: Tensor, states: np.ndarray | None, params: np.ndarray, truncated: Tensor,
        generator: torch.Generator,
    ) -> Tensor:  # fmt: skip
        """Zeros."""
        return torch.zeros(len(seats), device=seats.device)


class Critic:
    """An agent's values.

    Args:
        agent: with ``state_values(obs) -> [N]``.

    Raises:
        AgentError: if it has none.
    """

    looks, keeps = True, False

    def __init__(self, agent: Any) -> None:
        if not hasattr(agent, "state_values"):
            raise AgentError(f"agent: got {type(agent).__name__}, which has no values; wanted one with state_values, "
                             "such as ppo")  # fmt: skip
        self.agent = agent

    @torch.no_grad()
    def __call__(
        self, obs: Any, seats: Tensor, states: np.ndarray | None, params: np.ndarray, truncated: Tensor,
        generator: torch.Generator,
    ) -> Tensor:  # fmt: skip
        """The agent's values."""
        found: Tensor = self.agent.state_values(obs)
        return found


class Rollout:
    """Play by a policy for some steps, then an agent's value; or to the end.

    Args:
        game: the game.
        policy: plays every seat.
        steps: of each rollout; a game that ends before stops there.
        critic: values where the rollout stops; None for zeros.
        discount: of rewards and values, per step.
        device: where actions and networks live.
    """

    looks, keeps = False, True

    def __init__(
        self, game: Game, policy: Policy, steps: int, critic: Any | None = None, *, discount: float = 1.0,
        device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        self.policy, self.steps, self.discount = policy, steps, discount
        self.critic = None if critic is None else Critic(critic)
        self.transitions = Transitions(game, device)

    @torch.no_grad()
    def __call__(
        self, obs: Any, seats: Tensor, states: np.ndarray | None, params: np.ndarray, truncated: Tensor,
        generator: torch.Generator,
    ) -> Tensor:  # fmt: skip
        """Rewards along the way and the value at its end."""
        assert states is not None
        batch = self.transitions.batch(states, params)  # games that are over, or cut, stay as they are
        total = torch.zeros(len(seats), dtype=torch.float64, device=seats.device)
        factor, going, cut = torch.ones_like(total), torch.ones_like(truncated), truncated.clone()
        at = torch.arange(len(seats), device=seats.device)
        table = self.transitions.table_of(batch, params)
        for _ in range(self.steps):
            playing = going & ~cut
            if not bool(playing.any()):
                break
            action = self._actions(table, playing, generator)
            step = batch.step(action.cpu())
            reward = step.reward.to(seats.device)[at, seats].double()
            total += torch.where(playing, factor * reward, 0.0)
            factor = torch.where(playing, factor * self.discount, factor)
            going = going & ~(playing & step.terminated.to(seats.device))
            cut = cut | (playing & step.truncated.to(seats.device))
            table = self.transitions.table_of(batch, params)
        if self.critic is not None and bool(going.any()):
            where = going.nonzero().squeeze(1)
            seen, _ = flat_rows(table, where * table.shape[1] + seats[where])
            total[where] += factor[where] * self.critic(seen, seats[where], None, params, cut, generator).double()
        return total

    def _actions(self, table: Table, playing: Tensor, generator: torch.Generator) -> Tensor:
        """Actions of all seats in the games that go on, [N, P, ...]."""
        playing = playing.unsqueeze(1) & table.acts
        return draw_all(self.policy, table._replace(acts=playing), 1, generator)[:, :, 0]


def leaf_of(agent: Any, player: Any, config: Any, game: Game, device: torch.device | str) -> Leaf:
    """An agent's value, after a rollout if the settings ask for one.

    Args:
        agent: has the values, and the discount in its config.
        player: its policy plays the rollout.
        config: settings with rollout_steps, rollout_temperature and rollout_top_p.
        game: the game.
        device: the agent's.
    """
    if not config.rollout_steps:
        return Critic(agent)
    policy = AgentPolicy(player, config.rollout_temperature, config.rollout_top_p)
    return Rollout(game, policy, config.rollout_steps, agent, discount=discount_of(agent), device=device)


def discount_of(agent: Any) -> float:
    """The discount with which an agent's values were learned; 1 if its config has none."""
    return float(getattr(getattr(agent, "config", None), "discount", 1.0))
