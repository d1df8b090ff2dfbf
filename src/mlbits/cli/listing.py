"""``mlbits list [WHAT]``."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import tyro

from mlbits.envs.core.errors import UnknownIdError
from mlbits.selfplay.runs.command_line import read_flags


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListFlags:
    """List environments, agents, presets and evaluations.

    Attributes:
        what: "envs", "agents", "presets" or "evals"; None lists all.
    """

    what: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="WHAT")] = "all"


def parse(words: list[str]) -> Any:
    """The flags."""
    return read_flags(ListFlags, "mlbits list", words)


def command(words: list[str]) -> int:
    """List environments, agents, presets and evaluations."""
    flags = parse(words)
    from mlbits.agents import AGENTS
    from mlbits.envs.registry import registered
    from mlbits.evals import EVALS
    from mlbits.selfplay.runs.config import presets

    tables = {
        "envs": [(entry.id, entry.summary) for entry in registered().values()],
        "agents": [(name, entry.summary) for name, entry in AGENTS.items()],
        "presets": [(f"{agent} {env}", "") for agent, envs in presets().items() for env in envs],
        "evals": [(name, entry.summary) for name, entry in EVALS.items()],
    }
    if flags.what != "all" and flags.what not in tables:
        raise UnknownIdError("list", flags.what, tables)
    for what, rows in tables.items():
        if flags.what in ("all", what):
            print(f"{what}:" if flags.what == "all" else "", end="\n" if flags.what == "all" else "")
            width = max(len(name) for name, _ in rows)
            for name, summary in rows:
                print(f"  {name:<{width}}  {summary}".rstrip())
    return 0
