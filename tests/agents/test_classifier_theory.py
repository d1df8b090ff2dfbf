"""Kaplan 8.4: relations of supervised and reinforcement learning, by enumerating every example and answer.

The expectations are exact sums in float64, of the agent's own losses over its own behaviour; nothing is sampled.
"""

import pytest
import torch

from mlbits.agents.classifier import Classifier, ClassifierConfig
from mlbits.envs.digits import digits

EXAMPLES, PIXELS, ANSWERS = 7, 5, 4
X = torch.randn(EXAMPLES, PIXELS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.tensor([0, 1, 2, 3, 0, 1, 0])
ONE_HOT = torch.nn.functional.one_hot(LABELS, ANSWERS).double()
# Any rewards of 0 or more, for the identities that hold beyond labels.
REWARDS = torch.rand(EXAMPLES, ANSWERS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
every_reward = pytest.mark.parametrize("pay", [ONE_HOT, REWARDS], ids=["labels", "rewards"])


def network(scale=1.0, seed=2):
    """A small network's parameters: two layers, far from uniform unless ``scale`` is 0."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(PIXELS, 6, generator=generator, dtype=torch.float64)
    second = scale * torch.randn(6, ANSWERS, generator=generator, dtype=torch.float64)
    return first.requires_grad_(), second.requires_grad_()


def scores_of(weights):
    return torch.tanh(X @ weights[0]) @ weights[1]


def agent(loss, **settings):
    game = digits(classes=ANSWERS, feedback="full")
    return Classifier(ClassifierConfig(loss=loss, **settings), game.observation_space, game.action_space)


def rows_of(learner, weights, pay, baseline=0.0):
    """Each example with each answer: the probability of the answer [N * n], and the agent's loss of that row."""
    scores = scores_of(weights)
    log_b = learner.behaviour(scores.detach(), None)
    answer = torch.arange(ANSWERS).repeat(EXAMPLES)
    example = torch.arange(EXAMPLES).repeat_interleave(ANSWERS)
    reward = pay[example, answer] - baseline
    losses = learner.losses(scores[example], None, answer, log_b[example, answer], reward, pay[example])
    return log_b[example, answer].exp() / EXAMPLES, losses


def gradient(value, weights):
    return torch.cat([part.flatten() for part in torch.autograd.grad(value, weights)])


def expected(learner, weights, pay, baseline=0.0):
    """The exact expectation of the agent's gradient."""
    probability, losses = rows_of(learner, weights, pay, baseline)
    return gradient((probability * losses).sum(), weights)


def log_policy(weights):
    return torch.log_softmax(scores_of(weights), -1)


def accuracy_gradient(weights, pay=ONE_HOT):
    """The gradient of J, the mean over examples of E_pi[R]."""
    return gradient((log_policy(weights).exp() * pay).sum(-1).mean(), weights)


def test_cross_entropy_is_the_mean_of_minus_log_pi_of_the_label():
    weights = network()
    wanted = torch.nn.functional.cross_entropy(scores_of(weights), LABELS)
    probability, losses = rows_of(agent("cross_entropy"), weights, ONE_HOT)
    assert torch.allclose((probability * losses).sum(), wanted, atol=1e-14)


@every_reward
@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_with_uniform_answers_the_policy_gradient_is_cross_entropys_over_n(pay, scale):
    """E_uniform[R grad log pi(a|x)] = (1/n) sum_a R grad log pi(a|x), whatever the policy has become."""
    weights = network(scale)
    uniform = expected(agent("epsilon_greedy", epsilon=1.0), weights, pay)
    assert torch.allclose(uniform, expected(agent("cross_entropy"), weights, pay) / ANSWERS, atol=1e-14)
    assert uniform.norm() > 0.01


def test_a_uniform_policy_has_the_same_gradient():
    weights = network(scale=0.0)  # all scores are 0
    assert torch.allclose(log_policy(weights).exp(), torch.full((), 1 / ANSWERS, dtype=torch.float64))
    own, label = (
        expected(agent("policy_gradient"), weights, ONE_HOT),
        expected(agent("cross_entropy"), weights, ONE_HOT),
    )
    assert torch.allclose(own, label / ANSWERS, atol=1e-14)
    cold = network(scale=1.0)
    own, label = (expected(agent(loss), cold, ONE_HOT) for loss in ("policy_gradient", "cross_entropy"))
    assert torch.cosine_similarity(own, label, dim=0) < 0.95  # the two differ as soon as it is not


@every_reward
def test_the_expected_policy_gradient_is_that_of_accuracy(pay):
    """E_pi[R grad log pi] = grad E_pi[R]."""
    weights = network()
    assert torch.allclose(
        expected(agent("policy_gradient"), weights, pay), -accuracy_gradient(weights, pay), atol=1e-14
    )


def test_the_gradient_of_accuracy_is_cross_entropys_weighted_by_the_label_probability():
    weights = network()
    log_label = log_policy(weights)[torch.arange(EXAMPLES), LABELS]
    weighed = gradient((log_label.detach().exp() * log_label).mean(), weights)
    assert torch.allclose(accuracy_gradient(weights), weighed, atol=1e-14)


@every_reward
@pytest.mark.parametrize("epsilon", [0.2, 1.0])
def test_importance_weights_make_any_behaviours_gradient_that_of_accuracy(pay, epsilon):
    """E_b[(pi / b) R grad log pi] = grad E_b[(pi / b) R] = grad E_pi[R]."""
    weights = network()
    learner = agent("epsilon_greedy", epsilon=epsilon, importance_weights=True)
    assert torch.allclose(expected(learner, weights, pay), -accuracy_gradient(weights, pay), atol=1e-14)
    log_b = learner.behaviour(scores_of(weights).detach(), None)
    surrogate = (log_b.exp() * torch.exp(log_policy(weights) - log_b) * pay).sum(-1).mean()
    assert torch.allclose(gradient(surrogate, weights), accuracy_gradient(weights, pay), atol=1e-14)


def test_without_importance_weights_epsilon_greedy_weights_cross_entropy_by_the_behaviour():
    weights, learner = network(), agent("epsilon_greedy", epsilon=0.2)
    scores = scores_of(weights)
    right = scores.argmax(-1) == LABELS
    assert 0 < right.sum() < EXAMPLES
    weight = torch.where(right, 1 - 0.2 + 0.2 / ANSWERS, 0.2 / ANSWERS)
    weighed = gradient(-(weight * log_policy(weights)[torch.arange(EXAMPLES), LABELS]).mean(), weights)
    assert torch.allclose(expected(learner, weights, ONE_HOT), weighed, atol=1e-14)
    assert not torch.allclose(weighed, -accuracy_gradient(weights), atol=1e-2)


def test_a_baseline_is_unbiased_only_on_policy():
    weights = network()
    plain, shifted = (expected(agent("policy_gradient"), weights, ONE_HOT, baseline) for baseline in (0.0, 0.7))
    assert torch.allclose(plain, shifted, atol=1e-14)
    plain, shifted = (
        expected(agent("epsilon_greedy", epsilon=1.0), weights, ONE_HOT, baseline) for baseline in (0.0, 0.7)
    )
    assert not torch.allclose(plain, shifted, atol=1e-2)  # why the config refuses it


@every_reward
def test_under_uniform_answers_the_q_loss_is_a_regression_on_all_rewards_over_n(pay):
    weights = network()
    wanted = gradient(0.5 * (scores_of(weights) - pay).square().sum(-1).mean() / ANSWERS, weights)
    assert torch.allclose(expected(agent("q", epsilon=1.0), weights, pay), wanted, atol=1e-14)


@pytest.mark.parametrize("answers_known", [True, False])
def test_the_q_loss_is_minimal_where_q_is_the_reward(answers_known):
    scores, action = REWARDS.repeat_interleave(ANSWERS, 0), torch.arange(ANSWERS).repeat(EXAMPLES)
    reward = REWARDS.flatten() if answers_known else REWARDS.flatten() + 0.5
    losses = agent("q").losses(scores, None, action, torch.zeros(len(action)), reward, None)
    assert torch.allclose(losses, torch.full_like(losses, 0.0 if answers_known else 0.125))


def samples_needed(learner, weights):
    """N for which the mean of N rows' gradients is as long as its standard deviation: tr Cov / |mean|^2."""
    probability, losses = rows_of(learner, weights, ONE_HOT)
    each = torch.stack([gradient(loss, weights) for loss in losses_with_graph(learner, weights)])
    assert len(each) == len(losses)
    mean = probability.detach() @ each
    return float((probability.detach() @ each.square().sum(-1) - mean.square().sum()) / mean.square().sum())


def losses_with_graph(learner, weights):
    """The rows' losses, each on a graph of its own."""
    for row in range(EXAMPLES * ANSWERS):
        yield rows_of(learner, weights, ONE_HOT)[1][row]


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_the_same_signal_to_noise_takes_n_times_the_examples(scale):
    """With uniform answers N_RL + 1 = n (N_CE + 1), exactly: one row in n is rewarded, and then equals a label."""
    weights = network(scale)
    by_label = samples_needed(agent("cross_entropy"), weights)
    by_reward = samples_needed(agent("epsilon_greedy", epsilon=1.0), weights)
    assert by_reward + 1 == pytest.approx(ANSWERS * (by_label + 1))
