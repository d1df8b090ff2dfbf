"""The sequence form of a small finite game, read off its own rules: what exact best responses are computed on.

Von Stengel 1996, "Efficient computation of behavior strategies" (Games and Economic Behavior 14), section 3. A seat's
sequence is what it has seen and done so far, its information set what it has seen besides its last action. With x_i(s)
the product of seat i's own probabilities along its sequence s, and g the payoffs times the probability of chance,

    u_j(x) = sum over outcomes of g_j(s_1, ..., s_P) prod_i x_i(s_i)

which is linear in each x_i. A mixture that draws one of several policies for a whole game has the mean of their x_i,
and no other number of it matters (Kuhn's theorem). A best response of seat j is found by going back through its
information sets: the value of a sequence is what it is paid at once and the best of each set I that follows,

    v_j(s) = sum over outcomes with s_j = s of g_j prod_{i != j} x_i + sum over I after s of max over a of v_j(I, a)

Information is the sequence of one's own observations, legal actions and actions (perfect recall), whatever the policies
look at; rewards are not seen until the game is over. Seats may act at once or in turns. All of a round's states are
stepped in one batch by the compiled rules, and where they drew a random number, its outcomes are told apart with their
exact probabilities (:mod:`mlbits.envs.core.chance`).

Example:
    >>> from mlbits.envs.core.registry import make_game
    >>> form = read_sequence_form(make_game("mlbits/Goofspiel-v0", cards=3))
    >>> [len(seat.parent) for seat in form.seats], len(form.payoffs)
    ([30, 30], 150)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlbits.envs.core.batch import GameBatch
from mlbits.envs.core.chance import Chance, Outcome
from mlbits.envs.core.copies import Copies
from mlbits.envs.core.errors import GameError
from mlbits.envs.core.game import Game
from mlbits.envs.core.read_fields import fields_read

MAX_MOVES = 2**22  # joint moves of the tree: 100 MB of payoffs for two seats
_MAX_OUTCOMES = 50_000  # of chance; five seconds of rules in plain Python
_SIZES = (64, 1024, 16384)  # copies stepped at once
_OBSERVED_BYTES = 2**26  # at most, of the observations that they write


@dataclass(frozen=True, eq=False)
class SeatForm:
    """One seat's information sets [I] and sequences [Q], both in the order of time; sequence 0 is the empty one.

    Attributes:
        parent: the sequence after which an information set is met, [I].
        state: number of a state of the game in which it is met, [I].
        infoset: the information set at which a sequence ends, [Q], -1 for the empty one.
        action: the action with which it ends, [Q], -1 for the empty one.
        rounds: (first information set, first sequence) of each round, and a last pair of the numbers of both.
    """

    parent: NDArray[np.int64]
    state: NDArray[np.int64]
    infoset: NDArray[np.int64]
    action: NDArray[np.int64]
    rounds: tuple[tuple[int, int], ...]

    def realisation(self, policy: NDArray[np.float64]) -> NDArray[np.float64]:
        """The product of a policy's probabilities along each sequence, x [Q].

        Args:
            policy: probabilities of the actions in each state of the game, [S, A].
        """
        plan = np.ones(len(self.infoset))
        for (_, begin), (_, end) in itertools.pairwise(self.rounds):
            at = self.infoset[begin:end]
            plan[begin:end] = plan[self.parent[at]] * policy[self.state[at], self.action[begin:end]]
        return plan

    def best(self, paid: NDArray[np.float64]) -> float:
        """The value of a best response, where each sequence is paid ``paid`` [Q] against the others' plans."""
        value = paid.copy()
        for (first, begin), (last, end) in reversed(list(itertools.pairwise(self.rounds))):
            if last > first:
                starts = np.searchsorted(self.infoset[begin:end], np.arange(first, last))
                best = np.maximum.reduceat(value[begin:end], starts)
                value[: begin or 1] += np.bincount(self.parent[first:last], best, begin)
        return float(value[0])


