"""Files for whoever works on the project, or cites it: they parse, and agree with the rest."""

import os
import re
import tomllib
from pathlib import Path

import yaml

import mlbits
from tests import golden

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def read(name):
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_the_citation_is_whole_and_of_this_version():
    """The keys that the Citation File Format 1.2.0 requires, and no others than it knows."""
    cited = read("CITATION.cff")
    assert cited.keys() >= {"cff-version", "message", "title", "authors"}
    known = {"abstract", "authors", "cff-version", "commit", "contact", "date-released", "doi", "identifiers"}
    known |= {"keywords", "license", "license-url", "message", "preferred-citation", "references", "repository"}
    known |= {"repository-artifact", "repository-code", "title", "type", "url", "version"}
    assert cited.keys() <= known
    assert cited["cff-version"] == "1.2.0"
    assert cited["authors"] == [{"name": "The mlbits authors"}]
    assert cited["type"] == "software"
    assert cited["version"] == mlbits.__version__
    assert cited["license"] == PROJECT["project"]["license"]
    assert cited["title"] == PROJECT["project"]["name"]


def test_the_workflow_calls_ci_run_and_has_limits():
    jobs = read(".github/workflows/ci.yml")["jobs"]
    commands = {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in jobs.items()}
    assert commands.pop("everything") == [".ci/run"] and commands.pop("tests") == ["make test"]
    (audit,) = commands.values()
    assert any("pip-audit --strict" in step and "constraints.txt" in step for step in audit)
    assert all(re.search(rf"{tool}==\d", audit[0]) for tool in ("pip-audit", "cyclonedx-bom", "build"))
    assert any("cyclonedx" in step for step in audit)
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    for job in jobs.values():
        assert 0 < job["timeout-minutes"] <= 360
        assert job["runs-on"].startswith("ubuntu-")
        (setup,) = (step["with"] for step in job["steps"] if "setup-python" in step.get("uses", ""))
        assert setup["cache"] == "pip"
        assert all((ROOT / path).is_file() for path in setup["cache-dependency-path"].split())
    assert setup["python-version"] == "${{ matrix.python }}"
    assert isinstance(read(".github/workflows/ci.yml")[True], dict), "YAML 1.1 reads the key `on` as true"


def test_the_workflow_tests_supported_pythons():
    jobs = read(".github/workflows/ci.yml")["jobs"]
    pythons = [*jobs["tests"]["strategy"]["matrix"]["python"]]
    pythons += [step["with"]["python-version"] for step in jobs["everything"]["steps"] if "with" in step]
    assert sorted(pythons) == ["3.11", "3.12", "3.13"]
    for version in pythons:
        assert f"Programming Language :: Python :: {version}" in PROJECT["project"]["classifiers"]


def test_pre_commit_runs_the_ruff_that_is_installed():
    (repository,) = read(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    assert [hook["entry"].split()[:2] for hook in repository["hooks"]] == [["ruff", "check"], ["ruff", "format"]]
    assert {hook["language"] for hook in repository["hooks"]} == {"system"}
    pins = (ROOT / "constraints.txt").read_text()
    assert re.search(r"^ruff==", pins, re.M)
    assert any(wanted.startswith("ruff") for wanted in PROJECT["project"]["optional-dependencies"]["dev"])


def test_contributing_knows_the_folders_and_the_words():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for path in re.findall(r"^\| `([a-z]\S*/)`", text, re.M):
        assert (ROOT / path).is_dir(), path
    for room in ("agents", "selfplay"):
        folders = {path.parent.name for path in (ROOT / room).glob("*/__init__.py")}
        named = set(re.findall(r"`(?:\w+/)*(\w+)/`", text))
        assert folders <= named, f"{room}: CONTRIBUTING.md lacks {folders - named}"
    for word in ("seat", "copy", "lineup", "pass", "door", "rollout"):
        assert re.search(rf"^\| {word} \|", text, re.M), word
    assert "python -m tests.golden" in text
    assert golden.path_of("GridWorld-v0").parent == ROOT / "tests" / "golden"


def test_security_promises_what_readers_do():
    """No address is given that may not exist; only SB3's models, own machine code and pipes are unpickled."""
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert "private security advisory" in text
    assert "@" not in text
    unpickles = re.compile(r"\bpickle\.loads?\(|allow_pickle=True|torch\.load\(")
    found = {
        str(path.relative_to(ROOT))
        for room in ("envs", "agents", "selfplay", "evals", "src")
        for path in (ROOT / room).rglob("*.py")
        if path.resolve() == path and unpickles.search(path.read_text())
    }
    pipes = {"envs/doors/gymnasium_workers.py"}  # between processes of one run
    assert found <= {"agents/sb3/agent.py", "agents/sb3/saved_models.py", "envs/engine/checked_cache.py"} | pipes, found
    assert re.findall(r"= (torch\.load\(.*)", (ROOT / "agents/sb3/saved_models.py").read_text()) == [
        'torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)'
    ]
    assert (ROOT / "agents/sb3/agent.py").read_text().count("pickle.load") == 1


def test_slow_cases_name_tests_that_exist():
    """Tests that take long by a line of this file: what has been renamed would be quick again, unseen."""
    lines = [line for line in (ROOT / "tests" / "slow_cases.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines == sorted(set(lines))
    for line in lines:
        path, _, case = line.partition("::")
        function = case.partition("[")[0]
        assert f"def {function}(" in (ROOT / path).read_text(), line
