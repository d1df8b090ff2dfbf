"""CRR: weights, gradients, bootstraps, targets and limits, by hand and against behavioural cloning."""

import dataclasses
import math

import pytest
import torch
from gymnasium import spaces

from mlbits.agents.agent import AgentError
from mlbits.agents.memory.dataset import Dataset, Episode
from mlbits.agents.offline.bc import BC, BCConfig
from mlbits.agents.offline.crr import CRR, CRRConfig
from mlbits.selfplay.runs.config import resolve
from tests.agents.offline.data import BOX, TWO, VECTOR, bandit, draw, noise

SMALL = {"hidden": (16, 16), "batch_size": 32, "updates_per_iteration": 10}


def make(data, seed=0, **settings):
    return CRR(CRRConfig(**{**SMALL, **settings}), data.observation_space, data.action_space, seed=seed)


def minibatch(agent, data, seed=1, size=32):
    agent.scaling.fit(data, "standard", "none")
    return agent._scaled(data.sample(size, draw(seed), discount=0.9))


@pytest.mark.parametrize("actions", [BOX, TWO], ids=["box", "discrete"])
@pytest.mark.parametrize("policy", ["auto", "mixture"])
def test_all_is_behavioural_cloning_gradient_for_gradient(actions, policy):
    policy = "auto" if actions is TWO else policy
    data = noise(actions)
    crr, bc = make(data, weight="all", policy=policy), BC(BCConfig(**SMALL, policy=policy), VECTOR, actions)
    assert torch.equal(crr.policy_optimizer.flat, bc.policy_optimizer.flat)
    for seed in range(3):
        for agent in (crr, bc):
            agent._update(minibatch(agent, data, seed), draw(2), measure=False)
        assert torch.equal(crr.policy_optimizer.vectors.grad, bc.policy_optimizer.vectors.grad)
    assert torch.equal(crr.policy_optimizer.flat, bc.policy_optimizer.flat)


def test_weights():
    data = noise()
    advantage = torch.tensor([-1000.0, -1.0, 0.0, 1.0, 2.0, 1000.0])
    exp = make(data, beta=0.5, cap=20.0).weigh(advantage)
    assert exp.tolist() == pytest.approx([0.0, math.exp(-2), 1.0, math.exp(2), 20.0, 20.0])
    assert make(data, weight="binary").weigh(advantage).tolist() == [0, 0, 0, 1, 1, 1]
    assert make(data, weight="all").weigh(advantage).tolist() == [1] * 6
    found = make(data, cap=20.0).weight_statistics(torch.tensor([20.0, 1.0, 1.0, 0.001]))
    assert found["weight"] == pytest.approx(22.001 / 4)
    assert (found["weight_at_cap"], found["weight_near_0"]) == (0.25, 0.25)
    assert found["weight_sample_size"] == pytest.approx(22.001**2 / (4 * 402.000001))


@pytest.mark.parametrize("weight", ["exp", "binary"])
def test_no_gradient_passes_through_the_weights(weight):
    data = noise(TWO)  # nothing is drawn for Discrete actions
    agent, other = make(data, weight=weight, beta=0.1), make(data, weight="all")
    drawn = minibatch(agent, data)
    minibatch(other, data)
    params = agent.policy.forward(drawn.obs)
    log_p = torch.log_softmax(params, -1)
    with torch.no_grad():
        q = torch.stack([agent.critics.taken(drawn.obs, torch.full((32,), a))[0].squeeze(-1) for a in range(2)], 1)
        advantage = q.gather(1, drawn.action[:, None]).squeeze(1) - (log_p.exp() * q).sum(1)
        fixed = agent.weigh(advantage)
    assert 0 < float(fixed.mean()) != 1
    loss = -(fixed * log_p.gather(1, drawn.action[:, None]).squeeze(1)).mean()
    wanted = torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(agent.policy.parameters()))])
    agent._update(drawn, draw(2), measure=False)
    other._update(drawn, draw(2), measure=False)
    assert torch.allclose(agent.policy_optimizer.vectors.grad, wanted, atol=1e-7)
    assert torch.equal(agent.critic_optimizer.vectors.grad, other.critic_optimizer.vectors.grad)


@pytest.mark.parametrize(("advantage", "reduce"), [("mean", lambda q: q.mean(0)), ("max", lambda q: q.amax(0))])
def test_the_value_is_the_mean_or_maximum_over_draws(advantage, reduce):
    data = noise()
    agent = make(data, samples=5, advantage=advantage, twin=True)
    drawn = minibatch(agent, data)
    with torch.no_grad():
        params = agent.policy.forward(drawn.obs)
        actions = agent.head.sample(params, 5, draw(3))
        each = [torch.minimum(*agent.critics.taken(drawn.obs, action)).squeeze(-1) for action in actions]
        assert torch.allclose(agent._value(drawn, params, draw(3)), reduce(torch.stack(each)), atol=1e-6)


