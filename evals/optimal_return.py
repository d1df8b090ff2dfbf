"""Optimal and random return of an environment that is small enough to be solved, as references for an agent's return.

Both are undiscounted and respect the time limit (backward induction,
:mod:`mlbits.agents.planning.dynamic_programming`), like the returns that they are compared with. A return by itself
says little where rewards are negative or any policy earns much, so a return's score is its position between the two: 0
is the mean of random play, 1 that of the best policy.

The best policy here sees the whole state and the time left. Where states that need different actions have the same
observation, no policy on observations could do as well, and there are no reference returns.

Where there are too many initial states to average over (a new map every episode), the references are those of the
initial states that were played: the same episodes, played optimally.

Example:
    >>> found = reference_returns("mlbits/CliffWalk-v0")
    >>> round(found.optimum, 6), round(found.score(-17.0), 4)
    (-13.0, 0.9981)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbits.agents.planning.dynamic_programming import action_values, backward_induction, best_actions, uniform_policy
from mlbits.envs.core.errors import GameError
from mlbits.envs.core.game import Game
from mlbits.envs.engine.batch import GameBatch
from mlbits.envs.exact.transition_table import TransitionTable, read_gymnasium, read_table
from mlbits.envs.registry import make_game, registered

# Sizes that one core can solve in a second or two.
_LIMITS: dict[str, Any] = {"start_limit": 5_000, "state_limit": 30_000, "outcome_limit": 100_000}
_MOST_STARTS = 1000
_STEPS = 10_000  # maximum steps of an episode without a time limit


@dataclass(frozen=True)
class ReferenceReturns:
    """The mean returns of the best policy and of random play.

    Attributes:
        optimum: mean return of the best policy.
        random: mean return of play that draws every legal action with equal probability.
        all_starts: whether the means are over all initial states, or over those that were played.
    """

    optimum: float
    random: float
    all_starts: bool

    def score(self, mean: float) -> float | None:
        """The position of a mean return between random play, 0, and the best, 1; None where these two are equal."""
        spread = self.optimum - self.random
        return None if spread <= 1e-9 * max(1.0, abs(self.optimum)) else (mean - self.random) / spread


def reference_returns(
    env: str, settings: Mapping[str, Any] | None = None, starts: NDArray[Any] | None = None
) -> ReferenceReturns | None:
    """The reference returns of an environment.

    Args:
        env: its id.
        settings: settings of the environment.
        starts: records of the initial states of the episodes that were played, or None.

    Returns:
        The reference returns, or None where the environment is too large to be solved, has several seats, or hides
        what the best policy needs to know.
    """
    try:
        if env not in registered():
            return _measured(read_gymnasium(env, settings), all_starts=True)
        game = make_game(env, **dict(settings or {}))
        try:
            table, everywhere = read_table(game, **_LIMITS), True
        except GameError:
            if starts is None or len(starts) > _MOST_STARTS:
                raise
            table, everywhere = read_table(game, starts=starts, **_LIMITS), False
    except GameError:
        return None
    return _measured(table, everywhere) if shows_enough(table, game) else None


def _measured(table: TransitionTable, all_starts: bool) -> ReferenceReturns:
    best, random = (backward_induction(table, policy=policy) for policy in (None, uniform_policy(table)))
    return ReferenceReturns(float(best.value @ table.start), float(random.value @ table.start), all_starts)


def shows_enough(table: TransitionTable, game: Game) -> bool:
    """Whether some best policy takes the same action, at each time, in all states with the same observation.

    Args:
        table: the game's transition table, with its states.
        game: the game.
    """
    assert table.states is not None
    batch = GameBatch(game, table.num_states, autoreset="disabled", threads=1)
    obs = batch.set_state(table.states)
    parts = obs.values() if isinstance(obs, dict) else [obs]
    looks = np.concatenate([part.reshape(table.num_states, -1).numpy().astype(float) for part in parts], 1)
    distinct, of = np.unique(looks, axis=0, return_inverse=True)
    if len(distinct) == table.num_states:
        return True
    order = np.argsort(of.reshape(-1), kind="stable")
    first = np.searchsorted(of.reshape(-1)[order], np.arange(len(distinct)))
    value, going = np.zeros(table.num_states), table.going
    for _ in range(table.horizon or _STEPS):
        q = action_values(table, value, 1.0, going)
        if not np.logical_and.reduceat(best_actions(q)[order], first, axis=0).any(1).all():
            return False
        value, before = q.max(1), value
        if np.array_equal(value, before):
            break
    return True
