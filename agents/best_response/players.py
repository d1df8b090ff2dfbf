"""A player for comparisons: an agent's search without the noise of self-play."""

from __future__ import annotations

from typing import Any

import torch

from mlbits.agents.agent import Decision, Positions
from mlbits.agents.players import Player


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
