"""Proximal policy optimisation: several epochs of minibatches on a surrogate that stays near the old policy.

Schulman et al., "Proximal Policy Optimization Algorithms" (2017); Kaplan, "Notes on Contemporary Machine Learning for
Physicists", 8.5. With ratio r = pi(a|s) / pi_old(a|s) and advantage A, minimise over each minibatch

    objective "clip" (eq. 7):         -E[min(r A, clip(r, 1 - eps, 1 + eps) A)]
    objective "adaptive_kl" (eq. 8):  -E[r A - beta KL(pi_old || pi)], beta doubled or halved after each rollout whose
                                      KL is beyond 1.5 times or below 1 / 1.5 of its target (section 4)

plus value_coef times half the squared error of the value, minus entropy_coef times the entropy (eq. 9).
Advantages by GAE (``returns``).

Of the 37 details of Huang et al., "The 37 implementation details of PPO" (ICLR blog track 2022), used: vectorised
copies, orthogonal initialisation, Adam's epsilon 1e-5, learning-rate annealing, GAE with the values of cut episodes
(their final observations), minibatches shuffled anew each epoch, advantage normalisation a minibatch, the clipped
surrogate, entropy bonus, gradient-norm clipping, the debug quantities (KL, clip fraction, explained variance), separate
actor and critic for vectors and shared convolutions for images, state-independent log standard deviation, independent
action components, masks and multi-discrete actions; as settings: observation and reward standardisation, early stop by
KL. Left out: value clipping (no gain, often harm: Andrychowicz et al. 2021, C.3), recurrence and frame stacks (later
work), and the Atari wrappers, which are Gymnasium's own.

Example:
    mlbits train ppo mlbits/CartPole-v0
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium as gym
import torch
from torch import Tensor

from mlbits.agents.actor_critic import ActorCriticCore, explained_variance
from mlbits.agents.agent import AgentError, Decision, Rollout, RolloutSpec, check_hidden, check_range, pick
from mlbits.agents.maths.action_distributions import probability_ratio
from mlbits.agents.maths.returns import RewardScale
from mlbits.agents.networks.orders import OrderDistribution

Metrics = dict[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class PPOConfig:
    """Settings of PPO; defaults of Huang et al. (2022) for classic control unless said.

    Attributes:
        num_steps: steps of each copy in a rollout.
        learning_rate: of Adam.
        anneal_lr: whether the learning rate falls linearly to 0 over the run.
        discount: gamma.
        gae_lambda: lambda of GAE.
        epochs: passes over each rollout.
        minibatches: parts of each pass, one gradient step each.
        objective: "clip" or "adaptive_kl".
        clip_coef: eps of the clipped objective.
        anneal_clip: whether eps falls linearly to 0 over the run.
        kl_target: KL a rollout that the adaptive objective aims for, in nats (2017 paper, table 1: 0.01).
        kl_coef: beta at first (2017 paper: 1).
        kl_stop: end a rollout's epochs once the KL is beyond this, in nats; 0 never does.
        entropy_coef: weight of the entropy bonus.
        anneal_entropy: whether that weight falls linearly to 0 over the run.
        value_coef: weight of half the value's squared error.
        max_grad_norm: gradients are clipped to this L2 norm.
        normalize_advantage: whether advantages have mean 0 and variance 1 in each minibatch.
        normalize_obs: whether observations are standardised (vectors of floats only).
        normalize_reward: whether rewards are divided by the running deviation of discounted returns.
        hidden: widths of the hidden layers of actor and critic; of an order network, of its first layer and of one
            graph convolution each.
        log_std: initial log standard deviation of continuous actions.
        network: "auto", the :mod:`~mlbits.agents.networks.orders` for orders on a graph and towers for all else, or
            "tower".
    """

    num_steps: int = 128
    learning_rate: float = 2.5e-4
    anneal_lr: bool = True
    discount: float = 0.99
    gae_lambda: float = 0.95
    epochs: int = 4
    minibatches: int = 4
    objective: Literal["clip", "adaptive_kl"] = "clip"
    clip_coef: float = 0.2
    anneal_clip: bool = False
    kl_target: float = 0.01
    kl_coef: float = 1.0
    kl_stop: float = 0.0
    entropy_coef: float = 0.01
    anneal_entropy: bool = False
    value_coef: float = 0.5
    max_grad_norm: float = 0.5
    normalize_advantage: bool = True
    normalize_obs: bool = False
    normalize_reward: bool = False
    hidden: tuple[int, ...] = (64, 64)
    log_std: float = 0.0
    network: Literal["auto", "tower"] = "auto"

    def __post_init__(self) -> None:
        check_range(
            self,
            num_steps=(1, 1e6), learning_rate=(0, 10), discount=(0, 1), gae_lambda=(0, 1), epochs=(1, 1e4),
            minibatches=(1, 1e6), clip_coef=(1e-6, 10), kl_target=(1e-9, 100), kl_coef=(0, 1e6), kl_stop=(0, 1e6),
            entropy_coef=(0, 1e3), value_coef=(0, 1e3), max_grad_norm=(1e-9, 1e9), log_std=(-10, 5),
        )  # fmt: skip
        check_hidden(self.hidden)
        if self.objective not in ("clip", "adaptive_kl"):
            raise AgentError(f"objective: got {self.objective!r}; wanted 'clip' or 'adaptive_kl'")
        if self.network not in ("auto", "tower"):
            raise AgentError(f"network: got {self.network!r}; wanted 'auto' or 'tower'")


class PPO:
    """A PPO agent for one seat's spaces.

    Args:
        config: settings.
        observation_space: one seat's.
        action_space: one seat's: Discrete, MultiDiscrete or Box of one axis.
        seed: of the first weights.
        device: where the networks live.
    """

    def __init__(
        self,
        config: PPOConfig,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config = config
        self.core = ActorCriticCore(
            config, observation_space, action_space, seed=seed, device=device, network=config.network
        )
        if config.objective == "adaptive_kl" and isinstance(self.core.distribution, OrderDistribution):
            raise AgentError("objective: got 'adaptive_kl' with the order network, which has no KL; wanted 'clip', or "
                             "network='tower'")  # fmt: skip
        self.reward_scale = RewardScale(config.discount) if config.normalize_reward else None
        self.kl_coef = config.kl_coef
        self._entropy_coef = config.entropy_coef

    @property
    def experience(self) -> RolloutSpec:
        """Windows of ongoing play."""
        return RolloutSpec(self.config.num_steps, whole_episodes=False, min_rows=self.config.minibatches)

    def act(self, obs: Any, legal_mask: Tensor | None, generator: torch.Generator, *, greedy: bool = False) -> Decision:
        """Decide for N rows of observations."""
        return self.core.act(obs, legal_mask, generator, greedy)

    def action_probabilities(self, obs: Any, legal_mask: Tensor | None, *, greedy: bool = False) -> Tensor:
        """With which each of the Discrete actions is played, float64 [N, A]."""
        return self.core.action_probabilities(obs, legal_mask, greedy)

    def learn(self, rollout: Rollout, progress: float, generator: torch.Generator) -> Mapping[str, float]:
        """One iteration: advantages, then epochs of minibatches.

        Args:
            rollout: fresh experience of the present policy; decisions that were carried over are of the one before,
                and their ratio is to that.
            progress: share of the run that is over, 0..1.
            generator: shuffles the minibatches; on the CPU.

        Returns:
            Losses, KL, clip fraction, entropy, explained variance, learning rate, gradient norm; nothing for a rollout
            without a decision of the learner's, which teaches nothing.

        Raises:
            AgentError: if the rollout has fewer rows than minibatches. Where seats wait for their turns, how many
                decisions it holds is a matter of chance, and there are as many minibatches as these allow.
        """
        config = self.config
        self.core.optimizer.learning_rate = config.learning_rate * (1 - progress if config.anneal_lr else 1)
        clip = config.clip_coef * (1 - progress if config.anneal_clip else 1)
        self._entropy_coef = config.entropy_coef * (1 - progress if config.anneal_entropy else 1)
        data = self._prepare(rollout)
        count = len(data["log_prob"])
        if count < config.minibatches and rollout.active is None:
            raise AgentError(
                f"minibatches: got {config.minibatches} for a rollout of {count} steps; wanted at most that"
            )
        if count == 0:
            return {}
        metrics: list[Metrics] = []
        for _ in range(config.epochs):
            order = torch.randperm(count, generator=generator).to(data["log_prob"].device)
            for part in order.tensor_split(min(config.minibatches, count)):
                metrics.append(self._step(data, part, clip))
            if config.kl_stop and float(metrics[-1]["approx_kl"]) > config.kl_stop:
                break
        self.core.update_moments(rollout)
        result = self._summary(metrics, data)
        if config.objective == "adaptive_kl":
            self._adapt_kl(data)
            result["kl_coef"] = self.kl_coef
        return result

    @torch.no_grad()
    def _prepare(self, rollout: Rollout) -> dict[str, Any]:
        """Flatten a rollout to the rows at which the learner acted, with advantages and value targets."""
        config = self.config
        reward = rollout.reward if self.reward_scale is None else self.reward_scale(rollout)
        data = self.core.rows_with_advantages(rollout, reward, discount=config.discount, gae_lambda=config.gae_lambda)
        data["obs"] = self.core.prepare(data["obs"])
        if config.objective == "adaptive_kl" and len(data["log_prob"]):
            data["params"] = self.core.network.policy(data["obs"])
        return data

    def _step(self, data: dict[str, Any], part: Tensor, clip: float) -> Metrics:
        """One gradient step on the rows ``part``, in chunks that fit the cache."""
        optimizer, count = self.core.optimizer, len(part)
        advantage = pick(data["advantage"], part)
        if self.config.normalize_advantage and count > 1:
            advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        chunk = self.core.chunk if part.device.type == "cpu" else count
        optimizer.zero_grad()
        total: Metrics = {}
        for start in range(0, count, chunk):
            index = part[start : start + chunk]
            loss, metrics = self._loss(data, index, advantage[start : start + chunk], clip)
            share = len(index) / count
            (loss * share if share < 1 else loss).backward()
            if share == 1:
                total = metrics
                break
            for name, value in metrics.items():
                total[name] = total.get(name, 0.0) + value * share
        total["grad_norm"] = optimizer.step()
        return total

    def _loss(self, data: dict[str, Any], index: Tensor, advantage: Tensor, clip: float) -> tuple[Tensor, Metrics]:
        config, distribution = self.config, self.core.distribution
        data = pick(data, index)
        mask = data.get("mask")
        params, value = self.core.network(data["obs"])
        log_prob, entropy = distribution.log_prob_and_entropy(params, mask, data["sample"])
        log_ratio = log_prob - data["log_prob"]
        ratio = probability_ratio(log_ratio)
        if config.objective == "clip":
            surrogate = torch.min(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
        else:
            surrogate = ratio * advantage - self.kl_coef * distribution.kl(data["params"], params, mask)
        policy_loss, value_loss = -surrogate.mean(), 0.5 * (value - data["target"]).square().mean()
        entropy = entropy.mean()
        with torch.no_grad():
            # Schulman's estimator of KL(old || new), never negative: E[(r - 1) - log r].
            approx_kl = (ratio - 1 - log_ratio).mean()
            clip_fraction = ((ratio - 1).abs() > clip).float().mean()
        loss = policy_loss + config.value_coef * value_loss - self._entropy_coef * entropy
        return loss, {
            "policy_loss": policy_loss.detach(), "value_loss": value_loss.detach(), "entropy": entropy.detach(),
            "approx_kl": approx_kl, "clip_fraction": clip_fraction,
        }  # fmt: skip

    def _summary(self, metrics: list[Metrics], data: dict[str, Any]) -> dict[str, float]:
        """Means over the rollout's gradient steps, and the state after the last; read from the device once."""
        names = list(metrics[0])
        table = torch.stack([torch.stack([step[name].float() for name in names]) for step in metrics])
        variance = explained_variance(data["value"], data["target"])
        numbers = torch.cat([table.mean(0), table[-1], variance.view(1)]).tolist()
        result = dict(zip(names, numbers, strict=False))
        # The KL that matters is the last step's: how far the policy has moved in all.
        result["approx_kl"] = numbers[len(names) + names.index("approx_kl")]
        return result | {"explained_variance": numbers[-1], "learning_rate": self.core.optimizer.learning_rate}

    @torch.no_grad()
    def _adapt_kl(self, data: dict[str, Any]) -> None:
        new = self.core.network.policy(data["obs"])
        kl = float(self.core.distribution.kl(data["params"], new, data.get("mask")).mean())
        if kl > 1.5 * self.config.kl_target:
            self.kl_coef = min(2 * self.kl_coef, 1e4)
        elif kl < self.config.kl_target / 1.5:
            self.kl_coef = max(self.kl_coef / 2, 1e-4)

    def state_values(self, obs: Any) -> Tensor:
        """V of N rows of observations, [N]."""
        return self.core.values(obs, 1)

    def state_dict(self) -> dict[str, Tensor]:
        """Network, optimiser, moments, the KL weight and the reward scale."""
        state = self.core.state_dict() | {"kl_coef": torch.tensor(self.kl_coef, dtype=torch.float64)}
        return state if self.reward_scale is None else state | self.reward_scale.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a saved state."""
        self.core.load_state_dict(state)
        self.kl_coef = float(state["kl_coef"])
        if self.reward_scale is not None:
            self.reward_scale.load_state_dict(state)
