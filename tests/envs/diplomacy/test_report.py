"""Orders as text and their fates: reasons, the cases of DATC 3.0, and errors of another engine that we avoid."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbits.envs.core.errors import GameError
from mlbits.envs.diplomacy.board import load_board
from mlbits.envs.diplomacy.codes import BOUNCE, DISBANDED, DISLODGED, NO_CONVOY, VOID
from mlbits.envs.diplomacy.order_parser import parse_order
from mlbits.envs.diplomacy.position import Position, first_position
from mlbits.envs.diplomacy.report import adjudicate

BOARD = load_board()
FIRST = first_position(BOARD)


def position(phase, units, centers=None, dislodged=None):
    form = {"phase": phase, "units": units, "centers": centers or {}, "dislodged": dislodged or {}}
    return Position.from_json(form, BOARD)


def play(rules="datc-2.4", **orders):
    """Adjudicate a spring in which only the ordered units are on the board; {power: orders}."""
    orders = {power.upper(): texts for power, texts in orders.items()}
    units = {power: [" ".join(text.split()[:2]) for text in texts] for power, texts in orders.items()}
    return adjudicate(position("S1901M", units), orders, rules)


def standing(result):
    return result.after.to_json()["units"]


def reasons(result):
    return {fate.text: fate.reason for fate in result.fates}


# Reports


def test_every_kind_of_fate_has_its_reason():
    result = play(
        england=["F NTH C A LON - BEL", "A LON - BEL", "F YOR H"],
        france=["A PIC - BEL", "A BUR S A PIC - BEL", "A PAR - BUR", "A GAS S F WES - MAO", "F WES H"],
        germany=["A MUN - BUR", "F HEL - DEN", "A RUH S F KIE"],
        russia=["F SKA - DEN", "F KIE - BAL"],
    )
    assert reasons(result) == {
        "F NTH C A LON - BEL": "convoyed",
        "A LON - BEL": "bounced with A PIC",
        "F YOR H": "held",
        "A PIC - BEL": "bounced with A LON",
        "A BUR S A PIC - BEL": "support cut by A MUN",
        "A PAR - BUR": "bounced with A BUR and A MUN",
        "A GAS S F WES - MAO": "not allowed: it could not move to MAO itself; it holds",
        "F WES H": "held",
        "A MUN - BUR": "bounced with A BUR and A PAR",
        "F HEL - DEN": "bounced with F SKA",
        "A RUH S F KIE": "void: F KIE was ordered to move",
        "F SKA - DEN": "bounced with F HEL",
        "F KIE - BAL": "moved",
    }


def test_dislodgement_is_reported_for_any_order():
    result = play(
        austria=["A VEN - TRI", "A TYR S A VEN - TRI"],
        italy=["F TRI - VIE"],
        france=["A PAR - PIC"],
        germany=["A BUR - PAR", "A GAS S A BUR - PAR"],
        england=["F BRE - PIC"],
    )
    explained = reasons(result)
    assert explained["F TRI - VIE"] == "not allowed: a fleet cannot be in VIE; it holds; it was dislodged by A VEN"
    assert explained["A PAR - PIC"] == "bounced with F BRE; it was dislodged by A BUR, with nowhere to retreat"
    assert {fate.text: fate.fates for fate in result.fates}["F TRI - VIE"] == VOID | DISLODGED
    assert [result.before.unit_name(unit) for unit in result.destroyed] == ["A PAR"]


def test_void_orders_have_a_reason():
    result = play(
        germany=["A BER H", "A MUN S F KIE - BER"],
        england=["F KIE - BER", "F NTH C A LON - BEL", "A LON H", "F HOL S A BEL - RUH"],
        france=["A BEL H"],
    )
    explained = reasons(result)
    assert explained["A MUN S F KIE - BER"] == "void: it would help to dislodge A BER of its own power"
    assert explained["F NTH C A LON - BEL"] == "void: A LON was not ordered to BEL"
    assert explained["F HOL S A BEL - RUH"] == "not allowed: it could not move to RUH itself; it holds"


@pytest.mark.parametrize(
    ("rival", "voids"),
    [
        ([], True),  # with the support it would dislodge a unit of the supporting power
        (["A BUR - MUN"], True),
        (["A BUR - MUN", "A RUH S A BUR - MUN"], False),  # an equally strong rival bounces it in any case
        (["A RUH S A BOH - MUN"], True),
    ],
)
def test_support_against_an_own_unit_is_void_if_it_would_have_been_decisive(rival, voids):
    """A TYR supports Austria's army against the German one; the others' orders decide whether that would matter."""
    orders = {"austria": ["A BOH - MUN"], "germany": ["A MUN H", "A TYR S A BOH - MUN"], "france": rival}
    result = play(**orders)
    assert {fate.text: fate.fates for fate in result.fates}["A TYR S A BOH - MUN"] == (VOID if voids else 0)


def test_support_against_an_own_unit_is_not_void_if_that_unit_leaves():
    result = play(austria=["A BOH - MUN"], germany=["A MUN - BUR", "A TYR S A BOH - MUN"])
    assert reasons(result)["A TYR S A BOH - MUN"] == "supported"
    result = play(austria=["A BOH - MUN"], germany=["A MUN - BUR", "A TYR S A BOH - MUN"], france=["A BUR H"])
    assert {fate.text: fate.fates for fate in result.fates}["A TYR S A BOH - MUN"] == VOID
    assert {fate.text: fate.fates for fate in result.fates}["A BOH - MUN"] == BOUNCE


def test_failed_convoys_have_a_reason():
    result = play(
        england=["A LON - BEL", "F NTH C A LON - BEL"],
        germany=["F SKA - NTH", "F HEL S F SKA - NTH"],
        italy=["A TUN - NAP", "F TYS H"],
        turkey=["A SMY - GRE", "F AEG C A SMY - GRE", "F EAS H"],
    )
    explained = reasons(result)
    assert explained["A LON - BEL"] == "no convoy: F NTH was dislodged"
    assert explained["F NTH C A LON - BEL"] == "did not convoy A LON; it was dislodged by F SKA"
    assert explained["A TUN - NAP"] == "no convoy: no fleet convoyed it"
    assert explained["A SMY - GRE"] == "moved"


def test_a_paradox_is_reported():
    result = play(
        england=["F LON S F WAL - ENG", "F WAL - ENG"],
        france=["A BRE - LON", "F ENG C A BRE - LON"],
        germany=["F NTH S F BEL - ENG", "F BEL - ENG"],
    )
    assert reasons(result)["A BRE - LON"] == "no convoy: it would have decided about itself (Szykman's rule)"


def test_head_on_losers_bounce_with_the_winner():
    result = play(germany=["A BER - PRU", "A SIL S A BER - PRU"], russia=["A PRU - BER"])
    assert reasons(result)["A PRU - BER"] == "bounced with A BER; it was dislodged by A BER"


def test_units_without_orders_have_fates_too():
    result = adjudicate(FIRST, {"FRANCE": ["A PAR - BUR"]})
    assert len(result.unit_fates) == 22
    assert not any(result.unit_fates.values())
    assert [(fate.power, fate.text, fate.fates) for fate in result.fates] == [("FRANCE", "A PAR - BUR", 0)]


def test_invalid_orders_are_reported_and_the_unit_holds():
    result = adjudicate(FIRST, {"FRANCE": ["A MUN - BUR", "A PAR - PAR", "PAR", "?", "A BUR - PAR", ""]})
    assert [fate.reason for fate in result.fates] == [
        "not allowed: the unit in MUN belongs to GERMANY",
        "not allowed: a unit cannot move to its own province; it holds",
        "not understood: got the end; wanted an order: - (a move), S, C, H, R, D or B",
        "not understood: got '?'; wanted a province",
        "not allowed: there is no unit in BUR",
        "not understood: got the end; wanted a province",
    ]
    assert all(fate.fates == VOID for fate in result.fates)
    assert standing(result) == FIRST.to_json()["units"]


def test_the_last_order_to_a_unit_counts_if_it_is_allowed():
    result = adjudicate(FIRST, {"FRANCE": ["A PAR - PIC", "A PAR - BUR", "A PAR - MUN"]})
    assert reasons(result) == {
        "A PAR - PIC": "another order to the unit came after it",
        "A PAR - BUR": "moved",
        "A PAR - MUN": "not allowed: MUN is not a neighbour of PAR, and no chain of fleets joins them",
    }
    assert "A BUR" in standing(result)["FRANCE"]


def test_orders_may_be_given_as_orders():
    order = parse_order("A PAR - BUR", BOARD)
    result = adjudicate(FIRST, {"FRANCE": [order], "GERMANY": [order._replace(target=999)]})
    assert [(fate.text, fate.reason) for fate in result.fates] == [
        ("A PAR - BUR", "moved"),
        (str(tuple(order._replace(target=999))), "not allowed: it names a place that is not on the map"),
    ]


# Retreats and adjustments


def test_retreats():
    out = {
        "A VIE": {"power": "ITALY", "from": "TRI", "retreats": ["GAL", "TYR"]},
        "A BOH": {"power": "ITALY", "from": "SIL", "retreats": ["GAL", "TYR"]},
        "F NTH": {"power": "ENGLAND", "from": "SKA", "retreats": ["YOR", "HOL"]},
        "A BEL": {"power": "FRANCE", "from": "HOL", "retreats": ["PIC"]},
    }
    units = {"AUSTRIA": ["A VIE"], "GERMANY": ["A BEL", "A BOH"], "RUSSIA": ["F NTH"]}
    orders = {
        "ITALY": ["A VIE R TYR", "A BOH R TYR"],
        "ENGLAND": ["F NTH R EDI"],
        "FRANCE": ["A BEL - PIC"],
        "RUSSIA": ["F NTH - EDI"],
    }
    result = adjudicate(position("S1901R", units, dislodged=out), orders)
    assert reasons(result) == {
        "A VIE R TYR": "A BOH retreated there too; it disbands",
        "A BOH R TYR": "A VIE retreated there too; it disbands",
        "F NTH R EDI": "not allowed: it can retreat to HOL, YOR; it disbands",
        "A BEL - PIC": "retreated",
        "F NTH - EDI": "not allowed: the unit in NTH belongs to ENGLAND",
    }
    bits = {fate.text: fate.fates for fate in result.fates}
    assert bits["A VIE R TYR"] == BOUNCE | DISBANDED
    assert bits["F NTH R EDI"] == VOID | DISBANDED
    assert standing(result) == {**units, "FRANCE": ["A PIC"]}


def adjust(due, units, orders):
    """Russia's units after its orders, with ``due`` more centres than units."""
    owned = ["MOS", "SEV", "STP", "WAR", "SWE", "NWY"][: due + len(units)]
    result = adjudicate(position("W1901A", {"RUSSIA": units}, {"RUSSIA": owned}), {"RUSSIA": orders})
    return standing(result).get("RUSSIA", []), [fate.reason for fate in result.fates]


