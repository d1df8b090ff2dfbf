"""A page for each registered environment, from the registry: ``python docs/environment_pages.py FOLDER``.

The site's build writes them into ``docs/environments``, which is not kept. A page has the environment's picture, its
spaces, seats and masks, the exact optimum where it is known, who can play it, what its docstring says (rewards, start,
end, source), and its settings with their defaults: what ``mlbits list --env ID`` prints. It links to a replay if
``docs/site/replays`` has one (:mod:`environment_replays` makes them).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlbits
from mlbits.evals.catalogue import describe_env

DOCS = Path(__file__).parent
ROOT = DOCS.parent


def main() -> None:
    """Write the pages into the folder named on the command line."""
    write(Path(sys.argv[1]))


def write(folder: Path) -> None:
    """Write a page for each environment, and one that lists them; a page that is right already is left alone."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {name_of(env): page(describe_env(env)) for env in mlbits.registered()}
    pages["index"] = index()
    for old in folder.glob("*.md"):
        if old.stem not in pages:
            old.unlink()
    for name, text in pages.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def name_of(env: str) -> str:
    """The name of an environment's page and picture: GridWorld of mlbits/GridWorld-v0."""
    return env.partition("/")[2].rpartition("-v")[0]


def index() -> str:
    """The page that lists the others."""
    names = [name_of(env) for env in mlbits.registered()]
    rows = [
        f"| [![{name}](../pictures/{name}.png)]({name}.md) | [{name}]({name}.md) | {escaped(entry.summary)} |"
        for name, entry in zip(names, mlbits.registered().values(), strict=True)
    ]
    head = ["| | environment | |", "|---|---|---|"]
    tree = ["```{toctree}", ":hidden:", ":maxdepth: 1", "", *names, "```"]
    about = "All about each environment, as `mlbits list --env ID` prints it. [environments.md](../environments.md) has"
    return "\n".join(
        [
            "# Every environment",
            "",
            f"{about} what they have in common, and is where to begin.",
            "",
            *head,
            *rows,
            "",
            *tree,
            "",
        ]
    )


def page(found: Mapping[str, Any]) -> str:
    """The page of an environment, from what :func:`describe_env` says of it."""
    env, name = found["id"], name_of(found["id"])
    lines = [f"# {name}", "", f"`{env}`: {escaped(found['summary'])}.", "", f"![{name}](../pictures/{name}.png)", ""]
    if (DOCS / "site" / "replays" / f"{name}.html").is_file():
        lines += [f'<a href="../replays/{name}.html">Step through an episode</a>', ""]
    lines += [*table(["", ""], facts(found)), ""]
    for title, text in found["about"].items():
        lines += [f"## {title}", "", prose(text), ""]
    lines += ["## Settings", "", "Keyword arguments in Python, `--env.NAME VALUE` in every command.", ""]
    rows = [
        [f"`{row['name']}`", code(row["default"]), escaped(row["type"]), escaped(row["meaning"].rstrip("."))]
        for row in found["settings"]
    ]
    lines += [*table(["setting", "default", "type", "meaning"], rows), ""]
    lines += ["## Try it", "", "```sh", *commands(found), "```", ""]
    if re.search(rf"^## {name}$", (ROOT / "docs" / "environments.md").read_text(encoding="utf-8"), re.M):
        lines += [
            f"[The same in context](../environments.md#{name.lower()}), with what it is for and how it was tuned.",
            "",
        ]
    return "\n".join(lines)


def facts(found: Mapping[str, Any]) -> list[list[str]]:
    """Rows of a table: spaces, seats, optimum, agents."""
    several = found["seats"] > 1
    how = "in turn" if found["in_turn"] else "all at once"
    rows = [["action space", code(found["action_space"])], ["observation space", code(found["observation_space"])]]
    rows += [["seats", f"{found['seats']}, {how}" if several else "1"]]
    rows += [["legal actions", "not all are legal at all times: there are masks" if found["masked"] else "all"]]
    if found["optimum"] is not None:
        best = f"{found['optimum']:.4g}, exact ([how](../exact_solutions.md))"
        rows += [["mean return of optimal play", best], ["of random play", f"{found['random_return']:.4g}, exact"]]
    if found["solved_at"] is not None:
        rows += [["counts as solved at", f"a mean return of {found['solved_at']:g}"]]
    rows += [["agents that play it", ", ".join(f"`{agent}`" for agent in found["agents"])]]
    if found["presets"]:
        rows += [["tuned settings for", ", ".join(f"`{agent}`" for agent in found["presets"])]]
    return [*rows, ["rules", f"`{source(found['source'])}`"]]


def commands(found: Mapping[str, Any]) -> list[str]:
    """Commands to begin with."""
    env = found["id"]
    learners = [agent for agent in (*found["presets"], "ppo", "ibr") if agent in found["agents"]]
    lines = [f"mlbits train {learners[0]} {env}"] if learners else []
    if found["optimum"] is not None:
        lines += [f"mlbits solve {env}"]
    return [*lines, f"mlbits list --env {env}"]


def source(place: str) -> str:
    """The file of "file:line", from the project's folder on, or of an installed package from its own."""
    file = Path(place.rpartition(":")[0]).resolve()
    if file.is_relative_to(ROOT):
        return file.relative_to(ROOT).as_posix()
    return file.as_posix().rpartition("site-packages/")[2]


def prose(text: str) -> str:
    """A section of a docstring as Markdown: tables and lists stay, and nothing else has a meaning."""
    return "\n".join(escaped(line, "*_`<[$") if "|" in line else escaped(line) for line in text.splitlines())


def escaped(text: str, special: str = "*_`<[$|") -> str:
    """Text with a backslash before each character that Markdown would take for its own."""
    return re.sub(f"([{re.escape(special)}])", r"\\\1", text)


def code(value: Any) -> str:
    """A value between backticks, in a cell of a table."""
    text = value if isinstance(value, str) and "(" in value else repr(value) if value is not None else "None"
    return f"`{text}`".replace("|", "\\|") if text != "''" else '`""`'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


if __name__ == "__main__":
    main()
