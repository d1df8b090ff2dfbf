"""The payoff matrix of a match table, with intervals, and its conversion to CSV and to a normal-form game.

A cell holds the meetings of two players: pairs of seats in one game, one held by the row player and one by the column
player. A game of two seats is one meeting; with more seats, a game is a meeting of each pair in it, and the payoff is
what the row player earns in games that the column player takes part in.

Games are independent, meetings are not: those in one game share its luck. So intervals are computed over games. With
S_g the sum of a cell's values in game g and m_g its meetings in it, the mean r = sum S_g / sum m_g has the variance

    G / (G - 1) sum_g (S_g - r m_g)^2 / (sum m_g)^2

(Cochran 1977, "Sampling Techniques", equation 2.39: a ratio of two sums over G games), and Student's t has G - 1
degrees of freedom. Where most or all games of a cell are equal, the interval is widened to at least Wilson's between
the table's smallest and greatest return: in a table with few different returns, no mean lies beyond these two.

Fractions of won meetings have Wilson's (1927) interval for the number of independent meetings that would vary as much
(Korn and Graubard 1998, "Confidence intervals for proportions with small expected number of positive counts estimated
from survey data"); in games of two seats these are the games.

Example:
    >>> from mlbits.evals.tournament.match_table import open_matches, read_matches
    >>> writer = open_matches(Path("matches.jsonl"), "mlbits/Blotto-v0", seats=2)
    >>> writer.add_players({"runs/a": "5e8f...", "random": "random"})
    >>> writer.add_games([[0, 1], [1, 0]], [[1.0, -1.0], [0.0, 0.0]])
    >>> matrix = payoff_matrix(read_matches(Path("matches.jsonl")))
    >>> write_csv(matrix, Path("payoffs.csv"))
    >>> empirical_game(matrix).tolist()
    [[0.0, 0.5], [-0.5, 0.0]]
"""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlbits.evals.tournament.match_table import MatchTable, MatchTableError
from mlbits.selfplay.runs.checkpoints import write_file
from mlbits.selfplay.statistics import bounded_interval, equal_interval, fraction_interval, repeat, student, wilson


@dataclass(frozen=True, eq=False)
class PayoffMatrix:
    """Results of the row player's meetings with the column player, each [N, N], NaN for pairs that never met.

    Attributes:
        players: names, N.
        meetings: int64.
        wins: meetings in which the row player's return was higher, int64; none with oneself.
        draws: meetings in which both had the same return, int64; none with oneself.
        payoff: mean return; with oneself, the mean of the seats.
        low: lower end of its interval, -inf if all returns in the table are equal.
        high: upper end of its interval, likewise.
        won: fraction of meetings won.
        won_low: lower end of its interval.
        won_high: upper end of its interval.
    """

    players: tuple[str, ...]
    meetings: NDArray[np.int64]
    wins: NDArray[np.int64]
    draws: NDArray[np.int64]
    payoff: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    won: NDArray[np.float64]
    won_low: NDArray[np.float64]
    won_high: NDArray[np.float64]


