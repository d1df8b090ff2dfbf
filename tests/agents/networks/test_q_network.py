"""Networks of value-based agents: outputs and gradients against plain torch, first weights, copies."""

import copy
import itertools

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from mlbits.agents.kernels.flat_adam import FlatAdam
from mlbits.agents.networks.policy_value import Features
from mlbits.agents.networks.q_network import QNetwork, ReluTower, TargetNetwork, uniform_weight
from tests.agents.rollouts import VECTOR, draw

EVERYTHING = spaces.Dict(
    {
        "vector": VECTOR,
        "index": spaces.Discrete(5),
        "indices": spaces.MultiDiscrete([3, 2]),
        "image": spaces.Box(0, 255, (3, 8, 8), np.uint8),
        "bits": spaces.MultiBinary(3),
    }
)
SPACES = {
    "vector": VECTOR,
    "index": spaces.Discrete(5),
    "indices": spaces.MultiDiscrete([3, 2]),
    "image": EVERYTHING["image"],
    "dict": EVERYTHING,
}


def seen(space, count, seed=0):
    """Observations [count, ...] drawn from a space."""
    space.seed(seed)
    drawn = [space.sample() for _ in range(count)]
    if isinstance(space, spaces.Dict):
        return {key: torch.as_tensor(np.stack([one[key] for one in drawn])) for key in space}
    return torch.as_tensor(np.stack(drawn))


def make(space=VECTOR, actions=4, hidden=(16, 8), seed=0, **settings):
    return QNetwork(space, actions, hidden, draw(seed), **settings)


def one_hot(obs, space):
    """Vectors [N, d] of vectors and indices, for layers of torch's own."""
    if isinstance(space, spaces.Discrete):
        return nn.functional.one_hot(obs, int(space.n)).float()
    if isinstance(space, spaces.MultiDiscrete):
        return torch.cat([nn.functional.one_hot(obs[:, k], int(n)) for k, n in enumerate(space.nvec)], 1).float()
    return obs.float()


def plain(net, inputs):
    """The same network by ``nn.Sequential``: outputs of the first head and the second (None where there is none)."""
    tower = net.tower
    layers = [nn.Linear(inputs.shape[1], len(tower.first_bias))]
    layers[0].weight.data, layers[0].bias.data = torch.cat(list(tower.first)).t(), tower.first_bias.data
    for weight, bias in zip(tower.weights, tower.biases, strict=True):
        layers.append(nn.Linear(*weight.t().shape))
        layers[-1].weight.data, layers[-1].bias.data = weight.data, bias.data
    hidden = inputs
    for layer in layers:
        hidden = torch.relu(layer(hidden))
    heads = zip(tower.head_weights, tower.head_biases, strict=True)
    return [hidden @ weight.t() + bias for weight, bias in heads]


@pytest.mark.parametrize("kind", ["vector", "index", "indices"])
@pytest.mark.parametrize("hidden", [(6,), (16, 8), (5, 6, 7)])
def test_the_network_is_layers_of_torch_with_relu_between(kind, hidden):
    net, obs = make(SPACES[kind], hidden=hidden), seen(SPACES[kind], 9)
    (wanted,) = plain(net, one_hot(obs, SPACES[kind]))
    assert torch.allclose(net(obs), wanted, atol=1e-6)


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("atoms", [1, 7])
@pytest.mark.parametrize("dueling", [False, True])
def test_shapes_for_any_observation(kind, atoms, dueling):
    out = make(SPACES[kind], atoms=atoms, dueling=dueling)(seen(SPACES[kind], 5))
    assert out.shape == ((5, 4) if atoms == 1 else (5, 4, 7))
    assert len({tuple(row.flatten().tolist()) for row in out}) > 1  # it looks at what it sees


@pytest.mark.parametrize("atoms", [1, 3])
def test_atoms_are_the_actions_own(atoms):
    """Output k of action a is column a * K + k of the head."""
    net, obs = make(atoms=atoms), seen(VECTOR, 6)
    (wanted,) = plain(net, obs)
    assert torch.allclose(net(obs).reshape(6, -1), wanted, atol=1e-6)
    before = net(obs)
    net.tower.head_biases[0].data[atoms : 2 * atoms] += 1
    change = (net(obs) - before).view(6, 4, -1)
    assert torch.allclose(change[:, 1], torch.ones(6, atoms), atol=1e-5)
    assert change[:, [0, 2, 3]].abs().max() == 0


@pytest.mark.parametrize("atoms", [1, 3])
def test_dueling_is_value_plus_advantage_less_its_mean(atoms):
    """Wang et al. 2016, equation 9; of distributions, atom by atom."""
    net, obs = make(atoms=atoms, dueling=True), seen(VECTOR, 6)
    advantage, value = plain(net, obs)
    advantage = advantage.view(6, 4, atoms)
    wanted = value.unsqueeze(1) + advantage - advantage.mean(1, keepdim=True)
    out = net(obs).view(6, 4, atoms)
    assert torch.allclose(out, wanted, atol=1e-6)
    assert torch.allclose(out.mean(1), value, atol=1e-6)  # the mean over actions is V: V and A are told apart
    with torch.no_grad():
        net.tower.head_biases[0] += 3.0  # advantages that are all alike say nothing
    assert torch.allclose(net(obs).view(6, 4, atoms), out, atol=1e-5)


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("atoms", [1, 3])
@pytest.mark.parametrize("dueling", [False, True])
def test_gradients_written_out_are_autograds(kind, atoms, dueling):
    space = SPACES[kind]
    net = make(space, atoms=atoms, dueling=dueling)
    obs, twin = seen(space, 7), copy.deepcopy(net)
    FlatAdam(net.parameters(), 1e-3, 1.0)  # which gives each parameter its grad
    for parameter in net.parameters():
        parameter.grad.fill_(99.0)  # written over, not added to
    slope = torch.randn(twin(obs).shape, generator=draw(3))
    out = net.forward_backward(obs, lambda value: slope * value)
    wanted = twin(obs)
    (0.5 * slope * wanted.square()).sum().backward()
    assert torch.allclose(out, wanted, atol=1e-5)
    assert not out.requires_grad
    for (name, ours), theirs in zip(net.named_parameters(), twin.parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4), name


