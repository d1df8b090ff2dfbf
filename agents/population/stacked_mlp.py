"""Many MLPs of one shape, each with its own weights, as the rows of one matrix: all outputs by one batched product.

A row holds, layer by layer, the weights [in, out] and then the biases [out]. ``StackedMLP`` is the plain form, for any
device and for gradients; ``stacked_mlp_kernel`` is a faster form of it for deciding on a CPU.

Example:
    >>> form = StackedMLP((2, 3, 1), "tanh")
    >>> weights = torch.stack([form.initial(torch.Generator().manual_seed(k)) for k in range(5)])
    >>> tuple(weights.shape), tuple(form.outputs(weights, torch.zeros(5, 7, 2)).shape)
    ((5, 13), (5, 7, 1))
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from mlbits.agents.agent import AgentError
from mlbits.agents.networks.initial_weights import orthogonal, uniform

Activation = Literal["tanh", "relu"]


class StackedMLP:
    """The form of an MLP: widths and activation, without weights.

    Args:
        widths: of the input, the hidden layers and the output; at least two.
        activation: of the hidden layers.

    Attributes:
        size: number of weights and biases, D.
    """

    def __init__(self, widths: Sequence[int], activation: Activation) -> None:
        self.widths, self.activation = tuple(widths), activation
        self.shapes = list(itertools.pairwise(self.widths))
        self.size = sum(inputs * outputs + outputs for inputs, outputs in self.shapes)

    def initial(self, generator: torch.Generator, head_gain: float = 1.0) -> Tensor:
        """Initial weights of one MLP, [D]: as all of our MLPs have them.

        Args:
            generator: the source of draws.
            head_gain: gain of the last layer's weights; its biases are 0 with tanh.
        """
        parts = []
        for layer, (inputs, outputs) in enumerate(self.shapes):
            last = layer == len(self.shapes) - 1
            if self.activation == "tanh":
                gain = head_gain if last else math.sqrt(2)
                parts += [orthogonal(inputs, outputs, gain, generator), torch.zeros(outputs)]
            else:
                gain = head_gain if last else 1.0
                parts += [gain * uniform(rows, outputs, inputs, generator) for rows in (inputs, 1)]
        return torch.cat([part.reshape(-1) for part in parts])

    def outputs(self, weights: Tensor, inputs: Tensor) -> Tensor:
        """What each MLP makes of its own inputs, [N, E, out].

        Args:
            weights: of N MLPs, [N, D].
            inputs: [N, E, in], or [E, in] for the same inputs to all.

        Raises:
            AgentError: if the shapes do not fit.
        """
        count, size = weights.shape
        if size != self.size or inputs.shape[-1] != self.widths[0]:
            raise AgentError(
                f"weights: got {tuple(weights.shape)} for inputs {tuple(inputs.shape)}; wanted [N, {self.size}] and "
                f"[N, E, {self.widths[0]}]"
            )
        hidden, at = inputs.expand(count, *inputs.shape[-2:]), 0
        for layer, (before, after) in enumerate(self.shapes):
            matrix = weights[:, at : at + before * after].view(count, before, after)
            bias = weights[:, at + before * after : at + (before + 1) * after].view(count, 1, after)
            at += (before + 1) * after
            hidden = torch.baddbmm(bias, hidden, matrix)
            if layer < len(self.shapes) - 1:
                hidden = torch.tanh(hidden) if self.activation == "tanh" else torch.relu(hidden)
        return hidden