def payoff_matrix(table: MatchTable, *, confidence: float = 0.95) -> PayoffMatrix:
    """Compute the payoff matrix of a match table.

    Args:
        table: of N players.
        confidence: of the intervals, 0..1.
    """
    size, seats, games = len(table.players), table.seats, len(table.seating)
    cell, game, value, margin = (np.concatenate(parts) for parts in zip(*_meetings(table, size, seats), strict=True))
    meetings = np.bincount(cell, minlength=size**2)
    wins, draws = np.bincount(cell[margin > 0], minlength=size**2), np.bincount(cell[margin == 0], minlength=size**2)
    draws[np.arange(size) * (size + 1)] = 0
    payoff, low, high, won, won_low, won_high = np.full((6, size**2), np.nan)
    # One entry for each game of each cell, ordered by cell.
    keys, of = np.unique(cell * games + game, return_inverse=True)
    met, earned, taken = (np.bincount(of, weight, len(keys)).astype(np.float64) for weight in (None, value, margin > 0))
    starts = np.searchsorted(keys // max(games, 1), np.arange(size**2 + 1))
    bounds = (float(table.returns.min()), float(table.returns.max())) if games else (0.0, 0.0)
    for k in np.flatnonzero(meetings):
        part = slice(starts[k], starts[k + 1])
        payoff[k], (low[k], high[k]) = _payoff_interval(earned[part], met[part], bounds, confidence)
        won[k], (won_low[k], won_high[k]) = _won_interval(taken[part], met[part], confidence)
    if len(np.unique(table.returns)) <= games / 2 and bounds[0] < bounds[1]:
        low, high = np.clip(low, *bounds), np.clip(high, *bounds)
    square = (size, size)
    return PayoffMatrix(
        table.names,
        meetings.reshape(square), wins.reshape(square), draws.reshape(square),
        payoff.reshape(square), low.reshape(square), high.reshape(square),
        won.reshape(square), won_low.reshape(square), won_high.reshape(square),
    )  # fmt: skip


def empirical_game(matrix: PayoffMatrix) -> NDArray[np.float64]:
    """The payoffs [N, N] of the game of choosing a player: the mean returns, with a diagonal.

    A player that did not meet itself gets half the mean sum of two players' returns, which is what two copies of one
    player earn in a constant-sum game.

    Raises:
        MatchTableError: naming two players that never met.
    """
    payoffs = matrix.payoff.copy()
    own = np.eye(len(payoffs), dtype=bool)
    missing = np.isnan(payoffs)
    apart = np.argwhere(missing & ~own)
    if len(apart):
        first, second = (matrix.players[k] for k in apart[0])
        raise MatchTableError(f"matches: {first} and {second} never met; wanted games of every pair")
    payoffs[missing & own] = payoffs[~own].mean() if len(payoffs) > 1 else 0.0
    return payoffs


def write_csv(matrix: PayoffMatrix, path: Path) -> None:
    """Write a row for each pair of players that met, with the columns of :class:`PayoffMatrix`.

    Raises:
        MatchTableError: if the file cannot be written.
    """
    counts, numbers = ("meetings", "wins", "draws"), ("payoff", "low", "high", "won", "won_low", "won_high")
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["player", "opponent", "meetings", "wins", "draws", "losses", *numbers])
    for i, j in np.argwhere(matrix.meetings > 0).tolist():
        met, wins, draws = (int(getattr(matrix, name)[i, j]) for name in counts)
        losses = 0 if i == j else met - wins - draws
        values = [f"{getattr(matrix, name)[i, j]:.6g}" for name in numbers]
        rows.writerow([matrix.players[i], matrix.players[j], met, wins, draws, losses, *values])
    try:
        write_file(path, text.getvalue().encode())
    except OSError as error:
        raise MatchTableError(f"{path} cannot be written ({error}); wanted a file, as payoffs.csv") from None


def _meetings(
    table: MatchTable, size: int, seats: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]]:
    """Cells of [N, N], games, payoffs and margins of all meetings, in both directions; with oneself in one."""
    found = []
    for a in range(seats):
        for b in range(seats):
            if a == b:
                continue
            mine, other = table.seating[:, a], table.seating[:, b]
            alone = mine == other
            counts = ~alone | (a < b)
            value = np.where(alone, (table.returns[:, a] + table.returns[:, b]) / 2, table.returns[:, a])
            margin = np.where(alone, 0.0, table.returns[:, a] - table.returns[:, b])
            found.append(((mine * size + other)[counts], np.flatnonzero(counts), value[counts], margin[counts]))
    return found


def _payoff_interval(
    sums: NDArray[np.float64], met: NDArray[np.float64], bounds: tuple[float, float], confidence: float
) -> tuple[float, tuple[float, float]]:
    """The mean of a cell's meetings and its interval, from the sum and number of meetings of each game, [G]."""
    games, total = len(sums), int(met.sum())
    means = sums / met
    mean = float(sums.sum() / total)
    if games == 1 or np.ptp(means) == 0:
        return mean, equal_interval(mean, games, bounds, confidence)
    square = float(((sums - mean * met) ** 2).sum()) / total**2
    half = student(games - 1, confidence) * math.sqrt(square * games / (games - 1))
    low, high = mean - half, mean + half
    if repeat(means):
        near, far = bounded_interval(mean, square, bounds, confidence)
        low, high = min(low, near), max(high, far)
    return mean, (low, high)


def _won_interval(
    wins: NDArray[np.float64], met: NDArray[np.float64], confidence: float
) -> tuple[float, tuple[float, float]]:
    """The fraction of a cell's meetings that were won, with interval, from the wins and meetings of each game, [G]."""
    games, won, total = len(wins), int(wins.sum()), int(met.sum())
    if games == total:  # one meeting per game
        return fraction_interval(won, total, confidence)
    share = won / total
    square = float(((wins - share * met) ** 2).sum()) / total**2
    independent = float(games)  # no spread: each game counts as one meeting
    if square > 0 and games > 1:
        normal = student(math.inf, confidence)
        independent = min(share * (1 - share) / square, total) * (normal / student(games - 1, confidence)) ** 2
    return share, wilson(share, independent, confidence)
