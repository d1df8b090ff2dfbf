"""Solvers of finite decision processes: against each other, against brute force, and their bounds against the truth."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from mlbits.agents.agent import AgentError
from mlbits.agents.planning import dynamic_programming
from mlbits.agents.planning.dynamic_programming import (
    action_values,
    backward_induction,
    best_actions,
    policy_iteration,
    policy_value,
    uniform_policy,
    value_iteration,
)
from mlbits.envs.exact.transition_table import TransitionTable


@st.composite
def processes(draw):
    """Small decision processes with termination, illegal actions and ties."""
    states, actions = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    weights = rng.exponential(size=(states, actions, states + 1)) * (rng.random((states, actions, states + 1)) < 0.6)
    weights[..., 0] += 1e-3  # an end is always possible
    probability = weights[..., 1:] / weights.sum(-1, keepdims=True)
    legal = rng.random((states, actions)) < 0.8
    legal[np.arange(states), rng.integers(actions, size=states)] = True
    reward = np.where(legal, rng.integers(-3, 4, (states, actions)).astype(float), 0.0)
    start = rng.dirichlet(np.ones(states))
    return TransitionTable.from_arrays(probability, reward, legal=legal, start=start)


def by_brute_force(table, discount):
    """The best value of all deterministic policies, each by dense linear algebra."""
    states, actions = table.legal.shape
    dense = table.probability.toarray().reshape(states, actions, states)
    best = np.full(states, -np.inf)
    for policy in itertools.product(*(np.flatnonzero(row).tolist() for row in table.legal)):
        rows = np.arange(states), np.array(policy)
        value = np.linalg.solve(np.eye(states) - discount * dense[rows], table.reward[rows])
        best = np.maximum(best, value)
    return best


discounts = st.sampled_from([0.0, 0.3, 0.9, 0.99])


@settings(max_examples=60, deadline=None)
@given(processes(), discounts)
def test_value_iteration_policy_iteration_and_brute_force_agree(table, discount):
    wanted = by_brute_force(table, discount)
    swept, improved = value_iteration(table, discount, tolerance=1e-9), policy_iteration(table, discount)
    assert np.abs(swept.value - wanted).max() <= max(swept.bound, 1e-9)
    assert np.abs(improved.value - wanted).max() <= max(improved.bound, 1e-9)
    assert improved.bound < 1e-9
    for solution in (swept, improved):
        assert np.array_equal(solution.action_value.max(1), solution.value)
        assert table.legal[np.arange(table.num_states), solution.policy].all()
        chosen = np.eye(table.num_actions)[solution.policy]
        assert np.allclose(policy_value(table, chosen, discount), wanted, atol=1e-7)


@settings(max_examples=60, deadline=None)
@given(processes(), discounts, st.integers(0, 2**32))
def test_the_contraction_holds_at_every_sweep(table, discount, seed):
    """|T U - T V| <= gamma |U - V|, whatever U and V are, and the bounds of every sweep hold."""
    rng = np.random.default_rng(seed)
    u, v = rng.normal(size=(2, table.num_states)) * 10
    exact = by_brute_force(table, discount)
    first = None
    for sweep in range(1, 30):
        before, distance = v, np.abs(u - v).max()
        u, v = (action_values(table, value, discount).max(1) for value in (u, v))
        assert np.abs(u - v).max() <= discount * distance + 1e-12
        change = np.abs(v - before).max()
        first = change if first is None else first
        error = np.abs(v - exact).max()
        assert error <= discount / (1 - discount) * change + 1e-9
        assert error <= discount**sweep / (1 - discount) * first + 1e-9


@settings(max_examples=40, deadline=None)
@given(processes(), st.sampled_from([0.5, 0.95]), st.sampled_from([1.0, 1e-2, 1e-6]))
def test_a_solution_keeps_its_bound_and_the_tolerance(table, discount, tolerance):
    solution, exact = value_iteration(table, discount, tolerance=tolerance), by_brute_force(table, discount)
    assert np.abs(solution.value - exact).max() <= solution.bound + 1e-12
    assert solution.bound <= tolerance
    assert solution.bound <= solution.prior_bound * (1 + 1e-9) + 1e-12


def by_recursion(table, steps, discount, state, policy=None):
    if steps == 0:
        return 0.0
    states, actions = table.legal.shape
    dense = table.probability.toarray().reshape(states, actions, states)
    worth = {}
    for action in np.flatnonzero(table.legal[state]).tolist():
        worth[action] = table.reward[state, action] + discount * sum(
            dense[state, action, other] * by_recursion(table, steps - 1, discount, other, policy)
            for other in range(states)
            if dense[state, action, other] > 0
        )
    return max(worth.values()) if policy is None else sum(policy[state, a] * value for a, value in worth.items())


@settings(max_examples=15, deadline=None)
@given(processes(), st.sampled_from([0.7, 1.0]), st.integers(0, 3))
def test_backward_induction_equals_the_tree_of_all_action_sequences(table, discount, steps):
    for policy in (None, uniform_policy(table)):
        found = backward_induction(table, horizon=steps, discount=discount, policy=policy)
        wanted = [by_recursion(table, steps, discount, state, policy) for state in range(table.num_states)]
        assert found.value == pytest.approx(wanted)
        assert found.bound == 0


def chain(length, reward=1.0):
    """One action that leads to the next state, with a reward at the end."""
    probability, paid = np.zeros((length, 1, length)), np.zeros((length, 1))
    for state in range(length - 1):
        probability[state, 0, state + 1] = 1
    paid[-1] = reward
    return TransitionTable.from_arrays(probability, paid)


def test_a_chain_worked_by_hand():
    table = chain(4)
    assert value_iteration(table, 0.5).value.tolist() == [0.125, 0.25, 0.5, 1.0]
    assert policy_iteration(table, 0.5).value.tolist() == pytest.approx([0.125, 0.25, 0.5, 1.0])
    assert backward_induction(table, horizon=2).value.tolist() == [0, 0, 1, 1]
    assert backward_induction(table).iterations == 5  # the fifth step changes nothing
    assert backward_induction(table, horizon=4).iterations == 4


def test_undiscounted_values_converge_without_a_bound():
    solution = value_iteration(chain(6, reward=3.0), 1.0)
    assert solution.value.tolist() == [3.0] * 6
    assert solution.bound == np.inf


def test_policy_iteration_terminates_on_ties():
    """Two actions that are equal up to rounding: it terminates, and starts from the given policy."""
    probability = np.full((3, 2, 3), 1 / 3)
    reward = np.array([[0.1 + 0.2, 0.3], [1.0, 1.0], [0.0, 0.0]])
    table = TransitionTable.from_arrays(probability, reward)
    for first in itertools.product([0, 1], repeat=3):
        solution = policy_iteration(table, 0.99, policy=np.array(first))
        assert solution.iterations == 1
        assert best_actions(solution.action_value).all()


def test_an_optimal_policy_is_recognised_at_once():
    table = chain(5)
    assert policy_iteration(table, 0.9).iterations == 1
    assert value_iteration(table, 0.9, value=value_iteration(table, 0.9).value).iterations == 1


def test_invalid_arguments_are_refused():
    table = chain(3)
    endless = TransitionTable.from_arrays(np.ones((1, 1, 1)), np.ones((1, 1)))
    for solver in (value_iteration, policy_iteration):
        with pytest.raises(AgentError, match=r"discount: got 1\.5; wanted a number from 0 to 1"):
            solver(table, 1.5)
    with pytest.raises(AgentError, match="discount: got 1; wanted below 1"):
        policy_iteration(table, 1)
    with pytest.raises(AgentError, match=r"values still change by 1 after 100,000 sweeps"):
        value_iteration(endless, 1.0)
    with pytest.raises(AgentError, match="tolerance: got 0; wanted above 0"):
        value_iteration(table, 0.5, tolerance=0)
    with pytest.raises(AgentError, match="policy: got an illegal action"):
        masked = TransitionTable.from_arrays(np.zeros((1, 2, 1)), np.zeros((1, 2)), legal=[[True, False]])
        policy_iteration(masked, 0.5, policy=np.array([1]))
    with pytest.raises(AgentError, match="horizon: got -1; wanted a number of steps from 0"):
        backward_induction(table, horizon=-1)
    with pytest.raises(AgentError, match=r"policy: got shape \(3,\); wanted \(3, 1\)"):
        policy_value(table, np.ones(3), 0.5)
    assert backward_induction(endless).value[0] == 10_000  # as long as evaluation would play it


@pytest.mark.parametrize(
    ("values", "best"),
    [
        ([[1.0, 1.0 - 5e-11], [2.0, 1.9]], [[True, True], [True, False]]),
        ([[1.0, 1.0 - 1e-6]], [[True, False]]),
        ([[1e6, 1e6 - 5e-5]], [[True, True]]),  # rounding grows with the values
        ([[0.0, -5e-11], [-np.inf, -3.0]], [[True, True], [False, True]]),
    ],
)
def test_actions_tie_within_rounding_of_the_largest_value(values, best):
    assert best_actions(np.array(values)).tolist() == best


def loop(reward=1.0, **more):
    """One state and one action, for ever."""
    return dataclasses.replace(TransitionTable.from_arrays(np.ones((1, 1, 1)), np.full((1, 1), reward)), **more)


def test_bounds_worked_by_hand():
    """V = 2 at gamma 0.5; sweep k has the error 2^(1 - k), which both bounds equal."""
    solution = value_iteration(loop(), 0.5, tolerance=0.1)
    assert (solution.iterations, solution.value[0]) == (5, 1.9375)
    assert solution.bound == pytest.approx(0.0625)
    assert solution.prior_bound == pytest.approx(0.0625)


def test_policy_iterations_bound_is_the_residual_over_one_less_the_discount(monkeypatch):
    """A linear solve that is 1e-6 too high everywhere leaves a residual of (1 - gamma) 1e-6."""
    exact = policy_value
    monkeypatch.setattr(dynamic_programming, "policy_value", lambda *arguments: exact(*arguments) + 1e-6)
    assert policy_iteration(loop(), 0.9).bound == pytest.approx(1e-6, rel=1e-4)


def test_backward_induction_uses_the_tables_horizon_and_truncation():
    table = dataclasses.replace(chain(4), horizon=2)
    found = backward_induction(table)
    assert found.value.tolist() == [0, 0, 1, 1]
    assert found.action_value[:, 0].tolist() == [0, 0, 1, 1]
    assert found.iterations == 2
    assert backward_induction(table, horizon=0).value.tolist() == [0, 0, 0, 0]
    half = loop(cut=sparse.csr_matrix([[0.5]]))  # each step the rules truncate every other episode
    assert backward_induction(half, horizon=3).value.tolist() == [1.75]
    assert backward_induction(half, horizon=3, policy=np.ones((1, 1))).value.tolist() == [1.75]
    assert value_iteration(half, 0.5).value[0] == pytest.approx(2, abs=1e-7), "where cut episodes are bootstrapped"


def test_the_uniform_policy_plays_only_legal_actions():
    table = TransitionTable.from_arrays(np.zeros((1, 3, 1)), np.zeros((1, 3)), legal=[[True, False, True]])
    assert uniform_policy(table).tolist() == [[0.5, 0, 0.5]]


def test_numbers_below_their_range_are_refused():
    with pytest.raises(AgentError, match=r"discount: got -0\.1"):
        value_iteration(chain(2), -0.1)
    with pytest.raises(AgentError, match="tolerance: got -1; wanted above 0"):
        value_iteration(chain(2), 0.5, tolerance=-1)
    with pytest.raises(AgentError, match=r"policy: got shape \(2, 2\); wanted \(2, 1\)"):
        policy_value(chain(2), np.ones((2, 2)), 0.5)
