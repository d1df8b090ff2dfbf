"""Forward and backward passes against autograd, Fisher-vector products against matrices, CG against a dense solver."""

import itertools

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.func import functional_call

from mlbits.agents.kernels.tanh_mlp_passes import TanhMLPPasses
from mlbits.agents.maths.action_distributions import distribution_for
from mlbits.agents.networks.natural_gradient import FisherProduct, conjugate_gradient
from mlbits.agents.networks.policy_value import ActorCritic
from tests.agents.networks.test_policy_value import SPACES, observations

ROWS = 20  # fewer than fold the layers: autograd's second derivatives need the plain path
ACTIONS = {
    "discrete": spaces.Discrete(4),
    "multi_discrete": spaces.MultiDiscrete([2, 3]),
    "continuous": spaces.Box(-1, 1, (2,), np.float32),
}


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


class Doubles(torch.nn.Module):
    """Features in float64, so that rounding is far below the differences compared."""

    def __init__(self, features):
        super().__init__()
        self.inner = features

    def forward(self, obs):
        return [part.double() if part.is_floating_point() else part for part in self.inner(obs)]


def network(space, actions, hidden=(6, 5), seed=0):
    """Weights all of order one."""
    net = ActorCritic(space, distribution_for(actions), hidden, draw(seed), log_std=-0.3)
    for k, parameter in enumerate(net.parameters()):
        parameter.data.add_(0.3 * torch.randn(parameter.shape, generator=draw(100 + k)))
    return net


def network_of_doubles(space, actions, hidden=(6, 5)):
    net = network(space, actions, hidden).double()
    net.features = Doubles(net.features)
    return net


def policy_parameters(net):
    critic = {id(parameter) for parameter in net.critic.parameters()}
    return [parameter for parameter in net.parameters() if id(parameter) not in critic]


def random_mask(actions, rows=ROWS):
    if isinstance(actions, spaces.Box):
        return None
    nvec = [int(actions.n)] if isinstance(actions, spaces.Discrete) else actions.nvec.tolist()
    mask = torch.rand(rows, sum(nvec), generator=draw(5)) < 0.5
    mask[:, np.cumsum([0, *nvec[:-1]])] = True
    return mask


def every_action(actions):
    """All possible samples with None, or nodes and weights of a quadrature that is exact for squared scores."""
    if isinstance(actions, spaces.Discrete):
        return torch.arange(int(actions.n)), None
    if isinstance(actions, spaces.MultiDiscrete):
        return torch.tensor(list(itertools.product(*(range(n) for n in actions.nvec)))), None
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)  # exact to degree 5; a score's square is of degree 4
    pairs = list(itertools.product(range(3), repeat=actions.shape[0]))
    weight = torch.tensor([np.prod(weights[list(pair)]) for pair in pairs])
    return torch.tensor(nodes[np.array(pairs)]), weight / weight.sum()


def fisher_of_scores(net, distribution, actions, obs, mask):
    """The mean over rows and actions of the score's outer product with itself, by its definition."""
    parameters = policy_parameters(net)
    samples, weights = every_action(actions)
    total = torch.zeros((), dtype=torch.float64)
    for row in range(ROWS):
        one, legal = obs[row : row + 1], None if mask is None else mask[row : row + 1]
        for k, sample in enumerate(samples):
            params = net.policy(one)
            mean, log_std = params.detach().chunk(2, -1) if weights is not None else (None, None)
            sample = sample[None] if weights is None else mean + log_std.exp() * sample
            log_prob = distribution.log_prob(params, legal, sample)
            weight = log_prob.detach().exp() if weights is None else weights[k]
            if weight == 0:  # illegal
                continue
            score = torch.cat([g.reshape(-1) for g in torch.autograd.grad(log_prob.sum(), parameters)])
            total = total + weight * score[:, None] * score
    return total / ROWS


def written_out(net, weights, obs):
    """The policy's outputs as a function of weights that replace each parameter."""
    inside = {name: weights[parameter] for name, parameter in net.features.named_parameters()}
    parts, mlp = functional_call(net.features, inside, (obs,)), net.actor
    total = weights[mlp.biases[0]]
    for part, table, is_index in zip(parts, mlp.first, mlp.is_index, strict=True):
        total = total + (weights[table][part.long()].sum(1) if is_index else part @ weights[table])
    for weight, bias in zip(mlp.weights, mlp.biases[1:], strict=True):
        total = torch.tanh(total) @ weights[weight] + weights[bias]
    head = torch.tanh(total) @ weights[mlp.head].t() + weights[mlp.head_bias]
    return head if net.log_std is None else torch.cat([head, weights[net.log_std].expand_as(head)], -1)


def kl_of(net, distribution, obs, mask):
    """KL(current || theta) as a function of the policy's parameters as one vector, and the current vector."""
    parameters = policy_parameters(net)
    now = net.policy(obs).detach()
    sizes = [parameter.numel() for parameter in parameters]

    def kl(vector):
        parts = zip(parameters, vector.split(sizes), strict=True)
        weights = {parameter: part.view_as(parameter) for parameter, part in parts}
        return distribution.kl(now, written_out(net, weights, obs), mask).mean()

    return kl, torch.cat([parameter.detach().reshape(-1) for parameter in parameters])


