"""``mlbits tournament RUN... [BOT...]``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlbits.cli.printing import check_file, write_json
from mlbits.envs.core.trust import trusting_files
from mlbits.evals.tournament.config import TournamentFlags

if TYPE_CHECKING:
    from mlbits.selfplay.runs.env_flags import EnvFlags


def parse(words: list[str]) -> tuple[Any, EnvFlags]:
    """The flags and the environment's settings."""
    from mlbits.selfplay.runs.env_flags import read_with_env

    return read_with_env(TournamentFlags, "mlbits tournament", words)


def command(words: list[str]) -> int:
    """Play a tournament and rate the agents."""
    flags, env_flags = parse(words)
    check_file("json", flags.json)
    from mlbits.evals.tournament.command import run_command
    from mlbits.selfplay.curves.progress import compilation_messages

    with trusting_files(flags.trust), compilation_messages():
        found = run_command(flags, env_flags.over(flags))
    write_json(flags.json, found)
    return 0
