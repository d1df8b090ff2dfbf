"""Agents as others meet them: ``Player``, a policy without its search, and ``OutsideTraining``, a learner."""

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


class OutsideTraining:
    """A learner as others meet it: it acts with ``training=False``, and is otherwise the learner as it is now.

    Args:
        learner: whose ``act`` takes ``training``.
    """

    def __init__(self, learner: Any) -> None:
        self._learner = learner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._learner, name)

    def act(self, obs: Any, legal_mask: Tensor | None, generator: torch.Generator, **how: Any) -> Decision:
        """Decide as when it does not learn."""
        decision: Decision = self._learner.act(obs, legal_mask, generator, training=False, **how)
        return decision
