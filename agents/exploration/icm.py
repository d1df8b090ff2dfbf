"""The intrinsic curiosity module: how badly the features of the next observation are predicted from now and the action.

Pathak, Agrawal, Efros and Darrell, "Curiosity-driven exploration by self-supervised prediction" (2017), section 2. The
features phi are those from which an inverse model guesses the action between two observations, so that what actions do
not change need not be in them:

    bonus  = mean (f(phi(s), a) - phi(s'))^2      (equation 6, with a mean over features)
    loss   = (1 - BETA) * inverse + BETA * forward  (equation 7)

The forward error's gradient goes on into phi, as in the authors' code: noise that the inverse model does not need is
then left out of phi, which it is not where that gradient stops (``reproduce noisy-tv``: an index of 0.04 against 0.3).

Differences: vectors are encoded by an MLP; the mean over features, so that their number does not set the scale.

Example:
    mlbits train ppo mlbits/NoisyTV-v0 --agent.bonus icm
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from mlbits.agents.agent import load_weights, prefixed, rows, unprefixed
from mlbits.agents.exploration.bonus import MAX_GRAD_NORM, Embedding, fit, joined
from mlbits.agents.exploration.settings import BonusSettings
from mlbits.agents.exploration.steps import ActionCode, Steps
from mlbits.agents.kernels.flat_adam import FlatAdam

BETA = 0.2


class ICM:
    """Features, an inverse model that shapes them, and a forward model in them.

    Args:
        settings: widths, learning rate, minibatches.
        observation_space: one seat's.
        action_space: one seat's.
        generator: of the initial weights.
        device: of the networks.

    Raises:
        AgentError: for orders on a graph, which have no code.
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
        self._settings, self._code = settings, ActionCode(action_space)
        hidden, width = settings.bonus_hidden, settings.bonus_features
        self.encoder = Embedding(observation_space, hidden, width, generator).to(device)
        self.inverse = joined(2 * width, hidden[-1:], self._code.width, generator).to(device)
        self.forward = joined(width + self._code.width, hidden[-1:], width, generator).to(device)
        parameters = [parameter for network in self._networks().values() for parameter in network.parameters()]
        self.optimizer = FlatAdam(parameters, settings.bonus_learning_rate, MAX_GRAD_NORM)

    def _errors(self, before: Tensor, action: Tensor, after: Tensor) -> Tensor:
        """Mean squared error of the forward model, [N]."""
        predicted = self.forward([torch.cat([before, self._code.encode(action)], 1)])
        return (predicted - after).square().mean(-1)

    @torch.no_grad()
    def of_steps(self, steps: Steps) -> Tensor:
        """The forward model's errors."""
        if steps.ended is not None:
            flat = Steps(rows(steps.obs, 2), steps.action.flatten(0, 1), rows(steps.next_obs, 2))
            return self.of_steps(flat).view(steps.ended.shape)
        return self._errors(self.encoder(steps.obs), steps.action, self.encoder(steps.next_obs))

    def _losses(self, steps: Steps) -> dict[str, Tensor]:
        before, after = self.encoder(steps.obs), self.encoder(steps.next_obs)
        inverse = self._code.guess_loss(self.inverse([torch.cat([before, after], 1)]), steps.action)
        forward = self._errors(before, steps.action, after).mean()
        return {"bonus_inverse_loss": (1 - BETA) * inverse, "bonus_loss": BETA * forward}

    def learn(self, steps: Steps, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Fit all three networks."""
        return fit(self.optimizer, self._losses, steps, self._settings, generator)

    def _networks(self) -> dict[str, nn.Module]:
        return {"encoder": self.encoder, "inverse": self.inverse, "forward": self.forward}

    def state_dict(self) -> dict[str, Tensor]:
        """The networks and the optimiser."""
        state = prefixed("optimizer", self.optimizer.state_dict())
        for name, network in self._networks().items():
            state |= prefixed(name, network.state_dict())
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved state."""
        load_weights(self._networks(), state)
        self.optimizer.load_state_dict(unprefixed("optimizer", state))
