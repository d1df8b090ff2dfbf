"""DDPG: targets and updates against calculations by hand and in plain torch, actions, and when it learns."""

import copy
import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from mlbits.agents.agent import ReplaySpec
from mlbits.agents.memory.replay import Replay, Transitions
from tests.agents.maths.test_return_distributions import textbook_projection
from tests.agents.memory.plays import hand_written
from tests.agents.networks.test_deterministic import textbook
from tests.agents.rollouts import VECTOR, draw, make_agent

TWO = spaces.Box(np.array([-2, 0], np.float32), np.array([2, 1], np.float32))  # units of 2 and 0.5 around 0 and 0.5
HEADS = ("value", "categorical")
PRECISIONS = ("float32", "bfloat16")


class FixedReplay:
    """A replay buffer that always returns the same batch, and records calls and priorities."""

    latest = None

    def __init__(self, drawn, added=10**9):
        self.drawn, self.added = drawn, added
        self.asked, self.priorities = [], []

    def sample(self, count, generator, **settings):
        self.asked.append((count, settings))
        return self.drawn

    def set_priority(self, slot, error):
        self.priorities.append((slot.clone(), error.clone()))


def make(seed=0, observations=VECTOR, actions=TWO, **settings):
    agent = make_agent(
        "ddpg", actions, observations, seed=seed, **{"learning_starts": 0, "hidden": (16, 12), **settings}
    )
    agent.returns_seen.warned = True  # made-up transitions come without a rollout
    return agent


def some_transitions(count=12, seed=0, weighted=False):
    generator = draw(seed)
    return Transitions(
        obs=torch.randn(count, 4, generator=generator),
        action=2 * torch.rand(count, 2, generator=generator) - 1,
        reward=2 * torch.randn(count, generator=generator),
        discount=0.9 * (torch.rand(count, generator=generator) < 0.7),
        next_obs=torch.randn(count, 4, generator=generator),
        next_mask=None,
        mask=None,
        weight=torch.rand(count, generator=generator) + 0.1 if weighted else None,
        slot=torch.arange(count),
    )


def once(agent, drawn, progress=0.5, seed=0):
    """One update on some transitions; returns its metrics and the replay buffer."""
    replay = FixedReplay(drawn, math.ceil((agent.updates + 1) / agent.config.replay_ratio))
    before = agent.updates
    metrics = dict(agent.learn(replay, progress, draw(seed)))
    assert agent.updates == before + 1
    return metrics, replay


def constant(network, *numbers):
    """Make each MLP of a network have the same outputs for all inputs."""
    mlps = [network.mlp] if hasattr(network, "mlp") else list(network.mlps)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        for mlp, values in zip(mlps, numbers, strict=True):
            mlp.head_bias.copy_(torch.tensor(values))


def linear(mlp, bias, *gradients):
    """Make an MLP of observations [4] and actions [2] compute bias + gradients . action, for actions above -3."""
    with torch.no_grad():
        for parameter in mlp.parameters():
            parameter.zero_()
        for k, gradient in enumerate(gradients):
            mlp.first[0][4 + k, k] = 1.0
            mlp.biases[0][k] = 3.0
            mlp.weights[0][k, k] = 1.0
            mlp.head[0, k] = gradient
        mlp.head_bias.fill_(bias - 3 * sum(gradients))


def one_transition(reward=0.5, discount=0.9, count=1):
    zeros, tiny = torch.zeros(count, 4), torch.zeros(count, 2)
    return Transitions(
        zeros, tiny, torch.full((count,), reward), torch.full((count,), discount), zeros, None, None,
        torch.ones(count), torch.arange(count),
    )  # fmt: skip


