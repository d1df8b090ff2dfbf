"""Win and draw counts of every pair of players, older games decayed.

A game of several seats counts as a meeting of each pair of its players; the one with the higher return has won it. A
pair's counts cover about its last ``memory`` meetings: older ones decay, since learning players change.

Example:
    >>> payoffs = Payoffs(2)
    >>> payoffs.add(np.array([[0, 1]] * 10), np.array([[1.0, -1.0]] * 10))
    >>> payoffs.win_rate(0).tolist()
    [0.5, 1.0]
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# A pair with fewer meetings counts as even: few games say little, and new players should be met (DI-engine's rule).
FEW = 8.0
MEMORY = 1000.0


class Payoffs:
    """The results of N players, numbered from 0.

    Args:
        size: N.
        memory: number of a pair's meetings beyond which older ones decay.

    Attributes:
        wins: of the row player over the column player, float64 [N, N].
        draws: float64 [N, N], symmetric.
    """

    def __init__(self, size: int, memory: float = MEMORY) -> None:
        self.memory = memory
        self.wins, self.draws = np.zeros((size, size)), np.zeros((size, size))

    def __len__(self) -> int:
        return len(self.wins)

    @property
    def meetings(self) -> NDArray[np.float64]:
        """Decayed number of meetings of each pair, [N, N]."""
        return self.wins + self.wins.T + self.draws

    def win_rate(self, player: int) -> NDArray[np.float64]:
        """The fraction of meetings won against each player, draws counting half, [N]; 0.5 after too few meetings."""
        met = self.wins[player] + self.wins[:, player] + self.draws[player]
        share = (self.wins[player] + self.draws[player] / 2) / np.maximum(met, 1)
        return np.where(met < FEW, 0.5, share)

    def add(self, seating: NDArray[np.int64], returns: NDArray[np.float64]) -> None:
        """Add games.

        Args:
            seating: the number of the player in each seat, [G, P].
            returns: of each seat, [G, P].
        """
        # Only of players in these games, which are few however many players are known.
        present = np.flatnonzero(np.bincount(seating.ravel(), minlength=len(self)))
        numbers, size = np.zeros(len(self), np.int64), len(present)
        numbers[present] = np.arange(size)
        place = numbers[seating]
        wins, draws = np.zeros(size * size), np.zeros(size * size)
        for one in range(seating.shape[1]):
            for two in range(one + 1, seating.shape[1]):
                first, second = place[:, one], place[:, two]
                others = first != second
                margin = returns[:, one] - returns[:, two]
                wins += np.bincount((first * size + second)[others & (margin > 0)], minlength=size * size)
                wins += np.bincount((second * size + first)[others & (margin < 0)], minlength=size * size)
                drawn = others & (margin == 0)
                draws += np.bincount((first * size + second)[drawn], minlength=size * size)
                draws += np.bincount((second * size + first)[drawn], minlength=size * size)
        new_wins, new_draws = wins.reshape(size, size), draws.reshape(size, size)
        theirs = np.ix_(present, present)
        old_wins, old_draws = self.wins[theirs], self.draws[theirs]
        # Old counts are scaled down to what fits into the memory besides the new ones.
        room = self.memory - (new_wins + new_wins.T + new_draws)
        kept = np.clip(room / np.maximum(old_wins + old_wins.T + old_draws, 1e-300), 0, 1)
        self.wins[theirs] = old_wins * kept + new_wins
        self.draws[theirs] = old_draws * kept + new_draws

    def admit(self, parent: int) -> int:
        """Add a frozen copy, which inherits the counts of its parent; returns its number."""
        size = len(self)
        for name in ("wins", "draws"):
            old, new = getattr(self, name), np.zeros((size + 1, size + 1))
            new[:size, :size] = old
            new[size, :size], new[:size, size] = old[parent], old[:, parent]
            new[size, parent] = new[parent, size] = 0
            setattr(self, name, new)
        return size

    def forget(self, player: int) -> None:
        """Reset a player's counts, after it was replaced."""
        for table in (self.wins, self.draws):
            table[player], table[:, player] = 0, 0

    def state_dict(self) -> dict[str, Tensor]:
        """The record."""
        return {"wins": torch.from_numpy(self.wins.copy()), "draws": torch.from_numpy(self.draws.copy())}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore saved counts."""
        self.wins, self.draws = state["wins"].numpy().copy(), state["draws"].numpy().copy()
