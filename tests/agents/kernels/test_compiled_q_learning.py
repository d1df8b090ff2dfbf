"""Compiled Q-learning against the same agent's updates in torch, and for which agents it is used."""

import copy
import math

import numpy as np
import pytest
import torch
from gymnasium import spaces

from mlbits.agents.agent import ReplaySpec, Rollout
from mlbits.agents.kernels import compiled_q_learning
from mlbits.agents.memory.replay import Replay
from tests.agents.rollouts import VECTOR, draw, make_agent

THREE = spaces.Discrete(3)


def pair(**settings):
    """Two equal agents, one with compiled updates and one with updates in torch."""
    compiled = make_agent("dqn", THREE, **settings)
    assert compiled._compiled is not None
    with torch.no_grad():
        compiled.optimizer.flat.add_(0.3 * torch.randn(compiled.optimizer.flat.shape, generator=draw(9)))
    plain = copy.deepcopy(compiled)
    plain._compiled, plain._updates_at_once = None, 1
    return compiled, plain


def filled(mask=None):
    """A replay buffer with random play: 40 steps of 5 copies."""
    shape, generator = (40, 5, 1), draw(3)
    obs = torch.randn(*shape, 4, generator=generator)
    rollout = Rollout(
        obs=obs,
        last_obs=obs[-1],
        final_obs=-obs,
        sample=torch.randint(3, shape, generator=generator),
        log_prob=torch.zeros(shape),
        reward=torch.randn(shape, generator=generator),
        terminated=torch.rand(shape[:2], generator=generator) < 0.2,
        truncated=torch.rand(shape[:2], generator=generator) < 0.2,
        legal_mask=mask,
        active=None,
        last_mask=None if mask is None else mask[0],
    )
    made = Replay(ReplaySpec(40, 400), obs[0], rollout.sample[0], None if mask is None else mask[0])
    made.add(rollout)
    return made


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"hidden": (40, 24), "batch_size": 33},
        {"hidden": (3,), "batch_size": 5, "double": True},
        {"hidden": (1, 16), "n_step": 3, "double": True},
        {"hidden": (64, 64, 8), "max_grad_norm": 0.1},
        {"tau": 0.3, "target_every": 2, "max_grad_norm": math.inf},
    ],
)
def test_compiled_updates_match_torch(settings):
    """Ten updates, with at least three of the target network: weights, moments, target weights and metrics."""
    settings = {
        "batch_size": 32,
        "learning_rate": 1e-3,
        "learning_starts": 0,
        "replay_ratio": 0.05,
        "target_every": 3,
    } | settings
    compiled, plain = pair(**settings)
    replay = filled()
    ours, theirs = compiled.learn(replay, 0.5, draw(1)), plain.learn(replay, 0.5, draw(1))
    assert compiled.updates == plain.updates == 10
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        assert float(ours[name]) == pytest.approx(float(value), rel=2e-3, abs=1e-5), name
    state = plain.state_dict()
    for name, value in compiled.state_dict().items():
        assert torch.allclose(value, state[name], atol=2e-5), name


def test_masked_actions_are_not_bootstrapped_from():
    mask = torch.rand(40, 5, 1, 3, generator=draw(4)) < 0.5
    mask[..., 0] = True
    compiled, plain = pair(batch_size=32, learning_starts=0, replay_ratio=0.02, double=True)
    replay = filled(mask)
    compiled.learn(replay, 0.5, draw(1))
    plain.learn(replay, 0.5, draw(1))
    assert compiled.updates > 0
    assert torch.allclose(compiled.optimizer.flat, plain.optimizer.flat, atol=2e-5)


@pytest.mark.parametrize("hidden", [(16,), (40, 24), (1, 5)])
@pytest.mark.parametrize("count", [1, 8, 16, 17])
def test_values_match_the_networks(hidden, count):
    agent, _ = pair(hidden=hidden)
    obs = torch.randn(count, 4, generator=draw(2))
    values = compiled_q_learning.q_values(agent._compiled, agent.optimizer.flat, obs)
    assert (values is None) == (count > 16)
    if values is not None:
        assert np.allclose(values, agent.values(obs).detach(), atol=1e-5)
        every_other = torch.randn(2 * count, 4, generator=draw(3))[::2]
        values = compiled_q_learning.q_values(agent._compiled, agent.optimizer.flat, every_other)
        assert np.allclose(values, agent.values(every_other).detach(), atol=1e-5)
    assert compiled_q_learning.q_values(agent._compiled, agent.optimizer.flat, obs[:1].double()) is None


def test_nan_propagates():
    """So that divergence is noticed."""
    agent, _ = pair(batch_size=8, learning_starts=0, replay_ratio=0.005)
    with torch.no_grad():
        agent.optimizer.flat[-1] = math.nan
    metrics = agent.learn(filled(), 0.5, draw(1))
    assert math.isnan(metrics["grad_norm"])
    assert agent.optimizer.flat.isnan().any()


def test_a_copy_of_an_agent_learns_independently():
    agent, _ = pair(batch_size=8, learning_starts=0, replay_ratio=0.02)
    before, other = agent.optimizer.flat.clone(), copy.deepcopy(agent)
    other.learn(filled(), 0.5, draw(1))
    assert torch.equal(agent.optimizer.flat, before)
    assert not torch.equal(other.optimizer.flat, before)
    assert all(
        p.data_ptr() != q.data_ptr()
        for p, q in zip(agent.network.parameters(), other.network.parameters(), strict=True)
    )


def test_which_agents_are_compiled():
    image = spaces.Box(0, 255, (8, 8, 3), np.uint8)
    assert make_agent("dqn", THREE)._compiled is not None
    for settings in ({"head": "quantile"}, {"head": "categorical"}, {"dueling": True}):
        assert make_agent("dqn", THREE, **settings)._compiled is None
    for space in (spaces.Discrete(5), image, spaces.Dict({"a": VECTOR}), spaces.Box(-1, 1, (2, 3), np.float32)):
        assert make_agent("dqn", THREE, space)._compiled is None
    assert make_agent("dqn", THREE, priority_exponent=0.6)._updates_at_once == 1


def test_an_incomplete_minibatch_is_rejected():
    agent, _ = pair(batch_size=8)
    drawn = filled().sample(12, draw(1))
    with pytest.raises(ValueError, match="got 12 transitions; wanted a multiple of batch_size, 8"):
        agent._compiled_updates(drawn)
