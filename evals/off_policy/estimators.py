"""Estimators of a policy's value from episodes of another: importance weighting, and doubly robust with a model.

With the ratios rho_t = prod_{k<=t} pi(a_k | s_k) / b(a_k | s_k), of target policy pi and behaviour policy b, and n
episodes:

    IS      mean_i rho_T sum_t gamma^t r_t                      unbiased; variance grows exponentially with T
    PDIS    mean_i sum_t gamma^t rho_t r_t                      per decision (Precup et al. 2000); unbiased
    WIS     sum_i rho_T G / sum_i rho_T                         self-normalised: biased, consistent, far less variance
    PDWIS   sum_t gamma^t sum_i rho_t r_t / sum_i rho_t         per decision and self-normalised
    DR      mean_i V(s_0) + sum_t gamma^t rho_t (r_t + gamma V(s_{t+1}) - Q(s_t, a_t))
    WDR     the same with rho_t / sum_i rho_t in place of rho_t / n

DR is by Jiang and Li 2016, WDR by Thomas and Brunskill 2016. DR is unbiased where the ratios are right, whatever Q and
V (of a model that was not fitted to the same data), and consistent where either is right.

Episodes of different lengths: after an episode's end its ratio stays what it was and its rewards are 0, which is exact
for terminated episodes. Of a truncated one nothing more is known: IS, PDIS, WIS and PDWIS estimate the value of the
steps that were logged, as if the time limit were part of the task; DR and WDR add gamma^T rho_T V(s_T), and so estimate
the value without the limit (:mod:`~mlbits.evals.off_policy.model` says which V).

Intervals are percentiles over resampled episodes (Efron 1979). With heavy-tailed weights they are too narrow, as the
episodes that would matter are not in the sample: read them with the effective sample size
(sum w)^2 / sum w^2 (Kish 1965) beside them. All weights are kept as logarithms.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlbits.envs.core.errors import MlbitsError
from mlbits.selfplay.statistics import student

Array = NDArray[np.float64]
WEIGHTED = ("IS", "PDIS", "WIS", "PDWIS")
_FEWEST_PERCENTILES = 100  # replicates; fewer only estimate a standard error
_BLOCK = 1 << 22  # entries of the resampling counts held at once


class OffPolicyError(MlbitsError, ValueError):
    """Data or a policy from which a value cannot be estimated."""


@dataclass(frozen=True)
class Estimate:
    """A number with what it rests on.

    Attributes:
        name: of the estimator. value: NaN where it is undefined (no episode could have been played by the target
        policy). low: of the 95% interval. high: of the 95% interval. ess: effective number of episodes; for estimators
        per decision the mean over steps, weighted by gamma^t and by the
            fraction of episodes that reach the step; None without weights.
        max_weight: the largest episode's fraction of all weights, 0..1, averaged in the same way; None without weights.
    """

    name: str
    value: float
    low: float
    high: float
    ess: float | None = None
    max_weight: float | None = None


@dataclass(frozen=True, eq=False)
class Logged:
    """E episodes padded to H steps.

    Attributes:
        log_ratio: log pi(a|s) - log b(a|s), [E, H]; minus infinity where pi(a|s) is 0, and 0 after the end.
        reward: [E, H], 0 after the end.
        lengths: steps of each episode, int [E].
        discount: gamma, 0..1.
    """

    log_ratio: Array
    reward: Array
    lengths: NDArray[np.int64]
    discount: float

    @classmethod
    def from_steps(cls, log_ratio: Array, reward: Array, starts: NDArray[np.int64], discount: float) -> Logged:
        """From steps laid end to end.

        Args:
            log_ratio: [N].
            reward: [N].
            starts: each episode's first step, and N, int [E + 1].
            discount: gamma, 0..1.

        Raises:
            OffPolicyError: for NaN or infinite ratios, or a discount out of range.
        """
        if not 0 <= discount <= 1:
            raise OffPolicyError(f"discount: got {discount}; wanted a number from 0 to 1")
        bad = np.isnan(log_ratio) | (log_ratio == np.inf)
        if bad.any():
            step = int(bad.argmax())
            episode = int(np.searchsorted(starts, step, "right")) - 1
            raise OffPolicyError(
                f"log_prob: episode {episode}, step {step - starts[episode]}: the log ratio of the policies is "
                f"{log_ratio[step]}; wanted a behaviour policy with a positive probability for what it played"
            )
        return cls(padded(log_ratio, starts), padded(reward, starts), np.diff(starts), discount)

    @property
    def cumulative(self) -> Array:
        """Log rho_t, [E, H]."""
        return np.cumsum(self.log_ratio, 1)

    @property
    def discounts(self) -> Array:
        """gamma^t, [H]."""
        return np.power(self.discount, np.arange(self.reward.shape[1]), dtype=np.float64)

    @property
    def importance(self) -> Array:
        """How much each step's weights matter: gamma^t times the fraction of episodes that reach it; [H], sum 1."""
        reached = (self.lengths[:, None] > np.arange(self.reward.shape[1])).mean(0)
        worth = self.discounts * reached
        return worth / worth.sum()


