"""Actor and critics: outputs and gradients against layers of torch, for observations of every kind."""

import copy

import pytest
import torch
import torch.nn.functional as F

from mlbits.agents.kernels.flat_adam import FlatAdam
from mlbits.agents.networks.deterministic import Actor, Critics
from tests.agents.networks.test_policy_value import SPACES, observations
from tests.agents.rollouts import draw

ROWS, ACTION = 6, 2


def textbook(mlp, parts):
    """ReLU layers and a linear head, with one-hot vectors for indices."""
    z = mlp.biases[0]
    for part, table, is_index in zip(parts, mlp.first, mlp.is_index, strict=True):
        z = z + (F.one_hot(part.long(), len(table)).sum(1).to(table.dtype) @ table if is_index else part @ table)
    for weight, bias in zip(mlp.weights, mlp.biases[1:], strict=True):
        z = z.relu() @ weight + bias
    return z.relu() @ mlp.head.t() + mlp.head_bias


def joined(network, obs, action):
    """The parts of observations, with the action after their vector."""
    parts = network.features(obs, torch.zeros_like(action))
    return [*parts[:-1], torch.cat([parts[-1][:, :-ACTION], action], 1)]


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("count", [1, 2])
def test_critics_match_plain_layers_over_observation_and_action(name, count):
    space = SPACES[name]
    critics = Critics(space, ACTION, (12, 8), draw(), count=count)
    twin, obs = copy.deepcopy(critics), observations(space, ROWS)
    action = torch.randn(ROWS, ACTION, generator=draw(1))
    outs, wanted = critics(obs, action), [textbook(mlp, joined(twin, obs, action)) for mlp in twin.mlps]
    for network, values in ((critics, outs), (twin, wanted)):
        sum((value.square() * (k + 1)).sum() for k, value in enumerate(values)).backward()
        assert all(parameter.grad.abs().max() > 0 for parameter in network.parameters())
    for one, two in zip(outs, wanted, strict=True):
        assert torch.allclose(one, two, atol=1e-5)
    for (key, one), two in zip(critics.named_parameters(), twin.parameters(), strict=True):
        assert torch.allclose(one.grad, two.grad, rtol=1e-3, atol=1e-5 * float(two.grad.abs().max()) + 1e-9), key
    assert torch.equal(critics.first(obs, action), outs[0])


@pytest.mark.parametrize("name", SPACES)
def test_the_actor_gets_gradients_through_a_frozen_critic_which_gets_none(name):
    space = SPACES[name]
    critics, actor = Critics(space, ACTION, (12, 8), draw(), count=2), Actor(space, ACTION, (10, 8), draw(3))
    twin, obs = copy.deepcopy(actor), observations(space, ROWS)
    optimizer = FlatAdam(critics.parameters(), 1e-3, 1.0)
    with optimizer.frozen():
        action = actor(obs)
        critics.first(obs, action).square().sum().backward()
    assert all(parameter.requires_grad and not parameter.grad.any() for parameter in critics.parameters())
    wanted = torch.tanh(textbook(twin.mlp, twin.features(obs)))
    textbook(critics.mlps[0], joined(critics, obs, wanted)).square().sum().backward()
    assert torch.allclose(action, wanted, atol=1e-5)
    for (key, one), two in zip(actor.named_parameters(), twin.parameters(), strict=True):
        assert torch.allclose(one.grad, two.grad, rtol=1e-3, atol=1e-5 * float(two.grad.abs().max()) + 1e-9), key
