"""Networks of value-based agents: towers of ReLU layers, dueling heads, distributions over returns, and target copies.

Observations become parts as in :mod:`mlbits.agents.networks.policy_value`; images pass through convolutions. Weights
start uniform on +-1 / sqrt(fan in), as Mnih et al. (2015) and torch's linear layers have them.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlbits.agents.kernels.flat_adam import FlatAdam, flatten
from mlbits.agents.networks.policy_value import Features


class ReluTower(nn.Module):
    """ReLU layers over the parts of an observation, and linear heads that share them.

    Its backward pass is written out: autograd costs as much again as the products of a small network (100 us of 200 for
    two layers of 64 and 32 rows).

    Args:
        features: tells the parts' widths (its weights are not this tower's).
        hidden: widths of the hidden layers, at least one.
        heads: widths of the heads.
        generator: the source of initial weights.
        extra: width of a further vector that the first layer takes (an action, say).
    """

    def __init__(
        self,
        features: Features,
        hidden: Sequence[int],
        heads: Sequence[int],
        generator: torch.Generator,
        extra: int = 0,
    ) -> None:
        super().__init__()
        self.is_index = [*features.is_index, *([False] if extra else [])]
        widths = [*features.widths, *([extra] if extra else [])]
        # Of an index only one entry of its vector is not zero: the others do not count as inputs.
        fan_in = sum(features.entries) + extra
        self.first = nn.ParameterList(uniform_weight(width, hidden[0], fan_in, generator) for width in widths)
        self.first_bias = nn.Parameter(uniform_weight(1, hidden[0], fan_in, generator)[0])
        pairs = list(itertools.pairwise(hidden))
        self.weights = nn.ParameterList(uniform_weight(b, a, a, generator) for a, b in pairs)
        self.biases = nn.ParameterList(uniform_weight(1, b, a, generator)[0] for a, b in pairs)
        last = hidden[-1]
        self.head_weights = nn.ParameterList(uniform_weight(out, last, last, generator) for out in heads)
        self.head_biases = nn.ParameterList(uniform_weight(1, out, last, generator)[0] for out in heads)
        # Plain tuples of the same parameters: looking them up through the module costs as much as a small product.
        self._tables, self._bias = (*self.first,), self.first_bias
        self._layers = tuple(zip(self.weights, self.biases, strict=True))
        self._heads = tuple(zip(self.head_weights, self.head_biases, strict=True))

    def forward(self, parts: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Each head's outputs [N, out] for the parts of N observations, and the activations for :meth:`backward`."""
        total: Tensor = self._bias
        for part, table, is_index in zip(parts, self._tables, self.is_index, strict=True):
            if is_index:
                rows = F.embedding(part, table)
                total = total + (rows.squeeze(1) if rows.shape[1] == 1 else rows.sum(1))
            else:
                total = torch.addmm(total, part, table)
        hidden = [torch.relu(total)]
        for weight, bias in self._layers:
            hidden.append(F.linear(hidden[-1], weight, bias).relu_())
        return [F.linear(hidden[-1], weight, bias) for weight, bias in self._heads], hidden

    def backward(self, parts: Sequence[Tensor], hidden: Sequence[Tensor], grads: Sequence[Tensor]) -> Tensor:
        """Write each parameter's gradient over what its ``grad`` held; to be called under ``torch.no_grad``.

        Args:
            parts: what :meth:`forward` was given.
            hidden: what it returned.
            grads: of each head's outputs, [N, out].

        Returns:
            The gradient of the first pre-activation, [N, h], from which those of the parts follow (``part_gradient``).
        """
        back = torch.zeros_like(hidden[-1])
        for (weight, bias), grad in zip(self._heads, grads, strict=True):
            _write_gradient(weight, bias, hidden[-1], grad)
            back.addmm_(grad, weight)
        for k in range(len(self._layers) - 1, -1, -1):
            weight, bias = self._layers[k]
            torch.ops.aten.threshold_backward.grad_input(back, hidden[k + 1], 0, grad_input=back)
            _write_gradient(weight, bias, hidden[k], back)
            back = back @ weight
        torch.ops.aten.threshold_backward.grad_input(back, hidden[0], 0, grad_input=back)
        for part, table, is_index in zip(parts, self._tables, self.is_index, strict=True):
            assert table.grad is not None
            if is_index:
                table.grad.zero_()
                for column in part.unbind(1):
                    table.grad.index_add_(0, column, back)
            else:
                torch.mm(part.t(), back, out=table.grad)
        torch.sum(back, 0, out=self._bias.grad)
        return back

    def part_gradient(self, which: int, back: Tensor) -> Tensor:
        """The gradient of a part that is no index, [N, width], from what :meth:`backward` returned."""
        return back @ self._tables[which].t()


