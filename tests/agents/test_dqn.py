"""DQN: targets, updates and schedules against calculations by hand and in plain torch, errors, and learning."""

import copy
import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from mlbits.agents import agent_entry
from mlbits.agents.agent import AgentError, ReplaySpec
from mlbits.agents.dqn import DQN, DQNConfig
from mlbits.agents.maths.return_distributions import categorical_loss, quantile_huber_loss
from mlbits.agents.memory.replay import Replay, Transitions
from mlbits.envs.doors.gymnasium_batch import open_batch
from mlbits.selfplay.collector import Collector
from mlbits.selfplay.lineup import self_play
from mlbits.selfplay.session import make_replay
from tests.agents.maths.test_return_distributions import textbook_projection
from tests.agents.memory.plays import hand_written
from tests.agents.rollouts import VECTOR, draw, make_agent, trained_return
from tests.games import register_test_games

register_test_games()

THREE = spaces.Discrete(3)
HEADS = ("value", "categorical", "quantile")


class FixedReplay:
    """A replay buffer that always returns the same transitions, and records calls and priorities."""

    def __init__(self, drawn, added=10**9, latest=None):
        self.drawn, self.added, self.latest = drawn, added, latest
        self.asked, self.priorities = [], []

    def sample(self, count, generator, minibatches=1, **settings):
        self.asked += [(count, settings)] * minibatches
        again = torch.arange(count * minibatches) % len(self.drawn.reward)
        return Transitions(*(None if part is None else part[again] for part in self.drawn))

    def set_priority(self, slot, error):
        self.priorities.append((slot.clone(), error.clone()))


def some_transitions(count=12, seed=0, masked=False, weighted=False, actions=3):
    generator = draw(seed)

    def legal():
        mask = torch.rand(count, actions, generator=generator) < 0.5
        return mask | (torch.arange(actions) == torch.randint(actions, (count, 1), generator=generator))

    return Transitions(
        obs=torch.randn(count, 4, generator=generator),
        action=torch.randint(actions, (count,), generator=generator),
        reward=2 * torch.randn(count, generator=generator),
        discount=0.9 * (torch.rand(count, generator=generator) < 0.7),
        next_obs=torch.randn(count, 4, generator=generator),
        next_mask=legal() if masked else None,
        mask=legal() if masked else None,
        weight=torch.rand(count, generator=generator) + 0.1 if weighted else None,
        slot=torch.arange(count),
    )


class NoRewards:
    """A rollout without rewards, as the latest rollout."""

    reward = torch.zeros(1, 1, 1)
    terminated = truncated = torch.zeros(1, 1, dtype=torch.bool)
    active = None


def once(agent, drawn, progress=0.5):
    """One update on some transitions; returns its metrics and the replay buffer."""
    replay = FixedReplay(drawn, latest=NoRewards)
    config = agent.config
    replay.added = config.learning_starts + math.ceil((agent.updates + 1) / config.replay_ratio)
    before = agent.updates
    metrics = dict(agent.learn(replay, progress, draw()))
    assert agent.updates == before + 1
    return metrics, replay


def constant(agent, network, target):
    """Make Q (or its atoms) the same for all observations: [A] or [A, K], for the network and the target network."""
    for net, numbers in ((agent.network, network), (agent.target, target)):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.zero_()
            net.mlp.head_bias.copy_(torch.tensor(numbers).flatten())


def one_transition(reward=0.5, discount=0.9, action=0, next_mask=None):
    mask = None if next_mask is None else torch.tensor([next_mask])
    return Transitions(
        torch.zeros(1, 4), torch.tensor([action]), torch.tensor([reward]), torch.tensor([discount]),
        torch.zeros(1, 4), mask, mask, torch.ones(1), torch.zeros(1, dtype=torch.int64),
    )  # fmt: skip


# Targets by hand