def test_more_builds_than_are_due():
    units, result = adjust(2, ["A UKR"], ["A SEV B", "F SEV B", "A MOS B", "F STP/NC B"])
    assert units == ["A MOS", "A SEV", "A UKR"]
    assert result == ["built", "it was ordered already", "built", "only 2 were due"]


def test_a_waive_takes_a_build():
    units, result = adjust(2, [], ["WAIVE", "A SEV B", "A MOS B", "WAIVE"])
    assert units == ["A SEV"]
    assert result == ["waived", "built", "only 2 were due", "only 2 were due"]


def test_more_disbands_than_are_due():
    units, result = adjust(-1, ["A UKR", "A GAL", "F BOT"], ["F LYO D", "A UKR D", "A UKR D", "A GAL D"])
    assert units == ["A GAL", "F BOT"]
    assert result == ["not allowed: there is no unit in LYO", "disbanded", "it was ordered already", "only 1 was due"]


def test_civil_disorder_disbands_what_was_not_ordered():
    units, result = adjust(-2, ["A UKR", "A GAL", "F NAO", "A MOS"], ["A GAL D", "A GAL H"])
    assert units == ["A MOS", "A UKR"]
    assert result[0] == "disbanded"


# Rules that differ


def test_a_wrong_coast_in_a_support_of_a_fleet():
    """6.B.9: by 2.4, as in the vectors, the coast is ignored; by 3.0 it has to match."""
    orders = {
        "france": ["F POR S F MAO - SPA/NC", "F MAO - SPA/SC"],
        "italy": ["F LYO S F WES - SPA/SC", "F WES - SPA/SC"],
    }
    assert "F WES" in standing(play(**orders))["ITALY"]
    result = play("datc-3.0", **orders)
    assert standing(result)["ITALY"] == ["F LYO", "F SPA/SC"]
    assert reasons(result)["F POR S F MAO - SPA/NC"] == "void: F MAO was ordered to SPA/SC"


