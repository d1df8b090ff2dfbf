"""Exact solutions of finite decision processes: value iteration, policy iteration, backward induction.

Bellman (1957); Sutton and Barto, "Reinforcement Learning" (2018), chapter 4; Kaplan, "Notes on Contemporary Machine
Learning for Physicists", 8.3.4. With Bellman's operator

    (T V)(s) = max_a Q(s, a),    Q(s, a) = r(s, a) + gamma sum_s' P(s' | s, a) V(s')

* value iteration repeats V_{k+1} = T V_k (4.4 of the book). T is a contraction, |T U - T V| <= gamma |U - V| in the
  greatest absolute difference, so that V_k is within gamma / (1 - gamma) |V_k - V_{k-1}| of the optimum V*, and within
  gamma^k / (1 - gamma) |V_1 - V_0|, which is known in advance. Every solution reports how near it is.
* policy iteration (4.3) finds the value of a policy exactly, V = (1 - gamma P_pi)^-1 r_pi by a sparse solve, and makes
  the policy greedy, until nothing changes.
* backward induction takes as many steps of T from V = 0 as a time limit leaves: the optimum of an episode of that
  length, discounted or not, exactly.

At gamma = 1 there is no contraction. Value iteration still ends where all play does, and says that no bound holds;
policy iteration is refused, as a policy that never ends has no value.

Differs from textbooks in that a row of P that adds up to less than 1 terminates with what is missing (no state stands
for the end), and that illegal actions have the value minus infinity.

Example:
    >>> from mlbits.envs.exact.transition_table import table_of
    >>> table = table_of("mlbits/GridWorld-v0")
    >>> round(float(value_iteration(table, 0.95).value @ table.start), 4)  # 13 moves that cost 0.01, then the goal
    0.416
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import spsolve

from mlbits.agents.agent import AgentError
from mlbits.envs.exact.transition_table import TransitionTable

MAX_SWEEPS = 100_000
_UNLIMITED = 10_000  # steps that stand for an episode without a limit, as evaluation plays them
_TIE = 1e-10  # actions whose values differ by less, relative to the largest value, are as good


@dataclass(frozen=True, eq=False)
class Solution:
    """What a solver found.

    Attributes:
        value: V, float64 [S].
        action_value: Q, float64 [S, A], minus infinity where an action is not legal. V is its maximum.
        policy: the lowest-numbered best action of each state, int64 [S].
        iterations: sweeps of value iteration, improvements of policy iteration, steps of backward induction.
        bound: V is within this of the optimum, in every state; infinite where nothing is known.
        prior_bound: what was known of it from the first sweep on: gamma^k / (1 - gamma) |V_1 - V_0|.
    """

    value: NDArray[np.float64]
    action_value: NDArray[np.float64]
    policy: NDArray[np.int64]
    iterations: int
    bound: float
    prior_bound: float = np.inf


def action_values(
    table: TransitionTable, value: NDArray[np.float64], discount: float, probability: sparse.csr_matrix | None = None
) -> NDArray[np.float64]:
    """Q(s, a) = r(s, a) + gamma sum_s' P(s' | s, a) V(s'): one step of look-ahead.

    Args:
        table: of S states and A actions.
        value: V, [S].
        discount: gamma.
        probability: in place of the table's own.

    Returns:
        [S, A], minus infinity where an action is not legal.
    """
    following = ((table.probability if probability is None else probability) @ value).reshape(table.legal.shape)
    return np.where(table.legal, table.reward + discount * following, -np.inf)


def best_actions(action_value: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which actions are best in each state, all of those whose values differ by rounding alone; bool [S, A]."""
    best = action_value.max(1, keepdims=True)
    return action_value >= best - _TIE * max(1.0, float(np.abs(best).max()))


def check_accuracy(discount: float, tolerance: float) -> None:
    """Refuse what :func:`value_iteration` would refuse, before a table is read for it.

    Raises:
        AgentError: if the discount is not within 0..1, or the tolerance not above 0.
    """
    _check_discount(discount)
    if not tolerance > 0:
        raise AgentError(f"tolerance: got {tolerance}; wanted above 0")


def value_iteration(
    table: TransitionTable, discount: float, *, tolerance: float = 1e-8, value: NDArray[np.float64] | None = None
) -> Solution:
    """Bellman's operator again and again, until the contraction bound is below the tolerance.

    Args:
        table: the decision process. Its horizon is left out: episodes go on until they terminate.
        discount: gamma, 0..1.
        tolerance: of every state's value; at gamma = 1 of the last change, and no bound holds.
        value: V_0, [S]; None begins at 0.

    Raises:
        AgentError: if the discount or tolerance is out of range, or the values do not settle (gamma = 1 and play that
            never ends).
    """
    check_accuracy(discount, tolerance)
    v = np.zeros(table.num_states) if value is None else np.asarray(value, float)
    first = 0.0
    for sweep in range(1, MAX_SWEEPS + 1):
        q = action_values(table, v, discount)
        v, change = q.max(1), float(np.abs(q.max(1) - v).max())
        first = change if sweep == 1 else first
        bound = discount / (1 - discount) * change if discount < 1 else change
        if bound <= tolerance:
            if discount == 1:
                return _solution(q, sweep, np.inf)
            return _solution(q, sweep, bound, discount**sweep / (1 - discount) * first)
    raise AgentError(
        f"discount: got {discount} for a game whose values still change by {change:.3g} after {MAX_SWEEPS:,} sweeps; "
        "wanted a smaller discount or a larger tolerance, or backward_induction with a horizon"
    )


def policy_iteration(table: TransitionTable, discount: float, *, policy: NDArray[np.int64] | None = None) -> Solution:
    """Howard's algorithm: the exact value of a policy, then the greedy policy of that value, until nothing changes.

    Args:
        table: the decision process. Its horizon is left out.
        discount: gamma, 0 up to, but not including, 1.
        policy: the first actions, [S]; None begins with the best immediate reward.

    Raises:
        AgentError: if the discount is out of range, or a first action is not legal.
    """
    _check_discount(discount)
    if discount == 1:
        raise AgentError("discount: got 1; wanted below 1 (a policy that never ends has no value); or value_iteration")
    everywhere = np.arange(table.num_states)
    chosen = action_values(table, np.zeros(table.num_states), 0.0).argmax(1) if policy is None else np.asarray(policy)
    if not table.legal[everywhere, chosen].all():
        raise AgentError("policy: got an action that is not legal; wanted legal ones")
    improvements = 0
    while True:
        improvements += 1
        v = policy_value(table, np.eye(table.num_actions)[chosen], discount)
        q = action_values(table, v, discount)
        # Only a better action replaces the present one: rounding must not make ties change places for ever.
        better = ~best_actions(q)[everywhere, chosen]
        if not better.any():
            residual = float(np.abs(q.max(1) - v).max())
            return _solution(q, improvements, residual / (1 - discount))
        chosen = np.where(better, q.argmax(1), chosen)


def policy_value(table: TransitionTable, policy: NDArray[Any], discount: float) -> NDArray[np.float64]:
    """The exact value of a policy without a time limit, by a linear solve.

    Args:
        table: the decision process.
        policy: probabilities of the actions, [S, A].
        discount: gamma, below 1.

    Returns:
        V, [S].
    """
    reward, following = _under(table, policy, table.probability)
    identity = sparse.identity(table.num_states, format="csr")
    return np.atleast_1d(spsolve((identity - discount * following).tocsc(), reward))


def backward_induction(
    table: TransitionTable, *, horizon: int | None = None, discount: float = 1.0, policy: NDArray[Any] | None = None
) -> Solution:
    """The best that an episode can earn in the time that it has, or what a policy earns in it.

    What the rules truncate ends the episode, too. The best action depends on the time that is left: the solution's
    policy is that of an episode's first step.

    Args:
        table: the decision process.
        horizon: steps of an episode; None takes the table's own, or 10,000 where there is no limit (which is where
            evaluation cuts such episodes).
        discount: gamma, 0..1.
        policy: probabilities of the actions [S, A] to evaluate; None plays the best.

    Raises:
        AgentError: if the discount is out of range or the horizon negative.
    """
    _check_discount(discount)
    steps = (table.horizon or _UNLIMITED) if horizon is None else horizon
    if steps < 0:
        raise AgentError(f"horizon: got {horizon}; wanted a number of steps from 0")
    going = table.going
    fixed = None if policy is None else _under(table, policy, going)
    before = v = np.zeros(table.num_states)
    step = 0
    while step < steps:
        before, step = v, step + 1
        if fixed is not None:
            v = fixed[0] + discount * (fixed[1] @ before)
        else:
            v = action_values(table, before, discount, going).max(1)
        if np.array_equal(v, before):  # nothing changes any more, however long it goes on
            break
    q = action_values(table, before, discount, going)
    return Solution(v, q, q.argmax(1), step, 0.0)


def uniform_policy(table: TransitionTable) -> NDArray[np.float64]:
    """Every legal action as likely, [S, A]."""
    return table.legal / table.legal.sum(1, keepdims=True)


def _under(
    table: TransitionTable, policy: NDArray[Any], probability: sparse.csr_matrix
) -> tuple[NDArray[np.float64], sparse.csr_matrix]:
    """The reward [S] and the transitions [S, S] under a policy [S, A]."""
    states, actions = table.legal.shape
    weights = np.asarray(policy, float)
    if weights.shape != (states, actions):
        raise AgentError(f"policy: got shape {weights.shape}; wanted {(states, actions)}")
    rows = np.repeat(np.arange(states), actions)
    mixing = sparse.csr_matrix((weights.reshape(-1), (rows, np.arange(states * actions))))
    return (weights * table.reward).sum(1), (mixing @ probability).tocsr()


def _solution(q: NDArray[np.float64], iterations: int, bound: float, prior_bound: float = np.inf) -> Solution:
    return Solution(q.max(1), q, q.argmax(1), iterations, bound, prior_bound)


def _check_discount(discount: float) -> None:
    if not 0 <= discount <= 1:
        raise AgentError(f"discount: got {discount}; wanted a number from 0 to 1")
