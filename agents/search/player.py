"""``SearchPlayer``: any agent with an actor and a critic, looking ahead by tree search when it plays.

The agent's ``policy_and_value`` guides the search; training does not change. ``searched`` makes such a player, gives an
agent that plans another number of simulations, or with none takes its network alone.

Play is the search's, without noise at the root: greedy play takes its best move, other play draws from its improved
policy. In games of two seats the search does not discount, so that proven wins and losses count; with one seat it
discounts as the agent's critic does.

Example:
    >>> import mlbits
    >>> from mlbits.agents import agent_entry
    >>> game, ppo = mlbits.make_game("mlbits/TicTacToe-v0"), agent_entry("ppo")
    >>> spaces = game.observation_space, game.action_space
    >>> agent = ppo.make(ppo.config_class()(), *spaces, seed=0, device="cpu")
    >>> searched(agent, game, {"simulations": 50}).config.simulations
    50
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlbits.agents.agent import Agent, AgentError, Decision, Positions, memory_size
from mlbits.agents.players import Player
from mlbits.agents.search.search import Found, SearchConfig, TreeSearch
from mlbits.envs.core.game import Game

_TREES_AT_ONCE = 1024


class NetworkPlayer(Player):
    """An agent's network alone: it plays without looking ahead, whatever the agent itself does."""

    agent: Any

    def action_probabilities(self, obs: Any, legal_mask: Tensor | None, *, greedy: bool = False) -> Tensor:
        """The network's policy, float64 [N, A]."""
        probabilities: Tensor = self.agent.action_probabilities(obs, legal_mask, greedy=greedy)
        return probabilities

    def policy_and_value(self, obs: Any, legal_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Logits [N, A] and values [N]."""
        found: tuple[Tensor, Tensor] = self.agent.policy_and_value(obs, legal_mask)
        return found


class SearchPlayer(NetworkPlayer):
    """An agent that looks ahead by tree search when it plays.

    Args:
        agent: an agent with ``policy_and_value``, or None to play random games from the leaves.
        game: the game.
        config: the search.

    Raises:
        AgentError: for an agent without ``policy_and_value``, or a game that cannot be searched.
    """

    def __init__(self, agent: Any, game: Game, config: SearchConfig) -> None:
        super().__init__(agent)
        if not hasattr(agent, "policy_and_value"):
            raise AgentError(
                f"search: {type(agent).__name__} has no policy_and_value to guide a search; wanted an agent with a "
                "policy over Discrete actions and a critic, such as alphazero, ppo, trpo, reinforce or dqn"
            )
        self.game, self.config = game, config
        self.search = TreeSearch(game, config)
        self._check_network()

    def _check_network(self) -> None:
        """Refuse an agent that cannot evaluate this game, before the first move."""
        layout = self.game.observation
        row: Any = np.zeros((1, *layout.shape), layout.dtype)
        if layout.keys is not None:
            row = {key: torch.from_numpy(np.ascontiguousarray(row[key])) for key in layout.keys}
        else:
            row = torch.from_numpy(row[..., 0] if layout.scalar else row)
        try:
            logits, _ = self.policy_and_value(row, torch.ones(1, self.search.num_actions, dtype=torch.bool))
        except (RuntimeError, IndexError) as error:
            raise AgentError(f"search: the network is for another game than {self.game.name} ({error})") from None
        if logits.shape != (1, self.search.num_actions):
            raise AgentError(
                f"search: the network has {logits.shape[-1]} actions; wanted {self.search.num_actions}, those of "
                f"{self.game.name}"
            )

    def look(self, positions: Positions, generator: torch.Generator) -> Found:
        """Search the positions in which there is a decision; rows in their order."""
        index = positions.acts.nonzero().squeeze(-1)
        return self.search.run(
            positions.states[index], self.policy_and_value, generator, params=positions.params_of(index)
        )

    def plan(self, positions: Positions, generator: torch.Generator, *, greedy: bool = False) -> Decision:
        """Choose moves by search: the best ones, or draws from the improved policy."""
        return decision_of(self.look(positions, generator), positions, generator, greedy)

    def planned_probabilities(
        self, positions: Positions, generator: torch.Generator, *, greedy: bool = False
    ) -> Tensor:
        """The policy that :meth:`plan` plays, float64 [N, A]; action 0 where a row has no decision."""
        return probabilities_of(self, positions, generator, greedy)


def decision_of(found: Found, positions: Positions, generator: torch.Generator, greedy: bool) -> Decision:
    """A search's best moves, or draws from its improved policy, at the rows that have a decision."""
    policy = found.policy.to(generator.device)
    chosen = found.action if greedy else torch.multinomial(policy, 1, generator=generator).squeeze(1)
    action = torch.zeros(len(positions.acts), dtype=torch.int64, device=positions.acts.device)
    action[positions.acts] = chosen.to(action.device)
    return Decision(action, action, None)


def probabilities_of(player: Any, positions: Positions, generator: torch.Generator, greedy: bool) -> Tensor:
    """The policy of a player with a ``look``, float64 [N, A], searched in parts; action 0 without a decision."""
    policy = torch.zeros(len(positions.acts), player.search.num_actions, dtype=torch.float64)
    policy[:, 0] = 1.0
    for index in positions.acts.nonzero().squeeze(-1).split(_TREES_AT_ONCE):
        found = player.look(positions.rows(index), generator)
        best = torch.nn.functional.one_hot(found.action, policy.shape[1])
        policy[index.cpu()] = (best if greedy else found.policy / found.policy.sum(-1, keepdim=True)).double().cpu()
    return policy


def searched(agent: Any, game: Game | None, changes: Mapping[str, Any] | None) -> Agent:
    """An agent with a search at play time.

    Args:
        agent: a trained agent. One that plans already gets the changes on top of its own settings; any other one with
            ``policy_and_value`` gets a search. A bot stays as it is.
        game: the game; None for an environment that is not one of mlbits' own.
        changes: settings of :class:`SearchConfig` by name; ``simulations`` 0 is the network alone. None or nothing
            changes nothing, except that an agent that plans then plays without the noise of its training.

    Returns:
        The player: the agent itself, a :class:`NetworkPlayer` or a :class:`SearchPlayer`.

    Raises:
        AgentError: for an unknown setting, or one out of range; if the game cannot be searched, or the agent cannot
            guide a search.
    """
    if changes is not None and not isinstance(changes, Mapping):
        raise AgentError(f"search: got {changes!r}; wanted settings by name, as in {{'simulations': 100}}")
    own: Any = getattr(agent, "config", None)
    trained_with = own.search() if hasattr(agent, "plan") and hasattr(own, "search") else None
    if isinstance(agent, SearchPlayer) and changes:
        agent, trained_with = agent.agent, agent.config
    if getattr(agent, "experience", None) is None or (not changes and trained_with is None):
        return agent
    given = dict(changes or {})
    known = [field.name for field in fields(SearchConfig)]
    for name in given:
        if name not in known:
            raise AgentError(f"search.{name}: unknown setting; wanted any of {', '.join(known)}")
    simulations = given.get("simulations")
    if simulations == 0 and not isinstance(simulations, bool):
        return agent if memory_size(agent) else NetworkPlayer(agent)
    if game is None:
        raise AgentError("search: a search plays by a game's rules; wanted one of mlbits' own games (mlbits/...)")
    base = trained_with or SearchConfig(discount=_discount(own, game))
    return SearchPlayer(agent, game, replace(base, **given))


def searched_where_possible(
    agents: Sequence[Agent], game: Game | None, changes: Mapping[str, Any] | None
) -> list[Agent]:
    """Several players, of which those that can search get the changes; bots and all others stay as they are.

    Raises:
        AgentError: if there are changes and none of them can search, and as :func:`searched` does.
    """
    able = [can_search(agent) for agent in agents]
    if changes and not any(able):
        raise AgentError(
            "search: none of the players can search; wanted a trained agent with a policy over Discrete actions and a "
            "critic, such as alphazero, ppo, trpo, reinforce or dqn"
        )
    return [searched(agent, game, changes) if can else agent for agent, can in zip(agents, able, strict=True)]


def can_search(agent: Any) -> bool:
    """Whether an agent was trained and has a policy and a critic to guide a search."""
    trained = getattr(agent, "experience", None) is not None or isinstance(agent, NetworkPlayer)
    return trained and hasattr(agent, "policy_and_value")


def _discount(config: Any, game: Game) -> float:
    """The search's discount: the agent's own in games of one seat, where a step is a decision; else none."""
    return max(float(getattr(config, "discount", 1.0)), 1e-6) if game.seats == 1 else 1.0
