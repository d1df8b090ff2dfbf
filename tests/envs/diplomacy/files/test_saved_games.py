"""Saved games in the format of the ``diplomacy`` package."""

import copy
import itertools
import json
import random
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbits.envs.core.errors import GameError
from mlbits.envs.diplomacy.board import load_board
from mlbits.envs.diplomacy.codes import DISBANDED, VOID
from mlbits.envs.diplomacy.files.saved_games import (
    GameRecord,
    PlayedPhase,
    game_from_json,
    game_to_json,
    load_games,
    read_games,
    save_games,
)
from mlbits.envs.diplomacy.position import Position, first_position
from mlbits.envs.diplomacy.report import adjudicate

BOARD = load_board()
WAR = [
    {"FRANCE": ["A PAR - PIC", "A MAR - BUR", "F BRE - ENG"], "GERMANY": ["F KIE - HOL", "A MUN - RUH"],
     "ENGLAND": ["F LON - ENG"]},
    {"GERMANY": ["F HOL - BEL", "A RUH S A BUR - MUN"]},
    {"GERMANY": ["A MUN B"]},
    {"FRANCE": ["A BUR S A PIC - BEL", "A PIC - BEL"], "GERMANY": ["F BEL H"]},
    {"GERMANY": ["F BEL R HOL"]},
    {},
    {"FRANCE": ["A PAR B", "WAIVE"], "ITALY": ["A VEN - ADR", "rubbish"]},
]  # fmt: skip


@cache
def played():
    """A short game with a dislodgement, a retreat, builds and invalid orders."""
    now, results = first_position(BOARD), []
    for orders in WAR:
        results.append(adjudicate(now, orders))
        now = results[-1].after
    assert [phase.before.phase_name[-1] for phase in results] == list("MMAMRMA")
    return GameRecord.of(results, id="war", note="to be continued")


@pytest.fixture
def war():
    return played()


def same(a, b):
    assert [p.position.to_json() for p in a.phases] == [p.position.to_json() for p in b.phases]
    assert [p.orders for p in a.phases] == [p.orders for p in b.phases]
    assert (a.id, a.rules, a.note, a.over, a.map_name) == (b.id, b.rules, b.note, b.over, b.map_name)
    for p, q in zip(a.phases, b.phases, strict=True):
        assert {k: v for k, v in (p.fates or {}).items() if v} == {k: v for k, v in (q.fates or {}).items() if v}


def test_a_game_is_read_back_unchanged(war):
    same(game_from_json(json.loads(json.dumps(game_to_json(war)))), war)


def test_the_written_form(war):
    form = game_to_json(war)
    assert form.keys() == {"id", "map", "rules", "phases"}
    assert (form["id"], form["map"], form["rules"]) == ("war", "standard", ["NO_PRESS"])
    assert [phase["name"] for phase in form["phases"]] == [
        "S1901M", "F1901M", "W1901A", "S1902M", "S1902R", "F1902M", "W1902A", "S1903M"
    ]  # fmt: skip
    attack, retreat, winter, last = (form["phases"][i] for i in (3, 4, 6, 7))
    assert attack["results"]["F BEL"] == ["dislodged"]
    assert attack["orders"]["FRANCE"] == ["A BUR S A PIC - BEL", "A PIC - BEL"]
    assert "*F BEL" in retreat["state"]["units"]["GERMANY"]
    assert {unit: sorted(places) for unit, places in retreat["state"]["retreats"]["GERMANY"].items()} == {
        "F BEL": ["ENG", "HOL", "NTH"]
    }
    assert winter["state"]["builds"]["FRANCE"] == {"count": 1, "homes": ["MAR", "PAR"]}
    assert winter["state"]["builds"]["GERMANY"] == {"count": 0, "homes": []}
    assert winter["results"] == {"A PAR": [""], "A VEN": ["void"]}
    assert last["orders"] == dict.fromkeys(BOARD.powers)
    assert last["state"]["note"] == "to be continued"
    for phase in form["phases"]:
        assert phase.keys() == {"name", "state", "orders", "results", "messages"}
        assert phase["state"].keys() >= {
            "timestamp", "zobrist_hash", "note", "name", "units", "retreats", "centers", "homes", "influence",
            "civil_disorder", "builds",
        }  # fmt: skip


