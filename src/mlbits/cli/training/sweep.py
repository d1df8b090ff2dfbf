"""``mlbits sweep AGENT ENV --space FILE``."""

from __future__ import annotations

from typing import Any

from mlbits.envs.core.trust import trusting_files
from mlbits.evals.sweep.config import SweepFlags


def parse(words: list[str]) -> Any:
    """The settings of the trials, the folder asked for, whether to be quiet, and the sweep's own flags."""
    from mlbits.selfplay.runs.flags import read_sweep

    return read_sweep(words, SweepFlags)


def command(words: list[str]) -> int:
    """Search for good settings of an agent on an environment."""
    settings, out, quiet, flags = parse(words)
    from mlbits.evals.sweep.command import run_command
    from mlbits.selfplay.curves.progress import compilation_messages

    with trusting_files("--trust" in words), compilation_messages(not quiet):
        run_command(settings, flags, out, quiet=quiet)
    return 0
