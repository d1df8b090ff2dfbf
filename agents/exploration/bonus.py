"""What a bonus is: how surprising steps are, and what it learns from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import gymnasium as gym
import torch
from torch import Tensor, nn

from mlbits.agents.exploration.settings import BonusSettings
from mlbits.agents.exploration.steps import Steps
from mlbits.agents.kernels.flat_adam import FlatAdam
from mlbits.agents.networks.features import Features
from mlbits.agents.networks.mlp import MLP
from mlbits.agents.networks.running_moments import Moments, moments_of

MAX_GRAD_NORM = 10.0


class Bonus(Protocol):
    """The methods that an :class:`~mlbits.agents.exploration.explorer.Explorer` calls.

    Attributes:
        in_order: whether it has to see the steps in the order of play (it remembers), or takes any at any time.
        normalize: how it is normalised if the settings say "auto".
    """

    in_order: bool
    normalize: str

    def of_steps(self, steps: Steps) -> Tensor:
        """How new steps are: [T, S] of steps in order, or [N] of any."""

    def learn(self, steps: Steps, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Learn from steps [T, S] in order, after :meth:`of_steps` has seen them; returns losses by name."""

    def state_dict(self) -> dict[str, Tensor]:
        """Everything needed to go on."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved state."""


class Embedding(nn.Module):
    """An MLP over observations of any space: [N, ...] to [N, out].

    Args:
        space: one seat's observations.
        hidden: widths of the hidden layers.
        out: width of the result.
        generator: the source of initial weights.
    """

    def __init__(self, space: gym.Space[Any], hidden: tuple[int, ...], out: int, generator: torch.Generator) -> None:
        super().__init__()
        self.features = Features(space, generator)
        self.mlp = MLP(self.features, hidden, out, generator, activation="relu", initial="orthogonal")

    def forward(self, obs: Any) -> Tensor:
        """The MLP's output [N, out]."""
        return self.mlp(self.features(obs))


class Inputs:
    """Vectors joined to one, as the input of an MLP: how wide it is.

    Args:
        width: how many numbers.
    """

    def __init__(self, width: int) -> None:
        self.is_index, self.widths, self.fan_in = [False], [width], width


def joined(width: int, hidden: tuple[int, ...], out: int, generator: torch.Generator) -> MLP:
    """An MLP over vectors [N, width]."""
    return MLP(Inputs(width), hidden, out, generator, activation="relu", initial="orthogonal")


def moments_if_any(space: gym.Space[Any]) -> Moments | None:
    """Running moments of observations; None for a space without numbers."""
    from gymnasium import spaces

    parts = space.values() if isinstance(space, spaces.Dict) else [space]
    return moments_of(space) if any(isinstance(part, spaces.Box) for part in parts) else None


def fit(
    optimizer: FlatAdam, loss_of: Any, steps: Steps, settings: BonusSettings, generator: torch.Generator
) -> dict[str, Tensor]:
    """Gradient steps on minibatches of the learner's steps, in random order; returns the last one's losses.

    Args:
        optimizer: of the networks.
        loss_of: the losses by name of steps [N], whose sum is minimised.
        steps: [T, S].
        settings: minibatches and passes.
        generator: for the order.
    """
    flat, losses = steps.flat(), dict[str, Tensor]()
    count = len(flat.action)
    for _ in range(settings.bonus_epochs if count else 0):
        order = torch.randperm(count, generator=generator, device=generator.device).to(flat.action.device)
        for part in order.split(settings.bonus_batch_size):
            losses = loss_of(flat.of(part))
            optimizer.zero_grad()
            torch.stack([*losses.values()]).sum().backward()
            optimizer.step(measured=False)
    return {name: loss.detach() for name, loss in losses.items()}
