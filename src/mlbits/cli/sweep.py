"""``mlbits sweep AGENT ENV --space FILE``."""

from __future__ import annotations

from mlbits.envs.core.trust import trusting_files
from mlbits.evals.sweep.config import SweepFlags


def command(words: list[str]) -> int:
    """Search for good settings of an agent on an environment."""
    from mlbits.selfplay.runs.flags import read_sweep

    settings, out, quiet, flags = read_sweep(words, SweepFlags)
    from mlbits.evals.sweep.command import run_command
    from mlbits.selfplay.curves.progress import compilation_messages

    with trusting_files("--trust" in words), compilation_messages(not quiet):
        run_command(settings, flags, out, quiet=quiet)
    return 0
