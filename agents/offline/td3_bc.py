"""TD3+BC: TD3's actor on a dataset, held to the recorded actions by a term of behavioural cloning.

Fujimoto and Gu, "A Minimalist Approach to Offline Reinforcement Learning" (NeurIPS 2021, arXiv 2106.06860):

    critics  as TD3: two, bootstrapping from the lower one at the target actor's action with clipped noise
    actor    maximise E_(s,a)~D [lambda Q(s, mu(s)) - (mu(s) - a)^2],  lambda = alpha / mean |Q(s, mu(s))| (equation 5)

Observations are standardised, as there. The actor and all target networks are updated every ``policy_delay`` steps.

Example:
    mlbits train td3-bc Pendulum-v1 --data my/dataset-v0
"""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import torch
import torch.nn.functional as F
from torch import Tensor

from mlbits.agents.agent import AgentError, Decision
from mlbits.agents.kernels.flat_adam import FlatAdam
from mlbits.agents.memory.replay import Transitions
from mlbits.agents.offline.networks import Critics, Policy
from mlbits.agents.offline.offline_agent import REWARD_SCALING, OfflineAgent, OfflineConfig, RewardScaling
from mlbits.envs.core.config_fields import configuration, setting
from mlbits.envs.core.schedules import Scheduled, value_at


@configuration(AgentError)
class TD3BCConfig(OfflineConfig):
    """Settings of TD3+BC; defaults are the paper's."""

    alpha: float = setting(2.5, "weight of Q against imitation", low=0, high=1e9)
    critic_learning_rate: Scheduled = setting(
        3e-4, "learning rate of the critics' Adam", low=0, high=10, scheduled=True
    )
    discount: float = setting(0.99, "discount factor, gamma", low=0, high=1)
    tau: float = setting(0.005, "step size of a target update: target += tau (network - target)", low=1e-9, high=1)
    target_noise: float = setting(
        0.2, "standard deviation of the noise on the bootstrap's action", low=0, high=10, unit="half ranges"
    )
    target_noise_clip: float = setting(
        0.5, "largest size of that noise", low=0, high=2, unit="half ranges of the action"
    )
    policy_delay: int = setting(2, "critic updates per update of the actor and the target networks", low=1, high=1e6)
    reward_scaling: RewardScaling = setting("none", REWARD_SCALING)


class TD3BC(OfflineAgent):
    """A TD3+BC agent for one seat's spaces.

    Args:
        config: settings.
        observation_space: one seat's.
        action_space: one seat's: Box of one axis, with bounds.
        seed: of the initial weights.
        device: where the networks are kept.
    """

    def __init__(
        self,
        config: TD3BCConfig,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(config, observation_space, action_space, seed=seed, device=device)
        self.actor = Policy(
            observation_space,
            self.actions,
            config.hidden,
            self.generator,
            layer_norm=config.layer_norm,
            precision=self.config.precision,
        ).to(device)
        self.critics = Critics(
            observation_space, self.actions, False, config.hidden, self.generator, count=2,
            layer_norm=config.layer_norm, precision=self.config.precision,
        ).to(device)  # fmt: skip
        self.target_actor = copy.deepcopy(self.actor).requires_grad_(False)
        self.target_critics = copy.deepcopy(self.critics).requires_grad_(False)
        self.actor_optimizer = FlatAdam(
            self.actor.parameters(), value_at(config.learning_rate, 0.0), config.max_grad_norm, eps=1e-8,
            target=self.target_actor.parameters(),
        )  # fmt: skip
        self.critic_optimizer = FlatAdam(
            self.critics.parameters(), value_at(config.critic_learning_rate, 0.0), config.max_grad_norm, eps=1e-8,
            target=self.target_critics.parameters(),
        )  # fmt: skip
        self.networks = {
            "actor": self.actor, "critics": self.critics,
            "target_actor": self.target_actor, "target_critics": self.target_critics,
        }  # fmt: skip
        self.optimizers = {
            "actor": (self.actor_optimizer, config.learning_rate),
            "critics": (self.critic_optimizer, config.critic_learning_rate),
        }
        self._actor_metrics: dict[str, Tensor] = {}

    @torch.no_grad()
    def act(self, obs: Any, legal_mask: Tensor | None, generator: torch.Generator, *, greedy: bool = False) -> Decision:
        """The actor's actions for N rows of observations; there is no noise to leave out for ``greedy``."""
        return self._decision(torch.tanh(self.actor.forward(self.scaling.obs(obs))))

    def _update(self, drawn: Transitions, generator: torch.Generator, *, measure: bool) -> dict[str, Any]:
        """One gradient step of the critics and, if due, one of the actor and an update of the target networks."""
        target = self._target(drawn, generator)
        outs = self.critics.taken(drawn.obs, drawn.action)
        critic_loss = torch.stack([F.mse_loss(out, target) for out in outs]).sum()
        self.critic_optimizer.zero_grad()
        critic_loss.backward()
        norm = self.critic_optimizer.step(measured=measure)
        if (self.updates + 1) % self.config.policy_delay == 0:
            self._update_actor(drawn)
            for optimizer in (self.critic_optimizer, self.actor_optimizer):
                optimizer.follow(self.config.tau)
        if not measure:
            return {}
        found = {"critic_loss": critic_loss.detach(), "critic_grad_norm": norm, "q": outs[0].detach().mean()}
        return found | self._actor_metrics

    def _update_actor(self, drawn: Transitions) -> None:
        """One step on lambda Q - (mu - a)^2."""
        with self.critic_optimizer.frozen():
            action = torch.tanh(self.actor.forward(drawn.obs))
            (q,) = self.critics.taken(drawn.obs, action, first=True)
            imitation = F.mse_loss(action, drawn.action)
            loss = imitation - self.config.alpha * q.mean() / q.detach().abs().mean().clamp(min=1e-9)
            self.actor_optimizer.zero_grad()
            loss.backward()
        norm = self.actor_optimizer.step()
        self._actor_metrics = {
            "actor_loss": loss.detach(), "imitation_loss": imitation.detach(), "actor_grad_norm": norm
        }  # fmt: skip

    @torch.no_grad()
    def _target(self, drawn: Transitions, generator: torch.Generator) -> Tensor:
        """Targets for the critics' outputs, [N, 1]."""
        config = self.config
        action = torch.tanh(self.target_actor.forward(drawn.next_obs))
        noise = torch.empty(action.shape, device=generator.device).normal_(
            0, config.target_noise or 1.0, generator=generator
        )
        if config.target_noise > 0:
            clip = config.target_noise_clip
            action = action.add_(noise.clamp_(-clip, clip).to(self.device)).clamp_(-1, 1)
        following = torch.minimum(*self.target_critics.taken(drawn.next_obs, action))
        return torch.addcmul(drawn.reward.unsqueeze(-1), drawn.discount.unsqueeze(-1), following)
