"""Legality of orders: the test vectors, convoy routes by exhaustive search, and the reasons."""

import gzip
import json
import random
from functools import cache
from pathlib import Path

import pytest

from mlbits.envs.diplomacy.board import load_board
from mlbits.envs.diplomacy.codes import (
    ARMY,
    BUILD,
    CONVOY,
    FLEET,
    HOLD,
    MOVE,
    SEA,
    SUPPORT,
    SUPPORT_MOVE,
    UNIT_LETTERS,
    WAIVE,
)
from mlbits.envs.diplomacy.order_parser import NotationError, order_text, parse_order
from mlbits.envs.diplomacy.order_reasons import convoy_route, why_illegal
from mlbits.envs.diplomacy.orders import Order
from mlbits.envs.diplomacy.position import Position, Unit

HERE = Path(__file__).parent
BOARD = load_board()
DATC = json.loads((HERE / "datc.json").read_text())["vectors"]


@cache
def random_play():
    return [json.loads(line) for line in gzip.decompress((HERE / "differential.jsonl.gz").read_bytes()).splitlines()]


def place(name):
    return BOARD.location_index[name]


def position(phase="S1901M", centers=None, dislodged=None, **units):
    form = {
        "phase": phase,
        "units": {power.upper(): names for power, names in units.items()},
        "centers": centers or {},
        "dislodged": dislodged or {},
    }
    return Position.from_json(form, BOARD)


def why(now, power, text, rules="datc-2.4"):
    return why_illegal(now, BOARD.power_index[power.upper()], parse_order(text, BOARD, now), rules)


def judged(vector):
    """(power, text, reason or None) of every order that was submitted in a vector."""
    now = Position.from_json(vector["before"], BOARD)
    for power, texts in vector["orders"].items():
        for text in texts:
            try:
                reason = why_illegal(now, BOARD.power_index[power], parse_order(text, BOARD, now))
            except NotationError as error:
                reason = str(error)
            yield power, text, reason


def test_random_play_gives_legal_orders_only():
    orders = [(vector["id"], *row) for vector in random_play() for row in judged(vector)]
    assert len(orders) > 18_000
    assert [order for order in orders if order[-1] is not None] == []


def test_orders_that_the_cases_ignore_are_not_allowed():
    rows = [(vector["id"], *row) for vector in DATC for row in judged(vector) if "ignored" in vector]
    ignored = {(v["id"], power, text) for v in DATC for power, texts in v.get("ignored", {}).items() for text in texts}
    assert ignored
    assert {row[:3] for row in rows if row[3] is not None} == ignored


def test_orders_that_the_cases_accept_are_allowed():
    refused = set()
    for vector in DATC:
        for power, text, reason in judged(vector):
            if text in vector["accepted"].get(power, []) and reason is not None:
                refused.add((vector["id"], text, reason))
    # The only order that the source accepts and then voids; by DATC this support is impossible.
    own = "ARM could be reached only with its own convoy, and it cannot do both"
    assert refused == {("6.D.31", "F BLA S A RUM - ARM", own)}


def borders(here):
    """Provinces adjacent to a province, for fleets."""
    places = [location for location, province in enumerate(BOARD.province_of) if province == here]
    return {int(BOARD.province_of[n]) for location in places for n in BOARD.fleet_neighbours[location]}


def routes(fleets, start, end, chain=()):
    """Every chain of fleets from one province to another, by exhaustive search from the definition."""
    here = chain[-1] if chain else start
    beside = borders(here)
    if chain and end in beside:
        yield chain
    for fleet in (beside & fleets) - set(chain):
        yield from routes(fleets, start, end, (*chain, fleet))


