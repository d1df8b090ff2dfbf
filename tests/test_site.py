"""The documentation site: its links, the environments' pages, the tutorials, the notebook; slow: the build itself."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

import mlbits
from mlbits.cli import main
from mlbits.envs import registry
from mlbits.evals.catalogue import describe_env
from mlbits.selfplay import bookkeeping
from tests.test_docs import commands, parse

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
TUTORIALS = [page for page in sorted(DOCS.glob("tutorials/*.md")) if page.stem != "index"]
sys.path.insert(0, str(DOCS))
import check_links  # noqa: E402
import environment_pages  # noqa: E402
import environment_replays  # noqa: E402
import run_tutorials  # noqa: E402

sys.path.remove(str(DOCS))


# Links


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Two pages with good links, one of which has a style."""
    (tmp_path / "b").mkdir()
    (tmp_path / "index.html").write_text(
        '<a href="b/page.html#place">x</a> <a href="#top" id="top">x</a> <a href="b/">folder</a>'
        '<a href="https://example.org/elsewhere">x</a> <a href="mailto:me@example.org">x</a> <img src="data:,">'
        '<link rel="canonical" href="https://example.org/"><link rel="stylesheet" href="style.css?v=1">'
    )
    (tmp_path / "b" / "page.html").write_text('<h2 id="place">x</h2><a href="../index.html#top">x</a>')
    (tmp_path / "b" / "index.html").write_text("")
    (tmp_path / "style.css").write_text("a { background: url(data:x) }")
    return tmp_path


def test_a_site_whose_links_lead_somewhere_has_no_broken_ones(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(check_links.broken_links(site)) == []
    monkeypatch.chdir(site.parent)  # as the command is called, with a folder from here
    assert list(check_links.broken_links(Path(site.name))) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('<a href="missing.html">', "links to missing.html: there is no such file"),
        ('<a href="b/page.html#nowhere">', "links to b/page.html#nowhere: the page has no such place"),
        ('<a href="#nowhere">', "links to #nowhere: the page has no such place"),
        ('<img src="missing.png">', "links to missing.png: there is no such file"),
        ('<a href="../outside.html">', "links to ../outside.html: there is no such file"),
        ('<script src="https://example.org/x.js">', "loads https://example.org/x.js; wanted nothing from other hosts"),
        ('<link rel="stylesheet" href="//example.org/x.css">', "loads //example.org/x.css; wanted nothing from"),
    ],
)
def test_a_broken_link_is_named_with_its_page(site: Path, line: str, said: str) -> None:
    (site.parent / "outside.html").write_text("")
    (site / "c.html").write_text(line)
    (broken,) = check_links.broken_links(site)
    assert broken.startswith(f"c.html {said}")


def test_a_style_loads_nothing_from_other_hosts(site: Path) -> None:
    (site / "style.css").write_text('@import "https://example.org/font.css"; b { src: url("//example.org/f") }')
    assert len(list(check_links.broken_links(site))) == 2