# Targets by hand


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("twin", "discount", "target"), [
    (False, 0.9, 0.5 + 0.9 * 30), (True, 0.9, 0.5 + 0.9 * 20), (False, 0.0, 0.5), (True, 0.0, 0.5),
])  # fmt: skip
def test_the_value_target_by_hand(twin, discount, target, precision):
    """With two critics the bootstrap is the lower of the two, and both are updated."""
    agent = make(twin=twin, precision=precision)
    constant(agent.critics, *([1.0], [3.0])[: 1 + twin])
    constant(agent.target_critics, *([30.0], [20.0])[: 1 + twin])
    metrics, replay = once(agent, one_transition(discount=discount))
    errors = [abs(target - q) for q in (1.0, 3.0)[: 1 + twin]]
    assert float(metrics["q"]) == 1.0
    assert float(metrics["error"]) == pytest.approx(sum(errors) / len(errors))
    assert float(metrics["critic_loss"]) == pytest.approx(sum(error**2 for error in errors))
    assert replay.priorities[0][1].tolist() == pytest.approx([sum(errors) / len(errors)])


@pytest.mark.parametrize(("twin", "target"), [(False, [0.0, 0.25, 0.75]), (True, [0.0, 0.75, 0.25])])
def test_the_categorical_target_by_hand(twin, target):
    """Support 0, 1, 2. The first target critic predicts 2: 0.75 + 1. The second predicts 1, the lower: 0.75 + 0.5."""
    agent = make(head="categorical", atoms=3, v_min=0.0, v_max=2.0, twin=twin)
    sure = 40.0  # a logit that makes the probability almost 1
    constant(agent.critics, *([0.0, 0.0, 0.0], [0.0, 0.0, 0.0])[: 1 + twin])
    constant(agent.target_critics, *([0.0, 0.0, sure], [0.0, sure, 0.0])[: 1 + twin])
    metrics, replay = once(agent, one_transition(reward=0.75, discount=0.5))
    assert float(metrics["q"]) == pytest.approx(1.0)
    assert float(metrics["critic_loss"]) == pytest.approx((1 + twin) * math.log(3))
    divergence = math.log(3) + sum(p * math.log(p) for p in target if p)
    assert replay.priorities[0][1].tolist() == pytest.approx([divergence])


@pytest.mark.parametrize("n_step", [1, 3])
def test_errors_of_a_stream_by_hand(n_step):
    """Q is 1 and the target network's Q is 10 everywhere: an error is |the window's reward + discount * 10 - 1|."""
    windows = {  # terminated at 1, truncated at 4
        1: {0: (1, 0.5), 1: (2, 0), 2: (4, 0.5), 3: (8, 0.5), 4: (16, 0.5), 5: (32, 0.5)},
        3: {0: (1 + 1, 0), 1: (2, 0), 2: (4 + 4 + 4, 0.125), 3: (8 + 8, 0.25), 4: (16, 0.5), 5: (32, 0.5)},
    }[n_step]
    agent = make(
        observations=spaces.Box(-99, 99, (1,)), actions=spaces.Box(-1, 1, (1,)), n_step=n_step, discount=0.5,
        priority_exponent=1.0, batch_size=6, replay_ratio=1 / 6,
    )  # fmt: skip
    constant(agent.critics, [1.0])
    constant(agent.target_critics, [10.0])
    replay = Replay(ReplaySpec(3, 6, 1.0), torch.zeros(1, 1, 1), torch.zeros(1, 1, 1), None)
    rollout = hand_written(terminated=[1], truncated=[4])
    object.__setattr__(rollout, "sample", torch.zeros(6, 1, 1, 1))
    replay.add(rollout)
    errors = {}
    replay.set_priority = lambda slot, error: errors.update(zip(slot.tolist(), error.tolist(), strict=True))
    agent.learn(replay, 0.0, draw())
    assert errors == {slot: pytest.approx(reward + gamma * 10 - 1) for slot, (reward, gamma) in windows.items()}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_target_noise_is_clipped_and_stays_within_bounds(precision):
    """Q' = a_1 + 0 a_2: the target is the noise."""
    agent = make(target_noise=0.5, target_noise_clip=0.25, precision=precision)
    linear(agent.target_critics.mlps[0], 0.0, 1.0, 0.0)
    constant(agent.target_actor, [0.0, 0.0])
    count = 4000
    with torch.no_grad():
        target = agent._target(one_transition(0.0, 1.0, count), draw()).flatten()
    rounding = 0.02 if precision == "bfloat16" else 1e-5
    assert float(target.abs().max()) == pytest.approx(0.25, abs=rounding)
    at_ends = (target.abs() > 0.25 - rounding).float().mean()  # 62% are beyond half a standard deviation
    assert float(at_ends) == pytest.approx(0.617, abs=0.05)
    assert abs(float(target.mean())) < 0.02
    constant(agent.target_actor, [9.0, 0.0])  # tanh: 1
    with torch.no_grad():
        high = agent._target(one_transition(0.0, 1.0, count), draw())
    assert float(high.max()) <= 1.0 + rounding
    assert float((high > 1 - rounding).float().mean()) > 0.4
    assert float(high.min()) == pytest.approx(0.75, abs=rounding)


