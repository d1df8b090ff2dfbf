"""Properties of the adjudicator that hold in every position, and the same answer in any batch and on the GPU's side."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbits.envs.diplomacy.board import load_board
from mlbits.envs.diplomacy.codes import FALL_MOVES, SPRING_MOVES
from mlbits.envs.diplomacy.engine import Adjudicator, resolve
from mlbits.envs.diplomacy.game import diplomacy
from mlbits.envs.diplomacy.notation import parse_order
from mlbits.envs.diplomacy.position import Dislodged, Position, Unit
from mlbits.envs.diplomacy.random_play import RandomGames
from mlbits.envs.diplomacy.records import board_dtype, read_orders, read_position, write_orders, write_position

BOARD = load_board("standard")
SIMULATOR = {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"}


@cache
def phases() -> list[tuple[Position, dict[int, Any]]]:
    """Positions of random games in movement and retreat phases, with random legal orders."""
    games = RandomGames(diplomacy(last_year=1915), 64, seed=11)
    found = []
    for _ in range(16):
        games.play(3)
        games.draw_orders()
        found += [(read_position(r, BOARD), read_orders(r)) for r in games.states if r["phase"] < 4]
    return found


any_phase = st.integers(0, 10**6).map(lambda i: phases()[i % len(phases())])


@given(any_phase)
@settings(max_examples=150, deadline=None)
def test_what_holds_after_every_phase(phase: tuple[Position, dict[int, Any]]) -> None:
    before, orders = phase
    result = resolve(before, orders)
    after = result.after
    assert all(int(BOARD.province_of[unit.location]) == p for p, unit in after.units.items())
    assert all(BOARD.can_stand(unit.kind, unit.location) for unit in after.units.values())
    count = lambda position: len(position.units) + len(position.dislodged)  # noqa: E731
    assert count(after) + len(result.destroyed) == count(before)  # nothing is born outside builds
    for p, dislodged in after.dislodged.items():
        assert p not in {int(BOARD.province_of[place]) for place in dislodged.retreats}
        bounced = [q for q, order in orders.items() if result.fates[q] & 1]
        contested = {int(BOARD.province_of[orders[q].target]) for q in bounced}
        convoyed = dislodged.attacker not in BOARD.army_neighbours[p] or orders[dislodged.attacker].via
        for place in dislodged.retreats:
            province = int(BOARD.province_of[place])
            assert province not in after.units
            assert province not in contested
            assert province != dislodged.attacker or convoyed or before.units[dislodged.attacker].kind == 1


@given(any_phase, st.permutations(range(7)), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_names_and_the_order_of_orders_do_not_matter(
    phase: tuple[Position, dict[int, Any]], names: list[int], random: Any
) -> None:
    before, orders = phase
    keys = list(orders)
    random.shuffle(keys)
    shuffled = {key: orders[key] for key in keys}
    plain = resolve(before, orders)
    assert resolve(before, shuffled).after == plain.after

    def renamed(unit: Unit) -> Unit:
        return unit._replace(power=names[unit.power])

    other = Position(
        BOARD, before.year, before.phase,
        {p: renamed(unit) for p, unit in before.units.items()},
        {p: Dislodged(renamed(d.unit), d.attacker, d.retreats) for p, d in before.dislodged.items()},
        {p: names[owner] for p, owner in before.centers.items()},
    )  # fmt: skip
    got = resolve(other, orders)
    if plain.after.phase == 4 or got.after.phase == 4 or plain.after.year != before.year:
        return  # whose homes are whose decides on builds, which the names do change
    assert {p: renamed(unit) for p, unit in plain.after.units.items()} == dict(got.after.units)
    assert plain.fates == got.fates


def records(count: int) -> np.ndarray[Any, Any]:
    states = np.zeros(count, board_dtype(BOARD))
    for record, (position, orders) in zip(states, phases() * count, strict=False):
        write_position(position, record)
        write_orders(orders, record)
    return states


RESULTS = ("year", "phase", "owner", "unit_kind", "unit_power", "unit_place", "out_kind", "out_open", "fate")


def test_a_batch_of_any_size_gives_the_same() -> None:
    states = records(96)
    many = Adjudicator(states, BOARD)
    many.run()
    together = many.states()
    for i in range(0, 96, 7):
        one = Adjudicator(states[i : i + 1], BOARD)
        one.run()
        one.run()  # from the first records again
        for name in RESULTS:
            assert np.array_equal(one.states()[0][name], together[i][name]), (i, name)


def test_the_gpu_side_gives_the_same(tmp_path: Path) -> None:
    """One thread a position, in Numba's CUDA simulator."""
    states = records(12)
    adjudicator = Adjudicator(states, BOARD)
    adjudicator.run()
    np.save(tmp_path / "states.npy", states)
    script = f"""
import numpy as np
from mlbits.envs.diplomacy.board import load_board
from mlbits.envs.diplomacy.engine import Adjudicator
states = np.load({str(tmp_path / "states.npy")!r})
adjudicator = Adjudicator(states, load_board("standard"), device="cuda")
adjudicator.run()
np.save({str(tmp_path / "done.npy")!r}, adjudicator.states())
"""
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, **SIMULATOR}, timeout=300)
    done = np.load(tmp_path / "done.npy")
    for name in RESULTS:
        assert np.array_equal(done[name], adjudicator.states()[name]), name


def test_a_ring_without_a_fleet_goes_round() -> None:
    board = BOARD
    texts = {"TURKEY": ["F ANK - CON", "A CON - SMY", "A SMY - ANK"]}
    units = {"F ANK", "A CON", "A SMY"}
    form = {"phase": "S1901M", "units": {"TURKEY": sorted(units)}, "centers": {}}
    position = Position.from_json(form, board)
    orders = [parse_order(text, board, position) for text in texts["TURKEY"]]
    result = resolve(position, {int(board.province_of[order.location]): order for order in orders})
    assert result.after.to_json()["units"] == {"TURKEY": ["A ANK", "A SMY", "F CON"]}


def test_thirty_units_in_one_ring_of_supports_end() -> None:
    """Every unit of a full board supports a neighbour's hold, and all attack: nothing loops."""
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
    assert result.after.phase in (1, FALL_MOVES)
    assert json.dumps(result.after.to_json())


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
