"""Diversity: the kernel and its determinant by hand, what is refused, and which arm the bandit finds."""

import math

import pytest
import torch

from mlbits.agents.agent import AgentError
from mlbits.agents.population.diversity import WeightBandit, determinant, kernel_matrix, log_determinant
from tests.agents.rollouts import draw


def test_the_kernel_of_two_members_by_hand():
    acts = torch.tensor([[[0.0], [0.0]], [[1.0], [3.0]]])  # squared distances 1 and 9, mean 5
    kernel = kernel_matrix(acts, length=2.0)
    near = math.exp(-5 / 8)
    assert kernel.flatten().tolist() == pytest.approx([1, near, near, 1])
    assert float(determinant(kernel)) == pytest.approx(1 - near**2)


def test_the_kernel_does_not_depend_on_how_many_states_show_the_same():
    acts = torch.randn(3, 4, 2, generator=draw())
    assert torch.allclose(kernel_matrix(acts.repeat(1, 5, 1), 0.7), kernel_matrix(acts, 0.7), atol=1e-6)


def test_two_clusters_are_not_diverse_and_three_apart_are():
    def value(*places):
        return float(determinant(kernel_matrix(torch.tensor(places).view(-1, 1, 1), 1.0)))

    assert value(0.0, 0.0, 9.0) == 0.0
    assert value(0.0, 0.1, 9.0) < 0.02 < 0.99 < value(0.0, 4.5, 9.0)
    assert value(1.0, 1.0) == 0.0


def test_many_populations_at_once_are_as_one_by_one():
    acts = torch.randn(6, 3, 4, 2, generator=draw())
    together = determinant(kernel_matrix(acts, 0.5))
    assert together.tolist() == pytest.approx([float(determinant(kernel_matrix(one, 0.5))) for one in acts])


def test_the_gradient_drives_members_apart():
    acts = torch.tensor([[[0.0]], [[0.1]], [[0.5]]], requires_grad=True)
    log_determinant(kernel_matrix(acts, 0.5)).backward()
    gradient = acts.grad.flatten().tolist()
    assert gradient[0] < 0 < gradient[2]
    assert all(math.isfinite(x) for x in gradient)


@pytest.mark.parametrize(
    ("acts", "length", "message"),
    [
        (torch.zeros(1, 3, 2), 1.0, "population: got 1; wanted at least 2"),
        (torch.zeros(2, 0, 2), 1.0, "embeddings: got 0 states; wanted at least 1"),
        (torch.zeros(2, 3, 2), 0.0, "length: got 0; wanted a number above 0"),
        (torch.zeros(3, 2), 1.0, r"embeddings: got \(3, 2\); wanted \[..., members"),
    ],
)
def test_what_has_no_kernel_is_named(acts, length, message):
    with pytest.raises(AgentError, match=message):
        kernel_matrix(acts, length)


def test_identical_members_are_named_where_a_gradient_is_asked_for():
    with pytest.raises(AgentError, match="kernel: all 4 members are the same; wanted members that differ"):
        log_determinant(kernel_matrix(torch.ones(4, 3, 2), 1.0))


@pytest.mark.parametrize("better", [0, 1])
def test_the_bandit_finds_the_better_arm(better):
    generator, played = draw(1), []
    bandit = WeightBandit((0.0, 0.5))
    for _ in range(300):
        bandit.draw(generator)
        played.append(bandit.arm)
        chance = 0.7 if bandit.arm == better else 0.2
        bandit.note(float(torch.rand((), generator=generator)) < chance)
    assert sum(arm == better for arm in played[-100:]) > 90
    assert bandit.counts.sum() == 4 + 300


def test_a_restored_bandit_draws_the_same():
    one, other = WeightBandit((0.0, 0.2, 0.5)), WeightBandit((0.0, 0.2, 0.5))
    one.arm = 1
    for success in (True, True, False):
        one.note(success)
    other.load_state_dict(one.state_dict())
    assert [one.draw(draw(k)) for k in range(20)] == [other.draw(draw(k)) for k in range(20)]
    assert other.counts[1].tolist() == [3, 2]
    with pytest.raises(AgentError, match="bandit: got the counts of"):
        WeightBandit((0.0, 0.5)).load_state_dict(one.state_dict())


@pytest.mark.parametrize("arms", [(0.5,), (0.0, 0.0), (0.0, 1.0)])
def test_arms_that_cannot_be_chosen_from_are_named(arms):
    with pytest.raises(AgentError, match="arms: got"):
        WeightBandit(arms)
