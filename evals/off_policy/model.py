"""Fitted Q evaluation with linear features: Q(s, a) = phi(s, a) . theta, solved instead of iterated.

Fitted Q evaluation (Ernst et al. 2005; Le, Voloshin and Yue 2019) regresses Q(s_t, a_t) on the targets r_t + gamma
V(s_{t+1}), V(s) = sum_a pi(a | s) Q(s, a), over all logged steps, again and again. With linear features its fixed point
solves A theta = b (LSTD-Q, Lagoudakis and Parr 2003), where

    A = sum_t phi_t (phi_t - gamma phibar_{t+1})^T,    b = sum_t phi_t r_t,    phibar(s) = sum_a pi(a | s) phi(s, a)

and phibar is 0 after a terminated step. After a truncated step it is that of the last observation: the value is the one
without the time limit. With one-hot features (a table) this is the exact value of pi in the Markov chain that was
counted.

With a ``horizon`` of H steps the value of the first H steps is computed instead, by H regressions: Q_h on targets r +
gamma V_{h-1}, V_0 = 0. All logged steps serve for every h, so this assumes that rewards and transitions do not depend
on the time; then gamma may be 1.

Every fit is repeated on resampled episodes, which gives its interval. Dense features are summed once for each of 50
groups of episodes or more, and groups are drawn in place of episodes, so that a refit costs a sum and a solve.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu

from mlbits.evals.off_policy.estimators import Array, Model, OffPolicyError, bootstrap_counts, padded

_CHUNK = 1 << 16  # rows of features in double precision at once
_GROUPS = 50  # groups of episodes, at least, that refits of dense features draw from
_GROUPED = 4_000_000  # numbers in the matrices of all groups; small matrices have a group for every episode


@dataclass(frozen=True, eq=False)
class Features:
    """The features of a dataset under a target policy.

    Attributes:
        logged: phi(s_t, a_t) of each step, [N, D], an array or sparse. expected: phibar of each observation, [N + E,
        D], an array or sparse. ridge: added to the diagonal of the regression's matrix, as a fraction of its mean. A
        direction that the data say
            nothing about has value 0.
    """

    logged: Any
    expected: Any
    table: bool = False
    ridge: float = 1e-6


def fit(
    features: Features,
    reward: Array,
    terminated: NDArray[np.bool_],
    starts: NDArray[np.int64],
    discount: float,
    *,
    horizon: int | None = None,
    refits: int = 100,
    seed: int = 0,
) -> Model:
    """Fit Q to a dataset and to resampled episodes of it.

    Args:
        features: of its steps and observations.
        reward: [N].
        terminated: [N].
        starts: each episode's first step, and N, int [E + 1].
        discount: gamma; below 1 without a horizon.
        horizon: steps of an episode, at least the longest one's; None for no limit.
        refits: number of resampled fits.
        seed: of the resampling.

    Raises:
        OffPolicyError: for gamma = 1 without a horizon, or a horizon shorter than an episode.
    """
    lengths = np.diff(starts)
    if horizon is None and not 0 <= discount < 1:
        raise OffPolicyError(f"discount: got {discount:g} without a horizon; wanted below 1, or a horizon")
    if horizon is not None and horizon < lengths.max():
        raise OffPolicyError(f"horizon: got {horizon}; wanted at least {lengths.max()}, the longest episode's steps")
    groups = len(lengths)
    if refits == 0:
        groups = 1
    elif not sparse.issparse(features.logged):
        groups = min(groups, max(_GROUPS, _GROUPED // features.logged.shape[1] ** 2))
    member = np.random.default_rng(seed).permutation(len(lengths)) % groups
    drawn = np.concatenate([np.ones((1, groups)), bootstrap_counts(groups, refits, seed)])
    episode = np.repeat(np.arange(len(lengths)), lengths)
    after = np.arange(len(reward)) + episode + 1
    ends = after[starts[1:] - 1]
    over = np.zeros(len(reward) + len(lengths), bool)
    over[ends] = terminated[starts[1:] - 1]
    following = np.where(terminated, -1, after)
    moments = _sparse_moments if sparse.issparse(features.logged) else _dense_moments
    gram, cross, b = moments(features, reward, following, member[episode], drawn)
    theta = []
    for k in range(len(drawn)):
        if horizon is None:
            theta.append(_solve(gram[k] - discount * cross[k], gram[k], b[k][:, None], features.ridge).T)
        else:
            theta.append(_finite(gram[k], cross[k], b[k], features.ridge, discount, horizon))
    return _values(features, np.stack(theta), drawn[:, member], starts, over, horizon)


def _finite(gram: Any, cross: Any, b: Array, ridge: float, discount: float, horizon: int) -> Array:
    """Theta for 0 to H steps to go, [H + 1, D]: theta_h = gram^-1 (b + gamma cross theta_{h-1}), theta_0 = 0."""
    solved = _solve(
        gram, gram, np.concatenate([b[:, None], cross.toarray() if sparse.issparse(cross) else cross], 1), ridge
    )
    theta = np.zeros((horizon + 1, len(b)))
    for h in range(1, horizon + 1):
        theta[h] = solved[:, 0] + discount * solved[:, 1:] @ theta[h - 1]
    return theta


_Moments = tuple[Any, Any, Any]


def _sparse_moments(
    features: Features, reward: Array, following: NDArray[np.int64], group: NDArray[np.int64], drawn: Array
) -> _Moments:
    """Sums w phi phi^T, w phi phibar'^T and w phi r of each fit, as lists."""
    goes_on = (following >= 0).astype(float)
    after = sparse.diags(goes_on) @ features.expected[np.maximum(following, 0)]
    turned = [(features.logged.T @ sparse.diags(counts[group])).tocsr() for counts in drawn]
    return [t @ features.logged for t in turned], [t @ after for t in turned], [t @ reward for t in turned]


