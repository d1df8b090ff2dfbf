"""Trust region policy optimisation: natural-gradient steps as long as a bound on the KL divergence allows.

Schulman et al., "Trust Region Policy Optimization" (2015); Kakade, "A natural policy gradient" (2001); Kaplan, "Notes
on Contemporary Machine Learning for Physicists", 8.5.1 and 8.5.2. Each rollout, of policy pi_old, gives one step that

    maximises  E[pi(a|s) / pi_old(a|s) A]  (+ entropy_coef times the entropy)
    subject to E[KL(pi_old(.|s) || pi(.|s))] <= target_kl                           (2015, equation 14)

with A by GAE (``returns``). Its direction is x = F^-1 g, with the gradient g and the Fisher information F of
``natural_gradient``, by conjugate gradients on F + cg_damping; its full length is that at which the quadratic model of
the KL, x^T F x / 2, meets the bound (appendix C); from there a line search shortens it by ``shrink`` until the measured
KL is within the bound and the objective has improved. If no length satisfies both, no step is taken: the weights stay
unchanged, bit for bit. Then the value is fitted by Adam in epochs of minibatches.

The bound holds for the policy that plays next, exactly. The value's network has an optimiser of its own; convolutions,
which it shares with the policy, are changed by the policy's step alone. And where observations are standardised, their
moments are part of the policy: new ones are adopted only as far as they leave most of the bound to the step, and the KL
is measured from the policy that played, with the moments that it had. Decisions that were carried over from the
previous rollout (``open_decisions``) are weighted by the probability with which they were drawn then.

Differs from the paper: GAE instead of Monte-Carlo returns, advantages normalised over the rollout, damping (as in the
authors' code), and the KL must not exceed the bound at all (their code allowed 1.5 times).

Example:
    mlbits train trpo mlbits/CartPole-v0
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import gymnasium as gym
import torch
from torch import Tensor

from mlbits.agents.actor_critic_agent import ActorCriticAgent
from mlbits.agents.agent import AgentError, Rollout, RolloutSpec, pick, prefixed, unprefixed
from mlbits.agents.exploration.settings import OwnValueSettings, bonus_last
from mlbits.agents.kernels import shards
from mlbits.agents.kernels.tanh_mlp_passes import TanhMLPPasses
from mlbits.agents.maths.action_distributions import probability_ratio
from mlbits.agents.networks.actor_critic import ActorCriticCore, explained_variance
from mlbits.agents.networks.mlp import Activation
from mlbits.agents.networks.natural_gradient import FisherProduct, conjugate_gradient
from mlbits.agents.networks.own import ENCODER_HELP
from mlbits.envs.core.config_fields import configuration, setting
from mlbits.envs.core.schedules import Scheduled, changes, value_at

# New moments of observations may use up this fraction of the KL bound, and are adopted in part if all would use more.
_MOMENTS_SHARE, _MOMENTS_TRIALS = 0.25, 10


@bonus_last
@configuration(AgentError)
class TRPOConfig(OwnValueSettings):
    """Settings of TRPO; defaults of the paper (appendix D) or of sb3-contrib unless said otherwise."""

    num_steps: int = setting(64, "steps of each copy per rollout (with 64 copies: 4,096 in all)", low=1, high=1e6)
    target_kl: Scheduled = setting(
        0.01, "bound on the mean KL divergence of a step, delta of the paper", low=1e-9, high=100, unit="nats",
        scheduled=True,
    )  # fmt: skip
    anneal_kl: bool = setting(False, "decay that bound, if it is a number, linearly to 0 over the run")
    cg_iterations: int = setting(15, "most conjugate-gradient iterations per step", low=1, high=1e4)
    cg_damping: float = setting(0.1, "added to the diagonal of the Fisher information", low=0, high=1e6)
    fvp_fraction: float = setting(
        1.0,
        "fraction of the rollout's observations in the Fisher information, drawn anew each step; the bound is "
        "measured on all",
        low=1e-6,
        high=1,
    )
    line_search_steps: int = setting(10, "most step sizes that the line search tries", low=1, high=1000)
    shrink: float = setting(0.8, "factor from each step size of the line search to the next", low=1e-3, high=0.999)
    discount: float = setting(0.99, "discount factor, gamma", low=0, high=1)
    gae_lambda: float = setting(0.95, "lambda of generalised advantage estimation", low=0, high=1)
    entropy_coef: Scheduled = setting(
        0.0, "weight of an entropy bonus (the paper has none)", low=0, high=1e3, scheduled=True
    )
    normalize_advantage: bool = setting(True, "scale advantages to mean 0 and variance 1 in each rollout")
    critic_updates: int = setting(10, "passes over each rollout that fit the value", low=1, high=1e4)
    batch_size: int = setting(128, "steps per minibatch of those passes", low=1, high=1e9)
    learning_rate: Scheduled = setting(1e-3, "learning rate of the value's Adam", low=0, high=10, scheduled=True)
    anneal_lr: bool = setting(False, "decay the learning rate, if it is a number, linearly to 0 over the run")
    max_grad_norm: float = setting(
        10.0, "largest L2 norm of the value's gradient; larger ones are clipped", low=1e-9, high=1e9
    )
    normalize_obs: bool = setting(False, "standardise vectors and images of observations by their running moments")
    normalize_reward: bool = setting(False, "divide rewards by the running standard deviation of discounted returns")
    hidden: tuple[int, ...] = setting((64, 64), "widths of the hidden layers of actor and critic", low=1)
    activation: Activation = setting("tanh", "activation of the hidden layers")
    encoder: str = setting("", ENCODER_HELP)
    log_std: float = setting(0.0, "initial log standard deviation of continuous actions", low=-10, high=5)


class _Measure(NamedTuple):
    """Measures of a policy on a rollout: means over its rows.

    Attributes:
        objective: surrogate and entropy bonus.
        kl: from the policy that played, in nats.
        entropy: in nats.
    """

    objective: float
    kl: float
    entropy: float


class TRPO(ActorCriticAgent):
    """A TRPO agent for one seat's spaces.

    Args:
        config: settings.
        observation_space: one seat's.
        action_space: one seat's: Discrete, MultiDiscrete or Box of one axis.
        seed: seed of the initial weights.
        device: the networks' device.
    """

    config: TRPOConfig
    in_shards = True  # it sums over shards what decides
    learns_behind = True  # its ratio is to the policy that acted

    def __init__(
        self,
        config: TRPOConfig,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        core = ActorCriticCore(
            config, observation_space, action_space, seed=seed, device=device, value_apart=True,
            activation=config.activation, encoder=config.encoder,
        )  # fmt: skip
        super().__init__(config, core, observation_space, action_space, seed=seed, device=device)
        self._entropy_coef = value_at(config.entropy_coef, 0.0)
        self.seen = copy.deepcopy(self.core.moments)  # of all observations; the core's are those that the policy uses
        critic = {id(parameter) for parameter in self.core.network.critic.parameters()}
        self._policy = [parameter for parameter in self.core.network.parameters() if id(parameter) not in critic]

    @property
    def experience(self) -> RolloutSpec:
        """Windows of ongoing play."""
        return RolloutSpec(self.config.num_steps, whole_episodes=False)

    def learn(self, rollout: Rollout, progress: float, generator: torch.Generator) -> Mapping[str, float]:
        """One iteration: advantages, a step of the policy, epochs of minibatches for the value.

        Args:
            rollout: experience of the current policy.
            progress: fraction of the run that is over, 0..1.
            generator: for minibatches and the rows of Fisher-vector products.

        Returns:
            Metrics of the step (see docs/agents.md), the value's loss, explained variance and learning rate; empty for
            a rollout without a decision of the learner's, from which nothing can be learned.
        """
        config, bonus_advantage = self.config, None
        if self.explorer is not None:
            rollout, bonus_advantage = self.explorer.rewarded(rollout, progress, generator)
        data = self._prepare(rollout, bonus_advantage)
        bound = value_at(config.target_kl, progress, anneal=config.anneal_kl)
        self._entropy_coef = value_at(config.entropy_coef, progress)
        if not data:
            return {}
        if self.seen is not None:
            self._take_moments(data, bound)
        metrics = self._improve(data, bound, generator)
        value_loss = self._fit_value(data, progress, generator)
        fit = torch.stack([value_loss, explained_variance(data["value"], data["target"])]).tolist()
        assert self.core.value_optimizer is not None
        if changes(config.target_kl, config.anneal_kl):
            metrics["target_kl"] = bound
        if changes(config.entropy_coef):
            metrics["entropy_coef"] = self._entropy_coef
        return metrics | self.bonus_metrics() | {
            "value_loss": fit[0], "explained_variance": fit[1],
            "learning_rate": self.core.value_optimizer.learning_rate,
        }  # fmt: skip

    @torch.no_grad()
    def _prepare(self, rollout: Rollout, bonus_advantage: Tensor | None = None) -> dict[str, Any]:
        """Flatten a rollout to the rows at which the learner acted, with advantages, value targets and old policy.

        Empty if there are none.
        """
        config = self.config
        reward = rollout.reward if self.reward_scale is None else self.reward_scale(rollout)
        data = self.core.rows_with_advantages(
            rollout, reward, discount=config.discount, gae_lambda=config.gae_lambda, bonus_advantage=bonus_advantage
        )
        count = len(data["advantage"])
        if shards.least(count) == 0:  # in one of the shards, if there are several: all learn, or none
            return {}
        if config.normalize_advantage and count * shards.number() > 1:
            mean, deviation = shards.mean_and_deviation(data["advantage"])
            data["advantage"] = (data["advantage"] - mean) / (deviation + 1e-8)
        data["raw"] = data["obs"]
        data["obs"] = self.core.prepare(data["raw"])
        data["params"] = torch.cat([self.core.network.policy(part["obs"]) for part in self._chunks(data)])
        return data

    def _chunks(self, data: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The rows in parts that fit the cache, or the GPU's memory."""
        count = len(data["advantage"])
        chunk = self.core.rows_a_pass(data["obs"], max(count, 1))
        for start in range(0, count, chunk):
            yield data if chunk >= count else pick(data, slice(start, start + chunk))

    def _take_moments(self, data: dict[str, Any], bound: float) -> None:
        """Move the moments towards those of all observations so far, as far as the KL bound allows."""
        used: Any = self.core.moments
        seen: Any = self.seen
        seen.update(data["raw"])
        before: Any = copy.deepcopy(used)
        for trial in range(_MOMENTS_TRIALS + 1):
            share = 0.5**trial if trial < _MOMENTS_TRIALS else 0.0
            used.move(before, seen, share)
            data["obs"] = self.core.prepare(data["raw"])
            if self._measure(data).kl <= _MOMENTS_SHARE * bound:
                break

    def _improve(self, data: dict[str, Any], bound: float, generator: torch.Generator) -> dict[str, float]:
        """One step of the policy; returns its metrics."""
        config, before = self.config, self._measures(data)
        gradient = self._gradient(data)
        step, about = self._natural_step(data, gradient, bound, generator)
        old, after, (residual, predicted, grad_norm), backtracks, scale = self._line_search(
            data, step, before, about, bound
        )
        return {
            "improvement": after.objective - old.objective, "kl": after.kl, "entropy": after.entropy,
            "predicted_kl": predicted * scale**2, "step_scale": scale, "backtracks": float(backtracks),
            "accepted": float(backtracks < config.line_search_steps), "cg_residual": residual,
            "grad_norm": grad_norm,
        }  # fmt: skip

    def _natural_step(
        self, data: dict[str, Any], gradient: Tensor, bound: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The step of full length [n]; and CG's relative residual, the KL that the quadratic model predicts for the
        step, and the gradient's norm, float64 [3].
        """
        config, core, count = self.config, self.core, len(data["advantage"])
        obs, mask = data["obs"], data.get("mask")
        if config.fvp_fraction < 1:
            kept = math.ceil(config.fvp_fraction * count)
            index = torch.randperm(count, generator=generator, device=generator.device)[:kept].to(gradient.device)
            obs, mask = pick(obs, index), None if mask is None else mask[index]
        chunk = core.rows_a_pass(obs, max(count, 1))
        product = FisherProduct(core.network, core.distribution, self._policy, obs, mask, chunk)

        share = shards.weight(product.count)

        def damped(vector: Tensor) -> Tensor:
            return shards.mean(product(vector), share).add_(vector, alpha=config.cg_damping)

        direction, residual = conjugate_gradient(damped, gradient, config.cg_iterations)
        curvature = direction @ (gradient - residual)  # x^T (F + damping) x, as (F + damping) x = g - residual
        full = torch.sqrt(2 * bound / curvature.clamp(min=1e-30))
        undamped = curvature - config.cg_damping * direction.square().sum()
        norm = torch.linalg.vector_norm(gradient)
        share = torch.linalg.vector_norm(residual) / norm.clamp(min=1e-30)
        return full * direction, torch.stack([share, 0.5 * full**2 * undamped, norm]).double()

    def _line_search(
        self, data: dict[str, Any], step: Tensor, before: Tensor, about: Tensor, bound: float
    ) -> tuple[_Measure, _Measure, list[float], int, float]:
        """Take the longest of the candidate steps that keeps the bound and improves the objective, or none.

        The host waits once for each candidate, and learns all that it needs to know then.

        Args:
            data: the rows.
            step: of full length, [n].
            before: the measures of the policy as it is, float64 [3].
            about: numbers about the step, float64 [m].
            bound: of the KL divergence.

        Returns:
            The policy's measures before and after; the numbers ``about`` the step; how many candidates failed; and the
            step size taken (0 for none).
        """
        config, weights = self.config, self.core.optimizer.flat
        old = weights.clone()
        shards.moved(weights)
        for backtracks in range(config.line_search_steps):
            scale = config.shrink**backtracks
            torch.add(old, step, alpha=scale, out=weights)
            numbers = torch.cat([before, self._measures(data), about]).tolist()
            first, after = _Measure(*numbers[:3]), _Measure(*numbers[3:6])
            if after.kl <= bound and after.objective > first.objective:  # False for NaN
                return first, after, numbers[6:], backtracks, scale
        weights.copy_(old)
        return first, first, numbers[6:], config.line_search_steps, 0.0

    def _gradient(self, data: dict[str, Any]) -> Tensor:
        """The gradient [n] of the objective with respect to the policy's parameters."""
        count, total = len(data["advantage"]), torch.zeros_like(self.core.optimizer.flat)
        for part in self._chunks(data):
            objective, _ = self._objective(part, self.core.network.policy(part["obs"]))
            gradients = torch.autograd.grad(objective / count, self._policy)
            total += torch.cat([gradient.reshape(-1) for gradient in gradients])
        return shards.mean(total, shards.weight(count))

    def _objective(self, part: dict[str, Any], params: Tensor) -> tuple[Tensor, Tensor]:
        """Sums over the rows of the objective and the entropy."""
        log_prob, entropy = self.core.distribution.log_prob_and_entropy(params, part.get("mask"), part["sample"])
        surrogate = (probability_ratio(log_prob - part["log_prob"]) * part["advantage"]).sum()
        total = entropy.sum()
        return surrogate + self._entropy_coef * total if self._entropy_coef else surrogate, total

    def _measure(self, data: dict[str, Any]) -> _Measure:
        """The measures of the current policy on the rollout."""
        return _Measure(*self._measures(data).tolist())

    @torch.no_grad()
    def _measures(self, data: dict[str, Any]) -> Tensor:
        """The same, not yet read by the host, float64 [3]."""
        total = torch.zeros(3, dtype=torch.float64, device=data["advantage"].device)
        for part in self._chunks(data):
            params = self.core.network.policy(part["obs"])
            objective, entropy = self._objective(part, params)
            # In float64: a KL of 1e-4 is a difference of numbers of order 1.
            kl = self.core.distribution.kl(part["params"].double(), params.double(), part.get("mask")).sum()
            total += torch.stack([objective.double(), kl, entropy.double()])
        count = len(data["advantage"])
        return shards.mean(total / count, shards.weight(count))

    def _fit_value(self, data: dict[str, Any], progress: float, generator: torch.Generator) -> Tensor:
        """Regress the value on its targets; returns the mean loss."""
        config, core, optimizer = self.config, self.core, self.core.value_optimizer
        assert optimizer is not None
        optimizer.learning_rate = value_at(config.learning_rate, progress, anneal=config.anneal_lr)
        target, count = data["target"], len(data["target"])
        # The features are fixed while the value is fitted: they belong to the policy.
        with torch.no_grad():
            features = [core.network.features(part["obs"]) for part in self._chunks(data)]
        parts = [torch.cat(column) for column in zip(*features, strict=True)]
        weights = core.network.critic.parameters()
        gradients = {parameter: parameter.grad for parameter in weights if parameter.grad is not None}
        errors: list[Tensor] = []
        tanh = config.activation == "tanh"
        minibatches = min(math.ceil(shards.total_count(count) / config.batch_size), shards.least(count))
        for _ in range(config.critic_updates):
            order = torch.randperm(count, generator=generator, device=generator.device).to(target.device)
            for index in order.tensor_split(minibatches):
                optimizer.zero_grad()
                share = shards.weight(len(index))
                inputs, wanted = [pick(part, index) for part in parts], pick(target, index)
                if tanh:
                    critic = TanhMLPPasses(core.network.critic.layers, inputs)
                    error = critic.out.squeeze(-1) - wanted
                    slope = error / len(index) if share == 1 else share * error / len(index)
                    critic.vjp(slope[:, None], gradients)  # of half the mean squared error
                else:
                    with torch.enable_grad():
                        error = core.network.critic(inputs).squeeze(-1) - wanted
                        (share * 0.5 * error.square().mean()).backward()
                    error = error.detach()
                optimizer.step(measured=False)
                errors.append(error)
        return 0.5 * torch.cat(errors).square().mean()

    def state_dict(self) -> dict[str, Tensor]:
        """Network, optimisers, both moments, the bonus and the reward scale."""
        state = super().state_dict()
        if self.seen is not None:
            state |= {name: value.clone() for name, value in prefixed("seen", self.seen.state_dict()).items()}
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved state."""
        super().load_state_dict(state)
        if self.seen is not None:
            self.seen.load_state_dict(unprefixed("seen", state))
