"""Update the tables of settings in the pages of ``docs`` from the configs: ``python docs/settings_tables.py``.

A table is between ``<!-- settings: dqn -->`` and ``<!-- end -->``. Several agents, as in ``<!-- settings: sb3-ppo
sb3-a2c -->``, get one table with a column of defaults for each; ``<!-- settings: run; pool, pool_every -->`` lists only
these settings. The contents come from the configs' fields (``mlbits.envs.core.config_fields``).
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlbits.agents import agent_entry
from mlbits.envs.core.config_fields import range_text, setting_of
from mlbits.evals.tournament.config import TournamentConfig
from mlbits.selfplay.runs.config import RunConfig

FOLDER = Path(__file__).parent
TABLE = re.compile(r"(<!-- settings: (.+?) -->\n).*?(?=<!-- end -->)", re.S)
OTHERS = {"run": RunConfig, "tournament": TournamentConfig}


def main() -> None:
    """Update all tables."""
    for page in sorted(FOLDER.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        if (new := written(text)) != text:
            page.write_text(new, encoding="utf-8")
            print(f"written: {page}")


def written(text: str) -> str:
    """The text of a page with its tables updated from the configs."""
    return TABLE.sub(lambda match: match[1] + table(match[2]) + "\n", text)


def table(asked: str) -> str:
    """The table for a marker.

    Args:
        asked: names of agents, "run" or "tournament"; then, after a semicolon, the settings to list (all without it).

    Raises:
        ValueError: for an unknown setting.
    """
    names, _, chosen = asked.partition(";")
    configs = {name: OTHERS.get(name) or agent_entry(name).config_class() for name in names.split()}
    fields: dict[str, dict[str, tuple[str, ...]]] = {}  # by setting, then by agent: cells with its meaning
    several = len(configs) > 1
    for agent, config in configs.items():
        for field in dataclasses.fields(config):
            fields.setdefault(field.name, {})[agent] = _meaning(config, field, several)
    wanted = [name.strip() for name in chosen.split(",")] if chosen.strip() else list(fields)
    if unknown := set(wanted) - set(fields):
        raise ValueError(f"settings: got {', '.join(sorted(unknown))}; wanted some of {', '.join(fields)}")
    head = ["setting", *(f"`{name}`" for name in configs), "meaning"] if several else _HEAD
    rows = []
    for name in wanted:
        defaults = [_default(config, name) for config in configs.values()]
        rows.append([f"`{name}`", *defaults, *_together(fields[name])])
    lines = [_line(head), "|---" * len(head) + "|", *map(_line, rows)]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "".join(f"| {cell} " if cell else "| " for cell in cells) + "|"


_HEAD = ["setting", "default", "range", "meaning"]


def _meaning(config: Any, field: dataclasses.Field[Any], several: bool) -> tuple[str, ...]:
    known = setting_of(field)
    text = known.help if known else ""
    text += f"; auto: {known.auto}" if known and known.auto else ""
    hint = typing.get_type_hints(config)[field.name]
    choices = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
    within = ", ".join(f"`{_code(choice)}`" for choice in choices) or range_text(config, field)
    cells = ("; ".join(part for part in (text, within) if part),) if several else (within, text)
    return tuple(cell.replace("|", "\\|") for cell in cells)


def _together(meanings: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """A setting's meaning, followed by any different meanings with the names of the agents that they are for."""
    first = next(iter(meanings.values()))
    others = [f"`{agent}`: {' '.join(cells)}" for agent, cells in meanings.items() if cells != first]
    return (*first[:-1], ". ".join([first[-1], *dict.fromkeys(others)]))


def _default(config: Any, name: str) -> str:
    found = {field.name: field.default for field in dataclasses.fields(config)}
    return f"`{_code(found[name])}`" if name in found else ""


def _code(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 100_000:
        return f"{value:_}"
    return repr(value)


def blocks(text: str) -> Sequence[str]:
    """The contents of a page's markers."""
    return [match[2] for match in TABLE.finditer(text)]


if __name__ == "__main__":
    main()
