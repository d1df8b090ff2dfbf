"""ReLU layers in bfloat16 against the same layers by autograd in float32, and against torch's bfloat16."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from gymnasium import spaces

from mlbits.agents.kernels.flat_adam import FlatAdam
from mlbits.agents.networks.features import Features
from mlbits.agents.networks.mlp import MLP
from tests.agents.rollouts import draw

ROWS = 200


def make(width=6, hidden=(96, 64), out=1, seed=0):
    space = spaces.Box(-1, 1, (width,))
    return MLP(Features(space, draw()), hidden, out, draw(seed), activation="relu")


def inputs(width=6, rows=ROWS, seed=3):
    return torch.randn(rows, width, generator=draw(seed))


def plain(mlp, x):
    """The same arithmetic by torch's own operations: rounded factors in the products between hidden layers."""
    hidden = torch.addmm(mlp.biases[0], x, mlp.first[0]).relu().bfloat16()
    for k, weight in enumerate(mlp.weights):
        z = (hidden.float() @ weight.bfloat16().float()).bfloat16().float() + mlp.biases[k + 1]
        last = k == len(mlp.weights) - 1
        hidden = z.relu() if last else z.relu().bfloat16()
    return F.linear(hidden, mlp.head, mlp.head_bias)


def assert_near(mine, theirs, name):
    """Nearly parallel: there are 8 bits of precision, and units near zero may be active in only one of them."""
    assert F.cosine_similarity(mine.flatten(), theirs.flatten(), 0) > 0.99, name
    assert float(mine.norm()) == pytest.approx(float(theirs.norm()), rel=0.05), name


@pytest.mark.parametrize("width", [6, 80])
@pytest.mark.parametrize("hidden", [(96, 64), (96, 64, 48), (32, 32, 32, 32)])
@pytest.mark.parametrize("out", [1, 12])
@pytest.mark.parametrize("optimised", [False, True])
def test_outputs_and_gradients_are_near_those_of_float32(width, hidden, out, optimised):
    mlp, x, grad = make(width, hidden, out), inputs(width), torch.rand(ROWS, out, generator=draw(1))
    twin = copy.deepcopy(mlp)
    for parameter in mlp.parameters():
        parameter.grad = torch.full_like(parameter, 77.0)  # to be overwritten
    if optimised:
        optimizer = FlatAdam(mlp.parameters(), 1e-3, math.inf)
        optimizer.vectors.grad.fill_(77.0)
    x_twin = x.clone().requires_grad_()
    x.requires_grad_()
    got, wanted = mlp([x], "bfloat16"), twin([x_twin])
    assert torch.allclose(got, plain(mlp, x.detach()), rtol=0.02, atol=0.02 * float(got.detach().abs().max()))
    assert (got - wanted).norm() <= 0.01 * wanted.norm()
    got.backward(grad)
    wanted.backward(grad)
    for (name, one), two in zip(mlp.named_parameters(), twin.parameters(), strict=True):
        assert_near(one.grad, two.grad, name)
    assert (x.grad - x_twin.grad).norm() <= 0.25 * x_twin.grad.norm()


def test_a_frozen_network_passes_gradients_on_and_gets_none():
    mlp, x = make(), inputs().requires_grad_()
    optimizer = FlatAdam(mlp.parameters(), 1e-3, math.inf)
    optimizer.vectors.grad.fill_(5.0)
    with optimizer.frozen():
        mlp([x], "bfloat16").sum().backward()
    assert (optimizer.vectors.grad == 5).all()
    frozen = x.grad.clone()
    x.grad = None
    mlp([x], "bfloat16").sum().backward()
    assert torch.equal(x.grad, frozen)
    assert not any((parameter.grad == 5).all() for parameter in mlp.parameters())


def test_without_gradients_nothing_is_recorded():
    mlp = make().requires_grad_(False)
    assert not mlp([inputs()], "bfloat16").requires_grad
    with torch.no_grad():
        assert not make()([inputs()], "bfloat16").requires_grad


def test_new_weights_are_used_at_once():
    mlp, x = make(), inputs()
    before = mlp([x], "bfloat16").detach()
    with torch.no_grad():
        mlp.weights[0].mul_(2.0)
    after = mlp([x], "bfloat16").detach()
    assert not torch.equal(before, after)
    optimizer = FlatAdam(mlp.parameters(), 0.1, math.inf)  # moves the parameters
    assert torch.equal(mlp([x], "bfloat16"), after)
    mlp([x], "bfloat16").sum().backward()
    optimizer.step()
    assert not torch.equal(mlp([x], "bfloat16"), after)


def test_a_backward_pass_after_another_forward_pass_is_rejected():
    mlp, x = make(), inputs()
    first = mlp([x], "bfloat16")
    kept = first.detach().clone()
    mlp([x + 1], "bfloat16")
    assert torch.equal(first, kept)
    with pytest.raises(RuntimeError, match="got one after another forward pass of the same network; wanted each"):
        first.sum().backward()


def test_networks_and_copies_do_not_mix_up_their_passes():
    one, x = make(), inputs()
    two, other = make(seed=1), copy.deepcopy(one)
    outs = [mlp([x], "bfloat16") for mlp in (one, two, other)]
    for mlp, out in zip((one, two, other), outs, strict=True):
        out.sum().backward()
        twin = copy.deepcopy(mlp)
        twin.zero_grad()
        twin([x]).sum().backward()
        kernel = mlp._in_bfloat16
        for written, wanted in zip(kernel._bias_grads, twin.biases, strict=True):
            assert_near(written.tensor, wanted.grad, "bias")


def test_any_number_of_rows():
    mlp = make()
    for rows in (5, 37, 1, 5):
        x = inputs(rows=rows)
        assert torch.allclose(mlp([x], "bfloat16"), mlp([x]), atol=0.02)


def test_which_networks_use_bfloat16():
    image = Features(spaces.Discrete(4), draw())
    assert make().rounds
    assert not make(hidden=(16,)).rounds
    assert not MLP(image, (16, 16), 1, draw(), activation="relu").rounds
    assert not MLP(Features(spaces.Box(-1, 1, (3,)), draw()), (16, 16), 1, draw(), activation="tanh").rounds
    one_layer, x = make(hidden=(16,)), inputs()
    assert torch.equal(one_layer([x], "bfloat16"), one_layer([x]))
