"""The documentation is correct: examples run, code and commands parse, links and tables match the code.

``python -m tests.test_docs`` copies edited examples into docs/adding.md.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from PIL import Image

import mlbits
from mlbits import cli
from mlbits.agents import AGENTS
from mlbits.envs import registry
from mlbits.evals import EVALS
from mlbits.selfplay import bookkeeping
from mlbits.selfplay.runs.command_line import read_flags
from mlbits.selfplay.runs.config import resolve
from mlbits.selfplay.runs.flags import parse_solve, parse_train
from mlbits.selfplay.runs.synonyms import suggestions
from mlbits.selfplay.training import train

ROOT = Path(__file__).parents[1]
EXAMPLES, ADDING, PICTURES = (ROOT / "docs" / name for name in ("examples", "adding.md", "pictures"))
SB3_PAGE = ROOT / "docs" / "stable_baselines3.md"
TUTORIALS = sorted(ROOT.glob("docs/tutorials/*.md"))
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/reference/*.md"), *TUTORIALS])
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(page: Path, *languages: str) -> list[str]:
    return [
        text for language, text in re.findall(r"```(\w*)\n(.*?)```", page.read_text(), re.S) if language in languages
    ]


def with_examples(text: str) -> str:
    """A page with the code of each file that a marker names in the block after it."""

    def filled(match: re.Match[str]) -> str:
        return f"<!-- file: {match[1]} -->\n```python\n{(ROOT / match[1]).read_text()}```\n"

    return re.sub(r"<!-- file: (\S+) -->\n```python\n.*?```\n", filled, text, flags=re.S)


# The examples


@pytest.fixture(scope="module")
def examples() -> Iterator[None]:
    """The example game, agent and evaluation, registered in this process for a while."""
    registries: list[MutableMapping[str, Any]] = [registry._entries, gym.registry, AGENTS, EVALS]
    before = [dict(entries) for entries in registries]
    sys.path.insert(0, str(EXAMPLES))
    import nim_eval  # noqa: F401  (imports, and so registers, the other two)

    yield
    sys.path.remove(str(EXAMPLES))
    for entries, kept in zip(registries, before, strict=True):
        for name in entries.keys() - kept.keys():
            del entries[name]
    for name in ("nim_eval", "nim", "cross_entropy"):  # imported, and so registered, anew next time
        sys.modules.pop(name, None)


@pytest.mark.slow
def test_the_examples_pass_their_own_tests_and_the_suites_for_every_game() -> None:
    """In a process of its own, where ``-p nim`` registers the game before the suite's tests list games."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "nim"]
    chosen = ["-k", "examples and not simulated", "docs/examples", "tests/conformance"]
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES)}
    done = subprocess.run([*command, *chosen], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed
    assert int(passed[1]) > 30, f"the suite's tests have not met the example: {done.stdout}"


@pytest.mark.slow
def test_the_examples_are_commands_by_one_more_file(tmp_path: Path) -> None:
    run, out = [sys.executable, str(EXAMPLES / "run.py")], str(tmp_path / "run")
    flags = ["--total-steps", "4000", "--quiet", "--env.stones", "12", "--agent.elite", "0.3", "--out", out]
    for words in (["train", "cross_entropy", "examples/Nim-v0", *flags], ["eval", out, "--episodes", "5"]):
        done = subprocess.run([*run, *words], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "run" / "config.json").read_text())["env_settings"] == {"stones": 12}


def test_adding_shows_the_examples_verbatim() -> None:
    text = ADDING.read_text()
    shown = set(re.findall(r"<!-- file: docs/examples/(\S+) -->", text))
    linked = {"plain_ppo.py"}  # too long to be shown in full
    assert all(f"](examples/{name})" in text for name in linked)
    assert shown | linked == {path.name for path in EXAMPLES.glob("*.py") if not path.name.startswith("test_")}
    assert with_examples(text) == text, "the examples were edited; run: python -m tests.test_docs"


# What any page says


@every_page
def test_python_blocks_are_python(page: Path) -> None:
    for block in blocks(page, "python", "py"):
        ast.parse(block)


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        pytest.param("docs/environments.md", marks=pytest.mark.slow),  # chess
        "docs/similarity.md",
        "docs/causal.md",
        "docs/off_policy.md",
        "docs/networks.md",
        "docs/disco.md",
        "docs/weak_labels.md",
    ],
)
def test_python_blocks_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by itself. (Those of docs/adding.md are the example files, or lines of mlbits itself.)"""
    monkeypatch.chdir(tmp_path)  # for the runs of those that train
    for block in blocks(ROOT / name, "python"):
        exec(compile(block, name, "exec"), {})


def test_stable_baselines_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One block after another: the second part loads what the first has saved."""
    monkeypatch.chdir(tmp_path)
    for block in blocks(SB3_PAGE, "python"):
        exec(compile(block, SB3_PAGE.name, "exec"), {})


