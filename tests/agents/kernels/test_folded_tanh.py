"""Folded tanh layers against plain tanh layers."""

import itertools

import pytest
import torch

from mlbits.agents.kernels.folded_tanh import folded_tanh
from mlbits.agents.kernels.layers import Layers
from tests.agents.rollouts import draw


def plain(first, layers):
    """The outputs from the first layer's pre-activation."""
    hidden = torch.tanh(first)
    for weight, bias in zip(layers.weights, layers.biases[1:], strict=True):
        hidden = torch.tanh(hidden @ weight + bias)
    return hidden @ layers.head.t() + layers.head_bias


@pytest.mark.parametrize("widths", [(5,), (5, 7), (4, 6, 3)])
def test_outputs_and_gradients_match_plain_tanh_layers(widths):
    def random(*shape, seed):
        return torch.randn(*shape, generator=draw(seed), dtype=torch.float64).requires_grad_()

    weights = tuple(random(a, b, seed=k) for k, (a, b) in enumerate(itertools.pairwise(widths)))
    biases = tuple(random(width, seed=10 + k) for k, width in enumerate(widths))
    layers = Layers((False,), (), weights, biases, random(2, widths[-1], seed=20), random(2, seed=21))
    first = random(9, widths[0], seed=30)
    variables = (first, *weights, *biases[1:], layers.head, layers.head_bias)
    grad = torch.randn(9, 2, generator=draw(40), dtype=torch.float64)
    got, wanted = folded_tanh(2 * first, layers), plain(first, layers)
    assert torch.allclose(got, wanted, atol=1e-12)
    for one, two in zip(
        torch.autograd.grad(got, variables, grad), torch.autograd.grad(wanted, variables, grad), strict=True
    ):
        assert torch.allclose(one, two, atol=1e-11)