def test_other_hosts_are_asked_only_on_request(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(check_links, "unreachable", lambda address: asked.append(address) or "status 404")
    assert list(check_links.broken_links(site)) == asked == []
    (line,) = check_links.broken_links(site, external=True)
    assert line == "index.html links to https://example.org/elsewhere: status 404"


def test_the_command_says_how_many_are_broken(site: Path) -> None:
    command = [sys.executable, str(DOCS / "check_links.py")]
    done = subprocess.run([*command, str(site)], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "0 broken links")
    (site / "c.html").write_text('<a href="missing.html">')
    assert subprocess.run([*command, str(site)], capture_output=True).returncode == 1
    done = subprocess.run([*command, str(site / "none")], capture_output=True, text=True)
    assert done.returncode == 1 and "wanted the folder of a built site" in done.stderr


# Pages


@pytest.fixture(scope="module")
def conf() -> Iterator[Any]:
    """The site's configuration."""
    pytest.importorskip("sphinx")
    sys.path.insert(0, str(DOCS))
    import conf

    yield conf
    sys.path.remove(str(DOCS))
    del sys.modules["conf"]


def test_links_of_files_above_lead_to_pages_of_the_site(conf: Any) -> None:
    def page(text: str, source: Path, own: Path) -> str:
        return conf.LINK.sub(lambda link: conf.linked(link, source, own), text)

    of_contributing = (ROOT / "CONTRIBUTING.md", DOCS / "contributing.md")
    assert page("[a](docs/adding.md#an-agent)", *of_contributing) == "[a](adding.md#an-agent)"
    assert page("[a](SECURITY.md)", *of_contributing) == "[a](security.md)"
    assert page("see [.ci/run](.ci/run), [b](https://b.org)", *of_contributing) == "see .ci/run, [b](https://b.org)"
    of_tutorial = (DOCS / "tutorials" / "index.md",) * 2
    assert page("[a](../agents.md) [b](../../SECURITY.md#x)", *of_tutorial) == "[a](../agents.md) [b](../security.md#x)"
    assert page("![p](../missing.png) [here](#there)", *of_tutorial) == "![p](../missing.png) [here](#there)"


def test_no_page_has_the_name_of_one_that_sphinx_writes() -> None:
    assert not {page.stem for page in DOCS.glob("*.md")} & {"search", "genindex", "modindex", "py-modindex"}


def test_every_page_is_in_the_tree(conf: Any) -> None:
    index = (DOCS / "index.md").read_text()
    assert conf.unlisted(index.replace("\nnetworks\n", "\n")) == [*conf.unlisted(index), "networks"]
    assert not set(conf.unlisted(index)) & {"agents", "environments", "python", "contributing"}
    for folder in ("tutorials", "reference"):
        tree = "".join(re.findall(r"```\{toctree\}\n(.*?)```", (DOCS / folder / "index.md").read_text(), re.S))
        assert {page.stem for page in (DOCS / folder).glob("*.md")} - {"index"} <= set(tree.split("\n"))


@pytest.fixture(scope="module")
def bear() -> dict[str, Any]:
    return describe_env("mlbits/FuzzyBear-v0")


def test_a_page_has_all_that_is_known_of_its_environment(bear: dict[str, Any]) -> None:
    text = environment_pages.page(bear)
    assert text.startswith("# FuzzyBear\n\n`mlbits/FuzzyBear-v0`: ")
    assert "![FuzzyBear](../pictures/FuzzyBear.png)" in text
    assert "| mean return of optimal play | 0.6, exact" in text
    assert "| rules | `envs/fuzzy_bear.py` |" in text
    rows = re.findall(r"^\| `(\w+)` \| `([^`]*)` \|", text, re.M)
    parameters = inspect.signature(mlbits.registered()["mlbits/FuzzyBear-v0"].load()).parameters
    assert dict(rows) == {name: repr(parameter.default) for name, parameter in parameters.items()}
    for title in ("## Description", "## Actions", "## Rewards", "## End"):
        assert title in text
    assert "`ppo`" in text and "`td3-bc`" not in text, "those who can play it"
    assert "mlbits train ppo mlbits/FuzzyBear-v0\nmlbits solve mlbits/FuzzyBear-v0\n" in text


def test_a_replay_is_linked_where_there_is_one(
    bear: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment_pages, "DOCS", tmp_path)
    without = environment_pages.page(bear)
    (tmp_path / "site" / "replays").mkdir(parents=True)
    (tmp_path / "site" / "replays" / "FuzzyBear.html").write_text("")
    assert (
        environment_pages.page(bear).replace('<a href="../replays/FuzzyBear.html">Step through an episode</a>\n\n', "")
        == without
    )
    assert "Step through" not in without


@pytest.mark.slow
def test_replays_are_made_once_and_are_true(tmp_path: Path) -> None:
    pytest.importorskip("mlbits.evals.replays.checking")
    environment_replays.write(["mlbits/FuzzyBear-v0"], tmp_path)
    page = tmp_path / "FuzzyBear.html"
    assert main(["replay", "--check", str(page)]) == 0
    page.write_text("left alone")
    environment_replays.write(["mlbits/FuzzyBear-v0"], tmp_path)
    assert page.read_text() == "left alone"
    with pytest.raises(SystemExit, match="mlbits/None-v0: no replay"):
        environment_replays.write(["mlbits/None-v0"], tmp_path)


def test_what_a_docstring_says_has_no_other_meaning_in_markdown() -> None:
    said = environment_pages.prose("*b* <c> _d_ $e$ `f` [g](h)\n| a | b_c |")
    assert said == r"\*b\* \<c> \_d\_ \$e\$ \`f\` \[g](h)" + "\n" + r"| a | b\_c |"


@pytest.mark.parametrize("env", [env for env in mlbits.registered() if env.startswith("mlbits/")])
def test_every_environment_has_a_picture_and_a_place_in_the_list(env: str) -> None:
    name = environment_pages.name_of(env)
    assert (DOCS / "pictures" / f"{name}.png").is_file()
    assert f"[{name}]({name}.md)" in environment_pages.index()


# Tutorials and the notebook


def test_the_short_form_is_short() -> None:
    text = "--total-steps 60000 --seeds 3 --episodes 5\ntrain(total_steps=60_000, eval_every=100)  # total_steps"
    short = "--total-steps 600 --seeds 2 --episodes 5\ntrain(total_steps=600, eval_every=100)  # total_steps"
    assert run_tutorials.shortened(text) == short


def test_a_page_is_run_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    page = "```python\n# own_of_page.py\nvalue = 3\n```\n```python\nimport own_of_page\nx = own_of_page.value\n```\n"
    run_tutorials.run(page + "```sh\nls nowhere\nmlbits board\nmlbits --version\n```\n```python\nassert x == 3\n```\n")
    with pytest.raises(AssertionError):
        run_tutorials.run(page + "```python\nassert x == 4\n```\n")
    with pytest.raises(SystemExit, match="mlbits plot: exit status 2"):
        run_tutorials.run("```sh\nmlbits plot\n```\n")


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_has_its_pictures_and_its_waiting_commands_parse(page: Path) -> None:
    text = page.read_text()
    shown = re.findall(r"!\[[^\]]+\]\(([\w.]+)\)", text)
    made = re.findall(r"(?:--out|--picture|savefig\()\W*([\w.]+\.png)", text)
    assert shown and set(shown) == set(made), "the pictures shown are those that its commands make"
    for name in shown:
        assert 0 < (page.parent / name).stat().st_size < 150_000
    for words in commands(page):
        if words[0] in run_tutorials.WAITING:
            parse(words[0], words[1:])
    assert not re.findall(r"\b[A-Z]{4,}\b(?![.-])", re.sub(r"`[^`]*`|```.*?```", "", text, flags=re.S)), "not filled in"


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty working folder, from which modules may be imported; what they register is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(bookkeeping, "_MAX_FRAMES", 1)
    registries: list[MutableMapping[str, Any]] = [registry._entries, gym.registry]
    before, modules = [dict(entries) for entries in registries], set(sys.modules)
    yield
    for entries, kept in zip(registries, before, strict=True):
        for name in entries.keys() - kept.keys():
            del entries[name]
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_tutorials_run(page: Path, alone: None) -> None:
    run_tutorials.run(run_tutorials.shortened(page.read_text()))


def cells(kind: str) -> list[str]:
    notebook = json.loads((DOCS / "quickstart.ipynb").read_text())
    assert notebook["nbformat"] == 4
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind]


