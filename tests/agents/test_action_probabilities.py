"""``action_probabilities`` agree with the frequencies of many draws, with masks and greedy, too."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from mlbits.agents import AGENTS
from mlbits.agents.agent import AgentError

DRAWS, ACTIONS = 20_000, 5
SEEN = {"q-learning": spaces.MultiDiscrete([3, 2])}
DISCRETE = [name for name, entry in AGENTS.items() if "discrete" in entry.actions and not entry.plans]


def make(name, actions, **settings):
    entry = AGENTS[name]
    observations = SEEN.get(name, spaces.Box(-1, 1, (4,), np.float32))
    return entry.make(entry.config_class()(**settings), observations, actions, seed=3, device="cpu"), observations


@pytest.mark.parametrize("greedy", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", DISCRETE)
def test_frequencies_match_action_probabilities(name, masked, greedy):
    agent, observations = make(name, spaces.Discrete(ACTIONS))
    observations.seed(0)
    seen = torch.as_tensor(np.array(observations.sample()))[None]
    ignorant = masked and name.startswith("sb3-")  # these ignore masks, and play illegal actions
    mask = torch.tensor([[True, False, True, True, False]]) if masked else None
    if masked and not AGENTS[name].masks:
        with pytest.raises(AgentError, match="legal_mask: got action masks"):
            agent.action_probabilities(seen, mask, greedy=greedy)
        return
    said = agent.action_probabilities(seen, mask, greedy=greedy)
    assert said.shape == (1, ACTIONS)
    assert said.dtype == torch.float64
    assert float(said.sum()) == pytest.approx(1, abs=1e-6)
    if masked and not ignorant:
        assert said[0, [1, 4]].tolist() == [0, 0]
    many = [seen.expand(DRAWS, -1), None if mask is None else mask.expand(DRAWS, -1)]
    done = agent.act(*many, torch.Generator().manual_seed(1), greedy=greedy).action
    frequency = torch.bincount(done, minlength=ACTIONS) / DRAWS
    assert float((frequency - said[0]).abs().max()) < 0.02  # five standard deviations of a frequency of a half


def test_ties_of_a_table_are_broken_evenly():
    agent, _ = make("q-learning", spaces.Discrete(3), double=False)
    agent.epsilon = 0.3
    agent.tables[0, 0] = torch.tensor([1.0, 1.0, 0.0])
    said = agent.action_probabilities(torch.zeros(1, 2, dtype=torch.int32), None)
    assert said[0].tolist() == pytest.approx([0.45, 0.45, 0.1])


@pytest.mark.parametrize("name", ["ppo", "random", "q-learning", "sb3-ppo"])
def test_other_actions_are_refused(name):
    agent, observations = make(name, spaces.MultiDiscrete([2, 2]))
    with pytest.raises(AgentError, match=r"action_probabilities: got .*; wanted Discrete"):
        agent.action_probabilities(torch.as_tensor(np.array(observations.sample()))[None], None)
