"""Elo ratings by maximum likelihood from all games at once, for games of two players or more, with intervals.

Bradley and Terry (1952): i beats j with probability 1 / (1 + 10^((R_j - R_i) / 400)) in Elo's units. With s_ij the
points of i against j (1 a win, 1/2 a draw) and theta = R ln(10) / 400, the log-likelihood

    L(theta) = sum_{i,j} s_ij (theta_i - log(e^theta_i + e^theta_j))

is concave, and has a unique maximum up to a shift if every player has beaten every other along some chain of games
(Ford 1957). Hunter 2004, "MM algorithms for generalized Bradley-Terry models", equation 3, climbs it in many small
steps; here Newton's method takes a few, each limited so that no difference of ratings changes by more than 1 in theta.
Along such a step the curvature changes by a factor of at most e, so that the likelihood never decreases (Bach 2010,
"Self-concordant analysis for logistic regression", proposition 1).

A prior keeps ratings of players who won or lost all games finite: each player is assumed to have drawn a number of
games against a hypothetical player of rating 0. Beside a thousand games, one such game changes a rating by little.

Some players have no common scale:

- *Groups* never met, directly or through a chain of games. Each group has a zero of its own.
- *Tiers* of one group met, but all points between them went one way: players of a tier took points from each other
  along some chain, those of two tiers did not. The games do not determine how far tiers lie apart. A tier from which no
  other took a point has ratings without an upper end, one that took none from others has no lower end, and the numbers
  themselves are the prior's.

Games of several players count as the pairs of them, ranked by return, each pair weighted 1 / (n - 1), so that a game
counts as one for each player in it. In the model of Plackett (1975) and Luce (1959) for whole rankings, pairs also
follow Bradley and Terry with the same ratings, so that estimation from pairs is consistent (Azari Soufiani et al. 2013,
"Generalized method-of-moments for rank aggregation": full breaking); and unlike that model pairs allow draws, which
equal returns are. Pairs of one game are not independent, and the intervals do not assume it: see
:mod:`mlbits.evals.game_theory.elo_intervals`.

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
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components
from scipy.special import expit

from mlbits.envs.core.errors import MlbitsError
from mlbits.evals.game_theory.elo_intervals import Entries, score_intervals

ELO = 400 / math.log(10)
"""Elo points per unit of theta."""

_MAX_STEPS = 1000
_SETTLED = 1e-9  # change of theta at which Newton's method has converged


class RatingError(MlbitsError, ValueError):
    """Games from which no ratings can be computed."""


@dataclass(frozen=True, eq=False)
class Ratings:
    """Players' ratings.

    Attributes:
        players: their names, N.
        elo: [N]; NaN for a player that met no other.
        low: lower end of the interval, [N]; -inf where the games determine none.
        high: upper end of the interval, [N]; inf where the games determine none.
        games: number of games of each player, int64 [N].
        group: the number of each player's group, from 0, the largest first, int64 [N]; ratings of different groups have
            no common scale.
        tier: the number of each player's tier within its group, from 0, the highest mean rating first, int64 [N].
    """

    players: tuple[str, ...]
    elo: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    games: NDArray[np.int64]
    group: NDArray[np.int64]
    tier: NDArray[np.int64]

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """The names of each group's players."""
        return tuple(map(self._named, _members(self.group)))

    @property
    def tiers(self) -> tuple[tuple[tuple[str, ...], ...], ...]:
        """The names of each tier's players, by group."""
        return tuple(
            tuple(self._named(members[tier]) for tier in _members(self.tier[members]))
            for members in _members(self.group)
        )

    def notes(self) -> list[str]:
        """What the ratings leave open, with the players' names; empty where all of them are on one scale."""
        lines = []
        if len(self.groups) > 1:
            listed = "; ".join(", ".join(names) for names in self.groups)
            lines.append(f"no common scale: these groups never met, and each has its own Elo: {listed}")
        for tiers in self.tiers:
            if len(tiers) > 1:
                listed = "; ".join(", ".join(names) for names in tiers)
                lines.append(f"all points between these went one way, which leaves their distances open: {listed}")
        return lines

    def _named(self, numbers: NDArray[np.int64]) -> tuple[str, ...]:
        return tuple(self.players[k] for k in numbers)


