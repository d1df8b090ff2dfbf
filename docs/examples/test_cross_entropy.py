"""The cross-entropy method: one update by hand, a whole run through the loop, and saving."""

from __future__ import annotations

import json
from pathlib import Path

import cross_entropy
import pytest
import torch
from gymnasium import spaces

from mlbits.agents.agent import AgentError, Rollout
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.training import train


def test_one_update_by_hand() -> None:
    """Three one-step episodes in state 0 with actions 0, 1, 1 and returns 0, 1, 5; the elite is the last."""
    config = cross_entropy.CrossEntropyConfig(elite=0.3, step_size=0.5)
    agent = cross_entropy.CrossEntropy(config, spaces.Discrete(2), spaces.Discrete(2))
    never, one_step = torch.zeros(1, 3, dtype=torch.bool), torch.ones(1, 3, dtype=torch.bool)
    rollout = Rollout(
        obs=torch.zeros(1, 3, 1, dtype=torch.int32),
        last_obs=torch.zeros(3, 1, dtype=torch.int32),
        final_obs=torch.zeros(1, 3, 1, dtype=torch.int32),
        sample=torch.tensor([0, 1, 1]).view(1, 3, 1),
        log_prob=torch.full((1, 3, 1), -0.693),
        reward=torch.tensor([0.0, 1.0, 5.0]).view(1, 3, 1),
        terminated=one_step,
        truncated=never,
        legal_mask=None,
        active=one_step[..., None],
    )
    metrics = agent.learn(rollout, 0.0, torch.Generator())
    assert metrics["elite_return"] == 5.0
    # State 0: (1 - 0.5) * 0.5 + 0.5 * 0 and (1 - 0.5) * 0.5 + 0.5 * 1. State 1 was not seen.
    assert agent.table.tolist() == [[0.25, 0.75], [0.5, 0.5]]


def test_it_learns_the_shortest_path(tmp_path: Path) -> None:
    """Through the loop: GridWorld's optimum is 14 steps, 13 of which cost 0.01, so a return of 0.87."""
    run = {"total_steps": 200_000, "num_envs": 64, "device": "cpu", "video": False}
    folder, summary = train(resolve("cross_entropy", "mlbits/GridWorld-v0", run=run), tmp_path, console=False)
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    returns = [record["return/train"] for record in records if "return/train" in record]
    assert returns[0] < -0.9
    assert summary["return_mean"] == pytest.approx(0.87)


def test_a_restored_agent_decides_the_same() -> None:
    """A second agent with the first one's state decides as it does; another shape is refused."""
    config, actions = cross_entropy.CrossEntropyConfig(), spaces.Discrete(3)
    agent, other = (cross_entropy.CrossEntropy(config, spaces.Discrete(5), actions) for _ in range(2))
    agent.table.copy_(torch.rand(5, 3, generator=torch.Generator().manual_seed(0)))
    other.load_state_dict(agent.state_dict())
    rows = torch.arange(5)
    one, two = (player.act(rows, None, torch.Generator().manual_seed(1)) for player in (agent, other))
    assert torch.equal(one.action, two.action)
    with pytest.raises(AgentError, match="table: got"):
        cross_entropy.CrossEntropy(config, spaces.Discrete(4), actions).load_state_dict(agent.state_dict())


def test_invalid_settings_and_spaces_are_refused() -> None:
    """A setting out of range, and a space without a table."""
    with pytest.raises(AgentError, match="elite: got 2"):
        cross_entropy.CrossEntropyConfig(elite=2)
    config = cross_entropy.CrossEntropyConfig()
    with pytest.raises(AgentError, match="observation_space"):
        cross_entropy.CrossEntropy(config, spaces.Box(0, 1, (3,)), spaces.Discrete(2))
