"""Fitted Q evaluation: a chain by hand, the counted process solved otherwise, truncation, refits, bad arguments."""

import numpy as np
import pytest
from scipy import sparse

from mlbits.evals.off_policy.estimators import OffPolicyError
from mlbits.evals.off_policy.features import table_features
from mlbits.evals.off_policy.model import Features, fit
from mlbits.evals.reproductions.offline.off_policy import ACTIONS, STATES, Problem


def chain(terminated, discount=0.5, **how):
    """Logged: (s0, a0, reward 1) -> s1, (s1, a1, reward 2) -> s0, the end. The policy takes a0 in s0 and a1 in s1."""
    state, action, reward = np.array([0, 1, 0]), np.array([0, 1]), np.array([1.0, 2.0])
    policy = np.array([[1.0, 0.0], [0.0, 1.0]])
    features = table_features(state, action, policy[state], np.array([0, 1]))
    ends = np.array([False, terminated])
    return fit(features, reward, ends, np.array([0, 2]), discount, refits=0, **how)


def test_a_terminated_chain_by_hand():
    model = chain(True)
    assert model.q[0, 0].tolist() == pytest.approx([1 + 0.5 * 2, 2.0])
    assert model.v[0, 0].tolist() == pytest.approx([2.0, 2.0, 0.0])


def test_a_truncated_chain_goes_on():
    """Truncated in s0, the chain is a cycle: V(s0) = 1 + V(s1) / 2, V(s1) = 2 + V(s0) / 2."""
    model = chain(False)
    assert model.v[0, 0].tolist() == pytest.approx([8 / 3, 10 / 3, 8 / 3])
    assert model.q[0, 0].tolist() == pytest.approx([8 / 3, 10 / 3])


def test_a_finite_horizon_by_hand():
    model = chain(False, discount=1.0, horizon=2)
    assert model.v[0, 0].tolist() == pytest.approx([3.0, 2.0, 0.0])
    longer = chain(False, discount=1.0, horizon=3)
    assert longer.v[0, 0].tolist() == pytest.approx([1 + 2 + 1, 2 + 1, 1])
    ended = chain(True, discount=1.0, horizon=3)
    assert ended.v[0, 0].tolist() == pytest.approx([1 + 2, 2, 0])


def played(seed, episodes=400, horizon=6):
    problem = Problem.random(seed)
    behaviour = np.full((STATES, ACTIONS), 1 / ACTIONS)
    state, action, reward = problem.play(behaviour, episodes, horizon, seed)
    return problem, state, action, reward, np.arange(episodes + 1) * horizon


@pytest.mark.parametrize("dense", [True, False])
def test_a_table_is_the_exact_value_of_the_counted_process(dense):
    problem, state, action, reward, starts = played(1)
    horizon = state.shape[1] - 1
    rows = np.arange(starts[-1]) + np.repeat(np.arange(len(starts) - 1), horizon)
    features = table_features(state.ravel(), action.ravel(), problem.policy[state.ravel()], rows)
    assert not sparse.issparse(features.logged)  # 18 pairs
    if not dense:
        features = Features(sparse.csr_matrix(features.logged), sparse.csr_matrix(features.expected), True, 1e-9)
    ends = np.zeros(starts[-1], bool)
    model = fit(features, reward.ravel(), ends, starts, 0.9, refits=3, seed=5)
    # The counted process, by a linear solve of its own.
    count = np.zeros((STATES, ACTIONS, STATES))
    np.add.at(count, (state[:, :-1].ravel(), action.ravel(), state[:, 1:].ravel()), 1)
    moves = count / count.sum(2, keepdims=True)
    matrix = np.eye(STATES) - 0.9 * np.einsum("sa,sat->st", problem.policy, moves)
    value = np.linalg.solve(matrix, (problem.policy * problem.reward).sum(1))
    assert model.v[0] == pytest.approx(value[state], abs=1e-6)
    # A refit is a fit to the drawn episodes.
    drawn = np.repeat(np.arange(len(starts) - 1), model.counts[2].astype(int))
    again = table_features(state[drawn].ravel(), action[drawn].ravel(), problem.policy[state[drawn].ravel()], rows)
    same = fit(again, reward[drawn].ravel(), ends, starts, 0.9, refits=0)
    first = int(drawn[0])
    assert model.v[2, first] == pytest.approx(same.v[0, 0], abs=1e-6)


def test_more_data_approach_the_truth():
    problem, state, action, reward, starts = played(2, episodes=4000)
    horizon = state.shape[1] - 1
    rows = np.arange(starts[-1]) + np.repeat(np.arange(len(starts) - 1), horizon)
    features = table_features(state.ravel(), action.ravel(), problem.policy[state.ravel()], rows)
    ends = np.zeros(starts[-1], bool)
    model = fit(features, reward.ravel(), ends, starts, 1.0, horizon=horizon, refits=0)
    assert model.v[0, :, 0].mean() == pytest.approx(problem.value(horizon), abs=0.05)


def test_grouped_refits_of_wide_features_are_fits_to_the_drawn_groups():
    """Wide features are summed by groups of episodes: members of a group are drawn together."""
    rng = np.random.default_rng(0)
    episodes, horizon, size = 120, 4, 300
    starts = np.arange(episodes + 1) * horizon
    logged = rng.normal(size=(starts[-1], size)) / np.sqrt(size)
    expected = rng.normal(size=(starts[-1] + episodes, size)) / np.sqrt(size)
    reward, ends = rng.normal(size=starts[-1]), rng.random(starts[-1]) < 0.3
    ends[np.arange(starts[-1]) % horizon != horizon - 1] = False
    model = fit(Features(logged, expected, ridge=0.1), reward, ends, starts, 0.5, refits=2, seed=3)
    assert len(np.unique(model.counts[1])) > 1
    whole = np.repeat(np.arange(episodes), model.counts[1].astype(int))
    steps = (whole[:, None] * horizon + np.arange(horizon)).ravel()
    seen = (whole[:, None] * (horizon + 1) + np.arange(horizon + 1)).ravel()
    own = np.arange(len(whole) + 1) * horizon
    again = fit(Features(logged[steps], expected[seen], ridge=0.1), reward[steps], ends[steps], own, 0.5, refits=0)
    assert model.v[1, whole[0]] == pytest.approx(again.v[0, 0], abs=1e-8)


@pytest.mark.parametrize(
    ("discount", "how", "message"),
    [
        (1.0, {}, "discount: got 1 without a horizon; wanted below 1, or a horizon"),
        (0.9, {"horizon": 1}, "horizon: got 1; wanted at least 2, the longest episode's steps"),
    ],
)
def test_bad_arguments_are_refused(discount, how, message):
    with pytest.raises(OffPolicyError, match=message):
        chain(True, discount, **how)
