"""README's two commands: make.py, called by make, runs the commands that README shows, and installs once."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PINS = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M))


def loaded(path, name):
    spec = importlib.util.spec_from_loader(name, importlib.machinery.SourceFileLoader(name, str(path)))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """make.py in a tree of its own; its commands are recorded, and installs "succeed" at once."""
    for name in ("pyproject.toml", "setup.py", "constraints.txt"):
        (tmp_path / name).write_text(name)
    make = loaded(ROOT / "make.py", "make")
    where = tmp_path / ".venv"
    for name, value in (("ROOT", tmp_path), ("ENVIRONMENT", where), ("PYTHON", where / "bin" / "python")):
        monkeypatch.setattr(make, name, value)
    monkeypatch.setattr(make, "STAMP", where / "mlbits-installed.json")
    make.started, make.fails = [], False

    def call(command, **_):
        make.started.append(command[1:])
        if make.fails:
            return 3
        if "venv" in command:
            make.PYTHON.parent.mkdir(parents=True, exist_ok=True)
            make.PYTHON.touch()
        return 0

    monkeypatch.setattr(make.subprocess, "call", call)
    monkeypatch.setattr(make, "works", lambda python: python.exists())
    monkeypatch.setattr(make, "become", lambda words: make.started.append(words))
    return make


VENV = ["-m", "venv", "--clear"]
INSTALL = ["-m", "pip", "install", "-c", "constraints.txt", "-e"]
TRAIN, TEST = ["mlbits", "train", "ppo", "mlbits/GridWorld-v0"], ["pytest", "-n", "auto", "--dist", "loadfile"]


def test_the_first_call_makes_the_environment_and_the_second_only_runs(tree):
    tree.main(["train"])
    assert tree.started == [[*VENV, str(tree.ENVIRONMENT)], [*INSTALL, "."], TRAIN]
    tree.started.clear()
    tree.main(["train", "--seed", "3"])
    assert tree.started == [[*TRAIN, "--seed", "3"]]


def test_what_the_tests_need_is_added_and_serves_training_too(tree):
    tree.main(["train"])
    tree.started.clear()
    tree.main(["test"])
    assert tree.started == [[*INSTALL, ".[test]"], TEST]
    tree.STAMP.write_text(json.dumps({".[test]": tree.fingerprint()}))
    tree.started.clear()
    tree.main(["train"])
    assert tree.started == [TRAIN]


@pytest.mark.parametrize("name", ["pyproject.toml", "setup.py", "constraints.txt"])
def test_it_is_installed_anew_when_what_it_depends_on_changed(tree, name):
    tree.main(["test"])
    tree.started.clear()
    (tree.ROOT / name).write_text("changed")
    tree.main(["test"])
    assert tree.started == [[*INSTALL, ".[test]"], TEST]


def test_an_environment_that_does_not_work_is_made_anew(tree):
    tree.main(["train"])
    tree.PYTHON.unlink()
    tree.started.clear()
    tree.main(["train"])
    assert tree.started == [[*VENV, str(tree.ENVIRONMENT)], [*INSTALL, "."], TRAIN]


@pytest.mark.parametrize("stamp", ["", "[]", "{", '{".": 1}'])
def test_a_damaged_note_of_what_is_installed_counts_as_none(tree, stamp):
    tree.main(["train"])
    tree.STAMP.write_text(stamp)
    tree.started.clear()
    tree.main(["train"])
    assert tree.started == [[*INSTALL, "."], TRAIN]


def test_a_failed_install_ends_with_its_status_and_is_tried_again(tree):
    tree.main(["train"])
    (tree.ROOT / "constraints.txt").write_text("changed")
    tree.fails = True
    for _ in range(2):
        tree.started.clear()
        with pytest.raises(SystemExit) as ended:
            tree.main(["train"])
        assert ended.value.code == 3
        assert tree.started == [[*INSTALL, "."]]


def test_an_older_python_is_told_what_is_wanted(tree, monkeypatch):
    monkeypatch.setattr(tree.sys, "version_info", (3, 10, 13))
    with pytest.raises(SystemExit, match=r"(?s)needs Python 3\.11 or newer; this is \d+\.\d+.*make train PYTHON="):
        tree.main(["train"])
    assert tree.started == []


@pytest.mark.parametrize("words", [[], ["trian"], ["show"], ["show", "all"]])
def test_other_words_are_answered_by_the_usage(words):
    done = subprocess.run([sys.executable, "make.py", *words], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("usage: make.py train|test")


@pytest.mark.parametrize(("source", "status"), [("raise SystemExit(5)", 5), ("import missing", 1)])
def test_a_command_runs_in_the_environment_and_ends_with_its_own_status(tree, tmp_path, source, status):
    """In a process of its own, which the command replaces."""
    text = "import os, sys, time\nprint(sys.argv[1:], os.environ['VIRTUAL_ENV'])\n"
    text += "pid, _, started = os.environ['MLBITS_STARTED'].partition(':')\n"
    text += "print(pid == str(os.getpid()) or os.name == 'nt', 0 <= time.time() - float(started) < 60)\n"
    (tmp_path / "shown.py").write_text(f"{text}{source}\n")
    code = "import make, pathlib, sys; make.PYTHON = pathlib.Path(sys.executable); make.ENVIRONMENT = 'here'\n"
    code += f"make.ROOT = {str(tmp_path)!r}; make.become(['shown', '--flag', 'a b'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == status
    assert done.stdout.splitlines() == ["$ shown --flag a b", "['--flag', 'a b'] here", "True True"]


@pytest.mark.parametrize("name", ["train", "test"])
def test_readme_shows_what_make_runs(name):
    """By make where there is one, and by make.py's own word for what stands behind it."""
    (block,) = re.findall(rf"<!-- make.py show {name} -->\n```sh\n(.*?)```", README, re.S)
    done = subprocess.run(
        [sys.executable, "make.py", "show", name], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == block
    assert re.search(rf"^make {name}$", README, re.M)
    make = loaded(ROOT / "make.py", "make")
    target, words = make.COMMANDS[name]
    install, runs = block.splitlines()[-2:]
    assert install.replace('"', "").split() == [*"pip install -c constraints.txt -e".split(), target]
    assert runs.split() == words


def test_make_and_ci_call_make_py():
    targets, recipe = re.search(r"^([\w ]+):\n\t(.*)$", (ROOT / "Makefile").read_text(), re.M).groups()
    assert targets.split() == list(loaded(ROOT / "make.py", "make").COMMANDS)
    assert recipe == "@$(PYTHON) make.py $@ $(ARGS)"
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert [line for line in lines if "make" in line.split()] == [
        "make train",
        "make docs",
        "make test",
        'make test ARGS="-m slow"',
    ]
    assert "python .ci/resolve" in lines


# What is installed


def test_readme_the_classifiers_and_the_check_of_installs_name_the_same_pythons():
    resolve = loaded(ROOT / ".ci" / "resolve", "resolve")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line) for line in project["classifiers"]]
    pythons = tuple(match[1] for match in listed if match)
    assert pythons == resolve.PYTHONS
    assert project["requires-python"] == f">={pythons[0]}"
    assert f"CPython {pythons[0]} to {pythons[-1]} on Linux" in README
    assert f"macOS {resolve.MACOS.removesuffix('.0')} or newer" in README


def test_the_check_of_installs_sees_none_of_this_machines_settings(tmp_path, monkeypatch):
    resolve = loaded(ROOT / ".ci" / "resolve", "resolve")
    hidden = ("PIP_FIND_LINKS", "PIP_CONSTRAINT", "PIP_EXTRA_INDEX_URL", "UV_INDEX", "UV_FIND_LINKS")
    for name in hidden:
        monkeypatch.setenv(name, "here")
    for name in ("PIP_CONFIG_FILE", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("PIP_CERT", "certificates")
    seen = resolve.users_environment(tmp_path)
    assert not set(hidden) & set(seen)
    assert (seen["PIP_CONFIG_FILE"], seen["UV_NO_CONFIG"], seen["PIP_CERT"]) == (os.devnull, "1", "certificates")
    assert not Path(seen["XDG_CONFIG_HOME"]).exists()
    assert not Path(seen["XDG_CONFIG_DIRS"]).exists()


def test_the_small_torch_of_readme_is_the_pinned_one():
    assert re.findall(r"pip install torch==(\S+)", README) == [PINS["torch"]]
