"""Policy-gradient estimators on a problem small enough to enumerate: each is unbiased, in order of falling variance.

All trajectories are enumerated with their exact probabilities: expectations and variances are sums, not samples.
The exact gradient comes from dynamic programming, independently of the trajectories.
"""

from typing import NamedTuple

import pytest
import torch

from mlbits.agents.maths.action_distributions import Categorical
from mlbits.agents.maths.returns import gae, next_values, rewards_to_go, whole_returns
from mlbits.agents.reinforce import others_mean

STATES, ACTIONS, STEPS = 2, 2, 3
START = torch.tensor([0.6, 0.4], dtype=torch.float64)
# [s, a, s']; 1 minus the sum over s' is the probability that the game ends at this step.
MOVES = torch.tensor([[[0.7, 0.1], [0.2, 0.6]], [[0.3, 0.6], [0.5, 0.5]]], dtype=torch.float64)
PAYS = torch.tensor([[1.0, 3.0], [2.5, 0.5]], dtype=torch.float64)
LOGITS = torch.tensor([[0.3, -0.4], [-0.2, 0.5]], dtype=torch.float64)
POLICY = Categorical(ACTIONS)


def returns_to_go(logits, discount):
    """V_t(s), [STEPS + 1, STATES], by backward induction; differentiable in the logits."""
    chance = torch.softmax(logits, -1)
    value = [torch.zeros(STATES, dtype=torch.float64)]
    for _ in range(STEPS):
        value.insert(0, (chance * (PAYS + discount * MOVES @ value[0])).sum(-1))
    return torch.stack(value)


def exact_gradient(discount=1.0):
    logits = LOGITS.clone().requires_grad_()
    (START @ returns_to_go(logits, discount)[0]).backward()
    return logits.grad


class Trajectories(NamedTuple):
    """All N trajectories as one rollout: probability [N], then [T, N] or (reward, active) [T, N, 1]."""

    probability: torch.Tensor
    state: torch.Tensor
    action: torch.Tensor
    reward: torch.Tensor
    terminated: torch.Tensor
    truncated: torch.Tensor
    active: torch.Tensor


def enumerate_all():
    chance = torch.softmax(LOGITS, -1)
    found = []

    def walk(probability, state, path):
        for action in range(ACTIONS):
            taken = probability * chance[state, action]
            longer = [*path, (state, action)]
            end = 1 - MOVES[state, action].sum()
            if len(longer) == STEPS:
                found.append((taken, longer, False))
                continue
            if end > 1e-12:
                found.append((taken * end, longer, True))
            for following in range(STATES):
                walk(taken * MOVES[state, action, following], following, longer)

    for state in range(STATES):
        walk(START[state], state, [])
    count = len(found)
    state = torch.zeros(STEPS, count, dtype=torch.int64)
    action, reward = torch.zeros_like(state), torch.full((STEPS, count, 1), 100.0, dtype=torch.float64)
    terminated = torch.zeros(STEPS, count, dtype=torch.bool)
    truncated, active = terminated.clone(), torch.zeros(STEPS, count, 1, dtype=torch.bool)
    for n, (_, path, ended) in enumerate(found):
        for t, (s, a) in enumerate(path):
            state[t, n], action[t, n], reward[t, n], active[t, n] = s, a, PAYS[s, a], True
        (terminated if ended else truncated)[len(path) - 1, n] = True
    return Trajectories(torch.stack([p for p, _, _ in found]), state, action, reward, terminated, truncated, active)


ALL = enumerate_all()


def scores():
    """grad log pi(a_t | s_t) of each step, [T, N, S * A], from the product's own log probabilities."""
    grads = torch.zeros(STATES, ACTIONS, STATES * ACTIONS, dtype=torch.float64)
    for s in range(STATES):
        for a in range(ACTIONS):
            logits = LOGITS.clone().requires_grad_()
            POLICY.log_prob(logits[s : s + 1], None, torch.tensor([a])).sum().backward()
            grads[s, a] = logits.grad.flatten()
    return grads[ALL.state, ALL.action]


def estimates(psi):
    """Each trajectory's estimate of the gradient, [N, STATES * ACTIONS]."""
    return (scores() * psi * ALL.active).sum(0)


def expectation(estimate, probability=ALL.probability):
    return probability @ estimate


def variance(psi):
    estimate = estimates(psi)
    return float(expectation(estimate.square().sum(-1)) - expectation(estimate).square().sum())


def exact_values():
    """V_t(s_t), [T, N, 1]."""
    value = returns_to_go(LOGITS, 1.0)
    return torch.stack([value[t][ALL.state[t]] for t in range(STEPS)])[..., None]


def to_go(discount=1.0):
    return rewards_to_go(ALL.reward, ALL.terminated, ALL.truncated, discount=discount, active=ALL.active)


