"""Every example in a docstring runs with the output shown, and every command in one parses."""

import ast
import doctest
import functools
import importlib
import logging
import re
import shlex
import sys
from pathlib import Path

import pytest

import mlbits
from mlbits import cli
from tests.test_docs import parse

ROOT = Path(__file__).parents[1]
ROOMS = ("envs", "agents", "selfplay", "evals", "src/mlbits")


def sources():
    """Every file of the package, each once: links of src/mlbits to the rooms are not followed."""
    found = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    return sorted({path for path in found if path.resolve() == path})


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts[1:] if parts[0] == "src" else ("mlbits", *parts)
    return ".".join(parts).removesuffix(".__init__")


@functools.cache
def docstrings(path):
    """(line, text) of the docstrings of a file, read off its text: those of compiled and nested functions too."""
    found, code = [], path.read_text()
    if not (">>>" in code or "Example:" in code):  # parsing all files would take seconds
        return found
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node, clean=False)
            if text is not None:
                found.append((node.body[0].lineno - 1, text))
    return found


SHOWN = {module_of(path): path for path in sources() if any(">>>" in text for _, text in docstrings(path))}


@pytest.fixture
def quiet(tmp_path, monkeypatch):
    """A folder to write in; the module search path and logging are restored afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


# They compile for seconds.
SLOW = {f"mlbits.{name}" for name in ("agents.search.search", "envs.exact.joint_states", "envs.diplomacy.random_play")}


@pytest.mark.parametrize(
    "module", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in SHOWN]
)
def test_examples(module, quiet):
    runner = doctest.DocTestRunner(verbose=False)
    for line, text in docstrings(SHOWN[module]):
        names = dict(vars(importlib.import_module(module)))
        runner.run(doctest.DocTestParser().get_doctest(text, names, module, str(SHOWN[module]), line))
    assert runner.summarize(verbose=False).attempted >= 1
    assert runner.failures == 0, "see the captured output"


def test_examples_stand_in_every_room():
    found = {module.partition(".")[2].partition(".")[0] for module in SHOWN}
    assert found == {"", "envs", "agents", "selfplay", "evals"}
    assert SHOWN["mlbits"] == Path(mlbits.__file__).resolve()


COMMANDS = [
    (module_of(path), line.strip())
    for path in sources()
    for _, text in docstrings(path)
    for line in text.partition("Example:\n")[2].splitlines()
    if line.strip().startswith("mlbits ")
]


@pytest.mark.parametrize(("module", "command"), COMMANDS, ids=lambda text: re.sub(r"\W+", "-", text))
def test_commands_parse(module, command):
    name, *words = shlex.split(command, comments=True)[1:]
    assert name in cli.COMMANDS
    parse(name, words)
