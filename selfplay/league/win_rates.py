"""What players made of each other in training: wins and draws of every pair, the later games counting most.

A game of several seats is a meeting of each pair of players in it; who has the higher return of the two has won it. A
pair's record holds about the last ``memory`` meetings: older ones fade, since the players that learn change.

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

# A pair that met less often counts as even: fewer games say little, and a newcomer is to be met (DI-engine's rule).
FEW = 8.0
MEMORY = 1000.0


class Payoffs:
    """The record of N players, who have numbers from 0.

    Args:
        size: N.
        memory: meetings of a pair after which the older ones fade.

    Attributes:
        wins: of the row's player over the column's, float64 [N, N].
        draws: of both, float64 [N, N].
    """

    def __init__(self, size: int, memory: float = MEMORY) -> None:
        self.memory = memory
        self.wins, self.draws = np.zeros((size, size)), np.zeros((size, size))

    def __len__(self) -> int:
        return len(self.wins)

    @property
    def meetings(self) -> NDArray[np.float64]:
        """How often two players have met, as far as it is remembered, [N, N]."""
        return self.wins + self.wins.T + self.draws

    def win_rate(self, player: int) -> NDArray[np.float64]:
        """The share of meetings with each player that one has won, draws counting half, [N]; 0.5 after too few."""
        met = self.wins[player] + self.wins[:, player] + self.draws[player]
        share = (self.wins[player] + self.draws[player] / 2) / np.maximum(met, 1)
        return np.where(met < FEW, 0.5, share)

    def add(self, seating: NDArray[np.int64], returns: NDArray[np.float64]) -> None:
        """Take in games.

        Args:
            seating: the number of the player in each seat, [G, P].
            returns: of each seat, [G, P].
        """
        # Of those alone who have played: few, however many are known.
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
        # As much of the old is kept as there is room for beside the new.
        room = self.memory - (new_wins + new_wins.T + new_draws)
        kept = np.clip(room / np.maximum(old_wins + old_wins.T + old_draws, 1e-300), 0, 1)
        self.wins[theirs] = old_wins * kept + new_wins
        self.draws[theirs] = old_draws * kept + new_draws

    def admit(self, parent: int) -> int:
        """Make a frozen copy known; returns its number. What its parent made of the others is what it has made."""
        size = len(self)
        for name in ("wins", "draws"):
            old, new = getattr(self, name), np.zeros((size + 1, size + 1))
            new[:size, :size] = old
            new[size, :size], new[:size, size] = old[parent], old[:, parent]
            new[size, parent] = new[parent, size] = 0
            setattr(self, name, new)
        return size

    def forget(self, player: int) -> None:
        """Begin a player's record anew: it has become another."""
        for table in (self.wins, self.draws):
            table[player], table[:, player] = 0, 0

    def state_dict(self) -> dict[str, Tensor]:
        """The record."""
        return {"wins": torch.from_numpy(self.wins.copy()), "draws": torch.from_numpy(self.draws.copy())}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a saved record."""
        self.wins, self.draws = state["wins"].numpy().copy(), state["draws"].numpy().copy()
