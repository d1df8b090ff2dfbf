"""A short run of the fuzzer over every reader, and over the kept inputs, each of which was a fault once."""

import random

import pytest

from mlbits.envs.core.errors import MlbitsError
from tests.fuzz.damage import ODD, damaged
from tests.fuzz.readers import READERS, Reader
from tests.fuzz.run import CORPUS, fuzz, kept

PLAIN = [name for name in READERS if not name.startswith("state-")]
COMPILED = ("fen", "pgn", "san", "uci", "uci-moves")  # these compile chess


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in COMPILED else []) for name in PLAIN]
)
def test_no_fault_in_some_inputs(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # where faults are written
    report = fuzz(name, 60, seed=7)
    assert not report.faults, report.faults
    assert report.inputs >= 60 + len(kept(name))
    assert report.accepted < report.inputs or name in ("uci", "metrics"), "nothing was refused: is it read at all?"


def test_the_kept_inputs_have_readers():
    folders = {path.name for path in CORPUS.iterdir()}
    assert folders and folders <= set(READERS)


def test_inputs_are_a_function_of_the_seed():
    seeds = [b'{"a": [1, 2.5, "x"], "b": {"c": null}}', b"plain text\n"]
    runs = [[damaged(seeds, random.Random(seed)) for _ in range(50)] for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]
    assert len(set(runs[0])) == 1
    draw = random.Random(3)
    made = {damaged(seeds, draw) for _ in range(2000)}
    assert len(made) > 1000
    assert any(b"[[[[[[" in one for one in made) and any(b"../.." in one for one in made) and len(ODD) > 50


@pytest.mark.parametrize(
    ("reads", "fault"),
    [
        (lambda data: [][1], "IndexError"),
        pytest.param(lambda data: sum(range(3 * 10**8)), "CPU", marks=pytest.mark.slow),
        (lambda data: (_ for _ in ()).throw(MlbitsError("x" * 200_000)), "an error of 200000 characters"),
    ],
)
def test_faults_are_seen(reads, fault, monkeypatch, tmp_path):
    """Another exception, too much time, an endless error: each is reported once, and its input kept."""
    import contextlib

    from tests.fuzz import run

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "MOST_SECONDS", 0.5)
    sound = [True]

    def read(data):
        if sound:
            sound.clear()
            return
        reads(data)

    @contextlib.contextmanager
    def reader():
        yield Reader([b"sound"], read)

    monkeypatch.setitem(READERS, "broken", reader)
    report = fuzz("broken", 2)
    assert len(report.faults) == 1
    assert fault in report.faults[0] or (fault == "CPU" and " s at slow" in report.faults[0])
    assert len(list((tmp_path / "fuzz-faults" / "broken").iterdir())) == 1
