"""``mlbits uci [RUN|BOT]``."""

from __future__ import annotations

from typing import Any

from mlbits.envs.core.trust import trusting_files
from mlbits.evals.play.config import UciFlags
from mlbits.selfplay.runs.command_line import read_flags


def parse(words: list[str]) -> Any:
    """The flags."""
    return read_flags(UciFlags, "mlbits uci", words)


def command(words: list[str]) -> int:
    """Be a chess engine."""
    flags = parse(words)
    from mlbits.evals.play.uci import serve

    with trusting_files(flags.trust):
        serve(flags)
    return 0