def test_a_wrong_coast_in_a_support_of_an_army():
    result = play(france=["A MAR S F POR - SPA/SC", "F POR - SPA/NC"])
    assert [fate.fates for fate in result.fates] == [VOID, 0]


def test_a_convoy_asked_for_but_not_ordered():
    """6.G.8: by 2.4 the army goes by land, by 3.0 it stays."""
    orders = {"france": ["A BEL - HOL VIA"], "england": ["F NTH - HEL", "A HOL - KIE"]}
    assert standing(play(**orders))["FRANCE"] == ["A HOL"]
    result = play("datc-3.0", **orders)
    assert standing(result)["FRANCE"] == ["A BEL"]
    assert {fate.text: fate.fates for fate in result.fates}["A BEL - HOL VIA"] == NO_CONVOY


# The cases that DATC 3.0 adds


@pytest.mark.parametrize("rules", ["datc-2.4", "datc-3.0"])
def test_6_b_15_a_foreign_fleet_is_supported_without_naming_its_coast(rules):
    result = play(
        rules,
        france=["F POR S F MAO - SPA"],
        england=["F MAO - SPA/NC"],
        italy=["F LYO S F WES - SPA/SC", "F WES - SPA/SC"],
    )
    assert standing(result) == result.before.to_json()["units"]


