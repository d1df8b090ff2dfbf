"""Distributions on [-1, 1]: densities as torch.distributions has them, gradients as autograd, draws as densities."""

import itertools

import pytest
import torch
from torch import distributions

from mlbits.agents.agent import network_generator as draw
from mlbits.agents.maths.bounded_distributions import EDGE, GaussianMixture, TanhGaussian, spread


def params(rows, size, seed=0):
    return torch.randn(rows, size, generator=draw(seed), dtype=torch.float64)


def test_tanh_gaussian_is_a_normal_under_tanh():
    given, action = params(6, 4), torch.rand(6, 2, generator=draw(1), dtype=torch.float64) * 1.9 - 0.95
    mean, raw = given.chunk(2, -1)
    normal = distributions.Normal(mean, spread(raw).exp())
    wanted = distributions.TransformedDistribution(normal, [distributions.TanhTransform()]).log_prob(action).sum(-1)
    assert torch.allclose(TanhGaussian(2).log_prob(given, action), wanted)
    assert torch.equal(TanhGaussian(2).mode(given), torch.tanh(mean))


def test_its_gradient_in_closed_form_is_that_of_autograd():
    given = params(5, 4).requires_grad_()
    action = torch.rand(5, 2, generator=draw(1), dtype=torch.float64) * 2 - 1
    assert torch.autograd.gradcheck(TanhGaussian(2).log_prob, (given, action))


def test_actions_on_the_bounds_count_as_near_them():
    given = params(1, 2).expand(3, 2)
    at, near = TanhGaussian(1).log_prob(given, torch.tensor([[1.0], [EDGE], [0.5]], dtype=torch.float64))[:2]
    assert at == near
    assert bool(at.isfinite())


@pytest.mark.parametrize("components", [1, 3])
def test_mixture_is_a_mixture_of_normals(components):
    head = GaussianMixture(2, components)
    given, action = params(6, head.size), torch.rand(6, 2, generator=draw(1), dtype=torch.float64) * 2 - 1
    logits, mean, raw = given.split((components, 2 * components, 2 * components), -1)
    shape = (6, components, 2)
    each = distributions.Independent(distributions.Normal(mean.tanh().view(shape), spread(raw).exp().view(shape)), 1)
    wanted = distributions.MixtureSameFamily(distributions.Categorical(logits=logits), each)
    assert torch.allclose(head.log_prob(given, action), wanted.log_prob(action))
    likeliest = logits.argmax(-1)
    assert torch.equal(head.mode(given), mean.tanh().view(shape)[torch.arange(6), likeliest])


@pytest.mark.parametrize("head", [TanhGaussian(1), GaussianMixture(1, 3), GaussianMixture(1, 1)])
def test_draws_have_the_density(head):
    given = params(1, head.size, seed=3).float()
    drawn = head.sample(given, 100_000, draw(4)).flatten()
    assert drawn.shape == (100_000,)
    assert -1 <= float(drawn.min()) <= float(drawn.max()) <= 1
    edges = torch.linspace(-0.9, 0.9, 10)
    grid = torch.linspace(-0.9, 0.9, 9001)
    density = head.log_prob(given.expand(9001, -1), grid[:, None]).exp()
    for low, high in itertools.pairwise(edges):
        inside = (grid >= low) & (grid < high)
        wanted = float(density[inside].sum() * (grid[1] - grid[0]))
        assert float(((drawn >= low) & (drawn < high)).float().mean()) == pytest.approx(wanted, abs=0.01)


@pytest.mark.parametrize("head", [TanhGaussian(1), GaussianMixture(1, 3), GaussianMixture(1, 1)])
def test_as_played_density_and_probabilities_of_the_bounds_are_1_in_all(head):
    given, edge = params(1, head.size, seed=3), EDGE if isinstance(head, TanhGaussian) else 1.0
    given[0, -1] = 1.0  # a wide spread, so that the bounds count
    scale, grid = torch.tensor([2.0], dtype=torch.float64), torch.linspace(-edge, edge, 200_001, dtype=torch.float64)
    found = head.played_log_prob(given.expand(len(grid), -1), grid[:, None], scale).exp()
    of_bounds, of_others = float(found[0] + found[-1]), float(found[1:-1].sum() * (grid[1] - grid[0]) * 2)
    assert of_bounds > 0.1
    assert of_bounds + of_others == pytest.approx(1, abs=1e-3)
    drawn = head.sample(given.float(), 100_000, draw(4)).flatten()
    assert float((drawn >= edge).float().mean()) == pytest.approx(float(found[-1]), abs=0.01)
    assert float((drawn <= -edge).float().mean()) == pytest.approx(float(found[0]), abs=0.01)