# Updates by plain torch


def slow_critics(critics, obs, action):
    return [textbook(mlp, [torch.cat([obs, action], 1)]) for mlp in critics.mlps]


def slow_actor(actor, obs):
    return torch.tanh(textbook(actor.mlp, [obs]))


def slow_mean(agent, out):
    return out if agent.config.head == "value" else (torch.softmax(out, -1) * agent.support).sum(-1, keepdim=True)


def slow_target(agent, actor, critics, drawn):
    """Targets computed row by row."""
    with torch.no_grad():
        outs = slow_critics(critics, drawn.next_obs, slow_actor(actor, drawn.next_obs))
    targets = []
    for row in range(len(drawn.reward)):
        following = min((out[row] for out in outs), key=lambda out: float(slow_mean(agent, out[None])))
        reward, discount = float(drawn.reward[row]), float(drawn.discount[row])
        if agent.config.head == "value":
            targets.append(reward + discount * following)
        else:
            atoms = reward + discount * agent.support.double()
            projected = textbook_projection(atoms[None], torch.softmax(following, -1)[None], agent.support.double())
            targets.append(torch.tensor(projected[0], dtype=torch.float32))
    return torch.stack(targets)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("twin", "weighted", "delay"), [(False, False, 1), (True, True, 2), (True, False, 3)])
@pytest.mark.parametrize("clip", [0.5, math.inf])
def test_updates_match_plain_torch(head, twin, weighted, delay, clip):
    """Four updates: targets in a loop, autograd, ``clip_grad_norm_``, torch's Adam, and interpolation."""
    settings = {"head": head, "atoms": 5, "v_min": -3.0, "v_max": 4.0, "tau": 0.2}
    agent = make(
        **settings, twin=twin, policy_delay=delay, max_grad_norm=clip, actor_learning_rate=0.01,
        critic_learning_rate=0.02, hidden=(16, 12, 8),
    )  # fmt: skip
    actor, critics, actor_target, critic_target = (
        copy.deepcopy(network) for network in (agent.actor, agent.critics, agent.target_actor, agent.target_critics)
    )
    for network in (actor, critics):
        for parameter in network.parameters():
            parameter.grad = None
    adams = torch.optim.Adam(actor.parameters(), 0.01), torch.optim.Adam(critics.parameters(), 0.02)
    for step in range(4):
        drawn = some_transitions(seed=step, weighted=weighted)
        target = slow_target(agent, actor_target, critic_target, drawn)
        outs = slow_critics(critics, drawn.obs, drawn.action)
        weight = 1 if drawn.weight is None else drawn.weight
        if head == "value":
            losses = [(out - target).square().squeeze(-1) for out in outs]
        else:
            losses = [-(target * torch.log_softmax(out, -1)).sum(-1) for out in outs]
        loss = sum((weight * one).mean() for one in losses)
        adams[1].zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(critics.parameters(), clip)
        adams[1].step()
        moves = (step + 1) % delay == 0
        if moves:
            adams[0].zero_grad()
            q = slow_mean(agent, slow_critics(critics, drawn.obs, slow_actor(actor, drawn.obs))[0]).mean()
            (-q).backward()
            actor_norm = nn.utils.clip_grad_norm_(actor.parameters(), clip)
            adams[0].step()
            with torch.no_grad():
                for network, follower in ((actor, actor_target), (critics, critic_target)):
                    for one, two in zip(follower.parameters(), network.parameters(), strict=True):
                        one.lerp_(two, 0.2)
        metrics, replay = once(agent, drawn)
        if step == 0:
            assert float(metrics["critic_loss"]) == pytest.approx(float(loss.detach()), rel=1e-4)
            assert float(metrics["critic_grad_norm"]) == pytest.approx(float(norm), rel=1e-4)
            assert float(metrics["q"]) == pytest.approx(float(slow_mean(agent, outs[0]).detach().mean()), abs=1e-5)
            assert ("actor_q" in metrics) is moves
        if step + 1 == delay:
            assert float(metrics["actor_q"]) == pytest.approx(float(q.detach()), abs=1e-5)
            assert float(metrics["actor_grad_norm"]) == pytest.approx(float(actor_norm), rel=1e-4)
        for ours, theirs in (
            (agent.actor, actor), (agent.critics, critics), (agent.target_actor, actor_target),
            (agent.target_critics, critic_target),
        ):  # fmt: skip
            for one, two in zip(ours.parameters(), theirs.parameters(), strict=True):
                assert torch.allclose(one, two, atol=3e-5)
        if not weighted:
            assert replay.priorities == []
            continue
        if head == "value":
            errors = [(target - out).abs().squeeze(-1) for out in outs]
        else:
            errors = [
                torch.nn.functional.kl_div(torch.log_softmax(out, -1), target, reduction="none").sum(-1) for out in outs
            ]
        slot, error = replay.priorities[0]
        assert torch.equal(slot, drawn.slot)
        assert torch.allclose(error, torch.stack(errors).detach().mean(0), atol=1e-4)


