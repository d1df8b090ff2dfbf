"""Players around a trained agent: its policy alone, or a search in place of its policy. They do not learn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mlbits.agents.agent import Agent, AgentError, Decision, Positions


class Player:
    """The base of players around an agent: acts by the agent's policy, saves and loads the agent's state.

    Args:
        agent: with ``act``.
    """

    experience = None

    def __init__(self, agent: Agent) -> None:
        self.agent = agent

    def act(self, obs: Any, legal_mask: Tensor | None, generator: torch.Generator, *, greedy: bool = False) -> Decision:
        """The agent's policy."""
        return self.agent.act(obs, legal_mask, generator, greedy=greedy)

    def learn(self, experience: Any, progress: float, generator: torch.Generator) -> Mapping[str, Any]:
        """Always raises: the agent inside does the learning.

        Raises:
            AgentError: always.
        """
        raise AgentError(f"{type(self).__name__}: does not learn; wanted the agent itself")

    def state_dict(self) -> dict[str, Tensor]:
        """The agent's."""
        return self.agent.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the agent's."""
        self.agent.load_state_dict(state)


class WithoutNoise(Player):
    """An agent that plays by its search without self-play's noise, mixed where its search mixes.

    Args:
        agent: a :class:`~mlbits.agents.best_response.learner.SearchLearner`.
    """

    agent: Any

    def plan(self, positions: Positions, generator: torch.Generator, *, greedy: bool = False) -> Decision:
        """The agent's search."""
        found: Decision = self.agent.plan(positions, generator, greedy=greedy, explore=False)
        return found


class PolicyOnly(Player):
    """An agent that plays its policy without search, to compare with its search."""