@pytest.mark.parametrize(
    "name", [pytest.param("python.md", marks=pytest.mark.slow), "from_sb3.md", "bring_your_own.md"]
)
def test_pages_run_from_top_to_bottom(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a reader would run them: in one session; a block that begins with a file's name is that file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(bookkeeping, "_MAX_FRAMES", 1)  # drawing whole episodes would take most of the time
    registries: list[MutableMapping[str, Any]] = [gym.registry, AGENTS]
    before, session = [dict(entries) for entries in registries], dict[str, Any]()
    for block in blocks(ROOT / "docs" / name, "python"):
        if file := re.match(r"# (\w+\.py)\n", block):
            (tmp_path / file[1]).write_text(block)
        else:
            exec(compile(block, name, "exec"), session)
    for entries, kept in zip(registries, before, strict=True):
        for added in entries.keys() - kept.keys():
            del entries[added]
    for module in ("my_envs", "my_networks", "my_agents"):
        sys.modules.pop(module, None)


def test_names_of_stable_baselines_settings_are_its_own_and_ours() -> None:
    import stable_baselines3

    text, checked = (ROOT / "docs" / "from_sb3.md").read_text(), 0
    for name, known in (("ppo", "PPO"), ("dqn", "DQN"), ("ddpg", "TD3")):
        found = re.search(rf"^### [^\n]*`{name}`\n(.*?)(?=^### |\Z)", text, re.M | re.S)
        assert found
        config = AGENTS[name].config_class()
        theirs = inspect.signature(getattr(stable_baselines3, known)).parameters
        for their, our in table(found[1], "Stable-Baselines3").items():
            our = our.strip("`")
            assert their in theirs, f"{known} has no {their}"
            assert our in config.__dataclass_fields__, f"{name} has no {our}"
            assert their == our or our in suggestions(their, config), f"{their}: our error does not suggest {our}"
            checked += 1
    assert checked > 30


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name} links to {target}"
        assert linked.is_relative_to(ROOT), f"{page.name} links out of the repository: {target}"
        if anchor:
            assert anchor in headings(linked), f"{page.name} links to {target}"


def headings(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


def commands(page: Path) -> list[list[str]]:
    """The words after ``mlbits`` of every command in a page: in blocks, and in line between backticks."""
    text = page.read_text()
    lines = [line for block in blocks(page, "sh", "bash", "console") for line in block.splitlines()]
    lines += re.findall(r"`(mlbits [^`]*)`", re.sub(r"```.*?```", "", text, flags=re.S))
    found = []
    for line in lines:
        words = shlex.split(line.removeprefix("$ "), comments=True)
        for start in (["mlbits"], ["python", "docs/examples/run.py"]):
            if words[: len(start)] == start:
                found.append(words[len(start) :])
    return found


@every_page
def test_commands_parse(page: Path, examples: None) -> None:
    if page in TUTORIALS:
        pytest.skip("a tutorial's commands are run, by tests/test_site.py")
    for words in commands(page):
        name, rest = words[0], words[1:]
        if name.startswith("-"):
            continue
        assert name in cli.COMMANDS, f"mlbits {' '.join(words)}"
        if not rest or any(word.isupper() and word.isalpha() for word in rest):  # "mlbits resume RUN"
            continue
        package = next((word.partition(":")[0] for word in rest if re.match(r"\w+:", word)), None)
        if package and importlib.util.find_spec(package) is None:  # one of an extra that is not installed
            continue
        try:
            parse(name, rest)
        except SystemExit as end:
            assert end.code in (0, None), f"mlbits {' '.join(words)}"


def parse(name: str, words: list[str]) -> None:
    if name == "train":
        parse_train(words)
    elif name == "solve":
        parse_solve(words)
    elif name == "diplomacy":
        kind = {"adjudicate": cli.diplomacy.AdjudicateFlags, "draw": cli.diplomacy.DrawFlags}[words[0]]
        read_flags(kind, f"mlbits diplomacy {words[0]}", words[1:])
    else:
        module = {"eval": "evaluate", "list": "listing", "meta-train": "meta_train"}.get(name, name)
        getattr(cli, module).parse(words)


# docs/environments.md and docs/agents.md: tables that could drift from the code


def section(page: Path, title: str) -> str:
    """The text under a heading, up to the next of its level."""
    text = page.read_text()
    match = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    assert match, f"{page.name} has no section {title}"
    return match[1]


def table(text: str, first: str) -> dict[str, str]:
    """First column (names, without backticks) and second of the tables whose first is headed ``first``."""
    rows: dict[str, str] = {}
    inside = False
    for line in text.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]
        if not cells:
            inside = False
        elif cells[0] == first:
            inside = True
        elif inside and not cells[0].startswith("---"):
            rows |= dict.fromkeys(re.findall(r"`([^`]+)`", cells[0]), cells[1])
    return rows


