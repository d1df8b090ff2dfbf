"""What an agent would have done at the observations of a dataset: probabilities, densities and draws of its actions."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
from gymnasium import spaces
from torch import Tensor

from mlbits.agents.agent import AgentError, pick, placed
from mlbits.agents.memory.dataset import Dataset
from mlbits.evals.off_policy.estimators import OffPolicyError

_CHUNK = 1 << 14  # rows that the agent's network takes at once


class TargetPolicy:
    """The policy to be evaluated: an agent's, sampled or greedy.

    Args:
        agent: an agent that decides from observations.
        action_space: one seat's.
        greedy: whether it takes its most probable action instead of a draw.
        device: the agent's.

    Raises:
        OffPolicyError: for an agent that plans by the rules, or one without the probabilities of its actions.
    """

    def __init__(
        self, agent: Any, action_space: gym.Space[Any], *, greedy: bool = False, device: torch.device | str = "cpu"
    ) -> None:
        self.agent, self.greedy, self.device = agent, greedy, device
        self.discrete = isinstance(action_space, spaces.Discrete)
        if not hasattr(agent, "act") or hasattr(agent, "plan"):
            raise OffPolicyError(f"agent: got {_name(agent)}, which plans; wanted one that decides from observations")
        if self.discrete and not hasattr(agent, "action_probabilities"):
            raise OffPolicyError(f"agent: got {_name(agent)}, which has no action_probabilities; wanted one that has")

    def probabilities(self, obs: Any, mask: Tensor | None) -> Tensor:
        """pi(a|s) of Discrete actions, float64 [N, A]."""

        def of(rows: slice) -> Tensor:
            seen, legal = self._part(obs, mask, rows)
            found: Tensor = self.agent.action_probabilities(seen, legal, greedy=self.greedy)
            return found.double().cpu()

        return torch.cat([of(rows) for rows in _chunks(_count(obs))])

    def draws(self, obs: Any, mask: Tensor | None, count: int, generator: torch.Generator) -> Tensor:
        """``count`` actions at each of N observations, [count, N, ...]; one if they are greedy."""

        def of(rows: slice) -> Tensor:
            seen, legal = self._part(obs, mask, rows)
            return self.agent.act(seen, legal, generator, greedy=self.greedy).action.cpu()

        times = 1 if self.greedy else count
        return torch.stack([torch.cat([of(rows) for rows in _chunks(_count(obs))]) for _ in range(times)])

    def log_prob(self, data: Dataset, obs: Any, mask: Tensor | None, *, drawn: bool) -> Tensor:
        """Log pi(a|s) of the logged actions, float64 [N].

        Args:
            data: the dataset.
            obs: the observation before each of its steps, [N, ...].
            mask: the legal actions there, or None.
            drawn: whether of the recorded draws instead of the actions as they were played.

        Raises:
            OffPolicyError: if the policy has no such density; the message says why.
        """
        if self.discrete:
            found = self.probabilities(obs, mask)
            return found.gather(1, data.action.long()[:, None])[:, 0].log()
        if self.greedy:
            raise OffPolicyError("greedy actions have no density")
        name, value = ("draw_log_prob", data.draw) if drawn else ("action_log_prob", data.action)
        if not hasattr(self.agent, name):
            raise OffPolicyError(f"{_name(self.agent)} has no {name}")
        assert value is not None

        def of(rows: slice) -> Tensor:
            seen, legal = self._part(obs, mask, rows)
            return getattr(self.agent, name)(seen, legal, placed(value[rows], self.device)).double().cpu()

        try:
            return torch.cat([of(rows) for rows in _chunks(len(value))])
        except AgentError as error:
            raise OffPolicyError(str(error)) from None

    def _part(self, obs: Any, mask: Tensor | None, rows: slice) -> tuple[Any, Tensor | None]:
        return placed(pick(obs, rows), self.device), None if mask is None else mask[rows].to(self.device)


def _name(agent: Any) -> str:
    return type(agent).__name__


def _count(obs: Any) -> int:
    return len(next(iter(obs.values())) if isinstance(obs, dict) else obs)


def _chunks(count: int) -> list[slice]:
    return [slice(first, first + _CHUNK) for first in range(0, count, _CHUNK)]
