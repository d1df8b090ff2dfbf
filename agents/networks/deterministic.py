"""Actor and critics of continuous control: a = mu(s) within [-1, 1], and Q(s, a) with the action in the first layer.

All vectors of an observation, and the action, enter the first layer as one, so that it is one product; index parts are
looked up. Each network has its own convolutions where the observation is an image (two critics share theirs).

Everything is to be called under ``torch.no_grad``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import torch
from gymnasium import spaces
from torch import Tensor, nn

from mlbits.agents.kernels.relu_mlp_passes import Precision, WideTower
from mlbits.agents.networks.policy_value import Features

_past_tanh = torch.ops.aten.tanh_backward.default


class Inputs(nn.Module):
    """Parts of an observation with its vectors, and an action after them, put together: indices first, then those.

    Args:
        space: observation space of a seat.
        action_size: numbers of the action; 0 for none.
        generator: the source of initial weights.

    Attributes:
        is_index: for each part, whether it holds indices.
        widths: for each part, its vector's length, or the number of rows of its table.
        action: where in the vector the action stands.
    """

    def __init__(self, space: gym.Space[Any], action_size: int, generator: torch.Generator) -> None:
        super().__init__()
        self.features = Features(space, generator)
        self._index = [k for k, is_index in enumerate(self.features.is_index) if is_index]
        self._vector = [k for k, is_index in enumerate(self.features.is_index) if not is_index]
        lengths = [self.features.widths[k] for k in self._vector]
        self._lengths, self.action = lengths, slice(sum(lengths), sum(lengths) + action_size)
        joined = [self.action.stop] if self.action.stop else []
        self.widths = [*(self.features.widths[k] for k in self._index), *joined]
        self.is_index = [*(True for _ in self._index), *(False for _ in joined)]
        self._convolves = any(True for _ in self.features.parameters())
        # The most common observation by far, which is its own only part.
        self._plain = isinstance(space, spaces.Box) and len(space.shape) == 1 and space.dtype.kind == "f"

    def forward(self, obs: Any) -> list[Tensor]:
        """The observation's parts, without an action."""
        if self._plain:
            return [obs if obs.dtype == torch.float32 else obs.float()]
        if not self._convolves:
            return list(self.features.forward(obs))
        with torch.enable_grad():
            return list(self.features.forward(obs))

    def join(self, parts: Sequence[Tensor], action: Tensor | None = None) -> list[Tensor]:
        """What a tower takes: those parts put together, with the action [N, k]."""
        if self._plain:
            return [parts[0] if action is None else torch.cat([parts[0], action], 1)]
        vectors = [parts[k].detach() for k in self._vector] + ([] if action is None else [action])
        joined = vectors if len(vectors) < 2 else [torch.cat(vectors, 1)]
        return [*(parts[k] for k in self._index), *joined]

    def backward(self, parts: Sequence[Tensor], tower: WideTower, *, add: bool = False) -> None:
        """Write, or add to, the convolutions' gradients, after a tower's backward pass over ``parts``."""
        if not self._convolves:
            return
        if not add:
            for parameter in self.features.parameters():
                assert parameter.grad is not None
                parameter.grad.zero_()
        start = 0
        for k, length in zip(self._vector, self._lengths, strict=True):
            if parts[k].requires_grad:
                columns = slice(start, start + length)
                parts[k].backward(tower.part_gradient(columns), retain_graph=True)
            start += length


class Actor(nn.Module):
    """A deterministic policy.

    Args:
        space: observation space of a seat.
        action_size: numbers of the action, k.
        hidden: widths of the hidden layers.
        generator: the source of initial weights.
        precision: of the products between hidden layers.
    """

    def __init__(
        self,
        space: gym.Space[Any],
        action_size: int,
        hidden: Sequence[int],
        generator: torch.Generator,
        precision: Precision = "float32",
    ) -> None:
        super().__init__()
        self.inputs = Inputs(space, 0, generator)
        self.tower = WideTower(self.inputs.is_index, self.inputs.widths, hidden, action_size, generator, precision)
        self._both = self.inputs, self.tower  # found at once, which through the module they are not

    def forward(self, obs: Any) -> Tensor:
        """Actions in [-1, 1], [N, k]."""
        inputs, tower = self._both
        return tower.forward(inputs.join(inputs.forward(obs))).tanh_()

    def record(self, obs: Any) -> Tensor:
        """The same in the products' precision, for learning."""
        inputs, tower = self._both
        return tower.record(inputs.join(inputs.forward(obs))).tanh_()

    def forward_backward(self, obs: Any, gradient: Callable[[Tensor], Tensor]) -> Tensor:
        """One pass forth and back, which writes every parameter's ``grad``.

        Args:
            obs: [N, ...].
            gradient: gives the loss's gradient for the actions, both [N, k].

        Returns:
            The actions.
        """
        inputs, tower = self._both
        parts = inputs.forward(obs)
        action = tower.record(inputs.join(parts)).tanh_()
        tower.backward(_past_tanh(gradient(action), action))
        inputs.backward(parts, tower)
        return action


class Critics(nn.Module):
    """One or two critics of state and action.

    Args:
        space: observation space of a seat.
        action_size: numbers of the action, k.
        hidden: widths of the hidden layers.
        generator: the source of initial weights.
        count: how many critics.
        atoms: numbers that each puts out; 1 for plain Q.
        precision: of the products between hidden layers.
    """

    def __init__(
        self,
        space: gym.Space[Any],
        action_size: int,
        hidden: Sequence[int],
        generator: torch.Generator,
        *,
        count: int = 1,
        atoms: int = 1,
        precision: Precision = "float32",
    ) -> None:
        super().__init__()
        self.inputs = Inputs(space, action_size, generator)
        self.towers = nn.ModuleList(
            WideTower(self.inputs.is_index, self.inputs.widths, hidden, atoms, generator, precision)
            for _ in range(count)
        )
        self._all: tuple[Inputs, list[WideTower]] = self.inputs, [*self.towers]
        for tower in self._all[1]:
            tower.workspace = self._all[1][0].workspace

    def record(self, obs: Any, action: Tensor) -> list[Tensor]:
        """Each critic's output, [N, atoms], in the products' precision."""
        inputs, towers = self._all
        parts = inputs.join(inputs.forward(obs), action)
        return [tower.record(parts) for tower in towers]

    def forward_backward(self, obs: Any, action: Tensor, gradient: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """One pass forth and back, which writes every parameter's ``grad``.

        Args:
            obs: [N, ...].
            action: [N, k].
            gradient: gives the loss's gradient for a critic's output, both [N, atoms].

        Returns:
            Each critic's output.
        """
        inputs, towers = self._all
        parts = inputs.forward(obs)
        joined = inputs.join(parts, action)
        outs: list[Tensor] = []
        for tower in towers:  # one after the other, since they share their memory
            outs.append(tower.record(joined))
            tower.backward(gradient(outs[-1]))
            inputs.backward(parts, tower, add=len(outs) > 1)
        return outs

    def action_gradient(self, obs: Any, action: Tensor, gradient: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """The first critic's output [N, atoms], and through it the action's gradient [N, k]; no parameter's."""
        inputs, towers = self._all
        out = towers[0].record(inputs.join(inputs.forward(obs), action))
        return out, towers[0].input_gradient(gradient(out), inputs.action)