def test_many_draws_are_evaluated_in_parts(monkeypatch):
    data = noise()
    agent = make(data, twin=True)
    obs, actions = torch.randn(7, 3), torch.rand(9, 7, 1) * 2 - 1
    whole = agent.critics.candidates(obs, actions)
    monkeypatch.setattr("mlbits.agents.offline.networks._ROWS_AT_ONCE", 15)
    for one, parts in zip(whole, agent.critics.candidates(obs, actions), strict=True):
        assert one.shape == (9, 7, 1)
        assert torch.allclose(one, parts, atol=1e-6)


def ends():
    """Two episodes of one step with reward 3: one is terminated, the other truncated."""
    episodes = [
        Episode(obs=[0, 1], action=[1], reward=[3.0], terminated=[k == 0], truncated=[k == 1]) for k in range(2)
    ]
    return Dataset.from_episodes(episodes, spaces.Discrete(2), TWO)


@pytest.mark.parametrize("critic", ["value", "categorical"])
def test_truncated_episodes_bootstrap_and_terminated_ones_do_not(critic):
    data = ends()
    agent = make(data, critic=critic, v_min=-20.0, v_max=20.0, atoms=41, reward_scaling="none")
    drawn = agent._scaled(data.transitions(torch.tensor([0, 1]), 0.9))
    with torch.no_grad():
        for name, parameter in agent.target_critics.named_parameters():
            parameter.fill_(10.0 if critic == "value" and name.endswith("head_bias") else 0.0)
        if critic == "categorical":  # all probability on the atom at 10
            agent.target_critics.mlps[0].head_bias.view(2, 41)[:, 30] = 50.0
    target = agent._target(drawn, draw(0))
    value = target.squeeze(-1) if critic == "value" else target @ agent.support
    assert value.tolist() == pytest.approx([3.0, 3.0 + 0.9 * 10.0], abs=1e-4)


def test_targets_are_copied_only_every_so_many_steps():
    data = noise()
    agent = make(data, target_every=3)
    for step in range(1, 7):
        before = agent.critic_optimizer.vectors.target.clone()
        agent._update(minibatch(agent, data, step), draw(step), measure=False)
        agent.updates += 1
        for optimizer in (agent.critic_optimizer, agent.policy_optimizer):
            assert torch.equal(optimizer.vectors.target, optimizer.flat) == (step % 3 == 0)
        assert torch.equal(agent.critic_optimizer.vectors.target, before) == (step % 3 != 0)


LIMITS = {"hidden": (8,), "batch_size": 64, "learning_rate": 0.02, "updates_per_iteration": 400}


def probabilities(agent, data):
    agent.learn(data, 0.0, draw(0))
    return agent.action_probabilities(torch.zeros(1, dtype=torch.int64), None)[0].tolist()


def test_on_a_bandit_binary_finds_the_best_action_and_cloning_the_mixture():
    data = bandit((70, 30), (0.0, 1.0))
    bc = probabilities(BC(BCConfig(**LIMITS), data.observation_space, data.action_space), data)
    assert bc == pytest.approx([0.7, 0.3], abs=0.05)
    common = {**LIMITS, "critic_learning_rate": 0.02, "reward_scaling": "none"}
    assert probabilities(make(data, **common, weight="binary"), data)[1] > 0.97


def test_on_a_bandit_exp_tilts_the_mixture_by_the_exponential_of_its_values():
    data = bandit((70, 30), (0.0, 1.0))
    agent = make(data, **LIMITS, critic_learning_rate=0.02, reward_scaling="none", beta=0.5, cap=1000.0)
    weights = [0.7, 0.3 * math.exp(1 / 0.5)]
    assert probabilities(agent, data) == pytest.approx([w / sum(weights) for w in weights], abs=0.05)


def test_a_support_that_does_not_hold_the_returns_is_refused():
    data = noise()
    for bounds in ((-0.1, 50.0), (-50.0, 0.1)):
        agent = make(data, critic="categorical", v_min=bounds[0], v_max=bounds[1])
        with pytest.raises(
            AgentError, match=r"v_min, v_max: got .*returns of dataset go from .*\(episode \d\); wanted"
        ):
            agent.learn(data, 0.0, draw(0))
    make(data, critic="categorical", v_min=-50.0, v_max=50.0).learn(data, 0.0, draw(0))
    with pytest.raises(AgentError, match="wanted low < high"):
        CRRConfig(v_min=1.0, v_max=1.0)


