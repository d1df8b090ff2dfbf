"""SAC: targets and updates against plain torch, both kinds of actions, the temperature, acting, saving."""

import copy
import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from mlbits.agents.agent import AgentError
from mlbits.agents.memory.replay import Transitions
from tests.agents.rollouts import VECTOR, draw, make_agent, trained_return
from tests.agents.test_ddpg import TWO, FixedReplay, constant, linear, slow_critics
from tests.agents.test_ddpg import some_transitions as continuous_transitions

THREE = spaces.Discrete(3)


def make(seed=0, observations=VECTOR, actions=TWO, **settings):
    return make_agent("sac", actions, observations, seed=seed, **{"learning_starts": 0, "hidden": (16, 12), **settings})


def some_transitions(actions=TWO, count=12, seed=0, masked=False):
    drawn = continuous_transitions(count, seed)
    if actions is TWO:
        return drawn
    generator = draw(seed + 100)
    mask = torch.rand(2, count, 3, generator=generator) < 0.6
    mask[:, :, 0] = True
    return drawn._replace(
        action=torch.zeros(count, dtype=torch.int64) if masked else torch.randint(3, (count,), generator=generator),
        mask=mask[0] if masked else None, next_mask=mask[1] if masked else None,
    )  # fmt: skip


def once(agent, drawn, progress=0.5, seed=0):
    """One update on some transitions; its metrics."""
    replay = FixedReplay(drawn, math.ceil((agent.updates + 1) / agent.config.replay_ratio))
    before = agent.updates
    metrics = dict(agent.learn(replay, progress, draw(seed)))
    assert agent.updates == before + 1
    return metrics


def one_transition(reward=0.5, discount=0.9, count=1):
    zeros = torch.zeros(count, 4)
    return Transitions(
        zeros, torch.zeros(count, 2), torch.full((count,), reward), torch.full((count,), discount), zeros, None, None,
        None, torch.arange(count),
    )  # fmt: skip


# By hand


def gaussian_log_prob(noise, mean=0.0, log_std=0.0):
    u = mean + math.exp(log_std) * noise
    return (-0.5 * noise**2 - log_std - 0.5 * math.log(2 * math.pi) - torch.log(1 - torch.tanh(u) ** 2)).sum(-1)


@pytest.mark.parametrize("discount", [0.9, 0.0])
def test_the_target_by_hand(discount):
    """The lower target critic, less alpha log pi of the draw; neither where the episode terminated."""
    agent = make(temperature=0.5)
    constant(agent.critics, [1.0], [3.0])
    constant(agent.target_critics, [30.0], [20.0])
    constant(agent.actor, [0.0] * 4)
    log_prob = float(gaussian_log_prob(torch.empty(1, 2).normal_(generator=draw())))
    target = 0.5 + discount * (20 - 0.5 * log_prob)
    metrics = once(agent, one_transition(discount=discount))
    assert float(metrics["q"]) == 1.0
    assert float(metrics["temperature"]) == 0.5
    assert float(metrics["critic_loss"]) == pytest.approx((target - 1) ** 2 + (target - 3) ** 2, rel=1e-5)


def test_the_target_of_discrete_actions_by_hand():
    """pi = (1/2, 1/2, 0) by the mask, min Q' = (1, 4, 0): 0.5 + 0.9 (2.5 + 0.2 log 2)."""
    agent = make(actions=THREE, temperature=0.2)
    constant(agent.critics, [1.0, 7.0, 7.0], [1.0, 7.0, 7.0])
    constant(agent.target_critics, [1.0, 6.0, 0.0], [3.0, 4.0, 99.0])
    constant(agent.actor, [1.0, 1.0, 50.0])
    legal = torch.tensor([[True, True, False]])
    drawn = one_transition()._replace(action=torch.tensor([0]), mask=legal, next_mask=legal)
    metrics = once(agent, drawn)
    assert float(metrics["critic_loss"]) == pytest.approx(2 * (0.5 + 0.9 * (2.5 + 0.2 * math.log(2)) - 1) ** 2)
    assert float(metrics["q"]) == 1.0


