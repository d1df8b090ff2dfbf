"""The registry of agents, the random agent, and the small functions that agents share."""

import pytest
import torch
from gymnasium import spaces

from mlbits.agents import AGENTS, AgentEntry, agent_entry, register_agent
from mlbits.agents.agent import (
    AgentError,
    check_range,
    content_hash,
    network_generator,
    pick,
    prefixed,
    rows,
    unprefixed,
)
from mlbits.agents.bots.random_bot import RandomAgent
from mlbits.envs.core.errors import UnknownIdError
from tests.agents.rollouts import VECTOR, draw


def test_an_unknown_agent_is_refused_with_the_nearest_name():
    with pytest.raises(UnknownIdError, match="unknown agent 'pp0'; did you mean 'ppo'"):
        agent_entry("pp0")


def test_an_agent_of_ones_own_can_be_registered(monkeypatch):
    monkeypatch.setattr("mlbits.agents.AGENTS", dict(AGENTS))
    register_agent("mine", AgentEntry("mlbits.agents.ppo", "PPO", "PPOConfig", "a copy"))
    assert agent_entry("mine").config_class().__name__ == "PPOConfig"


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


def test_prefixes_come_off_as_they_went_on():
    state = {"a": torch.zeros(1), "b.c": torch.ones(2)}
    both = prefixed("one", state) | prefixed("one_more", state)
    assert set(both) == {"one.a", "one.b.c", "one_more.a", "one_more.b.c"}
    assert unprefixed("one", both).keys() == state.keys()


def test_the_generator_of_weights_is_its_own():
    before = torch.get_rng_state()
    first = torch.rand(3, generator=network_generator(5))
    assert torch.equal(first, torch.rand(3, generator=network_generator(5)))
    assert torch.equal(torch.get_rng_state(), before)


def test_ranges_are_inclusive_and_errors_name_the_setting():
    class Settings:
        share = 1.0

    check_range(Settings(), share=(0, 1))
    Settings.share = 1.5
    with pytest.raises(AgentError, match=r"^share: got 1.5; wanted a number from 0 to 1$"):
        check_range(Settings(), share=(0, 1))


def test_the_hash_of_an_agent_is_that_of_its_content():
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
