"""Test vectors: the DATC cases and random play, printed reports, exit status, malformed files."""

import copy
import gzip
import json
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from mlbits import cli
from mlbits.envs.core.errors import GameError
from mlbits.envs.diplomacy.board import load_board
from mlbits.envs.diplomacy.files.vectors import check_vectors, read_vectors

HERE = Path(__file__).parents[1]
BOARD = load_board()
DATC, RANDOM_PLAY = HERE / "datc.json", HERE / "differential.jsonl.gz"
FORM = {
    "id": "one",
    "before": {"phase": "S1901M", "units": {"FRANCE": ["A PAR"], "GERMANY": ["A MUN"]}, "centers": {"FRANCE": ["PAR"]}},
    "orders": {"FRANCE": ["A PAR - BUR"], "GERMANY": ["A MUN - BUR"]},
    "results": {"A PAR": ["bounce"], "A MUN": ["bounce"]},
    "after": {"phase": "F1901M", "units": {"FRANCE": ["A PAR"], "GERMANY": ["A MUN"]}, "centers": {"FRANCE": ["PAR"]}},
}


def at(path, value):
    """The vector with one entry replaced, or removed if the value is ``...``."""
    form = copy.deepcopy(FORM)
    *way, last = path
    place = form
    for key in way:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return form


def write(path, *forms):
    path.write_text(json.dumps({"vectors": forms}))
    return path


@cache
def report_of(path):
    return check_vectors(path)


@pytest.mark.parametrize(
    ("path", "counted", "deviations"),
    [
        pytest.param(DATC, {"M": 136, "R": 14, "A": 22}, 7, id="cases"),
        pytest.param(RANDOM_PLAY, {"M": 612, "R": 140, "A": 146}, 94, id="random play", marks=pytest.mark.slow),
    ],
)
def test_every_vector_that_counts_agrees(path, counted, deviations, capsys):
    assert cli.main(["diplomacy", "adjudicate", str(path)]) == 0
    said = capsys.readouterr().out
    report = report_of(path)
    assert report.differences == ()
    assert report.agree == report.counted == counted
    assert len(report.deviations) == deviations
    assert said.splitlines()[-1] == f"all: {sum(counted.values())} of {sum(counted.values())} agree"
    assert sum(len(found) for _, found in report.result_differences) < report.results / 200


@pytest.mark.slow
def test_we_do_not_repeat_the_errors_of_the_vectors_source():
    """How many vectors have each kind of deviation, and in how many of those we differ."""
    deviations = report_of(RANDOM_PLAY).deviations
    own, disrupted, retreats = (
        "own-support-counted-in-convoyed-attack", "disrupted-without-dislodgement", "retreat-list-after-convoyed-attack"
    )  # fmt: skip
    assert Counter((why, bool(found)) for _, why, found in deviations) == {
        (f"{own}, {retreats}", True): 15,
        (disrupted, True): 3,
        (retreats, True): 1,
        (retreats, False): 48,  # the right list is given in addition to the source's
        ("civil-disorder-disband", False): 25,
        ("engines-disagree", False): 2,
    }
    for _, why, found in deviations:
        if own in why:  # the source dislodges a unit with support of its own power
            assert [line for line in found if line.startswith("dislodged ") and ": got None, wanted (" in line]
        if why == disrupted:  # in the source an army does not move, though its convoying fleet stays
            assert [line for line in found if line.startswith("units ")]


