"""FlatAdam with a target network, against torch's Adam, clipping and interpolation; and where its vectors are."""

import copy
import itertools
import math

import pytest
import torch
from torch import nn

from mlbits.agents.kernels.flat_adam import FlatAdam
from tests.agents.rollouts import draw


def make(seed=0):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(5, 70), nn.Tanh(), nn.Linear(70, 3))
    return network, copy.deepcopy(network).requires_grad_(False)


def give(network, step):
    """Set random gradients."""
    generator = draw(step)
    for parameter in network.parameters():
        parameter.grad.copy_(torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("max_grad_norm", [0.3, 15.0, math.inf])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.9)])
def test_thirty_steps_match_torchs_adam(max_grad_norm, betas):
    (network, target), (theirs, _) = make(), make()
    adam = FlatAdam(network.parameters(), 3e-2, max_grad_norm, 1e-5, betas, target.parameters())
    reference = torch.optim.Adam(theirs.parameters(), 3e-2, betas, eps=1e-5)
    followers = [parameter.detach().clone() for parameter in theirs.parameters()]
    for parameter in theirs.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for step in range(30):
        tau = 0.1 if step % 2 else 0.0
        if step == 15:
            adam.learning_rate = reference.param_groups[0]["lr"] = 1e-2
        give(network, step)
        give(theirs, step)
        norm = adam.step()
        adam.follow(tau)
        wanted = nn.utils.clip_grad_norm_(theirs.parameters(), max_grad_norm)
        reference.step()
        assert float(norm) == pytest.approx(float(wanted), rel=1e-5)
        for ours, other, copied, follower in zip(
            network.parameters(), theirs.parameters(), target.parameters(), followers, strict=True
        ):
            follower.lerp_(other.detach(), tau)
            assert torch.allclose(ours, other, rtol=1e-4, atol=1e-5)
            assert torch.allclose(copied, follower, rtol=1e-4, atol=1e-5)


def test_a_restored_optimizer_continues_bit_for_bit():
    pairs = [make(1), make(2)]
    adams = [FlatAdam(net.parameters(), 1e-2, 1.0, target=target.parameters()) for net, target in pairs]

    def steps(which, numbers):
        for step in numbers:
            give(pairs[which][0], step)
            adams[which].step()
            adams[which].follow(0.1)

    steps(0, range(5))
    for mine, other in zip(*pairs, strict=True):
        other.load_state_dict(mine.state_dict())
    adams[1].load_state_dict({name: value.clone() for name, value in adams[0].state_dict().items()})
    assert int(adams[1].state_dict()["steps"]) == 5
    steps(0, range(5, 9))
    steps(1, range(5, 9))
    for one, two in zip(*pairs, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@pytest.mark.parametrize("length", [1, 1000, 5000])
def test_vectors_do_not_overlap_and_start_at_different_offsets_of_a_page(length):
    weight, target = nn.Parameter(torch.zeros(length)), nn.Parameter(torch.zeros(length))
    made = FlatAdam([weight], 1e-2, 1.0, target=[target]).vectors[:5]
    starts = [vector.data_ptr() for vector in made]
    assert all(vector.shape == (length,) for vector in made)
    assert all(b - a >= 4 * length for a, b in itertools.pairwise(starts))
    assert len({start % 4096 for start in starts}) == 5
