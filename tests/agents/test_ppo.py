"""PPO: its update against one written with torch's own distributions and Adam, its bounds, and its metrics.

Properties common to all policy-gradient agents, and learning, are tested in test_policy_gradient.py.
"""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from gymnasium import spaces

from mlbits.agents.agent import AgentError, rows
from mlbits.agents.maths.action_distributions import probability_ratio
from mlbits.agents.maths.returns import gae, next_values
from mlbits.agents.ppo import PPOConfig, learned_drift
from tests.agents.rollouts import (
    equal,
    learn,
    made_up_rollout,
    make_agent,
    weights,
)

THREE = spaces.Discrete(3)
ONE_STEP = {"epochs": 1, "minibatches": 1, "normalize_advantage": False, "anneal_lr": False}
POLICY_ALONE = {**ONE_STEP, "value_coef": 0.0, "entropy_coef": 0.0, "max_grad_norm": 1e9}


def with_ratio(rollout, ratio, advantage):
    """A rollout whose actions are now ``ratio`` times as probable as when played, all with the same advantage sign."""
    ends = torch.ones_like(rollout.terminated)
    return dataclasses.replace(
        rollout,
        log_prob=rollout.log_prob - torch.tensor(ratio).log(),
        reward=torch.full_like(rollout.reward, 100.0 * advantage),
        terminated=ends,
    )


@pytest.mark.parametrize(
    ("ratio", "advantage", "moves"),
    [
        (1.5, 1, False), (1.5, -1, True), (0.5, 1, True), (0.5, -1, False),
        (1.1, 1, True), (1.1, -1, True), (0.9, 1, True), (0.9, -1, True), (1.0, 1, True),
    ],
)  # fmt: skip
def test_the_clipped_objective_is_constant_beyond_its_bounds(ratio, advantage, moves):
    """No gradient beyond the bound in the direction that the advantage favours; the full gradient in the other."""
    agent = make_agent("ppo", THREE, **POLICY_ALONE)
    before = weights(agent, "network.actor")
    metrics = learn(agent, with_ratio(made_up_rollout(agent), ratio, advantage))
    assert equal(before, weights(agent, "network.actor")) is not moves
    assert (metrics["grad_norm"] > 0) is moves
    assert metrics["clip_fraction"] == (1.0 if abs(ratio - 1) > 0.2 else 0.0)


def reference_update(agent, rollout, clip):
    """Learn from the same rollout with torch's distributions and optimiser; returns the network."""
    config, net = agent.config, copy.deepcopy(agent.core.network)
    net.load_state_dict({name: value.clone() for name, value in agent.core.network.state_dict().items()})
    for parameter in net.parameters():
        parameter.grad = None
        parameter.data = parameter.data.clone()
    adam = torch.optim.Adam(net.parameters(), config.learning_rate, eps=1e-5)
    obs, action = rows(rollout.obs, 3), rollout.sample.flatten()
    mask = None if rollout.legal_mask is None else rollout.legal_mask.flatten(0, 2)

    def policy():
        logits = net.policy(obs)
        logits = logits if mask is None else logits.masked_fill(~mask, -1e9)
        return torch.distributions.Categorical(logits=logits)

    with torch.no_grad():
        value, last, final = (
            net.value(rows(part, lead)).view(part.shape[:-1])
            for part, lead in ((rollout.obs, 3), (rollout.last_obs, 2), (rollout.final_obs, 3))
        )
        following = next_values(value, last, final, rollout.terminated, rollout.truncated)
        advantage = gae(
            rollout.reward, value, following, rollout.terminated, rollout.truncated,
            discount=config.discount, gae_lambda=config.gae_lambda,
        )  # fmt: skip
        target = (advantage + value).flatten()
        advantage = advantage.flatten()
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        old = policy()
    for _ in range(config.epochs):
        new = policy()
        ratio = (new.log_prob(action) - rollout.log_prob.flatten()).exp()
        if config.objective == "clip":
            gain = torch.min(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
        elif config.objective == "dpo":  # equations of the 2022 paper's section 6, with its constants
            good, bad = (ratio - 1) * advantage, ratio.log() * advantage
            good, bad = torch.relu(good - 2 * torch.tanh(good / 2)), torch.relu(bad - 0.6 * torch.tanh(bad / 0.6))
            gain = ratio * advantage - torch.where(advantage >= 0, good, bad)
        else:
            gain = ratio * advantage - config.kl_coef * torch.distributions.kl_divergence(old, new)
        value_loss = 0.5 * torch.nn.functional.mse_loss(net.value(obs), target)
        loss = config.value_coef * value_loss - gain.mean() - config.entropy_coef * new.entropy().mean()
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), config.max_grad_norm)
        adam.step()
    return net


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("objective", ["clip", "adaptive_kl", "dpo"])
def test_an_update_matches_the_equations(objective, masked):
    agent = make_agent(
        "ppo", THREE, epochs=4, minibatches=1, objective=objective, kl_coef=3.0, entropy_coef=0.05,
        learning_rate=0.02, clip_coef=0.1, anneal_lr=False,
    )  # fmt: skip
    mask = torch.tensor([True, False, True]) if masked else None
    rollout = made_up_rollout(agent, shape=(20, 5, 2), mask=mask)
    wanted = reference_update(agent, rollout, clip=0.1)
    metrics = learn(agent, rollout)
    for (name, parameter), other in zip(agent.core.network.named_parameters(), wanted.parameters(), strict=True):
        assert torch.allclose(parameter, other, atol=2e-5), name
    assert metrics["clip_fraction"] > 0.05  # the test reaches the objective's bounds


