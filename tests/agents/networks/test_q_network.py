"""The network of value-based agents: outputs against plain torch, initial weights, and the target network."""

import copy
import itertools

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from mlbits.agents.kernels.flat_adam import FlatAdam
from mlbits.agents.networks.initial_weights import uniform
from mlbits.agents.networks.q_network import QNetwork
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
    """Vectors and indices as vectors [N, d], for torch's own layers."""
    if isinstance(space, spaces.Discrete):
        return nn.functional.one_hot(obs, int(space.n)).float()
    if isinstance(space, spaces.MultiDiscrete):
        return torch.cat([nn.functional.one_hot(obs[:, k], int(n)) for k, n in enumerate(space.nvec)], 1).float()
    return obs.float()


def plain(net, inputs):
    """The outputs of torch's own layers with the same weights, [N, out]."""
    mlp = net.mlp
    matrices = [torch.cat(list(mlp.first)).t(), *(weight.t() for weight in mlp.weights), mlp.head]
    hidden = inputs
    for k, (weight, bias) in enumerate(zip(matrices, [*mlp.biases, mlp.head_bias], strict=True)):
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        layer.weight.data, layer.bias.data = weight.detach(), bias.detach()
        hidden = layer(hidden) if k == len(mlp.biases) else torch.relu(layer(hidden))
    return hidden


@pytest.mark.parametrize("kind", ["vector", "index", "indices"])
@pytest.mark.parametrize("hidden", [(6,), (16, 8), (5, 6, 7)])
def test_the_network_matches_torchs_layers_with_relu(kind, hidden):
    net, obs = make(SPACES[kind], hidden=hidden), seen(SPACES[kind], 9)
    wanted = plain(net, one_hot(obs, SPACES[kind]))
    assert torch.allclose(net(obs), wanted, atol=1e-6)


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("atoms", [1, 7])
@pytest.mark.parametrize("dueling", [False, True])
def test_shapes_for_any_observation(kind, atoms, dueling):
    out = make(SPACES[kind], atoms=atoms, dueling=dueling)(seen(SPACES[kind], 5))
    assert out.shape == ((5, 4) if atoms == 1 else (5, 4, 7))
    assert len({tuple(row.flatten().tolist()) for row in out}) > 1  # the output depends on the observation


@pytest.mark.parametrize("atoms", [1, 3])
def test_each_action_has_its_own_atoms(atoms):
    """Output k of action a is column a * K + k of the head."""
    net, obs = make(atoms=atoms), seen(VECTOR, 6)
    wanted = plain(net, obs)
    assert torch.allclose(net(obs).reshape(6, -1), wanted, atol=1e-6)
    before = net(obs)
    net.mlp.head_bias.data[atoms : 2 * atoms] += 1
    change = (net(obs) - before).view(6, 4, -1)
    assert torch.allclose(change[:, 1], torch.ones(6, atoms), atol=1e-5)
    assert change[:, [0, 2, 3]].abs().max() == 0


@pytest.mark.parametrize("atoms", [1, 3])
def test_dueling_is_value_plus_advantage_minus_its_mean(atoms):
    """Wang et al. 2016, equation 9; for distributions, atom by atom."""
    net, obs = make(atoms=atoms, dueling=True), seen(VECTOR, 6)
    advantage, value = plain(net, obs).split([4 * atoms, atoms], 1)
    advantage = advantage.reshape(6, 4, atoms)
    wanted = value.unsqueeze(1) + advantage - advantage.mean(1, keepdim=True)
    out = net(obs).view(6, 4, atoms)
    assert torch.allclose(out, wanted, atol=1e-6)
    assert torch.allclose(out.mean(1), value, atol=1e-6)  # the mean over actions is V: V and A are separate
    with torch.no_grad():
        net.mlp.head_bias[: 4 * atoms] += 3.0  # adding a constant to all advantages changes nothing
    assert torch.allclose(net(obs).view(6, 4, atoms), out, atol=1e-5)


