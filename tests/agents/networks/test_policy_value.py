"""Policy and value networks: folded against plain tanh layers, all kinds of observations, initial weights, moments."""

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces

from mlbits.agents.maths.action_distributions import distribution_for
from mlbits.agents.networks.features import Features
from mlbits.agents.networks.initial_weights import orthogonal
from mlbits.agents.networks.mlp import MLP
from mlbits.agents.networks.policy_value import ActorCritic
from mlbits.agents.networks.running_moments import RunningMoments

MANY, FEW = 200, 8  # numbers of rows for which the folded and the plain layers are used


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def uint8(*shape, high=255):
    return spaces.Box(0, high, shape, np.uint8)


SPACES = {
    "discrete": spaces.Discrete(7),
    "multi_discrete": spaces.MultiDiscrete([3, 4, 2]),
    "multi_binary": spaces.MultiBinary(6),
    "vector": spaces.Box(-1, 1, (5,), np.float32),
    "number": spaces.Box(-1, 1, (), np.float32),
    "vector of float64": spaces.Box(-np.inf, np.inf, (3,), np.float64),
    "bytes": uint8(9, high=1),
    "planes": uint8(5, 6, 7, high=1),
    "image, channels first": uint8(3, 16, 20),
    "image, channels last": uint8(16, 20, 3),
    "image, grey": uint8(12, 14),
    "image, two grey frames": uint8(2, 12, 14),
    "image, large": uint8(4, 84, 84),
    "image of floats": spaces.Box(-1, 1, (4, 40, 36), np.float32),
    "record": spaces.Dict({"cell": spaces.Discrete(5), "speed": spaces.Box(-1, 1, (2,), np.float32)}),
    "dict": spaces.Dict(
        {
            "image": uint8(10, 10, 3),
            "vector": spaces.Box(-1, 1, (3,), np.float32),
            "count": spaces.Discrete(8),
            "last": spaces.MultiDiscrete([3, 2]),
            "switches": spaces.MultiBinary(4),
        }
    ),
}
_DTYPES = {spaces.Discrete: np.int32, spaces.MultiDiscrete: np.int32}


def observations(space, rows, seed=0):
    """Rows in the form of a batch: tensors in the batch's dtypes, or a dict of such tensors for a Dict space."""
    if isinstance(space, spaces.Dict):
        return {key: observations(part, rows, seed + k) for k, (key, part) in enumerate(space.items())}
    space.seed(seed)
    stacked = np.stack([np.asarray(space.sample()) for _ in range(rows)])
    return torch.from_numpy(stacked.astype(_DTYPES.get(type(space), stacked.dtype)))


def part_of(obs, rows):
    return {key: value[rows] for key, value in obs.items()} if isinstance(obs, dict) else obs[rows]


def network(space, actions=None, hidden=(16, 12), seed=0):
    distribution = distribution_for(actions or spaces.Discrete(4))
    return ActorCritic(space, distribution, hidden, draw(seed))


def gradients(net):
    return {name: parameter.grad.clone() for name, parameter in net.named_parameters()}


def weigh(policy, value, start):
    """A scalar that depends on every output of every row with different weights."""
    weights = torch.arange(start, start + len(value)).sin()
    return (policy.square().sum(-1) * weights).sum() + (value * weights.cos()).sum()


@pytest.mark.parametrize("hidden", [(16,), (16, 12), (8, 9, 10)])
@pytest.mark.parametrize("kind", ["discrete", "multi_discrete", "vector", "record"])
def test_many_rows_at_once_give_the_same_as_a_few_at_a_time(kind, hidden):
    """The folded forward and backward pass against the plain one, which autograd differentiates."""
    net = network(SPACES[kind], hidden=hidden).double()
    for mlp in (net.actor, net.critic):
        mlp.head.data.normal_(generator=draw(1))
        for bias in mlp.biases:
            bias.data.normal_(generator=draw(2))
    obs = observations(SPACES[kind], MANY)
    net.features = _Doubles(net.features)
    policy, value = net(obs)
    weigh(policy, value, 0).backward()
    at_once = gradients(net)
    net.zero_grad()
    for start in range(0, MANY, FEW):
        some, worth = net(part_of(obs, slice(start, start + FEW)))
        assert torch.allclose(some, policy[start : start + FEW], atol=1e-12)
        assert torch.allclose(worth, value[start : start + FEW], atol=1e-12)
        weigh(some, worth, start).backward()
    for name, gradient in gradients(net).items():
        assert torch.allclose(gradient, at_once[name], atol=1e-10), name
        assert gradient.abs().max() > 0, name


