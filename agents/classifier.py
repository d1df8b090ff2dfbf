"""Supervised learning and reinforcement learning on one network: four losses for problems of one step.

Kaplan, "Notes on Contemporary Machine Learning for Physicists", section 8.4. A policy pi(a | x) answers an example x
and gets the reward R(a | x); with n answers, and R = 1 for the label y and else 0, its mean reward is its accuracy. The
losses, each a mean over rows of new experience whose answers were drawn from the behaviour policy b(a | x):

    loss                 b                                   minimised quantity
    "cross_entropy"      pi                                  -sum_a R(a | x) log pi(a | x), which is -log pi(y | x)
    "policy_gradient"    pi                                  -(R(a | x) - c) log pi(a | x)
    "epsilon_greedy"     epsilon / n, the rest on argmax pi  -w R(a | x) log pi(a | x)
    "q"                  epsilon / n, the rest on argmax Q   1/2 (Q(x, a) - R(a | x))^2                  (8.4.7)

c is 0, or the mean reward of the other rows; w is 1, or pi / b with ``importance_weights``. Cross-entropy needs the
label, which rewards do not give. It reads the reward of every answer from the key "feedback" of an episode's last
observation (``--env.feedback full``); the others learn from the reward of the one answer given.

How they are related (8.4.4 to 8.4.6), tested by enumerating all answers:

    b uniform:       E_b[R grad log pi(a | x)] = (1/n) sum_a R grad log pi(a | x) = (1/n) grad log pi(y | x)
    b = pi:          E_pi[R grad log pi(a | x)] = grad E_pi[R] = pi(y | x) grad log pi(y | x)
    any b, w = pi/b: E_b[(pi / b) R grad log pi(a | x)] = grad E_b[(pi / b) R] = grad E_pi[R]

Under uniform answers the policy gradient is that of cross-entropy divided by n: one row in n is rewarded, and n times
the examples are needed. Under its own answers it is the gradient of accuracy: that of cross-entropy with the weight
pi(y | x), 1 / n at first and 1 in the end. The gradient of the Q loss under uniform answers is 1/n of that of a
regression on all answers at once.

We did not have the section's text: the forms are derived here, under the numbers by which they are cited. Gradients are
clipped and used by Adam, for which a factor 1/n makes no difference.

In episodes of several steps each step counts as a problem of its own, so that only the next reward is maximised;
``ppo`` and ``reinforce`` look further ahead.

Example:
    mlbits train classifier mlbits/Digits-v0 --agent.loss cross_entropy --env.feedback full
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import gymnasium as gym
import torch
from gymnasium import spaces
from torch import Tensor, nn

from mlbits.agents.agent import (
    AgentError,
    Decision,
    Rollout,
    RolloutSpec,
    load_weights,
    network_generator,
    prefixed,
    unprefixed,
)
from mlbits.agents.kernels.flat_adam import FlatAdam
from mlbits.agents.maths.action_distributions import Categorical, masked_log_softmax, probability_ratio
from mlbits.agents.networks.features import Features
from mlbits.agents.networks.mlp import MLP
from mlbits.agents.reinforce import others_mean
from mlbits.envs.core.config_fields import configuration, setting
from mlbits.envs.core.schedules import Scheduled, value_at

Loss = Literal["cross_entropy", "policy_gradient", "epsilon_greedy", "q"]
FEEDBACK = "feedback"  # the key of an observation that gives, after the answer, the reward of each possible answer


@configuration(AgentError)
class ClassifierConfig:
    """Settings of the learners of one-step problems."""

    loss: Loss = setting(
        "policy_gradient",
        "cross_entropy learns from the label; policy_gradient, epsilon_greedy and q learn from the reward",
    )
    baseline: Literal["none", "mean"] = setting(
        "none", "what policy_gradient subtracts from a reward: nothing, or the mean reward of the other rows"
    )
    epsilon: float = setting(0.3, "fraction of answers drawn uniformly, with epsilon_greedy and q", low=0, high=1)
    importance_weights: bool = setting(
        False, "weight rows of epsilon_greedy by pi / b, which makes it a gradient of accuracy"
    )
    num_steps: int = setting(1, "answers of each copy per gradient step", low=1, high=1e6)
    learning_rate: Scheduled = setting(3e-3, "learning rate of Adam", low=0, high=10, scheduled=True)
    anneal_lr: bool = setting(False, "decay the learning rate, if it is a number, linearly to 0 over the run")
    max_grad_norm: float = setting(1.0, "largest L2 norm of the gradient; larger ones are clipped", low=1e-9, high=1e9)
    hidden: tuple[int, ...] = setting((64,), "widths of the hidden layers", low=1)

    def check(self) -> None:
        """Refuse settings that the loss does not use."""
        if self.baseline != "none" and self.loss != "policy_gradient":
            raise AgentError(f"baseline: got {self.baseline!r} with loss={self.loss!r}; wanted 'policy_gradient'")
        if self.importance_weights and self.loss != "epsilon_greedy":
            raise AgentError(f"importance_weights: got True with loss={self.loss!r}; wanted 'epsilon_greedy'")


class Scores(nn.Module):
    """A network with one output for each answer, logits or Q, for all four losses.

    Args:
        space: one seat's observations; the key "feedback" of a Dict space is left out.
        answers: number of answers n.
        hidden: widths of the hidden layers.
        generator: random generator of initial weights.
    """

    def __init__(
        self, space: gym.Space[Any], answers: int, hidden: tuple[int, ...], generator: torch.Generator
    ) -> None:
        super().__init__()
        if isinstance(space, spaces.Dict) and FEEDBACK in space.spaces:
            space = spaces.Dict({key: part for key, part in space.items() if key != FEEDBACK})
        self.features = Features(space, generator)
        self.mlp = MLP(self.features, hidden, answers, generator, activation="tanh", head_gain=0.01)

    def forward(self, obs: Any) -> Tensor:
        """Scores [N, n] of observations [N, ...]."""
        scores: Tensor = self.mlp(self.features(obs))
        return scores


def _has_feedback(space: gym.Space[Any], answers: int) -> bool:
    """Whether observations have a field for the reward of each answer."""
    return isinstance(space, spaces.Dict) and FEEDBACK in space.spaces and space[FEEDBACK].shape == (answers,)


class Classifier:
    """A learner of one-step problems.

    Args:
        config: settings.
        observation_space: one seat's.
        action_space: one seat's: Discrete.
        seed: seed of the initial weights.
        device: the network's device.

    Raises:
        AgentError: for actions that are not Discrete, or a loss that needs labels without labels in the observations.
    """

    def __init__(
        self,
        config: ClassifierConfig,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        if not isinstance(action_space, spaces.Discrete):
            raise AgentError(f"classifier: got the action space {action_space}; wanted Discrete")
        answers = int(action_space.n)
        if config.loss == "cross_entropy" and not _has_feedback(observation_space, answers):
            raise AgentError(
                f"loss: 'cross_entropy' learns from labels, which the observations {observation_space} do not have; "
                f"wanted a Dict with {FEEDBACK!r} [{answers}] (--env.feedback full), or another loss"
            )
        self.config = config
        self.network = Scores(observation_space, answers, config.hidden, network_generator(seed)).to(device)
        self.optimizer = FlatAdam(self.network.parameters(), value_at(config.learning_rate, 0.0), config.max_grad_norm)
        self.distribution = Categorical(answers)

    @property
    def experience(self) -> RolloutSpec:
        """Fresh answers."""
        return RolloutSpec(self.config.num_steps, whole_episodes=False)

    @torch.no_grad()
    def act(self, obs: Any, legal_mask: Tensor | None, generator: torch.Generator, *, greedy: bool = False) -> Decision:
        """Answer N rows of observations by the loss's behaviour policy; ``greedy`` takes the greatest score."""
        scores = self.network(obs)
        behaviour = self.behaviour(scores, legal_mask)
        if greedy:
            action = self.distribution.mode(scores, legal_mask)
        else:
            action = self.distribution.sample(behaviour, legal_mask, generator)
        return Decision(action, action, self.distribution.log_prob(behaviour, legal_mask, action))

    @torch.no_grad()
    def action_probabilities(self, obs: Any, legal_mask: Tensor | None, *, greedy: bool = False) -> Tensor:
        """Action probabilities pi(a|s), float64 [N, A]."""
        scores = self.network(obs)
        params = scores if greedy else self.behaviour(scores, legal_mask)
        return self.distribution.probabilities(params, legal_mask, greedy)

    def behaviour(self, scores: Tensor, mask: Tensor | None) -> Tensor:
        """Log probabilities [N, n] of the behaviour policy, from the scores [N, n]."""
        log_pi = masked_log_softmax(scores, mask)
        if self.config.loss not in ("epsilon_greedy", "q"):
            return log_pi
        legal = torch.ones_like(scores) if mask is None else mask.to(scores.dtype)
        probability = self.config.epsilon * legal / legal.sum(-1, keepdim=True)
        best = log_pi.argmax(-1, keepdim=True)
        probability.scatter_add_(-1, best, torch.full_like(scores[:, :1], 1 - self.config.epsilon))
        return probability.clamp(min=1e-30).log()

    def losses(
        self,
        scores: Tensor,
        mask: Tensor | None,
        action: Tensor,
        log_b: Tensor,
        reward: Tensor,
        feedback: Tensor | None,
    ) -> Tensor:
        """The loss of each row, [N].

        Args:
            scores: [N, n], of the current network.
            mask: bool [N, n], or None.
            action: the answers given, int64 [N].
            log_b: their log probability when they were drawn, [N].
            reward: their reward, less the baseline, [N].
            feedback: the reward of every answer, [N, n]; only for "cross_entropy".
        """
        loss = self.config.loss
        if loss == "q":
            return 0.5 * (scores.gather(-1, action[:, None]).squeeze(-1) - reward).square()
        log_pi = masked_log_softmax(scores, mask)
        if loss == "cross_entropy":
            assert feedback is not None
            return -(feedback * log_pi).sum(-1)
        log_answer = log_pi.gather(-1, action[:, None]).squeeze(-1)
        if self.config.importance_weights:
            reward = reward * probability_ratio(log_answer.detach() - log_b)
        return -reward * log_answer

    def learn(self, rollout: Rollout, progress: float, generator: torch.Generator) -> Mapping[str, float]:
        """One gradient step on new answers.

        Args:
            rollout: answers of the current network.
            progress: fraction of the run that is over, 0..1.
            generator: not used; part of every agent's signature.

        Returns:
            Loss, entropy of the softmax of the scores, gradient norm, learning rate.

        Raises:
            AgentError: if cross-entropy gets an episode of several steps or a reward below 0.
        """
        config = self.config
        self.optimizer.learning_rate = value_at(config.learning_rate, progress, anneal=config.anneal_lr)
        reward = rollout.reward
        if config.baseline == "mean":
            reward = reward - others_mean(reward, rollout.active)
        flat, feedback = rollout.flatten(), self._feedback(rollout)
        feedback = None if feedback is None else flat.of(feedback)
        self.optimizer.zero_grad()
        scores = self.network(flat.obs)
        loss = self.losses(scores, flat.mask, flat.sample, flat.log_prob, flat.of(reward), feedback).mean()
        loss.backward()
        grad_norm = self.optimizer.step()
        entropy = self.distribution.entropy(scores.detach(), flat.mask).mean()
        metrics = {"loss": loss.detach(), "entropy": entropy, "grad_norm": grad_norm}
        return {name: float(value) for name, value in metrics.items()} | {"learning_rate": self.optimizer.learning_rate}

    def _feedback(self, rollout: Rollout) -> Tensor | None:
        """The reward of every answer, [T, B, P, n]; only for cross-entropy."""
        if self.config.loss != "cross_entropy":
            return None
        feedback: Tensor = rollout.final_obs[FEEDBACK]
        if not bool((rollout.terminated | rollout.truncated).all()):
            raise AgentError(
                "loss: 'cross_entropy' got an episode that continues after the answer, and labels come at its end; "
                "wanted episodes of one step, or another loss"
            )
        if bool((feedback < 0).any()):
            raise AgentError(
                f"loss: 'cross_entropy' got the reward {float(feedback.min()):g}; wanted 0 or more, to weight labels by"
            )
        return feedback

    def state_dict(self) -> dict[str, Tensor]:
        """Network and optimiser, copied."""
        state = prefixed("network", self.network.state_dict()) | prefixed("optimizer", self.optimizer.state_dict())
        return {name: value.detach().clone().contiguous() for name, value in state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved state.

        Raises:
            AgentError: if names or shapes are not those of this network.
        """
        load_weights({"network": self.network}, state)
        self.optimizer.load_state_dict(unprefixed("optimizer", state))
