"""Games written by the ``diplomacy`` package, and new ones if it is installed: read, adjudicated, written back."""

import copy
import gzip
import json
from pathlib import Path

import pytest

from mlbits.envs.core.errors import GameError
from mlbits.envs.diplomacy.board import load_board
from mlbits.envs.diplomacy.codes import DISBANDED, VOID
from mlbits.envs.diplomacy.files.saved_games import GameRecord, game_from_json, game_to_json, load_games, save_games
from mlbits.envs.diplomacy.files.vectors import read_vectors
from mlbits.envs.diplomacy.position import Position, first_position
from mlbits.envs.diplomacy.report import adjudicate
from tests.envs.diplomacy.files.package_games import play

LINES = gzip.decompress((Path(__file__).parent / "package_games.jsonl.gz").read_bytes()).decode().splitlines()
FORMS = {form["id"]: form for form in map(json.loads, LINES)}
BOARD, VECTORS = load_board(), Path(__file__).parents[1] / "differential.jsonl.gz"


def phase(game, name):
    return next(phase for phase in game.phases if phase.position.phase_name == name)


def fates(played):
    """Fates (bits) by name of province."""
    return {BOARD.provinces[p].id: bits for p, bits in played.fates.items()}


def unordered(value):
    """A JSON form with its lists of strings sorted: the order of units and centres has no meaning."""
    if isinstance(value, dict):
        return {key: unordered(inner) for key, inner in value.items()}
    return sorted(value) if isinstance(value, list) and all(isinstance(text, str) for text in value) else value


def same(a, b):
    """Whether two forms are the same game, down to the hash."""
    without = [{**form, "phases": []} for form in (a, b)]
    assert without[0] == without[1]
    assert len(a["phases"]) == len(b["phases"])
    for one, other in zip(a["phases"], b["phases"], strict=True):
        assert one.keys() == other.keys()
        assert unordered(one["state"]) == unordered(other["state"]), one["name"]
        for key in one.keys() - {"state"}:
            assert one[key] == other[key], (one["name"], key)


def test_the_sample_contains_the_situations_it_was_chosen_for():
    """A unit without a retreat, reported in retreats and in adjustments, with and without another unit of its name."""
    results = {(name, row["name"]): row for name, form in FORMS.items() for row in form["phases"]}
    picked = [
        ("package-256", "W1904A", "A DEN"),
        ("package-287", "F1906R", "A LVN"),
        ("package-300", "W1902A", "F ARM"),
    ]
    for name, when, unit in picked:
        row = results[name, when]
        assert row["results"][unit] == ["disband"]
        assert f"*{unit}" not in {unit for units in row["state"]["units"].values() for unit in units}
    standing = {unit for units in results["package-300", "W1902A"]["state"]["units"].values() for unit in units}
    assert "F ARM" in standing
    assert {form["phases"][-1]["name"] for form in FORMS.values()} == {"S1905M", "W1906A", "COMPLETED"}


@pytest.mark.parametrize("name", FORMS)
def test_every_phase_is_adjudicated_as_in_the_package(name):
    game = game_from_json(FORMS[name])
    for before, after in zip(game.phases[: -1 - game.over], game.phases[1:], strict=False):
        done = adjudicate(before.position, before.orders)
        assert done.after == after.position
        bits = {p: bits for p, bits in before.fates.items() if bits}
        unread = set(before.fates) - set(done.unit_fates)  # void orders, which the package's files do not have
        got = {p: bits for p, bits in done.unit_fates.items() if bits}
        assert got | {p: VOID for p in unread if bits.get(p)} == bits


@pytest.mark.parametrize("name", FORMS)
def test_a_game_is_written_as_it_was_read(name):
    form = copy.deepcopy(FORMS[name])
    form["phases"][0]["messages"] = [{"sender": "ITALY", "recipient": "GLOBAL", "phase": "S1901M", "message": "hello"}]
    form["phases"][1]["state"]["note"] = "by hand"
    again = game_to_json(game_from_json(form))
    same(json.loads(json.dumps(again)), form)
    assert game_from_json(again) == game_from_json(form)


def test_a_unit_destroyed_before_has_no_fate_in_the_phase_that_reports_it():
    game = game_from_json(FORMS["package-287"])
    assert fates(phase(game, "F1906R")) == {"BRE": 0, "DEN": 0}
    game = game_from_json(FORMS["package-300"])
    assert fates(phase(game, "W1902A")) == {"CON": 0, "SMY": VOID}
    game = game_from_json(FORMS["package-256"])
    reported = {"BUD": 0, "EDI": 0, "LON": 0, "LVP": VOID, "SEV": 0, "STP": 0}
    assert {p: bits for p, bits in fates(phase(game, "W1904A")).items() if bits or p in reported} == reported


