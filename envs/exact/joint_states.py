"""Enumerates the states of a game with any number of seats, and the outcomes of all joint moves in them.

The states of a round are stepped in one batch by the compiled rules. Where these drew a random number, the outcomes are
enumerated with exact probabilities (:mod:`mlbits.envs.exact.outcomes`). A state consists of the fields that the rules
read back, ``observe`` included (:mod:`mlbits.envs.exact.state_fields`); elapsed time is part of it only if they read
it.

Example:
    >>> from mlbits.envs.registry import make_game
    >>> states = States(make_game("mlbits/Goofspiel-v0", cards=3), 2**20)
    >>> numbers, probability = states.begin()  # three prizes may be turned up first
    >>> moves = states.step(states.records(numbers), states.observe(states.records(numbers))[1])
    >>> moves.rows.tolist(), set(moves.probability.tolist())  # nine joint bids in each, and one of two prizes next
    ([18, 18, 18], {0.5})
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlbits.envs.core.errors import GameError
from mlbits.envs.core.game import Game
from mlbits.envs.exact.outcomes import Chance, Outcome
from mlbits.envs.exact.placed_copies import StateCopies, state_keys
from mlbits.envs.exact.state_fields import fields_read

_MAX_OUTCOMES = 50_000  # of chance: five seconds of rules in plain Python


class Moves(NamedTuple):
    """What the joint moves of some states lead to: one row per outcome, grouped by state.

    Attributes:
        action: index of each seat's action among the state's legal ones, [R, P].
        probability: probability of the outcome given the joint move, [R].
        reward: [R, P].
        after: number of the next state, or -1 if the game is over, [R].
        rows: number of rows of each state.
    """

    action: NDArray[np.int64]
    probability: NDArray[np.float64]
    reward: NDArray[np.float64]
    after: NDArray[np.int64]
    rows: NDArray[np.int64]


class States:
    """Numbers the states of a game in the order in which they are found, and steps them.

    Args:
        game: a game with Discrete actions.
        move_limit: most joint moves in one round; beyond it the game is refused.
    """

    def __init__(self, game: Game, move_limit: int) -> None:
        self.game, self.limit = game, move_limit
        fields = fields_read(game, (game.step, game.legal, game.acts, game.observe))
        self._timed = "elapsed" in fields
        own = {str(field[0]) for field in game.state_fields}
        kept = [name for name in game.state_dtype.names or () if name in fields & (own | {"elapsed"})]
        self._always_chance = bool({"rng_key", "rng_counter"} & fields)
        self._chance, self._outcomes = Chance(game, kept, _MAX_OUTCOMES), 0
        self._key = np.dtype([("_", "u1"), *((name, game.state_dtype[name]) for name in kept)])
        self._numbers: dict[bytes, int] = {}
        self._records: list[Any] = []
        self._copies = StateCopies(game, timed=self._timed)

    def begin(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Numbers of the initial states, and their probabilities."""
        found = self._chance.resets()
        records = np.array([outcome.record for outcome in found], self.game.state_dtype)
        return self.number(records), np.array([outcome.probability for outcome in found])

    def records(self, numbers: NDArray[np.int64]) -> NDArray[Any]:
        """The records of states given by number."""
        return np.array([self._records[k] for k in numbers.tolist()], self.game.state_dtype)

    def __len__(self) -> int:
        return len(self._records)

    def number(self, records: NDArray[Any]) -> NDArray[np.int64]:
        """The numbers of states; new states are added."""
        records["rng_key"], records["rng_counter"], records["over"] = 0, 0, 0
        if not self._timed:
            records["elapsed"] = 0
        keys = state_keys(records, self._key)
        numbers = np.empty(len(records), np.int64)
        for k in range(len(records)):
            key = keys[k].tobytes()
            number = self._numbers.setdefault(key, len(self._records))
            if number == len(self._records):
                self._records.append(records[k].copy())
            numbers[k] = number
        return numbers

    def observe(self, records: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Each seat's observation as raw bytes, [n, P, bytes], and its legal actions [n, P, A]."""
        game, seen, legal = self.game, [], []
        for part in range(0, len(records), self._copies.max_states):
            some = records[part : part + self._copies.max_states]
            copies, count = self._copies.at(some), len(some)
            raw = np.ascontiguousarray(copies.obs[:count]).reshape(count, game.seats, -1)
            seen.append(raw.view(np.uint8).reshape(count, game.seats, -1).copy())
            every = np.ones((count, game.seats, game.action.mask_size), bool)
            legal.append(copies.legal[:count].copy() if game.masked else every)
        return np.concatenate(seen), np.concatenate(legal)

    def step(self, records: NDArray[Any], legal: NDArray[np.bool_], *, last: bool = False) -> Moves:
        """Play all joint moves of some states.

        Args:
            records: the states, [n].
            legal: each seat's legal actions, [n, P, A].
            last: whether the time limit ends the game after this round.

        Raises:
            GameError: if there are too many joint moves or chance outcomes.
        """
        total = int(legal.sum(2).prod(1, dtype=float).sum())
        if total > self.limit:
            raise GameError(f"{self.game.name}: got {total:,} joint moves in a round; wanted at most {self.limit:,}")
        state, action, place = _joint_moves(legal)
        reward, ended = np.empty(action.shape), np.empty(len(state), bool)
        after, drew = np.empty(len(state), self.game.state_dtype), np.empty(len(state), bool)
        for part in range(0, len(state), self._copies.max_states):
            at = slice(part, part + self._copies.max_states)
            count = len(state[at])
            copies = self._copies.at(records[state[at]])
            played = np.zeros((copies.num_envs, self.game.seats), np.int64)
            played[:count] = action[at]
            copies.step(played)
            reward[at], after[at] = copies.rewards[:count], copies.states[:count]
            ended[at] = (copies.terminated | copies.truncated)[:count]
            drew[at] = (after[at]["rng_counter"] != 0) | self._always_chance
            self._check_outcomes(int(drew[: part + count].sum()))
        kept = [slice(None)] if not drew.any() else [~drew]
        parts = [(state[k], place[k], np.ones(len(state[k])), reward[k], ended[k], after[k]) for k in kept]
        if drew.any():
            parts.append(self._draw(records, state, action, place, np.flatnonzero(drew)))
        of, place, probability, reward, ended, after = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(of, kind="stable")
        number = np.full(len(of), -1)
        continues = ~ended & (not last)
        number[continues] = self.number(after[continues])
        rows = np.bincount(of, minlength=len(records))
        return Moves(place[order], probability[order], reward[order], number[order], rows)

    def _draw(
        self, records: NDArray[Any], state: NDArray[np.int64], action: NDArray[np.int64], place: NDArray[np.int64],
        drew: NDArray[np.int64],
    ) -> tuple[Any, ...]:  # fmt: skip
        """The columns of :meth:`step` for the moves numbered ``drew``, with one row per outcome."""
        found: list[Outcome] = []
        counts: list[int] = []
        left = len(drew)  # each has at least one outcome
        for k in drew.tolist():
            self._check_outcomes(len(found) + left)
            outcomes = self._chance.steps(records[state[k]], action[k])
            found += outcomes
            counts.append(len(outcomes))
            left -= 1
        self._outcomes += len(found)
        of = np.repeat(drew, counts)
        after = np.array([outcome.record for outcome in found], self.game.state_dtype)
        after["elapsed"] += 1
        return (
            state[of], place[of], np.array([outcome.probability for outcome in found]),
            np.array([outcome.rewards for outcome in found]),
            np.array([outcome.terminated or outcome.truncated for outcome in found]), after,
        )  # fmt: skip

    def _check_outcomes(self, more: int) -> None:
        """Refuse the game if ``more`` outcomes, added to those of earlier rounds, exceed the limit."""
        least = self._outcomes + more
        if least > _MAX_OUTCOMES:
            raise GameError(
                f"{self.game.name}: got {least:,} or more outcomes of chance from {len(self):,} states; wanted at most "
                f"{_MAX_OUTCOMES:,}"
            )


def _joint_moves(legal: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The joint moves of states whose legal actions are [n, P, A].

    Returns:
        The number of each row's state [R], in order; each seat's action [R, P]; its index among the legal ones [R, P].
    """
    choices = legal.sum(2)
    totals = choices.prod(1)
    state = np.repeat(np.arange(len(legal)), totals)
    index = np.arange(len(state)) - np.repeat(np.cumsum(totals) - totals, totals)
    order = np.argsort(~legal, axis=2, kind="stable")  # legal actions first
    place = np.empty((len(state), legal.shape[1]), np.int64)
    for seat in reversed(range(legal.shape[1])):  # the last seat's action varies fastest
        index, place[:, seat] = np.divmod(index, choices[state, seat])
    return state, order[state[:, None], np.arange(legal.shape[1]), place], place
