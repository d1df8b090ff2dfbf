"""Estimators by hand, against loops, in limits where they must agree, and with weights beyond float64."""

import math

import numpy as np
import pytest

from mlbits.evals.off_policy.estimators import (
    Logged,
    Model,
    OffPolicyError,
    bootstrap_counts,
    doubly_robust_estimates,
    effective_size,
    importance_estimates,
    interval,
    largest_fraction,
    mean_weight,
    padded,
)

# Two episodes of two steps and of one; ratios 2, 1/2 and 3; rewards 1, 2 and 5; discount 1/2.
STARTS = np.array([0, 2, 3])
RATIO, REWARD = np.array([2.0, 0.5, 3.0]), np.array([1.0, 2.0, 5.0])


def logged(ratio=RATIO, reward=REWARD, starts=STARTS, discount=0.5):
    with np.errstate(divide="ignore"):
        return Logged.from_steps(np.log(np.asarray(ratio, float)), np.asarray(reward, float), starts, discount)


def values(estimates):
    return {one.name: one.value for one in estimates}


def test_by_hand():
    found = values(importance_estimates(logged(), 2))
    # rho is 2, then 1, in episode 0; 3 in episode 1, which it keeps after its end. Returns 1 + 2 / 2 = 2, and 5.
    assert found["IS"] == pytest.approx((1 * 2 + 3 * 5) / 2)
    assert found["WIS"] == pytest.approx((1 * 2 + 3 * 5) / 4)
    assert found["PDIS"] == pytest.approx((2 * 1 + 0.5 * 1 * 2 + 3 * 5) / 2)
    assert found["PDWIS"] == pytest.approx((2 * 1 + 3 * 5) / 5 + 0.5 * (1 * 2 + 3 * 0) / 4)
    estimates = importance_estimates(logged(), 2)
    assert estimates[0].ess == pytest.approx((1 + 3) ** 2 / (1 + 9))
    assert estimates[0].max_weight == pytest.approx(3 / 4)
    # Steps count 1 and 1/2 times 1/2 (half of the episodes reach step 1), so 0.8 and 0.2.
    assert estimates[1].ess == pytest.approx(0.8 * 5**2 / (4 + 9) + 0.2 * 4**2 / (1 + 9))
    assert mean_weight(logged()) == pytest.approx(0.8 * (2 + 3) / 2 + 0.2 * (1 + 3) / 2)


def model_by_hand():
    """Q 10, 20 and 30; V 1, 2, 3 (episode 0, truncated) and 4, 0 (episode 1, terminated)."""
    starts = STARTS
    q = padded(np.array([[10.0, 20.0, 30.0]]), starts)
    v = padded(np.array([[1.0, 2.0, 3.0, 4.0, 0.0]]), starts, 1)
    return Model(q, v, np.ones((1, 2)))


def test_doubly_robust_by_hand():
    found = values(doubly_robust_estimates(logged(), model_by_hand()))
    first = 1 + 2 * (1 + 0.5 * 2 - 10) + 0.5 * 1 * (2 + 0.5 * 3 - 20)  # the last observation's V counts
    second = 4 + 3 * (5 + 0.5 * 0 - 30)
    assert found["DR"] == pytest.approx((first + second) / 2)
    step_0 = (2 * (1 + 0.5 * 2 - 10) + 3 * (5 - 30)) / 5
    step_1 = 0.5 * (1 * (2 + 0.5 * 3 - 20)) / (1 + 3)
    assert found["WDR"] == pytest.approx((1 + 4) / 2 + step_0 + step_1)


