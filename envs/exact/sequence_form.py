"""Sequence forms of small finite games, built from their rules, for computing exact best responses.

Von Stengel 1996, "Efficient computation of behavior strategies" (Games and Economic Behavior 14), section 3. A seat's
sequence is what it has observed and done so far; its information set is that without its last action. With x_i(s)
the product of seat i's own probabilities along its sequence s, and g the payoffs times the probability of chance,

    u_j(x) = sum over outcomes of g_j(s_1, ..., s_P) prod_i x_i(s_i)

which is linear in each x_i. A mixture that draws one of several policies for a whole game has the mean of their x_i,
and nothing else about it matters (Kuhn's theorem). A best response of seat j is found by backward induction over its
information sets: the value of a sequence is what it is paid directly plus the best of each set I that follows,

    v_j(s) = sum over outcomes with s_j = s of g_j prod_{i != j} x_i + sum over I after s of max over a of v_j(I, a)

A seat's information is the sequence of its own observations, legal actions and actions (perfect recall), whatever its
policy uses; rewards are not observed until the game is over. Seats may act simultaneously or in turns. Outcomes of
moves, chance included, come from :mod:`mlbits.envs.exact.joint_states`.

Example:
    >>> from mlbits.envs.registry import make_game
    >>> form = read_sequence_form(make_game("mlbits/Goofspiel-v0", cards=3))
    >>> [len(seat.parent) for seat in form.seats], form.payoffs.shape  # information sets; outcomes that pay a seat
    ([57, 57], (2, 156))
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbits.envs.core.errors import GameError
from mlbits.envs.core.game import Game
from mlbits.envs.engine.batch import GameBatch
from mlbits.envs.exact.joint_states import Moves, States

MAX_MOVES = 2**22  # joint moves of the tree: 100 MB of payoffs for two seats


@dataclass(frozen=True, eq=False)
class SeatForm:
    """One seat's information sets [I] and sequences [Q], both in order of time; sequence 0 is the empty one.

    Attributes:
        parent: sequence that leads to an information set, [I].
        state: number of a state of the game in that information set, [I].
        infoset: information set at which a sequence ends, [Q], -1 for the empty one.
        action: action with which a sequence ends, [Q], -1 for the empty one.
        rounds: (first information set, first sequence) of each round; a last pair holds the total numbers.
    """

    parent: NDArray[np.int64]
    state: NDArray[np.int64]
    infoset: NDArray[np.int64]
    action: NDArray[np.int64]
    rounds: tuple[tuple[int, int], ...]

    def realisation(self, policy: NDArray[np.float64]) -> NDArray[np.float64]:
        """The product of a policy's probabilities along each sequence, x [Q].

        Args:
            policy: action probabilities in each state of the game, [S, A].
        """
        plan = np.ones(len(self.infoset))
        for (_, begin), (_, end) in itertools.pairwise(self.rounds):
            at = self.infoset[begin:end]
            plan[begin:end] = plan[self.parent[at]] * policy[self.state[at], self.action[begin:end]]
        return plan

    def best(self, paid: NDArray[np.float64]) -> float:
        """The value of a best response, if each sequence is paid ``paid`` [Q] against the others' plans."""
        value = paid.copy()
        for (first, begin), (last, end) in reversed(list(itertools.pairwise(self.rounds))):
            if last > first:
                starts = np.searchsorted(self.infoset[begin:end], np.arange(first, last))
                best = np.maximum.reduceat(value[begin:end], starts)
                value[: begin or 1] += np.bincount(self.parent[first:last], best, begin)
        return float(value[0])