def test_in_bfloat16_the_first_updates_are_nearly_the_same():
    """The median over five seeds, since relative to a Q that happens to be near 0 any difference is large."""
    differences = []
    for seed in range(5):
        agents = [make(seed, precision=precision, hidden=(64, 48), batch_size=200) for precision in PRECISIONS]
        for step in range(20):
            drawn = some_transitions(200, seed=step)
            for agent in agents:
                once(agent, drawn)
        with torch.no_grad():
            one, two = (agent.critics(drawn.obs, drawn.action, agent.precision)[0] for agent in agents)
            differences.append(float((one - two).norm() / one.norm()))
            one, two = (agent.actor.forward(drawn.obs) for agent in agents)
            assert 0 < (one - two).abs().max() < 0.03
    assert 0 < sorted(differences)[2] < 0.03


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_actor_maximises_the_critic(precision):
    """Q = a_1 - a_2: the actor converges to (1, -1), and its updates do not change the critic."""
    agent = make(precision=precision, actor_learning_rate=0.01, critic_learning_rate=0.0)
    linear(agent.critics.mlps[0], 0.0, 1.0, -1.0)
    drawn = some_transitions(30)
    before = [parameter.detach().clone() for parameter in agent.critics.parameters()]
    for _ in range(150):
        once(agent, drawn)
    assert all(torch.equal(a, b) for a, b in zip(before, agent.critics.parameters(), strict=True))
    action = agent.act(drawn.obs, None, draw(), greedy=True).sample
    assert (action[:, 0] > 0.95).all()
    assert (action[:, 1] < -0.95).all()


# Actions


def test_actions_are_scaled_to_the_bounds():
    agent = make(noise=0.5)
    constant(agent.actor, [0.0, math.atanh(0.5)])
    rows = 20_000
    decision = agent.act(torch.zeros(rows, 4), None, draw(1))
    sample, action = decision.sample, decision.action
    assert decision.log_prob is None
    assert sample.dtype == action.dtype == torch.float32
    assert torch.allclose(action, sample * torch.tensor([2.0, 0.5]) + torch.tensor([0.0, 0.5]))
    assert sample.abs().max() == 1  # clipped: the agent learns from the action that was played
    assert TWO.contains(action.amin(0).numpy())
    assert TWO.contains(action.amax(0).numpy())
    inside = (sample.abs() < 1).float().mean(0)
    assert inside.tolist() == pytest.approx([0.954, 0.84], abs=0.015)  # 1 is two deviations above 0, one above 0.5
    assert sample[:, 0].std() == pytest.approx(0.5, abs=0.03)
    greedy = agent.act(torch.zeros(3, 4), None, draw(), greedy=True)
    assert torch.allclose(greedy.action, torch.tensor([0.0, 0.75]).expand(3, 2))


