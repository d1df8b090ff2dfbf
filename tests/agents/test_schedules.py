"""Every agent follows the schedules of its settings: numbers at a progress, by hand, and what is recorded."""

import dataclasses
import json

import pytest
import torch
from gymnasium import spaces

from mlbits.agents.agent import AgentError
from mlbits.agents.classifier import ClassifierConfig
from mlbits.agents.ddpg import DDPGConfig
from mlbits.agents.dqn import DQNConfig
from mlbits.agents.offline.crr import CRRConfig
from mlbits.agents.tabular_q import TabularQ, TabularQConfig
from mlbits.envs.core.config_fields import setting_of
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.training import resume, train
from tests.agents.rollouts import learn, made_up_rollout, make_agent, weights
from tests.agents.test_ddpg import make as make_ddpg
from tests.agents.test_ddpg import once as ddpg_once
from tests.agents.test_ddpg import some_transitions as ddpg_transitions
from tests.agents.test_dqn import once, some_transitions

THREE = spaces.Discrete(3)
BOX = spaces.Box(-1, 1, (2,))
RATE, RATE_AT_HALF = "cosine:0.02:0.01", 0.015  # no agent's default


@pytest.mark.parametrize("name", ["ppo", "trpo", "reinforce"])
def test_learning_rates_of_policy_gradients(name):
    """The schedule says how the rate changes; that PPO anneals a number by default does not matter."""
    agent = make_agent(name, THREE, learning_rate=RATE)
    assert learn(agent, made_up_rollout(agent), progress=0.5)["learning_rate"] == pytest.approx(RATE_AT_HALF)
    still = make_agent(name, THREE, learning_rate="stepwise:0=0.1,0.5=0")
    before = weights(still, "network.critic")
    learn(still, made_up_rollout(still), progress=0.5)
    assert all(torch.equal(value, before[key]) for key, value in weights(still, "network.critic").items())


def test_learning_rates_and_epsilon_of_dqn():
    agent = make_agent("dqn", THREE, learning_rate=RATE, epsilon="linear:0.8:0.4", learning_starts=0)
    assert agent.epsilon == 0.8
    metrics, _ = once(agent, some_transitions(), progress=0.5)
    assert (metrics["epsilon"], agent.epsilon) == pytest.approx((0.6, 0.6))
    assert (metrics["learning_rate"], agent.optimizer.learning_rate) == pytest.approx((RATE_AT_HALF, RATE_AT_HALF))


def test_epsilon_as_a_number_and_by_default():
    assert make_agent("dqn", THREE, epsilon=0.3, learning_starts=0).epsilon == 0.3
    agent = make_agent("dqn", THREE, learning_starts=0, epsilon_start=0.9, epsilon_end=0.1, epsilon_fraction=0.5)
    assert agent.epsilon == 0.9
    once(agent, some_transitions(), progress=0.25)
    assert agent.epsilon == pytest.approx(0.5)


def test_learning_rates_and_noise_of_ddpg():
    agent = make_ddpg(actor_learning_rate=RATE, critic_learning_rate="linear:0.4:0.2", noise="linear:0.3:0.1")
    assert agent.noise == 0.3
    metrics, _ = ddpg_once(agent, ddpg_transitions(), progress=0.5)
    found = {name: metrics[name] for name in ("noise", "actor_learning_rate", "critic_learning_rate")}
    assert found == pytest.approx({"noise": 0.2, "actor_learning_rate": RATE_AT_HALF, "critic_learning_rate": 0.3})
    assert agent.actor_optimizer.learning_rate == pytest.approx(RATE_AT_HALF)
    assert agent.critic_optimizer.learning_rate == pytest.approx(0.3)


def test_step_size_and_epsilon_of_q_learning():
    """At half of the run, alpha is 0.5: an entry of 0 with target 4 becomes 2."""
    config = TabularQConfig(step_size="linear:0.75:0.25", epsilon="stepwise:0=1,0.5=0.125", discount=1.0)
    agent = TabularQ(config, spaces.Discrete(2), THREE)
    assert agent.epsilon == 1.0
    one = torch.zeros(1, 1, 1)
    ends = torch.ones(1, 1, dtype=torch.bool)
    rollout = made_up_rollout(make_agent("ppo", THREE), (1, 1, 1))
    rollout = dataclasses.replace(
        rollout, obs=one.long(), last_obs=one[0].long(), final_obs=one.long(), sample=one.long(), reward=one + 4,
        terminated=ends, truncated=~ends,
    )  # fmt: skip
    metrics = learn(agent, rollout, progress=0.5)
    assert (metrics["epsilon"], metrics["step_size"]) == (0.125, 0.5)
    assert float(agent.tables[0, 0, 0]) == 2.0


