"""Random network distillation: how badly a network predicts what a fixed random one makes of the next observation.

Burda, Edwards, Storkey and Klimov, "Exploration by random network distillation" (2019), section 2.2. Both networks see
observations standardised by their running moments and clipped to +-5 (section 2.4). The error falls for whatever was
seen often, and noise that never repeats is one point after another of the same cloud, so that a small network learns
the cloud and not the points. Differences: one gradient step per minibatch of all steps, where the paper drops three
quarters of them for many copies; bonuses are divided by their own root mean square, and not by the deviation of their
discounted sums; ``bonus_discount`` gives the second value, which is a network of its own here.

Example:
    mlbits train ppo mlbits/NoisyTV-v0 --agent.bonus rnd
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor

from mlbits.agents.agent import load_weights, prefixed, rows, unprefixed
from mlbits.agents.exploration.bonus import MAX_GRAD_NORM, Embedding, fit, moments_if_any
from mlbits.agents.exploration.settings import BonusSettings
from mlbits.agents.exploration.steps import Steps
from mlbits.agents.kernels.flat_adam import FlatAdam

CLIP = 5.0


class RND:
    """A random network and one that imitates it.

    Args:
        settings: widths, learning rate, minibatches.
        observation_space: one seat's.
        action_space: not used.
        generator: of the initial weights.
        device: of the networks.
    """

    in_order, normalize = False, "rms"

    def __init__(
        self,
        settings: BonusSettings,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        generator: torch.Generator,
        device: torch.device | str,
    ) -> None:
        self._settings = settings
        how = (observation_space, settings.bonus_hidden, settings.bonus_features, generator)
        self.target = Embedding(*how).to(device).requires_grad_(False)
        self.predictor = Embedding(*how).to(device)
        self.moments = moments_if_any(observation_space)
        if self.moments is not None:
            self.moments.to(device)
        self.optimizer = FlatAdam(self.predictor.parameters(), settings.bonus_learning_rate, MAX_GRAD_NORM)

    def _errors(self, obs: Any) -> Tensor:
        """Mean squared error of each of N observations, [N]."""
        seen = obs if self.moments is None else self.moments.standardise(obs, CLIP)
        return (self.predictor(seen) - self.target(seen)).square().mean(-1)

    @torch.no_grad()
    def of_steps(self, steps: Steps) -> Tensor:
        """The errors at the observations that followed."""
        if steps.ended is None:
            return self._errors(steps.next_obs)
        return self._errors(rows(steps.next_obs, 2)).view(steps.ended.shape)

    def learn(self, steps: Steps, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Imitate the random network where the steps led."""
        if self.moments is not None:
            self.moments.update(steps.flat().next_obs)
        return fit(
            self.optimizer, lambda part: {"bonus_loss": self._errors(part.next_obs).mean()}, steps, self._settings,
            generator,
        )  # fmt: skip

    def state_dict(self) -> dict[str, Tensor]:
        """Both networks, the optimiser and the moments."""
        state = prefixed("target", self.target.state_dict()) | prefixed("predictor", self.predictor.state_dict())
        state |= prefixed("optimizer", self.optimizer.state_dict())
        return state if self.moments is None else state | prefixed("moments", self.moments.state_dict())

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved state."""
        load_weights({"target": self.target, "predictor": self.predictor}, state)
        self.optimizer.load_state_dict(unprefixed("optimizer", state))
        if self.moments is not None:
            self.moments.load_state_dict(unprefixed("moments", state))
