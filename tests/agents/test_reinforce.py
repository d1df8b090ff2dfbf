"""REINFORCE: the weight of each log probability under every setting, and the update.

Properties common to all policy-gradient agents, and learning, are tested in test_policy_gradient.py.
"""

import dataclasses

import pytest
import torch
from gymnasium import spaces

from mlbits.agents.agent import AgentError, rows
from mlbits.agents.maths.returns import gae, rewards_to_go, whole_returns
from mlbits.agents.reinforce import ReinforceConfig, others_mean
from tests.agents.rollouts import (
    draw,
    equal,
    learn,
    made_up_rollout,
    make_agent,
    weights,
)

THREE = spaces.Discrete(3)
FORMS = [(returns, baseline) for returns in ("whole", "to_go") for baseline in ("none", "mean", "value")]
FORMS.append(("gae", "value"))


@pytest.mark.parametrize(("returns", "baseline"), FORMS)
@pytest.mark.parametrize("turns", [False, True])
def test_the_weights_of_every_combination_of_returns_and_baseline(returns, baseline, turns):
    agent = make_agent("reinforce", THREE, returns=returns, baseline=baseline, discount=0.9, gae_lambda=0.8)
    active = torch.rand(12, 5, 2, generator=draw(1)) < 0.5 if turns else None
    rollout = made_up_rollout(agent, (12, 5, 2), active=active)
    ends = rollout.terminated, rollout.truncated
    value, following = agent.core.rollout_values(rollout)
    reward = rollout.reward
    if baseline == "value":  # the estimated rest of the return of truncated episodes
        reward = reward + 0.9 * following * (rollout.truncated & ~rollout.terminated)[..., None]
    to_go = rewards_to_go(reward, *ends, discount=0.9, active=active)
    if returns == "gae":
        wanted = gae(rollout.reward, value, following, *ends, discount=0.9, gae_lambda=0.8, active=active)
        target = wanted + value
    else:
        whole = whole_returns(reward, *ends, discount=0.9, active=active)
        wanted, target = whole if returns == "whole" else to_go, to_go
        base = {"none": 0.0, "mean": others_mean(wanted, active), "value": value}[baseline]
        wanted = wanted - base
    psi, regression, _ = agent.weights(rollout)
    assert torch.allclose(psi, wanted)
    assert torch.allclose(regression, target)


@pytest.mark.parametrize("returns", ["whole", "to_go"])
def test_truncation_is_not_termination(returns):
    """Two copies earn the same; one is truncated, and the value of its final observation is added for the rest."""
    agent = make_agent("reinforce", THREE, returns=returns, baseline="value", discount=0.5)
    rollout = made_up_rollout(agent, (2, 2, 1))
    last = torch.tensor([[False, False], [True, True]])
    cut = last & torch.tensor([False, True])
    rollout = dataclasses.replace(rollout, reward=torch.ones(2, 2, 1), terminated=last & ~cut, truncated=cut)
    target = agent.weights(rollout)[1]
    assert target[:, 0, 0].tolist() == [1.5, 1.0]
    rest = agent.core.values(rollout.final_obs, 3)[1, 1, 0]
    assert abs(float(rest)) > 1e-3
    assert torch.allclose(target[:, 1, 0], torch.stack([1.5 + rest / 4, 1 + rest / 2]))


@pytest.mark.parametrize("returns", ["whole", "to_go"])
def test_if_a_waiting_seats_episode_is_truncated_its_last_decision_is_dropped_and_bootstrapped_from(returns):
    """One seat acts at steps 0 and 1, waits at 2 and 3, and is truncated there: the decision of step 1 is dropped, and
    the value of its observation is the rest of the return. Nothing changes if the seat would have acted next, or
    without a learned value."""
    agent = make_agent("reinforce", THREE, returns=returns, baseline="value", discount=0.5)
    rollout = dataclasses.replace(
        made_up_rollout(agent, (4, 1, 1)), reward=torch.tensor([1.0, 2, 4, 8]).view(4, 1, 1),
        terminated=torch.zeros(4, 1, dtype=torch.bool), truncated=torch.tensor([[False], [False], [False], [True]]),
        active=torch.tensor([True, True, False, False]).view(4, 1, 1),
        last_active=torch.zeros(1, 1, dtype=torch.bool), final_active=torch.zeros(4, 1, 1, dtype=torch.bool),
    )  # fmt: skip
    given = []
    weigh = agent.weights
    agent.weights = lambda rollout: given.append((rollout, weigh(rollout))) or given[-1][1]
    second = agent.core.values(rollout.obs, 3)[1, 0, 0].clone()
    learn(agent, rollout)
    settled, (_, target, _) = given[0]
    assert settled.active.flatten().tolist() == [True, False, False, False]
    assert torch.allclose(target[0, 0, 0], 1 + 0.5 * second)
    acting = dataclasses.replace(rollout, final_active=torch.ones(4, 1, 1, dtype=torch.bool))
    learn(agent, acting)
    assert given[1][0].active.flatten().tolist() == [True, True, False, False]
    plain = make_agent("reinforce", THREE, returns=returns, baseline="none", discount=0.5)
    assert plain.weights(rollout)[1].flatten().tolist() == [1 + 0.5 * (2 + 4 + 8), 2 + 4 + 8, 0, 0]


