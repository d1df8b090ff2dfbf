"""LPG's rule: a recurrent network that says how an agent's policy and predictions should move.

Oh et al., "Discovering Reinforcement Learning Algorithms" (2020), sections 3.1 and 3.2. An agent has a policy pi(a|s)
and a prediction y(s), a categorical distribution over m values that mean nothing in themselves. For each step of a
rollout the rule reads

    x_t = [r_t, d_t, gamma, pi(a_t|s_t), phi(y(s_t)), phi(y(s_{t+1}))]

and, going backwards in time, gives a number pi_hat_t and a distribution y_hat_t. The agent then ascends

    mean_t [ pi_hat_t log pi(a_t|s_t) - alpha_y KL(y(s_t) || y_hat_t) ]

in its own parameters, with the two targets constant. Only the probability of the action taken is read, so that a rule
trained with one set of actions and observations works with any other.

Where we differ: a GRU in place of the LSTM, as in Jackson et al., "Discovering General Reinforcement Learning
Algorithms with Adversarial Environment Design" (2023). d_t is 1 where an episode goes on, and 0 where it terminated or
was truncated: only a terminated one has phi(y(s_{t+1})) = 0; of a truncated one s_{t+1} is its last observation. The
state is reset after both, so that nothing flows from an episode into the one before. What is read of the agent is
detached: the meta-gradient flows through the agent's updates alone (Jackson et al.), and the rule is differentiated
once.

Example:
    >>> import torch
    >>> rule = LPGRule(RuleConfig(hidden=8), seed=0)
    >>> ends = torch.zeros(20, 4, dtype=torch.bool)
    >>> y = torch.full((20, 4, 8), 1 / 8)
    >>> targets = rule(torch.zeros(20, 4), ends, ends, torch.full((20, 4), 0.2), y, y)
    >>> tuple(targets.pi_hat.shape), tuple(targets.log_y_hat.shape)
    ((20, 4), (20, 4, 8))
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mlbits.agents import kernels
from mlbits.agents.agent import AgentError, network_generator
from mlbits.agents.kernels.backward_gru import backward_gru, plain_backward_gru
from mlbits.envs.core.config_fields import configuration, setting

SIGN = "ascent"  # the agent ascends log pi * pi_hat; a rule for agents that descend it has the other sign
_EMBEDDING = 16  # hidden units of phi
_INPUTS = 6


@configuration(AgentError)
class RuleConfig:
    """The shape of a rule, and the discount factor that it reads."""

    predictions: int = setting(8, "values m over which an agent's prediction is a distribution", low=2, high=1000)
    hidden: int = setting(32, "units of the rule's recurrent network", low=1, high=4096)
    discount: float = setting(0.99, "discount factor of the meta-objective, which the rule reads", low=0, high=1)


class Targets(NamedTuple):
    """What a rule says about each step.

    Attributes:
        pi_hat: how much more probable the action taken should become, [...].
        log_y_hat: log of the prediction's target, [..., m].
    """

    pi_hat: Tensor
    log_y_hat: Tensor


class LPGRule(nn.Module):
    """The rule's network.

    Args:
        config: its shape.
        seed: of the initial weights.
    """

    embedding: nn.Parameter
    embedding_bias: nn.Parameter
    embedded: nn.Parameter
    embedded_bias: nn.Parameter
    inputs: nn.Parameter
    inputs_bias: nn.Parameter
    recurrent: nn.Parameter
    new_bias: nn.Parameter
    heads: nn.Parameter
    heads_bias: nn.Parameter

    def __init__(self, config: RuleConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        generator = network_generator(seed)
        for name, shape in shapes_of(config).items():
            weight = torch.zeros(shape)
            if len(shape) == 2:  # not a bias: within +-1 / sqrt(fan in)
                weight = (2 * torch.rand(shape, generator=generator) - 1) / math.sqrt(shape[0])
            self.register_parameter(name, nn.Parameter(weight))

    def phi(self, y: Tensor) -> Tensor:
        """The embedding of predictions [..., m], [..., 1]."""
        return torch.relu(y @ self.embedding + self.embedding_bias) @ self.embedded + self.embedded_bias

    def forward(
        self, reward: Tensor, terminated: Tensor, truncated: Tensor, chosen: Tensor, y: Tensor, next_y: Tensor
    ) -> Targets:
        """The targets of T steps of any number of sequences.

        Args:
            reward: [T, ...].
            terminated: bool [T, ...].
            truncated: bool [T, ...].
            chosen: pi(a_t|s_t), [T, ...].
            y: the predictions y(s_t), [T, ..., m].
            next_y: y(s_{t+1}), of the episode's last observation where it ended; [T, ..., m].

        Returns:
            Targets, [T, ...] and [T, ..., m], of which gradients reach the rule and nothing else.
        """
        shape, steps = reward.shape, len(reward)
        goes_on = (~(terminated | truncated)).to(reward.dtype)
        following = self.phi(next_y.detach())[..., 0].masked_fill(terminated, 0.0)
        columns = (reward, goes_on, torch.full_like(reward, self.config.discount), chosen.detach(),
                   self.phi(y.detach())[..., 0], following)  # fmt: skip
        seen = torch.stack(columns, -1).view(-1, _INPUTS)
        gates = torch.addmm(self.inputs_bias, seen, self.inputs).view(steps, -1, 3 * self.config.hidden)
        read = backward_gru if kernels.enabled() else plain_backward_gru
        states = read(gates, goes_on.view(steps, -1), self.recurrent, self.new_bias)
        out = torch.addmm(self.heads_bias, states.view(-1, self.config.hidden), self.heads)
        return Targets(out[:, 0].view(shape), log_softmax(out[:, 1:]).view(*shape, -1))


def shapes_of(config: RuleConfig) -> dict[str, tuple[int, ...]]:
    """The shapes of a rule's weights, [in, out], and biases, by name."""
    width, outputs = config.hidden, 1 + config.predictions
    return {
        "embedding": (config.predictions, _EMBEDDING), "embedding_bias": (_EMBEDDING,),
        "embedded": (_EMBEDDING, 1), "embedded_bias": (1,),
        "inputs": (_INPUTS, 3 * width), "inputs_bias": (3 * width,),
        "recurrent": (width, 3 * width), "new_bias": (width,),
        "heads": (width, outputs), "heads_bias": (outputs,),
    }  # fmt: skip


def log_softmax(logits: Tensor) -> Tensor:
    """Logits minus the log of the sum of their exponentials, over the last axis.

    On a CPU four times as fast as ``torch.log_softmax`` for a last axis of a few entries.
    """
    shifted = logits - logits.detach().amax(-1, keepdim=True)
    return shifted - shifted.exp().sum(-1, keepdim=True).log()
