"""WideTower's written-out passes against autograd, in both precisions."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from mlbits.agents.kernels.fused_adam import FollowedAdam
from mlbits.agents.kernels.relu_mlp_passes import WideTower
from tests.agents.rollouts import draw

ROWS = 37
LAYOUTS = {
    "a vector": ([False], [6]),
    "a wide vector": ([False], [80]),
    "indices": ([True], [9]),
    "both": ([True, True, False], [4, 7, 6]),
}
HIDDEN = [(12,), (24, 20), (24, 20, 16), (16, 16, 16, 16)]


def parts_of(layout, dtype=torch.float32, rows=ROWS):
    generator, parts = draw(3), []
    for is_index, width in zip(*LAYOUTS[layout], strict=True):
        if is_index:
            parts.append(torch.randint(width, (rows, 2), generator=generator, dtype=torch.int32))
        else:
            parts.append(torch.randn(rows, width, generator=generator, dtype=dtype))
    return parts


def textbook(tower, parts):
    """The outputs by autograd."""
    z = tower.biases[0]
    for part, table, is_index in zip(parts, tower.first, tower.is_index, strict=True):
        z = z + (F.one_hot(part.long(), len(table)).sum(1).to(table.dtype) @ table if is_index else part @ table)
    for weight, bias in zip(tower.weights, tower.biases[1:], strict=True):
        z = z.relu() @ weight + bias
    return z.relu() @ tower.head.t() + tower.head_bias


def gradients(tower, parts, grad):
    for parameter in tower.parameters():
        parameter.grad = torch.full_like(parameter, 77.0)  # what stood there is written over
    with torch.no_grad():
        out = tower.record(parts)
        tower.backward(grad)
    mine = {name: parameter.grad.clone() for name, parameter in tower.named_parameters()}
    for parameter in tower.parameters():
        parameter.grad = None
    wanted = textbook(tower, parts)
    wanted.backward(grad)
    return out, wanted.detach(), {name: (mine[name], p.grad) for name, p in tower.named_parameters()}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("out", [1, 5])
def test_gradients_are_autograds(layout, hidden, out):
    tower = WideTower(*LAYOUTS[layout], hidden, out, draw()).double()
    parts, grad = parts_of(layout, torch.float64), torch.randn(ROWS, out, generator=draw(1), dtype=torch.float64)
    got, wanted, pairs = gradients(tower, parts, grad)
    assert torch.allclose(got, wanted, rtol=1e-12, atol=1e-12)
    assert torch.allclose(tower.forward(parts), wanted, rtol=1e-12, atol=1e-12)
    for mine, theirs in pairs.values():
        assert torch.allclose(mine, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("layout", ["a vector", "a wide vector", "both"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("out", [1, 12])
def test_the_inputs_gradient_is_autograds_and_leaves_the_parameters_alone(layout, precision, out):
    tower = WideTower(*LAYOUTS[layout], (64, 48, 32), out, draw(), precision)
    adam = FollowedAdam(tower, 1e-3, math.inf)
    for parameter in tower.parameters():
        parameter.grad.fill_(5.0)
    parts, grad, columns = parts_of(layout), torch.randn(ROWS, out, generator=draw(1)), slice(2, 5)
    with torch.no_grad():
        tower.record(parts)
        got = tower.input_gradient(grad, columns)
    assert all((parameter.grad == 5).all() for parameter in tower.parameters())
    assert precision == "float32" or float(adam._half_grad.abs().sum()) == 0
    parts[-1].requires_grad_()
    textbook(tower, parts).backward(grad)
    wanted = parts[-1].grad[:, columns]
    assert got.shape == (ROWS, 3)
    assert (got - wanted).norm() <= (1e-5 if precision == "float32" else 0.25) * wanted.norm()
    with torch.no_grad():
        tower.record(parts)
        tower.backward(grad)
        assert torch.allclose(tower.part_gradient(columns), got, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("hidden", [(96, 64), (96, 64, 48)])
@pytest.mark.parametrize("out", [1, 12])
@pytest.mark.parametrize("kept", [False, True])
def test_in_bfloat16_gradients_are_near(layout, hidden, out, kept):
    """Nearly parallel: 8 bits of precision, and units near zero that are on in one and off in the other."""
    tower = WideTower(*LAYOUTS[layout], hidden, out, draw(), "bfloat16")
    parts, grad = parts_of(layout, rows=200), torch.rand(200, out, generator=draw(1))
    if kept:
        adam = FollowedAdam(copy.deepcopy(tower), 1e-3, math.inf)
        with torch.no_grad():
            adam._network.record(parts)
            adam._network.backward(grad)
        adam.grad_norm()  # brings all gradients together
    got, wanted, pairs = gradients(tower, parts, grad)
    assert (got - wanted).norm() <= 0.01 * wanted.norm()
    for name, (mine, theirs) in pairs.items():
        assert F.cosine_similarity(mine.flatten(), theirs.flatten(), 0) > 0.99, name
        assert float(mine.norm()) == pytest.approx(float(theirs.norm()), rel=0.05), name
    if kept:
        for parameter, (mine, _) in zip(adam._network.parameters(), pairs.values(), strict=True):
            assert torch.equal(parameter.grad, mine)


def test_one_hidden_layer_has_nothing_to_round():
    tower = WideTower([False], [3], (16,), 1, draw(), "bfloat16")
    assert not tower.rounded


def test_towers_that_share_memory_do_not_mix_up_their_passes():
    towers = [WideTower([False], [6], (24, 20), 1, draw(seed)) for seed in range(2)]
    towers[1].workspace = towers[0].workspace
    parts, grad = parts_of("a vector"), torch.ones(ROWS, 1)
    for tower in towers:
        wanted = gradients(tower, parts, grad)[2]
        assert all(torch.allclose(mine, theirs, rtol=1e-4, atol=1e-5) for mine, theirs in wanted.values())
    with torch.no_grad():
        with pytest.raises(RuntimeError, match="another tower has recorded in the same memory"):
            towers[0].input_gradient(grad, slice(0, 1))
        towers[0].record(parts)
        towers[0].input_gradient(grad, slice(0, 1))


def test_other_numbers_of_rows_and_copies_have_memory_of_their_own():
    tower = WideTower([False], [6], (24, 20), 1, draw(), "bfloat16")
    with torch.no_grad():
        for rows in (5, 37, 5):
            parts = parts_of("a vector", rows=rows)
            assert torch.allclose(tower.record(parts), tower.forward(parts), atol=0.02)
        other = copy.deepcopy(tower)
        one, two = parts_of("a vector"), [part + 1 for part in parts_of("a vector")]
        tower.record(one)
        first = tower.input_gradient(torch.ones(ROWS, 1), slice(0, 6))
        tower.record(one)
        other.record(two)
        assert torch.equal(tower.input_gradient(torch.ones(ROWS, 1), slice(0, 6)), first)


def test_weights_start_uniform_within_their_fan_in():
    tower = WideTower([True, False], [50, 3], (300, 200), 2, draw())
    for weight, fan_in in ((tower.first[0], 4), (tower.first[1], 4), (tower.weights[0], 300), (tower.head, 200)):
        bound = 1 / math.sqrt(fan_in)
        assert bound * 0.95 < float(weight.detach().abs().max()) <= bound
        assert float(weight.detach().mean()) == pytest.approx(0, abs=0.1 * bound)
    same = WideTower([True, False], [50, 3], (300, 200), 2, draw())
    assert all(torch.equal(a, b) for a, b in zip(tower.parameters(), same.parameters(), strict=True))
