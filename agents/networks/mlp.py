"""The MLP of all agents: an input layer that sums over the parts of an observation, hidden layers, and a linear head.

Weights are stored as [in, out], because on a CPU the product for their gradient is then 6 times as fast for narrow
inputs; the head's are [out, in]. Indices are looked up in the first layer's table: one-hot vectors are never built.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlbits.agents import kernels
from mlbits.agents.kernels.bfloat16_mlp import BFloat16MLP
from mlbits.agents.kernels.folded_tanh import FEWEST_ROWS, folded_tanh
from mlbits.agents.kernels.layers import Layers
from mlbits.agents.networks.initial_weights import orthogonal, uniform

Precision = Literal["float32", "bfloat16"]
Activation = Literal["tanh", "relu", "elu", "gelu", "silu"]
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh_, "relu": torch.relu_, "elu": F.elu, "gelu": F.gelu, "silu": F.silu,
}  # fmt: skip


class Inputs(Protocol):
    """What an MLP reads of the features that it stands on; see :class:`~mlbits.agents.networks.features.Features`."""

    is_index: list[bool]
    widths: list[int]
    fan_in: int


class MLP(nn.Module):
    """Hidden layers with one activation, and a linear head.

    Initial weights: "orthogonal" with gain sqrt(2) and biases of 0 (detail 2 of Huang et al. 2022), or all "uniform"
    within +-1 / sqrt(fan in) (Mnih et al. 2015; the default of torch's linear layers).

    Args:
        features: for the widths of the input parts (their weights do not become part of this module).
        hidden: widths of the hidden layers, at least one.
        out: width of the head.
        generator: the source of initial weights.
        activation: "tanh", "relu", "elu", "gelu" or "silu".
        head_gain: gain of the head's initial weights, if they are orthogonal.
        layer_norm: whether each hidden layer's pre-activation is normalised, with a learned gain and offset (Ba et al.
            2016).
        initial: how weights are drawn; None for "orthogonal" with "tanh" and "uniform" with any other activation.

    Attributes:
        is_index: for each input part, whether it holds indices.
        rounds: whether bfloat16 has a kernel, which takes at least two ReLU layers, not normalised, and a single vector
            as input.
        layers: the parameters.
    """

    def __init__(
        self,
        features: Inputs,
        hidden: Sequence[int],
        out: int,
        generator: torch.Generator,
        *,
        activation: Activation,
        head_gain: float = 1.0,
        layer_norm: bool = False,
        initial: Literal["orthogonal", "uniform"] | None = None,
    ) -> None:
        super().__init__()
        self.is_index, self.activation = tuple(features.is_index), activation
        pairs, last = list(itertools.pairwise(hidden)), hidden[-1]
        if (initial or ("orthogonal" if activation == "tanh" else "uniform")) == "orthogonal":
            gain = math.sqrt(2)
            first = orthogonal(sum(features.widths), hidden[0], gain, generator).split(features.widths)
            weights = [orthogonal(a, b, gain, generator) for a, b in pairs]
            biases = [torch.zeros(size) for size in hidden]
            head, head_bias = orthogonal(out, last, head_gain, generator), torch.zeros(out)
        else:
            fan_in = features.fan_in
            first = tuple(uniform(width, hidden[0], fan_in, generator) for width in features.widths)
            biases = [uniform(1, hidden[0], fan_in, generator)[0]]
            weights = [uniform(b, a, a, generator).t().contiguous() for a, b in pairs]
            biases += [uniform(1, b, a, generator)[0] for a, b in pairs]
            head, head_bias = uniform(out, last, last, generator), uniform(1, out, last, generator)[0]
        self.first = nn.ParameterList(first)
        self.weights = nn.ParameterList(weights)
        self.biases = nn.ParameterList(biases)
        self.head, self.head_bias = nn.Parameter(head), nn.Parameter(head_bias)
        # A plain tuple of the same parameters: attribute access on a module costs as much as a small product.
        self.layers = Layers(
            self.is_index, (*self.first,), (*self.weights,), (*self.biases,), self.head, self.head_bias
        )
        # The gains and offsets of layer normalisation; without it there are none.
        self.gains = nn.ParameterList(torch.ones(size) for size in hidden if layer_norm)
        self.offsets = nn.ParameterList(torch.zeros(size) for size in hidden if layer_norm)
        self._norms = [(*pair,) for pair in zip(self.gains, self.offsets, strict=True)]
        fast = kernels.enabled() and not layer_norm
        self.rounds = fast and activation == "relu" and len(hidden) > 1 and self.is_index == (False,)
        self._folds = fast and activation == "tanh"
        self._in_bfloat16: BFloat16MLP | None = None

    def __getstate__(self) -> dict[str, Any]:
        """State for copying: without the kernel, which a copy makes for itself."""
        return {**self.__dict__, "_in_bfloat16": None}

    def forward(self, parts: Sequence[Tensor], precision: Precision = "float32") -> Tensor:
        """Outputs [N, out].

        Args:
            parts: of N observations, from the features.
            precision: of the products between hidden layers; "bfloat16" has an effect only with layer normalisation, or
                if :attr:`rounds` is True.
        """
        if precision == "bfloat16" and self.rounds:
            return self._bfloat16_kernel()(parts[0])
        layers = self.layers
        folds = self._folds and parts[0].shape[0] >= FEWEST_ROWS and parts[0].is_cpu
        if folds and not torch.is_autocast_enabled("cpu"):
            return folded_tanh(self._first_layer(parts, 2.0), layers)
        activate = _ACTIVATIONS[self.activation]
        if self._norms:
            return self._normalised(parts, activate, precision)
        hidden = activate(self._first_layer(parts))
        for weight, bias in zip(layers.weights, layers.biases[1:], strict=True):
            hidden = activate(torch.addmm(bias, hidden, weight))
        return F.linear(hidden, layers.head, layers.head_bias)

    def _normalised(
        self, parts: Sequence[Tensor], activate: Callable[[Tensor], Tensor], precision: Precision
    ) -> Tensor:
        """:meth:`forward` with layer normalisation."""
        layers, dtype = self.layers, torch.bfloat16 if precision == "bfloat16" else torch.float32
        hidden = self._first_layer(parts)
        for k, (gain, offset) in enumerate(self._norms):
            if k:
                weight, bias = layers.weights[k - 1].to(dtype), layers.biases[k].to(dtype)
                hidden = torch.addmm(bias, hidden.to(dtype), weight)
            hidden = activate(F.layer_norm(hidden, gain.shape, gain, offset))
        return F.linear(hidden.float(), layers.head, layers.head_bias)

    def _first_layer(self, parts: Sequence[Tensor], scale: float = 1.0) -> Tensor:
        """The first layer's pre-activation [N, h], times ``scale``."""
        bias = self.layers.biases[0]
        total: Tensor = bias if scale == 1.0 else scale * bias
        for part, table, is_index in zip(parts, self.layers.tables, self.is_index, strict=True):
            weight = table if scale == 1.0 else scale * table
            if is_index:
                rows = F.embedding(part, weight)
                total = total + (rows.squeeze(1) if rows.shape[1] == 1 else rows.sum(1))
            else:
                total = torch.addmm(total, part, weight)
        return total

    def _bfloat16_kernel(self) -> BFloat16MLP:
        kernel = self._in_bfloat16
        if kernel is None or not kernel.is_current():
            kernel = self._in_bfloat16 = BFloat16MLP(self.layers)
        return kernel
