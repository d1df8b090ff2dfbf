"""Log densities of actions as played: with the bounds they add up to 1, and match draws and the densities of others."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from mlbits.agents import AGENTS
from mlbits.agents.agent import AgentError
from mlbits.agents.maths.action_distributions import DiagonalGaussian

SEEN = spaces.Box(-1, 1, (3,), np.float32)
ACTS = spaces.Box(np.array([-2.0], np.float32), np.array([4.0], np.float32))
GAUSSIAN = ["ppo", "trpo", "reinforce", "sb3-ppo", "sb3-a2c"]


def make(name, actions=ACTS, **settings):
    entry = AGENTS[name]
    return entry.make(entry.config_class()(**settings), SEEN, actions, seed=3, device="cpu")


def masses(agent, obs):
    """Probability between the bounds, by the trapezoidal rule, and at each bound."""
    inner = torch.linspace(-2, 4, 20_001)[1:-1, None]
    rows = obs.expand(len(inner), -1)
    inside = float(torch.trapezoid(agent.action_log_prob(rows, None, inner).double().exp(), inner[:, 0].double()))
    ends = agent.action_log_prob(obs.expand(2, -1), None, torch.tensor([[-2.0], [4.0]])).double().exp()
    return inside, *ends.tolist()


@pytest.mark.parametrize("name", [*GAUSSIAN, "ddpg"])
def test_probabilities_add_up_and_match_draws(name):
    agent, obs = make(name), torch.tensor([[0.3, -0.7, 0.5]])
    if name == "ddpg":
        agent.noise = 0.8
    inside, low, high = masses(agent, obs)
    assert inside + low + high == pytest.approx(1, abs=1e-3)
    drawn = agent.act(obs.expand(40_000, -1), None, torch.Generator().manual_seed(1)).action[:, 0]
    assert float((drawn == -2).float().mean()) == pytest.approx(low, abs=0.012)
    assert float((drawn == 4).float().mean()) == pytest.approx(high, abs=0.012)
    assert max(low, high) > 0.005  # a bound counts in this test
    part = torch.linspace(-1, 2, 5001)[:, None]
    between = agent.action_log_prob(obs.expand(len(part), -1), None, part).double().exp()
    frequency = float(((drawn > -1) & (drawn < 2)).float().mean())
    assert frequency == pytest.approx(float(torch.trapezoid(between, part[:, 0].double())), abs=0.012)


@pytest.mark.parametrize("name", ["ppo", "trpo", "reinforce"])
def test_draws_have_the_log_probabilities_of_their_decisions(name):
    agent, obs = make(name), torch.rand(50, 3)
    decision = agent.act(obs, None, torch.Generator().manual_seed(2))
    assert torch.allclose(agent.draw_log_prob(obs, None, decision.sample), decision.log_prob)
    # Unclipped, both densities differ by the scale of the space alone: half of its width, 3.
    inner = (decision.action[:, 0] > -2) & (decision.action[:, 0] < 4)
    played = agent.action_log_prob(obs, None, decision.action)
    assert torch.allclose(played[inner], decision.log_prob[inner] - np.log(3), atol=1e-5)


def test_spaces_without_bounds_and_several_dimensions():
    box = DiagonalGaussian(np.array([-np.inf, -1.0]), np.array([np.inf, 1.0]))
    params = torch.tensor([[0.5, 0.2, 0.1, -0.3]])
    normal = torch.distributions.Normal(params[:, :2], params[:, 2:].exp())
    inside = torch.tensor([[3.0, 0.4]])
    assert torch.allclose(box.played_log_prob(params, None, inside), normal.log_prob(inside).sum(-1))
    at_top = torch.tensor([[3.0, 1.0]])
    tail = torch.log(1 - normal.cdf(at_top)[:, 1])
    assert torch.allclose(box.played_log_prob(params, None, at_top), normal.log_prob(at_top)[:, 0] + tail, atol=1e-5)


def test_choices_have_their_probabilities():
    agent, obs = make("ppo", spaces.Discrete(4)), torch.rand(6, 3)
    mask = torch.tensor([[True, False, True, True]]).expand(6, -1)
    action = torch.tensor([0, 2, 3, 0, 2, 3])
    said = agent.action_probabilities(obs, mask).gather(1, action[:, None])[:, 0].log()
    assert torch.allclose(agent.action_log_prob(obs, mask, action).double(), said, atol=1e-6)
    several = make("ppo", spaces.MultiDiscrete([3, 2]))
    decision = several.act(obs, None, torch.Generator().manual_seed(0))
    assert torch.allclose(several.action_log_prob(obs, None, decision.action), decision.log_prob)


def test_stable_baselines_own_densities():
    ppo, obs, action = make("sb3-ppo"), torch.rand(20, 3), torch.linspace(-1.9, 3.9, 20)[:, None]
    assert torch.allclose(
        ppo.action_log_prob(obs, None, action), ppo.policy.evaluate_actions(obs, action)[1], atol=1e-5
    )
    sac = make("sb3-sac")
    inside, low, high = masses(sac, obs[:1])
    assert inside == pytest.approx(1, abs=0.01)
    assert max(low, high) < 1  # squashed actions never reach the bounds: these are densities
    discrete = make("sb3-ppo", spaces.Discrete(3))
    choice = torch.tensor([0, 1, 2])
    said = discrete.action_probabilities(obs[:3], None).gather(1, choice[:, None])[:, 0].log()
    assert torch.allclose(discrete.action_log_prob(obs[:3], None, choice).double(), said, atol=1e-6)


def test_deterministic_policies_are_refused():
    agent = make("ddpg")
    with pytest.raises(AgentError, match="action_log_prob: got noise inf; wanted a finite noise above 0"):
        agent.action_log_prob(torch.zeros(1, 3), None, torch.zeros(1, 1))
    with pytest.raises(AgentError, match="action_log_prob: got TD3Policy, which has no density"):
        make("sb3-td3").action_log_prob(torch.zeros(1, 3), None, torch.zeros(1, 1))
