"""The operations between products in bfloat16: the compiled loops against plain torch, which is used on GPUs."""

import numpy as np
import pytest
import torch

from mlbits.agents.kernels import bfloat16_layers as bfloat16
from mlbits.agents.kernels.bfloat16_layers import Block
from tests.agents.rollouts import draw

SIZES = [(1, 3, 5), (7, 4, 40), (64, 11, 33), (10, 64, 16)]  # rows, inputs or outputs, width


def random(*shape, seed=0, half=False):
    values = torch.randn(*shape, generator=draw(seed))
    return values.bfloat16() if half else values


def hidden(rows, width, seed=5):
    """Outputs of a ReLU, half of which are 0."""
    return random(rows, width, seed=seed).relu().bfloat16()


def both_ways(function, inputs, outputs):
    """Results of the compiled loop and of torch's operations, each on copies of the same tensors."""
    results = []
    for compiled in (True, False):
        blocks = [Block(tensor.clone()) for tensor in inputs]
        out = [Block(torch.full(shape, 77.0, dtype=dtype)) for shape, dtype in outputs]
        if not compiled:
            for block in (*blocks, *out):
                block.array = None
        function(*blocks, *out)
        results.append([block.tensor for block in (*blocks, *out)])
    return zip(*results, strict=True)


def assert_close(one, two):
    """Equal up to rounding; a few bfloat16 numbers may be rounded to the other neighbour."""
    assert one.dtype == two.dtype
    one, two = one.float(), two.float()
    assert torch.allclose(one, two, rtol=0.01, atol=1e-4)
    if one.numel() > 100:
        assert (one - two).abs().mean() < 1e-3 * two.abs().mean() + 1e-6


def test_rounding_matches_torchs_for_all_kinds_of_numbers():
    bits = np.concatenate([np.arange(0, 2**32, 65_521), [0x3F808000, 0x3F818000, 0x7F7FFFFF, 1]]).astype(np.uint32)
    values = torch.from_numpy(bits.view(np.float32))
    values = values[torch.isfinite(values)]
    wanted = values.bfloat16().view(torch.uint16).numpy()
    got = np.array([bfloat16.rounded(bit) for bit in values.numpy().view(np.uint32)])
    assert len(got) > 60_000
    assert (got == wanted).all()


@pytest.mark.parametrize(("rows", "inputs", "width"), [*SIZES, (5, 70, 8)])
def test_the_first_layer(rows, inputs, width):
    x, weight, bias = random(rows, inputs), random(inputs, width, seed=1), random(width, seed=2)
    *_, (one, two) = both_ways(bfloat16.first, [x, weight, bias], [((rows, width), torch.bfloat16)])
    assert_close(one, two)
    assert_close(one, (x @ weight + bias).relu().bfloat16())


@pytest.mark.parametrize(("rows", "_", "width"), SIZES)
def test_a_layer_between(rows, _, width):
    z, bias = random(rows, width, half=True), random(width, seed=1)
    (one, two), _ = both_ways(bfloat16.middle, [z, bias], [])
    assert torch.equal(one, two)
    assert torch.equal(one, (z.float() + bias).relu().bfloat16())


@pytest.mark.parametrize(("rows", "outputs", "width"), SIZES)
def test_the_last_layer_and_the_head(rows, outputs, width):
    z, bias, head, head_bias = random(rows, width, half=True), *(random(*s) for s in ((width,), (outputs, width))), None
    head_bias = random(outputs, seed=3)
    results = list(both_ways(bfloat16.last, [z, bias, head, head_bias], [((rows, outputs), torch.float32)]))
    for one, two in results:
        assert_close(one, two)
    unrounded = (z.float() + bias).relu()
    assert torch.equal(results[0][0], unrounded.bfloat16())
    assert torch.allclose(results[-1][0], unrounded @ head.t() + head_bias, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("rows", "outputs", "width"), SIZES)
def test_back_from_the_head(rows, outputs, width):
    grad, head, h = random(rows, outputs), random(outputs, width, seed=1), hidden(rows, width)
    outs = [
        ((rows, width), torch.bfloat16),
        *(((*size,), torch.float32) for size in ((width,), (outputs, width), (outputs,))),
    ]
    results = list(both_ways(bfloat16.last_backward, [grad, head, h], outs))
    for one, two in results:
        assert_close(one, two)
    back = (grad @ head) * (h != 0)
    for (one, _), wanted in zip(
        results[3:], (back.bfloat16(), back.sum(0), grad.t() @ h.float(), grad.sum(0)), strict=True
    ):
        assert_close(one, wanted)


@pytest.mark.parametrize(("rows", "_", "width"), SIZES)
def test_back_past_a_layer_between(rows, _, width):
    grad, h = random(rows, width, half=True), hidden(rows, width)
    (one, two), _, (total, same) = both_ways(bfloat16.middle_backward, [grad, h], [((width,), torch.float32)])
    assert torch.equal(one, two)
    assert torch.equal(one, torch.where(h != 0, grad, torch.zeros(())).bfloat16())
    assert torch.allclose(total, same, rtol=1e-4, atol=1e-5)
    assert torch.allclose(total, one.float().sum(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("rows", "inputs", "width"), [*SIZES, (5, 70, 8)])
def test_back_to_the_first_layers_weights_and_inputs(rows, inputs, width):
    grad, h, x = random(rows, width, half=True), hidden(rows, width), random(rows, inputs, seed=2)
    back = grad.float() * (h != 0)
    outs = [((inputs, width), torch.float32), ((width,), torch.float32)]
    for (one, two), wanted in zip(
        list(both_ways(bfloat16.first_backward, [grad, h, x], outs))[3:], (x.t() @ back, back.sum(0)), strict=True
    ):
        assert torch.allclose(one, two, rtol=1e-4, atol=1e-4)
        assert torch.allclose(one, wanted, rtol=1e-4, atol=1e-4)
    weight = random(inputs, width, seed=3)
    *_, (one, two) = both_ways(bfloat16.first_inputs, [grad, h, weight], [((rows, inputs), torch.float32)])
    assert torch.allclose(one, two, rtol=1e-4, atol=1e-4)
    assert torch.allclose(one, back @ weight.t(), rtol=1e-4, atol=1e-4)


def test_nan_propagates():
    nan = torch.tensor([[float("nan"), -1.0, 2.0]])
    bad = torch.tensor([0xFFC00000 - 2**32, 0x7FC00000], dtype=torch.int32).view(torch.float32)  # of either sign
    for value in bad:
        z, bias = Block(torch.full((1, 3), float(value)).bfloat16()), Block(torch.zeros(3))
        bfloat16.middle(z, bias)
        assert z.tensor.isnan().all()
    out = Block(torch.zeros(1, 3, dtype=torch.bfloat16))
    bfloat16.first(Block(torch.ones(1, 1)), Block(nan), Block(torch.zeros(3)), out)
    assert out.tensor.isnan().tolist() == [[True, False, False]]


def test_rounding_and_widening_of_whole_tensors():
    values, half = random(7, 33), random(7, 33, half=True)
    *_, (one, two) = both_ways(bfloat16.narrow, [values], [((7, 33), torch.bfloat16)])
    assert torch.equal(one, two)
    assert torch.equal(one, values.bfloat16())
    *_, (one, two) = both_ways(bfloat16.widen, [half], [((7, 33), torch.float32)])
    assert torch.equal(one, two)
    assert torch.equal(one, half.float())
