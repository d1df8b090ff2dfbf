"""Worlds: many lifetimes side by side, each in a level of its own, which is replaced when the lifetime ends.

Which level a lifetime gets next is a function of (seed, lifetime, how many it has had); the level's parameters are a
function of its number. Training levels and those held out have different numbers. (Chains are few, so that theirs are
the same ones.)

Example:
    >>> worlds = Worlds("small", lifetimes=2, copies=3, seed=0)
    >>> worlds.batch.obs.shape, worlds.num_actions, worlds.num_states, worlds.lifetime_updates.tolist()
    (torch.Size([6, 1]), 5, 288, [250, 250])
    >>> before = worlds.level_numbers.clone()
    >>> worlds.renew(torch.tensor([1]))  # another level for lifetime 1; lifetime 0 goes on
    >>> (worlds.level_numbers == before).tolist()
    [True, False]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlbits.envs.core.errors import GameError
from mlbits.envs.core.game import Game
from mlbits.envs.core.settings import integer
from mlbits.envs.engine.batch import GameBatch
from mlbits.envs.levels.catalogue import checked_numbers, level_kind, split_range
from mlbits.envs.levels.streams import Stream

_MOST_COPIES = 2**24


class Worlds:
    """L lifetimes with B copies each of their levels, as one batch.

    Args:
        levels: the kind of level: "small", "medium", "large", "all", "mazes", a layout or a chain
            (:mod:`mlbits.envs.levels.catalogue`).
        lifetimes: number of lifetimes L.
        copies: copies of each lifetime's level B.
        seed: decides the levels and the copies' random streams, 0 to 2**64 - 1.
        split: "train" or "held-out": from which levels to draw.
        device: "cpu", "cuda" or "auto".
        numbers: the level of each lifetime, [L], in place of drawn ones; they must belong to the split, and
            :meth:`renew` then takes numbers, too.
        num_levels: draw from the first levels of the split only; None: from all 2**32.
        lifetime: updates of a lifetime; None: the usual number for this kind of level.
        moves: 5, 9 or 18 actions in a gridworld; None: its usual ones.
        observation: "index" or "planes" in a gridworld; None: its usual one.
        threads: see :class:`~mlbits.envs.engine.batch.GameBatch`.

    Attributes:
        batch: L * B copies; those of lifetime l are l * B to (l + 1) * B - 1. Autoreset is "same_step".
        num_actions: number of actions.
        num_states: size of index observations; None for other observations.
        lifetime_updates: updates of 20 steps in each lifetime, int64 [L].
        level_numbers: number of each lifetime's present level, int64 [L].

    Raises:
        UnknownIdError: if there is no such kind of level.
        GameError: if a setting is out of range, or a level belongs to the other split.
        DeviceError: if the device is not available.
    """

    def __init__(
        self,
        levels: str,
        lifetimes: int,
        copies: int,
        seed: int = 0,
        split: str = "train",
        device: str | torch.device = "cpu",
        *,
        numbers: Sequence[int] | NDArray[Any] | Tensor | None = None,
        num_levels: int | None = None,
        lifetime: int | None = None,
        moves: int | None = None,
        observation: str | None = None,
        threads: int | None = None,
    ) -> None:
        self.kind = level_kind(levels, moves=moves, observation=observation)
        self.lifetimes = integer("lifetimes", lifetimes, 1, _MOST_COPIES)
        self.copies = integer("copies", copies, 1, _MOST_COPIES // self.lifetimes)
        self.seed, self.split = integer("seed", seed, 0, 2**64 - 1), split
        self._first, end = split_range(split)
        most = end - self._first
        self.num_levels = most if num_levels is None else integer("num_levels", num_levels, 1, most)
        self._given = numbers is not None
        self.num_actions, self.num_states = self.kind.num_actions, self.kind.num_states
        updates = self.kind.lifetime if lifetime is None else integer("lifetime", lifetime, 1, 2**31 - 1)
        self.lifetime_updates = torch.full((self.lifetimes,), updates)
        self._renewals = torch.zeros(self.lifetimes, dtype=torch.int64)
        everyone = torch.arange(self.lifetimes)
        self.level_numbers = self._next(everyone) if numbers is None else self._checked(numbers, self.lifetimes)
        self.batch = GameBatch(self.kind.game, self.lifetimes * self.copies, device=device, seed=seed, threads=threads)
        self._begin(everyone)

    def renew(self, lifetimes: Tensor | None = None, numbers: Sequence[int] | Tensor | None = None) -> None:
        """Give lifetimes their next level, in which all of their copies start an episode; the others go on.

        Args:
            lifetimes: which ones, int64 [n], each at most once; None means all.
            numbers: their levels, [n], in place of drawn ones.

        Raises:
            GameError: if a lifetime or level is out of range, or the first levels were given and these are not.
        """
        if lifetimes is None:
            lifetimes = torch.arange(self.lifetimes)
        lifetimes = lifetimes.cpu()
        good = lifetimes.dtype == torch.int64 and lifetimes.ndim == 1 and lifetimes.unique().numel() == len(lifetimes)
        if not good or ((lifetimes < 0) | (lifetimes >= self.lifetimes)).any():
            raise GameError(
                f"lifetimes: got {lifetimes!r}; wanted a torch.int64 tensor of different numbers below {self.lifetimes}"
            )
        if len(lifetimes) == 0:
            return
        if numbers is not None:
            self.level_numbers[lifetimes] = self._checked(numbers, len(lifetimes))
        elif self._given:
            raise GameError("numbers: got none, but the first levels were given by number; wanted numbers here, too")
        else:
            self._renewals[lifetimes] += 1
            self.level_numbers[lifetimes] = self._next(lifetimes)
        self._begin(lifetimes)

    def game(self, lifetime: int) -> Game:
        """The game of a lifetime's present level, for exact models of it (:mod:`mlbits.envs.exact`)."""
        return self.kind.level(int(self.level_numbers[lifetime]))

    def state(self) -> dict[str, Tensor]:
        """Everything needed to continue exactly: the levels' numbers, renewals and the state of every copy."""
        return {
            "level_numbers": self.level_numbers.clone(),
            "renewals": self._renewals.clone(),
            "copies": self.batch.state().cpu(),
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a saved state, of worlds made with the same arguments.

        Raises:
            GameError: if it does not fit, or names levels of the other split; the levels may have changed by then, if
                only the states of copies are out of range.
        """
        if set(state) != {"level_numbers", "renewals", "copies"}:
            raise GameError(f"state: got {sorted(state)}; wanted level_numbers, renewals and copies")
        renewals = state["renewals"]
        if renewals.dtype != torch.int64 or renewals.shape != (self.lifetimes,) or (renewals < 0).any():
            raise GameError(f"renewals: got {renewals!r}; wanted a torch.int64 tensor [{self.lifetimes}] from 0")
        self.level_numbers = self._checked(state["level_numbers"], self.lifetimes)
        self._renewals = renewals.clone()
        self._begin(torch.arange(self.lifetimes))
        self.batch.set_state(state["copies"].to(self.batch.device))

    def _next(self, lifetimes: Tensor) -> Tensor:
        """The numbers of the levels that come next, int64 [n]."""
        history = (lifetimes.numpy().astype(np.uint64) << np.uint64(32)) + self._renewals[lifetimes].numpy().astype(
            np.uint64
        )
        bits = Stream(f"lifetimes of seed {self.seed}", history).bits(1)[:, 0] >> np.uint64(32)
        return torch.from_numpy((self._first + bits % np.uint64(self.num_levels)).astype(np.int64))

    def _checked(self, numbers: Any, count: int) -> Tensor:
        array = numbers.cpu().numpy() if isinstance(numbers, Tensor) else np.asarray(numbers)
        checked = checked_numbers(array, self.split)
        if len(checked) != count:
            raise GameError(f"numbers: got {len(checked)} for {count} lifetimes; wanted one for each")
        return torch.from_numpy(checked.astype(np.int64))

    def _begin(self, lifetimes: Tensor) -> None:
        """Hand the copies of some lifetimes the parameters of their levels."""
        records = self.kind.records(self.level_numbers[lifetimes].numpy().astype(np.uint64))
        copies = (lifetimes[:, None] * self.copies + torch.arange(self.copies)).reshape(-1)
        self.batch.set_params(np.repeat(records, self.copies), copies)


def make_worlds(mixture: str, lifetimes: int, copies: int, seed: int = 0, **settings: Any) -> list[Worlds]:
    """Worlds of several kinds, which share the lifetimes in proportion to their weights.

    Args:
        mixture: kinds of levels with weights, such as "small:3,medium:1"; a kind alone has weight 1.
        lifetimes: number of lifetimes of all together.
        copies: copies of each lifetime's level.
        seed: see :class:`Worlds`.
        **settings: further arguments of :class:`Worlds`.

    Raises:
        UnknownIdError: if there is no such kind of level.
        GameError: if a weight is no positive number, a kind is named twice, or there are fewer lifetimes than kinds.
    """
    kinds = read_mixture(mixture)
    integer("lifetimes", lifetimes, len(kinds), _MOST_COPIES)
    total, names = sum(kinds.values()), list(kinds)
    exact = [1 + (lifetimes - len(kinds)) * weight / total for weight in kinds.values()]
    shares = [int(share) for share in exact]
    for k in sorted(range(len(names)), key=lambda k: shares[k] - exact[k])[: lifetimes - sum(shares)]:
        shares[k] += 1
    return [Worlds(name, share, copies, seed, **settings) for name, share in zip(names, shares, strict=True)]


def read_mixture(mixture: str) -> dict[str, float]:
    """Weights by kind of level from text such as "small:3,medium:1".

    Raises:
        UnknownIdError: if there is no such kind of level.
        GameError: if a weight is no positive number, or a kind is named twice.
    """
    weights: dict[str, float] = {}
    for part in mixture.split(","):
        name, _, text = part.strip().partition(":")
        level_kind(name)
        if name in weights:
            raise GameError(f"levels: got {name!r} twice in {mixture!r}; wanted each kind once")
        try:
            weight = float(text or 1)
        except ValueError:
            weight = 0.0
        if not 0 < weight < float("inf"):
            raise GameError(f"levels: got the weight {text!r} of {name!r}; wanted a positive number")
        weights[name] = weight
    return weights