@dataclass(frozen=True, eq=False)
class Model:
    """Values of a fitted model, and of models fitted to resampled episodes.

    Attributes:
        q: Q(s_t, a_t), [M, E, H], 0 after the end.
        v: V(s_t), [M, E, H + 1]; V of the last observation of an episode of T steps stands at T: 0 if it terminated.
        counts: how often each episode was drawn for each of the M fits, [M, E]; the first row is all ones.
    """

    q: Array
    v: Array
    counts: Array


def padded(values: Array, starts: NDArray[np.int64], extra: int = 0) -> Array:
    """Rows laid end to end, [..., N + E * extra], as [..., E, H + extra], with 0 after each episode's end.

    Args:
        values: one row a step, and ``extra`` more for each episode.
        starts: each episode's first step, and N, int [E + 1].
        extra: rows of an episode of T steps beyond T.
    """
    lengths = np.diff(starts) + extra
    first = starts[:-1] + extra * np.arange(len(lengths))
    steps = np.arange(lengths.max())
    alive = steps < lengths[:, None]
    rows = np.where(alive, first[:, None] + steps, 0)
    return np.where(alive, values[..., rows], 0.0)


def effective_size(log_weight: Array) -> Array:
    """(sum w)^2 / sum w^2 over the first axis, from log weights [E, ...]; 0 where all weights are 0."""
    w = scaled(log_weight)
    square = (w * w).sum(0)
    return np.divide(w.sum(0) ** 2, square, out=np.zeros_like(square), where=square > 0)


def largest_fraction(log_weight: Array) -> Array:
    """Largest w / sum w over the first axis, from log weights [E, ...]; 1 where all weights are 0."""
    w = scaled(log_weight)
    total = w.sum(0)
    return np.divide(w.max(0), total, out=np.ones_like(total), where=total > 0)


def scaled(log_weight: Array) -> Array:
    """Weights divided by the largest over the first axis, [E, ...]; 0 where all are 0."""
    top = log_weight.max(0)
    return np.exp(log_weight - np.where(np.isfinite(top), top, 0.0))


def mean_weight(data: Logged) -> float:
    """The mean of rho over steps, weighted as the effective sizes per decision are; its expectation is 1.

    It is far below 1 where the data lack what the policy does, as the rare large weights are then not in the sample.
    """
    with np.errstate(over="ignore"):
        return float(np.exp(data.cumulative).mean(0) @ data.importance)


