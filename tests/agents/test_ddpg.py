"""DDPG's targets and updates, worked by hand and by plain torch; its actions and errors; and that it learns."""

import copy
import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from mlbits.agents import agent_entry
from mlbits.agents.agent import AgentError, ReplaySpec
from mlbits.agents.ddpg import DDPG, DDPGConfig
from mlbits.agents.replay import Replay, Transitions
from mlbits.envs.core.wrapped import open_batch
from mlbits.selfplay.collect import Collector
from mlbits.selfplay.lineup import self_play
from mlbits.selfplay.session import make_replay
from tests.agents.plays import hand_written
from tests.agents.rollouts import VECTOR, draw, make_agent, trained_return
from tests.agents.test_return_distributions import textbook_projection
from tests.agents.test_wide_tower import textbook
from tests.games import register_test_games

register_test_games()

TWO = spaces.Box(np.array([-2, 0], np.float32), np.array([2, 1], np.float32))  # units of 2 and 0.5 around 0 and 0.5
HEADS = ("value", "categorical")
PRECISIONS = ("float32", "bfloat16")


class Handed:
    """A replay that hands out one batch again and again, and notes what it was asked for and told."""

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
    agent = make_agent("ddpg", actions, observations, seed=seed, **{"warmup": 0, "hidden": (16, 12), **settings})
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
    """One update on some transitions; returns its metrics and the replay that handed them out."""
    replay = Handed(drawn, math.ceil((agent.updates + 1) / agent.config.updates_per_step))
    before = agent.updates
    metrics = dict(agent.learn(replay, progress, draw(seed)))
    assert agent.updates == before + 1
    return metrics, replay


def constant(network, *numbers):
    """Make each tower of a network put out the same numbers everywhere."""
    towers = [network.tower] if hasattr(network, "tower") else list(network.towers)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        for tower, values in zip(towers, numbers, strict=True):
            tower.head_bias.copy_(torch.tensor(values))


def linear(tower, bias, *slopes):
    """Make a tower of observations [4] and actions [2] put out bias + slopes . action, for actions above -3."""
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.zero_()
        for k, slope in enumerate(slopes):
            tower.first[0][4 + k, k] = 1.0
            tower.biases[0][k] = 3.0
            tower.weights[0][k, k] = 1.0
            tower.head[0, k] = slope
        tower.head_bias.fill_(bias - 3 * sum(slopes))


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
    """Of twins the lesser counts for the bootstrap, and both are moved."""
    agent = make(twin=twin, precision=precision)
    constant(agent.critics, *([1.0], [3.0])[: 1 + twin])
    constant(agent.critic_optimizer.target, *([30.0], [20.0])[: 1 + twin])
    agent.critic_optimizer.refresh()
    metrics, replay = once(agent, one_transition(discount=discount))
    errors = [abs(target - q) for q in (1.0, 3.0)[: 1 + twin]]
    assert float(metrics["q"]) == 1.0
    assert float(metrics["error"]) == pytest.approx(sum(errors) / len(errors))
    assert float(metrics["critic_loss"]) == pytest.approx(sum(error**2 for error in errors))
    assert replay.priorities[0][1].tolist() == pytest.approx([sum(errors) / len(errors)])


@pytest.mark.parametrize(("twin", "target"), [(False, [0.0, 0.25, 0.75]), (True, [0.0, 0.75, 0.25])])
def test_the_categorical_target_by_hand(twin, target):
    """Support 0, 1, 2. The first target returns 2: 0.75 + 1. Its twin returns 1, which is less: 0.75 + 0.5."""
    agent = make(head="categorical", atoms=3, support_low=0.0, support_high=2.0, twin=twin)
    sure = 40.0  # of logits: as good as certain
    constant(agent.critics, *([0.0, 0.0, 0.0], [0.0, 0.0, 0.0])[: 1 + twin])
    constant(agent.critic_optimizer.target, *([0.0, 0.0, sure], [0.0, sure, 0.0])[: 1 + twin])
    metrics, replay = once(agent, one_transition(reward=0.75, discount=0.5))
    assert float(metrics["q"]) == pytest.approx(1.0)
    assert float(metrics["critic_loss"]) == pytest.approx((1 + twin) * math.log(3))
    divergence = math.log(3) + sum(p * math.log(p) for p in target if p)
    assert replay.priorities[0][1].tolist() == pytest.approx([divergence])


