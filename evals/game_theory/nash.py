"""Nash mixtures of two-seat zero-sum games by linear programming, and Nash averaging of agents.

von Neumann's minimax theorem as a linear program (Dantzig 1951): over all mixtures x of the rows of M [A_1, A_2],

    maximise v   such that   sum_a x_a M[a, b] >= v for every column b,   x >= 0,   sum_a x_a = 1

Where several mixtures are optimal, the program ends in a corner that depends on the solver: of two copies of one agent
it may take either. The mixture of greatest entropy is unique and gives copies equal probabilities (Balduzzi et al.
2018, "Re-evaluating Evaluation": Nash averaging). It is found by its dual: on the rows S that have a positive
probability in some optimal mixture,

    x_a = exp(sum_b l_b (M[a, b] - v)) / Z,   with l >= 0 the least of   log Z(l) = log sum_{a in S} exp(...)

Differs from the paper in that the mixture is computed from (M - M^T) / 2, so that measured payoffs need not be exactly
zero-sum.

Example:
    >>> rock_paper_scissors_rock = [[0, -1, 1, 0], [1, 0, -1, 1], [-1, 1, 0, -1], [0, -1, 1, 0]]
    >>> nash_average(rock_paper_scissors_rock).mixture.round(3).tolist()
    [0.167, 0.333, 0.333, 0.167]
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linprog, minimize

from mlbits.envs.core.errors import GameError
from mlbits.evals.game_theory.nash_conv import check_matrix

_PRECISION = 1e-9  # of the linear programs, relative to the range of payoffs
_SUPPORT = 1e-5  # the least probability, relative to 1, that counts as played
_ENTROPY_ERROR = 1e-5  # how much less than the value the mixture of greatest entropy may earn, relative to the range


@dataclass(frozen=True, eq=False)
class ZeroSumEquilibrium:
    """An equilibrium of a matrix game.

    Attributes:
        row: mixture of the seat that receives the payoffs, [A_1].
        column: mixture of the seat that pays them, [A_2].
        value: the row seat's payoff.
    """

    row: NDArray[np.float64]
    column: NDArray[np.float64]
    value: float


@dataclass(frozen=True, eq=False)
class NashAverage:
    """The Nash mixture of agents, and each agent's payoff against it.

    Attributes:
        mixture: the one of greatest entropy, [N].
        skill: mean payoff against the mixture, [N]: 0 for the agents in it, at most 0 for the others.
    """

    mixture: NDArray[np.float64]
    skill: NDArray[np.float64]


def zero_sum_equilibrium(matrix: ArrayLike, *, max_entropy: bool = False) -> ZeroSumEquilibrium:
    """Solve a matrix game.

    Args:
        matrix: payoffs [A_1, A_2] of the seat that chooses the row, which the other seat pays.
        max_entropy: whether each seat takes the optimal mixture of greatest entropy instead of any; accurate to about
            1e-6 of the payoffs' range.

    Raises:
        GameError: if the payoffs are not a matrix of finite numbers, or too badly scaled for the solver.
    """
    payoffs = check_matrix(matrix)
    low, width = float(payoffs.min()), float(np.ptp(payoffs)) or 1.0
    scaled = (payoffs - low) / width  # 0..1: the solver's tolerances are absolute
    row, value = _best_mixture(scaled)
    column, _ = _best_mixture(1 - scaled.T)
    if max_entropy:
        value = float(row @ scaled @ column)
        row = _most_even(scaled - value, row)
        column = _most_even(value - scaled.T, column)
    return ZeroSumEquilibrium(row, column, low + width * float(row @ scaled @ column))


def nash_average(matrix: ArrayLike) -> NashAverage:
    """Rate agents by a table of their results against each other (Nash averaging).

    Adding copies of an agent, or agents that only beat weak ones, does not change the ratings.

    Args:
        matrix: mean payoffs [N, N] of the row agent against the column agent; its symmetric part (the diagonal, and
            whatever in the payoffs is not zero-sum) is ignored.

    Raises:
        GameError: if the payoffs are not a square matrix of finite numbers.
    """
    payoffs = check_matrix(matrix, square=True)
    difference = (payoffs - payoffs.T) / 2
    mixture = zero_sum_equilibrium(difference, max_entropy=True).row
    return NashAverage(mixture, difference @ mixture)


def _best_mixture(payoffs: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """The linear program, for payoffs in 0..1: an optimal mixture of the rows [A_1] and its guaranteed payoff."""
    rows, columns = payoffs.shape
    found = linprog(
        np.append(np.zeros(rows), -1.0),
        A_ub=np.column_stack([-payoffs.T, np.ones(columns)]), b_ub=np.zeros(columns),
        A_eq=np.append(np.ones(rows), 0.0)[None], b_eq=[1.0],
        bounds=[(0, 1)] * rows + [(None, None)], method="highs",
        options={"primal_feasibility_tolerance": _PRECISION, "dual_feasibility_tolerance": _PRECISION},
    )  # fmt: skip
    if not found.success:
        raise GameError(f"payoffs: the linear program failed ({found.message}); wanted payoffs of similar size")
    mixture = np.clip(found.x[:rows], 0, None)
    mixture /= mixture.sum()
    return mixture, float((mixture @ payoffs).min())


def _most_even(payoffs: NDArray[np.float64], mixture: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mixture of greatest entropy among those that earn 0 or more in every column.

    Args:
        payoffs: [A_1, A_2], of value 0 and range 1.
        mixture: one that earns 0, returned where nothing better is found, [A_1].
    """
    slack = max(0.0, -float((mixture @ payoffs).min())) + _PRECISION
    played = _ever_played(payoffs + slack)
    played |= mixture > _SUPPORT
    own = payoffs[played] + slack

    def log_partition(multipliers: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        exponent = own @ multipliers
        top = float(exponent.max())
        weight = np.exp(exponent - top)
        total = float(weight.sum())
        return top + float(np.log(total)), (weight / total) @ own

    found = minimize(
        log_partition, np.zeros(payoffs.shape[1]), jac=True, method="L-BFGS-B", bounds=[(0, None)] * payoffs.shape[1],
        options={"maxiter": 5_000, "maxfun": 20_000, "ftol": 0.0, "gtol": 1e-8, "maxcor": 30},
    )  # fmt: skip
    exponent = own @ found.x
    weight = np.exp(exponent - exponent.max())
    even = np.zeros(len(payoffs))
    even[played] = weight / weight.sum()
    return even if float((even @ payoffs).min()) >= -_ENTROPY_ERROR else mixture


def _ever_played(payoffs: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows have a positive probability in some mixture that earns 0 or more in every column.

    Such mixtures, times any factor, form a cone, so that one program finds all of these rows at once: maximise the sum
    of min(1, z) over z >= 0 with z^T M >= 0.
    """
    rows, columns = payoffs.shape
    found = linprog(
        np.append(np.zeros(rows), -np.ones(rows)),
        A_ub=np.block([[-payoffs.T, np.zeros((columns, rows))], [-np.eye(rows), np.eye(rows)]]),
        b_ub=np.zeros(columns + rows), bounds=[(0, 1 / _SUPPORT)] * rows + [(0, 1)] * rows, method="highs",
        options={"primal_feasibility_tolerance": _PRECISION, "dual_feasibility_tolerance": _PRECISION},
    )  # fmt: skip
    if not found.success:
        return np.zeros(rows, bool)
    return found.x[rows:] > 0.5
