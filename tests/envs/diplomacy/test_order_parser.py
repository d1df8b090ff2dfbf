"""Parsing and writing orders."""

import json
import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbits.envs.diplomacy import order_parser
from mlbits.envs.diplomacy.board import load_board
from mlbits.envs.diplomacy.codes import FLEET, MOVE, RETREAT
from mlbits.envs.diplomacy.order_parser import MAX_LENGTH, NotationError, order_text, parse_order
from mlbits.envs.diplomacy.orders import Order
from mlbits.envs.diplomacy.position import Position, first_position

BOARD = load_board()
FIRST = first_position(BOARD)


def position(phase, dislodged=None, **units):
    form = {"phase": phase, "units": {power.upper(): names for power, names in units.items()}, "centers": {}}
    return Position.from_json(form | ({"dislodged": dislodged} if dislodged else {}), BOARD)


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("A PAR - BUR", "A PAR - BUR"),
        ("a par-bur", "A PAR - BUR"),
        ("A Paris -> Burgundy", "A PAR - BUR"),
        ("Army Paris – Burgundy", "A PAR - BUR"),  # noqa: RUF001 - an en dash
        ("A PAR moves to BUR.", "A PAR - BUR"),
        ("Par to Bur", "A PAR - BUR"),
        ("A MAR → SPA", "A MAR - SPA"),
        ("A LON - BEL VIA", "A LON - BEL VIA"),
        ("A London - Belgium via convoy", "A LON - BEL VIA"),
        ("A LON - BEL (by convoy)", "A LON - BEL VIA"),
        ("F NTH C A LON - BEL", "F NTH C A LON - BEL"),
        ("F North Sea CONVOYS A London - Belgium", "F NTH C A LON - BEL"),
        ("nth convoys lon to bel via convoy", "F NTH C A LON - BEL"),
        ("A MUN S A BUR", "A MUN S A BUR"),
        ("A MUN supports Bur holds", "A MUN S A BUR"),
        ("A MUN S A PAR - BUR", "A MUN S A PAR - BUR"),
        ("F MAO S F Western Mediterranean - Spain(sc)", "F MAO S F WES - SPA/SC"),
        ("F MAO S F GAS - SPA", "F MAO S GAS - SPA"),
        ("A PIC S A GAS - SPA/NC", "A PIC S GAS - SPA"),
        ("A PAR H", "A PAR H"),
        ("A PAR HOLDS", "A PAR H"),
        ("F STP/SC H", "F STP/SC H"),
        ("F STP(sc) hold", "F STP/SC H"),
        ("F St. Petersburg (south coast) - Gulf of Bothnia", "F STP/SC - BOT"),
        ("F St Petersburg south coast - GOB", "F STP/SC - BOT"),
        ("F GAS - SPA", "F GAS - SPA/NC"),
        ("F MAO - SPA(nc)", "F MAO - SPA/NC"),
        ("F Mid-Atlantic Ocean - Spain/SC", "F MAO - SPA/SC"),
        ("A GAS - SPA/NC", "A GAS - SPA"),
        ("F GAS - SPA/SC", "F GAS - SPA/SC"),  # not allowed, but well formed
        ("BUILD A PAR", "A PAR B"),
        ("A PAR B", "A PAR B"),
        ("build f stp(nc)", "F STP/NC B"),
        ("F STP/SC BUILD", "F STP/SC B"),
        ("A PAR R BUR", "A PAR R BUR"),
        ("A PAR RETREATS TO BUR", "A PAR R BUR"),
        ("A PAR retreat - Burgundy", "A PAR R BUR"),
        ("A PAR D", "A PAR D"),
        ("DISBAND A PAR", "A PAR D"),
        ("remove par", "A PAR D"),
        ("WAIVE", "WAIVE"),
        ("  waive ;", "WAIVE"),
    ],
)
def test_orders_as_people_write_them(said, written):
    order = parse_order(said, BOARD)
    assert order_text(order, BOARD) == written
    assert parse_order(written, BOARD) == order


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("", "got the end; wanted a province"),
        ("A PAR", "got the end; wanted an order"),
        ("A PAR - LONDONDERRY", "got 'LONDONDERRY'; wanted a province"),
        ("A TUR S A VEN - TRI", "got 'TUR'; wanted a province"),
        ("A PAR - BUR BUR", "got 'BUR'; wanted the end"),
        ("A PAR - BUR VIA SEA", "got 'SEA'; wanted the end"),
        ("A PAR - BUR BY SEA", "got 'SEA'; wanted CONVOY"),
        ("F POR - SPA", "got 'SPA'; wanted one of its coasts: SPA/NC or SPA/SC"),
        ("F CON - BUL", "got 'BUL'; wanted one of its coasts: BUL/EC or BUL/SC"),
        ("F STP B", "got 'STP'; wanted one of its coasts: STP/NC, STP/SC"),
        ("F STP - BOT", "got 'STP'; wanted one of its coasts"),
        ("A CON/SC - BUL", "got 'CON/SC'; wanted no coast"),
        ("A MUN S A CON - BUL/NC", "got 'BUL/NC'; wanted one of its coasts"),
        ("A MUN S F RUH - KIE", "got 'F'; wanted A, the only kind that can be there"),
        ("F NTH C F LON - BEL", "got a fleet in LON; wanted an army"),
        ("F NTH C ENG - BEL", "got a fleet in ENG; wanted an army"),
        ("DISBAND F SPA", "got 'SPA'; wanted one of its coasts"),
        ("F BRE/NC - MAO", "got 'BRE/NC'; wanted no coast"),
        ("F SPA/EC - LYO", "got 'SPA/EC'; wanted one of its coasts: SPA/NC, SPA/SC"),
        ("F SPA/ - LYO", "got '-'; wanted a coast such as SC"),
        ("F SPA(SC - LYO", "got '-'; wanted ')'"),
        ("F SPA south - LYO", "got '-'; wanted COAST"),
        ("BRE - MAO", "got 'BRE'; wanted A or F before it"),
        ("F NTH C A LON", "got the end; wanted - and the province that the army goes to"),
        ("A PAR \x00 BUR", "wanted an order"),
        ("A PAR - BUR" * 40, f"wanted a text of at most {MAX_LENGTH} characters"),
        (None, "got NoneType; wanted a text"),
        (7, "got int; wanted a text"),
    ],
)
def test_errors_name_the_wrong_word(said, wanted):
    with pytest.raises(NotationError) as error:
        parse_order(said, BOARD)
    assert wanted in str(error.value)
    assert error.value.why in str(error.value)


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("BRE - MAO", "F BRE - MAO"),
        ("bre s mar - gas", "F BRE S A MAR - GAS"),
        ("F STP - BOT", "F STP/SC - BOT"),
        ("F STP/NC - BOT", "F STP/SC - BOT"),  # the unit's coast is known (6.B.10)
        ("F STP/NC - BAR", "F STP/SC - BAR"),  # and is not changed by naming another (6.B.11)
        ("A STP - MOS", "A STP - MOS"),  # the wrong kind of unit: not corrected
        ("MOS S STP", "A MOS S F STP/SC"),
    ],
)
def test_omitted_parts_are_taken_from_the_position(said, written):
    order = parse_order(said, BOARD, FIRST)
    assert order_text(order, BOARD, FIRST) == written


