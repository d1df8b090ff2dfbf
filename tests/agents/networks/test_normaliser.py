"""Normalisation off-policy: by hand, in DQN and DDPG, in evaluation, in copies, and over seats that take turns."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from gymnasium import spaces

from mlbits.agents.agent import AgentError, ReplaySpec
from mlbits.agents.maths.returns import RewardScale
from mlbits.agents.memory.replay import Replay
from mlbits.agents.networks.normaliser import Normaliser
from tests.agents.memory.plays import hand_written
from tests.agents.rollouts import VECTOR, draw, learn, made_up_rollout, make_agent
from tests.agents.test_ddpg import TWO

THREE = spaces.Discrete(3)
BOTH = {"normalize_obs": True, "normalize_reward": True}
SMALL = {"learning_starts": 0, "batch_size": 8, "hidden": (16,), **BOTH}
OFF_POLICY = {name: (space, {"replay_ratio": 0.1}) for name, space in (("dqn", THREE), ("ddpg", TWO), ("sac", TWO))}


@dataclasses.dataclass
class Config:
    """Settings for tests."""

    normalize_obs: bool = True
    normalize_reward: bool = True
    discount: float = 0.5
    hindsight: str = "none"


def off_policy(name, seed=0, **settings):
    actions, own = OFF_POLICY[name]
    return make_agent(name, actions, seed=seed, **{**SMALL, **own, **settings})


def played(agent, seed=0, scale=1.0):
    """A rollout [6, 5, 1] of rather wide observations, off 0, with rewards of a size of their own."""
    with_log_prob = made_up_rollout(make_agent("ppo", THREE), seed=seed)
    actions = agent.act(torch.zeros(30, 4), None, draw(seed)).sample
    return dataclasses.replace(
        with_log_prob, obs=5 + 3 * with_log_prob.obs, last_obs=5 + 3 * with_log_prob.last_obs,
        final_obs=5 + 3 * with_log_prob.final_obs, reward=scale * with_log_prob.reward,
        sample=actions.view(6, 5, 1, *actions.shape[1:]),
    )  # fmt: skip


def replay_of(rollout, capacity=400):
    return Replay(ReplaySpec(6, capacity), rollout.obs[0], rollout.sample[0], None)


def taught(agent, rounds=2, scale=1.0):
    """An agent after some rounds of learning; its replay buffer and its rollouts."""
    rollouts = [played(agent, seed, scale) for seed in range(rounds)]
    replay = replay_of(rollouts[0])
    for rollout in rollouts:
        replay.add(rollout)
        agent.learn(replay, 0.5, draw(7))
    return replay, rollouts


def test_drawn_transitions_by_hand():
    """Observations 0, 10, ..., 50: mean 25, variance 1750 / 6. Running returns of gamma 1/2: 1, 2.5, 5.25, ..."""
    rollout = hand_written()
    normaliser = Normaliser(Config(), spaces.Box(-99, 99, (1,)), "cpu")
    normaliser.update(rollout)
    returns = []
    for reward in (1, 2, 4, 8, 16, 32):
        returns.append(reward + (returns[-1] / 2 if returns else 0))
    assert normaliser.unit == pytest.approx(np.std(returns))
    replay = Replay(ReplaySpec(3, 10), rollout.obs[0], rollout.sample[0], None)
    replay.add(rollout)
    raw = replay.sample(50, draw(), n_step=2, discount=0.5)
    drawn = normaliser.drawn(raw)
    assert torch.allclose(drawn.obs, (raw.obs - 25) / math.sqrt(1750 / 6))
    assert torch.allclose(drawn.next_obs, (raw.next_obs - 25) / math.sqrt(1750 / 6))
    assert torch.allclose(drawn.reward, raw.reward / float(np.std(returns)))
    for name in ("action", "discount", "slot"):
        assert torch.equal(getattr(drawn, name), getattr(raw, name))


def test_neither_setting_changes_anything():
    normaliser = Normaliser(Config(False, False), VECTOR, "cpu")
    rollout = hand_written()
    normaliser.update(rollout)
    assert normaliser.obs(rollout.obs) is rollout.obs
    assert normaliser.drawn(None) is None
    assert (normaliser.unit, normaliser.state_dict()) == (1.0, {})


def test_goals_have_moments_of_what_was_achieved_and_desired_where_one_becomes_the_other():
    """A goal that is always the same has no deviation of its own, and another in its place would be clipped."""
    space = spaces.Dict(dict.fromkeys(("observation", "achieved_goal", "desired_goal"), VECTOR))
    plain = made_up_rollout(make_agent("ppo", THREE))

    def seen(obs):
        return {"observation": obs, "achieved_goal": 2 * obs, "desired_goal": torch.full_like(obs, 3.0)}

    rollout = dataclasses.replace(
        plain, obs=seen(plain.obs), last_obs=seen(plain.last_obs), final_obs=seen(plain.final_obs)
    )
    both = torch.cat([2 * plain.obs.flatten(0, 2), torch.full_like(plain.obs.flatten(0, 2), 3.0)])
    relabelled = {name: 2 * plain.obs.flatten(0, 2) for name in space}
    normaliser = Normaliser(Config(normalize_reward=False, hindsight="future"), space, "cpu")
    normaliser.update(rollout)
    found = normaliser.obs(relabelled)
    wanted = (2 * plain.obs.flatten(0, 2) - both.mean(0)) / both.std(0, unbiased=False)
    assert torch.allclose(found["desired_goal"], wanted, atol=1e-4)
    assert torch.equal(found["desired_goal"], found["achieved_goal"])
    alone = Normaliser(Config(normalize_reward=False), space, "cpu")
    alone.update(rollout)
    assert float(alone.obs(relabelled)["desired_goal"].abs().min()) == 10.0  # all that is left of them


@pytest.mark.parametrize("name", OFF_POLICY)
def test_the_replay_keeps_raw_numbers_and_moments_are_of_all_steps(name):
    agent = off_policy(name)
    replay, rollouts = taught(agent, rounds=3)
    seen = torch.cat([rollout.obs.flatten(0, 2) for rollout in rollouts])
    stored = replay.sample(40, draw()).obs
    assert (stored[:, None] == seen).all(-1).any(-1).all()
    assert torch.allclose(agent.normaliser.moments.mean.float(), seen.mean(0), atol=1e-5)
    assert torch.allclose(agent.normaliser.moments.var.float(), seen.var(0, unbiased=False), atol=1e-4)
    assert float(agent.normaliser.reward_scale.count) == 90
    scale = RewardScale(agent.config.discount)
    for rollout in rollouts:
        scale.update(rollout)
    assert agent.normaliser.unit == scale.unit


@pytest.mark.parametrize("name", OFF_POLICY)
def test_acting_and_valuing_change_no_moments(name):
    agent = off_policy(name)
    taught(agent)
    before = {key: value.clone() for key, value in agent.normaliser.state_dict().items()}
    for greedy in (True, False):
        agent.act(100 * torch.ones(3, 4), None, draw(), greedy=greedy)
    if name == "dqn":
        agent.state_values(100 * torch.ones(3, 4))
        agent.policy_and_value(100 * torch.ones(3, 4), None)
    assert all(torch.equal(value, before[key]) for key, value in agent.normaliser.state_dict().items())


@pytest.mark.parametrize("name", OFF_POLICY)
def test_a_copy_acts_as_the_agent_did_whatever_the_agent_learns_next(name):
    agent, frozen = off_policy(name), off_policy(name, seed=1)
    replay, _ = taught(agent)
    obs = 5 + 3 * torch.randn(20, 4, generator=draw(3))
    wanted = agent.act(obs, None, draw(), greedy=True).action
    frozen.load_state_dict(agent.state_dict())
    assert torch.equal(frozen.act(obs, None, draw(), greedy=True).action, wanted)
    replay.add(dataclasses.replace(played(agent, 9), obs=50 + played(agent, 9).obs))
    agent.learn(replay, 0.5, draw())
    assert torch.equal(frozen.act(obs, None, draw(), greedy=True).action, wanted)
    assert not torch.equal(frozen.normaliser.moments.mean, agent.normaliser.moments.mean)


@pytest.mark.parametrize("name", OFF_POLICY)
def test_learning_goes_on_from_a_saved_state_bit_for_bit(name):
    agent, other = off_policy(name), off_policy(name, seed=1)
    replay, _ = taught(agent)
    other.load_state_dict(agent.state_dict())
    replay.add(played(agent, 5))
    for one in (agent, other):
        one.learn(replay, 0.5, draw(1))
    states = agent.state_dict(), other.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


@pytest.mark.parametrize("name", OFF_POLICY)
def test_the_units_of_observations_and_rewards_do_not_matter(name):
    """Observations in other units and a thousand times the rewards give the same actions, and values in their unit."""
    one, two = off_policy(name), off_policy(name)
    rollouts = [played(one, seed) for seed in range(3)]
    other = [
        dataclasses.replace(
            rollout, obs=128 * rollout.obs, last_obs=128 * rollout.last_obs, final_obs=128 * rollout.final_obs,
            reward=1024 * rollout.reward,
        )
        for rollout in rollouts
    ]  # fmt: skip
    for agent, plays in ((one, rollouts), (two, other)):
        replay = replay_of(plays[0])
        for rollout in plays:
            replay.add(rollout)
            agent.learn(replay, 0.5, draw(7))
    obs = 5 + 3 * torch.randn(20, 4, generator=draw(3))
    first, second = (agent.act(x, None, draw(), greedy=True).action for agent, x in ((one, obs), (two, 128 * obs)))
    assert torch.allclose(first.float(), second.float(), atol=1e-3)
    assert two.normaliser.unit == pytest.approx(1024 * one.normaliser.unit, rel=1e-4)
    if name == "dqn":
        assert torch.allclose(two.values(128 * obs), 1024 * one.values(obs), rtol=1e-2, atol=1)
        assert torch.allclose(one.policy_and_value(obs, None)[1], one.state_values(obs))


def test_compiled_updates_and_actions_are_those_of_torch():
    compiled = off_policy("dqn", double=True)
    assert compiled._compiled is not None
    plain = copy.deepcopy(compiled)
    plain._compiled, plain._updates_at_once = None, 1
    for agent in (compiled, plain):
        taught(agent, rounds=3)
    assert compiled.updates == plain.updates == 9
    assert torch.allclose(compiled.optimizer.flat, plain.optimizer.flat, atol=1e-5)
    obs = 5 + 3 * torch.randn(9, 4, generator=draw(3))
    assert torch.equal(compiled._best(obs, None), plain._best(obs, None))
    assert torch.equal(compiled._best(obs, None), compiled.values(obs).argmax(-1))


def test_images_are_learned_from():
    space = spaces.Box(0, 255, (9, 8, 3), np.uint8)
    agent = make_agent("dqn", THREE, space, **SMALL, replay_ratio=1.0)
    shape = (6, 5, 1)
    obs = torch.randint(256, (*shape, *space.shape), generator=draw(), dtype=torch.uint8)
    rollout = dataclasses.replace(
        made_up_rollout(make_agent("ppo", THREE)), obs=obs, last_obs=obs[0], final_obs=obs,
        sample=torch.zeros(shape, dtype=torch.int64),
    )  # fmt: skip
    replay = replay_of(rollout)
    replay.add(rollout)
    assert math.isfinite(agent.learn(replay, 0.0, draw())["loss"])
    channels = obs.flatten(0, 2).double().movedim(-1, 1).transpose(0, 1).flatten(1)
    assert torch.allclose(agent.normaliser.moments.mean, channels.mean(1))


@pytest.mark.parametrize("name", OFF_POLICY)
def test_indices_are_refused_by_name(name):
    with pytest.raises(AgentError, match=r"^normalize_obs: got the observation space"):
        make_agent(name, OFF_POLICY[name][0], spaces.Discrete(4), normalize_obs=True)


def test_the_warning_of_a_narrow_support_is_in_scaled_units(recwarn):
    """Rewards of a thousand are no reason to warn where they are divided by the deviation of returns."""
    agent = off_policy("dqn", head="categorical", discount=0.5)
    taught(agent, scale=1000.0)
    assert not recwarn.list
    plain = off_policy("dqn", head="categorical", discount=0.5, normalize_reward=False)
    with pytest.warns(UserWarning, match="v_min, v_max"):
        taught(plain, scale=1000.0)


# REINFORCE


def test_reinforce_scales_rewards_and_its_values_are_in_their_own_unit():
    made = [make_agent("reinforce", THREE, normalize_reward=True) for _ in range(2)]
    rollout = made_up_rollout(made[0])
    for agent, factor in zip(made, (1, 1024), strict=True):
        learn(agent, dataclasses.replace(rollout, reward=factor * rollout.reward))
    one, two = (agent.core.optimizer.flat for agent in made)
    assert torch.allclose(one, two, atol=1e-5)
    obs = torch.randn(5, 4, generator=draw())
    assert torch.allclose(made[1].state_values(obs), 1024 * made[0].state_values(obs), rtol=1e-2)
    scale = RewardScale(made[0].config.discount)
    scale.update(rollout)
    assert made[0].reward_scale.unit == scale.unit


def test_whole_episodes_begin_without_what_was_cut_before():
    """Each rollout resets all copies: the sum of an episode that was cut is not carried into the next one."""
    agent = make_agent("reinforce", THREE, normalize_reward=True, returns="to_go")
    rollout = dataclasses.replace(
        made_up_rollout(agent), terminated=torch.zeros(6, 5, dtype=torch.bool), truncated=torch.zeros(6, 5).bool()
    )
    learn(agent, rollout)
    learn(agent, rollout)
    once = RewardScale(agent.config.discount)
    once.update(rollout)
    assert agent.reward_scale.unit == pytest.approx(once.unit)
