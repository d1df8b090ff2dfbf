"""A game with any number of people at it: who has to move, what each may see, and what was played.

The terminal (:mod:`~mlbits.evals.play.terminal`) has one person at a match, pages any number of them. A person sees the
observation instead of the drawing where the drawing would tell what is to be found out, and moves of seats that act at
once only when all have chosen.

Example:
    >>> from mlbits.selfplay.runs.saved_agents import open_guest
    >>> random = open_guest("random", "mlbits/TicTacToe-v0")
    >>> match = Match("mlbits/TicTacToe-v0", people=(0,), opponents={"random": random})
    >>> match.choose(0, match.turn, [4])
    >>> match.advance()
    >>> match.log[0], match.waiting
    ('person plays b2', [0])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlbits.agents.agent import Agent, rows
from mlbits.envs.engine.batch import GameBatch
from mlbits.evals.play.config import PlayError
from mlbits.evals.replays.decisions import Slot, Words
from mlbits.evals.replays.recording import Recorder
from mlbits.evals.replays.replay import Replay
from mlbits.selfplay.episodes import open_to_draw
from mlbits.selfplay.lineup import decide
from mlbits.selfplay.memories import Memories

PERSON = "person"


class Match:
    """A game in progress.

    Args:
        env: id of an environment.
        settings: its settings.
        people: seats of people.
        opponents: players by name, who take the other seats in turn; may be empty where people have all seats.
        seed: of the game and the opponents.
        sample: whether opponents draw their moves; always in games of simultaneous moves.

    Attributes:
        batch: one copy.
        names: the player in each seat.
        turn: a number that is another one after every change; moves name it, so that a late one is refused.
        over: whether the game has ended.
        log: what was played, a line for each step.
        words: names of actions.

    Raises:
        PlayError: for a seat that the game does not have, or too few players.
    """

    def __init__(
        self,
        env: str,
        settings: Mapping[str, Any] | None = None,
        *,
        people: Sequence[int] = (0,),
        opponents: Mapping[str, Agent],
        seed: int = 0,
        sample: bool = False,
    ) -> None:
        self.env, self.settings, self.seed, self.people = env, dict(settings or {}), seed, tuple(sorted(set(people)))
        self.batch, _ = open_to_draw(env, 1, seed, self.settings, "cpu", drawn=True)
        seats = self.batch.num_seats
        check_seats(env, self.people, seats)
        others = [seat for seat in range(seats) if seat not in self.people]
        if others and not opponents:
            raise PlayError(f"against: nobody has seat {others[0]}; wanted opponents, or people in all seats")
        given = list(opponents.items())
        self.players = {seat: given[k % len(given)] for k, seat in enumerate(others)} if others else {}
        self.names = seat_names(seats, {seat: name for seat, (name, _) in self.players.items()})
        self.words = Words(self.batch)
        self.turn, self.over, self.log = 0, False, list[str]()
        self.generator = torch.Generator().manual_seed(seed)
        game = self.batch.game if isinstance(self.batch, GameBatch) else None
        self._greedy = not sample and (seats == 1 or (game is not None and game.acts is not None))
        self._memories = Memories(1, seats)
        self._chosen: dict[int, Any] = {}
        self._before: list[tuple[int, tuple[int, ...], Tensor | None, dict[str, Tensor]]] = []
        # What bots think is found by searching once more, for which nobody wants to wait.
        thinkers = {seat: agent for seat, (_, agent) in self.players.items() if not hasattr(agent, "look")}
        self._recorder = Recorder(self.batch, env, self.settings, seed, self.names, thinkers)

    @property
    def replay(self) -> Replay:
        """The game so far."""
        return self._recorder.replay

    @property
    def returns(self) -> list[float]:
        """What each seat has earned."""
        return self.replay.returns()

    @property
    def acting(self) -> list[int]:
        """The seats that act now."""
        if self.over:
            return []
        active = self.batch.active
        return [seat for seat in range(self.batch.num_seats) if active is None or bool(active[0, seat])]

    @property
    def waiting(self) -> list[int]:
        """The people whose move is awaited."""
        return [seat for seat in self.acting if seat in self.people and seat not in self._chosen]

    def choose(self, seat: int, turn: int, action: Sequence[float]) -> None:
        """A person's move; the step is played when all people who act have chosen.

        Args:
            seat: the person's.
            turn: the turn that the move is for.
            action: one number for each slot of :meth:`slots`, or for each part of a continuous action.

        Raises:
            PlayError: for a move of another turn or seat, or an illegal one.
        """
        self._check_turn(turn)
        if seat not in self.waiting:
            raise PlayError("it is not your move; wanted a move when it is")
        self._chosen[seat] = self._action(seat, action)
        if not self.waiting:
            self._step()
        else:
            self.turn += 1

    def advance(self) -> None:
        """Let the others play one step, if no person acts."""
        if not self.over and not any(seat in self.people for seat in self.acting):
            self._step()

    def undo(self, seat: int, turn: int) -> None:
        """Go back to a person's last decision.

        Raises:
            PlayError: for another turn, or where there is nothing to take back.
        """
        self._check_turn(turn)
        if self._chosen.pop(seat, None) is not None:
            self.turn += 1
            return
        own = [k for k, (_, deciders, _, _) in enumerate(self._before) if seat in deciders]
        if not own:
            raise PlayError("there is nothing to take back")
        steps, _, state, memories = self._before[own[-1]]
        del self._before[own[-1] :]
        self._chosen.clear()
        self.turn += 1
        self._recorder.back_to(steps)
        self._restore(steps, state)
        self._memories.forget()
        if memories:
            self._memories.load_state_dict(memories)
        self.over = False
        del self.log[steps:]

    def slots(self, seat: int) -> list[Slot]:
        """What a seat decides now."""
        return self.words.slots(seat)

    def result(self, seat: int | None = None) -> str:
        """How the game ended, in words; the seat that reads it is "you"."""
        names = ["you" if k == seat else name for k, name in enumerate(self.names)]
        cut = "stopped at its limit; " if self.replay.end == "truncated" else ""
        if len(names) == 1:
            return f"{cut}return {self.returns[0]:g}"
        earned = ", ".join(f"{name} {value:g}" for name, value in zip(names, self.returns, strict=True))
        best = max(self.returns)
        first = [name for name, value in zip(names, self.returns, strict=True) if value == best]
        if len(first) > 1:
            return f"{cut}a draw of {' and '.join(first)} ({earned})"
        return f"{cut}{first[0]} {'win' if first == ['you'] else 'wins'} ({earned})"

    def close(self) -> None:
        """Close the environment."""
        self.batch.close()

    def _check_turn(self, turn: int) -> None:
        if turn != self.turn:
            raise PlayError("the position has changed since; look at it again")

    def _action(self, seat: int, given: Sequence[float]) -> Any:
        """A person's move as the game takes it.

        Raises:
            PlayError: if it is not legal.
        """
        layout = self.batch.action
        if layout.kind == "continuous":
            numbers = np.asarray(given, np.float32)
            good = numbers.shape == layout.shape and np.isfinite(numbers).all()
            if not good or (numbers < layout.low).any() or (numbers > layout.high).any():
                raise PlayError(f"a move: wanted {layout.shape[0]} numbers within their bounds")
            return numbers
        slots = self.slots(seat)
        if len(given) != len(slots) or any(one not in slot.names for one, slot in zip(given, slots, strict=False)):
            raise PlayError("this move is not legal now; wanted one of those shown")
        if layout.kind == "discrete":
            return int(given[0])
        filled = np.zeros(layout.shape, np.int64)
        filled[: len(given)] = given
        return filled

    def _step(self) -> None:
        """Decide for all players that act, and play."""
        batch = self.batch
        obs, mask = rows(batch.obs, 2), None if batch.legal_mask is None else batch.legal_mask.flatten(0, 1)
        memories = self._memories.state_dict()
        actions = np.zeros((batch.num_seats, *batch.action.shape), batch.action.dtype)
        for seat in self.acting:
            if seat in self._chosen:
                actions[seat] = self._chosen[seat]
                continue
            decision = decide(
                self.players[seat][1], batch, torch.tensor([seat]), obs, mask, self.generator,
                greedy=self._greedy, memories=self._memories,
            )  # fmt: skip
            actions[seat] = self._legal(seat, decision.action[0].cpu().numpy())
        state = batch.state() if isinstance(batch, GameBatch) else None
        self._recorder.before(actions)
        batch.step(torch.from_numpy(actions)[None])
        if self._chosen:
            self._before.append((len(self.replay.steps), tuple(self._chosen), state, memories))
        ended, cut = bool(batch.terminated[0]), bool(batch.truncated[0])
        self._recorder.after(batch.reward[0], ended, cut)
        self._chosen.clear()
        self.over = ended or cut
        self.turn += 1
        told = self.replay.steps[-1].said
        self.log.append(", ".join(f"{self.names[seat]} plays {said.name}" for seat, said in sorted(told.items())))

    def _legal(self, seat: int, action: Any) -> Any:
        """The action, or the first legal one in place of an illegal one (agents that do not see masks)."""
        mask = self.batch.legal_mask
        if mask is None or self.batch.action.kind != "discrete" or bool(mask[0, seat, int(action)]):
            return action
        return int(mask[0, seat].to(torch.uint8).argmax())

    def _restore(self, steps: int, state: Tensor | None) -> None:
        """Bring the copy back; one whose state cannot be saved plays its actions again."""
        if isinstance(self.batch, GameBatch) and state is not None:
            self.batch.set_state(state)
            return
        self.batch.reset(seed=self.seed)
        for step in self.replay.steps[:steps]:
            self.batch.step(torch.from_numpy(np.asarray(step.actions, self.batch.action.dtype))[None])


def check_seats(env: str, people: Sequence[int], seats: int) -> None:
    """Refuse seats that a game does not have.

    Raises:
        PlayError: naming one.
    """
    for seat in people:
        if not 0 <= seat < seats:
            raise PlayError(f"seat: got {seat}; wanted 0 to {seats - 1}, the seats of {env}")


def seat_names(seats: int, players: Mapping[int, str]) -> list[str]:
    """The player in each seat, "person" where there is no other; equal ones are told apart by their seats."""
    names = [players.get(seat, PERSON) for seat in range(seats)]
    return [f"{name} (seat {seat})" if names.count(name) > 1 else name for seat, name in enumerate(names)]
