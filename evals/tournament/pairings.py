"""Who meets whom, in which seats: all against all, and Swiss rounds, for games of two seats or more.

A *table* is P entries that sit down together. They play P games, or several times P, and move on by one seat after
each, so that all have had every seat equally often. Nothing here is left to chance but the order at tables of three or
more, and who meets first in a Swiss tournament, where nobody has a standing yet.

All against all: in games of two seats every pair is a table. With more seats the next table is always made of entries
that have met least, until every two have met often enough: pairs stay within a few tables of each other, and a schedule
of more games begins with that of fewer. With fewer entries than seats all sit at every table, some twice.

Swiss: rounds in which entries of like standing meet, in games of two seats no two of them again as long as that is
possible; with more seats the nearest are taken whom the table has met least. Whoever is left over sits out, those who
have done so least and then the lowest first. Differs from chess's rules in that standing is points a game (a win 1, a
draw 1/2), which needs no points for sitting out.

Example:
    >>> all_against_all(3, 2, games=2).tolist()
    [[0, 1], [1, 0], [0, 2], [2, 0], [1, 2], [2, 1]]
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlbits.evals.game_theory.elo import game_points

_SEARCH = 50_000  # nodes after which a Swiss round makes do with entries that met before


def games_a_table(games: int, entries: int, seats: int) -> int:
    """The least number of games, at least so many, after which entries that meet have had all seats equally often."""
    whole = seats if entries >= seats or seats % entries == 0 else seats * entries
    return math.ceil(games / whole) * whole


def all_against_all(entries: int, seats: int, games: int, seed: int = 0) -> NDArray[np.int64]:
    """The schedule of a tournament in which every entry meets every other.

    Args:
        entries: how many, N.
        seats: of the game, P.
        games: in which every two entries meet, at least; rounded up to :func:`games_a_table`.
        seed: of the order at tables of three and more.

    Returns:
        The entry in each seat of each game, int64 [G, P].
    """
    wanted = games_a_table(games, entries, seats)
    if seats == 2:
        pairs = np.array(list(itertools.combinations(range(entries), 2)), np.int64)
        return np.tile(_turned(pairs), (wanted // 2, 1))
    # Two generators, so that a longer schedule draws the same for the tables that a shorter one has.
    choosing, ordering = (np.random.default_rng([seed, part]) for part in range(2))
    if entries < seats:
        tables = [_filled(entries, seats, k) for k in range(wanted // seats)]
    else:
        tables = _least_met(entries, seats, wanted, choosing)
    return _turned(np.stack([ordering.permutation(table) for table in tables]))


def swiss_round(
    entries: int,
    seats: int,
    games: int,
    seating: NDArray[np.int64],
    returns: NDArray[np.float64],
    seed: int = 0,
) -> NDArray[np.int64]:
    """The games of the next round of a Swiss tournament.

    Args:
        entries: how many, N, at least P.
        seats: of the game, P.
        games: of each table; rounded up to a multiple of P.
        seating: the entry in each seat of the games before, [G, P].
        returns: of each seat, [G, P].
        seed: of the first round's tables, and of the order at tables of three and more.

    Returns:
        The entry in each seat of each game, int64 [G', P].
    """
    generator = np.random.default_rng([seed, len(seating)])
    met = meetings(seating, entries)
    met -= met[~np.eye(entries, dtype=bool)].min()  # once all have met, everybody is as good as new
    played = np.bincount(seating.ravel(), minlength=entries)
    points = game_points(seating, returns, entries).sum(1) if len(seating) else np.zeros(entries)
    lots = np.random.default_rng(seed).permutation(entries)
    standing = np.lexsort((lots, -points / np.maximum(played, 1))).tolist()
    if seats == 2:
        tables = _paired(standing, met, played)
    else:
        tables = _grouped(standing, met, played, seats)
    orders = np.array([generator.permutation(table) for table in tables], np.int64)
    return np.tile(_turned(orders), (math.ceil(games / seats), 1))


def meetings(seating: NDArray[np.int64], entries: int) -> NDArray[np.int64]:
    """In how many games every two entries met, [N, N], from the entry in each seat, [G, P]; zero on the diagonal."""
    present = np.zeros((len(seating), entries), np.int64)
    present[np.arange(len(seating))[:, None], seating] = 1
    met = present.T @ present
    np.fill_diagonal(met, 0)
    return met


def _turned(tables: NDArray[np.int64]) -> NDArray[np.int64]:
    """Tables [K, P], each followed by itself with everybody moved on by one seat, and so on: [K * P, P]."""
    seats = tables.shape[1]
    return np.stack([np.roll(tables, turn, 1) for turn in range(seats)], 1).reshape(-1, seats)


def _filled(entries: int, seats: int, k: int) -> list[int]:
    """Fewer entries than seats: all sit down, and the seats left over go to others at the next table."""
    return [(seat + k * (seats % entries)) % entries for seat in range(seats)]


def _least_met(entries: int, seats: int, games: int, generator: np.random.Generator) -> list[list[int]]:
    """Tables of distinct entries, ``seats`` games each, until every two have met in so many games."""
    met = np.zeros((entries, entries), np.int64)
    off_diagonal = ~np.eye(entries, dtype=bool)
    tables = []
    while met[off_diagonal].min() < games:
        order = generator.permutation(entries)  # breaks ties
        table = [int(order[met[order].sum(1).argmin()])]
        while len(table) < seats:
            rest = order[~np.isin(order, table)]
            table.append(int(rest[met[rest][:, table].sum(1).argmin()]))
        met[np.ix_(table, table)] += seats * off_diagonal[np.ix_(table, table)]
        tables.append(table)
    return tables


def _grouped(standing: Sequence[int], met: NDArray[np.int64], played: NDArray[np.int64], seats: int) -> list[list[int]]:
    """Tables of three and more by standing: the first left, and the nearest of those whom the table has met least."""
    rest, tables = list(standing), []
    for _ in range(len(standing) % seats):
        rest.remove(min(reversed(rest), key=lambda entry: -played[entry]))
    while rest:
        table = [rest.pop(0)]
        while len(table) < seats:
            table.append(rest.pop(min(range(len(rest)), key=lambda k: (int((met[rest[k]][table] > 0).sum()), k))))
        tables.append(table)
    return tables


def _paired(standing: Sequence[int], met: NDArray[np.int64], played: NDArray[np.int64]) -> list[list[int]]:
    """Pairs by standing with the fewest repeats; of an odd number one sits out."""
    rests = [tuple(standing)]
    if len(standing) % 2:
        most = [entry for entry in reversed(standing) if played[entry] == played.max()]
        rests = [tuple(entry for entry in standing if entry != out) for out in most]
    for repeats in range(len(standing) // 2 + 1):
        for rest in rests:
            if (found := _search(rest, repeats, met, set())) is not None:
                return found
    raise AssertionError("a round in which all repeat is always possible")


def _search(
    rest: tuple[int, ...], repeats: int, met: NDArray[np.int64], failed: set[tuple[tuple[int, ...], int]]
) -> list[list[int]] | None:
    """Pairs of the entries left, of which so many may have met before: the first meets the nearest that can be.

    ``failed`` holds what was tried in vain, so that nothing is tried twice.
    """
    if not rest:
        return []
    if (rest, repeats) in failed or len(failed) > _SEARCH:
        return None
    for k in range(1, len(rest)):
        left = repeats - int(met[rest[0], rest[k]] > 0)
        if left >= 0 and (found := _search(rest[1:k] + rest[k + 1 :], left, met, failed)) is not None:
            return [[rest[0], rest[k]], *found]
    failed.add((rest, repeats))
    return None