def test_orders_not_yet_carried_out_are_kept():
    for name in ("package-256", "package-287"):
        form, game = FORMS[name], game_from_json(FORMS[name])
        last = form["phases"][-1]["orders"]
        assert any(last.values())
        assert game.phases[-1].orders == {power: tuple(texts) for power, texts in last.items() if texts is not None}
        assert game.phases[-1].fates is None


@pytest.mark.parametrize("name", FORMS)
def test_files_of_version_1_0_without_retreats(name):
    game, form = game_from_json(FORMS[name]), copy.deepcopy(FORMS[name])
    for row in form["phases"]:
        del row["state"]["retreats"]
    assert [p.position for p in game_from_json(form).phases] == [p.position for p in game.phases]


def test_retreats_are_derived_from_orders_and_results():
    """In every random position with dislodged units, and for a unit dislodged by the one that it met head on."""
    found = 0
    phases = [(vector.before, vector.orders) for vector in read_vectors(VECTORS, BOARD) if vector.after.dislodged]
    units = {"GERMANY": ["A BER", "A SIL"], "RUSSIA": ["A PRU", "A KIE"], "ENGLAND": ["F DEN", "F HEL"]}
    orders = {
        "GERMANY": ["A BER - PRU", "A SIL S A BER - PRU"], "RUSSIA": ["A PRU - BER"],
        "ENGLAND": ["F DEN - KIE", "F HEL S F DEN - KIE"],
    }  # fmt: skip
    phases.append((Position.from_json({"phase": "S1905M", "units": units, "centers": {}}, BOARD), orders))
    for before, given in phases:
        done = adjudicate(before, given)
        form = game_to_json(GameRecord.of([done]))
        for row in form["phases"]:
            del row["state"]["retreats"]
        if done.after.dislodged:
            assert game_from_json(form).phases[1].position.to_json() == done.after.to_json()
            found += 1
    assert found > 150
    assert done.after.to_json()["dislodged"]["A KIE"]["retreats"] == ["BER", "HOL", "MUN", "RUH"]


@pytest.mark.parametrize("name", FORMS)
def test_a_game_may_start_in_any_phase(name):
    game = game_from_json(FORMS[name])
    for start in range(1, len(game.phases) - 1):
        late = game_from_json(FORMS[name] | {"phases": FORMS[name]["phases"][start:]})
        assert late.phases[1:] == game.phases[start + 1 :]
        first, whole = late.phases[0].position.to_json(), game.phases[start].position.to_json()
        for out in (first, whole):
            for row in out.get("dislodged", {}).values():
                del row["from"]  # the phase before shows it
        assert first == whole
        assert fates(late.phases[0]) == fates(game.phases[start])


def winter(results, **units):
    """The fates of a winter with the given results; Germany owns BER, KIE and MUN."""
    state = {"name": "W1901A", "units": {"GERMANY": [], **units}, "centers": {"GERMANY": ["BER", "KIE", "MUN"]}}
    form = {"phases": [{"name": "W1901A", "state": state, "orders": {}, "results": results, "messages": []}] * 1}
    form["phases"].append({"name": "S1902M", "state": {**state, "name": "S1902M"}})
    return fates(game_from_json(form).phases[0])


@pytest.mark.parametrize(
    ("results", "units", "wanted"),
    [
        ({"A BER": [""], "F KIE": ["ok"], "A MUN": ["void"]}, {}, {"BER": 0, "KIE": 0, "MUN": VOID}),
        ({"A BER": ["void"], "F BER": [""]}, {}, {"BER": 0}),  # one was built
        ({"F BER": [""], "A BER": ["void"]}, {}, {"BER": 0}),
        ({"A BER": ["void", ""]}, {}, {"BER": 0}),
        ({"A GAL": [""], "A UKR": ["void"]}, {"RUSSIA": ["A GAL", "A UKR"]}, {"GAL": DISBANDED, "UKR": VOID}),
        ({"A GAL": ["disband"]}, {}, {}),
        ({"A GAL": ["disband"]}, {"RUSSIA": ["A GAL"]}, {}),
        ({"A GAL": ["void", "disband"]}, {"RUSSIA": ["A GAL"]}, {"GAL": VOID}),
        ({"WAIVE": ["void", "void"]}, {}, {}),
    ],
)
def test_results_of_adjustments(results, units, wanted):
    assert winter(results, **units) == wanted


