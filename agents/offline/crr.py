"""Critic-regularised regression (CRR): imitation of the recorded actions that a critic finds better than the policy's.

Wang et al., "Critic Regularized Regression" (NeurIPS 2020, arXiv 2006.15134), on transitions of a dataset, with target
networks pi' and Q':

    critic   minimise E_(s,a,r,s')~D [(r + gamma Q'(s', a') - Q(s, a))^2],  a' ~ pi'(.|s')
    policy   maximise E_(s,a)~D [f(A(s, a)) log pi(a|s)], without a gradient through f

Only recorded actions are imitated, so that a critic's errors elsewhere do harm only through the bootstrap. f is

    binary   1 if A > 0, else 0 (equation 3)
    exp      min(exp(A / beta), cap) (equation 4)
    all      1, which is behavioural cloning

and A = Q(s, a) - V(s), where V is the mean of Q over ``samples`` draws of the policy, or their maximum (a stricter
filter). For Discrete actions nothing is drawn: V is the exact expectation, or the maximum over all legal actions, and
the bootstrap is an expectation too. exp is not free of scale: what matters is A / beta, so rewards are scaled (saved
with the weights), and the weights' statistics are recorded: their mean, the fraction at the cap and near 0, and the
effective sample size (sum w)^2 / (n sum w^2), as a fraction.

``critic`` is "value", or "categorical", a distribution on a fixed support as in the paper; ``twin`` trains two critics
and takes the lower one wherever Q is needed. ``critic_weighted`` plays the paper's critic-weighted policy (section
3.2): of ``play_samples`` actions drawn, one with probability softmax(Q / beta).

Published configurations, as presets (``--preset``):

    original   that of RL Unplugged's control suite without its recurrence: categorical critic of 21 atoms, mixture of 5
               Gaussians, exp, m = 4, targets copied every 100 steps
    crr+       Kang et al. 2023 (arXiv 2306.00972): layer normalisation, twin critics with an expectile of 0.7, m = 50,
               tanh-Gaussian policy, soft targets

Differences from the paper: no recurrence and no residual blocks; both networks are updated from the same weights, and Q
of the recorded action is computed once for both losses.

Example:
    mlbits train crr Pendulum-v1 --data my/dataset-v0
    mlbits train crr Pendulum-v1 --data my/dataset-v0 --preset crr+
"""

from __future__ import annotations

import copy
from typing import Any, Literal

import gymnasium as gym
import torch
import torch.nn.functional as F
from torch import Tensor

from mlbits.agents.agent import AgentError, Decision
from mlbits.agents.kernels.flat_adam import FlatAdam
from mlbits.agents.maths.action_distributions import Categorical, masked_log_softmax
from mlbits.agents.maths.return_distributions import categorical_loss, project
from mlbits.agents.memory.dataset import Dataset
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
from mlbits.agents.offline.returns import check_support
from mlbits.envs.core.config_fields import configuration, setting
from mlbits.envs.core.schedules import Scheduled, value_at

_NEAR_0 = 0.01  # weights below this count as near 0


