"""Standings of a match table: payoffs with intervals, points, Elo, alpha-rank and the Nash mixture.

Everything is computed from the stored games, so that anybody can compute it again, in the same way for a tournament's
table and for one that a training run keeps of its pool.

The methods for two seats are applied to games of more seats by pairs: a game of three is three meetings of two (see
:mod:`mlbits.evals.tournament.payoff_matrix` and :mod:`mlbits.evals.game_theory.elo`). Alpha-rank (in the limit of
infinite alpha) and the Nash mixture are those of the two-player game of choosing a player, whose payoffs are the mean
returns in the matrix; they need games of every pair. Where seats differ, all measures are means over the seats.

Example:
    >>> from mlbits.evals.tournament.match_table import open_matches, read_matches
    >>> writer = open_matches(Path("matches.jsonl"), "mlbits/Blotto-v0", seats=2)
    >>> writer.add_players({"runs/a": "5e8f...", "random": "random"})
    >>> writer.add_games([[0, 1], [1, 0]], [[1.0, -1.0], [0.0, 0.0]])
    >>> found = standings(read_matches(Path("matches.jsonl")))
    >>> found.points.tolist(), found.nash.tolist()
    ([0.75, 0.25], [1.0, 0.0])
    >>> write_standings(found, Path("."))
"""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.table import Table
from rich.text import Text

from mlbits.envs.core.printing import printable
from mlbits.evals.game_theory.alpha_rank import alpha_rank_symmetric
from mlbits.evals.game_theory.elo import Ratings, game_points, rate
from mlbits.evals.game_theory.nash import nash_average
from mlbits.evals.html_tables import html_of
from mlbits.evals.tournament.match_table import MatchTable, MatchTableError
from mlbits.evals.tournament.payoff_heat_map import payoff_heat_map
from mlbits.evals.tournament.payoff_matrix import PayoffMatrix, empirical_game, payoff_matrix, write_csv
from mlbits.selfplay.runs.checkpoints import make_folder, write_file

PAYOFFS, PICTURE, TABLE, FIGURES = "payoffs.csv", "payoffs.png", "standings.csv", "standings.json"
_FORMS = {"points": ".1%", "return_mean": ".4g"}


@dataclass(frozen=True, eq=False)
class Standings:
    """Measures of the players, each [N], in the order of the table.

    Attributes:
        table: the games.
        matrix: results of each pair.
        ratings: Elo, with intervals.
        points: fraction of the points won: a win 1, a draw 1/2; with more than two seats, against each other seat.
        return_mean: mean return of the player's seats.
        alpha_rank: the player's probability in alpha-rank's stationary distribution; None unless every pair met.
        nash: the player's probability in the Nash mixture of greatest entropy; None unless every pair met.
        nash_skill: mean payoff against that mixture, at most 0; None unless every pair met.
    """

    table: MatchTable
    matrix: PayoffMatrix
    ratings: Ratings
    points: NDArray[np.float64]
    return_mean: NDArray[np.float64]
    alpha_rank: NDArray[np.float64] | None
    nash: NDArray[np.float64] | None
    nash_skill: NDArray[np.float64] | None

    @property
    def order(self) -> list[int]:
        """The players' numbers, group by group, the highest Elo first."""
        elo = np.nan_to_num(self.ratings.elo)
        return np.lexsort((-elo, self.ratings.group)).tolist()

    def rows(self) -> list[dict[str, Any]]:
        """The players by group and Elo, as plain data; unknown values and open ends are None."""
        names, known = self.table.names, {"alpha_rank": self.alpha_rank, "nash": self.nash}
        known["nash_skill"] = self.nash_skill
        rows, group = [], self.ratings.group
        for place, k in enumerate(self.order):
            rank = 1 + place - int((group < group[k]).sum())  # within the group
            figures = {
                "points": self.points, "return_mean": self.return_mean, "elo": self.ratings.elo,
                "elo_low": self.ratings.low, "elo_high": self.ratings.high,
            } | {name: values for name, values in known.items() if values is not None}  # fmt: skip
            found = {name: _plain(values[k]) for name, values in figures.items()}
            row = {"group": int(group[k]) + 1, "rank": rank, "player": names[k], "games": int(self.ratings.games[k])}
            rows.append(row | found | {name: None for name, values in known.items() if values is None})
        return rows

    def _repr_html_(self) -> str:
        return html_of(standings_table(self))

    def to_json(self) -> dict[str, Any]:
        """Everything but the matrix, as plain data."""
        table = self.table
        return {
            "env": table.env, "env_settings": table.env_settings, "seats": table.seats, "games": len(table.seating),
            "groups": [list(names) for names in self.ratings.groups],
            "tiers": [[list(names) for names in tiers] for tiers in self.ratings.tiers], "notes": self.ratings.notes(),
            "players": [row | {"hash": table.players[row["player"]]} for row in self.rows()],
        }  # fmt: skip