@pytest.mark.parametrize(
    ("double", "discount", "mask", "target"),
    [
        (False, 0.9, None, 0.5 + 0.9 * 30),  # the target network's highest value
        (True, 0.9, None, 0.5 + 0.9 * 20),  # the target network's value of the network's best action
        (False, 0.0, None, 0.5),
        (True, 0.0, None, 0.5),
        (False, 0.9, [True, True, False], 0.5 + 0.9 * 20),
        (True, 0.9, [True, False, True], 0.5 + 0.9 * 30),
        (True, 0.9, [True, False, False], 0.5 + 0.9 * 10),
    ],
)
def test_the_value_target_by_hand(double, discount, mask, target):
    huber = target - 1 - 0.5 if target - 1 > 1 else 0.5 * (target - 1) ** 2  # no error here is below -1
    for weight in (torch.ones(1), None):  # without weights the compiled update is used
        agent = make_agent("dqn", THREE, double=double, batch_size=1)
        constant(agent, [1.0, 3.0, 2.0], [10.0, 20.0, 30.0])
        metrics, replay = once(agent, one_transition(discount=discount, next_mask=mask)._replace(weight=weight))
        assert float(metrics["q"]) == 1.0
        assert float(metrics["error"]) == pytest.approx(abs(target - 1))
        assert float(metrics["loss"]) == pytest.approx(huber)
        if weight is not None:
            assert replay.priorities[0][1].tolist() == pytest.approx([target - 1])


@pytest.mark.parametrize(("double", "best"), [(False, 2), (True, 1)])
def test_the_quantile_target_by_hand(double, best):
    """Actions are compared by the mean of their quantiles; the target is r + discount * each quantile of the best."""
    agent = make_agent("dqn", THREE, head="quantile", atoms=2, double=double, batch_size=1)
    atoms = [[0.0, 8.0], [2.0, 3.0], [5.0, 5.0]]
    constant(agent, [[0.5, 1.5], [9.0, 9.0], [-40.0, 40.0]], atoms)
    metrics, replay = once(agent, one_transition(reward=1.0, discount=0.5))
    target = [1 + 0.5 * atom for atom in atoms[best]]
    assert float(metrics["q"]) == 1.0
    assert replay.priorities[0][1].tolist() == pytest.approx([sum(target) / 2 - 1.0])
    wanted = quantile_huber_loss(torch.tensor([[0.5, 1.5]]), torch.tensor([target]))
    assert float(metrics["loss"]) == pytest.approx(float(wanted))


@pytest.mark.parametrize(("double", "target"), [(False, [0.0, 0.25, 0.75]), (True, [0.0, 0.75, 0.25])])
def test_the_categorical_target_by_hand(double, target):
    """Support 0, 1, 2. The target's best returns 2: 0.75 + 1. The network's best returns 1: 0.75 + 0.5."""
    agent = make_agent("dqn", THREE, head="categorical", atoms=3, v_min=0.0, v_max=2.0, double=double, batch_size=1)
    sure = 40.0  # a logit that makes the probability almost 1
    best = [[sure, 0.0, 0.0], [0.0, sure, 0.0], [0.0, 0.0, sure]]  # returns of 0, 1 and 2
    constant(agent, [[0.0, 0.0, 0.0], [0.0, 0.0, sure], [0.0, sure, 0.0]], best)
    metrics, replay = once(agent, one_transition(reward=0.75, discount=0.5))
    assert float(metrics["q"]) == pytest.approx(1.0)
    assert float(metrics["loss"]) == pytest.approx(math.log(3))
    divergence = math.log(3) + sum(p * math.log(p) for p in target if p)
    assert replay.priorities[0][1].tolist() == pytest.approx([divergence])


# Targets and updates by plain torch


def mean_of(out, agent):
    if agent.config.head == "value":
        return out
    return out.mean(-1) if agent.config.head == "quantile" else (torch.softmax(out, -1) * agent.support).sum(-1)


def slow_targets(agent, drawn):
    """Targets computed row by row."""
    targets = []
    with torch.no_grad():
        theirs, ours = agent.target(drawn.next_obs), agent.network(drawn.next_obs)
    for row in range(len(drawn.reward)):
        legal = range(3) if drawn.next_mask is None else drawn.next_mask[row].nonzero().flatten().tolist()
        by = mean_of(ours if agent.config.double else theirs, agent)[row].tolist()
        following = theirs[row, max(legal, key=by.__getitem__)]
        reward, discount = float(drawn.reward[row]), float(drawn.discount[row])
        if agent.config.head == "categorical":
            atoms = reward + discount * agent.support.double()
            projected = textbook_projection(atoms[None], torch.softmax(following, -1)[None], agent.support.double())
            targets.append(torch.tensor(projected[0], dtype=torch.float32))
        else:
            targets.append(reward + discount * following)
    return torch.stack(targets)


