"""Folders of code are private: made so whatever the umask, and not used where others may write."""

import json
import logging
import os
import pwd
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mlbits.envs.core import private_folders
from mlbits.envs.core.private_folders import home_folder, others_may_write, private_folder
from mlbits.envs.engine import driver
from mlbits.envs.origins import own_folders, remember_folders

USE = """
import os, sys
from mlbits.envs.registry import make_game
from mlbits.envs.engine.batch import GameBatch
os.umask(0)
print(float(GameBatch(make_game("mlbits/MatrixGame-v0"), 1).reward.sum()))
"""


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def no_umask():
    before = os.umask(0)
    yield
    os.umask(before)


def test_made_private_with_any_umask(tmp_path, no_umask):
    folder = tmp_path / "a" / "b" / "c"
    assert private_folder(folder, "nothing") == folder
    assert [mode(path) for path in (folder, folder.parent, folder.parent.parent)] == [0o700] * 3


@pytest.mark.parametrize(("where", "bits"), [("c", 0o720), ("c", 0o702), (".", 0o707), ("..", 0o777)])
def test_refused_where_others_may_write(where, bits, tmp_path, caplog):
    folder = tmp_path / "a" / "b" / "c"
    private_folder(folder, "nothing")
    (folder.parent / where).chmod(bits)
    assert str((folder.parent / where).resolve()) in others_may_write(folder)
    with caplog.at_level(logging.WARNING):
        assert private_folder(folder, "no code is kept") is None
        assert private_folder(folder, "no code is kept") is None
    assert caplog.text.count("no code is kept: others may write into") == 1, "said once"
    assert private_folder(folder, "nothing", group=False) == (folder if bits == 0o720 else None)


def test_a_group_above_and_a_sticky_folder_are_no_danger(tmp_path):
    folder = tmp_path / "a" / "b"
    private_folder(folder, "nothing")
    for bits in (0o770, 0o1777):
        folder.parent.chmod(bits)
        assert others_may_write(folder) == ""


def test_refused_where_another_user_owns_it(tmp_path, monkeypatch):
    private_folder(tmp_path / "a", "nothing")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    if Path(tmp_path).stat().st_uid != 0:
        assert "belongs to another user" in others_may_write(tmp_path / "a")
    found = os.stat_result((0o40700, 0, 0, 1, 777, 777, 0, 0, 0, 0))
    monkeypatch.setattr(Path, "stat", lambda path, **more: found)
    assert "belongs to another user" in others_may_write(tmp_path / "a")


def run(code, cache, **more):
    environment = {**os.environ, "MLBITS_CACHE_DIR": str(cache), **more}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_drivers_are_not_loaded_from_a_folder_of_others(tmp_path):
    """A driver that somebody else put there is not run; after a chmod it would be."""
    done = run(USE, tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    (found,) = (tmp_path / "cache" / "drivers").glob("mlbits_driver_*.py")
    assert mode(found.parent) == mode(tmp_path / "cache") == 0o700
    found.parent.chmod(0o777)
    held = found.read_text()
    code = found.parent / "__pycache__"
    for path in code.iterdir():
        path.unlink()
    found.write_text(held)
    done = run(USE, tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("machine code is not cached: others may write into") == 1
    assert not list(code.iterdir()), "compiled in memory"


def test_no_home(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("MLBITS_CACHE_DIR", raising=False)
    monkeypatch.delenv("HOME")

    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert home_folder("XDG_CACHE_HOME", ".cache") is None
    assert driver.cache_folder() is None
    remember_folders(["/one"])
    assert own_folders() == []
    module = driver._load_from_folder("mlbits_driver_of_no_home", "SEVEN = 7")
    assert module.SEVEN == 7


def test_the_list_of_own_folders_is_not_read_where_others_may_write(monkeypatch, tmp_path, no_umask):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    remember_folders(["/one"])
    held = tmp_path / "config" / "mlbits"
    assert own_folders() == ["/one"] and mode(held) == 0o700
    held.chmod(0o777)
    (held / "own_folders.json").write_text(json.dumps(["/one", "/theirs"]))
    private_folders._said.clear()
    assert own_folders() == []
