"""Elo ratings by maximum likelihood from all games at once, of two players or more, with bootstrap intervals.

Bradley and Terry (1952): i beats j with probability 1 / (1 + 10^((R_j - R_i) / 400)) in Elo's units. With s_ij the
points of i against j (1 a win, 1/2 a draw) and theta = R ln(10) / 400, the log-likelihood

    L(theta) = sum_{i,j} s_ij (theta_i - log(e^theta_i + e^theta_j))

is concave, and has one maximum up to a shift if every player has beaten every other along some chain of games (Ford
1957). Hunter 2004, "MM algorithms for generalized Bradley-Terry models", equation 3, climbs it in many small steps;
here it is Newton's in a few, cut so that no difference of ratings changes by more than 1 in theta. Along such a step
the curvature changes by a factor e at most, so that none leads down (Bach 2010, "Self-concordant analysis for logistic
regression", proposition 1).

A prior keeps those who won or lost all from infinity: each is taken to have drawn so many games against a player of
rating 0 that nobody sees. Beside a thousand games, one such game moves a rating by little.

Games of several players count as the pairs of them, ranked by return, each pair 1 / (n - 1), so that a game counts as
one for each player in it. In the model of Plackett (1975) and Luce (1959) for whole rankings, too, pairs follow Bradley
and Terry with the same ratings, so that the pairs find them (Azari Soufiani et al. 2013, "Generalized method-of-moments
for rank aggregation": full breaking is consistent); and unlike it they know draws, which shared returns are. Pairs of
one game are not independent. The intervals do not take them for it: whole games are drawn anew.

Differs from OpenSpiel's Elo, which is Hunter's, in method, prior and anchor; without prior the numbers are the same.

Example:
    >>> wins = [[0, 10], [1, 0]]  # ten to one is a difference of 400
    >>> elo_ratings(points(wins), prior=0, anchor=1).round(6).tolist()
    [400.0, 0.0]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.special import expit

from mlbits.envs.core.errors import MlbitsError

ELO = 400 / math.log(10)
"""Elo points for one unit of theta."""

_MAX_STEPS = 1000
_SETTLED = 1e-9  # change of theta
_BLOCK = 2_000_000  # numbers of a block of resamples


class RatingError(MlbitsError, ValueError):
    """Games that give no ratings."""


@dataclass(frozen=True, eq=False)
class Ratings:
    """Players' ratings.

    Attributes:
        players: their names, N.
        elo: [N].
        low: lower end of the interval, [N].
        high: upper end of the interval, [N].
        games: that each played, int64 [N].
    """

    players: tuple[str, ...]
    elo: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    games: NDArray[np.int64]


def points(wins: ArrayLike, draws: ArrayLike | None = None) -> NDArray[np.float64]:
    """Points of each player against each other from a table of results.

    Args:
        wins: [N, N], games that the row's player won against the column's; its losses stand in the other half.
        draws: [N, N], drawn games, the same in both halves; None for none.

    Returns:
        wins + draws / 2, [N, N].

    Raises:
        RatingError: if a table is not square, or counts are negative, not finite, or drawn by one player alone.
    """
    won = np.asarray(wins, float)
    drawn = np.zeros_like(won) if draws is None else np.asarray(draws, float)
    if won.ndim != 2 or won.shape[0] != won.shape[1] or won.shape[0] == 0 or drawn.shape != won.shape:
        raise RatingError(f"wins, draws: got shapes {won.shape}, {drawn.shape}; wanted two squares of one size")
    for name, table in (("wins", won), ("draws", drawn)):
        if not (np.isfinite(table).all() and (table >= 0).all()):
            raise RatingError(f"{name}: got numbers that are negative or not finite; wanted counts")
        if np.diagonal(table).any():
            raise RatingError(f"{name}: got games of player {int(np.diagonal(table).argmax())} against itself")
    if not np.array_equal(drawn, drawn.T):
        raise RatingError("draws: got a table that is not symmetric; wanted each drawn game in both halves")
    return won + drawn / 2


def game_points(players: ArrayLike, returns: ArrayLike, num_players: int) -> NDArray[np.float64]:
    """Points of each player against each other from games of two players or more.

    Args:
        players: who sat where, [G, P], 0 .. N - 1. A player may have several seats, whose pairs with each other do not
            count.
        returns: of each seat, [G, P]: the higher ranks before the lower, equal ones draw.
        num_players: N.

    Returns:
        [N, N].

    Raises:
        RatingError: if the shapes do not fit, a player does not exist, or a return is not a number.
    """
    seating, earned = _check_games(players, returns, num_players)
    _, cells, share = _pair_entries(seating, earned, num_players)
    return np.bincount(cells, share, num_players**2).astype(float).reshape(num_players, num_players)


def elo_ratings(scores: ArrayLike, *, prior: float = 1.0, anchor: int | None = None) -> NDArray[np.float64]:
    """Ratings of greatest likelihood.

    Args:
        scores: points of the row's player against the column's, [..., N, N], from :func:`points` or
            :func:`game_points`; leading axes are separate tables.
        prior: drawn games of each player against one of rating 0.
        anchor: the player whose rating is 0; None makes the mean 0.

    Returns:
        Elo, [..., N].

    Raises:
        RatingError: if the shape does not fit, or there is no prior and players have nothing but wins or losses
            against the rest, naming them.
    """
    tables = np.asarray(scores, float)
    if tables.ndim < 2 or tables.shape[-1] != tables.shape[-2] or tables.size == 0:
        raise RatingError(f"scores: got shape {tables.shape}; wanted [N, N]")
    size = tables.shape[-1]
    if not prior >= 0 or math.isinf(prior):
        raise RatingError(f"prior: got {prior}; wanted a number of games from 0")
    if anchor is not None and not 0 <= anchor < size:
        raise RatingError(f"anchor: got {anchor}; wanted a player from 0 to {size - 1}")
    if not (np.isfinite(tables).all() and (tables >= 0).all()):
        raise RatingError("scores: got numbers that are negative or not finite; wanted points")
    flat = tables.reshape(-1, size, size) * (1 - np.eye(size))
    if prior == 0:
        for table in flat:
            _check_connected(table)
    theta = _newton(flat, prior)
    centre = theta.mean(1, keepdims=True) if anchor is None else theta[:, anchor, None]
    return ((theta - centre) * ELO).reshape(tables.shape[:-1])


def rate(
    players: ArrayLike,
    returns: ArrayLike,
    names: Sequence[str],
    *,
    anchor: str | None = None,
    prior: float = 1.0,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Ratings:
    """Ratings from games, with percentile intervals of a bootstrap that draws whole games anew.

    Args:
        players: who sat where, [G, P], places in ``names``.
        returns: of each seat, [G, P].
        names: of the N players.
        anchor: the player whose rating is 0, without interval; None makes the mean 0.
        prior: drawn games of each player against one of rating 0. Resamples need one: without, some may have players
            that only win.
        confidence: 0..1.
        resamples: how many.
        seed: of the draws; the intervals are a function of it and the games.

    Raises:
        RatingError: for games that do not fit, an unknown anchor, or ratings that do not exist.
    """
    size = len(names)
    if anchor is not None and anchor not in names:
        raise RatingError(f"anchor: got {anchor!r}; wanted any of {', '.join(names)}")
    if not 0 < confidence < 1 or resamples < 1:
        raise RatingError(f"confidence, resamples: got {confidence}, {resamples}; wanted 0..1, and at least 1")
    seating, earned = _check_games(players, returns, size)
    place = None if anchor is None else list(names).index(anchor)
    kinds, counts = _alike(seating, earned)
    seating, earned = seating[kinds], earned[kinds]
    rows, cells, share = _pair_entries(seating, earned, size)
    table = csr_matrix((share, (cells, rows)), shape=(size**2, len(counts)))
    elo = elo_ratings((table @ counts).reshape(size, size), prior=prior, anchor=place)
    generator, drawn = np.random.default_rng(seed), list[NDArray[np.float64]]()
    block = max(1, _BLOCK // max(len(counts), size**2))
    for start in range(0, resamples, block):
        again = generator.multinomial(counts.sum(), counts / counts.sum(), min(block, resamples - start))
        scores = (table @ again.T).T.reshape(-1, size, size)
        drawn.append(elo_ratings(scores, prior=prior, anchor=place))
    low, high = np.quantile(np.concatenate(drawn), [0.5 - confidence / 2, 0.5 + confidence / 2], axis=0)
    present = np.zeros((len(counts), size), bool)
    present[np.arange(len(counts))[:, None], seating] = True
    return Ratings(tuple(names), elo, low, high, counts @ present)


def _newton(tables: NDArray[np.float64], prior: float) -> NDArray[np.float64]:
    """Theta [R, N] of greatest likelihood of points [R, N, N] without diagonals."""
    size = tables.shape[-1]
    games = tables + tables.swapaxes(1, 2)
    theta, identity = np.zeros(tables.shape[:2]), np.eye(size)
    for _ in range(_MAX_STEPS):
        ahead = theta[:, :, None] - theta[:, None, :]
        wins, losses, unseen = expit(ahead), expit(-ahead), expit(theta)
        slope = (tables * losses - tables.swapaxes(1, 2) * wins).sum(2) + prior * (0.5 - unseen)
        weight = games * wins * losses
        curvature = (weight.sum(2) + prior * unseen * (1 - unseen))[:, :, None] * identity - weight
        if prior == 0:  # all may shift: the first stays
            curvature[:, 0, :] = curvature[:, :, 0] = 0.0
            curvature[:, 0, 0], slope[:, 0] = 1.0, 0.0
        step = np.linalg.solve(curvature, slope[:, :, None])[:, :, 0]
        reach = np.maximum(step, 0).max(1) - np.minimum(step, 0).min(1)  # the unseen player is one of them, at rest
        theta += step / np.maximum(reach, 1.0)[:, None]
        if reach.max() <= _SETTLED:
            return theta
    raise RatingError(f"scores: got games whose ratings do not settle in {_MAX_STEPS} steps; wanted a larger prior")


def _check_connected(table: NDArray[np.float64]) -> None:
    """Refuse a table in which some players never took a point from, or never lost one to, the rest."""
    parts, of = connected_components(csr_matrix(table > 0), connection="strong")
    if parts > 1:
        groups = "; ".join(map(str, sorted(np.flatnonzero(of == part).tolist() for part in range(parts))))
        raise RatingError(
            f"scores: players won or lost all games against the rest, or never met them (groups {groups}); wanted a "
            "prior above 0"
        )


def _check_games(
    players: ArrayLike, returns: ArrayLike, num_players: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    seating, earned = np.asarray(players), np.asarray(returns, float)
    if seating.ndim != 2 or seating.shape != earned.shape or seating.shape[1] < 2 or len(seating) == 0:
        raise RatingError(f"players, returns: got shapes {seating.shape}, {earned.shape}; wanted twice [G, P], P >= 2")
    if not np.issubdtype(seating.dtype, np.integer) or seating.min() < 0 or seating.max() >= num_players:
        raise RatingError(f"players: got {seating.min()} .. {seating.max()}; wanted whole numbers below {num_players}")
    if np.isnan(earned).any():
        raise RatingError(f"returns: got NaN in game {int(np.isnan(earned).any(1).argmax())}; wanted numbers")
    return seating.astype(np.int64), earned


def _pair_entries(
    seating: NDArray[np.int64], earned: NDArray[np.float64], size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Points that seats of a game take from each other: the game, the cell of [N, N] and the points, [E] each."""
    seats = seating.shape[1]
    gained = (np.sign(earned[:, :, None] - earned[:, None, :]) + 1) / 2 / (seats - 1)
    gained = np.where(earned[:, :, None] == earned[:, None, :], 0.5 / (seats - 1), gained)  # infinite returns, too
    cells = seating[:, :, None] * size + seating[:, None, :]
    counts = (seating[:, :, None] != seating[:, None, :]) & (gained > 0)
    return np.nonzero(counts)[0], cells[counts], gained[counts]


def _alike(seating: NDArray[np.int64], earned: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """One game of each kind, and how many there are: the same players in the same order of returns."""
    ranks = (earned[:, :, None] < earned[:, None, :]).sum(2)
    order = np.lexsort((ranks, seating), axis=1)  # by player, then rank: seats do not matter
    rows = np.concatenate([np.take_along_axis(seating, order, 1), np.take_along_axis(ranks, order, 1)], 1)
    _, first, counts = np.unique(rows, axis=0, return_index=True, return_counts=True)
    return first, counts