def test_minibatches_cover_each_row_once_per_epoch():
    agent = make_agent("ppo", THREE, epochs=3, minibatches=4)
    rollout, seen = made_up_rollout(agent, shape=(7, 3, 1)), []
    original = agent._step
    agent._step = lambda data, part, *rest: seen.append(part.tolist()) or original(data, part, *rest)
    learn(agent, rollout)
    epochs = [sorted(row for part in seen[4 * k : 4 * k + 4] for row in part) for k in range(3)]
    assert epochs == [list(range(21))] * 3
    assert {len(part) for part in seen} == {5, 6}
    assert seen[0] != seen[4]  # reshuffled


@pytest.mark.parametrize("objective", ["clip", "dpo"])
@pytest.mark.parametrize("chunk", [7, 64])
def test_processing_rows_in_chunks_gives_the_same_update(chunk, objective):
    shape, settings = (30, 5, 1), {"epochs": 2, "minibatches": 2, "learning_rate": 0.01, "objective": objective}
    whole, parts = make_agent("ppo", THREE, **settings), make_agent("ppo", THREE, **settings)
    rollout = made_up_rollout(whole, shape)
    one = learn(whole, rollout)
    parts.core.chunk = chunk
    two = learn(parts, rollout)
    for name, value in weights(whole).items():
        assert torch.allclose(value, weights(parts)[name], atol=1e-5), name
    assert one == pytest.approx(two, rel=1e-3, abs=1e-5)


def test_adaptive_kl_doubles_and_halves_its_coefficient():
    settings = {"objective": "adaptive_kl", "anneal_lr": False, "learning_rate": 0.01, "kl_coef": 0.5}
    probe = make_agent("ppo", THREE, **settings)
    rollout = made_up_rollout(probe, (20, 5, 1))
    obs = rows(rollout.obs, 3)
    before = probe.core.network.policy(obs).detach()
    learn(probe, rollout)
    after = probe.core.network.policy(obs).detach()
    old, new = (torch.distributions.Categorical(logits=params) for params in (before, after))
    kl = float(torch.distributions.kl_divergence(old, new).mean())
    for target, wanted in ((kl / 1.6, 1.0), (kl / 1.4, 0.5), (kl, 0.5), (kl * 1.4, 0.5), (kl * 1.6, 0.25)):
        agent = make_agent("ppo", THREE, **settings, adaptive_target_kl=target)
        assert learn(agent, rollout)["kl_coef"] == wanted


def test_exceeding_target_kl_stops_the_epochs():
    settings = {"epochs": 10, "minibatches": 2, "anneal_lr": False, "learning_rate": 0.02}
    for bound, steps in ((0.0, 20), (1e-9, 2), (1e6, 20)):
        agent = make_agent("ppo", THREE, **settings, target_kl=bound)
        learn(agent, made_up_rollout(agent))
        assert int(weights(agent)["optimizer.steps"]) == steps