@pytest.mark.parametrize(("then", "weight"), [(1.0, 1.0), (2.0, 0.5), (0.8, 1.25), (0.1, 2.0)])
def test_carried_over_decisions_have_importance_weights(then, weight):
    """They were ``then`` times as probable as now; their weight is the inverse, at most 2. All others have weight 1."""
    settings = {"returns": "gae", "normalize_advantage": False, "value_steps": 0, "discount": 0.0}
    one = make_agent("reinforce", THREE, **settings)
    active = torch.ones(3, 5, 1, dtype=torch.bool)
    active[0, 3:] = False
    rollout = dataclasses.replace(
        made_up_rollout(one, (3, 5, 1), active=active), carried=active[0], terminated=torch.ones(3, 5, dtype=torch.bool)
    )
    advantage = one.weights(rollout)[0]
    log_prob = rollout.log_prob.clone()
    log_prob[0] += torch.tensor(then).log()
    found = learn(one, dataclasses.replace(rollout, log_prob=log_prob))
    scale = torch.ones(3, 1, 1)
    scale[0] = weight
    wanted = -(rollout.log_prob * advantage * scale)[active].mean()
    assert found["policy_loss"] == pytest.approx(float(wanted), rel=1e-5)


def test_whole_returns_by_hand():
    agent = make_agent("reinforce", THREE, returns="whole", baseline="mean", discount=0.5)
    rollout = made_up_rollout(agent, (2, 2, 1))
    never = torch.zeros(2, 2, dtype=torch.bool)
    ends = torch.tensor([[False, False], [True, True]])
    reward = torch.tensor([[[1.0], [2.0]], [[4.0], [8.0]]])
    rollout = dataclasses.replace(rollout, reward=reward, terminated=ends, truncated=never)
    # returns 1 + 4 / 2 = 3 and 2 + 8 / 2 = 6, each minus the other
    assert agent.weights(rollout)[0].squeeze(-1).tolist() == [[-3, 3], [-3, 3]]


@pytest.mark.parametrize("normalize", [False, True])
def test_the_policy_takes_one_step_along_the_estimated_gradient(normalize):
    """Compared with torch's own distribution and Adam."""
    settings = {
        "baseline": "value",
        "entropy_coef": 0.02,
        "normalize_advantage": normalize,
        "learning_rate": 0.01,
    }
    agent, other = (make_agent("reinforce", THREE, **settings, max_grad_norm=0.3) for _ in range(2))
    rollout = made_up_rollout(agent, (10, 4, 1))
    psi = agent.weights(rollout)[0].flatten()
    psi = psi / psi.square().mean().sqrt() if normalize else psi
    net, obs = other.core.network, rows(rollout.obs, 3)
    for parameter in net.parameters():
        parameter.data, parameter.grad = parameter.data.clone(), None
    policy = torch.distributions.Categorical(logits=net.policy(obs))
    loss = -(policy.log_prob(rollout.sample.flatten()) * psi).mean() - 0.02 * policy.entropy().mean()
    actor = list(net.actor.parameters())
    adam = torch.optim.Adam(actor, 0.01, eps=1e-5)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(actor, 0.3)
    adam.step()
    learn(agent, rollout)
    for one, two in zip(agent.core.network.actor.parameters(), actor, strict=True):
        assert torch.allclose(one, two, atol=1e-6)


def test_the_value_takes_its_own_steps_which_do_not_change_the_policy():
    """Not even by the momentum of the policy's optimiser."""
    agent = make_agent("reinforce", THREE, value_steps=50, learning_rate=0.01, max_grad_norm=1e9)
    rollout = made_up_rollout(agent, (10, 4, 1))
    first = learn(agent, rollout)
    assert int(weights(agent)["value_optimizer.steps"]) == 50
    assert int(weights(agent)["optimizer.steps"]) == 1
    before = weights(agent, "network.actor")
    for _ in range(5):
        obs, target = rows(rollout.obs, 3), agent.weights(rollout)[1].flatten()
        agent._fit_value(obs, target, 1.0)
    assert equal(before, weights(agent, "network.actor"))
    assert learn(agent, rollout)["value_loss"] < 0.7 * first["value_loss"]


def test_without_a_learned_baseline_the_value_is_not_trained():
    agent = make_agent("reinforce", THREE, baseline="mean")
    before = weights(agent, "network.critic", "value_optimizer")
    metrics = learn(agent, made_up_rollout(agent))
    assert equal(before, weights(agent, "network.critic", "value_optimizer"))
    assert "value_loss" not in metrics


def test_normalising_scales_but_does_not_shift():
    """If all rewards are equal, every action has weight 1; after centring all weights would be 0."""
    agent = make_agent("reinforce", THREE, baseline="none")
    rollout = made_up_rollout(agent, (1, 8, 1))
    ends, pay = torch.ones(1, 8, dtype=torch.bool), torch.full((1, 8, 1), 5.0)
    metrics = learn(agent, dataclasses.replace(rollout, reward=pay, terminated=ends))
    assert metrics["policy_loss"] == pytest.approx(-float(rollout.log_prob.mean()), rel=1e-5)
    assert metrics["grad_norm"] > 0


def test_the_experience_is_whole_episodes_except_for_gae():
    for returns, baseline in FORMS:
        agent = make_agent("reinforce", THREE, returns=returns, baseline=baseline, num_steps=77)
        assert agent.experience[:2] == (77, returns != "gae")


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"returns": "gae", "baseline": "none"}, "baseline"),
        ({"returns": "gae", "baseline": "mean"}, "baseline"),
        ({"returns": "reward_to_go"}, "returns"), ({"baseline": "V"}, "baseline"),
        ({"value_steps": -1}, "value_steps"),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_rejected_by_name(settings, name):
    with pytest.raises(AgentError, match=f"^{name}: got .*wanted"):
        ReinforceConfig(**settings)