def test_the_expectile_weighs_errors_by_their_sign():
    agent = make(noise(), expectile=0.7)
    out, target = torch.zeros(2, 1), torch.tensor([[1.0], [-1.0]])
    assert float(agent._critic_loss(out, target)) == pytest.approx((2 * 0.7 + 2 * 0.3) / 2)
    assert float(agent._critic_loss(out[:1], target[:1])) == pytest.approx(1.4)
    assert float(make(noise())._critic_loss(out[:1], 2 * target[:1])) == pytest.approx(4.0)


def test_the_critic_weighted_policy_prefers_what_the_critic_does():
    data = noise()
    agent = make(data, critic_weighted=True, play_samples=8, twin=True)
    obs = torch.randn(5, 3)
    with torch.no_grad():
        actions = agent.draws(agent.policy.forward(obs), None, 8, draw(4))
        q = torch.minimum(*agent.critics.candidates(obs, actions)).squeeze(-1)
    best = actions[q.argmax(0), torch.arange(5)]
    assert torch.allclose(agent.act(obs, None, draw(4), greedy=True).action, 2 * best)
    # Drawn, it takes each of two Discrete actions with probability pi exp(Q / beta), up to a factor.
    data = noise(TWO)
    agent = make(data, critic_weighted=True, beta=0.3)
    agent.learn(data, 0.0, draw(0))
    seen = torch.randn(1, 3).expand(20_000, 3)
    drawn = agent.act(seen, None, draw(5)).action.double().mean()
    scaled = agent.scaling.obs(seen[:1])
    with torch.no_grad():
        q = agent.critics.candidates(scaled, None)[0].flatten()
        wanted = torch.softmax(torch.log_softmax(agent.policy.forward(scaled)[0], -1) + q / 0.3, -1)[1]
    assert float(drawn) == pytest.approx(float(wanted), abs=0.02)
    chances = agent.action_probabilities(seen[:1], None)
    assert float(chances[0, 1]) == pytest.approx(float(wanted), abs=1e-5)
    found = agent.action_log_prob(seen[:1], None, torch.tensor([1]))
    assert float(found.exp()) == pytest.approx(float(wanted), abs=1e-5)
    greedy = agent.action_probabilities(seen[:1], None, greedy=True)
    assert int(greedy.argmax()) == int(agent.act(seen[:1], None, draw(5), greedy=True).action)
    assert float(greedy.max()) == 1


def test_a_choice_among_draws_has_no_density():
    agent = make(noise(), critic_weighted=True)
    with pytest.raises(AgentError, match="critic-weighted policy of a Box; wanted critic_weighted=False"):
        agent.action_log_prob(torch.zeros(2, 3), None, torch.zeros(2, 1))


def test_illegal_actions_count_neither_in_values_nor_in_bootstraps():
    episode = Episode(obs=[0, 1, 0], action=[0, 0], reward=[0.0, 0.0], truncated=[False, True],
                      mask=[[True, False]] * 3)  # fmt: skip
    data = Dataset.from_episodes([episode], spaces.Discrete(2), TWO)
    for advantage in ("mean", "max"):
        agent = make(data, advantage=advantage, reward_scaling="none")
        with torch.no_grad():
            for critics in (agent.critics, agent.target_critics):
                critics.mlps[0].head.zero_()
                critics.mlps[0].head_bias.copy_(torch.tensor([1.0, 100.0]))  # the illegal action looks best
        drawn = agent._scaled(data.transitions(torch.tensor([0]), 0.5))
        assert float(agent._target(drawn, draw(0))) == pytest.approx(0.5)
        assert float(agent._value(drawn, agent.policy.forward(drawn.obs), draw(0))) == pytest.approx(1.0)


def test_published_configurations_are_presets():
    plus = resolve("crr", "mlbits/Pendulum-v0", preset="crr+").agent_config
    assert (plus.layer_norm, plus.twin, plus.samples, plus.expectile, plus.tau) == (True, True, 50, 0.7, 0.005)
    original = resolve("crr", "mlbits/Pendulum-v0", preset="original").agent_config
    assert (original.critic, original.atoms, original.v_min, original.v_max) == ("categorical", 21, 0.0, 100.0)
    assert (original.policy, original.components, original.samples, original.target_every) == ("mixture", 5, 4, 100)
    for config in (plus, original):
        data, small = noise(), {"hidden": (8, 8), "batch_size": 8, "updates_per_iteration": 2, "v_min": -100.0}
        CRR(dataclasses.replace(config, **small), VECTOR, BOX).learn(data, 0.0, draw(0))


def test_a_policy_of_a_box_is_refused_for_discrete_actions():
    with pytest.raises(AgentError, match="policy: got 'mixture'; wanted 'auto' for Discrete actions"):
        make(noise(TWO), policy="mixture")
    endless = spaces.Box(-math.inf, math.inf, (1,))
    with pytest.raises(AgentError, match="wanted one with bounds"):
        CRR(CRRConfig(), VECTOR, endless)
