"""Behavioural cloning, TD3+BC and IQL by hand; scaling, layer normalisation and number formats of all."""

import pytest
import torch
import torch.nn.functional as F

from mlbits.agents.agent import AgentError
from mlbits.agents.memory.dataset import Dataset, Episode
from mlbits.agents.networks.features import Features
from mlbits.agents.networks.mlp import MLP
from mlbits.agents.offline.bc import BC, BCConfig
from mlbits.agents.offline.crr import CRR, CRRConfig
from mlbits.agents.offline.iql import IQL, IQLConfig
from mlbits.agents.offline.networks import Scaling
from mlbits.agents.offline.returns import returns_to_go
from mlbits.agents.offline.td3_bc import TD3BC, TD3BCConfig
from tests.agents.offline.data import BOX, TWO, VECTOR, bandit, draw, noise

SMALL = {"hidden": (16, 16), "batch_size": 32, "updates_per_iteration": 5}


def minibatch(agent, data, seed=1):
    agent.scaling.fit(data, "standard", "none")
    return agent._scaled(data.sample(32, draw(seed), discount=0.9))


def test_cloning_the_best_episodes_imitates_those_alone():
    data = bandit((9, 1), (0.0, 1.0))
    settings = {"hidden": (8,), "learning_rate": 0.02, "updates_per_iteration": 200}
    for top, wanted in ((1.0, 0.1), (0.1, 1.0)):
        agent = BC(BCConfig(**settings, top=top), data.observation_space, data.action_space)
        agent.learn(data, 0.0, draw(0))
        found = agent.action_probabilities(torch.zeros(1, dtype=torch.int64), None)[0, 1]
        assert float(found) == pytest.approx(wanted, abs=0.06)


def test_td3_bc_weighs_q_by_its_size_against_imitation():
    data = noise()
    agent = TD3BC(TD3BCConfig(**SMALL, alpha=1.5, policy_delay=2), VECTOR, BOX)
    drawn = minibatch(agent, data)
    kept = agent.actor_optimizer.flat.clone()
    agent._update(drawn, draw(0), measure=False)
    agent.updates = 1
    assert torch.equal(agent.actor_optimizer.flat, kept)  # the actor moves every other step
    agent.critic_optimizer.learning_rate = 0.0
    action = torch.tanh(agent.actor.forward(drawn.obs))
    q = agent.critics.mlps[0].forward(agent.critics.features.forward(drawn.obs, action))
    loss = ((action - drawn.action) ** 2).mean() - 1.5 * q.mean() / q.detach().abs().mean()
    wanted = torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(agent.actor.parameters()))])
    agent._update(drawn, draw(0), measure=False)
    assert torch.allclose(agent.actor_optimizer.vectors.grad, wanted, atol=1e-6)


def test_td3_bc_bootstraps_from_the_lower_critic_at_a_smoothed_action():
    data = noise()
    agent = TD3BC(TD3BCConfig(**SMALL, target_noise=0.3, target_noise_clip=0.2), VECTOR, BOX)
    drawn = minibatch(agent, data)
    with torch.no_grad():
        shift = torch.empty(32, 1).normal_(0, 0.3, generator=draw(5)).clamp(-0.2, 0.2)
        action = (torch.tanh(agent.target_actor.forward(drawn.next_obs)) + shift).clamp(-1, 1)
        q = torch.cat(agent.target_critics.taken(drawn.next_obs, action), 1).amin(1)
    wanted = drawn.reward + drawn.discount * q
    assert torch.allclose(agent._target(drawn, draw(5)).squeeze(1), wanted)


@pytest.mark.parametrize("actions", [BOX, TWO], ids=["box", "discrete"])
def test_iql_follows_its_three_losses(actions):
    data = noise(actions)
    agent = IQL(IQLConfig(**SMALL, expectile=0.8, beta=2.0, cap=1.5), VECTOR, actions)
    drawn = minibatch(agent, data)
    with torch.no_grad():
        best = torch.cat(agent.target_critics.taken(drawn.obs, drawn.action), 1).amin(1)
        target = drawn.reward + drawn.discount * agent.value.forward(drawn.next_obs).squeeze(1)
    error = best - agent.value.forward(drawn.obs).squeeze(1)
    value_loss = (torch.where(error > 0, 0.8, 0.2) * error**2).mean()
    critic_loss = sum(((out.squeeze(1) - target) ** 2).mean() for out in agent.critics.taken(drawn.obs, drawn.action))
    weight = (2.0 * error.detach()).exp().clamp(max=1.5)
    policy_loss = -(weight * agent.log_prob(agent.policy.forward(drawn.obs), None, drawn.action)).mean()
    wanted = {}
    for name, loss in (("value", value_loss), ("critics", critic_loss), ("policy", policy_loss)):
        parameters = list(agent.networks[name].parameters())
        wanted[name] = torch.cat([part.flatten() for part in torch.autograd.grad(loss, parameters)])
    agent._update(drawn, draw(0), measure=False)
    for name, gradient in wanted.items():
        assert torch.allclose(agent.optimizers[name][0].vectors.grad, gradient, atol=1e-6), name


