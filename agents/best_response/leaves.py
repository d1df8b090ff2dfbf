"""Values of the positions after a search's transitions: by a critic, by rollouts, or the rewards of a whole game.

A leaf is called with what the asked seats see (if it ``looks``) and the states (if it ``keeps``), and returns each
seat's value of going on, without the transition's own reward.

Agents learn values only where they decide, so a critic is not read where the asked seat passes (in turn-based games
after every move, in Diplomacy in phases of others' retreats and builds): play goes on by a policy until the seat
decides again, and the value there counts. :func:`values_after` puts rewards and leaves together.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlbits.agents.agent import AgentError, pick
from mlbits.agents.best_response.policies import AgentPolicy, Policy, draw_all, flat_rows
from mlbits.agents.best_response.transitions import Branches, Table, Transitions
from mlbits.envs.core.game import Game

MOST_PASSES = 8


class Leaf(Protocol):
    """Values of positions.

    Attributes:
        looks: whether it needs observations.
        keeps: whether it needs states.
    """

    looks: bool
    keeps: bool

    @property
    def passes(self) -> Leaf | None:
        """Values, from states, of positions in which the asked seat passes; None if these are valued like others."""

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
    passes: Leaf | None = None

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
        passes: values of positions in which the asked seat passes, such as a Rollout; None reads the critic there too.

    Raises:
        AgentError: if it has none.
    """

    looks, keeps = True, False

    def __init__(self, agent: Any, passes: Rollout | None = None) -> None:
        if not hasattr(agent, "state_values"):
            raise AgentError(f"agent: got {type(agent).__name__}, which has no values; wanted one with state_values, "
                             "such as ppo")  # fmt: skip
        self.agent = agent
        self.passes: Leaf | None = passes

    @torch.no_grad()
    def __call__(
        self, obs: Any, seats: Tensor, states: np.ndarray | None, params: np.ndarray, truncated: Tensor,
        generator: torch.Generator,
    ) -> Tensor:  # fmt: skip
        """The agent's values."""
        found: Tensor = self.agent.state_values(obs)
        return found


class Rollout:
    """Play by a policy for some steps and on to the seat's next decision, then an agent's value; or to the end.

    A seat that does not decide for another ``MOST_PASSES`` steps (or two rounds of the seats, where that is more) is
    valued where it is: one that has been eliminated never decides again.

    Args:
        game: the game.
        policy: plays every seat.
        steps: of each rollout, at least; a game that ends before stops there.
        critic: values where the rollout stops; None for zeros, and then nothing is played beyond ``steps``.
        discount: of rewards and values, per step.
        device: where actions and networks live.
    """

    looks, keeps = False, True
    passes: Leaf | None = None

    def __init__(
        self, game: Game, policy: Policy, steps: int, critic: Any | None = None, *, discount: float = 1.0,
        device: torch.device | str = "cpu",
    ) -> None:  # fmt: skip
        self.policy, self.steps, self.discount = policy, steps, discount
        self.critic = None if critic is None else Critic(critic)
        self.transitions = Transitions(game, device)
        self.most = steps + (max(MOST_PASSES, 2 * game.seats) if critic is not None else 0)

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
        for t in range(self.most):
            playing = going & ~cut if t < self.steps else going & ~cut & ~table.acts[at, seats]
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


def values_after(
    transitions: Transitions, leaf: Leaf, discount: float, table: Table, source: Tensor, joint: Tensor, seats: Tensor,
    keys: NDArray[np.uint64], generator: torch.Generator,
) -> Tensor:  # fmt: skip
    """r_i + discount V_i(s') of N joint actions for one seat i each, float64 [N].

    Args:
        transitions: plays them.
        leaf: values of the next positions.
        discount: of those values.
        table: the positions.
        source: the position of each joint action, int64 [N].
        joint: every seat's action, int64 [N, P, ...].
        seats: the seat that is valued, int64 [N].
        keys: random streams, [N].
        generator: for policies that the leaf follows.
    """
    found = transitions(table, source, joint, seats, keys, look=leaf.looks, keep=leaf.keeps)
    value = found.reward.gather(1, seats.unsqueeze(1)).squeeze(1).double()
    if not (leaf.looks or leaf.keeps):
        return value

    def add(leaf: Leaf, found: Branches, rows: Tensor, among: Tensor) -> None:
        if len(rows) == 0:
            return
        params = table.params if len(table.params) == 1 else table.params[source[rows].cpu().numpy()]
        obs = pick(found.obs, among) if leaf.looks else None
        states = found.states[among.cpu().numpy()] if found.states is not None else None
        rest = leaf(obs, seats[rows], states, params, found.truncated[among], generator)
        value[rows] += discount * rest.double()

    going = ~found.terminated
    passing = going & ~found.acts if leaf.passes is not None else torch.zeros_like(going)
    decides, rows = (going & ~passing).nonzero().squeeze(1), passing.nonzero().squeeze(1)
    add(leaf, found, decides, decides)
    if leaf.passes is not None and len(rows):  # the same transitions again, for their states
        some = (source[rows], joint[rows], seats[rows], keys[rows.cpu().numpy()])
        again = transitions(table, *some, look=False, keep=True)
        add(leaf.passes, again, rows, torch.arange(len(rows), device=rows.device))
    return value


def leaf_of(agent: Any, player: Any, config: Any, game: Game, device: torch.device | str) -> Leaf:
    """An agent's value, after a rollout if the settings ask for one.

    Args:
        agent: has the values, and the discount in its config.
        player: its policy plays the rollout.
        config: settings with rollout_steps, rollout_temperature and rollout_top_p.
        game: the game.
        device: the agent's.
    """
    policy = AgentPolicy(player, config.rollout_temperature, config.rollout_top_p)
    rollout = Rollout(game, policy, config.rollout_steps, agent, discount=discount_of(agent), device=device)
    if config.rollout_steps:
        return rollout
    return Critic(agent, rollout if game.acts is not None else None)


def discount_of(agent: Any) -> float:
    """The discount with which an agent's values were learned; 1 if its config has none."""
    return float(getattr(getattr(agent, "config", None), "discount", 1.0))
