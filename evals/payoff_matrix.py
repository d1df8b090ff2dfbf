"""The payoff matrix of agents that met each other, with intervals: from a match table to CSV and games.

A cell holds the meetings of two players: pairs of seats in one game, one held by the row's player and one by the
column's. In games of two seats that is one a game; with more, a game is a meeting for each pair in it, and the payoff
is what the row's player earns where the column's sits at the same table.

Intervals of mean returns are percentiles of a bootstrap over a cell's meetings; those of shares of won games are
Wilson's (1927), see :func:`mlbits.selfplay.statistics.share_interval`.

Example:
    matrix = payoff_matrix(read_matches(Path("matches.jsonl")))
    write_csv(matrix, Path("payoffs.csv"))
    nash_average(empirical_game(matrix)).mixture
"""

from __future__ import annotations

import csv
import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlbits.evals.match_table import MatchTable, MatchTableError
from mlbits.selfplay.statistics import share_interval

_FEW_VALUES = 64  # different returns up to which a resample is drawn as counts


@dataclass(frozen=True, eq=False)
class PayoffMatrix:
    """What the row's player made of its meetings with the column's; all [N, N], NaN where the two never met.

    Attributes:
        players: names, N.
        meetings: int64.
        wins: meetings in which the row's return was the higher, int64; none with oneself.
        draws: meetings in which both had the same return, int64; none with oneself.
        payoff: mean return; with oneself, the mean of the seats.
        low: lower end of its interval.
        high: upper end of its interval.
        won: share of meetings won.
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


def payoff_matrix(table: MatchTable, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0) -> PayoffMatrix:
    """Gather the games of a match table.

    Args:
        table: of N players.
        confidence: of the intervals, 0..1.
        resamples: of the bootstrap.
        seed: of its draws; the intervals are a function of it and the games.
    """
    size, seats = len(table.players), table.seats
    generator = np.random.default_rng(seed)
    cell, value, margin = (np.concatenate(parts) for parts in zip(*_meetings(table, size, seats), strict=True))
    order = np.argsort(cell, kind="stable")
    value = value[order]
    meetings = np.bincount(cell, minlength=size**2)
    wins, draws = np.bincount(cell[margin > 0], minlength=size**2), np.bincount(cell[margin == 0], minlength=size**2)
    draws[np.arange(size) * (size + 1)] = 0
    payoff, low, high, won, won_low, won_high = np.full((6, size**2), np.nan)
    ends = np.cumsum(meetings)
    for k in np.flatnonzero(meetings):
        of = value[ends[k] - meetings[k] : ends[k]]
        payoff[k] = of.mean()
        low[k], high[k] = _bootstrap_mean(of, confidence, resamples, generator)
        won[k], (won_low[k], won_high[k]) = share_interval(int(wins[k]), int(meetings[k]), confidence)
    square = (size, size)
    return PayoffMatrix(
        table.names,
        meetings.reshape(square), wins.reshape(square), draws.reshape(square),
        payoff.reshape(square), low.reshape(square), high.reshape(square),
        won.reshape(square), won_low.reshape(square), won_high.reshape(square),
    )  # fmt: skip


def empirical_game(matrix: PayoffMatrix) -> NDArray[np.float64]:
    """The payoffs [N, N] of the game of choosing a player: the mean returns, with a diagonal.

    Players that did not meet themselves get half the mean sum of two players' returns, as copies of each other would
    in a game of constant sum.

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
    """Write a row for each two players that met, with the columns of :class:`PayoffMatrix`.

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
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text.getvalue(), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise MatchTableError(f"{path} cannot be written ({error}); wanted a file, as payoffs.csv") from None
    finally:
        temporary.unlink(missing_ok=True)


def _meetings(
    table: MatchTable, size: int, seats: int
) -> list[tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]]:
    """Cells of [N, N], payoffs and margins of the meetings, for each two seats both ways; with oneself one way."""
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
            found.append(((mine * size + other)[counts], value[counts], margin[counts]))
    return found


def _bootstrap_mean(
    values: NDArray[np.float64], confidence: float, resamples: int, generator: np.random.Generator
) -> tuple[float, float]:
    """Percentile interval of the mean of values [K]."""
    distinct, counts = np.unique(values, return_counts=True)
    total = len(values)
    if len(distinct) <= _FEW_VALUES:
        means = generator.multinomial(total, counts / total, resamples) @ distinct / total
    else:
        block = max(1, 4_000_000 // total)
        sizes = [min(block, resamples - start) for start in range(0, resamples, block)]
        means = np.concatenate([values[generator.integers(total, size=(n, total))].mean(1) for n in sizes])
    low, high = np.quantile(means, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)
