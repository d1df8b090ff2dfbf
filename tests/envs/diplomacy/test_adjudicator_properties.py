"""Properties of the adjudicator in every position, and equal results in any batch and on the (simulated) GPU."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbits.envs.diplomacy.board import Board, load_board
from mlbits.envs.diplomacy.codes import (
    ADJUSTMENTS,
    ARMY,
    BOUNCE,
    CONVOY,
    CUT,
    DISLODGED,
    FLEET,
    MOVE,
    SEA,
    SPRING_MOVES,
    SPRING_RETREATS,
    SUPPORT,
    SUPPORT_MOVE,
    VOID,
)
from mlbits.envs.diplomacy.compiled_adjudicator import Adjudicator, resolve
from mlbits.envs.diplomacy.files.vectors import Vector, read_vectors
from mlbits.envs.diplomacy.game import diplomacy
from mlbits.envs.diplomacy.order_parser import parse_order
from mlbits.envs.diplomacy.orders import Order
from mlbits.envs.diplomacy.position import Dislodged, Position, Unit
from mlbits.envs.diplomacy.random_play import RandomGames
from mlbits.envs.diplomacy.records import board_dtype, read_orders, read_position, write_orders, write_position
from mlbits.envs.diplomacy.report import adjudicate

BOARD = load_board("standard")
VECTORS = Path(__file__).parent / "differential.jsonl.gz"
SIMULATOR = {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"}


@cache
def random_phases() -> list[tuple[Position, dict[int, Any]]]:
    """Positions of our random games in movement and retreat phases, with random legal orders."""
    games = RandomGames(diplomacy(last_year=1915), 64, seed=11)
    found = []
    for _ in range(16):
        games.play(3)
        games.draw_orders()
        found += [(read_position(r, BOARD), read_orders(r)) for r in games.states if r["phase"] < ADJUSTMENTS]
    return found


@cache
def vectors() -> list[Vector]:
    return [vector for vector in read_vectors(VECTORS, BOARD) if vector.before.phase < ADJUSTMENTS]


@cache
def phase_of_vector(i: int) -> tuple[Position, dict[int, Any]]:
    """A position of another engine's random games, with the orders that were legal."""
    before = vectors()[i].before
    fates = adjudicate(before, vectors()[i].orders).fates
    orders = [fate.order for fate in fates if fate.order is not None and not fate.fates & VOID]
    return before, {int(BOARD.province_of[order.location]): order for order in orders}


def phase_of(source: str, number: int) -> tuple[Position, dict[int, Any]]:
    if source == "vectors":
        return phase_of_vector(number % len(vectors()))
    return random_phases()[number % len(random_phases())]


any_number = st.integers(0, 10**6)
# Our own games are compiled for these tests alone.
every_source = pytest.mark.parametrize("source", ["vectors", pytest.param("random games", marks=pytest.mark.slow)])


@every_source
@given(any_number)
@settings(max_examples=150, deadline=None)
def test_what_holds_after_every_phase(source: str, number: int) -> None:
    before, orders = phase_of(source, number)
    result = resolve(before, orders)
    after = result.after
    assert all(int(BOARD.province_of[unit.location]) == p for p, unit in after.units.items())
    assert all(BOARD.can_stand(unit.kind, unit.location) for unit in after.units.values())
    count = lambda position: len(position.units) + len(position.dislodged)  # noqa: E731
    assert count(after) + len(result.destroyed) == count(before)  # no unit appears except by a build
    for p, dislodged in after.dislodged.items():
        assert p not in {int(BOARD.province_of[place]) for place in dislodged.retreats}
        bounced = [q for q, order in orders.items() if result.fates[q] & 1]
        contested = {int(BOARD.province_of[orders[q].target]) for q in bounced}
        came = dislodged.attacker
        carried = any(order.kind == CONVOY and order.other == came for order in orders.values())
        assert before.units[came].power != dislodged.unit.power
        assert int(BOARD.province_of[orders[came].target]) == p
        for place in dislodged.retreats:
            province = int(BOARD.province_of[place])
            assert province not in after.units
            assert province not in contested
            assert province != came or carried