def plain(ratio, reward, starts, discount, q, v):
    """All six estimators by loops over episodes and steps."""
    count = len(starts) - 1
    episodes = [range(starts[i], starts[i + 1]) for i in range(count)]
    longest = max(len(steps) for steps in episodes)

    def rho(i, t):
        return math.prod(ratio[k] for k in list(episodes[i])[: t + 1])

    total = {"IS": 0.0, "PDIS": 0.0, "WIS": 0.0, "PDWIS": 0.0, "DR": 0.0, "WDR": 0.0}
    norm = sum(rho(i, longest) for i in range(count))
    for i, steps in enumerate(episodes):
        returns = sum(discount**t * reward[k] for t, k in enumerate(steps))
        total["IS"] += rho(i, longest) * returns / count
        total["WIS"] += rho(i, longest) * returns / norm
        for name in ("DR", "WDR"):
            total[name] += v[i][0] / count
        for t, k in enumerate(steps):
            at = sum(rho(j, t) for j in range(count))
            error = reward[k] + discount * v[i][t + 1] - q[k]
            total["PDIS"] += discount**t * rho(i, t) * reward[k] / count
            total["PDWIS"] += discount**t * rho(i, t) * reward[k] / at
            total["DR"] += discount**t * rho(i, t) * error / count
            total["WDR"] += discount**t * rho(i, t) * error / at
    return total


def random_data(seed, count=7):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 6, count)
    starts = np.concatenate([[0], lengths.cumsum()])
    n = int(starts[-1])
    ratio, reward = np.exp(rng.normal(size=n)), rng.normal(size=n)
    q, v = rng.normal(size=n), rng.normal(size=n + count)
    return rng, starts, ratio, reward, q, v


@pytest.mark.parametrize("seed", range(3))
def test_against_loops(seed):
    _, starts, ratio, reward, q, v = random_data(seed)
    each = [v[starts[i] + i : starts[i + 1] + i + 1] for i in range(len(starts) - 1)]
    data = logged(ratio, reward, starts, 0.9)
    model = Model(padded(q[None], starts), padded(v[None], starts, 1), np.ones((1, len(starts) - 1)))
    found = values(importance_estimates(data, 2) + doubly_robust_estimates(data, model))
    assert found == pytest.approx(plain(ratio, reward, starts, 0.9, q, each))


def test_the_bootstrap_resamples_whole_episodes():
    """Each replicate is the estimate of the dataset with the drawn episodes, repeated as often as drawn."""
    _, starts, ratio, reward, q, v = random_data(5)
    count = len(starts) - 1
    counts = bootstrap_counts(count, 3, 11)
    data = logged(ratio, reward, starts, 0.9)
    both = np.concatenate([np.ones((1, count)), counts])
    model = Model(np.repeat(padded(q[None], starts), 4, 0), np.repeat(padded(v[None], starts, 1), 4, 0), both)
    expected = {name: [] for name in ("DR", "WDR", "PDWIS", "IS")}
    for drawn in counts.astype(int):
        order = np.repeat(np.arange(count), drawn)
        steps = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in order])
        seen = np.concatenate([np.arange(starts[i] + i, starts[i + 1] + i + 1) for i in order])
        own = np.concatenate([[0], np.diff(starts)[order].cumsum()])
        again = logged(ratio[steps], reward[steps], own, 0.9)
        same = Model(padded(q[None, steps], own), padded(v[None, seen], own, 1), np.ones((1, count)))
        for one in importance_estimates(again, 2) + doubly_robust_estimates(again, same):
            expected.setdefault(one.name, []).append(one.value)
    for one in doubly_robust_estimates(data, model):
        assert (one.low, one.high) == pytest.approx(interval(one.value, np.array(expected[one.name])))
    # Of importance weights, with the same draws.
    many = bootstrap_counts(count, 1000, 11)
    weight = np.exp(data.cumulative[:, -1])
    returns = data.reward @ data.discounts
    low, high = np.quantile(many @ (weight * returns) / (many @ weight), [0.025, 0.975])
    found = {one.name: one for one in importance_estimates(data, 1000, 11)}
    assert (found["WIS"].low, found["WIS"].high) == pytest.approx((low, high))