def one_episode(rewards, terminated):
    ended = [k == len(rewards) - 1 for k in range(len(rewards))]
    episode = Episode(obs=torch.randn(len(rewards) + 1, 3, generator=draw(0)).clamp(-5, 5),
                      action=torch.zeros(len(rewards), 1), reward=rewards,
                      terminated=[end and terminated for end in ended],
                      truncated=[end and not terminated for end in ended])  # fmt: skip
    return Dataset.from_episodes([episode], VECTOR, BOX)


def test_scaling():
    data = one_episode([1.0, 2.0, 3.0, 6.0], terminated=False)
    found = Scaling(VECTOR)
    found.fit(data, "standard", "auto")
    scaled = found.obs(data.obs)
    assert torch.allclose(scaled.mean(0), torch.zeros(3), atol=1e-5)
    assert torch.allclose(scaled.std(0, correction=0), torch.ones(3), atol=0.01)
    assert torch.allclose(found.reward(data.reward), (data.reward - 3) / data.reward.std(correction=0))
    found.fit(one_episode([5.0, 5.0], terminated=True), "standard", "none")
    assert found.reward_shift == 3  # found once
    # Where an episode terminates, a shift of the rewards would pay for its length.
    kept = Scaling(VECTOR)
    kept.fit(one_episode([1.0, 2.0, 3.0, 6.0], terminated=True), "none", "auto")
    assert kept.reward_shift == 0
    assert torch.equal(kept.obs(data.obs), data.obs)
    constant = one_episode([2.0, 2.0], terminated=True)
    with pytest.raises(AgentError, match="reward_scaling: got 'standard', and all rewards of dataset are equal"):
        Scaling(VECTOR).fit(constant, "none", "standard")
    equal = Scaling(VECTOR)
    equal.fit(constant, "none", "auto")
    assert equal.reward(constant.reward).tolist() == [1.0, 1.0]


def test_scaling_is_part_of_the_state():
    data = noise()
    one = BC(BCConfig(**SMALL), VECTOR, BOX)
    one.learn(data, 0.0, draw(0))
    two = BC(BCConfig(**SMALL), VECTOR, BOX, seed=9)
    two.load_state_dict(one.state_dict())
    assert float(two.scaling.get_buffer("mean_").abs().sum()) > 0
    obs = torch.randn(4, 3)
    assert torch.equal(one.act(obs, None, draw(0), greedy=True).action, two.act(obs, None, draw(0), greedy=True).action)


def test_returns_to_go_stop_at_the_end_of_an_episode():
    data = Dataset.from_episodes(
        [*one_episode([1.0, 2.0], terminated=True), *one_episode([4.0, 8.0], terminated=False)], VECTOR, BOX
    )
    assert returns_to_go(data, 0.5).tolist() == [2.0, 2.0, 8.0, 8.0]


def test_layer_normalisation():
    features = Features(VECTOR, draw(0))
    mlp = MLP(features, (8, 8), 2, draw(0), activation="relu", layer_norm=True)
    with torch.no_grad():
        for parameter in (*mlp.gains, *mlp.offsets):
            parameter.add_(torch.randn(8, generator=draw(1)))
    x = torch.randn(5, 3)
    hidden = x
    for weight, bias, gain, offset in zip(
        (mlp.first[0], mlp.weights[0]), mlp.biases, mlp.gains, mlp.offsets, strict=True
    ):
        hidden = hidden @ weight + bias
        hidden = (hidden - hidden.mean(1, keepdim=True)) / (hidden.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
        hidden = torch.relu(hidden * gain + offset)
    assert torch.allclose(mlp.forward([x]), F.linear(hidden, mlp.head, mlp.head_bias), atol=1e-5)
    assert (
        len(list(mlp.parameters())) == len(list(MLP(features, (8, 8), 2, draw(0), activation="relu").parameters())) + 4
    )


@pytest.mark.parametrize(
    ("agent", "config"), [(BC, BCConfig), (CRR, CRRConfig), (TD3BC, TD3BCConfig), (IQL, IQLConfig)]
)
@pytest.mark.parametrize("layer_norm", [False, True])
def test_bfloat16_learns_nearly_the_same(agent, config, layer_norm):
    data, found = noise(), []
    for precision in ("float32", "bfloat16"):
        settings = {**SMALL, "hidden": (32, 32), "layer_norm": layer_norm, "precision": precision}
        made = agent(config(**settings), VECTOR, BOX)
        made.learn(data, 0.0, draw(0))
        found.append(torch.cat([optimizer.flat for optimizer, _ in made.optimizers.values()]))
    assert not torch.equal(*found)
    assert torch.allclose(*found, atol=5e-3)


def test_densities_are_in_the_units_of_the_environment():
    agent = BC(BCConfig(**SMALL), VECTOR, BOX)
    obs = torch.randn(1, 3).expand(4001, 3)
    grid = torch.linspace(-2, 2, 4001)[:, None]
    density = agent.action_log_prob(obs, None, grid).exp()
    assert float(density.sum() * 1e-3) == pytest.approx(1.0, abs=0.02)