# Initial weights


def test_initial_weights_are_within_one_over_the_square_root_of_fan_in():
    """As in torch's linear layers; the fan-in counts non-zero inputs: 1 for an index, k for k indices."""
    for kind, fan_in in (("vector", 4), ("index", 1), ("indices", 2)):
        net = make(SPACES[kind], hidden=(500, 300))
        bounds = [fan_in] * (len(net.mlp.first) + 1) + [500] * 2 + [300] * 2
        weights = [*net.mlp.first, net.mlp.biases[0], *net.mlp.weights, net.mlp.biases[1], net.mlp.head]
        weights.append(net.mlp.head_bias)
        for weight, count in zip(weights, bounds, strict=True):
            assert weight.abs().max() <= count**-0.5
            if weight.numel() > 200:
                assert weight.abs().max() > 0.95 * count**-0.5
                assert abs(float(weight.detach().mean())) < 0.1 * count**-0.5
    assert uniform(3, 5, 0, draw()).abs().max() <= 1


@pytest.mark.parametrize("kind", SPACES)
def test_initial_weights_depend_only_on_the_seed(kind):
    before = torch.get_rng_state()
    one, two, other = make(SPACES[kind], seed=1), make(SPACES[kind], seed=1), make(SPACES[kind], seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    for a, b, c in zip(one.parameters(), two.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not a.any() or not torch.equal(a, c)  # convolutions have biases of zero


# The target network


def pair(space=VECTOR, **settings):
    net = make(space, **settings)
    target = copy.deepcopy(net).requires_grad_(False)
    return net, FlatAdam(net.parameters(), 0.1, 1.0, target=target.parameters()), target


def moved(optimizer):
    with torch.no_grad():
        optimizer.flat.add_(torch.randn(optimizer.flat.shape, generator=draw(5)))


@pytest.mark.parametrize("kind", ["vector", "dict"])
def test_the_target_network_does_not_change_between_its_updates(kind):
    net, optimizer, target = pair(SPACES[kind], dueling=True)
    obs = seen(SPACES[kind], 3)
    first = net(obs).detach()
    assert torch.equal(target(obs), first)
    moved(optimizer)
    assert not torch.equal(net(obs), first)
    assert torch.equal(target(obs), first)
    optimizer.follow(1.0)
    assert torch.equal(target(obs), net(obs))
    moved(optimizer)
    assert not torch.equal(target(obs), net(obs))


def test_the_target_and_the_network_share_no_memory():
    net, _, target = pair(EVERYTHING, dueling=True)
    places = []
    for parameter in (*net.parameters(), *(p.grad for p in net.parameters()), *target.parameters()):
        start = parameter.data_ptr()
        places.append((start, start + parameter.numel() * parameter.element_size()))
    places.sort()
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(places))


@pytest.mark.parametrize("tau", [0.005, 0.3, 1.0])
def test_the_target_network_moves_a_fraction_of_the_way(tau):
    net, optimizer, target = pair()
    before = [parameter.clone() for parameter in target.parameters()]
    moved(optimizer)
    for _ in range(2):
        optimizer.follow(tau)
    for start, now, end in zip(before, target.parameters(), net.parameters(), strict=True):
        assert torch.allclose(now, end + (1 - tau) ** 2 * (start - end), atol=1e-6)


def test_a_deep_copy_has_its_own_network_target_and_optimiser():
    obs = seen(VECTOR, 3)
    for order in itertools.permutations(range(3)):
        original = pair()
        copied = copy.deepcopy([original[k] for k in order])
        net, optimizer, target = (copied[order.index(k)] for k in range(3))
        first = original[0](obs).detach()
        moved(optimizer)
        assert not torch.equal(net(obs), first)
        assert torch.equal(target(obs), first)
        optimizer.follow(1.0)
        assert torch.equal(target(obs), net(obs))
        assert torch.equal(original[0](obs), first)
        assert torch.equal(original[2](obs), first)