@pytest.mark.parametrize("n_step", [1, 3])
def test_errors_of_a_stream_by_hand(n_step):
    """Q is 1 and its target 10 everywhere: an error is the window's reward, what is left of 10, less 1."""
    windows = {  # terminated at 1, truncated at 4
        1: {0: (1, 0.5), 1: (2, 0), 2: (4, 0.5), 3: (8, 0.5), 4: (16, 0.5), 5: (32, 0.5)},
        3: {0: (1 + 1, 0), 1: (2, 0), 2: (4 + 4 + 4, 0.125), 3: (8 + 8, 0.25), 4: (16, 0.5), 5: (32, 0.5)},
    }[n_step]
    agent = make(
        observations=spaces.Box(-99, 99, (1,)), actions=spaces.Box(-1, 1, (1,)), n_step=n_step, discount=0.5,
        priority_exponent=1.0, batch_size=6, updates_per_step=1 / 6,
    )  # fmt: skip
    constant(agent.critics, [1.0])
    constant(agent.critic_optimizer.target, [10.0])
    replay = Replay(ReplaySpec(3, 6, 1.0), torch.zeros(1, 1, 1), torch.zeros(1, 1, 1), None)
    rollout = hand_written(terminated=[1], truncated=[4])
    object.__setattr__(rollout, "sample", torch.zeros(6, 1, 1, 1))
    replay.add(rollout)
    told = {}
    replay.set_priority = lambda slot, error: told.update(zip(slot.tolist(), error.tolist(), strict=True))
    agent.learn(replay, 0.0, draw())
    assert told == {slot: pytest.approx(reward + left * 10 - 1) for slot, (reward, left) in windows.items()}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_target_noise_is_clipped_and_stays_within_bounds(precision):
    """Q' = a_1 + 0 a_2: the target tells the noise."""
    agent = make(target_noise=0.5, target_noise_clip=0.25, precision=precision)
    linear(agent.critic_optimizer.target.towers[0], 0.0, 1.0, 0.0)
    constant(agent.actor_optimizer.target, [0.0, 0.0])
    agent.critic_optimizer.refresh()
    count = 4000
    with torch.no_grad():
        target = agent._target(one_transition(0.0, 1.0, count), draw()).flatten()
    rounding = 0.02 if precision == "bfloat16" else 1e-5
    assert float(target.abs().max()) == pytest.approx(0.25, abs=rounding)
    at_ends = (target.abs() > 0.25 - rounding).float().mean()  # half a standard deviation: 62% lie beyond
    assert float(at_ends) == pytest.approx(0.617, abs=0.05)
    assert abs(float(target.mean())) < 0.02
    constant(agent.actor_optimizer.target, [9.0, 0.0])  # tanh: 1
    agent.actor_optimizer.refresh()
    with torch.no_grad():
        high = agent._target(one_transition(0.0, 1.0, count), draw())
    assert float(high.max()) <= 1.0 + rounding
    assert float((high > 1 - rounding).float().mean()) > 0.4
    assert float(high.min()) == pytest.approx(0.75, abs=rounding)


# Updates by plain torch


def slow_critics(critics, obs, action):
    return [textbook(tower, [torch.cat([obs, action], 1)]) for tower in critics.towers]


def slow_actor(actor, obs):
    return torch.tanh(textbook(actor.tower, [obs]))


def slow_mean(agent, out):
    return out if agent.config.head == "value" else (torch.softmax(out, -1) * agent.support).sum(-1, keepdim=True)


def slow_target(agent, actor, critics, drawn):
    """Row by row."""
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
            share = textbook_projection(atoms[None], torch.softmax(following, -1)[None], agent.support.double())
            targets.append(torch.tensor(share[0], dtype=torch.float32))
    return torch.stack(targets)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("twin", "weighted", "delay"), [(False, False, 1), (True, True, 2), (True, False, 3)])