def test_a_wrong_kind_of_helped_unit_is_refused():
    with pytest.raises(NotationError, match="got 'F'; wanted A, which is the unit there"):
        parse_order("F BRE S F PAR - PIC", BOARD, FIRST)


@pytest.mark.parametrize(("phase", "kind"), [("S1901R", RETREAT), ("F1901R", RETREAT), ("S1902M", MOVE)])
def test_a_move_in_a_retreat_phase_is_a_retreat(phase, kind):
    out = {"F TRI": {"power": "AUSTRIA", "from": "VEN", "retreats": ["ADR", "ALB"]}}
    now = position(phase, out, italy=["A TRI"]) if kind == RETREAT else position(phase, austria=["F TRI"])
    for said in ("TRI - ALB", "TRI -> ALB", "TRI to ALB", "TRI moves to ALB"):
        order = parse_order(said, BOARD, now)  # the dislodged fleet is ordered, not the army that entered
        assert (order.kind, order.unit, order.target) == (kind, FLEET, BOARD.location_index["ALB"])
    assert parse_order("TRI R ALB", BOARD, now).kind == RETREAT
    out = {"A TRI": {"power": "AUSTRIA", "from": "VEN", "retreats": ["ALB"]}}
    now = position("F1901R", out, italy=["A TRI"])
    assert parse_order("A TRI - ALB VIA", BOARD, now).kind == MOVE  # not a retreat: units do not retreat by convoy