class _Doubles(torch.nn.Module):
    """Features in float64, so that rounding is far below the tolerances."""

    def __init__(self, features):
        super().__init__()
        self.inner = features

    def forward(self, obs):
        return [part.double() if part.is_floating_point() else part for part in self.inner(obs)]


@pytest.mark.parametrize("rows", [FEW, MANY])
def test_the_networks_match_tanh_layers_and_a_linear_head(rows):
    """Written with one-hot vectors, which the MLP never builds."""
    space = SPACES["multi_discrete"]
    net = network(space)
    obs = observations(space, rows)
    one_hot = torch.cat([torch.eye(n)[obs[:, k].long()] for k, n in enumerate(space.nvec)], -1)
    for mlp, wanted in ((net.actor, net.policy(obs)), (net.critic, net.value(obs)[:, None])):
        for bias in mlp.biases:
            bias.data.normal_(generator=draw(3))
        hidden = torch.tanh(one_hot @ torch.cat(list(mlp.first)) + mlp.biases[0])
        hidden = torch.tanh(hidden @ mlp.weights[0] + mlp.biases[1])
        wanted = hidden @ mlp.head.t() + mlp.head_bias
        assert torch.allclose(mlp(net.features(obs)), wanted, atol=1e-5)


@pytest.mark.parametrize("rows", [FEW, MANY])
@pytest.mark.parametrize("kind", SPACES)
def test_every_kind_of_observation_works_and_all_weights_get_gradients(kind, rows):
    rows = FEW if "large" in kind or "floats" in kind else rows
    net = network(SPACES[kind])
    obs = observations(SPACES[kind], rows)
    policy, value = net(obs)
    assert policy.shape == (rows, 4)
    assert value.shape == (rows,)
    assert torch.equal(net.policy(obs), policy)
    assert torch.equal(net.value(obs), value)
    assert torch.isfinite(policy).all()
    weigh(policy, value, 0).backward()
    for name, gradient in gradients(net).items():
        assert gradient.abs().max() > 0, name


@pytest.mark.parametrize("kind", SPACES)
def test_different_observations_have_different_values(kind):
    space = SPACES[kind]
    net = network(space)
    obs = observations(space, FEW, seed=1)
    value = net.value(obs)
    different = len({tuple(row) for row in _flat(obs)})
    assert len(set(value.tolist())) == different > 1


def _flat(obs):
    parts = list(obs.values()) if isinstance(obs, dict) else [obs]
    return torch.cat([part.reshape(len(part), -1).double() for part in parts], -1).tolist()


def test_continuous_actions_have_a_deviation_that_does_not_depend_on_the_observation():
    net = ActorCritic(SPACES["vector"], distribution_for(spaces.Box(-1, 1, (2,))), (8,), draw(), log_std=-0.5)
    params = net.policy(observations(SPACES["vector"], 5))
    assert params.shape == (5, 4)
    assert torch.equal(params[:, 2:], torch.full((5, 2), -0.5))
    params[:, 2:].sum().backward()
    assert net.log_std.grad.tolist() == [5, 5]


def test_bytes_are_scaled_to_one_and_flags_are_not():
    for shape in ((6,), (3, 16, 16)):
        features = Features(uint8(*shape), draw())
        full, nothing = (features(torch.full((1, *shape), value, dtype=torch.uint8))[0] for value in (255, 0))
        half = features(torch.full((1, *shape), 51, dtype=torch.uint8))[0]
        if shape == (6,):
            assert torch.allclose(full, torch.ones(1, 6))
            assert nothing.abs().max() == 0
        assert torch.allclose(half, full / 5, atol=1e-6)
    flags = Features(uint8(6, high=1), draw())
    assert torch.equal(flags(torch.ones(1, 6, dtype=torch.uint8))[0], torch.ones(1, 6))


def test_channels_last_are_the_same_image():
    first, last = Features(uint8(3, 16, 20), draw()), Features(uint8(16, 20, 3), draw())
    obs = observations(uint8(3, 16, 20), 4)
    assert torch.allclose(first(obs)[0], last(obs.permute(0, 2, 3, 1))[0], atol=1e-6)
    grey, deep = Features(uint8(12, 14), draw()), Features(uint8(12, 14, 1), draw())
    obs = observations(uint8(12, 14), 4)
    assert torch.allclose(grey(obs)[0], deep(obs[..., None])[0], atol=1e-6)