ENVIRONMENTS, AGENTS_PAGE = ROOT / "docs" / "environments.md", ROOT / "docs" / "agents.md"
DOCUMENTED = re.findall(r"^\| \[`(mlbits/\S+)`\]", ENVIRONMENTS.read_text(), re.M)


def value_of(cell: str) -> Any:
    return ast.literal_eval(re.sub(r"^inf$", "1e999", cell.strip("`")))


@pytest.mark.parametrize("env_id", DOCUMENTED)
def test_environments_have_the_documented_settings(env_id: str) -> None:
    entry = mlbits.registered()[env_id]
    text = section(ENVIRONMENTS, mlbits.make_game(env_id).name)
    assert env_id in text
    settings = table(text, "setting")
    parameters = dict(inspect.signature(entry.load()).parameters)
    parameters.pop("frame_stack")  # every environment has it, and one text says so
    assert list(settings) == list(parameters)
    for name, parameter in parameters.items():
        assert value_of(settings[name]) == entry.defaults.get(name, parameter.default), name
    solved = re.search(rf"^\| \[`{env_id}`\].*\|([^|]*)\|$", ENVIRONMENTS.read_text(), re.M)
    assert solved
    assert (float(solved[1]) if solved[1].strip() else None) == entry.reward_threshold


@pytest.mark.parametrize("picture", sorted(PICTURES.glob("*.png")), ids=lambda path: path.stem)
def test_pictures_are_small_and_shown(picture: Path) -> None:
    assert picture.stat().st_size < 60_000
    assert any(f"pictures/{picture.name}" in page.read_text() for page in PAGES)
    Image.open(picture).verify()


@pytest.mark.slow
def test_pictures_are_made_by_one_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import pictures

    monkeypatch.setattr(pictures, "FOLDER", tmp_path)
    pictures.main()
    made = {path.name for path in tmp_path.glob("*.png")}
    assert made >= {path.name for path in PICTURES.glob("*.png")}


PLANNING = [name for name, entry in AGENTS.items() if entry.plans]


@pytest.mark.parametrize(
    "agent",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in PLANNING else [])  # searches compile for long
        for name in re.findall(r"^## ([\w-]+)$", AGENTS_PAGE.read_text(), re.M)
    ],
)
def test_agents_have_the_documented_settings_and_curves(agent: str, tmp_path: Path) -> None:
    text, config = section(AGENTS_PAGE, agent), AGENTS[agent].config_class()()
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    assert {name: value_of(cell) for name, cell in table(text, "setting").items()} == fields
    run = {"total_steps": 64, "num_envs": 4, "eval_episodes": 1, "video": False, "device": "cpu"}
    special = {"objective": "adaptive_kl", "learning_starts": 0, "batch_size": 32}
    settings = {"num_steps": 16} | {name: value for name, value in special.items() if name in fields}
    env = "mlbits/GridWorld-v0" if "discrete" in AGENTS[agent].actions else "mlbits/Pendulum-v0"
    if AGENTS[agent].plans:
        env, run["total_steps"] = "mlbits/TicTacToe-v0", 128
    folder, _ = train(
        resolve(agent, env, preset="none", run=run, agent_settings=settings),
        tmp_path,
        console=False,
    )
    logged = {name for line in (folder / "metrics.jsonl").read_text().splitlines() for name in json.loads(line)}
    curves = {name.removeprefix("learn/") for name in logged if name.startswith("learn/")}
    assert set(table(text, "`learn/`")) == curves
    common = table(section(AGENTS_PAGE, "What every run logs"), "name")
    patterns = [re.escape(name).replace(r"\*", ".*") for name in common]
    unknown = {name for name in logged - {"env_steps"} if not any(re.fullmatch(p, name) for p in patterns)}
    assert not unknown, "curves that the page does not name"


def test_stable_baselines_algorithms_have_the_documented_settings() -> None:
    lines = SB3_PAGE.read_text().partition("### Settings")[2].splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| `")]
    (header,) = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| setting")]
    assert header[1:-1] == [name for name in AGENTS if name.startswith("sb3-")]
    for column, name in enumerate(header[1:-1], start=1):
        config = AGENTS[name].config_class()()
        fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
        assert {row[0].strip("`"): value_of(row[column]) for row in rows if row[column]} == fields, name


if __name__ == "__main__":
    ADDING.write_text(with_examples(ADDING.read_text()))
