"""Outcomes of truncated episodes in which all seats act at once: each seat goes on from its own last decision."""

import pytest
import torch

from mlbits import make_batch
from mlbits.agents.agent import OutcomeSpec, Rollout
from mlbits.agents.memory.outcomes import OutcomeReplay


def rollout(reward, truncated, q):
    steps, copies, seats = reward.shape
    none = torch.zeros(steps, copies, dtype=torch.bool)
    return Rollout(
        obs=torch.arange(steps * copies * seats).view(steps, copies, seats), last_obs=None, final_obs=None,
        sample=torch.zeros(steps, copies, seats), log_prob=torch.zeros(steps, copies, seats), reward=reward,
        terminated=none, truncated=truncated, legal_mask=None, active=None, notes={"q": q},
    )  # fmt: skip


def test_each_seat_goes_on_from_its_own_last_value():
    batch = make_batch("mlbits/Blotto-v0", 1, seats=3)
    replay = OutcomeReplay(OutcomeSpec(2, 100, 0.5), batch)
    reward = torch.tensor([[[1.0, 2.0, 3.0]], [[0.0, 0.0, 0.0]]])
    q = torch.tensor([[[9.0, 9.0, 9.0]], [[10.0, 20.0, 40.0]]])
    replay.add(rollout(reward, torch.tensor([[False], [True]]), q))
    drawn = replay.sample(200, torch.Generator().manual_seed(0))
    found = dict(zip(drawn.obs.tolist(), drawn.outcome.tolist(), strict=True))
    assert found == pytest.approx({0: 1 + 5, 1: 2 + 10, 2: 3 + 20, 3: 10, 4: 20, 5: 40})
