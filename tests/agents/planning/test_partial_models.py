"""Partial models: a hand-worked confounded log, a plain enumeration as twin, what was never logged, and bad input."""

import itertools
import math

import numpy as np
import pytest

from mlbits.agents.agent import AgentError
from mlbits.agents.planning.partial_models import PartialModel, Walks

HOME, FOREST = 0, 1


def log(cases):
    """Walks into the forest from (episodes, z, action, reward) of the second step, and one walk home."""
    rows = [(z, action, reward) for count, z, action, reward in cases for _ in range(count)]
    z, action, reward = (np.array(column) for column in zip(*rows, strict=True))
    into = np.full(len(rows), FOREST)
    nothing = np.zeros(len(rows))
    return Walks(
        np.vstack([np.stack([into, action], 1), [[HOME, -1]]]),
        np.vstack([np.stack([nothing, reward], 1), [[0.6, 0.0]]]),
        np.vstack([np.stack([nothing, z], 1), [[0, 0]]]).astype(int),
    )


# 4 episodes intend to hug (z = 1), 4 do not; exploration replaces one of each four.
CASES = [(3, 1, 1, 1.0), (1, 1, 0, 0.0), (3, 0, 0, 0.0), (1, 0, 1, -0.5)]


def test_a_confounded_log_by_hand():
    naive, corrected = PartialModel.fit(log(CASES), corrected=False), PartialModel.fit(log(CASES))
    assert naive.do([FOREST, 1]) == pytest.approx((3 * 1.0 - 0.5) / 4)  # given the action
    assert corrected.do([FOREST, 1]) == pytest.approx(0.5 * 1.0 + 0.5 * -0.5)  # do(hug)
    assert corrected.expectimax().values == pytest.approx({HOME: 0.6, FOREST: 0.5 * 1.0 + 0.5 * 0.0})
    assert naive.expectimax().action == FOREST
    assert corrected.expectimax().action == HOME
    after = corrected.outcomes[0, FOREST].after
    assert [after.best(0), after.best(1)] == [0, 1]  # hug where hugging was intended
    assert corrected.outcomes[0, FOREST].count == 8
    assert corrected.outcomes[0, FOREST].goes_on == 1.0
    assert corrected.outcomes[0, HOME].after is None


def enumerated(walks, actions, discount):
    """E[r | do(actions)] by summing over all sequences of z, with frequencies counted anew for each."""
    total = 0.0
    for zs in itertools.product(np.unique(walks.backdoor), repeat=len(actions)):
        rows, weight = np.ones(len(walks.action), bool), 1.0
        for step, (z, action) in enumerate(zip(zs, actions, strict=True)):
            here = rows & (walks.backdoor[:, step] == z)
            weight *= here.sum() / max(rows.sum(), 1)
            rows = here & (walks.action[:, step] == action)
            if weight == 0:
                break
            # Every sequence of later z carries this reward, so that it is divided among them.
            later = len(np.unique(walks.backdoor)) ** (len(actions) - step - 1)
            total += discount**step * weight * walks.reward[rows, step].mean() / later
            if step + 1 < len(actions):
                on = rows & (walks.action[:, step + 1] != -1)
                weight *= on.sum() / rows.sum()
                rows = on
    return total


def test_three_steps_against_an_enumeration():
    rng = np.random.default_rng(3)
    z = rng.integers(3, size=(40_000, 3))
    action = np.where(rng.random((40_000, 3)) < 0.6, z % 2, rng.integers(2, size=(40_000, 3)))
    ended = (rng.random((40_000, 2)) < 0.3).cumsum(1) > 0
    action[:, 1:][ended] = -1
    reward = np.where(action >= 0, z * (1 + action) + rng.normal(size=(40_000, 3)), 0.0)
    walks = Walks(action, reward, z)
    model = PartialModel.fit(walks)
    for actions in itertools.product(range(2), repeat=3):
        assert model.do(actions, 0.9) == pytest.approx(enumerated(walks, actions, 0.9))
    # Knowing z cannot be worse than any fixed sequence.
    assert model.expectimax(0.9).value >= max(
        model.do(actions, 0.9) for actions in itertools.product(range(2), repeat=3)
    )


def test_plans_count_how_often_episodes_go_on():
    """Action 1 goes on in one of two episodes, to a reward of 1; action 0 pays 0.6 at once."""
    action, reward = np.array([[1, 0], [1, -1], [0, -1]]), np.array([[0.0, 1.0], [0.0, 0.0], [0.6, 0.0]])
    plan = PartialModel.fit(Walks(action, reward), corrected=False).expectimax(discount=0.8)
    assert plan.values == pytest.approx({0: 0.6, 1: 0.5 * 0.8})
    assert (plan.action, plan.value) == (0, pytest.approx(0.6))


def test_what_was_never_logged_has_no_estimate():
    sure = PartialModel.fit(log([(3, 1, 1, 1.0), (3, 0, 0, 0.0)]))
    assert math.isnan(sure.do([FOREST, 1]))  # no hug where none was intended
    assert sure.expectimax().values[FOREST] == pytest.approx(0.5)


def test_bad_walks_are_refused():
    action, reward = np.array([[0, 1], [1, -1]]), np.zeros((2, 2))
    with pytest.raises(AgentError, match=r"reward: got shape \(1, 2\); wanted \(2, 2\)"):
        Walks(action, reward[:1])
    with pytest.raises(AgentError, match="reward: got nan in episode 1, step 0"):
        Walks(action, np.array([[0.0, 0.0], [np.nan, np.nan]]))
    with pytest.raises(AgentError, match="action: episode 1 has an action after its end"):
        Walks(np.array([[0, 1], [-1, 1]]), reward)
    with pytest.raises(AgentError, match="backdoor: got None"):
        PartialModel.fit(Walks(action, reward))
    with pytest.raises(AgentError, match="action: got shape"):
        Walks(np.zeros((0, 2), int), np.zeros((0, 2)))