@pytest.mark.parametrize("kind", SPACES)
def test_making_a_network_does_not_use_the_global_generator(kind):
    torch.manual_seed(11)
    before = torch.get_rng_state()
    network(SPACES[kind], spaces.Box(-1, 1, (2,)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", SPACES)
def test_the_seed_determines_the_weights(kind):
    torch.manual_seed(1)
    one = network(SPACES[kind], seed=5).state_dict()
    torch.manual_seed(2)
    two, other = network(SPACES[kind], seed=5).state_dict(), network(SPACES[kind], seed=6).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_initial_weights_are_orthogonal():
    for rows, columns in ((5, 9), (9, 5), (4, 4)):
        matrix = orthogonal(rows, columns, 3.0, draw())
        product = matrix @ matrix.t() if rows < columns else matrix.t() @ matrix
        assert torch.allclose(product, 9 * torch.eye(min(rows, columns)), atol=1e-5)
    mlp = MLP(Features(SPACES["vector"], draw()), (16, 12), 4, draw(), activation="tanh", head_gain=0.01)
    inner = mlp.weights[0]
    assert torch.allclose(inner.t() @ inner, 2 * torch.eye(12), atol=1e-5)
    assert float(mlp.head.detach().norm()) == pytest.approx(0.01 * math.sqrt(4), rel=1e-4)
    assert all(bias.abs().max() == 0 for bias in (*mlp.biases, mlp.head_bias))


def test_running_moments_are_those_of_all_rows():
    numbers = np.random.default_rng(0)
    parts = [numbers.normal([3, -1e6, 0], [2, 0.5, 0], (rows, 3)) for rows in (1, 2, 50, 7)]
    moments = RunningMoments(3)
    for part in parts:
        moments.update(torch.from_numpy(part))
    everything = np.concatenate(parts)
    assert float(moments.count) == 60
    assert np.allclose(moments.mean, everything.mean(0))
    assert np.allclose(moments.var, everything.var(0), rtol=1e-6, atol=1e-12)


def test_standardised_rows_have_mean_zero_and_deviation_one_and_are_clipped():
    rows = torch.from_numpy(np.random.default_rng(1).normal([5, -2], [3, 0.1], (1000, 2))).float()
    moments = RunningMoments(2)
    assert torch.allclose(moments.standardise(rows / 10), rows / 10, atol=1e-6)  # before the first update
    moments.update(rows)
    scaled = moments.standardise(rows)
    assert torch.allclose(scaled.mean(0), torch.zeros(2), atol=1e-4)
    assert torch.allclose(scaled.std(0, unbiased=False), torch.ones(2), atol=1e-4)
    assert moments.standardise(torch.tensor([[1e6, -1e6]])).tolist() == [[10, -10]]
    assert moments.standardise(torch.tensor([[1e6, -1e6]]), clip=2.0).tolist() == [[2, -2]]


def test_running_moments_are_saved_whole():
    one, two = RunningMoments(2), RunningMoments(2)
    one.update(torch.tensor([[1.0, 2.0], [3.0, 5.0]]))
    two.load_state_dict(one.state_dict())
    for moments in (one, two):
        moments.update(torch.tensor([[7.0, 7.0]]))
    assert torch.equal(one.mean, two.mean)
    assert torch.equal(one.var, two.var)


def test_bfloat16_rounds_products_and_nothing_else():
    """Outputs are float32 and near those of float32; so are gradients, which are those of rounded products."""
    box = spaces.Box(-1, 1, (5,), np.float32)
    obs = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
    found = {}
    for rounded in (False, True):
        network = ActorCritic(box, distribution_for(spaces.Discrete(3)), (32, 32), torch.Generator().manual_seed(1))
        network.in_bfloat16 = rounded
        params, value = network(obs)
        assert params.dtype == value.dtype == network.policy(obs).dtype == network.value(obs).dtype == torch.float32
        (params.square().sum() + value.square().sum()).backward()
        found[rounded] = (params.detach(), value.detach(), *(part.grad for part in network.parameters()))
    for exact, near in zip(found[False], found[True], strict=True):
        assert near.dtype == torch.float32
        assert not torch.equal(exact, near)
        torch.testing.assert_close(near, exact, rtol=0.1, atol=0.1 * float(exact.abs().max()))