def points(wins: ArrayLike, draws: ArrayLike | None = None) -> NDArray[np.float64]:
    """Points of each player against each other player from a table of results.

    Args:
        wins: [N, N], games that the row player won against the column player.
        draws: [N, N], drawn games, the same in both halves; None for none.

    Returns:
        wins + draws / 2, [N, N].

    Raises:
        RatingError: if a table is not square, counts are negative or not finite, or draws are not symmetric.
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
    """Points of each player against each other player from games of two players or more.

    Args:
        players: the player in each seat, [G, P], 0 .. N - 1. If a player has several seats, its pairs with itself do
            not count.
        returns: return of each seat, [G, P]: the higher one ranks first, equal ones draw.
        num_players: N.

    Returns:
        [N, N].

    Raises:
        RatingError: if the shapes do not fit, a player does not exist, or a return is NaN.
    """
    seating, earned = _check_games(players, returns, num_players)
    _, cells, share = _pair_entries(seating, earned, num_players)
    return np.bincount(cells, share, num_players**2).astype(float).reshape(num_players, num_players)


def elo_ratings(scores: ArrayLike, *, prior: float = 1.0, anchor: int | None = None) -> NDArray[np.float64]:
    """Maximum-likelihood ratings.

    Args:
        scores: points of the row player against the column player, [..., N, N], from :func:`points` or
            :func:`game_points`; leading axes are separate tables.
        prior: number of drawn games of each player against a player of rating 0.
        anchor: the player whose rating is 0; None makes the mean 0.

    Returns:
        Elo, [..., N].

    Raises:
        RatingError: if the shape does not fit, or there is no prior and some players, who are named, only won or only
            lost against the rest.
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
) -> Ratings:
    """Ratings from games, with score intervals.

    The zero of a group without the anchor is the mean of its largest tier, or of all its players where several tiers
    are equally large.

    Args:
        players: the player in each seat, [G, P], as indices into ``names``.
        returns: return of each seat, [G, P].
        names: names of the N players.
        anchor: the player whose rating is 0, without interval; None for none.
        prior: number of drawn games of each player against one of rating 0; 0 only works for one group of one tier.
        confidence: 0..1.

    Raises:
        RatingError: for games that do not fit, an unknown anchor, or ratings that do not exist.
    """
    size = len(names)
    if anchor is not None and anchor not in names:
        raise RatingError(f"anchor: got {anchor!r}; wanted any of {', '.join(names)}")
    if not 0 < confidence < 1:
        raise RatingError(f"confidence: got {confidence}; wanted a number between 0 and 1")
    seating, earned = _check_games(players, returns, size)
    place = None if anchor is None else list(names).index(anchor)
    kinds, counts = _game_kinds(seating, earned)
    seating, earned = seating[kinds], earned[kinds]
    rows, cells, share = _pair_entries(seating, earned, size)
    scores = np.bincount(cells, share * counts[rows], size**2).astype(float).reshape(size, size)
    elo_ratings(scores, prior=prior)  # raises if there are no ratings
    theta = _newton(scores[None], prior)[0]
    group, part = meeting_groups(scores), _components(scores, "strong")
    contrasts = np.eye(size) - _zeros(group, part, place)
    rated = np.abs(contrasts).sum(1) > 0
    elo, low, high = contrasts @ theta, np.zeros(size), np.zeros(size)
    above, below = _open_ends(scores, group, part, place)
    if rated.any():
        entries, swept = Entries(rows, cells // size, cells % size, share, counts), (above | below)[rated]
        low[rated], high[rated] = score_intervals(entries, theta, contrasts[rated], prior, confidence, swept)
    low[below], high[above] = -math.inf, math.inf
    alone = np.bincount(group)[group] == 1
    elo[alone] = low[alone] = high[alone] = math.nan
    present = np.zeros((len(counts), size), bool)
    present[np.arange(len(counts))[:, None], seating] = True
    tier = np.zeros(size, np.int64)
    for members in _members(group):
        means = {one: theta[part == one].mean() for one in part[members].tolist()}
        order = sorted(means, key=means.__getitem__, reverse=True)
        tier[members] = [order.index(one) for one in part[members].tolist()]
    return Ratings(tuple(names), elo * ELO, low * ELO, high * ELO, counts @ present, group, tier)


def _members(number: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The indices that have number 0, those that have number 1, and so on."""
    return [np.flatnonzero(number == k) for k in range(int(number.max()) + 1)]


def meeting_groups(scores: ArrayLike) -> NDArray[np.int64]:
    """The number of each player's group, [N], from 0, the largest first: players connected by a chain of games.

    Args:
        scores: points or meetings of the row player with the column player, [N, N].
    """
    table = np.asarray(scores, float)
    return _components(table + table.T, "weak")


def _components(scores: NDArray[np.float64], kind: Literal["weak", "strong"]) -> NDArray[np.int64]:
    """The number of each player's component in the graph of points between players, [N], the largest first."""
    count, of = connected_components(csr_matrix(scores > 0), connection=kind)
    first = [int((of == part).argmax()) for part in range(count)]
    order = sorted(range(count), key=lambda part: (-int((of == part).sum()), first[part]))
    return np.argsort(order)[of].astype(np.int64)


def _zeros(group: NDArray[np.int64], part: NDArray[np.int64], anchor: int | None) -> NDArray[np.float64]:
    """Weights [N, N]: row i weights the players whose weighted mean is the zero of player i's scale."""
    zero = np.zeros((len(group), len(group)))
    for members in _members(group):
        sizes = np.bincount(part[members])
        chosen = members
        if anchor is not None and anchor in members:
            chosen = np.array([anchor])
        elif (sizes == sizes.max()).sum() == 1:
            chosen = members[part[members] == sizes.argmax()]
        zero[np.ix_(members, chosen)] = 1 / len(chosen)
    return zero


def _open_ends(
    scores: NDArray[np.float64], group: NDArray[np.int64], part: NDArray[np.int64], anchor: int | None
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which players' ratings have no upper end, and which no lower end, [N] both.

    A tier has no upper end if no other took a point from it, and no lower end if it took none. With an anchor, a player
    that lost no point to the anchor along any chain has no upper end; one that took none from the anchor, no lower.
    """
    took = scores > 0
    between = took & (part[:, None] != part[None, :])
    parts = int(part.max()) + 1
    lost = np.bincount(part, between.any(0), parts)[part] > 0
    won = np.bincount(part, between.any(1), parts)[part] > 0
    above, below = won & ~lost, lost & ~won
    if anchor is not None:
        beaten, beat = np.zeros((2, len(group)), bool)
        beaten[breadth_first_order(csr_matrix(took), anchor, return_predecessors=False)] = True
        beat[breadth_first_order(csr_matrix(took.T), anchor, return_predecessors=False)] = True
        here = group == group[anchor]
        above, below = np.where(here, ~beaten, above), np.where(here, ~beat, below)
    return above, below


def _newton(tables: NDArray[np.float64], prior: float) -> NDArray[np.float64]:
    """Maximum-likelihood theta [R, N] of points [R, N, N] without diagonals."""
    size = tables.shape[-1]
    games = tables + tables.swapaxes(1, 2)
    theta, identity = np.zeros(tables.shape[:2]), np.eye(size)
    for _ in range(_MAX_STEPS):
        ahead = theta[:, :, None] - theta[:, None, :]
        wins, losses, unseen = expit(ahead), expit(-ahead), expit(theta)
        gradient = (tables * losses - tables.swapaxes(1, 2) * wins).sum(2) + prior * (0.5 - unseen)
        weight = games * wins * losses
        curvature = (weight.sum(2) + prior * unseen * (1 - unseen))[:, :, None] * identity - weight
        if prior == 0:  # theta is unique up to a shift: the first player's is fixed
            curvature[:, 0, :] = curvature[:, :, 0] = 0.0
            curvature[:, 0, 0], gradient[:, 0] = 1.0, 0.0
        step = np.linalg.solve(curvature, gradient[:, :, None])[:, :, 0]
        reach = np.maximum(step, 0).max(1) - np.minimum(step, 0).min(1)  # includes the player of rating 0, who is fixed
        theta += step / np.maximum(reach, 1.0)[:, None]
        if reach.max() <= _SETTLED:
            return theta
    raise RatingError(f"scores: ratings do not converge in {_MAX_STEPS} steps; wanted a larger prior")


def _check_connected(table: NDArray[np.float64]) -> None:
    """Refuse a table in which some players never took a point from the rest, or never lost one to it."""
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
    """Points that the seats of a game take from each other: game, cell of [N, N] and points, [E] each."""
    seats = seating.shape[1]
    gained = (np.sign(earned[:, :, None] - earned[:, None, :]) + 1) / 2 / (seats - 1)
    gained = np.where(earned[:, :, None] == earned[:, None, :], 0.5 / (seats - 1), gained)  # also for infinite returns
    cells = seating[:, :, None] * size + seating[:, None, :]
    counts = (seating[:, :, None] != seating[:, None, :]) & (gained > 0)
    return np.nonzero(counts)[0], cells[counts], gained[counts]


def _game_kinds(seating: NDArray[np.int64], earned: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """One game of each kind, and their number: games with the same players in the same order of returns."""
    ranks = (earned[:, :, None] < earned[:, None, :]).sum(2)
    order = np.lexsort((ranks, seating), axis=1)  # by player, then rank: the order of seats does not matter
    rows = np.concatenate([np.take_along_axis(seating, order, 1), np.take_along_axis(ranks, order, 1)], 1)
    _, first, counts = np.unique(rows, axis=0, return_index=True, return_counts=True)
    return first, counts
