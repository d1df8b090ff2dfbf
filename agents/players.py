"""``Player``: plays by an agent's policy, without the agent's search, and does not learn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mlbits.agents.agent import Agent, AgentError, Decision


class Player:
    """A player around an agent: acts by the agent's policy, whatever the agent itself does, and does not learn.

    The base of players that search in place of the policy.

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