@pytest.mark.parametrize(("target", "rises"), [(5.0, True), (-9.0, False)])
@pytest.mark.parametrize("actions", [TWO, THREE])
def test_the_temperature_rises_where_the_entropy_is_too_low(actions, target, rises):
    agent = make(actions=actions, target_entropy=target, temperature_learning_rate=0.01, temperature_start=0.3)
    metrics = once(agent, some_transitions(actions))
    assert float(metrics["temperature"]) == pytest.approx(0.3)
    assert -9 < float(metrics["entropy"]) < 5
    moved = float(agent.log_alpha.detach()) - math.log(0.3)
    assert moved == pytest.approx(0.01 if rises else -0.01, rel=1e-3)  # the size of Adam's first step


def test_target_entropies():
    assert make()._target_entropy(None) == -2
    assert make(target_entropy="linear:1:0")._target_entropy(None) == 1
    agent = make(actions=THREE, entropy_fraction=0.5)
    assert agent._target_entropy(None) == pytest.approx(0.5 * math.log(3))
    mask = torch.tensor([[True, False, True], [True, False, False]])
    assert agent._target_entropy(mask).tolist() == pytest.approx([0.5 * math.log(2), 0.0])


def test_a_temperature_that_is_set_is_a_schedule_and_stays_out_of_learning():
    agent = make(temperature="linear:0.4:0.2", temperature_learning_rate=0.1)
    before = agent.log_alpha.item()
    assert float(once(agent, some_transitions(), progress=0.5)["temperature"]) == pytest.approx(0.3)
    assert agent.log_alpha.item() == before


# Updates by plain torch


def slow_update(agent, networks, adams, alpha, drawn, generator):
    """One update as in the papers, by torch's own distributions, optimisers and autograd."""
    actor, critics, targets = networks
    discrete = drawn.action.dim() == 1

    def value(critics, obs, mask):
        params = agent_of(actor, obs)
        if discrete:
            logits = params if mask is None else params.masked_fill(~mask, -math.inf)
            policy = torch.distributions.Categorical(logits=logits)
            q = torch.minimum(*(textbook_q(mlp, obs) for mlp in critics.mlps))
            return (policy.probs * q).sum(-1) + alpha * policy.entropy(), -policy.entropy()
        mean, log_std = params.chunk(2, -1)
        noise = torch.empty(mean.shape).normal_(generator=generator)
        u = mean + log_std.exp() * noise
        log_prob = torch.distributions.Normal(mean, log_std.exp()).log_prob(u) - torch.log1p(-(torch.tanh(u) ** 2))
        q = torch.minimum(*slow_critics(critics, obs, torch.tanh(u))).squeeze(-1)
        return q - alpha * log_prob.sum(-1), log_prob.sum(-1)

    with torch.no_grad():
        target = drawn.reward + drawn.discount * value(targets, drawn.next_obs, drawn.next_mask)[0]
    if discrete:
        outs = [textbook_q(mlp, drawn.obs).gather(1, drawn.action[:, None]).squeeze(1) for mlp in critics.mlps]
    else:
        outs = [out.squeeze(-1) for out in slow_critics(critics, drawn.obs, drawn.action)]
    loss = sum((out - target).square().mean() for out in outs)
    adams[1].zero_grad()
    loss.backward()
    adams[1].step()
    moves = (agent.updates + 1) % agent.config.policy_delay == 0
    log_prob = None
    if moves:
        soft, log_prob = value(critics, drawn.obs, drawn.mask)
        adams[0].zero_grad()
        (-soft.mean()).backward()
        adams[0].step()
    with torch.no_grad():
        for one, two in zip(targets.parameters(), critics.parameters(), strict=True):
            one.lerp_(two, agent.config.tau)
    return loss, log_prob


