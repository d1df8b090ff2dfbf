"""A value function of the bonus alone, with a discount of its own, through the ends of episodes.

Burda et al., "Exploration by random network distillation" (2019), section 2.3: what is new stays new after the episode
ends, and dying is no punishment for a curious agent, so that bonuses are summed over ends. The advantages (GAE) of the
bonus are added to those of the reward. Difference: a network of its own in place of a second head.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

from mlbits.agents.agent import load_weights, pick, prefixed, rows, unprefixed
from mlbits.agents.exploration.bonus import MAX_GRAD_NORM, Embedding
from mlbits.agents.exploration.settings import BonusSettings
from mlbits.agents.exploration.steps import Steps
from mlbits.agents.kernels.flat_adam import FlatAdam
from mlbits.agents.maths.returns import gae

PASSES = 4  # over each rollout


class OwnValue:
    """The value of bonuses.

    Args:
        settings: widths, learning rate, minibatches.
        observation_space: one seat's.
        discount: of the bonus, above 0.
        gae_lambda: lambda of its advantages.
        generator: of the initial weights.
        device: of the network.
    """

    def __init__(
        self,
        settings: BonusSettings,
        observation_space: gym.Space[Any],
        discount: float,
        gae_lambda: float,
        generator: torch.Generator,
        device: torch.device | str,
    ) -> None:
        self._settings, self._discount, self._lambda = settings, discount, gae_lambda
        self.network = Embedding(observation_space, settings.bonus_hidden, 1, generator).to(device)
        self.optimizer = FlatAdam(self.network.parameters(), settings.bonus_learning_rate, MAX_GRAD_NORM)

    def advantages(self, steps: Steps, last_obs: Any, reward: Tensor, generator: torch.Generator) -> Tensor:
        """Advantages [T, S] of bonuses; the value then learns from them.

        Args:
            steps: T steps of S streams.
            last_obs: what follows the last of them in play, [B, P, ...] or a dict of those.
            reward: bonuses, [T, S].
            generator: for the order of minibatches.
        """
        obs = rows(steps.obs, 2)
        with torch.no_grad():
            value = self.network(obs).view(reward.shape)
            last = self.network(rows(last_obs, 2)).view(1, -1)
            never = torch.zeros_like(reward, dtype=torch.bool)
            advantage = gae(
                reward.unsqueeze(-1), value.unsqueeze(-1), torch.cat([value[1:], last]).unsqueeze(-1), never, never,
                discount=self._discount, gae_lambda=self._lambda,
            ).squeeze(-1)  # fmt: skip
            target = (advantage + value).flatten()
        place = torch.arange(len(target), device=target.device)
        place = place if steps.mine is None else place[steps.mine.flatten()]
        for _ in range(PASSES):
            order = torch.randperm(len(place), generator=generator, device=generator.device).to(place.device)
            for part in place[order].split(self._settings.bonus_batch_size):
                self.optimizer.zero_grad()
                loss = 0.5 * (self.network(pick(obs, part)).squeeze(-1) - target[part]).square().mean()
                loss.backward()
                self.optimizer.step(measured=False)
        return advantage

    def state_dict(self) -> dict[str, Tensor]:
        """Network and optimiser."""
        return prefixed("network", self.network.state_dict()) | prefixed("optimizer", self.optimizer.state_dict())

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved state."""
        load_weights({"network": self.network}, state)
        self.optimizer.load_state_dict(unprefixed("optimizer", state))