@pytest.mark.parametrize("rules", ["datc-2.4", "datc-3.0"])
def test_6_c_8_no_power_dislodges_its_own_unit_in_a_broken_circle(rules):
    result = play(
        rules,
        turkey=["F CON - BLA", "A BUL - CON", "A SMY S A BUL - CON"],
        russia=["F BLA - BUL/EC"],
        austria=["A SER - BUL"],
    )
    assert standing(result) == result.before.to_json()["units"]
    assert result.after.phase_name == "F1901M"


@pytest.mark.parametrize("rules", ["datc-2.4", "datc-3.0"])
def test_6_c_9_nor_supports_dislodging_it(rules):
    result = play(
        rules,
        turkey=["F CON - BLA", "A SMY S A BUL - CON"],
        russia=["F BLA - BUL/EC"],
        austria=["A SER - BUL", "A BUL - CON"],
    )
    assert standing(result) == result.before.to_json()["units"]
    assert result.after.phase_name == "F1901M"


@pytest.mark.parametrize("rules", ["datc-2.4", "datc-3.0"])
def test_6_f_25_a_support_that_is_cut_last(rules):
    """Denmark gets to Norway, so the North Sea's convoy holds, so Holland's support of the Ruhr is cut."""
    result = play(
        rules,
        germany=["A RUH - BEL", "A HOL S A RUH - BEL", "A DEN - NWY", "F SKA C A DEN - NWY", "A FIN S A DEN - NWY"],
        england=["A YOR - HOL", "F NTH C A YOR - HOL", "F HEL S A YOR - HOL", "A BEL H"],
        russia=["F NWG - NTH", "F NWY S F NWG - NTH", "F SWE - SKA"],
    )
    assert standing(result) == {
        "ENGLAND": ["A BEL", "A HOL", "F HEL", "F NTH"],
        "GERMANY": ["A FIN", "A NWY", "A RUH", "F SKA"],
        "RUSSIA": ["F NWG", "F SWE"],
    }
    assert result.after.to_json()["dislodged"].keys() == {"A HOL", "F NWY"}


