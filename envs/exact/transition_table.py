"""Transition tables of finite one-seat games, built from their rules; :mod:`dynamic_programming` solves them.

States are found breadth-first from the initial states. All states x legal actions of a round are stepped in one
batch by the compiled rules. Where a step drew a random number, its outcomes are enumerated with exact
probabilities (:mod:`mlbits.envs.exact.outcomes`), and the result of the compiled step must be one of them.

A state consists of the fields of a copy's record that the rules read back (:mod:`mlbits.envs.exact.state_fields`). Time
is part of it only if the rules read ``elapsed``; the time limit of all other games is the ``horizon`` of the table,
which backward induction uses and discounted solutions ignore, as learners that bootstrap from truncated episodes do.

Example:
    >>> from mlbits.envs.registry import make_game
    >>> table = read_table(make_game("mlbits/GridWorld-v0", map="S.G", slip=0.5))
    >>> table.num_states, table.probability[1].toarray().tolist()  # at S, one move right; another one reaches G
    (2, [[0.375, 0.625]])
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from mlbits.envs.core.errors import GameError
from mlbits.envs.core.game import Game
from mlbits.envs.doors.gymnasium_ids import make_copy
from mlbits.envs.exact.outcomes import Chance, Outcome
from mlbits.envs.exact.placed_copies import StateCopies, state_keys
from mlbits.envs.exact.state_fields import fields_read
from mlbits.envs.registry import make_game, registered

MAX_ACTIONS = 100_000


@dataclass(frozen=True, eq=False)
class TransitionTable:
    """A finite Markov decision process: S states, A actions.

    Attributes:
        legal: bool [S, A].
        reward: mean reward of each action, float64 [S, A]; 0 for illegal actions.
        probability: sparse float64 [S * A, S]; row s * A + a holds the probabilities of the next states, which add up
            to 1 minus the probability of termination.
        start: probability that an episode starts in each state, float64 [S].
        cut: the part of ``probability`` after which the rules truncate the episode, or None if they never do.
        horizon: steps after which an episode is truncated, or None.
        states: records [S] of the states, of the game's ``state_dtype``, or None.
        actions: the environment's action for each of the A actions, int64 [A] or [A, k].
    """

    legal: NDArray[np.bool_]
    reward: NDArray[np.float64]
    probability: sparse.csr_matrix
    start: NDArray[np.float64]
    cut: sparse.csr_matrix | None = None
    horizon: int | None = None
    states: NDArray[Any] | None = None
    actions: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        states, actions = np.shape(self.legal)
        total = np.asarray(self.probability.sum(1)).reshape(states, actions)
        wrong = (
            f"reward of shape {np.shape(self.reward)}; wanted {(states, actions)}"
            if np.shape(self.reward) != (states, actions)
            else f"start of shape {np.shape(self.start)}; wanted {(states,)}"
            if np.shape(self.start) != (states,)
            else "a state without a legal action; wanted at least one in each"
            if not self.legal.any(1).all()
            else "a reward that is not finite"
            if not np.isfinite(self.reward).all()
            else "probabilities below 0 or, together, above 1"
            if self.probability.data.min(initial=0.0) < 0 or not (total <= 1 + 1e-9).all()
            else None
        )
        if wrong is not None:
            raise GameError(f"table: got {wrong}")

    @classmethod
    def from_arrays(
        cls, probability: ArrayLike, reward: ArrayLike, *, legal: ArrayLike | None = None,
        start: ArrayLike | None = None, horizon: int | None = None,
    ) -> TransitionTable:  # fmt: skip
        """A table from dense arrays.

        Args:
            probability: probability of each next state, [S, A, S]; what is missing to 1 terminates.
            reward: mean reward, [S, A].
            legal: bool [S, A]; None if every action is legal.
            start: [S]; None makes all states equally likely.
            horizon: steps after which an episode is truncated, or None.

        Raises:
            GameError: if shapes do not match, or the numbers are not probabilities.
        """
        dense = np.asarray(probability, float)
        if dense.ndim != 3 or dense.shape[0] != dense.shape[2]:
            raise GameError(f"probability: got shape {dense.shape}; wanted [S, A, S]")
        states, actions, _ = dense.shape
        allowed = np.ones((states, actions), bool) if legal is None else np.asarray(legal, bool)
        return cls(
            legal=allowed,
            reward=np.asarray(reward, float),
            probability=sparse.csr_matrix(dense.reshape(states * actions, states)),
            start=np.full(states, 1 / states) if start is None else np.asarray(start, float),
            horizon=horizon,
        )

    @property
    def num_states(self) -> int:
        """The number of states S."""
        return len(self.legal)

    @property
    def num_actions(self) -> int:
        """The number of actions A."""
        return self.legal.shape[1]

    @property
    def going(self) -> sparse.csr_matrix:
        """The part of ``probability`` after which the episode continues."""
        return self.probability if self.cut is None else (self.probability - self.cut).tocsr()


def read_table(
    game: Game, *, starts: NDArray[Any] | None = None, start_limit: int = 100_000, state_limit: int = 200_000,
    outcome_limit: int = 1_000_000,
) -> TransitionTable:  # fmt: skip
    """Build a game's transition table from its rules.

    Args:
        game: a game of one seat, with Discrete or MultiDiscrete actions.
        starts: initial records [N] of the game's ``state_dtype``, equally likely (as from ``GameBatch.records``);
            None means the initial states of the rules, with their probabilities.
        start_limit: most initial states of the rules; beyond it the game is refused.
        state_limit: most states.
        outcome_limit: most outcomes of steps that draw random numbers.

    Raises:
        GameError: if the game has several seats or continuous actions, draws a field of the state from a continuum, or
            exceeds a limit.
    """
    if game.seats != 1 or game.action.kind == "continuous":
        raise GameError(
            f"{game.name}: got {game.seats} seats and {game.action.kind} actions; wanted one seat and finitely many "
            "actions"
        )
    if np.prod(game.action.nvec, dtype=float) > MAX_ACTIONS:
        raise GameError(f"{game.name}: got {game.action_space}; wanted at most {MAX_ACTIONS:,} combined actions")
    return _Reader(game, start_limit, state_limit, outcome_limit).table(starts)


def read_gymnasium(env_id: str, settings: Mapping[str, Any] | None = None) -> TransitionTable:
    """The transition table that Gymnasium's toy-text environments (FrozenLake, CliffWalking, Taxi) store in ``P``.

    Args:
        env_id: a Gymnasium id.
        settings: keyword arguments of the environment.

    Raises:
        UnknownIdError: if Gymnasium does not know the id.
        GameError: if the environment has no table.
    """
    env = make_copy(env_id, settings or {})
    listed, start = getattr(env.unwrapped, "P", None), getattr(env.unwrapped, "initial_state_distrib", None)
    horizon = None if env.spec is None else env.spec.max_episode_steps
    env.close()
    if not isinstance(listed, Mapping) or start is None:
        raise GameError(f"{env_id}: it has no transition table; wanted a game of mlbits or of Gymnasium's toy text")
    states, actions = len(listed), len(listed[0])
    reward = np.zeros((states, actions))
    rows, columns, weights = [], [], []
    for state, action in itertools.product(range(states), range(actions)):
        for weight, following, paid, terminated in listed[state][action]:
            reward[state, action] += weight * float(paid)
            if not terminated:
                rows.append(state * actions + action)
                columns.append(int(following))
                weights.append(float(weight))
    return TransitionTable(
        legal=np.ones((states, actions), bool),
        reward=reward,
        probability=sparse.csr_matrix((weights, (rows, columns)), shape=(states * actions, states)),
        start=np.asarray(start, float),
        horizon=horizon,
        actions=np.arange(actions),
    )


def table_of(env_id: str, settings: Mapping[str, Any] | None = None, **limits: Any) -> TransitionTable:
    """The table of an environment by id; ``limits`` go to :func:`read_table`. See also :func:`read_gymnasium`."""
    if env_id in registered():
        return read_table(make_game(env_id, **dict(settings or {})), **limits)
    return read_gymnasium(env_id, settings)


class _Reader:
    """Numbers the states of one game in the order of discovery, and records the outcomes of their actions."""

    def __init__(self, game: Game, start_limit: int, state_limit: int, outcome_limit: int) -> None:
        self.game, self.state_limit, self.outcome_limit = game, state_limit, outcome_limit
        fields = fields_read(game)
        self._timed = "elapsed" in fields
        # Rules that read their random stream may depend on it without drawing from it.
        self._always_chance = bool({"rng_key", "rng_counter"} & fields)
        own = {str(field[0]) for field in game.state_fields}
        kept = [name for name in game.state_dtype.names or () if name in fields & (own | {"elapsed"})]
        self._chance = Chance(game, kept, start_limit)
        self._key = np.dtype([("_", "u1"), *((name, game.state_dtype[name]) for name in kept)])
        self._exact = all(game.state_dtype[name].base.kind in "biu" for name in kept)
        self.actions = _all_actions(game)
        self._numbers: dict[bytes, int] = {}
        self._new: list[NDArray[Any]] = []  # records of states found since the last round
        self._starts, self._moves, self._outcomes = 0, 0, 0
        self._copies = StateCopies(game, timed=self._timed)
        self._rows: list[NDArray[np.int64]] = []
        self._columns: list[NDArray[np.int64]] = []
        self._probabilities: list[NDArray[np.float64]] = []
        self._cut: list[NDArray[np.bool_]] = []
        self._rewards: list[tuple[NDArray[np.int64], NDArray[np.float64]]] = []

    def table(self, starts: NDArray[Any] | None) -> TransitionTable:
        """Enumerate all reachable states."""
        records, start = self._begin(starts)
        self._starts = len(records)
        first = self._number(records)
        states: list[NDArray[Any]] = []
        legal: list[NDArray[np.bool_]] = []
        while self._new:
            frontier, self._new = np.concatenate(self._new), []
            number = sum(map(len, states))
            states.append(frontier)
            self._moves += 1
            for part in range(0, len(frontier), self._copies.max_states):
                legal.append(self._expand(frontier[part : part + self._copies.max_states], number + part))
        return self._assemble(np.concatenate(states), np.concatenate(legal), first, start)

    def _begin(self, starts: NDArray[Any] | None) -> tuple[NDArray[Any], NDArray[np.float64]]:
        game = self.game
        if starts is None:
            found = self._chance.resets()
            records = np.empty(len(found), game.state_dtype)
            for k, outcome in enumerate(found):
                records[k] = outcome.record
            return records, np.array([outcome.probability for outcome in found])
        if getattr(starts, "dtype", None) != game.state_dtype or starts.ndim != 1 or len(starts) == 0:
            raise GameError(f"starts: wanted one or more records [N] of {game.name}'s state_dtype")
        return starts.copy(), np.full(len(starts), 1 / len(starts))

    def _number(self, records: NDArray[Any]) -> NDArray[np.int64]:
        """The numbers of states; new states are added."""
        self._clean(records)
        keys = state_keys(records, self._key)
        _, place, inverse = np.unique(
            keys.view(np.dtype(("S", self._key.itemsize))), return_index=True, return_inverse=True
        )
        numbers, new = np.empty(len(place), np.int64), []
        for k in np.argsort(place).tolist():  # in the order in which they were found
            key = keys[place[k]].tobytes()
            number = self._numbers.get(key)
            if number is None:
                number = self._numbers[key] = len(self._numbers)
                new.append(place[k])
            numbers[k] = number
        if len(self._numbers) > self.state_limit:
            raise GameError(
                f"{self.game.name}: got more than {self.state_limit:,} states within {self._moves} moves of "
                f"{self._starts:,} starts; wanted fewer, or a larger state_limit"
            )
        if new:
            self._new.append(records[new])
        return numbers[inverse.reshape(-1)]

    def _clean(self, records: NDArray[Any]) -> None:
        """Clear the fields of records that are not part of a state."""
        records["rng_key"], records["rng_counter"], records["over"] = 0, 0, 0
        if not self._timed:
            records["elapsed"] = 0

    def _expand(self, states: NDArray[Any], number: int) -> NDArray[np.bool_]:
        """Step every legal action of states that are numbered from ``number``; return the legal actions [n, A]."""
        allowed = self._copies.at(states).legal[: len(states), 0] if self.game.masked else None
        legal = np.ones((len(states), len(self.actions)), bool)
        if allowed is not None:
            start = 0
            for k, n in enumerate(self.game.action.nvec):
                legal &= allowed[:, start : start + n][:, self.actions.reshape(len(self.actions), -1)[:, k]]
                start += n
        if not legal.any(1).all():
            raise GameError(f"{self.game.name}: no action is legal in a state that is not final; wanted at least one")
        state, action = np.nonzero(legal)
        for part in range(0, len(state), self._copies.max_states):
            chosen = slice(part, part + self._copies.max_states)
            rows = (number + state[chosen]) * len(self.actions) + action[chosen]
            self._step(states[state[chosen]], self.actions[action[chosen]], rows)
        return legal

    def _step(self, states: NDArray[Any], actions: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        """Record the outcomes of pairs of states and actions."""
        copies, count = self._copies.at(states), len(states)
        played = np.zeros((copies.num_envs, 1, *self.game.action.shape), np.int64)
        played[:count, 0] = actions
        copies.step(played)
        after, reward = copies.states[:count].copy(), copies.rewards[:count, 0].astype(float)
        terminated, truncated = copies.terminated[:count].copy(), copies.truncated[:count].copy()
        certain = (after["rng_counter"] == 0) & (not self._always_chance)
        terminated |= self._timed_out(after)
        self._note(rows[certain], np.ones(certain.sum()), reward[certain], after[certain], terminated[certain],
                   truncated[certain])  # fmt: skip
        if not certain.all():
            self._draw(states, actions, rows, np.flatnonzero(~certain), (after, terminated, truncated))

    def _draw(
        self, states: NDArray[Any], actions: NDArray[np.int64], rows: NDArray[np.int64], drawn: NDArray[np.int64],
        played: tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.bool_]],
    ) -> None:  # fmt: skip
        """Record all outcomes of the pairs numbered ``drawn``; ``played`` is the compiled step's result."""
        found: list[Outcome] = []
        counts = []
        for k in drawn.tolist():
            outcomes = self._chance.steps(states[k], actions[k])
            found += outcomes
            counts.append(len(outcomes))
            if self._outcomes + len(found) > self.outcome_limit:
                raise GameError(
                    f"{self.game.name}: got more than {self.outcome_limit:,} outcomes of chance from "
                    f"{len(self._numbers):,} states; wanted fewer, or a larger outcome_limit"
                )
        self._outcomes += len(found)
        of = np.repeat(drawn, counts)
        after = np.empty(len(found), self.game.state_dtype)
        for k, outcome in enumerate(found):
            after[k] = outcome.record
        after["elapsed"] += 1
        probability, reward = (np.array([outcome[k] for outcome in found]) for k in (0, 1))
        terminated, truncated = (np.array([outcome[k] for outcome in found], bool) for k in (2, 3))
        terminated |= self._timed_out(after)
        same = (terminated == played[1][of]) & (terminated | (truncated == played[2][of]))
        if self._exact:
            same &= terminated | (state_keys(after, self._key) == state_keys(played[0][of], self._key))
        if not np.bincount(of, same)[drawn].all():
            raise GameError(
                f"{self.game.name}: the compiled step gave a result that is not among the outcomes of the rules' "
                "source code; wanted rules that agree in both forms"
            )
        self._note(rows[of], probability, reward, after, terminated, truncated)

    def _timed_out(self, after: NDArray[Any]) -> NDArray[np.bool_]:
        """If time is part of the state, reaching the time limit ends the game."""
        horizon = self.game.horizon
        return after["elapsed"] >= horizon if self._timed and horizon else np.zeros(len(after), bool)

    def _note(
        self, rows: NDArray[np.int64], probability: NDArray[np.float64], reward: NDArray[np.float64],
        after: NDArray[Any], terminated: NDArray[np.bool_], truncated: NDArray[np.bool_],
    ) -> None:  # fmt: skip
        self._rewards.append((rows, probability * reward))
        continues = ~terminated
        if continues.any():
            self._rows.append(rows[continues])
            self._columns.append(self._number(after[continues]))
            self._probabilities.append(probability[continues])
            self._cut.append(truncated[continues])

    def _assemble(
        self, states: NDArray[Any], legal: NDArray[np.bool_], first: NDArray[np.int64], start: NDArray[np.float64]
    ) -> TransitionTable:
        count, pairs = len(states), legal.size
        paid_rows, paid = (np.concatenate(parts) for parts in zip(*self._rewards, strict=True))
        rows, columns = (np.concatenate([np.zeros(0, np.int64), *parts]) for parts in (self._rows, self._columns))
        weights = np.concatenate([np.zeros(0), *self._probabilities])
        cut = np.concatenate([np.zeros(0, bool), *self._cut])

        def matrix(chosen: Any) -> sparse.csr_matrix:
            return sparse.csr_matrix((weights[chosen], (rows[chosen], columns[chosen])), shape=(pairs, count))

        return TransitionTable(
            legal=legal,
            reward=np.asarray(np.bincount(paid_rows, paid, pairs), float).reshape(legal.shape),
            probability=matrix(slice(None)),
            start=np.asarray(np.bincount(first, start, count), float),
            cut=matrix(cut) if cut.any() else None,
            horizon=None if self._timed else self.game.horizon,
            states=states,
            actions=self.actions,
        )


def _all_actions(game: Game) -> NDArray[np.int64]:
    """Every action: [A], or [A, k] for MultiDiscrete."""
    if game.action.kind == "discrete":
        return np.arange(game.action.nvec[0])
    return np.array(list(itertools.product(*(range(n) for n in game.action.nvec))), np.int64)
