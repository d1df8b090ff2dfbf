"""LPG: an agent whose update rule is itself learned, and comes from a file.

Oh et al., "Discovering Reinforcement Learning Algorithms" (2020). The agent has a policy pi(a|s) and a prediction y(s),
a distribution over m values without a meaning of their own. After each rollout a recurrent network, the rule, reads its
rewards, ends, the probabilities of the actions taken and the predictions, and says for each step how much more probable
the action should become (pi_hat) and what should have been predicted (y_hat). One gradient step then ascends

    mean[ pi_hat log pi(a|s) - alpha KL(y(s) || y_hat) ]

Nothing else is known here of returns, values or advantages: what is worth predicting was found out when the rule was
trained (``mlbits meta-train lpg``; :mod:`mlbits.agents.learned_rules.learner`). The rule that comes with mlbits was
trained on small gridworlds with tabular agents; docs/learned_rules.md says how.

Where observations are numbers of states the agent is a table moved by gradient ascent, as in meta-training; otherwise
an MLP, with convolutions for images, moved by Adam. Actions are Discrete, without masks, which rules have not met.

Example:
    mlbits train lpg mlbits/GridWorld-v0
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from mlbits.agents.agent import (
    AgentError,
    Decision,
    Rollout,
    RolloutSpec,
    load_weights,
    network_generator,
    pick,
    prefixed,
    rows,
    unprefixed,
)
from mlbits.agents.kernels.flat_adam import FlatAdam
from mlbits.agents.learned_rules.files import load_rule
from mlbits.agents.learned_rules.populations import chosen, divergence
from mlbits.agents.learned_rules.rule import log_softmax
from mlbits.agents.maths.action_distributions import Categorical
from mlbits.agents.networks.mlp import MLP, Activation
from mlbits.agents.networks.own import ENCODER_HELP, features_of
from mlbits.envs.core.config_fields import configuration, setting
from mlbits.envs.core.schedules import Scheduled, changes, value_at

_NETWORK_RATE = 1e-3
_METRICS = ("policy_loss", "prediction_loss", "entropy", "prediction_entropy", "pi_hat_square", "grad_norm")


@configuration(AgentError)
class LPGConfig:
    """Settings of an agent that learns by a learned rule."""

    run_defaults = (("num_envs", 16),)  # as in meta-training

    rule: str = setting("", "the rule's file, as mlbits meta-train writes it; '' for the one that comes with mlbits")
    rule_hash: str = setting("", "digest that the rule has to have; a run keeps its own, and resumes with no other")
    num_steps: int = setting(20, "steps of each copy per rollout; rules are trained with 20", low=1, high=1e6)
    learning_rate: Scheduled = setting(
        "auto", "learning rate", low=0, high=1e6, scheduled=True,
        auto="that of the rule's own tabular agents for a table, 0.001 for a network",
    )  # fmt: skip
    alpha: Scheduled = setting(
        "auto", "weight of the prediction's loss", low=0, high=1e3, scheduled=True,
        auto="that of the rule's own tabular agents",
    )  # fmt: skip
    reward_scale: float = setting(
        1.0,
        "factor for the rewards that the rule reads; rules are trained with rewards from -1 to 1",
        low=1e-9,
        high=1e9,
    )
    max_grad_norm: float = setting(
        0.5, "largest L2 norm of a network's gradient; larger ones are clipped", low=1e-9, high=1e9
    )
    hidden: tuple[int, ...] = setting((32,), "widths of the network's hidden layers", low=1)
    activation: Activation = setting("relu", "activation of the hidden layers")
    encoder: str = setting("", ENCODER_HELP)

    def settled(self, device: torch.device) -> tuple[LPGConfig, str]:
        """The settings with the rule's whole path and its digest, and no line for the user.

        Raises:
            AgentError: if it is no rule, or not the one that the settings name.
        """
        path = str(Path(self.rule).resolve()) if self.rule else ""
        return dataclasses.replace(self, rule=path, rule_hash=_read(self).digest), ""


def _read(config: LPGConfig) -> Any:
    saved = load_rule(config.rule)
    if config.rule_hash not in ("", saved.digest):
        name = config.rule or "the rule that comes with mlbits"
        raise AgentError(f"rule: {name} has the digest {saved.digest}; wanted {config.rule_hash}, the run's own")
    return saved


class LPG:
    """An agent that learns by a rule, for one seat's spaces.

    Args:
        config: settings.
        observation_space: one seat's.
        action_space: one seat's, Discrete.
        seed: of the initial weights.
        device: where it is kept.

    Attributes:
        rule: the rule, which does not change.

    Raises:
        AgentError: if the rule's file is not what it has to be.
    """

    def __init__(
        self,
        config: LPGConfig,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config = config
        saved = _read(config)
        self.rule = saved.rule.to(device).requires_grad_(False)
        self.distribution = Categorical(int(action_space.n))  # type: ignore[attr-defined]
        self.network = PolicyAndPrediction(
            observation_space, self.distribution.size, self.rule.config.predictions, config, network_generator(seed)
        ).to(device)
        table = self.network.table is not None
        auto = saved.learning_rate if table else _NETWORK_RATE
        self._learning_rate = auto if config.learning_rate == "auto" else config.learning_rate
        self._alpha = saved.alpha if config.alpha == "auto" else config.alpha
        self.optimizer = None
        if not table:
            rate = value_at(self._learning_rate, 0.0)
            self.optimizer = FlatAdam(self.network.parameters(), rate, config.max_grad_norm)

    @property
    def experience(self) -> RolloutSpec:
        """Windows of ongoing play."""
        return RolloutSpec(self.config.num_steps, whole_episodes=False)

    @torch.no_grad()
    def act(self, obs: Any, legal_mask: Tensor | None, generator: torch.Generator, *, greedy: bool = False) -> Decision:
        """Choose actions for N rows of observations.

        Raises:
            AgentError: if there are masks.
        """
        logits, distribution = self._logits(obs, legal_mask), self.distribution
        action = distribution.mode(logits, None) if greedy else distribution.sample(logits, None, generator)
        return Decision(action, action, distribution.log_prob(logits, None, action))

    @torch.no_grad()
    def action_probabilities(self, obs: Any, legal_mask: Tensor | None, *, greedy: bool = False) -> Tensor:
        """Action probabilities pi(a|s), float64 [N, A]."""
        return self.distribution.probabilities(self._logits(obs, legal_mask), None, greedy)

    @torch.no_grad()
    def action_log_prob(self, obs: Any, legal_mask: Tensor | None, action: Tensor) -> Tensor:
        """Log probabilities of actions, [N]."""
        return self.distribution.log_prob(self._logits(obs, legal_mask), None, action)

    def _logits(self, obs: Any, legal_mask: Tensor | None) -> Tensor:
        if legal_mask is not None:
            raise AgentError("legal_mask: got action masks, which rules have not met; wanted none")
        logits: Tensor = self.network(obs)[0]
        return logits

    @torch.no_grad()
    def predictions(self, obs: Any) -> Tensor:
        """The predictions y of N rows of observations, [N, m]."""
        return log_softmax(self.network(obs)[1]).exp()

    def learn(self, rollout: Rollout, progress: float, generator: torch.Generator) -> Mapping[str, float]:
        """One update by the rule.

        Args:
            rollout: experience of the current policy.
            progress: fraction of the run that is over, 0..1.
            generator: not used; part of every agent's signature.

        Returns:
            The objective's two parts, entropies in nats, the targets' mean square, the gradient's norm and the learning
            rate; empty for a rollout without a decision of the learner's.
        """
        shape, weight = rollout.reward.shape, _weights(rollout)
        if rollout.active is not None and not bool(weight.any()):
            return {}
        logits, y_logits = self.network(rows(rollout.obs, 3))
        log_pi, log_y = log_softmax(logits).view(*shape, -1), log_softmax(y_logits).view(*shape, -1)
        log_prob = chosen(log_pi, rollout.sample)
        with torch.no_grad():
            y = log_y.exp()
            terminated, truncated = (flag[..., None].expand(shape) for flag in (rollout.terminated, rollout.truncated))
            targets = self.rule(
                self.config.reward_scale * rollout.reward, terminated, truncated & ~terminated, log_prob.exp(), y,
                self._following(rollout, y),
            )  # fmt: skip
        gain, apart = targets.pi_hat * log_prob, divergence(log_y, targets.log_y_hat)
        gain, apart = (weight * gain).sum() / weight.sum(), (weight * apart).sum() / weight.sum()
        rate, alpha = value_at(self._learning_rate, progress), value_at(self._alpha, progress)
        grad_norm = self._ascend(gain - alpha * apart, rate)
        entropies = (-(part.exp() * part).sum(-1) for part in (log_pi.detach(), log_y.detach()))
        means = [(weight * part).sum() / weight.sum() for part in (*entropies, targets.pi_hat.square())]
        numbers = torch.stack([-gain.detach(), apart.detach(), *means, grad_norm]).tolist()  # read in one go
        metrics = dict(zip(_METRICS, numbers, strict=True)) | {"learning_rate": rate}
        return metrics | ({"alpha": alpha} if changes(self._alpha) else {})

    def _following(self, rollout: Rollout, y: Tensor) -> Tensor:
        """The predictions at what followed each step in its episode, [T, B, P, m]; stale where it terminated."""
        last = self.predictions(rows(rollout.last_obs, 2)).view_as(y[0])
        following = torch.cat([y[1:], last[None]])
        cut = rollout.cut_steps()
        if len(cut[0]):
            final = pick(rollout.final_obs, cut)
            following[cut] = self.predictions(rows(final, 2)).view_as(following[cut])
        return following

    def _ascend(self, objective: Tensor, rate: float) -> Tensor:
        """One step up the objective; returns the gradient's norm."""
        if self.optimizer is not None:
            self.optimizer.learning_rate = rate
            self.optimizer.zero_grad()
            (-objective).backward()
            return self.optimizer.step()
        (gradient,) = torch.autograd.grad(objective, [self.network.table])
        with torch.no_grad():
            self.network.table += rate * gradient
        return torch.linalg.vector_norm(gradient)

    def state_dict(self) -> dict[str, Tensor]:
        """The network and its optimiser; the rule stays in its file, which the settings name."""
        state = prefixed("network", self.network.state_dict())
        if self.optimizer is not None:
            state |= prefixed("optimizer", self.optimizer.state_dict())
        return {name: value.detach().clone().contiguous() for name, value in state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved state.

        Raises:
            AgentError: if names or shapes are not those of this network.
        """
        load_weights({"network": self.network}, state)
        if self.optimizer is not None:
            self.optimizer.load_state_dict(unprefixed("optimizer", state))


class PolicyAndPrediction(nn.Module):
    """Logits of policy and prediction: a table for Discrete observations, else an MLP on their features.

    Args:
        space: observation space of a seat.
        num_actions: A.
        predictions: m.
        config: for the network's shape.
        generator: the source of initial weights; the table begins with zeros.
    """

    def __init__(
        self, space: gym.Space[Any], num_actions: int, predictions: int, config: LPGConfig, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.num_actions = num_actions
        self.features = features_of(config.encoder, space, generator)
        self.table: Any = None
        self.mlp: MLP | None = None
        if isinstance(space, gym.spaces.Discrete) and not config.encoder:
            self.table = nn.Parameter(torch.zeros(self.features.widths[0], num_actions + predictions))
        else:
            self.mlp = MLP(
                self.features, config.hidden, num_actions + predictions, generator,
                activation=config.activation, initial="orthogonal", head_gain=0.01,
            )  # fmt: skip

    def forward(self, obs: Any) -> tuple[Tensor, Tensor]:
        """Logits [N, A] and [N, m] of N observations."""
        parts = self.features(obs)
        out = self.table[parts[0][:, 0].long()] if self.mlp is None else self.mlp(parts)
        return out[:, : self.num_actions], out[:, self.num_actions :]


def _weights(rollout: Rollout) -> Tensor:
    """1 for the steps that are the learner's, else 0, [T, B, P]."""
    return torch.ones_like(rollout.reward) if rollout.active is None else rollout.active.to(rollout.reward.dtype)
