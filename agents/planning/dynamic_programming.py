"""Exact solutions of finite decision processes: value iteration, policy iteration, backward induction.

Bellman (1957); Sutton and Barto, "Reinforcement Learning" (2018), chapter 4; Kaplan, "Notes on Contemporary Machine
Learning for Physicists", 8.3.4. With Bellman's operator

    (T V)(s) = max_a Q(s, a),    Q(s, a) = r(s, a) + gamma sum_s' P(s' | s, a) V(s')

* value iteration repeats V_{k+1} = T V_k (4.4 of the book). T is a contraction, |T U - T V| <= gamma |U - V| in the
  maximum norm, so that V_k is within gamma / (1 - gamma) |V_k - V_{k-1}| of the optimum V*, and within
  gamma^k / (1 - gamma) |V_1 - V_0|, which is known in advance. Every solution reports its bound.
* policy iteration (4.3) computes the value of a policy exactly, V = (1 - gamma P_pi)^-1 r_pi by a sparse solve, and
  makes the policy greedy, until nothing changes.
* backward induction applies T to V = 0 once for each step of the time limit: the exact optimum of an episode of that
  length, discounted or not.

At gamma = 1 there is no contraction. Value iteration still converges if all episodes end, with an infinite bound;
policy iteration is refused, as a policy that never ends has no value.

Differs from textbooks in that a row of P that adds up to less than 1 terminates with the missing probability (there is
no terminal state), and that illegal actions have the value minus infinity.

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
_UNLIMITED = 10_000  # steps of an episode without a time limit, as evaluation plays them
_TIE = 1e-10  # actions whose values differ by less, relative to the largest value, count as equally good


@dataclass(frozen=True, eq=False)
class Solution:
    """The result of a solver.

    Attributes:
        value: V, float64 [S].
        action_value: Q, float64 [S, A], minus infinity for illegal actions. V is its maximum.
        policy: the lowest-numbered best action of each state, int64 [S].
        iterations: sweeps of value iteration, improvements of policy iteration, steps of backward induction.
        bound: V is within this of the optimum, in every state; infinite if unknown.
        prior_bound: the bound known after the first sweep: gamma^k / (1 - gamma) |V_1 - V_0|.
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
        table: transition table of S states and A actions.
        value: V, [S].
        discount: gamma.
        probability: transition probabilities to use instead of the table's.

    Returns:
        [S, A], minus infinity for illegal actions.
    """
    following = ((table.probability if probability is None else probability) @ value).reshape(table.legal.shape)
    return np.where(table.legal, table.reward + discount * following, -np.inf)


def best_actions(action_value: NDArray[np.float64]) -> NDArray[np.bool_]:
    """All best actions of each state, including those whose values differ only by rounding; bool [S, A]."""
    best = action_value.max(1, keepdims=True)
    return action_value >= best - _TIE * max(1.0, float(np.abs(best).max()))


def check_accuracy(discount: float, tolerance: float) -> None:
    """Check the arguments of :func:`value_iteration`, before a table is computed for it.

    Raises:
        AgentError: if the discount is not within 0..1, or the tolerance not above 0.
    """
    _check_discount(discount)
    if not tolerance > 0:
        raise AgentError(f"tolerance: got {tolerance}; wanted above 0")


def value_iteration(
    table: TransitionTable, discount: float, *, tolerance: float = 1e-8, value: NDArray[np.float64] | None = None
) -> Solution:
    """Apply Bellman's operator repeatedly, until the contraction bound is below the tolerance.

    Args:
        table: the decision process. Its time limit is ignored: episodes continue until they terminate.
        discount: gamma, 0..1.
        tolerance: bound on the error of every state's value; at gamma = 1 on the last change, without an error bound.
        value: V_0, [S]; None starts at 0.

    Raises:
        AgentError: if the discount or tolerance is out of range, or the values do not converge (gamma = 1 and episodes
            that never end).
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
    """Howard's algorithm: the exact value of a policy, then the policy greedy in that value, until nothing changes.

    Args:
        table: the decision process. Its time limit is ignored.
        discount: gamma, 0 up to, but not including, 1.
        policy: initial actions, [S]; None takes those of the best immediate reward.

    Raises:
        AgentError: if the discount is out of range, or an initial action is illegal.
    """
    _check_discount(discount)
    if discount == 1:
        raise AgentError("discount: got 1; wanted below 1 (a policy that never ends has no value); or value_iteration")
    everywhere = np.arange(table.num_states)
    chosen = action_values(table, np.zeros(table.num_states), 0.0).argmax(1) if policy is None else np.asarray(policy)
    if not table.legal[everywhere, chosen].all():
        raise AgentError("policy: got an illegal action; wanted legal ones")
    improvements = 0
    while True:
        improvements += 1
        v = policy_value(table, np.eye(table.num_actions)[chosen], discount)
        q = action_values(table, v, discount)
        # Only a better action replaces the current one, so that rounding cannot swap ties for ever.
        better = ~best_actions(q)[everywhere, chosen]
        if not better.any():
            residual = float(np.abs(q.max(1) - v).max())
            return _solution(q, improvements, residual / (1 - discount))
        chosen = np.where(better, q.argmax(1), chosen)


def policy_value(table: TransitionTable, policy: NDArray[Any], discount: float) -> NDArray[np.float64]:
    """The exact value of a policy without a time limit, by a linear solve.

    Args:
        table: the decision process.
        policy: action probabilities, [S, A].
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
    """The best return of an episode within its time limit, or the return of a policy.

    Truncation by the rules ends the episode, too. The best action depends on the time left: the solution's policy is
    that of an episode's first step.

    Args:
        table: the decision process.
        horizon: steps of an episode; None takes the table's own, or 10,000 if there is no limit (at which evaluation
            cuts such episodes).
        discount: gamma, 0..1.
        policy: action probabilities [S, A] of a policy to evaluate; None takes the best actions.

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
        if np.array_equal(v, before):  # converged: further steps change nothing
            break
    q = action_values(table, before, discount, going)
    return Solution(v, q, q.argmax(1), step, 0.0)


def uniform_policy(table: TransitionTable) -> NDArray[np.float64]:
    """The policy that draws all legal actions with equal probability, [S, A]."""
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