def test_convoy_routes_agree_with_exhaustive_search():
    rng = random.Random(8)
    seas = [p for p, province in enumerate(BOARD.provinces) if province.type == SEA]
    coasts = [p for p, province in enumerate(BOARD.provinces) if province.type == 2]
    found = {True: 0, False: 0}
    for _ in range(150):
        fleets = set(rng.sample(seas, rng.randint(4, 12)))
        start, end = rng.sample([p for p in coasts if borders(p) & fleets], 2)
        now = Position(BOARD, 1901, 0, {p: Unit(0, FLEET, p) for p in fleets})
        chains = list(routes(fleets, start, end))
        assert convoy_route(now, start, end) == bool(chains)
        for sea in seas:
            there = any(sea in chain for chain in chains)
            assert convoy_route(now, start, end, through=sea) == there
            assert convoy_route(now, start, end, without=sea) == any(sea not in chain for chain in chains)
            needed = any(sea in chain and not any(set(c) < set(chain) for c in chains) for chain in chains)
            army = Position(BOARD, 1901, 0, {**now.units, start: Unit(0, ARMY, start)})
            order = Order(CONVOY, FLEET, sea, start, end)
            assert (why_illegal(army, 0, order) is None) == there
            assert (why_illegal(army, 0, order, "datc-3.0") is None) == needed
            found[there] += 1
    assert min(found.values()) > 100


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("A PAR - MUN", "MUN is not a neighbour of PAR, and no chain of fleets joins them"),
        ("F BRE - PAR", "a fleet cannot be in PAR"),
        ("A PAR - ENG", "an army cannot be in ENG"),
        ("A PAR - PAR", "a unit cannot move to its own province"),
        ("F BRE - MAO VIA", "a fleet is not convoyed"),
        ("A MAR - SPA VIA", "no chain of fleets joins MAR and SPA"),
        ("A BUR H", "there is no unit in BUR"),
        ("A MUN H", "the unit in MUN belongs to GERMANY"),
        ("F PAR H", "the unit there is A PAR"),
        ("A PAR S A PAR", "a unit cannot help itself"),
        ("A PAR S F LON", "it could not move to LON itself"),
        ("A PAR S A MUN - TYR", "it could not move to TYR itself"),
        ("A PAR S A MUN - GAS", "A MUN cannot move to GAS"),
        ("A PAR S F BRE - GAS", None),
        ("A PAR S A KIE - BUR", "A KIE cannot move to BUR"),
        ("A PAR S BEL", "there is no unit in BEL"),
        ("A PAR C A MUN - BUR", "an army does not convoy"),
        ("F BRE C A PAR - PIC", "only a fleet at sea convoys"),
        ("A PAR R BUR", "it is not an order for a movement phase"),
        ("WAIVE", "it is not an order for a movement phase"),
        ("A PAR - BUR", None),
        ("A PAR S A MAR - BUR", None),
        ("A PAR S A MUN - BUR", None),
    ],
)
def test_reasons_in_a_movement_phase(text, reason):
    now = position(france=["F BRE", "A PAR", "A MAR"], germany=["A MUN"], england=["F LON"], russia=["A KIE"])
    order = parse_order(text, BOARD, None if text.startswith("F PAR") else now)
    assert why_illegal(now, BOARD.power_index["FRANCE"], order) == reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("F ENG C A LON - BEL", None),
        ("F NTH C A LON - BEL", None),
        ("F ENG C A LON - NWY", None),
        ("F IRI C A LON - NWY", "no chain of fleets joins LON and NWY through it"),
        ("F NTH C A LON - LON", "the army in LON is there already"),
        ("F NTH C A LON - RUH", "RUH has no coast"),
        ("F NTH C A YOR - BEL", "there is no unit in YOR"),
        ("A LON - NWY", None),
        ("A LON - WAL VIA", None),
        ("F ENG S A LON - NWY", "it could not move to NWY itself"),
        ("F NTH S A LON - NWY", "NWY could be reached only with its own convoy, and it cannot do both"),
        ("F NTH S A LON - BEL", None),
        ("F ENG S A LON - BEL", None),
    ],
)
def test_reasons_around_convoys(text, reason):
    now = position(england=["A LON", "F ENG", "F NTH", "F IRI", "F EDI"])
    assert why(now, "england", text) == reason


def test_a_fleet_is_not_convoyed():
    now = position(england=["F NTH", "F EDI"])
    order = Order(CONVOY, FLEET, place("NTH"), place("EDI"), place("NWY"))
    assert why_illegal(now, BOARD.power_index["ENGLAND"], order) == "F EDI is a fleet; only armies are convoyed"


def test_a_fleet_that_no_route_needs():
    """6.G.19: there is a chain MAR - LYO - WES - SPA, but LYO reaches Spain alone."""
    now = position(france=["A MAR", "F WES"], italy=["F LYO", "A SPA"])
    assert why(now, "france", "F WES C A MAR - SPA") is None
    assert (
        why(now, "france", "F WES C A MAR - SPA", "datc-3.0")
        == "every chain of fleets through it also works without it"
    )
    assert why(now, "italy", "F LYO C A MAR - SPA", "datc-3.0") is None


def test_the_coast_of_a_province_matters():
    now = position(france=["F SPA/NC", "F MAR"], italy=["F LYO"])
    assert why(now, "france", "F SPA/NC S F MAR - LYO") == "it could not move to LYO itself"
    assert why(now, "france", "F MAR S F SPA - LYO") == "F SPA/NC cannot move to LYO"
    assert why(now, "italy", "F LYO S F MAR - SPA/SC") is None
    assert why(now, "italy", "F LYO S F SPA/NC") is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("A VIE R TYR", None),
        ("A VIE D", None),
        ("A VIE R BOH", "it can retreat to GAL, TYR"),
        ("A VIE H", "it is not an order for a retreat phase"),
        ("A ROM R TUS", "no unit has to retreat from ROM"),
    ],
)
def test_reasons_in_a_retreat_phase(text, reason):
    out = {"A VIE": {"power": "ITALY", "from": "TRI", "retreats": ["TYR", "GAL"]}}
    now = position("S1901R", dislodged=out, austria=["A VIE"], italy=["A ROM"])
    assert why(now, "italy", text) == reason