@configuration(AgentError)
class CRRConfig(OfflineConfig):
    """Settings of CRR; defaults are those of Acme's and d3rlpy's unless said otherwise."""

    weight: Literal["exp", "binary", "all"] = setting(
        "exp", "f, the weight of an action by its advantage: min(exp(A / beta), cap), 1 if A > 0, or always 1"
    )
    beta: float = setting(1.0, "temperature of exp, and of the critic-weighted policy", low=1e-9, high=1e9)
    cap: float = setting(20.0, "largest weight of exp", low=1e-9, high=1e9)
    advantage: Literal["mean", "max"] = setting("mean", "what Q(s, a) is compared with: mean or maximum of the draws")
    samples: int = setting(4, "actions drawn in each state for the advantage, m", low=1, high=1e5)
    target_samples: int = setting(1, "actions drawn in each next state for the bootstrap", low=1, high=1e5)
    critic: Literal["value", "categorical"] = setting(
        "value", "what the critic predicts: the mean return, or its distribution on a fixed support"
    )
    twin: bool = setting(False, "train two critics and take the lower one")
    expectile: float = setting(
        0.5, "weight of positive errors of a value critic, of negative ones 1 less it; 0.5 is least squares", low=0.01,
        high=0.99,
    )  # fmt: skip
    atoms: int = setting(21, "atoms of a categorical critic", low=2, high=10_000)
    v_min: float = setting(0.0, "lowest scaled discounted return on a categorical critic's support")
    v_max: float = setting(100.0, "highest scaled discounted return on a categorical critic's support")
    critic_learning_rate: Scheduled = setting(
        3e-4, "learning rate of the critics' Adam", low=0, high=10, scheduled=True
    )
    discount: float = setting(0.99, "discount factor, gamma", low=0, high=1)
    target_every: int = setting(100, "gradient steps between two updates of the target networks", low=1, high=1e12)
    tau: float = setting(1.0, "step size of a target update: target += tau (network - target)", low=1e-9, high=1)
    policy: Head = setting("auto", "distribution of a Box's actions; auto takes tanh_gaussian")
    components: int = setting(5, "components of a mixture", low=1, high=1000)
    head_scale: float = setting(1.0, "factor on the initial weights of the policy's head", low=0, high=10)
    reward_scaling: RewardScaling = setting("auto", REWARD_SCALING)
    critic_weighted: bool = setting(False, "play by the critic among actions drawn from the policy")
    play_samples: int = setting(16, "actions that the critic-weighted policy draws", low=1, high=1e5)

    def check(self) -> None:
        """Reject an empty support."""
        if not self.v_min < self.v_max:
            raise AgentError(f"v_min, v_max: got {self.v_min:g} and {self.v_max:g}; wanted low < high")