def test_influence_is_the_last_unit_in_a_province(war):
    """Also from long ago, and until another unit is there: the game ``war`` by hand."""
    phases = game_to_json(war)["phases"]
    of = lambda i: {power: " ".join(names) for power, names in phases[i]["state"]["influence"].items()}  # noqa: E731
    assert of(0) == {
        "AUSTRIA": "BUD TRI VIE", "ENGLAND": "EDI LON LVP", "FRANCE": "BRE MAR PAR", "GERMANY": "BER KIE MUN",
        "ITALY": "NAP ROM VEN", "RUSSIA": "MOS SEV STP WAR", "TURKEY": "ANK CON SMY",
    }  # fmt: skip
    assert of(1)["FRANCE"] == "BRE BUR MAR PAR PIC"  # the fleet bounced
    assert of(3)["GERMANY"] == "BEL BER HOL KIE MUN RUH"
    assert (of(4)["FRANCE"], of(4)["GERMANY"]) == ("BEL BRE BUR MAR PAR PIC", "BER HOL KIE MUN RUH")
    assert of(7)["FRANCE"] == "BEL BRE BUR MAR PAR PIC"
    taken = [adjudicate(first_position(BOARD), {"FRANCE": ["A PAR - BUR"]})]
    taken.append(adjudicate(taken[0].after, {"FRANCE": ["A BUR - MUN"], "GERMANY": ["A MUN - BUR"]}))
    taken.append(adjudicate(taken[1].after, {"GERMANY": ["A MUN - TYR"]}))
    taken.append(adjudicate(taken[2].after, {"FRANCE": ["A BUR - MUN"], "GERMANY": ["A TYR H"]}))
    influence = game_to_json(GameRecord.of(taken))["phases"][-1]["state"]["influence"]
    assert influence["FRANCE"] == ["BRE", "BUR", "MAR", "MUN", "PAR"]
    assert influence["GERMANY"] == ["BER", "KIE", "TYR"]


def test_builds_are_limited_to_those_due_and_to_free_home_centres():
    form = {
        "phase": "W1905A",
        "units": {"FRANCE": ["A PAR", "F LYO"], "ITALY": ["A ROM"], "RUSSIA": ["A SEV", "A UKR"], "TURKEY": ["A MOS"]},
        "centers": {
            "FRANCE": ["BEL", "BRE", "MAR", "PAR", "POR", "SPA"], "ITALY": ["ROM", "TUN", "VEN"], "RUSSIA": ["SEV"],
            "TURKEY": ["ANK", "MOS"],
        },
    }  # fmt: skip
    for phase in ("W1905A", "F1905M"):
        position = Position.from_json(form | {"phase": phase}, BOARD)
        state = game_to_json(GameRecord(BOARD, (PlayedPhase(position),)))["phases"][0]["state"]
        builds = {power: (row["count"], row["homes"]) for power, row in state["builds"].items()}
        if phase == "W1905A":
            assert builds == {
                "AUSTRIA": (0, []), "ENGLAND": (0, []), "FRANCE": (2, ["BRE", "MAR"]), "GERMANY": (0, []),
                "ITALY": (1, ["VEN"]), "RUSSIA": (-1, []), "TURKEY": (1, ["ANK"]),
            }  # fmt: skip
        else:
            assert set(map(str, builds.values())) == {"(0, [])"}
        over = game_to_json(GameRecord(BOARD, (PlayedPhase(position),), over=True))["phases"][0]["state"]
        assert over["builds"] == {power: {"count": 0, "homes": []} for power in BOARD.powers}  # the game has ended
        assert state["homes"]["RUSSIA"] == ["MOS", "SEV", "STP", "WAR"]
        assert state["civil_disorder"] == dict.fromkeys(BOARD.powers, 0)


def test_a_winter_with_disbands_is_read_back_unchanged():
    form = {"phase": "W1905A", "units": {"RUSSIA": ["A SEV", "A UKR", "F BLA"], "ITALY": ["A NAP"]},
            "centers": {"RUSSIA": ["SEV"], "ITALY": ["ROM", "NAP", "TUN"]}}  # fmt: skip
    orders = {"RUSSIA": ["A UKR D", "A SEV B"], "ITALY": ["A NAP B", "A ROM B", "F ROM B"]}
    done = adjudicate(Position.from_json(form, BOARD), orders)
    game = GameRecord.of([done])
    written = game_to_json(game)
    assert written["phases"][0]["results"] == {
        "A NAP": ["void"],
        "A ROM": [""],
        "A UKR": [""],
        "F BLA": [""],
        "A SEV": ["void"],
    }
    again = game_from_json(written)
    same(again, game)
    names = {BOARD.provinces[p].id: bits for p, bits in again.phases[0].fates.items()}
    assert names == {"NAP": VOID, "ROM": 0, "UKR": DISBANDED, "BLA": DISBANDED, "SEV": VOID}