@pytest.mark.parametrize(
    ("power", "text", "reason"),
    [
        ("germany", "A BER B", None),
        ("germany", "F KIE B", None),
        ("germany", "WAIVE", None),
        ("germany", "F MUN B", "a fleet cannot be in MUN"),
        ("germany", "A WAR B", "WAR is not a home centre of GERMANY"),
        ("germany", "A BOH B", "BOH is not a home centre of GERMANY"),
        ("germany", "A MUN D", "there is no unit in MUN"),
        ("germany", "F HOL D", "there is nothing to disband"),
        ("germany", "F HOL H", "it is not an order for an adjustment phase"),
        ("russia", "F STP/NC B", None),
        ("russia", "A STP B", None),
        ("russia", "A MOS B", "MOS is not owned"),
        ("russia", "A SEV B", "SEV is occupied"),
        ("russia", "A WAR B", "WAR is not owned"),  # but by Germany
        ("turkey", "A CON D", "there is nothing to disband"),
        ("turkey", "WAIVE", "there is nothing to build"),
        ("france", "A BUR D", None),
        ("france", "A PAR B", "there is nothing to build"),
        ("france", "WAIVE", "there is nothing to build"),
        ("italy", "A ROM B", "there is nothing to build"),
    ],
)
def test_reasons_in_an_adjustment_phase(power, text, reason):
    now = position(
        "W1901A",
        centers={
            "GERMANY": ["BER", "KIE", "MUN", "WAR"],
            "RUSSIA": ["STP", "SEV"],
            "FRANCE": ["PAR"],
            "TURKEY": ["CON"],
        },
        turkey=["A CON"],
        germany=["F HOL"],
        russia=["F SEV"],
        france=["A BUR", "A GAS"],
    )
    assert why(now, power, text) == reason


def test_a_fleet_built_without_its_coast():
    now = position("W1901A", centers={"RUSSIA": ["STP"]})
    order = Order(BUILD, FLEET, place("STP"))
    assert why_illegal(now, BOARD.power_index["RUSSIA"], order) == "one of the coasts of STP must be named"


def test_orders_with_numbers_out_of_range_are_refused():
    rng = random.Random(5)
    now = position(france=["F BRE", "A PAR"], england=["F NTH", "A LON"])
    for phase in range(5):
        turned = Position(BOARD, 1901, phase, now.units, {}, {place("PAR"): 2})
        for _ in range(2_000):
            order = Order(
                rng.randint(-1, 11), rng.randint(-1, 3), *(rng.randint(-3, 200) for _ in range(3)), rng.random() < 0.5
            )
            reason = why_illegal(turned, rng.randint(0, 6), order)
            assert reason is None or len(reason) > 10


def test_legal_orders_can_be_written_and_parsed():
    """Every order that a position allows keeps its meaning through its text."""
    rng = random.Random(2)
    count = 0
    for vector in rng.sample([v for v in random_play() if v["before"]["phase"].endswith("M")], 8):
        now = Position.from_json(vector["before"], BOARD)
        for unit in rng.sample(list(now.units.values()), 2):
            for order in candidates(unit):
                if why_illegal(now, unit.power, order) is None:
                    text = order_text(order, BOARD, now)
                    assert text.startswith(f"{UNIT_LETTERS[unit.kind]} ")
                    assert parse_order(text, BOARD, now) == order
                    assert parse_order(order_text(order, BOARD), BOARD, now) == order
                    count += 1
    assert count > 100


def candidates(unit):
    _, kind, location = unit
    yield Order(HOLD, kind, location)
    for target in range(len(BOARD.locations)):
        yield Order(MOVE, kind, location, -1, target)
        yield Order(MOVE, kind, location, -1, target, True)
    for other in range(len(BOARD.provinces)):
        yield Order(SUPPORT, kind, location, other)
        for target in range(len(BOARD.provinces)):
            yield Order(SUPPORT_MOVE, kind, location, other, target)
            yield Order(CONVOY, kind, location, other, target)


def test_waive_is_not_bound_to_a_unit():
    now = position("W1901A", centers={"FRANCE": ["PAR", "BRE"]}, france=["A GAS"])
    assert why_illegal(now, BOARD.power_index["FRANCE"], Order(WAIVE, 0, -1)) is None