def test_results_of_units_that_are_not_on_the_board():
    """Void ones occur in any phase; others need a unit that is on the board, or was until now."""
    form = copy.deepcopy(FORMS["package-287"])
    at = next(i for i, row in enumerate(form["phases"]) if row["name"] == "F1906R")
    for row in (form["phases"][at], form["phases"][0]):
        row["results"]["F NAF"] = ["void"]
    game = game_from_json(form)
    assert fates(game.phases[at]) == {"BRE": 0, "DEN": 0}
    assert len(game.phases[0].fates) == 22
    for words, where in ((["disband"], at), (["bounce"], at), ([], at), (["disband"], 0)):
        wrong = copy.deepcopy(form)
        wrong["phases"][where]["results"]["F NAF"] = words
        with pytest.raises(GameError, match=r"results\['F NAF'\]: got 'F NAF'; wanted a unit that is on the board"):
            game_from_json(wrong)


@pytest.mark.parametrize("map_name", ["ancmed", "modern", "pure", "standard_france_austria", "standard_fleet_rome"])
def test_other_maps_of_the_package_are_refused(map_name):
    form = FORMS["package-300"] | {"map": map_name}
    with pytest.raises(GameError, match=f"map: got '{map_name}'; wanted \"standard\", or the board as an argument"):
        game_from_json(form)


def own(name):
    """The same game, adjudicated here from the file's orders only."""
    read = game_from_json(FORMS[name])
    now, done = first_position(BOARD), []
    for played in read.phases[:-1]:
        done.append(adjudicate(now, played.orders))
        now = done[-1].after
    return GameRecord.of(done, id=name, rules=read.rules, note=read.note, over=read.over)


@pytest.mark.parametrize("name", FORMS)
def test_a_game_adjudicated_here_is_written_as_the_package_wrote_it(name):
    mine, theirs = game_to_json(own(name)), FORMS[name]
    for one, other in zip(mine["phases"][: -1 - own(name).over], theirs["phases"], strict=False):
        assert one["orders"] == other["orders"]
        for key in (
            "name",
            "units",
            "retreats",
            "centers",
            "homes",
            "builds",
            "civil_disorder",
            "map",
            "rules",
            "note",
        ):
            assert unordered(one["state"][key]) == unordered(other["state"][key]), (one["name"], key)
        reported = {unit: words for unit, words in other["results"].items() if unit in one["results"]}
        assert one["results"] == reported
        only = {unit: words for unit, words in other["results"].items() if unit not in reported}
        assert all(unit == "WAIVE" or set(words) <= {"void", "disband"} for unit, words in only.items())
    if mine["phases"][-1]["name"] == "COMPLETED":
        assert unordered(mine["phases"][-1]["state"]["builds"]) == unordered(theirs["phases"][-1]["state"]["builds"])


def test_new_games_of_the_installed_package(tmp_path):
    """If it is installed (extra ``peers``): 12 games stay unchanged when we read and write them."""
    pytest.importorskip("diplomacy")
    from diplomacy.utils.export import is_valid_saved_game, load_saved_games_from_disk, to_saved_game_format

    rules = [None, ["NO_PRESS", "DONT_SKIP_PHASES"], ["NO_PRESS", "CIVIL_DISORDER"]]
    forms = [play(1, 6)]
    forms += [play(seed, 40, ("", "orders", "draw")[seed % 3], rules[seed % 3]) for seed in range(12)]
    path, again = tmp_path / "games.jsonl", tmp_path / "again.jsonl"
    path.write_text("".join(json.dumps(form) + "\n" for form in forms))
    games = load_games(path)
    save_games(again, games)
    for form, line, game in zip(forms, again.read_text().splitlines(), load_saved_games_from_disk(again), strict=True):
        same(json.loads(line), form)
        theirs = json.loads(json.dumps(to_saved_game_format(game)))
        theirs["phases"][-1]["state"]["timestamp"] = form["phases"][-1]["state"]["timestamp"]  # there the current time
        same(theirs, form)
    assert is_valid_saved_game(forms[0])
    assert is_valid_saved_game(json.loads(again.read_text().splitlines()[0]))
    save_games(again, [own(name) for name in FORMS])
    for game, name in zip(load_saved_games_from_disk(again), FORMS, strict=True):
        form = json.loads(json.dumps(to_saved_game_format(game)))
        mine = json.loads(json.dumps(game_to_json(own(name))))
        for one, other in zip(form["phases"][:-1], mine["phases"][:-1], strict=True):
            assert one == other
        for key in ("name", "units", "retreats", "centers", "homes", "influence"):
            last = [unordered(rows["phases"][-1]["state"][key]) for rows in (form, mine)]
            assert last[0] == last[1]