def test_the_clip_range_is_annealed_with_progress():
    """With a clip range near 0, a ratio of 1.1 is already beyond the bound and has no gradient."""
    agent = make_agent("ppo", THREE, **POLICY_ALONE, anneal_clip=True)
    before, rollout = weights(agent, "network.actor"), made_up_rollout(agent)
    learn(agent, with_ratio(rollout, 1.1, 1), progress=0.9)
    assert equal(before, weights(agent, "network.actor"))
    learn(agent, with_ratio(rollout, 1.1, 1), progress=0.1)
    assert not equal(before, weights(agent, "network.actor"))


def test_metrics_of_a_first_step_by_hand():
    agent = make_agent("ppo", THREE, epochs=1, minibatches=1, normalize_advantage=False, learning_rate=0.01)
    rollout = made_up_rollout(agent)
    value, following = agent.core.rollout_values(rollout)
    advantage = gae(rollout.reward, value, following, rollout.terminated, rollout.truncated, discount=0.99,
                    gae_lambda=0.95)  # fmt: skip
    probability = torch.softmax(agent.core.network.policy(rows(rollout.obs, 3)), -1)
    wanted = {
        "policy_loss": -advantage.mean(),  # every ratio is 1
        "value_loss": 0.5 * advantage.square().mean(),  # target - value
        "entropy": -(probability * probability.log()).sum(-1).mean(),
        "approx_kl": 0.0,
        "clip_fraction": 0.0,
        "explained_variance": 1 - advantage.var(correction=0) / (advantage + value).var(correction=0),
        "learning_rate": 0.01,
    }
    metrics = learn(agent, rollout)
    assert set(metrics) == set(wanted) | {"grad_norm"}
    for name, number in wanted.items():
        assert metrics[name] == pytest.approx(float(number), abs=1e-5), name
    assert 0 < metrics["grad_norm"] < math.inf


@pytest.mark.parametrize("advantage", [-1.0, 1.0])
@pytest.mark.parametrize("log_ratio", [-95.0, -30.0, 30.0, 95.0, 1e6])
@pytest.mark.parametrize("objective", ["clip", "adaptive_kl", "dpo"])
def test_any_finite_log_ratio_has_a_finite_gradient(objective, log_ratio, advantage):
    agent = make_agent("ppo", THREE, objective=objective)
    rollout = made_up_rollout(agent)
    data = agent._prepare(rollout)
    data["log_prob"] = data["log_prob"] - log_ratio
    index = torch.arange(len(data["log_prob"]))
    agent.core.optimizer.zero_grad()
    loss, metrics = agent._loss(data, index, torch.full((len(index),), advantage), clip=0.2)
    loss.backward()
    norm = agent.core.optimizer.step()
    assert norm.isfinite()
    assert agent.core.optimizer.flat.isfinite().all()
    assert all(bool(value.isfinite()) for value in metrics.values())
    if objective != "adaptive_kl" and log_ratio > 0:  # no gradient that moves further away from the old policy
        assert (float(norm) > 1e6) == (advantage < 0)


@pytest.mark.parametrize(
    ("ratio", "advantage", "drift"),
    [
        (3.0, 2.0, 2.071945),  # x = 4: 4 - 2 tanh 2
        (0.5, 2.0, 0.0),  # x = -1: against the advantage
        (1.1, 1.0, 8.325e-5),  # x = 0.1: about x^3 / 12
        (0.5, -2.0, 0.797990),  # x = 2 ln 2 = 1.386294: x - 0.6 tanh(x / 0.6)
        (2.0, -2.0, 0.0),
        (1.0, 1.0, 0.0),
        (1.0, -1.0, 0.0),
    ],
)  # fmt: skip
def test_the_learned_drift_by_hand(ratio, advantage, drift):
    ratio, advantage = torch.tensor([ratio], dtype=torch.float64), torch.tensor([advantage], dtype=torch.float64)
    assert float(learned_drift(ratio, ratio.log(), advantage)) == pytest.approx(drift, rel=1e-3, abs=1e-9)


def test_the_learned_drift_widens_with_its_constants():
    """By hand: 4 - 3 tanh(4 / 3), and 2 ln 2 - tanh(2 ln 2)."""
    ratio, advantage = torch.tensor([3.0, 0.5]), torch.tensor([2.0, -2.0])
    drift = learned_drift(ratio, ratio.log(), advantage, alpha=3.0, beta=1.0)
    assert drift.tolist() == pytest.approx([1.389815, 0.503941], rel=1e-4)
    agent = make_agent("ppo", THREE, objective="dpo", dpo_alpha=3.0, dpo_beta=1.0)
    rollout = made_up_rollout(agent)
    data = agent._prepare(rollout)
    data["log_prob"] = data["log_prob"] - torch.tensor(3.0).log()
    index = torch.arange(len(data["log_prob"]))
    _, metrics = agent._loss(data, index, torch.full((len(index),), 2.0), clip=0.2)
    assert float(metrics["policy_loss"]) == pytest.approx(-(6 - 1.389815), rel=1e-4)