def test_ppos_clip_and_entropy_are_curves_if_they_change():
    agent = make_agent("ppo", THREE, clip_coef="linear:0.2:0.1", entropy_coef="linear:0:0.5")
    metrics = learn(agent, made_up_rollout(agent), progress=0.5)
    assert (metrics["clip_coef"], metrics["entropy_coef"]) == pytest.approx((0.15, 0.25))
    constant = make_agent("ppo", THREE)
    assert {"clip_coef", "entropy_coef"}.isdisjoint(learn(constant, made_up_rollout(constant)))


def test_ppos_clip_by_schedule_is_that_by_number():
    """What is learned at half of the run with a clip from 0.4 to 0 is what a clip of 0.2 gives."""
    common = {"learning_rate": 0.05, "anneal_lr": False}
    one, two = make_agent("ppo", THREE, clip_coef="linear:0.4:0", **common), make_agent("ppo", THREE, **common)
    wide = make_agent("ppo", THREE, clip_coef=0.4, **common)
    rollout = made_up_rollout(one)
    for agent in (one, two, wide):
        learn(agent, rollout, progress=0.5)
    assert torch.equal(one.core.optimizer.flat, two.core.optimizer.flat)
    assert not torch.equal(one.core.optimizer.flat, wide.core.optimizer.flat)


@pytest.mark.parametrize("name", ["trpo", "reinforce", "ppo"])
def test_entropy_bonuses_by_schedule_are_those_by_number(name):
    made = [make_agent(name, THREE, entropy_coef=coef) for coef in ("linear:0:1", 0.5, 0.0)]
    rollout = made_up_rollout(made[0])
    for agent in made:
        metrics = learn(agent, rollout, progress=0.5)
        assert ("entropy_coef" in metrics) == (agent is made[0])
    first, same, none = (agent.core.optimizer.flat for agent in made)
    assert torch.equal(first, same)
    assert not torch.equal(first, none)


def test_trpos_bound_by_schedule():
    agent = make_agent("trpo", THREE, target_kl="linear:0.02:0")
    metrics = learn(agent, made_up_rollout(agent), progress=0.75)
    assert metrics["target_kl"] == pytest.approx(0.005)
    assert 0 < metrics["kl"] <= 0.005


@pytest.mark.parametrize(("actions", "wanted"), [(THREE, 0.01), (spaces.MultiDiscrete([2, 3]), 0.01), (BOX, 0.0)])
def test_ppos_entropy_bonus_is_for_discrete_actions_unless_given(actions, wanted):
    agent = make_agent("ppo", actions)
    assert agent.config.entropy_coef == "auto"
    learn(agent, made_up_rollout(agent), progress=0.5)
    assert agent._entropy_coef == wanted
    given = make_agent("ppo", actions, entropy_coef=0.3, anneal_entropy=True)
    learn(given, made_up_rollout(given), progress=0.5)
    assert given._entropy_coef == pytest.approx(0.15)
    falls = make_agent("ppo", actions, anneal_entropy=True)
    learn(falls, made_up_rollout(falls), progress=0.5)
    assert falls._entropy_coef == pytest.approx(wanted / 2)


def test_a_run_that_is_resumed_with_more_steps_follows_the_schedule_of_the_longer_run(tmp_path):
    """Four iterations of 16 steps, then four more: 0, 1/4, 1/2 and 3/4 of the run, then 4/8 to 7/8 of twice as many."""
    run = {"total_steps": 64, "num_envs": 4, "eval_episodes": 1, "video": False, "device": "cpu"}
    settings = {"num_steps": 4, "epsilon": "linear:1:0", "step_size": "stepwise:0=0.5,0.8=0.25"}
    folder, _ = train(
        resolve("q-learning", "mlbits/GridWorld-v0", preset="none", run=run, agent_settings=settings),
        tmp_path / "run", console=False,
    )  # fmt: skip
    resume(folder, total_steps=128, console=False)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    curves = [[row[f"learn/{name}"] for row in rows if f"learn/{name}" in row] for name in ("epsilon", "step_size")]
    assert curves[0] == pytest.approx([1, 0.75, 0.5, 0.25, 0.5, 0.375, 0.25, 0.125])
    assert curves[1] == [0.5] * 7 + [0.25]


def test_settings_that_are_rates_take_schedules():
    for config in (DQNConfig, DDPGConfig, ClassifierConfig, CRRConfig, TabularQConfig):
        for field in dataclasses.fields(config):
            rate = field.name.endswith("learning_rate") and not field.name.startswith("bonus_")
            if rate or field.name in ("noise", "step_size"):
                assert setting_of(field).scheduled, (config, field.name)
                with pytest.raises(AgentError, match=f"^{field.name}: got 'linear:1:-1'; wanted a schedule of numbers"):
                    config(**{field.name: "linear:1:-1"})
