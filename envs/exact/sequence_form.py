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
look at; rewards are not seen until the game is over. Seats may act at once or in turns. What moves lead to, chance
included, is found by :mod:`mlbits.envs.exact.joint_states`.

Example:
    >>> from mlbits.envs.registry import make_game
    >>> form = read_sequence_form(make_game("mlbits/Goofspiel-v0", cards=3))
    >>> [len(seat.parent) for seat in form.seats], form.payoffs.shape  # information sets; outcomes that pay somebody
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


class _Tree:
    """Grows all histories round by round."""

    def __init__(self, game: Game, move_limit: int) -> None:
        self.game, self.limit, self.states = game, move_limit, States(game, move_limit)
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
            table = self.states.step(records, legal, last=rounds == self.game.horizon)
            state, reach, sequence = self._spread(table, of, reach, first)
        return self._assemble()

    def _spread(
        self, table: Moves, of: NDArray[np.int64], reach: NDArray[np.float64], first: NDArray[np.int64]
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
