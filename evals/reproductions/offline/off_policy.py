"""``mlbits reproduce off-policy``: estimators of a policy's value against the exact one, on random tabular problems.

Six states, three actions, rewards r(s, a) from U[0, 1], transitions and first states from flat Dirichlet distributions.
The target policy is a softmax of normal logits; the behaviour policy is a mixture of it and of uniform play. Episodes
have H steps and no discount. The truth is a linear solve over pairs of time and state, so that errors have no noise of
rollouts. "Wrong" FQE sees three states as one, and DR with wrong Q uses its values.

What should show, in the geometric mean over the problems, and is checked: PDWIS is better than WIS, PDIS and IS, in
this order; correct FQE is best; ten times the data take most of the error of correct FQE, and of DR and WDR with wrong
Q where weights are worth something, but leave wrong FQE its bias. Weights of less than five effective episodes are
worth nothing. How large the bias of a wrong model is depends on the problem: in some, the three states are similar.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlbits.evals.off_policy.estimators import (
    Logged,
    doubly_robust_estimates,
    importance_estimates,
    model_estimate,
)
from mlbits.evals.off_policy.features import table_features
from mlbits.evals.off_policy.model import fit
from mlbits.evals.reproductions.reproduction import ReproductionError, print_table
from mlbits.selfplay.machine import set_up
from mlbits.selfplay.statistics import fraction_interval, mean_interval

STATES, ACTIONS = 6, 3
NAMES = ("IS", "PDIS", "WIS", "PDWIS", "FQE", "DR", "WDR", "FQE wrong", "DR wrong", "WDR wrong")
_SHARPNESS = 1.5  # standard deviation of the target policy's logits
_SMALL, _LARGE = 100, 1000  # episodes
_LEFT = 0.5  # of the RMSE, with ten times the episodes; it is 0.32 where the error is noise, 1 where it is bias
_FEW = 5.0  # effective episodes: too few for weights to be worth anything
Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Problem:
    """A random decision process and a policy.

    Attributes:
        start: [S].
        transition: P(s'|s, a), [S, A, S].
        reward: r(s, a), [S, A].
        policy: pi(a|s), [S, A].
    """

    start: Array
    transition: Array
    reward: Array
    policy: Array

    @classmethod
    def random(cls, seed: int) -> Problem:
        """A problem drawn from a seed."""
        rng = np.random.default_rng(seed)
        logits = _SHARPNESS * rng.normal(size=(STATES, ACTIONS))
        return cls(
            start=rng.dirichlet(np.ones(STATES)),
            transition=rng.dirichlet(np.ones(STATES), size=(STATES, ACTIONS)),
            reward=rng.random((STATES, ACTIONS)),
            policy=np.exp(logits) / np.exp(logits).sum(1, keepdims=True),
        )

    def value(self, horizon: int) -> float:
        """The exact expected return of ``horizon`` steps: (1 - P_pi) V = r_pi over pairs of time and state."""
        moves = np.einsum("sa,sat->st", self.policy, self.transition)
        pays = (self.policy * self.reward).sum(1)
        matrix = np.eye(horizon * STATES) - np.kron(np.eye(horizon, k=1), moves)
        return float(self.start @ np.linalg.solve(matrix, np.tile(pays, horizon))[:STATES])

    def play(
        self, behaviour: Array, episodes: int, horizon: int, seed: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
        """States [n, H + 1], actions and rewards [n, H] of a behaviour policy b(a|s)."""
        rng = np.random.default_rng(seed)
        state = np.zeros((episodes, horizon + 1), np.int64)
        action, reward = np.zeros((episodes, horizon), np.int64), np.zeros((episodes, horizon))
        state[:, 0] = _draw(np.tile(self.start, (episodes, 1)), rng)
        for t in range(horizon):
            action[:, t] = _draw(behaviour[state[:, t]], rng)
            reward[:, t] = self.reward[state[:, t], action[:, t]]
            state[:, t + 1] = _draw(self.transition[state[:, t], action[:, t]], rng)
        return state, action, reward


def _draw(chances: Array, rng: np.random.Generator) -> NDArray[np.int64]:
    """A draw from each row of probabilities [N, K]."""
    passed = chances.cumsum(1) < rng.random((len(chances), 1))
    return np.minimum(passed.sum(1), chances.shape[1] - 1)


def estimates(
    problem: Problem, behaviour: Array, episodes: int, horizon: int, seed: int, resamples: int = 2, refits: int = 0
) -> tuple[Array, Array, float]:
    """All estimates from one data set.

    Args:
        problem: the decision process.
        behaviour: b(a|s), [S, A].
        episodes: n.
        horizon: H.
        seed: of the data.
        resamples: bootstrap samples of weighting estimates.
        refits: of the models.

    Returns:
        Values [10] in the order of NAMES, intervals [10, 2] (NaN for models without refits), and the effective sample
        size.
    """
    state, action, reward = problem.play(behaviour, episodes, horizon, seed)
    starts = np.arange(episodes + 1) * horizon
    ratio = (np.log(problem.policy) - np.log(behaviour))[state[:, :-1], action].ravel()
    logged = Logged.from_steps(ratio, reward.ravel(), starts, 1.0)
    found = importance_estimates(logged, resamples, seed)
    size = found[0].ess
    assert size is not None
    rows = np.arange(episodes * horizon) + np.repeat(np.arange(episodes), horizon)
    chances, ends = problem.policy[state.ravel()], np.zeros(episodes * horizon, bool)
    for shown in (state.ravel(), state.ravel() // 3):
        features = table_features(shown, action.ravel(), chances, rows)
        model = fit(features, reward.ravel(), ends, starts, 1.0, horizon=horizon, refits=refits, seed=seed)
        found += [model_estimate(model), *doubly_robust_estimates(logged, model)]
    return np.array([one.value for one in found]), np.array([(one.low, one.high) for one in found]), size


def reproduce(quick: bool = False, seed: int = 0, replications: int = 300, problems: int = 5) -> dict[str, Any]:
    """Measure errors of all estimators, and how often their intervals hold.

    Args:
        quick: 3 problems, 60 data sets of 100 episodes and 20 of 1,000, and no coverage.
        seed: of the first problem and of the data; further problems have the next seeds.
        replications: data sets of 100 episodes; a third as many of 1,000.
        problems: number of problems.

    Returns:
        "rows", each with "problem" (its seed), "horizon", "uniform" (fraction of uniform play), "episodes", "truth",
        "rmse" and "rmse_interval" (by name), "ess"; "coverage", the fraction of 95% intervals that hold the truth, by
        name and row of 100 episodes of the first problem (None if quick); "checks" by what they say; "met": whether all
        hold.

    Raises:
        ReproductionError: without problems, or with fewer than 2 replications.
    """
    for name, value, least in (("replications", replications, 2), ("problems", problems, 1)):
        if value < least:
            raise ReproductionError(f"{name}: got {value}; wanted at least {least}")
    set_up(1)
    counts = (60, 20) if quick else (replications, max(2, replications // 3))
    rows = [row for k in range(3 if quick else problems) for row in _rows(seed + k, counts)]
    settings = [[row for row in rows if _setting(row) == setting] for setting in dict.fromkeys(map(_setting, rows))]
    print_table(
        f"the first problem: RMSE over {counts[0]} and {counts[1]} data sets (n = 100, 1,000), ± half its 95% interval",
        ["H", "uniform", "n", "truth", *NAMES, "ESS"],
        [
            [*_setting(row), f"{row['truth']:.2f}",
             *(_shown(row["rmse"][name], row["rmse_interval"][name]) for name in NAMES), f"{row['ess']:.1f}"]
            for row, *_ in settings
        ],
        width=210,
    )  # fmt: skip
    means = [{name: _geometric([row["rmse"][name] for row in same]) for name in NAMES} for same in settings]
    print_table(
        f"all problems: geometric mean of the RMSE over {len(settings[0])}", ["H", "uniform", "n", *NAMES],
        [[*_setting(same[0]), *(f"{mean[name]:.3g}" for name in NAMES)]
         for same, mean in zip(settings, means, strict=True)],
        width=150,
    )  # fmt: skip
    covered = None if quick else _coverage(Problem.random(seed), seed, min(100, replications))
    checks = _checks(rows, means)
    for text, holds in checks.items():
        print(f"{'yes' if holds else 'NO '}  {text}")
    return {"rows": rows, "coverage": covered, "checks": checks, "met": all(checks.values())}


def _rows(seed: int, counts: tuple[int, int]) -> list[dict[str, Any]]:
    """Errors on the problem of a seed, in all settings."""
    problem, rows = Problem.random(seed), []
    for horizon in (5, 20):
        for uniform in (0.5, 1.0):
            behaviour = (1 - uniform) * problem.policy + uniform / ACTIONS
            rows += [
                _row(problem, behaviour, uniform, horizon, episodes, times, seed)
                for episodes, times in ((_SMALL, counts[0]), (_LARGE, counts[1]))
            ]
    return rows


def _setting(row: dict[str, Any]) -> tuple[int, float, int]:
    return row["horizon"], row["uniform"], row["episodes"]


def _geometric(values: list[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))


def _row(
    problem: Problem, behaviour: Array, uniform: float, horizon: int, episodes: int, times: int, seed: int
) -> dict[str, Any]:
    """Errors of one setting."""
    truth = problem.value(horizon)
    runs = [estimates(problem, behaviour, episodes, horizon, seed * 1_000_003 + k) for k in range(times)]
    squares = (np.array([values for values, _, _ in runs]) - truth) ** 2
    spans = [mean_interval(squares[:, k])[1] for k in range(len(NAMES))]
    return {
        "problem": seed, "horizon": horizon, "uniform": uniform, "episodes": episodes, "truth": truth,
        "rmse": dict(zip(NAMES, np.sqrt(squares.mean(0)).tolist(), strict=True)),
        "rmse_interval": {
            name: [float(np.sqrt(max(0.0, low))), float(np.sqrt(high))]
            for name, (low, high) in zip(NAMES, spans, strict=True)
        },
        "ess": float(np.mean([size for _, _, size in runs])),
    }  # fmt: skip


def _shown(error: float, span: list[float]) -> str:
    return f"{error:.3g} ±{(span[1] - span[0]) / 2:.1g}"


def _coverage(problem: Problem, seed: int, times: int) -> list[dict[str, Any]]:
    """How often 95% intervals from 100 episodes hold the truth."""
    found: list[dict[str, Any]] = []
    for horizon in (5, 20):
        for uniform in (0.5, 1.0):
            behaviour = (1 - uniform) * problem.policy + uniform / ACTIONS
            truth, held = problem.value(horizon), np.zeros(len(NAMES), int)
            for k in range(times):
                spans = estimates(problem, behaviour, _SMALL, horizon, seed + 10_000 + k, 1000, 100)[1]
                held += (spans[:, 0] <= truth) & (truth <= spans[:, 1])
            share = {name: fraction_interval(int(count), times) for name, count in zip(NAMES, held, strict=True)}
            found.append(
                {"horizon": horizon, "uniform": uniform, "held": {name: one[0] for name, one in share.items()}}
            )
    print_table(
        f"fraction of 95% intervals from 100 episodes that hold the truth, of {times} data sets",
        ["H", "uniform", *NAMES],
        [[row["horizon"], row["uniform"], *(f"{share:.0%}" for share in row["held"].values())] for row in found],
        width=150,
    )
    return found


def _checks(rows: list[dict[str, Any]], means: list[dict[str, float]]) -> dict[str, bool]:
    """The statements, by what they say, from the errors in all rows and their means in each setting."""
    pairs = [(less["rmse"], more["rmse"], less["ess"]) for less, more in zip(rows[::2], rows[1::2], strict=True)]
    left = {name: _geometric([more[name] / less[name] for less, more, _ in pairs]) for name in ("FQE", "FQE wrong")}
    weighed = [(less, more) for less, more, ess in pairs if ess >= _FEW]
    few = [row["rmse"] for row in rows if row["ess"] < _FEW]
    ordered = [row["rmse"] for row in rows if row["rmse"]["PDWIS"] < row["rmse"]["WIS"] < row["rmse"]["PDIS"]
               < row["rmse"]["IS"]]  # fmt: skip
    best = [row["rmse"] for row in rows if row["rmse"]["FQE"] == min(row["rmse"].values())]
    return {
        f"PDWIS < WIS < PDIS < IS in every setting ({len(ordered)} of {len(rows)} rows)": all(
            mean["PDWIS"] < mean["WIS"] < mean["PDIS"] < mean["IS"] for mean in means
        ),
        f"correct FQE is best in every setting ({len(best)} of {len(rows)} rows)": all(
            mean["FQE"] == min(mean.values()) for mean in means
        ),
        f"ten times the data leave correct FQE {left['FQE']:.0%} of its error, at most {_LEFT:.0%}; wrong FQE "
        f"{left['FQE wrong']:.0%}, at least twice as much": 2 * left["FQE"] <= left["FQE wrong"]
        and left["FQE"] <= _LEFT,
        f"they leave WDR and DR with wrong Q at most {_LEFT:.0%} in every row with {_FEW:.0f} effective episodes": bool(
            weighed
        ) and all(more[name] <= _LEFT * less[name] for less, more in weighed for name in ("WDR wrong", "DR wrong")),
        f"with fewer ({len(few)} rows) every weighting estimator errs at least 3 times as much as FQE": bool(few)
        and all(error[name] > 3 * error["FQE"] for error in few for name in NAMES[:4]),
    }  # fmt: skip
