"""Return distributions: projection and quantile losses against the papers' loops, and their minima."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mlbits.agents.maths.return_distributions import (
    categorical_gradient,
    categorical_loss,
    project,
    quantile_huber_gradient,
    quantile_huber_loss,
)
from tests.agents.rollouts import draw


def textbook_projection(atoms, probability, support):
    """Bellemare et al. 2017, algorithm 1, atom by atom."""
    low, high = float(support[0]), float(support[-1])
    step = (high - low) / (len(support) - 1)
    out = np.zeros((len(atoms), len(support)))
    for row in range(len(atoms)):
        for atom, mass in zip(atoms[row].tolist(), probability[row].tolist(), strict=True):
            place = min((min(max(atom, low), high) - low) / step, len(support) - 1.0)
            lower, upper = math.floor(place), math.ceil(place)
            if lower == upper:  # the paper's own two lines would lose this mass
                out[row, lower] += mass
            else:
                out[row, lower] += mass * (upper - place)
                out[row, upper] += mass * (place - lower)
    return out


@given(
    points=st.integers(2, 12), count=st.integers(1, 12), low=st.floats(-20, 20), width=st.floats(0.5, 40),
    seed=st.integers(0, 10**6),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_projection_equals_the_papers_algorithm(points, count, low, width, seed):
    generator = draw(seed)
    support = torch.linspace(low, low + width, points, dtype=torch.float64)
    atoms = low + width * (1.6 * torch.rand(3, count, generator=generator, dtype=torch.float64) - 0.3)
    probability = torch.softmax(torch.randn(3, count, generator=generator, dtype=torch.float64), -1)
    got = project(atoms, probability, support)
    assert got.shape == (3, points)
    assert np.allclose(got.numpy(), textbook_projection(atoms, probability, support), atol=1e-9)


def test_probability_on_a_support_point_stays_there():
    support = torch.linspace(-2, 2, 5)
    probability = torch.tensor([[0.1, 0.2, 0.3, 0.15, 0.25]])
    assert torch.equal(project(support.unsqueeze(0), probability, support), probability)
    moved = project(support.unsqueeze(0) + 1, probability, support)
    assert torch.allclose(moved, torch.tensor([[0.0, 0.1, 0.2, 0.3, 0.4]]))


def test_probability_beyond_the_support_goes_to_its_end():
    support = torch.linspace(0, 4, 5)
    got = project(torch.tensor([[-9.0, -1e-3, 4.001, 1e6]]), torch.tensor([[0.1, 0.2, 0.3, 0.4]]), support)
    assert torch.allclose(got, torch.tensor([[0.3, 0, 0, 0, 0.7]]))


def test_probability_between_points_by_hand():
    got = project(torch.tensor([[1.25, 3.5]]), torch.tensor([[0.4, 0.6]]), torch.linspace(0, 4, 3))
    assert torch.allclose(got, torch.tensor([[0.4 * 0.375, 0.4 * 0.625 + 0.6 * 0.25, 0.6 * 0.75]]))


@pytest.mark.parametrize("points", [2, 51, 201])
def test_total_and_mean_are_kept_within_the_support(points):
    support = torch.linspace(-10, 10, points)
    generator = draw(points)
    atoms = 19.9 * torch.rand(200, 51, generator=generator) - 9.95
    probability = torch.softmax(3 * torch.randn(200, 51, generator=generator), -1)
    got = project(atoms, probability, support)
    assert (got >= 0).all()
    assert torch.allclose(got.sum(1), torch.ones(200), atol=1e-5)
    assert torch.allclose(got @ support, (atoms * probability).sum(1), atol=1e-4)


def test_a_bellman_update_keeps_the_total_despite_rounding():
    """A support of 51 points has steps that float32 does not represent exactly; no probability may be lost."""
    for low, high in ((-10.0, 10.0), (0.0, 0.3), (-1.0, 100.0), (0.0, 500.0)):
        support = torch.linspace(low, high, 51)
        even = torch.full((1, 51), 1 / 51)
        for shift in (0.0, float(support[1] - support[0]), 1e-7, high - low):
            got = project(support.unsqueeze(0) + shift, even, support)
            assert float(got.sum()) == pytest.approx(1.0, abs=1e-5)
            assert (got >= 0).all()


def test_categorical_loss_is_minimal_at_the_target():
    target = torch.tensor([[0.1, 0.6, 0.3], [0.0, 1.0, 0.0]], dtype=torch.float64)
    logits = torch.tensor([[0.1, 0.6, 0.3], [1e-9, 1 - 2e-9, 1e-9]], dtype=torch.float64).log()
    entropy = -(0.1 * math.log(0.1) + 0.6 * math.log(0.6) + 0.3 * math.log(0.3))
    assert categorical_loss(logits, target).tolist() == pytest.approx([entropy, 0.0], abs=1e-6)
    assert categorical_loss(logits + 7, target).tolist() == pytest.approx([entropy, 0.0], abs=1e-6)
    other = categorical_loss(torch.zeros(2, 3, dtype=torch.float64), target)
    assert other.tolist() == pytest.approx([math.log(3)] * 2)
    wanted = stats.entropy([0.1, 0.6, 0.3], [1 / 3] * 3) + entropy  # a divergence, and the target's own entropy
    assert float(other[0]) == pytest.approx(wanted)


def slow_quantile_huber(quantiles, target, kappa):
    """Dabney et al. 2018, equations 8 to 10, pair by pair; kappa 0 is the plain quantile loss."""
    total = 0.0
    for k, quantile in enumerate(quantiles.tolist()):
        level = (2 * (k + 1) - 1) / (2 * len(quantiles))  # the midpoints, their lemma 2
        for sample in target.tolist():
            error = sample - quantile
            if kappa == 0:
                size = abs(error)
            elif abs(error) <= kappa:
                size = 0.5 * error**2 / kappa
            else:
                size = abs(error) - 0.5 * kappa
            total += abs(level - (error < 0)) * size / len(target)
    return total


@pytest.mark.parametrize("kappa", [0.0, 0.3, 1.0, 5.0])
@pytest.mark.parametrize(("count", "samples"), [(1, 1), (5, 5), (3, 8), (7, 2)])
def test_the_quantile_loss_equals_the_papers(kappa, count, samples):
    generator = draw(count)
    quantiles = 2 * torch.randn(6, count, generator=generator, dtype=torch.float64)
    target = 2 * torch.randn(6, samples, generator=generator, dtype=torch.float64)
    target[0, 0] = quantiles[0, 0]  # an error of 0
    got = quantile_huber_loss(quantiles, target, kappa)
    wanted = [slow_quantile_huber(one, two, kappa) for one, two in zip(quantiles, target, strict=True)]
    assert got.tolist() == pytest.approx(wanted)


def test_the_quantile_loss_by_hand():
    """Levels 1/4 and 3/4 at 0 and 2, one sample at 3: 1/4 (3 - 1/2) + 3/4 (1/2)."""
    loss = quantile_huber_loss(torch.tensor([[0.0, 2.0]]), torch.tensor([[3.0]]))
    assert float(loss) == pytest.approx(0.25 * 2.5 + 0.75 * 0.5)
    loss = quantile_huber_loss(torch.tensor([[0.0, 2.0]]), torch.tensor([[-3.0]]))
    assert float(loss) == pytest.approx(0.75 * 2.5 + 0.25 * 4.5)


@pytest.mark.parametrize("name", ["exponential", "two heaps"])
def test_the_plain_quantile_loss_is_minimal_at_the_quantiles(name):
    """Gradient descent finds the quantiles of the midpoint levels of 2,001 samples of a known distribution."""
    levels = (np.arange(2001) + 0.5) / 2001
    if name == "exponential":
        samples = stats.expon.ppf(levels)
    else:
        samples = np.concatenate([stats.norm(-3, 0.5).ppf(levels[:1000]), stats.norm(2, 1).ppf(levels[1000:])])
    target = torch.tensor(samples).unsqueeze(0)
    quantiles = torch.zeros(1, 8, dtype=torch.float64)
    for step in range(3000):
        quantiles -= 3.0 / (1 + step / 40) * quantile_huber_gradient(quantiles, target, kappa=0.0)
    wanted = np.quantile(samples, (np.arange(8) + 0.5) / 8)
    assert np.allclose(quantiles[0].numpy(), wanted, atol=0.05)
    best = quantile_huber_loss(quantiles, target, kappa=0.0)
    for shift in (-0.2, 0.2):
        assert quantile_huber_loss(quantiles + shift, target, kappa=0.0) > best


def test_a_large_kappa_finds_the_mean_for_the_middle_quantile():
    """If all errors are squared, one quantile (level 1/2) is the mean: the bias of smoothing."""
    target = torch.tensor(stats.expon.ppf((np.arange(999) + 0.5) / 999)).unsqueeze(0)
    quantile = torch.zeros(1, 1, dtype=torch.float64)
    for _ in range(400):
        quantile -= 20 * quantile_huber_gradient(quantile, target, kappa=50.0)
    assert float(quantile) == pytest.approx(float(target.mean()), abs=1e-3)


@pytest.mark.parametrize("kappa", [0.0, 0.5, 1.0])
def test_the_quantile_gradient_equals_autograds(kappa):
    generator = draw(7)
    quantiles = (2 * torch.randn(5, 6, generator=generator, dtype=torch.float64)).requires_grad_()
    target = 2 * torch.randn(5, 4, generator=generator, dtype=torch.float64)
    (wanted,) = torch.autograd.grad(quantile_huber_loss(quantiles, target, kappa).sum(), quantiles)
    assert torch.allclose(quantile_huber_gradient(quantiles.detach(), target, kappa), wanted)


def test_the_categorical_gradient_equals_autograds():
    generator = draw(8)
    logits = (2 * torch.randn(5, 6, generator=generator, dtype=torch.float64)).requires_grad_()
    target = torch.softmax(torch.randn(5, 6, generator=generator, dtype=torch.float64), -1)
    (wanted,) = torch.autograd.grad(categorical_loss(logits, target).sum(), logits)
    assert torch.allclose(categorical_gradient(logits.detach(), target), wanted)
