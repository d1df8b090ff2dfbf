"""FlatAdam against torch's own Adam and gradient clipping."""

import copy
import math

import pytest
import torch
from torch import nn

from mlbits.agents.kernels.flat_adam import FlatAdam


def make(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()


def loss_of(net, step):
    rows = torch.randn(16, 5, generator=torch.Generator().manual_seed(step)).double()
    return (net(rows) - rows[:, :3].sin()).square().sum()


@pytest.mark.parametrize("max_grad_norm", [0.3, 5.0, 1e9])
def test_fifty_steps_match_torchs_adam(max_grad_norm):
    ours, theirs = make(), make()
    adam = FlatAdam(ours.parameters(), 3e-2, max_grad_norm)
    reference = torch.optim.Adam(theirs.parameters(), 3e-2, eps=1e-5)
    clipped = 0
    for step in range(50):
        if step == 30:
            adam.learning_rate = 1e-2
            reference.param_groups[0]["lr"] = 1e-2
        adam.zero_grad()
        loss_of(ours, step).backward()
        norm = adam.step()
        reference.zero_grad()
        loss_of(theirs, step).backward()
        wanted = torch.nn.utils.clip_grad_norm_(theirs.parameters(), max_grad_norm)
        reference.step()
        assert float(norm) == pytest.approx(float(wanted), rel=1e-9)
        clipped += int(wanted > max_grad_norm)
        for one, two in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.allclose(one, two, rtol=1e-9, atol=1e-11)
    assert {0.3: clipped == 50, 5.0: 0 < clipped < 50, 1e9: clipped == 0}[max_grad_norm]


def test_other_decays_and_epsilon_are_used():
    ours, theirs = make(), make()
    adam = FlatAdam(ours.parameters(), 1e-2, 1e9, eps=1e-3, betas=(0.5, 0.9))
    reference = torch.optim.Adam(theirs.parameters(), 1e-2, eps=1e-3, betas=(0.5, 0.9))
    for step in range(10):
        for net, optimizer in ((ours, adam), (theirs, reference)):
            optimizer.zero_grad()
            loss_of(net, step).backward()
            optimizer.step()
    for one, two in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(one, two, rtol=1e-9, atol=1e-11)


def test_parameters_keep_their_values_and_are_updated_in_place():
    net = make()
    before = [parameter.detach().clone() for parameter in net.parameters()]
    adam = FlatAdam(net.parameters(), 1e-2, 1.0)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), before, strict=True))
    loss_of(net, 0).backward()
    adam.step()
    assert all(not torch.equal(a, b) for a, b in zip(net.parameters(), before, strict=True))


def test_a_restored_optimizer_continues_bit_for_bit():
    one, two = make(), make()
    adam, other = FlatAdam(one.parameters(), 1e-2, 1.0), FlatAdam(two.parameters(), 1e-2, 1.0)

    def steps(net, optimizer, numbers):
        for step in numbers:
            optimizer.zero_grad()
            loss_of(net, step).backward()
            optimizer.step()

    steps(one, adam, range(10))
    two.load_state_dict(one.state_dict())  # copies into the views: the optimiser sees the loaded values
    other.load_state_dict({name: value.clone() for name, value in adam.state_dict().items()})
    steps(one, adam, range(10, 20))
    steps(two, other, range(10, 20))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert int(other.state_dict()["steps"]) == 20


def test_a_deep_copy_updates_its_own_parameters_and_continues_bit_for_bit():
    net = make()
    pair = [net, FlatAdam(net.parameters(), 1e-2, 1.0)]

    def steps(net, optimizer, numbers):
        for step in numbers:
            optimizer.zero_grad()
            loss_of(net, step).backward()
            optimizer.step()

    steps(*pair, range(5))
    for order in (1, -1):  # whichever of the two is copied first
        kept, adam = copy.deepcopy(pair[::order])[::order]
        before = [parameter.clone() for parameter in net.parameters()]
        steps(kept, adam, range(5, 10))
        assert all(torch.equal(a, b) for a, b in zip(net.parameters(), before, strict=True))
        assert int(pair[1].state_dict()["steps"]) == 5
    steps(*pair, range(5, 10))
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), kept.parameters(), strict=True))


@pytest.mark.parametrize("most", [math.inf, 1e-3])
def test_an_unmeasured_step_is_the_same_step(most):
    nets = make(), make()
    for net, measured in zip(nets, (True, False), strict=True):
        adam = FlatAdam(net.parameters(), 1e-2, most)
        loss_of(net, 3).backward()
        norm = adam.step(measured=measured)
        assert norm.isfinite() == (measured or most < math.inf)  # clipping needs the norm
    assert all(torch.equal(a, b) for a, b in zip(*(net.parameters() for net in nets), strict=True))