@pytest.mark.parametrize("clip", [0.5, math.inf])
def test_updates_are_those_of_plain_torch(head, twin, weighted, delay, clip):
    """Four of them: targets in a loop, autograd, ``clip_grad_norm_``, torch's Adam, and interpolation."""
    settings = {"head": head, "atoms": 5, "support_low": -3.0, "support_high": 4.0, "tau": 0.2}
    agent = make(
        **settings, twin=twin, policy_delay=delay, max_grad_norm=clip, actor_learning_rate=0.01,
        critic_learning_rate=0.02, hidden=(16, 12, 8),
    )  # fmt: skip
    actor, critics, actor_target, critic_target = (
        copy.deepcopy(network)
        for network in (agent.actor, agent.critics, agent.actor_optimizer.target, agent.critic_optimizer.target)
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
            (agent.actor, actor), (agent.critics, critics), (agent.actor_optimizer.target, actor_target),
            (agent.critic_optimizer.target, critic_target),
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
    agents = [make(precision=precision, hidden=(64, 48), batch_size=200) for precision in PRECISIONS]
    for step in range(20):
        drawn = some_transitions(200, seed=step)
        for agent in agents:
            once(agent, drawn)
    with torch.no_grad():
        one, two = (agent.critics.record(drawn.obs, drawn.action)[0] for agent in agents)
        assert (one - two).norm() < 0.03 * one.norm()
        one, two = (agent.actor.forward(drawn.obs) for agent in agents)
        assert (one - two).abs().max() < 0.03


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_actor_climbs_its_critic(precision):
    """Q = a_1 - a_2: the actor goes to (1, -1), and leaves the critic alone."""
    agent = make(precision=precision, actor_learning_rate=0.01, critic_learning_rate=0.0)
    linear(agent.critics.towers[0], 0.0, 1.0, -1.0)
    agent.critic_optimizer.refresh()
    drawn = some_transitions(30)
    before = [parameter.detach().clone() for parameter in agent.critics.parameters()]
    for _ in range(150):
        once(agent, drawn)
    assert all(torch.equal(a, b) for a, b in zip(before, agent.critics.parameters(), strict=True))
    action = agent.act(drawn.obs, None, draw(), greedy=True).sample
    assert (action[:, 0] > 0.95).all()
    assert (action[:, 1] < -0.95).all()


# Actions


def test_actions_are_in_units_of_the_bounds():
    agent = make(noise=0.5)
    constant(agent.actor, [0.0, math.atanh(0.5)])
    rows = 20_000
    decision = agent.act(torch.zeros(rows, 4), None, draw(1))
    sample, action = decision.sample, decision.action
    assert decision.log_prob is None
    assert sample.dtype == action.dtype == torch.float32
    assert torch.allclose(action, sample * torch.tensor([2.0, 0.5]) + torch.tensor([0.0, 0.5]))
    assert sample.abs().max() == 1  # clipped: what was played is what is learned from
    assert TWO.contains(action.amin(0).numpy())
    assert TWO.contains(action.amax(0).numpy())
    inside = (sample.abs() < 1).float().mean(0)
    assert inside.tolist() == pytest.approx([0.954, 0.84], abs=0.015)  # 1 is two deviations from 0, one from 0.5
    assert sample[:, 0].std() == pytest.approx(0.5, abs=0.03)
    greedy = agent.act(torch.zeros(3, 4), None, draw(), greedy=True)
    assert torch.allclose(greedy.action, torch.tensor([0.0, 0.75]).expand(3, 2))


def test_actions_are_random_while_it_warms_up():
    agent = make(warmup=100)
    agent.actor.forward = None
    decision = agent.act(torch.zeros(20_000, 4), None, draw(1))
    assert decision.sample.mean(0).tolist() == pytest.approx([0, 0], abs=0.02)
    assert decision.sample.std(0).tolist() == pytest.approx([1 / math.sqrt(3)] * 2, abs=0.02)
    assert decision.sample.abs().max() <= 1
    del agent.actor.forward
    one, two = (agent.act(torch.zeros(1, 4), None, draw(seed), greedy=True) for seed in (1, 2))
    assert torch.equal(one.action, two.action)
    replay = Handed(some_transitions(), added=99)
    assert agent.learn(replay, 0.0, draw()) == {}
    assert agent.noise == math.inf
    replay.added = 100
    agent.learn(replay, 0.0, draw())
    assert agent.noise == 0.1
    assert agent.updates == 0


def test_noise_and_learning_rates_fall_where_they_should():
    for anneal, share in ((False, 1.0), (True, 0.25)):
        agent = make(noise=0.4, anneal_noise=anneal, anneal_lr=anneal, actor_learning_rate=0.01)
        metrics, _ = once(agent, some_transitions(), progress=0.75)
        assert agent.noise == metrics["noise"] == pytest.approx(0.4 * share)
        assert agent.actor_optimizer.learning_rate == pytest.approx(0.01 * share)
        assert agent.critic_optimizer.learning_rate == pytest.approx(1e-3 * share)


def test_without_noise_actions_are_the_actors():
    agent = make(noise=0.0)
    one, two = (agent.act(torch.ones(5, 4), None, draw(seed)) for seed in (1, 2))
    assert torch.equal(one.sample, two.sample)


# Rounds of learning


def test_it_asks_the_replay_for_what_is_set():
    agent = make(n_step=4, discount=0.8, batch_size=9, priority_weight=0.4, num_steps=7, capacity=500)
    _, replay = once(agent, some_transitions(), progress=0.25)
    settings = {"n_step": 4, "discount": 0.8, "weight_exponent": pytest.approx(0.4 + 0.25 * 0.6)}
    assert replay.asked == [(9, settings)]
    assert agent.experience == ReplaySpec(7, 500, 0.0)
    assert make(capacity=500, priority_exponent=0.6).experience == ReplaySpec(1, 500, 0.6)


@pytest.mark.parametrize("chunks", [[1] * 30, [7, 20, 3], [30]])
@pytest.mark.parametrize("ratio", [0.25, 1.0, 2.5])
def test_updates_are_a_share_of_the_steps_however_they_come(chunks, ratio):
    agent = make(warmup=12, updates_per_step=ratio)
    replay = Handed(some_transitions(), added=0)
    for chunk in chunks:
        replay.added += chunk
        metrics = agent.learn(replay, 0.0, draw())
        assert agent.updates == max(0, int((replay.added - 12) * ratio))
        assert metrics.get("updates", agent.updates) == agent.updates
    assert len(replay.asked) == int(18 * ratio)


def test_metrics_are_of_one_update_in_sixteen():
    agent = make()
    seen = [once(agent, some_transitions(seed=step))[0] for step in range(33)]
    names = {"critic_loss", "q", "error", "critic_grad_norm", "actor_q", "actor_grad_norm", "noise", "updates"}
    assert all(set(metrics) == names for metrics in seen)
    losses = [float(metrics["critic_loss"]) for metrics in seen]
    assert losses == [losses[0]] * 16 + [losses[16]] * 16 + [losses[32]]
    assert len(set(losses)) == 3


# Spaces, settings, saving


def test_other_action_spaces_are_refused_naming_who_can():
    for space, able in ((spaces.Discrete(3), "dqn"), (spaces.MultiDiscrete([2, 3]), "reinforce")):
        with pytest.raises(AgentError, match=rf"DDPG: got the action space .*wanted one that is continuous.*{able}"):
            agent_entry("ddpg").make(DDPGConfig(), VECTOR, space, seed=0, device="cpu")


@pytest.mark.parametrize("bounds", [(-np.inf, np.inf), (0.0, np.inf), (-np.inf, 1.0)])
def test_actions_without_bounds_are_refused_naming_who_can(bounds):
    space = spaces.Box(*bounds, (2,), np.float32)
    with pytest.raises(AgentError, match=r"DDPG: got the action space .*; wanted one with bounds.*ppo"):
        make(actions=space)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_steps", 0), ("updates_per_step", 0.0), ("capacity", 0), ("warmup", -1), ("batch_size", 0),
        ("actor_learning_rate", -1e-3), ("critic_learning_rate", float("nan")), ("adam_eps", -1.0),
        ("discount", 1.01), ("tau", 0.0), ("tau", 1.5), ("noise", -0.1), ("atoms", 1), ("n_step", 0),
        ("priority_exponent", 1.5), ("priority_weight", -0.5), ("target_noise", -1.0), ("target_noise_clip", -0.5),
        ("policy_delay", 0), ("max_grad_norm", 0.0), ("hidden", ()), ("hidden", (8, 0)), ("head", "quantile"),
        ("precision", "float16"),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused_by_name(name, value):
    with pytest.raises(AgentError, match=f"^{name}: got .*wanted"):
        DDPGConfig(**{name: value})


@pytest.mark.parametrize("bounds", [(1.0, 1.0), (2.0, -2.0), (float("nan"), 1.0)])
def test_a_support_upside_down_is_refused(bounds):
    with pytest.raises(AgentError, match=r"support_low, support_high: got .* wanted low < high"):
        DDPGConfig(support_low=bounds[0], support_high=bounds[1])


def test_a_support_without_the_returns_seen_is_warned_of():
    agent = make_agent("ddpg", TWO, head="categorical", support_low=-2.0, support_high=2.0)
    replay = Handed(some_transitions(), added=0)
    replay.latest = type("Latest", (), {
        "reward": torch.full((1, 1, 1), 5.0), "active": None,
        "terminated": torch.zeros(1, 1, dtype=torch.bool), "truncated": torch.zeros(1, 1, dtype=torch.bool),
    })  # fmt: skip
    with pytest.warns(UserWarning, match=r"support_low, support_high: discounted returns from 5 to 5 were seen"):
        agent.learn(replay, 0.0, draw())


def test_weights_of_another_network_are_refused():
    agent = make()
    for other in (make(twin=True), make(hidden=(7, 7)), make(head="categorical")):
        with pytest.raises(AgentError, match="weights do not fit this agent's network"):
            agent.load_state_dict(other.state_dict())


EVERYTHING = {"twin": True, "target_noise": 0.2, "policy_delay": 2, "n_step": 3, "head": "categorical"}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("settings", [{}, EVERYTHING])
@pytest.mark.parametrize("way", ["saved", "copied"])
def test_a_saved_or_copied_agent_goes_on_bit_for_bit(settings, precision, way):
    one, two = (make(seed=seed, precision=precision, **settings) for seed in (1, 2))
    for step in range(3):
        once(one, some_transitions(seed=step), progress=0.1)
    if way == "saved":
        two.load_state_dict(one.state_dict())
    else:
        two = copy.deepcopy(one)
    assert (two.updates, two.noise) == (one.updates, one.noise)
    for step in range(3, 6):
        metrics = [once(agent, some_transitions(seed=step), progress=0.3, seed=step)[0] for agent in (one, two)]
        assert metrics[0] == metrics[1]
    state, same = one.state_dict(), two.state_dict()
    assert all(torch.equal(state[name], same[name]) or name == "measured" for name in state)
    assert torch.equal(state["measured"], same["measured"])
    before = one.state_dict()["actor.tower.head"]
    once(two, some_transitions(seed=6))
    once(two, some_transitions(seed=7))
    assert torch.equal(one.actor.tower.head, before)
    assert not torch.equal(two.actor.tower.head, before)


def test_a_seed_decides_the_first_weights():
    one, two, other = (make(seed=seed, twin=True).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one if name != "measured")  # nothing yet: NaN
    assert not torch.equal(one["actor.tower.head"], other["actor.tower.head"])
    assert not torch.equal(one["critics.towers.0.head"], one["critics.towers.1.head"])
    assert torch.equal(one["critics.towers.0.head"], one["target_critics.towers.0.head"])


# It learns


class Reach(gym.Env):
    """One step: the best action is the goal, mirrored on side 1 and halved where the sign says so."""

    observation_space = spaces.Dict(
        {"goal": spaces.Box(-1, 1, (1,), np.float32), "side": spaces.Discrete(2), "sign": spaces.MultiBinary(1)}
    )
    action_space = spaces.Box(-3, 3, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        goal, side, sign = self.np_random.uniform(-1, 1), self.np_random.integers(2), self.np_random.integers(2)
        self.best = 3 * goal * (1 - 2 * side) / (1 + sign)
        return {"goal": np.float32([goal]), "side": int(side), "sign": np.int8([sign])}, {}

    def step(self, action):
        reward = -abs(float(action[0]) - self.best)
        return self.reset()[0], reward, True, False, {}


SWITCHES = {
    "DDPG": {},
    "TD3": {"twin": True, "target_noise": 0.2, "policy_delay": 2},
    "D4PG": {"head": "categorical", "n_step": 3, "priority_exponent": 0.6, "support_low": -12.0, "support_high": 0.0},
    "bfloat16": {"precision": "bfloat16", "twin": True},
}


@pytest.mark.parametrize("name", SWITCHES)
def test_a_way_to_the_middle_is_learned(name):
    """A point on a plane, pushed about. Eight seeds of each gave -0.65; at random it is -8.8."""
    result = trained_return(
        "ddpg", "test/Point-v0", iterations=400, num_envs=8, discount=0.9, warmup=400, capacity=5000, batch_size=64,
        updates_per_step=0.25, hidden=(32, 32), tau=0.02, actor_learning_rate=3e-3, critic_learning_rate=3e-3,
        **SWITCHES[name],
    )  # fmt: skip
    assert result > -0.9


@pytest.mark.parametrize("precision", PRECISIONS)
def test_parts_of_every_kind_are_seen(precision, monkeypatch):
    monkeypatch.setitem(gym.registry, "test/Reach-v0", gym.envs.registration.EnvSpec("test/Reach-v0", Reach))
    result = trained_return(
        "ddpg", "test/Reach-v0", iterations=150, num_envs=8, warmup=200, capacity=2000, batch_size=64,
        updates_per_step=0.5, hidden=(32, 32), actor_learning_rate=3e-3, critic_learning_rate=3e-3, precision=precision,
        noise=0.3,
    )  # fmt: skip
    assert result > -0.3  # blind to the sign it is -0.37 at best, to another -1.1. Eight seeds: -0.22 to -0.07


class Steady(gym.Env):
    """A reward of 1 in every step, whatever is done."""

    observation_space = action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 1.0, False, False, {}


@pytest.mark.parametrize("switches", [{}, {"n_step": 3}, {"head": "categorical", "support_low": 0, "support_high": 20}])
def test_a_limit_is_no_end(switches, monkeypatch):
    """Episodes are cut after 5 steps: Q is 1 / (1 - gamma) = 10, and not the 5 that are paid."""
    spec = gym.envs.registration.EnvSpec("test/Steady-v0", Steady, max_episode_steps=5)
    monkeypatch.setitem(gym.registry, "test/Steady-v0", spec)
    batch = open_batch("test/Steady-v0", 8)
    config = DDPGConfig(
        discount=0.9, warmup=80, capacity=2000, batch_size=32, updates_per_step=0.5, hidden=(16,), tau=0.2,
        critic_learning_rate=0.01, **switches,
    )  # fmt: skip
    agent = DDPG(config, batch.observation_space, batch.action_space)
    replay, collector = make_replay(agent.experience, batch), Collector(batch, agent.experience, draw(1))
    lineup, draws = self_play(agent, 8, 1, batch.device), draw(2)
    for iteration in range(100):
        rollout, _, _ = collector.collect(lineup)
        replay.add(rollout)
        metrics = agent.learn(replay, iteration / 100, draws)
    assert float(metrics["q"]) == pytest.approx(10, abs=0.5)
