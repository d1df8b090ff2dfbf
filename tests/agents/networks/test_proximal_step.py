"""The learned step size: the exact answer on a quadratic, its derivative by differences, what it leaves alone."""

import math

import pytest
import torch
from gymnasium import spaces

from mlbits.agents.agent import AgentError, DivergedError
from mlbits.agents.kernels.flat_adam import FlatAdam
from mlbits.agents.networks.proximal_step import StepSize
from mlbits.agents.ppo import PPOConfig
from tests.agents.rollouts import equal, learn, made_up_rollout, make_agent, weights

THREE = spaces.Discrete(3)
CURVATURE, FUNCTION = torch.tensor([4.0, 1.0, 0.25]), torch.tensor([1.0, 3.0, 2.0])


def adapted(size, function_weight, moves):
    """Adapt at one place of the loss 1/2 sum h theta^2, with D = 1/2 sum f (theta' - theta)^2."""
    start = torch.tensor([1.0, -2.0, 3.0])
    theta = torch.nn.Parameter(start.clone())
    adam = FlatAdam([theta], 0.0, math.inf)

    def gradient(penalty):
        adam.zero_grad()
        moved = (FUNCTION * (theta - start).square()).sum()
        (0.5 * (CURVATURE * theta.square()).sum() + 0.5 * penalty * moved).backward()

    gradient(0.0)
    kept = adam.vectors.grad.clone()
    for _ in range(moves):
        size.look_ahead(adam, lambda: gradient(function_weight))
    assert torch.equal(theta, start)
    assert torch.equal(adam.vectors.grad, kept)
    return start, adam.direction()


@pytest.mark.parametrize(("function_weight", "weight_weight"), [(0.0, 0.0), (0.7, 0.0), (0.0, 2.0), (0.7, 2.0)])
@pytest.mark.parametrize("start", [1e-3, 5.0])
def test_it_finds_the_best_step_of_a_quadratic(function_weight, weight_weight, start):
    """Along d, Q is a parabola in eta whose lowest point is d.H theta / d.(H + lambda_f F + lambda_w) d."""
    size = StepSize(start, rate=0.05, weight_weight=weight_weight)
    theta, d = adapted(size, function_weight, 700)
    size.rate = 0.002
    adapted(size, function_weight, 600)
    best = (d * CURVATURE * theta).sum() / (d * d * (CURVATURE + function_weight * FUNCTION + weight_weight)).sum()
    assert size.learning_rate == pytest.approx(float(best), rel=0.02)


def test_the_direction_is_the_next_step():
    theta = torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
    adam = FlatAdam([theta], 0.1, 2.0)
    for k in range(4):
        adam.vectors.grad.copy_(torch.tensor([1.0, -4.0, 0.1 * k]))
        before, direction = theta.detach().clone(), adam.direction()
        adam.step()
        assert torch.allclose(theta.detach(), before - 0.1 * direction, atol=1e-6)


def test_moves_are_of_equal_length_for_derivatives_of_any_scale():
    for scale in (1e-6, 1.0, 1e6):
        size = StepSize(0.1, rate=0.1)
        found = []
        for derivative in (1.0, 1.0, -1.0):
            size.follow(scale * derivative)
            found.append(math.log(size.learning_rate / 0.1))
        assert found == pytest.approx([-0.1, -0.2, -0.1], abs=1e-3)


def test_the_rate_stays_in_its_range_and_a_wild_derivative_is_told():
    size = StepSize(1e-8, rate=1.0)
    size.follow(1.0)
    assert size.learning_rate == pytest.approx(1e-8)
    for _ in range(60):
        size.follow(-1.0)
    assert size.learning_rate == pytest.approx(10.0)
    with pytest.raises(DivergedError, match="derivative of the learning rate: got nan"):
        size.derivative(torch.tensor([float("nan")]), torch.ones(1))


