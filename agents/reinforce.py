"""REINFORCE: policy gradient with whole returns, rewards-to-go or GAE, and no, a mean or a learned baseline.

Williams (1992); Kaplan, "Notes on Contemporary Machine Learning for Physicists", 8.2. Each rollout gives one gradient
step on the estimate of grad J = E[sum_t grad log pi(a_t | s_t) Psi_t], with Psi_t by the two settings

    returns "whole":  the return R of the whole episode (the plain score-function estimator)
    returns "to_go":  sum_{t' >= t} gamma^{t' - t} r_{t'}: rewards before an action do not depend on it
    returns "gae":    generalised advantage estimation (Schulman et al. 2016), which needs the learned baseline

    baseline "none":  0
    baseline "mean":  the mean of the other copies' returns at the same time step (leave-one-out, so exactly unbiased)
    baseline "value": V(s_t), learned by regression on the returns

All but "gae" (lambda < 1) are unbiased for episodes that end by themselves, and each has a lower variance than the one
before it. With "whole" and "to_go" every rollout is one whole episode per copy; with "gae" it is a window of ongoing
play (advantage actor-critic).

Cut episodes: where a value is learned, the return after the cut is estimated by the value of the final observation.
Without one it counts as 0: choose "value" if limits matter. A seat that waits for its turn when its episode is cut has
no value there; where a value is learned, its last decision is left out, and the one before leads to that decision's
observation (``open_decisions``).

Decisions that were carried over from the previous window were drawn by the policy before the last step: they are
weighted by pi(a|s) / pi_old(a|s), at most 2.

Discounting: gamma discounts within Psi_t, but does not weight states by their time, as is usual.

Example:
    mlbits train reinforce mlbits/CartPole-v0 --agent.baseline mean
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import gymnasium as gym
import torch
from torch import Tensor

from mlbits.agents.actor_critic_agent import ActorCriticAgent
from mlbits.agents.agent import AgentError, Rollout, RolloutSpec, memoryless
from mlbits.agents.exploration.settings import OwnValueSettings, bonus_last
from mlbits.agents.kernels import shards
from mlbits.agents.maths.open_decisions import leave_out_open
from mlbits.agents.maths.returns import gae, rewards_to_go, whole_returns
from mlbits.agents.networks.actor_critic import ActorCriticCore, explained_variance
from mlbits.agents.networks.mlp import Activation
from mlbits.agents.networks.own import ENCODER_HELP
from mlbits.envs.core.config_fields import configuration, setting
from mlbits.envs.core.schedules import Scheduled, changes, value_at

_MOST_WEIGHT = 2.0  # maximum weight of a decision that was carried over; larger ratios are unreliable


@bonus_last
@configuration(AgentError)
class ReinforceConfig(OwnValueSettings):
    """Settings of the policy gradient."""

    returns: Literal["whole", "to_go", "gae"] = setting(
        "to_go", "what weights the gradient: the whole return, rewards-to-go, or GAE"
    )
    baseline: Literal["none", "mean", "value"] = setting(
        "value", "what is subtracted: nothing, the mean over the other copies, or a learned value"
    )
    num_steps: int = setting(
        500, "steps of each copy per rollout with gae, otherwise the longest episode", low=1, high=1e6
    )
    learning_rate: Scheduled = setting(3e-3, "learning rate of Adam", low=0, high=10, scheduled=True)
    anneal_lr: bool = setting(False, "decay the learning rate, if it is a number, linearly to 0 over the run")
    discount: float = setting(0.99, "discount factor, gamma", low=0, high=1)
    gae_lambda: float = setting(0.95, "lambda of generalised advantage estimation", low=0, high=1)
    value_steps: int = setting(4, "gradient steps of the value after each policy step", low=0, high=1e4)
    entropy_coef: Scheduled = setting(
        0.0, "weight of an entropy bonus; 0 is the plain policy gradient", low=0, high=1e3, scheduled=True
    )
    normalize_advantage: bool = setting(True, "divide advantages by their root mean square in each rollout")
    max_grad_norm: float = setting(1.0, "largest L2 norm of the gradient; larger ones are clipped", low=1e-9, high=1e9)
    normalize_obs: bool = setting(False, "standardise vectors and images of observations by their running moments")
    normalize_reward: bool = setting(False, "divide rewards by the running standard deviation of discounted returns")
    hidden: tuple[int, ...] = setting(
        (64, 64),
        "widths of the hidden layers of actor and critic; of an order network, of its first layer and one graph "
        "convolution each",
        low=1,
    )
    activation: Activation = setting("tanh", "activation of the hidden layers, of MLPs")
    encoder: str = setting("", ENCODER_HELP)
    log_std: float = setting(0.0, "initial log standard deviation of continuous actions", low=-10, high=5)
    network: Literal["auto", "mlp"] = setting(
        "auto", "auto uses the order network for orders on a graph and MLPs elsewhere; mlp always uses MLPs"
    )

    def check(self) -> None:
        """Refuse a baseline that the returns cannot use."""
        if self.returns == "gae" and self.baseline != "value":
            raise AgentError(f"baseline: got {self.baseline!r} with returns='gae', which bootstraps; wanted 'value'")
        if self.returns != "gae" and self.bonus_discount:
            raise AgentError(f"bonus_discount: got {self.bonus_discount:g} with returns={self.returns!r}, to which the "
                             "bonus is added; wanted 0, or returns 'gae'")  # fmt: skip


class Reinforce(ActorCriticAgent):
    """A policy-gradient agent for one seat's spaces.

    Args:
        config: settings.
        observation_space: one seat's.
        action_space: one seat's: Discrete, MultiDiscrete or Box of one axis.
        seed: seed of the initial weights.
        device: the networks' device.
    """

    config: ReinforceConfig
    in_shards = True  # it sums over shards what decides

    def __init__(
        self,
        config: ReinforceConfig,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        core = ActorCriticCore(
            config, observation_space, action_space, seed=seed, device=device, value_apart=True,
            network=config.network, activation=config.activation, encoder=config.encoder,
        )  # fmt: skip
        super().__init__(config, core, observation_space, action_space, seed=seed, device=device)

    @property
    def experience(self) -> RolloutSpec:
        """Whole episodes, or windows for GAE."""
        return RolloutSpec(self.config.num_steps, whole_episodes=self.config.returns != "gae")

    @torch.no_grad()
    def weights(self, rollout: Rollout) -> tuple[Tensor, Tensor, Tensor]:
        """Psi of each step, the value's regression target, and the value, all [T, B, P].

        Args:
            rollout: without open decisions, if the value is learned.
        """
        config = self.config
        ends = (rollout.terminated, rollout.truncated)
        value = torch.zeros_like(rollout.reward)
        if config.baseline == "value":
            value, next_value = self.core.rollout_values(rollout)
        if config.returns == "gae":
            psi = gae(
                rollout.reward, value, next_value, *ends,
                discount=config.discount, gae_lambda=config.gae_lambda, active=rollout.active,
            )  # fmt: skip
            return psi, psi + value, value
        reward = rollout.reward
        if config.baseline == "value":
            cut = (rollout.truncated & ~rollout.terminated)[..., None]
            reward = reward + torch.where(cut, config.discount * next_value, 0.0)
        to_go = rewards_to_go(reward, *ends, discount=config.discount, active=rollout.active)
        psi = to_go
        if config.returns == "whole":
            psi = whole_returns(reward, *ends, discount=config.discount, active=rollout.active)
        if config.baseline == "mean":
            psi = psi - others_mean(psi, rollout.active)
        return psi - value, to_go, value

    def learn(self, rollout: Rollout, progress: float, generator: torch.Generator) -> Mapping[str, float]:
        """One policy-gradient step, then the gradient steps of the value.

        Args:
            rollout: experience of the current policy.
            progress: fraction of the run that is over, 0..1.
            generator: for the minibatches of a bonus.

        Returns:
            Losses, entropy, explained variance, learning rate, gradient norm; empty for a rollout without a decision
            of the learner's, from which nothing can be learned.
        """
        config, core, bonus_advantage = self.config, self.core, None
        if self.explorer is not None:
            rollout, bonus_advantage = self.explorer.rewarded(rollout, progress, generator)
        if config.baseline == "value":
            rollout, _ = leave_out_open(rollout)
        core.optimizer.learning_rate = value_at(config.learning_rate, progress, anneal=config.anneal_lr)
        entropy_coef = value_at(config.entropy_coef, progress)
        flat, scaled = rollout.flatten(), rollout
        if self.reward_scale is not None:
            if self.experience.whole_episodes:
                self.reward_scale.forget_episodes()
            scaled = replace(rollout, reward=self.reward_scale(rollout))
        psi, target, value = (flat.of(tensor) for tensor in self.weights(scaled))
        if shards.least(len(psi)) == 0:  # in one of the shards, if there are several: all learn, or none
            return {}
        share = shards.weight(len(psi))
        if bonus_advantage is not None:
            psi = psi + flat.of(bonus_advantage)
        obs = core.prepare(flat.obs)
        if config.normalize_advantage and len(psi) * shards.number() > 1:
            # Divided but not centred: centring would be another baseline besides that of the setting.
            psi = psi / (shards.mean(psi.square().mean(), share).sqrt() + 1e-8)
        core.optimizer.zero_grad()
        params = core.network.policy(obs)
        log_prob, entropy = core.distribution.log_prob_and_entropy(params, flat.mask, flat.sample)
        weight = psi
        if rollout.carried is not None and flat.index is not None:
            ratio = (log_prob.detach() - flat.log_prob).exp().clamp(max=_MOST_WEIGHT)
            weight = torch.where(flat.index < rollout.carried.numel(), ratio * psi, psi)
        policy_loss, entropy = -(log_prob * weight).mean(), entropy.mean()
        (share * (policy_loss - entropy_coef * entropy)).backward()
        grad_norm = core.optimizer.step()
        value_loss = self._fit_value(obs, target, share) if config.baseline == "value" else None
        core.update_moments(rollout)
        metrics = {
            "policy_loss": policy_loss, "entropy": entropy, "grad_norm": grad_norm,
            "advantage_deviation": psi.std() if len(psi) > 1 else psi.sum() * 0,
        }  # fmt: skip
        if value_loss is not None:
            metrics |= {"value_loss": value_loss, "explained_variance": explained_variance(value, target)}
        read = torch.stack([tensor.detach() for tensor in metrics.values()]).tolist()  # in one go: a GPU waits for each
        numbers = dict(zip(metrics, read, strict=True))
        if changes(config.entropy_coef):
            numbers["entropy_coef"] = entropy_coef
        return numbers | self.bonus_metrics() | {"learning_rate": core.optimizer.learning_rate}

    def _fit_value(self, obs: Any, target: Tensor, share: float) -> Tensor:
        """Regress the value on its targets, these rows with a weight; returns the loss before the first step."""
        core, optimizer = self.core, self.core.value_optimizer
        assert optimizer is not None
        optimizer.learning_rate = core.optimizer.learning_rate
        first: Tensor | None = None
        for _ in range(self.config.value_steps):
            optimizer.zero_grad()
            loss = 0.5 * (core.network.value(obs) - target).square().mean()
            (share * loss).backward()
            optimizer.step(measured=False)
            first = loss.detach() if first is None else first
        return target.new_zeros(()) if first is None else first

    @memoryless
    def policy_and_value(self, obs: Any, legal_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Logits [N, A] of Discrete actions and values [N], in the rewards' own unit, for a search.

        Raises:
            AgentError: if there is no learned value, or the action space is not Discrete.
        """
        if self.config.baseline != "value":
            raise AgentError(
                f"policy_and_value: got baseline={self.config.baseline!r}, without a critic; wanted 'value'"
            )
        return super().policy_and_value(obs, legal_mask)


def others_mean(returns: Tensor, active: Tensor | None) -> Tensor:
    """For each entry [T, B, P], the mean over the other copies at the same step and seat; 0 if there is none."""
    weight = torch.ones_like(returns) if active is None else active.to(returns.dtype)
    total, count = (returns * weight).sum(1, keepdim=True), weight.sum(1, keepdim=True)
    return (total - returns * weight) / (count - weight).clamp(min=1)