def test_6_g_19_a_fleet_that_the_convoy_does_not_need_shows_no_intent():
    result = play(
        "datc-3.0",
        france=["A MAR - SPA", "F WES C A MAR - SPA"],
        italy=["F LYO C A MAR - SPA", "A SPA - MAR"],
    )
    assert standing(result) == result.before.to_json()["units"]


def test_6_g_20_a_convoy_that_was_asked_for_and_broken_leaves_the_army_where_it_is():
    result = play(
        "datc-3.0",
        france=["F BRE - ENG", "A PIC - BEL VIA", "A BUR S A PIC - BEL", "F MAO S F BRE - ENG"],
        england=["F ENG C A PIC - BEL"],
    )
    assert "A PIC" in standing(result)["FRANCE"]
    assert reasons(result)["A PIC - BEL VIA"] == "no convoy: F ENG was dislodged"


# Errors of a widely used engine


def test_support_of_the_victims_own_power_does_not_count_in_a_convoyed_attack():
    result = play(germany=["A NWY - EDI VIA", "F NTH C A NWY - EDI"], england=["F YOR S A NWY - EDI", "F EDI H"])
    assert standing(result) == {"ENGLAND": ["F EDI", "F YOR"], "GERMANY": ["A NWY", "F NTH"]}
    assert not result.after.dislodged


def test_a_void_support_does_not_disrupt_a_convoy():
    result = play(england=["A LON - BEL", "F NTH C A LON - BEL", "F YOR S F SKA - NTH"], germany=["F SKA - NTH"])
    assert standing(result) == {"ENGLAND": ["A BEL", "F NTH", "F YOR"], "GERMANY": ["F SKA"]}
    assert reasons(result)["F YOR S F SKA - NTH"] == "void: it would help to dislodge F NTH of its own power"


def test_after_a_convoyed_attack_no_unit_retreats_to_an_occupied_or_contested_province():
    result = play(
        england=["A LON - BEL", "F NTH C A LON - BEL", "A HOL S A LON - BEL"],
        france=["A BEL H", "A PAR - PIC", "F BRE - PIC"],
    )
    assert result.after.to_json()["dislodged"] == {
        "A BEL": {"power": "FRANCE", "from": "LON", "retreats": ["BUR", "RUH"]}
    }


def test_units_may_retreat_to_the_origin_of_an_attacker_that_came_by_sea():
    result = play(
        france=["A GAS - MAR VIA", "A BUR S A GAS - MAR"],
        russia=["F MAO C A GAS - MAR", "F WES C A GAS - MAR", "F LYO C A GAS - MAR"],
        italy=["A MAR H"],
    )
    assert result.after.to_json()["dislodged"]["A MAR"]["retreats"] == ["GAS", "PIE", "SPA"]


# Bad input


@pytest.mark.parametrize(
    ("orders", "wanted"),
    [
        (["A PAR H"], "orders: got list; wanted lists of orders by power"),
        ({"GAUL": []}, "orders: got 'GAUL'; wanted one of AUSTRIA"),
        ({"FRANCE": "A PAR H"}, r"orders\['FRANCE'\]: got str; wanted a list"),
        ({"FRANCE": None}, r"orders\['FRANCE'\]: got NoneType; wanted a list"),
    ],
)
def test_orders_of_a_wrong_form(orders, wanted):
    with pytest.raises(GameError, match=wanted):
        adjudicate(FIRST, orders)


def test_unknown_rules():
    with pytest.raises(GameError, match=r"rules: got 'datc-9'; wanted one of 'datc-2.4', 'datc-3.0'"):
        adjudicate(FIRST, {}, "datc-9")


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.lists(st.text(max_size=40) | st.none() | st.integers(), max_size=6))
def test_garbage_is_reported_and_the_game_continues(texts):
    result = adjudicate(FIRST, {"FRANCE": texts})
    assert len(result.fates) == len(texts)
    assert all(fate.reason for fate in result.fates)
    assert result.after.phase_name == "F1901M"
    assert standing(result)["GERMANY"] == FIRST.to_json()["units"]["GERMANY"]
