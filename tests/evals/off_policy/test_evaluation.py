"""Whole evaluations: a tabular problem, recorded and estimated probabilities, verdicts, masks, continuous actions."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces

import mlbits
from mlbits.agents import AGENTS
from mlbits.agents.agent import Decision
from mlbits.agents.memory.dataset import Dataset, Episode
from mlbits.evals.off_policy.behaviour import estimated_log_prob
from mlbits.evals.off_policy.estimators import OffPolicyError
from mlbits.evals.off_policy.evaluation import evaluate_off_policy, summary_lines
from mlbits.evals.reproductions.offline.off_policy import ACTIONS, STATES, Problem

HORIZON = 4


class Table:
    """A policy as a table, [S, A]."""

    def __init__(self, policy):
        self.policy = torch.as_tensor(policy)

    def action_probabilities(self, obs, legal_mask, *, greedy=False):
        found = self.policy[obs.reshape(-1).long()]
        if legal_mask is not None:
            found = found * legal_mask
            found = found / found.sum(1, keepdim=True)
        return torch.nn.functional.one_hot(found.argmax(1), found.shape[1]).double() if greedy else found

    def act(self, obs, legal_mask, generator, *, greedy=False):
        chance = self.action_probabilities(obs, legal_mask, greedy=greedy)
        action = torch.multinomial(chance, 1, generator=generator)[:, 0]
        return Decision(action, action, None)


def tabular(uniform=0.5, episodes=400, seed=0):
    """A problem, its dataset with recorded probabilities, and its policy as an agent."""
    problem = Problem.random(seed)
    behaviour = (1 - uniform) * problem.policy + uniform / ACTIONS
    state, action, reward = problem.play(behaviour, episodes, HORIZON, seed)
    flags = np.zeros((episodes, HORIZON), bool)
    cut = flags.copy()
    cut[:, -1] = True
    data = Dataset(
        obs=torch.from_numpy(state.ravel()), action=torch.from_numpy(action.ravel()),
        reward=torch.from_numpy(reward.ravel()).float(), terminated=torch.from_numpy(flags.ravel()),
        truncated=torch.from_numpy(cut.ravel()), starts=torch.arange(episodes + 1) * HORIZON,
        observation_space=spaces.Discrete(STATES), action_space=spaces.Discrete(ACTIONS),
        log_prob=torch.from_numpy(np.log(behaviour[state[:, :-1], action]).ravel()).float(), name="tabular",
    )  # fmt: skip
    return problem, data, Table(problem.policy)


def rows(result):
    return {row["name"]: row for row in result["rows"]}


@pytest.mark.parametrize("behaviour", ["recorded", "estimated"])
def test_every_estimate_is_near_the_exact_value(behaviour):
    problem, data, agent = tabular()
    result = evaluate_off_policy(agent, data, discount=1.0, horizon=HORIZON, behaviour=behaviour)
    truth, found = problem.value(HORIZON), rows(result)
    assert list(found) == ["IS", "PDIS", "WIS", "PDWIS", "FQE", "DR", "WDR"]
    for name, row in found.items():
        assert row["value"] == pytest.approx(truth, abs=0.15 if "IS" in name and "W" not in name else 0.06)
        low, high = row["interval"]
        assert low < row["value"] < high
        assert row["verdict"] == ""
    assert result["behaviour"] == behaviour
    assert result["mean_weight"] == pytest.approx(1, abs=0.05)
    assert result["model"] == "a table"
    assert result["truncated"] == 1
    assert result["data_value"] == pytest.approx(float(data.returns.mean()), abs=1e-5)
    assert any(f"behaviour probabilities: {behaviour}" in line for line in summary_lines(result))


def test_without_a_horizon_truncated_episodes_go_on():
    problem, data, agent = tabular()
    found = rows(evaluate_off_policy(agent, data, discount=0.9))
    moves = np.einsum("sa,sat->st", problem.policy, problem.transition)
    endless = np.linalg.solve(np.eye(STATES) - 0.9 * moves, (problem.policy * problem.reward).sum(1))
    for name in ("FQE", "DR", "WDR"):
        assert found[name]["value"] == pytest.approx(problem.start @ endless, abs=0.1)
    assert found["PDWIS"]["value"] < 0.5 * found["FQE"]["value"]  # four steps alone


def test_frequencies_are_the_estimated_behaviour_of_a_table():
    _, data, _ = tabular()
    before = torch.arange(data.num_steps) + data.episode_of_step
    found, how = estimated_log_prob(data, before)
    assert how == "frequencies"
    here = (data.obs[before] == 2) & (data.action == 1)
    share = float(here.sum()) / float((data.obs[before] == 2).sum())
    assert found[here].exp().tolist() == pytest.approx([share] * int(here.sum()))


def test_few_effective_episodes_are_worth_nothing():
    _, data, agent = tabular(uniform=1.0, episodes=8)
    result = evaluate_off_policy(agent, data, discount=0.5)
    found = rows(result)
    assert found["IS"]["ess"] < 5
    assert found["IS"]["verdict"] == f"worth nothing: as if from {found['IS']['ess']:.1f} episodes"
    assert found["WIS"]["verdict"].startswith("worth nothing")
    many = rows(evaluate_off_policy(agent, tabular(uniform=1.0, episodes=40)[1], discount=0.5))
    assert 5 <= many["IS"]["ess"] < 30
    assert many["IS"]["verdict"].startswith("weak: as if from")


def test_a_policy_that_the_data_never_follow():
    """Data in which only action 0 is taken say nothing about always taking action 2, and the summary says so."""
    _, data, _ = tabular()
    data = replace(data, action=torch.zeros_like(data.action), log_prob=torch.zeros(data.num_steps))
    always = np.zeros((STATES, ACTIONS))
    always[:, 2] = 1
    result = evaluate_off_policy(Table(always), data, discount=0.9)
    found = rows(result)
    assert found["WIS"]["value"] is None
    assert found["WIS"]["interval"] == [None, None]
    assert found["WIS"]["verdict"].startswith("undefined: no episode")
    assert found["IS"]["verdict"].startswith("worth nothing")
    assert found["FQE"]["verdict"].startswith("worth nothing: 100% of the policy's actions were never tried")
    assert summary_lines(result)[-1].startswith("these data say nothing about this policy")


def test_weights_that_do_not_have_mean_one_are_named():
    """Recorded probabilities that are too high by a common factor."""
    _, data, agent = tabular()
    wrong = replace(data, log_prob=data.log_prob - 0.5)
    found = rows(evaluate_off_policy(agent, wrong, discount=0.9))
    assert "instead of 1" in found["IS"]["verdict"]
    assert "instead of 1" in found["PDIS"]["verdict"]
    assert found["WIS"]["verdict"] == ""  # a common factor cancels


def test_greedy_policies_of_discrete_actions():
    problem, data, agent = tabular(uniform=1.0, episodes=4000)
    best = problem.policy.argmax(1)
    greedy = replace_policy(problem, np.eye(ACTIONS)[best])
    found = rows(evaluate_off_policy(agent, data, discount=1.0, horizon=HORIZON, greedy=True))
    for name in ("WIS", "PDWIS", "FQE", "DR", "WDR"):
        assert found[name]["value"] == pytest.approx(greedy.value(HORIZON), abs=0.12)


def replace_policy(problem, policy):
    return Problem(problem.start, problem.transition, problem.reward, policy)


def test_illegal_actions_have_no_probability():
    """The mask of the observation before a step counts, not that of the one after it."""
    _, data, _ = tabular(uniform=1.0, episodes=50)
    mask = torch.ones(len(data.obs), ACTIONS, dtype=torch.bool)
    before = torch.arange(data.num_steps) + data.episode_of_step
    mask[:, 0] = False  # illegal everywhere but where it was played
    mask[before[data.action == 0], 0] = True
    uniform = Table(np.full((STATES, ACTIONS), 1 / ACTIONS))
    log_prob = -torch.where(data.action == 0, math.log(3), math.log(2))
    found = rows(evaluate_off_policy(uniform, replace(data, mask=mask, log_prob=log_prob), discount=0.9))
    assert found["IS"]["ess"] == pytest.approx(50)  # the same policy, so all weights are 1
    assert found["IS"]["value"] == pytest.approx(found["WIS"]["value"])


def test_recorded_probabilities_are_checked():
    _, data, agent = tabular()
    bad = data.log_prob.clone()
    bad[HORIZON + 2] = 0.5
    with pytest.raises(OffPolicyError, match=r"tabular: episode 1: log_prob: got 0\.5 in step 2; wanted at most 0"):
        evaluate_off_policy(agent, replace(data, log_prob=bad))
    with pytest.raises(OffPolicyError, match="behaviour: got 'recorded'; tabular has no recorded probabilities"):
        evaluate_off_policy(agent, replace(data, log_prob=None), behaviour="recorded")
    assert evaluate_off_policy(agent, replace(data, log_prob=None))["behaviour"] == "estimated"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"discount": 1.0}, "discount: got 1; wanted 0 to 1, and below 1 without a horizon"),
        ({"discount": -0.1}, "discount: got -0.1"),
        ({"horizon": 2}, "horizon: got 2; wanted at least 4"),
        ({"resamples": 1}, "resamples: got 1; wanted at least 2"),
        ({"refits": 0}, "refits: got 0; wanted at least 2"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    _, data, agent = tabular(episodes=10)
    with pytest.raises(OffPolicyError, match=message):
        evaluate_off_policy(agent, data, **arguments)


def test_agents_that_plan_are_refused():
    _, data, _ = tabular(episodes=10)
    with pytest.raises(OffPolicyError, match="agent: got object, which plans"):
        evaluate_off_policy(object(), data)


# Continuous actions


def pendulum(episodes=20, steps=40, seed=0, **settings):
    """Episodes of an untrained PPO on Pendulum, cut after some steps, with draws and their log probabilities."""
    entry = AGENTS["ppo"]
    batch = mlbits.make_batch("mlbits/Pendulum-v0", episodes, seed=seed)
    spaces_ = batch.observation_space, batch.action_space
    agent = entry.make(entry.config_class()(**settings), *spaces_, seed=1, device="cpu")
    generator, seen, made = torch.Generator().manual_seed(seed), [batch.obs[:, 0].clone()], []
    for _ in range(steps):
        decision = agent.act(batch.obs[:, 0], None, generator)
        made.append(
            (decision.action, decision.sample, decision.log_prob, batch.step(decision.action).reward[:, 0].clone())
        )
        seen.append(batch.obs[:, 0].clone())
    action, draw, log_prob, reward = (torch.stack(part, 1) for part in zip(*made, strict=True))
    obs = torch.stack(seen, 1)
    episodes_ = [
        Episode(
            obs[e], action[e], reward[e], truncated=[False] * (steps - 1) + [True], log_prob=log_prob[e], draw=draw[e]
        )
        for e in range(episodes)
    ]
    return agent, Dataset.from_episodes(episodes_, *spaces_, name="pendulum")


def test_a_continuous_policy_on_its_own_data():
    agent, data = pendulum()
    result = evaluate_off_policy(agent, data, discount=0.9, features=60, refits=20)
    found = rows(result)
    assert result["behaviour"] == "recorded"
    assert result["mean_weight"] == pytest.approx(1, abs=1e-4)
    assert found["IS"]["ess"] == pytest.approx(data.num_episodes, rel=1e-4)
    assert found["IS"]["value"] == pytest.approx(result["data_value"], rel=1e-4)
    assert result["model"] == "60 random Fourier features"
    assert found["FQE"]["value"] == pytest.approx(result["data_value"], rel=0.15)


def test_draws_of_another_kind_are_not_compared():
    """Densities of draws that this policy would have played differently: the behaviour is estimated instead."""
    agent, data = pendulum(episodes=12, steps=20)
    result = evaluate_off_policy(agent, replace(data, draw=data.draw.tanh()), discount=0.9, features=30, refits=2)
    assert result["behaviour"] == "estimated"
    assert "draws that this policy would play as other actions" in result["behaviour_fit"]
    with pytest.raises(OffPolicyError, match="behaviour: got 'recorded'; its probabilities are those of draws"):
        evaluate_off_policy(agent, replace(data, draw=data.draw.tanh()), behaviour="recorded")


def test_greedy_continuous_actions_have_no_weights():
    agent, data = pendulum(episodes=6, steps=20)
    result = evaluate_off_policy(agent, data, discount=0.9, greedy=True, features=30, refits=2)
    assert [row["name"] for row in result["rows"]] == ["FQE"]
    assert result["without"] == [("IS, PDIS, WIS, PDWIS, DR, WDR", "greedy actions have no density")]


def test_an_estimated_mixture_finds_two_policies():
    """Actions are near -1 or near 1 by chance, and at the upper bound in part: a single Gaussian would fit neither."""
    generator = torch.Generator().manual_seed(0)
    count = 4000
    side = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    action = (side + 0.1 * torch.randn(count, generator=generator)).clamp(max=1.0)[:, None]
    obs = torch.rand(count + 20, 2, generator=generator)
    data = Dataset(
        obs=obs, action=action, reward=torch.zeros(count), terminated=torch.zeros(count, dtype=torch.bool),
        truncated=torch.arange(count) % 200 == 199, starts=torch.arange(21) * 200,
        observation_space=spaces.Box(0, 1, (2,), np.float32), action_space=spaces.Box(-3, 1, (1,), np.float32),
    )  # fmt: skip
    before = torch.arange(count) + data.episode_of_step
    found, how = estimated_log_prob(data, before)
    assert how.startswith("a mixture of Gaussians")
    low, top = side < 0, action[:, 0] == 1
    # By hand: half of each; N(-1, 0.1^2) inside; half of the upper ones at the bound, a quarter of all.
    entropy = math.log(2) + 0.5 * math.log(2 * math.pi * math.e * 0.01)
    assert float(-found[low].mean()) == pytest.approx(entropy, abs=0.15)
    assert float(found[top].exp().mean()) == pytest.approx(0.25, abs=0.05)
