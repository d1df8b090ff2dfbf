"""Damaged files of the cache of machine code are thrown away and made again; code is checked by a digest."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from tests.envs.engine.test_driver import PLAY, python, write_files


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a game's rules, a script that plays it, and a full cache."""
    folder = tmp_path_factory.mktemp("cached")
    (folder / "rules").mkdir()
    write_files(folder / "rules")
    (folder / "play.py").write_text(PLAY)
    assert play(folder) == "321.0 0 1"
    assert play(folder) == "321.0 1 0"
    return folder


def play(folder: Path) -> str:
    """Reward, hits and misses of the cache, in a process of its own."""
    return python(str(folder / "play.py"), str(folder / "rules"), cache=folder / "cache")


def files(folder: Path, ending: str) -> list[Path]:
    found = sorted((folder / "cache" / "drivers").rglob(f"mlbits_driver_Tiny*run-*.{ending}"))
    assert len(found) == 1
    return found


def flip(path: Path, place: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] ^= 16
    path.write_bytes(data)


DAMAGES = {
    "empty index": ("nbi", lambda path: path.write_bytes(b"")),
    "cut code": ("nbc", lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])),
    "flipped index": ("nbi", lambda path: flip(path, 0.7)),
    "flipped code": ("nbc", lambda path: flip(path, 0.6)),
}


SLOW = ("cut code", "flipped index")


@pytest.mark.parametrize(
    "damage", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in DAMAGES]
)
def test_a_damaged_file_is_compiled_anew_and_is_whole_again(damage: str, compiled: Path) -> None:
    ending, spoil = DAMAGES[damage]
    for path in files(compiled, ending):
        spoil(path)
    assert play(compiled) == "321.0 0 1"
    assert play(compiled) == "321.0 1 0"


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["nbi", "nbc", "py"])
@pytest.mark.parametrize("place", [0.0, 0.05, 0.3, 0.9, 1.0])
def test_a_flipped_bit_anywhere(ending: str, place: float, compiled: Path) -> None:
    for path in (compiled / "cache" / "drivers").rglob(f"*.{ending}"):
        flip(path, place)
    # A driver's text is written again; its machine code is whole, and may still be known by the file's time and size.
    assert play(compiled).startswith("321.0 " if ending == "py" else "321.0 0 ")
    assert play(compiled) == "321.0 1 0"


@pytest.mark.parametrize("text", [b"", b"\xff\xfe not UTF-8", b"raise SystemExit(9)"])
def test_a_damaged_driver_is_written_again(text: bytes, compiled: Path) -> None:
    (path,) = (compiled / "cache" / "drivers").glob("mlbits_driver_Tiny*.py")
    whole = path.read_bytes()
    path.write_bytes(text)
    assert play(compiled).startswith("321.0 ")
    assert path.read_bytes() == whole


def test_a_cache_that_numba_wrote_without_digests_is_not_unpickled(compiled: Path) -> None:
    """What older versions left; the file named in it would be made if it were."""
    made = compiled / "unpickled"

    class Making:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(made),)

    for path in [*files(compiled, "nbi"), *files(compiled, "nbc")]:
        path.write_bytes(pickle.dumps(Making()))
    assert play(compiled) == "321.0 0 1"
    assert not made.exists()


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    write_files(tmp_path / "rules")
    full = "def full(*_):\n    raise OSError(28, 'No space left on device')\n\n"
    full += "from mlbits.envs.engine import checked_cache\nchecked_cache._CheckedFile._writing = full\n"
    (tmp_path / "play.py").write_text(full + PLAY)
    assert play(tmp_path) == "321.0 0 1"
    assert play(tmp_path) == "321.0 0 1"
