"""Limits of JSON from strangers, and their texts on a terminal, on a page and as paths."""

import gzip
import json

import pytest

from mlbits.cli import main
from mlbits.envs.core.errors import GameError
from mlbits.envs.core.plain_json import MOST_DEPTH, PlainJsonError, read_bytes, read_json, read_json_at
from mlbits.envs.core.printing import printable
from mlbits.envs.diplomacy.board import load_board
from mlbits.envs.diplomacy.files import vectors
from mlbits.evals.tournament.match_table import MatchTableError, read_matches


@pytest.mark.parametrize("depth", [101, 900, 200_000])
@pytest.mark.parametrize(("left", "right"), [("[", "]"), ('{"a":', "}")])
def test_nesting_has_a_limit(depth, left, right):
    deepest = left * (MOST_DEPTH - 1) + "1" + right * (MOST_DEPTH - 1)
    assert json.dumps(read_json(deepest), separators=(",", ":")) == deepest
    with pytest.raises(PlainJsonError, match="nested more than 100 deep"):
        read_json(left * depth + "1" + right * depth)


def test_wide_is_not_deep():
    wide = [[k] for k in range(1000)]
    assert read_json(json.dumps(wide)) == wide


def test_digits_have_a_limit():
    assert read_json(f'[{10**39}, "{"9" * 100}"]') == [10**39, "9" * 100]
    for digits in (41, 400, 5000):
        with pytest.raises(PlainJsonError, match=f"a number of {digits} digits; wanted at most 40"):
            read_json(f'{{"a": {"1" * digits}}}')


@pytest.mark.parametrize("text", ["", "{", "[1] 2", b"\xff", '{"a": }'])
def test_other_text_is_refused_as_json_does(text):
    with pytest.raises(ValueError):
        read_json(text)


def test_values_in_a_row_and_files(tmp_path):
    text = '{"a": 1} [2]'
    value, end = read_json_at(text, 0)
    assert value == {"a": 1} and read_json_at(text, end + 1) == ([2], len(text))
    (tmp_path / "file").write_bytes(b"x" * 11)
    assert len(read_bytes(tmp_path / "file", 11)) == 11
    with pytest.raises(PlainJsonError, match="larger than 10 bytes"):
        read_bytes(tmp_path / "file", 10)


def test_what_a_terminal_obeys_is_escaped():
    assert printable("plain é ♞ text") == "plain é ♞ text"
    assert printable("\x1b[2J\u202egpj\x9b\ud800\n") == r"\x1b[2J\u202egpj\x9b\ud800\n"
    assert printable("a\nb", keep="\n") == "a\nb"


def test_errors_of_the_command_line_are_one_printable_line(tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps({"agent": "\x1b[2J\n" + "x" * 9000}))
    assert main(["eval", str(tmp_path / "\x1b[31mrun")]) == 2
    assert main(["diplomacy", "draw", str(tmp_path / "config.json")]) == 2
    (tmp_path / "vectors.json").write_text(json.dumps([{"id": "\x1b[2J" * 3000}]))
    assert main(["diplomacy", "adjudicate", str(tmp_path / "vectors.json")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 3 and "\x1b" not in said and max(map(len, said.split("\n"))) < 2100


def test_a_small_file_does_not_unpack_to_a_large_one(tmp_path, monkeypatch):
    path = tmp_path / "bomb.json.gz"
    path.write_bytes(gzip.compress(b" " * 40_000_000))
    assert path.stat().st_size < 100_000
    with pytest.raises(GameError, match=r"bomb.json.gz: its [\d,]+ bytes unpack to more than 33,554,432"):
        list(vectors.read_vectors(path, load_board()))
    monkeypatch.setattr(vectors, "MOST_UNPACKED", 10)
    path.write_bytes(gzip.compress(b"[]" + b" " * 20))
    with pytest.raises(GameError, match="more than 10"):
        list(vectors.read_vectors(path, load_board()))


def test_nesting_in_a_table_is_named_by_its_line(tmp_path):
    path = tmp_path / "matches.jsonl"
    head = {"table": "mlbits matches", "version": 1, "env": "a", "env_settings": {}, "seats": 2}
    path.write_text(json.dumps(head) + "\n" + "[" * 5000 + "]" * 5000 + "\n")
    with pytest.raises(MatchTableError, match="line 2"):
        read_matches(path)