def slow_losses(agent, chosen, target):
    if agent.config.head == "quantile":
        return quantile_huber_loss(chosen, target)
    if agent.config.head == "categorical":
        return categorical_loss(chosen, target)
    error = (target - chosen).abs()
    return torch.where(error <= 1, 0.5 * error**2, error - 0.5)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize(("dueling", "masked", "weighted"), [(False, False, False), (True, True, True)])
def test_updates_match_plain_torch(head, double, dueling, masked, weighted):
    """Three updates: targets in a loop, autograd, ``clip_grad_norm_`` and torch's Adam."""
    agent = make_agent(
        "dqn", THREE, hidden=(16, 8), head=head, double=double, dueling=dueling, atoms=5, v_min=-3.0,
        v_max=4.0, max_grad_norm=0.5, learning_rate=0.01, target_every=10**6, batch_size=12,
    )  # fmt: skip
    with torch.no_grad():
        agent.optimizer.flat.add_(0.3 * torch.randn(agent.optimizer.flat.shape, generator=draw(9)))
    net = copy.deepcopy(agent.network)
    for parameter in net.parameters():
        parameter.grad = None
    adam = torch.optim.Adam(net.parameters(), 0.01)
    for step in range(3):
        drawn = some_transitions(seed=step, masked=masked, weighted=weighted)
        target = slow_targets(agent, drawn)
        out = net(drawn.obs)[torch.arange(12), drawn.action]
        losses = slow_losses(agent, out, target)
        loss = (losses if drawn.weight is None else losses * drawn.weight).mean()
        adam.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        adam.step()
        metrics, replay = once(agent, drawn)
        assert set(metrics) == {"loss", "q", "error", "grad_norm", "epsilon", "learning_rate", "updates"}
        assert float(metrics["loss"]) == pytest.approx(float(loss.detach()), rel=1e-4)
        assert float(metrics["q"]) == pytest.approx(float(mean_of(out, agent).detach().mean()), abs=1e-5)
        assert float(metrics["grad_norm"]) == pytest.approx(float(norm), rel=1e-4)
        for ours, theirs in zip(agent.network.parameters(), net.parameters(), strict=True):
            assert torch.allclose(ours, theirs, atol=2e-5)
        if weighted:
            slot, error = replay.priorities[0]
            assert torch.equal(slot, drawn.slot)
            wanted = {
                "value": target - out,
                "quantile": (target - out).mean(-1),
                "categorical": nn.functional.kl_div(
                    torch.log_softmax(out, -1), target, reduction="none"
                ).sum(-1),
            }[head]  # fmt: skip
            assert torch.allclose(error, wanted.detach(), atol=1e-4)
        else:
            assert replay.priorities == []


@pytest.mark.parametrize("n_step", [1, 3])
def test_errors_of_a_stream_by_hand(n_step):
    """Q is 1 and the target network's Q is 10 everywhere: an error is the window's reward + discount * 10 - 1."""
    windows = {
        1: {0: (1, 0.5), 1: (2, 0), 2: (4, 0.5), 3: (8, 0.5), 4: (16, 0.5), 5: (32, 0.5)},
        3: {0: (1 + 1, 0), 1: (2, 0), 2: (4 + 4 + 4, 0.125), 3: (8 + 8, 0.25), 4: (16, 0.5), 5: (32, 0.5)},
    }[n_step]
    agent = make_agent(
        "dqn", spaces.Discrete(6), spaces.Box(-99, 99, (1,)), n_step=n_step, discount=0.5, priority_exponent=1.0,
        batch_size=6, learning_starts=0, replay_ratio=1 / 6,
    )  # fmt: skip
    constant(agent, [1.0] * 6, [10.0] * 6)
    replay = Replay(ReplaySpec(3, 6, 1.0), torch.zeros(1, 1, 1), torch.zeros(1, 1, dtype=torch.int64), None)
    replay.add(hand_written(terminated=[1], truncated=[4]))
    errors = {}
    replay.set_priority = lambda slot, error: errors.update(zip(slot.tolist(), error.tolist(), strict=True))
    agent.learn(replay, 0.0, draw())
    assert errors == {slot: pytest.approx(reward + gamma * 10 - 1) for slot, (reward, gamma) in windows.items()}