@every_source
@given(any_number, st.permutations(range(7)), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_names_and_the_order_of_orders_do_not_matter(source: str, number: int, names: list[int], random: Any) -> None:
    before, orders = phase_of(source, number)
    keys = list(orders)
    random.shuffle(keys)
    shuffled = {key: orders[key] for key in keys}
    plain = resolve(before, orders)
    assert resolve(before, shuffled).after == plain.after

    def renamed(unit: Unit) -> Unit:
        return unit._replace(power=names[unit.power])

    def by_others(position: Position) -> Position:
        return Position(
            BOARD, position.year, position.phase,
            {p: renamed(unit) for p, unit in position.units.items()},
            {p: Dislodged(renamed(d.unit), d.attacker, d.retreats) for p, d in position.dislodged.items()},
            {p: names[owner] for p, owner in position.centers.items()},
        )  # fmt: skip

    got, wanted = resolve(by_others(before), orders), by_others(plain.after)
    assert (dict(got.after.units), dict(got.after.dislodged)) == (dict(wanted.units), dict(wanted.dislodged))
    assert dict(got.after.centers) == dict(wanted.centers)
    assert got.destroyed == tuple(map(renamed, plain.destroyed))
    assert got.fates == plain.fates
    # Home centres decide on builds, so with renamed powers a year may have a winter that it otherwise has not.
    spring = before.phase in (SPRING_MOVES, SPRING_RETREATS)
    assert got.after.phase == plain.after.phase or (not spring and got.after.phase in (SPRING_MOVES, ADJUSTMENTS))


@cache
def other_board() -> tuple[Board, list[int], list[int]]:
    """The same map with other names, in another order; and the new index of each location and province."""
    source = json.loads(json.dumps(dict(BOARD.source)))
    ids = [province.id for province in BOARD.provinces]
    new_names = ids[37:] + ids[:37]
    text = json.dumps(source | {"coordinates": None, "coast_names": {}})
    renamed = dict(zip(ids, new_names, strict=True))
    form = json.loads(re.sub(rf"\b({'|'.join(ids)})\b", lambda match: renamed[match[1]], text))
    del form["coordinates"], form["coast_names"]
    np.random.default_rng(5).shuffle(form["provinces"])
    board = load_board(form)
    places = [board.location_index["/".join([renamed[name[:3]], *name.split("/")[1:]])] for name in BOARD.locations]
    return board, places, places[: len(ids)]


@every_source
@given(any_number)
@settings(max_examples=100, deadline=None)
def test_names_and_numbers_of_provinces_do_not_matter(source: str, number: int) -> None:
    before, orders = phase_of(source, number)
    board, places, provinces = other_board()
    assert sum(new != old for old, new in enumerate(provinces)) > 60

    def moved(unit: Unit) -> Unit:
        return unit._replace(location=places[unit.location])

    def elsewhere(position: Position) -> Position:
        def renamed(d: Dislodged) -> Dislodged:
            attacker = provinces[d.attacker] if d.attacker >= 0 else -1
            return Dislodged(moved(d.unit), attacker, tuple(sorted(places[place] for place in d.retreats)))

        return Position(
            board, position.year, position.phase,
            {provinces[p]: moved(unit) for p, unit in position.units.items()},
            {provinces[p]: renamed(d) for p, d in position.dislodged.items()},
            {provinces[p]: owner for p, owner in position.centers.items()},
        )  # fmt: skip

    there = {
        provinces[p]: order._replace(
            location=places[order.location],
            other=provinces[order.other] if order.other >= 0 else -1,
            target=places[order.target] if order.target >= 0 else -1,
        )
        for p, order in orders.items()
    }
    plain, got = resolve(before, orders), resolve(elsewhere(before), there)
    wanted = elsewhere(plain.after)
    after = got.after.dislodged
    sort = {p: d._replace(retreats=tuple(sorted(d.retreats))) for p, d in after.items()}
    assert (got.after.year, got.after.phase) == (wanted.year, wanted.phase)
    assert (dict(got.after.units), sort, dict(got.after.centers)) == (
        dict(wanted.units), dict(wanted.dislodged), dict(wanted.centers)
    )  # fmt: skip
    assert got.fates == {provinces[p]: bits for p, bits in plain.fates.items()}
    assert set(got.destroyed) == set(map(moved, plain.destroyed))


def records(count: int) -> np.ndarray[Any, Any]:
    states = np.zeros(count, board_dtype(BOARD))
    for i, record in enumerate(states):
        position, orders = phase_of("vectors", 7 * i)
        write_position(position, record)
        write_orders(orders, record)
    return states


RESULTS = ("year", "phase", "owner", "unit_kind", "unit_power", "unit_place", "out_kind", "out_open", "fate")


def test_results_do_not_depend_on_the_batch_size() -> None:
    states = records(96)
    many = Adjudicator(states, BOARD)
    many.run()
    together = many.states()
    for i in range(0, 96, 7):
        one = Adjudicator(states[i : i + 1], BOARD)
        one.run()
        one.run()  # from the initial records again
        for name in RESULTS:
            assert np.array_equal(one.states()[0][name], together[i][name]), (i, name)


@pytest.mark.slow
def test_the_simulated_gpu_gives_the_same_results(tmp_path: Path) -> None:
    """One thread per position, in Numba's CUDA simulator."""
    states = records(12)
    adjudicator = Adjudicator(states, BOARD)
    adjudicator.run()
    np.save(tmp_path / "states.npy", states)
    script = f"""
import numpy as np
from mlbits.envs.diplomacy.board import load_board
from mlbits.envs.diplomacy.compiled_adjudicator import Adjudicator
states = np.load({str(tmp_path / "states.npy")!r})
adjudicator = Adjudicator(states, load_board("standard"), device="cuda")
adjudicator.run()
np.save({str(tmp_path / "done.npy")!r}, adjudicator.states())
"""
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, **SIMULATOR}, timeout=300)
    done = np.load(tmp_path / "done.npy")
    for name in RESULTS:
        assert np.array_equal(done[name], adjudicator.states()[name]), name