def agent_of(actor, obs):
    return textbook_q(actor.mlp, obs)


def textbook_q(mlp, obs):
    from tests.agents.networks.test_deterministic import textbook

    return textbook(mlp, [obs])


@pytest.mark.parametrize(("actions", "masked", "delay"), [(TWO, False, 1), (TWO, False, 2), (THREE, True, 1)])
def test_updates_match_plain_torch(actions, masked, delay):
    """Three updates, with the temperature."""
    agent = make(
        actions=actions, tau=0.2, policy_delay=delay, actor_learning_rate=0.01, critic_learning_rate=0.02,
        temperature_learning_rate=0.03, temperature_start=0.2,
    )  # fmt: skip
    networks = [copy.deepcopy(network) for network in (agent.actor, agent.critics, agent.target_critics)]
    for network in networks[:2]:
        for parameter in network.parameters():
            parameter.grad = None
    log_alpha = nn.Parameter(torch.tensor(math.log(0.2)))
    adams = [torch.optim.Adam(networks[0].parameters(), 0.01), torch.optim.Adam(networks[1].parameters(), 0.02)]
    adam = torch.optim.Adam([log_alpha], 0.03)
    for step in range(3):
        drawn = some_transitions(actions, seed=step, masked=masked)
        alpha = log_alpha.detach().exp()
        loss, log_prob = slow_update(agent, networks, adams, alpha, drawn, draw(step))
        if log_prob is not None:
            target = torch.as_tensor(agent._target_entropy(drawn.mask))
            adam.zero_grad()
            (-log_alpha * (log_prob.detach() + target).mean()).backward()
            adam.step()
        metrics = once(agent, drawn, seed=step)
        if step == 0:
            assert float(metrics["critic_loss"]) == pytest.approx(float(loss.detach()), rel=1e-4)
        assert float(agent.log_alpha.detach()) == pytest.approx(float(log_alpha.detach()), abs=1e-5)
        for ours, theirs in zip((agent.actor, agent.critics, agent.target_critics), networks, strict=True):
            for one, two in zip(ours.parameters(), theirs.parameters(), strict=True):
                assert torch.allclose(one, two, atol=3e-5)


def test_the_actor_maximises_the_critics_without_changing_them():
    """Q = a_1 - a_2: without an entropy term the actor's mode goes to (1, -1)."""
    agent = make(actor_learning_rate=0.01, critic_learning_rate=0.0, temperature=0.0)
    for mlp in agent.critics.mlps:
        linear(mlp, 0.0, 1.0, -1.0)
    before = [parameter.detach().clone() for parameter in agent.critics.parameters()]
    drawn = some_transitions(count=30)
    for step in range(150):
        once(agent, drawn, seed=step)
    assert all(torch.equal(a, b) for a, b in zip(before, agent.critics.parameters(), strict=True))
    action = agent.act(drawn.obs, None, draw(), greedy=True).sample
    assert (action[:, 0] > 0.9).all()
    assert (action[:, 1] < -0.9).all()


# Acting


def test_actions_are_scaled_to_the_bounds():
    agent, obs = make(), torch.zeros(5000, 4)
    constant(agent.actor, [0.5, -0.3, -1.0, -0.5])
    decision = agent.act(obs, None, draw())
    assert torch.allclose(decision.action, torch.tensor([0.0, 0.5]) + decision.sample * torch.tensor([2.0, 0.5]))
    u = torch.atanh(decision.sample[:, 0])
    assert (float(u.mean()), float(u.std())) == (pytest.approx(0.5, abs=0.03), pytest.approx(math.exp(-1), abs=0.03))
    greedy = agent.act(obs[:1], None, draw(), greedy=True)
    assert greedy.sample[0].tolist() == pytest.approx([math.tanh(0.5), math.tanh(-0.3)])