def importance_estimates(data: Logged, resamples: int = 1000, seed: int = 0) -> list[Estimate]:
    """IS, PDIS, WIS and PDWIS with bootstrap intervals.

    Args:
        data: the episodes.
        resamples: number of bootstrap samples.
        seed: of the bootstrap.
    """
    rho, gamma = data.cumulative, data.discounts
    last, returns = rho[:, -1], data.reward @ gamma
    top = float(rho.max())
    top = top if np.isfinite(top) else 0.0
    # One number per episode for IS and PDIS, in units of e^top; two for WIS; two per step for PDWIS.
    each = np.stack([np.exp(last - top) * returns, (np.exp(rho - top) * data.reward) @ gamma], 1)
    whole, steps = scaled(last), scaled(rho)
    sums = np.concatenate([each, whole[:, None], (whole * returns)[:, None], steps, steps * data.reward], 1)
    horizon = rho.shape[1]

    def combine(total: Array) -> Array:
        """The four estimates [R, 4] from sums over episodes [R, columns]."""
        # Underflow, and samples in which all weights are 0, give NaN, which the percentiles leave out.
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            unbiased = total[:, :2] / len(rho) * np.exp(top)
            weighted = total[:, 3] / total[:, 2]
            parts = total[:, 4 + horizon :] / total[:, 4 : 4 + horizon]
            return np.concatenate([unbiased, weighted[:, None], (parts @ gamma)[:, None]], 1)

    value = combine(sums.sum(0, keepdims=True))[0]
    drawn = np.concatenate([combine(counts @ sums) for counts in _resampled(len(rho), resamples, seed)])
    per_step = data.importance
    sizes = {"IS": float(effective_size(last)), "PDIS": float(effective_size(rho) @ per_step)}
    largest = {"IS": float(largest_fraction(last)), "PDIS": float(largest_fraction(rho) @ per_step)}
    found = []
    for k, name in enumerate(WEIGHTED):
        kind = "PDIS" if name.startswith("PD") else "IS"
        low, high = interval(float(value[k]), drawn[:, k])
        found.append(Estimate(name, float(value[k]), low, high, sizes[kind], largest[kind]))
    return found


def model_estimate(model: Model, name: str = "FQE") -> Estimate:
    """The model's own value: the mean of V(s_0), with an interval over its refits."""
    start = model.v[:, :, 0]
    values = (model.counts * start).sum(1) / model.counts.sum(1)
    low, high = interval(float(values[0]), values[1:])
    return Estimate(name, float(values[0]), low, high)


def doubly_robust_estimates(data: Logged, model: Model) -> list[Estimate]:
    """DR and WDR, with intervals over the refits of the model, each on its own resampled episodes.

    Args:
        data: the episodes.
        model: values for the same episodes.
    """
    rho, gamma = data.cumulative, data.discounts
    top = rho.max(0)
    top = np.where(np.isfinite(top), top, 0.0)
    weight = np.exp(rho - top)
    unit = np.exp(np.minimum(top, 700.0))
    found = np.empty((len(model.counts), 2))
    for k, counts in enumerate(model.counts):
        error = data.reward + data.discount * model.v[k, :, 1:] - model.q[k]
        error = np.where(data.lengths[:, None] > np.arange(rho.shape[1]), error, 0.0)
        start = counts @ model.v[k, :, 0] / counts.sum()
        total = counts @ (weight * error)  # [H]
        norm = counts @ weight
        found[k, 0] = start + (gamma * unit * total).sum() / counts.sum()
        found[k, 1] = start + (gamma * np.divide(total, norm, out=np.zeros_like(total), where=norm > 0)).sum()
    size, largest = float(effective_size(rho) @ data.importance), float(largest_fraction(rho) @ data.importance)
    return [
        Estimate(name, float(found[0, k]), *interval(float(found[0, k]), found[1:, k]), size, largest)
        for k, name in enumerate(("DR", "WDR"))
    ]


def interval(value: float, replicates: Array) -> tuple[float, float]:
    """The 95% interval of an estimate from bootstrap replicates [R]; those that are undefined are left out.

    Percentiles if there are 100 or more, else Student's interval with the replicates' standard deviation; NaN for fewer
    than two.
    """
    known = replicates[~np.isnan(replicates)]
    if len(known) < 2:
        return float("nan"), float("nan")
    if len(known) >= _FEWEST_PERCENTILES:
        with np.errstate(invalid="ignore"):  # weights beyond float64 make some infinite
            low, high = np.quantile(known, [0.025, 0.975])
        return float(low), float(high)
    with np.errstate(invalid="ignore"):
        half = student(len(known) - 1, 0.95) * float(known.std(ddof=1))
    return value - half, value + half


def bootstrap_counts(episodes: int, samples: int, seed: int) -> Array:
    """How often each of E episodes is drawn in each bootstrap sample, [samples, E]."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(episodes, np.full(episodes, 1 / episodes), size=samples).astype(float)


def _resampled(episodes: int, samples: int, seed: int) -> Iterator[Array]:
    """Counts of all bootstrap samples in blocks that fit into memory."""
    block = max(1, _BLOCK // episodes)
    for k, first in enumerate(range(0, samples, block)):
        yield bootstrap_counts(episodes, min(block, samples - first), seed + 7919 * k)