def test_a_circular_movement_succeeds() -> None:
    board = BOARD
    texts = {"TURKEY": ["F ANK - CON", "A CON - SMY", "A SMY - ANK"]}
    units = {"F ANK", "A CON", "A SMY"}
    form = {"phase": "S1901M", "units": {"TURKEY": sorted(units)}, "centers": {}}
    position = Position.from_json(form, board)
    orders = [parse_order(text, board, position) for text in texts["TURKEY"]]
    result = resolve(position, {int(board.province_of[order.location]): order for order in orders})
    assert result.after.to_json()["units"] == {"TURKEY": ["A ANK", "A SMY", "F CON"]}


RING = (
    "BRE PIC BEL HOL KIE DEN SWE FIN STP LVN MOS UKR SEV ARM SMY ANK CON BUL GRE ALB TRI VEN APU NAP ROM TUS PIE MAR "
    "SPA GAS"
).split()


def test_thirty_units_that_support_each_other_in_a_cycle() -> None:
    """Each supports the hold of the next, which it does unless it is attacked; fleets attack, alone or with support.

    An attacked unit holds with 2, or with 1 if the unit before it in the cycle is attacked as well; a fleet attacks
    with 1 and one more for each fleet that supports it. Counting decides everything.
    """
    ring = [BOARD.location_index[name] for name in RING]
    seas = [p for p, province in enumerate(BOARD.provinces) if province.type == SEA]
    units = {p: Unit(0, ARMY, p) for p in ring} | {p: Unit(1, FLEET, p) for p in seas}
    helper = dict(zip(ring, ring[-1:] + ring[:-1], strict=True))
    rng, total = np.random.default_rng(1), 0
    for _ in range(20):
        orders = {p: Order(SUPPORT, ARMY, p, other) for p, other in zip(ring, ring[1:] + ring[:1], strict=True)}
        goals: dict[int, int] = {}
        strength: dict[int, int] = {}
        for p in rng.permutation(seas).tolist():
            near = {int(BOARD.province_of[place]): place for place in BOARD.fleet_neighbours[p]}
            coasts = [q for q in near if q in ring and len(BOARD.coasts_of[q]) < 2]
            helped = [q for q, goal in goals.items() if goal in near]
            if helped and rng.random() < 0.7:
                q = int(rng.choice(helped))
                orders[p], strength[q] = Order(SUPPORT_MOVE, FLEET, p, q, goals[q]), strength[q] + 1
            elif coasts:
                q = int(rng.choice(coasts))
                orders[p], goals[p], strength[p] = Order(MOVE, FLEET, p, -1, near[q]), q, 1
        attacked = set(goals.values())
        beaten = {}
        for q in attacked:
            best = max(strength[p] for p, goal in goals.items() if goal == q)
            winners = [p for p, goal in goals.items() if goal == q and strength[p] == best]
            if len(winners) == 1 and best > (1 if helper[q] in attacked else 2):
                beaten[q] = winners[0]
        assert len(attacked) > 5
        result = resolve(Position(BOARD, 1901, SPRING_MOVES, units), orders)
        out, lost = result.after.dislodged, {int(BOARD.province_of[unit.location]) for unit in result.destroyed}
        assert {p: d.attacker for p, d in out.items()} | {p: beaten[p] for p in lost} == beaten
        wanted = dict.fromkeys(units, 0)
        wanted |= {p: (CUT if p in attacked else 0) | (DISLODGED if p in beaten else 0) for p in ring}
        wanted |= {p: 0 if p in beaten.values() else BOUNCE for p in goals}
        assert result.fates == wanted
        total += len(beaten)
    assert total >= 20