def test_action_log_prob_is_in_the_actions_units():
    agent = make()
    constant(agent.actor, [0.0] * 4)
    found = agent.action_log_prob(torch.zeros(1, 4), None, torch.tensor([[0.0, 0.5]]))
    assert found.item() == pytest.approx(-math.log(2 * math.pi) - math.log(2 * 0.5))


def test_before_learning_starts_actions_are_uniform_and_legal():
    agent = make(learning_starts=10)
    sample = agent.act(torch.zeros(4000, 4), None, draw()).sample
    assert float(sample.std()) == pytest.approx(1 / math.sqrt(3), abs=0.02)
    with pytest.raises(AgentError, match="action_log_prob: got an agent that still plays at random"):
        agent.action_log_prob(torch.zeros(1, 4), None, torch.zeros(1, 2))
    assert agent.learn(FixedReplay(None, added=9), 0.0, draw()) == {}
    assert agent.at_random
    discrete = make(actions=THREE, learning_starts=10)
    mask = torch.tensor([[True, False, True]]).expand(3000, 3)
    counts = discrete.act(torch.zeros(3000, 4), mask, draw()).action.bincount(minlength=3)
    assert counts[1] == 0
    assert 1350 < counts[0] < 1650


def test_probabilities_of_discrete_actions():
    agent = make(actions=THREE)
    constant(agent.actor, [0.0, 5.0, math.log(3)])
    mask = torch.tensor([[True, False, True]])
    assert agent.action_probabilities(torch.zeros(1, 4), mask)[0].tolist() == pytest.approx([0.25, 0, 0.75])
    assert agent.act(torch.zeros(1, 4), mask, draw(), greedy=True).action.tolist() == [2]
    with pytest.raises(AgentError, match="action_probabilities: got a Box"):
        make().action_probabilities(torch.zeros(1, 4), None)


def test_action_spaces_without_bounds_are_refused():
    with pytest.raises(AgentError, match=r"SAC: got the action space .*wanted one with bounds"):
        make(actions=spaces.Box(-np.inf, np.inf, (2,), np.float32))


# State


@pytest.mark.parametrize("actions", [TWO, THREE])
def test_a_restored_agent_continues_as_if_it_had_never_stopped(actions):
    settings = {"temperature_learning_rate": 0.01, "normalize_obs": True, "policy_delay": 2}
    one, two = make(0, actions=actions, **settings), make(1, actions=actions, learning_starts=5, **settings)
    for step in range(3):
        once(one, some_transitions(actions, seed=step), seed=step)
    two.load_state_dict(one.state_dict())
    two.config = one.config
    assert (two.updates, two.at_random) == (3, False)
    for step in range(3, 6):
        metrics = [once(agent, some_transitions(actions, seed=step), seed=step) for agent in (one, two)]
        assert metrics[0] == metrics[1]
    state, same = one.state_dict(), two.state_dict()
    assert all(torch.equal(state[name], same[name]) for name in state)
    other = copy.deepcopy(one)
    once(other, some_transitions(actions, seed=9))
    once(other, some_transitions(actions, seed=10))
    assert torch.equal(one.actor.mlp.head, state["actor.mlp.head"])
    assert not torch.equal(other.actor.mlp.head, state["actor.mlp.head"])
    assert not torch.equal(other.log_alpha, one.log_alpha)


# Learning


@pytest.mark.slow
def test_moving_a_point_to_the_centre_is_learned():
    """A point mass on a plane; random play gets -8.8."""
    result = trained_return(
        "sac", "test/Point-v0", iterations=400, num_envs=8, discount=0.9, learning_starts=400, buffer_size=5000,
        batch_size=64, replay_ratio=0.25, hidden=(32, 32), tau=0.02, actor_learning_rate=3e-3,
        critic_learning_rate=3e-3, temperature_learning_rate=3e-3,
    )  # fmt: skip
    assert result > -0.9