def whole(discount=1.0):
    return whole_returns(ALL.reward, ALL.terminated, ALL.truncated, discount=discount, active=ALL.active)


def advantage(gae_lambda):
    value = exact_values() * ALL.active
    nothing = torch.zeros_like(value)
    following = next_values(value, nothing[0], nothing, ALL.terminated, ALL.truncated)
    return gae(
        ALL.reward, value, following, ALL.terminated, ALL.truncated,
        discount=1.0, gae_lambda=gae_lambda, active=ALL.active,
    )  # fmt: skip


def test_the_enumeration_is_complete():
    assert float(ALL.probability.sum()) == pytest.approx(1.0, abs=1e-12)
    assert float(ALL.probability @ whole()[0, :, 0]) == pytest.approx(float(START @ returns_to_go(LOGITS, 1.0)[0]))
    assert ALL.active.sum(0).unique().tolist() == [1, 2, 3]  # episodes of every length


ESTIMATORS = {
    "whole return": whole,
    "rewards to go": to_go,
    "rewards to go less a constant": lambda: to_go() - 2.7,
    "rewards to go less the value": lambda: to_go() - exact_values(),
    "rewards to go less any function of the state": lambda: to_go() - exact_values().square(),
    "GAE 0": lambda: advantage(0.0),
    "GAE 0.7": lambda: advantage(0.7),
    "GAE 1": lambda: advantage(1.0),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_estimator_is_unbiased(name):
    estimate = expectation(estimates(ESTIMATORS[name]()))
    assert torch.allclose(estimate, exact_gradient().flatten(), atol=1e-12)


def test_the_discounted_whole_return_gives_the_gradient_of_the_discounted_return():
    estimate = expectation(estimates(whole(0.6)))
    assert torch.allclose(estimate, exact_gradient(0.6).flatten(), atol=1e-12)
    assert not torch.allclose(estimate, exact_gradient().flatten(), atol=1e-2)


def test_gae_with_lambda_1_is_rewards_to_go_minus_the_value():
    assert torch.allclose(advantage(1.0), (to_go() - exact_values()) * ALL.active)


def pairs(values):
    """Every pair of trajectories as two copies: [T, N, 1] to [T, 2, N * N]."""
    count = values.shape[1]
    first, second = values[..., 0].repeat_interleave(count, 1), values[..., 0].repeat(1, count)
    return torch.stack([first, second], 1)


def mean_of_pairs(psi):
    """The expectation over independent pairs of copies of the mean of their two estimates."""
    count = len(ALL.probability)
    probability = torch.outer(ALL.probability, ALL.probability).flatten()
    active = pairs(ALL.active)
    total = torch.zeros(STATES * ACTIONS, dtype=torch.float64)
    for k in range(STATES * ACTIONS):
        score = scores()[..., k : k + 1].expand(STEPS, count, 1)
        total[k] = probability @ (pairs(score) * psi * active).sum(0).mean(0)
    return total


def test_the_mean_of_the_other_copies_is_an_unbiased_baseline():
    returns = pairs(to_go())
    psi = returns - others_mean(returns, pairs(ALL.active))
    assert torch.allclose(mean_of_pairs(psi), exact_gradient().flatten(), atol=1e-12)


def test_a_mean_that_includes_the_copys_own_return_would_be_biased():
    returns, active = pairs(to_go()), pairs(ALL.active).double()
    mean = (returns * active).sum(1, keepdim=True) / active.sum(1, keepdim=True).clamp(min=1)
    assert not torch.allclose(mean_of_pairs(returns - mean), exact_gradient().flatten(), atol=1e-2)


def test_others_mean_by_hand():
    returns = torch.tensor([[1.0, 2, 6], [4, 5, 9]]).unsqueeze(-1)
    assert others_mean(returns, None).squeeze(-1).tolist() == [[4, 3.5, 1.5], [7, 6.5, 4.5]]
    active = torch.tensor([[1, 1, 0], [0, 0, 1]]).bool().unsqueeze(-1)
    # a copy whose episode is over does not count for the baseline; if no other copy is left, the baseline is 0
    assert others_mean(returns, active).squeeze(-1)[0, :2].tolist() == [2, 1]
    assert float(others_mean(returns, active)[1, 2]) == 0


def test_variance_decreases_from_whole_returns_to_rewards_to_go_to_a_value_baseline():
    spread = [variance(psi) for psi in (whole(), to_go(), to_go() - exact_values())]
    assert spread[0] > 1.2 * spread[1] > 1.2 * 1.2 * spread[2] > 0


def test_gae_has_less_variance_and_no_bias_if_the_value_is_exact():
    assert variance(advantage(0.0)) < variance(advantage(0.7)) < variance(advantage(1.0))
