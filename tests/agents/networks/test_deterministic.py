"""Actor and critics: gradients against autograd for observations of every kind, convolutions included."""

import copy

import pytest
import torch

from mlbits.agents.networks.deterministic import Actor, Critics
from tests.agents.kernels.test_relu_mlp_passes import textbook
from tests.agents.networks.test_policy_value import SPACES, observations
from tests.agents.rollouts import draw

ROWS, ACTION = 6, 2


def with_gradients(network):
    for parameter in network.parameters():
        parameter.grad = torch.full_like(parameter, 77.0)  # what stood there is written over
    return network


def joined(inputs, obs, action=None):
    """What a tower takes, by torch's own operations: index parts first, then all vectors and the action as one."""
    parts = inputs.features(obs)
    pairs = list(zip(parts, inputs.features.is_index, strict=True))
    vectors = [part for part, is_index in pairs if not is_index] + ([] if action is None else [action])
    return [part for part, is_index in pairs if is_index] + ([torch.cat(vectors, 1)] if vectors else [])


def assert_gradients(network, twin):
    for (name, one), two in zip(network.named_parameters(), twin.parameters(), strict=True):
        assert torch.allclose(one.grad, two.grad, rtol=1e-3, atol=1e-5 * float(two.grad.abs().max()) + 1e-9), name


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("count", [1, 2])
def test_the_critics_gradients_are_autograds(name, count):
    space = SPACES[name]
    critics = with_gradients(Critics(space, ACTION, (12, 8), draw(), count=count))
    twin, obs, action = copy.deepcopy(critics), observations(space, ROWS), torch.randn(ROWS, ACTION, generator=draw(1))
    targets = torch.randn(ROWS, 1, generator=draw(2))
    with torch.no_grad():
        outs = critics.forward_backward(obs, action, lambda out: 2 * (out - targets))
    twin.zero_grad()
    wanted = [textbook(tower, joined(twin.inputs, obs, action)) for tower in twin.towers]
    sum((out - targets).square().sum() for out in wanted).backward()
    for one, two in zip(outs, wanted, strict=True):
        assert torch.allclose(one, two, atol=1e-5)
    assert_gradients(critics, twin)
    with torch.no_grad():
        recorded = critics.record(obs, action)
    assert all(torch.equal(one, two) for one, two in zip(outs, recorded, strict=True))


@pytest.mark.parametrize("name", SPACES)
def test_the_actors_gradients_are_autograds_through_the_first_critic(name):
    space = SPACES[name]
    critics = with_gradients(Critics(space, ACTION, (12, 8), draw(), count=2))
    actor = with_gradients(Actor(space, ACTION, (10, 8), draw(3)))
    twin, obs = copy.deepcopy(actor), observations(space, ROWS)
    with torch.no_grad():
        action = actor.forward_backward(obs, lambda a: critics.action_gradient(obs, a, lambda out: 2 * out)[1])
    twin.zero_grad()
    wanted = torch.tanh(textbook(twin.tower, joined(twin.inputs, obs)))
    textbook(critics.towers[0], joined(critics.inputs, obs, wanted)).square().sum().backward()
    assert torch.allclose(action, wanted, atol=1e-5)
    assert_gradients(actor, twin)
    with torch.no_grad():
        for one in (actor.forward(obs), actor.record(obs)):
            assert torch.allclose(one, action, atol=1e-6)
