"""ReLU layers with their passes written out, for networks wide enough that the products are what takes the time.

Each product is done once: a forward pass leaves what it computed in memory that is used again and again, for a backward
pass to read; and there is a backward pass to the inputs alone, which an actor's loss needs of a critic (autograd would
compute the critic's weights' gradients too). With ``precision`` "bfloat16" the products between hidden layers take
bfloat16 and add up in float32; the weights, what is learned of them, the first layer and the head are float32.

Weights start uniform on +-1 / sqrt(fan in), as torch's linear layers have them.

Example:
    >>> import torch
    >>> tower = WideTower([False], [3], (400, 300), 1, torch.Generator().manual_seed(0))
    >>> with torch.no_grad():
    ...     out = tower.record([torch.ones(2, 3)])
    ...     tower.input_gradient(torch.ones(2, 1), slice(1, 3)).shape
    torch.Size([2, 2])
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlbits.agents.kernels import bfloat16
from mlbits.agents.kernels.bfloat16 import Block
from mlbits.agents.networks.q_network import uniform_weight

Precision = Literal["float32", "bfloat16"]
_past_relu = torch.ops.aten.threshold_backward.grad_input


class Half(NamedTuple):
    """A weight and its gradient in bfloat16, which an optimiser rounds and reads.

    Attributes:
        weight: of the same shape as the weight.
        grad: likewise; None where there is none.
    """

    weight: Tensor
    grad: Tensor | None


class WideTower(nn.Module):
    """ReLU layers and a linear head over the parts of an observation.

    Args:
        is_index: for each part, whether it holds indices into a table; at most the last is a vector.
        widths: for each part, its vector's length, or the number of rows of its table.
        hidden: widths of the hidden layers, at least one.
        out: width of the head.
        generator: the source of initial weights.
        precision: of the products between hidden layers, in ``record`` and the passes back.

    Attributes:
        rounded: whether those products are in bfloat16.
        halves: the weights between layers and their gradients in bfloat16, if an optimiser keeps them.
        workspace: memory of the passes; towers that are not under way at the same time may share one.
    """

    def __init__(
        self,
        is_index: Sequence[bool],
        widths: Sequence[int],
        hidden: Sequence[int],
        out: int,
        generator: torch.Generator,
        precision: Precision = "float32",
    ) -> None:
        super().__init__()
        self.is_index, self.rounded = list(is_index), precision == "bfloat16" and len(hidden) > 1
        # Of an index only one entry of its vector is not zero: the others do not count as inputs.
        fan_in = sum(1 if index else width for index, width in zip(is_index, widths, strict=True))
        self.first = nn.ParameterList(uniform_weight(width, hidden[0], fan_in, generator) for width in widths)
        layers = list(itertools.pairwise([fan_in, *hidden]))
        self.biases = nn.ParameterList(uniform_weight(1, b, a, generator)[0] for a, b in layers)
        self.weights = nn.ParameterList(uniform_weight(a, b, a, generator) for a, b in layers[1:])
        self.head = nn.Parameter(uniform_weight(out, hidden[-1], hidden[-1], generator))
        self.head_bias = nn.Parameter(uniform_weight(1, out, hidden[-1], generator)[0])
        self.halves: list[Half] | None = None
        self.workspace = Workspace()
        # Plain tuples of the same parameters: looking them up through the module costs as much as a small product.
        self._tables, self._weights, self._biases = (*self.first,), (*self.weights,), (*self.biases,)
        self._heads = self.head, self.head_bias
        self._passes: _Passes | _RoundedPasses | None = None

    def __getstate__(self) -> dict[str, Any]:
        """For copies, which get memory of their own."""
        return {**self.__dict__, "_passes": None, "halves": None}

    def forward(self, parts: Sequence[Tensor]) -> Tensor:
        """Outputs [N, out] for the parts of N observations, in float32; for acting."""
        hidden = torch.relu(self.enter(parts))
        for weight, bias in zip(self._weights, self._biases[1:], strict=True):
            hidden = torch.relu(torch.addmm(bias, hidden, weight))
        return F.linear(hidden, *self._heads)

    def record(self, parts: list[Tensor]) -> Tensor:
        """Outputs [N, out] for the parts of N observations, valid until the next call, as what a pass back reads is.

        To be called under ``torch.no_grad``, as the passes back are.
        """
        passes, rows = self._passes, parts[0].shape[0]
        if passes is None or passes.rows != rows:
            passes = self._passes = (_RoundedPasses if self.rounded else _Passes)(self, rows)
        self.workspace.owner = self
        return passes.forward(parts)

    def backward(self, grad: Tensor) -> None:
        """Write each parameter's gradient over what its ``grad`` held, given that of the outputs, [N, out]."""
        self._recorded().backward(grad)

    def input_gradient(self, grad: Tensor, columns: slice) -> Tensor:
        """The gradient of some columns of the vector, [N, width], given that of the outputs; no parameter's.

        Valid until the next call.
        """
        return self._recorded().input_gradient(grad, columns)

    def part_gradient(self, columns: slice) -> Tensor:
        """The same after ``backward``."""
        return self._recorded().entered() @ self._tables[-1].detach()[columns].t()

    def enter(self, parts: Sequence[Tensor], out: Tensor | None = None) -> Tensor:
        """The first layer before its ReLU, [N, h], in ``out`` where that is given."""
        total: Tensor = self._biases[0]
        for part, table, is_index in zip(parts, self._tables, self.is_index, strict=True):
            if is_index:
                total = total + F.embedding(part, table).sum(1)
            else:
                total = torch.addmm(total, part, table, out=out)
        return total if out is None or total is out else out.copy_(total)

    def pull_first(self, parts: Sequence[Tensor], back: Tensor) -> None:
        """Write the gradients of the first layer, given that of what ``enter`` returned."""
        torch.sum(back, 0, out=self._biases[0].grad)
        for part, table, is_index in zip(parts, self._tables, self.is_index, strict=True):
            assert table.grad is not None
            if is_index:
                table.grad.zero_()
                for column in part.unbind(1):
                    table.grad.index_add_(0, column, back)
            else:
                torch.mm(part.t(), back, out=table.grad)

    def _recorded(self) -> _Passes | _RoundedPasses:
        if self._passes is None or self.workspace.owner is not self:
            raise RuntimeError(
                "a pass back: another tower has recorded in the same memory since; wanted a record first"
            )
        return self._passes


