"""Networks with memory: cells equal torch's, sequences equal acting step by step, and episodes forget each other."""

import dataclasses

import numpy as np
import pytest
import torch
from gymnasium import spaces

import mlbits
from mlbits.agents.agent import AgentError, pick
from mlbits.agents.maths.action_distributions import Categorical, probability_ratio
from mlbits.agents.networks.features import Features
from mlbits.agents.networks.recurrent import Memory, RecurrentActorCritic, Sequences, sequences_of
from mlbits.agents.ppo import PPO, PPOConfig
from mlbits.selfplay.collector import Collector
from mlbits.selfplay.lineup import self_play
from mlbits.selfplay.policy import Policy
from tests.games import register_test_games

register_test_games()
KINDS = pytest.mark.parametrize("kind", ["gru", "lstm"])
VECTOR = spaces.Box(-1, 1, (3,))


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def played(game_id, kind="gru", windows=2, num_envs=6, num_steps=12, minibatches=2, **settings):
    """A PPO agent with memory, and the last of its rollouts in self-play."""
    batch = mlbits.make_batch(game_id, num_envs, seed=1)
    sizes = {"memory_width": 8, "hidden": (8,), "num_steps": num_steps, "minibatches": minibatches}
    config = PPOConfig(memory=kind, **sizes, **settings)
    agent = PPO(config, batch.observation_space, batch.action_space, seed=3)
    with torch.no_grad():  # orthogonal heads of gain 0.01 would hide what is remembered
        agent.core.network.actor.head.mul_(100)
    collector = Collector(batch, agent.experience, draw(1))
    lineup = self_play(agent, num_envs, batch.num_seats, batch.device)
    for _ in range(windows):
        rollout, _, _ = collector.collect(lineup)
    return agent, rollout


def unrolled(agent, rollout, sequences):
    """Log probabilities of a rollout's decisions, computed by sequences, and those with which they were drawn."""
    flat = rollout.flatten()
    params, value = agent.core.network.unroll(pick(flat.obs, sequences.rows), sequences)
    mask = None if flat.mask is None else flat.mask[sequences.rows]
    log_prob = agent.core.distribution.log_prob(params, mask, flat.sample[sequences.rows])
    return log_prob, flat.log_prob[sequences.rows], value


@KINDS
def test_a_step_is_that_of_torch(kind):
    features = Features(VECTOR, draw())
    memory = Memory(features, kind, 5, draw(1))
    cell = torch.nn.GRUCell(3, 5) if kind == "gru" else torch.nn.LSTMCell(3, 5)
    with torch.no_grad():
        memory.inputs.bias.uniform_(-1, 1, generator=draw(2))
        cell.weight_ih.copy_(memory.inputs.tables[0].T)
        cell.weight_hh.copy_(memory.weight.T)
        cell.bias_ih.copy_(memory.inputs.bias)
        cell.bias_hh.copy_(memory.bias)
    obs, before = torch.rand(4, 3, generator=draw(3)), torch.rand(4, memory.size, generator=draw(4))
    after = memory.step(memory.inputs(features(obs)), before)
    wanted = cell(obs, before) if kind == "gru" else torch.cat(cell(obs, (before[:, :5], before[:, 5:])), 1)
    torch.testing.assert_close(after, wanted)