def test_the_notebook_is_python_without_results() -> None:
    assert len(cells("code")) > 4
    for cell in cells("code"):
        ast.parse(cell)
    assert '"output_type"' not in (DOCS / "quickstart.ipynb").read_text(), "results would go out of date"


@pytest.mark.slow
def test_the_notebook_runs(alone: None) -> None:
    session: dict[str, Any] = {}
    for cell in cells("code"):
        exec(compile(run_tutorials.shortened(cell), "quickstart.ipynb", "exec"), session)
    assert session["total"] <= 0.87 and set(session["found"]) >= {"optimum", "score"}


# The build


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    """As ``make docs`` builds it; a broken link is a warning."""
    pytest.importorskip("sphinx")
    words = [sys.executable, "-m", "sphinx", "-q", "-E", "-W", "--keep-going", str(DOCS), str(tmp_path / "site")]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert (done.returncode, done.stderr) == (0, "")
    site = tmp_path / "site"
    for env in filter(lambda env: env.startswith("mlbits/"), mlbits.registered()):
        name = environment_pages.name_of(env)
        page = (site / "environments" / f"{name}.html").read_text()
        assert f'_images/{name}.png"' in page
    assert "mlbits.train" in (site / "reference" / "training.html").read_text()
    assert 'id="mlbits.envs.core.game.Game"' in (site / "reference" / "environments.html").read_text()
    assert next(site.rglob("quickstart.ipynb")).is_file()
    (site / "broken.html").write_text('<a href="nowhere.html">')
    assert len(list(check_links.broken_links(site))) == 1
