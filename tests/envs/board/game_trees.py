"""Whole game trees by the compiled driver: counts of leaves (perft), and exact values by backward induction."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import mlbits
from mlbits.envs.engine.cpu_copies import Copies

CHUNK = 1 << 14


class Tree:
    """Moves of many positions of a board game at once.

    Positions are structured arrays [N] of the game's states; the seat to move is the state's ``turn``.
    """

    def __init__(self, game_id: str, **settings: Any) -> None:
        self.game = mlbits.make_game(game_id, **settings)
        self.copies = Copies(self.game, CHUNK, autoreset="disabled", threads=1)
        self.copies.reset()

    def root(self) -> Any:
        self.copies.reset()
        return self.copies.states[:1].copy()

    def place(self, states: Any) -> None:
        """Put up to CHUNK positions into the copies; the others are over."""
        self.copies.states["over"] = 1
        self.copies.states[: len(states)] = states

    def moves(self, states: Any) -> tuple[Any, Any]:
        """All legal moves of up to CHUNK positions: the position's index and the action."""
        self.place(states)
        self.copies.refresh()
        n = np.arange(len(states))
        legal = self.copies.legal[n, states["turn"]] & (states["over"] == 0)[:, None]
        return np.nonzero(legal)

    def children(self, states: Any) -> Iterator[tuple[Any, Any, Any]]:
        """Parents' indices, actions and positions after them, in chunks."""
        for start in range(0, len(states), CHUNK):
            parents, actions = self.moves(states[start : start + CHUNK])
            for at in range(0, len(parents), CHUNK):
                chosen, played = parents[at : at + CHUNK] + start, actions[at : at + CHUNK]
                before = states[chosen]
                self.place(before)
                both = np.zeros((CHUNK, 2), np.int64)
                both[np.arange(len(chosen)), before["turn"]] = played
                self.copies.refresh()  # the masks that a step checks
                self.copies.step(both)
                yield chosen, played, self.copies.states[: len(chosen)].copy()

    def perft(self, depth: int) -> list[int]:
        """The number of positions after 1, 2, ... plies, where ended games have none; the last by masks only.

        ``ended`` holds the positions in which games ended, by ply, without the last.
        """
        counts = [0] * depth
        self.ended: list[Any] = [[] for _ in range(depth)]

        def visit(states: Any, ply: int) -> None:
            if ply == depth:
                for start in range(0, len(states), CHUNK):
                    counts[ply - 1] += len(self.moves(states[start : start + CHUNK])[0])
                return
            for _, _, after in self.children(states):
                counts[ply - 1] += len(after)
                self.ended[ply].append(after[after["outcome"] != 0])
                visit(after, ply + 1)

        visit(self.root(), 1)
        self.ended = [np.concatenate(parts) if parts else self.root()[:0] for parts in self.ended]
        return counts

    def levels(self, plies: int = 10**9) -> Iterator[tuple[Any, list[Any]]]:
        """Distinct positions by ply, and for each move from the ply before (parents, actions, positions' indices)."""
        fields = [name for name in self.game.state_dtype.names if name not in ("rng_key", "rng_counter", "elapsed")]
        fields = [name for name in fields if name != "last"]
        states, edges = self.root(), []
        while len(states) and plies >= 0:
            yield states, edges
            parts = list(self.children(states))
            if not parts:
                return
            parents, actions, after = (np.concatenate([part[k] for part in parts]) for k in range(3))
            rows = np.concatenate([np.ascontiguousarray(after[name]).reshape(len(after), -1) for name in fields], 1)
            _, first, index = np.unique(rows, axis=0, return_index=True, return_inverse=True)
            states, edges, plies = after[first], [parents, actions, index.ravel()], plies - 1

    def values(self) -> tuple[list[Any], list[Any]]:
        """Exact values for seat 0 of all positions by ply (1, 0, -1), and of their moves [N, A] (NaN if illegal)."""
        levels = list(self.levels())
        values, of_moves = [], []
        for ply in range(len(levels) - 1, -1, -1):
            states = levels[ply][0]
            value = np.array([np.nan, 1, -1, 0])[states["outcome"]]
            moves = np.full((len(states), self.game.action.mask_size), np.nan)
            if ply + 1 < len(levels):
                parents, actions, index = levels[ply + 1][1]
                moves[parents, actions] = values[-1][index]
                sign = np.where(states["turn"] == 0, 1, -1)
                best = np.nanmax(np.where(np.isnan(moves), -np.inf, moves * sign[:, None]), 1) * sign
                value = np.where(states["outcome"] == 0, best, value)
            values.append(value)
            of_moves.append(moves)
        return values[::-1], of_moves[::-1]