class Workspace:
    """Memory for passes, by name, that towers may share: what stays in the cache is read and written faster.

    Attributes:
        owner: the tower that recorded in it last.
    """

    def __init__(self) -> None:
        self.owner: WideTower | None = None
        self._blocks: dict[tuple[Any, ...], Block] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Workspace:
        return Workspace()

    def block(self, name: str, layer: int, shape: tuple[int, int], like: Tensor, dtype: torch.dtype) -> Block:
        """A block [N, h] on the device of ``like``, the same for equal arguments."""
        key = name, layer, shape, like.device, dtype
        if key not in self._blocks:
            self._blocks[key] = Block(torch.empty(shape, dtype=dtype, device=like.device))
        return self._blocks[key]

    def blocks(self, name: str, rows: int, biases: Sequence[Tensor], dtype: torch.dtype) -> list[Block]:
        """A block for each layer, [N, h]."""
        return [self.block(name, k, (rows, bias.shape[0]), bias, dtype) for k, bias in enumerate(biases)]


class _Passes:
    """The passes in float32, and their memory.

    Attributes:
        rows: N.
    """

    def __init__(self, tower: WideTower, rows: int) -> None:
        self.tower, self.rows, self.parts = tower, rows, [torch.empty(0)]
        biases, space = tower._biases, tower.workspace
        self.hidden = [block.tensor for block in space.blocks("hidden", rows, biases, biases[0].dtype)]
        self.grad = [block.tensor for block in space.blocks("grad", rows, biases, biases[0].dtype)]

    def forward(self, parts: list[Tensor]) -> Tensor:
        """Outputs [N, out]."""
        tower, self.parts = self.tower, parts
        hidden = tower.enter(parts, self.hidden[0]).relu_()
        for weight, bias, out in zip(tower._weights, tower._biases[1:], self.hidden[1:], strict=True):
            hidden = torch.addmm(bias, hidden, weight, out=out).relu_()
        return F.linear(hidden, *tower._heads)

    def backward(self, grad: Tensor) -> None:
        """All parameters' gradients."""
        tower, hidden = self.tower, self.hidden
        head, bias = tower._heads
        torch.mm(grad.t(), hidden[-1], out=head.grad)
        torch.sum(grad, 0, out=bias.grad)
        self._leave(grad)
        for k in range(len(hidden) - 1, 0, -1):
            torch.sum(self.grad[k], 0, out=tower._biases[k].grad)
            torch.mm(hidden[k - 1].t(), self.grad[k], out=tower._weights[k - 1].grad)
            self._back(k)
        tower.pull_first(self.parts, self.grad[0])

    def input_gradient(self, grad: Tensor, columns: slice) -> Tensor:
        """That of some columns of the vector."""
        self._leave(grad)
        for k in range(len(self.hidden) - 1, 0, -1):
            self._back(k)
        return self.grad[0] @ self.tower._tables[-1][columns].t()

    def entered(self) -> Tensor:
        """The gradient of the first layer before its ReLU, after ``backward``."""
        return self.grad[0]

    def _leave(self, grad: Tensor) -> None:
        """From the head's gradient to the last layer's before its ReLU."""
        product = torch.mul if grad.shape[1] == 1 else torch.mm  # with one column it is the same, and faster
        product(grad, self.tower._heads[0], out=self.grad[-1])
        _past_relu(self.grad[-1], self.hidden[-1], 0, grad_input=self.grad[-1])

    def _back(self, k: int) -> None:
        """From layer k's gradient before its ReLU to that of the layer before."""
        out = torch.mm(self.grad[k], self.tower._weights[k - 1].t(), out=self.grad[k - 1])
        _past_relu(out, self.hidden[k - 1], 0, grad_input=out)


