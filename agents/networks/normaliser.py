"""What an off-policy agent sees of raw experience: standardised observations, and rewards in the unit of returns.

The replay buffer keeps observations and rewards as they were. They are normalised when they are sampled, with the
moments of that time, so that all transitions of a minibatch, old and new, are seen through the same moments, and so is
what the agent acts on. Moments change in ``learn`` alone, by the steps since the last call: evaluation, frozen copies
and loaded agents keep those that were saved.

Observations are standardised as by :mod:`~mlbits.agents.networks.running_moments`, and rewards divided as by
:class:`~mlbits.agents.maths.returns.RewardScale`. With hindsight what was achieved becomes a goal too, so that both
parts of an observation have moments of both: a goal that is always the same would else have no deviation, and all
others would be cut off. A sum of n discounted rewards scales as one does, so n-step windows
need nothing else. Values are then learned in units of ``unit``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

import gymnasium as gym
import torch
from torch import Tensor

from mlbits.agents.agent import Rollout, prefixed, unprefixed
from mlbits.agents.maths.returns import RewardScale
from mlbits.agents.networks.running_moments import Moments, moments_of
from mlbits.envs.core.goals import ACHIEVED, DESIRED


class NormaliserConfig(Protocol):
    """The settings that are read of an agent's.

    Attributes:
        normalize_obs: whether observations are standardised.
        normalize_reward: whether rewards are divided by the deviation of returns.
        discount: gamma of these returns.
        hindsight: "none", or how achieved goals stand in for desired ones.
    """

    @property
    def normalize_obs(self) -> bool: ...  # noqa: D102
    @property
    def normalize_reward(self) -> bool: ...  # noqa: D102
    @property
    def discount(self) -> float: ...  # noqa: D102
    @property
    def hindsight(self) -> str: ...  # noqa: D102


# Transitions sampled from a replay buffer: a NamedTuple with obs, next_obs and reward.
Transitions = TypeVar("Transitions", bound=Any)


class Normaliser:
    """Normalises observations, rewards, both or neither, as an agent's settings say.

    Args:
        config: settings.
        observation_space: one seat's.
        device: of the observations.

    Attributes:
        moments: of observations, or None.
        reward_scale: or None.

    Raises:
        AgentError: if observations are to be standardised but have no numbers.
    """

    def __init__(self, config: NormaliserConfig, observation_space: gym.Space[Any], device: torch.device | str) -> None:
        self.moments: Moments | None = moments_of(observation_space).to(device) if config.normalize_obs else None
        self.reward_scale = RewardScale(config.discount) if config.normalize_reward else None
        self._goals = config.hindsight != "none"

    def update(self, rollout: Rollout) -> None:
        """Add a rollout's observations and returns to the moments."""
        if self.moments is not None:
            obs = rollout.flatten().obs
            if self._goals:
                obs = obs | dict.fromkeys((ACHIEVED, DESIRED), torch.cat([obs[ACHIEVED], obs[DESIRED]]))
            self.moments.update(obs)
        if self.reward_scale is not None:
            self.reward_scale.update(rollout)

    def obs(self, obs: Any) -> Any:
        """Observations [N, ...] as the network takes them."""
        return obs if self.moments is None else self.moments.standardise(obs)

    def drawn(self, drawn: Transitions) -> Transitions:
        """Sampled transitions as the agent learns from them."""
        if self.moments is not None:
            drawn = drawn._replace(obs=self.obs(drawn.obs), next_obs=self.obs(drawn.next_obs))
        return drawn if self.reward_scale is None else drawn._replace(reward=drawn.reward / self.unit)

    @property
    def unit(self) -> float:
        """What rewards are divided by, and values multiplied by to be in the rewards' own unit."""
        return 1.0 if self.reward_scale is None else self.reward_scale.unit

    def state_dict(self) -> dict[str, Tensor]:
        """Moments of observations and returns; empty without normalisation."""
        state = {} if self.moments is None else prefixed("moments", self.moments.state_dict())
        return state if self.reward_scale is None else state | self.reward_scale.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved state, in which other entries are ignored."""
        if self.moments is not None:
            self.moments.load_state_dict(unprefixed("moments", state))
        if self.reward_scale is not None:
            self.reward_scale.load_state_dict(state)