def _dense_moments(
    features: Features, reward: Array, following: NDArray[np.int64], group: NDArray[np.int64], drawn: Array
) -> _Moments:
    """The same, as arrays [M, D, D] twice and [M, D]."""
    size, groups = features.logged.shape[1], drawn.shape[1]
    gram, cross, b = np.zeros((groups, size, size)), np.zeros((groups, size, size)), np.zeros((groups, size))
    for number in range(groups):
        rows = np.flatnonzero(group == number)
        for part in np.array_split(rows, max(1, len(rows) // _CHUNK)):
            phi = np.asarray(features.logged[part], float)
            after = np.asarray(features.expected[np.maximum(following[part], 0)], float)
            after[following[part] < 0] = 0.0
            gram[number] += phi.T @ phi
            cross[number] += phi.T @ after
            b[number] += phi.T @ reward[part]
    shape = (len(drawn), size, size)
    return ((drawn @ gram.reshape(groups, -1)).reshape(shape), (drawn @ cross.reshape(groups, -1)).reshape(shape),
            drawn @ b)  # fmt: skip


def _solve(matrix: Any, gram: Any, right: Array, ridge: float) -> Array:
    """(matrix + ridge * mean diagonal of gram)^-1 right, [D, K]."""
    size = matrix.shape[0]
    extra = ridge * gram.diagonal().mean()
    if sparse.issparse(matrix):
        return splu((matrix + extra * sparse.identity(size)).tocsc()).solve(right)
    return np.linalg.solve(matrix + extra * np.eye(size), right)


def _values(
    features: Features, theta: Array, counts: Array, starts: NDArray[np.int64], over: NDArray[np.bool_],
    horizon: int | None,
) -> Model:  # fmt: skip
    """Q and V of every fit, padded, from theta [M, steps to go, D]."""
    lengths = np.diff(starts)
    if horizon is None:
        q = np.stack([features.logged @ one for one in theta[:, 0]])
        v = np.where(over, 0.0, np.stack([features.expected @ one for one in theta[:, 0]]))
        return Model(padded(q, starts), padded(v, starts, 1), counts)
    first, number = starts[:-1], np.arange(len(lengths))
    q, v = np.zeros((len(theta), starts[-1])), np.zeros((len(theta), len(over)))
    for time in range(int(lengths.max()) + 1):
        to_go = theta[:, horizon - time].T
        rows, looks = first[lengths > time] + time, (first + number)[lengths >= time] + time
        q[:, rows] = (features.logged[rows] @ to_go).T
        v[:, looks] = (features.expected[looks] @ to_go).T
    v[:, over] = 0.0
    return Model(padded(q, starts), padded(v, starts, 1), counts)