@dataclass(frozen=True, eq=False)
class SequenceForm:
    """A game of P seats in sequence form, whose states are numbered to S.

    Attributes:
        seats: each seat's information sets and sequences.
        sequences: the sequences of all seats that lead to an outcome, int32 [P, E].
        payoffs: what it pays each seat, times the probability of chance, float64 [P, E].
        obs: observations [S, P, ...], or a dict of those.
        legal: bool [S, P, A].
    """

    seats: tuple[SeatForm, ...]
    sequences: NDArray[np.int32]
    payoffs: NDArray[np.float64]
    obs: Any
    legal: NDArray[np.bool_]

    def values(self, plans: Sequence[NDArray[np.float64]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What each seat earns, and what its best response to the others would, both [P].

        Args:
            plans: each seat's realisation probabilities, [Q_i].
        """
        shares = [plan[of] for plan, of in zip(plans, self.sequences, strict=True)]
        now, best = np.zeros(len(plans)), np.zeros(len(plans))
        for seat, plan in enumerate(plans):
            others = math.prod((share for other, share in enumerate(shares) if other != seat), start=self.payoffs[seat])
            paid = np.bincount(self.sequences[seat], others, len(plan)).astype(np.float64)
            now[seat], best[seat] = plan @ paid, self.seats[seat].best(paid)
        return now, best


def read_sequence_form(game: Game, *, move_limit: int = MAX_MOVES) -> SequenceForm:
    """Go through all that can happen in a game.

    Args:
        game: of one seat or more, with Discrete actions.
        move_limit: joint moves, over all histories, beyond which the game is refused.

    Raises:
        GameError: if the actions are no Discrete ones, or there is too much that can happen.
    """
    if game.action.kind != "discrete":
        raise GameError(f"{game.name}: got {game.action_space}; wanted Discrete actions")
    return _Tree(game, move_limit).grow()


class _Moves(NamedTuple):
    """What the joint moves of some states lead to, a row for each way that it may go, state by state.

    Attributes:
        action: of each seat, its place among the state's legal ones, [R, P].
        share: probability of chance, [R].
        reward: [R, P].
        after: the number of the state it goes on in, or -1 where it is over, [R].
        rows: how many each state has.
    """

    action: NDArray[np.int64]
    share: NDArray[np.float64]
    reward: NDArray[np.float64]
    after: NDArray[np.int64]
    rows: NDArray[np.int64]


class _States:
    """Numbers the states of a game as they are met, and steps them."""

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
        observed = game.seats * game.observation.dtype.itemsize * int(np.prod(game.observation.shape))
        self._most = max(_SIZES[0], min(_SIZES[-1], _OBSERVED_BYTES // observed))
        self._pools: dict[int, Copies] = {}

    def begin(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The states in which games begin, and their probabilities."""
        found = self._chance.resets()
        records = np.array([outcome.record for outcome in found], self.game.state_dtype)
        return self.number(records), np.array([outcome.probability for outcome in found])

    def records(self, numbers: NDArray[np.int64]) -> NDArray[Any]:
        """The states' records."""
        return np.array([self._records[k] for k in numbers.tolist()], self.game.state_dtype)

    def __len__(self) -> int:
        return len(self._records)

    def number(self, records: NDArray[Any]) -> NDArray[np.int64]:
        """The numbers of states, which are kept where they are new."""
        records["rng_key"], records["rng_counter"], records["over"] = 0, 0, 0
        if not self._timed:
            records["elapsed"] = 0
        keys = np.zeros(len(records), self._key)
        for name in (self._key.names or ())[1:]:  # adding 0 makes -0.0 the 0.0 that it equals
            keys[name] = records[name] + 0 if self._key[name].base.kind == "f" else records[name]
        numbers = np.empty(len(records), np.int64)
        for k in range(len(records)):
            key = keys[k].tobytes()
            number = self._numbers.setdefault(key, len(self._records))
            if number == len(self._records):
                self._records.append(records[k].copy())
            numbers[k] = number
        return numbers

    def look(self, records: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """What each seat sees, [n, P] of raw bytes, and its legal actions [n, P, A]."""
        game, seen, legal = self.game, [], []
        for part in range(0, len(records), self._most):
            copies, count = self._pool(records[part : part + self._most]), len(records[part : part + self._most])
            raw = np.ascontiguousarray(copies.obs[:count]).reshape(count, game.seats, -1)
            seen.append(raw.view(np.uint8).reshape(count, game.seats, -1).copy())
            every = np.ones((count, game.seats, game.action.mask_size), bool)
            legal.append(copies.legal[:count].copy() if game.masked else every)
        return np.concatenate(seen), np.concatenate(legal)

    def step(self, records: NDArray[Any], legal: NDArray[np.bool_], last: bool) -> _Moves:
        """All joint moves of states [n] with legal actions [n, P, A]; ``last``: the time limit ends all."""
        total = int(legal.sum(2).prod(1, dtype=float).sum())
        if total > self.limit:
            raise GameError(f"{self.game.name}: got {total:,} joint moves in a round; wanted at most {self.limit:,}")
        state, action, place = _joint_moves(legal)
        reward, ended = np.empty(action.shape), np.empty(len(state), bool)
        after, drew = np.empty(len(state), self.game.state_dtype), np.empty(len(state), bool)
        for part in range(0, len(state), self._most):
            at = slice(part, part + self._most)
            count = len(state[at])
            copies = self._pool(records[state[at]])
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
        of, place, share, reward, ended, after = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(of, kind="stable")
        number = np.full(len(of), -1)
        goes_on = ~ended & (not last)
        number[goes_on] = self.number(after[goes_on])
        rows = np.bincount(of, minlength=len(records))
        return _Moves(place[order], share[order], reward[order], number[order], rows)

    def _draw(
        self, records: NDArray[Any], state: NDArray[np.int64], action: NDArray[np.int64], place: NDArray[np.int64],
        drew: NDArray[np.int64],
    ) -> tuple[Any, ...]:  # fmt: skip
        """The same columns for the moves numbered ``drew``, a row for each outcome."""
        found: list[Outcome] = []
        counts: list[int] = []
        left = len(drew)  # each has one outcome at least
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
        """Refuse the game if it has so many outcomes of chance besides those of the rounds before."""
        least = self._outcomes + more
        if least > _MAX_OUTCOMES:
            raise GameError(
                f"{self.game.name}: got {least:,} or more outcomes of chance from {len(self):,} states; wanted at most "
                f"{_MAX_OUTCOMES:,}"
            )

    def _pool(self, records: NDArray[Any]) -> Copies:
        """Copies that are in the given states; what is left over of them is over, and stands still."""
        size = next(size for size in (*_SIZES[:-1], self._most) if size >= len(records))
        if size not in self._pools:
            self._pools[size] = Copies(self.game, size, autoreset="disabled", illegal="replace", threads=1)
        copies = self._pools[size]
        copies.states["over"] = 1
        copies.states[: len(records)] = records
        if not self._timed:
            copies.states["elapsed"] = -1  # out of the time limit's reach
        copies.look()
        return copies


class _Tree:
    """Grows all histories round by round."""

    def __init__(self, game: Game, move_limit: int) -> None:
        self.game, self.limit, self.states = game, move_limit, _States(game, move_limit)
        self._seats = [_Seat() for _ in range(game.seats)]
        self._sequences: list[NDArray[np.int32]] = []
        self._payoffs: list[NDArray[np.float64]] = []

    def grow(self) -> SequenceForm:
        """The whole game."""
        state, reach = self.states.begin()
        sequence = np.zeros((len(state), self.game.seats), np.int64)
        moves, rounds = 0, 0
        while len(state):
            rounds += 1
            present, of = np.unique(state, return_inverse=True)
            records = self.states.records(present)
            seen, legal = self.states.look(records)
            first = np.stack(
                [seat.meet(present, of, sequence[:, k], seen[:, k], legal[:, k]) for k, seat in enumerate(self._seats)],
                -1,
            )  # [N, P], the first sequence of each seat's information set
            moves += int(legal.sum(2).prod(1, dtype=float)[of].sum())
            if moves > self.limit:
                raise GameError(
                    f"{self.game.name}: got {moves:,} joint moves within {rounds} rounds; wanted at most {self.limit:,}"
                )
            table = self.states.step(records, legal, rounds == self.game.horizon)
            state, reach, sequence = self._spread(table, of, reach, first)
        return self._assemble()

    def _spread(
        self, table: _Moves, of: NDArray[np.int64], reach: NDArray[np.float64], first: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
        """Note what all histories of a round are paid; gives those of the next: states, probabilities, sequences."""
        counts = table.rows[of]
        node = np.repeat(np.arange(len(of)), counts)
        row = np.arange(len(node)) - np.repeat(np.cumsum(counts) - counts, counts)
        row += (np.cumsum(table.rows) - table.rows)[of][node]
        sequence, share = first[node] + table.action[row], reach[node] * table.share[row]
        paid = table.reward[row].any(1)
        self._sequences.append(sequence[paid].T.astype(np.int32))
        self._payoffs.append((table.reward[row[paid]] * share[paid, None]).T)
        on = table.after[row] >= 0
        state, share, sequence = table.after[row[on]], share[on], sequence[on]
        same = state  # histories that are one in all but draws that nobody has seen
        for column in sequence.T:
            same = np.unique(same * (int(column.max(initial=0)) + 1) + column, return_inverse=True)[1].reshape(-1)
        _, place = np.unique(same, return_index=True)
        return state[place], np.bincount(same, share, len(place)).astype(np.float64), sequence[place]

    def _assemble(self) -> SequenceForm:
        total = len(self.states)
        batch = GameBatch(self.game, total, autoreset="disabled", illegal="replace", threads=1)
        obs = batch.set_state(self.states.records(np.arange(total)))
        shape = (total, self.game.seats, self.game.action.mask_size)
        legal = np.ones(shape, bool) if batch.legal_mask is None else batch.legal_mask.numpy().copy()
        return SequenceForm(
            tuple(seat.done() for seat in self._seats), np.concatenate(self._sequences, 1),
            np.concatenate(self._payoffs, 1), obs, legal,
        )  # fmt: skip


class _Seat:
    """Numbers one seat's information sets and sequences."""

    def __init__(self) -> None:
        self._parent: list[NDArray[np.int64]] = []
        self._state: list[NDArray[np.int64]] = []
        self._infoset, self._action = [np.array([-1])], [np.array([-1])]
        self._rounds = [(0, 1)]

    def meet(
        self, present: NDArray[np.int64], of: NDArray[np.int64], sequence: NDArray[np.int64], seen: NDArray[np.uint8],
        legal: NDArray[np.bool_],
    ) -> NDArray[np.int64]:  # fmt: skip
        """A round's information sets.

        Args:
            present: numbers of the states, [n].
            of: the place of each history's state among them, [N].
            sequence: of each history, [N].
            seen: what the seat sees in each state, [n, bytes].
            legal: its legal actions in each state, [n, A].

        Returns:
            The number of the first of the sequences that go on from each history, [N].
        """
        looks = np.ascontiguousarray(np.concatenate([seen, legal.astype(np.uint8)], 1))
        distinct, look = np.unique(looks.view(np.dtype((np.void, looks.shape[1])))[:, 0], return_inverse=True)
        key = sequence * len(distinct) + look.reshape(-1)[of]
        _, place, number = np.unique(key, return_index=True, return_inverse=True)
        begin, start = self._rounds[-1]
        infoset, action = np.nonzero(legal[of[place]])
        counts = np.bincount(infoset, minlength=len(place))
        self._parent.append(sequence[place])
        self._state.append(present[of[place]])
        self._infoset.append(infoset + begin)
        self._action.append(action)
        self._rounds.append((begin + len(place), start + len(infoset)))
        return (start + np.cumsum(counts) - counts)[number.reshape(-1)]

    def done(self) -> SeatForm:
        """All of them."""
        return SeatForm(
            np.concatenate(self._parent), np.concatenate(self._state), np.concatenate(self._infoset),
            np.concatenate(self._action), tuple(self._rounds),
        )  # fmt: skip


def _joint_moves(legal: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The joint moves of states whose legal actions are [n, P, A].

    Returns:
        The state's number [R], in order; each seat's action [R, P]; and its place among the legal ones [R, P].
    """
    choices = legal.sum(2)
    totals = choices.prod(1)
    state = np.repeat(np.arange(len(legal)), totals)
    index = np.arange(len(state)) - np.repeat(np.cumsum(totals) - totals, totals)
    order = np.argsort(~legal, axis=2, kind="stable")  # the legal actions first
    place = np.empty((len(state), legal.shape[1]), np.int64)
    for seat in reversed(range(legal.shape[1])):  # the last seat's action fastest
        index, place[:, seat] = np.divmod(index, choices[state, seat])
    return state, order[state[:, None], np.arange(legal.shape[1]), place], place