def test_attackers_are_units_that_moved_not_those_that_bounced():
    form = {"phase": "S1905M", "units": {"GERMANY": ["A MUN", "A RUH", "A BEL"], "FRANCE": ["A BUR"]}, "centers": {}}
    orders = ["A MUN - BUR", "A BEL S A MUN - BUR", "A RUH - BUR"]
    for shuffled in itertools.permutations(orders):
        done = adjudicate(Position.from_json(form, BOARD), {"GERMANY": list(shuffled)})
        (unit,) = game_from_json(game_to_json(GameRecord.of([done]))).phases[1].position.dislodged.values()
        assert BOARD.provinces[unit.attacker].id == "MUN"
    # Nor those of another kind or power that were ordered there, whatever their results say.
    written = game_to_json(GameRecord.of([done]))
    first = written["phases"][0]
    first["state"]["units"]["ITALY"], first["orders"]["ITALY"] = ["A MAR"], ["A MAR - BUR"]
    written["phases"][1]["state"]["units"]["ITALY"] = ["A MAR"]
    (unit,) = game_from_json(written).phases[1].position.dislodged.values()
    assert BOARD.provinces[unit.attacker].id == "MUN"


def test_attackers_are_of_the_kind_that_is_there_even_without_results():
    units = {"GERMANY": ["A RUH", "F NTH"], "FRANCE": ["A BEL"]}
    form = {"phase": "S1905M", "units": units, "centers": {}}
    for orders, attacker in (
        (["A RUH - BEL", "F NTH S A RUH - BEL"], "RUH"),
        (["F NTH - BEL", "A RUH S F NTH - BEL"], "NTH"),
    ):
        done = adjudicate(Position.from_json(form, BOARD), {"GERMANY": orders})
        written = game_to_json(GameRecord.of([done]))
        written["phases"][0]["results"] = {}
        written["phases"][0]["orders"]["GERMANY"] = ["A RUH - BEL", "F NTH - BEL"]
        (unit,) = game_from_json(written).phases[1].position.dislodged.values()
        assert BOARD.provinces[unit.attacker].id == attacker


def test_attackers_are_found_in_the_phase_before(war):
    again = game_from_json(game_to_json(war))
    assert again.phases[4].position.to_json()["dislodged"]["F BEL"]["from"] == "PIC"
    alone = game_to_json(war)
    alone["phases"] = alone["phases"][4:]
    assert game_from_json(alone).phases[0].position.to_json()["dislodged"]["F BEL"]["from"] is None


def test_a_game_that_is_over(war):
    over = GameRecord(war.board, war.phases, "war", over=True, note="Victory by: FRA")
    form = game_to_json(over)
    assert (form["phases"][-1]["name"], form["phases"][-1]["state"]["name"]) == ("COMPLETED", "COMPLETED")
    same(game_from_json(form), over)


def test_files(war, tmp_path):
    path = tmp_path / "games.jsonl"
    save_games(path, [war, war])
    games = load_games(path)
    assert len(games) == 2
    same(games[1], war)
    path.write_text(json.dumps(game_to_json(war), indent=2))
    same(load_games(path)[0], war)


def test_other_boards(war):
    mini = load_board("mini")
    record = GameRecord(mini, (PlayedPhase(first_position(mini)),), map_name="mini")
    form = game_to_json(record)
    with pytest.raises(GameError, match="map: got 'mini'; wanted \"standard\", or the board"):
        game_from_json(form)
    same(game_from_json(form, mini), record)


def at(form, path, value):
    """A copy of a form with one entry replaced, or removed if the value is ``...``."""
    form = copy.deepcopy(form)
    *way, last = path
    place = form
    for key in way:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return form


