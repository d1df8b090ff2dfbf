"""``mlbits list [WHAT]``, ``mlbits list --env ID`` and ``mlbits list --agent NAME``."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from mlbits.cli.printing import check_file, write_json
from mlbits.envs.core.config_fields import configuration, setting
from mlbits.envs.core.errors import UnknownIdError
from mlbits.envs.core.printing import printable
from mlbits.selfplay.runs.config import ConfigError

if TYPE_CHECKING:
    from mlbits.selfplay.runs.env_flags import EnvFlags


@configuration(ConfigError)
class ListFlags:
    """List environments, agents, presets and evaluations; or tell all about one environment or agent."""

    what: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="WHAT")] = setting(
        "all", "envs, agents, presets or evals; everything by default"
    )
    env: str = setting("", "tell all about this environment: spaces, rewards, settings, agents, optimum")
    agent: str = setting("", "tell all about this agent: spaces, settings, presets")
    picture: Path | None = setting(None, "write a picture of the environment to this file, as env.png")
    json: Path | None = setting(None, "write the description of the environment or agent to this file")


def parse(words: list[str]) -> tuple[Any, EnvFlags]:
    """The flags and the environment's settings."""
    from mlbits.selfplay.runs.env_flags import read_with_env

    return read_with_env(ListFlags, "mlbits list", words)


def command(words: list[str]) -> int:
    """List environments, agents, presets and evaluations."""
    flags, env_flags = parse(words)
    for name in ("picture", "json"):
        check_file(name, getattr(flags, name))
    if flags.env or flags.agent:
        return _one(flags, env_flags.over(flags))
    if flags.picture is not None or flags.json is not None:
        raise ConfigError("picture, json: are of one environment or agent; wanted mlbits list --env ID or --agent NAME")
    from mlbits.agents.registry import AGENTS
    from mlbits.envs.registry import registered
    from mlbits.evals.registry import EVALS
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


def _one(flags: Any, settings: dict[str, Any]) -> int:
    """Tell all about an environment, an agent, or one after the other."""
    if flags.what != "all":
        raise ConfigError(f"what: got {flags.what!r} and --env or --agent; wanted one of them")
    if flags.picture is not None and not flags.env:
        raise ConfigError("picture: an agent has none; wanted --env ID")
    from mlbits.evals.catalogue import agent_text, describe_agent, describe_env, draw_env, env_text
    from mlbits.selfplay.curves.progress import compilation_messages

    width, found = shutil.get_terminal_size((100, 24)).columns, {}
    with compilation_messages():
        if flags.env:
            found["env"] = describe_env(flags.env, settings)
            print(printable(env_text(found["env"], width), keep="\n"))
        if flags.picture is not None:
            draw_env(found["env"]["id"], settings, flags.picture)
            print(f"picture: {flags.picture}")
    if flags.agent:
        found["agent"] = describe_agent(flags.agent)
        print("\n" * bool(flags.env) + printable(agent_text(found["agent"], width), keep="\n"))
    write_json(flags.json, found)
    return 0
