"""Counts: 1 / sqrt(N), where N is how often an action was taken in a state.

Strehl and Littman, "An analysis of model-based interval estimation for Markov decision processes" (2008), equation 5,
as a reward; Bellemare et al., "Unifying count-based exploration and intrinsic motivation" (2016). States that are
indices are counted exactly, with discrete actions by pairs, as long as the table has room. Vectors and images are
counted by a hash, the signs of ``BITS`` random projections (Tang et al., "#Exploration", 2017, section 2.2, "SimHash"),
after bounded numbers were scaled to -1..1. Continuous actions are not counted, only states.

A step is counted after its bonus was taken, and N is at least 1, so that 1 is the most.

Example:
    mlbits train dqn mlbits/DeepSea-v0 --agent.bonus count
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from mlbits.agents.agent import AgentError
from mlbits.agents.exploration.settings import BonusSettings
from mlbits.agents.exploration.steps import Steps
from mlbits.envs.core.spaces import action_layout

BITS = 32
ROOM = 1_000_003  # entries of the table, a prime; more states than that are counted by their remainder


class Count:
    """The counts of one learner.

    Args:
        settings: not used.
        observation_space: one seat's: Discrete, MultiDiscrete, MultiBinary, or Box.
        action_space: one seat's.
        generator: of the random projections.
        device: of the table.

    Attributes:
        counts: int32 [entries].
        counted: how many entries are not 0.

    Raises:
        AgentError: for a Dict, whose parts have no common hash.
    """

    in_order, normalize = False, "none"

    def __init__(
        self,
        settings: BonusSettings,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        generator: torch.Generator,
        device: torch.device | str,
    ) -> None:
        if isinstance(observation_space, spaces.Dict):
            raise AgentError(f"bonus: got 'count' with the observation space {observation_space}; wanted indices, a "
                             "vector or an image, or bonus 'rnd' or 'icm'")  # fmt: skip
        self._actions = action_layout(action_space).nvec
        self._hash: tuple[Tensor, Tensor, Tensor] | None = None
        self._nvec: list[int] = []
        if isinstance(observation_space, spaces.Box):
            self._hash = _projections(observation_space, generator, device)
            number = 2**BITS
        else:
            self._nvec = _choices(observation_space)
            number = math.prod(self._nvec)
        self._number = number * math.prod(self._actions or (1,))
        self.counts = torch.zeros(min(self._number, ROOM), dtype=torch.int32, device=device)
        self.counted = 0

    def entries(self, steps: Steps) -> Tensor:
        """The table's entries of steps [N], int64 [N]."""
        code = self._hashed(steps.obs) if self._hash is not None else _mixed(steps.obs, self._nvec)
        if self._actions:
            code = code * math.prod(self._actions) + _mixed(steps.action, self._actions)
        return code if self._number <= ROOM else code % ROOM

    def _hashed(self, obs: Tensor) -> Tensor:
        assert self._hash is not None
        centre, scale, directions = self._hash
        signs = ((obs.flatten(1).float() - centre) * scale) @ directions > 0
        return (signs.long() << torch.arange(BITS, device=signs.device)).sum(1)

    @torch.no_grad()
    def of_steps(self, steps: Steps) -> Tensor:
        """1 / sqrt(N) of steps, where N is at least 1."""
        if steps.ended is not None:
            shape = steps.ended.shape
            return self.of_steps(Steps(*(part.flatten(0, 1) for part in steps[:3]))).view(shape)
        return self.counts[self.entries(steps)].clamp(min=1).float().rsqrt()

    @torch.no_grad()
    def learn(self, steps: Steps, generator: torch.Generator) -> Mapping[str, Tensor]:
        """Count steps."""
        entries = self.entries(steps.flat())
        self.counted += len(entries[self.counts[entries] == 0].unique())
        self.counts.index_add_(0, entries, torch.ones_like(entries, dtype=torch.int32))
        return {"bonus_counted": torch.tensor(float(self.counted))}

    def state_dict(self) -> dict[str, Tensor]:
        """The entries that are not 0, and the projections."""
        place = self.counts.nonzero().squeeze(1)
        state = {"place": place, "count": self.counts[place]}
        return state if self._hash is None else state | {"directions": self._hash[2]}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a saved state."""
        place = state["place"].to(self.counts.device)
        if len(place) and not 0 <= int(place.min()) <= int(place.max()) < len(self.counts):
            raise AgentError(f"bonus: counts of {int(place.max())} entries; wanted at most {len(self.counts)}")
        self.counts.zero_()
        self.counts[place] = state["count"].to(self.counts.device)
        self.counted = len(place)
        if self._hash is not None:
            self._hash = (*self._hash[:2], state["directions"].to(self.counts.device))


def _choices(space: gym.Space[Any]) -> list[int]:
    if isinstance(space, spaces.MultiBinary):
        return [2] * math.prod(space.shape)
    return [int(space.n)] if isinstance(space, spaces.Discrete) else [int(n) for n in space.nvec.reshape(-1)]  # type: ignore[attr-defined]


def _projections(
    space: spaces.Box, generator: torch.Generator, device: torch.device | str
) -> tuple[Tensor, Tensor, Tensor]:
    """What is subtracted and multiplied [d] to scale numbers with bounds to -1..1, and directions [d, BITS]."""
    low, high = (torch.from_numpy(bound.reshape(-1).astype(np.float64)) for bound in (space.low, space.high))
    bounded = low.isfinite() & high.isfinite() & (high > low)
    centre = torch.where(bounded, (low + high) / 2, 0.0).float()
    scale = torch.where(bounded, 2 / (high - low), 1.0).float()
    directions = torch.randn(len(low), BITS, generator=generator)
    return centre.to(device), scale.to(device), directions.to(device)


def _mixed(values: Tensor, nvec: Any) -> Tensor:
    """Tuples of indices [N, ...] as one number each, int64 [N]; beyond 2^63 it wraps around, which is a hash too."""
    parts = values.reshape(len(values), len(nvec)).long()
    code = torch.zeros(len(values), dtype=torch.int64, device=values.device)
    for k, n in enumerate(nvec):
        code = code * n + parts[:, k]
    return code
