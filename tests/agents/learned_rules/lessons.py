"""Lessons made of random numbers, for tests that need no environment."""

from __future__ import annotations

import torch

from mlbits.agents.learned_rules.populations import Hyper, Lesson

STEPS, LIFETIMES, COPIES, STATES, ACTIONS, PREDICTIONS = 6, 3, 4, 7, 3, 5


def lesson(seed: int, *, inputs: int = 0, dtype: torch.dtype = torch.float64) -> Lesson:
    """A rollout of random states (or vectors of ``inputs`` numbers), actions and ends."""
    generator, lead = torch.Generator().manual_seed(seed), (STEPS, LIFETIMES, COPIES)
    if inputs:
        obs, following = torch.randn(2, *lead, inputs, generator=generator, dtype=dtype)
    else:
        obs, following = torch.randint(STATES, (2, *lead), generator=generator)
    action = torch.randint(ACTIONS, lead, generator=generator)
    reward = torch.randn(lead, generator=generator, dtype=dtype)
    terminated, truncated = torch.rand(2, *lead, generator=generator) < 0.1
    return Lesson(obs, following, action, reward, terminated, truncated & ~terminated)


def hyper(dtype: torch.dtype = torch.float64) -> Hyper:
    """Other hyperparameters in each lifetime."""
    return Hyper(torch.tensor([2.0, 5.0, 9.0], dtype=dtype), torch.tensor([0.1, 0.5, 1.0], dtype=dtype))