@pytest.mark.parametrize("memory", ["none", "gru"])
@pytest.mark.parametrize("objective", ["clip", "dpo"])
def test_the_derivative_in_ppo_is_that_of_its_loss_after_the_step(monkeypatch, objective, memory):
    """Against differences of loss + 0.5 (KL + value_coef / 2 moved values^2) + 0.1 / 2 moved weights^2."""
    if memory == "gru":
        from tests.agents.networks.test_recurrent import played

        agent, rollout = played(
            "mlbits/CartPole-v0", apo_every=1, apo_function=0.5, apo_weights=0.1, objective=objective, epochs=1,
            minibatches=1, learning_rate=0.02,
        )  # fmt: skip
    else:
        agent = make_agent("ppo", THREE, apo_every=1, apo_function=0.5, apo_weights=0.1, objective=objective, epochs=1,
                           minibatches=1, learning_rate=0.02, max_grad_norm=0.3)  # fmt: skip
        rollout = made_up_rollout(agent, (20, 5, 1))
    config, core, found = agent.config, agent.core, []
    original = agent.step_size.look_ahead

    def look_ahead(optimizer, gradient_ahead):
        flat, start = optimizer.vectors.flat, optimizer.vectors.flat.clone()
        direction, rate = optimizer.direction().clone(), agent.step_size.learning_rate
        derivatives = []
        monkeypatch.setattr(agent.step_size, "follow", derivatives.append)
        original(optimizer, gradient_ahead)

        def q(log_rate):
            moved = math.exp(log_rate) * direction
            with torch.no_grad():
                before = agent._outputs(*place)
                flat.copy_(start - moved)
                params, value = agent._outputs(*place)
                loss, _ = agent._loss(place[0], place[1], advantage, 0.2, place[2])
                flat.copy_(start)
            kl = core.distribution.kl(before[0], params, None).mean()
            near = kl + config.value_coef * 0.5 * (value - before[1]).square().mean()
            return float(loss + 0.5 * near + 0.05 * moved.square().sum())

        log_rate = math.log(rate)
        found.append((derivatives[0], (q(log_rate + 0.05) - q(log_rate - 0.05)) / 0.1))

    monkeypatch.setattr(agent.step_size, "look_ahead", look_ahead)
    plain = agent._adapt_step

    def adapt(data, gradient, rows, sequences):
        nonlocal place, advantage
        place = (data, rows, sequences)
        part = data["advantage"][rows]
        advantage = (part - part.mean()) / (part.std() + 1e-8)
        plain(data, gradient, rows, sequences)

    place = advantage = None
    monkeypatch.setattr(agent, "_adapt_step", adapt)
    learn(agent, rollout)
    ((derivative, wanted),) = found
    assert abs(wanted) > 1e-4
    assert derivative == pytest.approx(wanted, rel=0.05)


def test_ppo_learns_its_rate_every_few_steps_and_goes_on_from_a_saved_state():
    settings = {"apo_every": 3, "epochs": 2, "minibatches": 4, "learning_rate": 1e-3}
    one, two = (make_agent("ppo", THREE, seed=seed, **settings) for seed in (1, 2))
    rollout = made_up_rollout(one)
    first = learn(one, rollout)
    assert first["learning_rate"] != 1e-3
    assert int(weights(one)["step_size"][2]) == 3  # of eight steps, the first, the fourth and the seventh
    two.load_state_dict(one.state_dict())
    for agent in (one, two):
        learn(agent, rollout, progress=0.5, seed=3)
    assert equal(weights(one), weights(two))
    assert int(weights(one)["step_size"][2]) == 6


def test_without_it_nothing_changes():
    one, two = make_agent("ppo", THREE), make_agent("ppo", THREE, apo_function=5.0, apo_rate=1.0)
    rollout = made_up_rollout(one)
    assert learn(one, rollout) == learn(two, rollout)
    assert equal(weights(one), weights(two))


def test_what_does_not_go_with_it_is_refused():
    with pytest.raises(AgentError, match=r"^learning_rate: got the schedule 'linear:1e-3:0' with apo_every"):
        PPOConfig(apo_every=10, learning_rate="linear:1e-3:0")