@pytest.mark.parametrize("chunk", [0, 7])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", ACTIONS)
def test_fisher_vector_products_equal_those_of_the_explicit_matrix(kind, masked, chunk):
    actions, obs = ACTIONS[kind], torch.randn(ROWS, 3, generator=draw(1))
    distribution, net = distribution_for(actions), network_of_doubles(spaces.Box(-1, 1, (3,)), actions)
    mask = random_mask(actions) if masked else None
    matrix = fisher_of_scores(net, distribution, actions, obs, mask)
    kl, now = kl_of(net, distribution, obs, mask)
    hessian = torch.autograd.functional.hessian(kl, now)
    assert torch.allclose(matrix, hessian, atol=1e-10)  # two independent definitions of it
    product = FisherProduct(net, distribution, policy_parameters(net), obs, mask, chunk)
    columns = torch.stack([product(unit) for unit in torch.eye(len(now), dtype=torch.float64)], 1)
    assert torch.allclose(columns, matrix, atol=1e-10)
    assert matrix.abs().max() > 0.01


@pytest.mark.parametrize("kind", [kind for kind in SPACES if kind not in ("image, large", "image of floats")])
def test_fisher_vector_products_for_every_kind_of_observation(kind):
    """Against the gradient of the gradient of the KL, convolutions included."""
    actions = ACTIONS["multi_discrete"]
    distribution, net = distribution_for(actions), network(SPACES[kind], actions)
    obs, mask = observations(SPACES[kind], ROWS), random_mask(actions)
    kl, now = kl_of(net, distribution, obs, mask)
    vector = torch.randn(len(now), generator=draw(9))
    wanted = torch.autograd.functional.hvp(kl, now, vector)[1]
    product = FisherProduct(net, distribution, policy_parameters(net), obs, mask, chunk=7)
    assert torch.allclose(product(vector), wanted, atol=1e-4 * float(wanted.abs().max()))
    assert wanted.abs().max() > 0.01
    assert bool(list(net.features.parameters())) == ("image" in kind or kind in ("planes", "dict"))


@pytest.mark.parametrize("hidden", [(6,), (6, 5), (4, 6, 5)])
@pytest.mark.parametrize("kind", ["vector", "multi_discrete", "record"])
def test_the_passes_equal_autograds(kind, hidden):
    net = network_of_doubles(SPACES[kind], ACTIONS["discrete"], hidden)
    mlp, parts = net.actor, net.features(observations(SPACES[kind], ROWS))
    floats = [k for k, part in enumerate(parts) if part.is_floating_point()]
    parts = [part.requires_grad_() if k in floats else part for k, part in enumerate(parts)]
    run, parameters = TanhMLPPasses(mlp.layers, [part.detach() for part in parts]), list(mlp.parameters())
    out = mlp(parts)
    assert torch.allclose(run.out, out, atol=1e-12)
    cotangent = torch.randn(out.shape, generator=draw(3), dtype=torch.float64)
    moving = [parts[k] for k in floats]
    wanted = torch.autograd.grad(out, [*parameters, *moving], cotangent)
    into = {parameter: torch.ones_like(parameter) for parameter in parameters}
    given = run.vjp(cotangent, into, floats)
    for parameter, gradient in zip(parameters, wanted, strict=False):
        assert torch.allclose(into[parameter] - 1, gradient, atol=1e-12)  # added to the existing values
        assert gradient.abs().max() > 0
    for gradient, other in zip(given, wanted[len(parameters) :], strict=True):
        assert torch.allclose(gradient, other, atol=1e-12)
    tangents = [torch.randn(part.shape, generator=draw(k), dtype=torch.float64) for k, part in enumerate(wanted)]
    pushed = run.jvp(
        dict(zip(parameters, tangents, strict=False)), dict(zip(floats, tangents[len(parameters) :], strict=True))
    )
    assert torch.allclose(pushed, difference(mlp, parts, parameters + moving, tangents), atol=1e-7)


def difference(mlp, parts, moving, tangents, step=1e-5):
    """The central difference of the outputs."""
    outs = []
    with torch.no_grad():
        for sign in (1, -2, 1):  # forth, back over the middle, home
            for tensor, tangent in zip(moving, tangents, strict=True):
                tensor.add_(tangent, alpha=sign * step)
            outs.append(mlp(parts))
    return (outs[0] - outs[1]) / (2 * step)


def test_conjugate_gradients_agree_with_a_dense_solver():
    for size in (1, 5, 30):
        root = torch.randn(size, size + 5, generator=draw(size), dtype=torch.float64)
        matrix, target = root @ root.t() + torch.eye(size), torch.randn(size, generator=draw(1), dtype=torch.float64)
        solution, residual = conjugate_gradient(lambda v, m=matrix: m @ v, target, 2 * size, tolerance=1e-12)
        assert torch.allclose(solution, torch.linalg.solve(matrix, target), atol=1e-9)
        assert torch.allclose(residual, target - matrix @ solution, atol=1e-9)


def test_conjugate_gradients_need_one_product_for_each_different_eigenvalue():
    basis = torch.linalg.qr(torch.randn(12, 12, generator=draw(), dtype=torch.float64))[0]
    values = torch.tensor([1.0, 2.0, 7.0], dtype=torch.float64).repeat(4)
    matrix, target = basis * values @ basis.t(), torch.randn(12, generator=draw(2), dtype=torch.float64)
    calls = []
    for iterations in (2, 3, 100):
        calls.clear()
        _, residual = conjugate_gradient(lambda v: calls.append(0) or matrix @ v, target, iterations, 1e-10)
        assert len(calls) == min(iterations, 3)
        assert bool(residual.norm() < 1e-9 * target.norm()) is (iterations >= 3)


def test_conjugate_gradients_of_zero_are_zero():
    solution, residual = conjugate_gradient(lambda v: v / 0, torch.zeros(3), 5)
    assert solution.tolist() == residual.tolist() == [0, 0, 0]
