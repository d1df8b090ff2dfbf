"""Positions as one line of text."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbits.envs.core.errors import GameError
from mlbits.envs.diplomacy.board import load_board
from mlbits.envs.diplomacy.files.position_line import MAX_LENGTH, position_text, read_position_text
from mlbits.envs.diplomacy.position import Position, first_position

HERE = Path(__file__).parents[1]
BOARD = load_board()
LINE = "F1901R FRANCE:ABUR,FSPA/SC;GERMANY:AMUN FRANCE:PAR,SPA;GERMANY:MUN FRANCE:AMUN<BUR>BOH+TYR"


def test_the_first_position():
    assert position_text(first_position(BOARD)) == (
        "S1901M AUSTRIA:ABUD,FTRI,AVIE;ENGLAND:FEDI,FLON,ALVP;FRANCE:FBRE,AMAR,APAR;GERMANY:ABER,FKIE,AMUN;"
        "ITALY:FNAP,AROM,AVEN;RUSSIA:AMOS,FSEV,AWAR,FSTP/SC;TURKEY:FANK,ACON,ASMY "
        "AUSTRIA:BUD,TRI,VIE;ENGLAND:EDI,LON,LVP;FRANCE:BRE,MAR,PAR;GERMANY:BER,KIE,MUN;ITALY:NAP,ROM,VEN;"
        "RUSSIA:MOS,SEV,STP,WAR;TURKEY:ANK,CON,SMY -"
    )


def test_the_content_of_a_line():
    now = read_position_text(LINE, BOARD)
    assert now.to_json() == {
        "phase": "F1901R",
        "units": {"FRANCE": ["A BUR", "F SPA/SC"], "GERMANY": ["A MUN"]},
        "centers": {"FRANCE": ["PAR", "SPA"], "GERMANY": ["MUN"]},
        "dislodged": {"A MUN": {"power": "FRANCE", "from": "BUR", "retreats": ["BOH", "TYR"]}},
    }
    assert position_text(now) == LINE


@pytest.mark.parametrize(
    "line",
    [
        "S1901M - - -",
        "W1950A TURKEY:AARM - -",
        "S1901R - - FRANCE:AMUN<?>",
        "S1901R - - FRANCE:FMAO<?>SPA/NC+SPA/SC",
    ],
)
def test_small_positions(line):
    assert position_text(read_position_text(line, BOARD)) == line


def test_positions_on_different_boards_differ():
    assert read_position_text(LINE, load_board()) != read_position_text(LINE, BOARD)
    assert position_text(read_position_text("S30000M - - -", BOARD)) == "S30000M - - -"


def test_any_order_is_read():
    fields = LINE.split()
    fields[1] = "GERMANY:AMUN;FRANCE:FSPA/SC,ABUR"
    fields[3] = "FRANCE:AMUN<BUR>TYR+BOH"
    assert position_text(read_position_text("  ".join(fields), BOARD)) == LINE


def test_every_position_of_the_vectors_is_read_back_unchanged():
    lines = gzip.decompress((HERE / "differential.jsonl.gz").read_bytes()).splitlines()[:400]
    vectors = [json.loads(line) for line in lines] + json.loads((HERE / "datc.json").read_text())["vectors"]
    for vector in vectors:
        for form in (vector["before"], vector["after"]):
            now = Position.from_json(form, BOARD)
            line = position_text(now)
            again = read_position_text(line, BOARD)
            assert again == now
            assert position_text(again) == line
            assert "\n" not in line


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("S1901M - -", "text: got 3 fields; wanted four: phase, units, centres, dislodged"),
        ("X1901M - - -", "phase: got 'X1901M'"),
        ("S30001M - - -", "phase: got 'S30001M'"),
        ("S1901M GAUL:APAR - -", "units: got 'GAUL:APAR'; wanted POWER:item,item with each once of AUSTRIA"),
        ("S1901M FRANCE:APAR;FRANCE:ABUR - -", "units: got 'FRANCE:ABUR'"),
        ("S1901M FRANCE - -", "units: got 'FRANCE'"),
        ("S1901M FRANCE: - -", "units: got ''; wanted one like APAR"),
        ("S1901M FRANCE:PAR - -", "units: got 'PAR'; wanted one like APAR"),
        ("S1901M FRANCE:AXYZ - -", "units['FRANCE']: got 'XYZ'"),
        ("S1901M FRANCE:FPAR - -", "wanted a place where such a unit can be"),
        ("S1901M FRANCE:APAR;ITALY:APAR - -", "wanted one unit per province"),
        ("S1901M - FRANCE:BUR -", "centers['FRANCE']: got 'BUR'; wanted a centre"),
        ("S1901M - FRANCE:PAR;ITALY:PAR -", "centers['ITALY']: got 'PAR'; wanted a centre, each once"),
        ("S1901M - - FRANCE:AMUN<BUR>BOH", "wanted none outside retreats"),
        ("S1901R - - FRANCE:AMUN<BUR>BOH+BOH", "wanted each place once"),
        ("S1901R - - FRANCE:AMUN<BUR>BOH,AMUN<BUR>TYR", "wanted each unit once"),
        ("S1901R - - FRANCE:AMUN<BUR>BOH;ITALY:AMUN<BUR>TYR", "wanted each unit once"),
        ("S1901R - - FRANCE:AMUN<BUR>PAR", "wanted a neighbour of it"),
        ("S1901R - - FRANCE:AMUN", "dislodged: got 'AMUN'; wanted one like AMUN<BUR>BOH+TYR"),
        ("S" * (MAX_LENGTH + 1), "wanted a text of at most"),
        (None, "got NoneType; wanted a text"),
    ],
)
def test_errors_name_the_wrong_field(line, wanted):
    with pytest.raises(GameError) as error:
        read_position_text(line, BOARD)
    assert wanted in str(error.value)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.integers(0, len(LINE)), st.integers(0, 6), st.text(" -:;,<>?+/AFMUNSPBOHTYR1R\0é", max_size=6))
def test_a_damaged_line_is_refused_or_read_consistently(at, cut, put):
    line = LINE[:at] + put + LINE[at + cut :]
    try:
        now = read_position_text(line, BOARD)
    except GameError as error:
        assert "wanted" in str(error)
        return
    assert read_position_text(position_text(now), BOARD) == now
    assert sorted(position_text(now)) == sorted("".join(" " + field for field in line.split())[1:])