class CRR(PolicyAgent):
    """A CRR agent for one seat's spaces.

    Args:
        config: settings.
        observation_space: one seat's.
        action_space: one seat's: Discrete, or Box of one axis with bounds.
        seed: of the initial weights.
        device: where the networks are kept.
    """

    def __init__(
        self,
        config: CRRConfig,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(config, observation_space, action_space, seed=seed, device=device)
        self.head = policy_head(config.policy, self.discrete, self.actions, config.components)
        self.policy = Policy(
            observation_space, self.head.size, config.hidden, self.generator,
            layer_norm=config.layer_norm, precision=self.config.precision, head_scale=config.head_scale,
        ).to(device)  # fmt: skip
        self.critics = Critics(
            observation_space, self.actions, self.discrete, config.hidden, self.generator,
            count=2 if config.twin else 1, atoms=config.atoms if config.critic == "categorical" else 1,
            layer_norm=config.layer_norm, precision=self.config.precision,
        ).to(device)  # fmt: skip
        self.target_policy = copy.deepcopy(self.policy).requires_grad_(False)
        self.target_critics = copy.deepcopy(self.critics).requires_grad_(False)
        self.policy_optimizer = FlatAdam(
            self.policy.parameters(), value_at(config.learning_rate, 0.0), config.max_grad_norm, eps=1e-8,
            target=self.target_policy.parameters(),
        )  # fmt: skip
        self.critic_optimizer = FlatAdam(
            self.critics.parameters(), value_at(config.critic_learning_rate, 0.0), config.max_grad_norm, eps=1e-8,
            target=self.target_critics.parameters(),
        )  # fmt: skip
        self.support = torch.linspace(config.v_min, config.v_max, config.atoms, device=device)
        self.networks = {
            "policy": self.policy, "critics": self.critics,
            "target_policy": self.target_policy, "target_critics": self.target_critics,
        }  # fmt: skip
        self.optimizers = {
            "policy": (self.policy_optimizer, config.learning_rate),
            "critics": (self.critic_optimizer, config.critic_learning_rate),
        }

    def _prepared(self, data: Dataset) -> Dataset:
        data, config, unchecked = super()._prepared(data), self.config, self.updates == 0
        if config.critic == "categorical" and unchecked:
            check_support(data, config.discount, self.scaling, config.v_min, config.v_max)
        return data

    def _update(self, drawn: Transitions, generator: torch.Generator, *, measure: bool) -> dict[str, Any]:
        """One gradient step of critics and policy, both from the weights before it."""
        config = self.config
        params = self.policy.forward(drawn.obs)
        log_prob = self.log_prob(params, drawn.mask, drawn.action)
        value = self._value(drawn, params.detach(), generator)
        taken, target = self.critics.taken(drawn.obs, drawn.action), self._target(drawn, generator)
        critic_loss = self._critic_loss(taken[0], target)
        for out in taken[1:]:
            critic_loss = critic_loss + self._critic_loss(out, target)
        q = self._lower([out.detach() for out in taken])
        advantage = q - value
        weight = self.weigh(advantage)
        policy_loss = -torch.dot(weight, log_prob) / len(weight)
        self.critic_optimizer.zero_grad()
        self.policy_optimizer.zero_grad()
        (critic_loss + policy_loss).backward()  # the two share no parameter
        norms = [optimizer.step(measured=measure) for optimizer in (self.critic_optimizer, self.policy_optimizer)]
        if (self.updates + 1) % config.target_every == 0:
            for optimizer in (self.critic_optimizer, self.policy_optimizer):
                optimizer.follow(config.tau)
        if not measure:
            return {}
        return {
            "policy_loss": policy_loss.detach(), "critic_loss": critic_loss.detach(), "critic_grad_norm": norms[0],
            "policy_grad_norm": norms[1], "q": q.mean(), "advantage": advantage.mean(),
            "advantage_std": advantage.std(correction=0), **self.weight_statistics(weight),
        }  # fmt: skip

    def weigh(self, advantage: Tensor) -> Tensor:
        """f: the weights of actions with these advantages, [N]."""
        config = self.config
        if config.weight == "all":
            return torch.ones_like(advantage)
        if config.weight == "binary":
            return (advantage > 0).to(advantage.dtype)
        return (advantage / config.beta).clamp(max=80.0).exp().clamp(max=config.cap)

    def weight_statistics(self, weight: Tensor) -> dict[str, Tensor]:
        """Of a minibatch's weights [N]: mean, fractions at the cap and near 0, and effective sample size / N."""
        total, squares = weight.sum(), weight.square().sum()
        return {
            "weight": weight.mean(),
            "weight_at_cap": (weight >= self.config.cap).float().mean(),
            "weight_near_0": (weight < _NEAR_0).float().mean(),
            "weight_sample_size": total * total / (len(weight) * squares).clamp(min=1e-12),
        }

    @torch.no_grad()
    def _value(self, drawn: Transitions, params: Tensor, generator: torch.Generator) -> Tensor:
        """V(s), which the recorded actions' Q is compared with, [N]."""
        config = self.config
        if config.weight == "all":
            return torch.zeros(len(params), device=params.device)
        outs, probability = self._candidates(self.critics, params, drawn.obs, drawn.mask, config.samples, generator)
        q = self._lower(outs)  # [M, N]
        if config.advantage == "mean":
            return q.mean(0) if probability is None else (probability * q).sum(0)
        return (q if drawn.mask is None else q.masked_fill(~drawn.mask.t(), -torch.inf)).amax(0)

    @torch.no_grad()
    def _target(self, drawn: Transitions, generator: torch.Generator) -> Tensor:
        """Targets for the critics' outputs: [N, 1], or probabilities [N, K]."""
        params = self.target_policy.forward(drawn.next_obs)
        outs, probability = self._candidates(
            self.target_critics, params, drawn.next_obs, drawn.next_mask, self.config.target_samples, generator
        )
        reward, discount = drawn.reward.unsqueeze(-1), drawn.discount.unsqueeze(-1)
        if self.config.critic == "value":
            q = self._lower(outs)
            value = q.mean(0) if probability is None else (probability * q).sum(0)
            return torch.addcmul(reward, discount, value.unsqueeze(-1))
        following = outs[0]
        if self.config.twin:  # the distribution with the lower mean
            lower = (self._mean(outs[0]) <= self._mean(outs[1])).unsqueeze(-1)
            following = torch.where(lower, outs[0], outs[1])
        p = torch.softmax(following, -1)  # [M, N, K]; of several actions, the mean of the distributions
        p = p.mean(0) if probability is None else (probability.unsqueeze(-1) * p).sum(0)
        return project(reward + discount * self.support, p, self.support)

    def _candidates(
        self, critics: Critics, params: Tensor, obs: Any, mask: Tensor | None, count: int, generator: torch.Generator
    ) -> tuple[list[Tensor], Tensor | None]:
        """The critics' outputs [M, N, K] for actions of the policy, and each action's probability [M, N].

        For a Box these are ``count`` draws, all alike (None); for Discrete actions, all there are.
        """
        if self.discrete:
            return critics.candidates(obs, None), masked_log_softmax(params, mask).exp().t()
        return critics.candidates(obs, self.draws(params, None, count, generator)), None

    def _critic_loss(self, out: Tensor, target: Tensor) -> Tensor:
        """The mean loss of one critic, a tensor []."""
        if self.config.critic == "categorical":
            return categorical_loss(out, target).mean()
        if self.config.expectile == 0.5:
            return F.mse_loss(out, target)
        error = target - out
        return (2 * (self.config.expectile - (error.detach() < 0).float()).abs() * error.square()).mean()

    def _lower(self, outs: list[Tensor]) -> Tensor:
        """Q by the lower critic, from outputs [..., K]."""
        q = [self._mean(out) for out in outs]
        return q[0] if len(q) == 1 else torch.minimum(*q)

    def _mean(self, out: Tensor) -> Tensor:
        """Q from a critic's output: [..., K] becomes [...]."""
        return out.squeeze(-1) if self.config.critic == "value" else torch.softmax(out, -1) @ self.support

    @torch.no_grad()
    def act(self, obs: Any, legal_mask: Tensor | None, generator: torch.Generator, *, greedy: bool = False) -> Decision:
        """Decide for N rows by the policy or the critic-weighted one; ``greedy`` takes the best or likeliest action."""
        if not self.config.critic_weighted:
            return super().act(obs, legal_mask, generator, greedy=greedy)
        seen = self.scaling.obs(obs)
        params = self.policy.forward(seen)
        actions = None if self.discrete else self.draws(params, None, self.config.play_samples, generator)
        score = self._scores(seen, params, actions, legal_mask)
        if not greedy:
            score = score - torch.empty_like(score).exponential_(generator=generator).log_()
        chosen = score.argmax(0)
        return self._decision(chosen if actions is None else actions[chosen, torch.arange(len(chosen))])

    @torch.no_grad()
    def action_probabilities(self, obs: Any, legal_mask: Tensor | None, *, greedy: bool = False) -> Tensor:
        """pi(a|s) of Discrete actions as they are played, float64 [N, A]."""
        if not self.config.critic_weighted or not self.discrete:
            return super().action_probabilities(obs, legal_mask, greedy=greedy)
        return Categorical(self.actions).probabilities(self._weighted_logits(obs, legal_mask), legal_mask, greedy)

    @torch.no_grad()
    def action_log_prob(self, obs: Any, legal_mask: Tensor | None, action: Tensor) -> Tensor:
        """The log probability (density) of actions as they are played, [N].

        Raises:
            AgentError: for the critic-weighted policy of a Box, a choice among draws, which has no known density.
        """
        if not self.config.critic_weighted:
            return super().action_log_prob(obs, legal_mask, action)
        if not self.discrete:
            raise AgentError("action_log_prob: got the critic-weighted policy of a Box; wanted critic_weighted=False")
        return Categorical(self.actions).log_prob(self._weighted_logits(obs, legal_mask), legal_mask, action)

    def _weighted_logits(self, obs: Any, mask: Tensor | None) -> Tensor:
        """Logits of the critic-weighted policy over Discrete actions, [N, A]."""
        seen = self.scaling.obs(obs)
        return self._scores(seen, self.policy.forward(seen), None, mask).t()

    def _scores(self, seen: Any, params: Tensor, actions: Tensor | None, mask: Tensor | None) -> Tensor:
        """Logits of the critic-weighted choice among actions [M, N, k], or all Discrete ones (None), [M, N]."""
        score = self._lower(self.critics.candidates(seen, actions)) / self.config.beta
        return score + masked_log_softmax(params, mask).t() if actions is None else score