def test_a_full_board_of_moves_terminates() -> None:
    """A unit in every province without named coasts, each moving to its first neighbour; none appears or vanishes."""
    units, orders = {}, {}
    for p, province in enumerate(BOARD.provinces):
        if province.type == 1:
            units[p] = Unit(p % 7, 2, p)
        elif not province.coasts:
            units[p] = Unit(p % 7, 1, p)
    position = Position(BOARD, 1901, SPRING_MOVES, units)
    for p, unit in units.items():
        targets = list(BOARD.neighbours(unit.kind, unit.location))
        if targets:
            name = f"{'A' if unit.kind == 1 else 'F'} {BOARD.locations[unit.location]} - {BOARD.locations[targets[0]]}"
            orders[p] = parse_order(name, BOARD, position)
    result = resolve(position, orders)
    assert len(orders) > 60
    assert len(result.after.units) + len(result.after.dislodged) + len(result.destroyed) == len(units)
    moved = {p for p, bits in result.fates.items() if bits == 0}
    assert {int(BOARD.province_of[orders[p].target]) for p in moved if p in orders} <= set(result.after.units)
    for p in moved & orders.keys():  # units that moved are there, and units that were there have left or are dislodged
        q = int(BOARD.province_of[orders[p].target])
        assert result.after.units[q] == units[p]._replace(location=orders[p].target)
        assert q not in units or q in moved or result.fates[q] & DISLODGED
    assert moved


@pytest.mark.parametrize("rules", ["datc-2.4", "datc-3.0"])
def test_civil_disorder_takes_the_farthest_unit(rules: str) -> None:
    """The unit farthest from home goes (2.4), or from an owned centre (3.0): the army in SYR, the fleet in POR."""
    form = {
        "phase": "W1905A",
        "units": {"ENGLAND": ["F POR", "A SYR"]},
        "centers": {"ENGLAND": ["SMY"]},
    }
    result = resolve(Position.from_json(form, BOARD), {}, rules)
    left = {"datc-2.4": ["F POR"], "datc-3.0": ["A SYR"]}[rules]
    assert result.after.to_json()["units"] == {"ENGLAND": left}