def standings(table: MatchTable, *, confidence: float = 0.95) -> Standings:
    """Compute the standings of a match table.

    Args:
        table: of N players.
        confidence: of the intervals, 0..1.

    Raises:
        MatchTableError: if there are no games.
    """
    if len(table.seating) == 0:
        raise MatchTableError("matches: got no games; wanted at least one")
    size = len(table.players)
    matrix = payoff_matrix(table, confidence=confidence)
    ratings = rate(table.seating, table.returns, table.names, confidence=confidence)
    scores = game_points(table.seating, table.returns, size)
    who = table.seating.ravel()
    with np.errstate(invalid="ignore"):  # of players without games
        points = scores.sum(1) / (scores + scores.T).sum(1)
        return_mean = np.bincount(who, table.returns.ravel(), size) / np.bincount(who, minlength=size)
    rank, mixture, skill = None, None, None
    if not np.isnan(matrix.payoff[~np.eye(size, dtype=bool)]).any():
        payoffs = empirical_game(matrix)
        rank, average = alpha_rank_symmetric(payoffs), nash_average(payoffs)
        mixture, skill = average.mixture, average.skill
    return Standings(table, matrix, ratings, points, return_mean, rank, mixture, skill)


def write_standings(found: Standings, folder: Path) -> None:
    """Write ``payoffs.csv``, ``payoffs.png``, ``standings.csv`` and ``standings.json``.

    Args:
        found: the standings.
        folder: the folder; made if it does not exist.

    Raises:
        MatchTableError: if a file cannot be written.
    """
    rows, text, picture = found.rows(), io.StringIO(), io.BytesIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(rows[0])
    lines.writerows([_cell(value) for value in row.values()] for row in rows)
    cells, names = np.ix_(found.order, found.order), [found.table.names[k] for k in found.order]
    ends = found.matrix.low[cells], found.matrix.high[cells]
    drawn = payoff_heat_map(
        found.matrix.payoff[cells], names, interval=ends, groups=found.ratings.group[found.order].tolist()
    )  # fmt: skip
    Image.fromarray(drawn).save(picture, "PNG")
    try:
        make_folder(folder)
        write_csv(found.matrix, folder / PAYOFFS)
        write_file(folder / PICTURE, picture.getvalue())
        write_file(folder / TABLE, text.getvalue().encode())
        write_file(folder / FIGURES, json.dumps(found.to_json(), indent=2).encode() + b"\n")
    except OSError as error:
        raise MatchTableError(f"out: {folder} cannot be written ({error}); wanted a writable folder") from None


def standings_table(found: Standings) -> Table:
    """A terminal table of the players by Elo, one section per group, with notes on what the ratings leave open."""
    table = Table(caption=Text(printable("\n".join(found.ratings.notes()), keep="\n")), caption_justify="left")
    for name, side in (
        ("", "right"), ("player", "left"), ("games", "right"), ("points", "right"), ("mean return", "right"),
        ("Elo", "right"), ("95% interval", "left"), ("alpha-rank", "right"), ("Nash", "right"),
    ):  # fmt: skip
        table.add_column(name, justify=side, overflow="fold")  # type: ignore[arg-type]
    rows = found.rows()
    for row, after in zip(rows, [*rows[1:], None], strict=True):
        shares = ("-" if row[name] is None else f"{row[name]:.3f}" for name in ("alpha_rank", "nash"))
        means = ("-" if row[name] is None else f"{row[name]:{form}}" for name, form in _FORMS.items())
        rated = row["elo"] is not None
        elo, interval = (f"{row['elo']:.0f}", _ends(row["elo_low"], row["elo_high"])) if rated else ("-", "-")
        table.add_row(
            str(row["rank"]), Text(printable(row["player"])), f"{row['games']:,}", *means, elo, interval, *shares,
            end_section=after is not None and after["group"] != row["group"],
        )  # fmt: skip
    return table


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _ends(low: float | None, high: float | None) -> str:
    """An interval whose ends may be open."""
    if low is None or high is None:
        return "open" if low is high else f"above {low:.0f}" if high is None else f"below {high:.0f}"
    return f"{low:.0f} to {high:.0f}"


def _cell(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else "" if value is None else value
