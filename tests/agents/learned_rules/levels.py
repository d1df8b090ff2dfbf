"""Levels for tests of learned rules: small gridworlds, all alike, behind the interface that lifetimes need."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import mlbits


class Grids:
    """``lifetimes`` x ``copies`` copies of a gridworld, whose observations are states."""

    def __init__(self, lifetimes: int, copies: int, *, seed: int = 0, updates: int = 50, **settings: Any) -> None:
        self.batch: Any = mlbits.make_batch(
            "mlbits/GridWorld-v0", lifetimes * copies, seed=seed, **{"map": "empty_8x8", **settings}
        )
        self.num_actions = int(self.batch.action_space.n)
        self.num_states = int(self.batch.observation_space.n)
        self.lifetime_updates = torch.full((lifetimes,), updates)
        self.copies, self.renewed = copies, list[int]()

    def renew(self, lifetimes: Tensor | None = None) -> None:
        which = torch.arange(len(self.lifetime_updates)) if lifetimes is None else lifetimes
        self.renewed += which.tolist()
        ended = torch.zeros(len(self.lifetime_updates), dtype=torch.bool)
        ended[which] = True
        self.batch.reset(which=ended.repeat_interleave(self.copies))

    def state(self) -> dict[str, Tensor]:
        return {"copies": self.batch.state()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.batch.set_state(state["copies"])
