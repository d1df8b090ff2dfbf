"""Alpha-rank: how often an evolutionary process is found at each strategy or profile.

Omidshafiei et al. 2019, "alpha-Rank: Multi-Agent Evaluation by Evolution" (Scientific Reports 9). A population of m
individuals plays one strategy; now and then a mutant appears, and either dies out or takes over. With fitness f and
selection intensity alpha, the mutant r takes over a population of s with probability

    rho = 1 / (1 + sum_{l=1}^{m-1} prod_{p=1}^{l} exp(-alpha (f_r(p) - f_s(p))))

where p is the number of mutants. Strategies are the states of a Markov chain with these steps, and the rank is its
stationary distribution. With one population (a symmetric game) fitness is the mean payoff against the rest of the
population; with one population per seat the states are the pure profiles, one seat mutates at a time against the
current strategies of the others, and the fitness does not depend on p, so that rho = (1 - e^-u) / (1 - e^-mu) with u =
alpha times the gain. In the limit of infinite alpha only the order of payoffs matters: a step to a better strategy has
probability 1 - epsilon, to an equally good one 1/2, to a worse one epsilon, each divided by the number of possible
mutants, for small epsilon (Rowland et al. 2019, "Multiagent Evaluation under Incomplete Information", section 2).

Differs from OpenSpiel in that the fitness of one population is the paper's by default (OpenSpiel's default is "duel"
here: mutant and resident against each other alone), and in that everything is computed in logarithms, including the
stationary distribution: it is found by the elimination of Grassmann, Taksar and Heyman (1985), which never subtracts.
Nothing overflows, and the distribution is accurate even for chains whose rarest steps have a probability of e^-10000.

Example:
    >>> rock_paper_scissors = np.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])
    >>> alpha_rank_symmetric(rock_paper_scissors, alpha=1e4).round(6).tolist()
    [0.333333, 0.333333, 0.333333]
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import comb, logsumexp

from mlbits.envs.core.errors import GameError
from mlbits.evals.game_theory.nash_conv import check_payoffs

_TIE = 1e-12  # payoffs that differ by less, relative to the largest, count as equal at infinite alpha
MAX_PROFILES = 1_500  # about half a minute of elimination


def alpha_rank(
    payoffs: ArrayLike, *, alpha: float = math.inf, population: int = 50, noise: float = 1e-9
) -> NDArray[np.float64]:
    """The rank of pure profiles, with one population per seat.

    Args:
        payoffs: [P, A_1, ..., A_P].
        alpha: selection intensity, from 0 (all profiles equal); infinity for the limit.
        population: m, individuals per seat, at least 2; not used in the limit.
        noise: epsilon of the limit, above 0, at most 1/2.

    Returns:
        Probabilities of the profiles, [A_1, ..., A_P].

    Raises:
        GameError: for invalid payoffs, too many profiles, or a number out of range.
    """
    tensor = check_payoffs(payoffs)
    _check(alpha, population, noise)
    shape = tensor.shape[1:]
    profiles = math.prod(shape)
    if profiles > MAX_PROFILES:
        raise GameError(f"payoffs: got {profiles:,} profiles {shape}; wanted at most {MAX_PROFILES:,}")
    number = np.arange(profiles).reshape(shape)
    mutants = sum(size - 1 for size in shape)
    log_step = np.full((profiles, profiles), -np.inf)
    for seat, size in enumerate(shape):
        states = np.moveaxis(number, seat, -1).reshape(-1, size)  # rows of profiles that differ in this seat only
        payoff = np.moveaxis(tensor[seat], seat, -1).reshape(-1, size)
        gain = payoff[:, None, :] - payoff[:, :, None]
        if math.isinf(alpha):
            log_rho = _log_limit(gain, float(np.abs(tensor).max()), noise)
        else:
            log_rho = _log_constant_fixation(alpha * gain, population)
        log_step[states[:, :, None], states[:, None, :]] = log_rho - math.log(max(mutants, 1))
    return _stationary(log_step).reshape(shape)


def alpha_rank_symmetric(
    payoffs: ArrayLike,
    *,
    alpha: float = math.inf,
    population: int = 50,
    noise: float = 1e-9,
    fitness: Literal["population", "duel"] = "population",
) -> NDArray[np.float64]:
    """The rank of the strategies of a symmetric game, one population for all seats.

    Args:
        payoffs: of the first seat, [A, ..., A], one axis per seat, its own first; symmetric in the other axes.
        alpha: selection intensity, from 0 (all strategies equal); infinity for the limit, only for two seats.
        population: m, individuals, at least 2 and no fewer than seats; not used in the limit.
        noise: epsilon of the limit, above 0, at most 1/2.
        fitness: "population", the mean payoff against the rest of the population, or "duel", that of mutant and
            resident against each other alone, only for two seats. The limit always takes the second; in constant-sum
            games both give the same.

    Returns:
        Probabilities of the strategies, [A].

    Raises:
        GameError: for invalid or asymmetric payoffs, or a number out of range.
    """
    tensor = np.asarray(payoffs, float)
    if tensor.ndim < 2 or tensor.size == 0 or len(set(tensor.shape)) != 1:
        raise GameError(f"payoffs: got shape {tensor.shape}; wanted [A, ..., A], one axis per seat, two or more")
    if not np.isfinite(tensor).all():
        raise GameError("payoffs: got NaN or infinity; wanted finite numbers")
    others = range(1, tensor.ndim)
    for axis in others[1:]:
        if not np.allclose(tensor, np.swapaxes(tensor, 1, axis), rtol=1e-9, atol=1e-9):
            raise GameError(f"payoffs: not symmetric in seats 1 and {axis}; wanted a symmetric game")
    _check(alpha, max(population, 2) if math.isinf(alpha) else population, noise)
    size, seats = tensor.shape[0], tensor.ndim
    if fitness not in ("population", "duel"):
        raise GameError(f"fitness: got {fitness!r}; wanted population or duel")
    if math.isinf(alpha) or fitness == "duel":
        if seats > 2:
            raise GameError(
                f"alpha: got {alpha}, fitness {fitness}, for {seats} seats; wanted a number, and population"
            )
        gain = tensor.T - tensor  # [s, r]: payoff of r against s, less that of s against r
        if math.isinf(alpha):
            log_rho = _log_limit(gain, float(np.abs(tensor).max()), noise)
        else:
            log_rho = _log_constant_fixation(alpha * gain, population)
    else:
        if population < seats:
            raise GameError(f"population: got {population}; wanted at least {seats}, one for each seat")
        log_rho = _log_fixation(alpha * _fitness_gain(tensor, population))
    return _stationary(log_rho - math.log(max(size - 1, 1)))


def marginals(profiles: ArrayLike) -> list[NDArray[np.float64]]:
    """The rank of each seat's strategies, one [A_i] per seat, from the rank of profiles [A_1, ..., A_P]."""
    joint = np.asarray(profiles, float)
    return [joint.sum(tuple(k for k in range(joint.ndim) if k != seat)) for seat in range(joint.ndim)]


