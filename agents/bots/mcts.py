"""Monte-Carlo tree search with random games: the yardstick for agents that plan, and an opponent without training.

UCT (Kocsis and Szepesvári, "Bandit based Monte-Carlo planning", 2006): Q + c sqrt(ln N / n) with c = 2, one random game
from each new leaf, proven wins and losses backed up (Winands, Björnsson and Saito, "Monte-Carlo tree search solver",
2008). With these defaults it is OpenSpiel's ``MCTSBot`` with ``RandomRolloutEvaluator(1)``, ``uct_c=2`` and
``solve=True``, without OpenSpiel. It plays the move that is proven best, or else the most visited one; the random games
are the only chance in it.

Example:
    mlbits eval runs/mine --opponents mcts@simulations=100
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mlbits.agents.agent import AgentError, Decision, Positions
from mlbits.agents.search.player import decision_of, probabilities_of
from mlbits.agents.search.search import Found, SearchConfig, TreeSearch
from mlbits.envs.core.config_fields import configuration, setting
from mlbits.envs.core.game import Game


@configuration(AgentError)
class MCTSConfig:
    """Settings of Monte-Carlo tree search."""

    simulations: int = setting(1000, "simulations a move", low=1)
    c: float = setting(2.0, "exploration (OpenSpiel's bots: 2)", low=0)
    rollouts: int = setting(1, "random games from each new leaf", low=1)
    solver: bool = setting(True, "whether proven wins and losses are backed up, in games of two seats")


class MCTSBot:
    """Monte-Carlo tree search with random games.

    Args:
        config: settings.
        game: a game of mlbits' own with Discrete actions: one seat, or two that move in turn with opposite rewards.
        seed: not used; part of every agent's signature.
        device: where the actions go.

    Raises:
        AgentError: for another game.
    """

    experience = None

    def __init__(self, config: MCTSConfig, game: Game, *, seed: int = 0, device: torch.device | str = "cpu") -> None:
        self.config, self.game, self.device = config, game, torch.device(device)
        own: dict[str, Any] = {"simulations": config.simulations, "c_uct": config.c, "rollouts": config.rollouts}
        self.search = TreeSearch(game, SearchConfig(method="uct", solver=config.solver, **own))

    def look(self, positions: Positions, generator: torch.Generator) -> Found:
        """Search the positions in which there is a decision; rows in their order."""
        index = positions.acts.nonzero().squeeze(-1)
        return self.search.run(positions.states[index], None, generator, params=positions.params_of(index))

    def plan(self, positions: Positions, generator: torch.Generator, *, greedy: bool = False) -> Decision:
        """Choose the best moves; ``greedy`` changes nothing."""
        return decision_of(self.look(positions, generator), positions, generator, True)

    def planned_probabilities(
        self, positions: Positions, generator: torch.Generator, *, greedy: bool = False
    ) -> Tensor:
        """The moves of one search for each row as a policy, float64 [N, A]."""
        return probabilities_of(self, positions, generator, True)

    def act(self, obs: Any, legal_mask: Tensor | None, generator: torch.Generator, *, greedy: bool = False) -> Decision:
        """Always raises: observations are not enough to search.

        Raises:
            AgentError: always.
        """
        raise AgentError("mcts: plans by a game's rules; wanted plan(positions, ...)")

    def learn(self, experience: Any, progress: float, generator: torch.Generator) -> Mapping[str, float]:
        """Always raises: the bot does not learn.

        Raises:
            AgentError: always.
        """
        raise AgentError("mcts: does not learn; wanted an agent that does, such as alphazero")

    def state_dict(self) -> dict[str, Tensor]:
        """Nothing to save."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Nothing to load."""