@KINDS
def test_a_sequence_with_the_end_of_an_episode_in_it_equals_steps(kind):
    """Forwards and in its gradients; without the reset it does not."""
    network = RecurrentActorCritic(VECTOR, Categorical(2), (4,), draw(), kind=kind, width=4)
    obs = torch.rand(6, 2, 3, generator=draw(1))  # [L, S, ...]
    resets = torch.zeros(6, 2, dtype=torch.bool)
    resets[3, 0] = resets[5, 1] = True
    start = torch.rand(2, network.memory_size, generator=draw(2))
    sequences = Sequences(torch.arange(12).view(6, 2), resets, start)

    def stepped():
        memory, params, values = start, [], []
        for t in range(6):
            memory = torch.where(resets[t][:, None], 0.0, memory)
            values.append(network.value(obs[t], memory))
            out, memory = network.step(obs[t], memory)
            params.append(out)
        return torch.cat(params), torch.cat(values)

    def gradient(outputs):
        loss = sum(output.sin().sum() for output in outputs)
        return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(network.parameters()))])

    flat = obs.flatten(0, 1)
    for one, two in zip(network.unroll(flat, sequences), stepped(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-6)
    torch.testing.assert_close(gradient(network.unroll(flat, sequences)), gradient(stepped()), rtol=0, atol=1e-5)
    forgotten = network.unroll(flat, sequences._replace(resets=torch.zeros_like(resets)))[1]
    assert (forgotten - stepped()[1]).abs().max() > 1e-3


@KINDS
def test_the_gradient_of_a_sequence_is_that_of_finite_differences(kind):
    network = RecurrentActorCritic(VECTOR, Categorical(2), (3,), draw(), kind=kind, width=3).double()
    obs = torch.rand(4, 3, generator=draw(1)).double()
    sequences = Sequences(
        torch.arange(4).view(4, 1), torch.tensor([[False], [False], [True], [False]]), torch.ones(1, 3).double()
    )
    sequences = sequences._replace(memory=torch.full((1, network.memory_size), 0.5).double())
    network.features = torch.nn.Module()
    network.features.forward = lambda rows: [rows]  # features are float32

    def outputs(weight):
        with torch.no_grad():
            network.memory.weight.copy_(weight)
        return network.unroll(obs, sequences)[1].sum()

    weight = network.memory.weight.detach().clone()
    outputs(weight).backward()
    exact, step = network.memory.weight.grad, 1e-6
    for place in ((0, 0), (1, 4), (2, 8)):
        moved = torch.zeros_like(weight)
        moved[place] = step
        found = (outputs(weight + moved) - outputs(weight - moved)) / (2 * step)
        assert abs(float(found.detach() - exact[place])) < 1e-8


@KINDS
@pytest.mark.parametrize("length", [0, 5])
@pytest.mark.parametrize("game_id", ["mlbits/CartPole-v0", "test/Throws-v0", "test/Nim-v0", "test/Relay-v0"])
def test_before_an_update_every_ratio_is_one(game_id, kind, length):
    """In the second window, whose sequences begin in the middle of episodes; in games of turns, with carried rows."""
    agent, rollout = played(game_id, kind)
    sequences = sequences_of(rollout, length)
    now, then, value = unrolled(agent, rollout, sequences)
    assert (probability_ratio(now - then) - 1).abs().max() < 1e-6
    stored = agent.core.values(rollout.obs, 3, rollout.memory)
    torch.testing.assert_close(value, rollout.flatten().of(stored)[sequences.rows], rtol=0, atol=1e-6)
    assert sorted(sequences.rows.tolist()) == list(range(len(rollout.flatten().log_prob)))
    assert length == 0 or len(sequences.grid) == length


@pytest.mark.parametrize("game_id", ["mlbits/CartPole-v0", "test/Nim-v0"])
def test_a_forgotten_reset_is_seen_in_the_ratios(game_id):
    agent, rollout = played(game_id, num_steps=40)
    sequences = sequences_of(rollout)
    assert sequences.resets.any()
    now, then, _ = unrolled(agent, rollout, sequences._replace(resets=torch.zeros_like(sequences.resets)))
    assert (now - then).abs().max() > 1e-4
    now, then, _ = unrolled(agent, rollout, sequences._replace(memory=torch.zeros_like(sequences.memory)))
    assert (now - then).abs().max() > 1e-4


def test_sequences_by_hand():
    """Two seats in turn, an end after step 2: seat 0 acts at 0, 2, 3, 5, seat 1 at 1 and 4."""
    _, rollout = played("test/Nim-v0", num_envs=1, windows=1)
    active = torch.tensor([[1, 0], [0, 1], [1, 0], [1, 0], [0, 1], [1, 0]]).bool().view(6, 1, 2)
    ends = torch.tensor([0, 0, 1, 0, 0, 0]).bool().view(6, 1)
    memory = torch.arange(12.0).view(6, 1, 2, 1)
    blank = torch.zeros(6, 1, 2)
    rollout = dataclasses.replace(
        rollout, active=active, terminated=ends, truncated=ends & False, memory=memory, reward=blank
    )
    found = sequences_of(rollout)
    assert found.grid.T.tolist() == [[0, 2, 3, 5], [1, 4, -1, -1]]
    assert found.resets.T.tolist() == [[False, False, True, False], [False, True, False, False]]
    assert found.memory.flatten().tolist() == [0, 3]
    found = sequences_of(rollout, 2)
    assert found.grid.T.tolist() == [[0, 2], [3, 5], [1, 4]]
    assert found.resets.T.tolist() == [[False, False], [False, False], [False, True]]
    assert found.memory.flatten().tolist() == [0, 6, 3]
    assert found.pick(torch.tensor([2])).grid.tolist() == [[1], [4]]


def test_a_cut_episode_leads_to_the_value_of_its_last_observation_with_what_was_remembered_there():
    batch = mlbits.make_batch("mlbits/CartPole-v0", 3, seed=1, horizon=5)
    config = PPOConfig(memory="gru", memory_width=8, num_steps=12, minibatches=2)
    agent = PPO(config, batch.observation_space, batch.action_space, seed=3)
    lineup = self_play(agent, 3, 1, batch.device)
    rollout, _, _ = Collector(batch, agent.experience, draw(1)).collect(lineup)
    assert rollout.truncated[4].all()
    _, following = agent.core.rollout_values(rollout)
    memory = torch.zeros(3, 8)
    with torch.no_grad():
        for t in range(5):
            _, memory = agent.core.network.step(rollout.obs[t, :, 0], memory)
        wanted = agent.core.network.value(rollout.final_obs[4, :, 0], memory)
    torch.testing.assert_close(following[4, :, 0], wanted)
    torch.testing.assert_close(following[3], agent.core.values(rollout.obs[4], 2, rollout.memory[4]))


@pytest.mark.parametrize(
    "settings",
    [{}, {"objective": "adaptive_kl"}, {"objective": "dpo"}, {"sequence_length": 4, "normalize_obs": True}],
)
def test_learning_moves_the_memory_and_reports_what_ppo_reports(settings):
    agent, rollout = played("mlbits/CartPole-v0", **settings)
    before = agent.core.network.memory.weight.clone()
    report = agent.learn(rollout, 0.0, draw(5))
    assert not torch.equal(before, agent.core.network.memory.weight)
    assert {"policy_loss", "value_loss", "approx_kl", "grad_norm", "explained_variance"} <= report.keys()


@pytest.mark.parametrize("game_id", ["mlbits/CartPole-v0", "test/Nim-v0"])
def test_the_first_step_of_learning_is_at_the_policy_that_played(game_id):
    """Its KL is 0, its surrogate the mean of advantages of mean 0, its values are the stored ones."""
    agent, rollout = played(game_id, epochs=1, minibatches=1, objective="adaptive_kl")
    data = agent._prepare(rollout, sequences_of(rollout))
    report = agent.learn(rollout, 0.0, draw(5))
    assert abs(report["approx_kl"]) < 1e-7
    assert abs(report["policy_loss"]) < 1e-5
    assert report["value_loss"] == pytest.approx(
        0.5 * float((data["value"] - data["target"]).square().mean()), rel=1e-4
    )


def test_predict_tells_values_and_probabilities_from_what_is_remembered():
    agent, rollout = played("mlbits/CartPole-v0", windows=1)
    space = spaces.Box(-10, 10, (4,))
    policy = Policy(agent, env="", env_settings={}, observation_space=space, action_space=spaces.Discrete(2))
    ends = (rollout.terminated | rollout.truncated)[:, 0].nonzero()
    length = int(ends[0]) + 1 if len(ends) else len(rollout.obs)
    values = agent.core.values(rollout.obs, 3, rollout.memory)[:length, 0, 0]
    found = [policy.predict(obs.numpy(), greedy=False, details=True) for obs in rollout.obs[:length, 0, 0]]
    assert [one.value for one in found] == pytest.approx(values.tolist(), abs=1e-5)
    assert len({float(one.value) for one in found}) == length > 2
    assert [np.log(one.probabilities[one.action]) for one in found] == pytest.approx(
        [one.log_prob for one in found], abs=1e-5
    )


def test_what_a_policy_with_memory_cannot_do_it_does_not_offer():
    agent, _ = played("mlbits/CartPole-v0", windows=1)
    names = ("action_probabilities", "policy_and_value", "state_values", "action_log_prob", "draw_log_prob")
    assert not any(hasattr(agent, name) for name in names)
    plain = PPO(PPOConfig(), spaces.Discrete(3), spaces.Discrete(2))
    assert all(hasattr(plain, name) for name in names)
    assert plain.memory_size == 0
    with pytest.raises(AgentError, match=r"memory: missing; wanted what is remembered, \[N, 8\], zeros at the start"):
        agent.act(torch.zeros(1, 4), None, draw())
