"""A random game of every environment is replayed and compared with its transcript."""

import pytest

from tests import golden

LARGE = ("Diplomacy-v0", "DiplomacyFvA-v0")  # half a minute to compile each
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in golden.games()]


@pytest.mark.parametrize("name", NAMES)
def test_a_game_replays_its_transcript(name):
    wanted = golden.path_of(name).read_text(encoding="utf-8")
    got = golden.transcript(name)
    assert got.splitlines() == wanted.splitlines(), f"if that is meant: python -m tests.golden {name}"


def test_every_transcript_is_of_a_game_and_short():
    kept = {path.stem: path for path in golden.FOLDER.glob("*.txt")}
    assert kept.keys() == golden.games().keys(), "a new game: python -m tests.golden NAME"
    assert max(path.stat().st_size for path in kept.values()) < 10_000


def test_some_games_end_and_some_are_cut():
    texts = [path.read_text(encoding="utf-8") for path in golden.FOLDER.glob("*.txt")]
    ends = {text.splitlines()[-1] for text in texts}
    assert {"terminated", "truncated"} <= ends


def test_numbers_are_the_same_on_every_processor():
    assert golden.numbers([-0.0, 1.0, 1 / 3, 123456789.0]) == "0 1 0.333333 1.23457e+08"
    many = [0.1 + 1e-9, *[0.0] * 30]
    assert golden.numbers(many) == golden.numbers([0.1, *[-0.0] * 30])
    assert golden.numbers(many) != golden.numbers([0.2, *[0.0] * 30])
    assert golden.numbers(many).startswith("1 of 31, ")


def test_a_transcript_depends_on_its_settings():
    assert golden.transcript("GridWorld-v0") != golden.transcript("GridWorld-v0-slippery-maze")
