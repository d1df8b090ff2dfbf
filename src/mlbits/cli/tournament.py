"""``mlbits tournament RUN... [BOT...]``."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from mlbits.cli.printing import check_file, write_json
from mlbits.evals.tournament.config import TournamentFlags
from mlbits.selfplay.runs.command_line import read_flags

if TYPE_CHECKING:
    from mlbits.selfplay.runs.env_flags import EnvFlags


def parse(words: list[str]) -> tuple[Any, EnvFlags]:
    """The flags, and those of the environment's settings."""
    from mlbits.selfplay.runs.env_flags import EnvFlags, find_env

    env_flags = EnvFlags(*find_env(words), words)
    flags_class = dataclasses.make_dataclass(
        "Tournament", [env_flags.field], bases=(TournamentFlags,), frozen=True, kw_only=True
    )
    flags_class.__doc__ = TournamentFlags.__doc__
    return read_flags(flags_class, "mlbits tournament", env_flags.words), env_flags


def command(words: list[str]) -> int:
    """Let agents meet and rate them."""
    flags, env_flags = parse(words)
    check_file("json", flags.json)
    from mlbits.evals.tournament.command import run_command
    from mlbits.selfplay.runs.progress import compiling_said

    with compiling_said():
        found = run_command(flags, env_flags.over(flags))
    write_json(flags.json, found)
    return 0
