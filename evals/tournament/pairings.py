"""Pairings and seats: round robin and Swiss rounds, for games of two seats or more.

A *table* is P entries that play together. They play P games, or a multiple of P, and move on by one seat after each, so
that all have every seat equally often. Only the order at tables of three or more and the first round of a Swiss
tournament, where there are no standings yet, are random.

Round robin: in games of two seats every pair is a table. With more seats the next table always consists of entries that
have met least, until every pair has met often enough: numbers of meetings stay within a few tables of each other, and a
longer schedule begins with the shorter one. With fewer entries than seats all sit at every table, some twice.

Swiss: rounds in which entries of similar standing meet; in games of two seats no pair meets again as long as that is
possible; with more seats a table takes the nearest entries among those it has met least. Entries left over sit out:
first those who have done so least, then those of the lowest standing. Unlike chess, the standing is points per game (a
win 1, a draw 1/2), so that sitting out needs no points.

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

_SEARCH = 50_000  # nodes after which a Swiss round accepts pairs that met before


def games_a_table(games: int, entries: int, seats: int) -> int:
    """The least number of games from ``games`` on after which entries of a table have had all seats equally often."""
    whole = seats if entries >= seats or seats % entries == 0 else seats * entries
    return math.ceil(games / whole) * whole


def all_against_all(entries: int, seats: int, games: int, seed: int = 0) -> NDArray[np.int64]:
    """The schedule of a round-robin tournament.

    Args:
        entries: number of entries N.
        seats: number of seats P.
        games: games in which every pair meets, at least; rounded up to :func:`games_a_table`.
        seed: seed of the order at tables of three and more.

    Returns:
        The entry in each seat of each game, int64 [G, P].
    """
    wanted = games_a_table(games, entries, seats)
    if seats == 2:
        pairs = np.array(list(itertools.combinations(range(entries), 2)), np.int64)
        return np.tile(_rotations(pairs), (wanted // 2, 1))
    # Two generators, so that a longer schedule begins with the same tables as a shorter one.
    choosing, ordering = (np.random.default_rng([seed, part]) for part in range(2))
    if entries < seats:
        tables = [_filled(entries, seats, k) for k in range(wanted // seats)]
    else:
        tables = _least_met(entries, seats, wanted, choosing)
    return _rotations(np.stack([ordering.permutation(table) for table in tables]))


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
        entries: number of entries N, at least P.
        seats: number of seats P.
        games: games of each table; rounded up to a multiple of P.
        seating: the entry in each seat of earlier games, [G, P].
        returns: return of each seat, [G, P].
        seed: seed of the first round's tables, and of the order at tables of three and more.

    Returns:
        The entry in each seat of each game, int64 [G', P].
    """
    generator = np.random.default_rng([seed, len(seating)])
    met = meetings(seating, entries)
    met -= met[~np.eye(entries, dtype=bool)].min()  # once all pairs have met, counting starts again
    played = np.bincount(seating.ravel(), minlength=entries)
    points = game_points(seating, returns, entries).sum(1) if len(seating) else np.zeros(entries)
    lots = np.random.default_rng(seed).permutation(entries)
    standing = np.lexsort((lots, -points / np.maximum(played, 1))).tolist()
    if seats == 2:
        tables = _paired(standing, met, played)
    else:
        tables = _grouped(standing, met, played, seats)
    orders = np.array([generator.permutation(table) for table in tables], np.int64)
    return np.tile(_rotations(orders), (math.ceil(games / seats), 1))


def meetings(seating: NDArray[np.int64], entries: int) -> NDArray[np.int64]:
    """Number of games in which each pair met, [N, N], from the entry in each seat, [G, P]; zero on the diagonal."""
    present = np.zeros((len(seating), entries), np.int64)
    present[np.arange(len(seating))[:, None], seating] = 1
    met = present.T @ present
    np.fill_diagonal(met, 0)
    return met


def _rotations(tables: NDArray[np.int64]) -> NDArray[np.int64]:
    """Tables [K, P], each repeated with everybody moved on by one seat, and so on: [K * P, P]."""
    seats = tables.shape[1]
    return np.stack([np.roll(tables, turn, 1) for turn in range(seats)], 1).reshape(-1, seats)


def _filled(entries: int, seats: int, k: int) -> list[int]:
    """A table with fewer entries than seats: all sit down; the extra seats go to different entries at each table."""
    return [(seat + k * (seats % entries)) % entries for seat in range(seats)]


def _least_met(entries: int, seats: int, games: int, generator: np.random.Generator) -> list[list[int]]:
    """Tables of distinct entries, ``seats`` games each, until every pair has met in at least ``games`` games."""
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
    """Tables of three and more by standing: the first entry left, and the nearest of those the table has met least."""
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
    """Pairs by standing with the fewest repeats; if their number is odd, one entry sits out."""
    rests = [tuple(standing)]
    if len(standing) % 2:
        most = [entry for entry in reversed(standing) if played[entry] == played.max()]
        rests = [tuple(entry for entry in standing if entry != out) for out in most]
    for repeats in range(len(standing) // 2 + 1):
        for rest in rests:
            if (found := _search(rest, repeats, met, set())) is not None:
                return found
    raise AssertionError("a round in which all pairs repeat is always possible")


def _search(
    rest: tuple[int, ...], repeats: int, met: NDArray[np.int64], failed: set[tuple[tuple[int, ...], int]]
) -> list[list[int]] | None:
    """Pairs of the entries left, at most ``repeats`` of which met before; each entry gets the nearest partner possible.

    ``failed`` holds combinations known to fail, so that none is tried twice.
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
