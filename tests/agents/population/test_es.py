"""Evolution strategies: a step by hand, members without diversity as runs of their own, what diversity adds."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from mlbits.agents.agent import AgentError
from mlbits.agents.population.spec import Outcomes
from tests.agents.rollouts import VECTOR, draw, make_agent

BOX = spaces.Box(-1, 1, (2,), np.float32)
SMALL = {"hidden": (4,), "pairs": 3}


def made(**settings):
    return make_agent("es", BOX, **{**SMALL, **settings})


def outcomes(agent, returns, states=None):
    returns = returns.double()
    none = torch.zeros(len(returns), 4)
    states = torch.randn(20, 4, generator=draw(5)) if states is None else states
    return Outcomes(returns, none, states, torch.ones(len(returns), 1, dtype=torch.int64), returns[:, None])


def step(agent, value, generator=None):
    """One update by returns that are a function of the weights."""
    asked = agent.ask(draw())
    return agent.learn(outcomes(agent, value(asked)), 0.0, generator or draw())


def steep(weights):
    return weights[:, :5].sum(1)


def test_the_policies_asked_for_are_mirrored_pairs_and_the_members():
    agent = made(population=2, sigma=0.2)
    asked, members = agent.ask(draw()), agent.member_weights()
    assert asked.shape == (2 * 7, agent.policies.size)
    assert torch.equal(asked[-2:], members)
    for m in range(2):
        up, down = asked[6 * m : 6 * m + 3], asked[6 * m + 3 : 6 * m + 6]
        assert torch.allclose((up + down) / 2, members[m].expand(3, -1), atol=1e-6)
        assert float((up - members[m]).std()) == pytest.approx(0.2, rel=0.3)
    assert agent.experience[:2] == (14, 1)


def test_a_step_by_hand():
    agent = made(learning_rate=0.5, sigma=0.1)
    asked, before = agent.ask(draw()), agent.member_weights().clone()
    eps = (asked[:3] - before) / 0.1
    returns = torch.tensor([5.0, 1.0, 3.0, 0.0, 4.0, 2.0, 9.0])  # +, +, +, -, -, -, the member
    rank = torch.tensor([1.0, 0.2, 0.6, 0.0, 0.8, 0.4]) - 0.5
    gradient = ((rank[:3] - rank[3:])[:, None] * eps).sum(0) / (6 * 0.1)
    metrics = agent.learn(outcomes(agent, returns), 0.0, draw())
    adam = 0.5 * gradient / (gradient.abs() + 1e-5)  # Adam's first step
    assert torch.allclose(agent.member_weights()[0], before[0] + adam, atol=1e-4)
    assert float(metrics["best_return"]) == 9.0
    assert float(metrics["tried_return"]) == 2.5


def test_it_climbs_and_equal_returns_change_nothing():
    agent = made()
    before = float(steep(agent.member_weights()))
    for _ in range(10):
        step(agent, steep)
    assert float(steep(agent.member_weights())) > before + 1
    held = agent.member_weights().clone()
    agent = made()
    agent.ask(draw())
    held = agent.member_weights().clone()
    agent.learn(outcomes(agent, torch.zeros(7)), 0.0, draw())
    assert torch.equal(agent.member_weights(), held)


@pytest.mark.parametrize("weight", [None, 0.0])
def test_without_weight_on_diversity_members_are_independent_runs_bit_for_bit(weight):
    diverse = {} if weight is None else {"diversity": "fixed", "diversity_weight": weight}
    together, alone = made(population=3, seed=7, **diverse), [made(seed=7 + m) for m in range(3)]
    for _ in range(4):
        step(together, steep)
        for one in alone:
            step(one, steep)
    for m, one in enumerate(alone):
        assert torch.equal(together.member_weights()[m], one.member_weights()[0])


def test_weight_on_diversity_alone_spreads_the_members():
    agent = made(population=3, diversity="fixed", diversity_weight=1.0, pairs=20)
    first = step(agent, steep)["diversity"]
    for _ in range(15):
        last = step(agent, steep)["diversity"]
    assert last > 1.5 * first


def test_the_best_member_acts():
    agent = made(population=3)
    asked = agent.ask(draw())
    returns = torch.zeros(len(asked))
    returns[-2] = 1.0  # of member 1
    agent.learn(outcomes(agent, returns), 0.0, draw())
    obs = torch.randn(6, 4, generator=draw(2))
    own = agent.policies.decide(agent.member_weights()[1:2], obs, None)
    assert agent.best == 1
    assert torch.equal(agent.act(obs, None, draw()).action, own)
    assert not torch.allclose(agent.policies.decide(agent.member_weights()[:1], obs, None), own)


def test_a_restored_population_goes_on_bit_for_bit():
    settings = {"population": 2, "diversity": "bandit", "arms": (0.0, 0.3, 0.6)}
    one, other = made(**settings), made(seed=99, **settings)
    for _ in range(3):
        step(one, steep)
    other.load_state_dict(one.state_dict())
    other._seed = one._seed  # a run has one seed
    for k in range(3):
        mine, theirs = (step(agent, steep, draw(k)) for agent in (one, other))
        assert {n: float(v) for n, v in mine.items()} == {n: float(v) for n, v in theirs.items()}
    assert torch.equal(one.member_weights(), other.member_weights())


def test_what_does_not_fit_is_named():
    with pytest.raises(AgentError, match="population: got 1 with diversity 'bandit'; wanted at least 2"):
        made(diversity="bandit")
    with pytest.raises(AgentError, match="arms: got"):
        made(population=2, diversity="bandit", arms=(0.5,))
    with pytest.raises(AgentError, match=r"weights: got \(1, \d+\); wanted \(2, "):
        made(population=2).load_state_dict(made().state_dict())
    with pytest.raises(AgentError, match="wanted one with bounds"):
        make_agent("es", spaces.Box(-np.inf, np.inf, (1,), np.float32), VECTOR)