@dataclass(frozen=True, eq=False)
class SequenceForm:
    """A game of P seats in sequence form, with S numbered states.

    Attributes:
        seats: each seat's information sets and sequences.
        sequences: each seat's sequence that leads to an outcome, int32 [P, E].
        payoffs: each seat's payoff of an outcome times the probability of chance, float64 [P, E].
        obs: observations [S, P, ...], or a dict of those.
        legal: bool [S, P, A].
        active: bool [S, P], who acts.
        states: records of the states, [S].
        game: the game.
    """

    seats: tuple[SeatForm, ...]
    sequences: NDArray[np.int32]
    payoffs: NDArray[np.float64]
    obs: Any
    legal: NDArray[np.bool_]
    active: NDArray[np.bool_]
    states: NDArray[Any]
    game: Game

    def values(self, plans: Sequence[NDArray[np.float64]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Each seat's expected return, and that of its best response to the others, both [P].

        Args:
            plans: each seat's realisation probabilities, [Q_i].
        """
        reach = [plan[of] for plan, of in zip(plans, self.sequences, strict=True)]
        now, best = np.zeros(len(plans)), np.zeros(len(plans))
        for seat, plan in enumerate(plans):
            others = math.prod((x for other, x in enumerate(reach) if other != seat), start=self.payoffs[seat])
            paid = np.bincount(self.sequences[seat], others, len(plan)).astype(np.float64)
            now[seat], best[seat] = plan @ paid, self.seats[seat].best(paid)
        return now, best


def read_sequence_form(game: Game, *, move_limit: int = MAX_MOVES) -> SequenceForm:
    """Enumerate all histories of a game.

    Args:
        game: a game of one seat or more, with Discrete actions.
        move_limit: most joint moves over all histories; beyond it the game is refused.

    Raises:
        GameError: if the actions are not Discrete, or a limit is exceeded.
    """
    if game.action.kind != "discrete":
        raise GameError(f"{game.name}: got {game.action_space}; wanted Discrete actions")
    return _Tree(game, move_limit).grow()


class _Tree:
    """Enumerates all histories round by round."""

    def __init__(self, game: Game, move_limit: int) -> None:
        self.game, self.limit, self.states = game, move_limit, States(game, move_limit)
        self._seats = [_Seat() for _ in range(game.seats)]
        self._sequences: list[NDArray[np.int32]] = []
        self._payoffs: list[NDArray[np.float64]] = []

    def grow(self) -> SequenceForm:
        """Enumerate the whole game."""
        state, reach = self.states.begin()
        sequence = np.zeros((len(state), self.game.seats), np.int64)
        moves, rounds = 0, 0
        while len(state):
            rounds += 1
            present, of = np.unique(state, return_inverse=True)
            records = self.states.records(present)
            seen, legal = self.states.observe(records)
            first = np.stack(
                [seat.meet(present, of, sequence[:, k], seen[:, k], legal[:, k]) for k, seat in enumerate(self._seats)],
                -1,
            )  # [N, P], the first sequence of each seat's information set
            moves += int(legal.sum(2).prod(1, dtype=float)[of].sum())
            if moves > self.limit:
                raise GameError(
                    f"{self.game.name}: got {moves:,} joint moves within {rounds} rounds; wanted at most {self.limit:,}"
                )
            table = self.states.step(records, legal, last=rounds == self.game.horizon)
            state, reach, sequence = self._spread(table, of, reach, first)
        return self._assemble()

    def _spread(
        self, table: Moves, of: NDArray[np.int64], reach: NDArray[np.float64], first: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
        """Record the payoffs of a round; return states, probabilities and sequences of the next round's histories."""
        counts = table.rows[of]
        node = np.repeat(np.arange(len(of)), counts)
        row = np.arange(len(node)) - np.repeat(np.cumsum(counts) - counts, counts)
        row += (np.cumsum(table.rows) - table.rows)[of][node]
        sequence, probability = first[node] + table.action[row], reach[node] * table.probability[row]
        paid = table.reward[row].any(1)
        self._sequences.append(sequence[paid].T.astype(np.int32))
        self._payoffs.append((table.reward[row[paid]] * probability[paid, None]).T)
        on = table.after[row] >= 0
        state, probability, sequence = table.after[row[on]], probability[on], sequence[on]
        same = state  # merge histories that differ only in draws that no seat has observed
        for column in sequence.T:
            same = np.unique(same * (int(column.max(initial=0)) + 1) + column, return_inverse=True)[1].reshape(-1)
        _, place = np.unique(same, return_index=True)
        return state[place], np.bincount(same, probability, len(place)).astype(np.float64), sequence[place]

    def _assemble(self) -> SequenceForm:
        total = len(self.states)
        batch = GameBatch(self.game, total, autoreset="disabled", illegal="replace", threads=1)
        records = self.states.records(np.arange(total))
        obs = batch.set_state(records)
        shape = (total, self.game.seats, self.game.action.mask_size)
        active = np.ones(shape[:2], bool) if batch.active is None else batch.active.numpy().copy()
        legal = np.ones(shape, bool) if batch.legal_mask is None else batch.legal_mask.numpy().copy()
        return SequenceForm(
            tuple(seat.done() for seat in self._seats), np.concatenate(self._sequences, 1),
            np.concatenate(self._payoffs, 1), obs, legal, active, records, self.game,
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
        """Number the information sets of a round.

        Args:
            present: numbers of the round's distinct states, [n].
            of: index into ``present`` of each history's state, [N].
            sequence: sequence of each history, [N].
            seen: the seat's observation in each state, [n, bytes].
            legal: its legal actions in each state, [n, A].

        Returns:
            The first of the sequences that continue each history, [N].
        """
        infos = np.ascontiguousarray(np.concatenate([seen, legal.astype(np.uint8)], 1))
        distinct, info = np.unique(infos.view(np.dtype((np.void, infos.shape[1])))[:, 0], return_inverse=True)
        key = sequence * len(distinct) + info.reshape(-1)[of]
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
        """The seat's information sets and sequences."""
        return SeatForm(
            np.concatenate(self._parent), np.concatenate(self._state), np.concatenate(self._infoset),
            np.concatenate(self._action), tuple(self._rounds),
        )  # fmt: skip