# Schedules


def test_settings_are_passed_to_the_replay_buffer():
    agent = make_agent("dqn", THREE, n_step=4, discount=0.8, batch_size=9, priority_weight=0.4, num_steps=7)
    _, replay = once(agent, some_transitions(), progress=0.25)
    settings = {"n_step": 4, "discount": 0.8, "weight_exponent": pytest.approx(0.4 + 0.25 * 0.6)}
    assert replay.asked == [(9, settings | {"bonus": None})]
    assert agent.experience == ReplaySpec(7, 100_000, 0.0)
    assert make_agent("dqn", THREE, buffer_size=500, priority_exponent=0.6).experience == ReplaySpec(4, 500, 0.6)


def test_epsilon_decreases_linearly_and_then_stays_constant():
    agent = make_agent("dqn", THREE, epsilon_start=0.9, epsilon_end=0.1, epsilon_fraction=0.4, learning_starts=100)
    replay = FixedReplay(some_transitions(), added=99)
    assert agent.epsilon == 1.0
    assert agent.learn(replay, 0.2, draw()) == {}
    assert agent.epsilon == 1.0  # warm-up: random actions
    replay.added = 100
    for progress, wanted in ((0.0, 0.9), (0.1, 0.7), (0.2, 0.5), (0.4, 0.1), (0.7, 0.1), (1.0, 0.1)):
        agent.learn(replay, progress, draw())
        assert agent.epsilon == pytest.approx(wanted)
    at_once = make_agent("dqn", THREE, epsilon_end=0.2, epsilon_fraction=0.0, learning_starts=0, epsilon_start=0.3)
    assert at_once.epsilon == 0.2
    at_once.learn(replay, 0.0, draw())
    assert at_once.epsilon == 0.2


@pytest.mark.parametrize("mask", [None, [True, False, True]])
def test_actions_are_random_with_probability_epsilon_and_legal(mask):
    agent = make_agent("dqn", THREE)
    constant(agent, [0.0, 2.0, 1.0], [0.0, 0.0, 0.0])
    rows = 30_000
    legal = None if mask is None else torch.tensor([mask]).expand(rows, 3)
    best, choices = (1, [0, 1, 2]) if mask is None else (2, [0, 2])
    for epsilon in (0.0, 0.3, 1.0):
        agent.epsilon = epsilon
        frequency = torch.bincount(agent.act(torch.zeros(rows, 4), legal, draw(3)).action, minlength=3) / rows
        for action in range(3):
            wanted = (action in choices) * epsilon / len(choices) + (1 - epsilon) * (action == best)
            assert abs(float(frequency[action]) - wanted) <= 5 * math.sqrt(wanted * (1 - wanted) / rows)
    greedy = agent.act(torch.zeros(9, 4), None if legal is None else legal[:9], draw(), greedy=True)
    assert greedy.action.tolist() == [best] * 9
    assert greedy.log_prob is None
    assert torch.equal(greedy.sample, greedy.action)


def test_a_random_number_of_zero_does_not_select_a_masked_action(monkeypatch):
    agent = make_agent("dqn", THREE)
    agent.epsilon = 1.0
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.zeros(shape))
    mask = torch.tensor([[False, False, True], [False, True, True]])
    assert agent.act(torch.zeros(2, 4), mask, draw()).action.tolist() == [2, 1]


@pytest.mark.parametrize("chunks", [[1] * 60, [4] * 15, [7, 20, 33], [60]])
@pytest.mark.parametrize("ratio", [0.25, 0.1, 1.0, 2.5])
def test_the_number_of_updates_is_replay_ratio_times_steps_for_any_chunks(chunks, ratio):
    agent = make_agent("dqn", THREE, learning_starts=12, replay_ratio=ratio, batch_size=12)
    replay = FixedReplay(some_transitions(), added=0)
    for chunk in chunks:
        replay.added += chunk
        metrics = agent.learn(replay, 0.0, draw())
        assert agent.updates == max(0, int((replay.added - 12) * ratio))
        assert metrics.get("updates", agent.updates) == agent.updates
    assert len(replay.asked) == agent.updates == int(48 * ratio)


