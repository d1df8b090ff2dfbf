"""The backward GRU: torch's own GRU cell unrolled with resets, and both forms against each other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mlbits.agents.kernels.backward_gru import backward_gru, plain_backward_gru

STEPS, COUNT, WIDTH = 6, 5, 4


def made(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=dtype)  # noqa: E731
    keeps = (torch.rand(STEPS, COUNT, generator=generator) > 0.3).to(dtype)
    return [draw(STEPS, COUNT, 3 * WIDTH), keeps, draw(WIDTH, 3 * WIDTH), draw(WIDTH)]


@pytest.mark.parametrize("form", [plain_backward_gru, backward_gru])
def test_is_torchs_gru_run_backwards_with_resets(form) -> None:
    cell = nn.GRUCell(3, WIDTH).double()
    keeps, x = made()[1], torch.randn(STEPS, COUNT, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    state, wanted = torch.zeros(COUNT, WIDTH, dtype=torch.float64), []
    for t in reversed(range(STEPS)):
        state = cell(x[t], state * keeps[t, :, None])
        wanted.insert(0, state)
    split = 2 * WIDTH  # the hidden bias of reset and update may be added to the inputs' bias
    bias = cell.bias_ih + torch.cat([cell.bias_hh[:split], torch.zeros(WIDTH, dtype=torch.float64)])
    got = form(x @ cell.weight_ih.t() + bias, keeps, cell.weight_hh.t(), cell.bias_hh[split:])
    torch.testing.assert_close(got, torch.stack(wanted), rtol=1e-12, atol=1e-12)


def test_gradient_by_hand_is_autograds() -> None:
    outcomes = []
    weights = torch.randn(STEPS, COUNT, WIDTH, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for form in (plain_backward_gru, backward_gru):
        gates, keeps, weight, bias = made()
        leaves = [tensor.requires_grad_() for tensor in (gates, weight, bias)]
        (form(gates, keeps, weight, bias) * weights).sum().backward()
        outcomes.append([leaf.grad for leaf in leaves])
    for wanted, got in zip(*outcomes, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)


def test_second_derivative_is_refused() -> None:
    gates, keeps, weight, bias = made()
    weight.requires_grad_()
    (first,) = torch.autograd.grad(backward_gru(gates, keeps, weight, bias).square().sum(), weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