def test_the_printed_report(tmp_path, capsys):
    wrong = at(["after", "units"], {"FRANCE": ["A BUR"], "GERMANY": ["A MUN"]}) | {"id": "two"}
    also = at(["after", "phase"], "S1901R") | {"id": "three", "deviation": ["engines-disagree"]}
    named = at(["results", "A PAR"], []) | {"id": "four"}
    path = write(tmp_path / "some.json", FORM, wrong, also, named)
    assert cli.main(["diplomacy", "adjudicate", str(path)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "four S1901M, other result: result of A PAR: got bounce, wanted success",
        "two S1901M: units FRANCE: got ['A PAR'], wanted ['A BUR']",
        "three S1901M, not counted (engines-disagree): phase: got F1901M, wanted S1901R",
        "movement: 2 of 3 agree",
        "not counted: 1 with a deviation, of which 0 agree",
        "results: 5 of 6 agree",
        "all: 2 of 3 agree",
    ]


def test_results_count_if_asked_for(tmp_path, capsys):
    path = str(write(tmp_path / "one.json", FORM, at(["results", "A PAR"], [])))
    assert cli.main(["diplomacy", "adjudicate", path]) == 0
    assert cli.main(["diplomacy", "adjudicate", path, "--results"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "all: 1 of 2 agree"


@pytest.mark.parametrize(
    ("path", "value", "found"),
    [
        (["after", "phase"], "S1901R", "phase: got F1901M, wanted S1901R"),
        (["after", "centers"], {}, "centers FRANCE: got ['PAR'], wanted None"),
        (["after", "destroyed"], ["A PAR"], "destroyed units: got (), wanted ('A PAR',)"),
        (["results", "A PAR"], ["bounce", "dislodged"], "result of A PAR: got bounce, wanted bounce, dislodged"),
        (["results", "A PAR"], ..., "result of A PAR: got bounce, wanted success"),
        (["orders", "FRANCE"], ["A PAR - PIC"], "units FRANCE: got ['A PIC'], wanted ['A PAR']"),
        (["orders", "FRANCE"], ["A PAR - PAR"], "result of A PAR: got void, wanted bounce"),
    ],
)
def test_each_difference_is_found(tmp_path, path, value, found):
    report = check_vectors(write(tmp_path / "one.json", at(path, value)), results=True)
    assert found in report.differences[0][1]
    assert not report.good


def test_ignored_orders_are_not_reported_as_void(tmp_path):
    form = at(["orders", "FRANCE"], ["A PAR - PAR"])
    form |= {"results": {}, "ignored": {"FRANCE": ["A PAR - PAR"]}}
    form["after"]["units"] = {"FRANCE": ["A PAR"], "GERMANY": ["A BUR"]}
    assert check_vectors(write(tmp_path / "one.json", form), results=True).good


def test_retreats_by_the_rules_take_precedence_over_the_sources(tmp_path):
    units = {"GERMANY": ["A BUR", "A RUH"]}
    out = {"power": "FRANCE", "from": "MUN", "retreats": ["GAS"], "retreats_rules": ["BEL", "GAS", "PAR", "PIC", "MAR"]}
    form = {
        "id": "out",
        "before": {"phase": "S1901M", "units": {"FRANCE": ["A BUR"], "GERMANY": ["A MUN", "A RUH"]}, "centers": {}},
        "orders": {"GERMANY": ["A MUN - BUR", "A RUH S A MUN - BUR"]},
        "results": {"A BUR": ["dislodged"]},
        "after": {"phase": "S1901R", "units": units, "centers": {}, "dislodged": {"A BUR": out}},
    }  # fmt: skip
    assert check_vectors(write(tmp_path / "one.json", form)).good
    del out["retreats_rules"]
    report = check_vectors(write(tmp_path / "one.json", form))
    assert report.differences[0][1][0].startswith("retreats A BUR: got ['BEL'")


def test_a_game_that_is_over_has_no_next_phase_to_compare(tmp_path):
    form = at(["after", "phase"], "COMPLETED")
    form["after"]["outcome"] = "draw"
    assert check_vectors(write(tmp_path / "one.json", form)).good


def test_all_forms_of_files_are_read(tmp_path):
    lines = json.dumps(FORM) + "\n\n" + json.dumps(FORM) + "\n"
    contents = {
        "object.json": json.dumps({"vectors": [FORM, FORM]}).encode(),
        "pretty.json": json.dumps([FORM, FORM], indent=2).encode(),
        "lines.jsonl": lines.encode(),
        "marked.jsonl": b"\xef\xbb\xbf" + lines.encode(),
        "lines.jsonl.gz": gzip.compress(lines.encode()),
        "odd_name": gzip.compress(json.dumps([FORM, FORM]).encode()),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        assert [vector.id for vector in read_vectors(tmp_path / name, BOARD)] == ["one", "one"]


@pytest.mark.parametrize(
    ("path", "value", "wanted"),
    [
        (["id"], ..., "id: got None; wanted text"),
        (["before"], ..., "before: got None; wanted an object"),
        (["before", "phase"], "S1901", "before: position, phase: got 'S1901'"),
        (["before", "units", "FRANCE"], ["A QQQ"], "before: position, units['FRANCE']: got 'QQQ'"),
        (["orders"], [], "orders: got []; wanted an object"),
        (["orders", "GAUL"], [], "orders: got 'GAUL'; wanted one of AUSTRIA"),
        (["orders", "FRANCE"], "A PAR H", "orders['FRANCE']: got 'A PAR H'; wanted a list of texts"),
        (["orders", "FRANCE"], [3], "orders['FRANCE']: got [3]; wanted a list of texts"),
        (["ignored"], 3, "ignored: got 3; wanted an object of lists"),
        (["results", "PAR"], [], "results: got 'PAR'; wanted a unit like"),
        (["results", "A PAR"], ["won"], "results['A PAR']: got 'won'; wanted one of ok, bounce"),
        (["after", "destroyed"], "A PAR", "after, destroyed: got 'A PAR'; wanted a list of units"),
        (["after", "units"], 3, "after: position, units: got 3"),
    ],
)
def test_errors_name_the_wrong_field_and_its_place(tmp_path, path, value, wanted):
    form = at(path, value)
    with pytest.raises(GameError) as error:
        check_vectors(write(tmp_path / "one.json", FORM, form))
    assert f"one.json, vectors[1]: {wanted}" in str(error.value)
    lines = tmp_path / "lines.jsonl"
    lines.write_text(json.dumps(FORM) + "\n\n" + json.dumps(form) + "\n")
    with pytest.raises(GameError) as error:
        check_vectors(lines)
    assert f"lines.jsonl, line 3: {wanted}" in str(error.value)


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"", "line 1, column 1: Expecting value; wanted JSON"),
        (b"{}", "got no vectors"),
        (b"3", "got no vectors"),
        (b"[3]", "vectors[0]: vector: got 3; wanted an object"),
        (b'{"vectors": [\n{"id": "x",', "line 2, column 12"),
        (json.dumps(FORM).encode() + b'\n{"id": ', "line 2, column 8"),
        (b"\n\n\xff", "line 3: invalid start byte; wanted UTF-8"),
        (b"[" * 100_000, "wanted plain JSON"),
        (gzip.compress(json.dumps(FORM).encode() * 400, mtime=0)[:-30], "wanted a whole gzip file"),
        (b"\x1f\x8b rubbish", "wanted a whole gzip file"),
    ],
    ids=lambda content: str(content)[:20],
)
def test_files_that_are_not_vectors(tmp_path, content, wanted):
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(GameError) as error:
        check_vectors(path)
    assert wanted in str(error.value)


def test_mistakes_on_the_command_line(tmp_path, capsys):
    assert cli.main(["diplomacy", "adjudicate", str(tmp_path / "none.json")]) == 2
    assert "cannot be read (No such file or directory)" in capsys.readouterr().err
    assert cli.main(["diplomacy", "adjudicate", str(DATC), "--rules", "mine"]) == 2
    assert "rules: got 'mine'; wanted one of 'datc-2.4', 'datc-3.0'" in capsys.readouterr().err
    assert cli.main(["diplomacy", "judge"]) == 2
    assert "unknown diplomacy command 'judge'" in capsys.readouterr().err
    assert cli.main(["diplomacy", "adjudicate", str(write(tmp_path / "x.json", FORM)), "--map", "mini"]) == 2
    assert "vectors[0]: before: position, units" in capsys.readouterr().err