class _RoundedPasses:
    """The passes with products in bfloat16, and their memory; there are two layers at least.

    Attributes:
        rows: N.
    """

    def __init__(self, tower: WideTower, rows: int) -> None:
        self.tower, self.rows, self.parts = tower, rows, [torch.empty(0)]
        biases, space = tower._biases, tower.workspace
        self.hidden = space.blocks("hidden", rows, biases, torch.bfloat16)
        self.grad = space.blocks("grad", rows, biases, torch.bfloat16)
        self.hidden_t = [block.tensor.t() for block in self.hidden]
        self.vector_alone = tower.is_index == [False]
        self.biases, self.bias_grads = [Block(bias) for bias in biases], [_grad_block(bias) for bias in biases]
        self.table, self.table_grad = Block(tower._tables[-1]), _grad_block(tower._tables[-1])
        self.head, self.head_bias = (Block(parameter) for parameter in tower._heads)
        self.head_grad, self.head_bias_grad = (_grad_block(parameter) for parameter in tower._heads)
        # Where gradients go that nobody asked for.
        self.unused = [Block(torch.empty_like(parameter)) for parameter in (*biases, *tower._heads)]
        self.out = Block(self.head.tensor.new_empty(rows, self.head.tensor.shape[0]))
        self.columns: dict[tuple[int, int], tuple[Block, Block]] = {}
        self.halves: list[Half] = []

    def forward(self, parts: list[Tensor]) -> Tensor:
        """Outputs [N, out]."""
        tower, hidden, self.parts = self.tower, self.hidden, parts
        # Rounded anew where no optimiser keeps them so.
        self.halves = tower.halves or [Half(weight.to(torch.bfloat16), None) for weight in tower._weights]
        if self.vector_alone:
            bfloat16.first(Block(parts[0]), self.table, self.biases[0], hidden[0])
        else:
            hidden[0].tensor.copy_(tower.enter(parts).relu_())
        for k, half in enumerate(self.halves):
            if k:
                bfloat16.middle(hidden[k], self.biases[k])
            torch.mm(hidden[k].tensor, half.weight, out=hidden[k + 1].tensor)
        bfloat16.last(hidden[-1], self.biases[-1], self.head, self.head_bias, self.out)
        return self.out.tensor

    def backward(self, grad: Tensor) -> None:
        """All parameters' gradients; those of the weights between layers in bfloat16, where an optimiser takes them."""
        hidden, grads, totals = self.hidden, self.grad, self.bias_grads
        into = totals[-1], self.head_grad, self.head_bias_grad
        bfloat16.last_backward(Block(grad), self.head, hidden[-1], grads[-1], *into)
        for k in range(len(self.halves), 0, -1):
            self._pull_weight(k)
            self._back(k, totals)
        if self.vector_alone:
            bfloat16.first_backward(grads[0], hidden[0], Block(self.parts[0]), self.table_grad, totals[0])
        else:
            self.tower.pull_first(self.parts, self.entered())

    def input_gradient(self, grad: Tensor, columns: slice) -> Tensor:
        """That of some columns of the vector."""
        bfloat16.last_backward(Block(grad), self.head, self.hidden[-1], self.grad[-1], *self.unused[-3:])
        for k in range(len(self.halves), 0, -1):
            self._back(k, self.unused)
        key = columns.start, columns.stop
        if key not in self.columns:
            weight = Block(self.table.tensor[columns])
            self.columns[key] = weight, Block(weight.tensor.new_empty(self.rows, weight.tensor.shape[0]))
        weight, out = self.columns[key]
        bfloat16.first_inputs(self.grad[0], self.hidden[0], weight, out)
        return out.tensor

    def entered(self) -> Tensor:
        """The gradient of the first layer before its ReLU, after ``backward``."""
        return self.grad[0].tensor.float().masked_fill_(self.hidden[0].tensor == 0, 0.0)

    def _pull_weight(self, k: int) -> None:
        """The gradient of the weight before layer k."""
        into = self.halves[k - 1].grad
        product = torch.mm(self.hidden_t[k - 1], self.grad[k].tensor, out=into)
        if into is None:
            _grad_block(self.tower._weights[k - 1]).tensor.copy_(product)

    def _back(self, k: int, totals: Sequence[Block]) -> None:
        """From layer k's gradient before its ReLU to that of the layer before; of the first layer's after its ReLU."""
        torch.mm(self.grad[k].tensor, self.halves[k - 1].weight.t(), out=self.grad[k - 1].tensor)
        if k > 1:
            bfloat16.middle_backward(self.grad[k - 1], self.hidden[k - 1], totals[k - 1])


def _grad_block(parameter: Tensor) -> Block:
    """A parameter's gradient; of one that has none (a target network's) memory of its shape."""
    return Block(torch.empty_like(parameter) if parameter.grad is None else parameter.grad)
