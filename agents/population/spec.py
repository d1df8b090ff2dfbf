"""What populations ask of the loop, what they get, and what all of them can do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from mlbits.agents.agent import Decision
from mlbits.agents.population.policies import Policies


class PopulationSpec(NamedTuple):
    """The experience that a population asks for: whole episodes of many policies, each with its own weights.

    Attributes:
        policies: number N of policies that are played at once.
        episodes: episodes of each.
        max_steps: steps after which an episode is cut, where the environment has no time limit of its own.
        states: how many states met on the way are wanted.
        measured: how many of the last policies are the population as it is; the others are trials.
    """

    policies: int
    episodes: int
    max_steps: int
    states: int
    measured: int


class Outcomes(NamedTuple):
    """What N policies did in their episodes.

    Attributes:
        returns: undiscounted, mean over a policy's episodes, float64 [N].
        final: the last observations as inputs, mean over a policy's episodes, float32 [N, in].
        states: observations met on the way as inputs, float32 [n, in].
        lengths: steps of the episodes, int64 [N, E].
        each: returns of the episodes, float64 [N, E].
    """

    returns: Tensor
    final: Tensor
    states: Tensor
    lengths: Tensor
    each: Tensor


class Population(Protocol):
    """A learner of many policies, beside what :class:`~mlbits.agents.agent.Agent` has.

    It acts as its best member does.

    Attributes:
        policies: the form of its members.
    """

    policies: Policies

    @property
    def experience(self) -> PopulationSpec:
        """The episodes that it learns from."""

    def ask(self, generator: torch.Generator) -> Tensor:
        """The weights of the policies to be played, [N, D]."""

    def learn(self, outcomes: Outcomes, progress: float, generator: torch.Generator) -> Mapping[str, Any]:
        """Learn from what they did; returns metrics by name."""

    def act(self, obs: Any, legal_mask: Tensor | None, generator: torch.Generator, *, greedy: bool = False) -> Decision:
        """Decide for R rows of observations as the best member does."""

    @property
    def best(self) -> int:
        """Number of the best member."""

    def member_weights(self) -> Tensor:
        """The weights of all members, [M, D]."""

    def state_dict(self) -> dict[str, Tensor]:
        """Everything needed to act and to continue learning, as tensors."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved state."""
