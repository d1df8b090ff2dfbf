"""Normals under tanh: densities by numerical integration, gradients by autograd and finite differences, the tails."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from mlbits.agents.maths.squashed_gaussian import SquashedGaussian
from tests.agents.rollouts import draw

ONE = SquashedGaussian(1)


def plain(params, noise):
    """The same by autograd through the definition, in float64."""
    mean, raw = params.chunk(2, -1)
    std = raw.clamp(-20, 2).exp()
    u = mean + std * noise
    normal = torch.distributions.Normal(mean, std).log_prob(u)
    return torch.tanh(u), (normal - torch.log1p(-(torch.tanh(u) ** 2))).sum(-1)


def noise_of(params, u):
    mean, log_std = params.chunk(2, -1)
    return (u - mean) / log_std.exp()


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (1.5, -1.0), (-0.5, 1.0), (0.3, -3.0)])
def test_the_density_integrates_to_one(mean, log_std):
    """Over the action, a = tanh(u), with steps that are even in u."""
    u = torch.linspace(mean - 12 * math.exp(log_std), mean + 12 * math.exp(log_std), 40_001, dtype=torch.float64)
    params = torch.tensor([[mean, log_std]], dtype=torch.float64).expand(len(u), 2)
    action, log_prob = ONE.draw(params, noise_of(params, u[:, None]))
    by_u = log_prob.exp() * (1 - torch.tanh(u) ** 2)  # da = (1 - a^2) du, and it underflows with the density's inverse
    assert float(torch.trapezoid(by_u, u)) == pytest.approx(1, abs=1e-6)
    if log_std <= -1:  # narrow enough for steps in a
        assert float(torch.trapezoid(log_prob.exp(), action[:, 0])) == pytest.approx(1, abs=1e-4)


def test_the_density_in_the_actions_own_units_integrates_to_one_with_the_ends():
    scale, params = torch.tensor([2.5]), torch.tensor([[0.8, 0.2]])
    action = torch.linspace(-0.9989, 0.9989, 200_001)[:, None]
    inside = ONE.played_log_prob(params.expand(len(action), 2), action, scale).double().exp()
    ends = ONE.played_log_prob(params.expand(2, 2), torch.tensor([[-1.0], [1.0]]), scale).exp()
    edge = np.arctanh(0.999)
    assert ends.tolist() == pytest.approx(
        [norm.cdf(-edge, 0.8, math.exp(0.2)), norm.sf(edge, 0.8, math.exp(0.2))], rel=1e-4
    )
    total = float(torch.trapezoid(inside, 2.5 * action[:, 0].double())) + float(ends.sum())
    assert total == pytest.approx(1, abs=2e-3)  # the density is steep near the ends


def test_draws_have_the_density_that_they_are_played_with():
    """In half ranges ``played_log_prob`` of a draw is its own log density."""
    two, scale = SquashedGaussian(2), torch.tensor([3.0, 0.5])
    params = torch.randn(50, 4, generator=draw())
    action, log_prob = two.draw(params, 0.5 * torch.randn(50, 2, generator=draw(1)))
    inside = (action.abs() < 0.99).all(-1)
    assert inside.sum() > 20
    played = two.played_log_prob(params, action, scale) + scale.log().sum()
    assert torch.allclose(played[inside], log_prob[inside], atol=1e-3)


@pytest.mark.parametrize("u", [-20.0, -9.5, 9.5, 20.0])
def test_the_tails_are_exact_in_float32(u):
    """log(1 - tanh(u)^2) is 2 log 2 - 2 |u| there; tanh itself has rounded to 1."""
    params = torch.zeros(1, 2, requires_grad=True)
    action, log_prob = ONE.draw(params, torch.tensor([[u]]))
    wanted = -0.5 * u * u - 0.5 * math.log(2 * math.pi) - (2 * math.log(2) - 2 * abs(u))
    assert action.item() == math.copysign(1, u)
    assert log_prob.item() == pytest.approx(wanted, rel=1e-6)
    log_prob.sum().backward()
    assert params.grad.isfinite().all()
    assert params.grad[0, 0].item() == pytest.approx(math.copysign(2, u))


def test_gradients_are_those_of_autograd_and_of_finite_differences():
    two = SquashedGaussian(2)
    params = torch.randn(6, 4, generator=draw(), dtype=torch.float64).requires_grad_()
    noise = torch.randn(6, 2, generator=draw(1), dtype=torch.float64)
    weights = torch.randn(6, 2, generator=draw(2), dtype=torch.float64)
    found = []
    for function in (two.draw, plain):
        action, log_prob = function(params, noise)
        (grad,) = torch.autograd.grad((weights * action).sum() + (weights[:, 0] * log_prob).sum(), params)
        found.append((action, log_prob, grad))
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-10)
    assert torch.autograd.gradcheck(lambda params: two.draw(params, noise), (params,))


def test_standard_deviations_are_clipped_and_get_no_gradient_there():
    params = torch.tensor([[0.1, 3.0], [0.1, -25.0], [0.1, 1.0]], requires_grad=True)
    action, log_prob = ONE.draw(params, torch.full((3, 1), 0.3))
    assert action[0].item() == pytest.approx(math.tanh(0.1 + 0.3 * math.exp(2)))
    (action.sum() + log_prob.sum()).backward()
    assert (params.grad[:, 1] != 0).tolist() == [False, False, True]
    assert ONE.mode(params).flatten().tolist() == pytest.approx([math.tanh(0.1)] * 3)
