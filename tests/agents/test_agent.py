"""The registry of agents, the random agent, and the small functions that agents share."""

import dataclasses

import pytest
import torch
from gymnasium import spaces

from mlbits.agents import AGENTS, AgentEntry, agent_entry, agent_module, bot_names, register_agent
from mlbits.agents.agent import (
    AgentError,
    Rollout,
    content_hash,
    network_generator,
    pick,
    prefixed,
    rows,
    unprefixed,
)
from mlbits.agents.bots.random_bot import RandomAgent
from mlbits.envs.core.errors import GameError, UnknownIdError
from tests.agents.rollouts import VECTOR, draw


def test_an_unknown_agent_is_refused_with_the_nearest_name():
    with pytest.raises(UnknownIdError, match="unknown agent 'pp0'; did you mean 'ppo'"):
        agent_entry("pp0")


def test_a_custom_agent_can_be_registered(monkeypatch):
    monkeypatch.setattr("mlbits.agents.registry.AGENTS", AGENTS.copy())
    register_agent("mine", AgentEntry("mlbits.agents.ppo", "PPO", "PPOConfig", "a copy"))
    assert agent_entry("mine").config_class().__name__ == "PPOConfig"
    assert agent_module("mine") == __name__
    assert "mine" not in AGENTS
    with pytest.raises(GameError, match=r"^name: the agent 'ppo' is already registered; wanted another name$"):
        register_agent("ppo", AgentEntry("mlbits.agents.dqn", "DQN", "DQNConfig", "another"))


def test_bots_are_the_entries_that_say_so(monkeypatch):
    assert bot_names() == ["random", "mcts", "diplomacy-hold", "diplomacy-greedy"]
    monkeypatch.setitem(AGENTS, "mine", dataclasses.replace(AGENTS["ppo"], bot=True))
    assert bot_names()[-1] == "mine"


def test_the_random_agent_is_uniform_over_legal_actions():
    agent = RandomAgent(VECTOR, spaces.Discrete(4))
    mask = torch.tensor([[True, False, True, True]]).expand(30_000, 4)
    decision = agent.act(torch.zeros(30_000, 4), mask, draw())
    share = torch.bincount(decision.action, minlength=4) / 30_000
    assert share[1] == 0
    assert ((share[[0, 2, 3]] - 1 / 3).abs() < 6 * (2 / 9 / 30_000) ** 0.5).all()
    assert torch.allclose(decision.log_prob, torch.tensor(1 / 3).log())
    assert agent.experience is None
    with pytest.raises(AgentError, match="does not learn"):
        agent.learn(None, 0.0, draw())
    assert agent.state_dict() == {}


def _numbered(active, mask):
    """A rollout [2, 2, 2] whose row k (of 8, by steps, then copies, then seats) has the number k everywhere."""
    number = torch.arange(8).view(2, 2, 2)
    ends = torch.zeros(2, 2, dtype=torch.bool)
    obs = {"a": number.float(), "b": torch.stack([number, number + 10], -1)}
    legal = torch.stack([number % 2 == 0, number > 4], -1) if mask else None
    return Rollout(
        obs=obs, last_obs=None, final_obs=None, sample=torch.stack([number, -number], -1), log_prob=-number.float(),
        reward=number.float(), terminated=ends, truncated=ends, legal_mask=legal, active=active,
    )  # fmt: skip


def test_a_rollout_is_flattened_to_the_learners_rows():
    active = torch.tensor([[[False, True], [False, False]], [[True, False], [False, True]]])  # rows 1, 4 and 7
    flat = _numbered(active, mask=True).flatten()
    assert flat.index.tolist() == [1, 4, 7]
    assert flat.obs["a"].tolist() == [1.0, 4.0, 7.0]
    assert flat.obs["b"].tolist() == [[1, 11], [4, 14], [7, 17]]
    assert flat.sample.tolist() == [[1, -1], [4, -4], [7, -7]]
    assert flat.log_prob.tolist() == [-1.0, -4.0, -7.0]
    assert flat.mask.tolist() == [[False, False], [True, False], [False, True]]
    assert flat.of(torch.arange(16).view(2, 2, 2, 2)).tolist() == [[2, 3], [8, 9], [14, 15]]


def test_a_rollout_entirely_of_the_learners_is_flattened_without_copying():
    rollout = _numbered(None, mask=False)
    flat = rollout.flatten()
    assert flat.index is None
    assert flat.mask is None
    assert flat.log_prob.tolist() == [-k for k in range(8)]
    assert flat.obs["b"].shape == (8, 2)
    for whole, part in ((rollout.obs["a"], flat.obs["a"]), (rollout.log_prob, flat.log_prob)):
        assert whole.data_ptr() == part.data_ptr()
    assert flat.of(rollout.reward).data_ptr() == rollout.reward.data_ptr()


def test_a_rollout_without_a_decision_has_no_rows():
    flat = _numbered(torch.zeros(2, 2, 2, dtype=torch.bool), mask=True).flatten()
    assert [len(part) for part in (flat.obs["a"], flat.mask, flat.sample, flat.log_prob, flat.index)] == [0] * 5


def test_leading_axes_are_flattened_and_rows_picked_in_dicts_too():
    tensor = torch.arange(24).view(2, 3, 4)
    assert rows(tensor, 2).shape == (6, 4)
    both = rows({"a": tensor, "b": tensor[..., 0]}, 2)
    assert both["a"].shape == (6, 4)
    assert both["b"].shape == (6,)
    index = torch.tensor([4, 0])
    for chosen in (
        index,
        [4, 0],
        torch.tensor([True, False, False, False, True, False]).nonzero()[:, 0].flip(0),
    ):
        picked = pick(both, chosen)
        assert torch.equal(picked["a"], both["a"][[4, 0]])
        assert torch.equal(picked["b"], both["b"][[4, 0]])


def test_prefixes_round_trip():
    state = {"a": torch.zeros(1), "b.c": torch.ones(2)}
    both = prefixed("one", state) | prefixed("one_more", state)
    assert set(both) == {"one.a", "one.b.c", "one_more.a", "one_more.b.c"}
    assert unprefixed("one", both).keys() == state.keys()


def test_the_generator_of_weights_is_independent_of_the_global_one():
    before = torch.get_rng_state()
    first = torch.rand(3, generator=network_generator(5))
    assert torch.equal(first, torch.rand(3, generator=network_generator(5)))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_hash_of_an_agent_depends_on_its_content():
    def ppo(seed):
        entry = agent_entry("ppo")
        return entry.make(entry.config_class()(), VECTOR, spaces.Discrete(3), seed=seed, device="cpu")

    assert content_hash(ppo(0)) == content_hash(ppo(0)) != content_hash(ppo(1))
    changed = ppo(0)
    state = changed.state_dict()
    name = next(name for name, value in state.items() if value.is_floating_point())
    changed.load_state_dict({**state, name: state[name] + 2**-10})
    assert content_hash(changed) != content_hash(ppo(0))
    assert content_hash(RandomAgent(VECTOR, spaces.Discrete(3))) != content_hash(ppo(0))
