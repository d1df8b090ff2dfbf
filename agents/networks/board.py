"""A network for positions of board games: residual blocks, a policy head and a value head.

He, Zhang, Ren and Sun, "Identity mappings in deep residual networks" (2016), as used by Silver et al. (2017). Two kinds
of blocks: "dense" ones see the whole board at once, which on a CPU is by far the cheapest for small boards; "conv" ones
are 3x3 convolutions. There is no batch normalisation, so that acting and learning compute the same; instead each block
starts as the identity (its last layer's weights are 0: Zhang, Dauphin and Ma, "Fixup initialization", 2019).
"""

from __future__ import annotations

import copy
import math
from typing import Any, Literal

import gymnasium as gym
import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor, nn

from mlbits.agents.agent import AgentError
from mlbits.agents.networks.features import Features
from mlbits.agents.networks.initial_weights import orthogonal
from mlbits.agents.networks.mlp import MLP

Kind = Literal["dense", "conv"]
_VALUE_WIDTH = 64


class BoardNetwork(nn.Module):
    """Logits and values of observations.

    Args:
        space: one seat's observations; planes [C, rows, columns] for "conv", any for "dense".
        num_actions: number of actions A.
        kind: "dense" or "conv".
        width: units of a dense layer, or channels.
        blocks: number of residual blocks, of two layers each.
        generator: the source of initial weights.

    Raises:
        AgentError: if "conv" is asked for and observations are not planes.
    """

    def __init__(
        self,
        space: gym.Space[Any],
        num_actions: int,
        *,
        kind: Kind,
        width: int,
        blocks: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.planes = space.shape if isinstance(space, spaces.Box) and len(space.shape) == 3 else None
        if kind == "conv" and self.planes is None:
            raise AgentError(f"network: got 'conv' for the observation space {space}; wanted planes [C, rows, columns]")
        self.kind = kind
        policy_in = value_in = width
        if kind == "conv":
            channels, rows, columns = self.planes  # type: ignore[misc]
            policy_in, value_in = 4 * rows * columns, 2 * rows * columns
            self.stem: Any = _layer(width, channels * 9, math.sqrt(2), generator)
        elif self.planes is not None:
            self.stem = _layer(width, math.prod(self.planes), math.sqrt(2), generator)
        else:
            self.features = Features(space, generator)
            self.stem = MLP(self.features, (width,), width, generator, activation="relu")
        inner = width * 9 if kind == "conv" else width
        self.blocks = nn.ModuleList(
            _layer(width, inner, gain, generator) for _ in range(blocks) for gain in (math.sqrt(2), 0.0)
        )
        self.to_policy = _layer(4, width, math.sqrt(2), generator) if kind == "conv" else None
        self.to_value = _layer(2, width, math.sqrt(2), generator) if kind == "conv" else None
        self.policy = _layer(num_actions, policy_in, 0.01, generator)
        self.value_hidden = _layer(_VALUE_WIDTH, value_in, math.sqrt(2), generator)
        self.value = _layer(1, _VALUE_WIDTH, 0.01, generator)

    def forward(self, obs: Any) -> tuple[Tensor, Tensor]:
        """Logits [N, A] and values [N] in -1..1."""
        if self.planes is None:
            hidden = F.relu(self.stem(self.features(obs)))
        else:
            hidden = F.relu(self._layer(self.stem, self._planes(obs)))
        for first, second in zip(self.blocks[::2], self.blocks[1::2], strict=True):
            hidden = F.relu(hidden + self._layer(second, F.relu(self._layer(first, hidden))))
        seen, judged = hidden, hidden
        if self.to_policy is not None and self.to_value is not None:
            seen = F.relu(F.conv2d(hidden, *_kernel(self.to_policy, 1))).flatten(1)
            judged = F.relu(F.conv2d(hidden, *_kernel(self.to_value, 1))).flatten(1)
        with torch.autocast(seen.device.type, enabled=False):  # the heads are computed in float32
            seen, judged = seen.float(), judged.float()
            value = self.value(F.relu(self.value_hidden(judged))).squeeze(-1)
            return self.policy(seen), torch.tanh(value)

    def in_bfloat16(self) -> BoardNetwork:
        """A copy whose trunk computes in bfloat16, its heads in float32; all in float32 if it does not see planes."""
        other = copy.deepcopy(self)
        if self.planes is None:
            return other
        for part in (other.stem, other.blocks, other.to_policy, other.to_value):
            if part is not None:
                part.to(torch.bfloat16)
        return other

    def _planes(self, obs: Tensor) -> Tensor:
        planes = obs.to(self.stem.weight.dtype)
        # On a CPU, convolutions are twice as fast with the channels last in memory.
        return planes.contiguous(memory_format=torch.channels_last) if self.kind == "conv" else planes.flatten(1)

    def _layer(self, layer: Any, hidden: Tensor) -> Tensor:
        if self.kind == "dense":
            out: Tensor = layer(hidden)
            return out
        return F.conv2d(hidden, *_kernel(layer, 3), padding=1)


def _kernel(layer: Any, side: int) -> tuple[Tensor, Tensor]:
    """A layer's weights as a convolution's: inputs are ordered by place, then channel."""
    return layer.weight.view(len(layer.weight), side, side, -1).permute(0, 3, 1, 2), layer.bias


def _layer(out: int, size: int, gain: float, generator: torch.Generator) -> nn.Linear:
    layer = nn.utils.skip_init(nn.Linear, size, out)  # torch's own initialisation would draw from the global generator
    layer.weight.data = orthogonal(out, size, gain, generator) if gain > 0 else torch.zeros(out, size)
    layer.bias.data = torch.zeros(out)
    return layer