def test_actions_are_random_during_warm_up():
    agent = make(learning_starts=100)
    agent.actor.forward = None
    decision = agent.act(torch.zeros(20_000, 4), None, draw(1))
    assert decision.sample.mean(0).tolist() == pytest.approx([0, 0], abs=0.02)
    assert decision.sample.std(0).tolist() == pytest.approx([1 / math.sqrt(3)] * 2, abs=0.02)
    assert decision.sample.abs().max() <= 1
    del agent.actor.forward
    one, two = (agent.act(torch.zeros(1, 4), None, draw(seed), greedy=True) for seed in (1, 2))
    assert torch.equal(one.action, two.action)
    replay = FixedReplay(some_transitions(), added=99)
    assert agent.learn(replay, 0.0, draw()) == {}
    assert agent.noise == math.inf
    replay.added = 100
    agent.learn(replay, 0.0, draw())
    assert agent.noise == 0.1
    assert agent.updates == 0


def test_noise_and_learning_rates_are_annealed_only_if_set():
    for anneal, factor in ((False, 1.0), (True, 0.25)):
        agent = make(noise=0.4, anneal_noise=anneal, anneal_lr=anneal, actor_learning_rate=0.01)
        metrics, _ = once(agent, some_transitions(), progress=0.75)
        assert agent.noise == metrics["noise"] == pytest.approx(0.4 * factor)
        assert agent.actor_optimizer.learning_rate == pytest.approx(0.01 * factor)
        assert agent.critic_optimizer.learning_rate == pytest.approx(1e-3 * factor)


def test_without_noise_actions_are_deterministic():
    agent = make(noise=0.0)
    one, two = (agent.act(torch.ones(5, 4), None, draw(seed)) for seed in (1, 2))
    assert torch.equal(one.sample, two.sample)


# When and from what it learns


def test_settings_are_passed_to_the_replay_buffer():
    agent = make(n_step=4, discount=0.8, batch_size=9, priority_weight=0.4, num_steps=7, buffer_size=500)
    _, replay = once(agent, some_transitions(), progress=0.25)
    settings = {"n_step": 4, "discount": 0.8, "weight_exponent": pytest.approx(0.4 + 0.25 * 0.6)}
    assert replay.asked == [(9, settings | {"bonus": None})]
    assert agent.experience == ReplaySpec(7, 500, 0.0)
    assert make(buffer_size=500, priority_exponent=0.6).experience == ReplaySpec(1, 500, 0.6)


@pytest.mark.parametrize("chunks", [[1] * 30, [7, 20, 3], [30]])
@pytest.mark.parametrize("ratio", [0.25, 1.0, 2.5])
def test_the_number_of_updates_is_replay_ratio_times_steps_for_any_chunks(chunks, ratio):
    agent = make(learning_starts=12, replay_ratio=ratio)
    replay = FixedReplay(some_transitions(), added=0)
    for chunk in chunks:
        replay.added += chunk
        metrics = agent.learn(replay, 0.0, draw())
        assert agent.updates == max(0, int((replay.added - 12) * ratio))
        assert metrics.get("updates", agent.updates) == agent.updates
    assert len(replay.asked) == int(18 * ratio)


def test_one_update_in_sixteen_is_measured():
    agent = make()
    seen = [once(agent, some_transitions(seed=step))[0] for step in range(33)]
    names = {"critic_loss", "q", "error", "critic_grad_norm", "actor_q", "actor_grad_norm", "noise", "updates"}
    names |= {"actor_learning_rate", "critic_learning_rate"}
    assert all(set(metrics) == names for metrics in seen)
    losses = [float(metrics["critic_loss"]) for metrics in seen]
    assert losses == [losses[0]] * 16 + [losses[16]] * 16 + [losses[32]]
    assert len(set(losses)) == 3