@pytest.mark.parametrize(
    ("path", "value", "wanted"),
    [
        (["phases"], [], "phases: got []; wanted a list of one or more"),
        (["phases"], ..., "phases: got None"),
        (["id"], 5, "id: got 5; wanted text"),
        (["rules"], "NO_PRESS", "rules: got 'NO_PRESS'; wanted a list of texts"),
        (["phases", 1], 3, "phases[1]: got 3; wanted an object with a state"),
        (["phases", 1, "state"], ..., "phases[1]: got"),
        (["phases", 1, "name"], "F1905M", "phases[1], name: got 'F1905M'; wanted the name of the state, 'F1901M'"),
        (["phases", 1, "state", "name"], "X", "phases[1], "),
        (["phases", 1, "state", "units"], 3, "phases[1], state.units: got 3; wanted an object of lists"),
        (["phases", 1, "state", "units", "GAUL"], [], "state.units: got 'GAUL'; wanted one of AUSTRIA"),
        (["phases", 1, "state", "units", "ITALY"], [3], "state.units['ITALY']: got [3]; wanted a list of texts"),
        (["phases", 1, "state", "units", "ITALY"], ["A QQQ"], "units['ITALY']: got 'QQQ'; wanted a province"),
        (["phases", 1, "state", "units", "ITALY"], ["*A VEN"], "wanted no dislodged units in F1901M"),
        (["phases", 1, "state", "centers", "ITALY"], ["TYR"], "centers['ITALY']: got 'TYR'; wanted a centre"),
        (["phases", 4, "state", "retreats", "GERMANY"], {}, "nothing for F BEL"),
        (["phases", 4, "state", "retreats", "GERMANY"], 3, "state.retreats['GERMANY']: got 3; wanted an object"),
        (["phases", 4, "state", "retreats", "ITALY"], {"F BEL": []}, "wanted a unit of the power with a star"),
        (["phases", 4, "state", "retreats", "GERMANY", "F BEL"], ["PAR"], "got 'PAR'; wanted a neighbour of it"),
        (["phases", 1, "orders"], 3, "phases[1], orders: got 3"),
        (["phases", 1, "orders", "ITALY"], "A VEN H", "phases[1], orders['ITALY']: got 'A VEN H'"),
        (["phases", 1, "results"], 3, "phases[1], results: got 3; wanted an object"),
        (["phases", 1, "results"], {"A QQQ": []}, "wanted a unit like"),
        (["phases", 1, "results"], {"A VEN": ["won"]}, "results['A VEN']: got ['won']; wanted a list of bounce"),
    ],
)  # fmt: skip
def test_errors_name_the_wrong_field(war, path, value, wanted):
    with pytest.raises(GameError) as error:
        game_from_json(at(game_to_json(war), path, value))
    assert wanted in str(error.value)


def test_phases_in_the_wrong_order(war):
    form = game_to_json(war)
    form["phases"][0], form["phases"][1] = form["phases"][1], form["phases"][0]
    with pytest.raises(GameError, match=r"phases\[1\], name: got 'S1901M'; wanted a phase after F1901M"):
        game_from_json(form)
    form["phases"].insert(0, form["phases"][0])
    with pytest.raises(GameError, match=r"phases\[1\], name: got 'F1901M'; wanted a phase after F1901M"):
        game_from_json(form)


def test_a_truncated_file_is_refused_with_line_and_column(war, tmp_path):
    whole = json.dumps(game_to_json(war), indent=1)
    rng = random.Random(4)
    for cut in [1, 2, len(whole) - 1, *(rng.randrange(3, len(whole)) for _ in range(100))]:
        with pytest.raises(GameError, match=r"game, line \d+, column \d+: .*; wanted a whole game in JSON"):
            read_games(whole[:cut])
    path = tmp_path / "cut.jsonl"
    save_games(path, [war, war])
    lines = path.read_text()
    path.write_text(lines[: len(lines) - 100])
    with pytest.raises(GameError, match=r"cut.jsonl, line 2, column \d+"):
        load_games(path)


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"", "got no game; wanted at least one"),
        (b" \n \n", "got no game; wanted at least one"),
        (b"[]", "line 1: game: got []; wanted an object"),
        (b"\n\n3", "line 3: game: got 3; wanted an object"),
        (b"\xff{}", "invalid start byte at byte 0; wanted UTF-8"),
        (b"[" * 100_000, "wanted plain JSON"),
        (b'{"id": ' + b"9" * 5_000 + b"}", "wanted plain JSON"),
    ],
    ids=lambda content: str(content)[:20],
)
def test_files_that_are_not_games(tmp_path, content, wanted):
    path = tmp_path / "game.json"
    path.write_bytes(content)
    with pytest.raises(GameError) as error:
        load_games(path)
    assert wanted in str(error.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(GameError, match="cannot be read"):
        load_games(tmp_path / "none.json")


JUNK = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "A PAR", "COMPLETED", "*A VEN", "S1901M"])
JUNK = (
    JUNK
    | st.lists(JUNK, max_size=2)
    | st.dictionaries(st.sampled_from(["FRANCE", "A PAR", "name", "x"]), JUNK, max_size=2)
)


def places(form, way=()):
    """Paths to everything in a form."""
    for key, value in form.items() if isinstance(form, dict) else enumerate(form):
        yield (*way, key)
        if isinstance(value, dict | list):
            yield from places(value, (*way, key))


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.data())
def test_a_damaged_game_is_refused_or_read_consistently(data):
    form = game_to_json(played())
    form = at(form, data.draw(st.sampled_from(list(places(form)))), data.draw(JUNK | st.just(...)))
    try:
        game = game_from_json(form)
    except GameError as error:
        assert "wanted" in str(error)
        return
    same(game_from_json(game_to_json(game)), game)