def test_a_further_vector_and_several_heads():
    """As critics take actions: the gradient of the vector comes back too."""
    features = Features(VECTOR, draw())
    tower = ReluTower(features, (8, 6), (1, 2, 3), draw(), extra=2)
    FlatAdam(tower.parameters(), 1e-3, 1.0)
    parts = [torch.randn(5, 4, generator=draw(1)), torch.randn(5, 2, generator=draw(2)).requires_grad_()]
    heads, _ = tower.forward(parts)
    assert [tuple(head.shape) for head in heads] == [(5, 1), (5, 2), (5, 3)]
    grads = [torch.randn(head.shape, generator=draw(3)) for head in heads]
    wanted = torch.autograd.grad(heads, [*tower.parameters(), parts[1]], grads)
    with torch.no_grad():
        _, hidden = tower.forward(parts)
        back = tower.backward(parts, hidden, grads)
    for parameter, gradient in zip(tower.parameters(), wanted[:-1], strict=True):
        assert torch.allclose(parameter.grad, gradient, atol=1e-6)
    assert torch.allclose(tower.part_gradient(1, back), wanted[-1], atol=1e-6)


# First weights


def test_weights_start_within_one_over_the_root_of_what_they_add_up():
    """As torch's linear layers; an index has one entry that is not zero, k indices have k."""
    for kind, fan_in in (("vector", 4), ("index", 1), ("indices", 2)):
        net = make(SPACES[kind], hidden=(500, 300))
        bounds = [fan_in] * (len(net.tower.first) + 1) + [500] * 2 + [300] * 2
        weights = [*net.tower.first, net.tower.first_bias, *net.tower.weights, *net.tower.biases]
        weights += [*net.tower.head_weights, *net.tower.head_biases]
        for weight, count in zip(weights, bounds, strict=True):
            assert weight.abs().max() <= count**-0.5
            if weight.numel() > 200:
                assert weight.abs().max() > 0.95 * count**-0.5
                assert abs(float(weight.detach().mean())) < 0.1 * count**-0.5
    assert uniform_weight(3, 5, 0, draw()).abs().max() <= 1


@pytest.mark.parametrize("kind", SPACES)
def test_first_weights_follow_from_the_seed_alone(kind):
    before = torch.get_rng_state()
    one, two, other = make(SPACES[kind], seed=1), make(SPACES[kind], seed=1), make(SPACES[kind], seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    for a, b, c in zip(one.parameters(), two.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not a.any() or not torch.equal(a, c)  # convolutions have biases of zero


# The copy that follows


def pair(space=VECTOR, **settings):
    net = make(space, **settings)
    optimizer = FlatAdam(net.parameters(), 0.1, 1.0)
    return net, optimizer, TargetNetwork(net, optimizer)


def moved(optimizer):
    with torch.no_grad():
        optimizer.flat.add_(torch.randn(optimizer.flat.shape, generator=draw(5)))


@pytest.mark.parametrize("kind", ["vector", "dict"])
def test_the_copy_stays_until_it_follows(kind):
    net, optimizer, target = pair(SPACES[kind], dueling=True)
    obs = seen(SPACES[kind], 3)
    first = net(obs).detach()
    assert torch.equal(target(obs), first)
    moved(optimizer)
    assert not torch.equal(net(obs), first)
    assert torch.equal(target(obs), first)
    target.follow()
    assert torch.equal(target(obs), net(obs))
    moved(optimizer)
    assert not torch.equal(target(obs), net(obs))
    assert not any(parameter.requires_grad for parameter in target.network.parameters())


def test_no_memory_is_shared_by_the_copy_and_the_network():
    net, optimizer, target = pair(EVERYTHING, dueling=True)
    ours = {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}
    theirs = {parameter.untyped_storage().data_ptr() for parameter in target.network.parameters()}
    assert ours == {optimizer.flat.untyped_storage().data_ptr()}
    assert not ours & theirs


@pytest.mark.parametrize("tau", [0.005, 0.3, 1.0])
def test_the_copy_goes_a_share_of_the_way(tau):
    net, optimizer, target = pair()
    before = [parameter.clone() for parameter in target.network.parameters()]
    moved(optimizer)
    for _ in range(2):
        target.follow(tau)
    for start, now, end in zip(before, target.network.parameters(), net.parameters(), strict=True):
        assert torch.allclose(now, end + (1 - tau) ** 2 * (start - end), atol=1e-6)


def test_a_deep_copy_has_a_network_target_and_optimiser_of_its_own():
    obs = seen(VECTOR, 3)
    for order in itertools.permutations(range(3)):
        original = pair()
        copied = copy.deepcopy([original[k] for k in order])
        net, optimizer, target = (copied[order.index(k)] for k in range(3))
        first = original[0](obs).detach()
        moved(optimizer)
        assert not torch.equal(net(obs), first)
        assert torch.equal(target(obs), first)
        target.follow()
        assert torch.equal(target(obs), net(obs))
        assert torch.equal(original[0](obs), first)
        assert torch.equal(original[2](obs), first)
