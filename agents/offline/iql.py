"""Implicit Q-learning (IQL): values of the best recorded actions by expectile regression, without asking for others.

Kostrikov, Nair and Levine, "Offline Reinforcement Learning with Implicit Q-Learning" (ICLR 2022, arXiv 2110.06169),
with two critics and their target copies Q':

    value    minimise E_(s,a)~D [|expectile - 1(u < 0)| u^2],  u = min Q'(s, a) - V(s) (equation 5)
    critics  minimise E_(s,a,r,s')~D [(r + gamma V(s') - Q(s, a))^2] (equation 6)
    policy   maximise E_(s,a)~D [min(exp(beta A), cap) log pi(a|s)],  A = min Q'(s, a) - V(s) (equation 7)

An expectile of 0.5 is the mean over the recorded actions, 1 would be their maximum. beta is an inverse temperature
here. The policy is a tanh-Gaussian or a mixture for a Box (the paper: a Gaussian with a spread that is the same in all
states), and categorical for Discrete actions.

Example:
    mlbits train iql Pendulum-v1 --data my/dataset-v0
"""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import torch
import torch.nn.functional as F

from mlbits.agents.agent import AgentError
from mlbits.agents.kernels.flat_adam import FlatAdam
from mlbits.agents.memory.replay import Transitions
from mlbits.agents.offline.networks import Critics, Policy
from mlbits.agents.offline.offline_agent import (
    REWARD_SCALING,
    Head,
    OfflineConfig,
    PolicyAgent,
    RewardScaling,
    policy_head,
)
from mlbits.envs.core.config_fields import configuration, setting
from mlbits.envs.core.schedules import Scheduled, value_at


@configuration(AgentError)
class IQLConfig(OfflineConfig):
    """Settings of IQL; defaults are the paper's for locomotion."""

    expectile: float = setting(0.7, "expectile of the values over recorded actions", low=0.01, high=0.999)
    beta: float = setting(3.0, "inverse temperature of the policy's weights", low=0, high=1e9)
    cap: float = setting(100.0, "largest weight", low=1e-9, high=1e9)
    critic_learning_rate: Scheduled = setting(
        3e-4, "learning rate of the critics' and the value's Adam", low=0, high=10, scheduled=True
    )
    discount: float = setting(0.99, "discount factor, gamma", low=0, high=1)
    tau: float = setting(0.005, "step size of a target update: target += tau (network - target)", low=1e-9, high=1)
    policy: Head = setting("auto", "distribution of a Box's actions; auto takes tanh_gaussian")
    components: int = setting(5, "components of a mixture", low=1, high=1000)
    reward_scaling: RewardScaling = setting("auto", REWARD_SCALING)


class IQL(PolicyAgent):
    """An IQL agent for one seat's spaces.

    Args:
        config: settings.
        observation_space: one seat's.
        action_space: one seat's: Discrete, or Box of one axis with bounds.
        seed: of the initial weights.
        device: where the networks are kept.
    """

    def __init__(
        self,
        config: IQLConfig,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(config, observation_space, action_space, seed=seed, device=device)
        self.head = policy_head(config.policy, self.discrete, self.actions, config.components)
        shape: dict[str, Any] = {
            "hidden": config.hidden,
            "generator": self.generator,
            "layer_norm": config.layer_norm,
            "precision": self.config.precision,
        }
        self.policy = Policy(observation_space, self.head.size, **shape).to(device)
        self.critics = Critics(observation_space, self.actions, self.discrete, count=2, **shape).to(device)
        self.value = Policy(observation_space, 1, **shape).to(device)
        self.target_critics = copy.deepcopy(self.critics).requires_grad_(False)
        rates, most = (config.learning_rate, config.critic_learning_rate), config.max_grad_norm
        self.policy_optimizer = FlatAdam(self.policy.parameters(), value_at(rates[0], 0.0), most, eps=1e-8)
        self.value_optimizer = FlatAdam(self.value.parameters(), value_at(rates[1], 0.0), most, eps=1e-8)
        self.critic_optimizer = FlatAdam(
            self.critics.parameters(), value_at(rates[1], 0.0), most, eps=1e-8, target=self.target_critics.parameters()
        )
        self.networks = {
            "policy": self.policy, "critics": self.critics, "value": self.value, "target_critics": self.target_critics
        }  # fmt: skip
        self.optimizers = {
            "policy": (self.policy_optimizer, rates[0]),
            "critics": (self.critic_optimizer, rates[1]),
            "value": (self.value_optimizer, rates[1]),
        }

    def _update(self, drawn: Transitions, generator: torch.Generator, *, measure: bool) -> dict[str, Any]:
        """One gradient step of value, critics and policy, all from the weights before it."""
        config = self.config
        with torch.no_grad():
            q = torch.minimum(*self.target_critics.taken(drawn.obs, drawn.action))
            following = self.value.forward(drawn.next_obs)
            target = torch.addcmul(drawn.reward.unsqueeze(-1), drawn.discount.unsqueeze(-1), following)
        advantage = q - self.value.forward(drawn.obs)
        below = (advantage.detach() < 0).float()
        value_loss = ((config.expectile - below).abs() * advantage.square()).mean()
        outs = self.critics.taken(drawn.obs, drawn.action)
        critic_loss = torch.stack([F.mse_loss(out, target) for out in outs]).sum()
        weight = (config.beta * advantage.detach().squeeze(-1)).clamp(max=80.0).exp().clamp(max=config.cap)
        log_prob = self.log_prob(self.policy.forward(drawn.obs), drawn.mask, drawn.action)
        policy_loss = -(weight * log_prob).mean()
        optimizers = (self.policy_optimizer, self.critic_optimizer, self.value_optimizer)
        for optimizer in optimizers:
            optimizer.zero_grad()
        (value_loss + critic_loss + policy_loss).backward()  # they share no parameter
        norms = [optimizer.step(measured=measure) for optimizer in optimizers]
        self.critic_optimizer.follow(config.tau)
        if not measure:
            return {}
        return {
            "policy_loss": policy_loss.detach(), "critic_loss": critic_loss.detach(), "value_loss": value_loss.detach(),
            "policy_grad_norm": norms[0], "critic_grad_norm": norms[1], "value_grad_norm": norms[2],
            "q": outs[0].detach().mean(), "advantage": advantage.detach().mean(), "weight": weight.mean(),
            "weight_at_cap": (weight >= config.cap).float().mean(),
        }  # fmt: skip