def test_a_build_is_parsed_as_written_whatever_unit_is_there():
    now = position("W1901A", russia=["F STP/SC"])
    assert order_text(parse_order("F STP/NC B", BOARD, now), BOARD) == "F STP/NC B"
    assert order_text(parse_order("A STP B", BOARD, now), BOARD) == "A STP B"


def test_every_province_is_known_by_its_name():
    for number, province in enumerate(BOARD.provinces):
        letter = "F" if BOARD.fleet_neighbours[number] else "A"
        if not province.coasts:
            assert parse_order(f"{letter} {province.name} H", BOARD).location == number


NAMES = json.loads((Path(__file__).parent / "names.json").read_text())["names"]
NAMES["SKA"].append("skg")  # missing in that list


def test_every_alias_is_a_name_of_that_province_elsewhere():
    assert NAMES.keys() == {province.id for province in BOARD.provinces}
    for alias, province in order_parser._ALIASES.items():
        assert alias.lower() in NAMES[province], alias


def test_names_in_use_elsewhere_mean_the_same_province_or_none():
    """All aliases are among them; another program's name for a province never means a different one here."""
    read = set()
    for province, names in NAMES.items():
        for name in (province, *names):
            for said in {name, name.upper(), name.title()}:
                try:
                    order = parse_order(f"A {said} H", BOARD)
                except NotationError:
                    continue
                assert BOARD.provinces[order.location].id == province, said
                read.add(name.upper())
    assert order_parser._ALIASES.keys() <= read
    assert len(read) >= 75 + len(order_parser._ALIASES)


def test_an_alias_is_known_only_if_the_board_has_the_province_and_no_such_id():
    form = json.loads(re.sub(r"\bALT\b", "GOL", json.dumps(dict(load_board("mini").source))))
    board = load_board(form)
    assert board.provinces[parse_order("A GOL H", board).location].id == "GOL"
    with pytest.raises(NotationError, match="wanted a province"):
        parse_order("A NAT H", board)
    form = json.loads(re.sub(r"\bTYS\b", "GOL", json.dumps(dict(BOARD.source))))
    board = load_board(form)  # it has the Gulf of Lyon too, but ids take precedence over aliases
    assert board.provinces[parse_order("F GOL H", board).location].name == "Tyrrhenian Sea"


def test_ambiguous_names_are_refused():
    form = dict(load_board("mini").source)
    rows = [dict(row) for row in form["provinces"]]
    rows[0]["name"] = rows[1]["name"] = "Twin Lands"
    board = load_board(form | {"provinces": rows})
    with pytest.raises(NotationError, match="wanted a province"):
        parse_order("A Twin Lands H", board)
    assert parse_order(f"A {rows[1]['id']} H", board).location == 1


WORDS = (
    "A F ARMY FLEET - -> TO VIA CONVOY BY S C H R D B HOLD SUPPORTS BUILD DISBAND WAIVE ( ) / . NC SC COAST SOUTH PAR "
    "BUR SPA SPA/NC STP MAO Paris Spain(sc) Gulf of Lyon St. Petersburg NTH lon bel BRE bul/ec X 1 é \0"
).split(" ")


@settings(max_examples=400, derandomize=True, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join) | st.text(max_size=250), st.booleans())
def test_any_text_gives_an_order_or_a_notation_error(text, with_position):
    try:
        order = parse_order(text, BOARD, FIRST if with_position else None)
    except NotationError as error:
        assert "wanted" in str(error)
        return
    assert isinstance(order, Order)
    assert parse_order(order_text(order, BOARD), BOARD) == order


def test_spelling_does_not_matter():
    rng = random.Random(3)
    for said in ("F NTH C A LON - BEL", "A MUN S A PAR - BUR", "F MAO - SPA/SC", "A LON - BEL VIA"):
        for _ in range(20):
            odd = "".join(rng.choice([c.lower(), c.upper()]) for c in said).replace(" ", " " * rng.randint(1, 3))
            assert parse_order(odd, BOARD) == parse_order(said, BOARD)
