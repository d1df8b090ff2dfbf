"""The network of a DiscoRL agent: policy and y from an observation; z, q and the next policy for each of its actions.

One step of an LSTM of 128 units, begun at the observation's own features, is taken for every action; from its output
come the parts that depend on the action (as in MuZero's model, one step deep). Sizes of the predictions are those that
the discovered rule reads. Initial weights are those of the reference: normal, cut at two deviations, which are
1 / sqrt(fan in), and 0.01 for policy and y; biases 0.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from mlbits.agents.disco.rule import PREDICTION, Memory, Predictions, lstm
from mlbits.agents.disco.values import BINS
from mlbits.agents.networks.features import Features

WIDTH = 128  # of the LSTM, and of the hidden layer of each part that depends on the action


class Linear(nn.Linear):
    """A linear layer with weights drawn from a generator.

    Args:
        inputs: number of inputs.
        outputs: number of outputs.
        generator: the source of initial weights.
        deviation: of their normal distribution before it is cut; None for 1 / sqrt(inputs).
    """

    def __init__(self, inputs: int, outputs: int, generator: torch.Generator, deviation: float | None = None) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = inputs, outputs
        self.weight = nn.Parameter(_cut_normal(outputs, inputs, deviation or 1 / math.sqrt(inputs), generator))
        self.bias = nn.Parameter(torch.zeros(outputs))


class DiscoNetwork(nn.Module):
    """A network for one seat's observations.

    Args:
        space: one seat's observations, of any kind.
        actions: number of actions A.
        hidden: widths of the layers below all predictions; the last one is linear.
        generator: the source of initial weights.
    """

    def __init__(
        self, space: gym.Space[Any], actions: int, hidden: tuple[int, ...], generator: torch.Generator
    ) -> None:
        super().__init__()
        self.actions = actions
        self.features = Features(space, generator)
        fan_in = max(1, self.features.fan_in)
        self.first = nn.ParameterList(
            nn.Parameter(_cut_normal(width, hidden[0], 1 / math.sqrt(fan_in), generator))
            for width in self.features.widths
        )
        self.first_bias = nn.Parameter(torch.zeros(hidden[0]))
        self.layers = nn.ModuleList(Linear(a, b, generator) for a, b in itertools.pairwise(hidden))
        self.policy_head = Linear(hidden[-1], actions, generator, 0.01)
        self.y = Linear(hidden[-1], PREDICTION, generator, 0.01)
        self.root = Linear(hidden[-1], WIDTH, generator)
        self.step = Linear(actions + WIDTH, 4 * WIDTH, generator)
        sizes = {"z": PREDICTION, "next_policy": actions, "q": BINS}
        self.heads = nn.ModuleDict(
            {name: nn.Sequential(Linear(WIDTH, WIDTH, generator), nn.ReLU(), Linear(WIDTH, size, generator))
             for name, size in sizes.items()}
        )  # fmt: skip

    def policy(self, obs: Any) -> Tensor:
        """Logits of the actions alone, [N, A], of observations [N, ...]."""
        logits: Tensor = self.policy_head(self._torso(obs))
        return logits

    def q(self, obs: Any) -> tuple[Tensor, Tensor]:
        """Logits of the actions, [N, A], and of their values, [N, A, 601]."""
        torso = self._torso(obs)
        return self.policy_head(torso), self.heads["q"](self._after_actions(torso))

    def forward(self, obs: Any) -> Predictions:
        """All predictions for observations [N, ...]."""
        torso = self._torso(obs)
        after = self._after_actions(torso)
        parts = {name: head(after) for name, head in self.heads.items()}
        return Predictions(policy=self.policy_head(torso), y=self.y(torso), **parts)

    def _torso(self, obs: Any) -> Tensor:
        x: Tensor = self.first_bias
        for part, table, is_index in zip(self.features(obs), self.first, self.features.is_index, strict=True):
            x = x + (nn.functional.embedding(part, table).sum(1) if is_index else part @ table)
        for layer in self.layers:
            x = layer(torch.relu(x))
        return x

    def _after_actions(self, torso: Tensor) -> Tensor:
        """The LSTM's output after each action, [N, A, 128]."""
        cell = self.root(torso)
        root = Memory(torch.tanh(cell), cell)
        # The action is one-hot, so that its share of the gates is a column of the weights.
        of_action, of_root = self.step.weight.split([self.actions, WIDTH], 1)
        gates = (root.hidden @ of_root.t())[:, None] + (of_action.t() + self.step.bias)
        return lstm(gates, root.cell[:, None]).hidden


def _cut_normal(rows: int, columns: int, deviation: float, generator: torch.Generator) -> Tensor:
    """[rows, columns], normal, drawn again beyond two deviations."""
    values = torch.empty(rows, columns)
    return nn.init.trunc_normal_(values, std=deviation, a=-2 * deviation, b=2 * deviation, generator=generator)