def test_a_ratio_is_exact_up_to_its_bound_and_keeps_its_gradient_beyond():
    log_ratio = torch.tensor([-200.0, -1.0, 0.0, 0.5, 19.99, 20.0, 25.0, 1e30], requires_grad=True)
    ratio = probability_ratio(log_ratio)
    ratio.sum().backward()
    wanted = torch.tensor([-200.0, -1.0, 0.0, 0.5, 19.99, 20.0, 20.0, 20.0]).exp()
    assert torch.equal(ratio, wanted)  # bit for bit
    assert torch.equal(log_ratio.grad, wanted)


def test_more_minibatches_than_steps_are_rejected():
    agent = make_agent("ppo", THREE, minibatches=31)
    with pytest.raises(AgentError, match="minibatches: got 31 for a rollout of 30 steps"):
        learn(agent, made_up_rollout(agent))


def test_in_turn_based_games_there_are_at_most_as_many_minibatches_as_decisions():
    """The number of decisions in a window is random there: three decisions make three minibatches of one."""
    agent = make_agent("ppo", THREE, minibatches=31)
    active = torch.zeros(6, 5, 1, dtype=torch.bool)
    active[[0, 2, 5], [1, 1, 4]] = True
    few, parts = made_up_rollout(agent, active=active), []
    step = agent._step
    agent._step = lambda data, part, *rest: parts.append(len(part)) or step(data, part, *rest)
    metrics = learn(agent, few)
    assert parts == [1] * 3 * agent.config.epochs
    assert all(np.isfinite(value) for value in metrics.values())
    assert all(value.isfinite().all() for value in agent.state_dict().values())
    assert learn(agent, made_up_rollout(agent, active=torch.zeros_like(active))) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gae_lambda", -0.1), ("epochs", 0), ("minibatches", 0), ("clip_coef", 0.0), ("adaptive_target_kl", 0.0),
        ("value_coef", -1.0), ("objective", "clipped"), ("dpo_alpha", 0.0), ("dpo_beta", -1.0),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_rejected_by_name(name, value):
    with pytest.raises(AgentError, match=f"^{name}: got .*wanted"):
        PPOConfig(**{name: value})


@pytest.mark.parametrize(
    "setting",
    [{"target_kl": 0.01}, {"objective": "adaptive_kl"}, {"apo_every": 2}, {"memory": "gru"}, {"normalize_obs": True}],
    ids=lambda setting: next(iter(setting)),
)
def test_graphs_refuse_settings_by_which_the_host_decides(setting):
    name = next(iter(setting))
    with pytest.raises(AgentError, match=f"graphs: got True with {name}"):
        PPOConfig(graphs=True, **setting)


def test_without_a_gpu_graphs_change_nothing():
    plain, graphs = make_agent("ppo", THREE), make_agent("ppo", THREE, graphs=True)
    rollout = made_up_rollout(plain)
    for agent in (plain, graphs):
        for _ in range(3):
            learn(agent, rollout)
    assert equal(weights(plain), weights(graphs))


def test_bfloat16_refuses_networks_with_memory():
    with pytest.raises(AgentError, match="precision: got 'bfloat16' with memory"):
        make_agent("ppo", THREE, precision="bfloat16", memory="gru")


def test_compile_needs_a_compiler(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(AgentError, match=r"compile: got True, and torch.compile finds none of g\+\+"):
        make_agent("ppo", THREE, compile=True)


@pytest.mark.slow
def test_a_compiled_network_learns_the_same_up_to_rounding():
    plain, compiled = make_agent("ppo", THREE), make_agent("ppo", THREE, compile=True)
    rollout = made_up_rollout(plain)
    for agent in (plain, compiled):
        for _ in range(2):
            learn(agent, rollout)
    assert weights(plain).keys() == weights(compiled).keys()
    for name, value in weights(plain).items():
        torch.testing.assert_close(weights(compiled)[name], value, rtol=1e-3, atol=1e-4)