def _write_gradient(weight: Tensor, bias: Tensor, inputs: Tensor, grad: Tensor) -> None:
    torch.mm(grad.t(), inputs, out=weight.grad)
    torch.sum(grad, 0, out=bias.grad)


def uniform_weight(rows: int, columns: int, fan_in: int, generator: torch.Generator) -> Tensor:
    """A matrix [rows, columns] of numbers uniform on +-1 / sqrt(fan_in)."""
    return torch.empty(rows, columns).uniform_(-1, 1, generator=generator).div_(math.sqrt(max(1, fan_in)))


class QNetwork(nn.Module):
    """Q of every action, or the atoms of its distribution.

    Args:
        space: observation space of a seat.
        num_actions: number of actions A.
        hidden: widths of the hidden layers.
        generator: the source of initial weights.
        atoms: numbers an action, K; 1 for plain Q.
        dueling: whether Q = V + advantage - mean advantage, from two heads (Wang et al. 2016, equation 9).
    """

    def __init__(
        self,
        space: gym.Space[Any],
        num_actions: int,
        hidden: Sequence[int],
        generator: torch.Generator,
        *,
        atoms: int = 1,
        dueling: bool = False,
    ) -> None:
        super().__init__()
        self.features = Features(space, generator)
        self.num_actions, self.atoms, self.dueling = num_actions, atoms, dueling
        self._convolves = any(True for _ in self.features.parameters())
        heads = [num_actions * atoms, *([atoms] if dueling else [])]
        self.tower = ReluTower(self.features, hidden, heads, generator)

    def forward(self, obs: Any) -> Tensor:
        """[N, A], or [N, A, K] with atoms."""
        # Calls through modules cost as much as a small product, here and below.
        return self._combine(self.tower.forward(self.features.forward(obs))[0])

    @torch.no_grad()
    def forward_backward(self, obs: Any, gradient: Callable[[Tensor], Tensor]) -> Tensor:
        """One pass forth and back, which writes every parameter's ``grad``.

        Args:
            obs: [N, ...].
            gradient: gives the loss's gradient for the output, both [N, A] or [N, A, K].

        Returns:
            The output.
        """
        with torch.set_grad_enabled(self._convolves):
            parts = self.features.forward(obs)
        heads, hidden = self.tower.forward(parts)
        out = self._combine(heads)
        grad = gradient(out)
        if self.dueling:
            total = grad.view(-1, self.num_actions, self.atoms).sum(1)
            shared = (total / self.num_actions).unsqueeze(1)
            grads = [(grad.view(-1, self.num_actions, self.atoms) - shared).flatten(1), total]
        else:
            grads = [grad.flatten(1)]
        back = self.tower.backward(parts, hidden, grads)
        if self._convolves:
            for parameter in self.features.parameters():
                parameter.grad.zero_()  # type: ignore[union-attr]
            for k, part in enumerate(parts):
                if part.requires_grad:
                    part.backward(self.tower.part_gradient(k, back))
        return out

    def _combine(self, heads: list[Tensor]) -> Tensor:
        if self.atoms == 1 and not self.dueling:
            return heads[0]
        out = heads[0].view(-1, self.num_actions, self.atoms)
        if self.dueling:
            out = heads[1].unsqueeze(1) + out - out.mean(1, keepdim=True)
        return out if self.atoms > 1 else out.squeeze(-1)


class TargetNetwork:
    """A copy of a network that follows it slowly.

    Args:
        network: what is copied; all its parameters belong to ``optimizer``, in order.
        optimizer: knows the parameters as one vector.

    Attributes:
        network: the copy.
        flat: its parameters as one vector.
    """

    def __init__(self, network: nn.Module, optimizer: FlatAdam) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.flat = flatten(self.network.parameters())
        self._source = optimizer

    def __deepcopy__(self, memo: dict[int, Any]) -> TargetNetwork:
        made = copy.copy(self)
        made.network = copy.deepcopy(self.network, memo)
        made.flat = flatten(made.network.parameters())  # copied parameters are views of nothing
        made._source = copy.deepcopy(self._source, memo)
        return made

    def __call__(self, *inputs: Any) -> Any:
        """The copy's output."""
        return self.network(*inputs)

    @torch.no_grad()
    def follow(self, tau: float = 1.0) -> None:
        """Go a share ``tau`` of the way to the network; 1 makes them equal."""
        if tau == 1.0:
            self.flat.copy_(self._source.flat)
        else:
            self.flat.lerp_(self._source.flat, tau)