def _fitness_gain(tensor: NDArray[np.float64], population: int) -> NDArray[np.float64]:
    """f_r(p) - f_s(p) of mutants r in a population of s, [s, r, m - 1] for p = 1 .. m - 1 mutants.

    The other seats are drawn from the rest of the population: with p mutants, an r meets k of its own kind with the
    hypergeometric probability of k in n - 1 draws among p - 1 of m - 1.
    """
    size, seats = tensor.shape[0], tensor.ndim
    own, other = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    # against[k][r, s]: payoff of r where k of the others play r and the rest s.
    against = np.stack([tensor[(own, *([own] * k), *([other] * (seats - 1 - k)))] for k in range(seats)])
    mutants = np.arange(1, population)
    k = np.arange(seats)[:, None]

    def meets(kind: NDArray[np.int64]) -> NDArray[np.float64]:
        """Probability of meeting k others of one's kind, [n, m - 1], if there are ``kind`` including oneself."""
        return comb(kind - 1, k) * comb(population - kind, seats - 1 - k) / comb(population - 1, seats - 1)

    mutant = np.einsum("krs,kp->srp", against, meets(mutants))
    resident = np.einsum("ksr,kp->srp", against, meets(population - mutants))
    return mutant - resident


def _log_fixation(advantage: NDArray[np.float64]) -> NDArray[np.float64]:
    """The log of rho from alpha (f_r(p) - f_s(p)), [..., m - 1] -> [...]."""
    exponents = -np.cumsum(advantage, -1)
    return -logsumexp(np.concatenate([np.zeros((*exponents.shape[:-1], 1)), exponents], -1), axis=-1)


def _log_constant_fixation(advantage: NDArray[np.float64], population: int) -> NDArray[np.float64]:
    """The log of rho, log((1 - e^-u) / (1 - e^-mu)), and -log m at u = 0; any shape."""
    size = np.abs(advantage)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(-np.expm1(-size)) - np.log(-np.expm1(-population * size))
    ratio = np.where(size < 1e-14, -math.log(population), ratio)
    return ratio - np.where(advantage < 0, (population - 1) * size, 0.0)  # for u < 0, both parts times e^u and e^mu


def _log_limit(gain: NDArray[np.float64], largest: float, noise: float) -> NDArray[np.float64]:
    """Log probabilities of steps with these gains, at infinite alpha."""
    tie = np.abs(gain) <= _TIE * largest
    return np.where(tie, math.log(0.5), np.where(gain > 0, math.log1p(-noise), math.log(noise)))


def _stationary(log_step: NDArray[np.float64]) -> NDArray[np.float64]:
    """The stationary distribution of an irreducible chain from its log probabilities [N, N]; the diagonal is not used.

    Grassmann, Taksar and Heyman (1985): remove the last state, redirect steps into it to where it would have led, and
    so on down to one state; then compute the probability of each state from those before it. It uses only sums,
    products and quotients of positive numbers, so that the relative error of each stays at rounding level.
    """
    size = len(log_step)
    step = log_step.copy()
    for k in range(size - 1, 0, -1):
        step[:k, k] -= logsumexp(step[k, :k])
        step[:k, :k] = np.logaddexp(step[:k, :k], step[:k, k, None] + step[k, :k])
    log_share = np.zeros(size)
    for k in range(1, size):
        log_share[k] = logsumexp(log_share[:k] + step[:k, k])
    share = np.exp(log_share - logsumexp(log_share))
    return share / share.sum()


def _check(alpha: float, population: int, noise: float) -> None:
    if not alpha >= 0:
        raise GameError(f"alpha: got {alpha}; wanted a number from 0")
    if population < 2:
        raise GameError(f"population: got {population}; wanted at least 2")
    if not 0 < noise <= 0.5:
        raise GameError(f"noise: got {noise}; wanted a number above 0, at most 0.5")