def test_the_learning_rate_is_annealed_only_if_set():
    for anneal, wanted in ((True, 0.003), (False, 0.01)):
        agent = make_agent("dqn", THREE, learning_rate=0.01, anneal_lr=anneal)
        once(agent, some_transitions(), progress=0.7)
        assert agent.optimizer.learning_rate == pytest.approx(wanted)


@pytest.mark.parametrize("tau", [1.0, 0.25])
@pytest.mark.parametrize(
    ("compiled", "settings"),
    [(True, {}), (False, {"dueling": True}), (False, {"head": "quantile"}), (False, {"head": "categorical"})],
)
def test_the_target_network_is_updated_every_target_every_updates(tau, compiled, settings):
    agent = make_agent("dqn", THREE, target_every=3, tau=tau, learning_starts=0, **settings)
    assert (agent._compiled is not None) == compiled
    before = torch.cat([parameter.flatten() for parameter in agent.target.parameters()])
    for update in range(1, 7):
        once(agent, some_transitions(seed=update))
        now = torch.cat([parameter.flatten() for parameter in agent.target.parameters()])
        if update % 3:
            assert torch.equal(now, before)
        else:
            net = torch.cat([parameter.detach().flatten() for parameter in agent.network.parameters()])
            assert torch.allclose(now, before + tau * (net - before), atol=1e-6)
            assert not torch.equal(now, before)
        before = now


# Spaces, settings, saving


def test_other_action_spaces_are_rejected_with_the_names_of_agents_that_support_them():
    for space, able in ((spaces.Box(-1, 1, (2,)), "ppo"), (spaces.MultiDiscrete([2, 3]), "reinforce")):
        with pytest.raises(AgentError, match=rf"dqn: got the action space .*wanted one that is discrete.*{able}"):
            agent_entry("dqn").make(DQNConfig(), VECTOR, space, seed=0, device="cpu")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_steps", 0), ("replay_ratio", 0.0), ("buffer_size", 0), ("learning_starts", -1), ("batch_size", 0),
        ("learning_rate", -1e-3), ("learning_rate", float("nan")), ("adam_eps", -1.0), ("discount", 1.01),
        ("target_every", 0), ("tau", 0.0), ("tau", 1.5), ("epsilon_start", 1.1), ("epsilon_end", -0.1),
        ("epsilon_fraction", 2.0), ("atoms", 1), ("n_step", 0), ("priority_exponent", 1.5), ("priority_weight", -0.5),
        ("max_grad_norm", 0.0), ("hidden", ()), ("hidden", (8, 0)), ("head", "c51"),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_rejected_by_name(name, value):
    with pytest.raises(AgentError, match=f"^{name}: got .*wanted"):
        DQNConfig(**{name: value})


@pytest.mark.parametrize("bounds", [(1.0, 1.0), (2.0, -2.0), (float("nan"), 1.0)])
def test_an_empty_or_reversed_support_is_rejected(bounds):
    with pytest.raises(AgentError, match=r"^v_min(, v_max)?: got .* wanted (low < high|a finite number)"):
        DQNConfig(v_min=bounds[0], v_max=bounds[1])


def test_weights_of_another_network_are_rejected():
    agent = make_agent("dqn", THREE)
    for other in (make_agent("dqn", THREE, dueling=True), make_agent("dqn", THREE, hidden=(7,))):
        with pytest.raises(AgentError, match="weights do not fit this agent's network"):
            agent.load_state_dict(other.state_dict())


@pytest.mark.parametrize("head", HEADS)
def test_a_restored_agent_continues_bit_for_bit(head):
    settings = {"head": head, "dueling": True, "target_every": 2, "learning_starts": 0}
    one, two = (make_agent("dqn", THREE, seed=seed, **settings) for seed in (1, 2))
    for step in range(3):
        once(one, some_transitions(seed=step), progress=0.1)
    two.load_state_dict(one.state_dict())
    assert (two.updates, two.epsilon) == (one.updates, one.epsilon)
    for step in range(3, 6):
        metrics = [once(agent, some_transitions(seed=step), progress=0.3)[0] for agent in (one, two)]
        assert metrics[0] == metrics[1]
    state, same = one.state_dict(), two.state_dict()
    assert all(torch.equal(state[name], same[name]) for name in state)


