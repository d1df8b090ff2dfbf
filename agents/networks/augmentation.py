"""Data augmentation of sampled pictures (DrQ): random shifts, and averages over several of them.

Yarats, Kostrikov and Fergus, "Image Augmentation Is All You Need" (2021, arXiv 2004.13649), equations 1 to 3: a shift
by a few pixels changes a picture and not its value. So each sampled picture is shifted at random, targets are averaged
over K shifts of the next observation, and the critic learns from M shifts of its own; DrQ has K = M = 2. The actor
sees one of these.

A shift of up to n pixels is a crop of the picture padded by n, where the padding repeats its edge. All frames and
channels of a picture move together, vectors and indices of a Dict stay.

Example:
    mlbits train dqn ALE/Pong-v5 --agent.shift 4 --agent.target-shifts 2 --agent.critic-shifts 2
"""

from __future__ import annotations

from typing import Any, Protocol

import gymnasium as gym
import torch
from gymnasium import spaces
from torch import Tensor

from mlbits.agents.agent import AgentError, pick
from mlbits.agents.memory.replay import Transitions
from mlbits.agents.networks.features import image_channels

SHIFT_HELP = "shift sampled pictures at random by up to so many pixels (DrQ: 4 of 84); 0 for none"
TARGET_SHIFTS_HELP = "shifts of the next observation over which a target is averaged, K (DrQ: 2)"
CRITIC_SHIFTS_HELP = "shifts of an observation from which the critic learns, M (DrQ: 2)"


class AugmentationConfig(Protocol):
    """The settings that are read of an agent's.

    Attributes:
        shift: the largest shift in pixels; 0 for none.
        target_shifts: K.
        critic_shifts: M.
    """

    @property
    def shift(self) -> int: ...  # noqa: D102
    @property
    def target_shifts(self) -> int: ...  # noqa: D102
    @property
    def critic_shifts(self) -> int: ...  # noqa: D102


class Augmentation:
    """Shifts of sampled transitions, as an agent's settings say; without them everything stays as it is.

    Args:
        config: settings.
        observation_space: one seat's.

    Raises:
        AgentError: for shifts of observations without pictures, or of pictures that are no larger; or for several
            shifts of size 0.
    """

    def __init__(self, config: AugmentationConfig, observation_space: gym.Space[Any]) -> None:
        self.most, self.targets, self.views = config.shift, config.target_shifts, config.critic_shifts
        if not self.most:
            if max(self.targets, self.views) > 1:
                raise AgentError(
                    f"target_shifts, critic_shifts: got {self.targets} and {self.views} with shift 0; wanted a shift"
                )
            return
        named = (
            dict(observation_space.items()) if isinstance(observation_space, spaces.Dict) else {"": observation_space}
        )
        pictures = {
            key: part for key, part in named.items() if isinstance(part, spaces.Box) and image_channels(part)[0]
        }
        if not pictures:
            raise AgentError(
                f"shift: got the observation space {observation_space}; wanted pictures, or a Dict with some"
            )
        self._axis = {key: _first_axis(part) for key, part in pictures.items()}
        for key, part in pictures.items():
            sides = part.shape[self._axis[key] - 1 : self._axis[key] + 1]
            if min(sides) <= self.most:
                raise AgentError(f"shift: got {self.most} for pictures of {sides}; wanted less than their sides")

    def both(self, drawn: Transitions, generator: torch.Generator) -> tuple[Transitions, Transitions]:
        """For N transitions: M shifts of their observations, [M N], and K of what followed, [K N], shift by shift."""
        if not self.most:
            return drawn, drawn
        views, following = _repeated(drawn, self.views), _repeated(drawn, self.targets)
        return (
            views._replace(obs=self._shifted(views.obs, generator)),
            following._replace(next_obs=self._shifted(following.next_obs, generator)),
        )

    def target(self, target: Tensor) -> Tensor:
        """Targets [K N, ...], averaged over their shifts, for each of the observation's shifts: [M N, ...]."""
        if self.targets > 1:
            target = target.view(self.targets, -1, *target.shape[1:]).mean(0)
        return target if self.views == 1 else target.repeat(self.views, *[1] * (target.dim() - 1))

    def mean(self, error: Tensor) -> Tensor:
        """The sizes of errors [M N] averaged over the shifts, [N]; one shift's errors as they are."""
        return error if self.views == 1 else error.abs().view(self.views, -1).mean(0)

    def first(self, views: Transitions) -> Transitions:
        """The first of M shifts of each transition."""
        return views if self.views == 1 else _rows(views, slice(0, len(views.reward) // self.views))

    def _shifted(self, obs: Any, generator: torch.Generator) -> Any:
        """Observations with every picture shifted by its own draw."""
        if not isinstance(obs, dict):
            return random_shift(obs, self.most, generator, self._axis[""])
        return {
            key: random_shift(part, self.most, generator, self._axis[key]) if key in self._axis else part
            for key, part in obs.items()
        }


def random_shift(pictures: Tensor, most: int, generator: torch.Generator, axis: int) -> Tensor:
    """Pictures [N, ...], each moved by -most to most pixels in both directions; its edge fills what is left free.

    Args:
        pictures: any dtype.
        most: the largest shift.
        generator: for the draws.
        axis: the first of the two axes of pixels.
    """
    rows, height, width = len(pictures), *pictures.shape[axis : axis + 2]
    by = torch.randint(-most, most + 1, (2, rows, 1), generator=generator, device=generator.device).to(pictures.device)
    y = (torch.arange(height, device=pictures.device) + by[0]).clamp_(0, height - 1)
    x = (torch.arange(width, device=pictures.device) + by[1]).clamp_(0, width - 1)
    place = (y.unsqueeze(2) * width + x.unsqueeze(1)).view(rows, 1, height * width, 1)
    flat = pictures.reshape(rows, -1, height * width, pictures.shape[axis + 2 :].numel())
    return flat.gather(2, place.expand(-1, flat.shape[1], -1, flat.shape[3])).view(pictures.shape)


def _first_axis(space: spaces.Box) -> int:
    """The first axis of pixels in a batch of a space's pictures."""
    return 2 if image_channels(space)[1] == 0 else 1


def _repeated(drawn: Transitions, count: int) -> Transitions:
    """Transitions ``count`` times, one round after the other."""
    if count == 1:
        return drawn
    return _rows(drawn, torch.arange(len(drawn.reward), device=drawn.reward.device).repeat(count))


def _rows(drawn: Transitions, index: Any) -> Transitions:
    return Transitions._make(None if value is None else pick(value, index) for value in drawn)
