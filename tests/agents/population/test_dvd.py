"""DvD-TD3: targets by hand, members in one batch as each alone, what diversity adds, returns and what is refused."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from mlbits.agents.agent import AgentError, Rollout
from mlbits.agents.memory.replay import Transitions
from mlbits.agents.population.diversity import determinant, kernel_matrix
from tests.agents.rollouts import draw, make_agent
from tests.agents.test_ddpg import FixedReplay

BOX = spaces.Box(np.array([-2, 0], np.float32), np.array([2, 1], np.float32))
BATCH = 8
ALONE = {"population": 1, "diversity": "none"}


def made(seed=0, **settings):
    usual = {"hidden": (6, 5), "batch_size": BATCH, "target_noise": 0.0, "learning_starts": 0, "replay_ratio": 1e-9}
    return make_agent("dvd", BOX, seed=seed, **{**usual, **settings})


def transitions(count, seed=0):
    generator = draw(seed)
    numbers = [torch.randn(count, 4, generator=generator) for _ in range(2)]
    action, reward = torch.rand(count, 2, generator=generator) * 2 - 1, torch.randn(count, generator=generator)
    discount = torch.where(torch.arange(count) % 3 == 0, 0.0, 0.9)
    return Transitions(numbers[0], action, reward, discount, numbers[1], None, None, None, torch.arange(count))


def joined(*parts):
    whole = [torch.cat(some) if isinstance(some[0], torch.Tensor) else None for some in zip(*parts, strict=True)]
    return Transitions(*whole)


def test_targets_by_hand():
    agent = made(population=2, diversity="none")
    with torch.no_grad():
        for weights in (agent.target_actors, agent.target_critics):
            weights += 0.3 * torch.randn(weights.shape, generator=draw(4))
    drawn = joined(transitions(BATCH, 1), transitions(BATCH, 2))
    found = agent._target(
        drawn.next_obs.view(2, BATCH, 4), drawn.reward.view(2, -1), drawn.discount.view(2, -1), draw()
    )
    for i in range(2):
        rows = slice(i * BATCH, (i + 1) * BATCH)
        action = torch.tanh(agent.policies.mlp.outputs(agent.target_actors[i : i + 1], drawn.next_obs[rows])[0])
        pair = torch.cat([drawn.next_obs[rows], action], 1)
        first, second = (agent._critic.outputs(agent.target_critics[k : k + 1], pair)[0, :, 0] for k in (i, 2 + i))
        wanted = drawn.reward[rows] + drawn.discount[rows] * torch.minimum(first, second)
        assert torch.allclose(found[i], wanted, atol=1e-5)
        assert not torch.allclose(first, second)


def test_target_noise_is_clipped_and_actions_stay_in_bounds():
    agent = made(**ALONE, target_noise=10.0, target_noise_clip=0.01)
    drawn = transitions(BATCH)
    one = (drawn.next_obs[None], drawn.reward[None], drawn.discount[None])
    noisy = agent._target(*one, draw())
    agent = made(**ALONE)
    assert torch.allclose(noisy, agent._target(*one, draw()), atol=0.02)
    assert not torch.equal(noisy, agent._target(*one, draw()))


def test_members_in_one_batch_learn_as_each_would_alone():
    together, alone = made(population=2, diversity="none"), [made(seed=i, **ALONE) for i in range(2)]
    for k in range(6):
        parts = transitions(BATCH, 2 * k), transitions(BATCH, 2 * k + 1)
        together._update(joined(*parts), draw())
        for agent, part in zip(alone, parts, strict=True):
            agent._update(part, draw())
    for i, agent in enumerate(alone):
        for name in ("actors", "target_actors"):
            assert torch.allclose(getattr(together, name)[i], getattr(agent, name)[0], atol=1e-5)
        for name in ("critics", "target_critics"):
            assert torch.allclose(getattr(together, name)[i::2], getattr(agent, name), atol=1e-5)
    assert not torch.allclose(together.actors[0], together.target_actors[0])


def test_actors_wait_for_the_delay_and_climb_q():
    agent = made(**ALONE, policy_delay=3)
    drawn, before = transitions(BATCH), agent.actors.detach().clone()

    def q():
        action = torch.tanh(agent.policies.mlp.outputs(agent.actors, drawn.obs))
        return float(agent._q(agent.critics[:1], drawn.obs[None], action).detach().mean())

    for _ in range(2):
        agent._update(drawn, draw())
    assert torch.equal(agent.actors, before)
    start = q()
    agent._update_actors(drawn.obs[None], draw())
    assert q() > start


def test_weight_on_diversity_drives_actions_apart():
    agent = made(population=3, diversity="fixed", diversity_weight=1.0)
    drawn = transitions(3 * BATCH)

    def value():
        acts = agent.policies.behaviour(agent.actors.detach(), drawn.obs[:20])
        return float(determinant(kernel_matrix(acts, agent.config.length)))

    before = value()
    for _ in range(20):
        agent._update(drawn, draw())
    assert value() > 1.4 * before
    assert agent._measured["diversity"] == pytest.approx(value(), rel=0.5)


def test_identical_members_are_named():
    agent = made(population=2, diversity="fixed")
    agent.actors.data[1] = agent.actors.data[0]
    with pytest.raises(AgentError, match="kernel: all 2 members are the same"):
        agent._update_actors(transitions(2 * BATCH).obs.view(2, BATCH, 4), draw())


def test_each_member_plays_its_share_in_training_and_the_best_alone_otherwise():
    agent = made(population=2, noise=0.0)
    agent.returns = torch.tensor([-3.0, -1.0], dtype=torch.float64)
    obs = torch.randn(5, 4, generator=draw())
    one = agent.act(obs, None, draw()).action
    agent.prepare_to_learn()
    played = agent.act(obs, None, draw()).action
    own = [agent.policies.decide(agent.member_weights()[i : i + 1], obs, None) for i in range(2)]
    assert torch.allclose(played, torch.cat([own[0][:3], own[1][3:]]), atol=1e-6)
    for alone in (
        one,
        agent.act(obs, None, draw(), greedy=True).action,
        agent.outside_training().act(obs, None, draw()).action,
    ):
        assert torch.allclose(alone, own[1], atol=1e-6)


def latest(rewards, ends):
    rewards, ends = torch.tensor(rewards)[..., None], torch.tensor(ends, dtype=torch.bool)
    nothing = torch.zeros(len(rewards), len(rewards[0]), 1)
    return Rollout(nothing, nothing, nothing, nothing, nothing, rewards, ends & False, ends, None, None)


def test_returns_are_those_of_each_members_own_copies():
    agent = made(population=2)
    agent._note_returns(latest([[1.0, 2.0], [3.0, 4.0]], [[0, 0], [1, 0]]))
    assert agent.returns.tolist() == [4.0, -np.inf]
    assert agent.best == 0
    agent._note_returns(latest([[14.0, 5.0]], [[1, 1]]))
    assert agent.returns.tolist() == pytest.approx([0.8 * 4 + 0.2 * 14, 11.0])
    assert agent.best == 1


def test_the_bandit_is_told_whether_the_best_member_improved():
    agent = made(population=2, bandit_every=2, policy_delay=1)
    drawn, counts = transitions(2 * BATCH), agent._bandit.counts
    for value in (-9.0, -9.0, -5.0, -5.0, -7.0, -7.0, -7.0):
        agent.returns[:] = value
        agent._update(drawn, draw(int(-value)))
    assert counts.sum() == 4 + 3
    assert (counts - 1).sum(0).tolist() == [1, 2]  # better once, worse once, the same once


def test_restored_it_learns_the_same():
    one, other = made(population=2, replay_ratio=1.0), made(seed=9, population=2, replay_ratio=1.0)
    replays = [FixedReplay(transitions(2 * BATCH, 3), added=k) for k in (6, 12)]
    one.learn(replays[0], 0.0, draw())
    one._note_returns(latest([[1.0, 2.0]], [[1, 0]]))
    other.load_state_dict(one.state_dict())
    mine, theirs = (dict(agent.learn(replays[1], 0.5, draw(1))) for agent in (one, other))
    assert {n: float(v) for n, v in mine.items()} == {n: float(v) for n, v in theirs.items()}
    states = one.state_dict(), other.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert one.updates == 12


def test_what_does_not_fit_is_named():
    with pytest.raises(AgentError, match="population: got 1 with diversity 'bandit'; wanted at least 2"):
        made(population=1)
    with pytest.raises(AgentError, match=r"dvd: got the action space Discrete\(3\); wanted one that is continuous"):
        make_agent("dvd", spaces.Discrete(3))
    with pytest.raises(AgentError, match=r"actors: got \(2, \d+\); wanted \(3, "):
        made(population=3).load_state_dict(made(population=2).state_dict())
