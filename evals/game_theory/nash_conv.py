"""NashConv and exploitability of a profile in a normal-form game: the gains of best responses, exactly.

Lanctot et al. 2017, "A Unified Game-Theoretic Approach to Multiagent Reinforcement Learning", section 2: with u_i the
payoff of seat i, x a profile of mixtures and x_{-i} that of all seats but i,

    NashConv(x) = sum_i max_a u_i(a, x_{-i}) - u_i(x)

which is zero at Nash equilibria and positive elsewhere. Exploitability is its mean over the seats (Johanson et al.
2011, "Accelerating Best Response Calculation in Large Extensive Games", section 2, for two-seat constant-sum games:
there it is how much less than the game's value an average seat earns against the best opponent).

A profile is one mixture per seat, independent of each other. Payoffs are a tensor [P, A_1, ..., A_P]: the seat that
receives the payoff, then the action of every seat.

Differs from OpenSpiel in that exploitability is defined for any number of seats and any sum, as NashConv over P.

Example:
    >>> paper_rock = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    >>> payoffs = symmetric_game(paper_rock)
    >>> float(nash_conv(payoffs, [[1, 0, 0], [0, 0, 1]]))  # rock and scissors: the second would gain 2
    2.0
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlbits.envs.core.errors import GameError

Profile = Sequence[ArrayLike]
"""One mixture [A_i] per seat."""

_SUM_ERROR = 1e-6  # how far the sum of a mixture may be from 1, so that float32 outputs of networks pass


@dataclass(frozen=True, eq=False)
class BestResponses:
    """Best responses of every seat to the mixtures of the others.

    Attributes:
        action: the lowest-numbered best action of each seat, int64 [P].
        value: its payoff, [P].
        gain: how much more that is than the payoff of the seat's own mixture, [P], at least 0 up to rounding.
    """

    action: NDArray[np.int64]
    value: NDArray[np.float64]
    gain: NDArray[np.float64]


def check_payoffs(payoffs: ArrayLike) -> NDArray[np.float64]:
    """Payoffs as float64 [P, A_1, ..., A_P].

    Raises:
        GameError: if the shape does not fit, or a payoff is not finite.
    """
    try:
        tensor = np.asarray(payoffs, float)
    except (TypeError, ValueError) as error:
        raise GameError(f"payoffs: got no array of numbers ({error}); wanted [P, A_1, ..., A_P]") from None
    if tensor.ndim < 2 or tensor.ndim != tensor.shape[0] + 1 or tensor.size == 0:
        raise GameError(
            f"payoffs: got shape {tensor.shape}; wanted [P, A_1, ..., A_P], the seat and then one axis of actions for "
            "each of the P seats"
        )
    if not np.isfinite(tensor).all():
        where = tuple(int(k) for k in np.argwhere(~np.isfinite(tensor))[0])
        raise GameError(f"payoffs: got {tensor[where]} at {where}; wanted finite numbers")
    return tensor


def check_matrix(matrix: ArrayLike, *, square: bool = False) -> NDArray[np.float64]:
    """A payoff matrix as float64 [A_1, A_2].

    Args:
        matrix: the payoffs of the seat that chooses the row.
        square: whether both seats have the same actions.

    Raises:
        GameError: if it is not a matrix, or a payoff is not finite.
    """
    try:
        array = np.asarray(matrix, float)
    except (TypeError, ValueError) as error:
        raise GameError(f"payoffs: got no array of numbers ({error}); wanted a matrix") from None
    if array.ndim != 2 or array.size == 0 or (square and array.shape[0] != array.shape[1]):
        raise GameError(f"payoffs: got shape {array.shape}; wanted a {'square ' if square else ''}matrix")
    if not np.isfinite(array).all():
        where = tuple(int(k) for k in np.argwhere(~np.isfinite(array))[0])
        raise GameError(f"payoffs: got {array[where]} at {where}; wanted finite numbers")
    return array


def check_profile(payoffs: NDArray[np.float64], profile: Profile) -> list[NDArray[np.float64]]:
    """The mixtures of a profile, each [A_i], as float64 normalised to sum 1.

    Raises:
        GameError: naming the seat whose mixture is missing, of another length, negative, or does not add up to 1.
    """
    seats = payoffs.shape[0]
    if len(profile) != seats:
        raise GameError(f"profile: got {len(profile)} mixtures; wanted {seats}, one for each seat")
    mixtures = []
    for seat, one in enumerate(profile):
        mixture, actions = np.asarray(one, float), payoffs.shape[seat + 1]
        if mixture.shape != (actions,):
            raise GameError(f"profile: seat {seat} has a mixture of shape {mixture.shape}; wanted {(actions,)}")
        total = float(mixture.sum())
        if not (mixture >= 0).all() or not abs(total - 1) <= _SUM_ERROR:
            raise GameError(
                f"profile: the mixture of seat {seat} adds up to {total:.6g}, least {mixture.min():.6g}; wanted "
                "probabilities"
            )
        mixtures.append(mixture / total)
    return mixtures


def zero_sum_game(matrix: ArrayLike) -> NDArray[np.float64]:
    """The payoffs [2, A_1, A_2] of a zero-sum game, in which the first seat gains the matrix entry, [A_1, A_2]."""
    rows = check_matrix(matrix)
    return np.stack([rows, -rows])


def symmetric_game(matrix: ArrayLike) -> NDArray[np.float64]:
    """The payoffs [2, A, A] of a game in which both seats earn matrix[own action, other's action], [A, A]."""
    rows = check_matrix(matrix, square=True)
    return np.stack([rows, rows.T])


def action_payoffs(payoffs: ArrayLike, profile: Profile) -> list[NDArray[np.float64]]:
    """The payoff of each action of each seat against the mixtures of the other seats.

    Args:
        payoffs: [P, A_1, ..., A_P].
        profile: one mixture [A_i] per seat.

    Returns:
        u_i(a, x_{-i}) for each seat, [A_i].

    Raises:
        GameError: for invalid payoffs or an invalid profile.
    """
    tensor = check_payoffs(payoffs)
    mixtures = check_profile(tensor, profile)
    earned = []
    for seat in range(len(mixtures)):
        rest = tensor[seat]
        for other in reversed(range(len(mixtures))):  # from the last axis, so that the earlier axes keep their numbers
            if other != seat:
                rest = np.tensordot(rest, mixtures[other], (other, 0))
        earned.append(rest)
    return earned


def expected_payoffs(payoffs: ArrayLike, profile: Profile) -> NDArray[np.float64]:
    """The expected payoff of each seat, u_i(x), [P].

    Args:
        payoffs: [P, A_1, ..., A_P].
        profile: one mixture [A_i] per seat.

    Raises:
        GameError: for invalid payoffs or an invalid profile.
    """
    earned = action_payoffs(payoffs, profile)
    mixtures = check_profile(check_payoffs(payoffs), profile)
    return np.array([mixture @ own for mixture, own in zip(mixtures, earned, strict=True)])


def best_responses(payoffs: ArrayLike, profile: Profile) -> BestResponses:
    """The best response of each seat while the others keep their mixtures.

    Args:
        payoffs: [P, A_1, ..., A_P].
        profile: one mixture [A_i] per seat.

    Raises:
        GameError: for invalid payoffs or an invalid profile.
    """
    earned = action_payoffs(payoffs, profile)
    mixtures = check_profile(check_payoffs(payoffs), profile)
    value = np.array([own.max() for own in earned])
    now = np.array([mixture @ own for mixture, own in zip(mixtures, earned, strict=True)])
    return BestResponses(np.array([own.argmax() for own in earned]), value, value - now)


def nash_conv(payoffs: ArrayLike, profile: Profile) -> float:
    """The sum of the gains of all seats' best responses; 0 at an equilibrium.

    Args:
        payoffs: [P, A_1, ..., A_P].
        profile: one mixture [A_i] per seat.

    Raises:
        GameError: for invalid payoffs or an invalid profile.
    """
    return float(best_responses(payoffs, profile).gain.sum())


def exploitability(payoffs: ArrayLike, profile: Profile) -> float:
    """NashConv divided by the number of seats: the mean gain of a best response.

    For a mixture against itself in a symmetric game of value 0 this is what the best opponent earns.

    Args:
        payoffs: [P, A_1, ..., A_P].
        profile: one mixture [A_i] per seat.

    Raises:
        GameError: for invalid payoffs or an invalid profile.
    """
    return nash_conv(payoffs, profile) / len(profile)