def test_on_policy_all_are_the_mean_return():
    _, starts, _, reward, _, _ = random_data(8)
    data = logged(np.ones(len(reward)), reward, starts, 0.9)
    mean = float((data.reward @ data.discounts).mean())
    nothing = Model(np.zeros((1, *data.reward.shape)), np.zeros((1, len(starts) - 1, data.reward.shape[1] + 1)),
                    np.ones((1, len(starts) - 1)))  # fmt: skip
    for one in importance_estimates(data) + doubly_robust_estimates(data, nothing):
        assert one.value == pytest.approx(mean)
        assert one.ess == pytest.approx(len(starts) - 1)


def test_a_model_that_is_right_leaves_nothing_to_weights():
    """In a deterministic chain with the true Q and V, DR and WDR are V(s_0), whatever the weights."""
    starts, reward = np.array([0, 3, 6]), np.array([1.0, 2.0, 3.0] * 2)
    v = np.array([1 + 0.5 * (2 + 0.5 * 3), 2 + 0.5 * 3, 3.0, 0.0] * 2)
    data = logged(np.exp(np.random.default_rng(0).normal(size=6)), reward, starts, 0.5)
    model = Model(padded(v[[0, 1, 2, 4, 5, 6]][None], starts), padded(v[None], starts, 1), np.ones((1, 2)))
    for one in doubly_robust_estimates(data, model):
        assert one.value == pytest.approx(v[0])


@pytest.mark.parametrize("log_ratio", [-400.0, 400.0])
def test_weights_beyond_double_precision(log_ratio):
    """Self-normalised estimates only depend on differences of the logs: shifting all of them changes nothing."""
    starts = np.array([0, 3, 6, 9])
    rng = np.random.default_rng(1)
    logs, reward = rng.normal(size=9), rng.normal(size=9)
    near, far = (Logged.from_steps(logs + shift, reward, starts, 0.9) for shift in (0.0, log_ratio))
    for one, other in zip(importance_estimates(near, 50), importance_estimates(far, 50), strict=True):
        assert other.ess == pytest.approx(one.ess)
        assert other.max_weight == pytest.approx(one.max_weight)
        if "W" in one.name:
            assert (other.value, other.low, other.high) == pytest.approx((one.value, one.low, one.high))


def test_actions_that_the_policy_never_takes():
    data = logged([0.0, 1.0, 3.0])
    found = values(importance_estimates(data, 20))
    assert found["IS"] == pytest.approx(3 * 5 / 2)
    assert found["WIS"] == pytest.approx(5)
    nowhere = importance_estimates(logged([0.0, 1.0, 0.0]), 20)
    assert [one.value for one in nowhere[:2]] == [0, 0]
    assert all(math.isnan(one.value) for one in nowhere[2:])
    assert [one.ess for one in nowhere] == [0, 0, 0, 0]
    assert mean_weight(logged([0.0, 1.0, 0.0])) == 0


def test_effective_size_and_largest_fraction():
    assert effective_size(np.log([1.0, 1.0, 2.0])) == pytest.approx(16 / 6)
    assert largest_fraction(np.log([1.0, 1.0, 2.0])) == pytest.approx(0.5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_impossible_ratios_name_episode_and_step(bad):
    logs = np.zeros(3)
    logs[1] = bad
    with pytest.raises(OffPolicyError, match=rf"log_prob: episode 0, step 1: the log ratio of the policies is {bad}"):
        Logged.from_steps(logs, REWARD, STARTS, 0.5)
    with pytest.raises(OffPolicyError, match=r"discount: got 1\.5"):
        logged(discount=1.5)


def test_few_replicates_give_students_interval():
    low, high = interval(2.0, np.array([1.0, 3.0, math.nan]))
    assert low == pytest.approx(2 - 12.7062 * math.sqrt(2), abs=1e-3)
    assert high == pytest.approx(2 + 12.7062 * math.sqrt(2), abs=1e-3)
    assert all(math.isnan(end) for end in interval(2.0, np.array([1.0])))
