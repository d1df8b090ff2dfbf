"""A game with one person at it: the copy of the game, the other seats' players, and what was played.

Example:
    >>> from mlbits.selfplay.runs.saved_agents import open_guest
    >>> table = Table("mlbits/TicTacToe-v0", seat=0, opponents={"random": open_guest("random", "mlbits/TicTacToe-v0")})
    >>> table.play(4)  # the centre; the other seat's answer is played by ``advance``
    [(0, 'b2')]
    >>> table.advance()[0][0], table.waits
    (1, True)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mlbits.agents.agent import Agent, Positions, rows
from mlbits.envs.engine.batch import GameBatch
from mlbits.envs.registry import make_game, registered
from mlbits.evals.play.config import PlayError
from mlbits.evals.play.moves import Moves
from mlbits.evals.replays.recording import Recorder
from mlbits.selfplay.lineup import decide, positions_of
from mlbits.selfplay.memories import Memories

# Games whose text shows what the player has to find out.
_OPEN_BOOKS = {"Bandit", "Digits", "Supervised"}


class Table:
    """A game in progress.

    Args:
        env: id of a game of mlbits' own with Discrete actions.
        settings: its settings.
        seat: the person's.
        opponents: players by name, who take the other seats in turn; not used with one seat.
        seed: of the game and the opponents.
        sample: whether opponents draw their moves; always in games of simultaneous moves.

    Attributes:
        batch: one copy of the game.
        names: the player's name in each seat; "you" for the person.
        returns: what each seat has earned.
        over: whether the game has ended.
        cut: whether it was truncated.
        recorder: who writes the game down.

    Raises:
        PlayError: for a game that cannot be played in a terminal, or a seat that it does not have.
    """

    def __init__(
        self,
        env: str,
        settings: Mapping[str, Any] | None = None,
        *,
        seat: int = 0,
        opponents: Mapping[str, Agent],
        seed: int = 0,
        sample: bool = False,
    ) -> None:
        check_game(env, settings, seat)
        self.game = make_game(env, **dict(settings or {}))
        self.env, self.seat = env, seat
        self.batch = GameBatch(self.game, 1, seed=seed, autoreset="disabled")
        self.moves = Moves(self.game)
        others = list(opponents.items())
        around = [other for other in range(self.game.seats) if other != seat]
        self._players = {other: others[k % len(others)] for k, other in enumerate(around)} if others else {}
        self.names = ["you" if k == seat else self._players[k][0] for k in range(self.game.seats)]
        several = {name for name in self.names if self.names.count(name) > 1}
        self.names = [f"{name} (seat {k})" if name in several else name for k, name in enumerate(self.names)]
        self.generator = torch.Generator().manual_seed(seed)
        self._greedy = not sample and self.game.acts is not None
        self.returns = [0.0] * self.game.seats
        self.over = self.cut = False
        self._memories = Memories(1, self.game.seats)
        agents = {k: agent for k, (_, agent) in self._players.items() if not hasattr(agent, "look")}
        self.recorder = Recorder(self.batch, env, settings, seed, self.names, agents)
        self._before: list[tuple[Tensor, list[float], dict[str, Tensor], int]] = []

    @property
    def record(self) -> Any:
        """The state of the copy, a record."""
        return self.batch.copies.record(0)[0]

    @property
    def acting(self) -> list[int]:
        """The seats that act now."""
        if self.over:
            return []
        active = self.batch.active
        return [seat for seat in range(self.game.seats) if active is None or bool(active[0, seat])]

    @property
    def waits(self) -> bool:
        """Whether it is the person's turn."""
        return self.seat in self.acting

    def legal(self) -> list[int]:
        """The person's legal actions."""
        mask = self.batch.legal_mask
        if mask is None:
            return list(range(int(self.game.action.nvec[0])))
        return [int(action) for action in mask[0, self.seat].nonzero()[:, 0]]

    def board(self) -> str:
        """The board as text."""
        return str(self.batch.render("ansi"))

    def advance(self) -> list[tuple[int, str]]:
        """Let the others play one step, if it is not the person's turn; returns seats and their moves."""
        return [] if self.over or self.waits else self._step({})

    def play(self, action: int) -> list[tuple[int, str]]:
        """Play the person's action, with the others' where they act at once; returns seats and their moves."""
        self._before.append(
            (self.batch.state(), list(self.returns), self._memories.state_dict(), len(self.recorder.replay.steps))
        )
        return self._step({self.seat: action})

    def undo(self) -> bool:
        """Go back to the person's last decision; returns whether there was one."""
        if not self._before:
            return False
        state, self.returns, memories, steps = self._before.pop()
        self.batch.set_state(state)
        self.recorder.back_to(steps)
        self._memories.load_state_dict(memories)
        self.over = self.cut = False
        return True

    def positions(self) -> Positions:
        """The position, seen from the person's seat."""
        obs, mask = rows(self.batch.obs, 2), self.batch.legal_mask
        index = torch.tensor([self.seat])
        seen = {key: part[index] for key, part in obs.items()} if isinstance(obs, dict) else obs[index]
        return positions_of(self.batch, index, seen, None if mask is None else mask[0][index])

    def result(self) -> str:
        """How the game ended, in words."""
        earned = ", ".join(f"{name} {value:g}" for name, value in zip(self.names, self.returns, strict=True))
        cut = "the game was stopped at its limit of moves; " if self.cut else ""
        if self.game.seats == 1:
            return f"{cut}your return: {self.returns[0]:g}"
        best = max(self.returns)
        first = [name for name, value in zip(self.names, self.returns, strict=True) if value == best]
        if len(first) > 1:
            return f"{cut}draw: {' and '.join(first)} ({earned})"
        return f"{cut}{'you win' if first == ['you'] else first[0] + ' wins'} ({earned})"

    def _step(self, chosen: dict[int, int]) -> list[tuple[int, str]]:
        """Decide for all others that act, and play; moves are named before they are played."""
        obs, mask = rows(self.batch.obs, 2), self.batch.legal_mask
        flat = None if mask is None else mask.flatten(0, 1)
        for seat in self.acting:
            if seat != self.seat:
                agent, index = self._players[seat][1], torch.tensor([seat])
                decision = decide(
                    agent, self.batch, index, obs, flat, self.generator, greedy=self._greedy, memories=self._memories
                )
                chosen[seat] = self._legal(seat, int(decision.action[0]))
        actions = torch.zeros(1, self.game.seats, dtype=torch.int64)
        for seat, action in chosen.items():
            actions[0, seat] = action
        named = [(seat, self.moves.name(self.record, seat, action)) for seat, action in sorted(chosen.items())]
        self.recorder.before(actions[0])
        step = self.batch.step(actions)
        self.returns = [a + float(b) for a, b in zip(self.returns, step.reward[0], strict=True)]
        ended, cut = bool(step.terminated[0]), bool(step.truncated[0])
        self.over, self.cut = ended or cut, cut and not ended
        self.recorder.after(step.reward[0], ended, cut)
        return named

    def _legal(self, seat: int, action: int) -> int:
        """The action, or the first legal one in place of an illegal one (agents that do not see masks)."""
        mask = self.batch.legal_mask
        return action if mask is None or bool(mask[0, seat, action]) else int(mask[0, seat].to(torch.uint8).argmax())


def check_game(env: str, settings: Mapping[str, Any] | None, seat: int) -> None:
    """Refuse a game that cannot be played in a terminal, or a seat that it does not have.

    Raises:
        PlayError: naming it.
    """
    if env not in registered():
        raise PlayError(f"{env}: is not one of mlbits' own games; wanted one of those (mlbits list envs)")
    game = make_game(env, **dict(settings or {}))
    if game.action.kind != "discrete":
        raise PlayError(f"{env}: got the actions {game.action_space}; wanted a game whose moves are Discrete")
    if game.name in _OPEN_BOOKS:
        raise PlayError(f"{env}: its text shows what a player has to find out; wanted another game")
    if seat >= game.seats:
        raise PlayError(f"seat: got {seat}; wanted 0 to {game.seats - 1}, the seats of {env}")
