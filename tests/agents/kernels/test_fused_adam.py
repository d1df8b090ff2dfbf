"""FollowedAdam against torch's own Adam, gradient clipping and interpolation."""

import copy
import math

import pytest
import torch
from torch import nn

from mlbits.agents.kernels.fused_adam import FollowedAdam
from mlbits.agents.kernels.relu_mlp_passes import WideTower
from tests.agents.rollouts import draw


def plain(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 70), nn.Tanh(), nn.Linear(70, 3))


def tower(seed=0):
    """With more weights than the loop takes at a time."""
    return WideTower([False], [5], (70, 90, 8), 3, draw(seed), "bfloat16")


def give(network, step):
    """Made-up gradients, such as bfloat16 can tell; a tower's in bfloat16 where it takes them so."""
    generator = draw(step)
    for parameter in network.parameters():
        parameter.grad.copy_(torch.randn(parameter.shape, generator=generator).bfloat16())
    for module in network.modules():
        if isinstance(module, WideTower) and module.halves is not None:
            for weight, half in zip(module.weights, module.halves, strict=True):
                half.grad.copy_(weight.grad)
                weight.grad.fill_(99.0)


@pytest.mark.parametrize("make", [plain, tower])
@pytest.mark.parametrize("max_grad_norm", [0.3, 60.0, math.inf])
@pytest.mark.parametrize("on_gpu", [False, True])
def test_thirty_steps_are_those_of_torchs_adam(make, max_grad_norm, on_gpu):
    network, theirs = make(), make()
    adam = FollowedAdam(network, 3e-2, max_grad_norm, eps=1e-5)
    if on_gpu:  # the operations that a GPU takes
        adam._arrays[0] = None
    reference = torch.optim.Adam(theirs.parameters(), 3e-2, eps=1e-5)
    followers = [parameter.detach().clone() for parameter in theirs.parameters()]
    for parameter in theirs.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for step in range(30):
        tau = 0.1 if step % 2 else 0.0
        if step == 15:
            adam.learning_rate = reference.param_groups[0]["lr"] = 1e-2
        give(network, step)
        give(theirs, step)
        norm = adam.grad_norm()
        adam.step(tau)
        wanted = nn.utils.clip_grad_norm_(theirs.parameters(), max_grad_norm)
        reference.step()
        assert float(norm) == pytest.approx(float(wanted), rel=1e-5)
        for ours, other, copied, follower in zip(
            network.parameters(), theirs.parameters(), adam.target.parameters(), followers, strict=True
        ):
            follower.lerp_(other.detach(), tau)
            assert torch.allclose(ours, other, rtol=1e-4, atol=1e-5)
            assert torch.allclose(copied, follower, rtol=1e-4, atol=1e-5)
        if make is tower:
            for net, other in ((network, network), (adam.target, adam.target)):
                for half, weight in zip(net.halves, other.weights, strict=True):
                    assert torch.equal(half.weight, weight.bfloat16())


def test_the_target_is_a_copy_without_gradients_that_starts_equal():
    network = plain()
    adam = FollowedAdam(network, 1e-2, math.inf)
    pairs = list(zip(network.parameters(), adam.target.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not any(b.requires_grad for _, b in pairs)
    give(network, 0)
    adam.step(0.0)
    assert not any(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("make", [plain, tower])
def test_a_saved_optimizer_goes_on_bit_for_bit(make):
    networks = make(1), make(2)
    adams = [FollowedAdam(network, 1e-2, 1.0) for network in networks]

    def steps(which, numbers):
        for step in numbers:
            give(networks[which], step)
            adams[which].step(0.1)

    steps(0, range(5))
    networks[1].load_state_dict(networks[0].state_dict())
    adams[1].target.load_state_dict(adams[0].target.state_dict())
    adams[1].load_state_dict({name: value.clone() for name, value in adams[0].state_dict().items()})
    assert int(adams[1].state_dict()["steps"]) == 5
    steps(0, range(5, 9))
    steps(1, range(5, 9))
    for one, two in ((networks[0], networks[1]), (adams[0].target, adams[1].target)):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
        if make is tower:
            assert all(torch.equal(a.weight, b.weight) for a, b in zip(one.halves, two.halves, strict=True))


@pytest.mark.parametrize("order", [1, -1])
def test_copies_go_on_by_themselves(order):
    network = tower()
    adam = FollowedAdam(network, 1e-2, 1.0)
    give(network, 0)
    adam.step(0.1)
    kept, copied = copy.deepcopy([network, adam][::order])[::order]
    before = [parameter.detach().clone() for parameter in network.parameters()]
    for net, optimizer in ((kept, copied), (network, adam)):
        give(net, 1)
        optimizer.step(0.1)
        assert not all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
        if net is kept:
            assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    for one, two in ((network, kept), (adam.target, copied.target)):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
        assert all(torch.equal(a.weight, b.weight) for a, b in zip(one.halves, two.halves, strict=True))