# Learning


GRID = {"map": "S..#/.#../...G", "horizon": 20}  # five moves: the best return is 0.96
FAST = {
    "num_steps": 1,
    "replay_ratio": 0.5,
    "learning_starts": 200,
    "buffer_size": 5000,
    "batch_size": 32,
    "target_every": 50,
}
DISTRIBUTIONS = {"atoms": 21, "v_min": -1.0, "v_max": 1.0}


def trained(env, iterations, num_envs=8, seed=0, env_settings=None, **config):
    """An agent after some rounds of self-play and learning, and its batch."""
    batch = open_batch(env, num_envs, seed=seed, settings=env_settings)
    agent = DQN(DQNConfig(**{**FAST, **config}), batch.observation_space, batch.action_space, seed=seed)
    replay, collector = make_replay(agent.experience, batch), Collector(batch, agent.experience, draw(seed + 1))
    lineup, draws = self_play(agent, num_envs, batch.num_seats, batch.device), draw(seed + 2)
    for iteration in range(iterations):
        rollout, _, _ = collector.collect(lineup)
        replay.add(rollout)
        agent.learn(replay, iteration / iterations, draws)
    return agent, batch


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("head", HEADS)
def test_a_gridworld_is_learned_with_every_head(head, seed):
    """Twenty seeds of each head found the shortest path, with all other variants and with none."""
    result = trained_return(
        "dqn", "mlbits/GridWorld-v0", iterations=300, num_envs=8, settings=GRID, seed=seed,
        head=head, learning_rate=2e-3, discount=0.9, **DISTRIBUTIONS, **FAST,
    )  # fmt: skip
    assert result > 0.95  # at random: -0.2


@pytest.mark.parametrize("switches", [{}, {"double": True, "dueling": True, "n_step": 3, "priority_exponent": 0.6}])
def test_a_delayed_reward_is_learned(switches):
    """Only the first of five actions matters, and the reward of 1 or -1 comes after the last."""
    result = trained_return(
        "dqn", "mlbits/DelayedChain-v0", iterations=250, num_envs=8, settings={"length": 5}, discount=0.9,
        learning_rate=5e-3, **switches, **FAST,
    )  # fmt: skip
    assert result == 1.0


def test_truncation_is_not_termination():
    """A reward of 1 at every step and a time limit of 5: Q is 1 / (1 - gamma) = 10, not the return of 5."""
    arms = {"means": [1.0, 1.0], "reward_std": 0.0, "horizon": 5}
    agent, batch = trained(
        "mlbits/Bandit-v0", 250, env_settings=arms, discount=0.9, learning_rate=0.02, hidden=(8,), tau=0.2,
        target_every=1,
    )  # fmt: skip
    assert agent.values(batch.obs.flatten(0, 1)).detach().numpy() == pytest.approx(10, abs=0.5)


def test_self_play_finds_the_winning_moves_of_nim():
    """Heaps of up to two: leaving heaps whose exclusive or is 0 wins. (Eight seeds found all such moves.)"""
    agent, _ = trained(
        "test/Nim-v0", 800, num_envs=16, env_settings={"largest": 2}, learning_rate=3e-3, discount=1.0, double=True,
        replay_ratio=0.1, epsilon_end=0.3, epsilon_fraction=0.5, hidden=(64,),
    )  # fmt: skip
    heaps = np.array([heap for heap in np.ndindex(3, 3, 3) if np.bitwise_xor.reduce(heap)])
    obs = torch.tensor([[*heap, 0] for heap in heaps])
    mask = torch.tensor([[count <= heap[k] for k in range(3) for count in (1, 2, 3)] for heap in heaps])
    action = agent.act(obs, mask, draw(), greedy=True).action
    assert mask.gather(1, action.unsqueeze(1)).all()
    heaps[np.arange(len(heaps)), action // 3] -= (action % 3 + 1).numpy()
    assert (np.bitwise_xor.reduce(heaps, axis=1) == 0).mean() > 0.85
